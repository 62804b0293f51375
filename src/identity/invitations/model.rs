//! Invitations as they are kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Role;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::invitations;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::identity::{CustomRole, User};

/// A person who may become a user of the tenant. It is gone once they have, or when it is revoked.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = invitations)]
pub struct Invitation {
    pub id: Id<Invitation>,
    /// In lower case.
    pub email: String,
    pub name: Option<String>,
    pub role: Role,
    /// There when, and only when, the role is one of the tenant's own.
    pub custom_role_id: Option<Id<CustomRole>>,
    pub invited_by_id: Option<Id<User>>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl Kind for Invitation {
    const PREFIX: &'static str = "invitation";
}

/// What invitations can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum InvitationOrderField {
    /// When the person was invited.
    CreatedAt,
}

impl Stored for Invitation {
    const TABLE: &'static str = "invitations";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Invitation {
    type Order = InvitationOrderField;

    fn order_column(order: InvitationOrderField) -> SortColumn {
        match order {
            InvitationOrderField::CreatedAt => SortColumn::Time("created_at"),
        }
    }

    fn order_value(&self, order: InvitationOrderField) -> SortValue {
        match order {
            InvitationOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
        }
    }
}
