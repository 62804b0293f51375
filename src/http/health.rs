//! Whether the server is alive and ready, for balancers and people.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::headers::{self, RequestId};
use super::{Backend, Http};

/// How long the database may take to answer before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// When somebody looked last, and what was found: one looks at a time, so that however many ask, they take up one
/// connection.
#[derive(Default)]
pub struct Health(Mutex<Option<(Instant, bool)>>);

impl Health {
    /// Whether the database answers. Who waited while somebody else looked takes what they found.
    async fn look<B: Backend>(&self, backend: &B) -> bool {
        let asked = Instant::now();
        let mut found = self.0.lock().await;
        if let Some((looked, answers)) = *found
            && looked >= asked
        {
            return answers;
        }
        let looked = Instant::now();
        let answers = tokio::time::timeout(PATIENCE, backend.database_answers()).await;
        let answers = answers.unwrap_or(false);
        *found = Some((looked, answers));
        answers
    }
}

/// The process answers.
pub async fn live<B: Backend>() -> Response {
    told(true, r#"{"status":"ok"}"#)
}

/// Requests may be sent here: the database answers and the server is not stopping.
pub async fn ready<B: Backend>(State(http): State<Arc<Http<B>>>) -> Response {
    if http.shutdown.is_cancelled() {
        return told(false, r#"{"status":"stopping"}"#);
    }
    database(State(http)).await
}

/// The database answers.
pub async fn database<B: Backend>(State(http): State<Arc<Http<B>>>) -> Response {
    if http.health.look(&http.backend).await {
        told(true, r#"{"status":"ok","database":"ok"}"#)
    } else {
        told(false, r#"{"status":"unavailable","database":"unavailable"}"#)
    }
}

fn told(good: bool, body: &'static str) -> Response {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    headers::answer(
        status,
        headers::JSON,
        Bytes::from_static(body.as_bytes()),
        &RequestId::new(),
    )
}
