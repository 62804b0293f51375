//! GraphQL over the wire. Own code throughout, for what the stock integration gets wrong; the executor stays
//! async-graphql's.
//!
//! | path | what |
//! |---|---|
//! | `POST /graphql`, `GET /graphql` | [`graphql`]: GraphQL over HTTP |
//! | the same, accepting `text/event-stream` | [`sse`]: GraphQL over server-sent events |
//! | `GET /graphql` with an upgrade | [`websocket`]: `graphql-transport-ws` |
//! | `/graphiql` | [`graphiql`]: the page to try it |
//! | `POST /oauth/introspect` | [`introspection`]: whose token another service has been sent |
//! | `GET /.well-known/jwks.json` | [`jwks`]: what access tokens are verified with |
//! | `GET /sign-in/{provider}` and its `callback` | to another provider, and back: [`provider`](crate::auth::provider) |
//! | `/health…` | [`health`]: is it alive, is it ready |
//!
//! [`backend`] is what stands behind, [`headers`] what every answer carries, [`origin`] where
//! requests come from, [`serve`] the sockets below, [`workers`] the threads that they are served by, [`answer`] how
//! results and errors become bytes.
//!
//! What servers of GraphQL get wrong, and where it is settled here:
//!
//! | failing | settled by |
//! |---|---|
//! | fragments that unfold without end, floods of tokens, aliases, root fields, directives | [`limits`](crate::graphql::limits), before anything walks the document |
//! | large and slow bodies, slow heads, silent connections, too many of them | [`Settings`], [`serve`] |
//! | batches | refused: one request must not be many |
//! | hundreds of errors in one answer | cut at [`Settings::errors`] |
//! | operations that hang or panic | time-out and `INTERNAL` for that request alone |
//! | mutations by `GET`, bodies that browsers send across origins | 405; 415 for all but `application/json` |
//! | errors that tell of the inside | [`answer`]: closed list of codes, the rest is `INTERNAL` with the request's id |
//! | suggestions of names, introspection that cannot be switched off or goes in circles | the schema is built without suggestions; `limits` |
//! | `Accept` and status codes | [`graphql`]: both media types, `q`, 406; request errors are 400 without `data` |
//! | `operationName` and empty parameters in `GET` | [`graphql`] reads the query string itself |
//! | defaults of variables in `@include`, missing and null variables, nullable variables in non-null places | `limits` |
//! | several root fields of a subscription, `__typename` with arguments or directives | `limits` |
//! | close codes, duplicate ids, request errors as results, late or missing `connection_init`, pings, slow readers, endless tokens, restarts | [`websocket`] |
//! | sockets opened by foreign pages | `Origin` against `Host` and [`Settings::allowed_origins`] |
//!
//! What is known to differ from the specifications, and why:
//!
//! - **Multipart** bodies are refused with 415: there are no uploads, and browsers send them without asking first.
//! - **Subscriptions as `multipart/mixed`** are refused: they need a socket or server-sent events.
//! - **Fields that conflict only through a fragment** are not found; the executor answers with the first.
//! - **`@defer`, `@stream`** are drafts and not known here.

pub mod answer;
pub mod backend;
mod charge;
mod cors;
pub mod graphiql;
pub mod graphql;
pub mod headers;
pub mod health;
pub mod introspection;
pub mod jwks;
pub mod live;
pub mod origin;
pub mod serve;
mod sign_in;
pub mod sse;
pub mod streams;
pub mod tls;
mod trace;
pub mod websocket;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get, post};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use backend::Backend;
use live::Live;
use streams::Streams;
use tls::Tls;

use crate::app::App;

/// Times and sizes of the wire, and what is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the head of a request may take to arrive, and a connection may be idle between two. A balancer in
    /// front must let go of its idle connections earlier.
    pub head_time: Duration,
    /// How long an HTTP/2 connection may be without a request. It is told that it ends, so that nothing is lost.
    pub idle_time: Duration,
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
    /// How often a stream of server-sent events shows that it is alive.
    pub alive_time: Duration,
    /// How long a client may take to take in what was sent.
    pub write_time: Duration,
    /// Bytes of a message on a socket.
    pub message_bytes: usize,
    /// Operations that run at the same time on a socket.
    pub operations: usize,
    /// Subscriptions that a user may have open.
    pub streams_per_user: usize,
    /// Subscriptions that a tenant may have open.
    pub streams_per_tenant: usize,
    /// Answers that wait for a slow reader before its socket is closed.
    pub backlog: usize,
    /// Origins besides the server's own whose pages may use the API, such as `https://crm.example`.
    pub allowed_origins: Vec<String>,
    /// Proxies that are believed when they tell where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// What connections are encrypted with; nothing where that is left to a balancer in front.
    pub tls: Option<Arc<Tls>>,
    /// Threads that serve.
    pub threads: u32,
    /// Whether `/graphiql` is there.
    pub graphiql: bool,
    /// Whether `/graphiql` offers the demo users.
    pub demo: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(120),
            body_bytes: 1024 * 1024,
            body_time: Duration::from_secs(10),
            execution_time: Duration::from_secs(30),
            gzip_from: 1024,
            errors: 20,
            init_time: Duration::from_secs(10),
            ping_time: Duration::from_secs(20),
            alive_time: Duration::from_secs(12),
            write_time: Duration::from_secs(10),
            message_bytes: 128 * 1024,
            operations: 100,
            streams_per_user: 10_000,
            streams_per_tenant: 50_000,
            backlog: 256,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            threads: 1,
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
    streams: Arc<Streams>,
    health: health::Health,
}

impl Http<Arc<Live>> {
    /// Puts the application on the wire, until it is told to shut down.
    pub fn of(app: Arc<App>, settings: Settings) -> Arc<Self> {
        let shutdown = app.shutdown.clone();
        Self::new(Live::new(app, settings.errors), settings, shutdown)
    }
}

impl<B: Backend> Http<B> {
    /// Puts an application on the wire. When `shutdown` is cancelled, [`serve::serve`] ends and sockets are closed.
    pub fn new(backend: B, settings: Settings, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            streams: Streams::new(settings.streams_per_user, settings.streams_per_tenant),
            backend,
            settings,
            shutdown,
            sockets: TaskTracker::new(),
            health: health::Health::default(),
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
            .route("/oauth/introspect", post(introspection::handle::<B>))
            .route("/sign-in/{provider}", get(sign_in::send::<B>))
            .route("/sign-in/{provider}/callback", get(sign_in::receive::<B>))
            .route("/.well-known/jwks.json", get(jwks::handle::<B>))
            .route("/health", get(health::live::<B>))
            .route("/health/live", get(health::live::<B>))
            .route("/health/ready", get(health::ready::<B>))
            .route("/health/db", get(health::database::<B>))
            .fallback(headers::not_found);
        if self.settings.graphiql {
            router = router.merge(graphiql::routes(self.settings.demo));
        }
        if let Some(cors) = cors::layer(&self.settings.allowed_origins) {
            router = router.layer(cors);
        }
        router.with_state(self.clone())
    }
}
