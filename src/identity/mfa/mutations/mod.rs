//! Setting a second factor up and giving it up, and getting in with it.

mod act;
mod gate;
mod reset;

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::Utc;
use serde_json::json;

use act::{Act, attempt, check_password, factor_of, one_of_two, prove, settle_faults, wrong_password};
pub use gate::admit;
pub(in crate::identity) use gate::require_of_all;
pub use reset::reset_second_factor;

use super::super::queries as identity;
use super::super::roles::{check_grant, rights_of};
use super::super::{SignInPayload, SignedIn, User, revocations, sessions};
use super::model::{Code, new_recovery_codes, sealing_context};
use super::queries;
use crate::auth::Permission;
use crate::auth::totp::Totp;
use crate::crypto::Vault;
use crate::db::directory::{self, factors};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::{Can, ContextExt, InPerson, Outcome, mutate_unless_done, shown};
use crate::mail::Mail;

/// The second half of signing in.
#[derive(Debug, InputObject)]
pub struct VerifySecondFactorInput {
    /// The token that `signIn` answered.
    #[graphql(secret)]
    token: String,
    /// The code that your authenticator app shows, or one of your recovery codes.
    #[graphql(secret)]
    code: String,
}

/// Who sets a second factor up: give one of the two.
#[derive(Debug, InputObject)]
pub struct BeginTotpEnrolmentInput {
    /// Your password, when you have signed in.
    #[graphql(secret)]
    password: Option<String>,
    /// The token that `signIn` answered, when the tenant wants a second factor before it lets you in.
    #[graphql(secret)]
    token: Option<String>,
}

/// The proof that your authenticator app has the secret.
#[derive(Debug, InputObject)]
pub struct ConfirmTotpEnrolmentInput {
    /// The code that the app shows.
    #[graphql(secret)]
    code: String,
    /// The token that `signIn` answered, if you began with it.
    #[graphql(secret)]
    token: Option<String>,
}

/// The proof that it is you: give one of the two.
#[derive(Debug, InputObject)]
pub struct DisableTotpInput {
    /// The code that your authenticator app shows, or one of your recovery codes.
    #[graphql(secret)]
    code: Option<String>,
    /// Your password.
    #[graphql(secret)]
    password: Option<String>,
}

/// The proof that it is you: give one of the two.
#[derive(Debug, InputObject)]
pub struct RegenerateRecoveryCodesInput {
    /// The code that your authenticator app shows, or one of your recovery codes.
    #[graphql(secret)]
    code: Option<String>,
    /// Your password.
    #[graphql(secret)]
    password: Option<String>,
}

/// Whose second factor is taken away.
#[derive(Debug, InputObject)]
pub struct ResetSecondFactorInput {
    /// The user.
    user_id: Id<User>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `beginTotpEnrolment`.
#[derive(SimpleObject)]
pub struct BeginTotpEnrolmentPayload {
    /// The secret, to be typed into an authenticator app. It is shown this once.
    secret: Option<String>,
    /// The same as an `otpauth://` URI, to be shown as a QR code.
    otpauth_uri: Option<String>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `confirmTotpEnrolment`.
#[derive(SimpleObject)]
pub struct ConfirmTotpEnrolmentPayload {
    /// Ten codes, each of which stands in for the app once. They are shown this once: keep them in a safe place.
    recovery_codes: Option<Vec<String>>,
    /// Your session, when you began with the token that `signIn` answered. If it is null then, the second factor is set up
    /// all the same: keep the codes, and sign in with it.
    signed_in: Option<SignInPayload>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `disableTotp`.
#[derive(SimpleObject)]
pub struct DisableTotpPayload {
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `regenerateRecoveryCodes`.
#[derive(SimpleObject)]
pub struct RegenerateRecoveryCodesPayload {
    /// Ten new codes; all older ones are void. They are shown this once: keep them in a safe place.
    recovery_codes: Option<Vec<String>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `resetSecondFactor`.
#[derive(SimpleObject)]
pub struct ResetSecondFactorPayload {
    /// The user; null when there are `userErrors`.
    user: Option<shown::Shown<identity::UserById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// Mutations of second factors. Those that answer secrets remember none of them: they take no idempotency key.
#[derive(Default)]
pub struct MfaMutation;

#[Object]
impl MfaMutation {
    /// Completes a sign-in with a code. Each code of an app is taken once, within half a minute of its time. After five
    /// wrong codes the token is void, and the wait before another code is looked at grows.
    async fn verify_second_factor(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The token and the code.")] input: VerifySecondFactorInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, verify(ctx, input).await)
    }

