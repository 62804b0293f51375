//! What stands behind the wire: the application, for the server.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Request, Response};
use uuid::Uuid;

use super::live::{Live, Steps};
use super::{Settings, introspection};
use crate::auth::keys::JWKS_AGE;
use crate::auth::provider::Door;
use crate::auth::{Limiter, Means, Origin, Viewer};
use crate::config::Config;
use crate::error::Result;
use crate::graphql::Session;
use crate::graphql::limits::{Documents, Prepared};

/// The longest time that a clock is set to.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the wire needs of the application. Tests put a small one there, with a schema that hangs and panics.
pub trait Backend: Send + Sync + 'static {
    /// Who asks.
    type Viewer: Clone + Send + Sync + 'static;
    /// What one operation carries.
    type Session: Send + Sync + 'static;

    /// The guard that judges every document.
    fn documents(&self) -> &Documents;

    /// Bounds how often what is asked.
    fn limiter(&self) -> &Limiter;

    /// Who a bearer token belongs to, that was sent from there.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`](crate::error::Error), or [`Error::Unavailable`](crate::error::Error) when it could not
    /// be found out.
    fn authenticate(
        &self,
        bearer: &str,
        origin: &Origin,
    ) -> impl Future<Output = Result<Self::Viewer>> + Send;

    /// What somebody may know of a token that was sent to them.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::error::Error) when they may not ask.
    fn introspect(
        &self,
        asker: &Self::Viewer,
        token: &str,
        origin: &Origin,
    ) -> impl Future<Output = Result<serde_json::Value>> + Send;

    /// The keys that access tokens are verified with, as a JSON Web Key Set, and for how long they may be kept.
    fn keys(&self) -> (serde_json::Value, Duration);

    /// How long a viewer's token is still valid.
    fn expires_in(&self, viewer: &Self::Viewer) -> Duration;

    /// Ends when the viewer's token is no longer good, although its time is not over.
    fn revoked(&self, viewer: &Self::Viewer) -> impl Future<Output = ()> + Send + 'static;

    /// A session for one operation from there; `idempotency_key` is the header of that name.
    fn session(
        &self,
        viewer: Option<Self::Viewer>,
        origin: Origin,
        idempotency_key: Option<String>,
    ) -> Arc<Self::Session>;

    /// Puts a session where resolvers look for it.
    fn attach(&self, request: Request, session: &Arc<Self::Session>) -> Request;

    /// Ends what a session holds when its operation has been answered, and answers the same, unless what it held turns out
    /// to have been no good. Nothing when the operation has to be executed once more.
    fn conclude(
        &self,
        session: &Self::Session,
        response: Response,
    ) -> impl Future<Output = Option<Response>> + Send;

    /// Runs a query or mutation.
    fn execute(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Runs a subscription.
    fn subscribe(&self, viewer: Option<&Self::Viewer>, prepared: Prepared) -> Steps;

    /// The tenant that a viewer is of, and what they are known by there: the user, or the API key.
    fn identity(&self, viewer: &Self::Viewer) -> (Uuid, Uuid);

    /// Whether a newer token says the same of the viewer as the older one did.
    fn renews(&self, older: &Self::Viewer, newer: &Self::Viewer) -> bool;

    /// Where people go out to other providers and come in again, when there are any.
    fn door(&self) -> Option<&Door> {
        None
    }

    /// Whether the database answers.
    fn database_answers(&self) -> impl Future<Output = bool> + Send;
}

impl Backend for Arc<Live> {
    type Viewer = Viewer;
    type Session = Session;

    fn documents(&self) -> &Documents {
        &self.app.documents
    }

    fn limiter(&self) -> &Limiter {
        &self.app.limiter
    }

    async fn authenticate(&self, bearer: &str, origin: &Origin) -> Result<Viewer> {
        self.app.identify(bearer, origin).await
    }

    async fn introspect(&self, asker: &Viewer, token: &str, origin: &Origin) -> Result<serde_json::Value> {
        introspection::tell(asker, self.app.identify(token, origin)).await
    }

    fn keys(&self) -> (serde_json::Value, Duration) {
        (self.app.tokens.keys().jwks(), JWKS_AGE)
    }

    fn expires_in(&self, viewer: &Viewer) -> Duration {
        (viewer.expires_at - chrono::Utc::now())
            .to_std()
            .unwrap_or_default()
            .min(LONGEST)
    }

    fn revoked(&self, viewer: &Viewer) -> impl Future<Output = ()> + Send + 'static {
        self.app.revocations.watch(viewer)
    }

    fn session(
        &self,
        viewer: Option<Viewer>,
        origin: Origin,
        idempotency_key: Option<String>,
    ) -> Arc<Session> {
        let session = self.app.session(viewer).with_origin(origin);
        Arc::new(session.with_idempotency_key(idempotency_key))
    }

    fn attach(&self, request: Request, session: &Arc<Session>) -> Request {
        request.data(session.clone())
    }

    async fn conclude(&self, session: &Session, response: Response) -> Option<Response> {
        session.conclude(response).await
    }

    async fn execute(&self, request: Request) -> Response {
        self.app.schema.execute(request).await
    }

    fn subscribe(&self, viewer: Option<&Viewer>, prepared: Prepared) -> Steps {
        Live::subscribe(self, viewer, prepared)
    }

    fn identity(&self, viewer: &Viewer) -> (Uuid, Uuid) {
        let known_by = match viewer.means {
            Means::Session | Means::External => viewer.user_id,
            Means::ApiKey => viewer.session_id,
        };
        (viewer.tenant_id, known_by)
    }

    fn renews(&self, older: &Viewer, newer: &Viewer) -> bool {
        self.identity(older) == self.identity(newer) && older.rights == newer.rights
    }

    fn door(&self) -> Option<&Door> {
        self.app.door.as_ref()
    }

    async fn database_answers(&self) -> bool {
        self.app.db.ping().await.is_ok()
    }
}

impl Settings {
    /// The settings of a server; `demo` when it runs on the demo data.
    pub fn of(config: &Config, demo: bool) -> Self {
        Self {
            allowed_origins: config.allowed_origins.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            threads: config.threads(),
            graphiql: config.graphiql,
            streams_per_user: config.streams_per_user as usize,
            streams_per_tenant: config.streams_per_tenant as usize,
            demo,
            ..Self::default()
        }
    }
}
