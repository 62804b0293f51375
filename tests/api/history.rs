//! The history: dense, in the order of commits, and followed without loss or double.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dealstream::db::id::{Id, read_id, write_id};
use dealstream::db::session::Transaction;
use dealstream::error::Error;
use dealstream::events::{Position, Work};
use dealstream::identity::User;
use diesel_async::SimpleAsyncConnection;
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Client, TestApp, counter};

const FOLLOW: &str = "subscription($after: String, $pipelineId: ID, $dealId: ID) {
    dealStageChanged(after: $after, pipelineId: $pipelineId, dealId: $dealId) {
        __typename
        ... on DealStageChangedEvent { position dealId deal { id version } fromStage { name } toStage { name } changedBy { id } occurredAt }
        ... on UpToDate { position }
        ... on MustRefetch { reason }
    } }";

const PATIENCE: Duration = Duration::from_secs(30);

/// The next frame of a subscription, without errors.
async fn next(frames: &mut BoxStream<'static, Value>) -> Value {
    let frame = tokio::time::timeout(PATIENCE, frames.next()).await;
    let mut frame = frame.expect("a frame comes").expect("the stream goes on");
    assert!(frame["errors"].is_null(), "{frame:#}");
    frame["data"]["dealStageChanged"].take()
}

fn at(frame: &Value) -> Position {
    frame["position"].as_str().unwrap().parse().unwrap()
}

fn kind(frame: &Value) -> &str {
    frame["__typename"].as_str().unwrap()
}

/// The events of a tenant, as the table has them: position, entity, kind, when it was committed.
async fn events(app: &TestApp, client: &Client) -> Vec<(i64, String, String)> {
    let superuser = app.superuser().await;
    let tenant = client.viewer().tenant_id;
    let rows = superuser
        .query(
            &format!(
                "SELECT position, entity, kind FROM events WHERE tenant_id = '{tenant}' ORDER BY position"
            ),
            &[],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

async fn bounce(client: &Client, deal: &str, stages: &[(String, String)], times: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for time in 0..times {
        let stage = &stages[(time + 1) % 2].0;
        let payload = client
            .move_deal(json!({ "dealId": deal, "stageId": stage }))
            .await;
        assert_eq!(payload["userErrors"], json!([]));
        positions.push(at(&payload));
    }
    positions
}

const WRITERS: usize = 8;
const MOVES: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_come_and_go_miss_nothing_and_see_nothing_twice_while_many_write() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let mut deals = Vec::new();
    for number in 0..WRITERS {
        deals.push(
            client
                .deal(json!({ "name": format!("Deal {number}"), "stageId": stages[0].0 }))
                .await,
        );
    }
    let begin: Position = client.position().await.parse().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let followers: Vec<_> = (0..6)
        .map(|seed| tokio::spawn(follow_in_pieces(client.clone(), begin, seed, over.clone())))
        .collect();
    let writers = deals.iter().map(|deal| {
        let (client, deal, stages) = (client.clone(), deal.clone(), stages.clone());
        tokio::spawn(async move { bounce(&client, &deal, &stages, MOVES).await })
    });
    let mut written = HashSet::new();
    for positions in future::join_all(writers).await {
        let positions = positions.unwrap();
        assert!(
            positions.is_sorted_by(|a, b| a.position < b.position),
            "each writer sees its own order"
        );
        written.extend(positions.iter().map(|position| position.position));
    }
    over.store(true, Ordering::SeqCst);
    let total = i64::try_from(WRITERS * MOVES).unwrap();
    let expected: Vec<i64> = (begin.position + 1..=begin.position + total).collect();
    assert_eq!(
        written,
        expected.iter().copied().collect(),
        "every move has a position of its own"
    );
    let kept: Vec<_> = events(&app, &client)
        .await
        .into_iter()
        .map(|event| event.0)
        .collect();
    assert_eq!(
        kept,
        (1..=begin.position + total).collect::<Vec<_>>(),
        "the history is dense"
    );
    for follower in followers {
        assert_eq!(follower.await.unwrap(), expected);
    }
    // A follower who comes when all is over gets the same.
    let mut frames = client.subscribe(FOLLOW, json!({ "after": begin.to_string() }));
    for position in expected {
        assert_eq!(at(&next(&mut frames).await).position, position);
    }
    assert_eq!(kind(&next(&mut frames).await), "UpToDate");
}

/// Follows the history, breaks off at random, resumes from what it has seen, until it has seen the end.
async fn follow_in_pieces(client: Client, begin: Position, seed: u64, over: Arc<AtomicBool>) -> Vec<i64> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = Vec::new();
    let mut acknowledged = begin;
    loop {
        let after = acknowledged.to_string();
        let mut frames = client.subscribe(FOLLOW, json!({ "after": after }));
        let was_over = over.load(Ordering::SeqCst);
        let mut left = random.random_range(0..40);
        let mut live = false;
        loop {
            let frame = match tokio::time::timeout(Duration::from_millis(20), next(&mut frames)).await {
                Ok(frame) => frame,
                Err(_) if left == 0 => break,
                Err(_) => {
                    left -= 1;
                    continue;
                }
            };
            match kind(&frame) {
                "DealStageChangedEvent" => {
                    acknowledged = at(&frame);
                    seen.push(acknowledged.position);
                }
                "UpToDate" => {
                    assert!(!live, "it is told once");
                    live = true;
                    assert!(at(&frame).position >= acknowledged.position);
                    if was_over {
                        return seen;
                    }
                }
                other => panic!("{other}: {frame}"),
            }
            if left == 0 {
                break;
            }
            left -= 1;
        }
    }
}

