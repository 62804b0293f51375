//! A deal as it is kept, and what moving it means.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::Permission;
use crate::crm::companies::Company;
use crate::crm::contacts::Contact;
use crate::crm::pipelines::{Pipeline, PipelineStage, StageKind};
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::reach::Resource;
use crate::db::schema::{deal_stage_changes, deals};
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::db::text_enum::text_enum;
use crate::events::Event;
use crate::graphql::change::{self, FieldChange, Followed};
use crate::graphql::reach::Belongs;
use crate::graphql::scalar::{CurrencyCode, Money};
use crate::identity::User;

/// A sales opportunity on a pipeline.
#[derive(Debug, Clone, Queryable, Selectable, QueryableByName, Insertable, Serialize, Deserialize)]
#[diesel(table_name = deals)]
pub struct Deal {
    pub id: Id<Deal>,
    pub pipeline_id: Id<Pipeline>,
    pub stage_id: Id<PipelineStage>,
    pub name: String,
    /// In minor units of the currency.
    pub amount: i64,
    pub currency_code: CurrencyCode,
    pub status: DealStatus,
    /// In percent.
    pub win_probability: i32,
    pub contact_id: Option<Id<Contact>>,
    pub company_id: Option<Id<Company>>,
    pub owner_id: Option<Id<User>>,
    pub expected_close_date: Option<NaiveDate>,
    pub stage_entered_at: DateTime<Utc>,
    /// There when, and only when, the deal is not open.
    pub closed_at: Option<DateTime<Utc>>,
    /// There when, and only when, the deal is lost.
    pub lost_reason: Option<String>,
    pub next_step: Option<String>,
    pub description: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// A deal's stay in a stage.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = deal_stage_changes)]
pub struct DealStageChange {
    pub id: Id<DealStageChange>,
    pub deal_id: Id<Deal>,
    /// None for the stage that the deal began in.
    pub from_stage_id: Option<Id<PipelineStage>>,
    pub to_stage_id: Id<PipelineStage>,
    pub entered_at: DateTime<Utc>,
    /// None while the deal is in the stage.
    pub exited_at: Option<DateTime<Utc>>,
    pub changed_by_id: Option<Id<User>>,
    pub lost_reason: Option<String>,
}

/// What the history calls a move from stage to stage.
pub(super) const STAGE_CHANGED: &str = "STAGE_CHANGED";

/// What the history keeps of a move from stage to stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageMove {
    pub pipeline_id: Id<Pipeline>,
    /// The owner at the moment of the move.
    pub owner_id: Option<Id<User>>,
    pub from_stage_id: Id<PipelineStage>,
    pub to_stage_id: Id<PipelineStage>,
    pub stage_change_id: Id<DealStageChange>,
    pub status: DealStatus,
    pub version: i32,
}

text_enum! {
    /// How a deal stands.
    #[derive(async_graphql::Enum)]
    pub enum DealStatus {
        /// The deal is being worked on.
        Open = "OPEN",
        /// The deal was won.
        Won = "WON",
        /// The deal was lost.
        Lost = "LOST",
    }
}

impl From<StageKind> for DealStatus {
    fn from(kind: StageKind) -> Self {
        match kind {
            StageKind::Open => Self::Open,
            StageKind::Won => Self::Won,
            StageKind::Lost => Self::Lost,
        }
    }
}

impl Deal {
    /// Puts the deal into a stage of its pipeline: entering a won or lost stage closes it, an open one reopens it.
    pub fn enter(&mut self, stage: &PipelineStage, lost_reason: Option<String>, now: DateTime<Utc>) {
        self.stage_id = stage.id;
        self.status = stage.kind.into();
        self.win_probability = stage.win_probability;
        self.stage_entered_at = now;
        self.lost_reason = lost_reason.filter(|_| self.status == DealStatus::Lost);
        self.closed_at = (self.status != DealStatus::Open).then_some(now);
    }

    /// The entry that the way of a new deal begins with.
    pub fn first_entry(&self, by: Option<Id<User>>) -> DealStageChange {
        DealStageChange {
            id: Id::generate(),
            deal_id: self.id,
            from_stage_id: None,
            to_stage_id: self.stage_id,
            entered_at: self.stage_entered_at,
            exited_at: None,
            changed_by_id: by,
            lost_reason: self.lost_reason.clone(),
        }
    }

