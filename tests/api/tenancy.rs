//! The database keeps tenants apart, whatever the code above it does.

use std::collections::BTreeSet;
use std::time::Duration;

use dealstream::config::Config;
use dealstream::db::id::{read_id, write_id};
use dealstream::db::migrate;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::SimpleAsyncConnection;
use futures::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::config;
use crate::support::cluster::create_database;
use crate::support::recipes::{self, Place, Records, SEARCHES};
use crate::support::{Client, TestApp};

/// The comparison that every policy makes, as PostgreSQL writes it.
const OF_THE_TENANT: &str = "(NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid";

/// The rows of a catalogue query that must have none, as text.
async fn found(app: &TestApp, sql: &str) -> BTreeSet<String> {
    let client = app.superuser().await;
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const TABLES: &str =
    "FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                      AND c.relname <> '__diesel_schema_migrations'";
const OF_TENANTS: &str = "AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))";

#[tokio::test]
async fn every_table_belongs_to_tenants_but_those_of_accounts() {
    let app = TestApp::new().await;
    let others = format!("SELECT c.relname::text {TABLES} AND NOT (true {OF_TENANTS})");
    let documented = set(&[
        "accounts",
        "linked_identities",
        "links",
        "mails",
        "provider_proofs",
        "provider_visits",
        "recovery_codes",
        "second_factors",
        "signing_keys",
    ]);
    assert_eq!(found(&app, &others).await, documented);
    // A view reads with its owner's rights, past the policies.
    let views = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')";
    assert_eq!(found(&app, views).await, set(&[]));
}

#[tokio::test]
async fn row_level_security_is_enabled_and_forced_on_every_table_of_tenants() {
    let app = TestApp::new().await;
    let open = format!(
        "SELECT c.relname::text {TABLES} {OF_TENANTS} AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
    );
    assert_eq!(found(&app, &open).await, set(&[]));
}

#[tokio::test]
async fn every_table_of_tenants_has_the_one_policy_for_all_commands() {
    let app = TestApp::new().await;
    let without = format!(
        "SELECT c.relname::text {TABLES} {OF_TENANTS} AND NOT EXISTS (
            SELECT FROM pg_policies p
             WHERE p.tablename = c.relname AND p.schemaname = 'public' AND p.policyname = 'tenant'
               AND p.permissive = 'PERMISSIVE' AND p.cmd = 'ALL' AND p.roles = '{{public}}'
               AND p.with_check = p.qual
               AND p.qual = format('(%s = %s)', CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END,
                                   $e${OF_THE_TENANT}$e$))"
    );
    assert_eq!(found(&app, &without).await, set(&[]));
    // Policies are alternatives to each other, so a second one opens a table.
    let more = "SELECT format('%s: %s %s to %s', tablename, policyname, cmd, roles) FROM pg_policies
                 WHERE schemaname = 'public' AND policyname <> 'tenant'";
    let documented = set(&[
        "api_keys: directory SELECT to {dealstream_directory}",
        "api_keys: directory_removes DELETE to {dealstream_directory}",
        // A restrictive policy takes away; it opens nothing.
        "companies: reach ALL to {dealstream_scoped}",
        "contacts: reach ALL to {dealstream_scoped}",
        "deal_stage_changes: reach ALL to {dealstream_scoped}",
        // They are sealed, and a new master key seals them all.
        "data_keys: directory SELECT to {dealstream_directory}",
        "data_keys: directory_rewraps UPDATE to {dealstream_directory}",
        "deals: reach ALL to {dealstream_scoped}",
        "custom_roles: directory SELECT to {dealstream_directory}",
        "histories: directory SELECT to {dealstream_directory}",
        "interactions: reach ALL to {dealstream_scoped}",
        "invitations: directory SELECT to {dealstream_directory}",
        "revocations: directory_adds INSERT to {dealstream_directory}",
        "revocations: directory SELECT to {dealstream_directory}",
        "pending_sign_ins: directory SELECT to {dealstream_directory}",
        "pending_sign_ins: directory_removes DELETE to {dealstream_directory}",
        "sessions: directory SELECT to {dealstream_directory}",
        "sessions: directory_ends UPDATE to {dealstream_directory}",
        "tenants: directory SELECT to {dealstream_directory}",
        "users: directory SELECT to {dealstream_directory}",
        "users: directory_marks UPDATE to {dealstream_directory}",
    ]);
    assert_eq!(found(&app, more).await, documented);
}

