//! A batch on Postgres: one statement, so one round trip and one commit. First the quick one (see `quick`, and `single` for
//! a single item); the careful one (see `statement`) where something is in its way, or for what the quick one cannot do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::quick::{self, Quick};
use super::single::{self, Single};
use super::statement::{
    EVENTS, MESSAGES, OUTCOMES, RECEIVES, RETURNS, STARTS, STEPS, STREAMS, fit, statement,
};
use super::{
    Effect, EffectWritten, Item, MessageRow, OutcomeRow, StartRow, StartWritten, StepRow,
    StepWritten, Work, Written,
};
use crate::clock::Clock;
use crate::system_database::SystemDatabase;

/// More than there are combinations of kinds, so that every statement stays prepared.
const STATEMENTS: usize = 512;

pub(super) struct Writer {
    options: PgConnectOptions,
    prefix: String,
    /// The database's clock as SQL.
    now: String,
    clock: Clock,
    db: SystemDatabase,
    /// The recorder's own connections that are not in use. Not from the pool, which checks a connection
    /// with a round trip whenever it is given back.
    idle: Mutex<Vec<PgConnection>>,
    statements: RwLock<HashMap<Form, Arc<str>>>,
}

/// Which statement: one for each set of kinds that was in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Single(single::Kind),
    Quick(usize),
    Careful(usize),
}

impl Writer {
    /// `pool` tells where to connect.
    pub(super) fn new(pool: &PgPool, db: &SystemDatabase) -> Self {
        Self {
            options: (*pool.connect_options())
                .clone()
                .statement_cache_capacity(STATEMENTS),
            prefix: db.prefix().to_owned(),
            now: db.now_sql().to_owned(),
            clock: db.clock().clone(),
            db: db.clone(),
            idle: Mutex::default(),
            statements: RwLock::default(),
        }
    }

