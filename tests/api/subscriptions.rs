//! What each subscription tells of the records it follows: what, when, by whom, old and new values.

use std::collections::BTreeSet;
use std::time::Duration;

use async_graphql::parser::types::TypeKind;
use dealstream::auth::{Permission, Role};
use dealstream::crm::companies::Company;
use dealstream::crm::contacts::Contact;
use dealstream::crm::deals::Deal;
use dealstream::crm::interactions::Interaction;
use dealstream::crm::pipelines::{Pipeline, PipelineStage};
use dealstream::db::id::{Kind, write_id};
use dealstream::events::{Event, Position};
use dealstream::graphql::change::{Change, ChangeKind, Followed, is_visible};
use dealstream::identity::{CustomRole, Team, Tenant, User};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use crate::support::recipes::{Records, Sdl, named, operation, signed_up};
use crate::support::{Client, TestApp};

const PATIENCE: Duration = Duration::from_secs(30);

/// A subscription under way, with everything selected that it can tell.
struct Frames {
    field: &'static str,
    answers: BoxStream<'static, Value>,
}

impl Frames {
    fn of(client: &Client, field: &'static str, arguments: Value) -> Self {
        let (document, variables) = operation("Subscription", field, arguments);
        Self {
            field,
            answers: client.subscribe(&document, variables),
        }
    }

    /// One that is live: what came before is none of its business.
    async fn live(client: &Client, field: &'static str, arguments: Value) -> Self {
        let mut frames = Self::of(client, field, arguments);
        assert_eq!(kind(&frames.next().await), "UpToDate");
        frames
    }

    async fn next(&mut self) -> Value {
        let answer = tokio::time::timeout(PATIENCE, self.answers.next()).await;
        let mut answer = answer.expect("a frame comes").expect("the stream goes on");
        assert!(answer["errors"].is_null(), "{answer:#}");
        answer["data"][self.field].take()
    }

    /// The events up to the one frame that says that there are no more.
    async fn replay(client: &Client, field: &'static str, arguments: Value) -> Vec<Value> {
        let mut frames = Self::of(client, field, arguments);
        let mut events = Vec::new();
        loop {
            let frame = frames.next().await;
            if kind(&frame) == "UpToDate" {
                assert_eq!(frame["position"], client.position().await);
                return events;
            }
            events.push(frame);
        }
    }
}

fn kind(frame: &Value) -> &str {
    frame["__typename"].as_str().unwrap()
}

fn at(frame: &Value) -> Position {
    frame["position"].as_str().unwrap().parse().unwrap()
}

/// What an event says was changed, without what the schema says of it.
fn changes(event: &Value) -> Value {
    let changes = event["changes"].as_array().unwrap().iter();
    let change = |it: &Value| json!({ "field": it["field"], "from": it["from"], "to": it["to"] });
    changes.map(change).collect()
}

/// A change of a field.
fn change(field: &str, from: Value, to: Value) -> Value {
    json!({ "field": field, "from": from, "to": to })
}

/// The positions of a client's mutations, one after the other.
struct Steps<'a> {
    client: &'a Client,
    positions: Vec<Position>,
}

impl<'a> Steps<'a> {
    fn by(client: &'a Client) -> Self {
        Self {
            client,
            positions: Vec::new(),
        }
    }

    /// Runs `createDeal` and the like, and answers the id of the record.
    async fn take(&mut self, mutation: &str, selection: &str, input: Value) -> Value {
        let input_type = mutation[..1].to_uppercase() + &mutation[1..] + "Input";
        let mut payload = self.client.mutate(mutation, &input_type, selection, input).await;
        self.positions.push(at(&payload));
        let record = selection.split(' ').next().unwrap();
        payload[record].take()
    }
}

