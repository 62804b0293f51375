//! Teams in the schema.

use async_graphql::{Context, Object};

use super::model::ByName;
use super::queries::MembersByTeam;
use super::{Team, TeamById, TeamMember};
use crate::auth::Permission;
use crate::db::id::Id;
use crate::db::select::Predicate;
use crate::error::Result;
use crate::graphql::connection::{Cursor, paged};
use crate::graphql::scalar::DateTime;
use crate::graphql::{Can, Connection, ContextExt, OrderDirection, PageArgs, Record};
use crate::identity::{User, UserById};

/// A group of users. Whoever has a role whose scope is `TEAM` sees their own records and those of everybody, leads and
/// others alike, in the teams that they lead or belong to.
#[Object]
impl Team {
    /// The team's id, for example `team_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> Id<Team> {
        self.id
    }

    /// The team's name.
    async fn name(&self) -> &str {
        &self.name
    }

    /// Who is in the team, leads first.
    async fn members(&self, ctx: &Context<'_>) -> Result<Vec<TeamMember>> {
        let members = ctx.load::<MembersByTeam>(self.id).await?;
        Ok(members.map(|members| members.to_vec()).unwrap_or_default())
    }

    /// When the team was added.
    async fn created_at(&self) -> DateTime {
        self.created_at.into()
    }

    /// When the team was last changed.
    async fn updated_at(&self) -> DateTime {
        self.updated_at.into()
    }

    /// Counts the changes of the team. Pass it as `expectedVersion` so as not to overwrite somebody else's change.
    async fn version(&self) -> i32 {
        self.version
    }
}

/// A user's place in a team.
#[Object]
impl TeamMember {
    /// The user.
    async fn user(&self, ctx: &Context<'_>) -> Option<Result<Record<User>>> {
        ctx.relation::<UserById>(self.user_id).await
    }

    /// Whether the user leads the team.
    async fn is_lead(&self) -> bool {
        self.is_lead
    }
}

/// Teams at the root of the schema.
#[derive(Default)]
pub struct TeamQuery;

#[Object]
impl TeamQuery {
    /// A team by its id; null when there is none.
    async fn team(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the team.")] id: Id<Team>,
    ) -> Option<Result<Record<Team>>> {
        ctx.find::<TeamById>(Permission::UsersRead, id).await
    }

    /// The tenant's teams, by name.
    #[graphql(guard = "Can(Permission::UsersRead)")]
    async fn teams(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many: 1 to 100, by default 25.")] first: Option<i32>,
        #[graphql(desc = "Begin after this place.")] after: Option<Cursor>,
        #[graphql(desc = "The last so many: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "End before this place.")] before: Option<Cursor>,
    ) -> Result<Connection<Team>> {
        let args = PageArgs::new(first, after, last, before);
        paged(ctx, args, (ByName, OrderDirection::Asc), || {
            Ok(Predicate::default())
        })
        .await
    }
}
