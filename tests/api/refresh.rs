//! Sessions are refreshed, listed and ended, and refresh tokens are good once.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use dealstream::db::id::{read_id, write_id};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::config;
use crate::support::recipes::PASSWORD;
use crate::support::{Client, TestApp};

const TOKENS: &str =
    "accessToken expiresAt refreshToken refreshExpiresAt viewer { role user { id } tenant { id } }";

/// Somebody with a session that can be refreshed.
struct Person {
    client: Client,
    email: String,
    refresh_token: String,
}

impl Person {
    fn of(client: Client, email: &str, payload: &Value) -> Self {
        Self {
            client,
            email: email.to_owned(),
            refresh_token: payload["refreshToken"].as_str().unwrap().to_owned(),
        }
    }

    async fn signed_up(app: &TestApp) -> Self {
        let email = format!("{}@test.example", Uuid::new_v4().simple());
        let input = json!({ "tenantName": "T", "name": "Grace", "email": email, "password": PASSWORD });
        let payload = app.anon().mutate("signUp", "SignUpInput", TOKENS, input).await;
        Self::of(
            app.with_token(payload["accessToken"].as_str().unwrap()).await,
            &email,
            &payload,
        )
    }

    /// The same person in a session of its own.
    async fn again(&self, app: &TestApp) -> Self {
        let tenant = write_id("tenant", self.client.viewer().tenant_id);
        let input = json!({ "email": self.email, "password": PASSWORD, "tenantId": tenant });
        let payload = app.anon().mutate("signIn", "SignInInput", TOKENS, input).await;
        Self::of(
            app.with_token(payload["accessToken"].as_str().unwrap()).await,
            &self.email,
            &payload,
        )
    }

    fn session(&self) -> Uuid {
        self.client.viewer().session_id
    }

    /// Says something about the session in the database.
    async fn set(&self, app: &TestApp, what: &str) {
        let update = format!("UPDATE sessions SET {what} WHERE id = '{}'", self.session());
        app.superuser().await.batch_execute(&update).await.unwrap();
    }

    /// As if the session had last been used so long ago.
    async fn age(&self, app: &TestApp, by: &str) {
        let what = format!(
            "created_at = created_at - interval '{by}', last_used_at = last_used_at - interval '{by}',
             expires_at = expires_at - interval '{by}', idle_at = idle_at - interval '{by}'"
        );
        self.set(app, &what).await;
    }

    async fn is_over(&self, app: &TestApp) -> bool {
        refresh(app, &self.refresh_token).await.is_none() && !self.client.is_known_to(&app.app)
    }
}

async fn answer(app: &TestApp, token: &str) -> Value {
    let document = format!(
        "mutation($input: RefreshSessionInput!) {{ refreshSession(input: $input) {{ {TOKENS} userErrors {{ code }} }} }}"
    );
    app.anon()
        .answer(&document, json!({ "input": { "refreshToken": token } }))
        .await
}

/// What a refresh token gets; nothing when it is refused, which is always in the same words.
async fn refresh(app: &TestApp, token: &str) -> Option<Value> {
    let mut answer = answer(app, token).await;
    if answer["errors"].is_null() {
        assert_eq!(answer["data"]["refreshSession"]["userErrors"], json!([]));
        return Some(answer["data"]["refreshSession"].take());
    }
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["message"], &error["extensions"]["code"]),
        (
            &json!("This session is over. Sign in again."),
            &json!("UNAUTHENTICATED")
        )
    );
    None
}

fn text(payload: &Value, field: &str) -> String {
    payload[field].as_str().unwrap().to_owned()
}

fn time(payload: &Value, field: &str) -> DateTime<Utc> {
    text(payload, field).parse().unwrap()
}