/// A mutation of one record, and what is told of it: of what kind, which fields. Nothing is told of some.
struct Step {
    mutation: &'static str,
    input: Value,
    told: Option<(&'static str, Value)>,
}

/// What is told of a deletion instead of a kind.
const DELETED: &str = "DELETED";

fn step(mutation: &'static str, input: Value, kind: &'static str, changes: Value) -> Step {
    Step {
        mutation,
        input,
        told: Some((kind, changes)),
    }
}

fn silent(mutation: &'static str, input: Value) -> Step {
    Step {
        mutation,
        input,
        told: None,
    }
}

/// Takes the steps of a record's life, and checks what a subscription tells of them: live, and again from every place
/// in between, in the same words.
async fn is_told(client: &Client, field: &'static str, record: &str, steps: Vec<Step>) {
    let me = write_id("user", client.viewer().user_id);
    let begin: Position = client.position().await.parse().unwrap();
    let mut live = Frames::live(client, field, json!({})).await;
    let mut taken = Steps::by(client);
    let (mut id, mut told, mut places) = (Value::Null, Vec::new(), vec![(begin, 0)]);
    let (id_field, title) = (format!("{record}Id"), record[..1].to_uppercase() + &record[1..]);
    for Step {
        mutation,
        mut input,
        told: expected,
    } in steps
    {
        if mutation.starts_with("delete") {
            input[&id_field] = id.clone();
            taken.take(mutation, &format!("deleted{title}Id"), input).await;
        } else {
            if !id.is_null() {
                input[&id_field] = id.clone();
            }
            id = taken.take(mutation, &format!("{record} {{ id }}"), input).await["id"].clone();
        }
        let position = *taken.positions.last().unwrap();
        assert_eq!(
            position.position,
            begin.position + taken.positions.len() as i64,
            "dense"
        );
        if let Some((kind, changed)) = expected {
            let event = live.next().await;
            let name = event["__typename"].as_str().unwrap();
            assert_eq!(name.ends_with("DeletedEvent"), kind == DELETED, "{name}");
            if kind != DELETED {
                assert_eq!(event["kind"], kind);
                assert_eq!(
                    event[record]["version"],
                    taken.positions.len(),
                    "as it is now: {event}"
                );
            }
            assert_eq!(changes(&event), changed, "{mutation}");
            assert_eq!((&event[&id_field], &event["changedBy"]["id"]), (&id, &json!(me)));
            assert_eq!(at(&event), position);
            told.push(event);
        }
        places.push((position, told.len()));
    }
    let end = client
        .query("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id }))
        .await;
    assert_eq!(end["node"], Value::Null, "the record is no more at the end");
    for event in &mut told {
        if event.get(record).is_some() {
            event[record] = Value::Null;
        }
    }
    for (position, seen) in places {
        let rest = Frames::replay(client, field, json!({ "after": position.to_string() })).await;
        assert_eq!(rest, told[seen..]);
    }
}

/// The fields of a new record.
fn given(fields: &[(&str, Value)]) -> Value {
    let given = |(field, value): &(&str, Value)| change(field, Value::Null, value.clone());
    fields.iter().map(given).collect()
}

/// The fields of a deleted record.
fn gone(fields: &[(&str, Value)]) -> Value {
    let gone = |(field, value): &(&str, Value)| change(field, value.clone(), Value::Null);
    fields.iter().map(gone).collect()
}

#[tokio::test]
async fn a_deals_life_is_told_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let contact = json!(client.contact(json!({ "name": "C" })).await);
    let stages: Vec<_> = client
        .stages()
        .await
        .into_iter()
        .map(|stage| json!(stage.0))
        .collect();
    let lost = json!(client.stage("Closed Lost").await);
    let data = client.query("{ pipelines { nodes { id } } }", json!({})).await;
    let pipeline = data["pipelines"]["nodes"][0]["id"].clone();
    let me = json!(write_id("user", client.viewer().user_id));
    let money = |amount: &str, currency: &str| json!({ "amount": amount, "currencyCode": currency });
    let none = Value::Null;
    let steps = vec![
        step(
            "createDeal",
            json!({ "name": "Fleet", "amount": money("1250.5", "USD"), "winProbability": 15 }),
            "CREATED",
            given(&[
                ("name", json!("Fleet")),
                ("amount", money("1250.50", "USD")),
                ("pipelineId", pipeline.clone()),
                ("stageId", stages[0].clone()),
                ("winProbability", json!(15)),
                ("ownerId", me.clone()),
            ]),
        ),
        step(
            "updateDeal",
            json!({
                "name": "Fleet", "amount": money("1300", "JPY"), "contactId": contact,
                "expectedCloseDate": "2031-01-31", "nextStep": "Call \"them\"",
            }),
            "UPDATED",
            json!([
                change("amount", money("1250.50", "USD"), money("1300", "JPY")),
                change("contactId", none.clone(), contact.clone()),
                change("expectedCloseDate", none.clone(), json!("2031-01-31")),
                change("nextStep", none.clone(), json!("Call \"them\"")),
            ]),
        ),
        step(
            "updateDeal",
            json!({ "amount": money("7", "JPY"), "contactId": null }),
            "UPDATED",
            json!([
                change("amount", money("1300", "JPY"), money("7", "JPY")),
                change("contactId", contact, none),
            ]),
        ),
        step(
            "moveDeal",
            json!({ "stageId": stages[1] }),
            "STAGE_CHANGED",
            json!([change("stageId", stages[0].clone(), stages[1].clone())]),
        ),
        step(
            "moveDeal",
            json!({ "stageId": lost, "lostReason": "Too late" }),
            "STAGE_CHANGED",
            json!([change("stageId", stages[1].clone(), lost.clone())]),
        ),
        step(
            "deleteDeal",
            json!({}),
            DELETED,
            gone(&[
                ("name", json!("Fleet")),
                ("amount", money("7", "JPY")),
                ("pipelineId", pipeline),
                ("stageId", lost),
                ("winProbability", json!(0)),
                ("ownerId", me),
                ("expectedCloseDate", json!("2031-01-31")),
                ("nextStep", json!("Call \"them\"")),
                ("lostReason", json!("Too late")),
            ]),
        ),
    ];
    is_told(&client, "dealChanged", "deal", steps).await;
}

#[tokio::test]
async fn a_companys_life_is_told_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let me = json!(write_id("user", client.viewer().user_id));
    let address = |city: &str| json!({ "street": "1 Mill Lane", "city": city, "region": null, "postalCode": null, "countryCode": "GB" });
    let input = json!({ "name": "Acme", "domain": "acme.example", "address": { "street": "1 Mill Lane", "city": "York", "countryCode": "GB" } });
    let steps = vec![
        step(
            "createCompany",
            input,
            "CREATED",
            given(&[
                ("name", json!("Acme")),
                ("domain", json!("acme.example")),
                ("address", address("York")),
            ]),
        ),
        step(
            "updateCompany",
            json!({ "name": "Acme \u{1F3ED}", "domain": null, "address": address("Leeds"), "ownerId": me }),
            "UPDATED",
            json!([
                change("name", json!("Acme"), json!("Acme \u{1F3ED}")),
                change("domain", json!("acme.example"), Value::Null),
                change("address", address("York"), address("Leeds")),
                change("ownerId", Value::Null, me.clone()),
            ]),
        ),
        step(
            "deleteCompany",
            json!({}),
            DELETED,
            gone(&[
                ("name", json!("Acme \u{1F3ED}")),
                ("address", address("Leeds")),
                ("ownerId", me),
            ]),
        ),
    ];
    is_told(&client, "companyChanged", "company", steps).await;
}

