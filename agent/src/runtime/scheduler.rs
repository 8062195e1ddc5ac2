//! Fires schedules. Every process of the application does; the id of a tick's run makes it one run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::{POLL, Runtime};
use crate::clock::Clock;
use crate::cron::{Ticks, text};
use crate::system_database::{DatabaseError, Dialect, ScheduleFilter, ScheduleRow, Scope};

/// How often schedules are looked at in any case; more often while an application starts, of which
/// several processes may be changing them.
const NET: Duration = Duration::from_secs(30);
const STARTING: Duration = Duration::from_secs(60);

/// A tick is fired up to this much of the wait for it late, so that processes do not all write at once.
const SPREAD: f64 = 0.1;
const MOST_SPREAD: Duration = Duration::from_secs(10);

/// A tick that could not be fired for longer than this is missed.
const MOST_LATE: Duration = Duration::from_secs(10);

/// A schedule and when it ticks next.
struct Ticker {
    row: ScheduleRow,
    ticks: Ticks,
    next: Option<DateTime<Utc>>,
    fire_at: DateTime<Utc>,
}

impl Ticker {
    /// Reckons the next tick after an instant.
    fn advance(&mut self, after: DateTime<Utc>, clock: &Clock) {
        self.next = self.ticks.after(after);
        if let Some(next) = self.next {
            let wait = (next - clock.now()).to_std().unwrap_or_default();
            let most = if clock.is_manual() {
                Duration::ZERO
            } else {
                MOST_SPREAD
            };
            let spread = wait.mul_f64(SPREAD).min(most);
            self.fire_at = next + spread.mul_f64(rand::random::<f64>());
        }
    }

    fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.next.is_some() && self.fire_at <= now
    }
}

pub(super) async fn run(runtime: Arc<Runtime>) {
    let begun = Instant::now();
    let mut tickers: HashMap<String, Ticker> = HashMap::new();
    let mut reconciled: Option<Instant> = None;
    loop {
        if runtime.stopping.is_cancelled() {
            return;
        }
        let round = runtime.rounds.schedules.begin();
        let local = runtime.db.system.dialect() == Dialect::Sqlite;
        let net = if local || begun.elapsed() < STARTING {
            POLL
        } else {
            NET
        };
        if reconciled.is_none_or(|at| at.elapsed() >= net) {
            match reconcile(&runtime, &mut tickers).await {
                Ok(()) => reconciled = Some(Instant::now()),
                Err(error) => {
                    tracing::debug!(%error, "could not read the schedules; trying again");
                    reconciled = None;
                }
            }
        }
        fire_due(&runtime, &mut tickers).await;
        let next = tickers
            .values()
            .filter(|ticker| ticker.next.is_some())
            .map(|ticker| ticker.fire_at)
            .min();
        let next = next.map_or(i64::MAX, |at| at.timestamp_millis());
        runtime.next_tick.store(next, Ordering::Relaxed);
        let until_next = if runtime.clock().is_manual() {
            net
        } else {
            runtime.clock().until(next)
        };
        drop(round);
        tokio::select! {
            () = runtime.stopping.cancelled() => return,
            () = runtime.schedules.notified() => reconciled = None,
            () = runtime.clock().moved() => {}
            () = tokio::time::sleep(until_next.min(net)) => {}
        }
    }
}

/// Adds tickers for new schedules, and replaces those whose schedule changed.
async fn reconcile(
    runtime: &Runtime,
    tickers: &mut HashMap<String, Ticker>,
) -> Result<(), DatabaseError> {
    let filter = ScheduleFilter {
        statuses: vec!["ACTIVE".to_owned()],
        scope: Scope::of(runtime.app_name()),
        ..ScheduleFilter::default()
    };
    let rows = runtime.db.system.list_schedules(&filter).await?;
    // Only workflows of this language: others write the same tick's id in another way.
    let rows: HashMap<String, ScheduleRow> = rows
        .into_iter()
        .filter(|row| {
            row.workflow_class_name.is_none() && runtime.registry.get(&row.workflow_name).is_some()
        })
        .map(|row| (row.schedule_id.clone(), row))
        .collect();
    tickers.retain(|id, ticker| rows.get(id).is_some_and(|row| same(row, &ticker.row)));
    for (id, row) in rows {
        if tickers.contains_key(&id) {
            continue;
        }
        match Ticks::parse(&row.schedule, row.cron_timezone.as_deref()) {
            Ok(ticks) => {
                backfill(runtime, &row).await?;
                let now = runtime.clock().now();
                let mut ticker = Ticker {
                    row,
                    ticks,
                    next: None,
                    fire_at: now,
                };
                ticker.advance(now, runtime.clock());
                tickers.insert(id, ticker);
            }
            Err(error) => {
                tracing::warn!(schedule = row.schedule_name, %error, "this schedule cannot be fired");
            }
        }
    }
    Ok(())
}

/// Whether nothing changed that matters for firing.
fn same(row: &ScheduleRow, other: &ScheduleRow) -> bool {
    let relevant = |row: &ScheduleRow| ScheduleRow {
        last_fired_at: None,
        ..row.clone()
    };
    relevant(row) == relevant(other)
}

/// Makes up for what was missed while nobody ticked.
async fn backfill(runtime: &Runtime, row: &ScheduleRow) -> Result<(), DatabaseError> {
    let last = row.last_fired_at.as_deref();
    let last = last.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let Some(last) = last.filter(|_| row.automatic_backfill) else {
        return Ok(());
    };
    let runs = runtime
        .db
        .system
        .backfill_schedule(
            &row.schedule_name,
            last.timestamp_millis(),
            runtime.clock().now_ms(),
            runtime.app_name(),
        )
        .await;
    match runs {
        Ok(runs) => {
            if !runs.is_empty() {
                tracing::info!(
                    schedule = row.schedule_name,
                    count = runs.len(),
                    "made up for missed ticks"
                );
                runtime.wake_all();
            }
            Ok(())
        }
        Err(DatabaseError::Invalid(reason)) => {
            tracing::warn!(
                schedule = row.schedule_name,
                reason,
                "missed ticks are not made up for"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn fire_due(runtime: &Runtime, tickers: &mut HashMap<String, Ticker>) {
    let now = runtime.clock().now();
    for ticker in tickers.values_mut().filter(|ticker| ticker.is_due(now)) {
        let Some(tick) = ticker.next else { continue };
        let fired = runtime
            .db
            .system
            .fire_schedule(&ticker.row, tick, runtime.app_name())
            .await;
        match fired {
            Ok(()) => {
                // Of ticks missed while the process stood still, only a schedule that wants it makes up.
                let earliest = if ticker.row.automatic_backfill {
                    tick
                } else {
                    now - MOST_LATE
                };
                ticker.advance(tick.max(earliest), runtime.clock());
                runtime.wake_all();
            }
            Err(error) => {
                tracing::warn!(schedule = ticker.row.schedule_name, tick = text(tick), %error, "could not fire; trying again");
                ticker.fire_at = now + POLL;
            }
        }
    }
}
