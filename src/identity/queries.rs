//! All SQL about tenants and users.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::mfa::By;
use super::model::{SignedIn, Tenant, User};
use super::roles::rights_of;
use super::sessions;
use super::types::UserFilter;
use crate::auth::{Permission, Rights, Role};
use crate::db::Database;
use crate::db::asked::Reader;
use crate::db::directory::mailing::Purpose;
use crate::db::directory::people;
use crate::db::directory::{self, Account, Membership};
use crate::db::id::{ByKey, Id};
use crate::db::schema::{histories, tenants, users};
use crate::db::select::{Predicate, by_ids};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::events::{self, Hub, Work};
use crate::graphql::filter::combine;
use crate::graphql::scalar::CurrencyCode;
use crate::graphql::{self, Batch};

/// Characters of a password at least, unless a tenant asks for more.
const MIN_PASSWORD_LENGTH: i32 = 10;

/// Days that a new tenant's sessions last.
const SESSION_DAYS: i32 = 7;

/// Minutes without a refresh after which a new tenant's sessions end.
const IDLE_MINUTES: i32 = 30;

/// Loads tenants by their ids; row-level security leaves the viewer's own.
pub struct TenantById;

impl Batch for TenantById {
    type Key = Id<Tenant>;
    type Value = Arc<Tenant>;
    const READ: Permission = Permission::TenantRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Tenant>]) -> Result<ByKey<Id<Tenant>, Arc<Tenant>>> {
        by_ids(reader, keys).await
    }
}

/// Loads users by their ids.
pub struct UserById;

impl Batch for UserById {
    type Key = Id<User>;
    type Value = Arc<User>;
    const READ: Permission = Permission::UsersRead;

