//! Connections that a read has left inside of its transaction, and those who take them over.
//!
//! Tests run on one thread, and what is taken over here is taken without waiting for anything in between: so nothing ends
//! the read meanwhile.

use std::time::Duration;

use async_graphql::{Response, ServerError};
use dealstream::config::Config;
use dealstream::db::migrate;
use dealstream::db::reach::{Reach, Resource, Scope, Sight};
use dealstream::db::session::Snapshot;
use dealstream::error::Error;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures::poll;
use serde_json::json;
use uuid::Uuid;

use crate::support::app::config;
use crate::support::{Client, TestApp, cluster, counter};

/// Two tenants with one deal and with two.
async fn two_tenants(app: &TestApp) -> (Client, Client) {
    let (one, two) = (app.tenant().await, app.tenant().await);
    for (client, names) in [(&one, &["Own"][..]), (&two, &["Other", "Another"])] {
        for name in names {
            client.deal(json!({ "name": name })).await;
        }
    }
    app.settle().await;
    counter::take();
    (one, two)
}

#[derive(Debug, QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    tenant: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    isolation: String,
    #[diesel(sql_type = Text)]
    read_only: String,
    #[diesel(sql_type = Text)]
    sees_deals: String,
    #[diesel(sql_type = BigInt)]
    deals: i64,
    #[diesel(sql_type = Integer)]
    pid: i32,
}

async fn look(mut conn: &AsyncPgConnection) -> Found {
    let look = diesel::sql_query(
        "SELECT coalesce(current_setting('app.tenant_id', true), '') AS tenant, current_user::text AS role,
                current_setting('transaction_isolation') AS isolation,
                current_setting('transaction_read_only') AS read_only,
                coalesce(current_setting('app.sees_deals', true), '') AS sees_deals,
                (SELECT count(*) FROM deals) AS deals, pg_backend_pid() AS pid",
    );
    look.get_result(&mut conn).await.unwrap()
}

impl Found {
    /// As which role, at which isolation, and whether only for reading.
    fn mode(&self) -> [&str; 3] {
        [&self.role, &self.isolation, &self.read_only]
    }
}

/// Reads to the end.
async fn read(app: &TestApp, sight: impl Into<Sight>) -> Found {
    let snapshot = app.app.db.snapshot(sight);
    let found = look(snapshot.conn().await.unwrap()).await;
    snapshot.complete(true).await.unwrap();
    found
}

/// Ends a connection from the other side.
async fn terminate(app: &TestApp, pid: i32) {
    let end = format!("SELECT pg_terminate_backend({pid})");
    app.superuser().await.batch_execute(&end).await.unwrap();
}

/// The messages that began and ended transactions since this was asked last.
fn turns() -> Vec<String> {
    let mut statements = counter::take().statements;
    statements.retain(|it| {
        ["BEGIN", "COMMIT", "ROLLBACK"]
            .iter()
            .any(|word| it.starts_with(word))
    });
    statements
}

fn chained(tenant: Uuid) -> String {
    format!(
        "COMMIT AND CHAIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET LOCAL app.tenant_id = '{tenant}'"
    )
}

#[tokio::test]
async fn reads_that_follow_each_other_have_one_message_between_them_and_nothing_else_in_common() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let first = read(&app, one.viewer().tenant_id).await;
    assert_eq!((first.deals, turns().len()), (1, 1));
    for (client, deals) in [(&two, 2), (&one, 1), (&one, 1), (&two, 2)] {
        let tenant = client.viewer().tenant_id;
        let found = read(&app, tenant).await;
        assert_eq!(turns(), [chained(tenant)]);
        assert_eq!(
            (found.pid, found.deals, found.tenant.clone()),
            (first.pid, deals, tenant.to_string())
        );
        assert_eq!(found.mode(), ["dealstream_app", "repeatable read", "on"]);
    }
    // What is ended by nobody else is ended all the same, once.
    app.settle().await;
    assert_eq!(turns(), ["COMMIT"]);
}

