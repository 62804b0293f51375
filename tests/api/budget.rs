//! What the pages that people look at all day cost: statements and round trips, pinned.

use serde_json::json;

use crate::support::counter::{self, Counts};
use crate::support::{Client, TestApp};

/// A tenant with a company, two contacts and deals with interactions.
async fn seeded() -> (TestApp, Client) {
    counter::install();
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let company = client.company("Acme").await;
    let stages = client.stages().await;
    for number in 0..20 {
        let contact = client
            .contact(json!({ "name": format!("Contact {number}"), "companyId": company }))
            .await;
        let deal = client
            .deal(json!({
                "name": format!("Deal {number}"),
                "contactId": contact,
                "stageId": stages[number % 4].0,
                "amount": { "amount": "100.50", "currencyCode": "USD" },
            }))
            .await;
        client
            .interaction(json!({ "kind": "CALL", "subject": "Hello", "contactId": contact, "dealId": deal }))
            .await;
    }
    (app, client)
}

/// Runs a document twice and answers what the second run cost, when every statement is known to PostgreSQL.
async fn cost(client: &Client, document: &str, variables: serde_json::Value) -> Counts {
    client.query(document, variables.clone()).await;
    settle(client).await;
    counter::take();
    client.query(document, variables).await;
    let counts = counter::take();
    // The end of the read transaction follows off the client's path.
    let mut after = Vec::new();
    for _ in 0..2000 {
        after.extend(counter::take().statements);
        if after.iter().any(|statement| statement.contains("COMMIT")) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let ends = after
        .iter()
        .filter(|statement| statement.contains("COMMIT"))
        .count();
    assert_eq!(
        ends, 1,
        "the read transaction ends once, off the client's path: {after:?}"
    );
    assert_eq!(
        counts.prepared, 0,
        "nothing is prepared anew: {:?}",
        counts.statements
    );
    counts
}

/// Waits until connections given back off the client's path are back in the pool.
async fn settle(client: &Client) {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        let (open, free) = client.app.db.pool_status();
        if open == free {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("a connection was not given back");
}

fn assert_cost(counts: &Counts, statements: usize, round_trips: usize) {
    let found = (counts.statements.len(), counts.connections);
    assert_eq!(found, (statements, 0), "{:#?}", counts.statements);
    // One branch may be a level ahead of another while the database is slow to answer that: then it waits less often.
    let trips = counts.round_trips;
    assert!(
        trips <= round_trips,
        "{trips} round trips: {:#?}",
        counts.statements
    );
}

#[tokio::test]
async fn a_contact_with_its_company_costs_three_statements_in_two_round_trips() {
    let (_app, client) = seeded().await;
    let id = client
        .query("{ contacts(first: 1) { nodes { id } } }", json!({}))
        .await["contacts"]["nodes"][0]["id"]
        .clone();
    let counts = cost(
        &client,
        "query($id: ID!) { contact(id: $id) { name company { name } } }",
        json!({ "id": id }),
    )
    .await;
    assert_cost(&counts, 3, 2);
}

#[tokio::test]
async fn twenty_deals_with_stage_and_contact_cost_four_statements_in_two_round_trips() {
    let (_app, client) = seeded().await;
    let document =
        "{ deals(first: 20) { nodes { name amount { amount } stage { name } contact { name } } } }";
    let counts = cost(&client, document, json!({})).await;
    assert_cost(&counts, 4, 2);
}

#[tokio::test]
async fn the_nested_page_costs_six_statements_in_three_round_trips() {
    let (_app, client) = seeded().await;
    let document = "{ deals(first: 20) { nodes { name stage { name }
        contact { name company { name } interactions(first: 5) { nodes { subject } } } } } }";
    let counts = cost(&client, document, json!({})).await;
    assert_cost(&counts, 6, 3);
}

#[tokio::test]
async fn columns_that_no_field_shows_are_not_read() {
    let (_app, client) = seeded().await;
    let read = async |document: &str| cost(&client, document, json!({})).await.statements.join("\n");
    let names = |statements: &str, columns: &[&str]| {
        (columns.iter())
            .map(|column| statements.contains(&format!("\"{column}\"")))
            .collect::<Vec<_>>()
    };
    let deals = read("{ deals(first: 5) { nodes { name nextStep contact { name } } } }").await;
    assert_eq!(
        names(
            &deals,
            &[
                "name",
                "next_step",
                "contact_id",
                "owner_id",
                "notes",
                "company_id"
            ]
        ),
        [true, true, true, false, false, false]
    );
    // What a list hangs on is read, shown or not.
    let below = read("{ companies(first: 5) { nodes { deals(first: 5) { nodes { name } } } } }").await;
    assert_eq!(
        names(&below, &["company_id", "contact_id", "next_step"]),
        [true, false, false]
    );
    // Conditions are many, and have one statement each.
    let filtered = read("{ deals(first: 5, filter: { status: { eq: OPEN } }) { nodes { name } } }").await;
    assert_eq!(names(&filtered, &["contact_id", "next_step"]), [true, true]);
}

#[tokio::test]
async fn many_nodes_and_a_record_beside_them_are_one_statement() {
    counter::install();
    let client = TestApp::new().await.tenant().await;
    let mut ids = Vec::new();
    for number in 0..41 {
        ids.push(client.deal(json!({ "name": format!("Deal {number}") })).await);
    }
    let (id, ids) = ids.split_first().unwrap();
    let document = "query($id: ID!, $ids: [ID!]!) { nodes(ids: $ids) { id } deal(id: $id) { id }
                    again: nodes(ids: $ids) { id } }";
    let counts = cost(&client, document, json!({ "id": id, "ids": ids })).await;
    assert_cost(&counts, 2, 1);
}