#[tokio::test]
async fn tenant_id_fills_itself_in_and_leads_every_key() {
    let app = TestApp::new().await;
    let without_default = format!(
        "SELECT c.relname::text {TABLES} {OF_TENANTS} AND c.relname <> 'tenants' AND NOT EXISTS (
            SELECT FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull
               AND pg_get_expr(d.adbin, d.adrelid) = $e${OF_THE_TENANT}$e$)"
    );
    assert_eq!(found(&app, &without_default).await, set(&[]));
    let without_key = format!(
        "SELECT c.relname::text {TABLES} AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    );
    assert_eq!(found(&app, &without_key).await, set(&[]));
    // Unique or not: what is not led by the tenant is slow for one tenant among many, or lets one feel another's rows.
    let led_otherwise =
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
                           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                          WHERE c.relnamespace = 'public'::regnamespace AND a.attname <> 'tenant_id'
                            AND c.relname <> '__diesel_schema_migrations'";
    // Sign-in finds a person's tenants before one of them is chosen; instances hear of all tenants' revocations.
    let documented = set(&[
        "accounts_pkey",
        // A key is looked up before its tenant is known.
        "api_keys_hash_key",
        "linked_identities_pkey",
        "linked_identities_issuer_key",
        "provider_proofs_expires_at_idx",
        "provider_proofs_pkey",
        "provider_visits_expires_at_idx",
        "provider_visits_pkey",
        "recovery_codes_pkey",
        "second_factors_pkey",
        "revocations_revoked_at_idx",
        "accounts_email_key",
        "sessions_family_hash_idx",
        "signing_keys_pkey",
        // Mail and links are of no tenant.
        "mails_pkey",
        "mails_due_at_idx",
        "links_pkey",
        "links_account_id_idx",
        "links_expires_at_idx",
        "links_invitation_id_idx",
        "tenants_pkey",
        "users_account_id_idx",
    ]);
    assert_eq!(found(&app, led_otherwise).await, documented);
}

#[tokio::test]
async fn no_reference_leads_out_of_a_tenant_or_nowhere() {
    let app = TestApp::new().await;
    let crossing = "SELECT k.conname::text FROM pg_constraint k
                      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
                      JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[1]
                     WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace
                       AND NOT (a.attname = 'tenant_id'
                                AND f.attname = CASE k.confrelid::regclass::text WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END)";
    // What belongs to an account goes with it.
    let documented = set(&[
        "linked_identities_account_id_fkey",
        "provider_proofs_account_id_fkey",
        "recovery_codes_account_id_fkey",
        "second_factors_account_id_fkey",
    ]);
    assert_eq!(found(&app, crossing).await, documented);
    let dangling = "SELECT format('%s.%s', c.relname, a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
                       AND a.attname LIKE '%\\_id' AND NOT EXISTS (
                           SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey))";
    // History outlives what it tells of; kept answers and revocations go with their time.
    let documented = set(&[
        "audit_entries.actor_id",
        "audit_entries.record_id",
        "audit_entries.request_id",
        "audit_entries.tenant_id",
        "events.actor_id",
        "events.record_id",
        "events.tenant_id",
        "idempotency_keys.actor_id",
        "idempotency_keys.tenant_id",
        // Of a session there is nothing else to refer to; accounts are of no tenant.
        "revocations.kept_session_id",
        "revocations.session_id",
        "users.account_id",
        // Links are good for a while, whatever becomes of what they lead to.
        "links.account_id",
        "links.invitation_id",
        "revocations.tenant_id",
        "revocations.user_id",
        "companies.tenant_id",
        "contacts.tenant_id",
        "pipelines.tenant_id",
        "interactions.tenant_id",
        "custom_roles.tenant_id",
        "teams.tenant_id",
    ]);
    let found = found(&app, dangling).await;
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(unknown.is_empty(), "these refer to nothing: {unknown:?}");
}

