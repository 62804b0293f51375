//! PostgreSQL goes away under a running server, and comes back.

use std::time::{Duration, Instant};

use dealstream::db::embedded::Embedded;
use dealstream::db::migrate;
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

    server.stop();
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
}
