//! What workflows get to work with: the application's state, whole or in parts.

/// State of an application that was given none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAppState;

/// The state of a workflow that needs none: `Ctx` without a parameter. Such a workflow registers into
/// every application.
#[derive(Debug)]
pub struct NoState;

/// How a part of the state is taken from the whole, as in axum.
///
/// ```
/// # use segno::{Ctx, FromRef};
/// #[derive(Clone)]
/// struct Mailer;
/// #[derive(Clone)]
/// struct Shop { mail: Mailer }
///
/// impl FromRef<Shop> for Mailer {
///     fn from_ref(shop: &Shop) -> Self { shop.mail.clone() }
/// }
///
/// async fn remind(ctx: Ctx<Mailer>, to: String) -> segno::Result<()> { Ok(()) }
/// # let _ = segno::Segno::named("shop").state(Shop { mail: Mailer }).workflow("remind", remind);
/// ```
#[diagnostic::on_unimplemented(
    message = "the application's state `{S}` does not provide `{Self}`",
    label = "a workflow here takes `Ctx<{Self}>`",
    note = "call `.state(..)` before `.workflow(..)`, or implement `FromRef<{S}>` for `{Self}`"
)]
pub trait FromRef<S> {
    /// Takes the part.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> T {
        state.clone()
    }
}

// `NoState` is deliberately not `Clone`, which keeps this from overlapping with the rule above.
impl<S> FromRef<S> for NoState {
    fn from_ref(_: &S) -> Self {
        NoState
    }
}
