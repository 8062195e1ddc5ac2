//! Connections to the store, straight or through a transaction pooler.
//!
//! Behind a transaction pooler (PgBouncer and its kin) each transaction may run on another session of the
//! database. A statement that is prepared in one is unknown in the next, or, worse, somebody else's. sqlx
//! prepares before it executes, in two steps; so behind a pooler each statement is a transaction, and none
//! has a name. That costs two round trips a statement, and is done only where it was asked for.

use std::ops::{Deref, DerefMut};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use sqlx::any::{
    Any, AnyArguments, AnyPoolOptions, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo,
};
use sqlx::error::BoxDynError;
use sqlx::{AnyPool, Either, Error, Execute, Executor, SqlStr, Transaction};
use tokio::task::JoinHandle;

/// The store's connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: AnyPool,
    /// Whether a transaction pooler stands between.
    pooled: bool,
}

impl Pool {
    pub(super) async fn connect(
        options: AnyPoolOptions,
        to: sqlx::any::AnyConnectOptions,
        pooled: bool,
    ) -> Result<Self, Error> {
        let inner = options.connect_with(to).await?;
        Ok(Self { inner, pooled })
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The connections themselves, for whom a session is enough or does not matter.
    pub(super) fn inner(&self) -> &AnyPool {
        &self.inner
    }

    fn tx(&self, inner: Transaction<'static, Any>) -> Tx {
        let pooled = self.pooled;
        Tx(Connection { inner, pooled })
    }

    pub(super) async fn begin(&self) -> Result<Tx, Error> {
        let pool = self.inner.clone();
        let begun = tokio::spawn(async move { pool.begin().await });
        self.begun(begun).await
    }

    pub(super) async fn begin_with(&self, statement: &'static str) -> Result<Tx, Error> {
        let pool = self.inner.clone();
        let begun = tokio::spawn(async move { pool.begin_with(statement).await });
        self.begun(begun).await
    }

    /// In a task of its own: a caller that goes away before the answer is there, as a client that hangs up does, would
    /// leave a connection in the pool that nobody knows to be in a transaction (sqlx counts it once it is answered). What
    /// the next one writes over it seems committed, and is not.
    async fn begun(
        &self,
        task: JoinHandle<Result<Transaction<'static, Any>, Error>>,
    ) -> Result<Tx, Error> {
        let inner = task.await.unwrap_or(Err(Error::WorkerCrashed))?;
        Ok(self.tx(inner))
    }

    pub(super) async fn close(&self) {
        self.inner.close().await;
    }
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        if !self.pooled {
            return (&self.inner).fetch_many(query);
        }
        let pool = self.clone();
        let rows = async move {
            let mut tx = pool.begin().await?;
            let rows: Vec<_> = tx.fetch_many(query).try_collect().await?;
            tx.commit().await?;
            Ok(stream::iter(rows.into_iter().map(Ok)))
        };
        rows.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        if !self.pooled {
            return (&self.inner).fetch_optional(query);
        }
        let pool = self.clone();
        async move {
            let mut tx = pool.begin().await?;
            let row = tx.fetch_optional(query).await?;
            tx.commit().await?;
            Ok(row)
        }
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'p: 'e,
    {
        (&self.inner).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Any>, Error>>
    where
        'p: 'e,
    {
        (&self.inner).describe(sql)
    }
}

/// A transaction on the store. Dropping it rolls it back.
#[derive(Debug)]
pub struct Tx(Connection);

/// What statements of a transaction are executed on.
#[derive(Debug)]
pub struct Connection {
    inner: Transaction<'static, Any>,
    pooled: bool,
}

impl Tx {
    /// Makes what was done last.
    pub async fn commit(self) -> Result<(), Error> {
        self.0.inner.commit().await
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let pooled = self.pooled;
        (&mut *self.inner).fetch_many(Named { query, pooled })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let pooled = self.pooled;
        (&mut *self.inner).fetch_optional(Named { query, pooled })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'c: 'e,
    {
        (&mut *self.inner).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Any>, Error>>
    where
        'c: 'e,
    {
        (&mut *self.inner).describe(sql)
    }
}

/// A query whose statement gets no name behind a pooler.
struct Named<E> {
    query: E,
    pooled: bool,
}

impl<'q, E: Execute<'q, Any>> Execute<'q, Any> for Named<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&AnyStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<AnyArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        !self.pooled && self.query.persistent()
    }
}
