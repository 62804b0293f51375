//! All SQL about reading the trail.

use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::AuditEvent;
use super::types::AuditEventFilter;
use crate::db::id::read_id;
use crate::db::schema::{audit_entries, histories};
use crate::db::select::Predicate;
use crate::error::{Error, Result};
use crate::graphql::filter::combine;

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by.
pub(super) fn matching(filter: AuditEventFilter) -> Result<Predicate> {
    let record = filter.record_id.map(|id| match read_id(&id) {
        // Ids of records of different kinds are never the same.
        Some((_, uuid)) => Ok(Predicate::sql("record_id = ?").bind::<SqlUuid, _>(uuid)),
        None => Err(Error::BadInput("This is not an id of a record.".to_owned())),
    });
    let own = [
        filter.actor_id.map(|actor| actor.on(audit_entries::actor_id)),
        filter.entity.map(|entity| entity.on(audit_entries::entity)),
        record,
        filter.kind.map(|kind| kind.on(audit_entries::kind)),
        filter
            .occurred_at
            .map(|moment| moment.on(audit_entries::occurred_at)),
        filter.ip.map(|ip| ip.on(audit_entries::ip)),
        filter.request_id.map(|id| id.on(audit_entries::request_id)),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, matching)
}

/// Reads at most `limit` entries after a place in the chain, in order.
///
/// # Errors
/// When the database fails.
pub(super) async fn after(conn: &AsyncPgConnection, sequence: i64, limit: i64) -> Result<Vec<AuditEvent>> {
    let found = audit_entries::table
        .filter(audit_entries::sequence.gt(sequence))
        .order(audit_entries::sequence)
        .limit(limit)
        .select(AuditEvent::as_select());
    Ok(found.load(&mut &*conn).await?)
}

/// The head of the chain: how many entries there are, and the hash of the last. Nothing when there is no such tenant.
///
/// # Errors
/// When the database fails.
pub(super) async fn head(conn: &AsyncPgConnection) -> Result<Option<(i64, Vec<u8>)>> {
    let head = histories::table.select((histories::audit_sequence, histories::audit_hash));
    Ok(head.first(&mut &*conn).await.optional()?)
}
