//! A retried mutation happens once.

use dealstream::auth::Role;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

async fn create(client: &Client, input: Value) -> Value {
    client
        .payload(
            "createCompany",
            "CreateCompanyInput",
            "company { id name version }",
            input,
        )
        .await
}

async fn companies(client: &Client) -> u64 {
    let data = client.query("{ companies { totalCount } }", json!({})).await;
    data["companies"]["totalCount"].as_u64().unwrap()
}

#[tokio::test]
async fn the_same_key_and_input_are_answered_the_same_and_done_once() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let input = json!({ "name": "Acme", "industry": "Tools", "idempotencyKey": "one" });
    let first = create(&client, input.clone()).await;
    assert_eq!(create(&client, input.clone()).await, first);
    // Also when the record has changed meanwhile, and when it is there no more.
    let id = &first["company"]["id"];
    let renamed = json!({ "companyId": id, "name": "Renamed" });
    client
        .mutate("updateCompany", "UpdateCompanyInput", "company { id }", renamed)
        .await;
    assert_eq!(create(&client, input.clone()).await, first);
    client
        .mutate(
            "deleteCompany",
            "DeleteCompanyInput",
            "deletedCompanyId",
            json!({ "companyId": id }),
        )
        .await;
    assert_eq!(create(&client, input).await, first);
    // The order of fields says nothing, nor whether they are variables.
    let shuffled = r#"mutation { createCompany(input: { idempotencyKey: "one", industry: "Tools", name: "Acme" }) { company { id } } }"#;
    let data = client.query(shuffled, json!({})).await;
    assert_eq!(data["createCompany"]["company"]["id"], *id);
    assert_eq!(companies(&client).await, 0);
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    create(&client, json!({ "name": "Acme", "idempotencyKey": "one" })).await;
    let other_input = create(&client, json!({ "name": "Other", "idempotencyKey": "one" })).await;
    let more_input = create(
        &client,
        json!({ "name": "Acme", "industry": "Tools", "idempotencyKey": "one" }),
    )
    .await;
    let input = json!({ "name": "Acme", "idempotencyKey": "one" });
    let other_mutation = client
        .payload("createContact", "CreateContactInput", "contact { id }", input)
        .await;
    for payload in [other_input, more_input, other_mutation] {
        let error = &payload["userErrors"][0];
        assert_eq!(error["code"], "IDEMPOTENCY_KEY_REUSED", "{payload}");
        assert_eq!(error["field"], json!(["input", "idempotencyKey"]));
    }
    assert_eq!(companies(&client).await, 1);
}

#[tokio::test]
async fn a_header_does_what_the_input_does() {
    let app = TestApp::new().await;
    let client = app.tenant().await.with_idempotency_key("header");
    let first = create(&client, json!({ "name": "Acme" })).await;
    assert_eq!(create(&client, json!({ "name": "Acme" })).await, first);
    let other = create(&client, json!({ "name": "Other" })).await;
    assert_eq!(other["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");
    // What the input says counts more.
    let own = create(&client, json!({ "name": "Own", "idempotencyKey": "own" })).await;
    assert_eq!(own["company"]["name"], "Own");
    assert_eq!(companies(&client).await, 2);
}

#[tokio::test]
async fn a_key_is_the_same_in_the_header_and_in_the_input() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let by_header = client.with_idempotency_key("one");
    let first = create(&by_header, json!({ "name": "Acme" })).await;
    for client in [&client, &by_header] {
        let again = create(client, json!({ "name": "Acme", "idempotencyKey": "one" })).await;
        assert_eq!(again, first);
    }
    let other = create(&client, json!({ "name": "Other", "idempotencyKey": "one" })).await;
    assert_eq!(other["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(companies(&client).await, 1);
}

#[tokio::test]
async fn the_mutations_of_a_request_share_its_key_and_are_done_once_each() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let by_header = client.with_idempotency_key("one");
    let document = r#"mutation {
        a: createCompany(input: { name: "Acme" }) { company { id } }
        b: createCompany(input: { name: "Acme" }) { company { id } }
        createCompany(input: { name: "Acme" }) { company { id } }
    }"#;
    let first = by_header.query(document, json!({})).await;
    assert_ne!(first["a"], first["b"]);
    assert_eq!(by_header.query(document, json!({})).await, first);
    // What is done of a request is not done again with the rest of it.
    let more = document.replace(
        "}\n    }",
        "}\n        c: createCompany(input: { name: \"C\" }) { company { id } }\n    }",
    );
    let again = by_header.query(&more, json!({})).await;
    assert_eq!((&again["a"], &again["b"]), (&first["a"], &first["b"]));
    assert!(again["c"]["company"]["id"].is_string(), "{again}");
    assert_eq!(companies(&client).await, 4);
}

