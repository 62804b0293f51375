//! How often what may be asked.

use dealstream::app::App;
use dealstream::auth::throttle::{Attempt, Limiter};
use dealstream::auth::{Origin, Policy, Role};
use dealstream::config::Config;
use dealstream::db::migrate;
use dealstream::error::Error;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::support::app::{config, database_url};
use crate::support::cluster::create_database;
use crate::support::recipes::PASSWORD;
use crate::support::redis::Redis;
use crate::support::wire::{Reply, Wire, until};
use crate::support::{Client, TestApp};

/// An application whose limits are none but these, behind a proxy on this machine.
async fn limited(limits: &[&str]) -> (TestApp, Wire) {
    let limits = std::iter::once("all=off").chain(limits.iter().copied());
    let config = Config {
        limits: limits.map(str::to_owned).collect(),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..config()
    };
    let app = TestApp::on(database_url().await, config).await;
    let wire = Wire::serve(app.app.clone()).await;
    (app, wire)
}

/// Asks as this client, through the proxy from this address.
async fn ask(wire: &Wire, from: &str, client: Option<&Client>, query: &str, variables: Value) -> Reply {
    let mut headers = format!(
        "content-type: application/json\naccept: application/graphql-response+json\nx-forwarded-for: {from}"
    );
    if let Some(client) = client {
        headers += &format!("\nauthorization: Bearer {}", client.token());
    }
    let body = json!({ "query": query, "variables": variables }).to_string();
    wire.send("POST", "/graphql", &headers, &body).await
}

async fn sign_in(wire: &Wire, from: &str, email: &str, password: &str) -> Reply {
    let query = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let input = json!({ "input": { "email": email, "password": password } });
    ask(wire, from, None, query, input).await
}

fn refused(reply: &Reply) -> Option<u64> {
    let error = &reply.json()["errors"][0]["extensions"];
    (error["code"] == "RATE_LIMITED").then(|| error["retryAfter"].as_u64().expect("it tells for how long"))
}

/// An account that can sign in.
async fn account(app: &TestApp) -> String {
    let email = format!("grace-{}@test.example", uuid::Uuid::new_v4().simple());
    let input = json!({ "tenantName": "Navy", "name": "Grace", "email": email, "password": PASSWORD });
    app.anon()
        .mutate("signUp", "SignUpInput", "accessToken", input)
        .await;
    email
}

