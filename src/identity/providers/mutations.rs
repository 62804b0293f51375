//! Getting in by what another provider has told, and not any more.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::Utc;
use serde_json::json;

use super::model::{Identity, fits};
use crate::auth::refusal::{Reason, Refused};
use crate::auth::{Limiter, Origin, Policy};
use crate::crypto;
use crate::db::Database;
use crate::db::directory::identities::{self, Linked, Sureness};
use crate::db::directory::{Membership, factors, people};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::{Hub, Work};
use crate::graphql::{ContextExt, InPerson, Outcome, Session, mutate_unless_done};
use crate::identity::mfa::{self, Admitted, By};
use crate::identity::refusals::Refusals;
use crate::identity::{SignInPayload, Tenant, choose, revocations};

/// Who comes back from a provider.
#[derive(Debug, InputObject)]
pub struct CompleteProviderSignInInput {
    /// What the browser brought back behind `#code=`.
    #[graphql(secret)]
    code: String,
    /// What your page has kept since it sent the browser away.
    #[graphql(secret)]
    verifier: String,
    /// The tenant to sign in to, when you belong to several; the first you joined when left out.
    tenant_id: Option<Id<Tenant>>,
}

/// A provider that shall know you no more.
#[derive(Debug, InputObject)]
pub struct UnlinkProviderInput {
    /// Its name, for example `google`.
    provider: String,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `unlinkProvider`.
#[derive(SimpleObject)]
pub struct UnlinkProviderPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of other providers.
#[derive(Default)]
pub struct ProviderMutation;

#[Object]
impl ProviderMutation {
    /// Signs in whom a provider has told us of. The code is good once, for two minutes, and only with the verifier. The
    /// first time you are found by your address, which the provider and we both must know to be yours; from then on by the
    /// provider's own name for you. Nobody gets an account by this. A second factor is needed as after a password.
    async fn complete_provider_sign_in(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The code and the verifier.")] input: CompleteProviderSignInInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, complete(ctx, input).await)
    }

