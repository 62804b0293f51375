//! Bad input is refused in the client's words: nothing of it is a fault of the server, and no answer shows its inside.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dealstream::auth::Role;
use dealstream::db::id::{Id, read_id, write_id};
use dealstream::events::Position;
use dealstream::graphql::scalar::{CurrencyCode, Decimal, Money, MoneyInput};
use dealstream::identity::User;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::recipes::{self, KINDS, Records};
use crate::support::{Client, TestApp};

/// The whole answer, which must not be a fault of ours, nor show anything of the inside.
async fn sound(client: &Client, document: &str, variables: Value) -> Value {
    let answer = client.answer(document, variables).await;
    let mut told = String::new();
    collect(&answer["errors"], &mut told);
    collect(&answer["data"], &mut told);
    for code in ["INTERNAL", "UNAVAILABLE"] {
        assert_ne!(
            answer["errors"][0]["extensions"]["code"], code,
            "{document}: {answer:#}"
        );
    }
    for inside in [
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "WHERE ",
        "pg_",
        "violates",
        "syntax error",
        "operator does not",
        "src/",
        ".rs",
        "panicked",
        "unwrap",
        "diesel",
        "tokio",
        "Some(",
        "None",
        "Err(",
        "Uuid(",
        "::",
        "stack backtrace",
    ] {
        assert!(!told.contains(inside), "{document} shows {inside:?}: {told}");
    }
    answer
}

/// The messages in an answer.
fn collect(value: &Value, told: &mut String) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let (true, Some(text)) = (name == "message", value.as_str()) {
                    told.push_str(text);
                    told.push('\n');
                }
                collect(value, told);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, told)),
        _ => {}
    }
}

async fn refused(client: &Client, document: &str, variables: Value) -> Value {
    let answer = sound(client, document, variables).await;
    assert_eq!(
        answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
        "{document}: {answer:#}"
    );
    answer["errors"][0]["message"].clone()
}

/// The first user error of a mutation that must have one: its field, its code.
async fn mended(client: &Client, field: &str, selection: &str, input: Value) -> (Vec<String>, String) {
    let ty = field[..1].to_uppercase() + &field[1..] + "Input";
    let document = format!(
        "mutation($input: {ty}!) {{ {field}(input: $input) {{ {selection} position userErrors {{ field code message }} }} }}"
    );
    let answer = sound(client, &document, json!({ "input": input })).await;
    let payload = &answer["data"][field];
    assert!(payload["position"].is_null(), "{field}: {answer:#}");
    let error = &payload["userErrors"][0];
    let path = error["field"]
        .as_array()
        .unwrap_or_else(|| panic!("{field}: {answer:#}"));
    let path = path
        .iter()
        .map(|step| step.as_str().unwrap().to_owned())
        .collect();
    (path, error["code"].as_str().unwrap().to_owned())
}

fn input(field: &str) -> Vec<String> {
    std::iter::once("input")
        .chain(field.split('.'))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn an_id_of_the_wrong_kind_refuses_the_whole_request_before_anything_runs() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let records = Records::unknown();
    let mut probed = 0;
    for place in recipes::places() {
        // These take every kind.
        let any = place.path.last().is_some_and(|step| step == "recordId");
        if any || matches!(place.field.as_str(), "node" | "nodes") {
            continue;
        }
        probed += 1;
        let other = if place.kind == "deal" { "contact" } else { "deal" };
        let (document, variables) = place.operation(&records, &write_id(other, Uuid::now_v7()));
        let answer = client.answer(&document, variables).await;
        assert!(answer.get("data").is_none(), "{place}: {answer}");
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{place}"
        );
        let kind = place.kind;
        let named = format!("This is the id of a {other}; the id of a {kind} (\"{kind}_…\") is needed.");
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(message.ends_with(&named), "{place}: {message}");
    }
    assert!(probed > 50, "the schema is walked");
    // As a literal, in a list, as the default of a variable, and behind a fragment.
    let id = write_id("contact", Uuid::now_v7());
    for document in [
        format!("{{ viewer {{ role }} deal(id: \"{id}\") {{ id }} }}"),
        format!("{{ deals(filter: {{ id: {{ in: [\"{id}\"] }} }}) {{ totalCount }} }}"),
        format!("query($id: ID! = \"{id}\") {{ deal(id: $id) {{ id }} }}"),
        format!(
            "query($id: ID = \"{id}\") {{ ...a }} fragment a on Query {{ deals(filter: {{ ownerId: {{ eq: $id }} }}) {{ totalCount }} }}"
        ),
        format!(
            "mutation {{ createCompany(input: {{ name: \"Lost\" }}) {{ position }} deleteDeal(input: {{ dealId: \"{id}\" }}) {{ position }} }}"
        ),
        "{ deal(id: 7) { id } }".to_owned(),
    ] {
        let answer = client.answer(&document, json!({})).await;
        assert!(answer.get("data").is_none(), "{document}: {answer}");
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{document}"
        );
    }
    let data = client.query("{ companies { totalCount } }", json!({})).await;
    assert_eq!(data["companies"]["totalCount"], 0);
    // One variable for two kinds is wrong whatever it holds.
    let document = "query($id: ID!) { deal(id: $id) { id } contact(id: $id) { id } node(id: $id) { id } }";
    refused(&client, document, json!({ "id": id })).await;
    // Nothing is said of what is not there.
    let document = "query($id: ID) { deals(filter: { ownerId: { eq: $id } }) { totalCount } }";
    client.query(document, json!({ "id": null })).await;
    client.query(document, json!({})).await;
}