#[tokio::test]
async fn an_account_is_guessed_at_five_times_and_it_makes_no_difference_whether_it_exists() {
    let (app, wire) = limited(&["sign-in-account=5/15m", "sign-in-address=5/15m"]).await;
    let (known, other) = (account(&app).await, account(&app).await);
    let unknown = format!("nobody-{}@test.example", uuid::Uuid::new_v4().simple());
    let mut heard = Vec::new();
    for email in [&known, &unknown] {
        let mut answers = Vec::new();
        for n in 0..7 {
            // Each guess from another address: it is the account that is counted.
            let from = format!("198.51.100.{}", n + 10 * u8::from(*email == known));
            let reply = sign_in(&wire, &from, email, "a wrong password").await;
            let mut json = reply.json();
            json["errors"][0].as_object_mut().unwrap().remove("locations");
            answers.push((reply.status, reply.header("retry-after").map(str::to_owned), json));
        }
        assert_eq!(answers[4].2["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
        assert_eq!(answers[5].1.as_deref(), Some("900"));
        assert_eq!(answers[5].2["errors"][0]["extensions"]["code"], "RATE_LIMITED");
        heard.push(answers);
    }
    assert_eq!(heard[0], heard[1]);
    // The right password is not even looked at meanwhile, from anywhere.
    let wait = refused(&sign_in(&wire, "203.0.113.7", &known, PASSWORD).await);
    assert!(wait.is_some_and(|wait| (890..=900).contains(&wait)), "{wait:?}");
    // Others sign in from where somebody failed once.
    assert_eq!(
        sign_in(&wire, "198.51.100.0", &other, PASSWORD).await.code(),
        "none"
    );
}

#[tokio::test]
async fn an_address_guesses_five_times_whomever_and_cannot_invent_where_it_is() {
    let (app, wire) = limited(&["sign-in-account=5/15m", "sign-in-address=5/15m"]).await;
    let known = account(&app).await;
    for n in 0..5 {
        // What the client itself claims stands further left and is not believed.
        let from = format!("198.51.100.{n}, 203.0.113.7");
        let reply = sign_in(
            &wire,
            &from,
            &format!("guess-{n}@test.example"),
            "a wrong password",
        )
        .await;
        assert_eq!(reply.code(), "UNAUTHENTICATED");
    }
    assert!(refused(&sign_in(&wire, "203.0.113.7", &known, PASSWORD).await).is_some());
    assert_eq!(
        sign_in(&wire, "203.0.113.8", &known, PASSWORD).await.code(),
        "none"
    );
    // Of IPv6 a whole network counts as one.
    for n in 0..5 {
        sign_in(
            &wire,
            &format!("2001:db8::{n}"),
            &format!("six-{n}@test.example"),
            "wrong",
        )
        .await;
    }
    assert!(refused(&sign_in(&wire, "2001:db8::ffff", &known, PASSWORD).await).is_some());
    assert_eq!(
        sign_in(&wire, "2001:db8:0:1::1", &known, PASSWORD).await.code(),
        "none"
    );
}

#[tokio::test]
async fn who_signs_in_is_not_counted_and_an_office_can_do_so_at_once() {
    let (app, wire) = limited(&["sign-in-account=5/15m", "sign-in-address=5/15m"]).await;
    let email = account(&app).await;
    for round in 0..2 {
        for n in 0..4 {
            let from = format!("198.51.100.{}", 10 * round + n);
            let wrong = sign_in(&wire, &from, &email, "wrong").await;
            assert_eq!(wrong.code(), "UNAUTHENTICATED");
        }
        // A success clears what was counted against the account where it is not known yet.
        assert_eq!(
            sign_in(&wire, "203.0.113.7", &email, PASSWORD).await.code(),
            "none"
        );
    }
    // Who fails elsewhere shuts out everybody but who is known where they are.
    let wrong = sign_in(&wire, "198.51.100.99", &email, "wrong").await;
    assert_eq!(wrong.code(), "UNAUTHENTICATED");
    assert!(refused(&sign_in(&wire, "198.51.100.98", &email, PASSWORD).await).is_some());
    let at_once = (0..8).map(|_| sign_in(&wire, "203.0.113.7", &email, PASSWORD));
    for reply in futures::future::join_all(at_once).await {
        assert_eq!(reply.code(), "none");
    }
}

#[tokio::test]
async fn a_fault_of_ours_is_nobodys_wrong_password() {
    let limits = ["all=off", "sign-in-account=5/15m", "sign-in-address=5/15m"];
    let config = Config {
        limits: limits.map(str::to_owned).into(),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..config()
    };
    let url = create_database("throttle_faults").await;
    migrate::migrate(&url).await.unwrap();
    let app = TestApp::on(url, config).await;
    let wire = Wire::serve(app.app.clone()).await;
    let email = account(&app).await;
    let mighty = app.superuser().await;
    mighty
        .batch_execute("ALTER TABLE accounts RENAME TO accounts_away")
        .await
        .unwrap();
    for _ in 0..7 {
        let reply = sign_in(&wire, "203.0.113.7", &email, PASSWORD).await;
        assert_eq!(reply.code(), "INTERNAL");
    }
    mighty
        .batch_execute("ALTER TABLE accounts_away RENAME TO accounts")
        .await
        .unwrap();
    assert_eq!(
        sign_in(&wire, "203.0.113.7", &email, PASSWORD).await.code(),
        "none"
    );
}

#[tokio::test]
async fn what_is_asked_is_paid_from_what_the_user_and_the_tenant_have() {
    let (app, wire) = limited(&["user-cost=60/1h", "tenant-cost=105/1h"]).await;
    let admin = app.tenant().await;
    let colleague = app.user(&admin, Role::Sales).await;
    let other = app.tenant().await;
    let query = "{ companies(first: 50) { nodes { id } } }";
    let first = ask(&wire, "203.0.113.7", Some(&admin), query, json!({})).await;
    let cost = &first.json()["extensions"]["cost"];
    let points = cost["requestedQueryCost"].as_u64().unwrap();
    assert_eq!(points, 51, "{cost}");
    assert_eq!(cost["throttleStatus"]["maximumAvailable"], 60);
    assert_eq!(cost["throttleStatus"]["currentlyAvailable"], 60 - points);
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"user-cost\";q=60;w=3600")
    );
    let state = format!("\"user-cost\";r={};t={}", 60 - points, points * 60);
    assert_eq!(first.header("ratelimit"), Some(state.as_str()));

    let second = ask(&wire, "203.0.113.7", Some(&admin), query, json!({})).await;
    assert_eq!(second.status, 429);
    let wait = refused(&second).unwrap();
    assert_eq!(second.header("retry-after"), Some(wait.to_string().as_str()));
    assert!(
        second
            .header("ratelimit")
            .unwrap()
            .starts_with("\"user-cost\";r=0;t=")
    );
    assert_eq!(second.json()["errors"][0]["extensions"]["policy"], "user-cost");
    // The colleague has as much, but the tenant not so much for both.
    let third = ask(&wire, "203.0.113.7", Some(&colleague), query, json!({})).await;
    assert_eq!(third.status, 200);
    let query = "{ companies(first: 5) { nodes { id } } }";
    for client in [&admin, &colleague] {
        let fourth = ask(&wire, "203.0.113.7", Some(client), query, json!({})).await;
        assert_eq!(fourth.json()["errors"][0]["extensions"]["policy"], "tenant-cost");
    }
    assert_eq!(
        ask(&wire, "203.0.113.7", Some(&other), query, json!({}))
            .await
            .status,
        200
    );
    // Of who has not signed in the address pays.
    let nobody = ask(&wire, "203.0.113.9", None, "{ __typename }", json!({})).await;
    assert_eq!(
        nobody.json()["extensions"]["cost"]["throttleStatus"]["maximumAvailable"],
        60
    );
}

