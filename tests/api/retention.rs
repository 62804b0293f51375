//! The history within bounds, and histories that do not go on where they were left.

use std::process::Output;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use dealstream::db::id::write_id;
use dealstream::db::migrate;
use dealstream::events::feed::{Reason, Signal};
use dealstream::events::retention::{Retention, Rounds};
use dealstream::events::{Hub, Position};
use futures::{Stream, StreamExt};
use serde_json::json;

use crate::support::app::config;
use crate::support::cluster::create_database;
use crate::support::counter;
use crate::support::{Client, TestApp};

const PATIENCE: Duration = Duration::from_secs(30);
const PLENTY: i64 = 1_000_000;

/// An application on a database of its own: rounds go through all tenants.
async fn alone(name: &str) -> TestApp {
    let url = create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    TestApp::on(url, config()).await
}

fn keep(days: i64, events: i64) -> Retention {
    Retention {
        age: TimeDelta::days(days),
        events,
    }
}

async fn round(app: &TestApp, rounds: &mut Rounds, retention: Retention, now: DateTime<Utc>) {
    rounds.round(&app.app.db, retention, now).await.unwrap();
}

/// Makes the events up to a position so many days old.
async fn age(app: &TestApp, client: &Client, upto: i64, days: i64) {
    let tenant = client.viewer().tenant_id;
    let sql = format!(
        "UPDATE events SET occurred_at = now() - interval '{days} days' WHERE tenant_id = '{tenant}' AND position <= {upto}"
    );
    app.superuser().await.batch_execute(&sql).await.unwrap();
}

async fn append(app: &TestApp, client: &Client, count: i64) {
    let tenant = client.viewer().tenant_id;
    let sql = format!(
        "WITH counted AS (UPDATE histories SET position = position + {count} WHERE tenant_id = '{tenant}' RETURNING position)
         INSERT INTO events (tenant_id, position, id, occurred_at, entity, record_id, kind, change)
         SELECT '{tenant}', counted.position - {count} + n, gen_random_uuid(), now(), 'deal', gen_random_uuid(), 'UPDATED', '{{}}'
           FROM counted, generate_series(1, {count}) AS n"
    );
    app.superuser().await.batch_execute(&sql).await.unwrap();
}

async fn position(client: &Client) -> Position {
    client.position().await.parse().unwrap()
}

