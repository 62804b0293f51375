//! A unit of work: changes and their events in one transaction.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use std::ops::Deref;
use std::sync::Arc;
use uuid::Uuid;

use super::{Hub, Position};
use crate::db::Database;
use crate::db::id::{Id, Kind};
use crate::db::reach::Sight;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, Result};

/// A change to be recorded. Its position is given at the end of the transaction.
#[derive(Debug)]
pub struct Change {
    occurred_at: DateTime<Utc>,
    actor_id: Option<Uuid>,
    entity: &'static str,
    record_id: Uuid,
    kind: &'static str,
    change: serde_json::Value,
}

/// What a mutation answered, to be kept under its idempotency key.
pub struct Answer<'a> {
    pub actor_id: Uuid,
    pub key: &'a str,
    pub operation: &'a str,
    pub input_hash: &'a [u8],
    pub answer: serde_json::Value,
}

const APPEND: &str = "
    WITH counted AS (
        UPDATE histories SET position = position + ? RETURNING epoch, position
    ), appended AS (
        INSERT INTO events (position, id, occurred_at, actor_id, entity, record_id, kind, change)
        SELECT counted.position - ? + new.ord, new.id, new.occurred_at, new.actor_id, new.entity, new.record_id,
               new.kind, new.change
          FROM counted, unnest(?, ?, ?, ?, ?, ?, ?) WITH ORDINALITY
               AS new (id, occurred_at, actor_id, entity, record_id, kind, change, ord)
    )
    SELECT epoch, position FROM counted";

const APPEND_AND_KEEP: &str = "
    WITH counted AS (
        UPDATE histories SET position = position + ? RETURNING epoch, position
    ), appended AS (
        INSERT INTO events (position, id, occurred_at, actor_id, entity, record_id, kind, change)
        SELECT counted.position - ? + new.ord, new.id, new.occurred_at, new.actor_id, new.entity, new.record_id,
               new.kind, new.change
          FROM counted, unnest(?, ?, ?, ?, ?, ?, ?) WITH ORDINALITY
               AS new (id, occurred_at, actor_id, entity, record_id, kind, change, ord)
    ), kept AS (
        INSERT INTO idempotency_keys
               (actor_id, key, operation, input_hash, answer, epoch, position, created_at)
        SELECT ?, ?, ?, ?, ?, epoch, position, ? FROM counted
    )
    SELECT epoch, position FROM counted";

/// A transaction of one tenant on behalf of one user, which records what it changes.
pub struct Work {
    tx: Transaction,
    hub: Arc<Hub>,
    actor_id: Option<Uuid>,
    now: DateTime<Utc>,
    changes: Vec<Change>,
}

impl Deref for Work {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.tx
    }
}

#[derive(QueryableByName)]
struct Appended {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
}

impl Work {
    /// Begins a unit of work.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection can be had.
    pub async fn begin(
        db: &Database,
        hub: Arc<Hub>,
        sight: impl Into<Sight>,
        actor_id: Option<Uuid>,
    ) -> Result<Self> {
        Ok(Self::on(db.begin(sight).await?, hub, actor_id))
    }

    /// Goes on in a transaction that has begun.
    pub fn on(tx: Transaction, hub: Arc<Hub>, actor_id: Option<Uuid>) -> Self {
        Self {
            tx,
            hub,
            actor_id,
            now: now(),
            changes: Vec::new(),
        }
    }

    /// The user on whose behalf this is done.
    pub fn actor_id(&self) -> Option<Uuid> {
        self.actor_id
    }

    /// The moment of this work: everything in it carries the same time.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Goes on as another user at another moment, for data that tells of the past.
    pub fn go_on_as(&mut self, actor_id: Option<Uuid>, now: DateTime<Utc>) {
        self.actor_id = actor_id;
        self.now = now;
    }

    /// Records what happened to a record; `change` is kept as JSON.
    ///
    /// # Errors
    /// Only when `change` cannot be written as JSON, which is a fault of ours.
    pub fn record<T: Kind>(&mut self, id: Id<T>, kind: &'static str, change: &impl Serialize) -> Result<()> {
        let change = serde_json::to_value(change).map_err(Error::internal)?;
        self.changes.push(Change {
            occurred_at: self.now,
            actor_id: self.actor_id,
            entity: T::PREFIX,
            record_id: id.uuid(),
            kind,
            change,
        });
        Ok(())
    }

    /// Gives the recorded changes their positions. The last statement of the transaction: it locks the tenant's counter
    /// until the commit, and a lock held longer would make the tenant's other writers wait. Bulk work, which nobody waits
    /// for yet, may append in several batches.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn append(&mut self) -> Result<Position> {
        self.append_and_keep(None).await
    }

    /// As [`Work::append`]; keeps an answer with its position in the same statement.
    ///
    /// # Errors
    /// A unique violation on the answer's key when it has been taken meanwhile: the transaction is then void.
    pub async fn append_and_keep(&mut self, answer: Option<Answer<'_>>) -> Result<Position> {
        let changes = std::mem::take(&mut self.changes);
        let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
        let moments: Vec<DateTime<Utc>> = changes.iter().map(|change| change.occurred_at).collect();
        let actors: Vec<Option<Uuid>> = changes.iter().map(|change| change.actor_id).collect();
        let entities: Vec<&str> = changes.iter().map(|change| change.entity).collect();
        let records: Vec<Uuid> = changes.iter().map(|change| change.record_id).collect();
        let kinds: Vec<&str> = changes.iter().map(|change| change.kind).collect();
        let count = changes.len() as i64;
        let bodies: Vec<serde_json::Value> = changes.into_iter().map(|change| change.change).collect();
        let append = statement(match answer {
            None => APPEND,
            Some(_) => APPEND_AND_KEEP,
        })
        .bind::<BigInt, _>(count)
        .bind::<BigInt, _>(count)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Timestamptz>, _>(moments)
        .bind::<Array<Nullable<SqlUuid>>, _>(actors)
        .bind::<Array<Text>, _>(entities)
        .bind::<Array<SqlUuid>, _>(records)
        .bind::<Array<Text>, _>(kinds)
        .bind::<Array<Jsonb>, _>(bodies);
        let append = match answer {
            None => append,
            Some(answer) => append
                .bind::<SqlUuid, _>(answer.actor_id)
                .bind::<Text, _>(answer.key)
                .bind::<Text, _>(answer.operation)
                .bind::<Bytea, _>(answer.input_hash)
                .bind::<Jsonb, _>(answer.answer)
                .bind::<Timestamptz, _>(self.now),
        };
        let appended: Appended = append.get_result(&mut self.tx.conn()).await?;
        Ok(Position {
            epoch: appended.epoch,
            position: appended.position,
        })
    }

    /// Makes the changes permanent and tells those who follow the history.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn commit(self, position: Position) -> Result<()> {
        let tenant = self.tx.tenant();
        self.tx.commit().await?;
        self.hub.tell(tenant, position);
        Ok(())
    }
}

/// The current time in the database's precision, so that a value read back equals the one written.
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
