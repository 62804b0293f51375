//! Subscriptions that share their work.

use std::time::Duration;

use dealstream::auth::Role;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use crate::support::wire::until;
use crate::support::{Client, TestApp};

const FOLLOW: &str = "subscription ($after: String) { dealStageChanged(after: $after) { __typename
    ... on DealStageChangedEvent { position deal { name stage { name } } }
    ... on UpToDate { position } } }";

async fn next(frames: &mut BoxStream<'static, Value>) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(30), frames.next()).await;
    let mut frame = frame.expect("a frame comes").expect("the stream goes on");
    assert!(frame["errors"].is_null(), "{frame:#}");
    frame["data"]["dealStageChanged"].take()
}

/// Moves a deal back and forth between two stages, out of the first of them at the first time; answers the positions.
async fn bounce(client: &Client, deal: &str, times: std::ops::Range<usize>) -> Vec<Value> {
    let stages = client.stages().await;
    let mut positions = Vec::new();
    for time in times {
        let to = &stages[(time + 1) % 2].0;
        let mut moved = client.move_deal(json!({ "dealId": deal, "stageId": to })).await;
        positions.push(moved["position"].take());
    }
    positions
}

#[tokio::test]
async fn who_asks_the_same_with_the_same_rights_shares_a_channel() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let sales = app.user(&admin, Role::Sales).await;
    let colleague = app.user(&admin, Role::Sales).await;
    let other = app.tenant().await;
    let deal = admin.deal(json!({ "name": "D" })).await;
    let begin = admin.position().await;
    let mut frames = Vec::new();
    for client in [&sales, &colleague, &sales] {
        frames.push(client.subscribe(FOLLOW, json!({})));
    }
    // From where somebody goes on makes no difference to what they ask.
    frames.push(sales.subscribe(FOLLOW, json!({ "after": begin })));
    for frames in &mut frames {
        assert_eq!(next(frames).await["__typename"], "UpToDate");
    }
    // Who is told waits for more, and by then has joined.
    let mut waiting: Vec<_> = frames
        .into_iter()
        .map(|mut frames| tokio::spawn(async move { next(&mut frames).await }))
        .collect();
    until("one channel", || app.live.open_channels() == 1).await;

    // Other rights, another question, another tenant.
    for (client, document) in [
        (&admin, FOLLOW),
        (&sales, "subscription { dealStageChanged { __typename } }"),
        (&other, FOLLOW),
    ] {
        let mut frames = client.subscribe(document, json!({}));
        assert_eq!(next(&mut frames).await["__typename"], "UpToDate");
        waiting.push(tokio::spawn(async move { next(&mut frames).await }));
    }
    until("four channels", || app.live.open_channels() == 4).await;

    let moved = bounce(&admin, &deal, 0..1).await;
    let stranger = waiting.pop().unwrap();
    for told in waiting {
        let told = told.await.unwrap();
        assert_eq!(told["__typename"], "DealStageChangedEvent");
        assert!(
            told["position"].is_null() || told["position"] == moved[0],
            "{told}"
        );
    }
    until("all but the stranger's to be gone", || {
        app.live.open_channels() == 1
    })
    .await;
    assert!(!stranger.is_finished());
    stranger.abort();
    until("all to be gone", || app.live.open_channels() == 0).await;
}

#[tokio::test]
async fn whoever_reads_slowly_is_overtaken_and_misses_nothing() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client
        .deal(json!({ "name": "D", "description": "d".repeat(9_000) }))
        .await;
    let follow = FOLLOW.replace("deal {", "deal { description");
    let mut fast = client.subscribe(&follow, json!({}));
    let mut slow = client.subscribe(&follow, json!({}));
    for frames in [&mut fast, &mut slow] {
        assert_eq!(next(frames).await["__typename"], "UpToDate");
    }
    // Both take a frame as one of many before the slow one sleeps; the channel then keeps less than what comes.
    let mut moved = bounce(&client, &deal, 0..1).await;
    for frames in [&mut fast, &mut slow] {
        assert_eq!(next(frames).await["position"], moved[0]);
    }
    let fast = tokio::spawn(async move {
        let mut told = Vec::new();
        while told.len() < 199 {
            told.push(next(&mut fast).await["position"].take());
        }
        (fast, told)
    });
    moved.extend(bounce(&client, &deal, 1..200).await);
    let (mut fast, told) = fast.await.unwrap();
    assert_eq!(told, moved[1..]);
    for position in &moved[1..] {
        assert_eq!(next(&mut slow).await["position"], *position);
    }
    assert_eq!(
        next(&mut slow).await["__typename"],
        "UpToDate",
        "it has caught up again"
    );
    let more = bounce(&client, &deal, 200..202).await;
    for frames in [&mut fast, &mut slow] {
        for position in &more {
            assert_eq!(next(frames).await["position"], *position);
        }
    }
}

#[tokio::test]
async fn whoever_comes_back_to_more_than_a_channel_keeps_gets_all_of_it() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client
        .deal(json!({ "name": "D", "description": "d".repeat(9_000) }))
        .await;
    let follow = FOLLOW.replace("deal {", "deal { description");
    let begin = client.position().await;
    let moved = bounce(&client, &deal, 0..250).await;
    // Nobody else is there, then one other who began at the same place.
    for _ in 0..2 {
        let mut both = [(); 2].map(|()| client.subscribe(&follow, json!({ "after": begin })));
        for frames in &mut both {
            for position in &moved {
                assert_eq!(next(frames).await["position"], *position);
            }
            assert_eq!(next(frames).await["__typename"], "UpToDate");
        }
    }
}

#[tokio::test]
async fn a_position_resumes_from_the_channel_as_from_the_history() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let before = client.position().await;
    let early = bounce(&client, &deal, 0..2).await;
    let mut live = client.subscribe(FOLLOW, json!({}));
    assert_eq!(next(&mut live).await["__typename"], "UpToDate");
    let late = bounce(&client, &deal, 2..5).await;
    for position in &late {
        assert_eq!(next(&mut live).await["position"], *position);
    }
    let last = late.last().unwrap();
    let all: Vec<_> = early.iter().chain(&late).collect();
    for (after, left) in [
        (&json!(before), &all[..]),
        (&early[0], &all[1..]),
        (&early[1], &all[2..]),
        (&late[0], &all[3..]),
        (last, &all[5..]),
    ] {
        let mut frames = client.subscribe(FOLLOW, json!({ "after": after }));
        for position in left {
            assert_eq!(next(&mut frames).await["position"], **position);
        }
        let told = next(&mut frames).await;
        assert_eq!(told, json!({ "__typename": "UpToDate", "position": last }));
    }
}

#[tokio::test]
async fn the_field_of_a_subscription_may_be_in_a_fragment() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let document = "subscription { ...Moves ... on Subscription { dealStageChanged { __typename } } }
        fragment Moves on Subscription { dealStageChanged { ... on DealStageChangedEvent { deal { name } } } }";
    let mut frames = client.subscribe(document, json!({}));
    assert_eq!(next(&mut frames).await, json!({ "__typename": "UpToDate" }));
    bounce(&client, &deal, 0..1).await;
    let told = next(&mut frames).await;
    assert_eq!(
        told,
        json!({ "__typename": "DealStageChangedEvent", "deal": { "name": "D" } })
    );
}
