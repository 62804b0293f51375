//! PostgreSQL goes away under a running server, and comes back.

use std::time::{Duration, Instant};

use dealstream::db::embedded::Embedded;
use dealstream::db::migrate;
use dealstream::events::feed::Signal;
use futures::StreamExt;
use serde_json::json;

use crate::support::folder::Folder;
use crate::support::{TestApp, app};

const DEALS: &str = "{ deals(first: 1) { nodes { name } } }";

#[tokio::test]
async fn a_restart_of_the_database_is_told_clearly_and_survived() {
    let folder = Folder::new("outage");
    let mut server = Embedded::start(folder.path()).unwrap();
    let url = server.url();
    migrate::migrate(&url).await.unwrap();
    let app = TestApp::on(url.clone(), app::config()).await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "Survivor" })).await;
    let hub = app.app.hub.clone();
    let mut live = Box::pin(hub.follow(client.viewer().tenant_id, None));
    let begin = match live.next().await {
        Some(Signal::UpToDate(position)) => position,
        other => panic!("{other:?}"),
    };

    // A connection is lost while nobody has it: it was left a moment ago, in the transaction of a read.
    client.query(DEALS, json!({})).await;
    server.stop();
    let mut resumed = Box::pin(hub.follow(client.viewer().tenant_id, Some(begin)));
    let waits = tokio::time::timeout(Duration::from_secs(3), async {
        futures::join!(live.next(), resumed.next())
    });
    waits
        .await
        .expect_err("they wait for the database, and do not end");
    for _ in 0..3 {
        assert_eq!(client.code(DEALS, json!({})).await, "UNAVAILABLE");
        let renamed = "mutation($id: ID!) { updateDeal(input: {dealId: $id, name: \"No\"}) { position } }";
        assert_eq!(client.code(renamed, json!({ "id": deal })).await, "UNAVAILABLE");
    }

    let server = Embedded::start(folder.path()).unwrap();
    assert_eq!(server.url(), url, "the server finds it where it was");
    let began = Instant::now();
    loop {
        let answer = client.answer(DEALS, json!({})).await;
        if answer["data"]["deals"]["nodes"] == json!([{ "name": "Survivor" }]) {
            break;
        }
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "UNAVAILABLE",
            "{answer:#}"
        );
        assert!(began.elapsed() < Duration::from_secs(20), "it never recovered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Those who followed go on where they were.
    client.company("After").await;
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(Signal::UpToDate(_)) = resumed.next().await {}
        live.next().await
    });
    match told.await.expect("it arrives") {
        Some(Signal::Event { event, .. }) => assert_eq!(event.position, begin.position + 1),
        other => panic!("{other:?}"),
    }
}
