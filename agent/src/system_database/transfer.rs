//! Exporting and importing workflows as JSON, in the form that the TypeScript and Go SDKs use:
//! base64 of gzip of a list of `{workflow_status, operation_outputs, workflow_events,
//! workflow_events_history, streams}`, objects keyed by column. Payloads stay encoded.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value as Json};

use super::statement::Value;
use super::{DatabaseError, Row, Statement, SystemDatabase, Transaction};

/// An import larger than this when unpacked is refused.
const MAX_UNPACKED_BYTES: u64 = 512 * 1024 * 1024;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Bool,
    Json,
}

use Kind::{Bool, Int, Text};

type Columns = &'static [(&'static str, Kind)];

/// Without `inputs`, `output`, `error`: those come from and go to the payload tables.
const STATUS: Columns = &[
    ("workflow_uuid", Text),
    ("status", Text),
    ("name", Text),
    ("authenticated_user", Text),
    ("assumed_role", Text),
    ("authenticated_roles", Text),
    ("request", Text),
    ("executor_id", Text),
    ("created_at", Int),
    ("updated_at", Int),
    ("application_version", Text),
    ("application_id", Text),
    ("class_name", Text),
    ("config_name", Text),
    ("recovery_attempts", Int),
    ("queue_name", Text),
    ("workflow_timeout_ms", Int),
    ("workflow_deadline_epoch_ms", Int),
    ("started_at_epoch_ms", Int),
    ("deduplication_id", Text),
    ("priority", Int),
    ("queue_partition_key", Text),
    ("forked_from", Text),
    ("parent_workflow_id", Text),
    ("serialization", Text),
    ("delay_until_epoch_ms", Int),
    ("was_forked_from", Bool),
    ("rate_limited", Bool),
    ("completed_at", Int),
    ("attributes", Kind::Json),
    ("schedule_name", Text),
    ("debounce_deadline_epoch_ms", Int),
    ("is_debounced", Bool),
    ("application_name", Text),
];

/// The lists that go with a workflow, by table and by key of the export.
const PARTS: &[(&str, Columns)] = &[
    (
        "operation_outputs",
        &[
            ("workflow_uuid", Text),
            ("function_id", Int),
            ("function_name", Text),
            ("output", Text),
            ("error", Text),
            ("child_workflow_id", Text),
            ("started_at_epoch_ms", Int),
            ("completed_at_epoch_ms", Int),
            ("serialization", Text),
            ("application_name", Text),
        ],
    ),
    (
        "workflow_events",
        &[
            ("workflow_uuid", Text),
            ("key", Text),
            ("value", Text),
            ("serialization", Text),
        ],
    ),
    (
        "workflow_events_history",
        &[
            ("workflow_uuid", Text),
            ("function_id", Int),
            ("key", Text),
            ("value", Text),
            ("serialization", Text),
        ],
    ),
    (
        "streams",
        &[
            ("workflow_uuid", Text),
            ("key", Text),
            ("value", Text),
            ("offset", Int),
            ("function_id", Int),
            ("serialization", Text),
        ],
    ),
];

impl SystemDatabase {
    /// Exports a workflow, optionally with all its descendants.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] for an unknown id.
    pub async fn export_workflow(
        &self,
        workflow_id: &str,
        with_children: bool,
    ) -> Result<String, DatabaseError> {
        let root = vec![workflow_id.to_owned()];
        let ids = if with_children {
            self.with_descendants(&root).await?
        } else {
            root
        };
        let mut exported = Vec::with_capacity(ids.len());
        for id in &ids {
            match self.export_one(id).await? {
                Some(workflow) => exported.push(workflow),
                None if id == workflow_id => {
                    return Err(DatabaseError::NotFound {
                        what: "workflow",
                        ids: vec![id.clone()],
                    });
                }
                // A child that was deleted meanwhile.
                None => {}
            }
        }
        pack(&Json::Array(exported))
    }

