//! Keys with which other programs use the API.

use std::time::{Duration, Instant};

use dealstream::auth::{Permission, Role};
use dealstream::error::Error;
use serde_json::{Value, json};

use crate::sessions::Subscriber;
use crate::support::wire::Wire;
use crate::support::{Client, TestApp};

const KEY: &str = "apiKey { id name prefix permissions expiresAt lastUsedAt user { id } } secret";

async fn create(client: &Client, input: Value) -> Value {
    client
        .payload("createApiKey", "CreateApiKeyInput", KEY, input)
        .await
}

/// A new key, by its id and its secret.
async fn key(client: &Client, permissions: &[&str]) -> (String, String) {
    let payload = create(client, json!({ "name": "Export", "permissions": permissions })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&payload["apiKey"]["id"]), text(&payload["secret"]))
}

async fn revoke(client: &Client, id: &str) -> Value {
    let input = json!({ "apiKeyId": id });
    client
        .payload("revokeApiKey", "RevokeApiKeyInput", "revokedApiKeyId", input)
        .await
}

fn refused(found: Result<Client, Error>) -> String {
    match found {
        Ok(_) => panic!("the key is accepted"),
        Err(error) => error.message(),
    }
}

#[tokio::test]
async fn a_key_acts_for_its_user_within_its_permissions() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let (id, secret) = key(&admin, &["DEALS_READ", "CONTACTS_WRITE", "CONTACTS_READ"]).await;
    let program = app.identified(&secret).await.unwrap();
    let contact = program.contact(json!({ "name": "By a program" })).await;
    let seen = program
        .query(
            "query($id: ID!) { contact(id: $id) { name } }",
            json!({ "id": contact }),
        )
        .await;
    assert_eq!(seen["contact"]["name"], "By a program");
    let me = program
        .query("{ viewer { permissions user { id } } }", json!({}))
        .await;
    let own = admin.query("{ viewer { user { id } } }", json!({})).await;
    assert_eq!(me["viewer"]["user"], own["viewer"]["user"]);
    assert_eq!(
        me["viewer"]["permissions"],
        json!(["CONTACTS_READ", "CONTACTS_WRITE", "DEALS_READ"])
    );
    let answer = program
        .answer(
            "mutation { createDeal(input: { name: \"D\" }) { position } }",
            json!({}),
        )
        .await;
    assert_eq!(
        answer["errors"][0]["extensions"]["permission"], "DEALS_WRITE",
        "{answer}"
    );
    let keys = admin
        .query("{ apiKeys { id name prefix lastUsedAt } }", json!({}))
        .await;
    assert_eq!(keys["apiKeys"][0]["id"], json!(id));
    assert_eq!(keys["apiKeys"][0]["prefix"], json!(&secret[..10]));
    assert!(keys["apiKeys"][0]["lastUsedAt"].is_string());
}

#[tokio::test]
async fn a_key_is_kept_as_its_hash_and_told_once() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let input = json!({ "name": "Once", "permissions": ["DEALS_READ"], "idempotencyKey": "k" });
    let first = create(&admin, input.clone()).await;
    let secret = first["secret"].as_str().unwrap();
    let again = create(&admin, input).await;
    assert_eq!(again["apiKey"], first["apiKey"]);
    assert_eq!(again["secret"], Value::Null);
    let database = app.superuser().await;
    let tail = &secret[10..];
    let kept = "SELECT (SELECT count(*) FROM api_keys WHERE to_jsonb(api_keys)::text LIKE $1)
                     + (SELECT count(*) FROM events WHERE change::text LIKE $1)
                     + (SELECT count(*) FROM idempotency_keys WHERE answer::text LIKE $1)";
    let count: i64 = database
        .query_one(kept, &[&format!("%{tail}%")])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 0);
    let there: i64 = database
        .query_one(kept, &[&format!("%{}%", &secret[..10])])
        .await
        .unwrap()
        .get(0);
    assert!(there >= 3, "the prefix is found where the key is not: {there}");
}

