//! What an answer looks like: the fields that were asked for, in their order, each once.

use async_graphql::Variables;
use dealstream::graphql::eager;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// The data of an answer as it is written.
async fn written(client: &Client, document: &str) -> String {
    let prepared = client.app.documents.prepare(document, None, Variables::default());
    let prepared = prepared.unwrap_or_else(|refusal| panic!("{document}\n{refusal}"));
    let session = client.session();
    let request = prepared.request().data(session.clone());
    let response = client.app.schema.execute(request).await;
    session.finish();
    assert!(response.errors.is_empty(), "{document}\n{:?}", response.errors);
    let mut data = Vec::new();
    eager::write(&response.data, &mut data);
    String::from_utf8(data).unwrap()
}

/// A tenant with two deals, each with a contact that works at a company.
async fn two_deals() -> Client {
    let client = TestApp::new().await.tenant().await;
    for name in ["One", "\"Two\" \\ \u{1f4c8}"] {
        let company = client.company("Initech").await;
        let contact = client
            .contact(json!({ "name": "Peter Gibbons", "companyId": company }))
            .await;
        client.deal(json!({ "name": name, "contactId": contact })).await;
    }
    client
}

#[tokio::test]
async fn an_answer_has_the_fields_in_the_order_in_which_they_were_asked_for() {
    let client = two_deals().await;
    let data = written(
        &client,
        "{ __typename deals(first: 2, orderBy: { field: CREATED_AT }) { totalCount __typename nodes {
            stage { name } __typename title: name amount { currencyCode amount } nextStep
            contact { company { name } name } interactions(first: 1) { nodes { id } } } } }",
    )
    .await;
    let deal = |title: &str| {
        format!(
            r#"{{"stage":{{"name":"Prospect"}},"__typename":"Deal","title":{title},"amount":{{"currencyCode":"USD","amount":"0.00"}},"nextStep":null,"contact":{{"company":{{"name":"Initech"}},"name":"Peter Gibbons"}},"interactions":{{"nodes":[]}}}}"#
        )
    };
    let (one, two) = (deal(r#""One""#), deal("\"\\\"Two\\\" \\\\ \u{1f4c8}\""));
    assert_eq!(
        data,
        format!(
            r#"{{"__typename":"Query","deals":{{"totalCount":2,"__typename":"DealConnection","nodes":[{one},{two}]}}}}"#
        )
    );
}

#[tokio::test]
async fn a_field_that_is_asked_for_in_several_places_is_answered_in_one() {
    let client = two_deals().await;
    let once = written(
        &client,
        "{ deals(first: 2) { nodes { id contact { id company { id name } name } name amount { amount currencyCode } }
           edges { node { id name } } pageInfo { hasNextPage endCursor } } }",
    )
    .await;
    let scattered = written(
        &client,
        "{ deals(first: 2) { nodes { id ...Person } edges { node { id } } pageInfo { hasNextPage } }
           ...Again deals(first: 2) { nodes { amount { amount } ... { amount { currencyCode } } } } }
         fragment Person on Deal { contact { id company { id } } ... on Node { id } ...Name }
         fragment Name on Deal { contact { company { name } name } name id }
         fragment Again on Query { deals(first: 2) { edges { node { name } } pageInfo { endCursor hasNextPage } } }",
    )
    .await;
    // Spaces and line breaks aside, they are the same text.
    assert_eq!(scattered, once);
}

#[tokio::test]
async fn what_may_not_be_null_takes_its_record_with_it_and_tells_where() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    client.deal(json!({ "name": "One" })).await;
    // The cursor is no place in that list; other fields are answered all the same.
    for twice in ["", "name "] {
        let document = format!(
            r#"{{ deals(first: 1) {{ nodes {{ name {twice}stage {{ name deals(first: 1, after: "x") {{ nodes {{ id }} }} }} }} }} }}"#
        );
        let answer = client.answer(&document, json!({})).await;
        assert_eq!(
            answer["data"],
            json!({ "deals": { "nodes": [{ "name": "One", "stage": null }] } }),
            "{answer:#}"
        );
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0]["path"], json!(["deals", "nodes", 0, "stage", "deals"]));
        assert_eq!(errors[0]["extensions"]["code"], "BAD_USER_INPUT");
    }
    let all = "{ deals(first: 1) { nodes { interactions(first: 0) { nodes { id } } } } }";
    let answer = client.answer(all, json!({})).await;
    assert_eq!(answer["data"], Value::Null, "{answer:#}");
}
