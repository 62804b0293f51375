//! Founding a tenant: the one act that concerns identity and the CRM at once, and so stands above both.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};
use chrono::{DateTime, Utc};

use crate::auth::strength::Rules;
use crate::auth::{Limiter, Policy, password};
use crate::crm::pipelines;
use crate::db::Database;
use crate::error::Result;
use crate::events::{Hub, Work, work};
use crate::graphql::ContextExt;
use crate::graphql::input::Check;
use crate::graphql::scalar::CurrencyCode;
use crate::identity::{self, NewTenant, SignInPayload, SignedIn, Tenant, User, sessions};

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
    let (mut work, tenant, user) = identity::insert_tenant(db, hub, new, now).await?;
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

/// Mutations that found tenants.
#[derive(Default)]
pub struct FoundingMutation;

#[Object]
impl FoundingMutation {
    /// Founds a tenant: you become its first user and admin, and it gets a pipeline with the usual stages.
    async fn sign_up(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who founds which tenant.")] input: SignUpInput,
    ) -> Result<SignInPayload> {
        SignInPayload::of(ctx, sign_up(ctx, input).await)
    }
}

async fn sign_up(ctx: &Context<'_>, input: SignUpInput) -> Result<SignedIn> {
    let mut check = Check::default();
    let tenant_name = check.line("tenantName", &input.tenant_name);
    let user_name = check.line("name", &input.name);
    let email = check.email("email", input.email);
    let known = [&*tenant_name, &user_name, &email];
    check.new_password("password", &input.password, &Rules::new(0, &known));
    check.done()?;
    let session = ctx.session();
    let limiter = ctx.data_unchecked::<Arc<Limiter>>();
    limiter.take_from(Policy::SignUp, session.origin(), 1).await?;
    let new = NewTenant {
        name: tenant_name,
        currency_code: input.currency_code.unwrap_or(CurrencyCode::USD),
        user_name,
        email,
        password_hash: password::hash(input.password).await?,
    };
    let (work, tenant, user) = found_tenant(session.db(), session.hub(), new).await?;
    let mut work = work.coming_from(session.origin());
    let rights = identity::rights_of(&work, &user).await?;
    let ticket = sessions::start(&mut work, user.id, session.origin()).await?;
    let position = work.append().await?;
    work.commit(position).await?;
    Ok(SignedIn {
        rights,
        tenant,
        user,
        ticket,
        position: Some(position),
    })
}