#[tokio::test]
async fn some_operations_are_counted_by_the_hour() {
    let (app, wire) = limited(&[
        "create-client=3/1h",
        "list-clients=2/1h",
        "record-communication=1/1h",
        "read-communications=1/1h",
    ])
    .await;
    let admin = app.tenant().await;
    let colleague = app.user(&admin, Role::Manager).await;
    let company = |name: &str| format!("createCompany(input: {{ name: \"{name}\" }}) {{ company {{ id }} }}");
    let policy = |reply: &Reply| reply.json()["errors"][0]["extensions"]["policy"].clone();
    let from = "203.0.113.7";

    // Under two names it is two, in one request or not, and contacts are counted with companies.
    let two = format!("mutation {{ one: {} two: {} }}", company("A"), company("B"));
    assert_eq!(ask(&wire, from, Some(&admin), &two, json!({})).await.status, 200);
    let reply = ask(&wire, from, Some(&admin), &two, json!({})).await;
    assert_eq!((reply.status, policy(&reply)), (429, json!("create-client")));
    let contact = "mutation { createContact(input: { name: \"C\" }) { contact { id } } }";
    assert_eq!(
        ask(&wire, from, Some(&admin), contact, json!({})).await.status,
        200
    );
    let reply = ask(&wire, from, Some(&admin), contact, json!({})).await;
    assert_eq!((reply.status, refused(&reply)), (429, Some(1200)));
    // Nothing was made by those that were refused; others are not held up.
    let data = admin.query("{ companies { totalCount } }", json!({})).await;
    assert_eq!(data["companies"]["totalCount"], 2);
    assert_eq!(
        ask(&wire, from, Some(&colleague), &two, json!({})).await.status,
        200
    );

    let list =
        "query($more: Boolean!) { companies { totalCount } contacts @include(if: $more) { totalCount } }";
    assert_eq!(
        ask(&wire, from, Some(&admin), list, json!({ "more": true }))
            .await
            .status,
        200
    );
    let reply = ask(&wire, from, Some(&admin), list, json!({ "more": true })).await;
    assert_eq!((reply.status, policy(&reply)), (429, json!("list-clients")));

    let record =
        "mutation { createInteraction(input: { kind: NOTE, subject: \"S\" }) { userErrors { code } } }";
    assert_eq!(
        ask(&wire, from, Some(&admin), record, json!({})).await.status,
        200
    );
    let reply = ask(&wire, from, Some(&admin), record, json!({})).await;
    assert_eq!(
        (reply.status, policy(&reply)),
        (429, json!("record-communication"))
    );
    let read = "{ interactions { totalCount } }";
    assert_eq!(ask(&wire, from, Some(&admin), read, json!({})).await.status, 200);
    let reply = ask(&wire, from, Some(&admin), read, json!({})).await;
    assert_eq!(
        (reply.status, policy(&reply)),
        (429, json!("read-communications"))
    );
}

