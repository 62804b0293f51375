//! Tenants, users and the viewer in the schema.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object};

use super::memberships::{Membership, memberships};
use super::mfa::SecondFactorOfUser;
use super::model::UserOrderField;
use super::roles::{CustomRole, CustomRoleById, RecordScopes, RoleScopes};
use super::teams::{Team, TeamsByUser};
use super::{Tenant, TenantById, User, UserById, queries};
use crate::auth::{self, Permission, Role};
use crate::db::directory::people::Person;
use crate::db::id::Id;
use crate::error::{Error, Result};
use crate::events::{self, Position};
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::filter::{EnumFilter, IdFilter, StringFilter};
use crate::graphql::scalar::{CurrencyCode, DateTime};
use crate::graphql::{Can, Connection, ContextExt, Eager, OrderDirection, PageArgs, Record};

/// The organisation that all data belongs to. Nothing of it is seen by another tenant.
#[Object]
impl Tenant {
    /// The tenant's id, for example `tenant_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Tenant> {
        self.id
    }

    /// The tenant's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The currency of sums, and of amounts for which none is given.
    async fn currency_code(&self) -> CurrencyCode {
        self.currency_code
    }

    /// The time zone in which the tenant's days begin, by its name in the IANA time zone database, for example
    /// `Europe/Berlin`.
    async fn time_zone(&self) -> &str {
        &self.time_zone
    }

    /// Characters that the passwords of the tenant's users have at least, from the next time that they set one.
    async fn min_password_length(&self) -> i32 {
        self.min_password_length
    }

    /// Days after which everybody has to sign in again.
    async fn session_days(&self) -> i32 {
        self.session_days
    }

    /// Minutes without a refresh after which a session ends.
    async fn idle_minutes(&self) -> i32 {
        self.idle_minutes
    }

    /// When the tenant signed up.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the tenant was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Whether everybody needs a second factor to get in.
    async fn mfa_required(&self) -> bool {
        self.mfa_required
    }

    /// Counts the changes of the tenant. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// A person in the tenant. The records that they look after are found by the filter `ownerId` of companies,
/// contacts and deals.
#[Object]
impl User {
    /// The user's id, for example `user_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<User> {
        self.id
    }

    /// The user's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// The address that the user signs in with.
    async fn email(&self) -> &str {
        &self.email
    }

    /// What the user may do. `CUSTOM` stands for `customRole`.
    async fn role(&self) -> Role {
        self.role
    }

    /// The role of the tenant's own that the user has, if it is one.
    async fn custom_role(&self, ctx: &Context<'_>) -> Option<Result<Record<CustomRole>>> {
        ctx.relation::<CustomRoleById>(self.custom_role_id).await
    }

    /// The teams that the user leads or belongs to, by name.
    async fn teams(&self, ctx: &Context<'_>) -> Result<Vec<Arc<Team>>> {
        let teams = ctx.load::<TeamsByUser>(self.id).await?;
        Ok(teams.map(|teams| teams.to_vec()).unwrap_or_default())
    }

    /// Whether the user may sign in to this tenant.
    async fn is_active(&self) -> bool {
        self.is_active
    }

    /// When the user joined the tenant.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the user was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Whether the user has a second factor, and has signed in to this tenant with it. Null unless it is you, or you may
    /// change users.
    async fn has_second_factor(&self, ctx: &Context<'_>) -> Option<Result<bool>> {
        let viewer = ctx.viewer().ok()?;
        if viewer.user_id != self.id.uuid() && viewer.require(Permission::UsersWrite).is_err() {
            return None;
        }
        ctx.load::<SecondFactorOfUser>(self.id).await.transpose()
    }

    /// Counts the changes of the user.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// You: the person that an access token stands for, in the tenant it was issued for.
pub struct Viewer {
    viewer: auth::Viewer,
    /// Known beforehand to who has just signed in; the request itself is not yet theirs.
    known: Option<(Arc<Tenant>, Arc<User>)>,
}

impl Viewer {
    /// The viewer who has just signed in.
    pub(super) fn signed_in(viewer: auth::Viewer, tenant: Arc<Tenant>, user: Arc<User>) -> Self {
        Self {
            viewer,
            known: Some((tenant, user)),
        }
    }
}

/// You: the person that an access token stands for, in the tenant that it was issued for.
#[Object]
impl Viewer {
    /// Your user in the tenant; null when it is there no more.
    async fn user(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        match &self.known {
            Some((_, user)) => Some(Ok(Eager(user.clone()))),
            None => {
                let id = Id::from_uuid(self.viewer.user_id);
                let user = ctx.load_known::<UserById>(id).await.transpose()?;
                Some(user.map(Eager))
            }
        }
    }

    /// The tenant that you are signed in to.
    async fn tenant(&self, ctx: &Context<'_>) -> Option<Result<Record<Tenant>>> {
        match &self.known {
            Some((tenant, _)) => Some(Ok(Eager(tenant.clone()))),
            None => {
                let id = Id::from_uuid(self.viewer.tenant_id);
                let tenant = ctx.load_known::<TenantById>(id).await.transpose()?;
                Some(tenant.map(Eager))
            }
        }
    }