#[tokio::test]
async fn what_is_no_value_of_a_scalar_refuses_the_whole_request_before_anything_runs() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    // What is said of a place, and values that it does not take: each is tried by itself as a variable, its default,
    // within a variable, and as a literal.
    let money =
        |amount: &str| format!("{{ name: \"x\", amount: {{ amount: {amount}, currencyCode: EUR }} }}");
    let currency =
        |code: &str| format!("{{ name: \"x\", amount: {{ amount: \"1\", currencyCode: {code} }} }}");
    let day = |day: &str| format!("{{ name: \"x\", expectedCloseDate: {day} }}");
    let moment = |moment: &str| format!("{{ kind: NOTE, subject: \"x\", occurredAt: {moment} }}");
    type Place<'a> = (&'a str, &'a str, &'a dyn Fn(&str) -> String, &'a [&'a str]);
    let places: [Place; 4] = [
        (
            "createDeal",
            "Decimal",
            &money,
            &[
                r#""""#, r#""1,5""#, r#""1e3""#, r#"".5""#, r#""NaN""#, "1.5", "true", "[[1]]", "{ a: 1 }",
            ],
        ),
        (
            "createDeal",
            "CurrencyCode",
            &currency,
            &[r#""""#, r#""eur""#, r#""EURO""#, "XXX", "978"],
        ),
        (
            "createDeal",
            "Date",
            &day,
            &[
                r#""""#,
                r#""2026-2-3""#,
                r#""2026-02-30""#,
                r#""+2026-1-1""#,
                r#""2026-02-03T00:00:00Z""#,
                "20260203",
            ],
        ),
        (
            "createInteraction",
            "DateTime",
            &moment,
            &[
                r#""""#,
                r#""2026-02-03""#,
                r#""2026-02-03T25:00:00Z""#,
                r#""2026-02-03T10:00:00""#,
                "1770112800",
            ],
        ),
    ];
    let lost = "lost: createCompany(input: { name: \"Lost\" }) { position }";
    for (field, scalar, input, values) in places {
        let ty = format!("{}{}Input", field[..1].to_uppercase(), &field[1..]);
        for value in values {
            let documents = [
                format!(
                    "mutation {{ {lost} {field}(input: {}) {{ position }} }}",
                    input(value)
                ),
                format!(
                    "mutation($v: {scalar}! = {value}) {{ {lost} {field}(input: {}) {{ position }} }}",
                    input("$v")
                ),
                format!(
                    "mutation($v: {ty}! = {}) {{ {lost} {field}(input: $v) {{ position }} }}",
                    input(value)
                ),
                format!(
                    "mutation {{ {lost} ...a }} fragment a on Mutation {{ {field}(input: {}) {{ position }} }}",
                    input(value)
                ),
            ];
            for document in documents {
                let answer = client.answer(&document, json!({})).await;
                assert!(answer.get("data").is_none(), "{document}: {answer}");
                assert_eq!(
                    answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
                    "{document}: {answer}"
                );
                let message = answer["errors"][0]["message"].as_str().unwrap();
                assert!(
                    message.ends_with(" is needed.") && !message.contains("arse"),
                    "{document}: {message}"
                );
            }
        }
        // As an element of a variable, whose place is told.
        let document = format!(
            "mutation($v: {scalar}!) {{ {lost} {field}(input: {}) {{ position }} }}",
            input("$v")
        );
        for value in [
            json!({}),
            json!([]),
            json!(true),
            json!("nonsense"),
            json!("\u{0}"),
        ] {
            refused(&client, &document, json!({ "v": value })).await;
        }
    }
    let document =
        format!("mutation($v: CreateDealInput!) {{ {lost} createDeal(input: $v) {{ position }} }}");
    let input = json!({ "name": "x", "amount": { "amount": "one", "currencyCode": "EUR" } });
    let literal = format!(
        r#"mutation {{ {lost} createDeal(input: {{ name: "x", amount: {{ amount: "one", currencyCode: EUR }} }}) {{ position }} }}"#
    );
    assert_eq!(
        refused(&client, &literal, json!({})).await,
        "Argument \"input\" has an invalid value at \"amount.amount\": A decimal number such as \"1234.50\" is needed."
    );
    assert_eq!(
        refused(&client, &document, json!({ "v": input })).await,
        "Variable \"$v\" has an invalid value at \"amount.amount\": A decimal number such as \"1234.50\" is needed."
    );
    let data = client
        .query("{ companies { totalCount } deals { totalCount } }", json!({}))
        .await;
    assert_eq!(data["companies"]["totalCount"], 0);
    assert_eq!(data["deals"]["totalCount"], 0);
}

#[test]
fn every_scalar_of_ours_is_judged() {
    let schema = include_str!("../../schema.graphql");
    let scalars: Vec<_> = schema
        .lines()
        .filter_map(|line| line.strip_prefix("scalar ")?.split(' ').next())
        .collect();
    assert!(scalars.len() > 5);
    let unjudged: Vec<_> = scalars
        .into_iter()
        .filter(|name| dealstream::api::judge(name).is_none())
        .collect();
    assert_eq!(unjudged, ["JSON"], "of JSON everything is good");
}

