//! The history: every change of a tenant, dense and in the order of commits.
//!
//! A change is recorded in the transaction that makes it ([`Work`]), readers follow it by position ([`feed`]), and
//! clients hold a [`Position`] as a cursor. Hints about new positions, in the process and between instances ([`hints`]),
//! are only ever hints: a reader that misses all of them finds the same events in PostgreSQL, a second later.

pub mod feed;
pub mod hints;
mod known;
pub mod position;
pub mod work;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

pub use feed::Hub;
pub use hints::Redis;
pub use position::Position;
pub use work::{Change, Work};

use crate::db::schema::{events, histories};
use crate::error::Result;

/// A change as the history has it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = events)]
pub struct Event {
    pub position: i64,
    pub id: Uuid,
    pub occurred_at: DateTime<Utc>,
    /// The user who made the change.
    pub actor_id: Option<Uuid>,
    /// The kind of record, as in the prefix of its ids.
    pub entity: String,
    pub record_id: Uuid,
    /// What happened to it, for example `CREATED` or `STAGE_CHANGED`.
    pub kind: String,
    pub change: serde_json::Value,
}

/// Where a tenant's history stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = histories)]
pub struct Standing {
    /// Changes when history is rewritten, as by restoring a backup; positions of another epoch mean nothing.
    pub epoch: i64,
    /// Position of the newest event.
    pub position: i64,
    /// Events up to this position are no longer kept.
    pub trimmed: i64,
}

/// Reads where the tenant's history stands.
///
/// # Errors
/// When the database fails.
pub async fn standing(conn: &AsyncPgConnection) -> Result<Standing> {
    Ok(histories::table
        .select(Standing::as_select())
        .first(&mut &*conn)
        .await?)
}

/// Reads at most `limit` events after a position, in order.
///
/// # Errors
/// When the database fails.
pub async fn read(conn: &AsyncPgConnection, after: i64, limit: i64) -> Result<Vec<Event>> {
    let found = events::table
        .filter(events::position.gt(after))
        .order(events::position)
        .limit(limit)
        .select(Event::as_select())
        .load(&mut &*conn)
        .await?;
    Ok(found)
}
