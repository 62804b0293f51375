//! Pipelines and their stages: what can be done with them.

use serde_json::{Value, json};

use crate::support::{Client, TestApp};

const PIPELINE: &str = "pipeline { id name isDefault version stages { id name kind winProbability position rottingAfterDays version } }";
const STAGE: &str = "stage { id name kind winProbability position rottingAfterDays version pipeline { id } }";

async fn create(client: &Client, input: Value) -> Value {
    client
        .payload("createPipeline", "CreatePipelineInput", PIPELINE, input)
        .await
}

async fn update(client: &Client, input: Value) -> Value {
    client
        .payload("updatePipeline", "UpdatePipelineInput", PIPELINE, input)
        .await
}

async fn update_stage(client: &Client, input: Value) -> Value {
    client
        .payload("updatePipelineStage", "UpdatePipelineStageInput", STAGE, input)
        .await
}

async fn delete_stage(client: &Client, id: &Value) -> Value {
    client
        .payload(
            "deletePipelineStage",
            "DeletePipelineStageInput",
            "deletedStageId",
            json!({ "stageId": id }),
        )
        .await
}

/// A pipeline with stages of these names.
async fn pipeline(client: &Client, name: &str, stages: &[&str]) -> Value {
    let stages: Vec<_> = stages.iter().map(|name| json!({ "name": name })).collect();
    let payload = create(client, json!({ "name": name, "stages": stages })).await;
    assert_eq!(payload["userErrors"], json!([]));
    payload["pipeline"].clone()
}