/// What is kept: the first and the last position, and how many; and from where on.
async fn kept(app: &TestApp, client: &Client) -> (Option<i64>, Option<i64>, i64, i64) {
    let tenant = client.viewer().tenant_id;
    let sql = format!(
        "SELECT min(position), max(position), count(*), (SELECT trimmed FROM histories WHERE tenant_id = '{tenant}')
           FROM events WHERE tenant_id = '{tenant}'"
    );
    let row = app.superuser().await.query_one(&sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

async fn next(signals: &mut (impl Stream<Item = Signal> + Unpin)) -> Signal {
    let signal = tokio::time::timeout(PATIENCE, signals.next()).await;
    signal.expect("a signal comes").expect("the stream goes on")
}

#[tokio::test]
async fn what_is_too_old_or_too_much_is_forgotten_and_who_comes_from_there_is_told() {
    let app = alone("retention").await;
    let (client, other) = (app.tenant().await, app.tenant().await);
    append(&app, &client, 3600).await;
    let head = position(&client).await;
    let (old, end) = (head.position - 1100, head.position);
    age(&app, &client, old, 31).await;
    let untouched = kept(&app, &other).await;
    let mut rounds = Rounds::default();
    let now = Utc::now();

    round(&app, &mut rounds, keep(40, PLENTY), now).await;
    assert_eq!(kept(&app, &client).await, (Some(1), Some(end), end, 0));
    // By age, in several batches.
    let mut rounds = Rounds::default();
    round(&app, &mut rounds, keep(30, PLENTY), now).await;
    assert_eq!(
        kept(&app, &client).await,
        (Some(old + 1), Some(end), end - old, old)
    );
    let hub = Hub::new(app.app.db.clone(), app.app.config.pace);
    let follow = |position| {
        let after = Position { position, ..head };
        Box::pin(hub.follow(client.viewer().tenant_id, Some(after)))
    };
    for from in [0, old - 1] {
        let told = next(&mut follow(from)).await;
        assert!(
            matches!(told, Signal::MustRefetch(Reason::HistoryTrimmed)),
            "{told:?}"
        );
    }
    let mut signals = follow(old);
    for position in old + 1..=end {
        assert!(
            matches!(next(&mut signals).await, Signal::Event { event, .. } if event.position == position)
        );
    }
    // By count, though nothing is due by age.
    round(&app, &mut rounds, keep(30, 100), now).await;
    assert_eq!(
        kept(&app, &client).await,
        (Some(end - 99), Some(end), 100, end - 100)
    );
    assert_eq!(kept(&app, &other).await, untouched);
    // All of it; the history goes on where it was.
    round(&app, &mut rounds, keep(30, PLENTY), now + TimeDelta::days(31)).await;
    assert_eq!(kept(&app, &client).await, (None, None, 0, end));
    assert_eq!(kept(&app, &other).await.2, 0);
    client.company("New").await;
    assert!(matches!(next(&mut signals).await, Signal::UpToDate(_)));
    assert!(matches!(next(&mut signals).await, Signal::Event { event, .. } if event.position == end + 1));
    assert_eq!(kept(&app, &client).await, (Some(end + 1), Some(end + 1), 1, end));
}

#[tokio::test]
async fn stage_changes_stay_and_idempotency_keys_go_after_seven_days() {
    let app = alone("retention_of_keys").await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let stage = client.stage("Proposal").await;
    client
        .move_deal(json!({ "dealId": deal, "stageId": stage }))
        .await;
    let create = async |key: &str| {
        let input = json!({ "name": "Acme", "idempotencyKey": key });
        let payload = client
            .mutate("createCompany", "CreateCompanyInput", "company { id }", input)
            .await;
        payload["company"]["id"].clone()
    };
    let (old, young) = (create("old").await, create("young").await);
    app.superuser()
        .await
        .batch_execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '169 hours' WHERE key = 'old'",
        )
        .await
        .unwrap();
    let mut rounds = Rounds::default();
    // Later on everything of the history is due.
    round(&app, &mut rounds, keep(30, 1), Utc::now()).await;
    assert_eq!(kept(&app, &client).await.2, 1);
    assert_eq!(create("young").await, young);
    assert_ne!(create("old").await, old, "it may be used again");
    let history = "query($id: ID!) { deal(id: $id) { stageHistory { nodes { toStage { id } } } } }";
    let data = client.query(history, json!({ "id": deal })).await;
    assert_eq!(
        data["deal"]["stageHistory"]["nodes"].as_array().unwrap().len(),
        2,
        "{data}"
    );
}

#[tokio::test]
async fn a_round_asks_only_where_something_is_due_and_one_instance_forgets_at_a_time() {
    counter::install();
    let app = alone("retention_rounds").await;
    let clients = [app.tenant().await, app.tenant().await, app.tenant().await];
    let now = Utc::now();
    let (mut rounds, retention) = (Rounds::default(), keep(30, 1000));
    round(&app, &mut rounds, retention, now).await;
    app.settle().await;
    counter::take();
    round(&app, &mut rounds, retention, now).await;
    let sent = counter::take().statements;
    let asked: Vec<_> = sent.iter().filter(|it| it.contains("SELECT")).collect();
    assert_eq!(asked.len(), 1, "where all histories stand: {sent:?}");

    append(&app, &clients[1], 1500).await;
    let end = position(&clients[1]).await.position;
    let at_it = app.superuser().await;
    at_it
        .batch_execute("SELECT pg_advisory_lock(1801807216)")
        .await
        .unwrap();
    round(&app, &mut rounds, retention, now).await;
    assert_eq!(kept(&app, &clients[1]).await.2, end, "another instance is at it");
    at_it
        .batch_execute("SELECT pg_advisory_unlock(1801807216)")
        .await
        .unwrap();
    round(&app, &mut rounds, retention, now).await;
    assert_eq!(
        kept(&app, &clients[1]).await,
        (Some(end - 999), Some(end), 1000, end - 1000)
    );
}

#[tokio::test]
async fn who_follows_live_misses_nothing_while_the_history_is_cut_short_behind_them() {
    let app = alone("retention_live").await;
    let client = app.tenant().await;
    let hub = app.app.hub.clone();
    let mut signals = Box::pin(hub.follow(client.viewer().tenant_id, None));
    assert!(matches!(next(&mut signals).await, Signal::UpToDate(_)));
    let begin = position(&client).await.position;
    let writing = async {
        for number in 0..60 {
            client.company(&format!("Company {number}")).await;
        }
    };
    let forgetting = async {
        let mut rounds = Rounds::default();
        for _ in 0..60 {
            round(&app, &mut rounds, keep(30, 10), Utc::now()).await;
        }
    };
    let reading = async {
        for position in begin + 1..=begin + 60 {
            assert!(
                matches!(next(&mut signals).await, Signal::Event { event, .. } if event.position == position)
            );
        }
    };
    futures::join!(writing, forgetting, reading);
    round(&app, &mut Rounds::default(), keep(30, 10), Utc::now()).await;
    assert_eq!(
        kept(&app, &client).await,
        (Some(begin + 51), Some(begin + 60), 10, begin + 50)
    );
}

async fn new_epoch(app: &TestApp, arguments: &[&str]) -> Output {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_dealstream"))
        .env_clear()
        .env("DATABASE_URL", &app.url)
        .current_dir("/")
        .arg("new-epoch")
        .args(arguments)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_new_epoch_sends_clients_back_to_the_data() {
    let app = alone("new_epoch").await;
    let (one, other) = (app.tenant().await, app.tenant().await);
    let hub = app.app.hub.clone();
    let follow = |client: &Client, after| Box::pin(hub.follow(client.viewer().tenant_id, after));
    let before = [position(&one).await, position(&other).await];
    let mut live = [follow(&one, None), follow(&other, None)];
    for signals in &mut live {
        assert!(matches!(next(signals).await, Signal::UpToDate(_)));
    }

    let id = write_id("tenant", one.viewer().tenant_id);
    let done = new_epoch(&app, &["--tenant", &id]).await;
    assert!(done.status.success(), "{done:?}");
    let replaced = |told: &Signal| matches!(told, Signal::MustRefetch(Reason::HistoryReplaced));
    assert!(
        replaced(&next(&mut live[0]).await),
        "live streams notice within a poll"
    );
    assert!(replaced(&next(&mut follow(&one, Some(before[0]))).await));
    let told = next(&mut follow(&other, Some(before[1]))).await;
    assert!(
        matches!(told, Signal::UpToDate(at) if at == before[1]),
        "{told:?}"
    );

    let done = new_epoch(&app, &[]).await;
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("New epochs: 2."),
        "{done:?}"
    );
    assert!(replaced(&next(&mut live[1]).await));
    assert!(replaced(&next(&mut follow(&other, Some(before[1]))).await));
    let now = position(&one).await;
    assert_eq!(now.position, before[0].position);
    let told = next(&mut follow(&one, Some(now))).await;
    assert!(matches!(told, Signal::UpToDate(at) if at == now), "{told:?}");

    let unknown = write_id("tenant", uuid::Uuid::now_v7());
    for refused in [unknown.as_str(), "nonsense", "deal_01h455vb4pex5vsknk084sn02q"] {
        let done = new_epoch(&app, &["--tenant", refused]).await;
        assert!(!done.status.success(), "{refused}");
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(told.contains("tenant"), "{refused}: {told}");
    }
}
