//! Transactions in other databases than the system database.
//!
//! They cannot share a commit with the checkpoint. So the transaction itself leaves a record beside the
//! caller's writes, in a table of that database, under the run's id and the step's position: whoever
//! finds it there does not run the transaction again. The table is the one that the official SDKs
//! keep (`datasource_outputs`).

use std::borrow::Cow;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::clock;
use crate::error::{Error, Result};
use crate::execution::{Execution, Recorded, StepResult, in_step};
use crate::step::recall;
use crate::system_database::{Dialect, Options};
use crate::trace;
use crate::transaction::{Db, FIRST, Tx, from_database, is_away, is_contention};
use crate::underway::Doing;
use crate::workflow::PORTABLE;

/// A database that transactions can run in exactly once, though checkpoints are in another one; see
/// [`Ctx::transaction_in`](crate::Ctx::transaction_in).
///
/// [`Db`] is one. Implement it for another driver or another kind of database: all it takes are transactions
/// and a table of records whose key, workflow and step, is unique.
pub trait Datasource: Send + Sync {
    /// An open transaction, rolled back when it is dropped.
    type Tx: Send;

    /// Begins a transaction.
    fn begin(&self) -> impl Future<Output = Result<Self::Tx>> + Send;

    /// Commits a transaction. An error may mean that it was committed all the same.
    fn commit(&self, tx: Self::Tx) -> impl Future<Output = Result<()>> + Send;

    /// Rolls a transaction back.
    fn rollback(&self, tx: Self::Tx) -> impl Future<Output = ()> + Send;

    /// Reads what a committed transaction left behind.
    fn find(
        &self,
        key: &TransactionKey,
    ) -> impl Future<Output = Result<Option<TransactionRecord>>> + Send;

    /// Leaves a record in this transaction; false, and nothing written, if there is one of that key.
    fn insert(
        &self,
        tx: &mut Self::Tx,
        key: &TransactionKey,
        record: &TransactionRecord,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Whether a fresh transaction may succeed where this error came up: another one was in the way, or the
    /// database is away.
    fn is_transient(&self, error: &Error) -> bool;
}

/// An open transaction in the body that uses it; it is used as what it holds. `'a` is what the body borrows.
#[derive(Debug)]
pub struct Open<'a, T> {
    tx: T,
    // Invariant, so that `&'t mut Open<'a, T>` says that `'a` outlives `'t`: the body may borrow.
    borrows: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<T> Deref for Open<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.tx
    }
}

impl<T> DerefMut for Open<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.tx
    }
}

/// Which transaction: unique in a datasource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransactionKey {
    /// Id of the run.
    pub workflow_id: String,
    /// Position of the transaction in it.
    pub step: i32,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// What it yielded, encoded.
    pub output: Option<String>,
    /// The error it ended with, encoded. Its writes were rolled back.
    pub error: Option<String>,
    /// The format of both.
    pub serialization: Option<String>,
}

impl Db {
    /// Connects to a database that is not the system database, for [`Ctx::transaction_in`](crate::Ctx::transaction_in),
    /// and makes the table of records there if it is missing.
    ///
    /// ```no_run
    /// # async fn example() -> segno::Result<()> {
    /// let orders = segno::Db::connect_datasource("postgres://localhost/orders").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_datasource(url: &str) -> Result<Self> {
        let db = Self::connect_with(url, Options::default()).await?;
        let created = db.system.create_transaction_records().await;
        created.map_err(from_database)?;
        Ok(db)
    }

    /// Deletes records of transactions in this datasource that are older than this, and tells how many. A
    /// run that is still going on needs its own: keep them for longer than runs take.
    pub async fn forget_transactions(&self, older_than: Duration) -> Result<u64> {
        let delete = self
            .system
            .sql("DELETE FROM @datasource_outputs WHERE created_at < ")
            .push(self.system.dialect().now_ms())
            .push(" - ")
            .bind(clock::millis(older_than));
        self.system.write(delete).await.map_err(from_database)
    }
}

impl Datasource for Db {
    type Tx = Tx<'static>;

