//! Connections to PostgreSQL, and the threads that they are at home on.

use std::time::Duration;

use dealstream::db::session::Snapshot;
use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::support::TestApp;

/// A home, as a thread that serves is one.
fn home() -> Runtime {
    let mut home = Builder::new_multi_thread();
    home.worker_threads(1).enable_all().build().unwrap()
}

/// An application at the first of two homes, and a tenant of it.
fn at_home(connections: u32) -> (Runtime, Runtime, TestApp, Uuid) {
    let (one, other) = (home(), home());
    let (app, tenant) = one.block_on(async {
        let app = TestApp::counted(connections).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        app.settle().await;
        (app, tenant)
    });
    (one, other, app, tenant)
}

/// The connection that a snapshot has.
async fn pid(snapshot: &Snapshot) -> i32 {
    let mut conn = snapshot.conn().await.unwrap();
    let pid = diesel::select(sql::<Integer>("pg_backend_pid()"));
    pid.get_result(&mut conn).await.unwrap()
}

/// Reads to the end.
async fn read(app: &TestApp, tenant: Uuid) -> i32 {
    let snapshot = app.app.db.snapshot(tenant);
    let pid = pid(&snapshot).await;
    snapshot.complete(true).await.unwrap();
    pid
}

/// So many at the same time.
async fn hold(app: &TestApp, tenant: Uuid, count: usize) -> (Vec<Snapshot>, Vec<i32>) {
    let (mut held, mut pids) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let snapshot = app.app.db.snapshot(tenant);
        pids.push(pid(&snapshot).await);
        held.push(snapshot);
    }
    (held, pids)
}

#[test]
fn everybody_takes_a_connection_of_their_own_home() {
    let (one, other, app, tenant) = at_home(4);
    let own = one.block_on(read(&app, tenant));
    let others = other.block_on(read(&app, tenant));
    assert_ne!(own, others, "there was room for one more");
    for pause in [0, 10] {
        for _ in 0..3 {
            // In the transaction of a read that has just ended, and in none.
            std::thread::sleep(Duration::from_millis(pause));
            assert_eq!(other.block_on(read(&app, tenant)), others);
            assert_eq!(one.block_on(read(&app, tenant)), own);
        }
    }
}

#[test]
fn who_can_open_none_takes_anothers() {
    let (one, other, app, tenant) = at_home(1);
    let own = one.block_on(read(&app, tenant));
    for pause in [0, 10] {
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(other.block_on(read(&app, tenant)), own);
    }
}

#[test]
fn a_home_that_has_too_few_gets_its_share() {
    let (one, other, app, tenant) = at_home(12);
    let (held, ones) = one.block_on(hold(&app, tenant, 10));
    one.block_on(async move { drop(held) });
    one.block_on(app.settle());
    let (held, mut others) = other.block_on(hold(&app, tenant, 7));
    let (seventh, opened) = others.split_last().unwrap();
    assert!(opened.iter().all(|pid| !ones.contains(pid)), "six are its share");
    assert!(ones.contains(seventh));
    assert_eq!(app.app.db.pool_status().0, 12);
    other.block_on(async move { drop(held) });
    one.block_on(app.settle());
    // It stays so, whoever comes next.
    let (held, mut ones) = one.block_on(hold(&app, tenant, 6));
    one.block_on(async move { drop(held) });
    one.block_on(app.settle());
    let (_held, mut again) = other.block_on(hold(&app, tenant, 6));
    others.truncate(6);
    for pids in [&mut ones, &mut others, &mut again] {
        pids.sort_unstable();
    }
    assert_eq!(again, others);
    assert!(ones.iter().all(|pid| !others.contains(pid)));
}

#[tokio::test]
async fn a_connection_on_which_a_read_is_being_ended_is_waited_for_and_not_for_long() {
    let app = TestApp::counted(1).await;
    let tenant = app.tenant().await.viewer().tenant_id;
    for tenths in 15..45 {
        read(&app, tenant).await;
        tokio::time::sleep(Duration::from_micros(100 * tenths)).await;
        let next = tokio::time::timeout(Duration::from_secs(3), read(&app, tenant));
        next.await.expect("nobody else has one");
    }
}
