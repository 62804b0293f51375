//! A tenant that asks much does not hold up another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dealstream::config::Config;
use serde_json::json;

use crate::support::app::{config, database_url};
use crate::support::wire::until;
use crate::support::{Client, TestApp};

/// Each of these waits for a connection of its own: what counts is [read alone](dealstream::graphql::reading).
const QUERY: &str = "{ companies(first: 1) { totalCount } }";

async fn small(connections: u32) -> TestApp {
    let config = Config {
        database_connections: Some(connections),
        database_wait_seconds: 60,
        ..config()
    };
    TestApp::on(database_url().await, config).await
}

/// Asks later; what is done writes its name down when it is answered.
fn ask(
    client: &Client,
    name: &'static str,
    done: &Arc<Mutex<Vec<&'static str>>>,
) -> tokio::task::JoinHandle<()> {
    let (client, done) = (client.clone(), done.clone());
    tokio::spawn(async move {
        client.query(QUERY, json!({})).await;
        done.lock().unwrap().push(name);
    })
}

#[tokio::test]
async fn who_asks_once_does_not_wait_behind_who_asks_a_hundred_times() {
    let app = small(4).await;
    let (loud, quiet, third) = (app.tenant().await, app.tenant().await, app.tenant().await);
    app.settle().await;
    let db = &app.app.db;
    // All that one tenant may have is taken, by statements that do not end.
    let held: Vec<_> = (0..2).map(|_| db.snapshot(loud.viewer().tenant_id)).collect();
    for snapshot in &held {
        snapshot.conn().await.unwrap();
    }
    let done = Arc::default();
    let mut asked: Vec<_> = (0..100).map(|_| ask(&loud, "loud", &done)).collect();
    until("a hundred wait", || db.waiting() == 100).await;
    // The reserve serves the quiet one meanwhile, again and again.
    for _ in 0..5 {
        quiet.query(QUERY, json!({})).await;
        app.settle_but(2).await;
    }
    assert_eq!(db.waiting(), 100);

    // And when even that is taken by a third one, the first or second place that becomes free is the quiet one's.
    let last = db.snapshot(third.viewer().tenant_id);
    last.conn().await.unwrap();
    asked.push(ask(&quiet, "quiet", &done));
    until("it waits as well", || db.waiting() == 101).await;
    drop(held);
    for asked in asked {
        tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .unwrap()
            .unwrap();
    }
    let done = done.lock().unwrap().clone();
    let place = done.iter().position(|name| *name == "quiet").unwrap();
    assert!(place < 8, "it was answered as number {place} of {}", done.len());
    assert_eq!(done.len(), 101);
    drop(last);
    app.settle().await;
    assert_eq!(db.waiting(), 0);
}

#[tokio::test]
async fn who_gives_up_waiting_is_told_so_and_leaves_nothing_behind() {
    let app = TestApp::on(
        database_url().await,
        Config {
            database_connections: Some(4),
            database_wait_seconds: 1,
            ..config()
        },
    )
    .await;
    let client = app.tenant().await;
    app.settle().await;
    let db = &app.app.db;
    let held: Vec<_> = (0..2).map(|_| db.snapshot(client.viewer().tenant_id)).collect();
    for snapshot in &held {
        snapshot.conn().await.unwrap();
    }
    assert_eq!(client.code(QUERY, json!({})).await, "UNAVAILABLE");
    assert_eq!(db.waiting(), 0);
    drop(held);
    client.query(QUERY, json!({})).await;
    app.settle().await;
}
