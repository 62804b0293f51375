//! What subscriptions tell of a change of a record: the events of the history, as clients read them.

use async_graphql::{Context, Enum, Object, SimpleObject};
use serde_json::Value;

use super::reach::Belongs;
use super::scalar::{DateTime, Json};
use super::stream::{self, Frames, MustRefetch, UpToDate};
use super::{ContextExt, Session, detail};
use crate::auth::Permission;
use crate::db::id::{Id, Kind};
use crate::error::Result;
use crate::events::{Event, Position};

const DELETED: &str = "DELETED";

/// A record whose changes can be followed.
pub trait Followed: Kind {
    /// Who may follow it: whoever may read it.
    const READ: Permission;

    /// The fields whose values a change tells, by their names in the inputs.
    const FIELDS: &'static [&'static str];

    /// To whom records of this kind belong, when they belong to somebody: then not everybody need see all of them.
    const BELONGS: Option<Belongs> = None;

    /// The value of a field in the record as the history keeps it, written as an input would have it.
    fn value(record: &Value, field: &str) -> Value {
        kept(record, field)
    }

    /// What an event changed, field by field.
    fn changes(event: &Event) -> Vec<FieldChange> {
        of_fields::<Self>(event)
    }
}

/// What the history keeps under the name that a field has in Rust.
pub fn kept(record: &Value, field: &str) -> Value {
    let mut name = String::with_capacity(field.len() + 2);
    for letter in field.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    record[name].clone()
}

/// What [`Followed::changes`] tells unless an entity knows better: the new values are the record's, and so are the old
/// ones of a deletion; those of an update were kept with it.
pub fn of_fields<T: Followed + ?Sized>(event: &Event) -> Vec<FieldChange> {
    let record = &event.change;
    let change = |field: &&'static str| {
        let (from, to) = match event.kind.as_str() {
            "CREATED" => (Value::Null, T::value(record, field)),
            DELETED => (T::value(record, field), Value::Null),
            _ => (old(record, field)?, T::value(record, field)),
        };
        (from != to).then(|| FieldChange::new(field, from, to))
    };
    T::FIELDS.iter().filter_map(change).collect()
}

/// The value that an update replaced.
pub(super) fn old(record: &Value, field: &str) -> Option<Value> {
    let text = record["before"][field].as_str()?;
    serde_json::from_str(text).ok()
}

/// What was done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum ChangeKind {
    /// It was added.
    Created,
    /// Some of its fields have other values now.
    Updated,
    /// A deal has moved to another stage.
    StageChanged,
    /// An interaction that was still to come is done.
    Completed,
}

/// A field of a record with its value before and after a change.
#[derive(Debug, Clone, SimpleObject)]
pub struct FieldChange {
    /// The field, by its name in the input that sets it, for example `amount`.
    field: &'static str,
    /// The value before, as an input would have it: `"Fleet renewal"`, `{"amount": "1250.00", "currencyCode": "EUR"}`,
    /// or the id of a record that is referred to. Null when there was none.
    from: Option<Json>,
    /// The value after. Null when there is none any more.
    to: Option<Json>,
}

impl FieldChange {
    /// A field with its values; null stands for none.
    pub fn new(field: &'static str, from: Value, to: Value) -> Self {
        let some = |value: Value| (!value.is_null()).then_some(Json(value));
        Self {
            field,
            from: some(from),
            to: some(to),
        }
    }
}

/// A change of a record at its place in the history. Its fields are part of every event.
#[derive(Debug, Clone)]
pub struct Change {
    position: Position,
    event: Event,
    changes: fn(&Event) -> Vec<FieldChange>,
}

/// A change of a record at its place in the history.
#[Object]
impl Change {
    /// The position of this change in the tenant's history. Pass it as `after` to go on from here.
    async fn position(&self) -> String {
        self.position.to_string()
    }

    /// The fields that were changed, with their old and new values, contact details masked as in the record: all that were given for a new record, and the last
    /// ones of a deleted record.
    async fn changes(&self, ctx: &Context<'_>) -> Vec<FieldChange> {
        let viewer = ctx.viewer().ok();
        let shown = |json: Option<Json>, field| {
            json.map(|json| Json(detail::value(viewer, &self.event.entity, field, json.0)))
        };
        let masked = |change: FieldChange| FieldChange {
            from: shown(change.from, change.field),
            to: shown(change.to, change.field),
            ..change
        };
        (self.changes)(&self.event).into_iter().map(masked).collect()
    }

    /// When the change was made.
    async fn occurred_at(&self) -> DateTime {
        self.event.occurred_at.into()
    }
}

impl Change {
    /// The change that an event of a record of this kind tells of.
    pub fn new<T: Followed>(position: Position, event: &Event) -> Self {
        Self {
            position,
            event: event.clone(),
            changes: T::changes,
        }
    }

    /// What was done. A deletion is an event of its own.
    pub fn kind(&self) -> ChangeKind {
        match self.event.kind.as_str() {
            "CREATED" => ChangeKind::Created,
            "STAGE_CHANGED" => ChangeKind::StageChanged,
            "COMPLETED" => ChangeKind::Completed,
            // A kind that only a later release knows changes the record all the same.
            _ => ChangeKind::Updated,
        }
    }

    /// Whether the record was deleted.
    pub fn is_deletion(&self) -> bool {
        self.event.kind == DELETED
    }

    /// The id of the record.
    pub fn id<T>(&self) -> Id<T> {
        Id::from_uuid(self.event.record_id)
    }

    /// The id of the user who made the change.
    pub fn actor<T>(&self) -> Option<Id<T>> {
        self.event.actor_id.map(Id::from_uuid)
    }
}

/// Whether an event is of a kind of record that the viewer may read, and of a record within their reach: with the rights of this moment, asked anew for
/// every event.
pub fn is_visible<T: Followed>(session: &Session, event: &Event) -> bool {
    event.entity == T::PREFIX
        && session
            .viewer()
            .and_then(|viewer| viewer.require(T::READ))
            .is_ok()
        && T::BELONGS.is_none_or(|belongs| session.reaches(event, belongs))
}

/// Whether an event is of this record, or no record was asked for.
pub fn is_of<T>(event: &Event, id: Option<Id<T>>) -> bool {
    id.is_none_or(|id| id.uuid() == event.record_id)
}

/// Whether the record of an event refers by this field to another record, or did so until the event: who watches a list
/// must learn of what leaves it. Whether there is anything to ask for, otherwise.
pub fn refers_to<T: Kind>(event: &Event, field: &str, id: Option<Id<T>>) -> bool {
    let Some(id) = id else { return true };
    let is_it = |value: Value| value.as_str().is_some_and(|text| text.parse() == Ok(id));
    is_it(kept(&event.change, field)) || old(&event.change, field).is_some_and(is_it)
}

/// The frames of a subscription to records of one kind: what `read` makes of the events that the viewer may see.
/// `read` depends on nothing but the event: it may be asked once for many subscribers.
///
/// # Errors
/// As [`stream::frames`].
pub fn follow<T, F>(
    ctx: &Context<'_>,
    after: Option<&str>,
    read: impl Fn(Position, &Event) -> Option<F> + Send + 'static,
) -> Result<Frames<F>>
where
    T: Followed,
    F: From<UpToDate> + From<MustRefetch> + Send + 'static,
{
    let session = ctx.session().clone();
    stream::frames(ctx, after, move |position, event| {
        is_visible::<T>(&session, event)
            .then(|| read(position, event))
            .flatten()
    })
}
