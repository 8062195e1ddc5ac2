//! The shop's front on axum: what a web application that starts and watches workflows looks like.

use std::future::IntoFuture as _;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::{Json, Router};
use segno::{Db, ErrorKind, Segno};
use serde_json::json;

use crate::shop::acknowledge;
use crate::workflow::{Order, Receipt, checkout};

/// How long a customer waits for the receipt before the page says that it will come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) app: Segno,
    pub(crate) db: Db,
}

/// An answer that says why not.
pub(crate) struct Refusal(segno::Error);

impl From<segno::Error> for Refusal {
    fn from(error: segno::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::NotFound { .. } => StatusCode::NOT_FOUND,
            // What the checkout itself ended with: a declined card.
            ErrorKind::Portable { .. } => StatusCode::PAYMENT_REQUIRED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.0.to_string() }))).into_response()
    }
}

pub(crate) fn routes(front: Front) -> Router {
    Router::new()
        .route("/carts/{id}", put(submit).get(look))
        .with_state(front)
}

/// The cart's id is the workflow's: a second click, or a second try after a lost answer, joins the same checkout.
/// Once this has answered, the order goes through, whatever happens to this process.
async fn submit(
    State(front): State<Front>,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> Result<StatusCode, Refusal> {
    front.app.start(checkout, order).id(&id).await?;
    acknowledge(&front.db, &id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The receipt; 202 while there is none.
async fn look(State(front): State<Front>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let run = front.app.handle::<Receipt>(&id).await?;
    match tokio::time::timeout(PATIENCE, run.into_future()).await {
        Ok(receipt) => Ok(Json(receipt?).into_response()),
        Err(_) => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use segno::testing;
    use tower::ServiceExt as _;

    use super::*;
    use crate::shop::BAD_CARD;
    use crate::tests::{order, shop};

    async fn ask(
        front: &Front,
        method: &str,
        cart: &str,
        body: Body,
    ) -> (StatusCode, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/carts/{cart}"));
        let request = request
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let answer = routes(front.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_cart_is_checked_out_once() {
        let db = testing::database().await.unwrap();
        let app = testing::launch(shop(db.clone()).await.unwrap())
            .await
            .unwrap();
        let front = Front {
            app: (*app).clone(),
            db,
        };
        let body = |card| Body::from(serde_json::to_vec(&order(card)).unwrap());
        for _ in 0..2 {
            let (status, _) = ask(&front, "PUT", "one", body("4242")).await;
            assert_eq!(status, StatusCode::ACCEPTED);
        }
        let (status, receipt) = ask(&front, "GET", "one", Body::empty()).await;
        assert_eq!((status, &receipt["order_id"]), (StatusCode::OK, &json!(1)));
        ask(&front, "PUT", "two", body(BAD_CARD)).await;
        let (status, error) = ask(&front, "GET", "two", Body::empty()).await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
        assert_eq!(error, json!({ "error": "card declined" }));
        let (status, _) = ask(&front, "GET", "three", Body::empty()).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}
