//! All SQL about companies.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::Company;
use super::types::CompanyFilter;
use crate::auth::{Permission, Rights};
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::companies;
use crate::db::select::{Listing, Predicate, by_ids, contains_pattern};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, Problem, ProblemCode, Result};
use crate::graphql::Batch;
use crate::graphql::filter::{combine, sought};

/// Loads companies by their ids.
pub struct CompanyById;

impl Batch for CompanyById {
    type Key = Id<Company>;
    type Value = Arc<Company>;
    const READ: Permission = Permission::CompaniesRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Company>]) -> Result<ByKey<Id<Company>, Arc<Company>>> {
        by_ids(reader, keys).await
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by, [`Error::Forbidden`] for a filter by what the viewer may
/// not see.
pub fn matching(filter: CompanyFilter, rights: &Rights) -> Result<Predicate> {
    let own = [
        filter.id.map(|id| id.on(companies::id)),
        filter.name.map(|name| name.on(companies::name)),
        filter.domain.map(|domain| domain.on(companies::domain)),
        filter.industry.map(|industry| industry.on(companies::industry)),
        filter.email.map(|email| email.on(companies::email, rights)),
        filter.owner_id.map(|owner| owner.on(companies::owner_id)),
        filter.created_at.map(|moment| moment.on(companies::created_at)),
        filter.updated_at.map(|moment| moment.on(companies::updated_at)),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, |inner| {
        matching(inner, rights)
    })
}

/// The rows of a list: a text that name, domain or e-mail contains, and a filter.
///
/// # Errors
/// As [`matching`].
pub(super) fn listed(
    search: Option<&str>,
    filter: Option<CompanyFilter>,
    rights: &Rights,
) -> Result<Listing> {
    let listing = Listing::from(
        filter
            .map(|filter| matching(filter, rights))
            .transpose()?
            .unwrap_or_default(),
    );
    let Some(text) = search else {
        return Ok(listing);
    };
    // PostgreSQL has made the searched column lower case, and does so with the pattern: other rules might differ.
    let pattern = contains_pattern(&sought(text.to_owned())?);
    let search = if rights.permits(Permission::ContactDetailsRead) {
        Predicate::sql("find_companies(lower(?))").bind::<Text, _>(pattern)
    } else {
        // Who may not see an e-mail address would find it out letter by letter.
        let named = "(SELECT * FROM find_companies(lower(?)) AS found WHERE lower(found.name) LIKE lower(?)) AS named";
        Predicate::sql(named)
            .bind::<Text, _>(pattern.clone())
            .bind::<Text, _>(pattern)
    };
    Ok(listing.found_by(search))
}

/// Reads a company and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such company.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<Company>, field: &str) -> Result<Company> {
    let found = companies::table
        .filter(companies::id.eq(id))
        .select(Company::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such company."))
}

/// Adds a company.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub async fn insert(tx: &Transaction, company: &Company) -> Result<()> {
    diesel::insert_into(companies::table)
        .values(company)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Adds many companies at once.
///
/// # Errors
/// As user errors when one refers to what does not exist.
pub async fn insert_all(tx: &Transaction, rows: &[Company]) -> Result<()> {
    statement(
        "INSERT INTO companies (id, name, domain, industry, email, phone, address, owner_id, created_at, updated_at, version)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .column::<SqlUuid, _, _>(rows, |row| row.id)
    .column::<Text, _, _>(rows, |row| &row.name)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.domain)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.industry)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.email)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.phone)
    .column::<Nullable<Jsonb>, _, _>(rows, |row| &row.address)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.owner_id)
    .column::<Timestamptz, _, _>(rows, |row| row.created_at)
    .column::<Timestamptz, _, _>(rows, |row| row.updated_at)
    .column::<Integer, _, _>(rows, |row| row.version)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed company; its version and time of change are already new.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub(super) async fn update(tx: &Transaction, company: &Company) -> Result<()> {
    statement(
        "UPDATE companies SET name = ?, domain = ?, industry = ?, email = ?, phone = ?, address = ?, owner_id = ?,
                updated_at = ?, version = ?
          WHERE id = ?",
    )
    .bind::<Text, _>(&company.name)
    .bind::<Nullable<Text>, _>(&company.domain)
    .bind::<Nullable<Text>, _>(&company.industry)
    .bind::<Nullable<Text>, _>(&company.email)
    .bind::<Nullable<Text>, _>(&company.phone)
    .bind::<Nullable<Jsonb>, _>(&company.address)
    .bind::<Nullable<SqlUuid>, _>(company.owner_id)
    .bind::<Timestamptz, _>(company.updated_at)
    .bind::<Integer, _>(company.version)
    .bind::<SqlUuid, _>(company.id)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes a company that nothing depends on.
///
/// # Errors
/// As a user error when contacts, deals or interactions refer to it.
pub(super) async fn delete(tx: &Transaction, id: Id<Company>) -> Result<()> {
    use crate::db::schema::{contacts, deals, interactions};
    let mut conn = tx.conn();
    // The locked row keeps new references out until the transaction ends.
    let (contact, deal, interaction): (bool, bool, bool) = diesel::select((
        diesel::dsl::exists(contacts::table.filter(contacts::company_id.eq(id))),
        diesel::dsl::exists(deals::table.filter(deals::company_id.eq(id))),
        diesel::dsl::exists(interactions::table.filter(interactions::company_id.eq(id))),
    ))
    .get_result(&mut conn)
    .await?;
    let used: Vec<&str> = [
        (contact, "contacts"),
        (deal, "deals"),
        (interaction, "interactions"),
    ]
    .into_iter()
    .filter_map(|(used, what)| used.then_some(what))
    .collect();
    if !used.is_empty() {
        let message = format!(
            "The company still has {}. Move or delete them first.",
            used.join(", ")
        );
        return Err(Error::Invalid(vec![Problem::new(
            "companyId",
            ProblemCode::InUse,
            message,
        )]));
    }
    diesel::delete(companies::table.filter(companies::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}
