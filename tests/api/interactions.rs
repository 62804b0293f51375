//! Interactions: recorded, planned, completed.

use serde_json::{Value, json};

use crate::support::{Client, TestApp};

const INTERACTION: &str = "interaction { id kind direction channel subject content outcome nextAction scheduledAt occurredAt completedAt
    contact { id } company { id } deal { id } createdBy { id } createdAt version }";

async fn create(client: &Client, input: Value) -> Value {
    let payload = client
        .payload("createInteraction", "CreateInteractionInput", INTERACTION, input)
        .await;
    assert_eq!(payload["userErrors"], json!([]));
    payload["interaction"].clone()
}

async fn update(client: &Client, input: Value) -> Value {
    client
        .payload("updateInteraction", "UpdateInteractionInput", INTERACTION, input)
        .await
}

async fn complete(client: &Client, input: Value) -> Value {
    client
        .payload(
            "completeInteraction",
            "CompleteInteractionInput",
            INTERACTION,
            input,
        )
        .await
}

const FUTURE: &str = "2099-05-01T10:00:00.000000Z";
const PAST: &str = "2020-05-01T10:00:00.123456Z";

#[tokio::test]
async fn what_has_happened_is_recorded_and_what_is_to_come_is_planned() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let contact = client.contact(json!({ "name": "C" })).await;
    let base = |more: Value| {
        let mut input = json!({ "kind": "CALL", "subject": "S", "contactId": contact });
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    let now = create(&client, base(json!({ "direction": "INBOUND", "channel": "Phone", "content": "Hello", "outcome": "Good", "nextAction": "Wait" }))).await;
    assert_eq!(
        (&now["occurredAt"], &now["completedAt"], &now["scheduledAt"]),
        (&now["createdAt"], &now["createdAt"], &Value::Null)
    );
    let past = create(&client, base(json!({ "occurredAt": PAST }))).await;
    assert_eq!(
        (&past["occurredAt"], &past["completedAt"]),
        (&json!(PAST), &json!(PAST))
    );
    let offset = create(
        &client,
        base(json!({ "occurredAt": "2020-05-01T12:00:00.123456+02:00" })),
    )
    .await;
    assert_eq!(offset["occurredAt"], PAST);
    let planned = create(&client, base(json!({ "scheduledAt": FUTURE }))).await;
    assert_eq!(
        (
            &planned["scheduledAt"],
            &planned["occurredAt"],
            &planned["completedAt"]
        ),
        (&json!(FUTURE), &json!(FUTURE), &Value::Null)
    );
    let document = format!(
        "query($id: ID!) {{ {} }}",
        INTERACTION.replacen("interaction", "interaction(id: $id)", 1)
    );
    let read = client.query(&document, json!({ "id": planned["id"] })).await;
    assert_eq!(read["interaction"], planned);
    let nothing = json!({ "kind": "NOTE", "subject": "S" });
    let payload = client
        .payload(
            "createInteraction",
            "CreateInteractionInput",
            INTERACTION,
            nothing,
        )
        .await;
    assert_eq!(
        (
            &payload["userErrors"][0]["code"],
            &payload["userErrors"][0]["field"]
        ),
        (&json!("REQUIRED"), &json!(["input"]))
    );
}

#[tokio::test]
async fn a_planned_interaction_moves_with_its_plan_until_it_is_completed() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let planned = create(
        &client,
        json!({ "kind": "MEETING", "subject": "S", "dealId": deal, "scheduledAt": FUTURE }),
    )
    .await;
    let id = &planned["id"];
    let later = "2099-06-01T10:00:00.000000Z";
    let moved =
        update(&client, json!({ "interactionId": id, "scheduledAt": later })).await["interaction"].clone();
    assert_eq!(
        (&moved["scheduledAt"], &moved["occurredAt"], &moved["completedAt"]),
        (&json!(later), &json!(later), &Value::Null)
    );
    let done = complete(
        &client,
        json!({ "interactionId": id, "outcome": "Signed", "completedAt": PAST }),
    )
    .await["interaction"]
        .clone();
    assert_eq!(
        (&done["completedAt"], &done["occurredAt"], &done["scheduledAt"]),
        (&json!(PAST), &json!(PAST), &json!(later))
    );
    assert_eq!(
        (&done["outcome"], &done["version"]),
        (&json!("Signed"), &json!(3))
    );
    let again = complete(&client, json!({ "interactionId": id })).await;
    assert_eq!(again["userErrors"][0]["code"], "NOT_ALLOWED");
    let reopened = update(&client, json!({ "interactionId": id, "completedAt": null })).await;
    assert_eq!(reopened["interaction"]["completedAt"], Value::Null);
    let done = complete(
        &client,
        json!({ "interactionId": id, "nextAction": "Send the contract", "expectedVersion": 4 }),
    )
    .await;
    assert_eq!(
        (
            &done["interaction"]["occurredAt"],
            &done["interaction"]["nextAction"]
        ),
        (&json!(PAST), &json!("Send the contract"))
    );
    let tenant = client.viewer().tenant_id;
    let kinds = format!(
        "SELECT kind FROM events WHERE tenant_id = '{tenant}' AND entity = 'interaction' ORDER BY position"
    );
    let rows = app.superuser().await.query(&kinds, &[]).await.unwrap();
    let kinds: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kinds, ["CREATED", "UPDATED", "COMPLETED", "UPDATED", "COMPLETED"]);
}

