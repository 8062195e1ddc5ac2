//! The argument through which a workflow does everything durable.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::datasource::{Datasource, Open};
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{self, Execution};
use crate::start::{PendingRun, PendingStart, PendingStartAll};
use crate::state::NoState;
use crate::step::{Step, StepError};
use crate::transaction::{Db, Transaction, Tx};
use crate::workflow::Target;

/// What a workflow is given: the application's state and every durable operation.
///
/// Calls take their position in the workflow when they are *written*, not when they are first polled, so
/// `join!` and `try_join!` are safe. Between durable calls a workflow must be deterministic: anything
/// that may come out differently the next time (time, randomness, the network) belongs into a step.
///
/// Cancellation, shutdown and loss of ownership are never values: the engine drops the workflow's future
/// at its next durable call, destructors run, and no `Err(_) =>` can swallow it.
pub struct Ctx<S = NoState> {
    execution: Arc<Execution>,
    state: Arc<S>,
}

impl<S> Ctx<S> {
    pub(crate) fn new(execution: Arc<Execution>, state: Arc<S>) -> Self {
        Self { execution, state }
    }

    pub(crate) fn execution(&self) -> &Arc<Execution> {
        &self.execution
    }

    /// The application's state, or the part this workflow asked for.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The id of this run.
    pub fn workflow_id(&self) -> &str {
        self.execution.id()
    }

    /// The id of the executor that runs it now; another one after a recovery.
    pub fn executor_id(&self) -> &str {
        self.execution.runtime.executor_id()
    }

    /// The application version that runs it: the one it began under.
    pub fn app_version(&self) -> &str {
        self.execution.runtime.app_version()
    }

    /// The attributes this run was started with.
    pub fn attributes(&self) -> &Map<String, Value> {
        self.execution.attributes()
    }

    /// The user on whose behalf it runs, if its starter said so.
    pub fn authenticated_user(&self) -> Option<&str> {
        self.execution.caller().user.as_deref()
    }

    /// The roles of that user.
    pub fn authenticated_roles(&self) -> Vec<String> {
        let roles = self.execution.caller().roles.as_deref();
        roles
            .and_then(|roles| serde_json::from_str::<Option<_>>(roles).ok())
            .flatten()
            .unwrap_or_default()
    }

