//! Sessions in the schema.

use async_graphql::{Context, Object};

use super::{Session, queries};
use crate::db::id::Id;
use crate::error::Result;
use crate::graphql::scalar::DateTime;
use crate::graphql::{ContextExt, InPerson};

/// A session of yours: from signing in to signing out, in one browser or program.
#[Object]
impl Session {
    /// The session's id, for example `session_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Session> {
        self.id
    }

    /// Whether it is the session of the access token that you ask with.
    async fn is_current(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(ctx.viewer()?.session_id == self.id.uuid())
    }

    /// When you signed in.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the session began or was last refreshed.
    async fn last_used_at(&self) -> DateTime {
        self.last_used_at.into()
    }

    /// When it ends unless it is refreshed before.
    async fn ends_at(&self) -> DateTime {
        self.ends_at.into()
    }

    /// When it ends, however often it is refreshed.
    async fn expires_at(&self) -> DateTime {
        self.expires_at.into()
    }

    /// What the browser or program called itself that used it last.
    async fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// The network address that it was last used from.
    async fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

/// One's own sessions at the root of the schema.
#[derive(Default)]
pub struct SessionQuery;

#[Object]
impl SessionQuery {
    /// Your sessions in this tenant that go on, the last used first; 100 at most.
    #[graphql(guard = "InPerson")]
    async fn sessions(&self, ctx: &Context<'_>) -> Result<Vec<Session>> {
        let user = ctx.viewer()?.user_id;
        queries::live(ctx.reading()?.conn().await?, user).await
    }
}
