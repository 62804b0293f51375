//! All SQL about teams.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::model::{Team, TeamMember};
use crate::auth::Permission;
use crate::db::asked::Reader;
use crate::db::id::{ByKey, Id};
use crate::db::schema::{team_members, teams};
use crate::db::select::by_ids;
use crate::db::session::Transaction;
use crate::db::statement::statement;
use crate::error::{Error, ProblemCode, Result};
use crate::graphql::Batch;
use crate::identity::User;

/// Loads teams by their ids.
pub struct TeamById;

impl Batch for TeamById {
    type Key = Id<Team>;
    type Value = Arc<Team>;
    const READ: Permission = Permission::UsersRead;

    async fn load(reader: Reader<'_>, keys: &[Id<Team>]) -> Result<ByKey<Id<Team>, Arc<Team>>> {
        by_ids(reader, keys).await
    }
}

/// Loads who is in teams, leads first.
pub(super) struct MembersByTeam;

impl Batch for MembersByTeam {
    type Key = Id<Team>;
    type Value = Arc<Vec<TeamMember>>;
    const READ: Permission = Permission::UsersRead;

    async fn load(conn: Reader<'_>, keys: &[Id<Team>]) -> Result<ByKey<Id<Team>, Self::Value>> {
        let found: Vec<(Id<Team>, TeamMember)> = team_members::table
            .filter(team_members::team_id.eq_any(keys))
            .order((team_members::is_lead.desc(), team_members::user_id))
            .select((team_members::team_id, TeamMember::as_select()))
            .load(&mut &*conn)
            .await?;
        let mut members: ByKey<Id<Team>, Vec<TeamMember>> = ByKey::default();
        for (team, member) in found {
            members.entry(team).or_default().push(member);
        }
        Ok(members
            .into_iter()
            .map(|(team, members)| (team, Arc::new(members)))
            .collect())
    }
}

/// Loads the teams that users are in, by name.
pub struct TeamsByUser;

impl Batch for TeamsByUser {
    type Key = Id<User>;
    type Value = Arc<Vec<Arc<Team>>>;
    const READ: Permission = Permission::UsersRead;

    async fn load(conn: Reader<'_>, keys: &[Id<User>]) -> Result<ByKey<Id<User>, Self::Value>> {
        let found: Vec<(Id<User>, Team)> = team_members::table
            .inner_join(
                teams::table.on(teams::tenant_id
                    .eq(team_members::tenant_id)
                    .and(teams::id.eq(team_members::team_id))),
            )
            .filter(team_members::user_id.eq_any(keys))
            .order((teams::name, teams::id))
            .select((team_members::user_id, Team::as_select()))
            .load(&mut &*conn)
            .await?;
        let mut of: ByKey<Id<User>, Vec<Arc<Team>>> = ByKey::default();
        for (user, team) in found {
            of.entry(user).or_default().push(Arc::new(team));
        }
        Ok(of
            .into_iter()
            .map(|(user, teams)| (user, Arc::new(teams)))
            .collect())
    }
}

/// Reads a team with who is in it, and locks it until the end of the transaction.
///
/// # Errors
/// As a user error on `teamId` when there is no such team.
pub(super) async fn find_for_update(tx: &Transaction, id: Id<Team>) -> Result<(Team, Vec<TeamMember>)> {
    let mut conn = tx.conn();
    let found: Option<Team> = teams::table
        .filter(teams::id.eq(id))
        .select(Team::as_select())
        .for_update()
        .first(&mut conn)
        .await
        .optional()?;
    let team =
        found.ok_or_else(|| Error::invalid("teamId", ProblemCode::NotFound, "There is no such team."))?;
    let members = team_members::table
        .filter(team_members::team_id.eq(id))
        .order(team_members::user_id)
        .select(TeamMember::as_select())
        .load(&mut conn)
        .await?;
    Ok((team, members))
}

/// Adds a team, without anybody in it.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn insert(tx: &Transaction, team: &Team) -> Result<()> {
    diesel::insert_into(teams::table)
        .values(team)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Writes a changed team.
///
/// # Errors
/// As a user error when the name is taken.
pub(super) async fn update(tx: &Transaction, team: &Team) -> Result<()> {
    statement("UPDATE teams SET name = ?, updated_at = ?, version = ? WHERE id = ?")
        .bind::<Text, _>(&team.name)
        .bind::<Timestamptz, _>(team.updated_at)
        .bind::<Integer, _>(team.version)
        .bind::<SqlUuid, _>(team.id)
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}

/// Puts these users into a team, in the place of those who were in it.
///
/// # Errors
/// As a user error when one of them does not exist.
pub(super) async fn set_members(tx: &Transaction, team: Id<Team>, members: &[TeamMember]) -> Result<()> {
    let staying: Vec<_> = members.iter().map(|member| member.user_id).collect();
    let leaving = team_members::table.filter(
        team_members::team_id
            .eq(team)
            .and(team_members::user_id.ne_all(staying)),
    );
    diesel::delete(leaving).execute(&mut tx.conn()).await?;
    // Who stays has been in it since they came.
    statement(
        "INSERT INTO team_members (team_id, user_id, is_lead) SELECT * FROM unnest(?, ?, ?)
         ON CONFLICT (tenant_id, team_id, user_id) DO UPDATE SET is_lead = excluded.is_lead",
    )
    .column::<SqlUuid, _, _>(members, |_| team)
    .column::<SqlUuid, _, _>(members, |member| member.user_id)
    .column::<Bool, _, _>(members, |member| member.is_lead)
    .execute(&mut tx.conn())
    .await?;
    Ok(())
}

/// Deletes a team.
///
/// # Errors
/// When the database fails.
pub(super) async fn delete(tx: &Transaction, id: Id<Team>) -> Result<()> {
    diesel::delete(teams::table.filter(teams::id.eq(id)))
        .execute(&mut tx.conn())
        .await?;
    Ok(())
}