#[tokio::test]
async fn requests_are_counted_before_they_are_read() {
    let (_app, wire) = limited(&["requests=3/1h"]).await;
    let send = async |from: &str, body: &str| {
        let headers = format!("content-type: application/json\nx-forwarded-for: {from}");
        wire.send("POST", "/graphql", &headers, body).await
    };
    for nonsense in ["{", "[]", "null"] {
        assert_eq!(send("203.0.113.7", nonsense).await.status, 400);
    }
    let reply = send("203.0.113.7", "{").await;
    assert_eq!((reply.status, refused(&reply)), (429, Some(1200)));
    assert_eq!(reply.header("retry-after"), Some("1200"));
    assert_eq!(reply.header("ratelimit"), Some("\"requests\";r=0;t=1200"));
    assert_eq!(send("203.0.113.8", "{").await.status, 400);
    // A balancer still hears that all is well.
    let health = wire
        .send("GET", "/health/ready", "x-forwarded-for: 203.0.113.7", "")
        .await;
    assert_eq!(health.status, 200);
    // Neither a socket nor a stream of events is a way around.
    let socket = "upgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n\
                  sec-websocket-protocol: graphql-transport-ws\nx-forwarded-for: 203.0.113.7";
    assert_eq!(wire.send("GET", "/graphql", socket, "").await.status, 429);
    let events = "accept: text/event-stream\nx-forwarded-for: 203.0.113.7";
    let target = "/graphql?query=%7B__typename%7D";
    assert_eq!(wire.send("GET", target, events, "").await.status, 429);
}

#[tokio::test]
async fn a_socket_is_charged_operation_by_operation_and_stays_open() {
    let (app, wire) = limited(&["list-clients=1/1h", "user-cost=1000/1h"]).await;
    let admin = app.tenant().await;
    let mut request = format!("ws://{}/graphql", wire.address)
        .into_client_request()
        .unwrap();
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = connect_async(request).await.unwrap();
    let mut exchange = async |message: Value, kind: &str| -> Value {
        socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(20), socket.next()).await;
            if let Message::Text(text) = heard.expect("it answers").unwrap().unwrap() {
                let heard: Value = serde_json::from_str(&text).unwrap();
                if heard["type"] == kind {
                    return heard;
                }
                assert_eq!(heard["type"], "complete", "{heard}");
            }
        }
    };
    let token = json!({ "Authorization": format!("Bearer {}", admin.token()) });
    exchange(
        json!({ "type": "connection_init", "payload": token }),
        "connection_ack",
    )
    .await;
    let ask = |id: &str, query: &str| json!({ "type": "subscribe", "id": id, "payload": { "query": query } });
    let list = "{ companies { totalCount } }";
    let first = exchange(ask("1", list), "next").await;
    let cost = &first["payload"]["extensions"]["cost"];
    assert_eq!(cost["throttleStatus"]["maximumAvailable"], 1000);
    let second = exchange(ask("2", list), "error").await;
    let error = &second["payload"][0]["extensions"];
    assert_eq!(
        (&error["code"], &error["policy"]),
        (&json!("RATE_LIMITED"), &json!("list-clients"))
    );
    assert!(
        error["retryAfter"].as_u64().is_some_and(|wait| wait > 3500),
        "{error}"
    );
    let third = exchange(ask("3", "{ viewer { role } }"), "next").await;
    assert_eq!(third["payload"]["data"]["viewer"]["role"], "ADMIN");
    let listening = exchange(
        ask("4", "subscription { dealStageChanged { __typename } }"),
        "next",
    )
    .await;
    assert!(listening["payload"]["errors"].is_null(), "{listening}");
}

