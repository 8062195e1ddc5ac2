//! Streams: lists that a run appends to and anybody reads while they grow.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::Segno;
use crate::context::Ctx;
use crate::error::{Error, Result};
use crate::execution::{Execution, Place, StepResult};
use crate::handle::Handle;
use crate::pending::durable_call;
use crate::recorder::Effect;
use crate::runtime::{Kind, Runtime};
use crate::status::Status;
use crate::system_database::{STREAM_CLOSED, Stored};
use crate::transaction::from_database;
use crate::underway::Doing;
use crate::workflow::foreign;

const WRITE: &str = "DBOS.writeStream";
const CLOSE: &str = "DBOS.closeStream";
const READ: &str = "DBOS.readStream";

/// Entries fetched at once.
const WINDOW: i64 = 100;

/// A reader looks this often in any case: for the end of the run, which nobody announces.
const NET: Duration = Duration::from_secs(1);

/// An entry about to be written; await it. See [`Ctx::write_stream`].
#[must_use = "nothing is written until this is awaited"]
pub struct WriteStream<'a>(BoxFuture<'a, ()>);

durable_call!(WriteStream<'a> -> ());

async fn write(
    execution: Arc<Execution>,
    place: Place,
    name: &'static str,
    key: String,
    value: Result<String>,
) {
    if let Place::Own(position) = place
        && execution.replay(position, name).await.is_some()
    {
        return;
    }
    let _active = execution.enter(place.own(), Doing::Checkpoint);
    let effect = match value {
        Ok(value) => Effect::WriteStream {
            key: key.clone(),
            value,
        },
        Err(error) => return execution.fail(error).await,
    };
    let written = execution
        .effect(place, name, execution.now_ms(), None, effect)
        .await;
    if let Err(error) = written {
        return execution.fail(error).await;
    }
    execution.runtime.wrote(Kind::Stream, execution.id(), &key);
}

/// Reads a stream from one entry to the next; made by [`Segno::read_stream`] or [`Ctx::read_stream`].
///
/// It ends when the stream is closed, or when its run has ended and all is read.
pub struct StreamReader<'a, T> {
    runtime: Arc<Runtime>,
    /// The workflow that reads; each entry is then a recorded step of it.
    execution: Option<&'a Arc<Execution>>,
    workflow_id: String,
    key: String,
    /// Of the entry to be fetched next.
    offset: i64,
    fetched: VecDeque<Stored>,
    ended: bool,
    entry: PhantomData<fn() -> T>,
}

impl<'a, T> StreamReader<'a, T> {
    fn new(
        runtime: Arc<Runtime>,
        execution: Option<&'a Arc<Execution>>,
        workflow_id: String,
        key: String,
    ) -> Self {
        Self {
            runtime,
            execution,
            workflow_id,
            key,
            offset: 0,
            fetched: VecDeque::new(),
            ended: false,
            entry: PhantomData,
        }
    }

    /// Begins with this entry, counted from 0. Before the first [`next`](Self::next).
    pub fn from(mut self, offset: u32) -> Self {
        self.offset = i64::from(offset);
        self
    }

    /// The next entry as stored, waiting for it; `None` at the end.
    async fn stored(&mut self) -> Result<Option<Stored>> {
        let runtime = self.runtime.clone();
        let mut arrivals = runtime
            .arrivals
            .register(Kind::Stream, &self.workflow_id, &self.key);
        let mut drained = false;
        while !self.ended {
            if let Some(mut entry) = self.fetched.pop_front() {
                self.ended = STREAM_CLOSED.contains(&entry.value.as_str());
                let payloads = self.runtime.payloads();
                entry.value = payloads.decode(std::mem::take(&mut entry.value)).await?;
                return Ok((!self.ended).then_some(entry));
            }
            let active = self.fetch().await?;
            if !self.fetched.is_empty() {
                continue;
            }
            // A run that has just ended may have written after the last look: look once more.
            self.ended = drained && !active;
            drained = !active;
            if active {
                let _ = tokio::time::timeout(NET, arrivals.arrived()).await;
            }
        }
        Ok(None)
    }

    /// Fetches what there is, up to a gap. Returns whether the run is active.
    async fn fetch(&mut self) -> Result<bool> {
        let entries = self
            .runtime
            .db
            .system
            .sql(
                "SELECT w.status, s.value, s.serialization, s.\"offset\" FROM @workflow_status w \
                 LEFT JOIN @streams s ON s.workflow_uuid = w.workflow_uuid AND s.key = ",
            )
            .bind(&self.key)
            .push(" AND s.\"offset\" >= ")
            .bind(self.offset)
            .push(" AND s.\"offset\" < ")
            .bind(self.offset.saturating_add(WINDOW))
            .push(" WHERE w.workflow_uuid = ")
            .bind(&self.workflow_id)
            .push(" ORDER BY s.\"offset\"");
        let rows = self.runtime.read_patiently(entries).await?;
        let Some(first) = rows.first() else {
            return Err(Error::not_found("workflow", &self.workflow_id));
        };
        let status: Status = first.required("status").map_err(from_database)?.parse()?;
        for row in &rows {
            if row.int("offset").map_err(from_database)? != Some(self.offset) {
                break;
            }
            self.fetched
                .push_back(Stored::read(row).map_err(from_database)?);
            self.offset += 1;
        }
        Ok(status.is_active())
    }
}

