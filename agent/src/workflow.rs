//! What may be a workflow, and how one is named.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::compensation;
use crate::context::Ctx;
use crate::error::{Error, ErrorKind, Result, short_type_name};
use crate::execution::Execution;
use crate::state::FromRef;

/// The serialization written by this crate: plain JSON, readable by every SDK.
pub(crate) const PORTABLE: &str = "portable_json";

/// The format if it is one that this crate cannot read: only plain JSON can be, under whatever name.
pub(crate) fn foreign(format: Option<&str>) -> Option<&str> {
    format.filter(|format| !matches!(*format, "" | PORTABLE | "rust_serde"))
}

/// An `async fn` that can be registered as a workflow: it takes a [`Ctx`] and one input and returns a
/// `Result`. Implemented for every function of that shape; there is nothing to implement by hand.
#[diagnostic::on_unimplemented(
    message = "this function cannot be a workflow",
    label = "not a workflow function",
    note = "a workflow is an `async fn(Ctx<S>, Input) -> Result<Output, E>` whose future is `Send`; \
            `Input` and `Output` must implement `Serialize` and `DeserializeOwned`, \
            and so must `E`, which is `segno::Error` or a type with `Display`"
)]
pub trait WorkflowFn<S, I>: Send + Sync + 'static {
    /// What the workflow yields.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// The error it may end with.
    type Error: WorkflowError;

    /// Calls the function.
    fn call(
        &self,
        ctx: Ctx<S>,
        input: I,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send + 'static;
}

impl<F, S, I, Fut, O, E> WorkflowFn<S, I> for F
where
    F: Fn(Ctx<S>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
    I: Serialize + DeserializeOwned + Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
    E: WorkflowError,
{
    type Output = O;
    type Error = E;

    fn call(&self, ctx: Ctx<S>, input: I) -> impl Future<Output = Result<O, E>> + Send + 'static {
        self(ctx, input)
    }
}

/// An error a workflow may return: [`Error`], or a type of the application that can be written as JSON,
/// so that [`Error::decode`] gives it back wherever the result is awaited.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a workflow",
    note = "a workflow's error is `segno::Error`, or a type that implements `std::error::Error`, `Serialize` and \
            `Deserialize`: it is recorded, and read again by whoever awaits the result"
)]
pub trait WorkflowError: Send + 'static {
    /// The form that is recorded.
    fn into_error(self) -> Error;
}

impl WorkflowError for Error {
    fn into_error(self) -> Error {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<E> WorkflowError for E
where
    E: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn into_error(self) -> Error {
        Error::typed(self)
    }
}

/// A workflow known only by its registered name and the types of its input and output: a contract that
/// another process or program can share. Accepted wherever a workflow function is.
///
/// ```
/// # use segno::WorkflowRef;
/// const CHECKOUT: WorkflowRef<u64, String> = WorkflowRef::new("checkout");
/// ```
pub struct WorkflowRef<I, O> {
    name: &'static str,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> WorkflowRef<I, O> {
    /// The workflow registered as `name`.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            types: PhantomData,
        }
    }

    /// The registered name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<I, O> Clone for WorkflowRef<I, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, O> Copy for WorkflowRef<I, O> {}

impl<I, O> fmt::Debug for WorkflowRef<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkflowRef").field(&self.name).finish()
    }
}

/// Marks a [`Target`] that is named by a [`WorkflowRef`].
#[derive(Debug)]
pub struct ByName;

/// What can be started: a registered workflow function or a [`WorkflowRef`]. `M` only keeps the two
/// apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "this is neither a workflow function nor a `WorkflowRef`",
    note = "start a workflow by the function it was registered with or by `WorkflowRef::<Input, Output>::new(\"name\")`"
)]
pub trait Target<M>: Sized {
    /// What the workflow takes.
    type Input: Serialize;
    /// What it yields.
    type Output: DeserializeOwned + Send + 'static;

    #[doc(hidden)]
    fn key(&self) -> TargetKey;
}

/// How a [`Target`] is looked up.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum TargetKey {
    /// By the function's own type.
    Function(TypeId, &'static str),
    /// By its registered name.
    Name(&'static str),
}

impl<F, S, I> Target<(S, I)> for F
where
    F: WorkflowFn<S, I>,
    I: Serialize,
{
    type Input = I;
    type Output = F::Output;

    fn key(&self) -> TargetKey {
        TargetKey::Function(TypeId::of::<F>(), std::any::type_name::<F>())
    }
}

impl<I, O> Target<ByName> for WorkflowRef<I, O>
where
    I: Serialize,
    O: DeserializeOwned + Send + 'static,
{
    type Input = I;
    type Output = O;

    fn key(&self) -> TargetKey {
        TargetKey::Name(self.name)
    }
}

/// A workflow's body, decoded input to encoded output.
type Body = BoxFuture<'static, Result<String>>;

/// Begins a body from a recorded input.
type Run = Box<dyn Fn(Arc<Execution>, &Input<'_>) -> Result<Body> + Send + Sync>;

/// A registered workflow, with its types erased.
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) fingerprint: Option<&'static str>,
    function: TypeId,
    run: Run,
}

/// A recorded input together with the name of its format.
pub(crate) struct Input<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) serialization: Option<&'a str>,
}

