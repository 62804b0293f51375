//! Brings a database to the schema of this binary, and refuses to serve one where tenants would not be kept apart.

use std::collections::HashSet;
use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel::sql_types::{Bool, Nullable, Text};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{
    AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{DIRECTORY_ROLE, Database, RUNTIME_ROLE, SCOPED_ROLE};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Key of the advisory lock that lets one instance migrate at a time: "deal" in ASCII.
const LOCK: i64 = 0x6465_616c;

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

/// Runs the migrations that are missing; an instance that comes second waits for the first.
///
/// # Errors
/// A sentence for the operator.
pub async fn migrate(url: &str) -> Result<usize, String> {
    let mut conn = AsyncPgConnection::establish(url)
        .await
        .map_err(|error| format!("PostgreSQL cannot be reached: {error}"))?;
    if is_current(&mut conn).await {
        return Ok(0);
    }
    let setup = "SET lock_timeout = '15s'; SET client_min_messages = warning";
    conn.batch_execute(setup)
        .await
        .map_err(|error| error.to_string())?;
    let mut told = false;
    // Trying in a loop rather than waiting in PostgreSQL: a blocked session would hold a snapshot, which CREATE INDEX
    // CONCURRENTLY of the first instance waits for in turn.
    loop {
        let taken = diesel::sql_query(format!("SELECT pg_try_advisory_lock({LOCK}) AS yes"))
            .get_result::<Answer>(&mut conn)
            .await
            .map_err(|error| error.to_string())?;
        if taken.yes {
            break;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("another instance is migrating the database; waiting for it");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    make_roles(&mut conn).await?;
    let done = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(conn);
        let done = harness.run_pending_migrations(MIGRATIONS).map(|done| done.len());
        // The lock goes with the connection, which is dropped here.
        done.map_err(|error| format!("the database could not be migrated: {error}"))
    });
    done.await.map_err(|error| error.to_string())?
}

/// Makes the roles, which belong to the whole of PostgreSQL, and lets the login take them; or tells all at once that
/// somebody else has to do for it. Nothing is made then.
async fn make_roles(conn: &mut AsyncPgConnection) -> Result<(), String> {
    let make = format!(
        "DO $$
         DECLARE
             roles name[] := '{{{RUNTIME_ROLE},{DIRECTORY_ROLE},{SCOPED_ROLE}}}';
             -- Since version 16 one may belong to a role, and give it to others, without being able to take it.
             taking text := CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END;
             login name := session_user;
             role name;
             grants text[] := '{{}}';
             made text;
             missing text[] := '{{}}';
             absent name[] := '{{}}';
         BEGIN
             FOREACH role IN ARRAY roles LOOP
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
                     made := format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS', role);
                     BEGIN
                         EXECUTE made;
                     EXCEPTION
                         -- Another database of this PostgreSQL may be migrated at this moment.
                         WHEN duplicate_object OR unique_violation THEN NULL;
                         WHEN insufficient_privilege THEN
                             missing := missing || made;
                             absent := absent || role;
                     END;
                 END IF;
             END LOOP;
             IF (CASE WHEN '{RUNTIME_ROLE}' = ANY (absent) OR '{SCOPED_ROLE}' = ANY (absent) THEN true
                     ELSE NOT pg_has_role('{SCOPED_ROLE}'::name, '{RUNTIME_ROLE}'::name, 'MEMBER') END) THEN
                 grants := grants || text 'GRANT {RUNTIME_ROLE} TO {SCOPED_ROLE}';
             END IF;
             FOREACH role IN ARRAY roles LOOP
                 IF (CASE WHEN role = ANY (absent) THEN true ELSE NOT pg_has_role(login, role, taking) END) THEN
                     grants := grants || format('GRANT %I TO %I', role, login);
                 END IF;
             END LOOP;
             FOREACH made IN ARRAY grants LOOP
                 BEGIN
                     EXECUTE made;
                 EXCEPTION
                     WHEN unique_violation THEN NULL;
                     WHEN insufficient_privilege OR undefined_object THEN missing := missing || made;
                 END;
             END LOOP;
             IF missing <> '{{}}' THEN
                 RAISE EXCEPTION 'The login of DATABASE_URL may not make the roles that keep tenants apart. Let a superuser run: %;',
                     array_to_string(missing, '; ');
             END IF;
         END
         $$"
    );
    conn.batch_execute(&make).await.map_err(|error| error.to_string())
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Whether no migration is missing, as far as the login may know that: then it need not be one that may migrate.
async fn is_current(conn: &mut AsyncPgConnection) -> bool {
    let applied: QueryResult<Vec<Applied>> =
        diesel::sql_query("SELECT version FROM __diesel_schema_migrations")
            .load(conn)
            .await;
    let (Ok(applied), Ok(known)) = (applied, MigrationSource::<Pg>::migrations(&MIGRATIONS)) else {
        return false;
    };
    let applied: HashSet<String> = applied.into_iter().map(|it| it.version).collect();
    known
        .iter()
        .all(|it| applied.contains(&it.name().version().to_string()))
}

#[derive(QueryableByName)]
struct Standing {
    #[diesel(sql_type = Bool)]
    exempt: bool,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Text>)]
    unprotected: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    owned: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    unconfined: Option<String>,
    #[diesel(sql_type = Bool)]
    loose: bool,
    #[diesel(sql_type = Nullable<Text>)]
    leaky: Option<String>,
}

