//! GraphQL over HTTP, byte by byte, on a small schema.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dealstream::graphql::limits::Limits;
use dealstream::http::Settings;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::wire::{Reply, TOKEN, Wire, until};

#[tokio::test]
async fn the_public_audits_pass() {
    let wire = Wire::start().await;
    wire.peer("audit.mjs", &[format!("http://{}/graphql", wire.address)])
        .await;
}

#[tokio::test]
async fn the_answer_has_the_form_that_the_client_likes_best() {
    const JSON: &str = "application/json; charset=utf-8";
    const GRAPHQL: &str = "application/graphql-response+json; charset=utf-8";
    let wire = Wire::start().await;
    for (accept, expected) in [
        ("x-nothing: 1", JSON),
        ("accept: */*", JSON),
        ("accept: application/*", JSON),
        ("accept: application/json", JSON),
        ("accept: application/json; charset=utf-8", JSON),
        ("accept: application/graphql-response+json", GRAPHQL),
        (
            "accept: application/graphql-response+json,application/json;q=0.9",
            GRAPHQL,
        ),
        (
            "accept: application/graphql-response+json;q=0.5, application/json;q=0.9",
            JSON,
        ),
        (
            "accept: application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed",
            GRAPHQL,
        ),
        ("accept: text/html\naccept: Application/JSON", JSON),
        (
            "accept: application/json;q=0, application/graphql-response+json;q=0.1",
            GRAPHQL,
        ),
    ] {
        let reply = wire.post(accept, "{ hello }").await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some(expected)),
            "{accept}"
        );
    }
    for accept in [
        "accept: text/html",
        "accept: application/jsonx",
        "accept: application/json;q=0",
        "accept: ",
    ] {
        let reply = wire.post(accept, "{ hello }").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (406, "BAD_REQUEST"),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn request_errors_have_no_data_and_a_status_where_the_form_tells_it() {
    let wire = Wire::start().await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($n: Int!) { double(of: $n) }", "BAD_USER_INPUT"),
        (
            "query a { hello } query b { hello }",
            "OPERATION_RESOLUTION_FAILURE",
        ),
        (
            "{ a:hello b:hello c:hello d:hello e:hello f:hello g:hello h:hello i:hello j:hello k:hello }",
            "TOO_COMPLEX",
        ),
    ] {
        for (accept, status) in [
            ("application/graphql-response+json", 400),
            ("application/json", 200),
        ] {
            let reply = wire.post(&format!("accept: {accept}"), query).await;
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{query}");
            assert!(reply.json().get("data").is_none(), "{reply:?}");
        }
    }
    // Once something ran, there is data and the status is 200.
    let reply = wire.ask("{ hello told }").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["data"], json!({"hello": "hello", "told": null}));
    assert_eq!(reply.code(), "FORBIDDEN");
}