/// The stages of a pipeline, first to last, whose positions must be 1, 2, 3 …
async fn stages(client: &Client, id: &Value) -> Vec<String> {
    let data = client
        .query(
            "query($id: ID!) { pipeline(id: $id) { stages { name position } } }",
            json!({ "id": id }),
        )
        .await;
    let stages = data["pipeline"]["stages"].as_array().unwrap();
    for (index, stage) in stages.iter().enumerate() {
        assert_eq!(stage["position"], index + 1, "{stages:?}");
    }
    stages
        .iter()
        .map(|stage| stage["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The default pipelines' names and versions: one, always.
async fn default(client: &Client) -> (String, Value) {
    let data = client
        .query("{ pipelines { nodes { name isDefault version } } }", json!({}))
        .await;
    let nodes = data["pipelines"]["nodes"].as_array().unwrap();
    let mut defaults = nodes.iter().filter(|node| node["isDefault"] == true);
    let default = defaults.next().unwrap();
    assert!(defaults.next().is_none());
    (
        default["name"].as_str().unwrap().to_owned(),
        default["version"].clone(),
    )
}

fn problem(payload: &Value) -> (&str, String) {
    let error = &payload["userErrors"][0];
    let path = error["field"].as_array().unwrap_or_else(|| panic!("{payload:#}"));
    let path: Vec<_> = path[1..].iter().map(|step| step.as_str().unwrap()).collect();
    (error["code"].as_str().unwrap(), path.join("."))
}

#[tokio::test]
async fn a_tenant_begins_with_the_usual_pipeline() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let data = client
        .query(
            "{ pipelines { nodes { isDefault stages { name kind winProbability position } } } }",
            json!({}),
        )
        .await;
    let pipelines = data["pipelines"]["nodes"].as_array().unwrap();
    assert_eq!((pipelines.len(), &pipelines[0]["isDefault"]), (1, &json!(true)));
    let usual: Vec<_> = [("Prospect", "OPEN", 10), ("Qualification", "OPEN", 20), ("Proposal", "OPEN", 50), ("Negotiation", "OPEN", 80), ("Closed Won", "WON", 100), ("Closed Lost", "LOST", 0)]
        .into_iter()
        .zip(1..)
        .map(|((name, kind, percent), position)| json!({ "name": name, "kind": kind, "winProbability": percent, "position": position }))
        .collect();
    assert_eq!(pipelines[0]["stages"], json!(usual));
}

#[tokio::test]
async fn a_pipeline_is_created_with_its_stages_in_their_order() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let given = json!({ "name": " Renewals ", "stages": [
        { "name": "First", "winProbability": 30, "rottingAfterDays": 5 }, { "name": "Won", "kind": "WON", "winProbability": 1 },
        { "name": "Lost", "kind": "LOST", "winProbability": 99 }, { "name": "Open" } ] });
    let payload = create(&client, given).await;
    assert_eq!(payload["pipeline"]["name"], "Renewals");
    let stages = payload["pipeline"]["stages"].as_array().unwrap();
    let shown: Vec<_> = stages
        .iter()
        .map(|it| {
            (
                it["name"].as_str().unwrap(),
                it["winProbability"].as_i64().unwrap(),
                it["position"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("First", 30, 1), ("Won", 100, 2), ("Lost", 0, 3), ("Open", 0, 4)]
    );
    assert_eq!(stages[0]["rottingAfterDays"], 5);
    let usual = create(&client, json!({ "name": "Usual" })).await;
    assert_eq!(usual["pipeline"]["stages"].as_array().unwrap().len(), 6);
    for (input, code, field) in [
        (json!({ "name": "Usual" }), "DUPLICATE", "name"),
        (json!({ "name": "X", "stages": [] }), "OUT_OF_RANGE", "stages"),
        (
            json!({ "name": "X", "stages": vec![json!({ "name": "S" }); 51] }),
            "OUT_OF_RANGE",
            "stages",
        ),
        (
            json!({ "name": "X", "stages": [{ "name": "Same" }, { "name": " Same " }] }),
            "DUPLICATE",
            "stages.1.name",
        ),
        (
            json!({ "name": "X", "stages": [{ "name": "A" }, { "name": "" }] }),
            "REQUIRED",
            "stages.1.name",
        ),
    ] {
        let payload = create(&client, input.clone()).await;
        assert_eq!(problem(&payload), (code, field.to_owned()), "{input}");
    }
}

#[tokio::test]
async fn one_pipeline_is_the_default_always() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let begun = client.position().await;
    let second = create(&client, json!({ "name": "Second", "isDefault": true })).await["pipeline"].clone();
    assert_eq!(default(&client).await, ("Second".to_owned(), json!(1)));
    assert_eq!(
        client.deal(json!({ "name": "D" })).await.split('_').next(),
        Some("deal")
    );
    let data = client
        .query("{ deals { nodes { pipeline { name } } } }", json!({}))
        .await;
    assert_eq!(data["deals"]["nodes"][0]["pipeline"]["name"], "Second");
    let third = create(&client, json!({ "name": "Third" })).await["pipeline"].clone();
    let payload = update(&client, json!({ "pipelineId": third["id"], "isDefault": true })).await;
    assert_eq!(payload["pipeline"]["isDefault"], true);
    assert_eq!(default(&client).await, ("Third".to_owned(), json!(2)));
    let payload = update(&client, json!({ "pipelineId": third["id"], "isDefault": false })).await;
    assert_eq!(problem(&payload), ("NOT_ALLOWED", "isDefault".to_owned()));
    let input = json!({ "pipelineId": third["id"] });
    let payload = client
        .payload(
            "deletePipeline",
            "DeletePipelineInput",
            "deletedPipelineId",
            input,
        )
        .await;
    assert_eq!(problem(&payload), ("IN_USE", "pipelineId".to_owned()));
    // The one that lost it has changed too: its version tells, and the history.
    let stale = json!({ "pipelineId": second["id"], "name": "Renamed", "expectedVersion": 1 });
    assert_eq!(problem(&update(&client, stale).await).0, "CONFLICT");
    let begun: dealstream::events::Position = begun.parse().unwrap();
    let tenant = client.viewer().tenant_id;
    let lost = format!(
        "SELECT count(*) FROM events WHERE tenant_id = '{tenant}' AND position > {} AND entity = 'pipeline' AND kind = 'UPDATED'
            AND change->>'is_default' = 'false'",
        begun.position
    );
    let lost: i64 = app.superuser().await.query_one(&lost, &[]).await.unwrap().get(0);
    assert_eq!(lost, 2);
}

#[tokio::test]
async fn of_many_who_make_their_pipeline_the_default_all_are_answered_and_one_is_it() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(pipeline(&client, &format!("P{number}"), &["S"]).await["id"].clone());
    }
    let updates = ids
        .iter()
        .map(|id| update(&client, json!({ "pipelineId": id, "isDefault": true })));
    for payload in futures::future::join_all(updates).await {
        assert_eq!(payload["userErrors"], json!([]));
    }
    default(&client).await;
}

