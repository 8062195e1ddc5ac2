//! Debouncing: of many calls in a row, one run with the last call's input.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::app::Segno;
use crate::clock;
use crate::context::Ctx;
use crate::error::{Error, ErrorKind, Result};
use crate::execution::{Execution, Place, StepResult};
use crate::handle::Handle;
use crate::runtime::Runtime;
use crate::start::PendingStart;
use crate::step::recall;
use crate::system_database::{Bounce, Bounced, INTERNAL_QUEUE};
use crate::transaction::from_database;
use crate::underway::Doing;
use crate::workflow::{Target, TargetKey, encode_input};

const DEBOUNCE: &str = "DBOS.debounce";

/// Waits between two looks at a run that is just leaving its delay.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Starts a workflow a while after the last of many calls; made by [`Segno::debouncer`].
pub struct Debouncer<'a, I, O> {
    runtime: &'a Arc<Runtime>,
    /// The workflow that calls it: each call is then a recorded step of it.
    execution: Option<&'a Arc<Execution>>,
    workflow: TargetKey,
    max_wait: Option<Duration>,
    queue: String,
    types: PhantomData<fn(I) -> O>,
}

impl<I: serde::Serialize, O> Debouncer<'_, I, O> {
    /// However often it is called, the run starts this long after the first call.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Puts the runs on a queue.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queue = name.into();
        self
    }

    /// Starts the run of this key after `period`, or, if it waits already, gives it this input and lets it
    /// wait for `period` from now.
    pub fn debounce(
        &self,
        key: &str,
        period: Duration,
        input: I,
    ) -> impl Future<Output = Result<Handle<O>>> {
        let place = self.execution.map(|execution| execution.take_place());
        async move {
            let (Some(execution), Some(Place::Own(position))) = (self.execution, place) else {
                let id = self.bounce(key, period, input).await?;
                return Ok(Handle::new(self.runtime.clone(), id, None, None));
            };
            let parent = Some(execution.clone());
            if let Some(recorded) = execution.replay(position, DEBOUNCE).await {
                let id = recall::<String, Error>(execution, position, DEBOUNCE, recorded).await?;
                return Ok(Handle::new(self.runtime.clone(), id, parent, None));
            }
            let _active = execution.enter(position, Doing::Checkpoint);
            let started_at = execution.now_ms();
            let bounced = self.bounce(key, period, input).await;
            let recorded = match &bounced {
                Ok(id) => StepResult::Output(serde_json::Value::from(id.as_str()).to_string()),
                Err(error) => StepResult::Error(error.to_portable().to_string()),
            };
            let written = execution.record(position, DEBOUNCE, started_at, recorded);
            if let Err(error) = written.await {
                return execution.fail(error).await;
            }
            Ok(Handle::new(self.runtime.clone(), bounced?, parent, None))
        }
    }

    async fn bounce(&self, key: &str, period: Duration, input: I) -> Result<String> {
        self.runtime.accepting()?;
        let name = self.runtime.registry.resolve(&self.workflow)?;
        let bounce = Bounce {
            deduplication_id: format!("{name}-{key}"),
            queue: self.queue.clone(),
            workflow: name,
            period_ms: clock::millis(period),
            inputs: self
                .runtime
                .payloads()
                .encode_input(encode_input(&input)?)
                .await?,
        };
        let id = loop {
            let app = self.runtime.app_name();
            let bounced = self.runtime.db.system.bounce(&bounce, app).await;
            match bounced.map_err(from_database)? {
                Bounced::Pushed(id) => break id,
                Bounced::Nobody => {
                    if let Some(id) = self.start(&bounce, period, &input).await? {
                        break id;
                    }
                }
                Bounced::Leaving => tokio::time::sleep(LOOK_AGAIN).await,
                Bounced::Held => {
                    return Err(Error::new(ErrorKind::Deduplicated {
                        queue: bounce.queue,
                        deduplication_id: bounce.deduplication_id,
                    }));
                }
            }
        };
        Ok(id)
    }

    /// Starts a delayed run; `None` if somebody else did a moment before.
    async fn start(&self, bounce: &Bounce, period: Duration, input: &I) -> Result<Option<String>> {
        let wait = self.max_wait.map_or(period, |max| period.min(max));
        let start = PendingStart::<O>::top_level(self.runtime.clone(), &self.workflow, input);
        let end = self.max_wait.map(|max| {
            self.runtime
                .clock()
                .now_ms()
                .saturating_add(clock::millis(max))
        });
        let row = start.debounced(&bounce.queue, &bounce.deduplication_id, wait, end)?;
        let id = row.workflow_id.clone();
        match self.runtime.start(row).await {
            Ok(_) => Ok(Some(id)),
            Err(error) if matches!(error.kind(), ErrorKind::Deduplicated { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<I, O> fmt::Debug for Debouncer<'_, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debouncer").finish_non_exhaustive()
    }
}

impl<S> Ctx<S> {
    /// As [`Segno::debouncer`]; each call is a recorded step of this run.
    pub fn debouncer<M, W: Target<M>>(&self, workflow: W) -> Debouncer<'_, W::Input, W::Output> {
        Debouncer {
            runtime: &self.execution().runtime,
            execution: Some(self.execution()),
            workflow: workflow.key(),
            max_wait: None,
            queue: INTERNAL_QUEUE.to_owned(),
            types: PhantomData,
        }
    }
}

impl Segno {
    /// Starts a workflow once for many calls with the same key: a while after the last one, with its input.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn index(ctx: segno::Ctx, text: String) -> segno::Result<()> { Ok(()) }
    /// # async fn example(app: segno::Segno, text: String) -> segno::Result<()> {
    /// let indexing = app.debouncer(index).max_wait(Duration::from_secs(60));
    /// indexing.debounce("document-7", Duration::from_secs(5), text).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn debouncer<M, W: Target<M>>(&self, workflow: W) -> Debouncer<'_, W::Input, W::Output> {
        Debouncer {
            runtime: self.runtime(),
            execution: None,
            workflow: workflow.key(),
            max_wait: None,
            queue: INTERNAL_QUEUE.to_owned(),
            types: PhantomData,
        }
    }
}
