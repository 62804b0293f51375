//! All SQL about deals and their way through the stages.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Date, Integer, Nullable, Numeric, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use rust_decimal::Decimal;

use super::model::{ByEntry, Deal, DealOrderField, DealStageChange, STAGE_CHANGED};
use super::types::DealFilter;
use crate::auth::{Permission, Rights};
use crate::crm::companies::{self, Company, CompanyById};
use crate::crm::contacts::{self, Contact, ContactById};
use crate::crm::pipelines::PipelineStage;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{deal_stage_changes, deals};
use crate::db::select::{Predicate, by_ids};
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::events::Work;
use crate::graphql::Batch;
use crate::graphql::connection::Children;
use crate::graphql::filter::{across, combine};
use crate::graphql::scalar::{CurrencyCode, Money};

/// Loads deals by their ids.
pub struct DealById;

impl Batch for DealById {
    type Key = Id<Deal>;
    type Value = Arc<Deal>;
    const READ: Permission = Permission::DealsRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Deal>]) -> Result<ByKey<Id<Deal>, Arc<Deal>>> {
        by_ids(reader, keys).await
    }
}

/// Loads stage changes by their ids.
pub struct StageChangeById;

impl Batch for StageChangeById {
    type Key = Id<DealStageChange>;
    type Value = Arc<DealStageChange>;
    const READ: Permission = Permission::DealsRead;

    async fn load(
        reader: Reader<'_>,
        keys: &[Id<DealStageChange>],
    ) -> Result<ByKey<Id<DealStageChange>, Arc<DealStageChange>>> {
        by_ids(reader, keys).await
    }
}

/// The deals in a stage.
pub struct DealsByStage;

impl Children for DealsByStage {
    type Parent = PipelineStage;
    type Row = Deal;
    const READ: Permission = Permission::DealsRead;
    const COLUMN: &'static str = "stage_id";
    const ORDER: DealOrderField = DealOrderField::CreatedAt;

    fn parent_of(row: &Deal) -> Option<Id<PipelineStage>> {
        Some(row.stage_id)
    }
}

/// The deals with a contact.
pub struct DealsByContact;

impl Children for DealsByContact {
    type Parent = Contact;
    type Row = Deal;
    const READ: Permission = Permission::DealsRead;
    const COLUMN: &'static str = "contact_id";
    const ORDER: DealOrderField = DealOrderField::CreatedAt;

    fn parent_of(row: &Deal) -> Option<Id<Contact>> {
        row.contact_id
    }
}

/// The deals with a company.
pub struct DealsByCompany;

impl Children for DealsByCompany {
    type Parent = Company;
    type Row = Deal;
    const READ: Permission = Permission::DealsRead;
    const COLUMN: &'static str = "company_id";
    const ORDER: DealOrderField = DealOrderField::CreatedAt;

    fn parent_of(row: &Deal) -> Option<Id<Company>> {
        row.company_id
    }
}

/// The way of a deal through the stages.
pub struct StageHistory;

impl Children for StageHistory {
    type Parent = Deal;
    type Row = DealStageChange;
    const READ: Permission = Permission::DealsRead;
    const COLUMN: &'static str = "deal_id";
    const ORDER: ByEntry = ByEntry;

    fn parent_of(row: &DealStageChange) -> Option<Id<Deal>> {
        Some(row.deal_id)
    }
}

/// What the deals of a stage add up to, in each currency.
#[derive(Debug, Clone, Default)]
pub struct Totals(Arc<Vec<CurrencyTotal>>);

#[derive(Debug, QueryableByName)]
struct CurrencyTotal {
    #[diesel(sql_type = SqlUuid)]
    stage_id: Id<PipelineStage>,
    #[diesel(sql_type = Text)]
    currency_code: CurrencyCode,
    #[diesel(sql_type = BigInt)]
    deals: i64,
    #[diesel(sql_type = Numeric)]
    amount: Decimal,
    /// Amounts times probabilities in percent: a hundred times the weighted amount, and exact.
    #[diesel(sql_type = Numeric)]
    weighted_percent: Decimal,
}