#[tokio::test]
async fn stages_change_places_and_close_ranks() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pipeline = pipeline(&client, "P", &["A", "B", "C", "D"]).await;
    let id = |index: usize| pipeline["stages"][index]["id"].clone();
    let payload = update_stage(&client, json!({ "stageId": id(0), "position": 3 })).await;
    assert_eq!(
        (&payload["stage"]["position"], &payload["stage"]["version"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(stages(&client, &pipeline["id"]).await, ["B", "C", "A", "D"]);
    update_stage(
        &client,
        json!({ "stageId": id(3), "position": 1, "name": "D!", "rottingAfterDays": null }),
    )
    .await;
    assert_eq!(stages(&client, &pipeline["id"]).await, ["D!", "B", "C", "A"]);
    update_stage(&client, json!({ "stageId": id(0), "position": 4 })).await;
    assert_eq!(stages(&client, &pipeline["id"]).await, ["D!", "B", "C", "A"]);
    for position in [0, 5, -1] {
        let payload = update_stage(&client, json!({ "stageId": id(0), "position": position })).await;
        assert_eq!(problem(&payload), ("OUT_OF_RANGE", "position".to_owned()));
    }
    let payload = update_stage(&client, json!({ "stageId": id(0), "name": "B" })).await;
    assert_eq!(problem(&payload), ("DUPLICATE", "name".to_owned()));
    assert_eq!(delete_stage(&client, &id(1)).await["deletedStageId"], id(1));
    assert_eq!(stages(&client, &pipeline["id"]).await, ["D!", "C", "A"]);
    let input = json!({ "pipelineId": pipeline["id"], "name": "E", "kind": "LOST" });
    let payload = client
        .payload("createPipelineStage", "CreatePipelineStageInput", STAGE, input)
        .await;
    assert_eq!(
        (&payload["stage"]["position"], &payload["stage"]["winProbability"]),
        (&json!(4), &json!(0))
    );
    for index in [0, 2, 3] {
        delete_stage(&client, &id(index)).await;
    }
    assert_eq!(stages(&client, &pipeline["id"]).await, ["E"]);
    let payload = delete_stage(&client, &payload["stage"]["id"]).await;
    assert_eq!(
        problem(&payload),
        ("NOT_ALLOWED", "stageId".to_owned()),
        "a pipeline has at least one stage"
    );
}

#[tokio::test]
async fn many_who_change_the_order_at_once_do_not_wait_for_each_other_for_ever() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pipeline = pipeline(&client, "P", &["A", "B", "C", "D"]).await;
    let updates = (0..16).map(|number| {
        let stage = &pipeline["stages"][number % 4]["id"];
        update_stage(
            &client,
            json!({ "stageId": stage, "position": (number * 7) % 4 + 1 }),
        )
    });
    for payload in futures::future::join_all(updates).await {
        assert_eq!(payload["userErrors"], json!([]));
    }
    let mut names = stages(&client, &pipeline["id"]).await;
    names.sort();
    assert_eq!(names, ["A", "B", "C", "D"]);
    // One deletes the pipeline while others change it: somebody is refused, nobody hangs, nothing is left.
    let id = pipeline["id"].clone();
    let delete = client.payload(
        "deletePipeline",
        "DeletePipelineInput",
        "deletedPipelineId",
        json!({ "pipelineId": id }),
    );
    let updates = (0..4).map(|number| {
        update_stage(
            &client,
            json!({ "stageId": pipeline["stages"][number]["id"], "position": 1 }),
        )
    });
    let (deleted, updated) = futures::join!(delete, futures::future::join_all(updates));
    assert_eq!(deleted["userErrors"], json!([]));
    for payload in updated {
        assert!(
            payload["userErrors"] == json!([]) || problem(&payload).0 == "NOT_FOUND",
            "{payload}"
        );
    }
    let data = client
        .query(
            "query($id: ID!) { pipeline(id: $id) { id } }",
            json!({ "id": id }),
        )
        .await;
    assert_eq!(data["pipeline"], Value::Null);
}

#[tokio::test]
async fn what_deals_are_in_or_have_been_in_is_not_deleted() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let pipeline = pipeline(&client, "P", &["A", "B", "C"]).await;
    let id = |index: usize| pipeline["stages"][index]["id"].clone();
    let deal = client.deal(json!({ "name": "D", "stageId": id(0) })).await;
    client
        .move_deal(json!({ "dealId": deal, "stageId": id(1) }))
        .await;
    let delete = async || {
        client
            .payload(
                "deletePipeline",
                "DeletePipelineInput",
                "deletedPipelineId",
                json!({ "pipelineId": pipeline["id"] }),
            )
            .await
    };
    assert_eq!(problem(&delete().await), ("IN_USE", "pipelineId".to_owned()));
    assert_eq!(
        problem(&delete_stage(&client, &id(1)).await),
        ("IN_USE", "stageId".to_owned())
    );
    assert_eq!(
        problem(&delete_stage(&client, &id(0)).await),
        ("IN_USE", "stageId".to_owned()),
        "the history refers to it"
    );
    assert_eq!(delete_stage(&client, &id(2)).await["userErrors"], json!([]));
    client
        .mutate(
            "deleteDeal",
            "DeleteDealInput",
            "deletedDealId",
            json!({ "dealId": deal }),
        )
        .await;
    assert_eq!(delete().await["deletedPipelineId"], pipeline["id"]);
    let document = "query($id: ID!) { pipelineStage(id: $id) { id } }";
    assert_eq!(
        client.query(document, json!({ "id": id(0) })).await["pipelineStage"],
        Value::Null
    );
    assert_eq!(problem(&delete().await), ("NOT_FOUND", "pipelineId".to_owned()));
}