/// What cannot be null is not just left as it is.
#[tokio::test]
async fn null_in_an_update_takes_the_value_away_or_is_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let records = Records::of(&client, "Own").await;
    let sdl = recipes::Sdl::get();
    let filled = [
        (
            "updateCompany",
            json!({
                "domain": "a.example", "industry": "a", "email": "a@a.example", "phone": "1",
                "address": { "city": "A" },
            }),
        ),
        (
            "updateContact",
            json!({
                "email": "a@a.example", "phone": "1", "jobTitle": "a", "source": "a", "rating": 1, "notes": "a",
            }),
        ),
        (
            "updateDeal",
            json!({ "expectedCloseDate": "2031-01-01", "nextStep": "a", "description": "a" }),
        ),
        (
            "updateInteraction",
            json!({
                "direction": "INBOUND", "channel": "a", "content": "a", "outcome": "a", "nextAction": "a",
                "scheduledAt": "2031-01-01T00:00:00Z", "completedAt": "2031-01-01T00:00:00Z",
            }),
        ),
        ("updatePipelineStage", json!({ "rottingAfterDays": 1 })),
        ("updateRole", json!({ "description": "a" })),
    ];
    for (name, fields) in filled {
        let mut arguments = recipes::arguments(name, &records);
        let input = arguments["input"].as_object_mut().unwrap();
        input.extend(fields.as_object().unwrap().clone());
        let (document, variables) = recipes::operation("Mutation", name, arguments);
        let answer = sound(&client, &document, variables).await;
        assert_eq!(answer["data"][name]["userErrors"], json!([]), "{answer:#}");
    }
    let (mut taken, mut refused) = (0, 0);
    for field in sdl.fields("Mutation") {
        let name = field.name.node.as_str();
        // A sensitive value is never shown; of the two ways to give a role either may be null.
        if !name.starts_with("update") || name == "updateSensitiveCompanyFields" {
            continue;
        }
        let record = name["update".len()..].to_owned();
        let key = match record.as_str() {
            "PipelineStage" => "stage".to_owned(),
            _ => record.to_lowercase(),
        };
        for input in sdl.inputs(&format!("Update{record}Input")) {
            let given = input.name.node.as_str();
            if !input.ty.node.nullable
                || ["expectedVersion", "idempotencyKey", "role", "customRoleId"].contains(&given)
            {
                continue;
            }
            let mut arguments = recipes::arguments(name, &records);
            let (document, variables) = recipes::operation("Mutation", name, arguments.clone());
            let unchanged = sound(&client, &document, variables).await;
            arguments["input"][given] = Value::Null;
            let (document, variables) = recipes::operation("Mutation", name, arguments);
            let answer = sound(&client, &document, variables).await;
            let payload = &answer["data"][name];
            if payload["userErrors"] == json!([]) {
                let shown = given.strip_suffix("Id").unwrap_or(given);
                assert!(
                    payload[&key].get(shown).is_some_and(Value::is_null),
                    "{name} {given}: {answer:#}"
                );
                let version = |answer: &Value| answer["data"][name][&key]["version"].as_i64();
                assert!(version(&answer) > version(&unchanged), "{name} {given} was there");
                taken += 1;
            } else {
                let error = &payload["userErrors"][0];
                assert_eq!(error["code"], "REQUIRED", "{name} {given}: {answer:#}");
                // An interaction may be about this or that, but not about nothing.
                let field = if name == "updateInteraction" && given.ends_with("Id") {
                    json!(["input"])
                } else {
                    json!(["input", given])
                };
                assert_eq!(error["field"], field, "{name} {given}: {answer:#}");
                refused += 1;
            }
        }
    }
    assert!(taken > 20 && refused > 25, "{taken} {refused}");
}

#[tokio::test]
async fn an_id_of_the_wrong_kind_is_named() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = |kind: &str| write_id(kind, Uuid::now_v7());
    let message = refused(
        &client,
        "query($id: ID!) { deal(id: $id) { id } }",
        json!({ "id": id("contact") }),
    )
    .await;
    let message = message.as_str().unwrap();
    let named = "This is the id of a contact; the id of a deal (\"deal_…\") is needed.";
    assert!(message.ends_with(named), "{message}");
    for nonsense in [
        "",
        "deal",
        "deal_",
        "_",
        "deal_0",
        "deal_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "deal_\u{0}01h455vb4pex5vsknk084sn0",
        "DEAL_01h455vb4pex5vsknk084sn02q",
        "deal_01H455VB4PEX5VSKNK084SN02Q",
        "deal_01h455vb4pex5vsknk084sn02q ",
        "'; DROP TABLE deals; --_01h455vb4pex5vsknk084sn02q",
        "ä_01h455vb4pex5vsknk084sn02q",
        "0190163d-8694-739b-aea5-966c26f8ad91",
    ] {
        let message = refused(
            &client,
            "query($id: ID!) { deal(id: $id) { id } }",
            json!({ "id": nonsense }),
        )
        .await;
        let message = message.as_str().unwrap();
        assert!(
            message.ends_with("This is not an id; the id of a deal (\"deal_…\") is needed."),
            "{nonsense:?}: {message}"
        );
        refused(
            &client,
            "query($id: ID!) { node(id: $id) { id } }",
            json!({ "id": nonsense }),
        )
        .await;
        refused(
            &client,
            "query($ids: [ID!]!) { nodes(ids: $ids) { id } }",
            json!({ "ids": [nonsense] }),
        )
        .await;
    }
    refused(
        &client,
        "query($id: ID!) { node(id: $id) { id } }",
        json!({ "id": id("spaceship") }),
    )
    .await;
    let many: Vec<_> = (0..101).map(|_| id("deal")).collect();
    refused(
        &client,
        "query($ids: [ID!]!) { nodes(ids: $ids) { id } }",
        json!({ "ids": many }),
    )
    .await;
    let nested = json!({ "filter": { "contact": { "companyId": { "in": [id("deal")] } } } });
    let message = refused(
        &client,
        "query($filter: DealFilter) { deals(filter: $filter) { totalCount } }",
        nested,
    )
    .await;
    assert!(
        message.as_str().unwrap().contains("the id of a company"),
        "{message}"
    );
    sound(
        &client,
        "query($id: ID!) { deal(id: $id) { id } }",
        json!({ "id": 7 }),
    )
    .await;
}

/// The JSON inside a cursor.
fn inside(cursor: &Value) -> Vec<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor.as_str().unwrap()).unwrap()).unwrap()
}