#[tokio::test]
async fn as_it_comes_the_server_holds_nobody_up_who_works() {
    let app = TestApp::new().await;
    let wire = Wire::serve(app.app.clone()).await;
    let admin = app.tenant().await;
    for _ in 0..40 {
        let query = "{ companies { nodes { id name } } interactions { nodes { id } } }";
        let reply = ask(&wire, "203.0.113.7", Some(&admin), query, json!({})).await;
        assert_eq!(reply.status, 200);
    }
    // Not trusted, so the address is that of the connection, and limits cannot be escaped by a header.
    assert!(app.app.config.trusted_proxies.is_empty());
}

#[tokio::test]
async fn a_password_of_a_megabyte_is_no_work() {
    let (_app, wire) = limited(&["sign-in-account=5/15m"]).await;
    let password = "x".repeat(1_000_000);
    let flood: Vec<_> = (0..20)
        .map(|n| {
            let (wire, password) = (&wire, &password);
            async move { sign_in(wire, &format!("198.51.100.{n}"), "ada@test.example", password).await }
        })
        .collect();
    let (answers, health) = tokio::join!(
        futures::future::join_all(flood),
        wire.send("GET", "/health/live", "", "")
    );
    assert_eq!(health.status, 200);
    let refused = answers.iter().filter(|reply| refused(reply).is_some()).count();
    let wrong = answers
        .iter()
        .filter(|reply| reply.code() == "UNAUTHENTICATED")
        .count();
    assert_eq!((wrong, refused), (5, 15));
    // A body beyond the limit is not even read.
    let reply = sign_in(&wire, "198.51.100.99", "ada@test.example", &"x".repeat(2_000_000)).await;
    assert_eq!(reply.status, 413);
}

fn origin() -> Origin {
    Origin::new(Some("203.0.113.7".parse().unwrap()), None, "test")
}

/// An instance that counts in this Redis.
async fn instance(redis: &Redis, limits: &[&str]) -> Arc<App> {
    let config = Config {
        redis_url: Some(redis.url()),
        limits: limits.iter().map(|it| (*it).to_owned()).collect(),
        ..config()
    };
    let app = TestApp::on(database_url().await, config).await.app;
    app.start().await.unwrap();
    app
}

async fn take(app: &App, key: &str) -> Result<(), u32> {
    match app.limiter.take(Policy::Refresh, key, 1).await {
        Ok(()) => Ok(()),
        Err(Error::RateLimited(seconds)) => Err(seconds),
        Err(other) => panic!("{other:?}"),
    }
}

async fn attempt<'a>(limiter: &'a Limiter, account: &str) -> Option<Attempt<'a>> {
    limiter
        .attempt(Policy::SignInNetwork, &origin(), Policy::SignInAccount, account)
        .await
        .ok()
}

#[tokio::test]
async fn instances_count_together_and_each_for_itself_while_redis_is_away() {
    let mut redis = Redis::new("throttle");
    let here = instance(&redis, &["refresh=4/1h"]).await;
    let there = instance(&redis, &["refresh=4/1h"]).await;
    let shared = async |so: bool| {
        until("Redis is there or not", || {
            here.limiter.is_shared() == so && there.limiter.is_shared() == so
        })
        .await;
    };
    shared(true).await;
    for app in [&here, &there, &here, &there] {
        assert_eq!(take(app, "a").await, Ok(()));
    }
    for app in [&here, &there] {
        assert!(matches!(take(app, "a").await, Err(890..=900)));
    }
    redis.kill();
    // Nobody is refused for it, and nobody is let through without end.
    for app in [&here, &there] {
        for _ in 0..4 {
            assert_eq!(take(app, "b").await, Ok(()));
        }
        assert!(take(app, "b").await.is_err());
    }
    shared(false).await;
    redis.start();
    shared(true).await;
    for app in [&here, &there, &here, &there] {
        assert_eq!(take(app, "c").await, Ok(()));
    }
    assert!(take(&there, "c").await.is_err());
    // One that stands still is as good as away.
    redis.freeze();
    for _ in 0..4 {
        assert_eq!(take(&here, "d").await, Ok(()));
    }
    assert!(take(&here, "d").await.is_err());
    redis.thaw();
    until("it counts together again", || here.limiter.is_shared()).await;
    assert!(take(&here, "c").await.is_err());
}

