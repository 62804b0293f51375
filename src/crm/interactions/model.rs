//! An interaction as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::deals::Deal;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::reach::Resource;
use crate::db::schema::interactions;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::db::text_enum::text_enum;
use crate::graphql::change::Followed;
use crate::graphql::reach::{ABOUT, Belongs};
use crate::identity::User;

/// Something that happened, or is planned, between the tenant's people and theirs. It belongs to a contact, a company or
/// a deal, or to several of them.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = interactions)]
pub struct Interaction {
    pub id: Id<Interaction>,
    pub kind: InteractionKind,
    pub direction: Option<InteractionDirection>,
    pub channel: Option<String>,
    pub subject: String,
    pub content: Option<String>,
    pub outcome: Option<String>,
    pub next_action: Option<String>,
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When it happened; while it is only planned, the planned time.
    pub occurred_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
    pub contact_id: Option<Id<Contact>>,
    pub company_id: Option<Id<Company>>,
    pub deal_id: Option<Id<Deal>>,
    pub created_by_id: Option<Id<User>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

impl Interaction {
    /// Whether it is only planned: not completed, and no other time is known than the planned one.
    pub(super) fn is_planned(&self) -> bool {
        self.completed_at.is_none() && self.scheduled_at == Some(self.occurred_at)
    }

    /// Whether it belongs to a contact, a company or a deal, as each must.
    pub(super) fn is_about_something(&self) -> bool {
        self.contact_id.is_some() || self.company_id.is_some() || self.deal_id.is_some()
    }
}

text_enum! {
    /// What sort of interaction it is.
    #[derive(async_graphql::Enum)]
    pub enum InteractionKind {
        /// A telephone or video call.
        Call = "CALL",
        /// An e-mail.
        Email = "EMAIL",
        /// A meeting, in person or online.
        Meeting = "MEETING",
        /// A conversation in a messenger.
        Chat = "CHAT",
        /// A note of one's own, for the record.
        Note = "NOTE",
    }
}

text_enum! {
    /// Who began an interaction.
    #[derive(async_graphql::Enum)]
    pub enum InteractionDirection {
        /// They came to us.
        Inbound = "INBOUND",
        /// We went to them.
        Outbound = "OUTBOUND",
    }
}

impl Kind for Interaction {
    const PREFIX: &'static str = "interaction";
}

impl Followed for Interaction {
    const READ: Permission = Permission::InteractionsRead;
    const BELONGS: Option<Belongs> = Some(Belongs {
        resource: Resource::Interactions,
        owner: "createdById",
        about: ABOUT,
    });
    const FIELDS: &'static [&'static str] = &[
        "kind",
        "direction",
        "channel",
        "subject",
        "content",
        "outcome",
        "nextAction",
        "scheduledAt",
        "occurredAt",
        "completedAt",
        "contactId",
        "companyId",
        "dealId",
    ];
}

/// What interactions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum InteractionOrderField {
    /// When the interaction happened or, while it is only planned, the planned time.
    OccurredAt,
    /// When the interaction was added.
    CreatedAt,
}

impl Stored for Interaction {
    const TABLE: &'static str = "interactions";
    const OPTIONAL: &'static [&'static [&'static str]] = &[
        &["contact_id", "company_id", "deal_id", "created_by_id"],
        &["content"],
        &[
            "direction",
            "channel",
            "outcome",
            "next_action",
            "scheduled_at",
            "completed_at",
        ],
    ];

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Interaction {
    type Order = InteractionOrderField;

    fn order_column(order: InteractionOrderField) -> SortColumn {
        match order {
            InteractionOrderField::OccurredAt => SortColumn::Time("occurred_at"),
            InteractionOrderField::CreatedAt => SortColumn::Time("created_at"),
        }
    }

    fn order_value(&self, order: InteractionOrderField) -> SortValue {
        match order {
            InteractionOrderField::OccurredAt => SortValue::Time(self.occurred_at.timestamp_micros()),
            InteractionOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
        }
    }
}