#[tokio::test]
async fn an_interaction_is_changed_and_deleted_but_never_without_a_subject_of_its_own() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (contact, company) = (
        client.contact(json!({ "name": "C" })).await,
        client.company("Acme").await,
    );
    let made = create(
        &client,
        json!({ "kind": "CALL", "subject": "S", "contactId": contact, "content": "x" }),
    )
    .await;
    let id = &made["id"];
    let payload = update(&client, json!({ "interactionId": id, "contactId": null })).await;
    assert_eq!(
        (
            &payload["userErrors"][0]["code"],
            &payload["userErrors"][0]["field"]
        ),
        (&json!("REQUIRED"), &json!(["input"]))
    );
    let input = json!({ "interactionId": id, "contactId": null, "companyId": company, "kind": "EMAIL", "direction": "OUTBOUND", "content": null });
    let changed = update(&client, input).await["interaction"].clone();
    assert_eq!(
        (&changed["contact"], &changed["company"]["id"]),
        (&Value::Null, &json!(company))
    );
    assert_eq!(
        (&changed["kind"], &changed["direction"], &changed["content"]),
        (&json!("EMAIL"), &json!("OUTBOUND"), &Value::Null)
    );
    let stale = json!({ "interactionId": id, "expectedVersion": 1, "kind": "CALL", "occurredAt": PAST });
    let payload = update(&client, stale).await;
    let conflicts = payload["userErrors"][0]["conflicts"].as_array().unwrap().clone();
    assert_eq!(
        conflicts[0],
        json!({ "field": "kind", "currentValue": "\"EMAIL\"" })
    );
    let occurred: Value = serde_json::from_str(conflicts[1]["currentValue"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&conflicts[1]["field"], &occurred),
        (&json!("occurredAt"), &changed["occurredAt"])
    );
    let delete = async || {
        client
            .payload(
                "deleteInteraction",
                "DeleteInteractionInput",
                "deletedInteractionId",
                json!({ "interactionId": id }),
            )
            .await
    };
    assert_eq!(delete().await["deletedInteractionId"], *id);
    assert_eq!(delete().await["userErrors"][0]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn filters_of_interactions_find_what_they_say() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let me = dealstream::db::id::write_id("user", client.viewer().user_id);
    let (contact, company) = (
        client.contact(json!({ "name": "C" })).await,
        client.company("Acme").await,
    );
    let deal = client.deal(json!({ "name": "D" })).await;
    create(&client, json!({ "kind": "CALL", "subject": "A", "contactId": contact, "direction": "INBOUND", "occurredAt": PAST })).await;
    create(
        &client,
        json!({ "kind": "EMAIL", "subject": "B", "companyId": company, "direction": "OUTBOUND" }),
    )
    .await;
    create(
        &client,
        json!({ "kind": "MEETING", "subject": "C", "dealId": deal, "scheduledAt": FUTURE }),
    )
    .await;
    let document = "query($filter: InteractionFilter) { interactions(filter: $filter, orderBy: { field: CREATED_AT }) { totalCount nodes { subject } } }";
    for (filter, subjects) in [
        (json!({}), "ABC"),
        (json!({ "kind": { "in": ["CALL", "EMAIL"] } }), "AB"),
        (json!({ "direction": { "eq": "INBOUND" } }), "A"),
        (json!({ "direction": { "in": ["INBOUND", "OUTBOUND"] } }), "AB"),
        (json!({ "not": { "direction": { "eq": "INBOUND" } } }), "BC"),
        (json!({ "contactId": { "eq": contact } }), "A"),
        (json!({ "companyId": { "isNull": false } }), "B"),
        (json!({ "dealId": { "in": [deal] } }), "C"),
        (json!({ "createdById": { "eq": me } }), "ABC"),
        (json!({ "createdById": { "isNull": true } }), ""),
        (json!({ "subject": { "in": ["A", "C"] } }), "AC"),
        (json!({ "occurredAt": { "lte": PAST } }), "A"),
        (json!({ "occurredAt": { "gt": PAST } }), "BC"),
        (json!({ "scheduledAt": { "isNull": false } }), "C"),
        (json!({ "scheduledAt": { "gte": FUTURE } }), "C"),
        (json!({ "completedAt": { "isNull": true } }), "C"),
        (json!({ "isCompleted": true }), "AB"),
        (json!({ "isCompleted": false }), "C"),
        (
            json!({ "or": [{ "isCompleted": false }, { "kind": { "eq": "CALL" } }] }),
            "AC",
        ),
    ] {
        let data = client.query(document, json!({ "filter": filter })).await;
        let nodes = data["interactions"]["nodes"].as_array().unwrap();
        let found: String = nodes
            .iter()
            .map(|node| node["subject"].as_str().unwrap())
            .collect();
        assert_eq!(
            (found.as_str(), data["interactions"]["totalCount"].as_u64()),
            (subjects, Some(subjects.len() as u64)),
            "{filter}"
        );
    }
}