#[tokio::test]
async fn a_page_whose_records_have_not_all_the_same_costs_as_much_as_one_whose_records_have() {
    counter::install();
    let client = TestApp::new().await.tenant().await;
    // Each has another company, and some have none, the last and the first of the page among them: they are done early.
    for number in 0..24 {
        let company = match number % 3 {
            0 => None,
            _ => Some(client.company(&format!("Company {number}")).await),
        };
        let contact = client
            .contact(json!({ "name": format!("Contact {number}"), "companyId": company }))
            .await;
        client
            .deal(json!({ "name": format!("Deal {number}"), "contactId": contact }))
            .await;
    }
    for page in ["first: 100", "first: 6", "last: 6"] {
        let document = format!(
            "{{ deals({page}, orderBy: {{ field: CREATED_AT, direction: ASC }}) {{ nodes {{
                 contact {{ company {{ name contacts(first: 1) {{ nodes {{ name }} }} }} }} }} }} }}"
        );
        let counts = cost(&client, &document, json!({})).await;
        assert_cost(&counts, 5, 4);
    }
}

#[tokio::test]
async fn interactions_of_the_deals_themselves_are_one_statement_too() {
    let (_app, client) = seeded().await;
    let document = "{ deals(first: 20) { nodes { name stage { name } contact { name company { name } }
        interactions(first: 5) { nodes { subject } } } } }";
    let counts = cost(&client, document, json!({})).await;
    assert_cost(&counts, 6, 3);
}

#[tokio::test]
async fn the_board_costs_six_statements_however_many_stages_it_has() {
    let (_app, client) = seeded().await;
    let id = client
        .query("{ pipelines(first: 1) { nodes { id } } }", json!({}))
        .await["pipelines"]["nodes"][0]["id"]
        .clone();
    let document = "query($id: ID!) { pipeline(id: $id) { name stages { name dealCount totalAmount { amount }
        weightedAmount { amount } deals(first: 10) { nodes { name amount { amount } } } } } }";
    let few = cost(&client, document, json!({ "id": id })).await;
    assert_cost(&few, 6, 3);
    for number in 0..10 {
        let input = json!({ "pipelineId": id, "name": format!("More {number}") });
        client
            .mutate(
                "createPipelineStage",
                "CreatePipelineStageInput",
                "stage { id }",
                input,
            )
            .await;
    }
    let many = cost(&client, document, json!({ "id": id })).await;
    assert_cost(&many, 6, 3);
}

#[tokio::test]
async fn a_search_page_with_its_count_costs_two_statements_in_one_round_trip() {
    let (_app, client) = seeded().await;
    let document = r#"{ contacts(search: "contact", first: 20) { totalCount nodes { name email } } }"#;
    let counts = cost(&client, document, json!({})).await;
    assert_cost(&counts, 2, 1);
}

/// Runs `moveDeal` back and forth, and answers what a move costs when every statement is known to PostgreSQL.
async fn cost_of_a_move(key: bool) -> Counts {
    let (_app, client) = seeded().await;
    let stages = client.stages().await;
    let deal = client
        .deal(json!({ "name": "Mover", "stageId": stages[0].0 }))
        .await;
    let document = "mutation($input: MoveDealInput!) { moveDeal(input: $input) { deal { id status } position userErrors { code } } }";
    let mut counts = Counts::default();
    for number in 0..8 {
        let mut input = json!({ "dealId": deal, "stageId": stages[1 + number % 2].0 });
        if key {
            input["idempotencyKey"] = json!(format!("move-{number}"));
        }
        settle(&client).await;
        counter::take();
        let data = client.query(document, json!({ "input": input })).await;
        assert_eq!(data["moveDeal"]["userErrors"], json!([]));
        counts = counter::take();
    }
    assert_eq!(
        counts.prepared, 0,
        "nothing is prepared anew: {:?}",
        counts.statements
    );
    counts
}

#[tokio::test]
async fn moving_a_deal_costs_eight_statements_in_three_round_trips() {
    // BEGIN, deal, stage · deal, way left, way entered · events, COMMIT
    assert_cost(&cost_of_a_move(false).await, 8, 3);
}

#[tokio::test]
async fn an_idempotency_key_costs_nothing_more() {
    assert_cost(&cost_of_a_move(true).await, 8, 3);
}

#[tokio::test]
async fn however_often_one_asks_about_oneself_the_directory_is_read_once() {
    counter::install();
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let fields = |n| format!("m{n}: memberships {{ role }} e{n}: isEmailVerified c{n}: recoveryCodesLeft ");
    let document = format!(
        "{{ one: viewer {{ {} }} two: viewer {{ {} tenant {{ name }} }} }}",
        (0..6).map(fields).collect::<String>(),
        fields(6)
    );
    client.query(&document, json!({})).await;
    app.settle().await;
    counter::take();
    let data = client.query(&document, json!({})).await;
    assert_eq!(data["two"]["m6"][0]["role"], "ADMIN");
    assert_eq!(
        (&data["one"]["e0"], &data["one"]["c0"]),
        (&json!(false), &json!(0))
    );
    let statements = counter::take().statements;
    let reads = statements.iter().filter(|it| it.contains("dealstream_directory"));
    assert_eq!(reads.count(), 1, "{statements:#?}");
}
