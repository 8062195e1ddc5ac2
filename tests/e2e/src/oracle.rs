//! What really happened, read from the application's database.
//!
//! The shop notes every execution of every step (`effects`) and every acknowledged start (`submitted`);
//! triggers, set by us, note every outcome and every checkpoint that is ever written. Nothing here asks
//! the engine or the server for their opinion.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AnyPool, AssertSqlSafe, Row};

use crate::database::Database;

/// One execution of a step.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The workflow.
    pub workflow_id: String,
    /// The step's name.
    pub step: String,
    /// Who executed it.
    pub executor_id: String,
    /// Under which version.
    pub app_version: String,
    /// When it began, in epoch milliseconds.
    pub at: i64,
}

/// One workflow's row.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Its id.
    pub id: String,
    /// Its status.
    pub status: String,
    /// Under whose name it stands.
    pub executor_id: Option<String>,
    /// Its version.
    pub app_version: Option<String>,
    /// When it ended, in epoch milliseconds.
    pub completed_at: Option<i64>,
}

impl Workflow {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        !["PENDING", "ENQUEUED", "DELAYED"].contains(&self.status.as_str())
    }
}

/// One checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The workflow.
    pub workflow_id: String,
    /// The step's name.
    pub step: String,
    /// When the step was finished, in epoch milliseconds.
    pub completed_at: i64,
}

/// What must hold after any number of deaths.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Workflows in all.
    pub workflows: usize,
    /// Executions of steps in all.
    pub executions: usize,
    /// Starts that were acknowledged.
    pub acknowledged: usize,
    /// Outcomes that were ever written while the triggers were set.
    pub outcomes: i64,
    /// Checkpoints that were ever written while the triggers were set.
    pub checkpoints: i64,
    /// Acknowledged starts without a row, and rows that never ended.
    pub lost: Vec<String>,
    /// Workflows that ended otherwise than in success.
    pub failed: Vec<String>,
    /// Workflows whose outcome was written twice, or that created two orders or none.
    pub outcomes_twice: Vec<String>,
    /// Steps that ran after, or were checkpointed again after, their checkpoint.
    pub steps_repeated: Vec<String>,
}

impl Verdict {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.failed.is_empty()
            && self.outcomes_twice.is_empty()
            && self.steps_repeated.is_empty()
    }
}

/// A view on the application's database.
#[derive(Clone, Debug)]
pub struct Oracle {
    pool: AnyPool,
    prefix: &'static str,
}

impl Oracle {
    /// Connects, and sets the triggers if they are not there yet.
    ///
    /// # Errors
    /// When the database or the engine's tables are not there.
    pub async fn open(database: &Database) -> anyhow::Result<Self> {
        let pool = database.pool().await?;
        for statement in triggers(database.is_sqlite()) {
            sqlx::query(AssertSqlSafe(statement)).execute(&pool).await?;
        }
        Ok(Self {
            pool,
            prefix: database.prefix(),
        })
    }