impl Registered {
    /// Erases `function`, whose part of the state is taken from `state` once.
    pub(crate) fn new<F, S, P, I>(
        name: String,
        fingerprint: Option<&'static str>,
        function: F,
        state: &S,
    ) -> Self
    where
        F: WorkflowFn<P, I>,
        P: FromRef<S> + Send + Sync + 'static,
        I: Serialize + DeserializeOwned + Send + 'static,
    {
        let part = Arc::new(P::from_ref(state));
        let run = move |execution: Arc<Execution>, input: &Input<'_>| -> Result<Body> {
            let input: I = decode_input(input)?;
            let body = function.call(Ctx::new(execution.clone(), part.clone()), input);
            let body: Body = Box::pin(async move {
                let output = match body.await {
                    Ok(output) => output,
                    Err(error) => {
                        compensation::run(&execution).await;
                        return Err(error.into_error());
                    }
                };
                serde_json::to_string(&output)
                    .map_err(|error| Error::serialization("workflow output", error))
            });
            Ok(body)
        };
        Self {
            name,
            fingerprint,
            function: TypeId::of::<F>(),
            run: Box::new(run),
        }
    }

    /// Starts the body; it runs when polled. An input that cannot be read is an error.
    pub(crate) fn body(&self, execution: Arc<Execution>, input: &Input<'_>) -> Result<Body> {
        (self.run)(execution, input)
    }
}

/// The workflows of this process.
#[derive(Default)]
pub(crate) struct Registry {
    by_name: HashMap<String, Registered>,
    by_function: HashMap<TypeId, String>,
}

impl Registry {
    /// Adds a workflow. Two workflows of one name, or one function under two names, are refused: the
    /// first could not be told apart in the database, the second not when started by function.
    pub(crate) fn add(&mut self, workflow: Registered) -> Result<()> {
        let name = workflow.name.clone();
        if name.trim().is_empty() {
            return Err(Error::config("workflow", "the name must not be empty"));
        }
        if let Some(other) = self.by_function.insert(workflow.function, name.clone()) {
            let message = format!(
                "one function is registered both as `{other}` and as `{name}`; keep one of them"
            );
            return Err(Error::config("workflow", message));
        }
        if self.by_name.insert(name.clone(), workflow).is_some() {
            let message =
                format!("two functions are registered as `{name}`; give them different names");
            return Err(Error::config("workflow", message));
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Registered> {
        self.by_name.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.by_name.values()
    }

    /// The registered name behind a start. A [`WorkflowRef`] may name what only other processes run.
    pub(crate) fn resolve(&self, key: &TargetKey) -> Result<String> {
        match key {
            TargetKey::Name(name) => Ok((*name).to_owned()),
            TargetKey::Function(id, type_name) => {
                self.by_function.get(id).cloned().ok_or_else(|| {
                    Error::new(ErrorKind::NotRegistered {
                        name: (*type_name).to_owned(),
                    })
                })
            }
        }
    }
}

/// Writes a workflow's input in the portable envelope: one positional argument.
pub(crate) fn encode_input<I: Serialize>(input: &I) -> Result<String> {
    let argument = serde_json::value::to_raw_value(input)
        .map_err(|error| Error::serialization("workflow input", error))?;
    Ok(format!(
        r#"{{"positionalArgs":[{}],"namedArgs":{{}}}}"#,
        argument.get()
    ))
}

/// The argument inside an input's envelope, as JSON text.
pub(crate) fn argument_text(text: &str) -> Result<String> {
    let envelope = serde_json::from_str(text)
        .map_err(|error| Error::serialization("workflow input", error))?;
    Ok(argument(envelope).to_string())
}

/// Reads an input: the portable envelope of any SDK, or bare JSON (`rust_serde` and unmarked rows).
fn decode_input<I: DeserializeOwned>(input: &Input<'_>) -> Result<I> {
    let fail = |error: &dyn fmt::Display| {
        Error::serialization(
            "workflow input",
            format!("cannot be read as `{}`: {error}", short_type_name::<I>()),
        )
    };
    let text = input.text.unwrap_or("null");
    match input.serialization {
        Some(PORTABLE) => {
            let envelope: Value = serde_json::from_str(text).map_err(|error| fail(&error))?;
            I::deserialize(argument(envelope)).map_err(|error| fail(&error))
        }
        None | Some("" | "rust_serde") => serde_json::from_str(text).map_err(|error| fail(&error)),
        Some(other) => Err(fail(&format_args!(
            "its format `{other}` belongs to another language"
        ))),
    }
}

/// The one argument inside an envelope: the first positional one, else the named ones as an object.
fn argument(envelope: Value) -> Value {
    let Value::Object(mut fields) = envelope else {
        return envelope;
    };
    let positional = fields.remove("positionalArgs");
    let named = fields.remove("namedArgs");
    match (positional, named) {
        (None, None) => Value::Object(fields),
        (Some(Value::Array(mut arguments)), _) if arguments.len() == 1 => arguments.remove(0),
        // Several positional arguments are what other languages' functions take; here they are a tuple.
        (Some(Value::Array(arguments)), _) if arguments.len() > 1 => json!(arguments),
        (_, Some(Value::Object(named))) if !named.is_empty() => Value::Object(named),
        _ => Value::Null,
    }
}