#[tokio::test]
async fn the_roles_may_do_what_they_need_and_nothing_else() {
    let app = TestApp::new().await;
    let mighty = "SELECT rolname::text FROM pg_roles WHERE rolname IN ('dealstream_app', 'dealstream_scoped', 'dealstream_directory')
                     AND (rolsuper OR rolbypassrls OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication)";
    assert_eq!(found(&app, mighty).await, set(&[]));
    let member = "SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                   WHERE r.rolname IN ('dealstream_app', 'dealstream_directory')";
    assert_eq!(found(&app, member).await, set(&[]));
    let member =
        "SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                   WHERE r.rolname = 'dealstream_scoped'";
    assert_eq!(found(&app, member).await, set(&["dealstream_app"]));
    let owned = "SELECT relname::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
                  WHERE r.rolname IN ('dealstream_app', 'dealstream_scoped', 'dealstream_directory')";
    assert_eq!(found(&app, owned).await, set(&[]));
    let columns = "SELECT format('%s.%s: %s', c.table_name, c.column_name, c.privilege_type)
                     FROM information_schema.role_column_grants c
                    WHERE c.table_schema = 'public' AND c.grantee IN ('dealstream_app', 'dealstream_scoped', 'dealstream_directory', 'PUBLIC')
                      AND NOT EXISTS (SELECT FROM information_schema.role_table_grants t
                                       WHERE (t.table_schema, t.table_name, t.grantee, t.privilege_type)
                                           = (c.table_schema, c.table_name, c.grantee, c.privilege_type))";
    assert_eq!(
        found(&app, columns).await,
        set(&[
            "accounts.email_verified_at: UPDATE",
            "api_keys.hash: SELECT",
            "api_keys.id: SELECT",
            "api_keys.tenant_id: SELECT",
            "api_keys.user_id: SELECT",
            "accounts.password_hash: UPDATE",
            "accounts.password_is_initial: UPDATE",
            "data_keys.id: SELECT",
            "data_keys.sealed: SELECT",
            "data_keys.sealed: UPDATE",
            "data_keys.tenant_id: SELECT",
            "linked_identities.last_used_at: UPDATE",
            "links.sealed: UPDATE",
            "mails.attempts: UPDATE",
            "mails.due_at: UPDATE",
            "mails.sealed: UPDATE",
            "pending_sign_ins.tenant_id: SELECT",
            "pending_sign_ins.user_id: SELECT",
            "provider_visits.sealed: UPDATE",
            "second_factors.confirmed_at: UPDATE",
            "second_factors.created_at: UPDATE",
            "second_factors.failed_at: UPDATE",
            "second_factors.failures: UPDATE",
            "second_factors.last_step: UPDATE",
            "second_factors.secret: UPDATE",
            "sessions.by_second_factor: SELECT",
            "sessions.ended_at: SELECT",
            "sessions.ended_at: UPDATE",
            "sessions.expires_at: SELECT",
            "sessions.family_hash: SELECT",
            "sessions.id: SELECT",
            "sessions.tenant_id: SELECT",
            "sessions.user_id: SELECT",
            "signing_keys.sealed: UPDATE",
            "users.has_second_factor: UPDATE",
            "users.second_factor_reset_at: UPDATE",
        ])
    );
    let granted =
        "SELECT format('%s: %s', table_name, string_agg(privilege_type, ' ' ORDER BY privilege_type))
                     FROM information_schema.role_table_grants
                    WHERE table_schema = 'public' AND grantee = 'dealstream_directory' GROUP BY table_name";
    let needed = set(&[
        "accounts: DELETE INSERT SELECT",
        "api_keys: DELETE",
        "custom_roles: SELECT",
        "histories: SELECT",
        "invitations: SELECT",
        "linked_identities: DELETE INSERT SELECT",
        "links: DELETE INSERT SELECT",
        "mails: DELETE INSERT SELECT",
        "pending_sign_ins: DELETE",
        "provider_proofs: DELETE INSERT SELECT",
        "provider_visits: DELETE INSERT SELECT",
        "recovery_codes: DELETE INSERT SELECT",
        "revocations: INSERT SELECT",
        "second_factors: DELETE INSERT SELECT",
        "signing_keys: DELETE INSERT SELECT",
        "tenants: SELECT",
        "users: SELECT",
    ]);
    assert_eq!(found(&app, granted).await, needed);
    let too_much = "SELECT format('%s: %s to %s', table_name, privilege_type, grantee) FROM information_schema.role_table_grants
                     WHERE table_schema = 'public' AND (grantee IN ('PUBLIC', 'dealstream_scoped') OR grantee = 'dealstream_app' AND
                           (privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                            OR table_name IN ('accounts', 'signing_keys', 'links', 'mails', 'second_factors',
                                              'recovery_codes', 'linked_identities', 'provider_visits',
                                              'provider_proofs')))";
    assert_eq!(found(&app, too_much).await, set(&[]));
}

