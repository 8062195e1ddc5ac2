//! What really happened, read from the applications' databases; the engines and Segno are not asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context;
use segno_e2e::api::Recovery;
use sqlx::{Connection, FromRow, PgConnection};
use tokio::time::{sleep, timeout};

use crate::callers::Done;
use crate::fleet::{Language, VERSIONS};
use crate::postgres::Postgres;
use crate::truth::{Life, Millis};
use crate::world::World;

/// The steps of an errand, in order.
const STEPS: [&str; 4] = ["first", "second", "settle", "third"];
/// Within this, and with everything else broken too, what is stranded must be shown. Work of one who died before it
/// connected is found by a sweep, which each instance makes once a minute, if it lives so long.
const SHOWN_WITHIN: Duration = Duration::from_secs(240);
/// A process's traces may be so late in what the harness notes about it.
const NOTICE: Millis = 150;

#[derive(Debug, FromRow)]
pub(crate) struct Effect {
    pub(crate) workflow_id: String,
    pub(crate) step: String,
    pub(crate) executor_id: String,
    app_version: String,
    pub(crate) at: Millis,
}

#[derive(Debug, FromRow)]
struct Row {
    workflow_uuid: String,
    status: String,
    application_version: Option<String>,
    forked_from: Option<String>,
}

#[derive(Debug, FromRow)]
struct Checkpoint {
    workflow_id: String,
    function_id: i32,
    step: String,
    at: Millis,
}

#[derive(Debug, FromRow)]
pub(crate) struct Change {
    pub(crate) workflow_id: String,
    old: Option<String>,
    pub(crate) new: String,
    pub(crate) at: Millis,
}

/// Everything one application left behind.
#[derive(Debug)]
pub(crate) struct Traces {
    language: Language,
    workflows: Vec<Row>,
    pub(crate) effects: Vec<Effect>,
    ledger: HashMap<String, i64>,
    submitted: BTreeSet<String>,
    pub(crate) changes: Vec<Change>,
    checkpoints: Vec<Checkpoint>,
    /// Checkpoints as they stand: position and name.
    recorded: HashMap<String, Vec<(i32, String)>>,
}

/// What was found. Everything but `late` and the counts must be empty.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Verdict {
    pub(crate) workflows: usize,
    pub(crate) forks: usize,
    pub(crate) executions_of_steps: usize,
    pub(crate) acknowledged: usize,
    /// Acknowledged and gone, or never over.
    pub(crate) lost: Vec<String>,
    /// Over, but not in success.
    pub(crate) failed: Vec<String>,
    /// Exactly-once effects and outcomes that were there twice, or not at all; checkpoints that were written twice.
    pub(crate) duplicated: Vec<String>,
    /// Steps that began although their checkpoint was there.
    pub(crate) after_checkpoint: Vec<String>,
    /// Work that was done under another version than it belongs to.
    pub(crate) wrong_version: Vec<String>,
    /// Histories with gaps or in another order.
    pub(crate) broken_history: Vec<String>,
    /// Mutations that happened more often than they were asked for, or were confirmed and did not happen.
    pub(crate) mutations: Vec<String>,
    /// Steps that were begun after their checkpoint by a process that had been stopped or cut off from its database
    /// just before: it could not know. At-least-once allows these.
    pub(crate) begun_unknowing: usize,
}

