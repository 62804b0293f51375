//! The highly sensitive fields of companies: tax id and bank account. Sealed in a table of their own, shown to who may see
//! them and never unnoticed; in no list, history, search or log.

mod model;
mod mutations;
mod queries;
mod types;

pub use model::{CompanySecret, SecretField};
pub use mutations::SecretsMutation;
pub use types::{BankAccount, SecretsQuery, bank_account, tax_id};

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::crypto::Vault;
use crate::db::id::{read_id, write_id};
use crate::db::{Database, sealed};
use crate::error::{Error, Result};
use crate::events::work::now;
use crate::sensitive::{self, DataKeys};

/// Values that are sealed anew in one transaction.
const BATCH: i64 = 500;

/// What a rotation has done in a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Values that are kept under the new keys now.
    pub values: usize,
    /// Keys that nothing is kept under any more, and that are gone.
    pub keys: usize,
}

/// Gives a tenant new data keys and keeps all values anew under them, in batches, while everything stays readable and can
/// be found. What an interrupted rotation has left is done first by the next: with `resume` no key is made, and only that
/// is done. `report` is told how many values each batch had.
///
/// # Errors
/// When the database fails, or a value cannot be opened; what has been done stays done.
pub async fn rotate(
    db: &Database,
    keys: &DataKeys,
    tenant: Uuid,
    resume: bool,
    report: impl Fn(usize),
) -> Result<Rotated> {
    if !resume && keys.has_any(db, tenant).await? {
        let tx = db.begin(tenant).await?;
        keys.renew(&tx, None).await?;
        tx.commit().await?;
    }
    let mut rotated = Rotated::default();
    loop {
        let tx = db.begin(tenant).await?;
        let done = queries::seal_anew(&tx, keys, BATCH).await?;
        tx.commit().await?;
        report(done);
        rotated.values += done;
        if done == 0 {
            break;
        }
    }
    let tx = db.begin(tenant).await?;
    for key in keys.retired(tx.conn()).await? {
        // A transaction that took the old key just before may still be about to use it: then it stays for the next time.
        if !queries::is_used(&tx, key).await? {
            keys.forget(&tx, key).await?;
            rotated.keys += 1;
        }
    }
    tx.commit().await?;
    Ok(rotated)
}

/// Renews the keys of sensitive fields of the tenant with this id, or of all, as [`rotate`] does, and tells how far it has
/// come, tenant by tenant.
///
/// # Errors
/// A sentence for the operator. What has been done by then stays done.
pub async fn renew(
    db: &Database,
    keys: &DataKeys,
    tenant: Option<&str>,
    resume: bool,
) -> Result<String, String> {
    let told = |error: Error| {
        tracing::error!(?error, "the keys of sensitive fields cannot be renewed");
        error.message()
    };
    let tenant = match tenant.map(|id| (id, read_id(id))) {
        None => None,
        Some((_, Some(("tenant", tenant)))) => Some(tenant),
        Some((id, _)) => {
            return Err(format!(
                "{id} is not the id of a tenant, which begins with `tenant_`"
            ));
        }
    };
    let tenants = sensitive::tenants(db, tenant).await.map_err(told)?;
    let mut rotated = Rotated::default();
    for (number, tenant) in tenants.iter().enumerate() {
        let progress = |values| {
            let tenant = write_id("tenant", *tenant);
            tracing::info!(%tenant, number = number + 1, of = tenants.len(), values, "sealed anew");
        };
        let done = rotate(db, keys, *tenant, resume, progress).await.map_err(told)?;
        rotated.values += done.values;
        rotated.keys += done.keys;
    }
    let (tenants, Rotated { values, keys }) = (tenants.len(), rotated);
    Ok(format!(
        "Tenants: {tenants}, values sealed anew: {values}, old keys taken away: {keys}."
    ))
}

/// How often is looked after the keys.
const ROUND: Duration = Duration::from_secs(60 * 60);

/// Looks after the keys by itself until `stop`, as [`look_after`] does. Not at once: with a new master key, instances that
/// do not have it yet shall be gone before that.
pub async fn keep(
    db: Database,
    vault: Arc<Vault>,
    keys: Arc<DataKeys>,
    age: Option<TimeDelta>,
    stop: CancellationToken,
) {
    let endless = async {
        loop {
            tokio::time::sleep(ROUND).await;
            look_after(&db, &vault, &keys, age.map(|age| now() - age)).await;
        }
    };
    stop.run_until_cancelled(endless).await;
}

/// Lets the current master key take over what older ones have sealed, and does what is due with the keys of tenants: see
/// [`tend`]. What fails is told to the log, and is for the next time.
pub async fn look_after(db: &Database, vault: &Vault, keys: &DataKeys, made_before: Option<DateTime<Utc>>) {
    let progress = |table, values| tracing::info!(table, values, "sealed by the current master key");
    if let Err(error) = sealed::rewrap(db, vault, progress).await {
        tracing::warn!(?error, "the current master key cannot take over; trying on");
    }
    if let Err(error) = tend(db, keys, made_before).await {
        tracing::warn!(
            ?error,
            "the keys of sensitive fields cannot be looked after; trying on"
        );
    }
}

/// Does what is due, in all tenants: makes new data keys in the place of those that were made before `made_before`, and
/// seals anew what is sealed under those that are not current. Instances may do it at the same time. Answers in how many
/// tenants there was something to do.
///
/// # Errors
/// When the database cannot say which tenants there are. What fails in one tenant does not stop the others.
pub async fn tend(db: &Database, keys: &DataKeys, made_before: Option<DateTime<Utc>>) -> Result<usize> {
    let tenants = sensitive::tenants(db, None).await?;
    let of = tenants.len();
    let mut done = 0;
    for (number, tenant) in tenants.into_iter().enumerate() {
        match tend_one(db, keys, tenant, made_before, (number + 1, of)).await {
            Ok(had_to) => done += usize::from(had_to),
            Err(error) => {
                let tenant = write_id("tenant", tenant);
                tracing::warn!(%tenant, ?error, "the keys of a tenant's sensitive fields cannot be renewed; trying on");
            }
        }
    }
    Ok(done)
}

async fn tend_one(
    db: &Database,
    keys: &DataKeys,
    tenant: Uuid,
    made_before: Option<DateTime<Utc>>,
    (number, of): (usize, usize),
) -> Result<bool> {
    if let Some(than) = made_before
        && keys.has_any(db, tenant).await?
    {
        let tx = db.begin(tenant).await?;
        keys.renew(&tx, Some(than)).await?;
        tx.commit().await?;
    }
    if !keys.is_behind(db, tenant).await? {
        return Ok(false);
    }
    let told = write_id("tenant", tenant);
    let progress = |values| tracing::info!(tenant = %told, number, of, values, "sealed anew");
    let rotated = rotate(db, keys, tenant, true, progress).await?;
    tracing::info!(tenant = %told, number, of, values = rotated.values, keys = rotated.keys, "the keys of sensitive fields were renewed");
    Ok(true)
}