#[tokio::test]
async fn what_runs_with_the_owners_rights_is_known_and_cannot_be_misled() {
    let app = TestApp::new().await;
    let definers = "SELECT p.proname::text FROM pg_proc p
                     WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef";
    assert_eq!(
        found(&app, definers).await,
        set(&SEARCHES.map(|search| search.trim_end_matches("('%')")))
    );
    // Without pg_temp at the end, temporary objects come first, and a caller could put one in a table's place.
    let misled = "SELECT p.proname::text FROM pg_proc p
                   WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
                     AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s ~ '^search_path=.*, ?pg_temp$')";
    assert_eq!(found(&app, misled).await, set(&[]));
    let public = "SELECT p.proname::text FROM pg_proc p
                   WHERE p.pronamespace = 'public'::regnamespace AND (p.prosecdef OR p.proname = 'protect')
                     AND has_function_privilege('public', p.oid, 'EXECUTE')";
    assert_eq!(found(&app, public).await, set(&[]));
}

/// Tables of which the runtime role may change nothing at all.
const ONLY_ADDED_TO: [&str; 1] = ["audit_entries"];

/// The tables that the runtime role may read.
async fn tables(app: &TestApp) -> Vec<String> {
    let sql = format!("SELECT c.relname::text {TABLES} {OF_TENANTS}");
    found(app, &sql).await.into_iter().collect()
}

#[tokio::test]
async fn without_a_tenant_the_runtime_role_sees_nothing_and_adds_nothing() {
    let app = TestApp::new().await;
    let own = app.tenant().await;
    Records::of(&own, "Seen").await;
    let client = app.superuser().await;
    for tenant in [
        "",
        "SET app.tenant_id = ''",
        "SET app.tenant_id = '00000000-0000-0000-0000-000000000000'",
    ] {
        client
            .batch_execute(&format!("RESET ROLE; RESET app.tenant_id; {tenant}"))
            .await
            .unwrap();
        for table in tables(&app).await {
            client.batch_execute("RESET ROLE").await.unwrap();
            let count = format!("SELECT count(*) FROM {table}");
            let all: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
            client.batch_execute("SET ROLE dealstream_app").await.unwrap();
            let seen: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
            assert!(all > 0, "the test fills {table}");
            assert_eq!(seen, 0, "{table}");
        }
        for search in SEARCHES {
            let found = client
                .query(&format!("SELECT {search}::text"), &[])
                .await
                .unwrap();
            assert!(found.is_empty(), "{search}");
        }
    }
    client.batch_execute("RESET app.tenant_id").await.unwrap();
    for refused in [
        "SELECT * FROM accounts",
        "SELECT * FROM links",
        "SELECT * FROM mails",
        "INSERT INTO mails (id, sealed) VALUES (gen_random_uuid(), '')",
        "INSERT INTO pipelines (id, name, is_default, created_at, updated_at)
         VALUES (gen_random_uuid(), 'x', false, now(), now())",
        "TRUNCATE deals",
        "ALTER TABLE deals DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenant ON deals",
        "SELECT protect('deals')",
    ] {
        assert!(client.batch_execute(refused).await.is_err(), "{refused}");
    }
}