impl Traces {
    pub(crate) async fn read(postgres: &Postgres, language: Language) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(&postgres.url(language.database())).await?;
        let c = &mut connection;
        const MS: &str = "(EXTRACT(EPOCH FROM at) * 1000)::BIGINT AS at";
        let workflows = sqlx::query_as(
            "SELECT workflow_uuid, status, application_version, forked_from FROM dbos.workflow_status",
        );
        let effects = format!(
            "SELECT workflow_id, step, executor_id, app_version, {MS} FROM chaos.effects ORDER BY 5"
        );
        // When it was there for others to see, which is later than when it was written.
        let checkpoints = "SELECT workflow_id, function_id, step, (EXTRACT(EPOCH FROM \
            COALESCE(pg_xact_commit_timestamp(xmin), at)) * 1000)::BIGINT AS at FROM chaos.checkpoints";
        let changes = format!("SELECT workflow_id, old, new, {MS} FROM chaos.statuses");
        let ledger: Vec<(String, i64)> =
            sqlx::query_as("SELECT workflow_id, COUNT(*) FROM chaos.ledger GROUP BY 1")
                .fetch_all(&mut *c)
                .await?;
        let submitted: Vec<(String,)> = sqlx::query_as("SELECT workflow_id FROM chaos.submitted")
            .fetch_all(&mut *c)
            .await?;
        let rows: Vec<(String, i32, String)> = sqlx::query_as(
            "SELECT workflow_uuid, function_id, function_name FROM dbos.operation_outputs ORDER BY 1, 2",
        )
        .fetch_all(&mut *c)
        .await?;
        let mut recorded: HashMap<String, Vec<(i32, String)>> = HashMap::new();
        for (workflow, position, name) in rows {
            recorded.entry(workflow).or_default().push((position, name));
        }
        Ok(Self {
            language,
            workflows: workflows.fetch_all(&mut *c).await?,
            effects: sqlx::query_as(sqlx::AssertSqlSafe(effects))
                .fetch_all(&mut *c)
                .await?,
            ledger: ledger.into_iter().collect(),
            submitted: submitted.into_iter().map(|(id,)| id).collect(),
            changes: sqlx::query_as(sqlx::AssertSqlSafe(changes))
                .fetch_all(&mut *c)
                .await?,
            checkpoints: sqlx::query_as(checkpoints).fetch_all(&mut *c).await?,
            recorded,
        })
    }

    /// Judges everything; every workflow is expected to be over. `outside`: starts that the harness saw acknowledged.
    pub(crate) fn judge(
        &self,
        outside: &BTreeSet<String>,
        lives: &HashMap<String, Life>,
        done: &Done,
    ) -> Verdict {
        let mut verdict = Verdict {
            workflows: self.workflows.len(),
            forks: self
                .workflows
                .iter()
                .filter(|w| w.forked_from.is_some())
                .count(),
            executions_of_steps: self.effects.len(),
            acknowledged: self.submitted.len() + outside.len(),
            ..Verdict::default()
        };
        self.judge_ends(outside, &mut verdict);
        self.judge_outcomes(&mut verdict);
        self.judge_executions(lives, &mut verdict);
        self.judge_versions(lives, &mut verdict);
        self.judge_histories(&mut verdict);
        self.judge_mutations(done, &mut verdict);
        verdict
    }

    fn judge_ends(&self, outside: &BTreeSet<String>, verdict: &mut Verdict) {
        let known: BTreeSet<&str> = self
            .workflows
            .iter()
            .map(|w| w.workflow_uuid.as_str())
            .collect();
        let gone = self.submitted.iter().chain(outside);
        let gone = gone.filter(|id| !known.contains(id.as_str()));
        verdict.lost.extend(gone.map(|id| format!("{id}: gone")));
        for workflow in &self.workflows {
            let line = format!("{}: {}", workflow.workflow_uuid, workflow.status);
            match workflow.status.as_str() {
                "SUCCESS" => {}
                "PENDING" | "ENQUEUED" | "DELAYED" => verdict.lost.push(line),
                _ => verdict.failed.push(line),
            }
        }
    }

    fn judge_outcomes(&self, verdict: &mut Verdict) {
        let mut begun: BTreeSet<&str> = BTreeSet::new();
        let mut ends: HashMap<&str, u64> = HashMap::new();
        for change in &self.changes {
            if change.old.is_none() {
                begun.insert(&change.workflow_id);
            }
            let was_over = change.old.as_deref().is_some_and(is_outcome);
            if is_outcome(&change.new) {
                *ends.entry(&change.workflow_id).or_default() += 1;
            } else if was_over {
                let line = format!(
                    "{}: {:?} became {}",
                    change.workflow_id, change.old, change.new
                );
                verdict.duplicated.push(line);
            }
        }
        for workflow in self.workflows.iter().filter(|w| w.status == "SUCCESS") {
            let id = workflow.workflow_uuid.as_str();
            let outcomes = ends.get(id).copied().unwrap_or_default();
            // One that began before anybody watched may have ended then, too.
            if outcomes > 1 || (outcomes == 0 && begun.contains(id)) {
                verdict
                    .duplicated
                    .push(format!("{id}: {outcomes} outcomes"));
            }
            let entries = self.ledger.get(id).copied().unwrap_or_default();
            if entries != 1 {
                verdict
                    .duplicated
                    .push(format!("{id}: {entries} entries in the ledger"));
            }
        }
        let mut written: BTreeMap<(&str, i32), u64> = BTreeMap::new();
        for each in &self.checkpoints {
            *written
                .entry((&each.workflow_id, each.function_id))
                .or_default() += 1;
        }
        let twice = written.iter().filter(|(_, n)| **n > 1);
        verdict.duplicated.extend(
            twice.map(|((id, position), n)| {
                format!("{id}: checkpoint {position} written {n} times")
            }),
        );
    }

    fn judge_executions(&self, lives: &HashMap<String, Life>, verdict: &mut Verdict) {
        let mut finished: HashMap<(&str, &str), Millis> = HashMap::new();
        for each in &self.checkpoints {
            let at = finished
                .entry((&each.workflow_id, &each.step))
                .or_insert(each.at);
            *at = each.at.min(*at);
        }
        let mut before: HashMap<(&str, &str), Millis> = HashMap::new();
        for effect in &self.effects {
            let who = (effect.workflow_id.as_str(), effect.executor_id.as_str());
            // The process's previous sign of life in this workflow.
            let since = before.insert(who, effect.at).unwrap_or(effect.at - 60_000);
            let Some(at) = finished.get(&(effect.workflow_id.as_str(), effect.step.as_str()))
            else {
                continue;
            };
            if effect.at <= *at || effect.step == "settle" {
                continue;
            }
            let knew = lives
                .get(&effect.executor_id)
                .is_none_or(|life| life.was_served(since - NOTICE, effect.at + NOTICE));
            if knew {
                verdict.after_checkpoint.push(format!(
                    "{} `{}` by {} {} ms after its checkpoint",
                    effect.workflow_id,
                    effect.step,
                    effect.executor_id,
                    effect.at - at
                ));
            } else {
                verdict.begun_unknowing += 1;
            }
        }
    }

    fn judge_versions(&self, lives: &HashMap<String, Life>, verdict: &mut Verdict) {
        let version: HashMap<&str, &str> = self
            .workflows
            .iter()
            .map(|w| {
                let id = w.workflow_uuid.as_str();
                // Whoever started it wrote the version into its id; a fork keeps its original's.
                let named = id.split('.').next().filter(|name| VERSIONS.contains(name));
                (
                    id,
                    named
                        .or(w.application_version.as_deref())
                        .unwrap_or_default(),
                )
            })
            .collect();
        for workflow in &self.workflows {
            let wanted = version.get(workflow.workflow_uuid.as_str()).copied();
            if workflow.application_version.as_deref() != wanted {
                verdict.wrong_version.push(format!(
                    "{}: it stands under {:?}",
                    workflow.workflow_uuid, workflow.application_version
                ));
            }
            let original = workflow
                .forked_from
                .as_deref()
                .and_then(|id| version.get(id));
            if original.is_some_and(|original| Some(*original) != wanted) {
                let line = format!("{}: forked into {wanted:?}", workflow.workflow_uuid);
                verdict.wrong_version.push(line);
            }
        }
        for effect in &self.effects {
            let life = lives.get(&effect.executor_id);
            let wanted = version.get(effect.workflow_id.as_str()).copied();
            let right = wanted == Some(effect.app_version.as_str())
                && life.is_some_and(|life| {
                    life.language == self.language && life.version == effect.app_version
                });
            // A process that died before its id was known is in nobody's list.
            if !right && (life.is_some() || wanted != Some(effect.app_version.as_str())) {
                verdict.wrong_version.push(format!(
                    "{} `{}`: executed by {} under {}, not {wanted:?}",
                    effect.workflow_id, effect.step, effect.executor_id, effect.app_version
                ));
            }
        }
    }

    fn judge_histories(&self, verdict: &mut Verdict) {
        let none = Vec::new();
        for workflow in &self.workflows {
            let history = self.recorded.get(&workflow.workflow_uuid).unwrap_or(&none);
            let names: Vec<&str> = history.iter().map(|(_, name)| name.as_str()).collect();
            let contiguous = history.windows(2).all(|two| two[1].0 == two[0].0 + 1)
                && history.first().is_none_or(|(first, _)| *first <= 1);
            let complete = workflow.status != "SUCCESS" || names.len() == STEPS.len();
            if !contiguous || !complete || !STEPS.starts_with(&names) {
                verdict
                    .broken_history
                    .push(format!("{}: {history:?}", workflow.workflow_uuid));
            }
        }
    }

    fn judge_mutations(&self, done: &Done, verdict: &mut Verdict) {
        let mut cancelled: HashMap<&str, u64> = HashMap::new();
        for change in &self.changes {
            if change.new == "CANCELLED" && change.old.as_deref() != Some("CANCELLED") {
                *cancelled.entry(&change.workflow_id).or_default() += 1;
            }
        }
        for (id, times) in cancelled {
            let asked = done.cancels.get(id).copied().unwrap_or_default();
            if times > asked {
                let line = format!("{id}: cancelled {times} times, asked {asked} times");
                verdict.mutations.push(line);
            }
        }
        let mut forked: HashMap<&str, u64> = HashMap::new();
        for workflow in &self.workflows {
            if let Some(original) = &workflow.forked_from {
                *forked.entry(original).or_default() += 1;
            }
        }
        for workflow in &self.workflows {
            let id = workflow.workflow_uuid.as_str();
            let there = forked.get(id).copied().unwrap_or_default();
            let (asked, confirmed) = done.forks.get(id).copied().unwrap_or_default();
            if there > asked || there < confirmed {
                verdict.mutations.push(format!(
                    "{id}: {there} forks, {asked} asked for, {confirmed} confirmed"
                ));
            }
        }
    }
}