    /// A connection on which batch statements are planned once and not for every batch, always by index:
    /// planning costs more than the writing, and statistics of a table that was small a moment ago must
    /// not lead to reading all of it. What such a plan costs by the planner's account says nothing, so it is never
    /// worth compiling: that would take up to a second of a processor for a statement of a millisecond.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let settings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; \
                        SET idle_in_transaction_session_timeout = '60s'";
        sqlx::raw_sql(settings).execute(&mut connection).await?;
        Ok(connection)
    }

    fn statement(&self, form: Form) -> Arc<str> {
        let known = self
            .statements
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&form)
            .cloned();
        known.unwrap_or_else(|| {
            let text = match form {
                Form::Single(kind) => single::statement(kind),
                Form::Quick(kinds) => quick::statement(kinds),
                Form::Careful(kinds) => statement(kinds),
            };
            let text: Arc<str> = fit(&text, &self.db)
                .replace("NOW_MS", &self.now)
                .replace('@', &self.prefix)
                .into();
            let mut statements = self
                .statements
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            statements.insert(form, text.clone());
            text
        })
    }

    pub(super) async fn write(
        &self,
        app: &str,
        items: &[Item],
    ) -> Result<Vec<Written>, sqlx::Error> {
        match self.without_looking(app, items).await {
            Ok(Some(answer)) => return self.complete(app, items, &answer).await,
            Ok(None) => {}
            // A row is there already: an earlier attempt's own, or somebody else's.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        self.careful(app, &items.iter().collect::<Vec<_>>()).await
    }

    /// Writes as if nothing were in the way. `None`: there is no such statement for these items.
    async fn without_looking(
        &self,
        app: &str,
        items: &[Item],
    ) -> Result<Option<quick::Answer>, sqlx::Error> {
        // These statements know the newer line only.
        if self.db.is_older_line() {
            return Ok(None);
        }
        if let Some(single) = Single::new(items) {
            let query = sqlx::query(AssertSqlSafe(self.statement(Form::Single(single.kind()))));
            let rows = self.run(single.bind(query, app)).await?;
            return Ok(Some(single.answer(!rows.is_empty())));
        }
        match Quick::new(items) {
            Some(quick) => self.quick(app, &quick).await.map(Some),
            None => Ok(None),
        }
    }

    async fn quick(&self, app: &str, quick: &Quick<'_>) -> Result<quick::Answer, sqlx::Error> {
        let query = sqlx::query(AssertSqlSafe(self.statement(Form::Quick(quick.kinds()))));
        let rows = self
            .run(quick.bind(query, app, self.clock.now_ms()))
            .await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        quick.answer(row)
    }

    /// The answers after the quick statement. Where it wrote fewer rows than there are items, the careful one
    /// tells for which, and why.
    async fn complete(
        &self,
        app: &str,
        items: &[Item],
        answer: &quick::Answer,
    ) -> Result<Vec<Written>, sqlx::Error> {
        let is_open = |item: &Item| match &item.work {
            Work::Start(_) => !answer.starts,
            Work::Step(_) => !answer.steps,
            _ => false,
        };
        let open: Vec<&Item> = items.iter().filter(|item| is_open(item)).collect();
        let mut found = if open.is_empty() {
            Vec::new()
        } else {
            self.careful(app, &open).await?
        }
        .into_iter();
        let answers: Option<Vec<Written>> = items
            .iter()
            .map(|item| {
                if is_open(item) {
                    found.next()
                } else {
                    written(&item.work, answer)
                }
            })
            .collect();
        answers.ok_or_else(unanswered)
    }

    async fn careful(&self, app: &str, items: &[&Item]) -> Result<Vec<Written>, sqlx::Error> {
        let sorted = Sorted::new(items);
        let query = sqlx::query(AssertSqlSafe(self.statement(Form::Careful(sorted.kinds()))));
        let rows = self
            .run(sorted.bind(query, app, self.clock.now_ms()))
            .await?;
        sorted.answers(items.len(), &rows)
    }

    async fn run(&self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        // Taken out while in use: dropped half-way or broken, it is not used again.
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await.map_err(not_connected)?,
        };
        let rows = query.fetch_all(&mut connection).await;
        if !rows.as_ref().is_err_and(super::is_away) {
            self.idle().push(connection);
        }
        rows
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that ends while it is being made shows as a garbled one. Only of a connection that stands can that be the
/// fault of what was sent over it.
fn not_connected(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Protocol(text) => sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::ConnectionAborted,
            text,
        )),
        other => other,
    }
}

fn is_conflict(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}

fn unanswered() -> sqlx::Error {
    sqlx::Error::Decode("the batch statement left an item unanswered".into())
}

/// What the quick statement says of an item that it wrote, or of an outcome.
fn written(work: &Work, answer: &quick::Answer) -> Option<Written> {
    Some(match work {
        Work::Start(row) => Written::Start(StartWritten::Row {
            mine: true,
            name: row.name.clone(),
            has_class: false,
            queue: row.queue.clone(),
        }),
        Work::Step(_) => Written::Step(StepWritten::Done),
        Work::Outcome(row) => {
            let done = answer.outcomes.as_ref();
            Written::Outcome(done.is_none_or(|done| done.contains(&row.workflow_id)))
        }
        Work::Effect(_) | Work::Send(_) => return None,
    })
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// One column of some rows, as an array parameter.
fn column<R, T>(rows: &[R], field: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}

/// A step in a batch.
#[derive(Clone, Copy)]
struct Step<'a> {
    index: usize,
    row: &'a StepRow,
    recorded: bool,
    effect: Option<&'a Effect>,
}

/// What belongs to the step with this number, counted from 1.
struct OfStep<T>(i64, T);

/// A message, the number of the item that sends it, and that of the step, if it is one.
struct Message<'a> {
    item: i64,
    step: Option<i64>,
    row: &'a MessageRow,
}