fn forged(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[tokio::test]
async fn a_forged_cursor_is_refused_whatever_is_in_it() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    Records::of(&client, "Own").await;
    let lists: [(&str, &[&str]); 6] = [
        ("users", &["CREATED_AT", "NAME"]),
        ("companies", &["CREATED_AT", "UPDATED_AT", "NAME"]),
        ("contacts", &["CREATED_AT", "UPDATED_AT", "NAME"]),
        ("pipelines", &["CREATED_AT", "NAME"]),
        ("deals", &["CREATED_AT", "UPDATED_AT", "NAME", "AMOUNT"]),
        ("interactions", &["OCCURRED_AT", "CREATED_AT"]),
    ];
    for (list, orders) in lists {
        let mut seen: Vec<(String, Value)> = Vec::new();
        for order in orders {
            for direction in ["ASC", "DESC"] {
                let document = format!(
                    "query($cursor: Cursor) {{ {list}(orderBy: {{ field: {order}, direction: {direction} }}, after: $cursor)
                       {{ pageInfo {{ endCursor }} }} }}"
                );
                let data = client.query(&document, json!({})).await;
                let cursor = data[list]["pageInfo"]["endCursor"].clone();
                for (_, other) in &seen {
                    refused(&client, &document, json!({ "cursor": other })).await;
                }
                let place = inside(&cursor);
                let (tag, value, id) = (&place[0], &place[1], &place[2]);
                let kind = value.as_object().unwrap().keys().next().unwrap().clone();
                client
                    .query(&document, json!({ "cursor": forged(&json!(place)) }))
                    .await;
                for other in [
                    json!({ "t": 0 }),
                    json!({ "s": "Acme" }),
                    json!({ "i": 7 }),
                    json!({ "t": i64::MAX }),
                    json!({ "t": i64::MIN }),
                    json!({ "t": -62_200_000_000_000_000_i64 }),
                    json!({ "t": 253_500_000_000_000_000_i64 }),
                    json!({ "s": "\u{0}" }),
                    json!({ "s": 7 }),
                    json!({ "i": 1.5 }),
                    json!({ "i": "7" }),
                    json!({}),
                    json!(null),
                    json!([]),
                    json!({ "x": 1 }),
                ] {
                    let right = match other.as_object().and_then(|it| it.iter().next()) {
                        Some((it, value)) if *it == kind => match value {
                            Value::Number(number) => {
                                number.as_i64() == Some(0) || kind == "i" && number.is_i64()
                            }
                            Value::String(text) => !text.contains('\0') && kind == "s",
                            _ => false,
                        },
                        _ => false,
                    };
                    let cursor = forged(&json!([tag, other, id]));
                    if right {
                        client.query(&document, json!({ "cursor": cursor })).await;
                    } else {
                        let message = refused(&client, &document, json!({ "cursor": cursor })).await;
                        assert_eq!(message, "The cursor does not belong to this list and order.");
                    }
                }
                for broken in [
                    json!([tag, value]),
                    json!([tag, value, id, 1]),
                    json!([tag, value, "not an id"]),
                    json!([null, value, id]),
                    json!([-1, value, id]),
                    json!({ "tag": tag }),
                    json!("text"),
                ] {
                    refused(&client, &document, json!({ "cursor": forged(&broken) })).await;
                }
                seen.push((document, cursor));
            }
        }
    }
    for garbage in ["", "!", "====", "\u{0}", "ä", "AAAA", &"A".repeat(100_000)] {
        refused(
            &client,
            "query($after: Cursor) { deals(after: $after) { totalCount } }",
            json!({ "after": garbage }),
        )
        .await;
    }
    // A cursor of another list of the same kind of rows, in the same order, is only another place to begin.
    let data = client
        .query("{ companies { pageInfo { endCursor } } }", json!({}))
        .await;
    let cursor = &data["companies"]["pageInfo"]["endCursor"];
    refused(
        &client,
        "query($after: Cursor) { contacts(after: $after) { totalCount } }",
        json!({ "after": cursor }),
    )
    .await;
    let nested = "query($after: Cursor) { contacts { nodes { deals(after: $after) { nodes { id } } } } }";
    refused(&client, nested, json!({ "after": cursor })).await;
}

#[tokio::test]
async fn page_sizes_out_of_range_and_contradictions_are_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let data = client
        .query("{ pipelines { pageInfo { endCursor } } }", json!({}))
        .await;
    let cursor = &data["pipelines"]["pageInfo"]["endCursor"];
    let document = "query($first: Int, $after: Cursor, $last: Int, $before: Cursor) {
        pipelines(first: $first, after: $after, last: $last, before: $before) { nodes { id } } }";
    for arguments in [
        json!({ "first": 0 }),
        json!({ "first": -1 }),
        json!({ "first": 101 }),
        json!({ "last": 0 }),
        json!({ "last": 101 }),
        json!({ "first": i32::MIN }),
        json!({ "first": i32::MAX }),
        json!({ "first": 1, "last": 1 }),
        json!({ "first": 1, "before": cursor }),
        json!({ "last": 1, "after": cursor }),
    ] {
        let answer = sound(&client, document, arguments.clone()).await;
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        assert!(
            matches!(code, Some("BAD_USER_INPUT" | "TOO_COMPLEX")),
            "{arguments}: {answer}"
        );
    }
    client
        .query(document, json!({ "first": 100, "after": cursor }))
        .await;
}

/// Texts that trouble databases and programs.
const TROUBLE: [&str; 12] = [
    "\0",
    "a\0b",
    "\u{1}\u{2}\u{7f}",
    "\u{85}\u{9f}",
    "'; DROP TABLE deals; --",
    "%",
    "_",
    "\\",
    "\\%_",
    "$1 ? {}",
    "\u{202e}\u{feff}\u{fffd}",
    "𝕏🏳️‍🌈",
];