#[tokio::test]
async fn a_limited_role_and_what_it_sees_end_with_the_read_that_was_limited() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let viewer = two.viewer();
    let stranger = Uuid::now_v7();
    let own = Reach::ALL.with(Resource::Deals, Scope::Own);
    for _ in 0..3 {
        let limited = read(&app, Sight::of(viewer.tenant_id, stranger, own)).await;
        assert_eq!((limited.role.as_str(), limited.deals), ("dealstream_scoped", 0));
        assert_eq!(limited.sees_deals, format!("{{{stranger}}}"));
        // Whole tenants, the same and another.
        for (client, deals) in [(&two, 2), (&one, 1)] {
            let whole = read(&app, client.viewer().tenant_id).await;
            assert_eq!((whole.role.as_str(), whole.deals), ("dealstream_app", deals));
            assert_eq!((whole.sees_deals.as_str(), whole.pid), ("", limited.pid));
        }
    }
    assert_eq!(turns().len(), 9);
}

#[tokio::test]
async fn a_write_that_takes_a_read_over_may_write_and_sees_what_is_new() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let before = read(&app, one.viewer().tenant_id).await;
    turns();
    let tx = app.app.db.begin(two.viewer().tenant_id).await.unwrap();
    let found = look(tx.conn()).await;
    assert_eq!((found.pid, found.deals), (before.pid, 2));
    assert_eq!(found.mode(), ["dealstream_app", "read committed", "off"]);
    let rename = "UPDATE deals SET name = 'Renamed'";
    let renamed = diesel::sql_query(rename).execute(&mut tx.conn()).await.unwrap();
    assert_eq!(renamed, 2, "no other tenant's");
    tx.commit().await.unwrap();
    let messages = turns();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[0].starts_with("COMMIT; BEGIN; SET LOCAL"),
        "{messages:?}"
    );
    assert_eq!(messages[1], "COMMIT", "a change is there before its answer is");

    let read_after = app.app.db.snapshot(two.viewer().tenant_id);
    let name =
        "SELECT string_agg(DISTINCT name, ',') AS tenant, '' AS role, '' AS isolation, '' AS read_only,
                       '' AS sees_deals, 0::bigint AS deals, 0 AS pid FROM deals";
    let mut conn = read_after.conn().await.unwrap();
    let found: Found = diesel::sql_query(name).get_result(&mut conn).await.unwrap();
    assert_eq!(found.tenant, "Renamed");
}

#[tokio::test]
async fn what_is_read_is_of_the_moment_when_one_took_over_and_not_of_the_moment_before() {
    let app = TestApp::counted(2).await;
    let (one, _) = two_tenants(&app).await;
    let tenant = one.viewer().tenant_id;
    // Two at a time, so that the second connection is there.
    let (old, tx) = (
        app.app.db.snapshot(tenant),
        app.app.db.begin(tenant).await.unwrap(),
    );
    assert_eq!(look(old.conn().await.unwrap()).await.deals, 1);
    diesel::sql_query("DELETE FROM deals")
        .execute(&mut tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        look(old.conn().await.unwrap()).await.deals,
        1,
        "a read is of one moment"
    );
    old.complete(true).await.unwrap();
    turns();
    drop(old);
    assert_eq!(read(&app, tenant).await.deals, 0);
    assert_eq!(turns(), [chained(tenant)]);
}

#[tokio::test]
async fn what_belongs_to_no_tenant_begins_outside_of_the_read() {
    let app = TestApp::counted(1).await;
    let (one, _) = two_tenants(&app).await;
    let tenant = one.viewer().tenant_id;
    read(&app, tenant).await;
    turns();
    app.app.db.ping().await.unwrap();
    assert_eq!(turns(), ["COMMIT"]);
    read(&app, tenant).await;
    turns();
    let refused = r#"mutation { signIn(input: { email: "nobody@test.example", password: "a long password" }) { expiresAt } }"#;
    assert_eq!(app.anon().code(refused, json!({})).await, "UNAUTHENTICATED");
}