#[tokio::test]
async fn a_position_of_a_query_or_of_a_mutation_joins_the_stream_without_a_gap() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let deal = client.deal(json!({ "name": "D", "stageId": stages[0].0 })).await;
    let data = client
        .query(
            "query($id: ID!) { viewer { position } deal(id: $id) { stage { name } version } }",
            json!({ "id": deal }),
        )
        .await;
    let shown = data["viewer"]["position"].clone();
    let mut live = client.subscribe(FOLLOW, json!({}));
    let first = next(&mut live).await;
    assert_eq!(
        (kind(&first), &first["position"]),
        ("UpToDate", &shown),
        "without after it begins now"
    );
    let moved = bounce(&client, &deal, &stages, 3).await;
    let mut replayed = client.subscribe(FOLLOW, json!({ "after": shown }));
    for (number, position) in moved.iter().enumerate() {
        for frames in [&mut live, &mut replayed] {
            let frame = next(frames).await;
            assert_eq!((kind(&frame), at(&frame)), ("DealStageChangedEvent", *position));
            assert_eq!(frame["dealId"], deal);
            let names = [&stages[0].1, &stages[1].1];
            assert_eq!(frame["fromStage"]["name"], *names[number % 2]);
            assert_eq!(frame["toStage"]["name"], *names[(number + 1) % 2]);
            let user = write_id("user", client.viewer().user_id);
            assert_eq!(frame["changedBy"]["id"], user);
        }
    }
    assert_eq!(kind(&next(&mut replayed).await), "UpToDate");
    // Between two of them: what came after the first mutation is all but the first.
    let mut rest = client.subscribe(FOLLOW, json!({ "after": moved[0].to_string() }));
    assert_eq!(at(&next(&mut rest).await), moved[1]);
    // Other changes have positions too, and move the stream on, but are none of its events.
    let payload = client
        .mutate(
            "createCompany",
            "CreateCompanyInput",
            "company { id }",
            json!({ "name": "C" }),
        )
        .await;
    let mut late = client.subscribe(FOLLOW, json!({ "after": moved[2].to_string() }));
    let frame = next(&mut late).await;
    assert_eq!((kind(&frame), at(&frame)), ("UpToDate", at(&payload)));
}

#[tokio::test]
async fn what_an_event_shows_is_as_it_is_now_each_time() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let deal = client.deal(json!({ "name": "D", "stageId": stages[0].0 })).await;
    let mut frames = client.subscribe(FOLLOW, json!({}));
    next(&mut frames).await;
    for version in 2..5 {
        bounce(&client, &deal, &stages[version % 2..], 1).await;
        let frame = next(&mut frames).await;
        assert_eq!(
            frame["deal"]["version"], version,
            "a session shows no older deal: {frame}"
        );
    }
}