async fn events(app: &TestApp, person: &Person, kind: &str) -> i64 {
    let count = format!(
        "SELECT count(*) FROM events WHERE entity = 'session' AND kind = '{kind}' AND record_id = '{}'",
        person.session()
    );
    app.superuser().await.query_one(&count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_session_goes_on_with_new_tokens_each_time() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let mut token = person.refresh_token.clone();
    let (mut seen, mut last) = (vec![token.clone()], person.client.viewer().token_id);
    for _ in 0..4 {
        let payload = refresh(&app, &token).await.unwrap();
        let refreshed = app.with_token(&text(&payload, "accessToken")).await;
        let viewer = refreshed.viewer();
        assert_eq!(
            (viewer.session_id, viewer.user_id, viewer.tenant_id),
            (
                person.session(),
                person.client.viewer().user_id,
                person.client.viewer().tenant_id
            )
        );
        assert!(viewer.token_id > last, "tokens are named in their order");
        last = viewer.token_id;
        assert_eq!(
            payload["viewer"]["user"]["id"],
            json!(write_id("user", viewer.user_id))
        );
        token = text(&payload, "refreshToken");
        assert!(!seen.contains(&token));
        seen.push(token.clone());
        // Half an hour without being refreshed is its end, and a quarter that of the token.
        let (ends, idle) = (
            time(&payload, "expiresAt") - Utc::now(),
            time(&payload, "refreshExpiresAt") - Utc::now(),
        );
        assert!((840..=900).contains(&ends.num_seconds()) && (1740..=1800).contains(&idle.num_seconds()));
    }
    // Older access tokens are good for their time: a refresh takes nothing away.
    assert!(person.client.is_known_to(&app.app));
    assert_eq!(events(&app, &person, "SIGNED_IN").await, 1);
    assert_eq!(events(&app, &person, "REFRESH_TOKEN_REUSED").await, 0);
}

#[tokio::test]
async fn whoever_lost_the_answer_gets_the_same_again_for_a_moment() {
    let app = TestApp::new().await;
    let elsewhere = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let first = refresh(&app, &person.refresh_token).await.unwrap();
    let second = refresh(&elsewhere, &person.refresh_token).await.unwrap();
    assert_eq!(first["refreshToken"], second["refreshToken"]);
    person
        .set(&app, "last_used_at = last_used_at - interval '28 seconds'")
        .await;
    assert!(refresh(&app, &person.refresh_token).await.is_some());
    // The successor is good all the while.
    let next = refresh(&app, &text(&first, "refreshToken")).await.unwrap();
    assert_ne!(next["refreshToken"], first["refreshToken"]);
    assert_eq!(events(&app, &person, "REFRESH_TOKEN_REUSED").await, 0);
}

#[tokio::test]
async fn those_who_refresh_at_the_same_time_get_the_same() {
    let app = TestApp::new().await;
    let elsewhere = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let all = (0..16).map(|number| {
        let app = if number % 2 == 0 { &app } else { &elsewhere };
        refresh(app, &person.refresh_token)
    });
    let payloads = join_all(all).await;
    let successors: Vec<_> = payloads
        .iter()
        .flatten()
        .map(|payload| text(payload, "refreshToken"))
        .collect();
    assert_eq!(successors.len(), 16, "none is refused");
    assert!(successors.iter().all(|token| *token == successors[0]));
    assert!(refresh(&app, &successors[0]).await.is_some());
}

/// A thief with a copy of a refresh token: whichever of the two comes first, neither goes on for long.
#[tokio::test]
async fn a_stolen_token_ends_the_session_for_both_whoever_comes_first() {
    let app = TestApp::new().await;
    for victim_first in [true, false] {
        let person = Person::signed_up(&app).await;
        let other = person.again(&app).await;
        // Who comes first goes on as if nothing were, who comes later ends it, and nothing that was given is good.
        let first = refresh(&app, &person.refresh_token).await.unwrap();
        let first_client = app.with_token(&text(&first, "accessToken")).await;
        person
            .set(&app, "last_used_at = last_used_at - interval '31 seconds'")
            .await;
        let watch = app.app.revocations.watch(first_client.viewer());
        assert_eq!(
            refresh(&app, &person.refresh_token).await,
            None,
            "victim first: {victim_first}"
        );
        tokio::time::timeout(Duration::from_secs(8), watch)
            .await
            .expect("open sockets are told");
        assert!(!first_client.is_known_to(&app.app) && !person.client.is_known_to(&app.app));
        assert_eq!(refresh(&app, &text(&first, "refreshToken")).await, None);
        assert_eq!(events(&app, &person, "REFRESH_TOKEN_REUSED").await, 1);
        // It is told once, and other sessions are not concerned.
        assert_eq!(refresh(&app, &person.refresh_token).await, None);
        assert_eq!(events(&app, &person, "REFRESH_TOKEN_REUSED").await, 1);
        assert!(refresh(&app, &other.refresh_token).await.is_some());
    }
}

#[tokio::test]
async fn a_thief_within_the_grace_is_found_out_at_the_next_refresh() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    // Both have the same successor now.
    let thief = refresh(&app, &person.refresh_token).await.unwrap();
    let victim = refresh(&app, &person.refresh_token).await.unwrap();
    assert_eq!(thief["refreshToken"], victim["refreshToken"]);
    let next = refresh(&app, &text(&thief, "refreshToken")).await.unwrap();
    person
        .set(&app, "last_used_at = last_used_at - interval '15 minutes'")
        .await;
    assert_eq!(refresh(&app, &text(&victim, "refreshToken")).await, None);
    assert_eq!(refresh(&app, &text(&next, "refreshToken")).await, None);
}

