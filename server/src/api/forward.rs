//! Passing an operation on to an executor, and an executor's failure back to the caller.

use axum::http::StatusCode;
use segno_protocol::{Message, Success};

use super::idempotency;
use super::problem::{Kind, Problem};
use crate::hub::{Class, Hub, HubError, Target};
use crate::store::apps::AppRow;

/// Asks any executor for something that changes nothing.
pub async fn read<M: Message>(
    hub: &Hub,
    app: &AppRow,
    message: &M,
) -> Result<M::Response, Problem> {
    send(hub, app, Target::AnyHealthy, message, Class::Read).await
}

/// Has any executor change something. `idempotent`: doing it twice does the same as once.
pub async fn write<M: Message>(
    hub: &Hub,
    app: &AppRow,
    message: &M,
    idempotent: bool,
) -> Result<M::Response, Problem> {
    send(
        hub,
        app,
        Target::AnyHealthy,
        message,
        Class::Mutation { idempotent },
    )
    .await
}

/// Asks an executor and explains a failure.
pub async fn send<M: Message>(
    hub: &Hub,
    app: &AppRow,
    target: Target,
    message: &M,
    class: Class,
) -> Result<M::Response, Problem> {
    let once = class == (Class::Mutation { idempotent: false });
    if once {
        idempotency::refuse_repeat()?;
    }
    let outcome = hub.request(app, target, message, class).await;
    if once
        && outcome
            .as_ref()
            .map_or_else(HubError::may_be_done, |_| true)
    {
        idempotency::not_again();
    }
    outcome.map_err(|error| problem(app, error))
}

/// Fails unless the executor says that it worked.
pub fn succeeded(answer: Success) -> Result<(), Problem> {
    if answer.success {
        return Ok(());
    }
    Err(bad_gateway(
        "the executor refused without a reason; its own log may tell why",
    ))
}

/// The executor answered, but not with what it should have.
pub fn bad_gateway(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// Explains why a request to an executor has no result.
pub(super) fn problem(app: &AppRow, error: HubError) -> Problem {
    let name = &app.name;
    match error {
        HubError::NoExecutor => Problem::unavailable(
            Kind::NoExecutor,
            format!("no healthy executor of `{name}` is connected; start one and try again"),
            5,
        ),
        HubError::NoExecutorOfVersion(version) => Problem::unavailable(
            Kind::NoExecutorOfVersion,
            format!(
                "no healthy executor of `{name}` runs application version {version:?}, which this needs; \
                 start one, or make a version that runs the latest"
            ),
            5,
        ),
        HubError::Remote { message } => remote(&message),
        HubError::UnknownMessage { .. } => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{error}; update the application's SDK"),
        ),
        other => bad_gateway(format!("`{name}`: {other}")),
    }
}

/// An executor's own error. SDKs send anything from one line to a traceback with stored data in it:
/// the line that says what happened goes to the caller, the rest to the debug log.
fn remote(message: &str) -> Problem {
    let line = summary(message);
    if line.len() < message.trim().len() {
        tracing::debug!(%message, "an executor answered with an error");
    }
    Problem::new(status_of(line), line)
}

/// The last line that is an error's own words: no stack frame, no SQL statement, no parameters.
/// See [`remote`].
pub(crate) fn summary(message: &str) -> &str {
    let noise = |line: &&str| {
        line.is_empty()
            || line.starts_with(char::is_whitespace)
            || line.starts_with("[SQL")
            || line.starts_with("[parameters")
            || line.starts_with("(Background on this error")
    };
    // Java's driver quotes the statement with what was to be stored, and says why only after that.
    let why = |line| str::split_once(line, " was aborted: ").map(|(_, why)| why);
    let lines = || message.lines().map(str::trim_end).rev();
    let line = lines()
        .find_map(why)
        .or_else(|| lines().find(|line| !noise(line)));
    line.unwrap_or("the executor answered with an error without text")
}

