//! What each subscription tells of the records it follows: what, when, by whom, old and new values.

use std::time::Duration;

use dealstream::events::Position;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use crate::support::recipes::operation;
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

#[tokio::test]
async fn a_deals_life_is_told_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (contact, stages) = (
        client.contact(json!({ "name": "C" })).await,
        client.stages().await,
    );
    let me = client.query("{ viewer { user { id } } }", json!({})).await;
    let me = &me["viewer"]["user"]["id"];
    let begin = client.position().await;
    let mut live = Frames::live(&client, "dealChanged", json!({})).await;

    let mut steps = Steps::by(&client);
    let input = json!({ "name": "Fleet", "amount": { "amount": "1250.5", "currencyCode": "USD" }, "winProbability": 15 });
    let deal = steps
        .take("createDeal", "deal { id pipeline { id } }", input)
        .await;
    let id = &deal["id"];
    let mut told = vec![live.next().await];
    let input = json!({
        "dealId": id, "name": "Fleet", "amount": { "amount": "1300", "currencyCode": "JPY" }, "contactId": contact,
        "expectedCloseDate": "2031-01-31", "nextStep": "Call \"them\"",
    });
    steps.take("updateDeal", "deal { id }", input).await;
    told.push(live.next().await);
    let input =
        json!({ "dealId": id, "amount": { "amount": "7", "currencyCode": "JPY" }, "contactId": null });
    steps.take("updateDeal", "deal { id }", input).await;
    told.push(live.next().await);
    steps
        .take(
            "moveDeal",
            "deal { id }",
            json!({ "dealId": id, "stageId": stages[1].0 }),
        )
        .await;
    told.push(live.next().await);
    steps
        .take("deleteDeal", "deletedDealId", json!({ "dealId": id }))
        .await;
    told.push(live.next().await);

    let jpy = |amount: &str| json!({ "amount": amount, "currencyCode": "JPY" });
    let usd = json!({ "amount": "1250.50", "currencyCode": "USD" });
    let pipeline = &deal["pipeline"]["id"];
    let none = Value::Null;
    let expected = [
        (
            json!("CREATED"),
            json!([
                change("name", none.clone(), json!("Fleet")),
                change("amount", none.clone(), usd.clone()),
                change("pipelineId", none.clone(), pipeline.clone()),
                change("stageId", none.clone(), json!(stages[0].0)),
                change("winProbability", none.clone(), json!(15)),
                change("ownerId", none.clone(), me.clone()),
            ]),
        ),
        (
            json!("UPDATED"),
            json!([
                change("amount", usd, jpy("1300")),
                change("contactId", none.clone(), json!(contact)),
                change("expectedCloseDate", none.clone(), json!("2031-01-31")),
                change("nextStep", none.clone(), json!("Call \"them\"")),
            ]),
        ),
        (
            json!("UPDATED"),
            json!([
                change("amount", jpy("1300"), jpy("7")),
                change("contactId", json!(contact), none.clone()),
            ]),
        ),
        (
            json!("STAGE_CHANGED"),
            json!([change("stageId", json!(stages[0].0), json!(stages[1].0))]),
        ),
        (
            none.clone(),
            json!([
                change("name", json!("Fleet"), none.clone()),
                change("amount", jpy("7"), none.clone()),
                change("pipelineId", pipeline.clone(), none.clone()),
                change("stageId", json!(stages[1].0), none.clone()),
                change("winProbability", json!(20), none.clone()),
                change("ownerId", me.clone(), none.clone()),
                change("expectedCloseDate", json!("2031-01-31"), none.clone()),
                change("nextStep", json!("Call \"them\""), none.clone()),
            ]),
        ),
    ];
    let begin_at: Position = begin.parse().unwrap();
    for (number, (event, (what, changed))) in told.iter().zip(&expected).enumerate() {
        assert_eq!((&event["kind"], &changes(event)), (what, changed));
        assert_eq!((&event["dealId"], &event["changedBy"]["id"]), (id, me));
        assert_eq!(at(event), steps.positions[number]);
        assert_eq!(at(event).position, begin_at.position + 1 + number as i64);
        let deleted = number == 4;
        let name = if deleted {
            "DealDeletedEvent"
        } else {
            "DealChangedEvent"
        };
        assert_eq!(kind(event), name);
        if !deleted {
            assert_eq!(event["deal"]["version"], number + 1, "as it is now");
        }
    }
    // From any place on, the rest is told again, in the same words; only the deal is no more.
    for (seen, position) in std::iter::once(&begin_at).chain(&steps.positions).enumerate() {
        let rest = Frames::replay(&client, "dealChanged", json!({ "after": position.to_string() })).await;
        let mut expected = told[seen..].to_vec();
        for event in &mut expected {
            if kind(event) == "DealChangedEvent" {
                event["deal"] = Value::Null;
            }
        }
        assert_eq!(rest, expected);
    }
}

#[tokio::test]
async fn deals_are_followed_by_pipeline_by_owner_and_one_by_one() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let other = app.user(&client, dealstream::auth::Role::Sales).await;
    let user = |client: &Client| dealstream::db::id::write_id("user", client.viewer().user_id);
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
