//! Deals: what can be done with them, and the way they go through the stages.

use dealstream::db::id::write_id;
use serde_json::{Value, json};

use crate::support::{Client, TestApp};

const DEAL: &str = "deal { id name amount { amount currencyCode } weightedAmount { amount } status winProbability
    stage { name } pipeline { name } contact { id } company { id } owner { id } expectedCloseDate closedAt lostReason
    nextStep description daysInStage isRotting createdAt updatedAt version }";

async fn create(client: &Client, input: Value) -> Value {
    client.mutate("createDeal", "CreateDealInput", DEAL, input).await["deal"].clone()
}

async fn update(client: &Client, input: Value) -> Value {
    client.payload("updateDeal", "UpdateDealInput", DEAL, input).await
}

/// The code and the last step of the path of a payload's only problem.
fn problem(payload: &Value) -> (&str, &str) {
    let errors = payload["userErrors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{payload:#}");
    let field = errors[0]["field"].as_array().unwrap().last().unwrap();
    (errors[0]["code"].as_str().unwrap(), field.as_str().unwrap())
}

/// A deal's way through the stages, first to last: from, to, whether it has been left.
async fn way(client: &Client, deal: &str) -> Vec<Value> {
    let document = "query($id: ID!) { deal(id: $id) { stageHistory(first: 100) { totalCount nodes {
        id deal { id } fromStage { name } toStage { name } enteredAt exitedAt duration lostReason changedBy { id } } } } }";
    let data = client.query(document, json!({ "id": deal })).await;
    let history = &data["deal"]["stageHistory"];
    let mut nodes = history["nodes"].as_array().unwrap().clone();
    assert_eq!(history["totalCount"], nodes.len());
    nodes.reverse();
    nodes
}