#[tokio::test]
async fn troublesome_texts_are_no_fault_anywhere() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let records = Records::of(&client, "Own").await;
    let long = "x".repeat(100_000);
    for text in TROUBLE.into_iter().chain([long.as_str()]) {
        let has_nul = text.contains('\0');
        for list in ["companies", "contacts"] {
            let document =
                format!("query($text: String) {{ {list}(search: $text) {{ totalCount nodes {{ id }} }} }}");
            let answer = sound(&client, &document, json!({ "text": text })).await;
            let refused = answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT";
            assert_eq!(
                refused,
                has_nul || text.len() > 1000,
                "{list} {text:.20?}: {answer}"
            );
        }
        for operator in ["eq", "contains", "startsWith", "in"] {
            let value = if operator == "in" {
                json!([text])
            } else {
                json!(text)
            };
            let filter = json!({ "name": { operator: value } });
            for (list, ty) in [
                ("deals", "DealFilter"),
                ("users", "UserFilter"),
                ("contacts", "ContactFilter"),
            ] {
                let document = format!("query($filter: {ty}) {{ {list}(filter: $filter) {{ totalCount }} }}");
                let answer = sound(&client, &document, json!({ "filter": filter })).await;
                let refused = answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT";
                assert_eq!(
                    refused,
                    has_nul || text.len() > 1000,
                    "{list} {operator} {text:.20?}: {answer}"
                );
            }
        }
        let after = "subscription($after: String) { dealStageChanged(after: $after) { __typename } }";
        let frame = futures::StreamExt::next(&mut client.subscribe(after, json!({ "after": text })))
            .await
            .unwrap();
        assert_eq!(
            frame["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{frame}"
        );
        for document in [
            "mutation($text: String!) { signIn(input: { email: $text, password: $text }) { expiresAt } }",
            "mutation($text: String!) { signUp(input: { tenantName: $text, name: $text, email: $text, password: $text }) { userErrors { message } } }",
        ] {
            sound(&app.anon(), document, json!({ "text": text })).await;
        }
        let keyed = json!({ "name": "Keyed", "idempotencyKey": text });
        let document = "mutation($input: CreateCompanyInput!) { createCompany(input: $input) { userErrors { field code message } } }";
        let answer = sound(&client, document, json!({ "input": keyed })).await;
        let refused =
            answer["data"]["createCompany"]["userErrors"][0]["field"] == json!(["input", "idempotencyKey"]);
        assert_eq!(
            refused,
            text.chars().any(char::is_control) || text.len() > 200,
            "{text:.20?}: {answer}"
        );
        for (field, selection, base, texts) in [
            (
                "createCompany",
                "company { id }",
                json!({ "name": "C" }),
                &["name", "domain", "industry", "email", "phone"][..],
            ),
            (
                "createContact",
                "contact { id }",
                json!({ "name": "C" }),
                &["name", "email", "phone", "jobTitle", "source", "notes"],
            ),
            (
                "createDeal",
                "deal { id }",
                json!({ "name": "C" }),
                &["name", "nextStep", "description"],
            ),
            (
                "createInteraction",
                "interaction { id }",
                json!({ "kind": "NOTE", "subject": "C", "dealId": records.id("deal") }),
                &["subject", "channel", "content", "outcome", "nextAction"],
            ),
            (
                "createPipeline",
                "pipeline { id }",
                json!({ "name": "C" }),
                &["name"],
            ),
            (
                "createPipelineStage",
                "stage { id }",
                json!({ "name": "C", "pipelineId": records.id("pipeline") }),
                &["name"],
            ),
            ("updateTenant", "tenant { id }", json!({}), &["name"]),
            (
                "createDeal",
                "deal { id }",
                json!({ "name": "L", "stageId": client.stage("Closed Lost").await }),
                &["lostReason"],
            ),
        ] {
            for name in texts {
                let mut input_of = base.clone();
                input_of[name] = json!(text);
                if has_nul || text.len() > 20_000 {
                    let (path, code) = mended(&client, field, selection, input_of).await;
                    assert_eq!(path, input(name), "{field}");
                    assert_eq!(
                        code,
                        if has_nul { "INVALID" } else { "TOO_LONG" },
                        "{field}.{name}"
                    );
                } else {
                    let ty = field[..1].to_uppercase() + &field[1..] + "Input";
                    let document = format!(
                        "mutation($input: {ty}!) {{ {field}(input: $input) {{ userErrors {{ message }} }} }}"
                    );
                    sound(&client, &document, json!({ "input": input_of })).await;
                }
            }
        }
        let address = json!({ "name": "C", "address": { "street": text, "countryCode": text } });
        let (path, _) = mended(&client, "createCompany", "company { id }", address).await;
        assert_eq!(path[..2], input("address")[..]);
    }
    // The history can still be read by those who follow it.
    let all = "subscription($after: String) { dealStageChanged(after: $after) { __typename } }";
    let mut frames = client.subscribe(all, json!({ "after": records.beginning }));
    assert_eq!(
        futures::StreamExt::next(&mut frames).await.unwrap()["data"]["dealStageChanged"]["__typename"],
        "DealStageChangedEvent"
    );
}