impl Totals {
    /// The number of deals, in all currencies.
    pub fn deal_count(&self) -> i64 {
        self.0.iter().map(|total| total.deals).sum()
    }

    /// The sum of the amounts in a currency.
    pub fn amount(&self, currency: CurrencyCode) -> Money {
        Money::from_minor_sum(
            self.of(currency).map(|total| total.amount).unwrap_or_default(),
            currency,
        )
    }

    /// The sum of amounts times probabilities in a currency, rounded to its minor unit, halves away from zero.
    pub fn weighted(&self, currency: CurrencyCode) -> Money {
        let percent = self
            .of(currency)
            .map(|total| total.weighted_percent)
            .unwrap_or_default();
        let units = percent / Decimal::ONE_HUNDRED;
        let strategy = rust_decimal::RoundingStrategy::MidpointAwayFromZero;
        Money::from_minor_sum(units.round_dp_with_strategy(0, strategy), currency)
    }

    /// The currencies that occur.
    pub fn currencies(&self) -> Vec<CurrencyCode> {
        self.0.iter().map(|total| total.currency_code).collect()
    }

    fn of(&self, currency: CurrencyCode) -> Option<&CurrencyTotal> {
        self.0.iter().find(|total| total.currency_code == currency)
    }
}

/// Adds up the deals of stages, all of a board in one statement that reads an index alone.
pub struct StageTotals;

impl Batch for StageTotals {
    type Key = Id<PipelineStage>;
    type Value = Totals;
    const READ: Permission = Permission::DealsRead;

    async fn load(conn: Reader<'_>, keys: &[Id<PipelineStage>]) -> Result<ByKey<Id<PipelineStage>, Totals>> {
        let rows: Vec<CurrencyTotal> = statement(
            "SELECT stage.id AS stage_id, total.*
               FROM unnest(?) AS stage (id) CROSS JOIN LATERAL (
                    SELECT currency_code, count(*) AS deals, sum(amount) AS amount,
                           sum(amount * win_probability) AS weighted_percent
                      FROM deals WHERE stage_id = stage.id GROUP BY currency_code) AS total
              ORDER BY stage.id, deals DESC, currency_code",
        )
        .bind::<diesel::sql_types::Array<SqlUuid>, _>(keys.to_vec())
        .load(&mut &*conn)
        .await?;
        let mut totals: ByKey<Id<PipelineStage>, Vec<CurrencyTotal>> = ByKey::default();
        for row in rows {
            totals.entry(row.stage_id).or_default().push(row);
        }
        Ok(totals
            .into_iter()
            .map(|(stage, totals)| (stage, Totals(Arc::new(totals))))
            .collect())
    }
}

/// The condition that a filter stands for.
///
/// # Errors
/// [`Error::BadInput`] for values that no list can be filtered by, [`Error::Forbidden`] for a filter by what the viewer may
/// not see.
pub fn matching(filter: DealFilter, rights: &Rights) -> Result<Predicate> {
    let contact = filter.contact.map(|contact| {
        across::<ContactById, _>(deals::contact_id, rights, || contacts::matching(*contact, rights))
    });
    let company = filter.company.map(|company| {
        across::<CompanyById, _>(deals::company_id, rights, || {
            companies::matching(*company, rights)
        })
    });
    let own = [
        filter.id.map(|id| id.on(deals::id)),
        filter.name.map(|name| name.on(deals::name)),
        filter.status.map(|status| status.on(deals::status)),
        filter.pipeline_id.map(|pipeline| pipeline.on(deals::pipeline_id)),
        filter.stage_id.map(|stage| stage.on(deals::stage_id)),
        filter.contact_id.map(|contact| contact.on(deals::contact_id)),
        filter.company_id.map(|company| company.on(deals::company_id)),
        filter.owner_id.map(|owner| owner.on(deals::owner_id)),
        filter
            .amount
            .map(|amount| amount.on(deals::amount, deals::currency_code)),
        filter
            .win_probability
            .map(|percent| Ok(percent.on(deals::win_probability))),
        filter
            .expected_close_date
            .map(|day| day.on(deals::expected_close_date)),
        filter.closed_at.map(|moment| moment.on(deals::closed_at)),
        filter.created_at.map(|moment| moment.on(deals::created_at)),
        filter.updated_at.map(|moment| moment.on(deals::updated_at)),
        contact,
        company,
    ];
    let own = own.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    combine(own, filter.and, filter.or, filter.not, |inner| {
        matching(inner, rights)
    })
}