#[tokio::test]
async fn nobody_gives_a_key_what_they_do_not_have() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let few = [Permission::ApiKeysWrite, Permission::DealsRead];
    let limited = admin.limited_to(&few);
    let payload = create(
        &limited,
        json!({ "name": "More", "permissions": ["DEALS_READ", "USERS_WRITE"] }),
    )
    .await;
    assert_eq!(payload["apiKey"], Value::Null);
    assert_eq!(payload["secret"], Value::Null);
    assert_eq!(payload["userErrors"][0]["field"], json!(["input", "permissions"]));
    assert_eq!(payload["userErrors"][0]["code"], "NOT_ALLOWED");
    let bad = [
        json!({ "name": "None", "permissions": [] }),
        json!({ "name": " ", "permissions": ["DEALS_READ"] }),
        json!({ "name": "Late", "permissions": ["DEALS_READ"], "expiresAt": "2199-01-01T00:00:00Z" }),
        json!({ "name": "Past", "permissions": ["DEALS_READ"], "expiresAt": "2020-01-01T00:00:00Z" }),
    ];
    for input in bad {
        let payload = create(&admin, input.clone()).await;
        assert_eq!(payload["apiKey"], Value::Null, "{input}");
        assert_eq!(payload["userErrors"].as_array().unwrap().len(), 1, "{input}");
    }
    // A key that has got into the wrong hands is not to outlive itself, nor to end the others.
    let (id, secret) = key(&admin, &["API_KEYS_WRITE", "DEALS_READ"]).await;
    let program = app.identified(&secret).await.unwrap();
    for document in [
        "mutation { createApiKey(input: { name: \"K\", permissions: [DEALS_READ] }) { secret } }".to_owned(),
        format!("mutation {{ revokeApiKey(input: {{ apiKeyId: \"{id}\" }}) {{ position }} }}"),
        "mutation { signOut { position } }".to_owned(),
    ] {
        let answer = program.answer(&document, json!({})).await;
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "FORBIDDEN",
            "{document}"
        );
        assert_eq!(
            answer["errors"][0]["message"],
            "Neither an API key nor a token of another issuer can do this: sign in."
        );
    }
    let sales = app.user(&admin, Role::Sales).await;
    let document = "mutation { createApiKey(input: { name: \"K\", permissions: [DEALS_READ] }) { secret } }";
    assert_eq!(sales.code(document, json!({})).await, "FORBIDDEN");
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let (_, secret) = key(&admin, &["DEALS_READ"]).await;
    let mut other = secret.clone().into_bytes();
    let last = other.len() - 1;
    other[last] = if other[last] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).unwrap();
    let longer = format!("{secret}A");
    for bad in [
        other.as_str(),
        &longer,
        &secret[..secret.len() - 1],
        "dsk_",
        "dsk_' OR 1=1 --",
        "dsk_\u{1F600}",
    ] {
        assert_eq!(
            refused(app.identified(bad).await),
            "The API key is not valid.",
            "{bad}"
        );
    }
    let wire = Wire::serve(app.app.clone()).await;
    let reply = wire
        .post(&format!("authorization: Bearer {other}"), "{ viewer { role } }")
        .await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.json()["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_revoked_key_ends_on_every_instance_and_on_open_sockets() {
    let (app, other) = (TestApp::new().await, TestApp::new().await);
    for app in [&app, &other] {
        app.app.start().await.unwrap();
    }
    let admin = app.tenant().await;
    let (id, secret) = key(&admin, &["DEALS_READ"]).await;
    let (kept, kept_secret) = key(&admin, &["DEALS_READ"]).await;
    let wire = Wire::serve(other.app.clone()).await;
    let mut socket = Subscriber::of(&wire, &secret).await;
    assert!(app.identified(&secret).await.is_ok());
    assert_eq!(revoke(&admin, &id).await["revokedApiKeyId"], json!(id));
    let since = Instant::now();
    assert_eq!(
        refused(app.identified(&secret).await),
        "The API key is not valid."
    );
    assert_eq!(socket.closed(since).await, 4403);
    assert_eq!(
        refused(other.identified(&secret).await),
        "The API key is not valid."
    );
    assert!(other.identified(&kept_secret).await.is_ok());
    let again = revoke(&admin, &id).await;
    assert_eq!(again["userErrors"][0]["code"], "NOT_FOUND");
    let keys = admin.query("{ apiKeys { id } }", json!({})).await;
    assert_eq!(keys["apiKeys"], json!([{ "id": kept }]));
}