#[tokio::test]
async fn a_token_from_further_back_has_no_grace() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let second = text(
        &refresh(&app, &person.refresh_token).await.unwrap(),
        "refreshToken",
    );
    let third = text(&refresh(&app, &second).await.unwrap(), "refreshToken");
    assert_eq!(refresh(&app, &person.refresh_token).await, None);
    for token in [second, third] {
        assert_eq!(refresh(&app, &token).await, None);
    }
    assert_eq!(events(&app, &person, "REFRESH_TOKEN_REUSED").await, 1);
}

#[tokio::test]
async fn only_a_refresh_token_is_a_refresh_token() {
    let app = TestApp::new().await;
    let (person, other) = (Person::signed_up(&app).await, Person::signed_up(&app).await);
    let good = &person.refresh_token;
    let (family, own) = good.split_at(4 + 43);
    let (of_other, _) = other.refresh_token.split_at(4 + 43);
    let access = person.client.token();
    for bad in [
        "",
        "dsr_",
        "null",
        "' OR '1'='1",
        "dsr_' OR '1'='1",
        &access,
        own,
        family,
        &format!("{of_other}x{}", &own[1..])[..50],
        &format!(" {good}"),
        &format!("{good}\n"),
        &format!("{good}{own}"),
        &good.to_uppercase(),
        &"dsr_".repeat(100_000),
        &format!("dsr_{}", "A".repeat(86)),
        &format!("dsr_{}\0", "A".repeat(85)),
        &write_id("session", person.session()),
        &person.session().to_string(),
    ] {
        assert_eq!(refresh(&app, bad).await, None, "{bad:.60}");
    }
    // And the reverse.
    let refused = app.app.authenticate(good).await.unwrap_err();
    assert_eq!(refused.code(), "UNAUTHENTICATED");
    assert!(refresh(&app, good).await.is_some() && refresh(&app, &other.refresh_token).await.is_some());
}

#[tokio::test]
async fn what_is_kept_signs_nobody_in() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let next = text(
        &refresh(&app, &person.refresh_token).await.unwrap(),
        "refreshToken",
    );
    let dump = format!(
        "SELECT s::text || (SELECT string_agg(e::text, '') FROM events e WHERE e.tenant_id = s.tenant_id)
           FROM sessions s WHERE id = '{}'",
        person.session()
    );
    let dump: String = app.superuser().await.query_one(&dump, &[]).await.unwrap().get(0);
    for token in [&person.refresh_token, &next] {
        for part in [&token[4..47], &token[47..]] {
            let hex: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(!dump.contains(part) && !dump.contains(&hex));
        }
    }
}