    /// Begins to set up codes by time as your second factor, in every tenant that you belong to. Nothing changes before
    /// `confirmTotpEnrolment`; to begin again makes another secret.
    async fn begin_totp_enrolment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Your password, or the token that `signIn` answered.")]
        input: BeginTotpEnrolmentInput,
    ) -> Result<BeginTotpEnrolmentPayload> {
        let (begun, outcome) = Outcome::of(begin(ctx, input).await)?;
        let (secret, otpauth_uri) = begun.unzip();
        Ok(BeginTotpEnrolmentPayload {
            secret,
            otpauth_uri,
            outcome,
        })
    }

    /// Confirms the second factor with a code of it. From now on it is needed to sign in, in every tenant that you
    /// belong to; your other sessions end.
    async fn confirm_totp_enrolment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The code that the app shows.")] input: ConfirmTotpEnrolmentInput,
    ) -> Result<ConfirmTotpEnrolmentPayload> {
        let (confirmed, outcome) = Outcome::of(confirm(ctx, input).await)?;
        let (recovery_codes, signed_in) = match confirmed {
            Some((codes, signed_in)) => {
                let entered = signed_in.and_then(|signed_in| {
                    let entered = SignInPayload::of(ctx, signed_in);
                    let unable = |error: &Error| {
                        tracing::warn!(?error, "a session could not begin with a new second factor")
                    };
                    entered.inspect_err(unable).ok()
                });
                (Some(codes), entered)
            }
            None => (None, None),
        };
        Ok(ConfirmTotpEnrolmentPayload {
            recovery_codes,
            signed_in,
            outcome,
        })
    }

    /// Gives your second factor up, with its recovery codes. Your other sessions end. Refused as long as a tenant that
    /// you belong to wants a second factor.
    #[graphql(guard = "InPerson")]
    async fn disable_totp(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A code or your password.")] input: DisableTotpInput,
    ) -> Result<DisableTotpPayload> {
        let (_, outcome) = Outcome::of(disable(ctx, input).await)?;
        Ok(DisableTotpPayload { outcome })
    }

    /// Gives you ten new recovery codes in the place of all that you had.
    #[graphql(guard = "InPerson")]
    async fn regenerate_recovery_codes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A code or your password.")] input: RegenerateRecoveryCodesInput,
    ) -> Result<RegenerateRecoveryCodesPayload> {
        let (recovery_codes, outcome) = Outcome::of(regenerate(ctx, input).await)?;
        Ok(RegenerateRecoveryCodesPayload {
            recovery_codes,
            outcome,
        })
    }