#[tokio::test]
async fn post_takes_json_and_nothing_else() {
    let wire = Wire::start().await;
    let body = r#"{"query":"mutation { change }"}"#;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json; charset=utf-16",
        "application/graphql",
    ] {
        let reply = wire
            .send("POST", "/graphql", &format!("content-type: {content_type}"), body)
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (415, "BAD_REQUEST"),
            "{content_type}"
        );
    }
    assert_eq!(wire.send("POST", "/graphql", "", body).await.status, 415);
    let hello = r#"{"query": "{ hello }"}"#;
    for (coding, status) in [("gzip", 415), ("identity", 200), ("Identity", 200)] {
        let headers = format!("content-type: application/json\ncontent-encoding: {coding}");
        let reply = wire.send("POST", "/graphql", &headers, hello).await;
        assert_eq!(reply.status, status, "{coding}");
    }
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        let reply = wire
            .send(method, "/graphql", "content-type: application/json", body)
            .await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("get, post")),
            "{method}"
        );
    }
    assert_eq!(wire.behind.mutations.load(Ordering::SeqCst), 0);
    for content_type in ["application/json", "Application/JSON; Charset=\"UTF-8\""] {
        let reply = wire
            .send("POST", "/graphql", &format!("content-type: {content_type}"), body)
            .await;
        assert_eq!(reply.status, 200, "{content_type}");
    }
    assert_eq!(wire.behind.mutations.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn malformed_requests_are_told_so_in_words_for_people() {
    let wire = Wire::start().await;
    for body in [
        "",
        "x",
        "{",
        "null",
        "\"{ hello }\"",
        "[]",
        "[\"{ hello }\"]",
        "[{\"query\":\"{ hello }\"}]",
        "{}",
        "{\"query\":null}",
        "{\"query\":5}",
        "{\"query\":[\"{ hello }\"]}",
        "{\"query\":\"{ hello }\",\"query\":\"{ hello }\"}",
        "{\"query\":\"{ hello }\",\"operationName\":5}",
        "{\"query\":\"{ hello }\",\"variables\":\"{}\"}",
        "{\"query\":\"{ hello }\",\"variables\":[]}",
        "{\"query\":\"{ hello }\",\"extensions\":[]}",
        "{\"query\":\"{ hello }\"} x",
        "{\"query\":\"\\ud800\"}",
    ] {
        let reply = wire
            .send("POST", "/graphql", "content-type: application/json", body)
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "BAD_REQUEST"),
            "{body}"
        );
        let message = reply.json()["errors"][0]["message"].to_string();
        for rust in ["expected", "struct", "::", "serde", "EOF"] {
            assert!(!message.contains(rust), "{body}: {message}");
        }
    }
    let deep = format!(
        "{{\"query\":\"{{ hello }}\",\"variables\":{}}}",
        "{\"a\":".repeat(5_000)
    );
    assert_eq!(
        wire.send("POST", "/graphql", "content-type: application/json", &deep)
            .await
            .status,
        400
    );
    let nulls =
        "{\"query\":\"{ hello }\",\"operationName\":null,\"variables\":null,\"extensions\":null,\"more\":1}";
    assert_eq!(
        wire.send("POST", "/graphql", "content-type: application/json", nulls)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn get_runs_queries_only() {
    let wire = Wire::start().await;
    let get = async |query: &str| wire.send("GET", &format!("/graphql?{query}"), "", "").await;
    let reply = get("query=%7B%20hello%20%7D&operationName=&variables=&extensions=").await;
    assert_eq!(
        (reply.status, reply.json()["data"]["hello"].as_str()),
        (200, Some("hello"))
    );
    let two =
        "query=query+a{hello}query+b($n:Int!){double(of:$n)}mutation+c{change}subscription+d{count(to:1)}";
    let reply = get(&format!("{two}&operationName=b&variables=%7B%22n%22:4%7D")).await;
    assert_eq!(reply.json()["data"]["double"], 8);
    for name in ["c", "d"] {
        let reply = get(&format!("{two}&operationName={name}")).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("post")),
            "{name}"
        );
    }
    assert_eq!(wire.behind.mutations.load(Ordering::SeqCst), 0);
    for query in [
        "",
        "query=",
        "query={hello}&variables=x",
        "query={hello}&variables=[]",
        "query={hello}&extensions=5",
        "query={hello}&query={hello}",
    ] {
        assert_eq!(get(query).await.status, 400, "{query}");
    }
    let reply = wire
        .send("GET", "/graphql?query={hello}", "content-type: text/plain", "")
        .await;
    assert_eq!(reply.status, 415);
    let reply = wire.post("", "subscription { count(to: 1) }").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "BAD_REQUEST"));
}

#[tokio::test]
async fn errors_without_a_code_are_told_as_internal() {
    let wire = Wire::start().await;
    let reply = wire.post("x-request-id: from-me.1", "{ hello leak }").await;
    let json = reply.json();
    assert_eq!(json["data"], json!({"hello": "hello", "leak": null}));
    assert_eq!(reply.header("x-request-id"), Some("from-me.1"));
    let error = &json["errors"][0];
    assert_eq!(
        error["extensions"],
        json!({"code": "INTERNAL", "requestId": "from-me.1"})
    );
    assert_eq!(error["path"], json!(["leak"]));
    assert!(!String::from_utf8_lossy(&reply.body).contains("secrets"));

    let reply = wire.ask("{ hello panic }").await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "INTERNAL"));
    assert_eq!(
        wire.ask("{ hello }").await.status,
        200,
        "the connection's neighbours live on"
    );

    let reply = wire.ask("{ hello id(of: \"a\") }").await;
    assert_eq!((reply.status, reply.code().as_str()), (200, "BAD_USER_INPUT"));

    let many = format!(
        "{{ me {{ {} }} }}",
        (0..30).map(|i| format!("a{i}: leak ")).collect::<String>()
    );
    assert_eq!(
        wire.ask(&many).await.json()["errors"].as_array().unwrap().len(),
        20
    );
}

#[tokio::test]
async fn an_operation_that_hangs_is_stopped() {
    let settings = Settings {
        execution_time: Duration::from_millis(200),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let reply = wire.ask("{ hello hang }").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "TIMEOUT"));
}

