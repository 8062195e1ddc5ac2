//! A widget store with a crash button: order a widget, press the button at any moment, start the program again, and
//! the order goes on after its last finished step. The stock is always right.
//!
//! ```sh
//! cargo run --bin widget_store      # then open http://127.0.0.1:8000
//! ```

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use segno::{Builder, Ctx, Db, Segno, Tx};
use serde::{Deserialize, Serialize};

/// How long the store waits for its customer's payment.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

#[derive(Clone)]
struct Store {
    db: Db,
    /// How long packing takes, step by step.
    packing: Duration,
}

/// How an order ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Outcome {
    Dispatched,
    SoldOut,
    NotPaid,
}

/// Takes a widget off the shelf, waits for the money, and sends the widget, or puts it back.
#[segno::workflow]
async fn order(ctx: Ctx<Store>, _: ()) -> segno::Result<Outcome> {
    let store = ctx.state();
    ctx.set_event("state", "reserving").await;
    let reserved = ctx
        .transaction(&store.db, "reserve", |tx| Box::pin(take_one(tx)))
        .await?;
    if !reserved {
        return Ok(Outcome::SoldOut);
    }

    ctx.set_event("state", "waiting for payment").await;
    let paid = ctx
        .recv::<bool>("payment")
        .timeout(PATIENCE)
        .await
        .unwrap_or(false);
    if !paid {
        ctx.transaction(&store.db, "put back", |tx| Box::pin(put_back(tx)))
            .await?;
        return Ok(Outcome::NotPaid);
    }

    for part in ["box", "label", "stamp"] {
        ctx.set_event("state", &format!("packing: {part}")).await;
        ctx.step(format!("pack {part}"), || async {
            tokio::time::sleep(store.packing).await;
            Ok(())
        })
        .await?;
    }
    ctx.set_event("state", "dispatched").await;
    Ok(Outcome::Dispatched)
}

/// The checkpoint and this commit are one: a widget is taken once, whenever the process dies.
async fn take_one(tx: &mut Tx<'_>) -> segno::Result<bool> {
    let take = "UPDATE widgets SET left_over = left_over - 1 WHERE left_over > 0";
    Ok(tx.query(take).execute().await? == 1)
}

async fn put_back(tx: &mut Tx<'_>) -> segno::Result<()> {
    tx.query("UPDATE widgets SET left_over = left_over + 1")
        .execute()
        .await?;
    Ok(())
}

async fn store(db: &Db, packing: Duration) -> segno::Result<Builder<Store>> {
    db.transaction(|tx| Box::pin(stock_up(tx))).await?;
    let store = Store {
        db: db.clone(),
        packing,
    };
    let app = Segno::named("widget-store").database(db).state(store);
    Ok(app.workflows(segno::workflows![order]))
}

async fn stock_up(tx: &mut Tx<'_>) -> segno::Result<()> {
    tx.query(
        "CREATE TABLE IF NOT EXISTS widgets (id BIGINT PRIMARY KEY, left_over BIGINT NOT NULL)",
    )
    .execute()
    .await?;
    tx.query("INSERT INTO widgets (id, left_over) VALUES (1, 12) ON CONFLICT (id) DO NOTHING")
        .execute()
        .await?;
    Ok(())
}

async fn left_over(db: &Db) -> segno::Result<i64> {
    let count = async |tx: &mut Tx<'_>| {
        let (left_over,): (i64,) = tx
            .query("SELECT left_over FROM widgets")
            .fetch_one()
            .await?;
        Ok(left_over)
    };
    db.transaction(|tx| Box::pin(count(tx))).await
}

// ---- the front -----------------------------------------------------------------------------------

#[derive(Clone)]
struct Front {
    app: Segno,
    db: Db,
}

/// An error, for whoever asked.
type Refusal = (StatusCode, String);

fn refused(error: segno::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn routes(front: Front) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/stock", get(stock))
        .route("/orders/{id}", post(place).get(state))
        .route("/orders/{id}/payment/{paid}", post(pay))
        .route("/crash", post(crash))
        .with_state(front)
}

async fn crash() -> StatusCode {
    std::process::abort()
}