/// That each stay begins where and when the one before it ended, and that only the last one lasts.
fn assert_chained(way: &[Value]) {
    assert_eq!(way[0]["fromStage"], Value::Null);
    for pair in way.windows(2) {
        assert_eq!(pair[0]["toStage"], pair[1]["fromStage"], "{way:#?}");
        assert_eq!(pair[0]["exitedAt"], pair[1]["enteredAt"], "{way:#?}");
        assert!(pair[0]["duration"].as_i64().unwrap() >= 0);
    }
    let last = way.last().unwrap();
    assert_eq!(
        (&last["exitedAt"], &last["duration"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_deal_begins_where_it_is_told_to_or_at_the_beginning() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let me = write_id("user", client.viewer().user_id);
    let deal = create(&client, json!({ "name": " Plain " })).await;
    assert_eq!(
        (&deal["name"], &deal["stage"]["name"]),
        (&json!("Plain"), &json!("Prospect"))
    );
    assert_eq!(deal["amount"], json!({ "amount": "0.00", "currencyCode": "USD" }));
    assert_eq!(
        (&deal["status"], &deal["winProbability"], &deal["version"]),
        (&json!("OPEN"), &json!(10), &json!(1))
    );
    assert_eq!(
        (&deal["owner"]["id"], &deal["closedAt"]),
        (&json!(me), &Value::Null)
    );
    assert_eq!(
        (&deal["daysInStage"], &deal["isRotting"]),
        (&json!(0), &json!(false))
    );
    let read = client
        .query(
            &format!(
                "query($id: ID!) {{ {} }}",
                DEAL.replacen("deal", "deal(id: $id)", 1)
            ),
            json!({ "id": deal["id"] }),
        )
        .await;
    assert_eq!(read["deal"], deal, "what is answered is what is read later");
    let stage = client.stage("Proposal").await;
    let amount = json!({ "amount": "999.99", "currencyCode": "EUR" });
    let input = json!({ "name": "P", "stageId": stage, "amount": amount, "winProbability": 33, "ownerId": null, "expectedCloseDate": "2031-12-24" });
    let deal = create(&client, input).await;
    assert_eq!(
        (&deal["stage"]["name"], &deal["winProbability"], &deal["owner"]),
        (&json!("Proposal"), &json!(33), &Value::Null)
    );
    assert_eq!(deal["weightedAmount"]["amount"], "330.00", "329.9967, rounded");
    assert_eq!(deal["expectedCloseDate"], "2031-12-24");
    let won = create(
        &client,
        json!({ "name": "W", "stageId": client.stage("Closed Won").await }),
    )
    .await;
    assert_eq!(
        (&won["status"], &won["winProbability"]),
        (&json!("WON"), &json!(100))
    );
    assert_eq!(won["closedAt"], won["createdAt"]);
    let settled = json!({ "name": "S", "stageId": client.stage("Closed Won").await, "winProbability": 5 });
    let payload = client
        .payload("createDeal", "CreateDealInput", DEAL, settled)
        .await;
    assert_eq!(problem(&payload), ("NOT_ALLOWED", "winProbability"));
    let lost = json!({ "name": "L", "stageId": client.stage("Closed Lost").await });
    let payload = client
        .payload("createDeal", "CreateDealInput", DEAL, lost.clone())
        .await;
    assert_eq!(problem(&payload), ("REQUIRED", "lostReason"));
    let mut with_reason = lost;
    with_reason["lostReason"] = json!("Too dear");
    let lost = create(&client, with_reason).await;
    assert_eq!(
        (&lost["status"], &lost["lostReason"]),
        (&json!("LOST"), &json!("Too dear"))
    );
    let payload = client
        .payload(
            "createDeal",
            "CreateDealInput",
            DEAL,
            json!({ "name": "O", "lostReason": "None" }),
        )
        .await;
    assert_eq!(problem(&payload), ("NOT_ALLOWED", "lostReason"));
    for deal in [&deal, &won, &lost] {
        let way = way(&client, deal["id"].as_str().unwrap()).await;
        assert_chained(&way);
        assert_eq!((way.len(), &way[0]["toStage"]), (1, &deal["stage"]));
        assert_eq!(
            (&way[0]["enteredAt"], &way[0]["lostReason"]),
            (&deal["createdAt"], &deal["lostReason"])
        );
        assert_eq!(way[0]["changedBy"]["id"], me);
    }
}

#[tokio::test]
async fn a_deal_of_the_wrong_pipeline_is_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let input = json!({ "name": "Second", "stages": [{ "name": "Only", "winProbability": 7 }] });
    let pipeline = client
        .mutate(
            "createPipeline",
            "CreatePipelineInput",
            "pipeline { id stages { id } }",
            input,
        )
        .await["pipeline"]
        .clone();
    let (id, only) = (&pipeline["id"], &pipeline["stages"][0]["id"]);
    let prospect = client.stage("Prospect").await;
    let there = create(&client, json!({ "name": "D", "pipelineId": id })).await;
    assert_eq!(
        (
            &there["stage"]["name"],
            &there["pipeline"]["name"],
            &there["winProbability"]
        ),
        (&json!("Only"), &json!("Second"), &json!(7))
    );
    let there = create(&client, json!({ "name": "D", "stageId": only })).await;
    assert_eq!(there["pipeline"]["name"], "Second");
    let input = json!({ "name": "D", "pipelineId": id, "stageId": prospect });
    let payload = client.payload("createDeal", "CreateDealInput", DEAL, input).await;
    assert_eq!(problem(&payload), ("NOT_ALLOWED", "stageId"));
    let payload = client
        .move_deal(json!({ "dealId": there["id"], "stageId": prospect }))
        .await;
    assert_eq!(problem(&payload), ("NOT_ALLOWED", "stageId"));
    assert_eq!(
        (&payload["deal"], &payload["stageChange"], &payload["position"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(way(&client, there["id"].as_str().unwrap()).await.len(), 1);
}

#[tokio::test]
async fn a_deal_goes_through_the_stages_and_its_way_is_kept() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let colleague = app.user(&client, dealstream::auth::Role::Sales).await;
    let id = client.deal(json!({ "name": "D" })).await;
    let go = async |client: &Client, stage: &str, reason: Value| {
        let stage = client.stage(stage).await;
        client
            .move_deal(json!({ "dealId": id, "stageId": stage, "lostReason": reason }))
            .await
    };
    // An open stage, by a colleague.
    let payload = go(&colleague, "Proposal", Value::Null).await;
    assert_eq!(
        (&payload["deal"]["status"], &payload["deal"]["winProbability"]),
        (&json!("OPEN"), &json!(50))
    );
    assert_eq!(
        payload["stageChange"],
        json!({ "fromStage": { "name": "Prospect" }, "toStage": { "name": "Proposal" }, "duration": null })
    );
    assert!(payload["position"].is_string());
    // To where it is already: nothing happens, and the position is the one before.
    let again = go(&client, "Proposal", Value::Null).await;
    assert_eq!(
        (&again["deal"]["version"], &again["stageChange"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(again["position"], payload["position"]);
    // Won closes it.
    let won = go(&client, "Closed Won", Value::Null).await;
    assert_eq!(
        (&won["deal"]["status"], &won["deal"]["winProbability"]),
        (&json!("WON"), &json!(100))
    );
    assert!(won["deal"]["closedAt"].is_string());
    let settled = update(&client, json!({ "dealId": id, "winProbability": 50 })).await;
    assert_eq!(problem(&settled), ("NOT_ALLOWED", "winProbability"));
    // From won to lost needs a reason.
    assert_eq!(
        problem(&go(&client, "Closed Lost", Value::Null).await),
        ("REQUIRED", "lostReason")
    );
    assert_eq!(
        problem(&go(&client, "Closed Lost", json!("  ")).await),
        ("REQUIRED", "lostReason")
    );
    assert_eq!(
        problem(&go(&client, "Negotiation", json!("why")).await),
        ("NOT_ALLOWED", "lostReason")
    );
    let lost = go(&client, "Closed Lost", json!("They went bankrupt")).await;
    assert_eq!(
        (&lost["deal"]["status"], &lost["deal"]["lostReason"]),
        (&json!("LOST"), &json!("They went bankrupt"))
    );
    assert_eq!(lost["deal"]["winProbability"], 0);
    assert_ne!(lost["deal"]["closedAt"], won["deal"]["closedAt"]);
    // It is lost already: there is nothing to give a reason for.
    let again = go(&client, "Closed Lost", Value::Null).await;
    assert_eq!(
        (&again["userErrors"], &again["deal"]["lostReason"]),
        (&json!([]), &json!("They went bankrupt"))
    );
    // Leaving reopens it.
    let open = go(&client, "Negotiation", Value::Null).await;
    assert_eq!(
        (&open["deal"]["status"], &open["deal"]["closedAt"]),
        (&json!("OPEN"), &Value::Null)
    );
    assert_eq!(
        (&open["deal"]["lostReason"], &open["deal"]["version"]),
        (&Value::Null, &json!(5))
    );
    let way = way(&client, &id).await;
    assert_chained(&way);
    let stages: Vec<_> = way
        .iter()
        .map(|stay| stay["toStage"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["Prospect", "Proposal", "Closed Won", "Closed Lost", "Negotiation"]
    );
    assert_eq!(
        way[1]["changedBy"]["id"],
        write_id("user", colleague.viewer().user_id)
    );
    assert_eq!(way[3]["lostReason"], "They went bankrupt");
}

#[tokio::test]
async fn a_stay_lasts_as_long_as_it_did() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.deal(json!({ "name": "D" })).await;
    let tenant = client.viewer().tenant_id;
    // As if it had begun forty days and three seconds ago.
    app.superuser()
        .await
        .batch_execute(&format!(
            "UPDATE deals SET stage_entered_at = stage_entered_at - interval '40 days 3 seconds' WHERE tenant_id = '{tenant}';
             UPDATE deal_stage_changes SET entered_at = entered_at - interval '40 days 3 seconds' WHERE tenant_id = '{tenant}'"
        ))
        .await
        .unwrap();
    let document = "query($id: ID!) { deal(id: $id) { daysInStage isRotting } }";
    let data = client.query(document, json!({ "id": id })).await;
    assert_eq!(data["deal"], json!({ "daysInStage": 40, "isRotting": true }));
    client
        .move_deal(json!({ "dealId": id, "stageId": client.stage("Closed Won").await }))
        .await;
    let way = way(&client, &id).await;
    assert_chained(&way);
    let seconds = way[0]["duration"].as_i64().unwrap();
    assert!((3_456_003..3_456_060).contains(&seconds), "{seconds}");
    let data = client.query(document, json!({ "id": id })).await;
    assert_eq!(
        data["deal"],
        json!({ "daysInStage": 0, "isRotting": false }),
        "a closed deal never rots"
    );
    // A clock that was set back: a stay never ends before it began.
    app.superuser()
        .await
        .batch_execute(&format!(
            "UPDATE deals SET stage_entered_at = stage_entered_at + interval '1 hour' WHERE tenant_id = '{tenant}';
             UPDATE deal_stage_changes SET entered_at = entered_at + interval '1 hour' WHERE tenant_id = '{tenant}' AND exited_at IS NULL"
        ))
        .await
        .unwrap();
    let payload = client
        .move_deal(json!({ "dealId": id, "stageId": client.stage("Proposal").await }))
        .await;
    assert_eq!(payload["userErrors"], json!([]));
    let data = client.query(document, json!({ "id": id })).await;
    assert_eq!(data["deal"]["daysInStage"], 0);
}

#[tokio::test]
async fn a_deal_is_changed_but_for_its_stage() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let company = client.company("Acme").await;
    let contact = client.contact(json!({ "name": "C" })).await;
    let deal = create(
        &client,
        json!({ "name": "D", "nextStep": "Call", "description": "Long\nstory", "companyId": company }),
    )
    .await;
    let id = &deal["id"];
    let input = json!({
        "dealId": id, "name": "Better", "amount": { "amount": "1500", "currencyCode": "JPY" }, "winProbability": 42, "contactId": contact,
        "companyId": null, "ownerId": null, "expectedCloseDate": "2031-01-31", "nextStep": null,
    });
    let changed = update(&client, input.clone()).await["deal"].clone();
    assert_eq!(
        changed["amount"],
        json!({ "amount": "1500", "currencyCode": "JPY" })
    );
    assert_eq!(
        (&changed["weightedAmount"]["amount"], &changed["winProbability"]),
        (&json!("630"), &json!(42))
    );
    assert_eq!(
        (&changed["contact"]["id"], &changed["company"]),
        (&json!(contact), &Value::Null)
    );
    assert_eq!(
        (&changed["owner"], &changed["nextStep"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&changed["description"], &changed["version"]),
        (&json!("Long\nstory"), &json!(2))
    );
    assert_eq!(changed["stage"], deal["stage"]);
    let same = update(&client, input).await;
    assert_eq!(
        (&same["deal"]["version"], &same["deal"]["updatedAt"]),
        (&json!(2), &changed["updatedAt"]),
        "nothing was changed"
    );
    for (input, expected) in [
        (json!({ "name": "" }), ("REQUIRED", "name")),
        (
            json!({ "winProbability": 101 }),
            ("OUT_OF_RANGE", "winProbability"),
        ),
        (
            json!({ "amount": { "amount": "1.5", "currencyCode": "JPY" } }),
            ("INVALID", "amount"),
        ),
        (
            json!({ "contactId": write_id("contact", uuid::Uuid::now_v7()) }),
            ("NOT_FOUND", "contactId"),
        ),
    ] {
        let mut input = input;
        input["dealId"] = id.clone();
        let payload = update(&client, input).await;
        assert_eq!(problem(&payload).0, expected.0);
        assert!(
            payload["userErrors"][0]["field"]
                .as_array()
                .unwrap()
                .contains(&json!(expected.1)),
            "{payload}"
        );
    }
    let gone = update(
        &client,
        json!({ "dealId": write_id("deal", uuid::Uuid::now_v7()), "name": "X" }),
    )
    .await;
    assert_eq!(problem(&gone), ("NOT_FOUND", "dealId"));
}

#[tokio::test]
async fn a_stale_change_of_a_deal_is_told_what_differs() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (prospect, won) = (client.stage("Prospect").await, client.stage("Closed Won").await);
    let id = client
        .deal(json!({ "name": "D", "amount": { "amount": "5.50", "currencyCode": "USD" } }))
        .await;
    update(
        &client,
        json!({ "dealId": id, "expectedCloseDate": "2031-01-31" }),
    )
    .await;
    let stale = json!({ "dealId": id, "expectedVersion": 1, "amount": { "amount": "7", "currencyCode": "EUR" }, "expectedCloseDate": "2031-02-01", "name": "D" });
    let payload = update(&client, stale).await;
    let conflicts: Vec<(&Value, Value)> = payload["userErrors"][0]["conflicts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                &it["field"],
                serde_json::from_str(it["currentValue"].as_str().unwrap()).unwrap(),
            )
        })
        .collect();
    let amount = json!({ "amount": "5.50", "currencyCode": "USD" });
    assert_eq!(
        conflicts,
        [
            (&json!("amount"), amount),
            (&json!("expectedCloseDate"), json!("2031-01-31"))
        ]
    );
    let payload = client
        .move_deal(json!({ "dealId": id, "stageId": won, "expectedVersion": 1 }))
        .await;
    let error = &payload["userErrors"][0];
    assert_eq!(error["code"], "CONFLICT");
    assert_eq!(
        error["conflicts"],
        json!([{ "field": "stageId", "currentValue": format!("\"{prospect}\"") }])
    );
    let payload = client
        .move_deal(json!({ "dealId": id, "stageId": won, "expectedVersion": 2 }))
        .await;
    assert_eq!(
        (&payload["userErrors"], &payload["deal"]["version"]),
        (&json!([]), &json!(3))
    );
}

#[tokio::test]
async fn of_many_who_move_one_version_one_wins() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.deal(json!({ "name": "D" })).await;
    let stages = client.stages().await;
    let moves = stages[1..4]
        .iter()
        .map(|(stage, _)| client.move_deal(json!({ "dealId": id, "stageId": stage, "expectedVersion": 1 })));
    let answers = futures::future::join_all(moves).await;
    let won = answers
        .iter()
        .filter(|payload| payload["userErrors"] == json!([]))
        .count();
    let stale = answers
        .iter()
        .filter(|payload| payload["userErrors"][0]["code"] == "CONFLICT")
        .count();
    assert_eq!((won, stale), (1, 2), "{answers:#?}");
    assert_chained(&way(&client, &id).await);
}

#[tokio::test]
async fn many_who_move_one_deal_leave_an_unbroken_way() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.deal(json!({ "name": "D" })).await;
    let stages = client.stages().await;
    let moves =
        (0..20).map(|number| client.move_deal(json!({ "dealId": id, "stageId": stages[number % 4].0 })));
    let answers = futures::future::join_all(moves).await;
    assert!(
        answers.iter().all(|payload| payload["userErrors"] == json!([])),
        "{answers:#?}"
    );
    let moved = answers
        .iter()
        .filter(|payload| payload["stageChange"].is_object())
        .count();
    let way = way(&client, &id).await;
    assert_eq!(way.len(), moved + 1);
    assert_chained(&way);
}

#[tokio::test]
async fn a_deal_goes_with_its_way_but_not_with_its_interactions() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let id = client.deal(json!({ "name": "D" })).await;
    client
        .move_deal(json!({ "dealId": id, "stageId": client.stage("Proposal").await }))
        .await;
    let change = way(&client, &id).await[0]["id"].clone();
    let interaction = client
        .interaction(json!({ "kind": "NOTE", "subject": "S", "dealId": id }))
        .await;
    let delete = async || {
        client
            .payload(
                "deleteDeal",
                "DeleteDealInput",
                "deletedDealId",
                json!({ "dealId": id }),
            )
            .await
    };
    assert_eq!(problem(&delete().await), ("IN_USE", "dealId"));
    client
        .mutate(
            "deleteInteraction",
            "DeleteInteractionInput",
            "deletedInteractionId",
            json!({ "interactionId": interaction }),
        )
        .await;
    assert_eq!(delete().await["deletedDealId"], id);
    let document =
        "query($deal: ID!, $change: ID!) { deal(id: $deal) { id } dealStageChange(id: $change) { id } }";
    let data = client
        .query(document, json!({ "deal": id, "change": change }))
        .await;
    assert_eq!(data, json!({ "deal": null, "dealStageChange": null }));
    assert_eq!(problem(&delete().await), ("NOT_FOUND", "dealId"));
}

#[tokio::test]
async fn filters_of_deals_find_what_they_say_across_contact_and_company() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let me = write_id("user", client.viewer().user_id);
    let tools = json!({ "name": "Tool Co", "industry": "Tools" });
    let tools = client
        .mutate("createCompany", "CreateCompanyInput", "company { id }", tools)
        .await["company"]["id"]
        .clone();
    let other = client.company("Other Co").await;
    let ada = client
        .contact(json!({ "name": "Ada", "companyId": tools, "rating": 5 }))
        .await;
    let bob = client
        .contact(json!({ "name": "Bob", "companyId": other, "lifecycleStage": "CUSTOMER" }))
        .await;
    let eve = client.contact(json!({ "name": "Eve" })).await;
    let stages = client.stages().await;
    let usd = |amount: &str| json!({ "amount": amount, "currencyCode": "USD" });
    let a = create(&client, json!({ "name": "A", "contactId": ada, "companyId": tools, "amount": usd("10"), "expectedCloseDate": "2031-01-01" })).await;
    create(&client, json!({ "name": "B", "contactId": bob, "amount": usd("20"), "stageId": stages[2].0, "expectedCloseDate": "2031-01-02" })).await;
    create(&client, json!({ "name": "C", "contactId": eve, "amount": { "amount": "15", "currencyCode": "EUR" }, "ownerId": null })).await;
    create(
        &client,
        json!({ "name": "D", "companyId": other, "stageId": stages[4].0 }),
    )
    .await;
    create(
        &client,
        json!({ "name": "E", "stageId": stages[5].0, "lostReason": "x", "amount": usd("30") }),
    )
    .await;
    let document = "query($filter: DealFilter) { deals(filter: $filter, orderBy: { field: NAME }) { totalCount nodes { name } } }";
    for (filter, names) in [
        (json!({}), "ABCDE"),
        (json!({ "id": { "eq": a["id"] } }), "A"),
        (json!({ "name": { "in": ["A", "E"] } }), "AE"),
        (json!({ "status": { "eq": "OPEN" } }), "ABC"),
        (json!({ "status": { "in": ["WON", "LOST"] } }), "DE"),
        (json!({ "stageId": { "eq": stages[2].0 } }), "B"),
        (json!({ "stageId": { "in": [stages[0].0, stages[4].0] } }), "ACD"),
        (json!({ "contactId": { "eq": ada } }), "A"),
        (json!({ "contactId": { "isNull": true } }), "DE"),
        (json!({ "companyId": { "in": [tools, other] } }), "AD"),
        (json!({ "ownerId": { "isNull": true } }), "C"),
        (json!({ "ownerId": { "eq": me } }), "ABDE"),
        (json!({ "amount": { "currencyCode": "USD" } }), "ABDE"),
        (
            json!({ "amount": { "currencyCode": "USD", "gte": "10", "lte": "20" } }),
            "AB",
        ),
        (
            json!({ "amount": { "currencyCode": "USD", "gte": "10.01" } }),
            "BE",
        ),
        (json!({ "amount": { "currencyCode": "EUR", "lte": "15" } }), "C"),
        (json!({ "amount": { "currencyCode": "JPY", "gte": "0" } }), ""),
        (json!({ "winProbability": { "gte": 50, "lte": 99 } }), "B"),
        (json!({ "winProbability": { "eq": 100 } }), "D"),
        (json!({ "expectedCloseDate": { "eq": "2031-01-01" } }), "A"),
        (json!({ "expectedCloseDate": { "gte": "2031-01-02" } }), "B"),
        (json!({ "expectedCloseDate": { "lte": "2031-01-02" } }), "AB"),
        (json!({ "expectedCloseDate": { "isNull": true } }), "CDE"),
        (json!({ "closedAt": { "isNull": false } }), "DE"),
        (json!({ "createdAt": { "lte": a["createdAt"] } }), "A"),
        (json!({ "createdAt": { "gt": a["createdAt"] } }), "BCDE"),
        (json!({ "contact": { "name": { "eq": "Ada" } } }), "A"),
        (json!({ "contact": { "rating": { "gte": 5 } } }), "A"),
        (
            json!({ "contact": { "lifecycleStage": { "in": ["CUSTOMER"] } } }),
            "B",
        ),
        (
            json!({ "contact": { "company": { "industry": { "eq": "Tools" } } } }),
            "A",
        ),
        (json!({ "contact": { "companyId": { "isNull": true } } }), "C"),
        (json!({ "contact": { "company": {} } }), "AB"),
        (json!({ "contact": {} }), "ABC"),
        (json!({ "company": { "name": { "contains": "co" } } }), "AD"),
        (json!({ "company": { "industry": { "isNull": true } } }), "D"),
        (
            json!({ "contact": { "or": [{ "name": { "eq": "Eve" } }, { "company": { "name": { "eq": "Other Co" } } }] } }),
            "BC",
        ),
        (json!({ "contact": { "not": { "name": { "eq": "Ada" } } } }), "BC"),
        (
            json!({ "not": { "contact": { "name": { "eq": "Ada" } } } }),
            "BCDE",
        ),
        (
            json!({ "or": [{ "contact": { "name": { "eq": "Ada" } } }, { "status": { "eq": "LOST" } }] }),
            "AE",
        ),
        (
            json!({ "and": [{ "status": { "eq": "OPEN" } }, { "or": [{ "name": { "eq": "B" } }, { "name": { "eq": "E" } }] }] }),
            "B",
        ),
        (
            json!({ "not": { "or": [{ "status": { "eq": "OPEN" } }, { "name": { "eq": "E" } }] } }),
            "D",
        ),
    ] {
        let data = client.query(document, json!({ "filter": filter })).await;
        let nodes = data["deals"]["nodes"].as_array().unwrap();
        let found: String = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(
            (found.as_str(), data["deals"]["totalCount"].as_u64()),
            (names, Some(names.len() as u64)),
            "{filter}"
        );
    }
}

