//! The GraphiQL page: how it is served, and that it works in a real browser.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use dealstream::{db::migrate, http::graphiql};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::support::{TestApp, app::config, cluster::create_database, wire::Wire};

const ASSET: &str = "/graphiql/assets/graphiql.min.js";

async fn send(
    app: Router,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (
        head.status,
        head.headers,
        body.collect().await.unwrap().to_bytes().to_vec(),
    )
}

async fn get(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    send(graphiql::routes(true), Method::GET, path, headers).await
}

fn assert_guarded(headers: &HeaderMap) {
    let policy = headers["content-security-policy"].to_str().unwrap();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(
            policy.split("; ").any(|it| it == directive),
            "{directive} is not in {policy}"
        );
    }
    for looseness in ["unsafe", "http", "*"] {
        assert!(!policy.contains(looseness), "{looseness} is in {policy}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
}

/// The addresses in the page's `src` and `href` attributes.
fn links(html: &str) -> Vec<&str> {
    html.split('"')
        .zip(html.split('"').skip(1))
        .filter(|(before, _)| before.ends_with("src=") || before.ends_with("href="))
        .map(|(_, link)| link)
        .collect()
}

#[tokio::test]
async fn the_page_and_all_it_names_come_from_here_and_are_guarded() {
    let (status, headers, body) = get("/graphiql", &[]).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "the page's files are missing: `make setup`, then build again"
    );
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_guarded(&headers);

    let html = String::from_utf8(body).unwrap();
    assert!(!html.contains("://"), "the page names another host");
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick="));
    let links = links(&html);
    assert!(links.contains(&ASSET) && links.len() >= 8, "{links:?}");
    for link in links {
        let (status, headers, body) = get(link, &[]).await;
        assert_eq!(status, StatusCode::OK, "{link}");
        let expected = match link.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(headers["content-type"], expected, "{link}");
        assert!(!body.is_empty());
        assert_guarded(&headers);
    }
}

#[tokio::test]
async fn the_demo_users_are_offered_on_demo_data_only() {
    for (demo, mark) in [(true, "data-demo=\"true\""), (false, "data-demo=\"false\"")] {
        let (_, _, body) = send(graphiql::routes(demo), Method::GET, "/graphiql", &[]).await;
        assert!(String::from_utf8(body).unwrap().contains(mark));
    }
}

#[tokio::test]
async fn what_the_browser_has_already_is_not_sent_again() {
    for path in ["/graphiql", ASSET, "/graphiql/assets/page.js"] {
        let (_, headers, _) = get(path, &[]).await;
        assert_eq!(headers["cache-control"], "no-cache");
        let etag = headers["etag"].to_str().unwrap();

        let strong = etag.trim_start_matches("W/");
        for known in [etag, strong, "*", &format!("\"other\", {etag}")] {
            let (status, headers, body) = get(path, &[("if-none-match", known)]).await;
            assert_eq!(status, StatusCode::NOT_MODIFIED, "{path} {known}");
            assert_eq!(headers["etag"], etag);
            assert!(body.is_empty());
            assert_guarded(&headers);
        }
        let (status, _, body) = get(path, &[("if-none-match", "W/\"other\"")]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!body.is_empty());
    }
}

#[tokio::test]
async fn a_large_file_is_sent_compressed_to_whoever_takes_that() {
    let (_, plain, body) = get(ASSET, &[]).await;
    assert!(!plain.contains_key("content-encoding"));
    for (accepted, compressed) in [
        ("gzip", true),
        ("deflate, GZIP;q=0.5", true),
        ("identity", false),
        ("gzip;q=0", false),
    ] {
        let (_, headers, got) = get(ASSET, &[("accept-encoding", accepted)]).await;
        assert_eq!(headers.contains_key("content-encoding"), compressed, "{accepted}");
        assert_eq!(got.len() * 2 < body.len(), compressed, "{accepted}");
        assert_eq!(got.starts_with(&[0x1f, 0x8b]), compressed, "{accepted}");
        assert_eq!(headers["vary"], "accept-encoding");
    }
}

#[tokio::test]
async fn unknown_files_and_other_methods_are_refused() {
    for path in [
        "/graphiql/assets/other.js",
        "/graphiql/assets/../page.js",
        "/graphiql/assets/vendor/graphiql.min.js",
        "/graphiql/assets/%2e%2e/index.html",
    ] {
        let (status, headers, _) = get(path, &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_guarded(&headers);
    }
    let (status, ..) = send(graphiql::routes(true), Method::POST, "/graphiql", &[]).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _, body) = send(graphiql::routes(true), Method::HEAD, "/graphiql", &[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_build_without_the_files_says_how_to_get_them() {
    let (status, headers, body) = send(graphiql::missing(), Method::GET, "/graphiql", &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_guarded(&headers);
    assert!(String::from_utf8(body).unwrap().contains("make setup"));
}

/// The texts behind a key of the examples.
fn texts<'a>(examples: &'a str, key: &str) -> Vec<&'a str> {
    let behind = examples.split(key).skip(1);
    behind.map(|rest| rest.split('`').next().unwrap()).collect()
}

#[tokio::test]
async fn the_examples_are_right_by_the_schema() {
    let app = TestApp::new().await;
    let examples = include_str!("../../web/graphiql/examples.js");
    let (mut operations, documents) = (0, texts(examples, "query: `"));
    assert!(documents.len() >= 5);
    // Whoever tries it puts ids in the places of the dots.
    let variables = texts(examples, "variables: `")[0].replace('…', "01h455vb4pex5vsknk084sn02q");
    let variables: serde_json::Value = serde_json::from_str(&variables).unwrap();
    for document in documents {
        let parsed = async_graphql::parser::parse_query(document).unwrap();
        for (name, _) in parsed.operations.iter() {
            let name = name.expect("each is named, for the menu of operations").as_str();
            let given = async_graphql::Variables::from_json(match name {
                "MoveDeal" => variables.clone(),
                _ => json!({}),
            });
            let prepared = app.app.documents.prepare(document, Some(name), given);
            assert!(prepared.is_ok(), "{name}: {}", prepared.err().unwrap());
            operations += 1;
        }
    }
    assert!(operations >= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signs_in_runs_the_examples_and_sees_a_deal_move_in_a_real_browser() {
    let url = create_database("graphiql").await;
    migrate::migrate(&url).await.unwrap();
    let test = TestApp::on(url, config()).await;
    for (tenant, email) in [
        ("Acme Sales", "ada@acme.example"),
        ("Globex Realty", "grace@globex.example"),
    ] {
        let signed_up =
            json!({"tenantName": tenant, "name": email, "email": email, "password": "dealstream-demo"});
        test.anon()
            .mutate("signUp", "SignUpInput", "accessToken", signed_up)
            .await;
    }
    let wire = Wire::serve_as(test.app.clone(), true).await;
    let sign_in = r#"mutation { signIn(input: {email: "ada@acme.example", password: "dealstream-demo"}) { accessToken } }"#;
    let token = wire.ask(sign_in).await.json()["data"]["signIn"]["accessToken"].take();
    let bearer = format!("authorization: Bearer {}", token.as_str().unwrap());
    for name in ["Press line", "Spare parts"] {
        let created = wire
            .post(
                &bearer,
                &format!("mutation {{ createDeal(input: {{name: {name:?}}}) {{ deal {{ id }} }} }}"),
            )
            .await;
        assert!(
            created.json()["data"]["createDeal"]["deal"]["id"].is_string(),
            "{created:?}"
        );
    }

    wire.peer("graphiql.mjs", &[format!("http://{}", wire.address)])
        .await;
}
