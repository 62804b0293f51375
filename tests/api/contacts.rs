//! Contacts: what can be done with them, and which are found.

use dealstream::db::id::write_id;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

const CONTACT: &str = "contact { id name email phone jobTitle company { id name } lifecycleStage recordStatus source rating notes
    owner { id } createdAt updatedAt version }";

async fn create(client: &Client, input: Value) -> Value {
    client
        .mutate("createContact", "CreateContactInput", CONTACT, input)
        .await["contact"]
        .clone()
}

async fn update(client: &Client, input: Value) -> Value {
    client
        .payload("updateContact", "UpdateContactInput", CONTACT, input)
        .await
}

async fn delete(client: &Client, id: &str) -> Value {
    client
        .payload(
            "deleteContact",
            "DeleteContactInput",
            "deletedContactId",
            json!({ "contactId": id }),
        )
        .await
}

#[tokio::test]
async fn a_contact_is_created_read_changed_and_deleted() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (company, me) = (
        client.company("Acme").await,
        write_id("user", client.viewer().user_id),
    );
    let plain = create(&client, json!({ "name": "Plain" })).await;
    assert_eq!(
        (&plain["lifecycleStage"], &plain["recordStatus"]),
        (&json!("LEAD"), &json!("ACTIVE"))
    );
    assert_eq!(
        (&plain["rating"], &plain["company"], &plain["owner"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let contact = create(
        &client,
        json!({
            "name": " Ada Lovelace ", "email": "Ada@Acme.Example", "phone": "+44", "jobTitle": "Analyst", "companyId": company,
            "lifecycleStage": "CUSTOMER", "recordStatus": "INACTIVE", "source": "Fair", "rating": 5, "notes": "Line\n\tLine", "ownerId": me,
        }),
    )
    .await;
    assert_eq!(
        (&contact["name"], &contact["email"]),
        (&json!("Ada Lovelace"), &json!("ada@acme.example"))
    );
    assert_eq!(
        (&contact["notes"], &contact["company"]["name"]),
        (&json!("Line\n\tLine"), &json!("Acme"))
    );
    let id = contact["id"].as_str().unwrap();
    let document = format!(
        "query($id: ID!) {{ {} }}",
        CONTACT.replacen("contact", "contact(id: $id)", 1)
    );
    assert_eq!(
        client.query(&document, json!({ "id": id })).await["contact"],
        contact
    );
    let payload = update(&client, json!({ "contactId": id, "name": "Ada King", "phone": null, "rating": 0, "lifecycleStage": "CLOSED", "companyId": null })).await;
    let changed = &payload["contact"];
    assert_eq!(
        (&changed["name"], &changed["phone"], &changed["rating"]),
        (&json!("Ada King"), &Value::Null, &json!(0))
    );
    assert_eq!(
        (&changed["company"], &changed["version"], &changed["email"]),
        (&Value::Null, &json!(2), &contact["email"])
    );
    for (field, value, code) in [
        ("rating", json!(6), "OUT_OF_RANGE"),
        ("email", json!("not an address"), "INVALID"),
        ("name", json!(""), "REQUIRED"),
        (
            "companyId",
            json!(write_id("company", uuid::Uuid::now_v7())),
            "NOT_FOUND",
        ),
        (
            "ownerId",
            json!(write_id("user", uuid::Uuid::now_v7())),
            "NOT_FOUND",
        ),
    ] {
        let payload = update(&client, json!({ "contactId": id, field: value })).await;
        let error = &payload["userErrors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&json!(["input", field]), &json!(code))
        );
    }
    assert_eq!(delete(&client, id).await["deletedContactId"], id);
    assert_eq!(delete(&client, id).await["userErrors"][0]["code"], "NOT_FOUND");
    assert_eq!(
        client.query(&document, json!({ "id": id })).await["contact"],
        Value::Null
    );
}

#[tokio::test]
async fn a_stale_change_of_a_contact_is_told_what_differs() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = create(&client, json!({ "name": "Ada" })).await["id"].clone();
    update(
        &client,
        json!({ "contactId": id, "lifecycleStage": "CUSTOMER", "rating": 3 }),
    )
    .await;
    let stale = json!({ "contactId": id, "expectedVersion": 1, "lifecycleStage": "PROSPECT", "rating": null, "name": "Ada" });
    let payload = update(&client, stale).await;
    let error = &payload["userErrors"][0];
    assert_eq!(error["code"], "CONFLICT");
    let conflicts = json!([{ "field": "lifecycleStage", "currentValue": "\"CUSTOMER\"" }, { "field": "rating", "currentValue": "3" }]);
    assert_eq!(error["conflicts"], conflicts);
}

#[tokio::test]
async fn a_contact_that_is_referred_to_is_not_deleted() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.contact(json!({ "name": "Ada" })).await;
    let deal = client.deal(json!({ "name": "D", "contactId": id })).await;
    let interaction = client
        .interaction(json!({ "kind": "CALL", "subject": "S", "contactId": id }))
        .await;
    let error = delete(&client, &id).await["userErrors"][0].clone();
    assert_eq!(
        (&error["code"], &error["field"]),
        (&json!("IN_USE"), &json!(["input", "contactId"]))
    );
    assert_eq!(
        error["message"],
        "The contact still has deals and interactions. Move or delete them first."
    );
    client
        .mutate(
            "deleteDeal",
            "DeleteDealInput",
            "deletedDealId",
            json!({ "dealId": deal }),
        )
        .await;
    assert_eq!(delete(&client, &id).await["userErrors"][0]["code"], "IN_USE");
    client
        .mutate(
            "deleteInteraction",
            "DeleteInteractionInput",
            "deletedInteractionId",
            json!({ "interactionId": interaction }),
        )
        .await;
    assert_eq!(delete(&client, &id).await["userErrors"], json!([]));
}