#[tokio::test]
async fn a_row_can_neither_be_given_to_another_tenant_nor_taken_from_it() {
    let app = TestApp::new().await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    Records::of(&own, "Own").await;
    Records::of(&other, "Other").await;
    let (own, other) = (own.viewer().tenant_id, other.viewer().tenant_id);
    let client = app.superuser().await;
    client
        .batch_execute(&format!("SET ROLE dealstream_app; SET app.tenant_id = '{own}'"))
        .await
        .unwrap();
    for table in tables(&app).await {
        let column = if table == "tenants" { "id" } else { "tenant_id" };
        let given = client
            .batch_execute(&format!("UPDATE {table} SET {column} = '{other}'"))
            .await
            .unwrap_err();
        let given = given.as_db_error().unwrap().message().to_owned();
        if ONLY_ADDED_TO.contains(&table.as_str()) {
            assert!(given.contains("permission denied"), "{table}: {given}");
            continue;
        }
        assert!(given.contains("row-level security"), "{table}: {given}");
        for taken in [
            format!("UPDATE {table} SET {column} = '{own}' WHERE {column} = '{other}'"),
            format!("UPDATE {table} SET {column} = {column} WHERE {column} = '{other}'"),
        ] {
            assert_eq!(client.execute(&taken, &[]).await.unwrap(), 0, "{taken}");
        }
        if table != "tenants" {
            let deleted = format!("DELETE FROM {table} WHERE tenant_id = '{other}'");
            assert_eq!(client.execute(&deleted, &[]).await.unwrap(), 0, "{deleted}");
        }
    }
}

#[tokio::test]
async fn the_directory_reads_accounts_users_tenants_revocations_histories_and_nothing_else() {
    let app = TestApp::new().await;
    let own = app.tenant().await;
    Records::of(&own, "Own").await;
    let client = app.superuser().await;
    client
        .batch_execute("SET ROLE dealstream_directory")
        .await
        .unwrap();
    for table in tables(&app).await.iter().map(String::as_str).chain(["accounts"]) {
        let readable = matches!(
            table,
            "accounts" | "users" | "tenants" | "revocations" | "histories" | "invitations" | "custom_roles"
        );
        let read = client
            .batch_execute(&format!("SELECT * FROM {table} LIMIT 1"))
            .await;
        assert_eq!(read.is_ok(), readable, "{table}");
        let column = match table {
            "revocations" => "revoked_at",
            "pending_sign_ins" => "expires_at",
            _ => "created_at",
        };
        for change in [
            // Accounts go with their last user, API keys with a forgotten password, half a sign-in with a provider; of those
            // only these rights are withheld.
            match table {
                "accounts" => "UPDATE accounts SET email = email".to_owned(),
                "api_keys" => "UPDATE api_keys SET scope = scope".to_owned(),
                "pending_sign_ins" => "UPDATE pending_sign_ins SET tries = 0".to_owned(),
                _ => format!("DELETE FROM {table}"),
            },
            format!("UPDATE {table} SET {column} = now()"),
        ] {
            assert!(client.batch_execute(&change).await.is_err(), "{change}");
        }
    }
}

/// An application that has one connection to PostgreSQL, so that everything happens on it.
async fn with_one_connection() -> TestApp {
    let config = Config {
        database_connections: Some(1),
        ..config()
    };
    TestApp::on(crate::support::app::database_url().await, config).await
}

#[derive(QueryableByName)]
struct Left {
    #[diesel(sql_type = Text)]
    tenant: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = BigInt)]
    seen: i64,
}

