//! Going from one tenant to another, and leaving one.

use async_graphql::{Context, InputObject, Object, SimpleObject};

use crate::db::directory::people;
use crate::db::directory::{self, Membership};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::{ContextExt, InPerson, Outcome, mutate_unless_done};
use crate::identity::mfa::{self, Admitted, By};
use crate::identity::{self, SignInPayload, Tenant, revocations};

/// The tenant to go to.
#[derive(Debug, InputObject)]
pub struct SwitchTenantInput {
    /// A tenant that you belong to: one of your `memberships`.
    tenant_id: Id<Tenant>,
}

/// The answer to `leaveTenant`.
#[derive(SimpleObject)]
pub struct LeaveTenantPayload {
    /// Whether your user stays there, deactivated, because records refer to it. Null when there are `userErrors`.
    is_kept: Option<bool>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of one's own memberships.
#[derive(Default)]
pub struct MembershipMutation;

#[Object]
impl MembershipMutation {
    /// Signs you in to another tenant that you belong to: the answer has an access token for it, or says what is still needed
    /// where that tenant wants a second factor and you have none. The session that you have here goes on beside it. An API
    /// key cannot do this.
    #[graphql(guard = "InPerson")]
    async fn switch_tenant(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The tenant to go to.")] input: SwitchTenantInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, switch(ctx, input).await)
    }

    /// Leaves the tenant that you are signed in to, and ends your sessions there. Your user is removed, or deactivated when
    /// records refer to it. The last active admin cannot leave. Whoever belongs to no tenant any more can no longer sign in
    /// at all. To repeat it is harmless: who is told `UNAUTHENTICATED` has left.
    #[graphql(guard = "InPerson")]
    async fn leave_tenant(&self, ctx: &Context<'_>) -> Result<LeaveTenantPayload> {
        let viewer = ctx.viewer()?;
        let mut revoked = Vec::new();
        let (is_kept, outcome) = mutate_unless_done(ctx, "leaveTenant", None, async |work| {
            let (kept, ended) = identity::leave(work, viewer).await?;
            revoked.push(ended);
            Ok(kept)
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(LeaveTenantPayload { is_kept, outcome })
    }
}

async fn switch(ctx: &Context<'_>, input: SwitchTenantInput) -> Result<Admitted> {
    let viewer = ctx.viewer()?;
    // The same for a tenant that is none, one of others, and one that may not be entered.
    let unknown = || Error::invalid("tenantId", ProblemCode::NotFound, "You belong to no such tenant.");
    let db = ctx.session().db();
    let account = directory::account_of(db, viewer.tenant_id, viewer.user_id).await?;
    let account = account.ok_or_else(unknown)?;
    let person = people::person(db, viewer.tenant_id, viewer.user_id).await?;
    let place = person
        .places
        .into_iter()
        .find(|place| place.tenant_id == input.tenant_id.uuid())
        .ok_or_else(unknown)?;
    let membership = Membership {
        tenant_id: place.tenant_id,
        user_id: place.user_id,
    };
    let admitted = mfa::admit(ctx, &account, &membership, By::session_of(viewer)).await?;
    admitted.ok_or_else(unknown)
}
