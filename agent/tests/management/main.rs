//! Managing workflows through the system database, on Postgres and on SQLite.
#![allow(clippy::unwrap_used)]

#[path = "../database_support/mod.rs"]
mod database_support;

mod aggregates;
mod commands;
mod forks;
mod history;
mod listing;
mod registry;

use database_support::Fixture;
use segno::system_database::{Listing, WorkflowFilter};

async fn listed(f: &Fixture, filter: WorkflowFilter) -> Vec<String> {
    let rows =
        f.db.list_workflows(&filter, &Listing::default())
            .await
            .unwrap();
    rows.into_iter().map(|row| row.workflow_id).collect()
}

/// A finished workflow `src` with steps 0..=3 (2 failed), events, a stream and a message.
async fn with_history(f: &Fixture) {
    let more = [
        ("class_name", "'C'"),
        ("authenticated_user", "'bea'"),
        ("authenticated_roles", "'[\"r\"]'"),
        ("serialization", "'portable_json'"),
        ("attributes", "'{\"k\":1}'"),
        ("workflow_timeout_ms", "9"),
        ("priority", "4"),
        ("completed_at", "77"),
        ("recovery_attempts", "3"),
    ];
    f.workflow("src", "ERROR", &more).await;
    f.run("INSERT INTO @workflow_input (workflow_uuid, inputs) VALUES ('src', 'arguments')")
        .await;
    f.run("INSERT INTO @workflow_output (workflow_uuid, error) VALUES ('src', 'boom')")
        .await;
    for (id, name, output, error) in [
        (0, "reserve", "'r0'", "NULL"),
        (1, "charge", "'r1'", "NULL"),
        (2, "charge", "NULL", "'no'"),
        (3, "DBOS.setEvent", "NULL", "NULL"),
    ] {
        f.run(&format!(
            "INSERT INTO @operation_outputs (workflow_uuid, function_id, function_name, output, error, serialization, \
             child_workflow_id, application_name) VALUES ('src', {id}, '{name}', {output}, {error}, 'portable_json', 'src-{id}', 'shop')"
        ))
        .await;
    }
    for (id, value) in [(0, "first"), (3, "second")] {
        f.run(&format!(
            "INSERT INTO @workflow_events_history (workflow_uuid, function_id, key, value) VALUES ('src', {id}, 'stage', '{value}')"
        ))
        .await;
        f.run(&format!(
            "INSERT INTO @streams (workflow_uuid, key, value, \"offset\", function_id) VALUES ('src', 's', '{value}', {id}, {id})"
        ))
        .await;
    }
    f.run("INSERT INTO @workflow_events_history (workflow_uuid, function_id, key, value) VALUES ('src', 3, 'late', 'x')").await;
    f.run("INSERT INTO @workflow_events (workflow_uuid, key, value) VALUES ('src', 'stage', 'second'), ('src', 'late', 'x')").await;
    f.run(
        "INSERT INTO @streams (workflow_uuid, key, value, \"offset\", function_id, serialization) \
           VALUES ('src', 's', '\"__DBOS_STREAM_CLOSED__\"', 4, 3, 'portable_json')",
    )
    .await;
    f.run("INSERT INTO @notifications (message_uuid, destination_uuid, topic, message, consumed, consumed_by_function_id, created_at_epoch_ms) \
           VALUES ('m1', 'src', 't', 'early', TRUE, 0, 1), ('m2', 'src', 't', 'late', TRUE, 2, 2), ('m3', 'src', '__null__topic__', 'unread', FALSE, NULL, 3)")
        .await;
}

const TABLES: [&str; 8] = [
    "workflow_status",
    "workflow_input",
    "workflow_output",
    "operation_outputs",
    "workflow_events",
    "workflow_events_history",
    "streams",
    "notifications",
];

async fn rows(f: &Fixture) -> usize {
    let mut rows = 0;
    for table in TABLES {
        rows += f
            .texts(&format!("SELECT CAST(1 AS TEXT) FROM @{table}"))
            .await
            .len();
    }
    rows
}