    /// Forgets that a provider knows you, and ends your other sessions, with sign-ins that are half done. Your password
    /// works as before. Should your address there be the verified address of your account still, signing in with it links
    /// it again.
    #[graphql(guard = "InPerson")]
    async fn unlink_provider(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which provider.")] input: UnlinkProviderInput,
    ) -> Result<UnlinkProviderPayload> {
        let viewer = ctx.viewer()?;
        let mut revoked = Vec::new();
        let (_, outcome) = mutate_unless_done(ctx, "unlinkProvider", input.idempotency_key, async |work| {
            let account = factors::account_within(work, viewer.user_id).await?;
            let unlinked = match &account {
                Some(account) => identities::unlink(work, account.id, &input.provider).await?,
                None => 0,
            };
            let Some(account) = account.filter(|_| unlinked > 0) else {
                let message = "This provider does not know you.";
                return Err(Error::invalid("provider", ProblemCode::NotFound, message));
            };
            revoked = factors::end_sessions(work, account.id, Some(viewer.session_id)).await?;
            let detail = json!({ "provider": input.provider });
            work.record(Id::<Identity>::from_uuid(viewer.user_id), "UNLINKED", &detail)
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(UnlinkProviderPayload { outcome })
    }
}

async fn complete(ctx: &Context<'_>, input: CompleteProviderSignInInput) -> Result<Admitted> {
    // The same for a code that never was, has expired or was used, and for who may not enter.
    let refused = || Error::Unauthenticated("This sign-in has ended. Sign in again.");
    let session = ctx.session();
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter
        .take_from(Policy::ProviderSignIn, session.origin(), 1)
        .await?;
    let db = session.db();
    let proof = identities::take_proof(db, &crypto::token_hash(&input.code)).await?;
    let proof = proof.ok_or_else(refused)?;
    let tenant_id = input.tenant_id.map(|tenant| tenant.uuid());
    let refused_for = |reason| {
        let told = Refused {
            account_id: proof.identity.account_id,
            tenant_id,
            by: proof.identity.provider.clone(),
            reason,
        };
        Refusals::of(ctx).tell(session.origin(), told);
        refused()
    };
    if !fits(&input.verifier, &proof.challenge) {
        return Err(refused_for(Reason::CodeOfAnother));
    }
    let (account, memberships) = identities::account(db, proof.identity.account_id)
        .await?
        .ok_or_else(refused)?;
    if crypto::token_hash(&account.password_hash) != *proof.password_state {
        return Err(refused_for(Reason::ChangedMeanwhile));
    }
    let membership = choose(memberships, tenant_id).ok_or_else(|| refused_for(Reason::NotAdmitted))?;
    if !identities::fits(db, &proof).await? {
        return Err(refused_for(Reason::ChangedMeanwhile));
    }
    let admitted = mfa::admit(ctx, &account, &membership, By::FirstFactor).await?;
    let admitted = admitted.ok_or_else(|| refused_for(Reason::NotAdmitted))?;
    // Whoever has still to show a second factor leaves nothing behind that lasts; they are found by their address again.
    if matches!(admitted, Admitted::SignedIn(_)) {
        let linked = identities::link(db, &proof.identity, &account, Sureness::BothSides, Utc::now());
        if linked.await? == Linked::Now {
            tell_of_link(db, session.hub(), session.origin(), &proof.identity).await;
        }
    }
    note_use(session, &proof.identity, &membership).await?;
    Ok(admitted)
}

/// Each tenant's history tells of it. It has been done by now, whatever becomes of that: a history that fails is told to
/// the log, and keeps neither the others from hearing of it nor the person from coming in.
pub(in crate::identity) async fn tell_of_link(
    db: &Database,
    hub: &Arc<Hub>,
    origin: &Origin,
    identity: &identities::Identity,
) {
    let users = match people::users_of(db, identity.account_id).await {
        Ok(users) => users,
        Err(error) => return untold(&error),
    };
    for membership in users {
        let told = record_link(db, hub, origin, identity, &membership).await;
        told.unwrap_or_else(|error| untold(&error));
    }
}

fn untold(error: &Error) {
    tracing::error!(target: "security", ?error, "a history does not tell that somebody was linked to a provider");
}

async fn record_link(
    db: &Database,
    hub: &Arc<Hub>,
    origin: &Origin,
    identity: &identities::Identity,
    membership: &Membership,
) -> Result<()> {
    let mut work = begin(db, hub, origin, membership).await?;
    let detail = json!({ "provider": identity.provider });
    work.record(Id::<Identity>::from_uuid(membership.user_id), "LINKED", &detail)?;
    work.finish().await?;
    Ok(())
}

/// The trail of the tenant tells by whom the first factor was shown.
async fn note_use(session: &Session, identity: &identities::Identity, membership: &Membership) -> Result<()> {
    let mut work = begin(session.db(), session.hub(), session.origin(), membership).await?;
    let detail = json!({ "provider": identity.provider });
    work.note(Id::<Identity>::from_uuid(membership.user_id), "USED", &detail);
    work.finish().await?;
    Ok(())
}

async fn begin(db: &Database, hub: &Arc<Hub>, origin: &Origin, membership: &Membership) -> Result<Work> {
    let work = Work::begin(db, hub.clone(), membership.tenant_id, Some(membership.user_id)).await?;
    Ok(work.coming_from(origin))
}

/// Forgets by whom else somebody is known who signs in with an address, and ends their sessions in every tenant: for somebody
/// whom a provider, or the trusted issuer, calls by another name since. Answers what to tell the operator, who has made sure
/// that it is still the same person.
///
/// The trails of their tenants are told one after the other, and the last of these transactions does it: should one fail, some
/// trails tell of it too early, but none too late.
///
/// # Errors
/// A sentence for the operator; nothing is changed then.
pub async fn unlink(db: &Database, hub: &Arc<Hub>, email: &str, provider: &str) -> Result<String, String> {
    let told = |error: Error| {
        tracing::error!(?error, "nobody can be unlinked");
        format!("nothing is changed: {}", error.message())
    };
    let email = email.trim().to_lowercase();
    let unlinked = unlink_account(db, hub, &email, provider).await.map_err(told)?;
    match unlinked {
        true => Ok(format!(
            "{provider} does not know {email} any more, and all sessions have ended. Their address links them again."
        )),
        false => Err(format!("{provider} knows nobody as {email}: nothing is changed")),
    }
}

async fn unlink_account(db: &Database, hub: &Arc<Hub>, email: &str, provider: &str) -> Result<bool> {
    let Some(address) = people::address(db, email).await? else {
        return Ok(false);
    };
    if !identities::is_known_to(db, address.account_id, provider).await? {
        return Ok(false);
    }
    let users = people::users_of(db, address.account_id).await?;
    for (number, Membership { tenant_id, user_id }) in users.iter().enumerate() {
        let mut work = Work::begin(db, hub.clone(), *tenant_id, None).await?;
        let detail = json!({ "provider": provider, "by": "OPERATOR" });
        work.record(Id::<Identity>::from_uuid(*user_id), "UNLINKED", &detail)?;
        if number + 1 == users.len() {
            identities::unlink(&work, address.account_id, provider).await?;
            factors::end_sessions(&work, address.account_id, None).await?;
        }
        work.finish().await?;
    }
    Ok(true)
}
