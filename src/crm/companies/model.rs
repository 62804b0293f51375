//! A company as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Permission;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::reach::Resource;
use crate::db::schema::companies;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::graphql::change::Followed;
use crate::graphql::detail::Detail;
use crate::graphql::reach::Belongs;
use crate::identity::User;

/// A business in the CRM.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = companies)]
pub struct Company {
    pub id: Id<Company>,
    pub name: String,
    pub domain: Option<String>,
    pub industry: Option<String>,
    pub email: Option<Detail>,
    pub phone: Option<Detail>,
    pub address: Option<PostalAddress>,
    pub owner_id: Option<Id<User>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// Where letters go. The history shows it to clients, so its fields are written as they know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, diesel::AsExpression, diesel::FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(rename_all = "camelCase")]
pub struct PostalAddress {
    pub street: Option<String>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    /// Two letters of ISO 3166.
    pub country_code: Option<String>,
}

impl diesel::deserialize::FromSql<diesel::sql_types::Jsonb, diesel::pg::Pg> for PostalAddress {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
        let json: serde_json::Value =
            diesel::deserialize::FromSql::<diesel::sql_types::Jsonb, _>::from_sql(bytes)?;
        Ok(serde_json::from_value(json)?)
    }
}

impl diesel::serialize::ToSql<diesel::sql_types::Jsonb, diesel::pg::Pg> for PostalAddress {
    fn to_sql<'b>(
        &'b self,
        out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>,
    ) -> diesel::serialize::Result {
        let json = serde_json::to_value(self)?;
        diesel::serialize::ToSql::<diesel::sql_types::Jsonb, diesel::pg::Pg>::to_sql(
            &json,
            &mut out.reborrow(),
        )
    }
}

impl Kind for Company {
    const PREFIX: &'static str = "company";
}

impl Followed for Company {
    const READ: Permission = Permission::CompaniesRead;
    const BELONGS: Option<Belongs> = Some(Belongs {
        resource: Resource::Companies,
        owner: "ownerId",
        about: &[],
    });
    const FIELDS: &'static [&'static str] = &[
        "name", "domain", "industry", "email", "phone", "address", "ownerId",
    ];
}

/// What companies can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum CompanyOrderField {
    /// When the company was added.
    CreatedAt,
    /// When the company was last changed.
    UpdatedAt,
    /// The name.
    Name,
}

impl Stored for Company {
    const TABLE: &'static str = "companies";
    const OPTIONAL: &'static [&'static [&'static str]] = &[
        &["domain", "industry", "owner_id"],
        &["email", "phone"],
        &["address"],
    ];

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Company {
    type Order = CompanyOrderField;

    fn order_column(order: CompanyOrderField) -> SortColumn {
        match order {
            CompanyOrderField::CreatedAt => SortColumn::Time("created_at"),
            CompanyOrderField::UpdatedAt => SortColumn::Time("updated_at"),
            CompanyOrderField::Name => SortColumn::Text("name"),
        }
    }

    fn order_value(&self, order: CompanyOrderField) -> SortValue {
        match order {
            CompanyOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
            CompanyOrderField::UpdatedAt => SortValue::Time(self.updated_at.timestamp_micros()),
            CompanyOrderField::Name => SortValue::Text(self.name.clone()),
        }
    }
}