#[tokio::test]
async fn a_session_that_is_not_used_or_has_lasted_its_time_is_over() {
    let app = TestApp::new().await;
    let new = async || Person::signed_up(&app).await;
    let person = new().await;
    person.age(&app, "29 minutes").await;
    let on = refresh(&app, &person.refresh_token).await.unwrap();
    assert!(
        time(&on, "refreshExpiresAt") - Utc::now() > chrono::TimeDelta::minutes(28),
        "it begins to wait anew"
    );
    let idle = new().await;
    idle.age(&app, "30 minutes").await;
    assert_eq!(refresh(&app, &idle.refresh_token).await, None);
    // However often it is used: after seven days it is over, and no token is given for longer.
    let old = new().await;
    old.set(&app, "created_at = now() - interval '6 days 23 hours 55 minutes', expires_at = now() + interval '5 minutes'").await;
    let last = refresh(&app, &old.refresh_token).await.unwrap();
    let left = time(&last, "expiresAt") - Utc::now();
    assert!((200..=300).contains(&left.num_seconds()), "{left}");
    assert!(time(&last, "refreshExpiresAt") - Utc::now() <= chrono::TimeDelta::minutes(5));
    old.set(&app, "expires_at = now()").await;
    assert_eq!(refresh(&app, &text(&last, "refreshToken")).await, None);
    assert_eq!(events(&app, &old, "REFRESH_TOKEN_REUSED").await, 0);
}

#[tokio::test]
async fn a_tenant_says_how_long_its_sessions_last() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let say = async |input: Value| {
        let selection = "tenant { sessionDays idleMinutes }";
        let tenant = person
            .client
            .payload("updateTenant", "UpdateTenantInput", selection, input);
        tenant.await
    };
    for field in ["sessionDays", "idleMinutes"] {
        for wrong in [0, -1, 43_201, i32::MAX] {
            let problems = &say(json!({ field: wrong })).await["userErrors"];
            assert_eq!(problems[0]["code"], "OUT_OF_RANGE", "{field} {wrong}");
        }
    }
    // What gets shorter holds for those that go on.
    say(json!({ "idleMinutes": 5 })).await;
    let before = person.again(&app).await;
    let left = time(&refresh(&app, &before.refresh_token).await.unwrap(), "expiresAt") - Utc::now();
    assert!(
        left <= chrono::TimeDelta::minutes(5),
        "no token outlives its session: {left}"
    );
    person
        .set(&app, "last_used_at = now() - interval '5 minutes'")
        .await;
    assert_eq!(refresh(&app, &person.refresh_token).await, None);
    // What gets longer does not bring back what was over.
    say(json!({ "idleMinutes": 600 })).await;
    person.set(&app, "idle_at = now()").await;
    assert_eq!(refresh(&app, &person.refresh_token).await, None);
    let long = person.again(&app).await;
    long.age(&app, "9 hours").await;
    assert!(refresh(&app, &long.refresh_token).await.is_some());
    let said = say(json!({ "sessionDays": 1 })).await;
    assert_eq!(said["tenant"], json!({ "sessionDays": 1, "idleMinutes": 600 }));
    let person = long.again(&app).await;
    person
        .set(
            &app,
            "created_at = now() - interval '1 day', expires_at = now() + interval '6 days'",
        )
        .await;
    assert_eq!(refresh(&app, &person.refresh_token).await, None);
}

