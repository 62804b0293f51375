//! What everybody comes through who has proved a first factor, and when a tenant begins to want a second.

use async_graphql::Context;
use chrono::Utc;

use super::super::super::queries::{self as identity, Begun};
use super::super::model::{
    Admitted, By, PENDING, PendingSignIn, SecondFactorMethod, new_token, password_state,
};
use super::super::queries;
use crate::crypto;
use crate::db::directory::{Account, Membership, Revocation, factors};
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::ContextExt;

/// The gate: lets somebody into a tenant who has shown what `by` says, or tells what is missing. Nothing when they are
/// not, or no longer, an active user there, or when the password has changed since the account was read.
///
/// # Errors
/// When the database fails.
pub async fn admit(
    ctx: &Context<'_>,
    account: &Account,
    membership: &Membership,
    by: By,
) -> Result<Option<Admitted>> {
    let db = ctx.session().db();
    let begun = identity::begin_session(ctx.session(), membership, account, by).await?;
    let enrols = match begun {
        None => return Ok(None),
        Some(Begun::Session(signed_in)) => return Ok(Some(Admitted::SignedIn(signed_in))),
        Some(Begun::Lacks { enrols }) => enrols,
    };
    let token = new_token(membership.tenant_id);
    let expires_at = Utc::now() + PENDING;
    let tx = db.begin(membership.tenant_id).await?;
    let (hash, state) = (crypto::token_hash(&token), password_state(account));
    queries::insert(&tx, &hash, membership.user_id, &state, enrols, expires_at).await?;
    tx.commit().await?;
    let methods: &[_] = match enrols {
        true => &[SecondFactorMethod::Enrol],
        false => &[SecondFactorMethod::Totp, SecondFactorMethod::RecoveryCode],
    };
    Ok(Some(Admitted::Pending(PendingSignIn {
        token,
        expires_at,
        methods,
    })))
}

/// Ends the sessions of all in a tenant who have no second factor, now that it wants one: refused unless who asks has
/// one, so that nobody shuts themselves out.
///
/// # Errors
/// As a user error on `mfaRequired` when who asks has none.
pub(in crate::identity) async fn require_of_all(work: &Work) -> Result<Vec<Revocation>> {
    let account = match work.actor_id() {
        Some(user) => factors::account_within(work, user).await?,
        None => None,
    };
    let has = match account {
        Some(account) => factors::has_factor(work, account.id).await?,
        None => false,
    };
    if !has {
        let message =
            "Set up a second factor for yourself first, with beginTotpEnrolment: you would be shut out.";
        return Err(Error::invalid("mfaRequired", ProblemCode::NotAllowed, message));
    }
    factors::end_sessions_without_factor(work).await
}