#[tokio::test]
async fn a_key_hears_what_happens() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let (_, secret) = key(&admin, &["DEALS_READ"]).await;
    let wire = Wire::serve(app.app.clone()).await;
    let mut socket = Subscriber::of(&wire, &secret).await;
    let deal = admin.deal(json!({ "name": "Heard" })).await;
    let stage = admin.stage("Proposal").await;
    admin.move_deal(json!({ "dealId": deal, "stageId": stage })).await;
    let frame = socket.hear().await;
    assert_eq!(
        frame["payload"]["data"]["dealStageChanged"]["__typename"], "DealStageChangedEvent",
        "{frame}"
    );
}

#[tokio::test]
async fn a_key_ends_with_its_time_and_with_its_user() {
    let app = TestApp::new().await;
    app.app.start().await.unwrap();
    let admin = app.tenant().await;
    let (_, secret) = key(&admin, &["DEALS_READ"]).await;
    let database = app.superuser().await;
    let tenant = admin.viewer().tenant_id;
    // Not looked at before, so that nothing of it is remembered.
    let ended = format!("UPDATE api_keys SET expires_at = now() WHERE tenant_id = '{tenant}'");
    assert_eq!(database.execute(&ended, &[]).await.unwrap(), 1);
    assert_eq!(
        refused(app.identified(&secret).await),
        "The API key is not valid."
    );

    let (_, secret) = key(&admin, &["DEALS_READ"]).await;
    let second = app.user(&admin, Role::Admin).await;
    assert!(app.identified(&secret).await.is_ok());
    let me = dealstream::db::id::write_id("user", admin.viewer().user_id);
    second
        .mutate(
            "updateUser",
            "UpdateUserInput",
            "user { isActive }",
            json!({ "userId": me, "isActive": false }),
        )
        .await;
    assert_eq!(
        refused(app.identified(&secret).await),
        "The API key is not valid."
    );
}