    async fn begin(&self) -> Result<Tx<'static>> {
        self.begin_transaction().await
    }

    async fn commit(&self, tx: Tx<'static>) -> Result<()> {
        tx.commit().await
    }

    async fn rollback(&self, tx: Tx<'static>) {
        tx.rollback().await;
    }

    async fn find(&self, key: &TransactionKey) -> Result<Option<TransactionRecord>> {
        let select = self
            .system
            .sql(
                "SELECT output, error, serialization FROM @datasource_outputs WHERE workflow_id = ",
            )
            .bind(&key.workflow_id)
            .push(" AND step_id = ")
            .bind(i64::from(key.step));
        let rows = match self.system.read(select).await {
            Err(error) if error.is_undefined_table() => {
                let message = "its table of transactions is missing; connect it with `Db::connect_datasource`, \
                               or once with a role that may create tables";
                return Err(Error::config("datasource", message));
            }
            rows => rows.map_err(from_database)?,
        };
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let text = |column| row.text(column).map_err(from_database);
        Ok(Some(TransactionRecord {
            output: text("output")?,
            error: text("error")?,
            serialization: text("serialization")?,
        }))
    }

    async fn insert(
        &self,
        tx: &mut Tx<'static>,
        key: &TransactionKey,
        record: &TransactionRecord,
    ) -> Result<bool> {
        let insert = self
            .system
            .sql("INSERT INTO @datasource_outputs (workflow_id, step_id, output, error, serialization, created_at) VALUES (")
            .bind(&key.workflow_id)
            .push(", ")
            .bind(i64::from(key.step))
            .push(", ")
            .bind(record.output.clone())
            .push(", ")
            .bind(record.error.clone())
            .push(", ")
            .bind(record.serialization.clone())
            .push(", ")
            .push(self.system.dialect().now_ms())
            .push(") ON CONFLICT (workflow_id, step_id) DO NOTHING");
        let inserted = tx.execute(insert).await.map_err(from_database)?;
        Ok(inserted == 1)
    }

    fn is_transient(&self, error: &Error) -> bool {
        is_contention(error) || is_away(error)
    }
}

impl Dialect {
    /// The table of records, as the official SDKs make it.
    pub(crate) fn transaction_records(self, prefix: &str) -> String {
        let (step, time) = match self {
            Self::Postgres => ("INT", "BIGINT"),
            Self::Sqlite => ("INTEGER", "INTEGER"),
        };
        let now = self.now_ms();
        format!(
            "CREATE TABLE IF NOT EXISTS {prefix}datasource_outputs (workflow_id TEXT NOT NULL, step_id {step} NOT NULL, \
             output TEXT, error TEXT, serialization TEXT, created_at {time} NOT NULL DEFAULT ({now}), \
             PRIMARY KEY (workflow_id, step_id))"
        )
    }
}

/// One transaction of a workflow in a datasource.
pub(crate) async fn drive<'a, D, T, F>(
    execution: Arc<Execution>,
    position: Option<i32>,
    source: &'a D,
    name: Cow<'static, str>,
    body: F,
) -> Result<T>
where
    D: Datasource,
    T: Serialize + DeserializeOwned + Send,
    F: for<'t> Fn(&'t mut Open<'a, D::Tx>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
{
    let (position, recorded) = execution.replay_or_misuse(position, &name).await;
    if let Some(recorded) = recorded {
        return recall(&execution, position, &name, recorded).await;
    }
    let _active = execution.enter(position, Doing::Step(name.clone()));
    let started_at = execution.now_ms();
    let call = Call {
        execution: &execution,
        source,
        key: TransactionKey {
            workflow_id: execution.id().to_owned(),
            step: position,
        },
        name: &name,
    };
    let span = trace::step_span(&execution, Some(position), &name);
    let outcome = call.attempts(&body).instrument(span.clone()).await;
    let recorded = match outcome {
        Ok(record) => {
            let recorded = Recorded {
                name: name.to_string(),
                output: record.output,
                error: record.error,
                child: None,
            };
            execution.readable(position, recorded).await
        }
        Err(error) => Recorded {
            name: name.to_string(),
            output: None,
            error: Some(error.to_portable().to_string()),
            child: None,
        },
    };
    let result = match (&recorded.error, &recorded.output) {
        (Some(error), _) => StepResult::Error(error.clone()),
        (None, Some(output)) => StepResult::Output(output.clone()),
        (None, None) => StepResult::Nothing,
    };
    if let Err(error) = execution.record(position, &name, started_at, result).await {
        return execution.fail(error).await;
    }
    let result = recall(&execution, position, &name, recorded).await;
    if let Err(error) = &result {
        trace::failed(&span, &execution, || Error::clone(error));
    }
    result
}

