//! The document guard before the real schema.

use async_graphql::Variables;
use dealstream::config::Config;
use dealstream::db::id::write_id;
use serde_json::json;

use crate::support::TestApp;
use crate::support::app::{config, database_url};
use crate::support::wire::Wire;

/// Pages as clients ask for them, with what they cost.
const PAGES: [(&str, u64); 5] = [
    (
        "query ($id: ID!) { contact(id: $id) { id name email company { id name } } }",
        2,
    ),
    (
        "query ($n: Int = 20) { deals(first: $n) { nodes { id name stage { name } contact { name } } pageInfo { endCursor } } }",
        1 + 20 * 3 + 1,
    ),
    (
        "{ deals(first: 20) { nodes { id name stage { name } contact { name company { name } }
             interactions(first: 5) { nodes { id subject } } } } }",
        1 + 20 * (1 + 1 + 2 + 1 + 5),
    ),
    (
        "query ($id: ID!) { pipeline(id: $id) { stages { name dealCount totalAmount { amount }
             deals(first: 10) { nodes { id name } } } } }",
        1 + 10 * (1 + 1 + 1 + 10),
    ),
    (
        "{ contacts(first: 25, filter: {name: {contains: \"an\"}}) { totalCount nodes { id name } } }",
        26,
    ),
];

#[tokio::test]
async fn pages_as_clients_ask_for_them_pass_and_cost_what_they_show() {
    let test = TestApp::new().await;
    let id = |kind| write_id(kind, uuid::Uuid::now_v7());
    for (query, cost) in PAGES {
        let kind = if query.contains("pipeline(") {
            "pipeline"
        } else {
            "contact"
        };
        let variables = Variables::from_json(json!({"id": id(kind)}));
        let prepared = test.app.documents.prepare(query, None, variables);
        let prepared = prepared.unwrap_or_else(|refusal| panic!("{refusal}: {query}"));
        assert_eq!(prepared.cost(), cost, "{query}");
    }
    let move_deal = "mutation ($input: MoveDealInput!) { moveDeal(input: $input) {
        deal { id status } position userErrors { message } } }";
    let input = json!({"input": {"dealId": id("deal"), "stageId": id("stage")}});
    let prepared = test
        .app
        .documents
        .prepare(move_deal, None, Variables::from_json(input));
    assert!(prepared.is_ok_and(|prepared| (10..30).contains(&prepared.cost())));
}

#[tokio::test]
async fn what_asks_for_too_much_is_refused() {
    let test = TestApp::new().await;
    let client = test.tenant().await;
    for (query, code) in [
        ("{ deals(first: 101) { nodes { id } } }", "BAD_USER_INPUT"),
        ("{ deals(first: -1) { nodes { id } } }", "BAD_USER_INPUT"),
        (
            "{ companies(first: 100) { nodes { contacts(first: 100) { nodes { interactions(first: 100) { nodes { id } } } } } } }",
            "TOO_COMPLEX",
        ),
        (
            "{ deals { nodes { contact { company { contacts { nodes { company { contacts { nodes { company {
               contacts { nodes { company { contacts { nodes { company { name } } } } } } } } } } } } } } } } }",
            "TOO_COMPLEX",
        ),
        ("{ deals(filter: {nothing: 1}) { nodes { id } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { dealStageChanged { __typename } __typename }", "GRAPHQL_VALIDATION_FAILED"),
    ] {
        assert_eq!(client.code(query, json!({})).await, code, "{query}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_without_guesses_at_what_was_meant() {
    let test = TestApp::new().await;
    for query in [
        "{ dealz { nodes { id } } }",
        "{ deals { nodez { id } } }",
        "{ deals(frist: 1) { nodes { id } } }",
    ] {
        let refusal = test.app.documents.prepare(query, None, Variables::default());
        let message = refusal.err().unwrap().to_string();
        assert!(!message.contains("Did you mean"), "{message}");
    }
}

#[tokio::test]
async fn tools_can_read_the_schema_unless_that_is_switched_off() {
    let open = TestApp::new().await;
    let wire = Wire::serve(open.app.clone()).await;
    wire.peer("introspect.mjs", &[format!("http://{}/graphql", wire.address)])
        .await;

    let hidden = Config {
        introspection: false,
        ..config()
    };
    let hidden = TestApp::on(database_url().await, hidden).await;
    let wire = Wire::serve(hidden.app.clone()).await;
    for query in [
        "{ __schema { types { name } } }",
        "{ ...f } fragment f on Query { __type(name: \"Deal\") { name } }",
    ] {
        let reply = wire.ask(query).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "INTROSPECTION_DISABLED"),
            "{query}"
        );
        assert!(reply.json().get("data").is_none());
    }
    assert_eq!(
        wire.ask("{ __typename }").await.json()["data"]["__typename"],
        "Query"
    );
}