/// What the next user of the one connection finds on it, outside of any transaction.
async fn left_behind(app: &TestApp) -> Left {
    let snapshot = app.app.db.snapshot(uuid::Uuid::nil());
    let mut conn = snapshot.conn().await.unwrap();
    conn.batch_execute("ROLLBACK").await.unwrap();
    let left = diesel::sql_query(
        "SELECT coalesce(current_setting('app.tenant_id', true), '') AS tenant, current_user::text AS role,
                (SELECT count(*) FROM tenants) + (SELECT count(*) FROM deals) AS seen",
    );
    let left = diesel_async::RunQueryDsl::get_result(left, &mut conn)
        .await
        .unwrap();
    conn.batch_execute("BEGIN").await.unwrap();
    drop(snapshot);
    app.settle().await;
    left
}

fn assert_clean(left: &Left, after: &str) {
    assert_eq!(
        (left.tenant.as_str(), left.role.as_str(), left.seen),
        ("", "dealstream_app", 0),
        "after {after}"
    );
}

#[tokio::test]
async fn a_connection_given_back_carries_no_tenant() {
    let app = with_one_connection().await;
    let client = app.tenant().await;
    app.settle().await;
    assert_clean(&left_behind(&app).await, "founding a tenant");
    client.query("{ deals { totalCount } }", json!({})).await;
    app.settle().await;
    assert_clean(&left_behind(&app).await, "a query");
    client.company("Acme").await;
    assert_clean(&left_behind(&app).await, "a mutation");
    let refused = client
        .payload(
            "createContact",
            "CreateContactInput",
            "contact { id }",
            json!({ "name": "X", "companyId": write_id("company", uuid::Uuid::now_v7()) }),
        )
        .await;
    assert_eq!(refused["userErrors"][0]["code"], "NOT_FOUND");
    app.settle().await;
    assert_clean(&left_behind(&app).await, "a refused mutation");
    let signed_in = app
        .anon()
        .code(
            r#"mutation { signIn(input: { email: "nobody@test.example", password: "a long password" }) { expiresAt } }"#,
            json!({}),
        )
        .await;
    assert_eq!(signed_in, "UNAUTHENTICATED");
    app.settle().await;
    assert_clean(&left_behind(&app).await, "the directory");
}

#[tokio::test]
async fn a_connection_dropped_in_the_midst_is_not_used_again() {
    let app = with_one_connection().await;
    let client = app.tenant().await;
    for _ in 0..10 {
        // The answer is not waited for: the client has gone away.
        let asked = client.answer("{ deals { nodes { id } } contacts { nodes { id } } }", json!({}));
        let _ = tokio::time::timeout(Duration::from_micros(300), asked).await;
        let input = json!({ "input": { "name": "Acme" } });
        let asked = client.answer(
            "mutation($input: CreateCompanyInput!) { createCompany(input: $input) { position } }",
            input,
        );
        let _ = tokio::time::timeout(Duration::from_micros(800), asked).await;
    }
    app.settle().await;
    assert_clean(&left_behind(&app).await, "clients that went away");
    client.query("{ deals { totalCount } }", json!({})).await;
}