#[tokio::test]
async fn the_viewer_comes_from_the_bearer_token() {
    let wire = Wire::start().await;
    let reply = wire
        .post(&format!("authorization: Bearer {TOKEN}"), "{ viewer }")
        .await;
    assert_eq!(reply.json()["data"]["viewer"], TOKEN);
    until("the session to be finished", || {
        wire.behind.unfinished.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(
        wire.post("", "{ viewer }").await.json()["data"]["viewer"],
        json!(null)
    );
    for header in ["Bearer wrong", "Basic Z29vZA==", "Bearer", "good", "Bearer  "] {
        let reply = wire.post(&format!("authorization: {header}"), "{ hello }").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (401, "UNAUTHENTICATED"),
            "{header}"
        );
        assert_eq!(reply.header("www-authenticate"), Some("bearer"));
    }
}

#[tokio::test]
async fn the_idempotency_key_reaches_the_session() {
    let wire = Wire::start().await;
    let reply = wire.post("idempotency-key: again-1", "mutation { change }").await;
    assert_eq!(reply.json()["data"]["change"], "again-1");
    let longest = format!("idempotency-key: {}", "x".repeat(200));
    assert_eq!(wire.post(&longest, "mutation { change }").await.status, 200);
    for bad in [
        format!("{longest}x"),
        "idempotency-key:".to_owned(),
        "idempotency-key: a\tb".to_owned(),
        "idempotency-key: ä".to_owned(),
    ] {
        assert_eq!(wire.post(&bad, "mutation { change }").await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_guarding_headers_and_its_cost() {
    let wire = Wire::start().await;
    let replies = [
        wire.ask("{ me { hello } }").await,
        wire.ask("{").await,
        wire.send("POST", "/graphql", "", "x").await,
        wire.send("GET", "/nothing", "", "").await,
        wire.send("GET", "/health", "", "").await,
    ];
    let mut ids: Vec<&str> = replies
        .iter()
        .map(|reply| reply.header("x-request-id").unwrap())
        .collect();
    for reply in &replies {
        assert_eq!(
            reply.header("x-content-type-options"),
            Some("nosniff"),
            "{reply:?}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.json();
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), replies.len());
    let cost = &replies[0].json()["extensions"]["cost"];
    assert_eq!(
        *cost,
        json!({"requestedQueryCost": 1, "maximumQueryCost": 10_000})
    );
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    let wire = Wire::start().await;
    let reply = wire
        .post("accept-encoding: br, gzip;q=0.8", "{ long(length: 1000) }")
        .await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert!(reply.body.len() < 500);
    let mut plain = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&reply.body[..]), &mut plain).unwrap();
    assert!(plain.contains("long long"));
    for (headers, query) in [
        ("accept-encoding: gzip;q=0", "{ long(length: 1000) }"),
        ("accept-encoding: br", "{ long(length: 1000) }"),
        ("accept-encoding: gzip", "{ hello }"),
    ] {
        let reply = wire.post(headers, query).await;
        assert_eq!(reply.header("content-encoding"), None, "{headers}");
        reply.json();
    }
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let settings = Settings {
        body_time: Duration::from_millis(300),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let reply = wire.ask(&" ".repeat(2 * 1024 * 1024)).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "BAD_REQUEST"));

    let head = "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..40 {
        chunked.extend_from_slice(format!("{:x}\r\n{}\r\n", 65_536, " ".repeat(65_536)).as_bytes());
    }
    let reply = wire.raw(&chunked).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "BAD_REQUEST"));

    let reply = wire
        .raw(format!("{head}content-length: 100\r\n\r\n{{").as_bytes())
        .await;
    assert_eq!((reply.status, reply.code().as_str()), (408, "BAD_REQUEST"));

    let reply = wire
        .raw(format!("GET /graphql?{} HTTP/1.1\r\n\r\n", "x".repeat(200_000)).as_bytes())
        .await;
    assert!(matches!(reply.status, 0 | 414 | 431), "{reply:?}");
}