impl<T: DeserializeOwned> StreamReader<'_, T> {
    /// The next entry, waiting until there is one; `None` at the end of the stream.
    ///
    /// In a workflow it is a recorded step, so a recovered run reads the same.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is the asynchronous one, as in `StreamExt`"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<T>>> + Send + '_ {
        let position = self.execution.map(|execution| execution.take_position());
        async move {
            let stored = match (self.execution, position) {
                (Some(execution), Some(position)) => self.recorded(execution, position).await,
                _ => self.stored().await,
            };
            stored.and_then(|stored| self.decode(stored)).transpose()
        }
    }

    async fn recorded(
        &mut self,
        execution: &Arc<Execution>,
        position: Option<i32>,
    ) -> Result<Option<Stored>> {
        let (position, recorded) = execution.replay_or_misuse(position, READ).await;
        if let Some(recorded) = recorded {
            if let Some(error) = recorded.error {
                let value = serde_json::from_str(&error).unwrap_or(error.into());
                return Err(Error::from_portable(value));
            }
            let value = recorded.output.unwrap_or_else(|| "null".to_owned());
            self.ended = STREAM_CLOSED.contains(&value.as_str());
            self.offset += i64::from(!self.ended);
            let entry = Stored {
                value,
                serialization: None,
            };
            return Ok((!self.ended).then_some(entry));
        }
        let doing = Doing::Stream(self.workflow_id.clone(), self.key.clone());
        let _active = execution.enter(position, doing);
        let started_at = execution.now_ms();
        let stored = execution.unless_interrupted(self.stored()).await;
        let result = match &stored {
            Ok(Some(entry)) => StepResult::Output(entry.value.clone()),
            Ok(None) => StepResult::Output(STREAM_CLOSED[0].to_owned()),
            Err(error) => StepResult::Error(error.to_portable().to_string()),
        };
        let mut row = execution.step_row(position, READ, started_at, execution.now_ms(), result);
        if let Ok(Some(Stored {
            serialization: Some(format),
            ..
        })) = &stored
        {
            row.format = format.clone().into();
        }
        match execution.write(row).await {
            Ok(()) => stored,
            Err(error) => execution.fail(error).await,
        }
    }

    fn decode(&self, stored: Option<Stored>) -> Result<Option<T>> {
        let Some(stored) = stored else {
            return Ok(None);
        };
        let what = || format!("entry of stream `{}`", self.key);
        if let Some(format) = foreign(stored.serialization.as_deref()) {
            return Err(Error::serialization(
                &what(),
                format_args!("its format `{format}` belongs to another language"),
            ));
        }
        serde_json::from_str(&stored.value)
            .map(Some)
            .map_err(|error| Error::serialization(&what(), error))
    }
}

impl<T: DeserializeOwned + Send + 'static> StreamReader<'static, T> {
    /// As a [`Stream`], for combinators and servers of events.
    pub fn into_stream(self) -> impl Stream<Item = Result<T>> + Send {
        futures_util::stream::unfold(self, |mut reader| async {
            let entry = reader.next().await?;
            Some((entry, reader))
        })
    }
}

impl<T> fmt::Debug for StreamReader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("workflow_id", &self.workflow_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<S> Ctx<S> {
    /// Appends to a stream of this run: once from the workflow, and from inside a step whenever the step
    /// runs.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn count(ctx: Ctx, to: u32) -> segno::Result<()> {
    ///     for number in 0..to {
    ///         ctx.write_stream("numbers", &number).await;
    ///     }
    ///     ctx.close_stream("numbers").await;
    ///     Ok(())
    /// }
    /// ```
    pub fn write_stream<T: Serialize + ?Sized>(
        &self,
        key: impl Into<String>,
        value: &T,
    ) -> WriteStream<'_> {
        let key = key.into();
        let value = serde_json::to_string(value)
            .map_err(|error| Error::serialization(&format!("entry of stream `{key}`"), error));
        self.append(WRITE, key, value)
    }

    /// Ends a stream: readers that have read everything are told that nothing follows.
    pub fn close_stream(&self, key: impl Into<String>) -> WriteStream<'_> {
        self.append(CLOSE, key.into(), Ok(STREAM_CLOSED[0].to_owned()))
    }

    fn append(&self, name: &'static str, key: String, value: Result<String>) -> WriteStream<'_> {
        let execution = self.execution().clone();
        let place = execution.take_place();
        WriteStream(Box::pin(write(execution, place, name, key, value)))
    }

    /// Reads a stream of any run, one recorded entry after the other.
    ///
    /// ```
    /// # use segno::Ctx;
    /// async fn sum(ctx: Ctx, run: String) -> segno::Result<u32> {
    ///     let mut numbers = ctx.read_stream::<u32>(run, "numbers");
    ///     let mut sum = 0;
    ///     while let Some(number) = numbers.next().await {
    ///         sum += number?;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn read_stream<T: DeserializeOwned>(
        &self,
        workflow_id: impl Into<String>,
        key: impl Into<String>,
    ) -> StreamReader<'_, T> {
        let execution = self.execution();
        StreamReader::new(
            execution.runtime.clone(),
            Some(execution),
            workflow_id.into(),
            key.into(),
        )
    }
}

impl Segno {
    /// Reads a stream of a run, from its first entry unless told otherwise.
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// let mut lines = app.read_stream::<String>("import-7", "log");
    /// while let Some(line) = lines.next().await {
    ///     println!("{}", line?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_stream<T: DeserializeOwned>(
        &self,
        workflow_id: impl Into<String>,
        key: impl Into<String>,
    ) -> StreamReader<'static, T> {
        StreamReader::new(self.runtime().clone(), None, workflow_id.into(), key.into())
    }
}

impl<R> Handle<R> {
    /// Reads a stream of the run; see [`Segno::read_stream`].
    pub fn stream<T: DeserializeOwned>(&self, key: impl Into<String>) -> StreamReader<'static, T> {
        StreamReader::new(
            self.runtime().clone(),
            None,
            self.id().to_owned(),
            key.into(),
        )
    }
}