    async fn export_one(&self, id: &str) -> Result<Option<Json>, DatabaseError> {
        let statement = self
            .sql("SELECT ")
            .push(&select_list("w.", STATUS))
            .push(
                ", COALESCE(i.inputs, w.inputs) AS inputs, COALESCE(o.output, w.output) AS output, \
                 COALESCE(o.error, w.error) AS error FROM @workflow_status AS w LEFT JOIN ",
            )
            .push(self.inputs_table())
            .push(" AS i ON i.workflow_uuid = w.workflow_uuid LEFT JOIN ")
            .push(self.outputs_table())
            .push(" AS o ON o.workflow_uuid = w.workflow_uuid WHERE w.workflow_uuid = ")
            .bind(id);
        let rows = self.read(statement).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let mut status = read_object(row, STATUS)?;
        for payload in ["inputs", "output", "error"] {
            status.insert(payload.to_owned(), row.text(payload)?.into());
        }
        let mut workflow = Map::new();
        workflow.insert("workflow_status".to_owned(), Json::Object(status));
        for (table, columns) in PARTS {
            let statement = self
                .sql("SELECT ")
                .push(&select_list("", columns))
                .push(&format!(" FROM @{table} WHERE workflow_uuid = "))
                .bind(id);
            let rows = self.read(statement).await?;
            let rows = rows
                .iter()
                .map(|row| Ok(Json::Object(read_object(row, columns)?)));
            workflow.insert(
                (*table).to_owned(),
                Json::Array(rows.collect::<Result<_, DatabaseError>>()?),
            );
        }
        Ok(Some(Json::Object(workflow)))
    }

    /// Imports what [`export_workflow`](Self::export_workflow), or the TypeScript or Go SDK, exported. All or
    /// nothing. Workflows that had not finished are live again. Returns the ids.
    ///
    /// # Errors
    /// [`DatabaseError::Invalid`] for anything else than such an export, [`DatabaseError::Conflict`] if an
    /// id exists.
    pub async fn import_workflows(&self, exported: &str) -> Result<Vec<String>, DatabaseError> {
        let Json::Array(workflows) = unpack(exported)? else {
            return Err(invalid("it must contain a list of workflows"));
        };
        let mut transaction = self.begin().await?;
        let mut ids = Vec::with_capacity(workflows.len());
        for workflow in &workflows {
            ids.push(self.import_one(&mut transaction, workflow).await?);
        }
        transaction.commit().await?;
        Ok(ids)
    }