#[tokio::test]
async fn a_single_mutation_has_the_key_of_its_request_however_it_is_written() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let by_header = client.with_idempotency_key("one");
    let field = r#"createCompany(input: { name: "Acme" }) { company { id } }"#;
    let mut ids = Vec::new();
    for document in [
        format!("mutation {{ {field} }}"),
        format!("mutation {{ __typename {field} }}"),
        format!("mutation {{ ...a }} fragment a on Mutation {{ {field} }}"),
        format!("mutation {{ ... {{ {field} }} {field} }}"),
        format!("mutation {{ createCompany: {field} }}"),
    ] {
        let data = by_header.query(&document, json!({})).await;
        ids.push(data["createCompany"]["company"]["id"].clone());
    }
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    assert_eq!(companies(&client).await, 1);
    // What is skipped still is one of several: whether it is, changes no key.
    let document = format!("mutation($skip: Boolean!) {{ a: {field} b: {field} @skip(if: $skip) }}")
        .replace(") { company { id } } @skip", ") @skip")
        .replace("@skip(if: $skip)", "@skip(if: $skip) { company { id } }");
    let first = by_header.query(&document, json!({ "skip": true })).await;
    let again = by_header.query(&document, json!({ "skip": false })).await;
    assert_eq!(again["a"], first["a"]);
    assert_eq!(companies(&client).await, 3);
    // However long a name is.
    let long = format!("mutation {{ {}: {field} b: {field} }}", "n".repeat(9_000));
    let first = by_header.query(&long, json!({})).await;
    assert_eq!(by_header.query(&long, json!({})).await, first);
    assert_eq!(companies(&client).await, 4);
}

#[tokio::test]
async fn what_is_asked_for_twice_under_one_name_is_made_once() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let twice = r#"mutation($name: String!) {
        createCompany(input: { name: $name }) { company { name } }
        createCompany(input: { name: $name }) { company { name id } position }
        ...again
        ... on Mutation { createCompany(input: { name: $name }) { userErrors { code } } }
    }
    fragment again on Mutation { createCompany(input: { name: $name }) { company { version } } }"#;
    let data = client.query(twice, json!({ "name": "Acme" })).await;
    let payload = &data["createCompany"];
    assert_eq!(payload["company"]["name"], "Acme");
    assert_eq!(payload["company"]["version"], 1);
    assert!(
        payload["company"]["id"].is_string() && payload["position"].is_string(),
        "{data}"
    );
    assert_eq!(payload["userErrors"], json!([]));
    assert_eq!(companies(&client).await, 1);
    let with = |document: &str| {
        let mut whole = document.to_owned();
        for (name, company) in [("a", "A"), ("b", "B")] {
            if document.contains(&format!("...{name}")) {
                whole += &format!(
                    r#" fragment {name} on Mutation {{ createCompany(input: {{ name: "{company}" }}) {{ position }} __typename }}"#
                );
            }
        }
        whole
    };
    // The same name for what is not the same.
    for document in [
        "mutation($b: Boolean!) { ...a ...b }",
        r#"mutation($b: Boolean!) { createCompany(input: { name: "C" }) { position } ... on Mutation { ... on Mutation { ...b } } }"#,
        "mutation($b: Boolean!) { ...a ... @include(if: $b) { ... on Mutation { ... on Mutation { ...b } } } }",
    ] {
        let answer = client.answer(&with(document), json!({ "b": true })).await;
        let code = &answer["errors"][0]["extensions"]["code"];
        assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{document}: {answer}");
    }
    assert_eq!(companies(&client).await, 1);
    // What is skipped, in whichever way, is not there.
    for (document, made) in [
        ("mutation($b: Boolean!) { ...a ...a @include(if: $b) }", (1, 1)),
        (
            "mutation($b: Boolean!) { ...a @skip(if: $b) ...a @include(if: $b) }",
            (1, 1),
        ),
        (
            "mutation($b: Boolean!) { ... @skip(if: $b) { ...a @include(if: true) } ...a @include(if: false) }",
            (1, 0),
        ),
        (
            "mutation($b: Boolean!) { ...a ...a other: createCompany(input: { name: \"C\" }) @include(if: $b) { position } }",
            (1, 2),
        ),
        (
            "mutation($b: Boolean!) { ...a c: createCompany(input: { name: \"C\" }) { position } ... @include(if: $b) { __typename } __typename }",
            (2, 2),
        ),
    ] {
        for (b, made) in [(false, made.0), (true, made.1)] {
            let before = companies(&client).await;
            let data = client.query(&with(document), json!({ "b": b })).await;
            assert_eq!(companies(&client).await - before, made, "{document} {b}: {data}");
            let answered = data
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "__typename")
                .count();
            assert_eq!(answered as u64, made, "{document} {b}: {data}");
        }
    }
}

