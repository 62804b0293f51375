//! A contact as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::reach::Resource;
use crate::db::schema::contacts;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::db::text_enum::text_enum;
use crate::graphql::change::Followed;
use crate::graphql::detail::Detail;
use crate::graphql::reach::Belongs;
use crate::identity::User;

/// A person in the CRM.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = contacts)]
pub struct Contact {
    pub id: Id<Contact>,
    pub name: String,
    pub email: Option<Detail>,
    pub phone: Option<Detail>,
    pub job_title: Option<String>,
    pub company_id: Option<Id<Company>>,
    pub lifecycle_stage: LifecycleStage,
    pub record_status: RecordStatus,
    pub source: Option<String>,
    /// Within [`RATING`].
    pub rating: Option<i32>,
    pub notes: Option<String>,
    pub owner_id: Option<Id<User>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// What a rating can be.
pub(super) const RATING: std::ops::RangeInclusive<i32> = 0..=5;

text_enum! {
    /// How far a person has come on the way to being a customer.
    #[derive(async_graphql::Enum)]
    pub enum LifecycleStage {
        /// May become interested.
        Lead = "LEAD",
        /// Is interested.
        Prospect = "PROSPECT",
        /// Has bought.
        Customer = "CUSTOMER",
        /// Will not buy, or not again.
        Closed = "CLOSED",
    }
}

text_enum! {
    /// Whether a contact is still worked with.
    #[derive(async_graphql::Enum)]
    pub enum RecordStatus {
        /// The contact is worked with.
        Active = "ACTIVE",
        /// The contact rests for the time being.
        Inactive = "INACTIVE",
        /// The contact is kept for the record only.
        Archived = "ARCHIVED",
    }
}

impl Kind for Contact {
    const PREFIX: &'static str = "contact";
}

impl Followed for Contact {
    const READ: Permission = Permission::ContactsRead;
    const BELONGS: Option<Belongs> = Some(Belongs {
        resource: Resource::Contacts,
        owner: "ownerId",
        about: &[],
    });
    const FIELDS: &'static [&'static str] = &[
        "name",
        "email",
        "phone",
        "jobTitle",
        "companyId",
        "lifecycleStage",
        "recordStatus",
        "source",
        "rating",
        "notes",
        "ownerId",
    ];
}

/// What contacts can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum ContactOrderField {
    /// When the contact was added.
    CreatedAt,
    /// When the contact was last changed.
    UpdatedAt,
    /// The name.
    Name,
}

impl Stored for Contact {
    const TABLE: &'static str = "contacts";
    const OPTIONAL: &'static [&'static [&'static str]] = &[
        &["email", "phone", "job_title"],
        &["company_id"],
        &["source", "rating", "notes", "owner_id"],
    ];

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Contact {
    type Order = ContactOrderField;

    fn order_column(order: ContactOrderField) -> SortColumn {
        match order {
            ContactOrderField::CreatedAt => SortColumn::Time("created_at"),
            ContactOrderField::UpdatedAt => SortColumn::Time("updated_at"),
            ContactOrderField::Name => SortColumn::Text("name"),
        }
    }

    fn order_value(&self, order: ContactOrderField) -> SortValue {
        match order {
            ContactOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
            ContactOrderField::UpdatedAt => SortValue::Time(self.updated_at.timestamp_micros()),
            ContactOrderField::Name => SortValue::Text(self.name.clone()),
        }
    }
}