/// Leaves a query behind that PostgreSQL is busy with.
async fn abandon(snapshot: &Snapshot) -> i32 {
    let mut conn = snapshot.conn().await.unwrap();
    let pid = look(conn).await.pid;
    let mut asked = diesel::sql_query("SELECT pg_sleep(10)").execute(&mut conn);
    assert!(poll!(&mut asked).is_pending());
    pid
}

#[tokio::test]
async fn nobody_waits_behind_a_query_that_was_left_alone() {
    let app = TestApp::counted(2).await;
    let (one, two) = two_tenants(&app).await;
    let left = app.app.db.snapshot(one.viewer().tenant_id);
    let busy = abandon(&left).await;
    drop(left);
    turns();
    for _ in 0..3 {
        let found = read(&app, two.viewer().tenant_id).await;
        assert_ne!(found.pid, busy);
    }
    assert!(
        turns().iter().any(|it| it.starts_with("BEGIN")),
        "on another connection"
    );
    terminate(&app, busy).await;
    app.settle().await;
    // Nor behind what an answer with an error may have left.
    let session = one.session();
    let reading = session.reading(None).unwrap();
    look(reading.conn().await.unwrap()).await;
    drop(reading);
    turns();
    let failed = Response::from_errors(vec![ServerError::new("It failed.", None)]);
    assert_eq!(session.conclude(failed).await.unwrap().errors.len(), 1);
    read(&app, two.viewer().tenant_id).await;
    let next = turns();
    assert!(next.iter().any(|it| it.starts_with("BEGIN")), "{next:?}");
    assert!(!next.iter().any(|it| it.starts_with("COMMIT AND")), "{next:?}");
}

#[tokio::test]
async fn a_read_that_failed_and_was_left_all_the_same_hands_nothing_on() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let failed = app.app.db.snapshot(one.viewer().tenant_id);
    let conn = failed.conn().await.unwrap();
    conn.batch_execute_on("SELECT 1 / 0").await.unwrap_err();
    failed.complete(true).await.unwrap();
    drop(failed);
    turns();
    let found = read(&app, two.viewer().tenant_id).await;
    assert_eq!(found.deals, 2);
    assert_eq!(found.mode(), ["dealstream_app", "repeatable read", "on"]);
    assert_eq!(turns(), [chained(two.viewer().tenant_id)]);
}

#[tokio::test]
async fn what_was_read_where_no_transaction_had_begun_is_not_believed() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let sabotaged = app.app.db.snapshot(one.viewer().tenant_id);
    let conn = sabotaged.conn().await.unwrap();
    let pid = look(conn).await.pid;
    // PostgreSQL is in no transaction, and we believe it is.
    conn.batch_execute_on("ROLLBACK").await.unwrap();
    sabotaged.complete(true).await.unwrap();
    drop(sabotaged);
    let session = two.session();
    let reading = session.reading(None).unwrap();
    let found = look(reading.conn().await.unwrap()).await;
    assert_eq!((found.pid, found.deals, found.tenant.as_str()), (pid, 0, ""));
    drop(reading);
    let answer = session.conclude(Response::default()).await.unwrap();
    assert_eq!(
        answer.errors.len(),
        1,
        "nothing was found where there is something"
    );
    app.settle().await;
    // And the connection is thrown away.
    let found = read(&app, two.viewer().tenant_id).await;
    assert_eq!(found.deals, 2);
    assert_ne!(found.pid, pid);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_nobody_had_it_is_replaced() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let snapshot = app.app.db.snapshot(one.viewer().tenant_id);
    let conn = snapshot.conn().await.unwrap();
    let pid = look(conn).await.pid;
    terminate(&app, pid).await;
    let lost = async {
        // First it is said why, and then that it is closed.
        for _ in 0..2 {
            while conn.batch_execute_on("SELECT").await.is_ok() {}
        }
    };
    tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap();
    snapshot.complete(true).await.unwrap();
    drop(snapshot);
    let found = read(&app, two.viewer().tenant_id).await;
    assert_eq!(found.deals, 2);
    assert_ne!(found.pid, pid);
    app.settle().await;
    assert_eq!(app.app.db.pool_status(), (1, 1));
}

