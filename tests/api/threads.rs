//! A server of several threads, and their parts of the connections to PostgreSQL.

use std::collections::HashSet;
use std::time::Duration;

use dealstream::config::Config;
use dealstream::db::session::Snapshot;
use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::sse::Events;
use crate::support::TestApp;
use crate::support::app::{config, database_url};
use crate::support::wire::Wire;

/// An application for so many threads, over so many connections.
async fn of_threads(threads: u32, connections: u32) -> TestApp {
    let config = Config {
        threads: Some(threads),
        database_connections: connections,
        ..config()
    };
    TestApp::on(database_url().await, config).await
}

/// What a thread that serves has.
fn runtime() -> Runtime {
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().unwrap()
}

/// So many snapshots at the same time, and whose connections they have.
async fn hold(app: &TestApp, tenant: Uuid, count: usize) -> (Vec<Snapshot>, HashSet<i32>) {
    let (mut held, mut pids) = (Vec::new(), HashSet::new());
    for _ in 0..count {
        let snapshot = app.app.db.snapshot(tenant);
        let mut conn = snapshot.conn().await.unwrap();
        let pid = diesel::select(sql::<Integer>("pg_backend_pid()"));
        pids.insert(pid.get_result(&mut conn).await.unwrap());
        held.push(snapshot);
    }
    (held, pids)
}

#[test]
fn each_thread_has_its_part_of_the_connections() {
    let [one, other] = [runtime(), runtime()];
    let (app, tenant) = one.block_on(async {
        let app = of_threads(2, 9).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        (app, tenant)
    });
    // Of five a tenant has three, and of four two: one is for others, and one for what belongs to nobody.
    let parts = [(&one, 3), (&other, 2)].map(|(runtime, count)| {
        let (held, pids) = runtime.block_on(hold(&app, tenant, count));
        let more = async { tokio::time::timeout(Duration::from_millis(200), hold(&app, tenant, 1)).await };
        assert!(runtime.block_on(more).is_err(), "the other has some to spare");
        runtime.block_on(async move {
            for snapshot in held {
                snapshot.complete(true).await.unwrap();
            }
        });
        pids
    });
    let [ones, others] = parts;
    assert!(ones.is_disjoint(&others));
    // And they stay where they are, in the transaction of a read that has just ended and in none.
    for pause in [0, 10] {
        std::thread::sleep(Duration::from_millis(pause));
        assert!(one.block_on(hold(&app, tenant, 3)).1.is_disjoint(&others));
        assert!(other.block_on(hold(&app, tenant, 2)).1.is_disjoint(&ones));
    }
    assert!(app.app.db.pool_status().0 <= 9);
}

#[test]
fn where_connections_are_few_threads_share_them() {
    let [one, other] = [runtime(), runtime()];
    let (app, tenant) = one.block_on(async {
        let app = of_threads(2, 7).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        (app, tenant)
    });
    let (_held, ones) = one.block_on(hold(&app, tenant, 3));
    let (_held, others) = other.block_on(hold(&app, tenant, 2));
    assert_eq!((ones.len(), others.len()), (3, 2), "five of seven");
}

const MOVES: &str =
    "subscription { dealStageChanged { __typename ... on DealStageChangedEvent { toStage { name } } } }";
const MOVE: &str = "mutation($input: MoveDealInput!) { moveDeal(input: $input) { userErrors { code } } }";

async fn next(events: &mut Events) -> Value {
    let (_, data) = events.next().await.expect("it goes on");
    data.unwrap()["data"]["dealStageChanged"].take()
}

#[tokio::test]
async fn what_is_changed_on_one_thread_is_told_on_all_until_the_server_stops() {
    let app = of_threads(3, 12).await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "Deal" })).await;
    let stages = client.stages().await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let body = json!({ "query": MOVES });
        let (head, mut events) = Events::ask(&wire, "text/event-stream", &client.token(), &body).await;
        assert!(head.starts_with("http/1.0 200"), "{head}");
        assert_eq!(next(&mut events).await["__typename"], "UpToDate");
        listeners.push(events);
    }
    // Each keeps its connection, so that the next gets another thread.
    let mut movers = Vec::new();
    for (id, name) in &stages[1..4] {
        let mover = reqwest::Client::new();
        let variables = json!({ "input": { "dealId": deal, "stageId": id } });
        let asked = mover
            .post(format!("http://{}/graphql", wire.address))
            .bearer_auth(client.token())
            .json(&json!({ "query": MOVE, "variables": variables }));
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["data"], json!({ "moveDeal": { "userErrors": [] } }));
        for listener in &mut listeners {
            let told = next(listener).await;
            assert_eq!(told["toStage"]["name"], name.as_str(), "{told}");
        }
        movers.push(mover);
    }
    wire.shutdown.cancel();
    for listener in &mut listeners {
        while listener.next().await.is_some() {}
    }
    drop(movers);
    let stopped = async {
        while !wire.server.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stopped)
        .await
        .unwrap();
}
