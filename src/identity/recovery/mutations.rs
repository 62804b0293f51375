//! New passwords and verified addresses, by links that are mailed.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use serde_json::json;

use crate::auth::{Limiter, Policy, password};
use crate::crypto;
use crate::db::directory::mailing::Purpose;
use crate::db::directory::people::{self, Verified};
use crate::db::directory::{Membership, Taken};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::input::Check;
use crate::graphql::{ContextExt, InPerson, Outcome, mutate_unless_done};
use crate::identity::api_keys::ApiKey;
use crate::identity::{User, revocations, rules_for};
use crate::mail::{Letter, Mail};

/// Who has forgotten their password.
#[derive(Debug, InputObject)]
pub struct RequestPasswordResetInput {
    /// The address that you sign in with.
    email: String,
}

/// A new password for who has followed a link.
#[derive(Debug, InputObject)]
pub struct ResetPasswordInput {
    /// What stands behind the `#` of the link that was mailed to you.
    #[graphql(secret)]
    token: String,
    /// The password that you want: 10 characters at least, or as many as the strictest of your tenants asks for; 1,024
    /// bytes at most.
    #[graphql(secret)]
    new_password: String,
}

/// The proof that an address is one's own.
#[derive(Debug, InputObject)]
pub struct VerifyEmailInput {
    /// What stands behind the `#` of the link that was mailed to you.
    #[graphql(secret)]
    token: String,
}

/// The answer to `requestPasswordReset`: the same for every address.
#[derive(SimpleObject)]
pub struct RequestPasswordResetPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `resetPassword`.
#[derive(SimpleObject)]
pub struct ResetPasswordPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `requestEmailVerification`.
#[derive(SimpleObject)]
pub struct RequestEmailVerificationPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `verifyEmail`.
#[derive(SimpleObject)]
pub struct VerifyEmailPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations about addresses and forgotten passwords.
#[derive(Default)]
pub struct RecoveryMutation;

#[Object]
impl RecoveryMutation {
    /// Mails a link for a new password to an address, if somebody signs in with it. The answer is the same in any case,
    /// and so is the time that it takes.
    async fn request_password_reset(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who has forgotten their password.")] input: RequestPasswordResetInput,
    ) -> Result<RequestPasswordResetPayload> {
        let (_, outcome) = Outcome::of(request_password_reset(ctx, input).await)?;
        Ok(RequestPasswordResetPayload { outcome })
    }

    /// Sets a new password with a link that was mailed within the last hour. It ends all your sessions in every tenant,
    /// revokes all API keys that you have made and voids all other links of yours; your address is verified by it. Sign in
    /// with the new password then.
    async fn reset_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The link's token, and the password that you want.")] input: ResetPasswordInput,
    ) -> Result<ResetPasswordPayload> {
        let (_, outcome) = Outcome::of(reset_password(ctx, input).await)?;
        Ok(ResetPasswordPayload { outcome })
    }

    /// Mails a link to your address, with which you prove that it is yours. Nothing is mailed when you have proved it.
    #[graphql(guard = "InPerson")]
    async fn request_email_verification(&self, ctx: &Context<'_>) -> Result<RequestEmailVerificationPayload> {
        let (_, outcome) = Outcome::of(request_email_verification(ctx).await)?;
        Ok(RequestEmailVerificationPayload { outcome })
    }

    /// Proves that your address is yours, with a link that was mailed to it within the last hour. You have to be signed in
    /// with the account that the link is for: who reads a mail that they did not ask for proves nothing for somebody else.
    /// A first password that an admin has chosen has to be changed before.
    #[graphql(guard = "InPerson")]
    async fn verify_email(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The link's token.")] input: VerifyEmailInput,
    ) -> Result<VerifyEmailPayload> {
        let viewer = ctx.viewer()?;
        limiter(ctx)
            .take_from(Policy::MailedToken, ctx.session().origin(), 1)
            .await?;
        let hash = crypto::token_hash(&input.token);
        let (_, outcome) = mutate_unless_done(ctx, "verifyEmail", None, async |work| {
            match people::verify_email(work, viewer.user_id, &hash).await? {
                Verified::Yes => {}
                Verified::NoLink => return Err(no_link()),
                Verified::InitialPassword => {
                    let message = "Somebody else has chosen your password. Change it first.";
                    return Err(Error::invalid("token", ProblemCode::NotAllowed, message));
                }
            }
            work.record(
                Id::<User>::from_uuid(viewer.user_id),
                "EMAIL_VERIFIED",
                &json!({}),
            )
        })
        .await?;
        Ok(VerifyEmailPayload { outcome })
    }
}