    /// Every execution of every step, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn effects(&self) -> anyhow::Result<Vec<Effect>> {
        let sql = "SELECT workflow_id, step, executor_id, app_version, at FROM effects ORDER BY at";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let effect = |row: &sqlx::any::AnyRow| -> Result<Effect, sqlx::Error> {
            Ok(Effect {
                workflow_id: row.try_get(0)?,
                step: row.try_get(1)?,
                executor_id: row.try_get(2)?,
                app_version: row.try_get(3)?,
                at: row.try_get(4)?,
            })
        };
        Ok(rows.iter().map(effect).collect::<Result<_, _>>()?)
    }

    /// Every workflow.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn workflows(&self) -> anyhow::Result<Vec<Workflow>> {
        let sql = format!(
            "SELECT workflow_uuid, status, executor_id, application_version, completed_at \
             FROM {}workflow_status",
            self.prefix
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?;
        let workflow = |row: &sqlx::any::AnyRow| -> Result<Workflow, sqlx::Error> {
            Ok(Workflow {
                id: row.try_get(0)?,
                status: row.try_get(1)?,
                executor_id: row.try_get(2)?,
                app_version: row.try_get(3)?,
                completed_at: row.try_get(4)?,
            })
        };
        Ok(rows.iter().map(workflow).collect::<Result<_, _>>()?)
    }

    /// Workflows that run under an executor's name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pending_of(&self, executor_id: &str) -> anyhow::Result<Vec<String>> {
        let all = self.workflows().await?;
        let of =
            |w: &Workflow| w.status == "PENDING" && w.executor_id.as_deref() == Some(executor_id);
        Ok(all.into_iter().filter(of).map(|w| w.id).collect())
    }

    /// Every checkpoint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn checkpoints(&self) -> anyhow::Result<Vec<Checkpoint>> {
        let sql = format!(
            "SELECT workflow_uuid, function_name, completed_at_epoch_ms FROM {}operation_outputs",
            self.prefix
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?;
        let checkpoint = |row: &sqlx::any::AnyRow| -> Result<Checkpoint, sqlx::Error> {
            Ok(Checkpoint {
                workflow_id: row.try_get(0)?,
                step: row.try_get(1)?,
                completed_at: row.try_get(2)?,
            })
        };
        Ok(rows.iter().map(checkpoint).collect::<Result<_, _>>()?)
    }

    /// Whether one of an executor's running workflows has a checkpoint and is not over: its middle.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_in_the_middle(&self, executor_id: &str) -> anyhow::Result<bool> {
        let sql = format!(
            "SELECT COUNT(*) FROM {0}workflow_status w WHERE w.status = 'PENDING' AND w.executor_id = $1 \
             AND EXISTS (SELECT 1 FROM {0}operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid)",
            self.prefix
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(executor_id)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Judges everything. Every workflow is expected to be over.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn judge(&self) -> anyhow::Result<Verdict> {
        let workflows = self.workflows().await?;
        let effects = self.effects().await?;
        let checkpoints = self.checkpoints().await?;
        Ok(Verdict {
            workflows: workflows.len(),
            executions: effects.len(),
            acknowledged: self.submitted().await?.len(),
            outcomes: self.rows("SELECT 'n', COUNT(*) FROM e2e_outcomes").await?,
            checkpoints: self
                .rows("SELECT 'n', COUNT(*) FROM e2e_checkpoints")
                .await?,
            lost: self.lost(&workflows).await?,
            failed: failed(&workflows),
            outcomes_twice: self.outcomes_twice(&workflows).await?,
            steps_repeated: self.steps_repeated(&effects, &checkpoints).await?,
        })
    }

    async fn lost(&self, workflows: &[Workflow]) -> anyhow::Result<Vec<String>> {
        let known: BTreeSet<&str> = workflows.iter().map(|w| w.id.as_str()).collect();
        let submitted = self.submitted().await?;
        let gone = submitted.keys().filter(|id| !known.contains(id.as_str()));
        let open = workflows.iter().filter(|w| !w.is_over()).map(|w| &w.id);
        Ok(gone.chain(open).cloned().collect())
    }

    async fn outcomes_twice(&self, workflows: &[Workflow]) -> anyhow::Result<Vec<String>> {
        let outcomes = self
            .counts("SELECT workflow_id, COUNT(*) FROM e2e_outcomes GROUP BY workflow_id")
            .await?;
        let orders = self
            .counts("SELECT workflow_id, COUNT(*) FROM orders GROUP BY workflow_id")
            .await?;
        let twice = outcomes
            .iter()
            .filter(|(_, n)| **n != 1)
            .map(|(id, n)| format!("{id}: {n} outcomes"));
        let mut wrong: Vec<String> = twice.collect();
        for workflow in workflows.iter().filter(|w| w.status == "SUCCESS") {
            let n = orders.get(&workflow.id).copied().unwrap_or_default();
            if n != 1 {
                wrong.push(format!("{}: {n} orders", workflow.id));
            }
        }
        Ok(wrong)
    }

    async fn steps_repeated(
        &self,
        effects: &[Effect],
        checkpoints: &[Checkpoint],
    ) -> anyhow::Result<Vec<String>> {
        let again = self
            .counts(
                "SELECT workflow_id || ' ' || step, COUNT(*) FROM e2e_checkpoints \
                 GROUP BY workflow_id, step",
            )
            .await?;
        let mut repeated: Vec<String> = again
            .iter()
            .filter(|(_, n)| **n != 1)
            .map(|(step, n)| format!("{step}: checkpointed {n} times"))
            .collect();
        repeated.extend(executed_after_checkpoint(effects, checkpoints));
        Ok(repeated)
    }

    async fn submitted(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        self.counts("SELECT workflow_id, COUNT(*) FROM submitted GROUP BY workflow_id")
            .await
    }

    async fn rows(&self, sql: &'static str) -> anyhow::Result<i64> {
        Ok(self.counts(sql).await?.into_values().sum())
    }

    async fn counts(&self, sql: &'static str) -> anyhow::Result<BTreeMap<String, i64>> {
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let pair = |row: &sqlx::any::AnyRow| -> Result<(String, i64), sqlx::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?))
        };
        Ok(rows.iter().map(pair).collect::<Result<_, _>>()?)
    }
}

