//! A test kit for plain `cargo test`: virtual time, crashes, and replays of recorded runs.
//!
//! ```
//! use std::time::Duration;
//! use segno::{Ctx, Segno, testing};
//!
//! async fn expense(ctx: Ctx, cents: u64) -> segno::Result<bool> {
//!     let approved = ctx.recv::<bool>("approval").timeout(Duration::from_secs(72 * 3600)).await;
//!     Ok(approved.unwrap_or(false))
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> segno::Result<()> {
//! let app = testing::launch(Segno::named("test").workflow("expense", expense)).await?;
//! let run = app.start(expense, 9900).id("expense-1").await?;
//! app.idle().await;                                      // it waits for its approval
//! app.crash().await?;                                    // the process dies; another one recovers it
//! app.advance(Duration::from_secs(73 * 3600)).await?;    // three days, at once
//! assert!(!run.await?);
//! # Ok(())
//! # }
//! ```
//!
//! Time stands still until a test moves it: sleeps, timeouts of waits and steps, waits between attempts,
//! deadlines, delays, schedules, rate limits and retention go by this clock, and so do all times in the
//! database.

mod crash;
mod replay;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::app::Segno;
use crate::builder::Builder;
use crate::clock;
use crate::error::{Error, Result};
use crate::recorder::{Counting, Gate};
use crate::runtime::Runtime;
use crate::system_database::{Options, SystemDatabase};
use crate::transaction::{Db, from_database};

pub use crash::{CrashEverywhere, crash_everywhere, crash_everywhere_with};
pub use replay::{Replayed, replay};

/// Where every test's time begins: 1 January 2026, midnight UTC, a Thursday; epoch milliseconds.
pub const START_MS: i64 = 1_767_225_600_000;

/// An empty database in memory whose time a test moves, for an application that needs its [`Db`] before it
/// is launched: give it to [`Builder::database`].
pub async fn database() -> Result<Db> {
    let system = SystemDatabase::connect("sqlite::memory:", Options::default()).await;
    prepare(system.map_err(from_database)?).await
}

/// As [`database`], in a new schema of this Postgres database, in which the application finds and makes its own
/// tables as well; [`drop_schema`] removes it.
pub async fn postgres(url: &str) -> Result<Db> {
    let options = Options {
        schema: format!("segno_test_{}", Uuid::new_v4().simple()),
        ..Options::default()
    };
    // The application's own tables go there, too.
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options[search_path]={}", options.schema);
    let system = SystemDatabase::connect(&url, options).await;
    prepare(system.map_err(from_database)?).await
}

/// Removes what [`postgres`] made. In any other database nothing happens.
pub async fn drop_schema(db: &Db) -> Result<()> {
    if db.is_sqlite() || !db.system.clock().is_manual() {
        return Ok(());
    }
    let schema = crate::system_database::quote_identifier(db.system.schema());
    let drop = db
        .system
        .sql(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
    db.system
        .write(drop)
        .await
        .map(|_| ())
        .map_err(from_database)
}

async fn prepare(system: SystemDatabase) -> Result<Db> {
    let prepared = async {
        system.migrate().await?;
        system.under_test_clock(START_MS).await
    };
    prepared.await.map(Db::of).map_err(from_database)
}

/// Launches an application for a test: on the database given to [`Builder::database`] if that was made by
/// [`database`] or [`postgres`], else on one in memory. Neither the environment nor a control plane is looked
/// at; version and executor id are `test` unless given.
pub async fn launch<S>(builder: Builder<S>) -> Result<App> {
    let db = match builder
        .open_database()
        .filter(|db| db.system.clock().is_manual())
    {
        Some(db) => db,
        None => database().await?,
    };
    App::launch(builder, db, Counting::new(None)).await
}

/// An application under test: a [`Segno`] whose time and life are in the test's hands.
pub struct App {
    segno: Segno,
}

impl App {
    async fn launch<S>(builder: Builder<S>, db: Db, gate: Arc<Counting>) -> Result<Self> {
        let runtime = builder.launch_for_test(Gate::Counting(gate), db).await?;
        Ok(Self {
            segno: Segno::new(runtime, false, None),
        })
    }

    fn runtime(&self) -> &Arc<Runtime> {
        self.segno.runtime()
    }

    /// The time of the test.
    pub fn now(&self) -> SystemTime {
        let now = u64::try_from(self.runtime().clock().now_ms()).unwrap_or(0);
        UNIX_EPOCH + Duration::from_millis(now)
    }

    /// Completes when all that can happen without time or somebody outside has happened: every run has
    /// ended, sleeps, or waits for another run, a message, an event or its next attempt, and nothing that may
    /// begin is left on a queue. Steps that run are waited for.
    pub async fn idle(&self) {
        self.runtime().quiet().await;
    }

    /// Lets time pass, from one thing that happens to the next, and waits until the application is idle.
    pub async fn advance(&self, duration: Duration) -> Result<()> {
        let runtime = self.runtime();
        let end = runtime
            .clock()
            .now_ms()
            .saturating_add(clock::millis(duration));
        loop {
            self.idle().await;
            match runtime.next_event().await? {
                Some(at) if at <= end => self.set(at).await?,
                _ => break,
            }
        }
        self.set(end).await?;
        self.idle().await;
        Ok(())
    }

    /// Lets time jump: nothing happens in between, and nothing is waited for. What was due is late, as after
    /// a machine was suspended.
    pub async fn jump(&self, duration: Duration) -> Result<()> {
        let now = self.runtime().clock().now_ms();
        self.set(now.saturating_add(clock::millis(duration))).await
    }

    async fn set(&self, now_ms: i64) -> Result<()> {
        let system = &self.runtime().db.system;
        system.move_clock(now_ms).await.map_err(from_database)
    }

    /// Lets time pass to the next thing that happens by itself; false if nothing will.
    async fn skip(&self) -> Result<bool> {
        match self.runtime().next_event().await? {
            Some(at) => self.set(at).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Ends the process, as far as the application can tell: everything in memory is dropped where it stands,
    /// and a new process of the same executor id recovers what is on record. Handles stay good.
    pub async fn crash(&self) -> Result<()> {
        self.runtime().crash().await
    }

    /// What the runs that have not ended wait for, for people.
    fn waits(&self) -> String {
        let runs = self.runtime().executions();
        let waits: Vec<String> = runs
            .iter()
            .map(|run| {
                let doing = run.doing().map(|call| call.waiting_on().text);
                let doing = doing.unwrap_or_else(|| "it does nothing durable".to_owned());
                format!("`{}`: {doing}", run.id())
            })
            .collect();
        waits.join("; ")
    }

    fn stuck(&self) -> Error {
        Error::misuse(format!(
            "nothing more happens by itself, and the run has not ended ({}); do the rest from outside, with `.meanwhile(..)`",
            self.waits()
        ))
    }
}

impl Deref for App {
    type Target = Segno;

    fn deref(&self) -> &Segno {
        &self.segno
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.runtime().kill();
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("App").field(&self.segno).finish()
    }
}