/// Reads a deal and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `field` when there is no such deal.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<Deal>, field: &str) -> Result<Deal> {
    let found = deals::table
        .filter(deals::id.eq(id))
        .select(Deal::as_select())
        .for_update()
        .first(&mut tx.conn())
        .await
        .optional()?;
    found.ok_or_else(|| Error::invalid(field, ProblemCode::NotFound, "There is no such deal."))
}

/// Adds a deal, with the first entry of its way.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub async fn insert(tx: &Transaction, deal: &Deal, first: &DealStageChange) -> Result<()> {
    // One after the other: the entry refers to the deal.
    diesel::insert_into(deals::table)
        .values(deal)
        .execute(&mut tx.conn())
        .await?;
    insert_stage_change(tx, first).await
}

/// Adds many deals at once; the entries of their ways follow with [`insert_all_stage_changes`].
///
/// # Errors
/// As user errors when one refers to what does not exist.
pub async fn insert_all(tx: &Transaction, rows: &[Deal]) -> Result<()> {
    statement(
        "INSERT INTO deals (id, pipeline_id, stage_id, name, amount, currency_code, status, win_probability, contact_id,
             company_id, owner_id, expected_close_date, stage_entered_at, closed_at, lost_reason, next_step,
             description, created_at, updated_at, version)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .column::<SqlUuid, _, _>(rows, |row| row.id)
    .column::<SqlUuid, _, _>(rows, |row| row.pipeline_id)
    .column::<SqlUuid, _, _>(rows, |row| row.stage_id)
    .column::<Text, _, _>(rows, |row| &row.name)
    .column::<BigInt, _, _>(rows, |row| row.amount)
    .column::<Text, _, _>(rows, |row| row.currency_code)
    .column::<Text, _, _>(rows, |row| row.status)
    .column::<Integer, _, _>(rows, |row| row.win_probability)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.contact_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.company_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.owner_id)
    .column::<Nullable<Date>, _, _>(rows, |row| row.expected_close_date)
    .column::<Timestamptz, _, _>(rows, |row| row.stage_entered_at)
    .column::<Nullable<Timestamptz>, _, _>(rows, |row| row.closed_at)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.lost_reason)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.next_step)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.description)
    .column::<Timestamptz, _, _>(rows, |row| row.created_at)
    .column::<Timestamptz, _, _>(rows, |row| row.updated_at)
    .column::<Integer, _, _>(rows, |row| row.version)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Adds the ways of many deals at once.
