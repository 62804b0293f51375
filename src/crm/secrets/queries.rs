//! All SQL about the sensitive fields of companies.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::SecretField;
use super::model::CompanySecret;
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{companies, company_secrets};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::sensitive::DataKeys;

/// Loads the sealed fields of companies.
pub struct SecretsByCompany;

impl Batch for SecretsByCompany {
    type Key = Id<Company>;
    type Value = Arc<Vec<CompanySecret>>;
    const READ: Permission = Permission::SensitiveRead;

    async fn load(
        conn: Reader<'_>,
        keys: &[Id<Company>],
    ) -> Result<ByKey<Id<Company>, Arc<Vec<CompanySecret>>>> {
        let found: Vec<CompanySecret> = company_secrets::table
            .filter(company_secrets::company_id.eq_any(keys))
            .select(CompanySecret::as_select())
            .load(&mut &*conn)
            .await?;
        let mut of: ByKey<Id<Company>, Vec<CompanySecret>> = ByKey::default();
        for secret in found {
            of.entry(secret.company_id).or_default().push(secret);
        }
        Ok(of
            .into_iter()
            .map(|(id, secrets)| (id, Arc::new(secrets)))
            .collect())
    }
}

/// The companies with one of these blind indexes, by name; 100 at most. What the viewer may not see is not among them.
///
/// # Errors
/// When the database fails.
pub(super) async fn found(
    conn: &AsyncPgConnection,
    field: SecretField,
    blind: &[Vec<u8>],
) -> Result<Vec<Id<Company>>> {
    let with = company_secrets::table
        .filter(
            company_secrets::field
                .eq(field)
                .and(company_secrets::blind_index.eq_any(blind)),
        )
        .select(company_secrets::company_id);
    let found = companies::table
        .filter(companies::id.eq_any(with))
        .order((companies::name, companies::id))
        .limit(100)
        .select(companies::id);
    Ok(found.load(&mut &*conn).await?)
}

/// Reads a company and locks it until the end of the transaction, and notes that it has changed.
///
/// # Errors
/// As a user error when there is no such company.
pub(super) async fn touch(tx: &Transaction, id: Id<Company>, now: DateTime<Utc>) -> Result<Company> {
    statement("UPDATE companies SET version = version + 1, updated_at = ? WHERE id = ?")
        .bind::<Timestamptz, _>(now)
        .bind::<SqlUuid, _>(id)
        .execute(&mut tx.conn())
        .await?;
    let found = companies::table
        .filter(companies::id.eq(id))
        .select(Company::as_select());
    let found = found.first(&mut tx.conn()).await.optional()?;
    found.ok_or_else(|| Error::invalid("companyId", ProblemCode::NotFound, "There is no such company."))
}

/// Keeps a field in the place of what was there: sealed, and to be found if it can be, under the current keys.
///
/// # Errors
/// When the database fails.
pub(super) async fn keep(
    tx: &Transaction,
    keys: &DataKeys,
    company: Id<Company>,
    field: SecretField,
    plain: &[u8],
    updated_at: DateTime<Utc>,
) -> Result<()> {
    let sealed = keys.seal(tx, field.place(tx.tenant(), company), plain).await?;
    let blind = match field.findable(plain) {
        Some(value) => Some(keys.blind(tx, field.as_str(), value).await?),
        None => None,
    };
    statement(
        "INSERT INTO company_secrets (company_id, field, key_id, sealed, index_key_id, blind_index, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (tenant_id, company_id, field) DO UPDATE
            SET key_id = excluded.key_id, sealed = excluded.sealed, index_key_id = excluded.index_key_id,
                blind_index = excluded.blind_index, updated_at = excluded.updated_at",
    )
    .bind::<SqlUuid, _>(company)
    .bind::<Text, _>(field)
    .bind::<SqlUuid, _>(sealed.key_id)
    .bind::<Bytea, _>(sealed.sealed)
    .bind::<Nullable<SqlUuid>, _>(blind.as_ref().map(|blind| blind.key_id))
    .bind::<Nullable<Bytea>, _>(blind.map(|blind| blind.hash))
    .bind::<Timestamptz, _>(updated_at)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Takes a field away.
///
/// # Errors
/// When the database fails.
pub(super) async fn delete(tx: &Transaction, id: Id<Company>, field: SecretField) -> Result<()> {
    diesel::delete(
        company_secrets::table.filter(
            company_secrets::company_id
                .eq(id)
                .and(company_secrets::field.eq(field)),
        ),
    )
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Old {
    #[diesel(sql_type = SqlUuid)]
    company_id: Id<Company>,
    #[diesel(sql_type = Text)]
    field: SecretField,
    #[diesel(sql_type = SqlUuid)]
    key_id: Uuid,
    #[diesel(sql_type = Bytea)]
    sealed: Vec<u8>,
    #[diesel(sql_type = Timestamptz)]
    updated_at: DateTime<Utc>,
}

/// Keeps some of the values anew that are sealed, or found, under a key that is not current. Answers how many; none when
/// all are done. Rows that somebody is changing are waited for.
///
/// # Errors
/// When the database fails, or a value cannot be opened.
pub(super) async fn seal_anew(tx: &Transaction, keys: &DataKeys, limit: i64) -> Result<usize> {
    let old: Vec<Old> = statement(
        "SELECT company_id, field, key_id, sealed, updated_at FROM company_secrets
          WHERE key_id IN (SELECT id FROM data_keys WHERE NOT is_current)
             OR index_key_id IN (SELECT id FROM data_keys WHERE NOT is_current)
             OR index_key_id IS NULL AND blind_index IS NOT NULL
          ORDER BY company_id, field LIMIT ? FOR UPDATE OF company_secrets",
    )
    .bind::<BigInt, _>(limit)
    .load(&mut tx.conn())
    .await?;
    for row in &old {
        let place = row.field.place(tx.tenant(), row.company_id);
        let value = crate::sensitive::Sealed {
            key_id: row.key_id,
            sealed: row.sealed.clone(),
        };
        let plain = keys.open(tx.conn(), place, &value).await?;
        keep(tx, keys, row.company_id, row.field, &plain, row.updated_at).await?;
    }
    Ok(old.len())
}

/// Whether something is sealed or found under a key, or may be.
///
/// # Errors
/// When the database fails.
pub(super) async fn is_used(tx: &Transaction, key: Uuid) -> Result<bool> {
    let used = company_secrets::table.filter(
        company_secrets::key_id
            .eq(key)
            .or(company_secrets::index_key_id.eq(key))
            .or(company_secrets::index_key_id
                .is_null()
                .and(company_secrets::blind_index.is_not_null())),
    );
    Ok(diesel::select(diesel::dsl::exists(used))
        .get_result(&mut tx.conn())
        .await?)
}
