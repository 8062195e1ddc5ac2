//! A crash at every checkpoint.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{App, database, drop_schema, postgres};
use crate::app::Segno;
use crate::builder::Builder;
use crate::error::{Error, ErrorKind, Result};
use crate::manage::StepInfo;
use crate::recorder::{Counting, Side};
use crate::start::PendingStart;
use crate::transaction::Db;
use crate::workflow::{Target, TargetKey, encode_input};

/// The id of the run.
const ID: &str = "crash-everywhere";

/// Runs a workflow once without a crash, and then again and again: with a crash before each of its
/// checkpoints and one after, that is, with the process dead before it was written, and dead after it was
/// committed but before anybody learned that. Every run must record the same steps and come to the same
/// result, which is returned.
///
/// Every run has a database of its own, in memory; time passes by itself.
///
/// ```
/// use std::time::Duration;
/// use segno::{Ctx, Segno, testing};
///
/// async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
///     let line = ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).await?;
///     ctx.sleep(Duration::from_secs(3600)).await;
///     Ok(line)
/// }
///
/// # #[tokio::main]
/// # async fn main() -> segno::Result<()> {
/// let app = || Segno::named("test").workflow("hello", hello);
/// let line = testing::crash_everywhere(app, hello, "Ada".into()).await?;
/// assert_eq!(line, "Hello, Ada!");
/// # Ok(())
/// # }
/// ```
pub fn crash_everywhere<S, M, W>(
    app: impl Fn() -> Builder<S> + Send + Sync + 'static,
    workflow: W,
    input: W::Input,
) -> CrashEverywhere<S, W::Output>
where
    S: Send + Sync + 'static,
    W: Target<M>,
{
    let app = Arc::new(app);
    let app = move |_| {
        let app = app.clone();
        async move { Ok(app()) }
    };
    crash_everywhere_with(app, workflow, input)
}

/// As [`crash_everywhere`], for applications that need their database before they are launched: for their
/// tables, or for their transactions.
pub fn crash_everywhere_with<S, M, W, Fut>(
    app: impl Fn(Db) -> Fut + Send + Sync + 'static,
    workflow: W,
    input: W::Input,
) -> CrashEverywhere<S, W::Output>
where
    S: Send + Sync + 'static,
    W: Target<M>,
    Fut: Future<Output = Result<Builder<S>>> + Send + 'static,
{
    CrashEverywhere {
        app: Box::new(move |db| Box::pin(app(db))),
        workflow: workflow.key(),
        input: encode_input(&input),
        meanwhile: None,
        check: None,
        postgres: None,
        any_result: false,
        result: PhantomData,
    }
}

type Application<S> = Box<dyn Fn(Db) -> BoxFuture<'static, Result<Builder<S>>> + Send + Sync>;
type Outside = Box<dyn Fn(Segno, String) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// About to crash a workflow at every checkpoint; await it. See [`crash_everywhere`].
#[must_use = "nothing is tried until this is awaited"]
pub struct CrashEverywhere<S, R> {
    app: Application<S>,
    workflow: TargetKey,
    input: Result<String>,
    meanwhile: Option<Outside>,
    check: Option<Outside>,
    postgres: Option<String>,
    any_result: bool,
    result: PhantomData<fn() -> R>,
}

/// What a run came to.
struct Ran {
    steps: Vec<(i64, String)>,
    result: Result<Value>,
    checkpoints: u64,
}

impl<S, R> CrashEverywhere<S, R> {
    /// What happens outside while the workflow runs, such as sending it a message; given the application and
    /// the run's id. Time stands still until it is done. It is begun anew when the process crashes under it,
    /// so what it does must be idempotent.
    pub fn meanwhile<F, Fut>(mut self, outside: F) -> Self
    where
        F: Fn(Segno, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.meanwhile = Some(Box::new(move |app, id| Box::pin(outside(app, id))));
        self
    }

    /// Looks at the world after every run; an error ends the trials.
    pub fn check<F, Fut>(mut self, check: F) -> Self
    where
        F: Fn(Segno, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.check = Some(Box::new(move |app, id| Box::pin(check(app, id))));
        self
    }

    /// Every run has a schema of its own in this Postgres database, instead of a database in memory.
    pub fn on_postgres(mut self, url: impl Into<String>) -> Self {
        self.postgres = Some(url.into());
        self
    }

