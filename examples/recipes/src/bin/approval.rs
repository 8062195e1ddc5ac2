//! An approval by webhook: an expense waits for days until somebody clicks a link, across restarts and deployments.
//!
//! ```sh
//! cargo run --bin approval
//! curl -X POST http://127.0.0.1:8000/expenses/trip-1 -H content-type:application/json -d '{"by": "ada", "cents": 420000}'
//! curl http://127.0.0.1:8000/expenses/trip-1
//! curl -X POST http://127.0.0.1:8000/expenses/trip-1/approval -H content-type:application/json -d '{"by": "grace", "approved": true}'
//! ```

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use segno::{Builder, Ctx, ErrorKind, Segno};
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Expense {
    by: String,
    cents: u64,
}

/// What the webhook brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    by: String,
    approved: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Decision {
    Approved { by: String },
    Rejected { by: String },
    Expired,
}

/// Small expenses are fine. For others somebody is asked, reminded after a day, and given three days in all.
#[segno::workflow]
async fn expense(ctx: Ctx, expense: Expense) -> segno::Result<Decision> {
    if expense.cents < 10_000 {
        return decided(
            &ctx,
            Decision::Approved {
                by: "the rules".into(),
            },
        )
        .await;
    }
    notify(&ctx, &expense, "please approve").await?;
    ctx.set_event("state", "waiting for approval").await;
    let mut answer = ctx.recv::<Answer>("approval").timeout(DAY).await;
    if answer.is_none() {
        notify(&ctx, &expense, "still waiting").await?;
        answer = ctx.recv::<Answer>("approval").timeout(2 * DAY).await;
    }
    let decision = match answer {
        None => Decision::Expired,
        Some(Answer { by, approved: true }) => Decision::Approved { by },
        Some(Answer { by, .. }) => Decision::Rejected { by },
    };
    decided(&ctx, decision).await
}

async fn decided(ctx: &Ctx, decision: Decision) -> segno::Result<Decision> {
    ctx.set_event("state", &format!("{decision:?}")).await;
    Ok(decision)
}

/// A step: the message goes out at least once, and not again after it is on record.
async fn notify(ctx: &Ctx, expense: &Expense, text: &str) -> segno::Result<()> {
    ctx.step("notify", || async {
        println!(
            "to the office: {text}: {} for {}",
            expense.cents, expense.by
        );
        Ok(())
    })
    .max_attempts(5)
    .await
}

fn office() -> Builder {
    Segno::named("office").workflows(segno::workflows![expense])
}

// ---- the front -----------------------------------------------------------------------------------

type Refusal = (StatusCode, String);

fn refused(error: segno::Error) -> Refusal {
    let status = match error.kind() {
        ErrorKind::NotFound { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

fn routes(app: Segno) -> Router {
    Router::new()
        .route("/expenses/{id}", post(hand_in).get(state))
        .route("/expenses/{id}/approval", post(answer))
        .with_state(app)
}

async fn hand_in(
    State(app): State<Segno>,
    Path(id): Path<String>,
    Json(handed_in): Json<Expense>,
) -> Result<StatusCode, Refusal> {
    let start = app.start(expense, handed_in).id(id);
    start.await.map(|_| StatusCode::ACCEPTED).map_err(refused)
}

async fn state(
    State(app): State<Segno>,
    Path(id): Path<String>,
) -> Result<Json<Option<String>>, Refusal> {
    let state = app.get_event::<String>(id, "state").timeout(Duration::ZERO);
    state.await.map(Json).map_err(refused)
}

/// Webhooks are delivered more than once: the first answer of a person counts, the others change nothing.
async fn answer(
    State(app): State<Segno>,
    Path(id): Path<String>,
    Json(answer): Json<Answer>,
) -> Result<StatusCode, Refusal> {
    let send = app
        .send(id, "approval", &answer)
        .idempotency_key(&answer.by);
    send.await.map(|()| StatusCode::NO_CONTENT).map_err(refused)
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://office.db".into());
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8000".into());
    let app = office().database_url(url).launch().await?;
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, routes(app)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use segno::testing;

    use super::*;

    fn trip() -> Expense {
        Expense {
            by: "ada".into(),
            cents: 420_000,
        }
    }

    #[tokio::test]
    async fn every_crash_is_survived() {
        let trials = || {
            let approves = |app: Segno, id: String| async move {
                let answer = Answer {
                    by: "grace".into(),
                    approved: true,
                };
                app.send(id, "approval", &answer)
                    .idempotency_key("grace")
                    .await
            };
            testing::crash_everywhere(office, expense, trip()).meanwhile(approves)
        };
        let approved = Decision::Approved { by: "grace".into() };
        assert_eq!(trials().await.unwrap(), approved);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        assert_eq!(trials().on_postgres(postgres).await.unwrap(), approved);
    }

    #[tokio::test]
    async fn nobody_answers() {
        let trials = || testing::crash_everywhere(office, expense, trip());
        assert_eq!(trials().await.unwrap(), Decision::Expired);
        let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
        let expired = trials().on_postgres(postgres).await;
        assert_eq!(expired.unwrap(), Decision::Expired);
    }

    /// Three days pass at once.
    #[tokio::test]
    async fn somebody_is_reminded_and_says_no() {
        let app = testing::launch(office()).await.unwrap();
        let run = app.start(expense, trip()).id("trip").await.unwrap();
        app.advance(DAY + Duration::from_secs(60)).await.unwrap();
        let notified = app.steps("trip").await.unwrap();
        assert_eq!(
            notified.iter().filter(|step| step.name == "notify").count(),
            2
        );
        let answer = Answer {
            by: "grace".into(),
            approved: false,
        };
        app.send("trip", "approval", &answer).await.unwrap();
        assert_eq!(
            run.await.unwrap(),
            Decision::Rejected { by: "grace".into() }
        );
    }
}