#[tokio::test]
async fn a_name_of_ten_megabytes_is_too_long() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    for text in ["x".repeat(10_000_000), "ä".repeat(5_000_000)] {
        let (path, code) = mended(
            &client,
            "createCompany",
            "company { id }",
            json!({ "name": text }),
        )
        .await;
        assert_eq!((path, code.as_str()), (input("name"), "TOO_LONG"));
        refused(
            &client,
            "query($text: String) { companies(search: $text) { totalCount } }",
            json!({ "text": text }),
        )
        .await;
        refused(
            &client,
            "query($id: ID!) { deal(id: $id) { id } }",
            json!({ "id": text }),
        )
        .await;
    }
    // 200 characters, whatever their bytes.
    let name = "🏳".repeat(200);
    client.company(&name).await;
    let (_, code) = mended(
        &client,
        "createCompany",
        "company { id }",
        json!({ "name": format!("{name}x") }),
    )
    .await;
    assert_eq!(code, "TOO_LONG");
    // What cannot be seen is no name, and what makes it read as another is none either.
    let empty = [
        "",
        "   ",
        "\t\n",
        "\u{200b}",
        "\u{feff}",
        "\u{a0}\u{2060}",
        "\u{ad}",
        "\u{200d}\u{200d}",
        "\u{2066}\u{2069}",
        "\u{3164}",
        "\u{2800} \u{2800}",
        "\u{202e}",
        "\u{fe0f}",
        "\u{34f}",
        "\u{301}",
        "\u{e0100}",
        "\u{fff0}",
        "\u{17b4}",
    ];
    let empty = empty.map(|name| (name, "REQUIRED"));
    for (name, wanted) in empty.into_iter().chain([
        ("Acme \u{202e}dtL", "INVALID"),
        ("Acme\u{2028}Ltd", "INVALID"),
        ("\u{7}", "INVALID"),
    ]) {
        let input_of_it = json!({ "name": name });
        let (path, code) = mended(&client, "createCompany", "company { id }", input_of_it).await;
        assert_eq!((path, code.as_str()), (input("name"), wanted), "{name:?}");
    }
    for email in [
        "a\u{200b}@b.example",
        "a\u{3164}@b.example",
        "a\u{fe0f}@b.example",
        "a@b\u{ad}.example",
        "a@b..example",
    ] {
        let input_of_it = json!({ "name": "x", "email": email });
        let (path, code) = mended(&client, "createCompany", "company { id }", input_of_it).await;
        assert_eq!((path, code.as_str()), (input("email"), "INVALID"), "{email:?}");
    }
    // What joins letters or parts of an emoji stays; what stands unseen around a name goes.
    let seen = [
        "می\u{200c}خواهم",
        "🏳️\u{200d}🌈",
        "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        "Acme \u{2067}שלום\u{2069} Ltd",
        "Acme \u{2067}שלום\u{2069}",
        "שלום!\u{200f}",
        "e\u{301}",
        "हिन्दी",
    ];
    for name in seen {
        for (before, after) in [("", ""), ("\u{feff} ", "\u{200b}\n"), ("\u{202a}", "\u{202c}")] {
            let typed = json!({ "name": format!("{before}{name}{after}") });
            let payload = client
                .mutate("createCompany", "CreateCompanyInput", "company { name }", typed)
                .await;
            assert_eq!(payload["company"]["name"], name);
        }
    }
    let pasted =
        json!({ "name": "x", "phone": "\u{202a}+49 30 1234567\u{202c}", "notes": "a\u{202b}b\u{202c}" });
    let payload = client
        .mutate(
            "createContact",
            "CreateContactInput",
            "contact { phone notes }",
            pasted,
        )
        .await;
    assert_eq!(
        payload["contact"],
        json!({ "phone": "+49 30 1234567", "notes": "a\u{202b}b\u{202c}" })
    );
}

#[tokio::test]
async fn a_filter_of_thousands_of_conditions_is_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let document = "query($filter: ContactFilter) { contacts(filter: $filter) { totalCount } }";
    let one =
        json!({ "rating": { "eq": 1, "gte": 1, "lte": 1 }, "name": { "contains": "a", "isNull": false } });
    let many = |inner: &Value, count: usize| json!({ "or": vec![inner.clone(); count] });
    let hundred = many(&one, 100);
    client.query(document, json!({ "filter": many(&one, 20) })).await;
    refused(&client, document, json!({ "filter": many(&hundred, 100) })).await;
    refused(&client, document, json!({ "filter": many(&one, 101) })).await;
    // What is read level by level must not exhaust the stack: over the wire, JSON may have 128 levels.
    let nested = |levels: usize| {
        (0..levels).fold(
            json!({ "rating": { "eq": 1 } }),
            |inner, _| json!({ "not": inner }),
        )
    };
    client.query(document, json!({ "filter": nested(20) })).await;
    for levels in [24, 120] {
        refused(&client, document, json!({ "filter": nested(levels) })).await;
        let literal = "{not:".repeat(levels) + "{rating:{eq:1}}" + &"}".repeat(levels);
        let answer = sound(
            &client,
            &format!("{{ contacts(filter: {literal}) {{ totalCount }} }}"),
            json!({}),
        )
        .await;
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "TOO_COMPLEX",
            "{answer}"
        );
    }
}

#[tokio::test]
async fn amounts_are_checked_against_their_currency() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = |amount: Value, currency: &str| json!({ "name": "D", "amount": { "amount": amount, "currencyCode": currency } });
    for (amount, currency, field, code) in [
        (json!("-1"), "USD", "amount.amount", "OUT_OF_RANGE"),
        (json!("-0.01"), "USD", "amount.amount", "OUT_OF_RANGE"),
        (json!("0.001"), "USD", "amount.amount", "INVALID"),
        (json!("1.5"), "JPY", "amount.amount", "INVALID"),
        (json!("1.0001"), "KWD", "amount.amount", "INVALID"),
        (json!("10000000000000.01"), "USD", "amount.amount", "OUT_OF_RANGE"),
        (json!("1000000000000001"), "JPY", "amount.amount", "OUT_OF_RANGE"),
        (
            json!("9999999999999999999999999999"),
            "USD",
            "amount.amount",
            "OUT_OF_RANGE",
        ),
        (json!(i64::MAX), "USD", "amount.amount", "OUT_OF_RANGE"),
    ] {
        let (path, found) = mended(
            &client,
            "createDeal",
            "deal { id }",
            deal(amount.clone(), currency),
        )
        .await;
        assert_eq!(
            (path, found.as_str()),
            (input(field), code),
            "{amount} {currency}"
        );
    }
    for (amount, currency, shown) in [
        (json!("0"), "USD", "0.00"),
        (json!("-0"), "USD", "0.00"),
        (json!("1"), "USD", "1.00"),
        (json!(7), "EUR", "7.00"),
        (json!("1.50000"), "USD", "1.50"),
        (json!("0001.5"), "USD", "1.50"),
        (json!("1500"), "JPY", "1500"),
        (json!("1500.000"), "JPY", "1500"),
        (json!("0.001"), "KWD", "0.001"),
        (json!("10000000000000.00"), "USD", "10000000000000.00"),
    ] {
        let payload = client
            .mutate(
                "createDeal",
                "CreateDealInput",
                "deal { amount { amount currencyCode } }",
                deal(amount.clone(), currency),
            )
            .await;
        assert_eq!(
            payload["deal"]["amount"],
            json!({ "amount": shown, "currencyCode": currency }),
            "{amount}"
        );
    }
    let document = "mutation($input: CreateDealInput!) { createDeal(input: $input) { deal { id } } }";
    for (amount, currency) in [
        (json!(1.5), "USD"),
        (json!("1,000"), "USD"),
        (json!("1_000"), "USD"),
        (json!("1e3"), "USD"),
        (json!("NaN"), "USD"),
        (json!("Infinity"), "USD"),
        (json!(".5"), "USD"),
        (json!("5."), "USD"),
        (json!("+5"), "USD"),
        (json!(""), "USD"),
        (json!(" 5"), "USD"),
        (json!("٣"), "USD"),
        (json!("0x10"), "USD"),
        (json!("9".repeat(29)), "USD"),
        (json!("1\u{0}"), "USD"),
        (json!(true), "USD"),
        (json!(["5"]), "USD"),
        (json!("5"), "usd"),
        (json!("5"), "XXX"),
        (json!("5"), "US"),
        (json!("5"), ""),
        (json!("5"), "USD "),
        (json!("5"), "U\u{0}D"),
        (json!("5"), "ÄÖ"),
    ] {
        refused(&client, document, json!({ "input": deal(amount, currency) })).await;
    }
    let filter = "query($filter: DealFilter) { deals(filter: $filter) { totalCount } }";
    for amount in ["-1", "0.001", "99999999999999999999"] {
        let amount = json!({ "filter": { "amount": { "currencyCode": "USD", "gte": amount } } });
        refused(&client, filter, amount).await;
    }
}