#[tokio::test]
async fn who_deletes_and_who_refers_at_the_same_time_cannot_both_succeed() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    for _ in 0..10 {
        let id = client.contact(json!({ "name": "Ada" })).await;
        let refer = client.payload(
            "createDeal",
            "CreateDealInput",
            "deal { contact { id } }",
            json!({ "name": "D", "contactId": id }),
        );
        let (deleted, referred) = futures::join!(delete(&client, &id), refer);
        let outcome = (
            &deleted["userErrors"][0]["code"],
            &referred["userErrors"][0]["code"],
        );
        let expected = [(json!(null), json!("NOT_FOUND")), (json!("IN_USE"), json!(null))];
        assert!(expected.iter().any(|(a, b)| outcome == (a, b)), "{outcome:?}");
    }
}

#[tokio::test]
async fn filters_of_contacts_find_what_they_say() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let me = write_id("user", client.viewer().user_id);
    let acme = client.company("Acme").await;
    let a = create(&client, json!({ "name": "A", "email": "a@x.example", "rating": 1, "jobTitle": "CEO", "companyId": acme, "source": "Fair" })).await;
    create(&client, json!({ "name": "B", "email": "b@y.example", "rating": 3, "lifecycleStage": "CUSTOMER", "ownerId": me })).await;
    create(
        &client,
        json!({ "name": "C", "recordStatus": "ARCHIVED", "source": "Web" }),
    )
    .await;
    let document = "query($search: String, $filter: ContactFilter) {
        contacts(search: $search, filter: $filter, orderBy: { field: NAME }) { totalCount nodes { name } } }";
    for (search, filter, names) in [
        (json!(null), json!({}), "ABC"),
        (json!(null), json!({ "email": { "contains": "X.EXAMPLE" } }), "A"),
        (json!(null), json!({ "email": { "isNull": true } }), "C"),
        (json!(null), json!({ "jobTitle": { "eq": "CEO" } }), "A"),
        (json!(null), json!({ "source": { "in": ["Fair", "Web"] } }), "AC"),
        (json!(null), json!({ "rating": { "gte": 1, "lte": 2 } }), "A"),
        (json!(null), json!({ "rating": { "eq": 3 } }), "B"),
        (json!(null), json!({ "rating": { "isNull": true } }), "C"),
        (json!(null), json!({ "lifecycleStage": { "eq": "LEAD" } }), "AC"),
        (
            json!(null),
            json!({ "recordStatus": { "in": ["ACTIVE", "INACTIVE"] } }),
            "AB",
        ),
        (json!(null), json!({ "recordStatus": { "in": [] } }), ""),
        (json!(null), json!({ "companyId": { "eq": acme } }), "A"),
        (
            json!(null),
            json!({ "company": { "name": { "startsWith": "ac" } } }),
            "A",
        ),
        (json!(null), json!({ "company": {} }), "A"),
        (json!(null), json!({ "not": { "company": {} } }), "BC"),
        (json!(null), json!({ "not": { "rating": { "gte": 2 } } }), "AC"),
        (json!(null), json!({ "ownerId": { "eq": me } }), "B"),
        (
            json!(null),
            json!({ "createdAt": { "lte": a["createdAt"] } }),
            "A",
        ),
        (
            json!(null),
            json!({ "updatedAt": { "gt": a["updatedAt"] } }),
            "BC",
        ),
        (json!("EXAMPLE"), json!(null), "AB"),
        (json!("ceo"), json!({}), "A"),
        (json!("example"), json!({ "rating": { "gte": 2 } }), "B"),
        (
            json!("example"),
            json!({ "recordStatus": { "eq": "ARCHIVED" } }),
            "",
        ),
    ] {
        let data = client
            .query(document, json!({ "search": search, "filter": filter }))
            .await;
        let nodes = data["contacts"]["nodes"].as_array().unwrap();
        let found: String = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(
            (found.as_str(), data["contacts"]["totalCount"].as_u64()),
            (names, Some(names.len() as u64)),
            "{search} {filter}"
        );
    }
}
