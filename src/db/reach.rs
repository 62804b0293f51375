//! How much of a tenant a session may see: all of it, or of some kinds of record only those of certain owners.
//!
//! A session whose rights are limited runs as [`super::SCOPED_ROLE`], for which restrictive policies exist on those
//! tables. What they compare with is set in the message that begins the transaction, so it costs no round trip, and
//! sessions that see everything run as they always did. Without the settings the role sees nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::session::Transaction;
use super::statement::statement;
use super::text_enum::text_enum;
use super::{RUNTIME_ROLE, SCOPED_ROLE};
use crate::error::Result;

text_enum! {
    /// Whose records are meant.
    pub enum Scope {
        /// One's own.
        Own = "OWN",
        /// One's own, and those of everybody in the teams that one leads or belongs to.
        Team = "TEAM",
        /// All of them, those that nobody owns included.
        All = "ALL",
    }
}

text_enum! {
    /// The kinds of record that belong to somebody, by their tables.
    pub enum Resource {
        Companies = "companies",
        Contacts = "contacts",
        Deals = "deals",
        Interactions = "interactions",
    }
}

/// How far rights reach, for each kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reach([Scope; Resource::ALL.len()]);

impl Reach {
    /// Every record of every kind.
    pub const ALL: Self = Self([Scope::All; Resource::ALL.len()]);

    /// The scope for a kind of record.
    pub const fn of(self, resource: Resource) -> Scope {
        self.0[resource as usize]
    }

    /// The same with another scope for a kind of record.
    #[must_use]
    pub const fn with(mut self, resource: Resource, scope: Scope) -> Self {
        self.0[resource as usize] = scope;
        self
    }

    /// Whether there are records that it does not reach.
    pub fn is_limited(self) -> bool {
        self != Self::ALL
    }

    /// Whether it reaches no further than the other.
    pub fn is_within(self, other: Self) -> bool {
        std::iter::zip(self.0, other.0).all(|(own, other)| own <= other)
    }
}

/// What a session may see: a tenant, or as much of it as a user's rights reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sight {
    tenant: Uuid,
    limits: Option<(Uuid, Reach)>,
}

impl From<Uuid> for Sight {
    /// The whole tenant: for work that is nobody's, and for who reaches everything.
    fn from(tenant: Uuid) -> Self {
        Self { tenant, limits: None }
    }
}

