//! `#[step]`.

use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::meta::ParseNestedMeta;
use syn::{Error, Expr, FnArg, Ident, ItemFn, Lifetime, LitStr, Pat, Result, ReturnType, Type};

/// Options that are methods of a step, with one argument.
const METHODS: [&str; 7] = [
    "max_attempts",
    "interval",
    "backoff",
    "max_interval",
    "timeout",
    "retry_if",
    "retry",
];

#[derive(Default)]
pub(crate) struct Options {
    name: Option<LitStr>,
    calls: Vec<(Ident, Option<Expr>)>,
}

impl Options {
    pub(crate) fn parse(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let Some(option) = meta.path.get_ident().cloned() else {
            return Err(meta.error("a step's options are single words"));
        };
        if option == "name" {
            self.name = Some(meta.value()?.parse()?);
        } else if option == "preemptible" {
            self.calls.push((option, None));
        } else if METHODS.iter().any(|method| option == method) {
            self.calls.push((option, Some(meta.value()?.parse()?)));
        } else {
            let known = METHODS.join("`, `");
            return Err(meta.error(format!(
                "a step's options are `name`, `preemptible`, `{known}`"
            )));
        }
        Ok(())
    }
}

pub(crate) fn expand(options: Options, mut function: ItemFn) -> Result<Tokens> {
    check(&function)?;
    let attributes = std::mem::take(&mut function.attrs);
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let ident = function.sig.ident.clone();
    let name = options
        .name
        .map_or_else(|| ident.to_string(), |name| name.value());
    let mut outer = function.sig.clone();
    outer.asyncness = None;
    let lifetime: Lifetime = syn::parse_quote!('segno_step);
    outer
        .generics
        .params
        .insert(0, syn::parse_quote!(#lifetime));
    let arguments = name_arguments(&mut outer, &lifetime)?;
    let Some((ctx, values)) = arguments.split_first() else {
        return Err(Error::new_spanned(
            &function.sig,
            "the first argument of a step is `ctx: &Ctx<S>`",
        ));
    };
    let ReturnType::Type(_, result) = &function.sig.output else {
        return Err(Error::new_spanned(
            &function.sig,
            "a step returns a `Result`",
        ));
    };
    outer.output = syn::parse_quote! {
        -> ::segno::Step<
            #lifetime,
            <#result as ::segno::__private::StepResult>::Ok,
            <#result as ::segno::__private::StepResult>::Err,
        >
    };
    let body = format_ident!("{ident}_body");
    function.sig.ident = body.clone();
    let calls = options
        .calls
        .iter()
        .map(|(method, argument)| quote!(.#method(#argument)));
    Ok(quote! {
        #(#attributes)*
        #[must_use = "a step does nothing until it is awaited"]
        #visibility #outer {
            #function
            #ctx.try_step(#name, move || #body(#ctx, #(::std::clone::Clone::clone(&#values)),*))
                #(#calls)*
        }
    })
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(
            signature.fn_token,
            "a step is an `async fn`",
        ));
    }
    match signature.inputs.first() {
        Some(FnArg::Typed(ctx)) if matches!(*ctx.ty, Type::Reference(_)) => Ok(()),
        Some(FnArg::Receiver(receiver)) => Err(Error::new_spanned(
            receiver,
            "a step is a function, not a method; its first argument is `ctx: &Ctx<S>`",
        )),
        Some(other) => Err(Error::new_spanned(
            other,
            "the first argument of a step is `ctx: &Ctx<S>`",
        )),
        None => Err(Error::new_spanned(
            &signature.ident,
            "the first argument of a step is `ctx: &Ctx<S>`",
        )),
    }
}

/// Gives every reference among the arguments the step's lifetime, and every argument a name.
fn name_arguments(signature: &mut syn::Signature, lifetime: &Lifetime) -> Result<Vec<Ident>> {
    let mut names = Vec::new();
    for (index, input) in signature.inputs.iter_mut().enumerate() {
        let FnArg::Typed(argument) = input else {
            continue;
        };
        if let Type::Reference(reference) = &mut *argument.ty {
            if let Some(mutable) = &reference.mutability {
                let message = "a step may run again, so it cannot take `&mut`; take a value, or keep what changes in the state";
                return Err(Error::new_spanned(mutable, message));
            }
            reference.lifetime.get_or_insert_with(|| lifetime.clone());
        }
        let name = match &*argument.pat {
            Pat::Ident(pattern) => pattern.ident.clone(),
            _ => format_ident!("argument_{index}"),
        };
        *argument.pat = syn::parse_quote!(#name);
        names.push(name);
    }
    Ok(names)
}