#[tokio::test]
async fn no_session_survives_its_end() {
    let app = TestApp::new().await;
    let admin = Person::signed_up(&app).await;
    let person = async || {
        let email = format!("{}@test.example", Uuid::new_v4().simple());
        let input = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "SALES" });
        admin
            .client
            .mutate("createUser", "CreateUserInput", "user { id }", input)
            .await;
        let input = json!({ "email": email, "password": PASSWORD });
        let payload = app.anon().mutate("signIn", "SignInInput", TOKENS, input).await;
        Person::of(
            app.with_token(&text(&payload, "accessToken")).await,
            &email,
            &payload,
        )
    };
    let id = |person: &Person| write_id("user", person.client.viewer().user_id);

    let gone = person().await;
    gone.client
        .query("mutation { signOut { position } }", json!({}))
        .await;
    assert!(gone.is_over(&app).await, "after signing out");

    let gone = person().await;
    let off = json!({ "userId": id(&gone), "isActive": false });
    admin
        .client
        .mutate("updateUser", "UpdateUserInput", "__typename", off)
        .await;
    assert!(gone.is_over(&app).await, "when deactivated");
    let on = json!({ "userId": id(&gone), "isActive": true });
    admin
        .client
        .mutate("updateUser", "UpdateUserInput", "__typename", on)
        .await;
    assert!(gone.is_over(&app).await, "it does not come back");

    let gone = person().await;
    let delete = json!({ "userId": id(&gone) });
    admin
        .client
        .mutate("deleteUser", "DeleteUserInput", "__typename", delete)
        .await;
    assert!(gone.is_over(&app).await, "when removed");

    // Somebody who is in a second tenant too.
    let (kept, at_home) = (person().await, person().await);
    let other_tenant = Person::signed_up(&app).await;
    let input = json!({ "name": "G", "email": kept.email, "password": PASSWORD, "role": "VIEWER" });
    other_tenant
        .client
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    // As if they had proved meanwhile that the address is theirs.
    let verified = format!(
        "UPDATE users SET awaits_verification = false WHERE email = '{}'",
        kept.email
    );
    app.superuser().await.batch_execute(&verified).await.unwrap();
    let there = {
        let tenant = write_id("tenant", other_tenant.client.viewer().tenant_id);
        let input = json!({ "email": kept.email, "password": PASSWORD, "tenantId": tenant });
        let payload = app.anon().mutate("signIn", "SignInInput", TOKENS, input).await;
        Person::of(
            app.with_token(&text(&payload, "accessToken")).await,
            &kept.email,
            &payload,
        )
    };
    let twice = kept.again(&app).await;
    let input = json!({ "currentPassword": PASSWORD, "newPassword": "another password" });
    kept.client
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    assert!(
        twice.is_over(&app).await && there.is_over(&app).await,
        "with another password"
    );
    assert!(
        refresh(&app, &kept.refresh_token).await.is_some(),
        "but the one that changed it"
    );
    assert!(
        refresh(&app, &at_home.refresh_token).await.is_some(),
        "and other people's"
    );
}

#[tokio::test]
async fn another_role_makes_tokens_stale_and_the_session_goes_on_with_the_new_rights() {
    let app = TestApp::new().await;
    let admin = Person::signed_up(&app).await;
    let email = format!("{}@test.example", Uuid::new_v4().simple());
    let input = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "SALES" });
    let user = admin
        .client
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    let input = json!({ "email": email, "password": PASSWORD });
    let payload = app.anon().mutate("signIn", "SignInInput", TOKENS, input).await;
    let sales = Person::of(
        app.with_token(&text(&payload, "accessToken")).await,
        &email,
        &payload,
    );
    let watch = app.app.revocations.watch(sales.client.viewer());
    let update = json!({ "userId": user["user"]["id"], "role": "VIEWER" });
    admin
        .client
        .mutate("updateUser", "UpdateUserInput", "__typename", update)
        .await;
    tokio::time::timeout(Duration::from_secs(8), watch)
        .await
        .expect("who is subscribed with the old rights is told");
    assert!(!sales.client.is_known_to(&app.app));
    let payload = refresh(&app, &sales.refresh_token).await.unwrap();
    assert_eq!(payload["viewer"]["role"], "VIEWER");
    let refreshed = app.with_token(&text(&payload, "accessToken")).await;
    assert_eq!(refreshed.viewer().session_id, sales.session());
    let document = r#"mutation { createCompany(input: { name: "C" }) { position } }"#;
    assert_eq!(refreshed.code(document, json!({})).await, "FORBIDDEN");
    // Another instance, which hears of it later, knows the old token for as long and the new one at once.
    let elsewhere = TestApp::new().await;
    elsewhere.app.start().await.unwrap();
    assert!(refreshed.is_known_to(&elsewhere.app) && !sales.client.is_known_to(&elsewhere.app));
}

