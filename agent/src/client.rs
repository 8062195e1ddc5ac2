//! Another process that starts and looks after workflows without running any.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::app::Segno;
use crate::error::Result;
use crate::payload::{Codec, Payloads};
use crate::runtime::{Identity, Runtime};
use crate::trace::{TraceContext, Tracing};
use crate::transaction::{Db, from_database};
use crate::workflow::Registry;

/// A process that starts workflows, sends to them, waits for them and manages them, but runs none. It can
/// do what [`Segno`] can, except start a workflow without a queue. Cheap to clone.
///
/// ```no_run
/// use segno::{Client, WorkflowRef};
///
/// // In a small crate both sides depend on.
/// const CHECKOUT: WorkflowRef<String, u64> = WorkflowRef::new("checkout");
///
/// # async fn example() -> segno::Result<()> {
/// let client = Client::connect("postgres://localhost/app").await?.application("shop");
/// let receipt = client.start(CHECKOUT, "cart-7".into()).id("checkout-7").queue("checkouts").await?.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Segno);

impl Client {
    /// Connects to the system database of an application, which must exist.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::on(&Db::connect(url).await?).await
    }

    /// A client of the system database behind these connections, whose tables must be up to date.
    pub async fn on(db: &Db) -> Result<Self> {
        db.system.verify().await.map_err(from_database)?;
        let identity = Identity {
            app_name: String::new(),
            executor_id: String::new(),
            app_version: String::new(),
            max_recovery_attempts: None,
            capacity: 0,
            listen_queues: None,
            retention: None,
            payloads: Payloads::default(),
            tracing: Tracing::default(),
        };
        let runtime = Runtime::launch(db.clone(), Registry::default(), identity);
        Ok(Self(Segno::new(runtime, true, None)))
    }

    /// The same connections under other settings.
    fn with(self, change: impl FnOnce(&mut Identity)) -> Self {
        let runtime = self.0.runtime();
        runtime.kill();
        let mut identity = runtime.identity().clone();
        change(&mut identity);
        let runtime = Runtime::launch(runtime.db.clone(), Registry::default(), identity);
        Self(Segno::new(runtime, true, None))
    }

    /// The application whose workflows are meant; needed where several share the database.
    pub fn application(self, name: impl Into<String>) -> Self {
        self.with(|identity| identity.app_name = name.into())
    }

    /// Encodes payloads as the application does; see [`Builder::codec`](crate::Builder::codec).
    pub fn codec(self, codec: impl Codec) -> Self {
        self.with(|identity| identity.payloads.codec = Some(Arc::new(codec)))
    }

    /// Runs go on with the trace they are started in; see [`Builder::trace_context`](crate::Builder::trace_context).
    pub fn trace_context(self, context: impl TraceContext) -> Self {
        self.with(|identity| identity.tracing = Tracing(Some(Arc::new(context))))
    }

    /// Closes the connections. What waits for a result is told.
    pub async fn close(self) {
        self.0.abort().await;
    }
}

impl Deref for Client {
    type Target = Segno;

    fn deref(&self) -> &Segno {
        &self.0
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("application", &self.0.name())
            .finish_non_exhaustive()
    }
}
