//! Sessions end before their time: by signing out, here and on other instances.

use std::time::{Duration, Instant};

use dealstream::auth::Revocations;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::TestApp;
use crate::support::recipes::{PASSWORD, signed_up};
use crate::support::wire::{Wire, until};

/// A revocation is felt everywhere within this time, long before the token would end. The promise is a second, and each
/// instance looks twice in it; a machine that is busy with all the other tests gets more.
const SOON: Duration = Duration::from_secs(8);

/// An open subscription over the wire.
pub struct Subscriber(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Subscriber {
    pub async fn of(wire: &Wire, token: &str) -> Self {
        let mut request = format!("ws://{}/graphql", wire.address)
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let mut this = Self(connect_async(request).await.unwrap().0);
        this.say(json!({ "type": "connection_init", "payload": { "authToken": token } }))
            .await;
        assert_eq!(this.hear().await["type"], "connection_ack");
        let query = "subscription { dealStageChanged { __typename } }";
        this.say(json!({ "type": "subscribe", "id": "1", "payload": { "query": query } }))
            .await;
        assert_eq!(
            this.hear().await["payload"]["data"]["dealStageChanged"]["__typename"],
            "UpToDate"
        );
        this
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.next());
        next.await.expect("the server says something").unwrap().unwrap()
    }

    pub async fn hear(&mut self) -> Value {
        loop {
            match self.next().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    /// The code that the socket is closed with, and that it is so soon after a moment.
    pub async fn closed(&mut self, since: Instant) -> u16 {
        loop {
            match self.next().await {
                Message::Close(Some(frame)) => {
                    let taken = since.elapsed();
                    assert!(taken < SOON, "closed after {taken:?}");
                    return frame.code.into();
                }
                Message::Ping(_) => {}
                other => panic!("not a close: {other:?}"),
            }
        }
    }

    /// Whether the socket is still served.
    async fn is_served(&mut self) {
        self.say(json!({ "type": "ping" })).await;
        assert_eq!(self.hear().await["type"], "pong");
    }
}

/// Asks something simple over the wire; the code and message of the refusal, if it is refused.
async fn refusal(wire: &Wire, token: &str) -> Option<(String, String)> {
    let authorization = format!("authorization: Bearer {token}");
    let answer = wire.post(&authorization, "{ viewer { role } }").await.json();
    let error = answer["errors"].get(0)?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some((text(&error["extensions"]["code"]), text(&error["message"])))
}

fn sign_in_again() -> Option<(String, String)> {
    Some(("UNAUTHENTICATED".to_owned(), "Sign in again.".to_owned()))
}

/// Two instances on one database.
async fn two_instances() -> (TestApp, TestApp) {
    let (one, other) = (TestApp::new().await, TestApp::new().await);
    for app in [&one, &other] {
        app.app.start().await.unwrap();
    }
    (one, other)
}

const SIGN_OUT: &str = "mutation { signOut { position userErrors { code } } }";

#[tokio::test]
async fn signing_out_ends_this_session_everywhere_and_no_other() {
    let (app, elsewhere) = two_instances().await;
    let (wire, other_wire) = (
        Wire::serve(app.app.clone()).await,
        Wire::serve(elsewhere.app.clone()).await,
    );
    let client = signed_up(&app, "tenant").await;
    let (token, before) = (client.token(), client.position().await);
    let at_home = client.in_another_session();
    let colleague = app.user(&client, dealstream::auth::Role::Sales).await;
    let mut here = Subscriber::of(&wire, &token).await;
    let mut there = Subscriber::of(&other_wire, &token).await;
    let mut others = Vec::new();
    for token in [at_home.token(), colleague.token()] {
        others.push(Subscriber::of(&wire, &token).await);
        others.push(Subscriber::of(&other_wire, &token).await);
    }

    let began = Instant::now();
    let authorization = format!("authorization: Bearer {token}");
    let answer = wire.post(&authorization, SIGN_OUT).await.json();
    let payload = &answer["data"]["signOut"];
    assert_eq!(payload["userErrors"], json!([]), "{answer}");
    assert_ne!(payload["position"], before);

    // Here it holds at once; on the other instance soon.
    assert_eq!(refusal(&wire, &token).await, sign_in_again());
    assert_eq!(here.closed(began).await, 4403);
    assert_eq!(there.closed(began).await, 4403);
    assert_eq!(refusal(&other_wire, &token).await, sign_in_again());
    let again = wire.post(&authorization, SIGN_OUT).await;
    assert_eq!(again.code(), "UNAUTHENTICATED");
    for subscriber in &mut others {
        subscriber.is_served().await;
    }
    for token in [at_home.token(), colleague.token()] {
        assert_eq!(refusal(&wire, &token).await, None);
        assert_eq!(refusal(&other_wire, &token).await, None);
    }
    // An instance that starts later knows it too.
    let late = TestApp::new().await;
    assert!(
        late.app.authenticate(&token).await.is_ok(),
        "it has not looked yet"
    );
    late.app.start().await.unwrap();
    assert!(late.app.authenticate(&token).await.is_err());
    assert!(at_home.is_known_to(&late.app));
}

#[tokio::test]
async fn open_sockets_end_with_the_rights_they_were_opened_with() {
    let (app, elsewhere) = two_instances().await;
    let (wire, other_wire) = (
        Wire::serve(app.app.clone()).await,
        Wire::serve(elsewhere.app.clone()).await,
    );
    let admin = signed_up(&app, "tenant").await;
    let mut goes_on = Subscriber::of(&wire, &admin.token()).await;
    for (field, input_type, change) in [
        ("updateUser", "UpdateUserInput", json!({ "role": "VIEWER" })),
        ("updateUser", "UpdateUserInput", json!({ "isActive": false })),
        ("deleteUser", "DeleteUserInput", json!({})),
    ] {
        let user = app.user(&admin, dealstream::auth::Role::Sales).await;
        let token = user.token();
        let mut here = Subscriber::of(&wire, &token).await;
        let mut there = Subscriber::of(&other_wire, &token).await;
        let mut input = change.clone();
        input["userId"] = json!(dealstream::db::id::write_id("user", user.viewer().user_id));
        let began = Instant::now();
        admin.mutate(field, input_type, "__typename", input).await;
        assert_eq!(refusal(&wire, &token).await, sign_in_again(), "{change}");
        assert_eq!(here.closed(began).await, 4403, "{change}");
        assert_eq!(there.closed(began).await, 4403, "{change}");
        assert_eq!(refusal(&other_wire, &token).await, sign_in_again(), "{change}");
    }
    goes_on.is_served().await;
}

#[tokio::test]
async fn the_history_tells_who_signed_out() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "tenant").await;
    client.query(SIGN_OUT, json!({})).await;
    // Twice is no more than once.
    client.query(SIGN_OUT, json!({})).await;
    let viewer = client.viewer();
    let told = format!(
        "SELECT count(*) FROM events WHERE kind = 'SIGNED_OUT' AND entity = 'session' AND tenant_id = '{}'
            AND actor_id = '{}' AND record_id = '{}'",
        viewer.tenant_id, viewer.user_id, viewer.session_id,
    );
    let row = app.superuser().await.query_one(&told, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn who_signed_out_signs_in_again() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "tenant").await;
    let data = client.query("{ viewer { user { email } } }", json!({})).await;
    let input = json!({ "email": data["viewer"]["user"]["email"], "password": PASSWORD });
    client.query(SIGN_OUT, json!({})).await;
    assert!(!client.is_known_to(&app.app));
    let payload = app
        .anon()
        .mutate("signIn", "SignInInput", "accessToken", input)
        .await;
    let again = app.with_token(payload["accessToken"].as_str().unwrap()).await;
    assert_ne!(again.viewer().session_id, client.viewer().session_id);
    again.query("{ viewer { role } }", json!({})).await;
}

