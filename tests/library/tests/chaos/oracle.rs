//! What really happened, from the database's tables and the workers' journals; the library is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::{AnyPool, AssertSqlSafe, Row as _};

/// The steps of an order by position, without and with a child.
const STEPS: [&str; 10] = [
    "first",
    "pay",
    "DBOS.send",
    "DBOS.sleep",
    "left",
    "right",
    "DBOS.setEvent",
    "DBOS.recv",
    "DBOS.sleep",
    "ship",
];

/// What the workers noted.
#[derive(Default)]
pub struct Journals {
    pub started: BTreeSet<String>,
    /// When a step's body began, in epoch milliseconds.
    pub ran: Vec<(String, String, i64)>,
    /// What they found wrong.
    pub complaints: Vec<String>,
}

impl Journals {
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut journals = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "journal")
            {
                continue;
            }
            for line in std::fs::read_to_string(path)?.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["started", id] => drop(journals.started.insert(id.to_owned())),
                    ["ran", id, step, at] => {
                        journals
                            .ran
                            .push((id.to_owned(), step.to_owned(), at.parse()?))
                    }
                    _ => journals.complaints.push(line.to_owned()),
                }
            }
        }
        Ok(journals)
    }
}

/// Positions that may be recorded after a later one: of two parallel steps the second may be ready first, and how
/// long a wait for a message may last is recorded before the message.
const MAY_BE_LATE: [i64; 2] = [4, 7];

pub struct Oracle {
    pub pool: AnyPool,
    /// What precedes a table's name.
    pub prefix: &'static str,
}

impl Oracle {
    async fn rows(&self, sql: &str) -> anyhow::Result<Vec<sqlx::any::AnyRow>> {
        let sql = sql.replace('@', self.prefix);
        Ok(sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&self.pool)
            .await?)
    }

    /// How many workflows of these names are there, and how many of them are not over.
    pub async fn count(&self) -> anyhow::Result<(i64, i64)> {
        let count = "SELECT COUNT(*), COUNT(CASE WHEN status IN ('PENDING', 'ENQUEUED', 'DELAYED') THEN 1 END) \
                     FROM @workflow_status WHERE name = 'order'";
        let rows = self.rows(count).await?;
        Ok((rows[0].try_get(0)?, rows[0].try_get(1)?))
    }

    /// Records that at this moment are not a prefix of the program: something is missing before their last step.
    pub async fn gaps(&self) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT workflow_uuid, CAST(MAX(function_id) AS BIGINT), COUNT(*), \
                   COUNT(CASE WHEN function_id IN (4, 7) THEN 1 END) FROM @operation_outputs \
                   GROUP BY workflow_uuid HAVING COUNT(*) <= MAX(function_id)";
        let mut wrong = Vec::new();
        for row in self.rows(sql).await? {
            let (id, last): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (count, late): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            let awaited = MAY_BE_LATE.iter().filter(|at| **at <= last).count() as i64 - late;
            if last + 1 - count > awaited {
                wrong.push(format!(
                    "{id}: {count} steps are recorded, the last at {last}"
                ));
            }
        }
        Ok(wrong)
    }

    /// Everything that is wrong.
    pub async fn judge(&self, orders: u64, journals: &Journals) -> anyhow::Result<Vec<String>> {
        let mut wrong = journals.complaints.clone();
        let outcomes = self.outcomes().await?;
        wrong.extend(
            journals
                .started
                .iter()
                .filter(|id| !outcomes.contains_key(*id))
                .map(|id| format!("lost {id}")),
        );
        for number in 0..orders {
            let (id, result) = (format!("order-{number}"), (3 * number + 1).to_string());
            let wanted = ("SUCCESS".to_owned(), result);
            match outcomes.get(&id) {
                Some(found) if *found == wanted => {}
                found => wrong.push(format!("{id}: {found:?} instead of {wanted:?}")),
            }
        }
        let children = outcomes
            .keys()
            .filter(|id| !id.starts_with("order-") || id.matches('-').count() > 1)
            .count();
        let wanted_children = usize::try_from(orders.div_ceil(7))?;
        if children != wanted_children {
            wrong.push(format!("{children} children instead of {wanted_children}"));
        }
        wrong.extend(self.effects(orders, children).await?);
        wrong.extend(self.steps(orders, journals).await?);
        Ok(wrong)
    }

    async fn outcomes(&self) -> anyhow::Result<BTreeMap<String, (String, String)>> {
        let sql = "SELECT w.workflow_uuid, w.status, COALESCE(o.output, o.error, '') FROM @workflow_status w \
                   LEFT JOIN @workflow_output o ON o.workflow_uuid = w.workflow_uuid";
        let rows = self.rows(sql).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?))))
            .collect()
    }

    /// Each effect happened once.
    async fn effects(&self, orders: u64, children: usize) -> anyhow::Result<Vec<String>> {
        let rows = self
            .rows("SELECT workflow_id, name, COUNT(*) FROM effects GROUP BY workflow_id, name")
            .await?;
        let mut wrong = Vec::new();
        for row in &rows {
            let (id, name, count): (String, String, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if count != 1 {
                wrong.push(format!("{id}: {name} happened {count} times"));
            }
        }
        let wanted = usize::try_from(orders * 2)? + children;
        if rows.len() != wanted {
            wrong.push(format!("{} effects instead of {wanted}", rows.len()));
        }
        Ok(wrong)
    }

    /// The record of every order is that of the program, without a gap; no step ran after its checkpoint.
    async fn steps(&self, orders: u64, journals: &Journals) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT workflow_uuid, function_id, function_name, completed_at_epoch_ms FROM @operation_outputs \
                   ORDER BY workflow_uuid, function_id";
        let mut recorded: BTreeMap<String, Vec<(i64, String, i64)>> = BTreeMap::new();
        for row in self.rows(sql).await? {
            let position = row
                .try_get::<i64, _>(1)
                .or_else(|_| row.try_get::<i32, _>(1).map(i64::from))?;
            let id: String = row.try_get(0)?;
            recorded
                .entry(id)
                .or_default()
                .push((position, row.try_get(2)?, row.try_get(3)?));
        }
        let mut wrong = Vec::new();
        for number in 0..orders {
            let id = format!("order-{number}");
            let found: Vec<(i64, &str)> = recorded
                .get(&id)
                .into_iter()
                .flatten()
                .map(|(at, name, _)| (*at, name.as_str()))
                .collect();
            let mut names = STEPS.to_vec();
            if number.is_multiple_of(7) {
                names.splice(9..9, ["parcel", "DBOS.getResult"]);
            }
            let wanted: Vec<(i64, &str)> = (0..).zip(names).collect();
            if found != wanted {
                wrong.push(format!("{id}: {found:?} instead of {wanted:?}"));
            }
        }
        for (id, step, at) in &journals.ran {
            let mut of_step = recorded
                .get(id)
                .into_iter()
                .flatten()
                .filter(|(_, name, _)| name == step);
            if let Some((_, _, completed)) = of_step.next()
                && completed < at
            {
                wrong.push(format!(
                    "{id}: {step} ran again {} ms after its checkpoint",
                    at - completed
                ));
            }
        }
        Ok(wrong)
    }
}
