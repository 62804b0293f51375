//! Signing in, and the tenant's settings.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::queries;
use super::types::Viewer;
use super::{Tenant, User};
use crate::auth::token::Tokens;
use crate::auth::{Permission, Revocations, password};
use crate::db::directory::{self, Revocation};
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::events::Position;
use crate::graphql::input::{Check, Patch};
use crate::graphql::scalar::{CurrencyCode, DateTime};
use crate::graphql::{Can, ContextExt, Outcome, mutate};

/// Who signs in.
#[derive(Debug, InputObject)]
pub struct SignInInput {
    /// The address that you signed up with.
    email: String,
    /// Your password.
    #[graphql(secret)]
    password: String,
    /// The tenant to sign in to, when you belong to several; the first you joined when left out.
    tenant_id: Option<Id<Tenant>>,
}

/// Changes of the tenant's settings. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub struct UpdateTenantInput {
    /// The name.
    name: Option<String>,
    /// The currency of sums, and of amounts for which none is given. Existing deals keep theirs.
    currency_code: Option<CurrencyCode>,
    /// The version that you know. When the tenant has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    idempotency_key: Option<String>,
}

/// The answer to `signUp` and `signIn`.
#[derive(SimpleObject)]
pub struct SignInPayload {
    /// The access token. Send it as `Authorization: Bearer …` with every request. Null when there are `userErrors`.
    access_token: Option<String>,
    /// When the access token ends.
    expires_at: Option<DateTime>,
    /// You, in the tenant that you have signed in to.
    viewer: Option<Viewer>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Who has proved to be a user of a tenant, and has a session there.
pub struct SignedIn {
    pub tenant: Tenant,
    pub user: User,
    /// See [`crate::auth::Viewer::session_id`].
    pub session_id: Uuid,
    /// Where the tenant's history stands, when it was changed for this.
    pub position: Option<Position>,
}

/// The answer to `updateTenant`.
#[derive(SimpleObject)]
pub struct UpdateTenantPayload {
    /// The tenant as it is now; null when there are `userErrors`.
    tenant: Option<Arc<Tenant>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `signOut`.
#[derive(SimpleObject)]
pub struct SignOutPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of tenants, and signing in.
#[derive(Default)]
pub struct IdentityMutation;

#[Object]
impl IdentityMutation {
    /// Signs in. The answer to an unknown address and to a wrong password is the same.
    async fn sign_in(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who signs in.")] input: SignInInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, sign_in(ctx, input).await)
    }

    /// Signs out: ends the session of the access token that this is asked with. The token is refused from now on, and
    /// sockets that were opened with it are closed with the code 4403; other sessions of yours go on. To repeat it is
    /// harmless: who is told `UNAUTHENTICATED` is signed out.
    async fn sign_out(&self, ctx: &Context<'_>) -> Result<SignOutPayload> {
        let viewer = ctx.viewer()?;
        let user = Id::<User>::from_uuid(viewer.user_id);
        let mut revoked = None;
        let (_, outcome) = mutate(ctx, "signOut", None, async |work| {
            if !ctx.data_unchecked::<Arc<Revocations>>().revokes(viewer) {
                revoked = Some(queries::revoke(work, user, Some(viewer.session_id)).await?);
                work.record(user, "SIGNED_OUT", &json!({ "sessionId": viewer.session_id }))?;
            }
            Ok(())
        })
        .await?;
        revoke_here(ctx, revoked);
        Ok(SignOutPayload { outcome })
    }

    /// Changes the tenant's settings.
    #[graphql(guard = "Can(Permission::TenantWrite)")]
    async fn update_tenant(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateTenantInput,
    ) -> Result<UpdateTenantPayload> {
        let key = input.idempotency_key.clone();
        let (tenant, outcome) = mutate(ctx, "updateTenant", key, async |work| {
            let mut tenant = queries::tenant_for_update(work).await?;
            let (mut check, mut patch) = (Check::default(), Patch::default());
            patch.set(
                "name",
                &mut tenant.name,
                input.name.map(|name| check.line("name", &name)),
            );
            patch.set("currencyCode", &mut tenant.currency_code, input.currency_code);
            patch.expect_version(input.expected_version, tenant.version)?;
            check.done()?;
            if !patch.is_empty() {
                tenant.version += 1;
                tenant.updated_at = work.now();
                queries::update_tenant(work, &tenant).await?;
                work.record(tenant.id, "UPDATED", &patch.change(&tenant))?;
            }
            Ok(Arc::new(tenant))
        })
        .await?;
        Ok(UpdateTenantPayload { tenant, outcome })
    }
}

impl SignInPayload {
    /// The answer to who has proved, or failed to prove, to be a user of a tenant; the token is issued here.
    ///
    /// # Errors
    /// Passes on what is not a person's to mend.
    pub fn of(ctx: &Context<'_>, proved: Result<SignedIn>) -> Result<Self> {
        let (proved, outcome) = Outcome::of(proved)?;
        let Some(proved) = proved else {
            return Ok(Self {
                access_token: None,
                expires_at: None,
                viewer: None,
                outcome,
            });
        };
        let tokens = ctx.data_unchecked::<Arc<Tokens>>();
        let SignedIn {
            tenant,
            user,
            session_id,
            position,
        } = proved;
        let (token, viewer) = tokens.issue(
            tenant.id.uuid(),
            user.id.uuid(),
            session_id,
            user.role,
            Utc::now(),
        )?;
        Ok(Self {
            access_token: Some(token),
            expires_at: Some(viewer.expires_at.into()),
            viewer: Some(Viewer::signed_in(viewer, Arc::new(tenant), Arc::new(user))),
            outcome: outcome.with_position(position),
        })
    }
}

/// Lets this process know of what has just been committed; other instances find it in the database.
fn revoke_here(ctx: &Context<'_>, revoked: Option<Revocation>) {
    let revocations = ctx.data_unchecked::<Arc<Revocations>>();
    revocations.take_in(revoked.as_slice());
}

async fn sign_in(ctx: &Context<'_>, input: SignInInput) -> Result<SignedIn> {
    let refused = || Error::Unauthenticated("The e-mail address or the password is wrong.");
    let email = input.email.trim().to_lowercase();
    // No address of ours is that long, and no text in PostgreSQL has a NUL.
    let findable = email.len() <= 1000 && !email.contains('\0');
    let db = ctx.session().db();
    let found = if findable {
        directory::find_account(db, &email).await?
    } else {
        None
    };
    let (account, memberships) = found.unzip();
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    // The password is checked in any case, so that an unknown address takes as long as a known one.
    let proved = password::verify(input.password, hash).await?;
    let account = account.filter(|_| proved).ok_or_else(refused)?;
    let mut memberships = memberships.into_iter().flatten();
    let membership = match input.tenant_id {
        Some(tenant) => memberships.find(|membership| membership.tenant_id == tenant.uuid()),
        None => memberships.next(),
    };
    let tenant = membership.ok_or_else(refused)?.tenant_id;
    let (tenant, user, session_id) = queries::begin_session(db, tenant, account.id).await?;
    Ok(SignedIn {
        tenant,
        user,
        session_id,
        position: None,
    })
}