#[tokio::test]
async fn dates_out_of_range_are_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let contact = client.contact(json!({ "name": "C" })).await;
    for day in ["1899-12-31", "0001-01-01", "0000-01-01"] {
        let (path, code) = mended(
            &client,
            "createDeal",
            "deal { id }",
            json!({ "name": "D", "expectedCloseDate": day }),
        )
        .await;
        assert_eq!(
            (path, code.as_str()),
            (input("expectedCloseDate"), "OUT_OF_RANGE"),
            "{day}"
        );
    }
    for moment in [
        "1899-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
    ] {
        let input_of = json!({ "kind": "CALL", "subject": "S", "contactId": contact, "occurredAt": moment });
        let document = "mutation($input: CreateInteractionInput!) { createInteraction(input: $input) { userErrors { code field message } } }";
        let answer = sound(&client, document, json!({ "input": input_of })).await;
        let error = &answer["data"]["createInteraction"]["userErrors"][0];
        let refused = answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT";
        assert!(refused || error["code"] == "OUT_OF_RANGE", "{moment}: {answer}");
    }
    let document = "mutation($input: CreateDealInput!) { createDeal(input: $input) { deal { id } } }";
    for day in [
        "2031-02-29",
        "2031-13-01",
        "31.12.2031",
        "2031-1-1",
        "20311231",
        "2031-12-24T00:00:00Z",
        "12031-12-24",
        "-2031-12-24",
        "",
        "tomorrow",
        "2031-12-24\u{0}",
        "99999999999-01-01",
    ] {
        refused(
            &client,
            document,
            json!({ "input": { "name": "D", "expectedCloseDate": day } }),
        )
        .await;
    }
    refused(
        &client,
        document,
        json!({ "input": { "name": "D", "expectedCloseDate": 20311224 } }),
    )
    .await;
    let document = "query($filter: InteractionFilter) { interactions(filter: $filter) { totalCount } }";
    for moment in [
        "yesterday",
        "",
        "2031-12-24",
        "2031-12-24T25:00:00Z",
        "2031-12-24T00:00:00",
        "1800-01-01T00:00:00Z",
        "9999999-01-01T00:00:00Z",
    ] {
        refused(
            &client,
            document,
            json!({ "filter": { "occurredAt": { "gte": moment } } }),
        )
        .await;
    }
    client
        .query(
            document,
            json!({ "filter": { "occurredAt": { "lt": "9999-12-31T23:59:59.999999999Z" } } }),
        )
        .await;
}

#[tokio::test]
async fn numbers_out_of_range_are_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    for (field, selection, input_of, name) in [
        (
            "createContact",
            "contact { id }",
            json!({ "name": "C", "rating": 6 }),
            "rating",
        ),
        (
            "createContact",
            "contact { id }",
            json!({ "name": "C", "rating": -1 }),
            "rating",
        ),
        (
            "createDeal",
            "deal { id }",
            json!({ "name": "D", "winProbability": 101 }),
            "winProbability",
        ),
        (
            "createDeal",
            "deal { id }",
            json!({ "name": "D", "winProbability": i32::MIN }),
            "winProbability",
        ),
        (
            "createPipeline",
            "pipeline { id }",
            json!({ "name": "P", "stages": [] }),
            "stages",
        ),
        (
            "createPipeline",
            "pipeline { id }",
            json!({ "name": "P", "stages": [{ "name": "S", "winProbability": 101 }] }),
            "stages.0.winProbability",
        ),
        (
            "createPipeline",
            "pipeline { id }",
            json!({ "name": "P", "stages": [{ "name": "S", "rottingAfterDays": 0 }] }),
            "stages.0.rottingAfterDays",
        ),
    ] {
        let (path, code) = mended(&client, field, selection, input_of).await;
        assert_eq!((path, code.as_str()), (input(name), "OUT_OF_RANGE"));
    }
    let document =
        "mutation($input: CreateContactInput!) { createContact(input: $input) { contact { id } } }";
    for rating in [json!(2_147_483_648_i64), json!(1.5), json!("3"), json!(1e30)] {
        refused(
            &client,
            document,
            json!({ "input": { "name": "C", "rating": rating } }),
        )
        .await;
    }
    for input_of in [
        json!(null),
        json!([]),
        json!({}),
        json!({ "name": null }),
        json!({ "name": "C", "role": "ADMIN" }),
        json!("C"),
    ] {
        refused(&client, document, json!({ "input": input_of })).await;
    }
}