    /// The tenants that you belong to and may enter with `switchTenant`, this one included, in the order in which you joined
    /// them. For an API key it is this one only.
    async fn memberships(&self, ctx: &Context<'_>) -> Result<Vec<Membership>> {
        memberships(&self.viewer, &*person(ctx, &self.viewer).await?)
    }

    /// Whether you have proved that your address is yours. Until then you can enter no tenant but the one that you founded
    /// or that made your account.
    async fn is_email_verified(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(person(ctx, &self.viewer).await?.is_verified)
    }

    /// Your role, as your access token has it. `CUSTOM` stands for `customRole`.
    async fn role(&self) -> Role {
        self.viewer.rights.role
    }

    /// The role of the tenant's own that you have, if it is one.
    async fn custom_role(&self, ctx: &Context<'_>) -> Option<Result<Record<CustomRole>>> {
        let id = self.viewer.rights.custom_role.filter(|_| self.known.is_none())?;
        let role = ctx.load_known::<CustomRoleById>(Id::from_uuid(id)).await;
        Some(role.transpose()?.map(Eager))
    }

    /// Whose records you reach, as your access token has it.
    async fn scopes(&self) -> RecordScopes {
        RoleScopes::from(self.viewer.rights.reach()).into()
    }

    /// What you may do, as your access token has it.
    async fn permissions(&self) -> Vec<Permission> {
        self.viewer.rights.permissions().iter().collect()
    }

    /// How many of your recovery codes are left. Without a second factor there are none.
    async fn recovery_codes_left(&self, ctx: &Context<'_>) -> Result<i32> {
        let left = person(ctx, &self.viewer).await?.codes_left;
        Ok(i32::try_from(left).unwrap_or(i32::MAX))
    }

    /// The position of the tenant's history that this answer shows: all of a query is read at one moment. Subscribe
    /// with it as `after`, and you miss nothing that happened since.
    async fn position(&self, ctx: &Context<'_>) -> Result<String> {
        let standing = if self.known.is_some() {
            let snapshot = ctx.session().db().snapshot(self.viewer.tenant_id);
            events::standing(snapshot.conn().await?).await?
        } else {
            let reading = ctx.reading()?;
            events::standing(reading.conn().await?).await?
        };
        Ok(Position {
            epoch: standing.epoch,
            position: standing.position,
        }
        .to_string())
    }
}

/// Who a viewer is beyond the tenant.
async fn person(ctx: &Context<'_>, viewer: &auth::Viewer) -> Result<Arc<Person>> {
    ctx.session().person(viewer.tenant_id, viewer.user_id).await
}

/// The currency that is given, or else the tenant's.
///
/// # Errors
/// When the database fails.
pub async fn currency_or_tenants(ctx: &Context<'_>, given: Option<CurrencyCode>) -> Result<CurrencyCode> {
    if let Some(currency) = given {
        return Ok(currency);
    }
    let tenant = ctx
        .load_known::<TenantById>(Id::from_uuid(ctx.viewer()?.tenant_id))
        .await?;
    tenant
        .map(|tenant| tenant.currency_code)
        .ok_or(Error::NotFound("tenant"))
}

/// Which users to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct UserFilter {
    /// By id.
    pub id: Option<IdFilter<User>>,
    /// By name.
    pub name: Option<StringFilter>,
    /// By e-mail address.
    pub email: Option<StringFilter>,
    /// By role.
    pub role: Option<EnumFilter<Role>>,
    /// By whether they may sign in.
    pub is_active: Option<bool>,
    /// All of these hold too.
    pub and: Option<Vec<UserFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<UserFilter>>,
    /// This does not hold.
    pub not: Option<Box<UserFilter>>,
}

/// How to sort users.
#[derive(Debug, Clone, InputObject)]
pub struct UserOrder {
    /// What to sort by.
    field: UserOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// The viewer, the tenant and its users at the root of the schema.
#[derive(Default)]
pub struct IdentityQuery;

#[Object]
impl IdentityQuery {
    /// You, as your access token tells.
    async fn viewer(&self, ctx: &Context<'_>) -> Result<Viewer> {
        Ok(Viewer {
            viewer: ctx.viewer()?.clone(),
            known: None,
        })
    }

    /// The tenant that you are signed in to.
    async fn tenant(&self, ctx: &Context<'_>) -> Option<Result<Record<Tenant>>> {
        let tenant = match ctx.viewer() {
            Ok(viewer) => viewer.tenant_id,
            Err(error) => return Some(Err(error)),
        };
        ctx.find::<TenantById>(Permission::TenantRead, Id::from_uuid(tenant))
            .await
    }

    /// A user of the tenant by their id; null when there is none.
    async fn user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the user.")] id: Id<User>,
    ) -> Option<Result<Record<User>>> {
        ctx.find::<UserById>(Permission::UsersRead, id).await
    }

    /// The tenant's users, by name unless ordered otherwise.
    #[graphql(guard = "Can(Permission::UsersRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which users to list; all of them when left out.")] filter: Option<UserFilter>,
        #[graphql(desc = "How to sort them.")] order_by: Option<UserOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<User>> {
        let order = order_by.map_or((UserOrderField::Name, OrderDirection::Asc), |by| {
            (by.field, by.direction)
        });
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, order, || {
            queries::matching(filter.clone().unwrap_or_default())
        })
        .await
    }
}
