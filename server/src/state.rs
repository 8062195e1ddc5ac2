//! What every request handler can reach.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::api::stream::Streams;
use crate::auth::Auth;
use crate::cluster::Peers;
use crate::config::Config;
use crate::hub::Hub;
use crate::policies::autoscaling::Loads;
use crate::policies::channels::Channels;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::applications::Applications;
use crate::{operations, recovery};

/// Handles to the server's parts. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The server's own database.
    pub store: Store,
    /// Connected executors.
    pub hub: Hub,
    /// The other instances on this store.
    pub peers: Peers,
    /// The recovery driver.
    pub recovery: recovery::Handle,
    /// Operations on many workflows.
    pub operations: operations::Handle,
    /// Who is calling, and what they may do.
    pub auth: Auth,
    /// Settings.
    pub config: Arc<Config>,
    /// The server's own metrics.
    pub metrics: Metrics,
    /// What applications did in the last minute.
    pub app_metrics: Applications,
    /// How deep queues are by which applications scale.
    pub loads: Loads,
    /// Where alerts go beside handlers.
    pub channels: Channels,
    /// Who follows how many streams of changes.
    pub streams: Streams,
    /// Cancelled when the server begins to shut down.
    pub shutdown: CancellationToken,
}