#[tokio::test]
async fn a_contacts_life_is_told_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (first, second) = (json!(client.company("A").await), json!(client.company("B").await));
    let steps = vec![
        step(
            "createContact",
            json!({ "name": "Eve", "email": "Eve@Example.com", "companyId": first, "rating": 0 }),
            "CREATED",
            given(&[
                ("name", json!("Eve")),
                ("email", json!("eve@example.com")),
                ("companyId", first.clone()),
                ("lifecycleStage", json!("LEAD")),
                ("recordStatus", json!("ACTIVE")),
                ("rating", json!(0)),
            ]),
        ),
        step(
            "updateContact",
            json!({ "companyId": second, "lifecycleStage": "CUSTOMER", "rating": 5, "notes": "Likes\ntea", "name": "Eve" }),
            "UPDATED",
            json!([
                change("companyId", first, second.clone()),
                change("lifecycleStage", json!("LEAD"), json!("CUSTOMER")),
                change("rating", json!(0), json!(5)),
                change("notes", Value::Null, json!("Likes\ntea")),
            ]),
        ),
        step(
            "deleteContact",
            json!({}),
            DELETED,
            gone(&[
                ("name", json!("Eve")),
                ("email", json!("eve@example.com")),
                ("companyId", second),
                ("lifecycleStage", json!("CUSTOMER")),
                ("recordStatus", json!("ACTIVE")),
                ("rating", json!(5)),
                ("notes", json!("Likes\ntea")),
            ]),
        ),
    ];
    is_told(&client, "contactChanged", "contact", steps).await;
}