    async fn load(reader: Reader<'_>, keys: &[Id<User>]) -> Result<ByKey<Id<User>, Arc<User>>> {
        by_ids(reader, keys).await
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by.
pub(super) fn matching(filter: UserFilter) -> Result<Predicate> {
    let own = [
        filter.id.map(|id| id.on(users::id)),
        filter.name.map(|name| name.on(users::name)),
        filter.email.map(|email| email.on(users::email)),
        filter.role.map(|role| role.on(users::role)),
        filter
            .is_active
            .map(|active| Ok(Predicate::compare(users::is_active, "=", active))),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, matching)
}

/// The currency of the tenant that a transaction writes.
///
/// # Errors
/// When the database fails.
pub async fn currency(tx: &Transaction) -> Result<CurrencyCode> {
    let found = tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(tenants::currency_code);
    Ok(found.first(&mut tx.conn()).await?)
}

/// A tenant to be founded, with its first user and, when they are new here, the account they sign in with.
pub struct NewTenant {
    pub name: String,
    pub currency_code: CurrencyCode,
    pub user_name: String,
    /// In lower case.
    pub email: String,
    pub password_hash: String,
}

/// Whose tenant it will be.
pub enum Owner {
    /// Somebody new here; whether the address is theirs is not known.
    New,
    /// Somebody new here, who followed the link with this hash to prove that the address is theirs.
    Verified([u8; 32]),
    /// Somebody who has an account and has proved it by its password.
    Known(Account),
}

/// Adds a tenant as it is founded: account, tenant, first user as its admin, and its history.
/// Answers the open unit of work, for more to be added, with the tenant and the user.
///
/// # Errors
/// As a user error on `email` when the address has an account already.
pub async fn insert_tenant(
    db: &Database,
    hub: &Arc<Hub>,
    new: NewTenant,
    owner: Owner,
    now: DateTime<Utc>,
) -> Result<(Work, Tenant, User)> {
    let (tenant_id, user_id) = (Id::generate(), Id::generate());
    let tx = db.begin(tenant_id.uuid()).await?;
    let mut work = Work::on(tx, hub.clone(), None);
    work.go_on_as(Some(user_id.uuid()), now);
    let account = Account {
        id: Uuid::now_v7(),
        email: new.email.clone(),
        password_hash: new.password_hash,
        created_at: now,
    };
    let taken = || {
        Error::invalid(
            "email",
            ProblemCode::Duplicate,
            "This address has an account already.",
        )
    };
    let account_id = match owner {
        Owner::New => {
            directory::insert_account(&work, &account).await?;
            account.id
        }
        Owner::Verified(link) => {
            let used = people::use_link(&work, Purpose::SignUp, &link).await?;
            let free = people::insert_verified_account(&work, &account).await?;
            used.filter(|_| free).map(|_| account.id).ok_or_else(taken)?
        }
        Owner::Known(known) => {
            let still = directory::still_has_password(&work, &known).await?;
            still.then_some(known.id).ok_or_else(taken)?
        }
    };
    let tenant = Tenant {
        id: tenant_id,
        name: new.name,
        currency_code: new.currency_code,
        created_at: now,
        updated_at: now,
        version: 1,
        time_zone: "UTC".to_owned(),
        min_password_length: MIN_PASSWORD_LENGTH,
        mfa_required: false,
        session_days: SESSION_DAYS,
        idle_minutes: IDLE_MINUTES,
    };
    let user = User {
        id: user_id,
        name: new.user_name,
        email: new.email,
        role: Role::Admin,
        custom_role_id: None,
        is_active: true,
        created_at: now,
        updated_at: now,
        version: 1,
    };
    let mut conn = work.conn();
    diesel::insert_into(tenants::table)
        .values(&tenant)
        .execute(&mut conn)
        .await?;
    // Drawn at random, so that a position of one tenant is never one of another.
    let epoch = events::draw_epoch();
    diesel::insert_into(histories::table)
        .values(histories::epoch.eq(epoch))
        .execute(&mut conn)
        .await?;
    insert_user(&work, &user, account_id).await?;
    work.record(tenant.id, "CREATED", &tenant)?;
    work.record(user.id, "CREATED", &user)?;
    Ok((work, tenant, user))
}

/// Adds a user to the tenant, with the account that they sign in with.
///
/// # Errors
/// As a user error when the e-mail address is taken in this tenant.
pub async fn insert_user(tx: &Transaction, user: &User, account: Uuid) -> Result<()> {
    diesel::insert_into(users::table)
        .values((user, users::account_id.eq(account)))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Reads a user and locks it until the end of the transaction, and before it the tenant: of those who change users at
/// the same time, one comes after the other, and each sees who is an admin still.
///
/// # Errors
/// As a user error on `userId` when there is no such user.
pub(super) async fn user_for_update(tx: &Transaction, id: Id<User>) -> Result<User> {
    tenant_for_update(tx).await?;
    let found = users::table
        .filter(users::id.eq(id))
        .select(User::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid("userId", ProblemCode::NotFound, "There is no such user."))
}

/// Lets a new user in only once their address is verified, unless this account was made for them just now: whoever made
/// it earlier may know its password without being the person who is meant.
///
/// # Errors
/// When the database fails.
pub(super) async fn await_verification(tx: &Transaction, user: &User, unless_made: Uuid) -> Result<()> {
    let hold = statement("UPDATE users SET awaits_verification = (account_id <> ?) WHERE id = ?")
        .bind::<SqlUuid, _>(unless_made)
        .bind::<SqlUuid, _>(user.id);
    hold.execute(&mut tx.conn()).await?;
    Ok(())
}

/// Writes a changed user.
///
/// # Errors
/// When the database fails.
pub(super) async fn update_user(tx: &Transaction, user: &User) -> Result<()> {
    diesel::update(users::table.filter(users::id.eq(user.id)))
        .set((
            users::name.eq(&user.name),
            users::role.eq(user.role),
            users::custom_role_id.eq(user.custom_role_id),
            users::is_active.eq(user.is_active),
            users::updated_at.eq(user.updated_at),
            users::version.eq(user.version),
        ))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Deletes a user that nothing refers to, and the account with its last user.
///
/// # Errors
/// As a user error when records refer to the user.
pub(super) async fn delete_user(tx: &Transaction, id: Id<User>) -> Result<()> {
    use crate::db::schema::{companies, contacts, deal_stage_changes, deals, interactions};
    use diesel::dsl::exists;
    let mut conn = tx.conn();
    // The locked row keeps new references out until the transaction ends.
    let (company, contact, deal, change, interaction): (bool, bool, bool, bool, bool) = diesel::select((
        exists(companies::table.filter(companies::owner_id.eq(id))),
        exists(contacts::table.filter(contacts::owner_id.eq(id))),
        exists(deals::table.filter(deals::owner_id.eq(id))),
        exists(deal_stage_changes::table.filter(deal_stage_changes::changed_by_id.eq(id))),
        exists(interactions::table.filter(interactions::created_by_id.eq(id))),
    ))
    .get_result(&mut conn)
    .await?;
    let used: Vec<&str> = [
        (company, "companies"),
        (contact, "contacts"),
        (deal, "deals"),
        (change, "changes of stages"),
        (interaction, "interactions"),
    ]
    .into_iter()
    .filter_map(|(used, what)| used.then_some(what))
    .collect();
    if !used.is_empty() {
        let message = format!(
            "Records refer to the user: {}. Deactivate the user instead, with updateUser and isActive: false.",
            used.join(", ")
        );
        return Err(Error::invalid("userId", ProblemCode::InUse, message));
    }
    let account = diesel::delete(users::table.filter(users::id.eq(id)))
        .returning(users::account_id)
        .get_result(&mut conn)
        .await?;
    directory::remove_account_without_users(tx, account).await
}

/// Reads the tenant and locks it until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn tenant_for_update(tx: &Transaction) -> Result<Tenant> {
    let found = tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(Tenant::as_select())
        .for_update();
    Ok(found.first(&mut tx.conn()).await?)
}

/// Whether there is a time zone of this name: PostgreSQL keeps the IANA database, and reckons with it.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_time_zone(tx: &Transaction, name: &str) -> Result<bool> {
    // Copies of the same zones with other rules for leap seconds are of no use here.
    let known = name != "Factory"
        && !["posix", "right", "localtime"]
            .iter()
            .any(|it| name.starts_with(it));
    let found = statement("SELECT name FROM pg_timezone_names WHERE name = ?").bind::<Text, _>(name);
    Ok(known && found.execute(&mut tx.conn()).await? > 0)
}

/// Reads the tenant that a transaction writes.
///
/// # Errors
/// When the database fails.
pub async fn own_tenant(tx: &Transaction) -> Result<Tenant> {
    let found = tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(Tenant::as_select());
    Ok(found.first(&mut tx.conn()).await?)
}

/// Writes the changed tenant.
///
/// # Errors
/// When the database fails.
pub(super) async fn update_tenant(tx: &Transaction, tenant: &Tenant) -> Result<()> {
    diesel::update(tenants::table.filter(tenants::id.eq(tenant.id)))
        .set((
            tenants::name.eq(&tenant.name),
            tenants::currency_code.eq(tenant.currency_code),
            tenants::time_zone.eq(&tenant.time_zone),
            tenants::min_password_length.eq(tenant.min_password_length),
            tenants::session_days.eq(tenant.session_days),
            tenants::idle_minutes.eq(tenant.idle_minutes),
            tenants::updated_at.eq(tenant.updated_at),
            tenants::version.eq(tenant.version),
            tenants::mfa_required.eq(tenant.mfa_required),
        ))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// A user who may sign in to the tenant, with all that a token needs to know of them. Who changes the user at this moment
/// is waited for, and who wants to afterwards waits for this transaction.
///
/// # Errors
/// When the database fails.
pub(super) async fn member(tx: &Transaction, user: Id<User>) -> Result<Option<(Tenant, User, Rights)>> {
    let mut conn = tx.conn();
    let user: Option<User> = users::table
        .filter(users::id.eq(user).and(users::is_active))
        .select(User::as_select())
        .for_share()
        .first(&mut conn)
        .await
        .optional()?;
    let Some(user) = user else { return Ok(None) };
    let tenant = tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(Tenant::as_select())
        .first(&mut conn)
        .await?;
    let rights = rights_of(tx, &user).await?;
    Ok(Some((tenant, user, rights)))
}

/// Lets nobody change the tenant before the transaction ends.
///
/// # Errors
/// When the database fails.
pub(super) async fn hold_tenant(tx: &Transaction) -> Result<()> {
    let tenant = tenants::table
        .filter(tenants::id.eq(tx.tenant()))
        .select(tenants::id);
    tenant.for_share().execute(&mut tx.conn()).await?;
    Ok(())
}

/// What came of beginning a session.
pub(super) enum Begun {
    /// It has begun.
    Session(Box<SignedIn>),
    /// A second factor has to be shown first, or set up where there is none and the tenant wants one.
    Lacks { enrols: bool },
}

/// Begins a session of an account's user in a tenant, for who has shown what `by` says. Nothing when the user is not, or no
/// longer, active there, when the password has changed since the account was read, or when the session that it comes from
/// has ended. For the gate ([`admit`](super::mfa::admit)) and who shows a second factor there.
///
/// # Errors
/// When the database fails.
pub(super) async fn begin_session(
    session: &graphql::Session,
    membership: &Membership,
    account: &Account,
    by: By,
) -> Result<Option<Begun>> {
    let tx = session.db().begin(membership.tenant_id).await?;
    // Whoever changes the tenant's settings, the user, the password or the second factor at this moment holds a lock: the
    // session knows the old state and begins before the revocation, or the new one and begins after it.
    hold_tenant(&tx).await?;
    let Some((tenant, user, rights)) = member(&tx, Id::from_uuid(membership.user_id)).await? else {
        return Ok(None);
    };
    if !directory::still_has_password(&tx, account).await? {
        return Ok(None);
    }
    let (shown, until) = match by {
        By::FirstFactor => (false, None),
        By::BothFactors => (true, None),
        By::Session {
            tenant_id,
            session_id,
        } => {
            // Whoever ends it at this moment is waited for: what comes from it would outlive it.
            let Some(from) = directory::session_that_goes_on(&tx, account.id, tenant_id, session_id).await?
            else {
                return Ok(None);
            };
            (from.by_second_factor, Some(from.expires_at))
        }
    };
    let has_factor = directory::factors::has_factor(&tx, account.id).await?;
    if has_factor && !shown || !has_factor && tenant.mfa_required {
        return Ok(Some(Begun::Lacks { enrols: !has_factor }));
    }
    let work = Work::on(tx, session.hub().clone(), Some(membership.user_id));
    let mut work = work.coming_from(session.origin());
    let ticket = sessions::start(&mut work, user.id, session.origin(), has_factor, until).await?;
    let position = work.finish().await?;
    Ok(Some(Begun::Session(Box::new(SignedIn {
        tenant,
        user,
        rights,
        ticket,
        position: Some(position),
    }))))
}
