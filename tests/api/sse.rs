//! GraphQL over server-sent events.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dealstream::graphql::limits::Limits;
use dealstream::http::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::TestApp;
use crate::support::wire::{TOKEN, Wire, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of events on its way.
pub struct Events {
    stream: TcpStream,
    /// Read and not yet taken.
    text: String,
}

/// An event: its name, and its data where there is any.
pub type Event = (String, Option<Value>);

impl Events {
    /// Asks, and answers the head with what follows.
    pub async fn ask(wire: &Wire, accept: &str, token: &str, body: &Value) -> (String, Self) {
        let body = body.to_string();
        // Version 1.0, so that the body is not cut into chunks.
        let request = format!(
            "POST /graphql HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: {accept}\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::send(wire, &request).await
    }

    async fn send(wire: &Wire, request: &str) -> (String, Self) {
        let mut stream = TcpStream::connect(wire.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = String::new();
        let mut events = Self { stream, text };
        let head = events.until("\r\n\r\n").await.expect("a head").to_lowercase();
        (head, events)
    }

    async fn subscribe(wire: &Wire, query: &str) -> Self {
        let (head, events) = Self::ask(wire, "text/event-stream", TOKEN, &json!({ "query": query })).await;
        assert!(head.starts_with("http/1.0 200"), "{head}");
        events
    }

    /// What comes up to a mark; nothing when the stream ends before.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut bytes = vec![0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
            let read = read.expect("something comes").unwrap();
            if read == 0 {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }

    /// The next event that is not a comment.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let text = self.until("\n\n").await?;
            let (mut name, mut data) = (None, None);
            for line in text.lines().filter(|line| !line.is_empty()) {
                match line.split_once(':').unwrap() {
                    ("event", value) => name = Some(value.trim().to_owned()),
                    ("data", value) => data = serde_json::from_str(value).ok(),
                    ("", _) => {}
                    _ => panic!("{line}"),
                }
            }
            if let Some(name) = name {
                return Some((name, data));
            }
        }
    }

    /// The data of the next event, which is a result.
    async fn data(&mut self) -> Value {
        let (name, data) = self.next().await.expect("the stream goes on");
        assert_eq!(name, "next");
        data.unwrap()["data"].take()
    }

    /// The code of the next event, which is an error and the last result.
    async fn refused(&mut self) -> String {
        let (name, answer) = self.next().await.expect("the stream goes on");
        let answer = answer.unwrap();
        assert_eq!((name.as_str(), answer.get("data")), ("next", None), "{answer}");
        self.complete().await;
        answer["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    async fn complete(&mut self) {
        assert_eq!(self.next().await, Some(("complete".to_owned(), None)));
        assert_eq!(self.next().await, None);
    }
}

#[tokio::test]
async fn the_reference_client_works() {
    let wire = Wire::start().await;
    let url = format!("http://{}/graphql", wire.address);
    wire.peer("sse.mjs", &[url, TOKEN.to_owned()]).await;
    until("the streams to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn operations_of_every_kind_are_answered_as_events() {
    let wire = Wire::start().await;
    let ask = json!({ "query": "{ viewer }" });
    let (head, mut events) = Events::ask(&wire, "text/event-stream", TOKEN, &ask).await;
    for expected in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(expected), "{expected}: {head}");
    }
    assert_eq!(events.data().await, json!({ "viewer": TOKEN }));
    events.complete().await;
    until("the session to be finished", || {
        wire.behind.unfinished.load(Ordering::SeqCst) == 0
    })
    .await;

    let mut events = Events::subscribe(&wire, "mutation { change }").await;
    assert_eq!(events.data().await, json!({ "change": null }));
    events.complete().await;
    assert_eq!(wire.behind.mutations.load(Ordering::SeqCst), 1);

    let mut events = Events::subscribe(&wire, "subscription { count(to: 3) }").await;
    for n in 1..=3 {
        assert_eq!(events.data().await, json!({ "count": n }));
    }
    events.complete().await;

    let target = "/graphql?query=subscription%7Bcount(to:1)%7D";
    let request = format!(
        "GET {target} HTTP/1.0\r\nhost: localhost\r\naccept: text/event-stream\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let (_, mut events) = Events::send(&wire, &request).await;
    assert_eq!(events.data().await, json!({ "count": 1 }));
    events.complete().await;
}

#[tokio::test]
async fn errors_are_told_as_a_result_without_data_and_nothing_after() {
    let wire = Wire::start().await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "subscription { silence count(to: 1) }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("{ hello panic }", "INTERNAL"),
        ("subscription { refuse }", "FORBIDDEN"),
    ] {
        let mut events = Events::subscribe(&wire, query).await;
        assert_eq!(events.refused().await, code, "{query}");
    }
    // Who somebody is comes before what they ask.
    let ask = json!({ "query": "{ hello }" });
    let (head, _) = Events::ask(&wire, "text/event-stream", "wrong", &ask).await;
    assert!(head.starts_with("http/1.0 401"), "{head}");
}

#[tokio::test]
async fn what_a_client_accepts_decides_the_form() {
    let wire = Wire::start().await;
    let count = json!({ "query": "subscription { count(to: 1) }" });
    let hello = json!({ "query": "{ hello }" });
    // Clients list events last for queries, and with other things that we do not have for subscriptions.
    for accept in [
        "text/event-stream, multipart/mixed",
        "application/json, text/event-stream",
        "application/graphql-response+json, application/json;q=0.9, text/event-stream;q=0.1",
    ] {
        let (head, mut events) = Events::ask(&wire, accept, TOKEN, &count).await;
        assert!(
            head.contains("content-type: text/event-stream"),
            "{accept}: {head}"
        );
        assert_eq!(events.data().await, json!({ "count": 1 }));
        events.complete().await;
    }
    for (accept, form) in [
        ("text/event-stream, application/json", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("*/*", "application/json"),
    ] {
        let (head, _) = Events::ask(&wire, accept, TOKEN, &hello).await;
        assert!(
            head.contains(&format!("content-type: {form}")),
            "{accept}: {head}"
        );
    }
    for accept in [
        "application/json",
        "*/*",
        "application/json, text/event-stream;q=0",
    ] {
        let (head, _) = Events::ask(&wire, accept, TOKEN, &count).await;
        assert!(head.starts_with("http/1.0 400"), "{accept}: {head}");
    }
    let (head, _) = Events::ask(&wire, "text/event-stream;q=0", TOKEN, &hello).await;
    assert!(head.starts_with("http/1.0 406"), "{head}");
}

#[tokio::test]
async fn a_stream_shows_that_it_is_alive_and_ends_with_its_client() {
    let settings = Settings {
        alive_time: Duration::from_millis(50),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut events = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(events.until("\n\n").await.as_deref(), Some(":\n\n"), "at once");
    assert_eq!(events.data().await, json!({ "silence": 0 }));
    for _ in 0..3 {
        assert_eq!(events.until("\n\n").await.as_deref(), Some(":\n\n"));
    }
    drop(events);
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_with_the_session_and_with_the_server() {
    let wire = Wire::start().await;
    let silence = json!({ "query": "subscription { silence }" });
    let (_, mut events) = Events::ask(&wire, "text/event-stream", "soon", &silence).await;
    assert_eq!(events.data().await, json!({ "silence": 0 }));
    assert_eq!(events.refused().await, "UNAUTHENTICATED");

    let mut events = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(events.data().await, json!({ "silence": 0 }));
    wire.behind.revoked.notify_waiters();
    assert_eq!(events.refused().await, "UNAUTHENTICATED");

    // Without `complete`, so that clients come again.
    let mut events = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(events.data().await, json!({ "silence": 0 }));
    wire.shutdown.cancel();
    assert_eq!(events.next().await, None);
    until("the streams to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn open_streams_are_bounded() {
    let settings = Settings {
        streams_per_user: 2,
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut first = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(first.data().await, json!({ "silence": 0 }));
    let mut second = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(second.data().await, json!({ "silence": 0 }));
    let mut third = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(third.refused().await, "RATE_LIMITED");
    // Queries are no streams.
    let mut query = Events::subscribe(&wire, "{ hello }").await;
    assert_eq!(query.data().await, json!({ "hello": "hello" }));
    drop(first);
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 1
    })
    .await;
    let mut fourth = Events::subscribe(&wire, "subscription { silence }").await;
    assert_eq!(fourth.data().await, json!({ "silence": 0 }));
}

#[tokio::test]
async fn stage_changes_arrive_and_a_position_resumes() {
    let test = TestApp::new().await;
    let ada = test.tenant().await;
    let deal = ada.deal(json!({ "name": "Boat" })).await;
    let wire = Wire::serve(test.app.clone()).await;
    let follow = "subscription ($after: String) { dealStageChanged(after: $after) { __typename
        ... on DealStageChangedEvent { position dealId }
        ... on UpToDate { position } } }";
    let ask = |after: Value| json!({ "query": follow, "variables": { "after": after } });
    let accept = "text/event-stream";
    let (_, mut live) = Events::ask(&wire, accept, &ada.token(), &ask(Value::Null)).await;
    assert_eq!(live.data().await["dealStageChanged"]["__typename"], "UpToDate");
    let stage = ada.stage("Proposal").await;
    let moved = ada.move_deal(json!({ "dealId": deal, "stageId": stage })).await;
    let event =
        json!({ "__typename": "DealStageChangedEvent", "position": moved["position"], "dealId": deal });
    assert_eq!(live.data().await["dealStageChanged"], event);
    drop(live);
    let stage = ada.stage("Negotiation").await;
    let again = ada.move_deal(json!({ "dealId": deal, "stageId": stage })).await;
    let (_, mut rest) = Events::ask(&wire, accept, &ada.token(), &ask(moved["position"].clone())).await;
    assert_eq!(
        rest.data().await["dealStageChanged"]["position"],
        again["position"]
    );
    let caught_up = json!({ "__typename": "UpToDate", "position": again["position"] });
    assert_eq!(rest.data().await["dealStageChanged"], caught_up);
    let (_, mut malformed) = Events::ask(&wire, accept, &ada.token(), &ask(json!("?"))).await;
    assert_eq!(malformed.refused().await, "BAD_USER_INPUT");
}