/// Whoever refreshes while they are shut out gets nothing that lasts.
#[tokio::test]
async fn no_refresh_slips_past_a_change_that_happens_at_the_same_time() {
    let app = TestApp::new().await;
    let admin = Person::signed_up(&app).await;
    for round in 0..12 {
        let email = format!("{}@test.example", Uuid::new_v4().simple());
        let input = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "SALES" });
        let user = admin
            .client
            .mutate("createUser", "CreateUserInput", "user { id }", input)
            .await;
        let input = json!({ "email": email, "password": PASSWORD });
        let payload = app.anon().mutate("signIn", "SignInInput", TOKENS, input).await;
        let change = match round % 3 {
            0 => json!({ "userId": user["user"]["id"], "isActive": false }),
            1 => json!({ "userId": user["user"]["id"], "role": "VIEWER" }),
            _ => json!({ "userId": user["user"]["id"], "role": "MARKETING" }),
        };
        let token = text(&payload, "refreshToken");
        let (refreshed, _) = futures::join!(
            refresh(&app, &token),
            admin
                .client
                .mutate("updateUser", "UpdateUserInput", "__typename", change.clone())
        );
        let Some(refreshed) = refreshed else { continue };
        if let Ok(viewer) = app.app.authenticate(&text(&refreshed, "accessToken")).await {
            assert_eq!(
                json!(viewer.rights.role.as_str()),
                change["role"],
                "with the new rights or not at all"
            );
        }
        let next = refresh(&app, &text(&refreshed, "refreshToken")).await;
        assert_eq!(next.is_none(), round % 3 == 0, "{change}");
    }
}

const SESSIONS: &str =
    "{ sessions { id isCurrent createdAt lastUsedAt endsAt expiresAt userAgent address } }";

