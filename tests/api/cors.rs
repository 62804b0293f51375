//! What browsers are told: which pages may use the API, and what may be done with an answer.

use dealstream::config::Config;
use dealstream::graphql::limits::Limits;
use dealstream::http::Settings;

use crate::support::TestApp;
use crate::support::app::config;
use crate::support::wire::{Reply, TOKEN, Wire};

const CRM: &str = "https://crm.example.com";

async fn wire(origins: &[&str]) -> Wire {
    let settings = Settings {
        allowed_origins: origins.iter().map(|it| (*it).to_owned()).collect(),
        ..Settings::default()
    };
    Wire::with(settings, Limits::default()).await
}

async fn preflight(wire: &Wire, origin: &str) -> Reply {
    let headers = format!(
        "origin: {origin}\naccess-control-request-method: POST\n\
         access-control-request-headers: authorization,content-type,idempotency-key"
    );
    wire.send("OPTIONS", "/graphql", &headers, "").await
}

#[tokio::test]
async fn pages_of_the_listed_origins_may_use_the_api() {
    let wire = wire(&[CRM, "http://localhost:5173"]).await;
    for origin in [CRM, "http://localhost:5173"] {
        let reply = preflight(&wire, origin).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        assert_eq!(reply.header("access-control-allow-methods"), Some("get,post"));
        let headers = reply.header("access-control-allow-headers").unwrap();
        for name in ["authorization", "content-type", "idempotency-key"] {
            assert!(headers.contains(name), "{headers}");
        }
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert!(reply.header("vary").unwrap().contains("origin"));

        let headers = format!("origin: {origin}\nauthorization: Bearer {TOKEN}");
        let reply = wire.post(&headers, "{ __typename }").await;
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        let exposed = reply.header("access-control-expose-headers").unwrap();
        for name in ["ratelimit", "retry-after", "x-request-id"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        // What is refused can be read as well, or the page could not tell why.
        let reply = wire
            .post(&format!("origin: {origin}\nauthorization: Bearer x"), "{ a }")
            .await;
        assert_eq!(
            (reply.status, reply.header("access-control-allow-origin")),
            (401, Some(origin))
        );
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not() {
    let wire = wire(&[CRM]).await;
    let others = [
        "https://evil.example",
        "https://crm.example.com.evil.example",
        "https://crm.example.com:8443",
        "http://crm.example.com",
        "https://sub.crm.example.com",
        "null",
    ];
    for origin in others {
        let reply = preflight(&wire, origin).await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
        let reply = wire.post(&format!("origin: {origin}"), "{ __typename }").await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
    }
    // What a browser sends without asking first is refused before it is looked at.
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let headers = format!("origin: https://evil.example\ncontent-type: {content_type}");
        let body = r#"{"query":"mutation { __typename }"}"#;
        assert_eq!(wire.send("POST", "/graphql", &headers, body).await.status, 415);
    }
}

#[tokio::test]
async fn without_a_list_no_other_page_may() {
    let wire = wire(&[]).await;
    let reply = preflight(&wire, CRM).await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[test]
fn a_wildcard_is_no_origin() {
    use clap::{Args, Command, FromArgMatches};
    let read = |origins: &str| {
        let command = Config::augment_args(Command::new("dealstream")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.try_get_matches_from(["dealstream", "--allowed-origins", origins]);
        matches.and_then(|matches| Config::from_arg_matches(&matches))
    };
    let config = read("https://CRM.example.com/, http://[::1]:5173").unwrap();
    assert_eq!(
        config.allowed_origins,
        ["https://crm.example.com", "http://[::1]:5173"]
    );
    for wrong in [
        "*",
        "https://*.example.com",
        "crm.example.com",
        "https://",
        "null",
        "https://a/b",
        "",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_what_not_to_do_with_it() {
    let app = TestApp::on(
        crate::support::app::database_url().await,
        Config {
            limits: vec!["requests=1/1h".to_owned()],
            ..config()
        },
    )
    .await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut replies = vec![
        wire.ask("{ __typename }").await,
        wire.ask("{ __typename }").await,
        wire.send("PUT", "/graphql", "", "").await,
    ];
    for path in [
        "/",
        "/nothing",
        "/health",
        "/health/ready",
        "/graphiql",
        "/.well-known/jwks.json",
    ] {
        replies.push(wire.send("GET", path, "", "").await);
    }
    assert!(replies.iter().any(|reply| reply.status == 429));
    for reply in replies {
        let policy = reply
            .header("content-security-policy")
            .unwrap_or_else(|| panic!("{reply:?}"));
        for part in [
            "default-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "deny"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name} of {}", reply.head);
        }
    }
}

#[tokio::test]
async fn nothing_that_a_client_sends_comes_back_in_a_head() {
    let wire = wire(&[CRM]).await;
    // An id that is more than an id is not repeated.
    for id in ["a b", "a%0d%0aset-cookie:x=1", "\u{e4}", &"x".repeat(200)] {
        let reply = wire.post(&format!("x-request-id: {id}"), "{ __typename }").await;
        let answered = reply.header("x-request-id").unwrap();
        assert_ne!(answered, id);
        assert!(
            answered.bytes().all(|it| it.is_ascii_hexdigit() || it == b'-'),
            "{answered}"
        );
    }
    // A line break within a header ends it, and what follows is a header of the request and of nothing else.
    let request = "POST /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-request-id: a\r\nset-cookie: x=1\r\n\
                   content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let reply = wire.raw(request.as_bytes()).await;
    assert_eq!(reply.header("set-cookie"), None);
    for bare in [
        "x-request-id: a\rset-cookie: x=1",
        "x-request-id: a\nset-cookie: x=1",
        "x-request-id: a\0b",
    ] {
        let request =
            format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{bare}\r\n\r\n");
        let reply = wire.raw(request.as_bytes()).await;
        assert_eq!(reply.header("set-cookie"), None, "{bare:?}");
    }
}
