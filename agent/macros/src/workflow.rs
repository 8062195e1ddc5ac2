//! `#[workflow]`.

use proc_macro2::TokenStream as Tokens;
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, ItemFn, LitStr, Result, ReturnType, Type};

use crate::fingerprint::fingerprint;

const SHAPE: &str = "a workflow is `async fn(ctx: Ctx<S>, input: Input) -> Result<Output, Error>`";

#[derive(Default)]
pub(crate) struct Options {
    name: Option<LitStr>,
}

impl Options {
    pub(crate) fn parse(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if !meta.path.is_ident("name") {
            return Err(meta.error("the only argument is `name = \"…\"`"));
        }
        let name: LitStr = meta.value()?.parse()?;
        if name.value().trim().is_empty() {
            return Err(Error::new_spanned(name, "the name must not be empty"));
        }
        self.name = Some(name);
        Ok(())
    }
}

pub(crate) fn expand(options: Options, function: &ItemFn) -> Result<Tokens> {
    let (context, input) = arguments(function)?;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let name = options
        .name
        .map_or_else(|| ident.to_string(), |name| name.value());
    let fingerprint = fingerprint(function);
    let docs = format!("Name and code fingerprint of the workflow [`{ident}`](fn@{ident}).");
    let checks = checks(function, context, input);
    Ok(quote! {
        #function

        #[doc = #docs]
        #visibility mod #ident {
            /// The name the workflow is registered under.
            pub const NAME: &str = #name;
            /// A hash of the workflow's code.
            pub const FINGERPRINT: &str = #fingerprint;
        }

        #checks
    })
}

/// The types of the context and of the input.
fn arguments(function: &ItemFn) -> Result<(&Type, &Type)> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(
            signature.fn_token,
            "a workflow is an `async fn`",
        ));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let message =
            "a workflow is a function, not a method; what it needs comes with `ctx.state()`";
        return Err(Error::new_spanned(receiver, message));
    }
    if let ReturnType::Default = signature.output {
        return Err(Error::new_spanned(
            signature,
            format!("{SHAPE}; this one returns nothing"),
        ));
    }
    let types: Vec<&Type> = signature
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(input) => Some(&*input.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    match types[..] {
        [Type::Reference(context), _] => Err(Error::new_spanned(
            context,
            "a workflow takes its `Ctx` by value",
        )),
        [_, Type::Reference(input)] => {
            let message = "a workflow's input is a value: it is read from the database when the workflow is recovered";
            Err(Error::new_spanned(input, message))
        }
        [context, input] => Ok((context, input)),
        [_] => Err(Error::new_spanned(
            signature,
            format!("{SHAPE}; without an input, take `_: ()`"),
        )),
        [] => Err(Error::new_spanned(signature, SHAPE)),
        _ => {
            let message = format!("{SHAPE}; put several inputs into a tuple or a struct");
            Err(Error::new_spanned(&signature.inputs, message))
        }
    }
}

/// Assertions whose errors point at what is wrong. Not for generic functions, whose types are not known here.
fn checks(function: &ItemFn, context: &Type, input: &Type) -> Tokens {
    let signature = &function.sig;
    let ReturnType::Type(_, output) = &signature.output else {
        return Tokens::new();
    };
    if !signature.generics.params.is_empty() || function.block.stmts.is_empty() {
        return Tokens::new();
    }
    let ident = &signature.ident;
    let input_check =
        quote_spanned! {input.span()=> ::segno::__private::workflow_input::<#input>(); };
    let output_check =
        quote_spanned! {output.span()=> ::segno::__private::workflow_result::<#output>(); };
    let send_check =
        quote_spanned! {ident.span()=> ::segno::__private::workflow_future(#ident(ctx, input)); };
    quote! {
        const _: () = {
            #[allow(dead_code, unreachable_code, clippy::diverging_sub_expression)]
            fn check(ctx: #context, input: #input) {
                #input_check
                #output_check
                #send_check
            }
        };
    }
}