#[tokio::test]
async fn who_waits_for_a_connection_has_it_when_a_read_ends() {
    let app = TestApp::counted(1).await;
    let (one, two) = two_tenants(&app).await;
    let held = app.app.db.snapshot(one.viewer().tenant_id);
    let pid = look(held.conn().await.unwrap()).await.pid;
    let mut waits = Box::pin(read(&app, two.viewer().tenant_id));
    assert!(poll!(&mut waits).is_pending());
    assert_eq!(app.app.db.waiting(), 1);
    held.complete(true).await.unwrap();
    turns();
    drop(held);
    assert_eq!(
        app.app.db.waiting(),
        0,
        "the place is free with the read, and not after it"
    );
    let found = waits.await;
    assert_eq!((found.pid, found.deals), (pid, 2));
    assert_eq!(turns(), [chained(two.viewer().tenant_id)]);
}

#[tokio::test]
async fn a_read_that_nobody_takes_over_holds_up_neither_a_migration_nor_what_is_to_be_removed() {
    let url = cluster::create_database("warm").await;
    migrate::migrate(&url).await.unwrap();
    let config = Config {
        database_connections: Some(3),
        ..config()
    };
    let app = TestApp::on(url, config).await;
    let tenant = app.tenant().await.viewer().tenant_id;
    let superuser = app.superuser().await;
    for _ in 0..3 {
        let reads = futures::future::join_all([tenant; 3].map(|tenant| read(&app, tenant)));
        let pids: Vec<i32> = reads.await.into_iter().map(|found| found.pid).collect();
        let lock = "SET lock_timeout = '3s'; BEGIN; LOCK TABLE deals IN ACCESS EXCLUSIVE MODE; ROLLBACK";
        superuser.batch_execute(lock).await.unwrap();
        let open = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND state <> 'idle'";
        let ended = async {
            while superuser
                .query_one(open, &[&pids])
                .await
                .unwrap()
                .get::<_, i64>(0)
                > 0
            {}
        };
        tokio::time::timeout(Duration::from_secs(3), ended).await.unwrap();
        app.settle().await;
    }
}

#[tokio::test]
async fn however_many_are_in_a_team_what_a_transaction_begins_with_is_answered_in_few_words() {
    let app = TestApp::counted(1).await;
    let (one, _) = two_tenants(&app).await;
    let viewer = one.viewer();
    // Nobody takes the answer from the wire before that to the query behind it: a long one would be in its way.
    let fill = format!(
        "SET session_replication_role = replica;
         INSERT INTO team_members (tenant_id, team_id, user_id, is_lead)
         SELECT '{0}', '{1}', CASE number WHEN 0 THEN '{1}'::uuid ELSE gen_random_uuid() END, false
           FROM generate_series(0, 2000) AS number",
        viewer.tenant_id, viewer.user_id
    );
    app.superuser().await.batch_execute(&fill).await.unwrap();
    let reach = Resource::ALL
        .iter()
        .fold(Reach::ALL, |reach, of| reach.with(*of, Scope::Team));
    for _ in 0..2 {
        let found = read(&app, Sight::of(viewer.tenant_id, viewer.user_id, reach));
        let found = tokio::time::timeout(Duration::from_secs(20), found)
            .await
            .unwrap();
        assert_eq!(found.sees_deals.split(',').count(), 2001);
    }
}

/// A message of the simple protocol on a connection that is shared.
trait OnShared {
    async fn batch_execute_on(&self, sql: &str) -> Result<(), Error>;
}

impl OnShared for AsyncPgConnection {
    async fn batch_execute_on(&self, sql: &str) -> Result<(), Error> {
        Ok((&mut &*self).batch_execute(sql).await?)
    }
}