#[tokio::test]
async fn an_interaction_is_told_when_it_is_planned_and_when_it_is_done() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let contact = json!(client.contact(json!({ "name": "C" })).await);
    let (planned, done) = ("2040-05-06T07:08:09Z", "2040-05-06T08:00:00Z");
    let steps = || {
        vec![
            step(
                "createInteraction",
                json!({ "kind": "CALL", "subject": "Intro", "contactId": contact, "scheduledAt": planned }),
                "CREATED",
                given(&[
                    ("kind", json!("CALL")),
                    ("subject", json!("Intro")),
                    ("scheduledAt", json!(planned)),
                    ("occurredAt", json!(planned)),
                    ("contactId", contact.clone()),
                ]),
            ),
            silent("updateInteraction", json!({ "subject": "Introduction" })),
        ]
    };
    let completed = json!([
        change("outcome", Value::Null, json!("Good")),
        change("occurredAt", json!(planned), json!(done)),
        change("completedAt", Value::Null, json!(done)),
    ]);
    let end = [
        silent("updateInteraction", json!({ "outcome": "Very good" })),
        silent("deleteInteraction", json!({})),
    ];
    let mut life = steps();
    let input = json!({ "outcome": "Good", "completedAt": done });
    life.push(step("completeInteraction", input, "COMPLETED", completed.clone()));
    life.extend(end);
    is_told(&client, "interactionLogged", "interaction", life).await;
    // Who completes it by an ordinary update has logged it too.
    let mut life = steps();
    let input = json!({ "outcome": "Good", "occurredAt": done, "completedAt": done });
    life.push(step("updateInteraction", input, "COMPLETED", completed));
    life.push(silent("deleteInteraction", json!({})));
    is_told(&client, "interactionLogged", "interaction", life).await;
}

#[tokio::test]
async fn deals_are_followed_by_pipeline_by_owner_and_one_by_one() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let other = app.user(&client, Role::Sales).await;
    let user = |client: &Client| write_id("user", client.viewer().user_id);
    let (mine, theirs) = (user(&client), user(&other));
    let stages = client.stages().await;
    let begin = client.position().await;
    let mut steps = Steps::by(&client);
    let input = json!({ "name": "Second", "stages": [{ "name": "A" }, { "name": "B" }] });
    let pipeline = steps
        .take("createPipeline", "pipeline { id stages { id } }", input)
        .await;
    let second = |n: usize| pipeline["stages"][n]["id"].clone();
    // 1 mine, 2 mine in the second pipeline, 3 nobody's.
    let mut deals = Vec::new();
    for input in [
        json!({ "name": "1" }),
        json!({ "name": "2", "stageId": second(0) }),
        json!({ "name": "3", "ownerId": null }),
    ] {
        deals.push(steps.take("createDeal", "deal { id }", input).await["id"].clone());
    }
    // 4 goes from me to the other, who 5 and 6 moves both of their deals; 7 and 8 are nobody's.
    let to_other = json!({ "dealId": deals[0], "ownerId": theirs });
    steps.take("updateDeal", "deal { id }", to_other).await;
    for (deal, stage) in [(0, json!(stages[1].0)), (1, second(1)), (2, json!(stages[1].0))] {
        let input = json!({ "dealId": deals[deal], "stageId": stage });
        steps.take("moveDeal", "deal { id }", input).await;
    }
    steps
        .take("deleteDeal", "deletedDealId", json!({ "dealId": deals[2] }))
        .await;
    for (filter, changed, moved) in [
        (json!({}), vec![1, 2, 3, 4, 5, 6, 7, 8], vec![5, 6, 7]),
        (json!({ "dealId": deals[0] }), vec![1, 4, 5], vec![5]),
        (json!({ "dealId": deals[2] }), vec![3, 7, 8], vec![7]),
        (json!({ "pipelineId": pipeline["id"] }), vec![2, 6], vec![6]),
        (json!({ "ownerId": mine }), vec![1, 2, 4, 6], vec![6]),
        (json!({ "ownerId": theirs }), vec![4, 5], vec![5]),
        (
            json!({ "ownerId": mine, "pipelineId": pipeline["id"], "dealId": deals[1] }),
            vec![2, 6],
            vec![6],
        ),
        (json!({ "ownerId": mine, "dealId": deals[2] }), vec![], vec![]),
    ] {
        let mut arguments = filter.clone();
        arguments["after"] = json!(begin);
        for (field, expected) in [("dealChanged", changed), ("dealStageChanged", moved)] {
            let told = Frames::replay(&client, field, arguments.clone()).await;
            let told: Vec<_> = told.iter().map(at).collect();
            let expected: Vec<_> = expected.into_iter().map(|step| steps.positions[step]).collect();
            assert_eq!(told, expected, "{field} {filter}");
        }
    }
}