#[tokio::test]
async fn what_like_gives_a_meaning_is_searched_for_as_it_is() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    for name in [
        "100% Wool",
        "100 Sheep",
        "under_score",
        "underXscore",
        "back\\slash",
        "MÜLLER & Söhne",
        "ΟΔΟΣ",
        "İstanbul",
    ] {
        client.company(name).await;
        client.contact(json!({ "name": name })).await;
    }
    for (text, found) in [
        ("100%", 1),
        ("%", 1),
        ("_", 1),
        ("er_s", 1),
        ("\\", 1),
        ("k\\s", 1),
        ("müller", 1),
        ("MÜLLER", 1),
        ("söhne", 1),
        ("SÖHNE", 1),
        ("ΟΔΟΣ", 1),
        ("", 8),
        ("nothing like it", 0),
        ("İSTANBUL", 1),
    ] {
        for list in ["companies", "contacts"] {
            let ty = if list == "companies" {
                "CompanyFilter"
            } else {
                "ContactFilter"
            };
            let document = format!(
                "query($text: String, $filter: {ty}) {{ searched: {list}(search: $text) {{ totalCount }}
                   filtered: {list}(filter: $filter) {{ totalCount }} }}"
            );
            let variables = json!({ "text": text, "filter": { "name": { "contains": text } } });
            let data = client.query(&document, variables).await;
            assert_eq!(data["searched"]["totalCount"], found, "{list} {text:?}");
            assert_eq!(data["filtered"]["totalCount"], found, "{list} {text:?}");
        }
    }
    let document =
        "query($text: String) { companies(filter: { name: { startsWith: $text } }) { totalCount } }";
    for (text, found) in [("100", 2), ("100%", 1), ("UNDER_", 1), ("%", 0), ("", 8)] {
        let data = client.query(document, json!({ "text": text })).await;
        assert_eq!(data["companies"]["totalCount"], found, "{text:?}");
    }
}

#[tokio::test]
async fn a_password_may_be_anything_that_is_long_enough() {
    let app = TestApp::new().await;
    for (password, code) in [
        ("short".to_owned(), Some("INVALID")),
        ("ä".repeat(9), Some("INVALID")),
        ("x".repeat(1025), Some("TOO_LONG")),
        ("ä".repeat(513), Some("TOO_LONG")),
        ("\0\u{1}\u{7f} \n\t ' \" 🏳".to_owned(), None),
    ] {
        let email = format!("p{}@test.example", Uuid::new_v4().simple());
        let input_of = json!({ "tenantName": "T", "name": "N", "email": email, "password": password });
        let payload = app
            .anon()
            .payload("signUp", "SignUpInput", "accessToken", input_of)
            .await;
        assert_eq!(payload["userErrors"][0]["code"].as_str(), code, "{payload}");
        if code.is_none() {
            let signed_in = app
                .anon()
                .mutate(
                    "signIn",
                    "SignInInput",
                    "accessToken",
                    json!({ "email": email, "password": password }),
                )
                .await;
            assert!(signed_in["accessToken"].is_string());
        }
    }
}

#[tokio::test]
async fn what_a_role_may_not_do_is_not_even_checked() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let viewer = app.user(&admin, Role::Viewer).await;
    // Otherwise the answer would tell what exists to who may not change it.
    let answer = sound(
        &viewer,
        "mutation($input: DeleteDealInput!) { deleteDeal(input: $input) { deletedDealId } }",
        json!({ "input": { "dealId": write_id("deal", Uuid::now_v7()), "idempotencyKey": "\0" } }),
    )
    .await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "FORBIDDEN");
    assert_eq!(answer["errors"][0]["extensions"]["permission"], "DEALS_DELETE");
}

proptest! {
    #[test]
    fn ids_survive_being_written_and_read(bytes: [u8; 16], kind in 0..KINDS.len()) {
        let uuid = Uuid::from_bytes(bytes);
        let text = write_id(KINDS[kind], uuid);
        prop_assert_eq!(text.len(), KINDS[kind].len() + 27);
        prop_assert_eq!(read_id(&text), Some((KINDS[kind], uuid)));
        let typed: Result<Id<User>, _> = text.parse();
        prop_assert_eq!(typed.map(Id::uuid).ok(), (KINDS[kind] == "user").then_some(uuid));
    }

    #[test]
    fn later_ids_sort_later(a: u128, b: u128) {
        let write = |value| write_id("deal", Uuid::from_u128(value));
        prop_assert_eq!(a.cmp(&b), write(a).cmp(&write(b)));
    }

    #[test]
    fn no_text_makes_reading_an_id_fail_badly(text in ".{0,40}") {
        if let Some((prefix, uuid)) = read_id(&text) {
            prop_assert_eq!(write_id(prefix, uuid), text);
        }
    }

    #[test]
    fn positions_survive_being_written_and_read(epoch: i64, position in 0..i64::MAX) {
        let position = Position { epoch, position };
        prop_assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn no_text_makes_reading_a_position_fail_badly(text in ".{0,40}") {
        if let Ok(position) = text.parse::<Position>() {
            prop_assert_eq!(position.to_string(), text);
        }
    }

    #[test]
    fn money_survives_being_shown_and_given_back(units in 0..=1_000_000_000_000_000_i64, currency in 0..3_usize) {
        let currency = CurrencyCode::find(["JPY", "USD", "KWD"][currency]).unwrap();
        let Money { amount, currency_code } = Money::from_minor(units, currency);
        let input = MoneyInput { amount, currency_code };
        prop_assert_eq!(input.minor_units("amount").ok(), Some(units));
        let shown = amount.0.to_string();
        let digits = shown.split_once('.').map_or(0, |(_, part)| part.len());
        prop_assert_eq!(digits, currency.digits() as usize);
    }

    #[test]
    fn a_decimal_reads_what_it_writes_and_nothing_else_panics(text in "[-+0-9._eE ,]{0,45}") {
        use async_graphql::{ScalarType, Value};
        if let Ok(number) = Decimal::parse(Value::String(text.clone())) {
            let written = number.to_value();
            prop_assert_eq!(Decimal::parse(written).ok().map(|it| it.0), Some(number.0));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte)));
        }
    }
}
