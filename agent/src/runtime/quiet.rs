//! Whether anything here can still go on by itself, for tests that move the clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Runtime;
use crate::error::Result;
use crate::system_database::{DatabaseError, Scope};
use crate::transaction::from_database;

/// Looks that must find everything as it was before it is believed to stay so.
const LOOKS: u32 = 2;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

impl Runtime {
    /// Completes when every run here waits for time to pass or for something from outside, and nothing that
    /// could be taken from a queue is left there.
    pub(crate) async fn quiet(self: &Arc<Self>) {
        let mut unchanged = 0;
        while unchanged < LOOKS {
            let before = self.pulse();
            if !self.all_wait() {
                unchanged = 0;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let rounds = &self.rounds;
            let looks = (
                rounds.claims.next(),
                rounds.sweeps.next(),
                rounds.schedules.next(),
                rounds.arrivals.next(),
                rounds.completions.next(),
            );
            self.wake();
            self.schedules.notify_one();
            self.arrivals.look();
            tokio::join!(looks.0, looks.1, looks.2, looks.3, looks.4);
            tokio::time::sleep(PAUSE).await;
            let same = self.all_wait() && self.pulse() == before;
            unchanged = if same { unchanged + 1 } else { 0 };
        }
    }

    /// Changes whenever something happens to a run.
    fn pulse(&self) -> (u64, usize, usize) {
        let counters = self.recorder.counters();
        let written = counters.rows.load(Ordering::Acquire) + self.recorder.gate().passed();
        (
            written,
            self.running().len(),
            self.starting.load(Ordering::Acquire),
        )
    }

    fn all_wait(&self) -> bool {
        let now = self.clock().now_ms();
        self.starting.load(Ordering::Acquire) == 0
            && self.recorder.in_flight() == 0
            && !self.arrivals.any_due()
            && self
                .executions()
                .iter()
                .all(|execution| execution.only_waits(now))
    }

    /// The next instant at which something happens by itself, in epoch milliseconds.
    pub(crate) async fn next_event(&self) -> Result<Option<i64>> {
        let tick = self.next_tick.load(Ordering::Relaxed);
        let tick = Some(tick).filter(|tick| *tick != i64::MAX);
        let stored = self.next_stored_event().await.map_err(from_database)?;
        let events = [self.clock().next_timer(), tick]
            .into_iter()
            .flatten()
            .chain(stored);
        let now = self.clock().now_ms();
        Ok(events.filter(|at| *at > now).min())
    }

    /// Deadlines, ends of delays, and rate limits that let somebody in again.
    async fn next_stored_event(&self) -> Result<Vec<i64>, DatabaseError> {
        let db = &self.db.system;
        let scope = Scope::of(self.app_name());
        let now = self.clock().now_ms();
        let dates = db
            .sql("SELECT MIN(workflow_deadline_epoch_ms) AS at FROM @workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')")
            .and_scope("application_name", &scope)
            .push(" UNION ALL SELECT MIN(delay_until_epoch_ms) FROM @workflow_status WHERE status = 'DELAYED'")
            .and_scope("application_name", &scope);
        let mut events = Vec::new();
        for row in db.read(dates).await? {
            events.extend(row.int("at")?);
        }
        for queue in db.list_queues(&scope).await? {
            let periods = [
                queue.rate_limit_period_sec,
                queue.partition_rate_limit_period_sec,
            ];
            for period in periods.into_iter().flatten() {
                let period_ms = (period * 1000.0) as i64;
                let oldest = db
                    .sql("SELECT MIN(started_at_epoch_ms) AS at FROM @workflow_status WHERE rate_limited = TRUE AND queue_name = ")
                    .bind(&queue.name)
                    .push(" AND started_at_epoch_ms > ")
                    .bind(now.saturating_sub(period_ms))
                    .push(" AND EXISTS (SELECT 1 FROM @workflow_status w WHERE w.status = 'ENQUEUED' AND w.queue_name = ")
                    .bind(&queue.name)
                    .push(")");
                let oldest = db.read(oldest).await?;
                let at = oldest
                    .first()
                    .map(|row| row.int("at"))
                    .transpose()?
                    .flatten();
                events.extend(at.map(|at| at.saturating_add(period_ms).saturating_add(1)));
            }
        }
        Ok(events)
    }

    /// Ends this runtime as a crash would, and starts another one on the same database with the same
    /// workflows, which recovers what was running.
    pub(crate) async fn crash(self: &Arc<Self>) -> Result<()> {
        let current = self.current().clone();
        current.stopping.cancel();
        let gate = crate::recorder::Gate::Counting(crate::recorder::Counting::new(None));
        let next = Self::launch_behind(
            gate,
            current.db.clone(),
            current.registry.clone(),
            current.identity.clone(),
        );
        // Whoever waits for a run goes on waiting there.
        let _ = current.successor.set(next.clone());
        current.kill();
        current.tasks.close();
        current.tasks.wait().await;
        current.db.system.settled().await.map_err(from_database)?;
        next.recover_own().await?;
        next.begin_work();
        Ok(())
    }
}