    async fn import_one(
        &self,
        transaction: &mut Transaction,
        workflow: &Json,
    ) -> Result<String, DatabaseError> {
        let Some(Json::Object(status)) = workflow.get("workflow_status") else {
            return Err(invalid("an element has no workflow_status object"));
        };
        let Some(id) = status
            .get("workflow_uuid")
            .and_then(Json::as_str)
            .filter(|id| !id.is_empty())
        else {
            return Err(invalid("a workflow_status has no workflow_uuid"));
        };
        let mut columns = STATUS.to_vec();
        if self.inline_payloads() {
            columns.extend(["inputs", "output", "error"].map(|payload| (payload, Text)));
        }
        transaction.execute(self.insert("workflow_status", &columns, status)?).await.map_err(|e| {
            if e.is_unique_violation() {
                DatabaseError::Conflict(format!("a workflow with the id {id}, or one that holds its deduplication id, exists already"))
            } else {
                e
            }
        })?;
        for table in self.side_tables() {
            transaction
                .execute(
                    self.sql(&format!("DELETE FROM @{table} WHERE workflow_uuid = "))
                        .bind(id),
                )
                .await?;
        }
        const INPUT: Columns = &[("workflow_uuid", Text), ("inputs", Text)];
        const OUTPUT: Columns = &[("workflow_uuid", Text), ("output", Text), ("error", Text)];
        if !self.is_older_line() {
            transaction
                .execute(self.insert("workflow_input", INPUT, status)?)
                .await?;
        }
        if !self.is_older_line()
            && ["output", "error"]
                .iter()
                .any(|key| status.get(*key).is_some_and(|value| !value.is_null()))
        {
            transaction
                .execute(self.insert("workflow_output", OUTPUT, status)?)
                .await?;
        }
        for (table, columns) in PARTS {
            let rows = workflow
                .get(*table)
                .and_then(Json::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default();
            for row in rows {
                let Json::Object(row) = row else {
                    return Err(invalid(&format!("{table} must hold objects")));
                };
                if row.get("workflow_uuid").and_then(Json::as_str) != Some(id) {
                    return Err(invalid(&format!(
                        "{table} of the workflow {id} has a row of another workflow"
                    )));
                }
                transaction
                    .execute(self.insert(table, columns, row)?)
                    .await?;
            }
        }
        Ok(id.to_owned())
    }

    /// An insert of the columns that `object` has; the others keep their defaults.
    fn insert(
        &self,
        table: &str,
        columns: &[(&str, Kind)],
        object: &Map<String, Json>,
    ) -> Result<Statement, DatabaseError> {
        let present: Vec<_> = columns
            .iter()
            .filter(|(name, _)| object.get(*name).is_some_and(|value| !value.is_null()))
            .collect();
        let names: Vec<String> = present
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let mut statement = self
            .sql(&format!("INSERT INTO @{table} ("))
            .push(&names.join(", "))
            .push(") VALUES (");
        for (n, (name, kind)) in present.iter().enumerate() {
            if n > 0 {
                statement = statement.push(", ");
            }
            let value = &object[*name];
            statement = match kind {
                Kind::Json => statement.bind_json(Some(match value {
                    Json::String(text) => text.clone(),
                    other => other.to_string(),
                })),
                _ => statement.bind(
                    scalar(value, *kind)
                        .ok_or_else(|| invalid(&format!("{table}.{name} has a wrong type")))?,
                ),
            };
        }
        Ok(statement.push(")"))
    }
}

fn select_list(qualifier: &str, columns: Columns) -> String {
    let column = |(name, kind): &(&str, Kind)| match kind {
        Kind::Json => format!("CAST({qualifier}{name} AS TEXT) AS {name}"),
        _ => format!("{qualifier}\"{name}\""),
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn read_object(row: &Row, columns: Columns) -> Result<Map<String, Json>, DatabaseError> {
    let mut object = Map::new();
    for (name, kind) in columns {
        let value = match kind {
            Kind::Text => row.text(name)?.into(),
            Kind::Int => row.int(name)?.into(),
            Kind::Bool => row.bool(name)?.into(),
            Kind::Json => row
                .text(name)?
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or(Json::Null),
        };
        object.insert((*name).to_owned(), value);
    }
    Ok(object)
}

/// TypeScript writes integers as text, SQLite-backed SDKs write booleans as 0 and 1.
fn scalar(value: &Json, kind: Kind) -> Option<Value> {
    match (kind, value) {
        (Kind::Text, Json::String(text)) => Some(text.into()),
        (Kind::Text, Json::Number(number)) => Some(number.to_string().into()),
        (Kind::Int, Json::Number(number)) => number.as_i64().map(Value::from),
        (Kind::Int, Json::String(text)) => text.trim().parse::<i64>().ok().map(Value::from),
        (Kind::Bool, Json::Bool(flag)) => Some((*flag).into()),
        (Kind::Bool, Json::Number(number)) => {
            number.as_i64().map(|number| Value::Bool(number != 0))
        }
        _ => None,
    }
}

fn pack(value: &Json) -> Result<String, DatabaseError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let packed = encoder
        .write_all(value.to_string().as_bytes())
        .and_then(|()| encoder.finish());
    packed
        .map(|bytes| STANDARD.encode(bytes))
        .map_err(|e| DatabaseError::Invalid(format!("cannot pack the export: {e}")))
}

fn unpack(exported: &str) -> Result<Json, DatabaseError> {
    let bytes = STANDARD
        .decode(exported.trim())
        .map_err(|e| invalid(&format!("it is not base64 ({e})")))?;
    let mut text = String::new();
    let read = GzDecoder::new(bytes.as_slice())
        .take(MAX_UNPACKED_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|e| invalid(&format!("it is not gzip of UTF-8 text ({e}); Python's exports can be imported by Python only")))?;
    if read as u64 > MAX_UNPACKED_BYTES {
        return Err(invalid("it is larger than 512 MiB when unpacked"));
    }
    serde_json::from_str(&text).map_err(|e| invalid(&format!("it does not contain JSON ({e})")))
}

fn invalid(reason: &str) -> DatabaseError {
    DatabaseError::Invalid(format!("serialized_workflow cannot be imported: {reason}"))
}
