//! Whoever does something with a second factor, and how they prove that they may: what mutations have in common.

use std::sync::Arc;

use async_graphql::Context;
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use super::super::super::queries::{self as identity, Begun};
use super::super::model::{By, Code, Pending, SecondFactor, password_state, sealing_context, tenant_of};
use super::super::queries;
use crate::auth::throttle::{Attempt, Policy};
use crate::auth::totp::Totp;
use crate::auth::{Limiter, password};
use crate::crypto::{self, Vault};
use crate::db::directory::{self, Account, Membership, factors};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::ContextExt;
use crate::identity::{SignedIn, User};

/// What a code turned out to be.
pub(super) enum Shown {
    Totp,
    Recovery { left: i64 },
}

impl Shown {
    pub(super) fn detail(&self) -> serde_json::Value {
        match self {
            Self::Totp => json!({ "method": "TOTP" }),
            Self::Recovery { left } => json!({ "method": "RECOVERY_CODE", "left": left }),
        }
    }
}

/// A unit of work with the one who does it.
pub(super) struct Act {
    pub(super) work: Work,
    pub(super) account: Account,
    pub(super) user: Id<User>,
    /// The hash of the token, of who has no session yet.
    pub(super) token: Option<[u8; 32]>,
    /// Whether that token is for setting a second factor up.
    pub(super) enrols: bool,
}

impl Act {
    /// Begins it for the viewer.
    pub(super) async fn of_viewer(ctx: &Context<'_>) -> Result<Self> {
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
    pub(super) async fn of_pending(ctx: &Context<'_>, token: &str) -> Result<Self> {
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
    pub(super) async fn check(&self, ctx: &Context<'_>, code: &Code) -> Result<Option<Shown>> {
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

    pub(super) fn totp(&self, ctx: &Context<'_>, sealed: &[u8]) -> Result<Totp> {
        let vault = ctx.data_unchecked::<Arc<Vault>>();
        let secret = vault.open(&sealing_context(self.account.id), sealed)?;
        Totp::of(&secret, &self.account.email)
    }

    pub(super) fn record(&mut self, kind: &'static str, detail: &serde_json::Value) -> Result<()> {
        self.work.record(factor_of(self.user), kind, detail)
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.work.finish().await?;
        Ok(())
    }

    /// Ends with a wrong code, which is written down; answers what to tell.
    pub(super) async fn refuse(mut self) -> Error {
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
    pub(super) async fn enter(self, ctx: &Context<'_>) -> Result<SignedIn> {
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
pub(super) async fn attempt<'a>(
    ctx: &Context<'a>,
    code: &Code,
    account: Uuid,
) -> Result<Option<Attempt<'a>>> {
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
pub(super) async fn settle_faults<T>(
    attempt: Option<Attempt<'_>>,
    checked: Result<T>,
) -> Result<(Option<Attempt<'_>>, T)> {
    match (attempt, checked) {
        (Some(attempt), Err(error)) => attempt.settle(Err(error)).await,
        (attempt, checked) => Ok((attempt, checked?)),
    }
}

/// Does something to the viewer's confirmed second factor once they have proved that it is they.
pub(super) async fn prove(
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
pub(super) async fn check_password(ctx: &Context<'_>, password: String) -> Result<Account> {
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

pub(super) fn wrong_password() -> Error {
    Error::invalid("password", ProblemCode::Invalid, "This is not your password.")
}

pub(super) fn one_of_two(field: &str) -> Error {
    Error::invalid(field, ProblemCode::Invalid, "Give one of the two, not both.")
}
