//! `graphql-transport-ws`, message by message, on a small schema.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dealstream::graphql::limits::Limits;
use dealstream::http::Settings;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::TestApp;
use crate::support::wire::{TOKEN, Wire, until};

const PATIENCE: Duration = Duration::from_secs(10);

/// A client that says exactly what it is told to.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(wire: &Wire, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{}/graphql", wire.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_str(value).unwrap());
        }
        connect_async(request).await.map(|(socket, _)| Self(socket))
    }

    /// A socket that has not said yet who it is.
    async fn open(wire: &Wire) -> Self {
        Self::connect(wire, &[("sec-websocket-protocol", "graphql-transport-ws")])
            .await
            .unwrap()
    }

    /// A socket that may subscribe.
    async fn signed_in(wire: &Wire) -> Self {
        Self::signed_in_with(wire, TOKEN).await
    }

    async fn signed_in_with(wire: &Wire, token: &str) -> Self {
        let mut client = Self::open(wire).await;
        client
            .say(json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}}))
            .await;
        assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
        client
    }

    async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    async fn say_text(&mut self, text: &str) {
        // Writing may fail when the server has closed already; what it said is then read.
        let _ = self.0.send(Message::text(text)).await;
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({"type": "subscribe", "id": id, "payload": {"query": query}}))
            .await;
    }

    /// The next message; WebSocket's own pings are left out.
    async fn hear(&mut self) -> Value {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a message comes") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    /// The code that the server closes with; messages before it are passed over.
    async fn closed(&mut self) -> u16 {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("it is closed") {
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("with a code");
                    assert!(frame.reason.len() <= 123);
                    return frame.code.into();
                }
                Some(Ok(_)) => {}
                other => panic!("closed without a code: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_reference_client_works() {
    let wire = Wire::start().await;
    wire.peer(
        "socket.mjs",
        &[format!("ws://{}/graphql", wire.address), TOKEN.to_owned()],
    )
    .await;
}

#[tokio::test]
async fn another_subprotocol_or_none_is_closed_with_4406() {
    let wire = Wire::start().await;
    for protocols in [&[][..], &[("sec-websocket-protocol", "graphql-ws")][..]] {
        // Clients that check the answer themselves give up before they hear the code.
        match Client::connect(&wire, protocols).await {
            Ok(mut client) => assert_eq!(client.closed().await, 4406),
            Err(Error::Protocol(_)) if !protocols.is_empty() => {}
            Err(error) => panic!("{error}"),
        }
    }
    let both = [("sec-websocket-protocol", "graphql-ws, graphql-transport-ws")];
    let mut client = Client::connect(&wire, &both).await.unwrap();
    client
        .say(json!({"type": "connection_init", "payload": {"authToken": TOKEN}}))
        .await;
    assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
}

#[tokio::test]
async fn the_token_is_taken_in_the_forms_that_clients_send() {
    let wire = Wire::start().await;
    for payload in [
        json!({"Authorization": "Bearer good"}),
        json!({"authorization": "bearer good"}),
        json!({"AUTHORIZATION": "good"}),
        json!({"authToken": "good", "more": [1]}),
        json!({"authToken": "Bearer good"}),
    ] {
        let mut client = Client::open(&wire).await;
        client
            .say(json!({"type": "connection_init", "payload": payload}))
            .await;
        assert_eq!(
            client.hear().await,
            json!({"type": "connection_ack"}),
            "{payload}"
        );
    }
    for (payload, code) in [
        (json!(null), 4401),
        (json!({}), 4401),
        (json!({"Authorization": ""}), 4401),
        (json!({"Authorization": "Bearer"}), 4401),
        (json!({"Authorization": "Bearer "}), 4401),
        (json!({"Authorization": 5}), 4401),
        (json!({"Authorization": "Bearer wrong"}), 4403),
        (json!({"authToken": "wrong"}), 4403),
        (json!({"authToken": "later"}), 1013),
        (json!("Bearer good"), 4400),
        (json!(["Bearer good"]), 4400),
    ] {
        let mut client = Client::open(&wire).await;
        client
            .say(json!({"type": "connection_init", "payload": payload}))
            .await;
        assert_eq!(client.closed().await, code, "{payload}");
    }
    let mut client = Client::open(&wire).await;
    client.say(json!({"type": "connection_init"})).await;
    assert_eq!(client.closed().await, 4401);
}

#[tokio::test]
async fn invalid_messages_are_closed_with_4400() {
    let wire = Wire::start().await;
    let long_id = "x".repeat(200);
    for message in [
        "".to_owned(),
        "hello".to_owned(),
        "null".to_owned(),
        "[\"connection_init\"]".to_owned(),
        "{}".to_owned(),
        "{\"type\":5}".to_owned(),
        format!("{{\"type\":\"{}\"}}", "unknown".repeat(50)),
        "{\"type\":\"start\",\"id\":\"1\",\"payload\":{\"query\":\"{ hello }\"}}".to_owned(),
        "{\"type\":\"connection_terminate\"}".to_owned(),
        "{\"type\":\"connection_ack\"}".to_owned(),
        "{\"type\":\"next\",\"id\":\"1\",\"payload\":{}}".to_owned(),
        "{\"type\":\"ping\",\"payload\":5}".to_owned(),
        "{\"type\":\"pong\",\"payload\":[]}".to_owned(),
        "{\"type\":\"complete\"}".to_owned(),
        "{\"type\":\"subscribe\",\"payload\":{\"query\":\"{ hello }\"}}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"\",\"payload\":{\"query\":\"{ hello }\"}}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":5,\"payload\":{\"query\":\"{ hello }\"}}".to_owned(),
        format!("{{\"type\":\"subscribe\",\"id\":\"{long_id}\",\"payload\":{{\"query\":\"{{ hello }}\"}}}}"),
        "{\"type\":\"subscribe\",\"id\":\"1\"}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{}}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":[\"{ hello }\"]}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":5}}".to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"{ hello }\",\"variables\":\"x\"}}"
            .to_owned(),
        "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"{ hello }\",\"operationName\":5}}"
            .to_owned(),
    ] {
        let mut client = Client::signed_in(&wire).await;
        client.say_text(&message).await;
        assert_eq!(client.closed().await, 4400, "{message}");
    }
    let mut client = Client::signed_in(&wire).await;
    client
        .0
        .send(Message::binary(b"{\"type\":\"ping\"}".to_vec()))
        .await
        .unwrap();
    assert_eq!(client.closed().await, 4400);
}

#[tokio::test]
async fn the_order_of_messages_is_kept_by_their_codes() {
    let wire = Wire::start().await;
    let mut client = Client::open(&wire).await;
    client.say(json!({"type": "ping"})).await;
    assert_eq!(client.hear().await, json!({"type": "pong"}));
    client.subscribe("1", "{ hello }").await;
    assert_eq!(
        client.closed().await,
        4401,
        "subscribe before the init was acknowledged"
    );

    let mut client = Client::signed_in(&wire).await;
    client
        .say(json!({"type": "connection_init", "payload": {"authToken": TOKEN}}))
        .await;
    assert_eq!(client.closed().await, 4429, "a second init");

    let mut client = Client::signed_in(&wire).await;
    client.subscribe("1", "subscription { silence }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"silence": 0}));
    client.subscribe("1", "{ hello }").await;
    assert_eq!(client.closed().await, 4409, "an id that is in use");
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_does_not_say_who_it_is_is_closed_with_4408() {
    let settings = Settings {
        init_time: Duration::from_millis(200),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut client = Client::open(&wire).await;
    client.say(json!({"type": "ping"})).await;
    assert_eq!(client.closed().await, 4408);
}

#[tokio::test]
async fn a_socket_ends_when_its_viewer_has_to_go() {
    let wire = Wire::start().await;
    let mut stranger = Client::open(&wire).await;
    let mut client = Client::signed_in(&wire).await;
    client.subscribe("1", "subscription { silence }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"silence": 0}));
    wire.behind.revoked.notify_waiters();
    assert_eq!(client.closed().await, 4403);
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
    stranger.say(json!({"type": "ping"})).await;
    assert_eq!(stranger.hear().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let wire = Wire::start().await;
    let mut client = Client::open(&wire).await;
    client
        .say(json!({"type": "connection_init", "payload": {"authToken": "soon"}}))
        .await;
    assert_eq!(client.hear().await, json!({"type": "connection_ack"}));
    client.subscribe("1", "subscription { silence }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"silence": 0}));
    assert_eq!(client.closed().await, 4401);
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_stops_talking_does_not_outlive_its_token() {
    let wire = Wire::start().await;
    let client = Client::signed_in_with(&wire, "soon").await;
    let (mut mouth, mut ear) = client.0.split();
    let flood = tokio::spawn(async move {
        let pong = Message::text(json!({"type": "pong"}).to_string());
        while mouth.feed(pong.clone()).await.is_ok() {}
    });
    let code = timeout(Duration::from_secs(5), async {
        loop {
            match ear.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                // It is cut off in the middle of its talk, and may not get to hear why.
                _ => return None,
            }
        }
    });
    let code = code.await.expect("it is closed");
    assert!(code.is_none_or(|code| code == 4401), "{code:?}");
    flood.abort();
}

#[tokio::test]
async fn a_fresh_token_keeps_a_socket_open() {
    let wire = Wire::start().await;
    let mut client = Client::signed_in_with(&wire, "soon").await;
    let renew =
        |token: &str| json!({"type": "ping", "payload": {"Authorization": format!("Bearer {token}")}});
    client.say(renew(TOKEN)).await;
    assert_eq!(
        client.hear().await,
        json!({"type": "pong"}),
        "a token is not sent back"
    );
    let mut other = Client::signed_in_with(&wire, "soon").await;
    assert_eq!(other.closed().await, 4401);
    // The first one's time would be over by now.
    client.subscribe("1", "{ hello }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"hello": "hello"}));
    assert_eq!(client.hear().await["type"], "complete");
    // A token that is wrong, or says something else of the viewer.
    for token in ["wrong", "soon"] {
        let mut client = Client::signed_in(&wire).await;
        client.say(renew(token)).await;
        assert_eq!(client.closed().await, 4403, "{token}");
    }
}

#[tokio::test]
async fn open_subscriptions_are_bounded_for_each_user() {
    let settings = Settings {
        streams_per_user: 2,
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut one = Client::signed_in(&wire).await;
    let mut two = Client::signed_in(&wire).await;
    for client in [&mut one, &mut two] {
        client.subscribe("s", "subscription { silence }").await;
        assert_eq!(client.hear().await["payload"]["data"], json!({"silence": 0}));
    }
    two.subscribe("t", "subscription { silence }").await;
    let refused = two.hear().await;
    assert_eq!(refused["type"], "error");
    assert_eq!(refused["payload"][0]["extensions"]["code"], "RATE_LIMITED");
    // Queries are none, and a place is free as soon as a subscription ends, by its own end too.
    two.subscribe("q", "{ hello }").await;
    assert_eq!(two.hear().await["type"], "next");
    assert_eq!(two.hear().await["type"], "complete");
    one.say(json!({"type": "complete", "id": "s"})).await;
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 1
    })
    .await;
    for _ in 0..3 {
        two.subscribe("t", "subscription { count(to: 1) }").await;
        assert_eq!(two.hear().await["payload"]["data"], json!({"count": 1}));
        assert_eq!(two.hear().await["type"], "complete");
    }
}

#[tokio::test]
async fn operations_of_every_kind_run_and_complete() {
    let wire = Wire::start().await;
    let mut client = Client::signed_in(&wire).await;
    client.subscribe("q\"1", "{ viewer }").await;
    let next = client.hear().await;
    assert_eq!((&next["id"], &next["type"]), (&json!("q\"1"), &json!("next")));
    assert_eq!(next["payload"]["data"], json!({"viewer": TOKEN}));
    assert_eq!(next["payload"]["extensions"]["cost"]["requestedQueryCost"], 1);
    assert_eq!(client.hear().await, json!({"id": "q\"1", "type": "complete"}));
    until("the session to be finished", || {
        wire.behind.unfinished.load(Ordering::SeqCst) == 0
    })
    .await;

    // The id is free again.
    client.subscribe("q\"1", "mutation { change }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"change": null}));
    assert_eq!(client.hear().await["type"], "complete");
    assert_eq!(wire.behind.mutations.load(Ordering::SeqCst), 1);

    client.subscribe("s", "subscription { count(to: 3) }").await;
    for n in 1..=3 {
        assert_eq!(client.hear().await["payload"]["data"], json!({"count": n}));
    }
    assert_eq!(client.hear().await, json!({"id": "s", "type": "complete"}));

    client.say(json!({"type": "ping", "payload": {"at": 1}})).await;
    assert_eq!(client.hear().await, json!({"type": "pong", "payload": {"at": 1}}));
}

#[tokio::test]
async fn request_errors_are_told_as_error_and_nothing_after() {
    let wire = Wire::start().await;
    let mut client = Client::signed_in(&wire).await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "subscription { silence count(to: 1) }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("query ($n: Int!) { double(of: $n) }", "BAD_USER_INPUT"),
        ("{ hello panic }", "INTERNAL"),
        ("subscription { refuse }", "FORBIDDEN"),
    ] {
        client.subscribe("e", query).await;
        let error = client.hear().await;
        assert_eq!(
            (&error["id"], &error["type"]),
            (&json!("e"), &json!("error")),
            "{query}: {error}"
        );
        assert_eq!(error["payload"][0]["extensions"]["code"], code, "{query}");
        // Whatever came after it would come before this.
        client.say(json!({"type": "ping"})).await;
        assert_eq!(client.hear().await, json!({"type": "pong"}), "{query}");
    }
    // An error of a field is a result.
    client.subscribe("f", "{ hello leak }").await;
    let next = client.hear().await;
    assert_eq!(next["type"], "next");
    assert_eq!(next["payload"]["errors"][0]["extensions"]["code"], "INTERNAL");
    assert!(!next.to_string().contains("secrets"));
    assert_eq!(client.hear().await["type"], "complete");

    client.subscribe("p", "subscription { explode }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"explode": 1}));
    let error = client.hear().await;
    assert_eq!(
        (&error["type"], &error["payload"][0]["extensions"]["code"]),
        (&json!("error"), &json!("INTERNAL"))
    );
}

#[tokio::test]
async fn completing_stops_an_operation_and_frees_its_id() {
    let wire = Wire::start().await;
    let mut client = Client::signed_in(&wire).await;
    client.subscribe("1", "subscription { endless }").await;
    assert_eq!(client.hear().await["type"], "next");
    client.say(json!({"type": "complete", "id": "1"})).await;
    client.say(json!({"type": "complete", "id": "never there"})).await;
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
    client.subscribe("1", "subscription { count(to: 1) }").await;
    // What the first still had on its way came before; after the first of the second, nothing of the first comes.
    let mut data = client.hear().await;
    while data["payload"]["data"].get("endless").is_some() {
        data = client.hear().await;
    }
    assert_eq!(data["payload"]["data"], json!({"count": 1}));
    assert_eq!(client.hear().await, json!({"id": "1", "type": "complete"}));
}

#[tokio::test]
async fn operations_on_a_socket_are_bounded_and_do_not_hold_each_other_up() {
    let settings = Settings {
        operations: 3,
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut client = Client::signed_in(&wire).await;
    client.subscribe("hang", "{ hang }").await;
    client.subscribe("a", "subscription { silence }").await;
    assert_eq!(client.hear().await["id"], "a");
    client.subscribe("b", "subscription { silence }").await;
    assert_eq!(client.hear().await["id"], "b");
    client.subscribe("c", "{ hello }").await;
    let error = client.hear().await;
    assert_eq!((&error["id"], &error["type"]), (&json!("c"), &json!("error")));
    assert_eq!(error["payload"][0]["extensions"]["code"], "TOO_COMPLEX");
    client.say(json!({"type": "complete", "id": "hang"})).await;
    client.subscribe("c", "{ hello }").await;
    assert_eq!(client.hear().await["payload"]["data"], json!({"hello": "hello"}));
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let wire = Wire::start().await;
    let frames: [(&[u8], u16); 4] = [
        // A text that is none, one that is cut off within a letter, and then a kind of frame and a bit that there are not.
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xc3], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
    ];
    for (frame, code) in frames {
        let mut client = Client::signed_in(&wire).await;
        let MaybeTlsStream::Plain(stream) = client.0.get_mut() else {
            panic!("nothing is encrypted here");
        };
        stream.write_all(frame).await.unwrap();
        assert_eq!(client.closed().await, code, "{frame:x?}");
    }
}

#[tokio::test]
async fn messages_are_bounded() {
    let wire = Wire::start().await;
    let mut client = Client::signed_in(&wire).await;
    client
        .say(json!({"type": "ping", "payload": {"text": "x".repeat(200_000)}}))
        .await;
    assert_eq!(client.closed().await, 1009);

    // Just under the limit is fine, and so is an answer much larger than the buffers.
    let mut client = Client::signed_in(&wire).await;
    let text = "x".repeat(100_000);
    client
        .say(json!({"type": "ping", "payload": {"text": text}}))
        .await;
    assert_eq!(client.hear().await["payload"]["text"], json!(text));
    client.subscribe("1", "{ long(length: 100000) }").await;
    assert_eq!(
        client.hear().await["payload"]["data"]["long"]
            .as_str()
            .map(str::len),
        Some(500_000)
    );
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_and_holds_no_memory() {
    let settings = Settings {
        write_time: Duration::from_millis(300),
        backlog: 4,
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut client = Client::signed_in(&wire).await;
    client
        .subscribe("1", "subscription { endless(bytes: 100000) }")
        .await;
    assert_eq!(client.hear().await["type"], "next");
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn silent_clients_are_pinged_and_dropped_when_they_do_not_answer() {
    let settings = Settings {
        ping_time: Duration::from_millis(150),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    // This one answers pings, as it reads, and so lives on through several.
    let mut lively = Client::signed_in(&wire).await;
    for _ in 0..4 {
        let message = timeout(PATIENCE, lively.0.next()).await.unwrap();
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
    }
    lively.subscribe("1", "{ hello }").await;
    assert_eq!(lively.hear().await["type"], "next");

    // This one reads nothing, so it answers no pings.
    let mut dead = Client::signed_in(&wire).await;
    dead.subscribe("1", "subscription { silence }").await;
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) > 0
    })
    .await;
    until("the stream to be dropped", || {
        wire.behind.streams.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_origins_get_no_socket() {
    let settings = Settings {
        allowed_origins: vec!["https://crm.example".to_owned()],
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let own = format!("http://{}", wire.address);
    let protocol = ("sec-websocket-protocol", "graphql-transport-ws");
    for origin in ["https://crm.example", "HTTPS://CRM.example", own.as_str()] {
        assert!(
            Client::connect(&wire, &[protocol, ("origin", origin)])
                .await
                .is_ok(),
            "{origin}"
        );
    }
    for origin in [
        "https://evil.example",
        "https://crm.example.evil.example",
        "null",
        "http://127.0.0.1:1",
    ] {
        match Client::connect(&wire, &[protocol, ("origin", origin)]).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), 403, "{origin}"),
            Err(error) => panic!("{origin}: {error}"),
            Ok(_) => panic!("{origin} got a socket"),
        }
    }
}

#[tokio::test]
async fn sockets_are_told_when_the_server_stops() {
    let mut wire = Wire::start().await;
    let mut client = Client::signed_in(&wire).await;
    client.subscribe("1", "subscription { silence }").await;
    assert_eq!(client.hear().await["type"], "next");
    wire.shutdown.cancel();
    assert_eq!(client.closed().await, 1012);
    drop(client);
    timeout(PATIENCE, &mut wire.server)
        .await
        .expect("it stops")
        .unwrap();
}

#[tokio::test]
async fn a_stage_change_arrives_and_a_position_resumes() {
    let test = TestApp::new().await;
    let ada = test.tenant().await;
    let other = test.tenant().await;
    let deal = ada.deal(json!({"name": "Boat"})).await;
    let wire = Wire::serve(test.app.clone()).await;
    let mut client = Client::signed_in_with(&wire, &ada.token()).await;
    let mut stranger = Client::signed_in_with(&wire, &other.token()).await;
    let follow = "subscription ($after: String) { dealStageChanged(after: $after) { __typename
        ... on DealStageChangedEvent { position dealId deal { name } toStage { name } }
        ... on UpToDate { position } } }";
    for client in [&mut client, &mut stranger] {
        client.subscribe("live", follow).await;
        let first = &client.hear().await["payload"]["data"]["dealStageChanged"];
        assert_eq!(first["__typename"], "UpToDate");
    }
    let stage = ada.stage("Proposal").await;
    let moved = ada.move_deal(json!({"dealId": deal, "stageId": stage})).await;
    let live = client.hear().await["payload"]["data"]["dealStageChanged"].take();
    assert_eq!(
        live,
        json!({"__typename": "DealStageChangedEvent", "position": moved["position"], "dealId": deal,
               "deal": {"name": "Boat"}, "toStage": {"name": "Proposal"}})
    );

    // Another tenant hears of its own changes only; this one comes after the first.
    let theirs = other.deal(json!({"name": "Car"})).await;
    other
        .move_deal(json!({"dealId": theirs, "stageId": other.stage("Proposal").await}))
        .await;
    assert_eq!(
        stranger.hear().await["payload"]["data"]["dealStageChanged"]["dealId"],
        json!(theirs)
    );

    let second = ada
        .move_deal(json!({"dealId": deal, "stageId": ada.stage("Negotiation").await}))
        .await;
    let variables = json!({"after": moved["position"]});
    client
        .say(
            json!({"type": "subscribe", "id": "again", "payload": {"query": follow, "variables": variables}}),
        )
        .await;
    let mut replayed = Vec::new();
    while replayed.len() < 2 {
        let message = client.hear().await;
        if message["id"] == "again" {
            replayed.push(message["payload"]["data"]["dealStageChanged"].clone());
        }
    }
    assert_eq!(replayed[0]["position"], second["position"]);
    assert_eq!(
        replayed[1],
        json!({"__typename": "UpToDate", "position": second["position"]})
    );
}
