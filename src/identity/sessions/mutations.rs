//! Refreshing sessions and ending them.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use serde_json::json;

use super::Session;
use super::model::RefreshToken;
use super::queries::{self, Refreshed, Which};
use crate::auth::{Limiter, Policy};
use crate::crypto::Vault;
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::{ContextExt, InPerson, Outcome, mutate_unless_done};
use crate::identity::{SignInPayload, SignedIn, revocations};

/// A session to go on with.
#[derive(Debug, InputObject)]
pub struct RefreshSessionInput {
    /// The refresh token that you were given last.
    #[graphql(secret)]
    refresh_token: String,
}

/// A session of yours to be ended.
#[derive(Debug, InputObject)]
pub struct RevokeSessionInput {
    /// The session to end.
    session_id: Id<Session>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `signOut`.
#[derive(SimpleObject)]
pub struct SignOutPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `revokeSession`.
#[derive(SimpleObject)]
pub struct RevokeSessionPayload {
    /// The id of the session that has ended; null when there are `userErrors`.
    revoked_session_id: Option<Id<Session>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `revokeOtherSessions`.
#[derive(SimpleObject)]
pub struct RevokeOtherSessionsPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of one's own sessions.
#[derive(Default)]
pub struct SessionMutation;

#[Object]
impl SessionMutation {
    /// Goes on with a session: answers a new access token, with the rights that you have now, and a new refresh token.
    /// It needs no access token. The old refresh token is good no more, but for half a minute, in which it is answered
    /// with the same new one: who lost an answer may ask again. If it is used later, somebody else has it too, and the
    /// session ends. `UNAUTHENTICATED` tells that the session is over.
    async fn refresh_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The session to go on with.")] input: RefreshSessionInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, refresh(ctx, &input.refresh_token).await)
    }

    /// Signs out: ends the session of the access token that this is asked with. Its tokens are refused from now on, and
    /// sockets that were opened with them are closed with the code 4403; other sessions of yours go on. To repeat it is
    /// harmless: who is told `UNAUTHENTICATED` is signed out.
    #[graphql(guard = "InPerson")]
    async fn sign_out(&self, ctx: &Context<'_>) -> Result<SignOutPayload> {
        let viewer = ctx.viewer()?;
        let mut revoked = Vec::new();
        let (_, outcome) = mutate_unless_done(ctx, "signOut", None, async |work| {
            if !revocations(ctx).revokes(viewer) {
                let which = Which::One(viewer.session_id);
                revoked.push(queries::end(work, Id::from_uuid(viewer.user_id), which).await?);
                work.record(
                    Id::<Session>::from_uuid(viewer.session_id),
                    "SIGNED_OUT",
                    &json!({}),
                )?;
            }
            Ok(())
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(SignOutPayload { outcome })
    }

    /// Ends one of your sessions in this tenant, for example that of a lost telephone. Its tokens are refused from now on,
    /// and sockets that were opened with them are closed with the code 4403.
    #[graphql(guard = "InPerson")]
    async fn revoke_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which session to end.")] input: RevokeSessionInput,
    ) -> Result<RevokeSessionPayload> {
        let (viewer, session) = (ctx.viewer()?, input.session_id);
        let mut revoked = Vec::new();
        let (revoked_session_id, outcome) =
            mutate_unless_done(ctx, "revokeSession", input.idempotency_key, async |work| {
                if !queries::is_live(work, viewer.user_id, session.uuid()).await? {
                    return Err(Error::invalid(
                        "sessionId",
                        ProblemCode::NotFound,
                        "There is no such session.",
                    ));
                }
                let which = Which::One(session.uuid());
                revoked.push(queries::end(work, Id::from_uuid(viewer.user_id), which).await?);
                work.record(session, "REVOKED", &json!({}))?;
                Ok(session)
            })
            .await?;
        revocations(ctx).take_in(&revoked);
        Ok(RevokeSessionPayload {
            revoked_session_id,
            outcome,
        })
    }

    /// Ends all your sessions in this tenant but the one that you ask with.
    #[graphql(guard = "InPerson")]
    async fn revoke_other_sessions(&self, ctx: &Context<'_>) -> Result<RevokeOtherSessionsPayload> {
        let viewer = ctx.viewer()?;
        let mut revoked = Vec::new();
        let (_, outcome) = mutate_unless_done(ctx, "revokeOtherSessions", None, async |work| {
            let which = Which::AllBut(viewer.session_id);
            revoked.push(queries::end(work, Id::from_uuid(viewer.user_id), which).await?);
            let kept = Id::<Session>::from_uuid(viewer.session_id);
            work.record(kept, "OTHERS_REVOKED", &json!({}))
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(RevokeOtherSessionsPayload { outcome })
    }
}

async fn refresh(ctx: &Context<'_>, token: &str) -> Result<SignedIn> {
    let refused = Error::Unauthenticated("This session is over. Sign in again.");
    let Some(token) = RefreshToken::parse(token) else {
        return Err(refused);
    };
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter
        .take_from(Policy::Refresh, ctx.session().origin(), 1)
        .await?;
    match queries::refresh(ctx.session(), ctx.data_unchecked::<Arc<Vault>>(), &token).await? {
        Refreshed::On(signed_in) => Ok(*signed_in),
        Refreshed::Refused => Err(refused),
        Refreshed::Ended(revocation) => {
            revocations(ctx).take_in(&[revocation]);
            Err(refused)
        }
    }
}
