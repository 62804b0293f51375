//! Requests that come together, and what they may share.
//!
//! Tests run on one thread: requests that are polled one after the other have come together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Response, Value as Data};
use dealstream::auth::{Permission, Rights, Role};
use dealstream::config::Config;
use dealstream::db::reach::{Reach, Resource, Scope};
use dealstream::error::Error;
use dealstream::graphql::reading::Joining;
use diesel::sql_types::Integer;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures::future::{join, join_all};
use futures::poll;
use serde_json::{Value, json};

use crate::support::app::{config, database_url};
use crate::support::{Client, TestApp, counter};

const BY_ID: &str = "query($id: ID!) { contact(id: $id) { name company { name } } }";
const NAMES: &str = "{ deals(first: 10) { nodes { name } } }";

/// One with a single connection, somebody there, and their contact of a company.
async fn with_contact() -> (TestApp, Client, Value) {
    let app = TestApp::counted(1).await;
    let client = app.tenant().await;
    let company = client.company("Acme").await;
    let contact = json!({ "name": "Ada", "companyId": company });
    let id = client.contact(contact).await;
    (app, client, json!({ "id": id }))
}

/// What was sent, but for the ends of transactions.
fn sent() -> Vec<String> {
    let mut statements = counter::take().statements;
    statements.retain(|it| !it.starts_with("COMMIT"));
    statements
}

/// The transactions that were begun.
fn begun() -> Vec<String> {
    let mut statements = counter::take().statements;
    statements.retain(|it| it.starts_with("BEGIN") || it.starts_with("COMMIT AND CHAIN"));
    statements
}

/// Names of the deals of an answer.
fn names(answer: &Value) -> Vec<&str> {
    let nodes = answer["deals"]["nodes"].as_array().unwrap();
    nodes.iter().map(|deal| deal["name"].as_str().unwrap()).collect()
}

/// Waits until something has been sent that is no beginning of a transaction.
async fn under_way<F: Future>(mut request: Pin<&mut F>) {
    counter::take();
    for _ in 0..1000 {
        assert!(poll!(request.as_mut()).is_pending(), "it is answered already");
        if counter::take().statements.iter().any(|it| it.contains("SELECT")) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing was asked");
}

#[tokio::test]
async fn what_many_ask_of_the_same_kind_is_read_at_once() {
    let app = TestApp::counted(2).await;
    let client = app.tenant().await;
    let mut contacts = Vec::new();
    for number in 0..10 {
        let company = client.company(&format!("Company {number}")).await;
        let contact = json!({ "name": format!("Contact {number}"), "companyId": company });
        contacts.push(client.contact(contact).await);
    }
    let all = async || {
        let one = |id: &String| client.query(BY_ID, json!({ "id": id }));
        join_all(contacts.iter().map(one)).await
    };
    all().await;
    app.settle().await;
    counter::take();
    let answers = all().await;
    let statements = sent();
    // One to begin, and one for each level.
    assert_eq!(statements.len(), 3, "{statements:#?}");
    for (number, answer) in answers.iter().enumerate() {
        let expected = json!({
            "name": format!("Contact {number}"),
            "company": { "name": format!("Company {number}") },
        });
        assert_eq!(answer["contact"], expected);
    }
}

#[tokio::test]
async fn lists_share_a_transaction_and_what_is_below_them() {
    let app = TestApp::counted(2).await;
    let client = app.tenant().await;
    for number in 0..6 {
        client.deal(json!({ "name": format!("Deal {number}") })).await;
    }
    let document = "query($first: Int) { deals(first: $first) { nodes { name stage { name } } } }";
    let all = async || {
        let one = |first: i32| client.query(document, json!({ "first": first }));
        join_all((1..=5).map(one)).await
    };
    all().await;
    app.settle().await;
    counter::take();
    let answers = all().await;
    let statements = sent();
    // One to begin, a page for each, and the stages.
    assert_eq!(statements.len(), 7, "{statements:#?}");
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(names(answer).len(), at + 1);
        assert!(answer["deals"]["nodes"][0]["stage"]["name"].is_string());
    }
}