#[tokio::test]
async fn the_board_adds_up_each_currency_by_itself() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let proposal = client.stage("Proposal").await;
    for (amount, currency, probability) in [
        ("10.01", "USD", 50),
        ("20.02", "USD", 25),
        ("0.01", "USD", 50),
        ("1000", "JPY", 33),
        ("10000000000000.00", "EUR", 100),
        ("10000000000000.00", "EUR", 100),
    ] {
        let amount = json!({ "amount": amount, "currencyCode": currency });
        create(
            &client,
            json!({ "name": "D", "stageId": proposal, "amount": amount, "winProbability": probability }),
        )
        .await;
    }
    let document = "query($id: ID!) { pipelineStage(id: $id) { dealCount currencies
        totalAmount { amount currencyCode } weightedAmount { amount }
        yen: totalAmount(currencyCode: JPY) { amount } weightedYen: weightedAmount(currencyCode: JPY) { amount }
        euro: totalAmount(currencyCode: EUR) { amount } weightedEuro: weightedAmount(currencyCode: EUR) { amount }
        none: totalAmount(currencyCode: CHF) { amount } deals(first: 2) { totalCount nodes { name } } } }";
    let data = client.query(document, json!({ "id": proposal })).await;
    assert_eq!(
        data["pipelineStage"],
        json!({
            "dealCount": 6, "currencies": ["USD", "EUR", "JPY"],
            "totalAmount": { "amount": "30.04", "currencyCode": "USD" },
            // 5.005 + 5.005 + 0.005, added up before it is rounded.
            "weightedAmount": { "amount": "10.02" },
            "yen": { "amount": "1000" }, "weightedYen": { "amount": "330" },
            "euro": { "amount": "20000000000000.00" }, "weightedEuro": { "amount": "20000000000000.00" },
            "none": { "amount": "0.00" },
            "deals": { "totalCount": 6, "nodes": [{ "name": "D" }, { "name": "D" }] },
        })
    );
    let empty = client.stage("Negotiation").await;
    let data = client.query(document, json!({ "id": empty })).await;
    assert_eq!(
        (
            &data["pipelineStage"]["dealCount"],
            &data["pipelineStage"]["currencies"]
        ),
        (&json!(0), &json!([]))
    );
    assert_eq!(
        data["pipelineStage"]["totalAmount"],
        json!({ "amount": "0.00", "currencyCode": "USD" })
    );
}
