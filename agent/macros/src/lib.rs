//! Attribute macros of the `segno` crate. They leave the code that they are put on as it was written, and say
//! precisely what is wrong with it.

mod fingerprint;
mod step;
mod workflow;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Gives a workflow function a stable name and a fingerprint of its code, and checks it where it is written.
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
    let mut options = workflow::Options::default();
    let parser = syn::meta::parser(|meta| options.parse(&meta));
    parse_macro_input!(arguments with parser);
    let function = parse_macro_input!(item as syn::ItemFn);
    workflow::expand(options, &function)
        .unwrap_or_else(|error| refuse(&error, &function))
        .into()
}

/// Makes an `async fn` a step: called with the workflow's context it gives back a `Step`, which is recorded
/// under the function's name and can be refined, joined and awaited like any other.
///
/// The first argument is `ctx: &Ctx<S>`. The others are references, or values that are cloned for each
/// attempt. Options: `name = "…"`, `max_attempts = 5`, `interval = DURATION`, `backoff = 2.0`,
/// `max_interval = DURATION`, `timeout = DURATION`, `retry_if = FUNCTION`, `preemptible`.
#[proc_macro_attribute]
pub fn step(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut options = step::Options::default();
    let parser = syn::meta::parser(|meta| options.parse(&meta));
    parse_macro_input!(arguments with parser);
    let function = parse_macro_input!(item as syn::ItemFn);
    step::expand(options, function.clone())
        .unwrap_or_else(|error| refuse(&error, &function))
        .into()
}

/// The error, and the function as it was written: what uses it, and what it uses, is not to be complained of, too.
fn refuse(error: &syn::Error, function: &syn::ItemFn) -> proc_macro2::TokenStream {
    let error = error.to_compile_error();
    quote::quote! {
        #error
        #[allow(unused)]
        #function
    }
}