/// The items of a batch by kind, each with its place in the batch.
#[derive(Default)]
struct Sorted<'a> {
    starts: Vec<(usize, &'a StartRow)>,
    steps: Vec<Step<'a>>,
    outcomes: Vec<(usize, &'a OutcomeRow)>,
    events: Vec<OfStep<(&'a str, &'a str)>>,
    streams: Vec<OfStep<(&'a str, &'a str)>>,
    receives: Vec<OfStep<(&'a str, bool)>>,
    messages: Vec<Message<'a>>,
    returns: Vec<OfStep<i32>>,
    /// Places of the items that send, with and without a step.
    sends: Vec<usize>,
}

impl<'a> Sorted<'a> {
    fn new(items: &[&'a Item]) -> Self {
        let mut sorted = Self::default();
        for (index, item) in items.iter().enumerate() {
            match &item.work {
                Work::Start(row) => sorted.starts.push((index, &**row)),
                Work::Step(row) => sorted.steps.push(Step {
                    index,
                    row,
                    recorded: true,
                    effect: None,
                }),
                Work::Outcome(row) => sorted.outcomes.push((index, row)),
                Work::Effect(effect) => {
                    sorted.steps.push(Step {
                        index,
                        row: &effect.step,
                        recorded: effect.recorded,
                        effect: Some(&effect.effect),
                    });
                    sorted.effect(index, &effect.effect);
                }
                Work::Send(messages) => sorted.send(index, None, messages),
            }
        }
        sorted
    }

    /// The effect of the step that was added last.
    fn effect(&mut self, index: usize, effect: &'a Effect) {
        let step = number(self.steps.len());
        match effect {
            Effect::SetEvent { key, value } => self.events.push(OfStep(step, (key, value))),
            Effect::WriteStream { key, value } => self.streams.push(OfStep(step, (key, value))),
            Effect::Receive { topic, last } => self.receives.push(OfStep(step, (topic, *last))),
            Effect::Send(messages) => self.send(index, Some(step), messages),
            Effect::GiveBack(positions) => self
                .returns
                .extend(positions.iter().map(|position| OfStep(step, *position))),
        }
    }

    fn send(&mut self, index: usize, step: Option<i64>, messages: &'a [MessageRow]) {
        self.sends.push(index);
        let item = number(self.sends.len());
        let messages = messages.iter().map(|row| Message { item, step, row });
        self.messages.extend(messages);
    }

    /// Which kinds there are, as a set of bits.
    fn kinds(&self) -> usize {
        let bit = |empty: bool, bit: usize| if empty { 0 } else { bit };
        bit(self.starts.is_empty(), STARTS)
            | bit(self.steps.is_empty(), STEPS)
            | bit(self.outcomes.is_empty(), OUTCOMES)
            | bit(self.events.is_empty(), EVENTS)
            | bit(self.streams.is_empty(), STREAMS)
            | bit(self.receives.is_empty(), RECEIVES)
            | bit(self.messages.is_empty(), MESSAGES)
            | bit(self.returns.is_empty(), RETURNS)
    }

    /// Binds all parameters; statements that lack a kind do not look at its own.
    fn bind<'q>(&self, query: Query<'q>, app: &'q str, now: i64) -> Query<'q>
    where
        'a: 'q,
    {
        let query = bind_starts(query, &self.starts);
        let query = bind_steps(query, &self.steps);
        let query = bind_outcomes(query, &self.outcomes).bind(app).bind(now);
        let query = query
            .bind(column(&self.events, |of| of.0))
            .bind(column(&self.events, |of| of.1.0))
            .bind(column(&self.events, |of| of.1.1))
            .bind(column(&self.streams, |of| of.0))
            .bind(column(&self.streams, |of| of.1.0))
            .bind(column(&self.streams, |of| of.1.1))
            .bind(column(&self.receives, |of| of.0))
            .bind(column(&self.receives, |of| of.1.0))
            .bind(column(&self.receives, |of| of.1.1))
            .bind(column(&self.messages, |message| message.item))
            .bind(column(&self.messages, |message| message.step))
            .bind(column(&self.messages, |message| message.row.id.as_str()))
            .bind(column(&self.messages, |message| {
                message.row.destination.as_str()
            }))
            .bind(column(&self.messages, |message| message.row.topic.as_str()))
            .bind(column(&self.messages, |message| message.row.body.as_str()));
        bind_start_details(query, &self.starts)
            .bind(column(&self.returns, |of| of.0))
            .bind(column(&self.returns, |of| of.1))
    }

    /// The answers in the order of the batch.
    fn answers(&self, count: usize, rows: &[PgRow]) -> Result<Vec<Written>, sqlx::Error> {
        let mut answers: Vec<Option<Written>> =
            std::iter::repeat_with(|| None).take(count).collect();
        for row in rows {
            let kind: i32 = row.try_get("kind")?;
            let ordinal: i64 = row.try_get("ord")?;
            let nth = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
            let place = match kind {
                0 => self.starts.get(nth).map(|(index, _)| *index),
                1 => self.steps.get(nth).map(|step| step.index),
                2 => self.outcomes.get(nth).map(|(index, _)| *index),
                _ => self.sends.get(nth).copied(),
            };
            if let Some(answer) = place.and_then(|index| answers.get_mut(index)) {
                *answer = Some(self.answer_of(kind, nth, row)?);
            }
        }
        let answers: Option<Vec<Written>> = answers.into_iter().collect();
        answers.ok_or_else(unanswered)
    }

    fn answer_of(&self, kind: i32, nth: usize, row: &PgRow) -> Result<Written, sqlx::Error> {
        let owned: bool = row.try_get("owned")?;
        let text: Option<String> = row.try_get("text")?;
        Ok(match kind {
            0 => Written::Start(start_answer(owned, text, row)?),
            1 => {
                let written = step_answer(owned, row)?;
                match self.steps.get(nth).and_then(|step| step.effect) {
                    None => Written::Step(written),
                    Some(effect) => {
                        let received = matches!(effect, Effect::Receive { .. });
                        Written::Effect(effect_answer(written, received, text, row)?)
                    }
                }
            }
            2 => Written::Outcome(owned),
            _ => Written::Effect(match text {
                Some(destination) => EffectWritten::NoSuchWorkflow(destination),
                None => EffectWritten::Step(StepWritten::Done),
            }),
        })
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn start_answer(
    owned: bool,
    name: Option<String>,
    row: &PgRow,
) -> Result<StartWritten, sqlx::Error> {
    if !owned {
        return Ok(StartWritten::ParentNotOwner);
    }
    let mine: bool = row.try_get("mine")?;
    if !mine {
        return Ok(StartWritten::ParentTaken);
    }
    Ok(StartWritten::Row {
        mine: row.try_get("flag")?,
        name: name.unwrap_or_default(),
        has_class: row.try_get("has_class")?,
        queue: row.try_get("queue_name")?,
    })
}

fn step_answer(owned: bool, row: &PgRow) -> Result<StepWritten, sqlx::Error> {
    let mine: bool = row.try_get("mine")?;
    Ok(match (owned, mine) {
        (false, _) => StepWritten::NotOwner,
        (true, false) => StepWritten::Taken,
        (true, true) => StepWritten::Done,
    })
}

/// `flag` tells whether the step is on record now.
fn effect_answer(
    written: StepWritten,
    received: bool,
    text: Option<String>,
    row: &PgRow,
) -> Result<EffectWritten, sqlx::Error> {
    let on_record: bool = row.try_get("flag")?;
    Ok(match written {
        StepWritten::NotOwner => EffectWritten::Step(written),
        _ if received && !on_record => EffectWritten::NothingYet,
        StepWritten::Done if received => EffectWritten::Received {
            text: text.unwrap_or_else(|| "null".to_owned()),
        },
        _ if !received && text.is_some() => EffectWritten::NoSuchWorkflow(text.unwrap_or_default()),
        written => EffectWritten::Step(written),
    })
}

fn bind_starts<'q>(query: Query<'q>, rows: &[(usize, &'q StartRow)]) -> Query<'q> {
    let parent = |row: &StartRow| row.parent.clone();
    query
        .bind(column(rows, |(_, row)| row.workflow_id.as_str()))
        .bind(column(rows, |(_, row)| row.status.as_str()))
        .bind(column(rows, |(_, row)| row.name.as_str()))
        .bind(column(rows, |(_, row)| row.inputs.as_str()))
        .bind(column(rows, |(_, row)| row.token.as_str()))
        .bind(column(rows, |(_, row)| row.queue.as_deref()))
        .bind(column(rows, |(_, row)| row.app_version.as_deref()))
        .bind(column(rows, |(_, row)| row.executor_id.as_str()))
        .bind(column(rows, |(_, row)| row.timeout_ms))
        .bind(column(rows, |(_, row)| row.deadline_ms))
        .bind(column(rows, |(_, row)| row.delay_until_ms))
        .bind(column(rows, |(_, row)| row.priority))
        .bind(column(rows, |(_, row)| row.deduplication_id.as_deref()))
        .bind(column(rows, |(_, row)| row.partition_key.as_deref()))
        .bind(column(rows, |(_, row)| {
            parent(row).map(|parent| parent.workflow_id)
        }))
        .bind(column(rows, |(_, row)| {
            parent(row).map(|parent| parent.token)
        }))
        .bind(column(rows, |(_, row)| {
            parent(row).map(|parent| parent.position)
        }))
        .bind(column(rows, |(_, row)| {
            parent(row).map(|parent| parent.started_at)
        }))
}

/// What only some starts have.
fn bind_start_details<'q>(query: Query<'q>, rows: &[(usize, &'q StartRow)]) -> Query<'q> {
    query
        .bind(column(rows, |(_, row)| row.attributes.as_deref()))
        .bind(column(rows, |(_, row)| row.caller.user.as_deref()))
        .bind(column(rows, |(_, row)| row.caller.assumed_role.as_deref()))
        .bind(column(rows, |(_, row)| row.caller.roles.as_deref()))
        .bind(column(rows, |(_, row)| row.reject))
        .bind(column(rows, |(_, row)| row.application.as_deref()))
        .bind(column(rows, |(_, row)| row.schedule.as_deref()))
        .bind(column(rows, |(_, row)| row.debounce.is_some()))
        .bind(column(rows, |(_, row)| row.debounce.flatten()))
}

fn bind_steps<'q>(query: Query<'q>, steps: &[Step<'q>]) -> Query<'q> {
    query
        .bind(column(steps, |step| step.row.workflow_id.as_str()))
        .bind(column(steps, |step| step.row.token.as_str()))
        .bind(column(steps, |step| step.row.position))
        .bind(column(steps, |step| step.row.name.as_str()))
        .bind(column(steps, |step| step.row.started_at))
        .bind(column(steps, |step| step.row.completed_at))
        .bind(column(steps, |step| step.row.output.as_deref()))
        .bind(column(steps, |step| step.row.error.as_deref()))
        .bind(column(steps, |step| step.row.child.as_deref()))
        .bind(column(steps, |step| &*step.row.format))
        .bind(column(steps, |step| step.recorded))
}

fn bind_outcomes<'q>(query: Query<'q>, rows: &[(usize, &'q OutcomeRow)]) -> Query<'q> {
    query
        .bind(column(rows, |(_, row)| row.workflow_id.as_str()))
        .bind(column(rows, |(_, row)| row.token.as_str()))
        .bind(column(rows, |(_, row)| row.status.as_str()))
        .bind(column(rows, |(_, row)| row.output.as_deref()))
        .bind(column(rows, |(_, row)| row.error.as_deref()))
}