#[tokio::test]
async fn mutations_of_a_request_fail_one_by_one() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let sales = app.user(&admin, Role::Sales).await;
    let document = r#"mutation {
        a: createCompany(input: { name: "A" }) { company { name } }
        updateTenant(input: { name: "Mine" }) { tenant { name } }
        b: createCompany(input: { name: "B" }) { company { name } }
    }"#;
    let answer = sales.answer(document, json!({})).await;
    let company = |name: &str| json!({ "company": { "name": name } });
    assert_eq!(
        answer["data"],
        json!({ "a": company("A"), "updateTenant": null, "b": company("B") })
    );
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{answer}");
    assert_eq!(errors[0]["path"], json!(["updateTenant"]));
    assert_eq!(errors[0]["extensions"]["code"], "FORBIDDEN");
    assert_eq!(companies(&admin).await, 2);
}

#[tokio::test]
async fn a_key_belongs_to_its_user_and_tenant() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let clients = [
        client.clone(),
        app.user(&client, Role::Sales).await,
        app.tenant().await,
    ];
    let mut ids = Vec::new();
    for client in &clients {
        let payload = create(client, json!({ "name": "Acme", "idempotencyKey": "one" })).await;
        ids.push(payload["company"]["id"].clone());
    }
    assert!(ids.iter().all(Value::is_string), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[tokio::test]
async fn what_was_refused_may_be_tried_again_under_its_key() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let refused = create(&client, json!({ "name": "", "idempotencyKey": "one" })).await;
    assert_eq!(refused["userErrors"][0]["code"], "REQUIRED");
    let done = create(&client, json!({ "name": "Acme", "idempotencyKey": "one" })).await;
    assert_eq!(done["userErrors"], json!([]));
}

/// Sends the same mutation many times at once: all answers must be the same, and without a problem.
async fn at_once(client: &Client, field: &str, ty: &str, selection: &str, input: Value) -> Value {
    let requests = (0..6).map(|_| client.payload(field, ty, selection, input.clone()));
    let answers = join_all(requests).await;
    for answer in &answers {
        assert_eq!(answer["userErrors"], json!([]), "{field}: {answers:#?}");
        assert_eq!(*answer, answers[0], "{field}");
    }
    answers[0].clone()
}

#[tokio::test]
async fn of_the_same_request_many_times_at_once_one_is_done_and_all_are_answered() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let company = json!({ "name": "Acme", "idempotencyKey": "create" });
    at_once(
        &client,
        "createCompany",
        "CreateCompanyInput",
        "company { id }",
        company,
    )
    .await;
    assert_eq!(companies(&client).await, 1);
    // What would be refused a second time: the name is taken, the version is stale, the record is gone.
    let pipeline = json!({ "name": "Second", "idempotencyKey": "pipeline" });
    at_once(
        &client,
        "createPipeline",
        "CreatePipelineInput",
        "pipeline { id }",
        pipeline,
    )
    .await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let stage = client.stage("Proposal").await;
    let input = json!({ "dealId": deal, "stageId": stage, "expectedVersion": 1, "idempotencyKey": "move" });
    let moved = at_once(
        &client,
        "moveDeal",
        "MoveDealInput",
        "deal { version } stageChange { id }",
        input,
    )
    .await;
    assert_eq!(moved["deal"]["version"], 2);
    assert!(moved["stageChange"]["id"].is_string());
    let input = json!({ "dealId": deal, "idempotencyKey": "delete" });
    at_once(&client, "deleteDeal", "DeleteDealInput", "deletedDealId", input).await;
}
