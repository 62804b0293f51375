//! All SQL about interactions.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::model::InteractionOrderField;
use super::types::InteractionFilter;
use super::{Interaction, InteractionDirection};
use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::deals::Deal;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::interactions;
use crate::db::select::{Predicate, by_ids};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::graphql::connection::Children;
use crate::graphql::filter::{EnumFilter, combine};

/// Loads interactions by their ids.
pub struct InteractionById;

impl Batch for InteractionById {
    type Key = Id<Interaction>;
    type Value = Arc<Interaction>;
    const READ: Permission = Permission::InteractionsRead;

    async fn load(
        reader: Reader<'_>,
        keys: &[Id<Interaction>],
    ) -> Result<ByKey<Id<Interaction>, Arc<Interaction>>> {
        by_ids(reader, keys).await
    }
}

/// The interactions with a contact, latest first.
pub struct InteractionsByContact;

impl Children for InteractionsByContact {
    type Parent = Contact;
    type Row = Interaction;
    const READ: Permission = Permission::InteractionsRead;
    const COLUMN: &'static str = "contact_id";
    const ORDER: InteractionOrderField = InteractionOrderField::OccurredAt;

    fn parent_of(interaction: &Interaction) -> Option<Id<Contact>> {
        interaction.contact_id
    }
}

/// The interactions with a company, latest first.
pub struct InteractionsByCompany;

impl Children for InteractionsByCompany {
    type Parent = Company;
    type Row = Interaction;
    const READ: Permission = Permission::InteractionsRead;
    const COLUMN: &'static str = "company_id";
    const ORDER: InteractionOrderField = InteractionOrderField::OccurredAt;

    fn parent_of(interaction: &Interaction) -> Option<Id<Company>> {
        interaction.company_id
    }
}

/// The interactions about a deal, latest first.
pub struct InteractionsByDeal;

impl Children for InteractionsByDeal {
    type Parent = Deal;
    type Row = Interaction;
    const READ: Permission = Permission::InteractionsRead;
    const COLUMN: &'static str = "deal_id";
    const ORDER: InteractionOrderField = InteractionOrderField::OccurredAt;

    fn parent_of(interaction: &Interaction) -> Option<Id<Deal>> {
        interaction.deal_id
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by.
pub(super) fn matching(filter: InteractionFilter) -> Result<Predicate> {
    let own = [
        filter.id.map(|id| id.on(interactions::id)),
        filter.kind.map(|kind| kind.on(interactions::kind)),
        filter.direction.map(|direction| Ok(directed(direction))),
        filter
            .contact_id
            .map(|contact| contact.on(interactions::contact_id)),
        filter
            .company_id
            .map(|company| company.on(interactions::company_id)),
        filter.deal_id.map(|deal| deal.on(interactions::deal_id)),
        filter
            .created_by_id
            .map(|user| user.on(interactions::created_by_id)),
        filter.subject.map(|subject| subject.on(interactions::subject)),
        filter
            .occurred_at
            .map(|moment| moment.on(interactions::occurred_at)),
        filter
            .scheduled_at
            .map(|moment| moment.on(interactions::scheduled_at)),
        filter
            .completed_at
            .map(|moment| moment.on(interactions::completed_at)),
        filter
            .is_completed
            .map(|done| Ok(Predicate::is_null(interactions::completed_at, !done))),
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, matching)
}

/// The condition on the direction, which, unlike other values of a fixed set, may be missing.
fn directed(filter: EnumFilter<InteractionDirection>) -> Predicate {
    let eq = filter
        .eq
        .map(|value| Predicate::sql("direction = ?").bind::<Text, _>(value));
    let among = filter
        .among
        .map(|values| Predicate::sql("direction = any(?)").bind::<Array<Text>, _>(values));
    Predicate::all(eq.into_iter().chain(among))
}

/// Reads an interaction and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such interaction.
pub(super) async fn find_for_update(
    tx: &Transaction,
    id: Id<Interaction>,
    field: &str,
) -> Result<Interaction> {
    let found = interactions::table
        .filter(interactions::id.eq(id))
        .select(Interaction::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such interaction."))
}

/// Adds an interaction.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub async fn insert(tx: &Transaction, interaction: &Interaction) -> Result<()> {
    diesel::insert_into(interactions::table)
        .values(interaction)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Adds many interactions at once.
///
/// # Errors
/// As user errors when one refers to what does not exist.
pub async fn insert_all(tx: &Transaction, rows: &[Interaction]) -> Result<()> {
    statement(
        "INSERT INTO interactions (id, kind, direction, channel, subject, content, outcome, next_action, scheduled_at,
             occurred_at, completed_at, contact_id, company_id, deal_id, created_by_id, created_at,
             updated_at, version)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .column::<SqlUuid, _, _>(rows, |row| row.id)
    .column::<Text, _, _>(rows, |row| row.kind)
    .column::<Nullable<Text>, _, _>(rows, |row| row.direction)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.channel)
    .column::<Text, _, _>(rows, |row| &row.subject)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.content)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.outcome)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.next_action)
    .column::<Nullable<Timestamptz>, _, _>(rows, |row| row.scheduled_at)
    .column::<Timestamptz, _, _>(rows, |row| row.occurred_at)
    .column::<Nullable<Timestamptz>, _, _>(rows, |row| row.completed_at)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.contact_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.company_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.deal_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.created_by_id)
    .column::<Timestamptz, _, _>(rows, |row| row.created_at)
    .column::<Timestamptz, _, _>(rows, |row| row.updated_at)
    .column::<Integer, _, _>(rows, |row| row.version)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed interaction; its version and time of change are already new.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub(super) async fn update(tx: &Transaction, interaction: &Interaction) -> Result<()> {
    statement(
        "UPDATE interactions SET kind = ?, direction = ?, channel = ?, subject = ?, content = ?, outcome = ?,
                next_action = ?, scheduled_at = ?, occurred_at = ?, completed_at = ?, contact_id = ?, company_id = ?,
                deal_id = ?, updated_at = ?, version = ?
          WHERE id = ?",
    )
    .bind::<Text, _>(interaction.kind)
    .bind::<Nullable<Text>, _>(interaction.direction)
    .bind::<Nullable<Text>, _>(&interaction.channel)
    .bind::<Text, _>(&interaction.subject)
    .bind::<Nullable<Text>, _>(&interaction.content)
    .bind::<Nullable<Text>, _>(&interaction.outcome)
    .bind::<Nullable<Text>, _>(&interaction.next_action)
    .bind::<Nullable<Timestamptz>, _>(interaction.scheduled_at)
    .bind::<Timestamptz, _>(interaction.occurred_at)
    .bind::<Nullable<Timestamptz>, _>(interaction.completed_at)
    .bind::<Nullable<SqlUuid>, _>(interaction.contact_id)
    .bind::<Nullable<SqlUuid>, _>(interaction.company_id)
    .bind::<Nullable<SqlUuid>, _>(interaction.deal_id)
    .bind::<Timestamptz, _>(interaction.updated_at)
    .bind::<Integer, _>(interaction.version)
    .bind::<SqlUuid, _>(interaction.id)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes an interaction; nothing depends on one.
///
/// # Errors
/// When the database fails.
pub(super) async fn delete(tx: &Transaction, id: Id<Interaction>) -> Result<()> {
    diesel::delete(interactions::table.filter(interactions::id.eq(id)))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}
