//! A tenant's own roles in the schema.

use async_graphql::{Context, Enum, InputObject, Object, SimpleObject};

use super::model::{ByName, RoleScopes};
use super::{CustomRole, CustomRoleById};
use crate::auth::{Permission, Scope};
use crate::db::id::Id;
use crate::db::select::Predicate;
use crate::error::Result;
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};

/// Whose records a role reaches. Records out of reach are not there for whoever has the role: not in lists, counts and
/// sums, not when searched for or referred to, not to be changed, and not in subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Scope")]
pub enum RecordScope {
    /// The records that one owns. Of interactions: those that one recorded, and those about a contact, a company or a deal
    /// that one sees and owns.
    Own,
    /// As `OWN`, of everybody in the teams that one leads or belongs to, and of oneself.
    Team,
    /// All records, those that nobody owns included.
    All,
}

/// Whose records a role reaches, for each kind of record.
#[derive(Debug, Clone, SimpleObject)]
pub struct RecordScopes {
    /// Whose companies.
    companies: RecordScope,
    /// Whose contacts.
    contacts: RecordScope,
    /// Whose deals, with their stage histories and what they add up to.
    deals: RecordScope,
    /// Whose interactions.
    interactions: RecordScope,
}

impl From<RoleScopes> for RecordScopes {
    fn from(scopes: RoleScopes) -> Self {
        Self {
            companies: scopes.companies.into(),
            contacts: scopes.contacts.into(),
            deals: scopes.deals.into(),
            interactions: scopes.interactions.into(),
        }
    }
}

/// Whose records a role reaches. What is left out, or null, is `ALL` for a new role, and stays as it is
/// otherwise.
#[derive(Debug, Clone, Default, InputObject)]
pub struct RecordScopesInput {
    /// Whose companies.
    companies: Option<RecordScope>,
    /// Whose contacts.
    contacts: Option<RecordScope>,
    /// Whose deals, with their stage histories and what they add up to.
    deals: Option<RecordScope>,
    /// Whose interactions.
    interactions: Option<RecordScope>,
}

impl RecordScopesInput {
    /// These scopes, where they are given, in the place of the others.
    pub(super) fn over(self, scopes: RoleScopes) -> RoleScopes {
        let or = |new: Option<RecordScope>, old| new.map_or(old, Scope::from);
        RoleScopes {
            companies: or(self.companies, scopes.companies),
            contacts: or(self.contacts, scopes.contacts),
            deals: or(self.deals, scopes.deals),
            interactions: or(self.interactions, scopes.interactions),
        }
    }
}

/// A role that your tenant has made for itself. Whoever has it may do what it permits, and nothing else.
#[Object]
impl CustomRole {
    /// The role's id, for example `role_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<CustomRole> {
        self.id
    }

    /// The role's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// What the role is for.
    async fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// What the role permits.
    #[graphql(name = "permissions")]
    async fn permitted(&self) -> Vec<Permission> {
        self.permissions().iter().collect()
    }

    /// Whose records the role reaches.
    async fn scopes(&self) -> RecordScopes {
        self.scopes.into()
    }

    /// When the role was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the role was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the role. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// The tenant's own roles at the root of the schema.
#[derive(Default)]
pub struct RoleQuery;

#[Object]
impl RoleQuery {
    /// A role of the tenant's own by its id; null when there is none.
    async fn role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the role.")] id: Id<CustomRole>,
    ) -> Option<Result<Record<CustomRole>>> {
        ctx.find::<CustomRoleById>(Permission::UsersRead, id).await
    }

    /// The roles that the tenant has made for itself, by name. The built-in ones are the values of `Role`.
    #[graphql(guard = "Can(Permission::UsersRead)")]
    async fn roles(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<CustomRole>> {
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, (ByName, OrderDirection::Asc), || {
            Ok(Predicate::default())
        })
        .await
    }
}