    /// Takes away the second factor of a user who has lost it, with its recovery codes, and ends their sessions: they
    /// sign in with their password, and set up another if the tenant wants one. Make sure that it is they who ask.
    ///
    /// A second factor guards everything that a person can reach. It can be reset only by the tenant that they belong to
    /// if there is just that one: otherwise the admin of one tenant could weaken what guards another.
    #[graphql(guard = "Can(Permission::UsersWrite).and(InPerson)")]
    async fn reset_second_factor(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose it is.")] input: ResetSecondFactorInput,
    ) -> Result<ResetSecondFactorPayload> {
        let viewer = ctx.viewer()?;
        let key = input.idempotency_key.clone();
        let mut revoked = Vec::new();
        let (user, outcome) = mutate_unless_done(ctx, "resetSecondFactor", key, async |work| {
            let refused = |message: &str| Error::invalid("userId", ProblemCode::NotAllowed, message);
            let user = identity::user_for_update(work, input.user_id).await?;
            if user.id.uuid() == viewer.user_id {
                return Err(refused("This is you. Use disableTotp, which asks for a code or your password."));
            }
            check_grant(viewer, &rights_of(work, &user).await?, "userId")?;
            let account = factors::account_within(work, user.id.uuid()).await?;
            let Some(account) = account else {
                return Err(refused("This user has no second factor."));
            };
            if factors::is_elsewhere(work, account.id).await? {
                // Where they have never shown it, nothing tells that there is one.
                return Err(refused(match queries::is_marked(work, user.id).await? {
                    true => "This person's second factor guards more than this tenant, and cannot be reset from here.",
                    false => "This user has no second factor.",
                }));
            }
            if !factors::remove(work, account.id).await? {
                return Err(refused("This user has no second factor."));
            }
            revoked = factors::end_sessions(work, account.id, None).await?;
            work.record(factor_of(user.id), "RESET", &json!({}))?;
            Ok(Arc::new(user))
        })
        .await?;
        revocations(ctx).take_in(&revoked);
        Ok(ResetSecondFactorPayload {
            user: user.map(shown::Shown),
            outcome,
        })
    }
}

async fn verify(ctx: &Context<'_>, input: VerifySecondFactorInput) -> Result<SignedIn> {
    let code = Code::read(&input.code);
    let has_begun = async || {
        let act = Act::of_pending(ctx, &input.token).await?;
        if act.enrols {
            let message = "There is no second factor yet. Set one up with beginTotpEnrolment.";
            return Err(Error::invalid("token", ProblemCode::NotAllowed, message));
        }
        Ok(act)
    };
    let account = has_begun().await?.account.id;
    let attempt = attempt(ctx, &code, account).await?;
    let (attempt, mut act) = settle_faults(attempt, has_begun().await).await?;
    let (attempt, shown) = settle_faults(attempt, act.check(ctx, &code).await).await?;
    let Some(shown) = shown else {
        return Err(act.refuse().await);
    };
    if let Some(hash) = &act.token {
        queries::remove(&act.work, hash).await?;
    }
    queries::mark(&act.work, act.user.uuid()).await?;
    act.record("VERIFIED", &shown.detail())?;
    let signed_in = act.enter(ctx).await?;
    if let Some(attempt) = attempt {
        attempt.succeeded().await;
    }
    Ok(signed_in)
}

async fn begin(ctx: &Context<'_>, input: BeginTotpEnrolmentInput) -> Result<(String, String)> {
    let act = match (input.password, input.token) {
        (Some(password), None) => {
            let account = check_password(ctx, password).await?;
            let act = Act::of_viewer(ctx).await?;
            if !directory::still_has_password(&act.work, &account).await? {
                return Err(wrong_password());
            }
            act
        }
        (None, Some(token)) => {
            let act = Act::of_pending(ctx, &token).await?;
            if !act.enrols {
                return Err(already());
            }
            act
        }
        (None, None) => {
            ctx.viewer()?.in_person()?;
            let message = "Give your password, or the token that signIn answered.";
            return Err(Error::invalid("password", ProblemCode::Required, message));
        }
        (Some(_), Some(_)) => return Err(one_of_two("token")),
    };
    // Otherwise whoever has made an account under somebody else's address could shut them out for good.
    let mail = ctx.data_unchecked::<Arc<Mail>>();
    if mail.is_real() && !factors::is_proved(&act.work, act.account.id).await? {
        let message =
            "Prove first that the e-mail address is yours: requestPasswordReset sends you a link that does.";
        return Err(Error::invalid("", ProblemCode::NotAllowed, message));
    }
    let totp = Totp::generate(&act.account.email)?;
    let vault = ctx.data_unchecked::<Arc<Vault>>();
    let sealed = vault.seal(&sealing_context(act.account.id), totp.secret())?;
    if !factors::begin(&act.work, act.account.id, &sealed, act.work.now()).await? {
        return Err(already());
    }
    act.commit().await?;
    Ok((totp.base32(), totp.uri()?))
}

/// The recovery codes, and the session of who had none yet.
type Confirmed = (Vec<String>, Option<Result<SignedIn>>);

async fn confirm(ctx: &Context<'_>, input: ConfirmTotpEnrolmentInput) -> Result<Confirmed> {
    let code = Code::read(&input.code);
    let kept = match &input.token {
        Some(_) => None,
        None => Some(ctx.viewer()?.session_id),
    };
    let has_begun = async || {
        let act = match &input.token {
            Some(token) => Act::of_pending(ctx, token).await?,
            None => Act::of_viewer(ctx).await?,
        };
        factors::lock_account(&act.work, act.account.id).await?;
        let factor = factors::lock(&act.work, act.account.id).await?;
        let factor = factor.ok_or_else(|| {
            let message = "Begin with beginTotpEnrolment.";
            Error::invalid("", ProblemCode::NotAllowed, message)
        })?;
        if factor.is_confirmed {
            return Err(already());
        }
        Ok((act, factor))
    };
    let account = has_begun().await?.0.account.id;
    let attempt = attempt(ctx, &code, account).await?;
    let (mut act, factor) = has_begun().await?;
    let step = match &code {
        Code::Totp(code) => act.totp(ctx, &factor.secret)?.step_of(code, Utc::now()),
        _ => None,
    };
    let Some(step) = step else {
        return Err(act.refuse().await);
    };
    let (codes, hashes) = new_recovery_codes();
    factors::confirm(&act.work, act.account.id, step, &hashes, act.work.now()).await?;
    queries::mark(&act.work, act.user.uuid()).await?;
    let revoked = factors::end_sessions(&act.work, act.account.id, kept).await?;
    act.record("ENABLED", &json!({}))?;
    if let Some(kept) = kept {
        sessions::set_by_second_factor(&act.work, kept, true).await?;
    }
    let signed_in = if let Some(hash) = &act.token {
        queries::remove(&act.work, hash).await?;
        // A session that begins in the millisecond in which the others end would end with them.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some(act.enter(ctx).await)
    } else {
        act.commit().await?;
        None
    };
    revocations(ctx).take_in(&revoked);
    if let Some(attempt) = attempt {
        attempt.succeeded().await;
    }
    Ok((codes, signed_in))
}

async fn disable(ctx: &Context<'_>, input: DisableTotpInput) -> Result<()> {
    let kept = ctx.viewer()?.session_id;
    let mut revoked = Vec::new();
    prove(ctx, input.code, input.password, async |act| {
        if factors::is_required_somewhere(&act.work, act.account.id).await? {
            let message = "A tenant that you belong to wants a second factor.";
            return Err(Error::invalid("", ProblemCode::NotAllowed, message));
        }
        factors::remove(&act.work, act.account.id).await?;
        sessions::set_by_second_factor(&act.work, kept, false).await?;
        revoked = factors::end_sessions(&act.work, act.account.id, Some(kept)).await?;
        act.record("DISABLED", &json!({}))
    })
    .await?;
    revocations(ctx).take_in(&revoked);
    Ok(())
}

async fn regenerate(ctx: &Context<'_>, input: RegenerateRecoveryCodesInput) -> Result<Vec<String>> {
    let (codes, hashes) = new_recovery_codes();
    prove(ctx, input.code, input.password, async |act| {
        factors::replace_codes(&act.work, act.account.id, &hashes).await?;
        act.record("RECOVERY_CODES_REPLACED", &json!({}))
    })
    .await?;
    Ok(codes)
}

fn already() -> Error {
    let message = "You have a second factor already. Give it up with disableTotp before you set up another.";
    Error::invalid("", ProblemCode::Duplicate, message)
}