fn limiter<'a>(ctx: &Context<'a>) -> &'a Limiter {
    ctx.data_unchecked::<Arc<Limiter>>()
}

fn mail<'a>(ctx: &Context<'a>) -> &'a Mail {
    ctx.data_unchecked::<Arc<Mail>>()
}

/// The same for a link that never was, has expired, or was used or revoked.
pub(in crate::identity) fn no_link() -> Error {
    let message = "This link is not valid, or no longer. Ask for a new one.";
    Error::invalid("token", ProblemCode::NotFound, message)
}

async fn request_password_reset(ctx: &Context<'_>, input: RequestPasswordResetInput) -> Result<()> {
    let mut check = Check::default();
    let email = check.email("email", input.email);
    check.done()?;
    let limiter = limiter(ctx);
    limiter
        .take_from(Policy::PasswordReset, ctx.session().origin(), 1)
        .await?;
    limiter.take(Policy::PasswordReset, &email, 1).await?;
    // Whether anybody has this address is found out when the mail is sent, so there is nothing to tell here.
    mail(ctx).post(&Letter::PasswordReset { email }).await
}

async fn reset_password(ctx: &Context<'_>, input: ResetPasswordInput) -> Result<()> {
    let db = ctx.session().db();
    limiter(ctx)
        .take_from(Policy::MailedToken, ctx.session().origin(), 1)
        .await?;
    let hash = crypto::token_hash(&input.token);
    let link = people::link(db, Purpose::PasswordReset, &hash).await?;
    let link = link.and_then(|link| Some((link.account_id?, link.email)));
    let (account, email) = link.ok_or_else(no_link)?;
    let rules = people::password_rules(db, account).await?;
    let mut check = Check::default();
    check.new_password("newPassword", &input.new_password, &rules_for(rules, &[]));
    check.done()?;
    // Hashing takes long; no transaction waits for it.
    let new = password::hash(input.new_password).await?;
    let reset = people::reset_password(db, &hash, &new).await?;
    let (account, taken) = reset.ok_or_else(no_link)?;
    revocations(ctx).take_in(&taken.revoked);
    // Who was shut out by somebody else's guesses gets in this way.
    limiter(ctx)
        .vouch(Policy::SignInAccount, ctx.session().origin(), &email)
        .await;
    let tenants = people::users_of(db, account).await?;
    tell_tenants(ctx, tenants, &taken).await;
    Ok(())
}

/// Tells the history of each of these tenants that its user there has a new password, and which API keys of theirs have
/// gone by that. It has been done by now, whatever becomes of this.
pub(in crate::identity) async fn tell_tenants(ctx: &Context<'_>, tenants: Vec<Membership>, taken: &Taken) {
    let session = ctx.session();
    for Membership { tenant_id, user_id } in tenants {
        let told = async {
            let work = Work::begin(session.db(), session.hub().clone(), tenant_id, Some(user_id));
            let mut work = work.await?.coming_from(session.origin());
            let user = Id::<User>::from_uuid(user_id);
            work.record(user, "PASSWORD_RESET", &json!({}))?;
            for key in taken.api_keys.iter().filter(|key| key.tenant_id == tenant_id) {
                work.record(
                    Id::<ApiKey>::from_uuid(key.id),
                    "DELETED",
                    &json!({ "userId": user }),
                )?;
            }
            work.finish().await
        };
        if let Err(error) = told.await {
            tracing::warn!(target: "security", ?error, "a new password could not be noted in the audit trail");
        }
    }
}

async fn request_email_verification(ctx: &Context<'_>) -> Result<()> {
    let viewer = ctx.viewer()?;
    let mail = mail(ctx);
    mail.require()?;
    let address = people::address_of(ctx.session().db(), viewer.tenant_id, viewer.user_id).await?;
    let Some(address) = address.filter(|address| !address.is_verified) else {
        return Ok(());
    };
    limiter(ctx).take(Policy::Verification, &address.email, 1).await?;
    mail.post(&Letter::EmailVerification {
        account_id: address.account_id,
        email: address.email,
    })
    .await
}
