//! How long the history is kept, and forgetting what is older.
//!
//! Every instance makes rounds. A round looks at each tenant for what is due, and forgets it in small transactions of
//! that tenant, one at a time among all instances: who finds another at it leaves the rest to that one. Followers who
//! come from before what is left are told so. What must outlive the history, as the stage changes of deals, is not in it.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::work::now;
use crate::db::Database;
use crate::db::directory;
use crate::db::schema::{events, idempotency_keys};
use crate::db::statement::statement;
use crate::error::Result;

/// How long what was answered under an idempotency key is remembered; the schema tells it.
const KEYS_KEPT: TimeDelta = TimeDelta::days(7);
/// Events, or keys, that one transaction forgets at most.
const BATCH: i64 = 1000;
/// Key of the advisory lock of whoever forgets: "keep" in ASCII.
const LOCK: i64 = 0x6b65_6570;

/// How much of each tenant's history is kept: what both allow.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub age: TimeDelta,
    pub events: i64,
}

/// What is known of when a tenant's oldest things are due.
#[derive(Default)]
pub struct Rounds {
    due: HashMap<Uuid, DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    taken: bool,
}

/// The events that go come before the first that stays, so that the history stays dense.
const FORGET_EVENTS: &str = "
    WITH oldest AS (
        SELECT position, occurred_at FROM events ORDER BY position LIMIT ?
    ), upto AS (
        SELECT coalesce(min(oldest.position) FILTER (
                            WHERE oldest.occurred_at >= ? AND oldest.position > histories.position - ?) - 1,
                        max(oldest.position)) AS position
          FROM oldest, histories
    ), gone AS (
        DELETE FROM events USING upto WHERE events.position <= upto.position RETURNING events.position
    )
    SELECT count(*) AS count, max(position) AS position FROM gone";

#[derive(QueryableByName)]
struct Gone {
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
}

/// The last statement of its transaction, because it locks the counter that every change of the tenant needs.
const RAISE: &str = "UPDATE histories SET trimmed = greatest(trimmed, ?)";

const FORGET_KEYS: &str = "
    DELETE FROM idempotency_keys
     WHERE (actor_id, key) IN (
         SELECT actor_id, key FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)";

impl Rounds {
    /// Makes rounds until `shutdown`, each so long after the one before.
    pub async fn go(
        mut self,
        db: Database,
        retention: Retention,
        every: Duration,
        shutdown: CancellationToken,
    ) {
        let mut failing = false;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            match self.round(&db, retention, now()).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(?error, "old history cannot be forgotten; trying on");
                    }
                }
            }
        }
    }

    /// Looks once at every tenant, and forgets what is too old or too much at this moment.
    ///
    /// # Errors
    /// When the database fails; what has been forgotten by then stays so.
    pub async fn round(&mut self, db: &Database, retention: Retention, now: DateTime<Utc>) -> Result<()> {
        let tenants = directory::histories(db).await?;
        self.due.retain(|tenant, _| {
            tenants
                .binary_search_by_key(tenant, |kept| kept.tenant_id)
                .is_ok()
        });
        for kept in tenants {
            let is_due = self.due.get(&kept.tenant_id).is_none_or(|due| *due <= now);
            if !is_due && kept.events <= retention.events {
                continue;
            }
            match forget(db, kept.tenant_id, retention, now).await? {
                Some(due) => self.due.insert(kept.tenant_id, due),
                None => return Ok(()),
            };
        }
        Ok(())
    }
}

/// Forgets what a tenant need not keep, and answers when there will be more; nothing when another instance is at it.
async fn forget(
    db: &Database,
    tenant: Uuid,
    retention: Retention,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    let (oldest_event, oldest_key) = (now - retention.age, now - KEYS_KEPT);
    loop {
        let tx = db.begin(tenant).await?;
        let mut conn = tx.conn();
        let lock: Taken = statement("SELECT pg_try_advisory_xact_lock(?) AS taken")
            .bind::<BigInt, _>(LOCK)
            .get_result(&mut conn)
            .await?;
        if !lock.taken {
            return Ok(None);
        }
        let keys = statement(FORGET_KEYS)
            .bind::<Timestamptz, _>(oldest_key)
            .bind::<BigInt, _>(BATCH)
            .execute(&mut conn)
            .await?;
        let gone: Gone = statement(FORGET_EVENTS)
            .bind::<BigInt, _>(BATCH)
            .bind::<Timestamptz, _>(oldest_event)
            .bind::<BigInt, _>(retention.events)
            .get_result(&mut conn)
            .await?;
        let event: Option<DateTime<Utc>> = events::table
            .order(events::position)
            .select(events::occurred_at)
            .first(&mut conn)
            .await
            .optional()?;
        let key: Option<DateTime<Utc>> = idempotency_keys::table
            .order(idempotency_keys::created_at)
            .select(idempotency_keys::created_at)
            .first(&mut conn)
            .await
            .optional()?;
        if let Some(position) = gone.position {
            statement(RAISE)
                .bind::<BigInt, _>(position)
                .execute(&mut conn)
                .await?;
        }
        tx.commit().await?;
        if gone.count == BATCH || keys as i64 == BATCH {
            continue;
        }
        // What is not there yet is due no sooner than if it came now.
        let event = event.unwrap_or(now) + retention.age;
        let key = key.unwrap_or(now) + KEYS_KEPT;
        return Ok(Some(event.min(key)));
    }
}