#[tokio::test]
async fn what_no_token_can_be_old_enough_for_is_cleared_away() {
    let app = TestApp::new().await;
    let (client, other) = (app.tenant().await, app.tenant().await);
    for client in [&client, &other] {
        client.in_another_session().query(SIGN_OUT, json!({})).await;
    }
    let superuser = app.superuser().await;
    let tenant = client.viewer().tenant_id;
    let aged = format!(
        "UPDATE revocations SET revoked_at = revoked_at - interval '26 hours' WHERE tenant_id IN ('{tenant}', '{}')",
        other.viewer().tenant_id
    );
    superuser.batch_execute(&aged).await.unwrap();
    client.in_another_session().query(SIGN_OUT, json!({})).await;
    let left = format!(
        "SELECT count(*) FILTER (WHERE revoked_at > now() - interval '1 hour'), count(*) FROM revocations
          WHERE tenant_id = '{tenant}'"
    );
    let row = superuser.query_one(&left, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
}

#[tokio::test]
async fn who_waits_for_a_revocation_costs_little_and_leaves_nothing() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let revocations: &std::sync::Arc<Revocations> = &app.app.revocations;
    let held = std::sync::Arc::strong_count(revocations);
    let watch = revocations.watch(client.viewer());
    let size = size_of_val(&watch);
    assert!(size <= 160, "{size} bytes");
    drop(watch);
    assert_eq!(std::sync::Arc::strong_count(revocations), held);
    // Who comes too late finds it done.
    client.query(SIGN_OUT, json!({})).await;
    tokio::time::timeout(SOON, revocations.watch(client.viewer()))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_instance_hears_what_it_missed_when_the_database_is_back() {
    let folder = crate::support::folder::Folder::new("revocations");
    let mut server = dealstream::db::embedded::Embedded::start(folder.path()).unwrap();
    let url = server.url();
    dealstream::db::migrate::migrate(&url).await.unwrap();
    let one = TestApp::on(url.clone(), crate::support::app::config()).await;
    let other = TestApp::on(url.clone(), crate::support::app::config()).await;
    other.app.start().await.unwrap();
    let client = signed_up(&one, "tenant").await;
    let at_home = client.in_another_session();
    server.stop();
    tokio::time::timeout(Duration::from_secs(10), async {
        while other.app.db.ping().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let _server = dealstream::db::embedded::Embedded::start(folder.path()).unwrap();
    // The first may still hold connections that are gone.
    let signed_out = async {
        while client.answer(SIGN_OUT, json!({})).await["errors"].is_array() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), signed_out)
        .await
        .unwrap();
    until("it to be heard", || !client.is_known_to(&other.app)).await;
    assert!(at_home.is_known_to(&other.app));
}
