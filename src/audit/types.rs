//! The audit trail in the schema.

use async_graphql::{Context, ID, InputObject, Object};
use serde_json::Value;

use super::model::AuditEventOrderField;
use super::{AuditEvent, queries};
use crate::auth::rights::{Resource, Scope};
use crate::auth::{Permission, Rights, Viewer};
use crate::db::id::{Id, write_id};
use crate::error::Result;
use crate::events::trail::hex;
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::detail;
use crate::graphql::filter::{DateTimeFilter, IdFilter, StringFilter};
use crate::graphql::scalar::{DateTime, Json};
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// Something that somebody did, or tried to do: an entry of the tenant's audit trail. Entries are never changed or removed,
/// and each is chained to the one before by a hash, so that it would show if one were.
#[Object]
impl AuditEvent {
    /// The entry's id.
    async fn id(&self) -> Id<AuditEvent> {
        self.id
    }

    /// The entry's place in the tenant's chain: a whole number from 1, without gaps.
    async fn sequence(&self) -> String {
        self.sequence.to_string()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        self.occurred_at.into()
    }

    /// What acted: `USER`, `API_KEY` for a program that acted for a user, or `SYSTEM` for what Dealstream does by itself.
    async fn actor_kind(&self) -> &str {
        &self.actor_kind
    }

    /// The user who acted, or for whom a program did; null when there was none, or when they have been removed since.
    async fn actor(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.actor_id).await
    }

    /// The id of who acted, also when they have been removed since.
    async fn actor_id(&self) -> Option<Id<User>> {
        self.actor_id
    }

    /// The kind of record that it is about, as ids begin with, for example `deal` or `session`.
    async fn entity(&self) -> &str {
        &self.entity
    }

    /// The id of the record that it is about.
    async fn record_id(&self) -> ID {
        ID(write_id(&self.entity, self.record_id))
    }

    /// What happened, for example `CREATED`, `UPDATED`, `STAGE_CHANGED` or `SIGNED_OUT`.
    async fn kind(&self) -> &str {
        &self.kind
    }

    /// What it was about: for an update the changed fields `before` and `after`, for what was added or deleted the record.
    /// Long texts are represented by their length and SHA-256; secrets are never in it. Null for who may not read records
    /// of this kind, or only some of them; contact details are masked as in the record.
    async fn detail(&self, ctx: &Context<'_>) -> Result<Option<Json>> {
        let viewer = ctx.viewer()?;
        if !may_read(&viewer.rights, &self.entity) {
            return Ok(None);
        }
        let mut detail: Value = serde_json::from_str(&self.detail).unwrap_or_default();
        mask(viewer, &self.entity, &mut detail);
        Ok(Some(Json(detail)))
    }

    /// The address that the request came from.
    async fn ip(&self) -> Option<&str> {
        self.ip.as_deref()
    }

    /// What the client called itself.
    async fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }

    /// The id of the request, as in its answer and in the server's log.
    async fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The hash of the entry before, in hexadecimal digits; zeros for the first.
    async fn previous_hash(&self) -> String {
        hex(&self.previous_hash)
    }

    /// SHA-256 over the hash before, the place in the chain and all that the entry tells, in hexadecimal digits.
    async fn hash(&self) -> String {
        hex(&self.hash)
    }
}

/// Whether what is told of records of a kind may be read: all of them, because old values are of times when a record
/// belonged to somebody else. What is no record, such as a session, is told to every auditor.
fn may_read(rights: &Rights, entity: &str) -> bool {
    let (permission, resource) = match entity {
        "company" => (Permission::CompaniesRead, Some(Resource::Companies)),
        "contact" => (Permission::ContactsRead, Some(Resource::Contacts)),
        "deal" | "stage_change" => (Permission::DealsRead, Some(Resource::Deals)),
        "interaction" => (Permission::InteractionsRead, Some(Resource::Interactions)),
        "pipeline" | "stage" => (Permission::PipelinesRead, None),
        "user" | "role" | "team" | "invitation" => (Permission::UsersRead, None),
        _ => return true,
    };
    let all = resource.is_none_or(|resource| rights.reach().of(resource) == Scope::All);
    all && rights.permits(permission)
}

/// Masks contact details at every depth: an update has them before and after.
fn mask(viewer: &Viewer, entity: &str, detail: &mut Value) {
    if let Value::Object(fields) = detail {
        for (name, value) in fields {
            mask(viewer, entity, value);
            *value = detail::value(Some(viewer), entity, name, value.take());
        }
    }
}

/// Which entries of the audit trail to list. All conditions must hold. One that is null is none, as if left out.
#[derive(Debug, Clone, Default, InputObject)]
pub struct AuditEventFilter {
    /// By the user who acted.
    pub actor_id: Option<IdFilter<User>>,
    /// By the kind of record, as ids begin with, for example `deal`.
    pub entity: Option<StringFilter>,
    /// About this record of any kind, whether it is still there or not.
    pub record_id: Option<ID>,
    /// By what happened, for example `DELETED`.
    pub kind: Option<StringFilter>,
    /// By when it happened.
    pub occurred_at: Option<DateTimeFilter>,
    /// By the address that the request came from.
    pub ip: Option<StringFilter>,
    /// By the id of the request.
    pub request_id: Option<StringFilter>,
    /// All of these hold too.
    pub and: Option<Vec<AuditEventFilter>>,
    /// At least one of these holds too.
    pub or: Option<Vec<AuditEventFilter>>,
    /// This does not hold.
    pub not: Option<Box<AuditEventFilter>>,
}

/// How to sort entries of the audit trail.
#[derive(Debug, Clone, InputObject)]
pub struct AuditEventOrder {
    /// What to sort by.
    field: AuditEventOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// The audit trail at the root of the schema.
#[derive(Default)]
pub struct AuditQuery;

#[Object]
impl AuditQuery {
    /// The tenant's audit trail, latest first unless ordered otherwise: every change and every event that concerns
    /// security, with who, when and from where. What was changed is told as far as you may read such records.
    #[graphql(guard = "Can(Permission::AuditRead)")]
    #[expect(clippy::too_many_arguments, reason = "the schema's arguments")]
    async fn audit_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which entries to list; all of them when left out.")] filter: Option<
            Box<AuditEventFilter>,
        >,
        #[graphql(desc = "How to sort them.")] order_by: Option<AuditEventOrder>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<AuditEvent>> {
        let latest = (AuditEventOrderField::OccurredAt, OrderDirection::Desc);
        let order = order_by.map_or(latest, |by| (by.field, by.direction));
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, order, || {
            queries::matching(filter.as_deref().cloned().unwrap_or_default())
        })
        .await
    }
}
