//! Setting a second factor up and giving it up, and getting in with it.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::super::queries::{self as identity, Begun};
use super::super::roles::{check_grant, rights_of};
use super::super::{SignInPayload, SignedIn, User, revocations, sessions};
use super::model::{
    Admitted, By, Code, PENDING, Pending, PendingSignIn, SecondFactor, SecondFactorMethod,
    new_recovery_codes, new_token, password_state, sealing_context, tenant_of,
};
use super::queries;
use crate::auth::throttle::{Attempt, Policy};
use crate::auth::totp::Totp;
use crate::auth::{Limiter, Permission, password};
use crate::crypto::{self, Vault};
use crate::db::Database;
use crate::db::directory::{self, Account, Membership, Revocation, factors};
use crate::db::id::{Id, write_id};
use crate::error::{Error, ProblemCode, Result};
use crate::events::{Hub, Work};
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

/// What a code turned out to be.
enum Shown {
    Totp,
    Recovery { left: i64 },
}

impl Shown {
    fn detail(&self) -> serde_json::Value {
        match self {
            Self::Totp => json!({ "method": "TOTP" }),
            Self::Recovery { left } => json!({ "method": "RECOVERY_CODE", "left": left }),
        }
    }
}

/// A unit of work with the one who does it.
struct Act {
    work: Work,
    account: Account,
    user: Id<User>,
    /// The hash of the token, of who has no session yet.
    token: Option<[u8; 32]>,
    /// Whether that token is for setting a second factor up.
    enrols: bool,
}

impl Act {
    /// Begins it for the viewer.
    async fn of_viewer(ctx: &Context<'_>) -> Result<Self> {
        let viewer = ctx.viewer()?;
        viewer.in_person()?;
        let user = viewer.user_id;
        let work = ctx.session().work().await?;
        // Locked first: whether this tenant wants a second factor does not change meanwhile.
        identity::tenant_for_update(&work).await?;
        let account = factors::account_within(&work, user).await?;
        Ok(Self {
            work,
            account: account.ok_or_else(|| {
                let message = "Only who signs in has a second factor.";
                Error::invalid("", ProblemCode::NotAllowed, message)
            })?,
            user: Id::from_uuid(user),
            token: None,
            enrols: false,
        })
    }

    /// Begins it for who has a token of a pending sign-in.
    async fn of_pending(ctx: &Context<'_>, token: &str) -> Result<Self> {
        let session = ctx.session();
        let tenant = tenant_of(token).ok_or_else(void)?;
        let tx = session.db().begin(tenant).await?;
        let hash = crypto::token_hash(token);
        let Pending {
            user_id,
            password_state: state,
            enrols,
        } = queries::find(&tx, &hash).await?.ok_or_else(void)?;
        let account = factors::account_within(&tx, user_id).await?;
        let account = account.filter(|account| password_state(account) == *state);
        Ok(Self {
            work: Work::on(tx, session.hub().clone(), Some(user_id)).coming_from(session.origin()),
            account: account.ok_or_else(void)?,
            user: Id::from_uuid(user_id),
            token: Some(hash),
            enrols,
        })
    }

    /// Looks at a code of a confirmed second factor. Nothing when it is wrong, was used before or is out of date; that is
    /// counted, so that the transaction must be committed in either case.
    async fn check(&self, ctx: &Context<'_>, code: &Code) -> Result<Option<Shown>> {
        let factor = factors::lock(&self.work, self.account.id).await?;
        let Some(factor) = factor.filter(|factor| factor.is_confirmed) else {
            return Ok(None);
        };
        match code {
            Code::Totp(code) => {
                if let Ok(seconds @ 1..) = u32::try_from(factor.wait) {
                    return Err(Error::RateLimited(seconds));
                }
                let step = self.totp(ctx, &factor.secret)?.step_of(code, Utc::now());
                let taken = match step {
                    Some(step) => factors::take_step(&self.work, self.account.id, step).await?,
                    None => false,
                };
                if !taken {
                    factors::count_failure(&self.work, self.account.id).await?;
                }
                Ok(taken.then_some(Shown::Totp))
            }
            Code::Recovery(hash) => {
                let left = factors::take_recovery_code(&self.work, self.account.id, hash).await?;
                Ok(left.map(|left| Shown::Recovery { left }))
            }
            Code::Neither => Ok(None),
        }
    }

