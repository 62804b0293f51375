//! Pipelines and stages as they are kept.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Permission;
use crate::db::asked::Stored;
use crate::db::id::{Id, Kind};
use crate::db::schema::{pipeline_stages, pipelines};
use crate::db::select::{Listed, SortColumn, SortValue};
use crate::db::text_enum::text_enum;
use crate::graphql::change::Followed;

/// A way that deals go, stage by stage.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = pipelines)]
pub struct Pipeline {
    pub id: Id<Pipeline>,
    pub name: String,
    /// Whether new deals go here when nothing else is said; one pipeline of a tenant is.
    pub is_default: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

/// A step of a pipeline.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Serialize, Deserialize)]
#[diesel(table_name = pipeline_stages)]
pub struct PipelineStage {
    pub id: Id<PipelineStage>,
    pub pipeline_id: Id<Pipeline>,
    pub name: String,
    /// Place in the pipeline, counted from 1.
    pub position: i32,
    pub kind: StageKind,
    /// In percent.
    pub win_probability: i32,
    pub rotting_after_days: Option<i32>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i32,
}

text_enum! {
    /// What it means for a deal to be in a stage.
    #[derive(async_graphql::Enum)]
    pub enum StageKind {
        /// The deal is being worked on.
        Open = "OPEN",
        /// The deal is won; entering the stage closes it.
        Won = "WON",
        /// The deal is lost; entering the stage closes it and needs a reason.
        Lost = "LOST",
    }
}

/// The stages of a new tenant's pipeline: name, kind, win probability in percent.
pub const DEFAULT_STAGES: [(&str, StageKind, i32); 6] = [
    ("Prospect", StageKind::Open, 10),
    ("Qualification", StageKind::Open, 20),
    ("Proposal", StageKind::Open, 50),
    ("Negotiation", StageKind::Open, 80),
    ("Closed Won", StageKind::Won, 100),
    ("Closed Lost", StageKind::Lost, 0),
];

impl Kind for Pipeline {
    const PREFIX: &'static str = "pipeline";
}

impl Kind for PipelineStage {
    const PREFIX: &'static str = "stage";
}

impl Followed for Pipeline {
    const READ: Permission = Permission::PipelinesRead;
    const FIELDS: &'static [&'static str] = &["name", "isDefault"];
}

impl Followed for PipelineStage {
    const READ: Permission = Permission::PipelinesRead;
    const FIELDS: &'static [&'static str] = &[
        "pipelineId",
        "name",
        "kind",
        "winProbability",
        "rottingAfterDays",
        "position",
    ];
}

/// What pipelines can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, async_graphql::Enum)]
pub enum PipelineOrderField {
    /// When the pipeline was added.
    CreatedAt,
    /// The name.
    Name,
}

impl Stored for PipelineStage {
    const TABLE: &'static str = "pipeline_stages";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Stored for Pipeline {
    const TABLE: &'static str = "pipelines";

    fn row_id(&self) -> Uuid {
        self.id.uuid()
    }
}

impl Listed for Pipeline {
    type Order = PipelineOrderField;

    fn order_column(order: PipelineOrderField) -> SortColumn {
        match order {
            PipelineOrderField::CreatedAt => SortColumn::Time("created_at"),
            PipelineOrderField::Name => SortColumn::Text("name"),
        }
    }

    fn order_value(&self, order: PipelineOrderField) -> SortValue {
        match order {
            PipelineOrderField::CreatedAt => SortValue::Time(self.created_at.timestamp_micros()),
            PipelineOrderField::Name => SortValue::Text(self.name.clone()),
        }
    }
}
