//! What stands behind the wire: [`App`], for the server.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::futures_util::stream::BoxStream;
use async_graphql::{Request, Response};

use super::Settings;
use crate::app::App;
use crate::auth::Viewer;
use crate::config::Config;
use crate::graphql::Session;
use crate::graphql::limits::Documents;

/// What the wire needs of the application. Tests put a small one there, with a schema that hangs and panics.
pub trait Backend: Send + Sync + 'static {
    /// Who asks.
    type Viewer: Clone + Send + Sync + 'static;
    /// What one operation carries.
    type Session: Send + Sync + 'static;

    /// The guard that judges every document.
    fn documents(&self) -> &Documents;

    /// Who a bearer token belongs to.
    ///
    /// # Errors
    /// An error whose message the client will see.
    fn authenticate(&self, bearer: &str) -> async_graphql::Result<Self::Viewer>;

    /// How long a viewer's token is still valid.
    fn expires_in(&self, viewer: &Self::Viewer) -> Duration;

    /// Ends when the viewer's token is no longer good, although its time is not over.
    fn revoked(&self, viewer: &Self::Viewer) -> impl Future<Output = ()> + Send + 'static;

    /// A session for one operation; `idempotency_key` is the header of that name.
    fn session(&self, viewer: Option<Self::Viewer>, idempotency_key: Option<String>) -> Arc<Self::Session>;

    /// Puts a session where resolvers look for it.
    fn attach(&self, request: Request, session: &Arc<Self::Session>) -> Request;

    /// Ends what a session holds, without waiting; it may be used again.
    fn finish(&self, session: &Self::Session);

    /// Runs a query or mutation.
    fn execute(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Runs a subscription.
    fn execute_stream(&self, request: Request) -> BoxStream<'static, Response>;

    /// Whether the database answers.
    fn database_answers(&self) -> impl Future<Output = bool> + Send;
}

impl Backend for Arc<App> {
    type Viewer = Viewer;
    type Session = Session;

    fn documents(&self) -> &Documents {
        &self.documents
    }

    fn authenticate(&self, bearer: &str) -> async_graphql::Result<Viewer> {
        Ok(App::authenticate(self, bearer)?)
    }

    fn expires_in(&self, viewer: &Viewer) -> Duration {
        (viewer.expires_at - chrono::Utc::now())
            .to_std()
            .unwrap_or_default()
    }

    fn revoked(&self, viewer: &Viewer) -> impl Future<Output = ()> + Send + 'static {
        self.revocations.watch(viewer)
    }

    fn session(&self, viewer: Option<Viewer>, idempotency_key: Option<String>) -> Arc<Session> {
        Arc::new(App::session(self, viewer).with_idempotency_key(idempotency_key))
    }

    fn attach(&self, request: Request, session: &Arc<Session>) -> Request {
        request.data(session.clone())
    }

    fn finish(&self, session: &Session) {
        session.finish();
    }

    async fn execute(&self, request: Request) -> Response {
        self.schema.execute(request).await
    }

    fn execute_stream(&self, request: Request) -> BoxStream<'static, Response> {
        self.schema.execute_stream(request)
    }

    async fn database_answers(&self) -> bool {
        self.db.ping().await.is_ok()
    }
}

impl Settings {
    /// The settings of a server; `demo` when it runs on the demo data.
    pub fn of(config: &Config, demo: bool) -> Self {
        Self {
            allowed_origins: config.allowed_origins.clone(),
            graphiql: config.graphiql,
            demo,
            ..Self::default()
        }
    }
}