#[tokio::test]
async fn who_waited_and_succeeds_is_not_made_to_wait_again_by_redis() {
    let redis = Redis::new("throttle-waits");
    let app = instance(&redis, &["sign-in-address=2/1s", "sign-in-account=off"]).await;
    until("Redis is there", || app.limiter.is_shared()).await;
    for _ in 0..2 {
        assert!(attempt(&app.limiter, "a").await.is_some());
    }
    assert!(attempt(&app.limiter, "a").await.is_none());
    let waits = async {
        loop {
            if let Some(granted) = attempt(&app.limiter, "a").await {
                return granted.succeeded().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap();
    for _ in 0..20 {
        let attempt = attempt(&app.limiter, "a").await.expect("nobody failed since");
        attempt.succeeded().await;
    }
}

#[tokio::test]
async fn redis_and_the_process_count_alike() {
    let redis = Redis::new("throttle-alike");
    let limits = [
        "sign-in-address=5/1h",
        "sign-in-account=5/1h",
        "code=5/1h",
        "refresh=1000/1h",
        "user-cost=100/1h",
        "tenant-cost=150/1h",
    ];
    let counted_there = instance(&redis, &limits).await;
    let counted_here = TestApp::on(
        database_url().await,
        Config {
            limits: limits.map(str::to_owned).into(),
            ..config()
        },
    )
    .await
    .app;
    until("Redis is there", || counted_there.limiter.is_shared()).await;
    let mut told = Vec::new();
    for app in [&counted_there, &counted_here] {
        let limiter = &app.limiter;
        let mut told_here = Vec::new();
        for (user, points) in [
            ("a", 60),
            ("b", 60),
            // She waits longer than her tenant: were both waits alike, either could be told.
            ("a", 70),
            ("b", 30),
            ("b", 1),
            ("c", 500),
            ("a", 10),
        ] {
            let charges: Vec<_> = [(Policy::UserCost, user), (Policy::TenantCost, "t")]
                .into_iter()
                .filter_map(|(policy, key)| limiter.charge(policy, key, points))
                .collect();
            told_here.push(match limiter.take_all(&charges).await {
                Ok(left) => format!("{:?}", left.iter().map(|it| it.left).collect::<Vec<_>>()),
                // Some of a second has passed here or there.
                Err(refused) => format!("{:?} {}", refused.policy, refused.retry_after().div_ceil(60)),
            });
        }
        for (account, succeeds) in [
            ("a", false),
            ("a", false),
            ("a", true),
            ("a", false),
            ("b", false),
            ("b", false),
            ("b", false),
        ] {
            told_here.push(match attempt(limiter, account).await {
                Some(attempt) if succeeds => {
                    attempt.succeeded().await;
                    "succeeded".to_owned()
                }
                Some(_) => "failed".to_owned(),
                None => "refused".to_owned(),
            });
        }
        // Where she is known she has a count of her own; vouching begins it anew.
        let at_home = Origin::new(Some("203.0.113.8".parse().unwrap()), None, "test");
        let elsewhere = Origin::new(Some("203.0.113.9".parse().unwrap()), None, "test");
        for (origin, what) in [
            (&elsewhere, 'f'),
            (&elsewhere, 'f'),
            (&elsewhere, 'f'),
            (&at_home, 's'),
            (&elsewhere, 'f'),
            (&elsewhere, 'f'),
            (&elsewhere, 'f'),
            (&at_home, 's'),
            (&at_home, 'f'),
            (&at_home, 'f'),
            (&at_home, 'f'),
            (&at_home, 'f'),
            (&at_home, 'o'),
            (&at_home, 'o'),
            (&at_home, 'f'),
            (&at_home, 'f'),
            (&at_home, 'v'),
            (&at_home, 's'),
        ] {
            if what == 'v' {
                limiter.vouch(Policy::Code, origin, "ada").await;
                continue;
            }
            let attempt = limiter
                .attempt(Policy::Refresh, origin, Policy::Code, "ada")
                .await;
            told_here.push(match (attempt, what) {
                (Err(_), _) => "refused".to_owned(),
                (Ok(attempt), 's') => {
                    attempt.succeeded().await;
                    "succeeded".to_owned()
                }
                (Ok(attempt), 'o') => {
                    let fault = attempt.settle(Err::<(), _>(Error::Unavailable)).await;
                    format!("{:?}", fault.is_err())
                }
                (Ok(_), _) => "failed".to_owned(),
            });
        }
        told.push(told_here);
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].contains(&"refused".to_owned()), "{told:?}");
}
