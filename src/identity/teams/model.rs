//! A team as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Permission;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::{team_members, teams};
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::graphql::change::Followed;
use crate::identity::User;

/// A group of the tenant's users.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = teams)]
pub struct Team {
    pub id: Id<Team>,
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// A user's place in a team. The history shows it to clients, so its fields are written as they know them.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = team_members)]
#[serde(rename_all = "camelCase")]
pub struct TeamMember {
    pub user_id: Id<User>,
    pub is_lead: bool,
}

/// What the history keeps of a team.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    pub team: Team,
    /// In the order of the users' ids.
    pub members: Vec<TeamMember>,
}

impl Kind for Team {
    const PREFIX: &'static str = "team";
}

impl Followed for Team {
    const READ: Permission = Permission::UsersRead;
    const FIELDS: &'static [&'static str] = &["name", "members"];
}

/// The one order of teams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByName;

impl Stored for Team {
    const TABLE: &'static str = "teams";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Team {
    type Order = ByName;

    fn order_column(_: ByName) -> SortColumn {
        SortColumn::Text("name")
    }

    fn order_value(&self, _: ByName) -> SortValue {
        SortValue::Text(self.name.clone())
    }
}