#[tokio::test]
async fn companies_contacts_and_interactions_are_followed_by_what_they_belong_to() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let other = app.user(&client, Role::Sales).await;
    let user = |client: &Client| write_id("user", client.viewer().user_id);
    let (mine, theirs) = (user(&client), user(&other));
    let begin = client.position().await;
    let mut steps = Steps::by(&client);
    // 0 and 1: two companies; 2: the first goes to the other owner.
    let mut companies = Vec::new();
    for owner in [json!(mine), Value::Null] {
        let input = json!({ "name": "Company", "ownerId": owner });
        companies.push(steps.take("createCompany", "company { id }", input).await["id"].clone());
    }
    let input = json!({ "companyId": companies[0], "ownerId": theirs });
    steps.take("updateCompany", "company { id }", input).await;
    // 3: a contact; 4: it goes to the second company; 5: to the other owner; 6: its name.
    let input = json!({ "name": "Contact", "companyId": companies[0], "ownerId": mine });
    let contact = steps.take("createContact", "contact { id }", input).await["id"].clone();
    for change in [
        json!({ "companyId": companies[1] }),
        json!({ "ownerId": theirs }),
        json!({ "name": "Other" }),
    ] {
        let mut input = change;
        input["contactId"] = contact.clone();
        steps.take("updateContact", "contact { id }", input).await;
    }
    // 7: a deal; 8 to 10: interactions with contact, company and deal; 11: with the company and about the deal.
    let deal = steps
        .take("createDeal", "deal { id }", json!({ "name": "Deal" }))
        .await["id"]
        .clone();
    for about in [
        json!({ "contactId": contact }),
        json!({ "companyId": companies[0] }),
        json!({ "dealId": deal }),
        json!({ "companyId": companies[0], "dealId": deal }),
    ] {
        let mut input = about;
        (input["kind"], input["subject"]) = (json!("CALL"), json!("Call"));
        steps.take("createInteraction", "interaction { id }", input).await;
    }
    for (field, filter, expected) in [
        ("companyChanged", json!({}), vec![0, 1, 2]),
        ("companyChanged", json!({ "companyId": companies[1] }), vec![1]),
        ("companyChanged", json!({ "ownerId": mine }), vec![0, 2]),
        ("companyChanged", json!({ "ownerId": theirs }), vec![2]),
        ("contactChanged", json!({}), vec![3, 4, 5, 6]),
        (
            "contactChanged",
            json!({ "contactId": contact }),
            vec![3, 4, 5, 6],
        ),
        ("contactChanged", json!({ "companyId": companies[0] }), vec![3, 4]),
        (
            "contactChanged",
            json!({ "companyId": companies[1] }),
            vec![4, 5, 6],
        ),
        ("contactChanged", json!({ "ownerId": mine }), vec![3, 4, 5]),
        (
            "contactChanged",
            json!({ "ownerId": theirs, "companyId": companies[1] }),
            vec![5, 6],
        ),
        (
            "contactChanged",
            json!({ "ownerId": theirs, "companyId": companies[0] }),
            vec![],
        ),
        ("interactionLogged", json!({}), vec![8, 9, 10, 11]),
        ("interactionLogged", json!({ "contactId": contact }), vec![8]),
        (
            "interactionLogged",
            json!({ "companyId": companies[0] }),
            vec![9, 11],
        ),
        ("interactionLogged", json!({ "dealId": deal }), vec![10, 11]),
        (
            "interactionLogged",
            json!({ "dealId": deal, "companyId": companies[0] }),
            vec![11],
        ),
        ("changes", json!({}), (0..=11).collect()),
        ("changes", json!({ "types": ["COMPANY"] }), vec![0, 1, 2]),
        (
            "changes",
            json!({ "types": ["DEAL", "CONTACT"] }),
            vec![3, 4, 5, 6, 7],
        ),
        (
            "changes",
            json!({ "types": ["TENANT", "USER", "PIPELINE", "PIPELINE_STAGE"] }),
            vec![],
        ),
    ] {
        let mut arguments = filter.clone();
        arguments["after"] = json!(begin);
        let told = Frames::replay(&client, field, arguments).await;
        let told: Vec<_> = told.iter().map(at).collect();
        let expected: Vec<_> = expected.into_iter().map(|step| steps.positions[step]).collect();
        assert_eq!(told, expected, "{field} {filter}");
    }
}

