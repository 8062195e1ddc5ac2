//! A hash of a function's code that comments, doc comments and formatting do not change.

use proc_macro2::{TokenStream as Tokens, TokenTree};
use quote::quote;
use syn::{Attribute, ItemFn};

/// FNV-1a over the function's tokens, doc attributes left out.
pub(crate) fn fingerprint(function: &ItemFn) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        fingerprint(&syn::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn only_code_counts() {
        let plain = of("async fn pay(ctx: Ctx, n: u32) -> Result<u32> { Ok(n + 1) }");
        let commented = of(
            "/// Pays.\nasync fn pay(\n    ctx: Ctx,\n    n: u32\n) -> Result<u32> {\n    // One more.\n    Ok(n + 1)\n}",
        );
        assert_eq!(plain, commented);
        assert_ne!(
            plain,
            of("async fn pay(ctx: Ctx, n: u32) -> Result<u32> { Ok(n + 2) }")
        );
    }

    #[test]
    fn the_borders_of_tokens_count() {
        let borders = |body: &str| of(&format!("async fn f() {{ a_macro! {{ {body} }} }}"));
        assert_ne!(borders("ab (c)"), borders("a (bc)"));
        assert_ne!(borders("(a) b"), borders("(a b)"));
    }
}
