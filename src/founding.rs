//! Founding a tenant: the one act that concerns identity and the CRM at once, and so stands above both.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::auth::strength::Rules;
use crate::auth::{Limiter, Origin, Policy, password};
use crate::config::SignUp;
use crate::crm::pipelines;
use crate::crypto::{self, Vault};
use crate::db::Database;
use crate::db::directory::mailing::Purpose;
use crate::db::directory::people;
use crate::db::directory::{Account, Membership};
use crate::error::{Error, ProblemCode, Result};
use crate::events::{Hub, Work, work};
use crate::graphql::input::Check;
use crate::graphql::scalar::CurrencyCode;
use crate::graphql::{ContextExt, Session};
use crate::identity::mfa::{self, Admitted, By};
use crate::identity::{self, NewTenant, Owner, SignInPayload, SignedIn, Tenant, User, sessions};
use crate::mail::{self, Letter, Mail};

/// Founds a tenant: account, first user as its admin, history and the usual pipeline, all or nothing.
/// Answers the open unit of work, for more to be added, with the tenant and the user.
///
/// # Errors
/// As a user error on `email` when the address has an account already.
pub async fn found_tenant(db: &Database, hub: &Arc<Hub>, new: NewTenant) -> Result<(Work, Tenant, User)> {
    found_tenant_at(db, hub, new, work::now()).await
}

/// As [`found_tenant`], at a moment in the past.
///
/// # Errors
/// As [`found_tenant`].
pub async fn found_tenant_at(
    db: &Database,
    hub: &Arc<Hub>,
    new: NewTenant,
    now: DateTime<Utc>,
) -> Result<(Work, Tenant, User)> {
    found_tenant_of(db, hub, new, Owner::New, now).await
}

async fn found_tenant_of(
    db: &Database,
    hub: &Arc<Hub>,
    new: NewTenant,
    owner: Owner,
    now: DateTime<Utc>,
) -> Result<(Work, Tenant, User)> {
    let (mut work, tenant, user) = identity::insert_tenant(db, hub, new, owner, now).await?;
    let (pipeline, stages) = pipelines::insert_default(&work, now).await?;
    work.record(pipeline.id, "CREATED", &pipeline)?;
    for stage in &stages {
        work.record(stage.id, "CREATED", stage)?;
    }
    Ok((work, tenant, user))
}

/// A tenant to be founded, with its first user.
#[derive(Debug, InputObject)]
pub struct SignUpInput {
    /// The name of the organisation.
    tenant_name: String,
    /// Your name.
    name: String,
    /// The address that you will sign in with.
    email: String,
    /// Your password: 10 characters at least, 1,024 bytes at most.
    #[graphql(secret)]
    password: String,
    /// The currency of sums, and of amounts for which none is given; US dollars when left out.
    currency_code: Option<CurrencyCode>,
}

/// The completion of a sign-up.
#[derive(Debug, InputObject)]
pub struct CompleteSignUpInput {
    /// What stands behind the `#` of the link that was mailed to you.
    #[graphql(secret)]
    token: String,
    /// The password that you chose.
    #[graphql(secret)]
    password: String,
}

/// Mutations that found tenants.
#[derive(Default)]
pub struct FoundingMutation;

#[Object]
impl FoundingMutation {
    /// Founds a tenant: you become its first user and admin, and it gets a pipeline with the usual stages. Whoever has an
    /// account already founds a further tenant by giving its password.
    ///
    /// Where addresses are verified (`DEALSTREAM_SIGN_UP`), the answer is `mustConfirm`, and a mail tells how it goes on: by
    /// `completeSignUp`, or by signing in to the account that there is. The answer is the same in both cases.
    async fn sign_up(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who founds which tenant.")] input: SignUpInput,
    ) -> Result<SignInPayload> {
        match sign_up(ctx, input).await {
            Ok(SignedUp::Now(admitted)) => SignInPayload::of(ctx, Ok(admitted)),
            Ok(SignedUp::ToBeConfirmed) => SignInPayload::to_be_confirmed(ctx),
            Err(error) => SignInPayload::of(ctx, Err::<Admitted, _>(error)),
        }
    }

    /// Completes a sign-up with the link that was mailed, and the password that was chosen. The link can be used once,
    /// within one day.
    async fn complete_sign_up(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The link's token, and the password.")] input: CompleteSignUpInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, complete_sign_up(ctx, input).await)
    }
}

/// What became of a sign-up.
enum SignedUp {
    Now(Admitted),
    /// A mail tells how it goes on.
    ToBeConfirmed,
}

/// What a sign-up wants to found, until its address is proved.
#[derive(Serialize, Deserialize)]
struct Form {
    tenant_name: String,
    user_name: String,
    currency_code: CurrencyCode,
    password_hash: String,
}