#[tokio::test]
async fn nobody_reads_together_with_who_sees_something_else() {
    let app = TestApp::counted(6).await;
    let (one, two) = (app.tenant().await, app.tenant().await);
    let sales = app.user(&one, Role::Sales).await;
    let reach = Reach::ALL.with(Resource::Deals, Scope::Own);
    let rights = &sales.viewer().rights;
    let limited = sales.with_rights(Rights::custom(Role::Sales, None, rights.permissions(), reach));
    one.deal(json!({ "name": "One's" })).await;
    two.deal(json!({ "name": "Two's" })).await;
    limited.deal(json!({ "name": "Their own" })).await;
    app.settle().await;
    counter::take();
    let clients = [&one, &two, &limited, &one, &two, &limited];
    let answers = join_all(clients.map(|client| client.query(NAMES, json!({})))).await;
    let found: Vec<_> = answers.iter().map(names).collect();
    let of_one = vec!["Their own", "One's"];
    assert_eq!(found[..3], [of_one.clone(), vec!["Two's"], vec!["Their own"]]);
    assert_eq!(found[3..], found[..3]);
    let begun = begun();
    assert_eq!(begun.len(), 3, "{begun:#?}");
    let tenant = two.viewer().tenant_id.to_string();
    assert_eq!(begun.iter().filter(|it| it.contains(&tenant)).count(), 1);
}