    fn totp(&self, ctx: &Context<'_>, sealed: &[u8]) -> Result<Totp> {
        let vault = ctx.data_unchecked::<Arc<Vault>>();
        let secret = vault.open(&sealing_context(self.account.id), sealed)?;
        Totp::of(&secret, &self.account.email)
    }

    fn record(&mut self, kind: &'static str, detail: &serde_json::Value) -> Result<()> {
        self.work.record(factor_of(self.user), kind, detail)
    }

    async fn commit(self) -> Result<()> {
        self.work.finish().await?;
        Ok(())
    }

    /// Ends with a wrong code, which is written down; answers what to tell.
    async fn refuse(mut self) -> Error {
        let refused = async {
            let more = match &self.token {
                Some(hash) => queries::count_try(&self.work, hash).await?,
                None => true,
            };
            self.work.note(factor_of(self.user), "REFUSED", &json!({}));
            self.commit().await?;
            Ok(more)
        };
        match refused.await {
            Ok(true) => Error::invalid(
                "code",
                ProblemCode::Invalid,
                "This code is wrong, out of date, or was used before.",
            ),
            Ok(false) => void(),
            Err(error) => error,
        }
    }

    /// Lets in who has shown all that is needed.
    async fn enter(self, ctx: &Context<'_>) -> Result<SignedIn> {
        let (account, user_id, tenant_id) = (self.account.clone(), self.user.uuid(), self.work.tenant());
        self.commit().await?;
        let membership = Membership { tenant_id, user_id };
        let begun = identity::begin_session(ctx.session(), &membership, &account, By::BothFactors).await?;
        match begun {
            Some(Begun::Session(signed_in)) => Ok(*signed_in),
            _ => Err(void()),
        }
    }
}

/// The token is none, is too old, was used up, or the password has changed since: all the same.
fn void() -> Error {
    Error::Unauthenticated("This sign-in has ended. Sign in again.")
}

pub(super) fn factor_of(user: Id<User>) -> Id<SecondFactor> {
    Id::from_uuid(user.uuid())
}

/// Begins to count a code as wrong. Whoever waits here for others of the same network must hold neither a connection nor
/// locks that those need to get on: what has to be known of the account is looked up before, and once more after. Recovery
/// codes cannot be guessed: whoever has guessed at codes by time, in the
/// place of the one who owns them, does not shut them out.
async fn attempt<'a>(ctx: &Context<'a>, code: &Code, account: Uuid) -> Result<Option<Attempt<'a>>> {
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let origin = ctx.session().origin();
    if matches!(code, Code::Totp(_)) {
        let key = account.to_string();
        let attempt = limiter.attempt(Policy::SignInNetwork, origin, Policy::Code, &key);
        return Ok(Some(attempt.await?));
    }
    limiter.take_from(Policy::MailedToken, origin, 1).await?;
    Ok(None)
}