fn is_outcome(status: &str) -> bool {
    ["SUCCESS", "ERROR"].contains(&status)
}

// ---- while it goes on ---------------------------------------------------------------------------

/// Workflows that run under an executor's name.
pub(crate) async fn running_under(
    postgres: &Postgres,
    language: Language,
    executor: &str,
) -> anyhow::Result<Vec<String>> {
    let ask = async {
        let mut connection = PgConnection::connect(&postgres.url(language.database())).await?;
        let sql = "SELECT workflow_uuid FROM dbos.workflow_status \
                   WHERE status = 'PENDING' AND executor_id = $1";
        let rows: Vec<(String,)> = sqlx::query_as(sql)
            .bind(executor)
            .fetch_all(&mut connection)
            .await?;
        anyhow::Ok(rows.into_iter().map(|(id,)| id).collect())
    };
    timeout(Duration::from_secs(2), ask).await?
}

/// Workflows that have not ended, and histories that have gaps just now.
pub(crate) async fn look(
    postgres: &Postgres,
    language: Language,
) -> anyhow::Result<(i64, Vec<String>)> {
    let ask = async {
        let mut connection = PgConnection::connect(&postgres.url(language.database())).await?;
        let (open,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM dbos.workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')",
        )
        .fetch_one(&mut connection)
        .await?;
        let gaps: Vec<(String,)> = sqlx::query_as(
            "SELECT o.workflow_uuid FROM dbos.operation_outputs o \
             JOIN dbos.workflow_status w USING (workflow_uuid) WHERE w.status NOT IN ('SUCCESS', 'ERROR') \
             GROUP BY 1 HAVING MAX(function_id) - MIN(function_id) + 1 <> COUNT(*) OR MIN(function_id) > 1",
        )
        .fetch_all(&mut connection)
        .await?;
        anyhow::Ok((open, gaps.into_iter().map(|(id,)| id).collect()))
    };
    timeout(Duration::from_secs(10), ask).await?
}