async fn stock(State(front): State<Front>) -> Result<Json<i64>, Refusal> {
    left_over(&front.db).await.map(Json).map_err(refused)
}

/// The customer makes the id up: a second click, or a second try after a crash, joins the same order.
async fn place(State(front): State<Front>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let start = front.app.start(order, ()).id(id);
    start.await.map(|_| StatusCode::ACCEPTED).map_err(refused)
}

async fn state(
    State(front): State<Front>,
    Path(id): Path<String>,
) -> Result<Json<Option<String>>, Refusal> {
    let state = front
        .app
        .get_event::<String>(id, "state")
        .timeout(Duration::ZERO);
    state.await.map(Json).map_err(refused)
}

async fn pay(
    State(front): State<Front>,
    Path((id, paid)): Path<(String, bool)>,
) -> Result<StatusCode, Refusal> {
    let payment = front
        .app
        .send(id, "payment", &paid)
        .idempotency_key("payment");
    payment
        .await
        .map(|()| StatusCode::NO_CONTENT)
        .map_err(refused)
}

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><title>Widgets</title>
<style>body { font: 1.2rem system-ui; margin: 3rem auto; max-width: 30rem } button { font: inherit; margin: .3rem .3rem .3rem 0 }</style>
<h1>Widgets</h1>
<p><b id="stock">…</b> left. <button onclick="buy()">Buy one</button> <button onclick="post('/crash')">Crash!</button></p>
<p id="order" hidden><code id="id"></code>: <b id="state"></b><br>
<button onclick="pay(true)">Pay</button> <button onclick="pay(false)">Do not pay</button></p>
<script>
  let id = localStorage.order;
  const at = (name) => document.getElementById(name);
  const post = (path) => fetch(path, { method: 'POST' }).catch(() => {});
  const buy = () => { id = localStorage.order = crypto.randomUUID(); post('/orders/' + id); };
  const pay = (paid) => post('/orders/' + id + '/payment/' + paid);
  setInterval(async () => {
    try {
      at('stock').textContent = await (await fetch('/stock')).json();
      at('order').hidden = !id;
      if (!id) return;
      at('id').textContent = id;
      at('state').textContent = await (await fetch('/orders/' + id)).json();
    } catch { at('state').textContent = 'The store is down. Start it again!'; }
  }, 300);
</script>"#;

#[tokio::main]
async fn main() -> segno::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://widgets.db".into());
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8000".into());
    let db = Db::connect(&url).await?;
    let app = store(&db, Duration::from_secs(1)).await?.launch().await?;
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, routes(Front { app, db })).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use segno::testing;

    use super::*;

    async fn app(db: Db) -> segno::Result<Builder<Store>> {
        store(&db, Duration::ZERO).await
    }

    /// A crash at every checkpoint of a paid order and of one that is not: the stock is right every time.
    #[tokio::test]
    async fn every_crash_is_survived() {
        for (paid, outcome, left) in [
            (true, Outcome::Dispatched, 11),
            (false, Outcome::NotPaid, 12),
        ] {
            let trials = || {
                let pays = move |app: Segno, id: String| async move {
                    app.send(id, "payment", &paid)
                        .idempotency_key("payment")
                        .await
                };
                let counted = move |app: Segno, _| async move {
                    match left_over(app.db()).await? {
                        found if found == left => Ok(()),
                        found => Err(segno::Error::message(format!("{found} left over"))),
                    }
                };
                testing::crash_everywhere_with(app, order, ())
                    .meanwhile(pays)
                    .check(counted)
            };
            assert_eq!(trials().await.unwrap(), outcome);
            let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
            assert_eq!(trials().on_postgres(postgres).await.unwrap(), outcome);
        }
    }

    #[tokio::test]
    async fn who_does_not_pay_gets_nothing() {
        let db = testing::database().await.unwrap();
        let app = testing::launch(app(db.clone()).await.unwrap())
            .await
            .unwrap();
        let run = app.start(order, ()).await.unwrap();
        app.idle().await;
        assert_eq!(left_over(&db).await.unwrap(), 11);
        app.advance(PATIENCE).await.unwrap();
        assert_eq!(run.await.unwrap(), Outcome::NotPaid);
        assert_eq!(left_over(&db).await.unwrap(), 12);
    }
}
