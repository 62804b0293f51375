//! A unit of work: changes and their events in one transaction.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::result::DatabaseErrorKind;
use diesel::result::Error::DatabaseError;
use diesel::sql_types::{Array, BigInt, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::ops::Deref;
use std::sync::Arc;
use uuid::Uuid;

use super::{Hub, Position, trail};
use crate::auth::Origin;
use crate::db::Database;
use crate::db::id::{Id, Kind};
use crate::db::reach::Sight;
use crate::db::session::Transaction;
use crate::db::statement::{Statement, statement};
use crate::error::{Error, Result};

/// Who acts when it is a user.
const USER: &str = "USER";
/// Who acts when it is the server itself.
const SYSTEM: &str = "SYSTEM";

/// A change to be recorded. Its position is given at the end of the transaction.
#[derive(Debug)]
pub struct Change {
    id: Uuid,
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

/// An entry of the trail that is not chained yet.
#[derive(Debug)]
struct Noted {
    id: Uuid,
    occurred_at: DateTime<Utc>,
    actor_kind: &'static str,
    actor_id: Option<Uuid>,
    entity: &'static str,
    record_id: Uuid,
    kind: &'static str,
    detail: String,
}

/// The end of both statements: an answer is kept when there is one.
macro_rules! kept {
    () => {
        ", kept AS (
        INSERT INTO idempotency_keys
               (actor_id, key, operation, input_hash, answer, epoch, position, created_at)
        SELECT new.*, epoch, position, ?
          FROM counted, (VALUES (?, ?, ?, ?, ?)) AS new (actor_id, key, operation, input_hash, answer)
         WHERE new.key IS NOT NULL
    )
    SELECT min(epoch) AS epoch, min(position) AS position FROM counted HAVING own_counter(array_agg(tenant_id)) IS NOT NULL"
    };
}

/// The counter is bumped, the history appended to and the trail chained by one statement: where the row of the counter
/// is locked, the head of the chain is known. This is for one change, with what the trail tells of it, as most work is.
const APPEND: &str = concat!(
    "
    WITH counted AS (
        UPDATE histories
           SET position = position + 1,
               audit_sequence = audit_sequence + 1,
               audit_previous = audit_hash,
               audit_hash = sha256(audit_hash || int8send(audit_sequence + 1) || ?)
        RETURNING tenant_id, epoch, position, audit_sequence, audit_previous, audit_hash
    ), appended AS (
        INSERT INTO events (position, id, occurred_at, actor_id, entity, record_id, kind, change)
        SELECT position, ?, ?, ?, ?, ?, ?, ? FROM counted
    ), audited AS (
        INSERT INTO audit_entries (sequence, id, occurred_at, actor_kind, actor_id, entity, record_id, kind, detail,
                                   ip, user_agent, request_id, previous_hash, hash)
        SELECT audit_sequence, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, audit_previous, audit_hash FROM counted
    )",
    kept!()
);

/// The same for any number of changes, and of things that the trail tells.
const APPEND_ALL: &str = concat!(
    "
    WITH counted AS (
        UPDATE histories
           SET position = position + ?,
               audit_sequence = audit_sequence + ?,
               audit_previous = audit_hash,
               audit_hash = coalesce((audit_chain(audit_hash, audit_sequence, ?))[?], audit_hash)
        RETURNING tenant_id, epoch, position, audit_sequence, audit_previous
    ), appended AS (
        INSERT INTO events (position, id, occurred_at, actor_id, entity, record_id, kind, change)
        SELECT counted.position - ? + new.ord, new.id, new.occurred_at, new.actor_id, new.entity, new.record_id,
               new.kind, new.change
          FROM counted, unnest(?, ?, ?, ?, ?, ?, ?) WITH ORDINALITY
               AS new (id, occurred_at, actor_id, entity, record_id, kind, change, ord)
    ), audited AS (
        INSERT INTO audit_entries (sequence, id, occurred_at, actor_kind, actor_id, entity, record_id, kind, detail,
                                   ip, user_agent, request_id, previous_hash, hash)
        SELECT counted.audit_sequence - ? + new.ord, new.id, new.occurred_at, new.actor_kind, new.actor_id, new.entity,
               new.record_id, new.kind, new.detail, ?, ?, ?,
               coalesce(lag(new.hash) OVER (ORDER BY new.ord), counted.audit_previous), new.hash
          FROM counted, unnest(?, ?, ?, ?, ?, ?, ?, ?, audit_chain(counted.audit_previous, counted.audit_sequence - ?, ?))
               WITH ORDINALITY
               AS new (id, occurred_at, actor_kind, actor_id, entity, record_id, kind, detail, hash, ord)
    )",
    kept!()
);

/// A transaction of one tenant on behalf of one user, which records what it changes.
pub struct Work {
    tx: Transaction,
    hub: Arc<Hub>,
    actor_id: Option<Uuid>,
    /// What acts when it is no user.
    agent: &'static str,
    origin: Origin,
    now: DateTime<Utc>,
    changes: Vec<Change>,
    notes: Vec<Noted>,
    summary: Option<Summary>,
}

/// Many changes that the trail tells of as one.
struct Summary {
    kind: &'static str,
    changes: i64,
    /// Of their digests, one after the other.
    digest: Sha256,
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

impl Appended {
    fn position(appended: Vec<Self>) -> Result<Position> {
        let [appended] = appended.as_slice() else {
            return Err(Error::internal("nothing was appended"));
        };
        Ok(Position {
            epoch: appended.epoch,
            position: appended.position,
        })
    }
}

/// What is told of a unit of work, to the history and to the trail.
struct Told {
    changes: Vec<Change>,
    notes: Vec<Noted>,
    ip: Option<String>,
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
            agent: SYSTEM,
            origin: Origin::default(),
            now: now(),
            changes: Vec::new(),
            notes: Vec::new(),
            summary: None,
        }
    }

    /// Says where the request came from that this is done for.
    #[must_use]
    pub fn coming_from(mut self, origin: &Origin) -> Self {
        self.origin = origin.clone();
        self
    }

    /// Says what acts, when it is neither a user nor the server itself: for example `API_KEY`, for its user.
    #[must_use]
    pub fn by(mut self, agent: &'static str) -> Self {
        self.agent = agent;
        self
    }

    /// From now on the trail has one entry of this kind for each [`Work::append`] and for the [end](Work::finish), with the
    /// number of changes and a digest of them, rather than one for each change: for bulk work, whose changes are told by what
    /// was loaded.
    pub fn sum_up(&mut self, kind: &'static str) {
        self.summary = Some(Summary {
            kind,
            changes: 0,
            digest: Sha256::new(),
        });
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

    /// Records what happened to a record, in the history and in the audit trail; `change` is kept as JSON. Nothing secret
    /// may be in it.
    ///
    /// # Errors
    /// Only when `change` cannot be written as JSON, which is a fault of ours.
    pub fn record<T: Kind>(&mut self, id: Id<T>, kind: &'static str, change: &impl Serialize) -> Result<()> {
        let change = serde_json::to_value(change).map_err(Error::internal)?;
        let event_id = Uuid::now_v7();
        self.audit(
            event_id,
            T::PREFIX,
            id.uuid(),
            kind,
            &trail::detail(kind, &change),
        );
        self.changes.push(Change {
            id: event_id,
            occurred_at: self.now,
            actor_id: self.actor_id,
            entity: T::PREFIX,
            record_id: id.uuid(),
            kind,
            change,
        });
        Ok(())
    }

    /// Records in the audit trail only what changes no record: that something was refused, or looked at.
    pub fn note<T: Kind>(&mut self, id: Id<T>, kind: &'static str, detail: &serde_json::Value) {
        self.audit(Uuid::now_v7(), T::PREFIX, id.uuid(), kind, detail);
    }

    fn audit(
        &mut self,
        id: Uuid,
        entity: &'static str,
        record_id: Uuid,
        kind: &'static str,
        detail: &serde_json::Value,
    ) {
        let noted = Noted {
            id,
            occurred_at: self.now,
            actor_kind: if self.agent == SYSTEM && self.actor_id.is_some() {
                USER
            } else {
                self.agent
            },
            actor_id: self.actor_id,
            entity,
            record_id,
            kind,
            detail: detail.to_string(),
        };
        match &mut self.summary {
            Some(summary) => {
                summary.changes += 1;
                summary
                    .digest
                    .update(noted.digest(self.tx.tenant(), None, &self.origin));
            }
            None => self.notes.push(noted),
        }
    }

    /// What the trail is to be told by the next append.
    fn notes(&mut self) -> Vec<Noted> {
        if let Some(summary) = self.summary.as_mut().filter(|summary| summary.changes > 0) {
            let digest = std::mem::take(&mut summary.digest).finalize();
            let detail =
                json!({ "changes": std::mem::take(&mut summary.changes), "sha256": trail::hex(&digest) });
            self.notes.push(Noted {
                id: Uuid::now_v7(),
                occurred_at: now(),
                actor_kind: self.agent,
                actor_id: None,
                entity: "tenant",
                record_id: self.tx.tenant(),
                kind: summary.kind,
                detail: detail.to_string(),
            });
        }
        std::mem::take(&mut self.notes)
    }

    /// Gives the recorded changes their positions, and makes all that was changed permanent. This locks the tenant's counter
    /// until PostgreSQL has committed: a lock held longer would make the tenant's other writers wait.
    ///
    /// Who gives up waiting for this may have made it permanent all the same. Those who follow the history then hear of it
    /// when it is next looked at, as from another instance.
    ///
    /// # Errors
    /// As [`Work::append`] and [`Transaction::commit`].
    pub async fn finish(self) -> Result<Position> {
        self.finish_and_keep(None).await
    }

    /// As [`Work::finish`]; keeps an answer with its position in the same statement.
    ///
    /// # Errors
    /// A unique violation on the answer's key when it has been taken meanwhile: nothing has been changed then.
    pub async fn finish_and_keep(mut self, answer: Option<Answer<'_>>) -> Result<Position> {
        let told = self.told();
        let append = self.appending(&told, answer);
        let append = async {
            let appended = append.load(&mut self.tx.conn()).await;
            appended.map_err(|error| self.refused(error))
        };
        let position = Appended::position(Transaction::commit_with(&self.tx, append).await?)?;
        self.hub.tell(self.tx.tenant(), position);
        Ok(position)
    }

    /// Gives the changes recorded until now their positions, and goes on: for bulk work, whose counter nobody waits for yet.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant is no more; and when the database fails.
    pub async fn append(&mut self) -> Result<()> {
        let told = self.told();
        let appended = self.appending(&told, None).execute(&mut self.tx.conn()).await;
        appended.map(|_| ()).map_err(|error| self.refused(error))
    }

    fn told(&mut self) -> Told {
        Told {
            changes: std::mem::take(&mut self.changes),
            notes: self.notes(),
            ip: self.origin.ip.map(|ip| ip.to_string()),
        }
    }

    fn appending<'a>(&'a self, told: &'a Told, answer: Option<Answer<'a>>) -> Statement<'a> {
        let append = match (&told.changes[..], &told.notes[..]) {
            ([change], [noted]) => self.append_one(change, noted, told.ip.as_deref()),
            (changes, notes) => self.append_all(changes, notes, told.ip.as_deref()),
        };
        append
            .bind::<Timestamptz, _>(self.now)
            .bind::<Nullable<SqlUuid>, _>(answer.as_ref().map(|answer| answer.actor_id))
            .bind::<Nullable<Text>, _>(answer.as_ref().map(|answer| answer.key))
            .bind::<Nullable<Text>, _>(answer.as_ref().map(|answer| answer.operation))
            .bind::<Nullable<Bytea>, _>(answer.as_ref().map(|answer| answer.input_hash))
            .bind::<Nullable<Jsonb>, _>(answer.map(|answer| answer.answer))
    }

    fn append_one<'a>(&'a self, change: &'a Change, noted: &'a Noted, ip: Option<&'a str>) -> Statement<'a> {
        let digest = noted.digest(self.tx.tenant(), ip, &self.origin);
        statement(APPEND)
            .bind::<Bytea, _>(digest.to_vec())
            .bind::<SqlUuid, _>(change.id)
            .bind::<Timestamptz, _>(change.occurred_at)
            .bind::<Nullable<SqlUuid>, _>(change.actor_id)
            .bind::<Text, _>(change.entity)
            .bind::<SqlUuid, _>(change.record_id)
            .bind::<Text, _>(change.kind)
            .bind::<Jsonb, _>(&change.change)
            .bind::<SqlUuid, _>(noted.id)
            .bind::<Timestamptz, _>(noted.occurred_at)
            .bind::<Text, _>(noted.actor_kind)
            .bind::<Nullable<SqlUuid>, _>(noted.actor_id)
            .bind::<Text, _>(noted.entity)
            .bind::<SqlUuid, _>(noted.record_id)
            .bind::<Text, _>(noted.kind)
            .bind::<Text, _>(&noted.detail)
            .bind::<Nullable<Text>, _>(ip)
            .bind::<Nullable<Text>, _>(self.origin.user_agent.as_deref())
            .bind::<Nullable<Text>, _>(request_id(&self.origin))
    }

    fn append_all<'a>(
        &'a self,
        changes: &'a [Change],
        notes: &'a [Noted],
        ip: Option<&'a str>,
    ) -> Statement<'a> {
        let tenant = self.tx.tenant();
        let digests: Vec<Vec<u8>> = notes
            .iter()
            .map(|noted| noted.digest(tenant, ip, &self.origin).to_vec())
            .collect();
        let (count, noted) = (changes.len() as i64, digests.len() as i64);
        statement(APPEND_ALL)
            .bind::<BigInt, _>(count)
            .bind::<BigInt, _>(noted)
            .bind::<Array<Bytea>, _>(digests.clone())
            .bind::<Integer, _>(noted as i32)
            .bind::<BigInt, _>(count)
            .column::<SqlUuid, _, _>(changes, |change| change.id)
            .column::<Timestamptz, _, _>(changes, |change| change.occurred_at)
            .column::<Nullable<SqlUuid>, _, _>(changes, |change| change.actor_id)
            .column::<Text, _, _>(changes, |change| change.entity)
            .column::<SqlUuid, _, _>(changes, |change| change.record_id)
            .column::<Text, _, _>(changes, |change| change.kind)
            .column::<Jsonb, _, _>(changes, |change| &change.change)
            .bind::<BigInt, _>(noted)
            .bind::<Nullable<Text>, _>(ip)
            .bind::<Nullable<Text>, _>(self.origin.user_agent.as_deref())
            .bind::<Nullable<Text>, _>(request_id(&self.origin))
            .column::<SqlUuid, _, _>(notes, |noted| noted.id)
            .column::<Timestamptz, _, _>(notes, |noted| noted.occurred_at)
            .column::<Text, _, _>(notes, |noted| noted.actor_kind)
            .column::<Nullable<SqlUuid>, _, _>(notes, |noted| noted.actor_id)
            .column::<Text, _, _>(notes, |noted| noted.entity)
            .column::<SqlUuid, _, _>(notes, |noted| noted.record_id)
            .column::<Text, _, _>(notes, |noted| noted.kind)
            .column::<Text, _, _>(notes, |noted| &noted.detail)
            .bind::<BigInt, _>(noted)
            .bind::<Array<Bytea>, _>(digests)
    }

    /// Why nothing was appended. The policies must have left the tenant's own counter, and nothing else. If they have not,
    /// the transaction is void, and whoever asked is told nothing of it.
    fn refused(&self, error: diesel::result::Error) -> Error {
        let DatabaseError(kind, info) = &error else {
            return error.into();
        };
        match (kind, info.constraint_name(), info.table_name()) {
            (DatabaseErrorKind::CheckViolation, Some("histories_there"), _) => Error::NotFound("tenant"),
            (DatabaseErrorKind::CheckViolation, Some("histories_own"), _) => {
                tracing::error!(
                    target: "security.incident",
                    tenant = %self.tx.tenant(), reached = info.message(), actor = self.actor_id.map(display),
                    ip = self.origin.ip.map(display), request = %self.origin.request_id,
                    "the isolation of tenants does not hold: a change reached another tenant's counter, and was given up"
                );
                Error::internal("the isolation of tenants does not hold")
            }
            // Positions and sequences are given out under the counter's lock.
            (DatabaseErrorKind::UniqueViolation, _, Some("events" | "audit_entries")) => {
                Error::internal("the tenant's counter is behind its history or its trail")
            }
            _ => error.into(),
        }
    }
}

impl Noted {
    fn digest(&self, tenant: Uuid, ip: Option<&str>, origin: &Origin) -> trail::Hash {
        let entry = trail::Entry {
            id: self.id,
            occurred_at: self.occurred_at,
            actor_kind: self.actor_kind,
            actor_id: self.actor_id,
            entity: self.entity,
            record_id: self.record_id,
            kind: self.kind,
            detail: &self.detail,
            ip,
            user_agent: origin.user_agent.as_deref(),
            request_id: request_id(origin),
        };
        entry.digest(tenant)
    }
}

/// What the server does by itself has none.
fn request_id(origin: &Origin) -> Option<&str> {
    Some(origin.request_id.as_str()).filter(|id| !id.is_empty())
}

/// The current time in the database's precision, so that a value read back equals the one written.
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
