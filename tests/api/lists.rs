//! Lists: every row exactly once, forwards and backwards, in every order, whatever is added meanwhile.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// Lists with what they can be sorted by.
const LISTS: [(&str, &[&str]); 6] = [
    ("users", &["CREATED_AT", "NAME"]),
    ("companies", &["CREATED_AT", "UPDATED_AT", "NAME"]),
    ("contacts", &["CREATED_AT", "UPDATED_AT", "NAME"]),
    ("pipelines", &["CREATED_AT", "NAME"]),
    ("deals", &["CREATED_AT", "UPDATED_AT", "NAME", "AMOUNT"]),
    ("interactions", &["OCCURRED_AT", "CREATED_AT"]),
];

/// Rows of every list; many share what they are sorted by.
const ROWS: usize = 11;

async fn fill(app: &TestApp) -> Client {
    let client = app.tenant().await;
    let contact = client.contact(json!({ "name": "Same" })).await;
    client.company("Same").await;
    for number in 1..ROWS {
        let name = ["Same", "Same", "Zeta", "alpha", "Älter"][number % 5];
        app.user(&client, dealstream::auth::Role::Viewer).await;
        client.company(name).await;
        client.contact(json!({ "name": name })).await;
        let pipeline = json!({ "name": format!("{name} {number}") });
        client
            .mutate(
                "createPipeline",
                "CreatePipelineInput",
                "pipeline { id }",
                pipeline,
            )
            .await;
    }
    for number in 0..ROWS {
        let name = ["Same", "Other"][number % 2];
        let amount = json!({ "amount": (number % 3).to_string(), "currencyCode": "USD" });
        client
            .deal(json!({ "name": name, "amount": amount, "contactId": contact }))
            .await;
        let occurred = format!("2030-01-0{}T00:00:00Z", number % 3 + 1);
        client
            .interaction(
                json!({ "kind": "NOTE", "subject": "S", "contactId": contact, "occurredAt": occurred }),
            )
            .await;
    }
    // Many rows of one moment, as an import has them.
    let tenant = client.viewer().tenant_id;
    app.superuser()
        .await
        .batch_execute(&format!(
            "UPDATE companies SET created_at = date_trunc('year', created_at) WHERE tenant_id = '{tenant}';
             UPDATE contacts SET updated_at = date_trunc('year', updated_at) WHERE tenant_id = '{tenant}';
             UPDATE deals SET created_at = date_trunc('year', created_at) WHERE tenant_id = '{tenant}';
             UPDATE users SET created_at = date_trunc('year', created_at) WHERE tenant_id = '{tenant}'"
        ))
        .await
        .unwrap();
    client
}

