//! The history: every change of a tenant, dense and in the order of commits.
//!
//! A change is recorded in the transaction that makes it ([`Work`]), readers follow it by position ([`feed`]), and
//! clients hold a [`Position`] as a cursor. Hints about new positions, in the process and between instances ([`hints`]),
//! are only ever hints: a reader that misses all of them finds the same events in PostgreSQL, a second later.

pub mod feed;
pub mod hints;
mod known;
pub mod position;
pub mod retention;
pub mod trail;
pub mod work;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::RngExt;
use uuid::Uuid;

pub use feed::Hub;
pub use hints::Redis;
pub use position::Position;
pub use retention::Retention;
pub use work::{Change, Work};

use crate::db::schema::{events, histories};
use crate::db::statement::statement;
use crate::db::{Database, directory};
use crate::error::{Error, Result};

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

/// Draws the epoch of a history that begins, or of one that does not go on where it was left.
pub fn draw_epoch() -> i64 {
    rand::rng().random_range(1..i64::MAX)
}

/// Gives the history of a tenant, or of each, a new epoch: positions of before mean nothing any more, and who comes with
/// one is told to read the data anew. For histories that may have lost events which clients have seen. Answers how many
/// there were.
///
/// # Errors
/// When the database fails; [`Error::NotFound`] when there is no such tenant.
pub async fn renew_epochs(db: &Database, tenant: Option<Uuid>) -> Result<usize> {
    let tenants = match tenant {
        Some(tenant) => vec![tenant],
        None => {
            let all = directory::histories(db).await?;
            all.into_iter().map(|history| history.tenant_id).collect()
        }
    };
    for tenant in &tenants {
        renew_epoch(db, *tenant).await?;
    }
    Ok(tenants.len())
}

async fn renew_epoch(db: &Database, tenant: Uuid) -> Result<()> {
    let tx = db.begin(tenant).await?;
    let renewed = statement("UPDATE histories SET epoch = ?")
        .bind::<BigInt, _>(draw_epoch())
        .execute(&mut tx.conn())
        .await?;
    if renewed == 0 {
        return Err(Error::NotFound("tenant"));
    }
    tx.commit().await
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