async fn sign_up(ctx: &Context<'_>, input: SignUpInput) -> Result<SignedUp> {
    let mode = *ctx.data_unchecked::<SignUp>();
    if mode == SignUp::Closed {
        let message = "This server takes no sign-ups. Ask an admin of your tenant to invite you.";
        return Err(Error::invalid("", ProblemCode::NotAllowed, message));
    }
    let mut check = Check::default();
    let tenant_name = check.line("tenantName", &input.tenant_name);
    let user_name = check.line("name", &input.name);
    let email = check.email("email", input.email);
    let known = [&*tenant_name, &user_name, &email];
    check.new_password("password", &input.password, &Rules::new(0, &known));
    if mode == SignUp::Verified && !email.is_empty() && !Mail::can_reach(&email) {
        check.problem(
            "email",
            ProblemCode::Invalid,
            "No mail can be sent to this address.",
        );
    }
    check.done()?;
    let (session, mail) = (ctx.session(), ctx.data_unchecked::<Arc<Mail>>());
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter.take_from(Policy::SignUp, session.origin(), 1).await?;
    if mode == SignUp::Verified {
        mail.require()?;
    }
    // Who guesses passwords is held up here as when signing in. Where addresses are verified everybody is answered the same,
    // and who honestly signs up has failed at nothing: there the account alone counts it, as the network's sign-ups are
    // counted above.
    let nowhere = Origin::default();
    let origin = match mode {
        SignUp::Verified => &nowhere,
        SignUp::Open | SignUp::Closed => session.origin(),
    };
    let attempt = limiter
        .attempt(Policy::SignInNetwork, origin, Policy::SignInAccount, &email)
        .await?;
    let checked = check_owner(session, &email, input.password).await;
    let (account, is_verified, proved, password_hash) = match checked {
        Ok(checked) => checked,
        Err(error) => return attempt.settle(Err(error)).await,
    };
    let owner = match account {
        Some(account) if proved && (mode == SignUp::Open || is_verified == Some(true)) => {
            Some(Owner::Known(account))
        }
        None if mode == SignUp::Open => Some(Owner::New),
        _ => None,
    };
    let currency_code = input.currency_code.unwrap_or(CurrencyCode::USD);
    let Some(owner) = owner else {
        if mode == SignUp::Open {
            let message = "This address cannot be signed up with this password.";
            return Err(Error::invalid("email", ProblemCode::Duplicate, message));
        }
        let form = Form {
            tenant_name,
            user_name,
            currency_code,
            password_hash,
        };
        let form = serde_json::to_value(form).map_err(Error::internal)?;
        mail.post(&Letter::SignUp { email, form }).await?;
        return Ok(SignedUp::ToBeConfirmed);
    };
    attempt.succeeded().await;
    let new = NewTenant {
        name: tenant_name,
        currency_code,
        user_name,
        email,
        password_hash,
    };
    let known = match &owner {
        Owner::Known(account) => Some(account.clone()),
        Owner::New | Owner::Verified(_) => None,
    };
    let (work, tenant, user) = found_tenant_of(session.db(), session.hub(), new, owner, work::now()).await?;
    let Some(account) = known else {
        return Ok(SignedUp::Now(enter(session, work, tenant, user).await?.into()));
    };
    // Who has an account may have a second factor: the password alone founds the tenant, and does not get in.
    let work = work.coming_from(session.origin());
    work.finish().await?;
    let membership = Membership {
        tenant_id: tenant.id.uuid(),
        user_id: user.id.uuid(),
    };
    let admitted = mfa::admit(ctx, &account, &membership, By::FirstFactor).await?;
    admitted.map(SignedUp::Now).ok_or(Error::Unavailable)
}

/// The account at an address and whether that is verified, whether the password is the account's, and its hash.
async fn check_owner(
    session: &Session,
    email: &str,
    given: String,
) -> Result<(Option<Account>, Option<bool>, bool, String)> {
    let account = people::account_at(session.db(), email).await?;
    let (account, is_verified) = account.unzip();
    // The same work, whether the address is known or not.
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let proved = password::verify(given.clone(), hash).await?;
    Ok((account, is_verified, proved, password::hash(given).await?))
}

/// Signs the founder in, whose account is as new as the tenant.
async fn enter(session: &Session, work: Work, tenant: Tenant, user: User) -> Result<SignedIn> {
    let mut work = work.coming_from(session.origin());
    let rights = identity::rights_of(&work, &user).await?;
    let ticket = sessions::start(&mut work, user.id, session.origin(), false, None).await?;
    let position = work.finish().await?;
    Ok(SignedIn {
        rights,
        tenant,
        user,
        ticket,
        position: Some(position),
    })
}

async fn complete_sign_up(ctx: &Context<'_>, input: CompleteSignUpInput) -> Result<SignedIn> {
    // The same for a link that never was, has expired or was used, and for an address that has an account by now.
    let no_link = || {
        let message = "This link is not valid, or no longer. Sign up again.";
        Error::invalid("token", ProblemCode::NotFound, message)
    };
    let session = ctx.session();
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter
        .take_from(Policy::MailedToken, session.origin(), 1)
        .await?;
    let hash = crypto::token_hash(&input.token);
    let link = people::link(session.db(), Purpose::SignUp, &hash).await?;
    let (email, sealed) = link
        .and_then(|link| Some((link.email, link.sealed?)))
        .ok_or_else(no_link)?;
    let vault = ctx.data_unchecked::<Arc<Vault>>();
    let form = vault.open(&mail::link_context(&hash), &sealed)?;
    let form: Form = serde_json::from_slice(&form).map_err(Error::internal)?;
    // Whoever signed up with somebody else's address does not get into what that person completes: the password tells.
    let attempt = limiter
        .attempt(
            Policy::SignInNetwork,
            session.origin(),
            Policy::SignInAccount,
            &email,
        )
        .await?;
    let wrong = || {
        let message = "This is not the password that was chosen when signing up.";
        Error::invalid("password", ProblemCode::Invalid, message)
    };
    let verified = password::verify(input.password, Some(form.password_hash.clone())).await;
    let proved = verified.and_then(|right| right.then_some(()).ok_or_else(wrong));
    attempt.settle(proved).await?;
    let new = NewTenant {
        name: form.tenant_name,
        currency_code: form.currency_code,
        user_name: form.user_name,
        email,
        password_hash: form.password_hash,
    };
    let owner = Owner::Verified(hash);
    let founded = found_tenant_of(session.db(), session.hub(), new, owner, work::now()).await;
    let (work, tenant, user) = founded.map_err(|error| match error {
        Error::Invalid(_) => no_link(),
        error => error,
    })?;
    enter(session, work, tenant, user).await
}
