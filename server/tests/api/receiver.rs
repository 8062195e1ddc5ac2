//! The other side of an alert channel: takes requests, keeps them, and answers as a test says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

type Answers = Arc<dyn Fn(&Received) -> Response + Send + Sync>;

#[derive(Clone)]
struct Inner {
    received: Arc<Mutex<Vec<Received>>>,
    answers: Answers,
}

/// A listening receiver; it leaves when dropped.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    inner: Inner,
    task: JoinHandle<()>,
}

impl Receiver {
    /// One that answers so.
    pub(crate) async fn start(
        answers: impl Fn(&Received) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Inner {
            received: Arc::default(),
            answers: Arc::new(answers),
        };
        let router = Router::new().fallback(take).with_state(inner.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, inner, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What came to a path so far.
    pub(crate) fn at(&self, path: &str) -> Vec<Received> {
        let received = self.inner.received.lock().unwrap();
        let here = received.iter().filter(|request| request.path == path);
        here.cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(inner): State<Inner>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let received = Received {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    };
    inner.received.lock().unwrap().push(received.clone());
    (inner.answers)(&received)
}

/// An answer of this status.
pub(crate) fn status(status: u16, text: &str) -> Response {
    Response::builder()
        .status(status)
        .body(Body::from(text.to_owned()))
        .unwrap()
}