/// What the attempts of one transaction have in common.
struct Call<'c, D> {
    execution: &'c Execution,
    source: &'c D,
    key: TransactionKey,
    name: &'c str,
}

impl<D: Datasource> Call<'_, D> {
    /// Attempts until one does not fail for a reason that passes.
    async fn attempts<'a, T, F>(&self, body: &F) -> Result<TransactionRecord>
    where
        T: Serialize + Send,
        F: for<'t> Fn(&'t mut Open<'a, D::Tx>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        let mut backoff = Backoff::for_contention();
        loop {
            match self.attempt(body).await {
                Err(error) if self.source.is_transient(&error) => {
                    tracing::debug!(workflow_id = self.execution.id(), step = self.name, %error, "transaction runs again");
                    self.execution.unless_interrupted(backoff.wait()).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Finds the record of an earlier attempt, whoever made it, or makes one. An error that is not the body's
    /// leaves none.
    async fn attempt<'a, T, F>(&self, body: &F) -> Result<TransactionRecord>
    where
        T: Serialize + Send,
        F: for<'t> Fn(&'t mut Open<'a, D::Tx>) -> BoxFuture<'t, Result<T>> + Send + Sync + 'a,
    {
        if let Some(record) = self.source.find(&self.key).await? {
            return Ok(record);
        }
        let mut tx = Open {
            tx: self.source.begin().await?,
            borrows: PhantomData,
        };
        let value = in_step(Some(self.key.step), FIRST, || body(&mut tx)).await;
        let tx = tx.tx;
        match value {
            Ok(value) => {
                let output = serde_json::to_string(&value);
                let output = output.map_err(|error| Error::serialization(&self.what(), error))?;
                let record = self.record(StepResult::Output(output)).await?;
                self.commit(tx, record).await
            }
            Err(error) => {
                self.source.rollback(tx).await;
                if self.source.is_transient(&error) {
                    return Err(error);
                }
                // In a transaction of its own, so that a second executor of this run does not succeed meanwhile.
                let record = StepResult::Error(error.to_portable().to_string());
                let record = self.record(record).await?;
                let tx = self.source.begin().await?;
                self.commit(tx, record).await
            }
        }
    }

    /// Leaves the record and commits, or gives the one that was left before.
    async fn commit(&self, mut tx: D::Tx, record: TransactionRecord) -> Result<TransactionRecord> {
        if !self.source.insert(&mut tx, &self.key, &record).await? {
            self.source.rollback(tx).await;
            let found = self.source.find(&self.key).await?;
            return found.ok_or_else(|| {
                Error::config("datasource", "it refuses a record, but has none of its key")
            });
        }
        let gate = self.execution.runtime.recorder.gate();
        let pass = gate.enter().await;
        self.source.commit(tx).await?;
        gate.leave(pass).await;
        Ok(record)
    }

    /// The record of a result, under the application's rules for payloads.
    async fn record(&self, result: StepResult) -> Result<TransactionRecord> {
        let (mut output, mut error) = match result {
            StepResult::Output(output) => (Some(output), None),
            StepResult::Error(error) => (None, Some(error)),
            StepResult::Nothing => (None, None),
        };
        let payloads = self.execution.runtime.payloads();
        payloads
            .result(&mut output, &mut error, || self.what())
            .await?;
        Ok(TransactionRecord {
            output,
            error,
            serialization: Some(PORTABLE.to_owned()),
        })
    }

    fn what(&self) -> String {
        format!("output of transaction `{}`", self.name)
    }
}
