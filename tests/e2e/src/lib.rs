//! Harness of the end-to-end tests: real servers, executors and databases, and the means to hurt them.
//!
//! A test builds a [`Stage`], starts executors of the `checkout` example on it, kills what it likes and
//! asks the [`oracle`] what really happened, which reads the application's database and nothing else.

pub mod api;
pub mod database;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod stage;
pub mod stats;
pub mod wait;

pub use stage::Stage;
pub use wait::eventually;

/// Milliseconds since the epoch by this machine's clock, which everything under test shares.
pub fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// One test at a time: they measure, and each brings a fleet of its own.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}