#[tokio::test]
async fn what_a_viewer_is_allowed_is_asked_of_each() {
    let (app, client, contact) = with_contact().await;
    let restricted = client.limited_to(&[Permission::ContactsRead]);
    for clients in [[&client, &restricted], [&restricted, &client]] {
        app.settle().await;
        counter::take();
        let answers = join_all(clients.map(|client| client.answer(BY_ID, contact.clone()))).await;
        assert_eq!(begun().len(), 1);
        for (asker, answer) in std::iter::zip(clients, answers) {
            assert_eq!(answer["data"]["contact"]["name"], "Ada");
            let company = &answer["data"]["contact"]["company"];
            if std::ptr::eq(asker, &restricted) {
                assert_eq!(company, &Value::Null);
                assert_eq!(answer["errors"][0]["extensions"]["code"], "FORBIDDEN");
            } else {
                assert_eq!(company["name"], "Acme");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_measured_is_read_alone() {
    let app = TestApp::counted(4).await;
    let client = app.tenant().await;
    client.deal(json!({ "name": "Deal" })).await;
    for document in [
        "{ deals(first: 1) { totalCount } }",
        "{ deals(first: 1, filter: { status: { eq: OPEN } }) { nodes { name } } }",
        "{ deals(first: 1, orderBy: { field: NAME }) { nodes { ...on Deal { name } } } }",
        "{ contacts(first: 1, search: \"deal\") { nodes { name } } }",
        "{ companies(first: 1) { nodes { ...C } } } fragment C on Company { deals(first: 1) { totalCount } }",
    ] {
        client.query(document, json!({})).await;
        app.settle().await;
        counter::take();
        join(
            client.query(document, json!({})),
            client.query(document, json!({})),
        )
        .await;
        assert_eq!(begun().len(), 2, "{document}");
    }
    // And nobody waits behind another document.
    app.settle().await;
    counter::take();
    let other = "{ deals(first: 10) { nodes { id } } }";
    join(client.query(NAMES, json!({})), client.query(other, json!({}))).await;
    assert_eq!(begun().len(), 2);
}

#[tokio::test]
async fn who_joins_sees_what_was_changed_before_they_asked() {
    let app = TestApp::counted(4).await;
    let client = app.tenant().await;
    client.query(NAMES, json!({})).await;
    // While the first is about to begin,
    let mut first = Box::pin(client.query(NAMES, json!({})));
    assert!(poll!(first.as_mut()).is_pending());
    client.deal(json!({ "name": "Before" })).await;
    let (first, second) = join(first, client.query(NAMES, json!({}))).await;
    assert_eq!(names(&second), ["Before"]);
    assert_eq!(names(&first), ["Before"], "it had not begun");
    // and when it is under way.
    let mut first = Box::pin(client.query(NAMES, json!({})));
    under_way(first.as_mut()).await;
    client.deal(json!({ "name": "Meanwhile" })).await;
    let second = client.query(NAMES, json!({})).await;
    assert_eq!(names(&second), ["Meanwhile", "Before"]);
    assert_eq!(names(&first.await), ["Before"]);
}

#[tokio::test]
async fn those_who_wait_for_a_connection_read_together() {
    let app = TestApp::counted(1).await;
    let client = app.tenant().await;
    client.query(NAMES, json!({})).await;
    app.settle().await;
    let held = app.app.db.snapshot(client.viewer().tenant_id);
    held.conn().await.unwrap();
    counter::take();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut request = Box::pin(client.query(NAMES, json!({})));
        // More than the turn for which those wait who come while a connection is free.
        for _ in 0..3 {
            assert!(poll!(request.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        waiting.push(request);
    }
    assert_eq!(app.app.db.waiting(), 1);
    drop(held);
    join_all(waiting).await;
    assert_eq!(begun().len(), 1);
}

#[tokio::test]
async fn who_goes_away_takes_nothing_along() {
    let (_app, client, contact) = with_contact().await;
    let ask = || Box::pin(client.query(BY_ID, contact.clone()));
    ask().await;
    for first_leaves in [true, false] {
        let (mut one, mut other) = (ask(), ask());
        assert!(poll!(one.as_mut()).is_pending());
        assert!(poll!(other.as_mut()).is_pending());
        under_way(one.as_mut()).await;
        assert!(poll!(other.as_mut()).is_pending());
        let stays = if first_leaves {
            drop(one);
            other
        } else {
            drop(other);
            one
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), stays).await;
        assert_eq!(answer.unwrap()["contact"]["company"]["name"], "Acme");
        // Whoever went away may have left a query behind: the next does not take the connection over as it is.
        counter::take();
        ask().await;
        let begun = begun();
        assert!(begun[0].starts_with("BEGIN"), "{begun:?}");
    }
}

#[tokio::test]
async fn a_view_that_all_have_read_to_the_end_is_left_to_the_next() {
    let app = TestApp::counted(1).await;
    let tenant = app.tenant().await.viewer().tenant_id;
    for (answered, next) in [(1, "BEGIN"), (2, "COMMIT AND CHAIN")] {
        app.settle().await;
        let snapshot = app.app.db.snapshot(tenant);
        assert!(snapshot.join());
        run(snapshot.conn().await.unwrap(), "SELECT 1").await.unwrap();
        assert!(!snapshot.join(), "what it shows is older now");
        for _ in 0..answered {
            snapshot.complete(true).await.unwrap();
        }
        counter::take();
        drop(snapshot);
        let follows = app.app.db.snapshot(tenant);
        follows.conn().await.unwrap();
        let begun = begun();
        assert!(begun[0].starts_with(next), "{begun:?}");
    }
}

#[tokio::test]
async fn while_one_is_under_way_the_next_gather() {
    let app = TestApp::counted(8).await;
    let client = app.tenant().await;
    let joining = Joining::new(Arc::default(), 1);
    let next = || client.session().reading(Some(&joining)).unwrap();
    let under_way = next();
    under_way.conn().await.unwrap();
    // Nobody waits for long.
    let late = next();
    let begins = tokio::time::timeout(Duration::from_secs(5), late.conn());
    begins.await.unwrap().unwrap();
    drop(late);
    let gathers = next();
    let mut begins = Box::pin(gathers.conn());
    for _ in 0..2 {
        // The first look lets those join who came at the same time.
        assert!(poll!(begins.as_mut()).is_pending());
    }
    assert!(Arc::ptr_eq(&gathers, &next()), "it waits for its turn");
    drop(under_way);
    begins.await.unwrap();
    assert!(!Arc::ptr_eq(&gathers, &next()), "it has begun");
}

#[tokio::test]
async fn who_needed_nothing_holds_nothing_up() {
    let app = TestApp::counted(1).await;
    let tenant = app.tenant().await.viewer().tenant_id;
    app.settle().await;
    let snapshot = app.app.db.snapshot(tenant);
    assert!(snapshot.join());
    snapshot.complete(true).await.unwrap();
    // Here nothing is asked but to begin.
    snapshot.conn().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), snapshot.complete(true));
    ended.await.unwrap().unwrap();
    counter::take();
    drop(snapshot);
    app.app.db.snapshot(tenant).conn().await.unwrap();
    let begun = begun();
    assert!(begun[0].starts_with("COMMIT AND CHAIN"), "{begun:?}");
}

#[tokio::test]
async fn who_asks_for_much_reads_with_few() {
    let app = TestApp::counted(4).await;
    let client = app.tenant().await;
    let document = "query($first: Int) { deals(first: $first) { nodes { name interactions(first: 9) { nodes { id } } } } }";
    for (first, transactions) in [(1, 1), (40, 2), (100, 4)] {
        app.settle().await;
        counter::take();
        let ask = || client.query(document, json!({ "first": first }));
        join_all([ask(), ask(), ask(), ask()]).await;
        assert_eq!(begun().len(), transactions, "{first}");
    }
}

#[tokio::test]
async fn different_pages_below_are_on_their_way_together() {
    let app = TestApp::counted(2).await;
    let client = app.tenant().await;
    let company = client.company("Acme").await;
    for number in 0..5 {
        let contact = json!({ "name": format!("Contact {number}"), "companyId": company });
        client.contact(contact).await;
    }
    let document =
        "query($id: ID!, $first: Int) { company(id: $id) { contacts(first: $first) { nodes { id } } } }";
    let all = async || {
        let one = |first: i32| client.query(document, json!({ "id": company, "first": first }));
        join_all((1..=5).map(one)).await
    };
    all().await;
    app.settle().await;
    counter::take();
    let answers = all().await;
    let counts = counter::take();
    let asked = counts
        .statements
        .iter()
        .filter(|it| it.contains("SELECT"))
        .count();
    assert_eq!(asked, 6, "{:#?}", counts.statements);
    assert!(counts.round_trips <= 3, "{:#?}", counts.statements);
    for (at, answer) in answers.iter().enumerate() {
        let contacts = answer["company"]["contacts"]["nodes"].as_array().unwrap();
        assert_eq!(contacts.len(), at + 1);
    }
}

#[tokio::test]
async fn when_there_is_no_connection_all_are_told_at_once() {
    let config = Config {
        database_connections: Some(1),
        database_wait_seconds: 2,
        ..config()
    };
    let app = TestApp::on(database_url().await, config).await;
    let client = app.tenant().await;
    let held = app.app.db.snapshot(client.viewer().tenant_id);
    held.conn().await.unwrap();
    let begun = std::time::Instant::now();
    let codes = join_all((0..5).map(|_| client.code(NAMES, json!({})))).await;
    assert_eq!(codes, ["UNAVAILABLE"; 5]);
    assert!(
        begun.elapsed() < Duration::from_millis(3900),
        "one after the other, or once more"
    );
}

async fn run(mut conn: &AsyncPgConnection, sql: &str) -> diesel::QueryResult<()> {
    conn.batch_execute(sql).await
}

/// An answer with this error.
fn failed(error: Error) -> Response {
    let error = async_graphql::Error::from(error).into_server_error(<_>::default());
    Response::from_errors(vec![error])
}

#[tokio::test]
async fn what_one_has_spoilt_the_others_ask_again_alone() {
    let app = TestApp::counted(2).await;
    let client = app.tenant().await;
    let joining = Joining::new(Arc::default(), 1);
    let (one, other) = (client.session(), client.session());
    let (ones, others) = (
        one.reading(Some(&joining)).unwrap(),
        other.reading(Some(&joining)).unwrap(),
    );
    let (conn, same) = (ones.conn().await.unwrap(), others.conn().await.unwrap());
    assert!(std::ptr::eq(conn, same));
    run(conn, "SELECT 1 / 0").await.unwrap_err();
    let spoilt = run(same, "SELECT 1").await.unwrap_err();
    drop((ones, others));
    assert!(other.conclude(failed(spoilt.into())).await.is_none());
    let alone = other.reading(Some(&joining)).unwrap();
    run(alone.conn().await.unwrap(), "SELECT 1").await.unwrap();
    drop(alone);
    let answer = Response::new(Data::from(1));
    assert_eq!(other.conclude(answer).await.unwrap().data, Data::from(1));
    // What fails alone has failed.
    let alone = other.reading(Some(&joining)).unwrap();
    let conn = alone.conn().await.unwrap();
    let error = run(conn, "SELECT 1 / 0").await.unwrap_err();
    drop(alone);
    assert_eq!(
        other.conclude(failed(error.into())).await.unwrap().errors.len(),
        1
    );
    // And what is the client's own mistake is told at once.
    assert!(one.conclude(failed(Error::NotFound("deal"))).await.is_some());
}

#[tokio::test]
async fn a_connection_that_is_lost_under_several_is_lost_for_none() {
    let (app, client, contact) = with_contact().await;
    let ask = || Box::pin(client.query(BY_ID, contact.clone()));
    ask().await;
    app.settle().await;
    let pid: i32 = {
        let snapshot = app.app.db.snapshot(client.viewer().tenant_id);
        let pid = diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()"));
        pid.get_result(&mut snapshot.conn().await.unwrap()).await.unwrap()
    };
    app.settle().await;
    let (mut one, mut other) = (ask(), ask());
    assert!(poll!(one.as_mut()).is_pending());
    assert!(poll!(other.as_mut()).is_pending());
    under_way(one.as_mut()).await;
    let end = format!("SELECT pg_terminate_backend({pid})");
    app.superuser().await.batch_execute(&end).await.unwrap();
    let answers = tokio::time::timeout(Duration::from_secs(10), join(one, other)).await;
    let (one, other) = answers.unwrap();
    assert_eq!(one, other);
    assert_eq!(one["contact"]["name"], "Ada");
}

/// On several threads, where answers to one come while another's is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nobody_is_left_waiting_when_many_read_together() {
    let app = TestApp::counted(3).await;
    let client = app.tenant().await;
    for number in 0..5 {
        client.deal(json!({ "name": format!("Deal {number}") })).await;
    }
    let document =
        "query($first: Int) { deals(first: $first) { nodes { name stage { name } owner { name } } } }";
    let all = async {
        for _ in 0..20 {
            let one = |number: i32| {
                let client = client.clone();
                tokio::spawn(async move { client.query(document, json!({ "first": number % 5 + 1 })).await })
            };
            for (number, answer) in (0..).zip(join_all((0..40).map(one)).await) {
                assert_eq!(names(&answer.unwrap()).len(), number % 5 + 1);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(25), all).await.unwrap();
}