#[tokio::test]
async fn deals_keep_their_probability_when_the_stage_gets_another() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stage = client.stage("Proposal").await;
    let deal = client.deal(json!({ "name": "D", "stageId": stage })).await;
    let payload = update_stage(
        &client,
        json!({ "stageId": stage, "winProbability": 60, "rottingAfterDays": 7 }),
    )
    .await;
    assert_eq!(
        (
            &payload["stage"]["winProbability"],
            &payload["stage"]["rottingAfterDays"]
        ),
        (&json!(60), &json!(7))
    );
    let data = client
        .query(
            "query($id: ID!) { deal(id: $id) { winProbability } }",
            json!({ "id": deal }),
        )
        .await;
    assert_eq!(data["deal"]["winProbability"], 50);
    let won = client.stage("Closed Won").await;
    let payload = update_stage(&client, json!({ "stageId": won, "winProbability": 60 })).await;
    assert_eq!(payload["stage"]["winProbability"], 100, "won is won");
    let stale = json!({ "stageId": stage, "expectedVersion": 1, "winProbability": 70 });
    let payload = update_stage(&client, stale).await;
    assert_eq!(
        payload["userErrors"][0]["conflicts"],
        json!([{ "field": "winProbability", "currentValue": "60" }])
    );
}

#[tokio::test]
async fn filters_of_pipelines_find_what_they_say() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let partners = pipeline(&client, "Partners", &["One"]).await;
    pipeline(&client, "Renewals", &["One"]).await;
    let began = "2020-01-01T00:00:00Z";
    let document =
        "query($filter: PipelineFilter) { pipelines(filter: $filter) { totalCount nodes { name } } }";
    for (filter, count) in [
        (json!({}), 3),
        (json!({ "id": { "eq": partners["id"] } }), 1),
        (json!({ "name": { "in": ["Partners", "Renewals", "Other"] } }), 2),
        (json!({ "name": { "startsWith": "ren" } }), 1),
        (json!({ "isDefault": true }), 1),
        (json!({ "isDefault": false }), 2),
        (
            json!({ "createdAt": { "gt": began }, "updatedAt": { "gt": began } }),
            3,
        ),
        (json!({ "createdAt": { "lt": began } }), 0),
        (
            json!({ "or": [{ "id": { "eq": partners["id"] } }, { "isDefault": true }] }),
            2,
        ),
        (
            json!({ "and": [{ "isDefault": false }], "not": { "name": { "contains": "art" } } }),
            1,
        ),
    ] {
        let data = client.query(document, json!({ "filter": filter })).await;
        assert_eq!(data["pipelines"]["totalCount"], count, "{filter}");
        assert_eq!(
            data["pipelines"]["nodes"].as_array().unwrap().len(),
            count,
            "{filter}"
        );
    }
}