#[tokio::test]
async fn a_position_that_cannot_be_continued_says_why_and_ends() {
    let app = TestApp::new().await;
    let (client, other) = (app.tenant().await, app.tenant().await);
    let stages = client.stages().await;
    let deal = client.deal(json!({ "name": "D", "stageId": stages[0].0 })).await;
    let moved = bounce(&client, &deal, &stages, 4).await;
    let refetch = async |after: String, reason: &str| {
        let mut frames = client.subscribe(FOLLOW, json!({ "after": after }));
        let frame = next(&mut frames).await;
        assert_eq!(frame, json!({ "__typename": "MustRefetch", "reason": reason }));
        let end = tokio::time::timeout(PATIENCE, frames.next()).await.unwrap();
        assert!(end.is_none(), "nothing follows");
    };
    refetch(other.position().await, "HISTORY_REPLACED").await;
    let now = moved[3];
    for ahead in [now.position + 1, i64::MAX] {
        let future = Position {
            position: ahead,
            ..now
        };
        refetch(future.to_string(), "POSITION_UNKNOWN").await;
    }
    let earlier = Position {
        epoch: now.epoch - 1,
        ..now
    };
    refetch(earlier.to_string(), "HISTORY_REPLACED").await;
    // Trimmed up to the second move: from there on it can be continued, from before it cannot.
    let (tenant, trimmed) = (client.viewer().tenant_id, moved[1].position);
    let superuser = app.superuser().await;
    superuser
        .batch_execute(&format!(
            "BEGIN; DELETE FROM events WHERE tenant_id = '{tenant}' AND position <= {trimmed};
             UPDATE histories SET trimmed = {trimmed} WHERE tenant_id = '{tenant}'; COMMIT"
        ))
        .await
        .unwrap();
    refetch(moved[0].to_string(), "HISTORY_TRIMMED").await;
    let mut frames = client.subscribe(FOLLOW, json!({ "after": moved[1].to_string() }));
    assert_eq!(at(&next(&mut frames).await), moved[2]);
    for malformed in [
        "",
        "x",
        "AAAA",
        &moved[0].to_string()[1..],
        &format!("{}A", moved[0]),
    ] {
        let answer = client
            .subscribe(FOLLOW, json!({ "after": malformed }))
            .next()
            .await
            .unwrap();
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{malformed:?}: {answer}"
        );
    }
    let negative = Position {
        epoch: now.epoch,
        position: -1,
    };
    let answer = client
        .subscribe(FOLLOW, json!({ "after": negative.to_string() }))
        .next()
        .await
        .unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
}

#[tokio::test]
async fn a_replaced_history_ends_the_streams_of_the_old_one_and_begins_anew() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let deal = client.deal(json!({ "name": "D", "stageId": stages[0].0 })).await;
    let mut frames = client.subscribe(FOLLOW, json!({}));
    next(&mut frames).await;
    bounce(&client, &deal, &stages, 2).await;
    next(&mut frames).await;
    next(&mut frames).await;
    // As after a restored backup: another epoch, and positions that are used again.
    let tenant = client.viewer().tenant_id;
    app.superuser()
        .await
        .batch_execute(&format!(
            "UPDATE histories SET epoch = epoch / 2 WHERE tenant_id = '{tenant}'"
        ))
        .await
        .unwrap();
    let moved = bounce(&client, &deal, &stages, 2).await;
    let frame = next(&mut frames).await;
    assert_eq!(
        frame,
        json!({ "__typename": "MustRefetch", "reason": "HISTORY_REPLACED" })
    );
    assert!(
        tokio::time::timeout(PATIENCE, frames.next())
            .await
            .unwrap()
            .is_none()
    );
    let mut frames = client.subscribe(FOLLOW, json!({ "after": moved[0].to_string() }));
    assert_eq!(at(&next(&mut frames).await), moved[1]);
    assert_eq!(kind(&next(&mut frames).await), "UpToDate");
    let moved = bounce(&client, &deal, &stages, 2).await;
    for position in moved {
        assert_eq!(at(&next(&mut frames).await), position);
    }
}

#[tokio::test]
async fn a_stream_can_be_of_one_pipeline_or_of_one_deal() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let pipeline = client
        .mutate(
            "createPipeline",
            "CreatePipelineInput",
            "pipeline { id stages { id } }",
            json!({ "name": "Second", "stages": [{ "name": "A" }, { "name": "B" }] }),
        )
        .await["pipeline"]
        .clone();
    let second: Vec<_> = pipeline["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["id"].as_str().unwrap().to_owned(), String::new()))
        .collect();
    let first = client.deal(json!({ "name": "1", "stageId": stages[0].0 })).await;
    let also = client.deal(json!({ "name": "2", "stageId": stages[0].0 })).await;
    let there = client.deal(json!({ "name": "3", "stageId": second[0].0 })).await;
    let begin = client.position().await;
    let one = bounce(&client, &first, &stages, 1).await;
    let two = bounce(&client, &also, &stages, 1).await;
    let three = bounce(&client, &there, &second, 1).await;
    let end = at(&json!({ "position": client.position().await }));
    for (filter, expected) in [
        (json!({ "after": begin }), vec![one[0], two[0], three[0], end]),
        (json!({ "after": begin, "dealId": first }), vec![one[0], end]),
        (
            json!({ "after": begin, "pipelineId": pipeline["id"] }),
            vec![three[0], end],
        ),
        (
            json!({ "after": begin, "pipelineId": pipeline["id"], "dealId": first }),
            vec![end],
        ),
    ] {
        let mut frames = client.subscribe(FOLLOW, filter.clone());
        for position in expected {
            assert_eq!(at(&next(&mut frames).await), position, "{filter}");
        }
    }
}

