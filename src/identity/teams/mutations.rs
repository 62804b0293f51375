//! Changing teams.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::{Context, InputObject, MaybeUndefined, Object, SimpleObject};

use super::model::Whole;
use super::{Team, TeamMember, queries};
use crate::auth::{Permission, Viewer};
use crate::db::id::Id;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::input::{Check, Patch};
use crate::graphql::{Can, ContextExt, Outcome, Shown, mutate};
use crate::identity::User;

/// Users in one team at most.
const MAX_MEMBERS: usize = 500;

/// A user's place in a team.
#[derive(Debug, InputObject)]
pub struct TeamMemberInput {
    /// The user.
    user_id: Id<User>,
    /// Whether they lead the team.
    #[graphql(default)]
    is_lead: bool,
}

/// A team to be added.
#[derive(Debug, InputObject)]
pub struct CreateTeamInput {
    /// The name; 200 characters at most. No other team of the tenant has it.
    name: String,
    /// Who is in the team; 500 users at most.
    members: Option<Vec<TeamMemberInput>>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// Changes of a team. What is left out stays as it is.
#[derive(Debug, InputObject)]
pub struct UpdateTeamInput {
    /// The team to change.
    team_id: Id<Team>,
    /// The name; 200 characters at most. No other team of the tenant has it.
    name: MaybeUndefined<String>,
    /// Everybody who is in the team from now on; 500 users at most.
    members: MaybeUndefined<Vec<TeamMemberInput>>,
    /// The version that you know. When the team has changed since, nothing is done and `CONFLICT` tells what differs.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// A team to be deleted.
#[derive(Debug, InputObject)]
pub struct DeleteTeamInput {
    /// The team to delete.
    team_id: Id<Team>,
    /// The version that you know. When the team has changed since, nothing is done.
    expected_version: Option<i32>,
    /// A text of your choice that makes a retry safe: the same key and input are answered the same, and done once.
    /// It is remembered for seven days.
    idempotency_key: Option<String>,
}

/// The answer to `createTeam`.
#[derive(SimpleObject)]
pub struct CreateTeamPayload {
    /// The new team; null when there are `userErrors`.
    team: Option<Shown<queries::TeamById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `updateTeam`.
#[derive(SimpleObject)]
pub struct UpdateTeamPayload {
    /// The team as it is now; null when there are `userErrors`.
    team: Option<Shown<queries::TeamById>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The answer to `deleteTeam`.
#[derive(SimpleObject)]
pub struct DeleteTeamPayload {
    /// The id of the team that is no more; null when there are `userErrors`.
    deleted_team_id: Option<Id<Team>>,
    #[graphql(flatten)]
    outcome: Outcome,
}

/// The members in the order of their ids, each once.
fn members(check: &mut Check, given: Vec<TeamMemberInput>) -> Vec<TeamMember> {
    if given.len() > MAX_MEMBERS {
        let message = format!("A team has {MAX_MEMBERS} members at most.");
        check.problem("members", ProblemCode::TooLong, message);
        return Vec::new();
    }
    let mut leads = BTreeMap::new();
    for member in given {
        if leads.insert(member.user_id.uuid(), member.is_lead).is_some() {
            check.problem("members", ProblemCode::Duplicate, "A user is named twice.");
        }
    }
    let member = |(user, is_lead)| TeamMember {
        user_id: Id::from_uuid(user),
        is_lead,
    };
    leads.into_iter().map(member).collect()
}

/// Teams widen what their members see: whoever does not see everything could widen it for themselves.
fn check_reach(viewer: &Viewer) -> Result<()> {
    if viewer.rights.reach().is_limited() {
        let message = "Only who reaches all records can say who is in a team.";
        return Err(Error::invalid("", ProblemCode::NotAllowed, message));
    }
    Ok(())
}

/// Mutations of teams.
#[derive(Default)]
pub struct TeamMutation;

#[Object]
impl TeamMutation {
    /// Adds a team. From now on its members see each other's records, if their role has the scope `TEAM`.
    #[graphql(guard = "Can(Permission::TeamsWrite)")]
    async fn create_team(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to add.")] input: CreateTeamInput,
    ) -> Result<CreateTeamPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (team, outcome) = mutate(ctx, "createTeam", key, async |work| {
            check_reach(viewer)?;
            let mut check = Check::default();
            let team = Team {
                id: Id::generate(),
                name: check.line("name", &input.name),
                created_at: work.now(),
                updated_at: work.now(),
                version: 1,
            };
            let members = members(&mut check, input.members.unwrap_or_default());
            check.done()?;
            queries::insert(work, &team).await?;
            queries::set_members(work, team.id, &members).await?;
            let team = Whole { team, members };
            work.record(team.team.id, "CREATED", &team)?;
            Ok(Arc::new(team.team))
        })
        .await?;
        Ok(CreateTeamPayload {
            team: team.map(Shown),
            outcome,
        })
    }

    /// Changes a team. What its members see changes with their next request, and in subscriptions with the next event.
    #[graphql(guard = "Can(Permission::TeamsWrite)")]
    async fn update_team(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to change.")] input: UpdateTeamInput,
    ) -> Result<UpdateTeamPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (team, outcome) = mutate(ctx, "updateTeam", key, async |work| {
            check_reach(viewer)?;
            let (mut team, mut now) = queries::find_for_update(work, input.team_id).await?;
            let before = now.clone();
            let (mut check, mut patch) = (Check::default(), Patch::default());
            let name = check.given_line("name", input.name);
            patch.set("name", &mut team.name, name);
            let given = check
                .given("members", input.members)
                .map(|given| members(&mut check, given));
            patch.set("members", &mut now, given);
            patch.expect_version(input.expected_version, team.version)?;
            check.done()?;
            if patch.is_empty() {
                return Ok(Arc::new(team));
            }
            team.version += 1;
            team.updated_at = work.now();
            queries::update(work, &team).await?;
            if now != before {
                queries::set_members(work, team.id, &now).await?;
            }
            let team = Whole { team, members: now };
            work.record(team.team.id, "UPDATED", &patch.change(&team))?;
            Ok(Arc::new(team.team))
        })
        .await?;
        Ok(UpdateTeamPayload {
            team: team.map(Shown),
            outcome,
        })
    }

    /// Deletes a team. Its members stay, and no longer see each other's records because of it.
    #[graphql(guard = "Can(Permission::TeamsWrite)")]
    async fn delete_team(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What to delete.")] input: DeleteTeamInput,
    ) -> Result<DeleteTeamPayload> {
        let (key, viewer) = (input.idempotency_key.clone(), ctx.viewer()?);
        let (deleted_team_id, outcome) = mutate(ctx, "deleteTeam", key, async |work| {
            check_reach(viewer)?;
            let (team, members) = queries::find_for_update(work, input.team_id).await?;
            Patch::default().expect_version(input.expected_version, team.version)?;
            queries::delete(work, team.id).await?;
            let team = Whole { team, members };
            work.record(team.team.id, "DELETED", &team)?;
            Ok(team.team.id)
        })
        .await?;
        Ok(DeleteTeamPayload {
            deleted_team_id,
            outcome,
        })
    }
}