impl Sight {
    /// What a user with this reach sees of a tenant.
    pub fn of(tenant: Uuid, user: Uuid, reach: Reach) -> Self {
        Self {
            tenant,
            limits: reach.is_limited().then_some((user, reach)),
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// Whether there are records of the tenant that it leaves out.
    pub fn is_limited(&self) -> bool {
        self.limits.is_some()
    }

    /// The scope for a kind of record.
    pub fn scope(&self, resource: Resource) -> Scope {
        self.limits.map_or(Scope::All, |(_, reach)| reach.of(resource))
    }

    /// The user whose rights limit it.
    pub fn limited_to(&self) -> Option<Uuid> {
        self.limits.map(|(user, _)| user)
    }

    /// Who owns a new record for which nobody is named: whoever does not see all of them would lose sight of it.
    pub fn default_owner(&self, resource: Resource) -> Option<Uuid> {
        let (user, reach) = self.limits?;
        (reach.of(resource) != Scope::All).then_some(user)
    }

    /// The role that its statements run as.
    pub(super) fn role(&self) -> &'static str {
        if self.is_limited() {
            SCOPED_ROLE
        } else {
            RUNTIME_ROLE
        }
    }

    /// What is said in the message that begins a transaction. The answer to it must be short, whatever is said: nobody
    /// takes it from the driver before the answers to the queries behind it, and the driver keeps no more than two pieces.
    pub(super) fn settings(&self) -> String {
        let tenant = self.tenant;
        let mut sql = format!("SET LOCAL app.tenant_id = '{tenant}'");
        let Some((user, reach)) = self.limits else {
            return sql;
        };
        let mut say =
            |text: std::fmt::Arguments<'_>| sql.write_fmt(text).expect("a text takes what is written");
        say(format_args!("; SET LOCAL ROLE {SCOPED_ROLE}"));
        let mut of_teams = Vec::new();
        for resource in Resource::ALL {
            let setting = format!("app.sees_{}", resource.as_str());
            match reach.of(*resource) {
                Scope::All => say(format_args!("; SET LOCAL {setting} = 'ALL'")),
                Scope::Own => say(format_args!("; SET LOCAL {setting} = '{{{user}}}'")),
                Scope::Team => of_teams.push(setting),
            }
        }
        if !of_teams.is_empty() {
            say(format_args!(
                "; SELECT FROM unnest('{{{}}}'::text[]) AS setting,
                          (SELECT array_agg(id)::text AS ids FROM (
                              SELECT '{user}'::uuid AS id
                              UNION
                              SELECT theirs.user_id FROM team_members mine
                                JOIN team_members theirs USING (tenant_id, team_id)
                               WHERE mine.user_id = '{user}') AS people) AS seen
                    WHERE set_config(setting, seen.ids, true) IS NULL",
                of_teams.join(",")
            ));
        }
        sql
    }
}

#[derive(QueryableByName)]
struct Seen {
    #[diesel(sql_type = Bool)]
    seen: bool,
}

/// Whether the session sees this record. Foreign keys do not ask: they look at everything there is.
///
/// # Errors
/// When the database fails.
pub async fn is_seen(tx: &Transaction, resource: Resource, id: Uuid) -> Result<bool> {
    if tx.sight().scope(resource) == Scope::All {
        return Ok(true);
    }
    let found: Seen = statement(match resource {
        Resource::Companies => "SELECT EXISTS (SELECT FROM companies WHERE id = ?) AS seen",
        Resource::Contacts => "SELECT EXISTS (SELECT FROM contacts WHERE id = ?) AS seen",
        Resource::Deals => "SELECT EXISTS (SELECT FROM deals WHERE id = ?) AS seen",
        Resource::Interactions => "SELECT EXISTS (SELECT FROM interactions WHERE id = ?) AS seen",
    })
    .bind::<SqlUuid, _>(id)
    .get_result(&mut tx.conn())
    .await?;
    Ok(found.seen)
}

/// The users whose records of a kind are seen.
#[derive(Debug)]
pub enum Owners {
    All,
    These(HashSet<Uuid>),
}

#[derive(QueryableByName)]
struct Sees {
    #[diesel(sql_type = Nullable<Text>)]
    companies: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    contacts: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    deals: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    interactions: Option<String>,
}

#[derive(QueryableByName)]
struct Owned {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    owner_id: Uuid,
}

#[derive(QueryableByName)]
struct Together {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    since: DateTime<Utc>,
}

impl Owners {
    /// Reads a setting of the transaction; without one, nobody's records are seen.
    fn read(setting: Option<String>) -> Self {
        match setting.as_deref().unwrap_or_default() {
            "ALL" => Self::All,
            ids => {
                let ids = ids.trim_matches(['{', '}']).split(',');
                Self::These(ids.filter_map(|id| id.parse().ok()).collect())
            }
        }
    }
}

/// Whose records a limited session sees, by the kinds in their order.
///
/// # Errors
/// When the database fails.
pub async fn owners(conn: &AsyncPgConnection) -> Result<[Owners; Resource::ALL.len()]> {
    let sees: Sees = statement(
        "SELECT current_setting('app.sees_companies', true) AS companies,
                current_setting('app.sees_contacts', true) AS contacts,
                current_setting('app.sees_deals', true) AS deals,
                current_setting('app.sees_interactions', true) AS interactions",
    )
    .get_result(&mut &*conn)
    .await?;
    let in_order = [sees.companies, sees.contacts, sees.deals, sees.interactions];
    Ok(in_order.map(Owners::read))
}

/// Of these contacts, companies and deals, those that the session sees and that one of these users owns, with the owner.
///
/// # Errors
/// When the database fails.
pub async fn owned_among(
    conn: &AsyncPgConnection,
    ids: Vec<Uuid>,
    users: &HashSet<Uuid>,
) -> Result<HashMap<Uuid, Uuid>> {
    let users: Vec<Uuid> = users.iter().copied().collect();
    let found: Vec<Owned> = statement(
        "WITH named AS (SELECT unnest(?) AS id), owners AS (SELECT unnest(?) AS owner_id)
         SELECT id, owner_id FROM contacts JOIN named USING (id) JOIN owners USING (owner_id)
         UNION ALL SELECT id, owner_id FROM companies JOIN named USING (id) JOIN owners USING (owner_id)
         UNION ALL SELECT id, owner_id FROM deals JOIN named USING (id) JOIN owners USING (owner_id)",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<SqlUuid>, _>(users)
    .load(&mut &*conn)
    .await?;
    Ok(found
        .into_iter()
        .map(|found| (found.id, found.owner_id))
        .collect())
}

/// Since when each user is in a team with this one. The clocks of instances may differ by a little, so it is a minute
/// earlier.
///
/// # Errors
/// When the database fails.
pub async fn together_since(conn: &AsyncPgConnection, user: Uuid) -> Result<HashMap<Uuid, DateTime<Utc>>> {
    let found: Vec<Together> = statement(
        "SELECT theirs.user_id AS id, min(greatest(mine.since, theirs.since)) - interval '1 minute' AS since
           FROM team_members mine JOIN team_members theirs USING (tenant_id, team_id)
          WHERE mine.user_id = ? GROUP BY theirs.user_id",
    )
    .bind::<SqlUuid, _>(user)
    .load(&mut &*conn)
    .await?;
    Ok(found.into_iter().map(|found| (found.id, found.since)).collect())
}