fn failed(workflows: &[Workflow]) -> Vec<String> {
    let failed = workflows
        .iter()
        .filter(|w| w.is_over() && w.status != "SUCCESS");
    failed.map(|w| format!("{} {}", w.id, w.status)).collect()
}

/// Executions that began after the step's checkpoint. Every step of the checkout has its own name.
fn executed_after_checkpoint(effects: &[Effect], checkpoints: &[Checkpoint]) -> Vec<String> {
    let finished: BTreeMap<(&str, &str), i64> = checkpoints
        .iter()
        .map(|c| ((c.workflow_id.as_str(), c.step.as_str()), c.completed_at))
        .collect();
    let late = effects.iter().filter_map(|e| {
        let at = *finished.get(&(e.workflow_id.as_str(), e.step.as_str()))?;
        (e.at > at).then(|| {
            format!(
                "{} `{}` ran {} ms after its checkpoint",
                e.workflow_id,
                e.step,
                e.at - at
            )
        })
    });
    late.collect()
}

/// Notes every outcome and checkpoint that is written, whatever the code that writes it believes.
fn triggers(sqlite: bool) -> Vec<String> {
    let tables = [
        "CREATE TABLE IF NOT EXISTS e2e_outcomes (workflow_id TEXT NOT NULL, status TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS e2e_checkpoints (workflow_id TEXT NOT NULL, step TEXT NOT NULL)",
    ];
    let over = "NEW.status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')";
    let outcome = "INSERT INTO e2e_outcomes VALUES (NEW.workflow_uuid, NEW.status);";
    let checkpoint = "INSERT INTO e2e_checkpoints VALUES (NEW.workflow_uuid, NEW.function_name);";
    let mut statements: Vec<String> = tables.map(str::to_owned).into();
    if sqlite {
        statements.push(format!(
            "CREATE TRIGGER IF NOT EXISTS e2e_outcome AFTER UPDATE OF status ON workflow_status \
             WHEN {over} BEGIN {outcome} END"
        ));
        for event in ["INSERT", "UPDATE"] {
            statements.push(format!(
                "CREATE TRIGGER IF NOT EXISTS e2e_checkpoint_{event} AFTER {event} ON operation_outputs \
                 BEGIN {checkpoint} END"
            ));
        }
        return statements;
    }
    let insert = |text: &str| text.replace("INTO e2e", "INTO public.e2e");
    for (name, text) in [("outcome", outcome), ("checkpoint", checkpoint)] {
        statements.push(format!(
            "CREATE OR REPLACE FUNCTION public.e2e_{name}() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN {} RETURN NULL; END $$",
            insert(text)
        ));
    }
    statements.push(format!(
        "CREATE OR REPLACE TRIGGER e2e_outcome AFTER UPDATE OF status ON dbos.workflow_status \
         FOR EACH ROW WHEN ({over}) EXECUTE FUNCTION public.e2e_outcome()"
    ));
    statements.push(
        "CREATE OR REPLACE TRIGGER e2e_checkpoint AFTER INSERT OR UPDATE ON dbos.operation_outputs \
         FOR EACH ROW EXECUTE FUNCTION public.e2e_checkpoint()"
            .to_owned(),
    );
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(step: &str, at: i64) -> Effect {
        Effect {
            workflow_id: "w".into(),
            step: step.into(),
            executor_id: "e".into(),
            app_version: "v".into(),
            at,
        }
    }

    /// The oracle must be able to say no.
    #[test]
    fn a_step_that_runs_after_its_checkpoint_is_seen() {
        let checkpoint = Checkpoint {
            workflow_id: "w".into(),
            step: "charge card".into(),
            completed_at: 100,
        };
        let effects = [effect("charge card", 90), effect("send email", 120)];
        assert!(executed_after_checkpoint(&effects, std::slice::from_ref(&checkpoint)).is_empty());
        let effects = [effect("charge card", 90), effect("charge card", 101)];
        assert_eq!(executed_after_checkpoint(&effects, &[checkpoint]).len(), 1);
    }

    #[test]
    fn an_error_counts_as_failed_and_pending_as_open() {
        let workflow = |status: &str| Workflow {
            id: "w".into(),
            status: status.into(),
            executor_id: None,
            app_version: None,
            completed_at: None,
        };
        assert_eq!(
            failed(&[workflow("SUCCESS"), workflow("PENDING")]),
            Vec::<String>::new()
        );
        assert_eq!(failed(&[workflow("ERROR")]), ["w ERROR"]);
        assert!(!workflow("ENQUEUED").is_over());
    }
}
