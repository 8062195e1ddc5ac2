//! Attribute macros of the `segno` crate. They leave functions as they were written and only add to them.

use proc_macro::TokenStream;
use proc_macro2::{TokenStream as Tokens, TokenTree};
use quote::quote;
use syn::{Attribute, ItemFn, LitStr, parse_macro_input};

/// Gives a workflow function a stable name and a fingerprint of its code.
///
/// The function stays as it is. Beside it appears a module of the same name (modules and functions have
/// separate namespaces) with two constants: `NAME`, the function's name or the one given as
/// `#[workflow(name = "…")]`, and `FINGERPRINT`, a hash of the function's tokens. Comments, doc comments
/// and formatting do not count, so the application version that is computed from fingerprints changes
/// when the workflow's code does and not with every build.
///
/// `segno::workflows![checkout, orders::refund]` registers such functions by these names.
#[proc_macro_attribute]
pub fn workflow(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut name: Option<LitStr> = None;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("name") {
            name = Some(meta.value()?.parse()?);
            return Ok(());
        }
        Err(meta.error("the only argument is `name = \"…\"`"))
    });
    parse_macro_input!(arguments with parser);
    let function = parse_macro_input!(item as ItemFn);
    if function.sig.asyncness.is_none() {
        let error = syn::Error::new_spanned(function.sig.fn_token, "a workflow is an `async fn`");
        return error.to_compile_error().into();
    }
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let name = name.map_or_else(|| ident.to_string(), |name| name.value());
    let fingerprint = fingerprint(&function);
    let docs = format!("Name and code fingerprint of the workflow [`{ident}`](fn@{ident}).");
    quote! {
        #function

        #[doc = #docs]
        #visibility mod #ident {
            /// The name the workflow is registered under.
            pub const NAME: &str = #name;
            /// A hash of the workflow's code.
            pub const FINGERPRINT: &str = #fingerprint;
        }
    }
    .into()
}

/// FNV-1a over the function's tokens, doc attributes left out.
fn fingerprint(function: &ItemFn) -> String {
    let mut function = function.clone();
    let is_doc = |attribute: &Attribute| attribute.path().is_ident("doc");
    function.attrs.retain(|attribute| !is_doc(attribute));
    let mut hash = Fnv(Fnv::OFFSET);
    hash.tokens(quote!(#function));
    format!("{:032x}", hash.0)
}

struct Fnv(u128);

impl Fnv {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

    fn tokens(&mut self, tokens: Tokens) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    self.text(&format!("{:?}", group.delimiter()));
                    self.tokens(group.stream());
                    self.text("end");
                }
                other => self.text(&other.to_string()),
            }
        }
    }

    /// Adds a text and its end, so that `ab` `c` differs from `a` `bc`.
    fn text(&mut self, text: &str) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(PRIME);
        }
    }
}
