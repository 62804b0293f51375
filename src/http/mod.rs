//! GraphQL over the wire. Own code throughout, for what the stock integration gets wrong; the executor stays
//! async-graphql's.
//!
//! | path | what |
//! |---|---|
//! | `POST /graphql`, `GET /graphql` | [`graphql`]: GraphQL over HTTP |
//! | `GET /graphql` with an upgrade | [`websocket`]: `graphql-transport-ws` |
//! | `/graphiql` | [`graphiql`]: the page to try it |
//! | `/health…` | [`health`]: is it alive, is it ready |
//!
//! [`backend`] is what stands behind, [`headers`] what every answer carries, [`serve`] the sockets below, [`answer`] how
//! results and errors become bytes.
//!
//! What is known to differ from the specifications, and why:
//!
//! - **Batching** (an array of operations) is refused: one request must not be many.
//! - **Multipart** bodies are refused with 415: browsers send them across origins without asking first.
//! - **`__typename` and overlapping fields**: two fields of one name that conflict only through a fragment are not
//!   found; the executor answers with the first.
//! - **Custom scalars** in variables are judged by their own parsers, when a field takes them: such an error has a
//!   `path`, and the other fields are answered.
//! - **`@defer`, `@stream`** are drafts and not known here.
//! - **Subscriptions over plain HTTP** are refused here; they need a socket.

pub mod answer;
pub mod backend;
pub mod graphiql;
pub mod graphql;
pub mod headers;
pub mod health;
pub mod serve;
pub mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use backend::Backend;

/// Times and sizes of the wire, and what is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How long a query or mutation may run.
    pub execution_time: Duration,
    /// Bytes of an answer from which on it is compressed for clients that take gzip.
    pub gzip_from: usize,
    /// Errors told in one answer.
    pub errors: usize,
    /// How long a new socket may take to say who it is.
    pub init_time: Duration,
    /// How often a silent client is asked whether it is still there. One that stays silent as long again is dropped.
    pub ping_time: Duration,
    /// How long a client may take to take in what was sent.
    pub write_time: Duration,
    /// Bytes of a message on a socket.
    pub message_bytes: usize,
    /// Operations that run at the same time on a socket.
    pub operations: usize,
    /// Answers that wait for a slow reader before its socket is closed.
    pub backlog: usize,
    /// Origins besides the server's own from which browsers may open a socket, such as `https://crm.example`.
    pub allowed_origins: Vec<String>,
    /// Whether `/graphiql` is there.
    pub graphiql: bool,
    /// Whether `/graphiql` offers the demo users.
    pub demo: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            body_time: Duration::from_secs(10),
            execution_time: Duration::from_secs(30),
            gzip_from: 1024,
            errors: 20,
            init_time: Duration::from_secs(10),
            ping_time: Duration::from_secs(20),
            write_time: Duration::from_secs(10),
            message_bytes: 128 * 1024,
            operations: 100,
            backlog: 256,
            allowed_origins: Vec::new(),
            graphiql: true,
            demo: false,
        }
    }
}

/// The application with its wire.
pub struct Http<B> {
    backend: B,
    settings: Settings,
    /// Cancelled when the server stops: sockets say good-bye then.
    shutdown: CancellationToken,
    /// Sockets that are open.
    sockets: TaskTracker,
}

impl<B: Backend> Http<B> {
    /// Puts an application on the wire. When `shutdown` is cancelled, [`serve::serve`] ends and sockets are closed.
    pub fn new(backend: B, settings: Settings, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            backend,
            settings,
            shutdown,
            sockets: TaskTracker::new(),
        })
    }

    /// The application.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Everything that is served, and where.
    pub fn router(self: &Arc<Self>) -> Router {
        let mut router = Router::new()
            .route("/graphql", any(graphql::handle::<B>))
            .route("/health", get(health::live::<B>))
            .route("/health/live", get(health::live::<B>))
            .route("/health/ready", get(health::ready::<B>))
            .route("/health/db", get(health::database::<B>))
            .fallback(headers::not_found);
        if self.settings.graphiql {
            router = router.merge(graphiql::routes(self.settings.demo));
        }
        router.with_state(self.clone())
    }
}
