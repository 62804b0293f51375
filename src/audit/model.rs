//! An entry of the trail as it is kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::audit_entries;
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::events::trail::{Entry, Hash, link};
use crate::identity::User;

/// An entry of the audit trail.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = audit_entries)]
pub struct AuditEvent {
    pub id: Id<AuditEvent>,
    pub sequence: i64,
    pub occurred_at: DateTime<Utc>,
    pub actor_kind: String,
    pub actor_id: Option<Id<User>>,
    pub entity: String,
    pub record_id: Uuid,
    pub kind: String,
    pub detail: String,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub previous_hash: Vec<u8>,
    pub hash: Vec<u8>,
}

impl Kind for AuditEvent {
    const PREFIX: &'static str = "audit_event";
}

impl AuditEvent {
    /// The digest of what it tells.
    pub fn digest(&self, tenant: Uuid) -> Hash {
        let entry = Entry {
            id: self.id.uuid(),
            occurred_at: self.occurred_at,
            actor_kind: &self.actor_kind,
            actor_id: self.actor_id.map(Id::uuid),
            entity: &self.entity,
            record_id: self.record_id,
            kind: &self.kind,
            detail: &self.detail,
            ip: self.ip.as_deref(),
            user_agent: self.user_agent.as_deref(),
            request_id: self.request_id.as_deref(),
        };
        entry.digest(tenant)
    }

    /// Whether its hash is the one of this very entry at a place, after the one it says it follows.
    pub fn belongs_at(&self, sequence: i64, digest: &Hash) -> bool {
        link(&self.previous_hash, sequence, digest).as_slice() == self.hash
    }
}

/// What entries can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum AuditEventOrderField {
    /// When it happened.
    OccurredAt,
}

impl Stored for AuditEvent {
    const TABLE: &'static str = "audit_entries";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for AuditEvent {
    type Order = AuditEventOrderField;

    fn order_column(_: AuditEventOrderField) -> SortColumn {
        SortColumn::Time("occurred_at")
    }

    fn order_value(&self, _: AuditEventOrderField) -> SortValue {
        SortValue::Time(self.occurred_at.timestamp_micros())
    }
}