#[tokio::test]
async fn followers_who_wait_hold_no_connection() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let deal = client.deal(json!({ "name": "D", "stageId": stages[0].0 })).await;
    let mut followers: Vec<_> = (0..30).map(|_| client.subscribe(FOLLOW, json!({}))).collect();
    for frames in &mut followers {
        next(frames).await;
    }
    app.settle().await;
    bounce(&client, &deal, &stages, 1).await;
    for frames in &mut followers {
        assert_eq!(kind(&next(frames).await), "DealStageChangedEvent");
    }
    app.settle().await;
}

#[tokio::test]
async fn a_follower_of_many_events_gets_more_than_memory_holds() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let begin = client.position().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let stages = client.stages().await;
    // More than the ring in memory and than a batch from the table, written as bulk work writes them.
    let (tenant, count) = (client.viewer().tenant_id, 1_700);
    let deal_id = read_id(&deal).unwrap().1;
    let id = |kind: &str| write_id(kind, deal_id);
    let moved = json!({
        "pipeline_id": id("pipeline"), "from_stage_id": stages[0].0, "to_stage_id": stages[1].0,
        "stage_change_id": id("stage_change"), "status": "OPEN", "version": 2,
    });
    let mut live = client.subscribe(FOLLOW, json!({}));
    next(&mut live).await;
    app.superuser()
        .await
        .batch_execute(&format!(
            "WITH counted AS (UPDATE histories SET position = position + {count} WHERE tenant_id = '{tenant}' RETURNING position)
             INSERT INTO events (tenant_id, position, id, occurred_at, entity, record_id, kind, change)
             SELECT '{tenant}', counted.position - {count} + n, gen_random_uuid(), now(), 'deal', '{deal_id}', 'STAGE_CHANGED',
                    '{moved}'
               FROM counted, generate_series(1, {count}) AS n"
        ))
        .await
        .unwrap();
    let short = "subscription($after: String) { dealStageChanged(after: $after) { __typename
        ... on DealStageChangedEvent { position } ... on UpToDate { position } } }";
    let mut replayed = client.subscribe(short, json!({ "after": begin }));
    let mut last = None;
    for _ in 0..count {
        let frame = next(&mut replayed).await;
        assert_eq!(kind(&frame), "DealStageChangedEvent");
        let position = at(&frame).position;
        assert!(
            last.is_none_or(|last| position == last + 1),
            "{last:?} {position}"
        );
        last = Some(position);
    }
    assert_eq!(kind(&next(&mut replayed).await), "UpToDate");
    // No hint was given of them: who was live meanwhile gets them from the table.
    let first = at(&next(&mut live).await).position;
    assert_eq!(first + count - 1, last.unwrap());
    for position in first + 1..=last.unwrap() {
        assert_eq!(at(&next(&mut live).await).position, position);
    }
}

