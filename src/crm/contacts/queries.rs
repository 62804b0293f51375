//! All SQL about contacts.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::Contact;
use super::model::ContactOrderField;
use super::types::ContactFilter;
use crate::auth::{Permission, Rights};
use crate::crm::companies::{self, Company, CompanyById};
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::contacts;
use crate::db::select::{Listing, Predicate, by_ids, contains_pattern};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, Problem, ProblemCode, Result};
use crate::graphql::Batch;
use crate::graphql::connection::Children;
use crate::graphql::filter::{across, combine, sought};

/// Loads contacts by their ids.
pub struct ContactById;

impl Batch for ContactById {
    type Key = Id<Contact>;
    type Value = Arc<Contact>;
    const READ: Permission = Permission::ContactsRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Contact>]) -> Result<ByKey<Id<Contact>, Arc<Contact>>> {
        by_ids(reader, keys).await
    }
}

/// The people who work at a company, newest first.
pub struct ContactsByCompany;

impl Children for ContactsByCompany {
    type Parent = Company;
    type Row = Contact;
    const READ: Permission = Permission::ContactsRead;
    const COLUMN: &'static str = "company_id";
    const ORDER: ContactOrderField = ContactOrderField::CreatedAt;

    fn parent_of(contact: &Contact) -> Option<Id<Company>> {
        contact.company_id
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by, [`Error::Forbidden`] for a filter by what the viewer may
/// not see.
pub fn matching(filter: ContactFilter, rights: &Rights) -> Result<Predicate> {
    let at_company = |company| {
        across::<CompanyById, _>(contacts::company_id, rights, || {
            companies::matching(company, rights)
        })
    };
    let own = [
        filter.id.map(|id| id.on(contacts::id)),
        filter.name.map(|name| name.on(contacts::name)),
        filter.email.map(|email| email.on(contacts::email, rights)),
        filter.job_title.map(|title| title.on(contacts::job_title)),
        filter.company_id.map(|company| company.on(contacts::company_id)),
        filter.company.map(at_company),
        filter
            .lifecycle_stage
            .map(|stage| stage.on(contacts::lifecycle_stage)),
        filter
            .record_status
            .map(|status| status.on(contacts::record_status)),
        filter.source.map(|source| source.on(contacts::source)),
        filter.rating.map(|rating| Ok(rating.on(contacts::rating))),
        filter.owner_id.map(|owner| owner.on(contacts::owner_id)),
        filter.created_at.map(|moment| moment.on(contacts::created_at)),
        filter.updated_at.map(|moment| moment.on(contacts::updated_at)),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, |inner| {
        matching(inner, rights)
    })
}

/// The rows of a list: a text that name, e-mail or job title contains, and a filter.
///
/// # Errors
/// As [`matching`].
pub(super) fn listed(
    search: Option<&str>,
    filter: Option<ContactFilter>,
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
        Predicate::sql("find_contacts(lower(?))").bind::<Text, _>(pattern)
    } else {
        // Who may not see an e-mail address would find it out letter by letter.
        let named =
            "(SELECT * FROM find_contacts(lower(?)) AS found WHERE lower(found.name) LIKE lower(?)) AS named";
        Predicate::sql(named)
            .bind::<Text, _>(pattern.clone())
            .bind::<Text, _>(pattern)
    };
    Ok(listing.found_by(search))
}

/// Reads a contact and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such contact.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<Contact>, field: &str) -> Result<Contact> {
    let found = contacts::table
        .filter(contacts::id.eq(id))
        .select(Contact::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such contact."))
}

/// Adds a contact.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub async fn insert(tx: &Transaction, contact: &Contact) -> Result<()> {
    diesel::insert_into(contacts::table)
        .values(contact)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Adds many contacts at once.
///
/// # Errors
/// As user errors when one refers to what does not exist.
pub async fn insert_all(tx: &Transaction, rows: &[Contact]) -> Result<()> {
    statement(
        "INSERT INTO contacts (id, name, email, phone, job_title, company_id, lifecycle_stage, record_status, source, rating,
             notes, owner_id, created_at, updated_at, version)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .column::<SqlUuid, _, _>(rows, |row| row.id)
    .column::<Text, _, _>(rows, |row| &row.name)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.email)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.phone)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.job_title)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.company_id)
    .column::<Text, _, _>(rows, |row| row.lifecycle_stage)
    .column::<Text, _, _>(rows, |row| row.record_status)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.source)
    .column::<Nullable<Integer>, _, _>(rows, |row| row.rating)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.notes)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.owner_id)
    .column::<Timestamptz, _, _>(rows, |row| row.created_at)
    .column::<Timestamptz, _, _>(rows, |row| row.updated_at)
    .column::<Integer, _, _>(rows, |row| row.version)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed contact; its version and time of change are already new.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub(super) async fn update(tx: &Transaction, contact: &Contact) -> Result<()> {
    statement(
        "UPDATE contacts SET name = ?, email = ?, phone = ?, job_title = ?, company_id = ?, lifecycle_stage = ?,
                record_status = ?, source = ?, rating = ?, notes = ?, owner_id = ?, updated_at = ?, version = ?
          WHERE id = ?",
    )
    .bind::<Text, _>(&contact.name)
    .bind::<Nullable<Text>, _>(&contact.email)
    .bind::<Nullable<Text>, _>(&contact.phone)
    .bind::<Nullable<Text>, _>(&contact.job_title)
    .bind::<Nullable<SqlUuid>, _>(contact.company_id)
    .bind::<Text, _>(contact.lifecycle_stage)
    .bind::<Text, _>(contact.record_status)
    .bind::<Nullable<Text>, _>(&contact.source)
    .bind::<Nullable<Integer>, _>(contact.rating)
    .bind::<Nullable<Text>, _>(&contact.notes)
    .bind::<Nullable<SqlUuid>, _>(contact.owner_id)
    .bind::<Timestamptz, _>(contact.updated_at)
    .bind::<Integer, _>(contact.version)
    .bind::<SqlUuid, _>(contact.id)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes a contact that nothing depends on.
///
/// # Errors
/// As a user error when deals or interactions refer to it.
pub(super) async fn delete(tx: &Transaction, id: Id<Contact>) -> Result<()> {
    use crate::db::schema::{deals, interactions};
    let mut conn = tx.conn();
    // The locked row keeps new references out until the transaction ends.
    let (deal, interaction): (bool, bool) = diesel::select((
        diesel::dsl::exists(deals::table.filter(deals::contact_id.eq(id))),
        diesel::dsl::exists(interactions::table.filter(interactions::contact_id.eq(id))),
    ))
    .get_result(&mut conn)
    .await?;
    let used: Vec<&str> = [(deal, "deals"), (interaction, "interactions")]
        .into_iter()
        .filter_map(|(used, what)| used.then_some(what))
        .collect();
    if !used.is_empty() {
        let message = format!(
            "The contact still has {}. Move or delete them first.",
            used.join(" and ")
        );
        return Err(Error::Invalid(vec![Problem::new(
            "contactId",
            ProblemCode::InUse,
            message,
        )]));
    }
    diesel::delete(contacts::table.filter(contacts::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}