/// Checks, as the role that serves requests, that the database would keep tenants apart.
///
/// # Errors
/// A sentence that says what is wrong and what would mend it.
pub async fn verify_isolation(db: &Database) -> Result<(), String> {
    let unreachable = || {
        format!(
            "The roles {RUNTIME_ROLE}, {SCOPED_ROLE} and {DIRECTORY_ROLE} cannot be used by the login of DATABASE_URL. Let a \
             superuser run `GRANT {RUNTIME_ROLE}, {SCOPED_ROLE}, {DIRECTORY_ROLE} TO <login>` (the migrations create the roles)."
        )
    };
    let mut conn = db.connection().await.map_err(|_| unreachable())?;
    let check = format!("BEGIN; SET LOCAL ROLE {DIRECTORY_ROLE}; SET LOCAL ROLE {SCOPED_ROLE}; ROLLBACK");
    conn.batch_execute(&check).await.map_err(|_| unreachable())?;
    let standing: Standing = diesel::sql_query(format!(
        "SELECT r.rolsuper OR r.rolbypassrls AS exempt, current_user::text AS role,
                (SELECT string_agg(c.relname, ', ') FROM pg_class c
                  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                    AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
                    AND NOT (c.relrowsecurity AND c.relforcerowsecurity)) AS unprotected,
                (SELECT string_agg(c.relname, ', ') FROM pg_class c
                  WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                    AND pg_has_role(current_user, c.relowner, 'USAGE')) AS owned,
                (SELECT string_agg(name, ', ') FROM unnest('{{companies,contacts,deals,deal_stage_changes,interactions}}'::text[]) AS name
                  WHERE NOT EXISTS (SELECT FROM pg_policies p
                         WHERE p.schemaname = current_schema() AND p.tablename = name AND p.permissive = 'RESTRICTIVE'
                           AND p.cmd = 'ALL' AND p.roles = '{{{SCOPED_ROLE}}}')) AS unconfined,
                EXISTS (SELECT FROM pg_roles s WHERE s.rolname = '{SCOPED_ROLE}'
                           AND (s.rolsuper OR s.rolbypassrls OR NOT s.rolinherit)) AS loose,
                (SELECT string_agg(format('%s on %s', p.policyname, p.tablename), ', ') FROM pg_policies p
                  WHERE p.schemaname = current_schema() AND p.permissive = 'PERMISSIVE' AND p.roles <> '{{{DIRECTORY_ROLE}}}'
                    AND (p.policyname <> 'tenant' OR coalesce(p.qual, '') NOT LIKE '%app.tenant_id%'
                         OR coalesce(p.with_check, p.qual, '') NOT LIKE '%app.tenant_id%')) AS leaky
           FROM pg_roles r WHERE r.rolname = current_user",
    ))
    .get_result(&mut conn)
    .await
    .map_err(|error| error.to_string())?;
    if standing.exempt {
        return Err(format!(
            "The role {} is exempt from row-level security; tenants would not be kept apart. \
             Run `ALTER ROLE {} NOSUPERUSER NOBYPASSRLS`.",
            standing.role, standing.role
        ));
    }
    if let Some(tables) = standing.unprotected {
        return Err(format!(
            "Row-level security is not enabled and forced on: {tables}. Tenants would not be kept apart."
        ));
    }
    if standing.loose {
        return Err(format!(
            "The role {SCOPED_ROLE} is exempt from row-level security, or does not inherit from {RUNTIME_ROLE}. \
             Run `ALTER ROLE {SCOPED_ROLE} NOSUPERUSER NOBYPASSRLS INHERIT`."
        ));
    }
    if let Some(tables) = standing.unconfined {
        return Err(format!(
            "The policies that confine {SCOPED_ROLE} are missing on: {tables}. Roles with a limited reach would see too much."
        ));
    }
    if let Some(policies) = standing.leaky {
        return Err(format!(
            "Policies let rows through that are no tenant's own: {policies}. Tenants would not be kept apart. Drop them, as the \
             migrations have not made them like this."
        ));
    }
    if let Some(tables) = standing.owned {
        return Err(format!(
            "The role {} owns tables ({tables}) and could switch their protection off. Let another role own them.",
            standing.role
        ));
    }
    Ok(())
}