#[tokio::test]
async fn connections_that_dawdle_are_closed() {
    let settings = Settings {
        head_time: Duration::from_millis(200),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    for said in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "POST /graphql HTTP/1.1\r\nhost: x\r\nx-slow: ",
    ] {
        let reply = wire.raw(said.as_bytes()).await;
        assert!(matches!(reply.status, 0 | 408), "{said}: {reply:?}");
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Asks over HTTP/2 without waiting for an answer; headers as HPACK has them.
async fn ask_over_http2(wire: &Wire, path: &str, accept: &str) -> TcpStream {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let head = [
        vec![0x82, 0x86, 0x04],
        text(path),
        vec![0x01],
        text("localhost"),
        vec![0x00],
        text("accept"),
        text(accept),
    ];
    let mut stream = TcpStream::connect(wire.address).await.unwrap();
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let said = [hello, frame(4, 0, 0, &[]), frame(1, 5, 1, &head.concat())];
    stream.write_all(&said.concat()).await.unwrap();
    stream
}

/// The next frame: its kind, its stream, what is in it. Nothing when the connection has ended.
async fn hear(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    let heard = async {
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[8], payload))
    };
    tokio::time::timeout(Duration::from_secs(20), heard)
        .await
        .expect("something is heard")
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_told_that_it_ends_and_a_busy_one_stays() {
    let settings = Settings {
        head_time: Duration::from_millis(200),
        idle_time: Duration::from_millis(200),
        alive_time: Duration::from_millis(100),
        ..Settings::default()
    };
    let wire = Wire::with(settings, Limits::default()).await;
    let mut idle = ask_over_http2(&wire, "/health/live", "*/*").await;
    let mut heard = Vec::new();
    while let Some((kind, _, _)) = hear(&mut idle).await {
        heard.push(kind);
    }
    // It is not even waited for whether the client agrees.
    let (data, goaway) = (
        heard.iter().position(|it| *it == 0),
        heard.iter().position(|it| *it == 7),
    );
    assert!(
        data.is_some() && data < goaway,
        "it is answered, then told: {heard:?}"
    );
    // What streams may be silent for longer than that.
    let path = "/graphql?query=subscription%7Bsilence%7D";
    let mut busy = ask_over_http2(&wire, path, "text/event-stream").await;
    let mut alive = 0;
    while alive < 6 {
        let (kind, stream, payload) = hear(&mut busy).await.expect("it is not closed");
        assert_ne!(kind, 7, "it was told to go");
        alive += usize::from(kind == 0 && stream == 1 && !payload.is_empty());
    }
}

#[tokio::test]
async fn bombs_and_floods_are_refused_quickly() {
    let wire = Wire::start().await;
    let mut bomb = "{ ...f0 ...f0 }".to_owned();
    for level in 0..30 {
        bomb.push_str(&format!(
            " fragment f{level} on Query {{ ...f{0} ...f{0} }}",
            level + 1
        ));
    }
    bomb.push_str(" fragment f30 on Query { hello }");
    let started = std::time::Instant::now();
    assert_eq!(wire.ask(&bomb).await.code(), "TOO_COMPLEX");
    assert_eq!(wire.ask(&"{ a ".repeat(10_000)).await.code(), "TOO_COMPLEX");
    assert_eq!(
        wire.ask(&format!("#{}\n{{ hello }}", "x".repeat(900_000)))
            .await
            .code(),
        "TOO_COMPLEX"
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the executor would take minutes"
    );
}

#[tokio::test]
async fn health_tells_of_the_process_and_the_database() {
    let wire = Wire::start().await;
    let status = async |path: &str| wire.send("GET", path, "", "").await.status;
    for path in ["/health", "/health/live", "/health/ready", "/health/db"] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    wire.behind.database_gone.store(true, Ordering::SeqCst);
    assert_eq!(status("/health/live").await, 200);
    assert_eq!(status("/health/ready").await, 503);
    assert_eq!(status("/health/db").await, 503);
    wire.behind.database_gone.store(false, Ordering::SeqCst);
    // However many ask, the database is asked by one of them at a time.
    let all = futures::future::join_all((0..50).map(|_| status("/health/db"))).await;
    assert!(all.iter().all(|status| *status == 200));
    assert_eq!(wire.behind.asking.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn running_requests_end_when_the_server_stops_and_no_new_ones_begin() {
    let settings = Settings {
        execution_time: Duration::from_millis(500),
        ..Settings::default()
    };
    let mut wire = Wire::with(settings, Limits::default()).await;
    let mut busy = TcpStream::connect(wire.address).await.unwrap();
    let body = r#"{"query":"{ hang }"}"#;
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(wire.address).await.unwrap();
    // An answer on a third connection shows that the first two have been accepted.
    assert_eq!(wire.ask("{ hello }").await.status, 200);
    wire.shutdown.cancel();
    assert_eq!(Reply::read(&mut busy).await.code(), "TIMEOUT");
    tokio::time::timeout(Duration::from_secs(9), &mut wire.server)
        .await
        .expect("it stops")
        .unwrap();
    assert_eq!(
        idle.read(&mut [0]).await.unwrap_or(0),
        0,
        "idle connections are closed"
    );
    assert!(TcpStream::connect(wire.address).await.is_err());
}

#[tokio::test]
async fn what_others_have_spoilt_is_executed_once_more() {
    let wire = Wire::start().await;
    wire.behind.spoilt.store(1, Ordering::SeqCst);
    let answer = wire.ask("{ hello }").await;
    assert_eq!(answer.json()["data"], json!({ "hello": "hello" }));
    assert_eq!(wire.behind.spoilt.load(Ordering::SeqCst), 0);
}