/// A fault of ours is no wrong code.
async fn settle_faults<T>(
    attempt: Option<Attempt<'_>>,
    checked: Result<T>,
) -> Result<(Option<Attempt<'_>>, T)> {
    match (attempt, checked) {
        (Some(attempt), Err(error)) => attempt.settle(Err(error)).await,
        (attempt, checked) => Ok((attempt, checked?)),
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

/// Does something to the viewer's confirmed second factor once they have proved that it is they.
async fn prove(
    ctx: &Context<'_>,
    code: Option<String>,
    password: Option<String>,
    work: impl AsyncFnOnce(&mut Act) -> Result<()>,
) -> Result<()> {
    ctx.viewer()?;
    let guarded = async || {
        let act = Act::of_viewer(ctx).await?;
        if !factors::has_factor(&act.work, act.account.id).await? {
            return Err(Error::invalid(
                "",
                ProblemCode::NotAllowed,
                "You have no second factor.",
            ));
        }
        Ok(act)
    };
    let mut act = match (code, password) {
        (None, Some(password)) => {
            let account = check_password(ctx, password).await?;
            let act = guarded().await?;
            if !directory::still_has_password(&act.work, &account).await? {
                return Err(wrong_password());
            }
            act
        }
        (Some(code), None) => {
            let code = Code::read(&code);
            let account = guarded().await?.account.id;
            let attempt = attempt(ctx, &code, account).await?;
            let (attempt, act) = settle_faults(attempt, guarded().await).await?;
            let (attempt, shown) = settle_faults(attempt, act.check(ctx, &code).await).await?;
            if shown.is_none() {
                return Err(act.refuse().await);
            }
            if let Some(attempt) = attempt {
                attempt.succeeded().await;
            }
            act
        }
        (None, None) => {
            let message = "Give a code or your password.";
            return Err(Error::invalid("code", ProblemCode::Required, message));
        }
        (Some(_), Some(_)) => return Err(one_of_two("password")),
    };
    work(&mut act).await?;
    act.commit().await?;
    Ok(())
}

/// The viewer's account, if this is its password.
async fn check_password(ctx: &Context<'_>, password: String) -> Result<Account> {
    let viewer = ctx.viewer()?;
    viewer.in_person()?;
    let session = ctx.session();
    let account = directory::account_of(session.db(), viewer.tenant_id, viewer.user_id).await?;
    let key = account
        .as_ref()
        .map_or_else(|| viewer.user_id.to_string(), |it| it.email.clone());
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    let attempt = limiter
        .attempt(
            Policy::SignInNetwork,
            session.origin(),
            Policy::SignInAccount,
            &key,
        )
        .await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let proved = password::verify(password, hash).await;
    let account = proved.and_then(|proved| account.filter(|_| proved).ok_or_else(wrong_password));
    attempt.settle(account).await
}

fn wrong_password() -> Error {
    Error::invalid("password", ProblemCode::Invalid, "This is not your password.")
}

fn already() -> Error {
    let message = "You have a second factor already. Give it up with disableTotp before you set up another.";
    Error::invalid("", ProblemCode::Duplicate, message)
}

fn one_of_two(field: &str) -> Error {
    Error::invalid(field, ProblemCode::Invalid, "Give one of the two, not both.")
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

/// Takes the second factor away of who signs in with an address, ends their sessions in every tenant, and notes it in the
/// trails of their tenants. For somebody who has lost their app and their codes, and whom no admin can help: the sole admin
/// of a tenant, or who belongs to several. Answers what to tell the operator, who has made sure that it is they who ask.
///
/// It is taken away everywhere at once, and each trail is a transaction of its own; whom it could not tell, the next call
/// does, and it takes nothing else away then. Only who asks for it `again` takes away what was set up since, whether or not
/// all trails tell of the last time: one that keeps failing must not make a second factor one that nobody can reset.
///
/// # Errors
/// A sentence for the operator: also when nothing was there to be taken away, and when a trail does not tell of it yet.
pub async fn reset_second_factor(
    db: &Database,
    hub: &Arc<Hub>,
    email: &str,
    again: bool,
) -> Result<String, String> {
    let told = |error: Error| {
        tracing::error!(?error, "a second factor cannot be reset");
        error.message()
    };
    let email = email.trim().to_lowercase();
    let reset = factors::reset(db, &email, again).await.map_err(told)?;
    let factors::Reset { is_new, untold } = reset
        .ok_or_else(|| format!("nobody signs in with {email} and a second factor: nothing is changed"))?;
    let (mut noted, mut missing) = (0, Vec::new());
    for membership in untold {
        match note_reset(db, hub, &membership).await {
            Ok(now) => noted += usize::from(now),
            Err(error) => {
                told(error);
                missing.push(write_id("tenant", membership.tenant_id));
            }
        }
    }
    if !missing.is_empty() {
        return Err(format!(
            "the second factor {} taken away, but these trails do not tell of it yet: {}. Run this again, which takes \
             nothing else away; should there be another second factor since that is to go, with --again",
            if is_new { "is" } else { "had been" },
            missing.join(", ")
        ));
    }
    Ok(match is_new {
        true => format!(
            "The second factor of {email} is taken away, and all sessions have ended. Noted in the trails of tenants: {noted}."
        ),
        false => format!(
            "The second factor of {email} had been taken away before. Noted now in the trails of tenants: {noted}. \
             If there is another since, run this again to take it away."
        ),
    })
}

/// Notes in the trail of a tenant that an operator took a second factor away. Answers whether this was still to be done.
async fn note_reset(db: &Database, hub: &Arc<Hub>, membership: &Membership) -> Result<bool> {
    let Membership { tenant_id, user_id } = *membership;
    let mut work = Work::begin(db, hub.clone(), tenant_id, None).await?;
    if !queries::take_untold_reset(&work, user_id).await? {
        return Ok(false);
    }
    let detail = json!({ "by": "OPERATOR" });
    work.record(factor_of(Id::from_uuid(user_id)), "RESET", &detail)?;
    work.finish().await?;
    Ok(true)
}