    /// An error ([`ErrorKind::NotAuthorized`](crate::ErrorKind::NotAuthorized)) unless the user on whose behalf
    /// the run was started has this role.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn refund(ctx: Ctx, order: String) -> segno::Result<()> {
    ///     ctx.require_role("support")?;
    ///     Ok(())
    /// }
    /// ```
    pub fn require_role(&self, role: &str) -> Result<()> {
        if self.authenticated_roles().iter().any(|own| own == role) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotAuthorized {
            role: role.to_owned(),
            user: self.authenticated_user().map(str::to_owned),
        }))
    }

    /// Set when the run is cancelled or taken over: for long work inside a step, which is not interrupted
    /// otherwise.
    pub fn cancellation_token(&self) -> CancellationToken {
        self.execution.cancellation_token()
    }

    /// Which attempt of a step this is, from 1; `None` outside of steps.
    ///
    /// ```
    /// # use segno::Ctx;
    /// # async fn call(endpoint: &str) -> segno::Result<u32> { Ok(1) }
    /// async fn quote(ctx: Ctx, _: ()) -> segno::Result<u32> {
    ///     let endpoints = ["https://a.example.com", "https://b.example.com"];
    ///     ctx.step("ask", || async {
    ///         let turn = ctx.attempt().unwrap_or(1) as usize - 1;
    ///         call(endpoints[turn % endpoints.len()]).await
    ///     })
    ///     .max_attempts(4)
    ///     .await
    /// }
    /// ```
    pub fn attempt(&self) -> Option<u32> {
        execution::current_attempt()
    }

    /// A step of code that blocks or keeps a processor busy: it runs on a thread for such work. It cannot be stopped:
    /// what runs out of its [`timeout`](Step::timeout) goes on to its end unnoticed.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn digest(ctx: Ctx, path: String) -> segno::Result<usize> {
    ///     ctx.blocking("read", move || Ok(std::fs::read(&path)?.len())).await
    /// }
    /// ```
    pub fn blocking<'a, T, F>(&'a self, name: impl Into<Cow<'static, str>>, work: F) -> Step<'a, T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Fn() -> Result<T> + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        self.step(name, move || {
            let work = work.clone();
            async move {
                match tokio::task::spawn_blocking(move || work()).await {
                    Ok(result) => result,
                    Err(stopped) => match stopped.try_into_panic() {
                        // It is the step's own, as if it had run here.
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(stopped) => Err(stopped.into()),
                    },
                }
            }
        })
    }

    /// Runs a piece of work whose result is recorded: after that it never runs again, before that it may
    /// (at least once). The body's error is [`segno::Error`](Error), into which every
    /// `std::error::Error` converts.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
    ///     ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).max_attempts(3).await
    /// }
    /// ```
    pub fn step<'a, T, F, Fut>(&'a self, name: impl Into<Cow<'static, str>>, body: F) -> Step<'a, T>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        F: Fn() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T>> + Send + 'a,
    {
        self.try_step(name, body)
    }

    /// A step whose body has an error type of its own. That error comes back as it is (also after a
    /// replay), to be matched on or used in [`Step::retry_if`].
    pub fn try_step<'a, T, E, F, Fut>(
        &'a self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Step<'a, T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        E: StepError,
        F: Fn() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        let position = self.execution.take_position();
        Step::new(self.execution.clone(), position, name.into(), body)
    }

    /// Runs a database transaction whose writes commit together with its checkpoint: exactly once. `db`
    /// must be the system database of this application; your tables live beside the engine's.
    ///
    /// The body may run again after a serialization failure or deadlock, each time in a fresh
    /// transaction. An error rolls its writes back and is recorded as the step's error.
    ///
    /// ```
    /// # use segno::{Ctx, Db};
    /// async fn book(ctx: Ctx<Db>, title: String) -> segno::Result<i64> {
    ///     ctx.transaction(ctx.state(), "add book", |tx| Box::pin(async {
    ///         let (id,): (i64,) = tx
    ///             .query("INSERT INTO books (title) VALUES ($1) RETURNING id")
    ///             .bind(&title)
    ///             .fetch_one()
    ///             .await?;
    ///         Ok(id)
    ///     }))
    ///     .await
    /// }
    /// ```
    pub fn transaction<'a, T, F>(
        &'a self,
        db: &Db,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Transaction<'a, T>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        F: for<'t> Fn(&'t mut Tx<'a>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        let position = self.execution.take_position();
        Transaction::new(
            self.execution.clone(),
            position,
            db.clone(),
            name.into(),
            body,
        )
    }

    /// As [`transaction`](Self::transaction), in another database than the system database: the result is left there
    /// in the same commit as the body's writes, and found again by whoever comes to this step once more.
    ///
    /// The body runs exactly once for each run and step, also where the run is rewound: what was committed in
    /// another database is not undone, and not done again.
    ///
    /// ```
    /// # use segno::{Ctx, Db};
    /// async fn order(ctx: Ctx<Db>, cart: String) -> segno::Result<()> {
    ///     // The state is what `Db::connect_datasource` gave.
    ///     ctx.transaction_in(ctx.state(), "order", move |tx| {
    ///         let cart = cart.clone();
    ///         Box::pin(async move {
    ///             tx.query("INSERT INTO orders (cart) VALUES ($1)").bind(cart).execute().await?;
    ///             Ok(())
    ///         })
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn transaction_in<'a, D, T, F>(
        &'a self,
        source: &'a D,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Transaction<'a, T>
    where
        D: Datasource,
        T: Serialize + DeserializeOwned + Send + 'a,
        F: for<'t> Fn(&'t mut Open<'a, D::Tx>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        let position = self.execution.take_position();
        Transaction::in_datasource(self.execution.clone(), position, source, name.into(), body)
    }

    /// Registers what undoes a step that succeeded. If the workflow ends with an error, what was registered runs,
    /// the last first, each as a step of its own with five attempts, before the error is recorded. What fails even
    /// then is logged and recorded, and the others run all the same.
    ///
    /// Cancellation undoes nothing: a cancelled run can be resumed.
    ///
    /// ```
    /// # use segno::Ctx;
    /// # async fn book(trip: u64) -> segno::Result<String> { Ok(String::new()) }
    /// # async fn cancel(booking: String) -> segno::Result<()> { Ok(()) }
    /// async fn travel(ctx: Ctx, trip: u64) -> segno::Result<()> {
    ///     let flight = ctx.step("book flight", || book(trip)).await?;
    ///     ctx.compensate("cancel flight", move || cancel(flight.clone()));
    ///     ctx.step("book hotel", || book(trip)).await?; // its error cancels the flight
    ///     Ok(())
    /// }
    /// ```
    pub fn compensate<F, Fut>(&self, name: impl Into<Cow<'static, str>>, undo: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.execution
            .compensations
            .add(name.into(), move || Box::pin(undo()));
    }

    /// Starts a child workflow; await it to get its handle. The child's id is this run's id and the
    /// call's position unless given, so a replay finds the same child.
    pub fn start<M, W: Target<M>>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> PendingStart<'_, W::Output> {
        let position = self.execution.take_position();
        PendingStart::child(self.execution.clone(), position, &workflow.key(), &input)
    }

    /// Starts a child workflow for each input, in as few commits as possible; await it for the handles, or
    /// [`results`](PendingStartAll::results).
    ///
    /// ```
    /// # use segno::Ctx;
    /// # async fn index_page(ctx: Ctx, url: String) -> segno::Result<usize> { Ok(url.len()) }
    /// async fn index_site(ctx: Ctx, urls: Vec<String>) -> segno::Result<usize> {
    ///     let pages = ctx.start_all(index_page, urls).queue("indexing").results().await;
    ///     Ok(pages.into_iter().filter_map(Result::ok).sum())
    /// }
    /// ```
    pub fn start_all<M, W: Target<M>>(
        &self,
        workflow: W,
        inputs: impl IntoIterator<Item = W::Input>,
    ) -> PendingStartAll<'_, W::Output> {
        let key = workflow.key();
        let starts = inputs.into_iter().map(|input| {
            let position = self.execution.take_position();
            PendingStart::child(self.execution.clone(), position, &key, &input)
        });
        PendingStartAll::new(starts.collect())
    }

    /// Starts a child workflow and waits for its result.
    pub fn run<M, W: Target<M>>(&self, workflow: W, input: W::Input) -> PendingRun<'_, W::Output> {
        let start = self.start(workflow, input);
        let position = self.execution.take_position();
        PendingRun::new(start, position)
    }
}

impl<S> fmt::Debug for Ctx<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx")
            .field("workflow_id", &self.workflow_id())
            .finish_non_exhaustive()
    }
}