fn ids(page: &Value) -> Vec<String> {
    let nodes = page["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|node| node["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Walks a list page by page; between pages `meanwhile` runs. Answers the ids in the order of the list.
async fn walk(
    client: &Client,
    list: &str,
    order: &str,
    backwards: bool,
    size: usize,
    meanwhile: impl AsyncFn(usize),
) -> Vec<String> {
    let document = format!(
        "query($first: Int, $after: Cursor, $last: Int, $before: Cursor) {{
           page: {list}({order} first: $first, after: $after, last: $last, before: $before) {{
             nodes {{ id }} edges {{ cursor node {{ id }} }}
             pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"
    );
    let mut all = Vec::new();
    let mut cursor = Value::Null;
    for number in 0.. {
        let variables = match backwards {
            false => json!({ "first": size, "after": cursor }),
            true => json!({ "last": size, "before": cursor }),
        };
        let mut data = client.query(&document, variables).await;
        let page = data["page"].take();
        let rows = ids(&page);
        let info = &page["pageInfo"];
        let edges = page["edges"].as_array().unwrap();
        assert_eq!(edges.len(), rows.len());
        if let (Some(first), Some(last)) = (edges.first(), edges.last()) {
            assert_eq!(
                (&first["cursor"], &last["cursor"]),
                (&info["startCursor"], &info["endCursor"])
            );
            assert_eq!(first["node"]["id"], rows[0]);
        }
        let (more, came_from) = match backwards {
            false => (&info["hasNextPage"], &info["hasPreviousPage"]),
            true => (&info["hasPreviousPage"], &info["hasNextPage"]),
        };
        assert_eq!(came_from, &json!(number > 0));
        if backwards {
            cursor = info["startCursor"].clone();
            all.splice(0..0, rows);
        } else {
            cursor = info["endCursor"].clone();
            all.extend(rows);
        }
        if more == false {
            return all;
        }
        assert!(number < 100, "the walk ends");
        meanwhile(number).await;
    }
    unreachable!()
}

#[tokio::test]
async fn every_row_is_met_exactly_once_in_all_orders_both_ways() {
    let app = TestApp::new().await;
    let client = fill(&app).await;
    for (list, orders) in LISTS {
        let data = client
            .query(
                &format!("{{ {list}(first: 100) {{ totalCount nodes {{ id }} }} }}"),
                json!({}),
            )
            .await;
        let rows: BTreeSet<_> = ids(&data[list]).into_iter().collect();
        assert_eq!(
            (rows.len(), &data[list]["totalCount"]),
            (ROWS, &json!(ROWS)),
            "{list}"
        );
        for order in orders {
            let mut both = Vec::new();
            for direction in ["ASC", "DESC"] {
                let order = format!("orderBy: {{ field: {order}, direction: {direction} }}");
                let quiet = async |_| ();
                let forwards = walk(&client, list, &order, false, 3, quiet).await;
                let backwards = walk(&client, list, &order, true, 4, quiet).await;
                assert_eq!(forwards, backwards, "{list} {order}");
                assert_eq!(forwards.len(), ROWS, "{list} {order}: none twice");
                assert_eq!(
                    forwards.iter().cloned().collect::<BTreeSet<_>>(),
                    rows,
                    "{list} {order}: none left out"
                );
                both.push(forwards);
            }
            both[1].reverse();
            assert_eq!(both[0], both[1], "{list} {order}: one way is the other reversed");
        }
    }
}

#[tokio::test]
async fn the_order_is_the_one_that_was_asked_for() {
    let app = TestApp::new().await;
    let client = fill(&app).await;
    for (list, field, path) in [
        ("deals", "AMOUNT", "/amount/amount"),
        ("deals", "NAME", "/name"),
        ("deals", "UPDATED_AT", "/updatedAt"),
        ("interactions", "OCCURRED_AT", "/occurredAt"),
        ("interactions", "CREATED_AT", "/createdAt"),
        ("contacts", "CREATED_AT", "/createdAt"),
    ] {
        for direction in ["ASC", "DESC"] {
            let selected = if path == "/amount/amount" {
                "amount { amount }"
            } else {
                &path[1..]
            };
            let document = format!(
                "{{ {list}(orderBy: {{ field: {field}, direction: {direction} }}) {{ nodes {{ {selected} }} }} }}"
            );
            let data = client.query(&document, json!({})).await;
            let nodes = data[list]["nodes"].as_array().unwrap();
            let mut values: Vec<_> = nodes
                .iter()
                .map(|node| node.pointer(path).unwrap().as_str().unwrap())
                .collect();
            if direction == "DESC" {
                values.reverse();
            }
            assert!(values.is_sorted(), "{list} {field} {direction}: {values:?}");
        }
    }
}

#[tokio::test]
async fn rows_added_meanwhile_neither_double_nor_hide_any() {
    let app = TestApp::new().await;
    let client = fill(&app).await;
    for (list, orders) in [("companies", LISTS[1].1), ("deals", LISTS[4].1)] {
        for order in orders {
            for (backwards, direction) in [(false, "ASC"), (false, "DESC"), (true, "ASC"), (true, "DESC")] {
                let data = client
                    .query(
                        &format!("{{ {list}(first: 100) {{ nodes {{ id }} }} }}"),
                        json!({}),
                    )
                    .await;
                let there: BTreeSet<_> = ids(&data[list]).into_iter().collect();
                let order = format!("orderBy: {{ field: {order}, direction: {direction} }}");
                let meanwhile = async |number: usize| {
                    if number > 2 {
                        return;
                    }
                    let name = ["Aaa", "Same", "zzz"][number];
                    if list == "companies" {
                        client.company(name).await;
                    } else {
                        let amount = json!({ "amount": (number * 2).to_string(), "currencyCode": "USD" });
                        client.deal(json!({ "name": name, "amount": amount })).await;
                    }
                };
                let walked = walk(&client, list, &order, backwards, 5, meanwhile).await;
                let met: BTreeSet<_> = walked.iter().cloned().collect();
                assert_eq!(met.len(), walked.len(), "{list} {order}: none twice");
                assert!(met.is_superset(&there), "{list} {order}: none left out");
            }
        }
    }
}

#[tokio::test]
async fn each_parent_has_pages_of_its_own() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let mut expected = Vec::new();
    for number in 0..3 {
        let company = client.company(&format!("Company {number}")).await;
        let mut contacts = Vec::new();
        for _ in 0..number * 2 + 1 {
            contacts.push(client.contact(json!({ "name": "C", "companyId": company })).await);
        }
        contacts.reverse();
        expected.push(contacts);
    }
    let document =
        "query($after: Cursor, $before: Cursor) { companies(orderBy: { field: CREATED_AT }) { nodes {
        contacts(first: 2, after: $after) { totalCount nodes { id } pageInfo { hasNextPage endCursor } }
        last: contacts(last: 2, before: $before) { nodes { id } pageInfo { hasPreviousPage } } } } }";
    let data = client.query(document, json!({})).await;
    let companies = data["companies"]["nodes"].as_array().unwrap();
    for (company, expected) in companies.iter().zip(&expected) {
        assert_eq!(company["contacts"]["totalCount"], expected.len());
        assert_eq!(ids(&company["contacts"]), expected[..expected.len().min(2)]);
        assert_eq!(company["contacts"]["pageInfo"]["hasNextPage"], expected.len() > 2);
        assert_eq!(
            ids(&company["last"]),
            expected[expected.len().saturating_sub(2)..]
        );
        assert_eq!(company["last"]["pageInfo"]["hasPreviousPage"], expected.len() > 2);
    }
    // The place of a row in one parent's list is a place in every other's: newest first, from there on.
    let cursor = &companies[2]["contacts"]["pageInfo"]["endCursor"];
    let data = client
        .query(document, json!({ "after": cursor, "before": cursor }))
        .await;
    let companies = data["companies"]["nodes"].as_array().unwrap();
    assert_eq!(ids(&companies[2]["contacts"]), expected[2][2..4]);
    assert_eq!(ids(&companies[2]["last"]), expected[2][..1]);
    assert_eq!(ids(&companies[1]["contacts"]), expected[1][..2]);
    assert_eq!(ids(&companies[1]["last"]), [""; 0]);
    // Walking one parent's list meets all of its rows, and nothing of its siblings.
    let document = "query($id: ID!, $after: Cursor) { company(id: $id) {
        contacts(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } } }";
    let list = client
        .query(
            "{ companies(orderBy: { field: CREATED_AT }) { nodes { id } } }",
            json!({}),
        )
        .await;
    for (id, expected) in ids(&list["companies"]).into_iter().zip(&expected) {
        let (mut walked, mut after) = (Vec::new(), Value::Null);
        loop {
            let data = client.query(document, json!({ "id": id, "after": after })).await;
            let page = &data["company"]["contacts"];
            walked.extend(ids(page));
            after = page["pageInfo"]["endCursor"].clone();
            if page["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(walked, *expected);
    }
}

#[tokio::test]
async fn the_total_is_counted_under_the_filter_and_only_when_asked_for() {
    let app = TestApp::new().await;
    let client = fill(&app).await;
    let document = r#"{ named: deals(filter: { name: { eq: "Same" } }, first: 1) { all: totalCount nodes { id } }
        none: contacts(search: "nobody", first: 1) { totalCount nodes { id } } everybody: contacts { totalCount } }"#;
    let data = client.query(document, json!({})).await;
    assert_eq!(data["named"]["all"], ROWS.div_ceil(2));
    assert_eq!(data["none"], json!({ "totalCount": 0, "nodes": [] }));
    assert_eq!(data["everybody"]["totalCount"], ROWS);
    crate::support::counter::install();
    let counted = TestApp::new().await;
    let client = counted.tenant().await;
    crate::support::counter::take();
    client
        .query("{ deals { nodes { id } pageInfo { hasNextPage } } }", json!({}))
        .await;
    let sent = crate::support::counter::take().statements;
    assert!(
        sent.iter()
            .all(|statement| !statement.to_lowercase().contains("count(")),
        "{sent:?}"
    );
}