#[tokio::test]
async fn one_sees_ones_own_sessions_and_ends_them() {
    let app = TestApp::new().await;
    let elsewhere = TestApp::new().await;
    elsewhere.app.start().await.unwrap();
    let here = Person::signed_up(&app).await;
    let (phone, laptop) = (here.again(&app).await, here.again(&app).await);
    Person::signed_up(&app).await;
    let colleague = app.user(&here.client, dealstream::auth::Role::Admin).await;
    phone
        .set(
            &app,
            "user_agent = 'Phone', address = '192.0.2.7', last_used_at = last_used_at - interval '1 minute'",
        )
        .await;
    let data = here.client.query(SESSIONS, json!({})).await;
    let listed: Vec<_> = data["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| text(it, "id"))
        .collect();
    let id = |person: &Person| write_id("session", person.session());
    assert_eq!(
        listed,
        [id(&laptop), id(&here), id(&phone)],
        "the last used first"
    );
    assert_eq!(data["sessions"][1]["isCurrent"], true);
    assert_eq!(data["sessions"][0]["isCurrent"], false);
    let of_phone = &data["sessions"][2];
    assert_eq!(
        (&of_phone["userAgent"], &of_phone["address"]),
        (&json!("Phone"), &json!("192.0.2.7"))
    );
    assert_eq!(
        time(of_phone, "expiresAt") - time(of_phone, "createdAt"),
        chrono::TimeDelta::days(7)
    );
    assert!(time(of_phone, "endsAt") < time(of_phone, "expiresAt"));
    assert_eq!(colleague.query(SESSIONS, json!({})).await["sessions"], json!([]));

    // Nobody ends another's session, of whatever tenant or rights.
    let revoke = async |client: &Client, session: &str| {
        let input = json!({ "sessionId": session });
        client
            .payload("revokeSession", "RevokeSessionInput", "revokedSessionId", input)
            .await
    };
    let refused = revoke(&colleague, &id(&phone)).await;
    assert_eq!(refused["userErrors"][0]["code"], "NOT_FOUND");
    let watch = elsewhere.app.revocations.watch(phone.client.viewer());
    let began = Instant::now();
    assert_eq!(
        revoke(&here.client, &id(&phone)).await["revokedSessionId"],
        json!(id(&phone))
    );
    assert!(phone.is_over(&app).await);
    tokio::time::timeout(Duration::from_secs(8), watch)
        .await
        .unwrap_or_else(|_| panic!("{:?}", began.elapsed()));
    assert_eq!(refresh(&elsewhere, &phone.refresh_token).await, None);
    assert_eq!(
        revoke(&here.client, &id(&phone)).await["userErrors"][0]["code"],
        "NOT_FOUND"
    );
    assert_eq!(events(&app, &phone, "REVOKED").await, 1);

    let tablet = here.again(&app).await;
    let revoke_others = async || {
        let document = "mutation { revokeOtherSessions { position userErrors { code } } }";
        let client = here.client.with_idempotency_key("others");
        client.query(document, json!({})).await
    };
    let revoked = revoke_others().await;
    assert!(laptop.is_over(&app).await && tablet.is_over(&app).await);
    assert!(here.client.is_known_to(&app.app));
    let data = here.client.query("{ sessions { id } }", json!({})).await;
    assert_eq!(data["sessions"], json!([{ "id": id(&here) }]));
    let later = here.again(&app).await;
    // A retry does not end what has begun since.
    assert_eq!(revoke_others().await, revoked);
    assert!(later.client.is_known_to(&app.app) && refresh(&app, &later.refresh_token).await.is_some());
    assert!(refresh(&app, &here.refresh_token).await.is_some());
    // Sessions that ended or wait too long are not shown.
    later.age(&app, "31 minutes").await;
    let data = here.client.query("{ sessions { id } }", json!({})).await;
    assert_eq!(data["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(read_id(&text(&data["sessions"][0], "id")).unwrap().0, "session");
}

#[tokio::test]
async fn a_session_knows_where_it_was_last_used_from() {
    use crate::support::wire::Wire;
    let app = TestApp::on(crate::support::app::database_url().await, config()).await;
    let wire = Wire::serve(app.app.clone()).await;
    let person = Person::signed_up(&app).await;
    let query = format!(
        "mutation {{ refreshSession(input: {{ refreshToken: \"{}\" }}) {{ accessToken }} }}",
        person.refresh_token
    );
    let reply = wire
        .post(
            "user-agent: Curl of Grace\r\nx-forwarded-for: 203.0.113.9",
            &query,
        )
        .await
        .json();
    let token = text(&reply["data"]["refreshSession"], "accessToken");
    let data = app.with_token(&token).await.query(SESSIONS, json!({})).await;
    assert_eq!(data["sessions"][0]["userAgent"], "Curl of Grace");
    // Nobody was told to believe the header.
    assert_eq!(data["sessions"][0]["address"], "127.0.0.1");
}

#[tokio::test]
async fn sessions_that_ended_a_while_ago_are_cleared_away() {
    let app = TestApp::new().await;
    let person = Person::signed_up(&app).await;
    let (expired, ended, on) = (
        person.again(&app).await,
        person.again(&app).await,
        person.again(&app).await,
    );
    expired
        .set(&app, "expires_at = now() - interval '25 hours'")
        .await;
    ended.set(&app, "ended_at = now() - interval '25 hours'").await;
    let last = person.again(&app).await;
    let left = format!(
        "SELECT id::text FROM sessions WHERE user_id = '{}' ORDER BY id",
        person.client.viewer().user_id
    );
    let rows = app.superuser().await.query(&left, &[]).await.unwrap();
    let left: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [&person, &on, &last].map(|it| it.session().to_string()));
}
