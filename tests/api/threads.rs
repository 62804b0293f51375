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
use crate::support::wire::{Wire, until};

/// An application for so many threads, over so many connections.
async fn of_threads(threads: u32, connections: u32) -> TestApp {
    let config = Config {
        threads: Some(threads),
        database_connections: Some(connections),
        // Longer than anything here waits.
        database_wait_seconds: 60,
        ..config()
    };
    TestApp::on(database_url().await, config).await
}

/// The runtimes of two threads that serve, and an application that begins on the first, with a tenant.
fn on_two_threads(connections: u32) -> (Runtime, Runtime, TestApp, Uuid) {
    let [one, other] = [(); 2].map(|()| {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap()
    });
    let (app, tenant) = one.block_on(async {
        let app = of_threads(2, connections).await;
        let tenant = app.tenant().await.viewer().tenant_id;
        (app, tenant)
    });
    (one, other, app, tenant)
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
    let (one, other, app, tenant) = on_two_threads(17);
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
    let (one, other, app, tenant) = on_two_threads(15);
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

const DEALS: &str = "{ tenant { name } deals(first: 5) { nodes { name stage { name } } } }";

/// Asks over a connection that is kept; nothing when that is closed.
async fn ask(stream: &mut TcpStream, token: &str, query: &str) -> Option<Value> {
    let body = json!({ "query": query }).to_string();
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

/// Connections to both of two threads; they go to them in turn, and to the first, which accepts them, last.
async fn to_both(wire: &Wire, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(wire.address).await.unwrap();
        ask(&mut stream, "", "{ __typename }").await.unwrap();
        connections.push(stream);
    }
    connections
}

#[tokio::test]
async fn a_thread_that_has_many_requests_hands_them_on() {
    let app = of_threads(2, 16).await;
    let client = app.tenant().await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut connections = to_both(&wire, 10).await;
    // All that the tenant may have on the first.
    let (held, _) = hold(&app, client.viewer().tenant_id, 6).await;
    let mut to_the_first: Vec<_> = connections.iter_mut().skip(1).step_by(2).collect();
    let last = to_the_first.pop().unwrap();
    let waiting = to_the_first.into_iter().enumerate().map(|(number, stream)| {
        let token = client.token();
        async move {
            // Each another document, or they would read together.
            let query = format!("{{ deals(first: {}) {{ nodes {{ name }} }} }}", number + 1);
            ask(stream, &token, &query).await
        }
    });
    let answered = async {
        until("four wait", || app.app.db.waiting() == 4).await;
        let answer = tokio::time::timeout(Duration::from_secs(3), ask(last, &client.token(), DEALS)).await;
        assert_eq!(
            answer.expect("the other thread has connections").unwrap()["deals"]["nodes"],
            json!([])
        );
        assert_eq!(app.app.db.waiting(), 4);
        drop(held);
    };
    let waiting: Vec<_> = waiting.collect();
    let (answers, ()) = tokio::join!(join_all(waiting), answered);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap()["deals"]["nodes"] == json!([]))
    );
}

#[tokio::test]
async fn of_many_who_ask_at_once_each_is_told_what_is_theirs() {
    let app = of_threads(2, 16).await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut tenants = Vec::new();
    for name in ["One", "Other"] {
        let client = app.tenant().await;
        client.deal(json!({ "name": name })).await;
        tenants.push((client.token(), client.query(DEALS, json!({})).await));
    }
    let mut connections = to_both(&wire, 48).await;
    let to_the_first = connections.iter_mut().skip(1).step_by(2).enumerate();
    let askers = to_the_first.map(|(number, stream)| {
        let (token, own) = &tenants[number % 2];
        async move {
            for round in 0..20 {
                if number % 6 == 5 && round == 10 {
                    // Somebody who goes away, and takes nothing along.
                    let away = tokio::time::timeout(Duration::from_millis(3), ask(stream, token, DEALS));
                    let _ = away.await;
                    let _ = stream.shutdown().await;
                    return;
                }
                assert_eq!(ask(stream, token, DEALS).await.as_ref(), Some(own));
            }
        }
    });
    join_all(askers).await;
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