#[tokio::test]
async fn every_change_is_in_the_history_and_none_that_was_refused() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let founded = events(&app, &client).await.len();
    let company = client.company("Acme").await;
    client
        .payload(
            "updateCompany",
            "UpdateCompanyInput",
            "company { id }",
            json!({ "companyId": company, "name": "" }),
        )
        .await;
    let same = json!({ "companyId": company, "name": "Acme" });
    let unchanged = client
        .mutate("updateCompany", "UpdateCompanyInput", "company { version }", same)
        .await;
    assert_eq!(unchanged["company"]["version"], 1);
    let renamed = json!({ "companyId": company, "name": "Acme Ltd" });
    client
        .mutate("updateCompany", "UpdateCompanyInput", "company { id }", renamed)
        .await;
    client
        .mutate(
            "deleteCompany",
            "DeleteCompanyInput",
            "deletedCompanyId",
            json!({ "companyId": company }),
        )
        .await;
    let all = events(&app, &client).await;
    let kinds: Vec<_> = all[founded..]
        .iter()
        .map(|event| (event.1.as_str(), event.2.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("company", "CREATED"),
            ("company", "UPDATED"),
            ("company", "DELETED")
        ]
    );
    let positions: Vec<_> = all.iter().map(|event| event.0).collect();
    assert_eq!(
        positions,
        (1..=i64::try_from(all.len()).unwrap()).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_makes_a_change_permanent_overtakes_nothing_that_must_be_prepared_first() {
    let app = TestApp::counted(1).await;
    let client = app.tenant().await;
    let tenant = client.viewer().tenant_id;
    let work = async || {
        let work = Work::begin(&app.app.db, app.app.hub.clone(), tenant, None);
        work.await.unwrap()
    };
    let user = Id::<User>::from_uuid(client.viewer().user_id);
    let kinds = async || -> Vec<String> {
        let superuser = app.superuser().await;
        let sql = format!(
            "SELECT kind FROM events WHERE tenant_id = '{tenant}' AND kind LIKE 'TEST%' ORDER BY position"
        );
        let rows = superuser.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    // The connection knows COMMIT from founding the tenant, and not the statement for one change.
    let mut one = work().await;
    one.record(user, "TEST1", &json!({})).unwrap();
    counter::take();
    one.finish().await.unwrap();
    let counts = counter::take();
    assert_eq!(
        (counts.prepared, counts.connections),
        (1, 0),
        "{:#?}",
        counts.statements
    );
    let mut several = work().await;
    for kind in ["TEST2", "TEST3"] {
        several.record(user, kind, &json!({})).unwrap();
    }
    several.finish().await.unwrap();
    assert_eq!(kinds().await, ["TEST1", "TEST2", "TEST3"]);
    assert_eq!(counter::take().connections, 0, "the connection serves on");
}

#[tokio::test]
async fn nothing_is_made_permanent_with_a_last_statement_that_fails() {
    let app = TestApp::counted(1).await;
    let client = app.tenant().await;
    let fault = "SELECT 1 / 0";
    // Of the first PostgreSQL hears, and of the second nobody but us.
    for last in [Some(fault), None] {
        let sight = client.viewer().sight();
        let transaction = app.app.db.begin(sight).await.unwrap();
        let run = async |sql: &str| (&mut transaction.conn()).batch_execute(sql).await;
        run("UPDATE tenants SET name = 'Changed'").await.unwrap();
        let last = async {
            match last {
                Some(sql) => Ok(run(sql).await?),
                None => Err(Error::NotFound("last statement")),
            }
        };
        Transaction::commit_with(&transaction, last).await.unwrap_err();
        drop(transaction);
        let answer = client.query("{ tenant { name } }", json!({})).await;
        assert_ne!(answer["tenant"]["name"], "Changed");
    }
}

#[tokio::test]
async fn however_many_move_a_deal_at_once_its_history_goes_forward_and_events_tell_the_same_times() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let stages = client.stages().await;
    let deal = client
        .deal(json!({ "name": "Mover", "stageId": stages[0].0 }))
        .await;
    let document = "mutation($input: MoveDealInput!) { moveDeal(input: $input) { stageChange { id } userErrors { code } } }";
    let moves = (0..12).map(|number: usize| {
        let input = json!({ "dealId": deal, "stageId": stages[1 + number % 2].0 });
        client.query(document, json!({ "input": input }))
    });
    let moved = future::join_all(moves).await;
    let moved = moved
        .iter()
        .filter(|it| it["moveDeal"]["stageChange"].is_object())
        .count();
    assert!(moved > 1, "they took turns");
    let superuser = app.superuser().await;
    let times = async |sql: String| -> Vec<String> {
        let rows = superuser.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let id = read_id(&deal).unwrap().1;
    let entered = times(format!(
        "SELECT (extract(epoch FROM entered_at) * 1000000)::bigint::text FROM deal_stage_changes
          WHERE deal_id = '{id}' AND from_stage_id IS NOT NULL ORDER BY entered_at"
    ))
    .await;
    let told = times(format!(
        "SELECT (extract(epoch FROM occurred_at) * 1000000)::bigint::text FROM events
          WHERE record_id = '{id}' AND kind = 'STAGE_CHANGED' ORDER BY position"
    ))
    .await;
    assert_eq!(told, entered);
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), moved, "{told:?}");
}
