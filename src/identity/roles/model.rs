//! A tenant's own role as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::{Permission, Permissions, Reach, Resource, Rights, Role, Scope};
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::custom_roles;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::graphql::change::Followed;

/// A role that a tenant has made for itself.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = custom_roles)]
pub struct CustomRole {
    pub id: Id<CustomRole>,
    pub name: String,
    pub description: Option<String>,
    /// Names of permissions. Those that this release does not know grant nothing.
    pub permissions: Vec<String>,
    #[diesel(embed)]
    pub scopes: RoleScopes,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// Whose records a role reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = custom_roles)]
pub struct RoleScopes {
    #[diesel(column_name = companies_scope)]
    pub companies: Scope,
    #[diesel(column_name = contacts_scope)]
    pub contacts: Scope,
    #[diesel(column_name = deals_scope)]
    pub deals: Scope,
    #[diesel(column_name = interactions_scope)]
    pub interactions: Scope,
}

impl RoleScopes {
    /// As rights have it.
    pub fn reach(self) -> Reach {
        Reach::ALL
            .with(Resource::Companies, self.companies)
            .with(Resource::Contacts, self.contacts)
            .with(Resource::Deals, self.deals)
            .with(Resource::Interactions, self.interactions)
    }
}

impl From<Reach> for RoleScopes {
    fn from(reach: Reach) -> Self {
        Self {
            companies: reach.of(Resource::Companies),
            contacts: reach.of(Resource::Contacts),
            deals: reach.of(Resource::Deals),
            interactions: reach.of(Resource::Interactions),
        }
    }
}

impl CustomRole {
    /// The permissions that this release knows.
    pub fn permissions(&self) -> Permissions {
        self.permissions
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// What whoever has this role may do.
    pub fn rights(&self) -> Rights {
        let (permissions, reach) = (self.permissions(), self.scopes.reach());
        Rights::custom(Role::Custom, Some(self.id.uuid()), permissions, reach)
    }
}

impl Kind for CustomRole {
    const PREFIX: &'static str = "role";
}

impl Followed for CustomRole {
    const READ: Permission = Permission::UsersRead;
    const FIELDS: &'static [&'static str] = &["name", "description", "permissions", "scopes"];
}

/// The one order of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByName;

impl Stored for CustomRole {
    const TABLE: &'static str = "custom_roles";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for CustomRole {
    type Order = ByName;

    fn order_column(_: ByName) -> SortColumn {
        SortColumn::Text("name")
    }

    fn order_value(&self, _: ByName) -> SortValue {
        SortValue::Text(self.name.clone())
    }
}