    /// Moves the deal to another stage of its pipeline. Answers the new entry of its way, and what the history keeps of
    /// the move, made together so that they cannot disagree.
    pub fn move_to(
        &mut self,
        stage: &PipelineStage,
        lost_reason: Option<String>,
        now: DateTime<Utc>,
        by: Option<Id<User>>,
    ) -> (DealStageChange, StageMove) {
        let from_stage_id = self.stage_id;
        self.enter(stage, lost_reason, now);
        self.version += 1;
        self.updated_at = now;
        let change = DealStageChange {
            from_stage_id: Some(from_stage_id),
            ..self.first_entry(by)
        };
        let moved = StageMove {
            pipeline_id: self.pipeline_id,
            owner_id: self.owner_id,
            from_stage_id,
            to_stage_id: stage.id,
            stage_change_id: change.id,
            status: self.status,
            version: self.version,
        };
        (change, moved)
    }
}

impl Kind for Deal {
    const PREFIX: &'static str = "deal";
}

impl Followed for Deal {
    const READ: Permission = Permission::DealsRead;
    const BELONGS: Option<Belongs> = Some(Belongs {
        resource: Resource::Deals,
        owner: "ownerId",
        about: &[],
    });
    const FIELDS: &'static [&'static str] = &[
        "name",
        "amount",
        "pipelineId",
        "stageId",
        "winProbability",
        "contactId",
        "companyId",
        "ownerId",
        "expectedCloseDate",
        "nextStep",
        "description",
        "lostReason",
    ];

    fn value(deal: &Value, field: &str) -> Value {
        let value = change::kept(deal, field);
        // The history has minor units, as the table has them.
        match (
            field,
            value.as_i64(),
            deal["currency_code"].as_str().and_then(CurrencyCode::find),
        ) {
            ("amount", Some(units), Some(currency)) => json!(Money::from_minor(units, currency)),
            _ => value,
        }
    }

    fn changes(event: &Event) -> Vec<FieldChange> {
        match event.kind.as_str() {
            STAGE_CHANGED => {
                let [from, to] = ["from_stage_id", "to_stage_id"].map(|stage| event.change[stage].clone());
                vec![FieldChange::new("stageId", from, to)]
            }
            _ => change::of_fields::<Self>(event),
        }
    }
}

impl Kind for DealStageChange {
    const PREFIX: &'static str = "stage_change";
}

/// What deals can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum DealOrderField {
    /// When the deal was added.
    CreatedAt,
    /// When the deal was last changed.
    UpdatedAt,
    /// The name.
    Name,
    /// The number of the amount, whatever its currency: filter by currency to compare like with like.
    Amount,
}

impl Stored for Deal {
    const TABLE: &'static str = "deals";
    const OPTIONAL: &'static [&'static [&'static str]] = &[
        &["contact_id"],
        &["company_id", "owner_id"],
        &[
            "expected_close_date",
            "closed_at",
            "lost_reason",
            "next_step",
            "description",
        ],
    ];

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Deal {
    type Order = DealOrderField;

    fn order_column(order: DealOrderField) -> SortColumn {
        match order {
            DealOrderField::CreatedAt => SortColumn::Time("created_at"),
            DealOrderField::UpdatedAt => SortColumn::Time("updated_at"),
            DealOrderField::Name => SortColumn::Text("name"),
            DealOrderField::Amount => SortColumn::Int("amount"),
        }
    }

    fn order_value(&self, order: DealOrderField) -> SortValue {
        match order {
            DealOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
            DealOrderField::UpdatedAt => SortValue::Time(self.updated_at.timestamp_micros()),
            DealOrderField::Name => SortValue::Text(self.name.clone()),
            DealOrderField::Amount => SortValue::Int(self.amount),
        }
    }
}

/// The one order of a deal's stage changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByEntry;

impl Stored for DealStageChange {
    const TABLE: &'static str = "deal_stage_changes";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for DealStageChange {
    type Order = ByEntry;

    fn order_column(_: ByEntry) -> SortColumn {
        SortColumn::Time("entered_at")
    }

    fn order_value(&self, _: ByEntry) -> SortValue {
        SortValue::Time(self.entered_at.timestamp_micros())
    }
}
