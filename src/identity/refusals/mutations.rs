//! Telling of refused sign-ins.

use std::sync::Arc;

use async_graphql::Context;
use serde_json::json;

use crate::auth::refusal::Refused;
use crate::auth::{Limiter, Origin, Policy};
use crate::db::Database;
use crate::db::directory::{Membership, people};
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::events::{Hub, Work};
use crate::graphql::ContextExt;
use crate::identity::User;

/// Tells those concerned that somebody was not let in.
#[derive(Clone)]
pub struct Refusals {
    db: Database,
    hub: Arc<Hub>,
    limiter: Arc<Limiter>,
}

impl Refusals {
    /// What writes into trails here.
    pub fn new(db: Database, hub: Arc<Hub>, limiter: Arc<Limiter>) -> Self {
        Self { db, hub, limiter }
    }

    pub(in crate::identity) fn db(&self) -> &Database {
        &self.db
    }

    pub(in crate::identity) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(in crate::identity) fn of(ctx: &Context<'_>) -> Self {
        let (session, limiter) = (ctx.session(), ctx.data_unchecked::<Arc<Limiter>>());
        Self::new(session.db().clone(), session.hub().clone(), limiter.clone())
    }

    /// Tells the log that somebody was not let in, and the audit trails of the tenants that the account belongs to by its
    /// own will, and of the one that it was about. Aside: whoever asked must not see from the time it takes that there is an
    /// account. An account's entries of each way in are bounded, so that nobody fills the trail of others with them.
    pub fn tell(&self, origin: &Origin, refused: Refused) {
        let Refused { by, reason, .. } = &refused;
        tracing::warn!(
            target: "security",
            ip = origin.ip.map(tracing::field::display), request = %origin.request_id, by, ?reason, known = true,
            "a sign-in was refused"
        );
        let (told, origin) = (self.clone(), origin.clone());
        tokio::spawn(async move {
            let key = format!("{} {}", refused.by, refused.account_id);
            if told.limiter.take(Policy::Refusal, &key, 1).await.is_err() {
                return;
            }
            let tenant = refused.tenant_id;
            let concerned = match people::concerned(&told.db, refused.account_id, tenant).await {
                Ok(concerned) => concerned,
                Err(error) => return unnoted(&error),
            };
            for membership in concerned {
                let noted = told.note(&origin, &refused, &membership).await;
                noted.unwrap_or_else(|error| unnoted(&error));
            }
        });
    }

    async fn note(&self, origin: &Origin, refused: &Refused, membership: &Membership) -> Result<()> {
        let work = Work::begin(&self.db, self.hub.clone(), membership.tenant_id, None).await?;
        let mut work = work.coming_from(origin);
        let detail = json!({ "by": refused.by, "reason": refused.reason });
        let user = Id::<User>::from_uuid(membership.user_id);
        work.note(user, "SIGN_IN_REFUSED", &detail);
        work.finish().await?;
        Ok(())
    }
}

fn unnoted(error: &Error) {
    tracing::warn!(target: "security", ?error, "a refused sign-in could not be noted in the audit trail");
}