/// Which status an executor's words mean.
fn status_of(line: &str) -> StatusCode {
    const WORDS: [(StatusCode, &[&str]); 5] = [
        // Its database is away: that says nothing about the request, whatever words follow.
        (
            StatusCode::BAD_GATEWAY,
            // Whole phrases: a workflow's name may be in the line.
            &[
                "operationalerror",
                "connection failed",
                "connection refused",
                "connection reset",
                "response from sslrequest",
            ],
        ),
        (StatusCode::FORBIDDEN, &["metadata-only mode"]),
        (
            StatusCode::NOT_FOUND,
            &[
                "non-existent",
                "nonexistent",
                "does not exist",
                "do not exist",
                "not found",
                "no step named",
                // A fork of what is not there, by Go and Java.
                "has no steps",
            ],
        ),
        (
            StatusCode::CONFLICT,
            &[
                "conflicting workflow id",
                "already exists",
                "deduplicated",
                // TypeScript passes on what Postgres says about an id that is taken.
                "workflow_status_pkey",
                "cancel it first",
                "terminal state",
            ],
        ),
        (
            StatusCode::BAD_REQUEST,
            &[
                "must be specified",
                "exactly one of",
                "at least one",
                "invalid",
            ],
        ),
    ];
    let line = line.to_lowercase();
    let found = WORDS
        .iter()
        .find(|(_, words)| words.iter().any(|word| line.contains(word)));
    found.map_or(StatusCode::BAD_GATEWAY, |(status, _)| *status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_line_that_matters_is_found_in_a_traceback() {
        let python = "Exception encountered when forking workflow\nTraceback (most recent call last):\n  File \"x.py\", \
                      line 1, in f\n    raise X\ndbos._error.DBOSNonExistentWorkflowError: Workflow w does not exist\n";
        let problem = remote(python);
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            problem.detail(),
            "dbos._error.DBOSNonExistentWorkflowError: Workflow w does not exist"
        );
    }

    #[test]
    fn stored_data_is_not_shown() {
        let sqlalchemy = "Traceback:\nsqlalchemy.exc.IntegrityError: (UniqueViolation) duplicate key\nDETAIL:  Key \
                          (workflow_uuid)=(w) already exists.\n\n[SQL: INSERT INTO x VALUES (%(a)s)]\n[parameters: \
                          {'a': 'secret'}]\n(Background on this error at: https://sqlalche.me/e/20/gkpj)";
        let problem = remote(sqlalchemy);
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert_eq!(
            problem.detail(),
            "DETAIL:  Key (workflow_uuid)=(w) already exists."
        );
    }

    #[test]
    fn what_a_batch_would_have_stored_is_not_shown() {
        let jdbc = "java.sql.BatchUpdateException: Batch entry 0 INSERT INTO \"dbos\".workflow_status (\n  output\n) \
                    VALUES (\n  ('secret')\n)\n was aborted: ERROR: duplicate key value violates unique constraint \
                    \"workflow_status_pkey\"\n  Detail: Key (workflow_uuid)=(w) already exists.  Call \
                    getNextException to see other errors in the batch.";
        let problem = remote(jdbc);
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert_eq!(
            problem.detail(),
            "ERROR: duplicate key value violates unique constraint \"workflow_status_pkey\""
        );
    }

    #[test]
    fn what_is_named_after_a_connection_is_looked_up_like_any_other() {
        let line = "DBOSError: Workflow close-connection does not exist";
        assert_eq!(remote(line).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_database_that_is_away_is_the_gateways_problem() {
        for line in [
            "list_application_versions failed: system database: encountered unexpected or invalid data: unexpected \
             response from SSLRequest: 0x00 (sqlx_postgres::connection::tls:95)",
            "sqlalchemy.exc.OperationalError: (psycopg.OperationalError) connection failed: FATAL:  database \"app\" \
             does not exist",
        ] {
            assert_eq!(remote(line).status(), StatusCode::BAD_GATEWAY, "{line}");
        }
    }

    #[test]
    fn anything_else_is_the_gateways_problem() {
        assert_eq!(remote("boom").status(), StatusCode::BAD_GATEWAY);
        assert_eq!(remote("").status(), StatusCode::BAD_GATEWAY);
        assert_eq!(
            remote("Exactly one of a, b must be specified").status(),
            StatusCode::BAD_REQUEST
        );
    }
}