#[tokio::test]
async fn changes_tell_the_whole_history_of_a_tenant_and_nothing_of_another() {
    let app = TestApp::new().await;
    let (own, other) = (signed_up(&app, "own").await, signed_up(&app, "other").await);
    let mut live = Frames::live(&own, "changes", json!({})).await;
    let records = Records::of(&own, "Own").await;
    Records::of(&other, "Foreign").await;
    let founded = Position {
        position: 0,
        ..own.position().await.parse().unwrap()
    };
    let told = Frames::replay(&own, "changes", json!({ "after": founded.to_string() })).await;
    let positions: Vec<_> = told.iter().map(|event| at(event).position).collect();
    // From the first day on, and all but what concerns one's own access and not the CRM's records.
    let kept = app.superuser().await;
    let kept = kept
        .query(
            "SELECT position, entity FROM events WHERE tenant_id = $1::text::uuid ORDER BY position",
            &[&own.viewer().tenant_id.to_string()],
        )
        .await
        .unwrap();
    let access = ["session", "api_key", "invitation"];
    let expected = kept.iter().filter(|row| !access.contains(&row.get(1)));
    assert_eq!(positions, expected.map(|row| row.get(0)).collect::<Vec<i64>>());
    assert_eq!(positions[0], 1);
    assert!(!json!(told).to_string().contains("Foreign"));
    let told = |ty: &str, kind: &str| -> Vec<&Value> {
        told.iter()
            .filter(|event| event["recordType"] == ty && event["kind"] == kind)
            .collect()
    };
    for (ty, node, count) in [
        ("TENANT", "tenant", 1),
        ("USER", "user", 1),
        ("ROLE", "role", 1),
        ("TEAM", "team", 1),
        ("COMPANY", "company", 1),
        ("CONTACT", "contact", 1),
        ("PIPELINE", "pipeline", 1),
        ("PIPELINE_STAGE", "stage", 6),
        ("DEAL", "deal", 1),
        ("INTERACTION", "interaction", 1),
    ] {
        let created = told(ty, "CREATED");
        assert_eq!(created.len(), count, "{ty}");
        let id = records.id(node);
        let event = created.iter().find(|event| event["recordId"] == id);
        let event = event.unwrap_or_else(|| panic!("{ty}: {created:?}"));
        assert_eq!(event["record"]["id"], id, "the record as a node");
        assert!(
            event["changes"]
                .as_array()
                .is_some_and(|changes| !changes.is_empty())
        );
    }
    assert_eq!(told("DEAL", "STAGE_CHANGED").len(), 1);
    assert_eq!(told("DEAL", "STAGE_CHANGED")[0]["changes"][0]["field"], "stageId");
    // Live, the same: the company is the first of the records.
    let event = live.next().await;
    assert_eq!(
        (&event["recordId"], &event["kind"]),
        (&json!(records.id("company")), &json!("CREATED"))
    );
    // What belongs to a deleted record and goes with it is told too.
    let pipeline = json!({ "name": "P", "stages": [{ "name": "A" }, { "name": "B" }] });
    let mut steps = Steps::by(&own);
    let selection = "pipeline { id stages { id } }";
    let pipeline = steps.take("createPipeline", selection, pipeline).await;
    let input = json!({ "pipelineId": pipeline["id"] });
    steps.take("deletePipeline", "deletedPipelineId", input).await;
    let after = json!({ "after": steps.positions[0].to_string() });
    let told = Frames::replay(&own, "changes", after).await;
    let gone: Vec<_> = told
        .iter()
        .map(|event| (kind(event), event["recordId"].clone()))
        .collect();
    let [a, b] = [0, 1].map(|stage| pipeline["stages"][stage]["id"].clone());
    let expected = [a, b, pipeline["id"].clone()].map(|id| ("RecordDeletedEvent", id));
    assert_eq!(gone, expected);
    assert_eq!(
        at(&told[2]),
        steps.positions[1],
        "the position of a mutation is that of its last event"
    );
}