#[tokio::test]
async fn a_key_loses_what_its_user_loses() {
    let (app, other) = (TestApp::new().await, TestApp::new().await);
    for app in [&app, &other] {
        app.app.start().await.unwrap();
    }
    let admin = app.tenant().await;
    let second = app.user(&admin, Role::Admin).await;
    let (_, secret) = key(&second, &["DEALS_READ", "DEALS_WRITE", "USERS_WRITE"]).await;
    for app in [&app, &other] {
        let program = app.identified(&secret).await.unwrap();
        assert_eq!(program.viewer().rights.permissions().iter().count(), 3);
    }
    let id = dealstream::db::id::write_id("user", second.viewer().user_id);
    admin
        .mutate(
            "updateUser",
            "UpdateUserInput",
            "user { role }",
            json!({ "userId": id, "role": "VIEWER" }),
        )
        .await;
    for app in [&app, &other] {
        let reads_only = async {
            loop {
                let program = app.identified(&secret).await.unwrap();
                let left: Vec<_> = program.viewer().rights.permissions().iter().collect();
                if left == [Permission::DealsRead] {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), reads_only).await;
        in_time.expect("the key is left with what its user may do");
    }
}

/// What a service is told that asks with a bearer token about another.
pub async fn introspect(wire: &Wire, bearer: &str, token: &str) -> (u16, Value) {
    let headers = format!("content-type: application/x-www-form-urlencoded\nauthorization: Bearer {bearer}");
    let reply = wire
        .send(
            "POST",
            "/oauth/introspect",
            &headers,
            &format!("token={token}&token_type_hint=access_token"),
        )
        .await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    (reply.status, reply.json())
}

#[tokio::test]
async fn another_service_learns_whose_token_it_was_sent() {
    let app = TestApp::new().await;
    let (admin, stranger) = (app.tenant().await, app.tenant().await);
    let sales = app.user(&admin, Role::Sales).await;
    let wire = Wire::serve(app.app.clone()).await;
    let (id, service) = key(&admin, &["TOKENS_READ", "USERS_READ", "CONTACTS_READ"]).await;

    let (status, told) = introspect(&wire, &service, &sales.token()).await;
    assert_eq!((status, &told["active"]), (200, &json!(true)), "{told}");
    assert_eq!(told["sub"], json!(sales.viewer().user_id));
    assert_eq!(told["role"], "SALES");
    assert_eq!(told["scope"], sales.viewer().rights.permissions().to_scope());
    assert!(told["exp"].as_i64().unwrap() > chrono::Utc::now().timestamp());
    // With what it was told it asks for more.
    let program = app.identified(&service).await.unwrap();
    let user = program
        .query(
            "query($id: ID!) { user(id: $id) { name role } }",
            json!({ "id": told["user_id"] }),
        )
        .await;
    assert_eq!(user["user"]["role"], "SALES");

    let (_, of_key) = introspect(&wire, &service, &service).await;
    assert_eq!(
        (&of_key["client_id"], &of_key["role"]),
        (&json!(id), &Value::Null)
    );
    assert_eq!(of_key["scope"], "USERS_READ CONTACTS_READ TOKENS_READ");

    let inactive = (200, json!({ "active": false }));
    let (_, foreign) = key(&stranger, &["DEALS_READ"]).await;
    for token in ["nothing", "dsk_nothing", "", &stranger.token(), &foreign] {
        assert_eq!(introspect(&wire, &service, token).await, inactive, "{token}");
    }
    sales.query("mutation { signOut { position } }", json!({})).await;
    assert_eq!(introspect(&wire, &service, &sales.token()).await, inactive);

    let (status, told) = introspect(&wire, &app.user(&admin, Role::Manager).await.token(), &service).await;
    assert_eq!((status, &told["error"]), (403, &json!("insufficient_scope")));
    assert!(
        told["error_description"]
            .as_str()
            .unwrap()
            .contains("TOKENS_READ")
    );
    revoke(&admin, &id).await;
    let (status, told) = introspect(&wire, &service, &service).await;
    assert_eq!((status, &told["error"]), (401, &json!("invalid_token")));
}

#[tokio::test]
async fn introspection_wants_a_form_and_somebody_who_asks() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let wire = Wire::serve(app.app.clone()).await;
    let token = admin.token();
    let asking = format!("authorization: Bearer {token}");
    let form = "content-type: application/x-www-form-urlencoded";
    let huge = format!("token={}", "x".repeat(20_000));
    for (headers, body, status) in [
        (form.to_owned(), format!("token={token}"), 401),
        (asking.clone(), format!("token={token}"), 400),
        (format!("{form}\n{asking}"), "tokens=1".to_owned(), 400),
        (format!("{form}\n{asking}"), huge, 400),
        (
            format!("content-type: application/json\n{asking}"),
            json!({ "token": token }).to_string(),
            400,
        ),
        (format!("{form}\n{asking}"), format!("token={token}"), 200),
    ] {
        let reply = wire.send("POST", "/oauth/introspect", &headers, &body).await;
        assert_eq!(reply.status, status, "{headers}");
    }
    assert_eq!(
        wire.send("GET", "/oauth/introspect?token=x", &asking, "")
            .await
            .status,
        405
    );
}