#[tokio::test]
async fn a_search_finds_nothing_of_another_tenant() {
    let app = TestApp::new().await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    for client in [&own, &other] {
        client.company("Searched for").await;
        client.contact(json!({ "name": "Searched for" })).await;
    }
    for list in ["companies", "contacts"] {
        let document = format!(r#"{{ {list}(search: "searched") {{ totalCount nodes {{ id }} }} }}"#);
        let (own, other) = (
            own.query(&document, json!({})).await,
            other.query(&document, json!({})).await,
        );
        assert_eq!(own[list]["totalCount"], 1);
        assert_ne!(own[list]["nodes"], other[list]["nodes"]);
    }
}

#[tokio::test]
async fn the_place_of_a_row_leads_to_it_and_gives_no_right_to_it() {
    let app = TestApp::new().await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    for client in [&own, &other] {
        client.company("Placed").await;
        client.contact(json!({ "name": "Placed" })).await;
    }
    let (own, other) = (own.viewer().tenant_id, other.viewer().tenant_id);
    let client = app.superuser().await;
    for table in ["companies", "contacts"] {
        let place = format!("SELECT ctid::text FROM {table} WHERE tenant_id = '{other}'");
        let place: String = client.query_one(&place, &[]).await.unwrap().get(0);
        client
            .batch_execute(&format!("SET ROLE dealstream_app; SET app.tenant_id = '{own}'"))
            .await
            .unwrap();
        let found = format!("SELECT (SELECT count(*) FROM {table} WHERE ctid = ANY (ARRAY['{place}'::tid])),
                                    (SELECT count(*) FROM find_{table}('%placed%')),
                                    (SELECT count(*) FROM find_{table}('%placed%') f
                                       JOIN {table} r ON r.ctid = f.place AND r.id = f.id AND r.name = f.name)");
        let row = client.query_one(&found, &[]).await.unwrap();
        assert_eq!(
            [0, 1, 2].map(|column| row.get::<_, i64>(column)),
            [0, 1, 1],
            "{table}"
        );
        client
            .batch_execute("RESET ROLE; RESET app.tenant_id")
            .await
            .unwrap();
    }
}

/// Where both tenants' histories stand.
async fn positions(own: &Client, other: &Client) -> (String, String) {
    (own.position().await, other.position().await)
}

/// The answer to one operation with this id in its place; ids are written alike, so that answers can be compared.
async fn ask(client: &Client, place: &Place, records: &Records, id: &str) -> Value {
    let (document, variables) = place.operation(records, id);
    let answer = if place.root == "Subscription" {
        let frames = client.subscribe(&document, variables);
        let told = futures::future::ready;
        // The replay is finite: it ends with UpToDate.
        let replay = frames.take_while(|frame| told(frame["data"][&place.field]["__typename"] != "UpToDate"));
        let replay = tokio::time::timeout(Duration::from_secs(20), replay.collect::<Vec<_>>());
        Value::Array(replay.await.expect("the replay ends"))
    } else {
        client.answer(&document, variables).await
    };
    serde_json::from_str(&answer.to_string().replace(id, "<the id>")).unwrap()
}

#[tokio::test]
async fn every_id_in_the_schema_refuses_another_tenants_record_exactly_like_one_that_does_not_exist() {
    let app = TestApp::new().await;
    let (own, other) = (
        recipes::signed_up(&app, "own").await,
        recipes::signed_up(&app, "other").await,
    );
    let mine = Records::of(&own, "Mine").await;
    let theirs = Records::of(&other, "Foreign").await;
    let places = recipes::places();
    assert!(places.len() > 60, "the schema is walked");
    for place in &places {
        let (mine_id, foreign) = (mine.id(place.kind), theirs.id(place.kind));
        let (prefix, _) = read_id(&foreign).unwrap();
        let unknown = write_id(prefix, uuid::Uuid::now_v7());
        let before = positions(&own, &other).await;
        let foreign = ask(&own, place, &mine, &foreign).await;
        let unknown = ask(&own, place, &mine, &unknown).await;
        assert_eq!(foreign, unknown, "{place} tells a foreign record from none");
        assert!(
            !foreign.to_string().contains("Foreign"),
            "{place} shows a foreign record: {foreign:#}"
        );
        assert_eq!(positions(&own, &other).await, before, "{place} changed something");
        if place.root == "Mutation" {
            let data = &foreign["data"][&place.field];
            let refused = data["userErrors"][0]["field"]
                .as_array()
                .and_then(|field| field.last()?.as_str());
            let named = place.path.last().map(String::as_str);
            let unauthenticated = foreign["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED";
            assert!(
                refused == named || unauthenticated,
                "{place} is refused by name: {foreign:#}"
            );
        } else {
            // Otherwise the probe might not reach what it is about.
            let known = ask(&own, place, &mine, &mine_id).await;
            assert_ne!(known, unknown, "{place} shows no difference for one's own record");
        }
    }
}

#[tokio::test]
async fn nodes_are_null_in_the_places_of_foreign_and_unknown_records() {
    let app = TestApp::new().await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    let (mine, theirs) = (own.company("Mine").await, other.company("Foreign").await);
    let unknown = write_id("company", uuid::Uuid::now_v7());
    let data = own
        .query(
            "query($ids: [ID!]!) { nodes(ids: $ids) { id } }",
            json!({ "ids": [theirs, mine, unknown, mine] }),
        )
        .await;
    assert_eq!(data["nodes"], json!([null, { "id": mine }, null, { "id": mine }]));
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_refused() {
    let app = TestApp::new().await;
    let (own, other) = (app.tenant().await, app.tenant().await);
    Records::of(&own, "Mine").await;
    Records::of(&other, "Foreign").await;
    for list in [
        "users",
        "companies",
        "contacts",
        "pipelines",
        "deals",
        "interactions",
    ] {
        let document = format!(
            "query($after: Cursor, $before: Cursor) {{
               forwards: {list}(first: 1, after: $after) {{ pageInfo {{ endCursor }} }}
               backwards: {list}(last: 1, before: $before) {{ pageInfo {{ startCursor }} }} }}"
        );
        let data = other.query(&document, json!({})).await;
        let cursor = &data["forwards"]["pageInfo"]["endCursor"];
        assert!(cursor.is_string(), "{data}");
        for variables in [json!({ "after": cursor }), json!({ "before": cursor })] {
            assert_eq!(
                own.code(&document, variables.clone()).await,
                "BAD_USER_INPUT",
                "{list}"
            );
            other.query(&document, variables).await;
        }
    }
}

#[tokio::test]
async fn a_policy_that_lets_other_rows_through_is_told_at_the_start() {
    let url = create_database("leaky_policies").await;
    migrate::migrate(&url).await.unwrap();
    let app = TestApp::on(url, config()).await;
    let mighty = app.superuser().await;
    migrate::verify_isolation(&app.app.db).await.unwrap();
    for (make, told, take_away) in [
        (
            "CREATE POLICY leak ON contacts USING (true)",
            "leak on contacts",
            "DROP POLICY leak ON contacts",
        ),
        (
            "CREATE POLICY leak ON deals FOR SELECT TO dealstream_app USING (name <> '')",
            "leak on deals",
            "DROP POLICY leak ON deals",
        ),
        (
            "ALTER POLICY tenant ON companies USING (true)",
            "tenant on companies",
            "ALTER POLICY tenant ON companies USING (tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid)",
        ),
    ] {
        mighty.batch_execute(make).await.unwrap();
        let refused = migrate::verify_isolation(&app.app.db).await.unwrap_err();
        assert!(refused.contains(told), "{refused}");
        mighty.batch_execute(take_away).await.unwrap();
        migrate::verify_isolation(&app.app.db).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_that_may_serve_and_not_migrate_serves_what_is_migrated() {
    let url = create_database("plain_login").await;
    migrate::migrate(&url).await.unwrap();
    let mighty = TestApp::on(url.clone(), config()).await.superuser().await;
    let name = format!("plain_{}", Uuid::new_v4().simple());
    let make = format!(
        "CREATE ROLE {name} LOGIN; GRANT dealstream_app, dealstream_scoped, dealstream_directory TO {name}"
    );
    mighty.batch_execute(&make).await.unwrap();
    let plain = url.replacen("postgres@", &format!("{name}@"), 1);
    assert_ne!(plain, url);
    assert_eq!(migrate::migrate(&plain).await, Ok(0));
    let app = TestApp::on(plain.clone(), config()).await;
    migrate::verify_isolation(&app.app.db).await.unwrap();
    let client = app.tenant().await;
    client.company("Acme").await;
    let answer = client.query("{ companies { nodes { name } } }", json!({})).await;
    assert_eq!(answer["companies"]["nodes"], json!([{ "name": "Acme" }]));
    // Where something is missing, it is said to be.
    mighty
        .batch_execute("DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)")
        .await
        .unwrap();
    let refused = migrate::migrate(&plain).await.unwrap_err();
    assert!(refused.contains("could not be migrated"), "{refused}");
}
