//! A server of several threads, and their parts of the connections to PostgreSQL.

use std::collections::HashSet;
use std::time::Duration;

use dealstream::config::Config;
use dealstream::db::session::Snapshot;
use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel_async::RunQueryDsl;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
        database_connections: Some(connections),
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
        let app = of_threads(2, 17).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        (app, tenant)
    });
    // Of nine a tenant has seven, and of eight six: one is for others, and one for what belongs to nobody.
    let parts = [(&one, 7), (&other, 6)].map(|(runtime, count)| {
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
        assert!(one.block_on(hold(&app, tenant, 7)).1.is_disjoint(&others));
        assert!(other.block_on(hold(&app, tenant, 6)).1.is_disjoint(&ones));
    }
    assert!(app.app.db.pool_status().0 <= 17);
}

#[test]
fn where_connections_are_few_threads_share_them() {
    let [one, other] = [runtime(), runtime()];
    let (app, tenant) = one.block_on(async {
        let app = of_threads(2, 15).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        (app, tenant)
    });
    let (_held, ones) = one.block_on(hold(&app, tenant, 7));
    let (_held, others) = other.block_on(hold(&app, tenant, 6));
    assert_eq!((ones.len(), others.len()), (7, 6), "thirteen of fifteen");
}

const MOVES: &str =
    "subscription { dealStageChanged { __typename ... on DealStageChangedEvent { toStage { name } } } }";
const MOVE: &str = "mutation($input: MoveDealInput!) { moveDeal(input: $input) { userErrors { code } } }";

async fn next(events: &mut Events) -> Value {
    let (_, data) = events.next().await.expect("it goes on");
    data.unwrap()["data"]["dealStageChanged"].take()
}

/// Asks over a connection that is kept; nothing when that is closed.
async fn ask(stream: &mut TcpStream, token: &str) -> Option<Value> {
    let body = json!({ "query": "{ tenant { name } deals(first: 5) { nodes { name stage { name } } } }" })
        .to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let (_, length) = head.split_once("content-length: ").unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            if body.len() == length {
                return Some(serde_json::from_str::<Value>(body).unwrap()["data"].take());
            }
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn those_who_are_many_on_one_thread_are_handed_on_and_are_told_what_is_theirs() {
    let app = of_threads(2, 16).await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut tenants = Vec::new();
    for name in ["One", "Other"] {
        let client = app.tenant().await;
        client.deal(json!({ "name": name })).await;
        let own = client
            .query(
                "{ tenant { name } deals(first: 5) { nodes { name stage { name } } } }",
                json!({}),
            )
            .await;
        tenants.push((client.token(), own));
    }
    // They go to the threads in turn, so of all that ask half would have nothing to do.
    let mut connections = Vec::new();
    for _ in 0..48 {
        connections.push(TcpStream::connect(wire.address).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let askers = connections
        .iter_mut()
        .skip(1)
        .step_by(2)
        .enumerate()
        .map(|(number, stream)| {
            let (token, own) = &tenants[number % 2];
            async move {
                for round in 0..20 {
                    if number % 6 == 5 && round == 10 {
                        // Somebody who goes away, and takes nothing along.
                        let away = tokio::time::timeout(Duration::from_millis(3), ask(stream, token));
                        let _ = away.await;
                        let _ = stream.shutdown().await;
                        return;
                    }
                    assert_eq!(ask(stream, token).await.as_ref(), Some(own));
                }
            }
        });
    join_all(askers).await;
    let (open, _) = app.app.db.pool_status();
    assert!(open > 8, "the other thread's part has {open} with the first's");
    drop(connections);
    wire.shutdown.cancel();
    app.settle().await;
}

#[tokio::test]
async fn what_is_changed_on_one_thread_is_told_on_all_until_the_server_stops() {
    let app = of_threads(3, 24).await;
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