#[tokio::test]
async fn changes_of_no_kind_or_of_unknown_kinds_are_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let follow = "subscription($types: [RecordType!]) { changes(types: $types) { __typename } }";
    let empty = client
        .subscribe(follow, json!({ "types": [] }))
        .next()
        .await
        .unwrap();
    assert_eq!(
        empty["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
        "{empty}"
    );
    let message = empty["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("types must name"), "{message}");
    for types in [
        json!(["PIGEON"]),
        json!([null]),
        json!(["deal"]),
        json!([5]),
        json!(""),
    ] {
        let answer = client.answer(follow, json!({ "types": types })).await;
        let code = &answer["errors"][0]["extensions"]["code"];
        assert_eq!(code, "BAD_USER_INPUT", "{types}: {answer}");
    }
    for literal in ["[PIGEON]", "[\"DEAL\"]", "[null]"] {
        let document = format!("subscription {{ changes(types: {literal}) {{ __typename }} }}");
        let code = client.code(&document, json!({})).await;
        assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{literal}");
    }
}

#[tokio::test]
async fn every_subscription_says_what_it_cannot_go_on_from() {
    let app = TestApp::new().await;
    let (client, other) = (app.tenant().await, app.tenant().await);
    client.company("Acme").await;
    let now: Position = client.position().await.parse().unwrap();
    let ahead = Position {
        position: now.position + 1,
        ..now
    };
    let fields = Sdl::get().fields("Subscription");
    assert_eq!(fields.len(), 6);
    for field in fields {
        let subscribe = |after: &str| {
            let (document, variables) =
                operation("Subscription", &field.name.node, json!({ "after": after }));
            client.subscribe(&document, variables)
        };
        for malformed in ["", "x", "AAAA", &now.to_string()[1..], &format!("{now}=")] {
            let answer = subscribe(malformed).next().await.unwrap();
            let code = &answer["errors"][0]["extensions"]["code"];
            assert_eq!(code, "BAD_USER_INPUT", "{} {malformed:?}: {answer}", field.name);
        }
        for (after, reason) in [
            (other.position().await, "HISTORY_REPLACED"),
            (ahead.to_string(), "POSITION_UNKNOWN"),
        ] {
            let answers = tokio::time::timeout(PATIENCE, subscribe(&after).collect::<Vec<_>>()).await;
            let expected = json!({ "__typename": "MustRefetch", "reason": reason });
            let field = field.name.node.as_str();
            let data: Vec<_> = answers
                .unwrap()
                .iter()
                .map(|answer| answer["data"].clone())
                .collect();
            assert_eq!(data, [json!({ field: expected })], "and it ends");
        }
    }
}

#[test]
fn every_subscription_sends_events_with_positions_and_the_words_of_the_stream() {
    let sdl = Sdl::get();
    for field in sdl.fields("Subscription") {
        let arguments: Vec<_> = field
            .arguments
            .iter()
            .map(|it| it.node.name.node.as_str())
            .collect();
        assert!(arguments.contains(&"after"), "{}", field.name);
        let frame = sdl.ty(named(&field.ty.node)).unwrap();
        let TypeKind::Union(union) = &frame.kind else {
            panic!("{} is no union", frame.name)
        };
        let members: Vec<_> = union.members.iter().map(|member| member.node.as_str()).collect();
        for word in ["UpToDate", "MustRefetch"] {
            assert!(members.contains(&word), "{}", frame.name);
        }
        for member in members.iter().filter(|member| member.ends_with("Event")) {
            for part in ["position", "occurredAt", "changedBy"] {
                let has = sdl.fields(member).iter().any(|field| field.name.node == part);
                assert!(has, "{member} has no {part}");
            }
        }
    }
}

/// The fields that the inputs of a kind of record set, but for what is not the record's.
fn set_by_inputs(title: &str) -> BTreeSet<String> {
    let own_id = format!("{}Id", title[..1].to_lowercase() + &title[1..]);
    let mut fields = BTreeSet::new();
    for input in [format!("Create{title}Input"), format!("Update{title}Input")] {
        let Some(TypeKind::InputObject(input)) = Sdl::get().ty(&input).map(|ty| &ty.kind) else {
            continue;
        };
        fields.extend(input.fields.iter().map(|field| field.node.name.to_string()));
    }
    for none in ["expectedVersion", "idempotencyKey", &own_id] {
        fields.remove(none);
    }
    fields
}

#[test]
fn every_field_that_can_be_set_is_told_of() {
    fn told<T: Followed>() -> BTreeSet<String> {
        T::FIELDS.iter().map(|field| (*field).to_owned()).collect()
    }
    for (title, told, beside) in [
        ("Tenant", told::<Tenant>(), &[][..]),
        // A password is nobody's to be told of.
        ("User", told::<User>(), &["password"]),
        ("Role", told::<CustomRole>(), &[]),
        ("Team", told::<Team>(), &[]),
        ("Company", told::<Company>(), &[]),
        ("Contact", told::<Contact>(), &[]),
        // A pipeline's stages have changes of their own; of theirs, `stageId` is the id.
        ("Pipeline", told::<Pipeline>(), &["stages"]),
        ("PipelineStage", told::<PipelineStage>(), &["stageId"]),
        ("Deal", told::<Deal>(), &[]),
        ("Interaction", told::<Interaction>(), &[]),
    ] {
        let mut set = set_by_inputs(title);
        for field in beside {
            assert!(set.remove(*field), "{title}.{field}");
        }
        assert_eq!(told, set, "{title}");
    }
}

#[test]
fn what_only_a_later_release_calls_by_its_name_is_a_change_all_the_same() {
    let here = Position {
        epoch: 1,
        position: 1,
    };
    let told = |kind: &str| Change::new::<Deal>(here, &event("deal", kind, json!({})));
    for (kind, expected) in [
        ("CREATED", ChangeKind::Created),
        ("UPDATED", ChangeKind::Updated),
        ("STAGE_CHANGED", ChangeKind::StageChanged),
        ("COMPLETED", ChangeKind::Completed),
        ("REASSIGNED", ChangeKind::Updated),
    ] {
        assert_eq!(
            (told(kind).kind(), told(kind).is_deletion()),
            (expected, false),
            "{kind}"
        );
    }
    assert!(told("DELETED").is_deletion());
}

fn event(entity: &str, kind: &str, change: Value) -> Event {
    Event {
        position: 1,
        id: uuid::Uuid::now_v7(),
        occurred_at: chrono::Utc::now(),
        actor_id: None,
        entity: entity.to_owned(),
        record_id: uuid::Uuid::now_v7(),
        kind: kind.to_owned(),
        change,
    }
}

/// A kind of record that only some may read, as there will be.
struct Secret;

impl Kind for Secret {
    const PREFIX: &'static str = "secret";
}

impl Followed for Secret {
    const READ: Permission = Permission::UsersWrite;
    const FIELDS: &'static [&'static str] = &[];
}

#[tokio::test]
async fn what_a_role_may_not_read_it_is_not_told() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let event = |entity: &str| event(entity, "CREATED", json!({}));
    for role in &Role::BUILT_IN {
        let client = app.user(&admin, *role).await;
        let seen = is_visible::<Secret>(&client.session(), &event("secret"));
        assert_eq!(seen, *role == Role::Admin, "{role:?}");
        assert!(
            !is_visible::<Secret>(&client.session(), &event("deal")),
            "another kind of record"
        );
    }
    assert!(!is_visible::<Secret>(&app.anon().session(), &event("secret")));
}