    /// The results need not be the same: they contain random ids, for example.
    pub fn any_result(mut self) -> Self {
        self.any_result = true;
        self
    }

    async fn trials(&self) -> Result<Result<Value>>
    where
        S: Send + Sync + 'static,
    {
        let first = self.trial(None).await?;
        for number in 0..first.checkpoints {
            for side in [Side::Before, Side::After] {
                let ran = self.trial(Some((number, side))).await;
                let place = match side {
                    Side::Before => format!("before checkpoint {number}"),
                    Side::After => format!("after checkpoint {number}"),
                };
                let ran = ran.map_err(|error| differs(&place, &error.to_string()))?;
                self.compare(&first, &ran)
                    .map_err(|what| differs(&place, &what))?;
            }
        }
        Ok(first.result)
    }

    fn compare(&self, first: &Ran, ran: &Ran) -> Result<(), String> {
        if first.steps != ran.steps {
            return Err(format!(
                "steps {:?} instead of {:?}",
                ran.steps, first.steps
            ));
        }
        match (&first.result, &ran.result) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) if self.any_result => Ok(()),
            (Ok(first), Ok(now)) if first == now => Ok(()),
            (Err(first), Err(now)) if first.kind() == now.kind() => Ok(()),
            (first, now) => Err(format!("it came to {now:?} instead of {first:?}")),
        }
    }

    async fn trial(&self, crash_at: Option<(u64, Side)>) -> Result<Ran> {
        let db = match &self.postgres {
            Some(url) => postgres(url).await?,
            None => database().await?,
        };
        let gate = Counting::new(crash_at);
        let builder = (self.app)(db.clone()).await?;
        let app = App::launch(builder, db.clone(), gate.clone()).await?;
        let mut crashed = false;
        let result = loop {
            tokio::select! {
                biased;
                () = gate.crashed(), if !crashed => {
                    crashed = true;
                    app.crash().await?;
                }
                result = self.run(&app) => break result?,
            }
        };
        let steps = |steps: Vec<StepInfo>| steps.into_iter().map(|step| (step.position, step.name));
        let steps = steps(app.steps(ID).await?).collect();
        if let Some(check) = &self.check {
            check(app.segno.clone(), ID.to_owned()).await?;
        }
        let checkpoints = gate.passed();
        drop(app);
        drop_schema(&db).await?;
        db.system.close().await;
        Ok(Ran {
            steps,
            result,
            checkpoints,
        })
    }

    /// Starts the run, or joins it, and lets time pass until it ends.
    async fn run(&self, app: &App) -> Result<Result<Value>> {
        let runtime = app.runtime().clone();
        let name = runtime.registry.resolve(&self.workflow);
        let start = PendingStart::<Value>::encoded(runtime, name, self.input.clone());
        let run = start.id(ID).await?;
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile(app.segno.clone(), ID.to_owned()).await?;
        }
        let pass = async {
            loop {
                app.idle().await;
                if !run.status().await?.is_active() {
                    // The result is on its way.
                    std::future::pending::<()>().await;
                }
                if !app.skip().await? {
                    return Err::<(), _>(app.stuck());
                }
            }
        };
        tokio::select! {
            result = run.result() => match result {
                // The process died: it is begun anew in the next one.
                Err(error) if *error.kind() == ErrorKind::ShuttingDown => std::future::pending().await,
                result => Ok(result),
            },
            stuck = pass => match stuck {
                Err(error) => Err(error),
                Ok(()) => Err(app.stuck()),
            },
        }
    }
}

fn differs(place: &str, what: &str) -> Error {
    Error::message(format!("with a crash {place}: {what}"))
}

impl<S, R> IntoFuture for CrashEverywhere<S, R>
where
    S: Send + Sync + 'static,
    R: DeserializeOwned + Send + 'static,
{
    type Output = Result<R>;
    type IntoFuture = BoxFuture<'static, Result<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let value = self.trials().await??;
            serde_json::from_value(value)
                .map_err(|error| Error::serialization("result of the workflow", error))
        })
    }
}

impl<S, R> fmt::Debug for CrashEverywhere<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashEverywhere").finish_non_exhaustive()
    }
}
