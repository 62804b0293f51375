//! Tenants and users as they are kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::roles::CustomRole;
use super::sessions::Ticket;
use crate::auth::{Permission, Rights, Role};
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::{tenants, users};
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::events::Position;
use crate::graphql::change::Followed;
use crate::graphql::scalar::CurrencyCode;

/// An organisation that has signed up. Nothing of it is seen by another.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = tenants)]
pub struct Tenant {
    pub id: Id<Tenant>,
    pub name: String,
    pub currency_code: CurrencyCode,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
    /// By its name in the IANA time zone database.
    pub time_zone: String,
    pub min_password_length: i32,
    /// Whether one needs a second factor to get in.
    #[serde(default)]
    pub mfa_required: bool,
    pub session_days: i32,
    pub idle_minutes: i32,
}

/// A person in a tenant. The account they sign in with, which may be in other tenants too, is nobody's business here.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = users)]
pub struct User {
    pub id: Id<User>,
    pub name: String,
    /// In lower case.
    pub email: String,
    pub role: Role,
    /// There when, and only when, the role is one of the tenant's own.
    pub custom_role_id: Option<Id<CustomRole>>,
    pub is_active: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

impl Kind for Tenant {
    const PREFIX: &'static str = "tenant";
}

impl Kind for User {
    const PREFIX: &'static str = "user";
}

/// Who has proved to be a user of a tenant, and has a session there.
pub struct SignedIn {
    pub tenant: Tenant,
    pub user: User,
    pub rights: Rights,
    /// What the session gives them.
    pub ticket: Ticket,
    /// Where the tenant's history stands, when it was changed for this.
    pub position: Option<Position>,
}

impl Followed for Tenant {
    const READ: Permission = Permission::TenantRead;
    const FIELDS: &'static [&'static str] = &[
        "name",
        "currencyCode",
        "timeZone",
        "minPasswordLength",
        "mfaRequired",
        "sessionDays",
        "idleMinutes",
    ];
}

impl Followed for User {
    const READ: Permission = Permission::UsersRead;
    const FIELDS: &'static [&'static str] = &["name", "email", "role", "customRoleId", "isActive"];
}

/// What users can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum UserOrderField {
    /// When the user joined the tenant.
    CreatedAt,
    /// The name.
    Name,
}

impl Stored for Tenant {
    const TABLE: &'static str = "tenants";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Stored for User {
    const TABLE: &'static str = "users";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for User {
    type Order = UserOrderField;

    fn order_column(order: UserOrderField) -> SortColumn {
        match order {
            UserOrderField::CreatedAt => SortColumn::Time("created_at"),
            UserOrderField::Name => SortColumn::Text("name"),
        }
    }

    fn order_value(&self, order: UserOrderField) -> SortValue {
        match order {
            UserOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
            UserOrderField::Name => SortValue::Text(self.name.clone()),
        }
    }
}