///
/// # Errors
/// As user errors when one refers to what does not exist.
pub async fn insert_all_stage_changes(tx: &Transaction, rows: &[DealStageChange]) -> Result<()> {
    statement(
        "INSERT INTO deal_stage_changes (id, deal_id, from_stage_id, to_stage_id, entered_at, exited_at, changed_by_id, lost_reason)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .column::<SqlUuid, _, _>(rows, |row| row.id)
    .column::<SqlUuid, _, _>(rows, |row| row.deal_id)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.from_stage_id)
    .column::<SqlUuid, _, _>(rows, |row| row.to_stage_id)
    .column::<Timestamptz, _, _>(rows, |row| row.entered_at)
    .column::<Nullable<Timestamptz>, _, _>(rows, |row| row.exited_at)
    .column::<Nullable<SqlUuid>, _, _>(rows, |row| row.changed_by_id)
    .column::<Nullable<Text>, _, _>(rows, |row| &row.lost_reason)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Moves a locked deal to another stage of its pipeline: the deal, the way behind it, and the event.
///
/// # Errors
/// When the database fails.
pub async fn move_to_stage(
    work: &mut Work,
    deal: &mut Deal,
    stage: &PipelineStage,
    lost_reason: Option<String>,
) -> Result<DealStageChange> {
    // Neither a clock that was set back nor a wait for the deal makes a stay end before it began, or the event tell another
    // time than the history.
    if work.now() <= deal.stage_entered_at {
        work.go_on_as(
            work.actor_id(),
            deal.stage_entered_at + TimeDelta::microseconds(1),
        );
    }
    let now = work.now();
    let (change, moved) = deal.move_to(stage, lost_reason, now, work.actor_id().map(Id::from_uuid));
    let exited = exit_stage(work, deal.id, now);
    futures::try_join!(update(work, deal), exited, insert_stage_change(work, &change))?;
    work.record(deal.id, STAGE_CHANGED, &moved)?;
    Ok(change)
}

async fn exit_stage(tx: &Transaction, deal: Id<Deal>, now: DateTime<Utc>) -> Result<()> {
    statement("UPDATE deal_stage_changes SET exited_at = ? WHERE deal_id = ? AND exited_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<SqlUuid, _>(deal)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

async fn insert_stage_change(tx: &Transaction, change: &DealStageChange) -> Result<()> {
    diesel::insert_into(deal_stage_changes::table)
        .values(change)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Writes a changed deal; its version and time of change are already new.
///
/// # Errors
/// As user errors when it refers to what does not exist.
pub(super) async fn update(tx: &Transaction, deal: &Deal) -> Result<()> {
    statement(
        "UPDATE deals SET stage_id = ?, name = ?, amount = ?, currency_code = ?, status = ?, win_probability = ?,
                contact_id = ?, company_id = ?, owner_id = ?, expected_close_date = ?, stage_entered_at = ?,
                closed_at = ?, lost_reason = ?, next_step = ?, description = ?, updated_at = ?, version = ?
          WHERE id = ?",
    )
    .bind::<SqlUuid, _>(deal.stage_id)
    .bind::<Text, _>(&deal.name)
    .bind::<BigInt, _>(deal.amount)
    .bind::<Text, _>(deal.currency_code)
    .bind::<Text, _>(deal.status)
    .bind::<Integer, _>(deal.win_probability)
    .bind::<Nullable<SqlUuid>, _>(deal.contact_id)
    .bind::<Nullable<SqlUuid>, _>(deal.company_id)
    .bind::<Nullable<SqlUuid>, _>(deal.owner_id)
    .bind::<Nullable<Date>, _>(deal.expected_close_date)
    .bind::<Timestamptz, _>(deal.stage_entered_at)
    .bind::<Nullable<Timestamptz>, _>(deal.closed_at)
    .bind::<Nullable<Text>, _>(&deal.lost_reason)
    .bind::<Nullable<Text>, _>(&deal.next_step)
    .bind::<Nullable<Text>, _>(&deal.description)
    .bind::<Timestamptz, _>(deal.updated_at)
    .bind::<Integer, _>(deal.version)
    .bind::<SqlUuid, _>(deal.id)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes a deal and its way through the stages, when no interaction refers to it.
///
/// # Errors
/// As a user error when interactions refer to it.
pub(super) async fn delete(tx: &Transaction, id: Id<Deal>) -> Result<()> {
    use crate::db::schema::interactions;
    let mut conn = tx.conn();
    let used: bool = diesel::select(diesel::dsl::exists(
        interactions::table.filter(interactions::deal_id.eq(id)),
    ))
    .get_result(&mut conn)
    .await?;
    if used {
        let message = "The deal still has interactions. Delete them first, or lose the deal instead.";
        return Err(Error::invalid("dealId", ProblemCode::InUse, message));
    }
    diesel::delete(deals::table.filter(deals::id.eq(id)))
        .execute(&mut conn)
        .await?;
    Ok(())
}