/// How many workflows that had begun at `by` are not over.
pub(crate) async fn still_open(
    postgres: &Postgres,
    language: Language,
    by: Millis,
) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(&postgres.url(language.database())).await?;
    let sql = "SELECT COUNT(*) FROM dbos.workflow_status w WHERE status NOT IN ('SUCCESS', 'ERROR') \
               AND NOT EXISTS (SELECT 1 FROM chaos.statuses s WHERE s.workflow_id = w.workflow_uuid \
               AND s.old IS NULL AND EXTRACT(EPOCH FROM s.at) * 1000 > $1)";
    let (open,): (i64,) = sqlx::query_as(sql)
        .bind(by)
        .fetch_one(&mut connection)
        .await?;
    Ok(open)
}

/// Ids of what was cancelled and not resumed a while ago: nobody is at it any more.
pub(crate) async fn cancelled(
    postgres: &Postgres,
    language: Language,
) -> anyhow::Result<Vec<String>> {
    let mut connection = PgConnection::connect(&postgres.url(language.database())).await?;
    let sql = "SELECT workflow_uuid FROM dbos.workflow_status WHERE status = 'CANCELLED' \
               AND updated_at < (EXTRACT(EPOCH FROM clock_timestamp()) - 10) * 1000";
    let rows: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Nobody of a version is left: sooner or later the API must report every executor that left work behind, and how
/// much.
pub(crate) async fn stranded_is_reported(
    world: &World,
    language: Language,
    version: &str,
) -> anyhow::Result<()> {
    let end = Instant::now() + SHOWN_WITHIN;
    loop {
        let (missing, by) = match timeout(SHOWN_WITHIN, unreported(world, language, version)).await
        {
            Ok(Ok(missing)) if missing.is_empty() => return Ok(()),
            Ok(Ok(missing)) => (missing.join(", "), end),
            // The application's database, or whoever was asked, is away just now.
            Ok(Err(error)) => (format!("{error:#}"), end + SHOWN_WITHIN),
            Err(_) => ("no answer".to_owned(), end),
        };
        anyhow::ensure!(
            Instant::now() < by,
            "{} {version}: {missing}",
            language.app()
        );
        sleep(Duration::from_millis(300)).await;
    }
}

async fn unreported(
    world: &World,
    language: Language,
    version: &str,
) -> anyhow::Result<Vec<String>> {
    let url = world.app_postgres.url(language.database());
    let mut connection = PgConnection::connect(&url).await?;
    let sql = "SELECT COALESCE(executor_id, ''), COUNT(*) FROM dbos.workflow_status \
               WHERE status = 'PENDING' AND application_version = $1 GROUP BY 1";
    let left: Vec<(String, i64)> = sqlx::query_as(sql)
        .bind(version)
        .fetch_all(&mut connection)
        .await?;
    let path = format!(
        "/v2/orgs/local/apps/{}/recoveries?status=STRANDED&appVersion={version}&limit=1000",
        language.app()
    );
    let (status, body) = world.api.call(reqwest::Method::GET, &path, None).await?;
    anyhow::ensure!(status.is_success(), "GET {path}: {status}");
    let records: Vec<Recovery> = serde_json::from_value(body).context("recoveries")?;
    let missing = left.into_iter().filter(|(executor, count)| {
        !records.iter().any(|record| {
            // It was counted when it was stranded; since then some may have been cancelled.
            &record.executor_id == executor
                && record.pending_workflows.is_none_or(|told| told >= *count)
        })
    });
    Ok(missing
        .map(|(executor, count)| format!("{count} of {executor}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces() -> Traces {
        let row = Row {
            workflow_uuid: "v1.outside.1".into(),
            status: "SUCCESS".into(),
            application_version: Some("v1".into()),
            forked_from: None,
        };
        let change = |old: Option<&str>, new: &str| Change {
            workflow_id: "v1.outside.1".into(),
            old: old.map(str::to_owned),
            new: new.into(),
            at: 0,
        };
        let numbered = STEPS.iter().zip(0..);
        let checkpoints = numbered.clone().map(|(step, n)| Checkpoint {
            workflow_id: "v1.outside.1".into(),
            function_id: n,
            step: (*step).into(),
            at: 100 * i64::from(n) + 50,
        });
        let effects = numbered
            .clone()
            .map(|(step, n)| effect(step, 100 * i64::from(n)));
        let history = numbered.clone().map(|(step, n)| (n, (*step).to_owned()));
        Traces {
            language: Language::Rust,
            workflows: vec![row],
            effects: effects.collect(),
            ledger: HashMap::from([("v1.outside.1".into(), 1)]),
            submitted: BTreeSet::from(["v1.outside.1".into()]),
            changes: vec![change(None, "PENDING"), change(Some("PENDING"), "SUCCESS")],
            checkpoints: checkpoints.collect(),
            recorded: HashMap::from([("v1.outside.1".into(), history.collect())]),
        }
    }

    fn effect(step: &str, at: Millis) -> Effect {
        Effect {
            workflow_id: "v1.outside.1".into(),
            step: step.into(),
            executor_id: "e".into(),
            app_version: "v1".into(),
            at,
        }
    }

    fn verdict(traces: &Traces) -> Verdict {
        let life = Life {
            language: Language::Rust,
            version: "v1".into(),
            reachable: Vec::new(),
            served: vec![(-90_000, true), (700, false), (800, true)],
        };
        let lives = HashMap::from([("e".to_owned(), life)]);
        traces.judge(&BTreeSet::new(), &lives, &Done::default())
    }

    fn findings(traces: &Traces) -> usize {
        let v = verdict(traces);
        let all = [
            &v.lost,
            &v.failed,
            &v.duplicated,
            &v.after_checkpoint,
            &v.wrong_version,
            &v.broken_history,
            &v.mutations,
        ];
        all.iter().map(|each| each.len()).sum()
    }

    /// The oracle must be able to say yes, and no to each thing that must not be.
    #[test]
    fn what_must_not_be_is_found() {
        assert_eq!(findings(&traces()), 0, "{:?}", verdict(&traces()));
        let with = |change: &dyn Fn(&mut Traces)| {
            let mut traces = traces();
            change(&mut traces);
            traces
        };
        let gone = with(&|t| t.submitted = BTreeSet::from(["v1.outside.2".into()]));
        assert_eq!(verdict(&gone).lost.len(), 1);
        let open = with(&|t| t.workflows[0].status = "PENDING".into());
        assert_eq!(verdict(&open).lost.len(), 1);
        let failed = with(&|t| t.workflows[0].status = "ERROR".into());
        assert_eq!(verdict(&failed).failed.len(), 1);
        let twice = with(&|t| *t.ledger.get_mut("v1.outside.1").expect("it is there") = 2);
        assert_eq!(verdict(&twice).duplicated.len(), 1);
        let again = with(&|t| t.effects.push(effect("third", 420)));
        assert_eq!(verdict(&again).after_checkpoint.len(), 1);
        let version = with(&|t| t.effects[0].app_version = "v2".into());
        assert_eq!(verdict(&version).wrong_version.len(), 1);
        let gap = with(&|t| {
            t.recorded.values_mut().for_each(|history| {
                history.remove(1);
            });
        });
        assert_eq!(verdict(&gap).broken_history.len(), 1);
        let cancelled = with(&|t| {
            t.changes.push(Change {
                workflow_id: "v1.outside.1".into(),
                old: Some("PENDING".into()),
                new: "CANCELLED".into(),
                at: 0,
            });
        });
        assert_eq!(verdict(&cancelled).mutations.len(), 1);
    }

    #[test]
    fn who_was_cut_off_could_not_know() {
        let mut traces = traces();
        traces.effects.push(effect("third", 900));
        assert_eq!(verdict(&traces).begun_unknowing, 1);
        assert_eq!(findings(&traces), 0);
    }
}
