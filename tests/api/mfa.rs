//! Second factors: setting them up, getting in with them, and what attackers try.

use chrono::Utc;
use dealstream::auth::{Origin, Policy, Role};
use dealstream::db::id::write_id;
use dealstream::identity::mfa;
use futures::future::join_all;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};
use uuid::Uuid;

use crate::support::app::config;
use crate::support::counter;
use crate::support::mail::{self, mailing, postman};
use crate::support::recipes::{PASSWORD, fail_trail, is_waited_for, signed_up};
use crate::support::{Client, TestApp};

/// A person with a second factor.
pub struct Person {
    client: Client,
    pub email: String,
    /// In base 32.
    pub secret: String,
    /// The code that confirmed the second factor. A test that says it anew by the clock gets another one now and then.
    confirmed_with: String,
    recovery_codes: Vec<String>,
}

async fn email_of(client: &Client) -> String {
    let data = client.query("{ viewer { user { email } } }", json!({})).await;
    data["viewer"]["user"]["email"].as_str().unwrap().to_owned()
}

/// The code of the current step, or of one so many steps later.
pub fn code(secret: &str, steps: i64) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_secret(secret).build_noncompliant();
    let moment = Utc::now().timestamp() + 30 * steps;
    totp.generate(moment.try_into().unwrap()).to_string()
}

/// A code that is wrong at this time.
fn wrong(secret: &str) -> String {
    let near: Vec<String> = (-2..=2).map(|steps| code(secret, steps)).collect();
    let mut codes = (0..).map(|number| format!("{number:06}"));
    codes.find(|code| !near.contains(code)).unwrap()
}

async fn begin(client: &Client, input: Value) -> Value {
    let selection = "secret otpauthUri";
    client
        .payload("beginTotpEnrolment", "BeginTotpEnrolmentInput", selection, input)
        .await
}

async fn confirm(client: &Client, input: Value) -> Value {
    let selection = "recoveryCodes signedIn { accessToken secondFactor { token } }";
    client
        .payload(
            "confirmTotpEnrolment",
            "ConfirmTotpEnrolmentInput",
            selection,
            input,
        )
        .await
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Sets a second factor up for somebody who has signed in.
pub async fn enrol(client: &Client) -> Person {
    let begun = begin(client, json!({ "password": PASSWORD })).await;
    let secret = begun["secret"].as_str().unwrap().to_owned();
    let code = code(&secret, 0);
    let confirmed = confirm(client, json!({ "code": code })).await;
    assert_eq!(confirmed["userErrors"], json!([]));
    Person {
        client: client.clone(),
        email: email_of(client).await,
        secret,
        confirmed_with: code,
        recovery_codes: texts(&confirmed["recoveryCodes"]),
    }
}

async fn person(app: &TestApp) -> Person {
    enrol(&signed_up(app, "guarded").await).await
}

/// A further user of a client's tenant, who signs in with a password.
async fn colleague(app: &TestApp, of: &Client, role: Role) -> (Client, String) {
    let email = format!("{}@test.example", Uuid::new_v4().simple());
    let input = json!({ "name": "Colleague", "email": email, "password": PASSWORD, "role": role.as_str() });
    of.mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    let payload = sign_in(app, &email, None).await;
    (
        app.with_token(payload["accessToken"].as_str().unwrap()).await,
        email,
    )
}

async fn sign_in(app: &TestApp, email: &str, tenant: Option<&Client>) -> Value {
    let tenant = tenant.map(|client| write_id("tenant", client.viewer().tenant_id));
    let selection = "accessToken expiresAt viewer { role } secondFactor { token expiresAt methods }";
    let input = json!({ "email": email, "password": PASSWORD, "tenantId": tenant });
    app.anon()
        .payload("signIn", "SignInInput", selection, input)
        .await
}

/// Shows the password; answers the token for the second factor.
pub async fn half(app: &TestApp, email: &str) -> String {
    let payload = sign_in(app, email, None).await;
    assert_eq!(payload["accessToken"], Value::Null, "{payload}");
    payload["secondFactor"]["token"].as_str().unwrap().to_owned()
}

/// The whole answer to the second half of signing in.
pub async fn verify(app: &TestApp, token: &str, code: &str) -> Value {
    let document = "mutation($input: VerifySecondFactorInput!) { verifySecondFactor(input: $input) {
        accessToken position viewer { user { hasSecondFactor } recoveryCodesLeft } secondFactor { token }
        userErrors { field code message } } }";
    let input = json!({ "token": token, "code": code });
    app.anon().answer(document, json!({ "input": input })).await
}

/// What came of it: `IN`, or the code of the refusal.
pub fn outcome(answer: &Value) -> String {
    let payload = &answer["data"]["verifySecondFactor"];
    let refusal = [
        &answer["errors"][0]["extensions"]["code"],
        &payload["userErrors"][0]["code"],
    ];
    match refusal.into_iter().find_map(Value::as_str) {
        Some(code) => code.to_owned(),
        None => {
            assert!(payload["accessToken"].is_string(), "{answer}");
            "IN".to_owned()
        }
    }
}

fn refusal(payload: &Value) -> &str {
    payload["userErrors"][0]["code"].as_str().unwrap_or("none")
}

/// As if a long time had passed since the last code.
async fn later(app: &TestApp, person: &Person) {
    let sql = format!(
        "UPDATE second_factors SET last_step = 0 WHERE account_id = (SELECT id FROM accounts WHERE email = '{}')",
        person.email
    );
    app.superuser().await.batch_execute(&sql).await.unwrap();
}

/// What the audit trail of the tenant tells of second factors.
async fn told(app: &TestApp, client: &Client) -> Vec<(String, Value)> {
    let sql = format!(
        "SELECT kind, detail FROM audit_entries WHERE tenant_id = '{}' AND entity = 'second_factor' ORDER BY sequence",
        client.viewer().tenant_id
    );
    let rows = app.superuser().await.query(&sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), serde_json::from_str(row.get(1)).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_second_factor_is_set_up_and_then_needed() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "guarded").await;
    let email = email_of(&client).await;
    let elsewhere = client.in_another_session();
    let refused = begin(&client, json!({ "password": "not the password" })).await;
    assert_eq!((refusal(&refused), &refused["secret"]), ("INVALID", &Value::Null));
    let begun = begin(&client, json!({ "password": PASSWORD })).await;
    let secret = begun["secret"].as_str().unwrap();
    let uri = begun["otpauthUri"].as_str().unwrap();
    assert!(
        uri.starts_with("otpauth://totp/Dealstream:") && uri.contains(secret),
        "{uri}"
    );
    // What has only begun counts for nothing.
    assert!(sign_in(&app, &email, None).await["accessToken"].is_string());
    assert_eq!(
        refusal(&confirm(&client, json!({ "code": wrong(secret) })).await),
        "INVALID"
    );
    assert!(sign_in(&app, &email, None).await["accessToken"].is_string());
    let confirmed = confirm(&client, json!({ "code": code(secret, 0) })).await;
    let codes = texts(&confirmed["recoveryCodes"]);
    assert_eq!((codes.len(), &confirmed["signedIn"]), (10, &Value::Null));
    let data = client
        .query(
            "{ viewer { recoveryCodesLeft user { hasSecondFactor } } }",
            json!({}),
        )
        .await;
    assert_eq!(
        data["viewer"],
        json!({ "recoveryCodesLeft": 10, "user": { "hasSecondFactor": true } })
    );
    assert!(app.app.authenticate(&client.token()).await.is_ok());
    assert!(
        app.app.authenticate(&elsewhere.token()).await.is_err(),
        "it was begun without"
    );
    assert_eq!(
        refusal(&begin(&client, json!({ "password": PASSWORD })).await),
        "DUPLICATE"
    );
    assert_eq!(
        refusal(&confirm(&client, json!({ "code": code(secret, 1) })).await),
        "DUPLICATE"
    );

    let payload = sign_in(&app, &email, None).await;
    assert_eq!(
        (&payload["accessToken"], &payload["viewer"], &payload["expiresAt"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        payload["secondFactor"]["methods"],
        json!(["TOTP", "RECOVERY_CODE"])
    );
    let token = payload["secondFactor"]["token"].as_str().unwrap();
    assert!(app.app.authenticate(token).await.is_err(), "it opens nothing");
    let answer = verify(&app, token, &code(secret, 1)).await;
    let payload = &answer["data"]["verifySecondFactor"];
    assert_eq!(payload["secondFactor"], Value::Null);
    let again = app.with_token(payload["accessToken"].as_str().unwrap()).await;
    assert_eq!(again.viewer().user_id, client.viewer().user_id);
    again.query("{ tenant { mfaRequired } }", json!({})).await;
    assert_eq!(
        outcome(&verify(&app, token, &codes[0]).await),
        "UNAUTHENTICATED",
        "once only"
    );
    let kinds: Vec<String> = told(&app, &client).await.into_iter().map(|it| it.0).collect();
    assert_eq!(kinds, ["REFUSED", "ENABLED", "VERIFIED"]);
}

#[tokio::test]
async fn nothing_secret_is_kept_or_told() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let token = half(&app, &person.email).await;
    assert_eq!(
        outcome(&verify(&app, &token, &person.recovery_codes[0]).await),
        "IN"
    );
    let token = half(&app, &person.email).await;
    let secret = Secret::try_from_base32(&person.secret).unwrap();
    let superuser = app.superuser().await;
    let sealed: Vec<u8> = superuser
        .query_one(
            "SELECT secret FROM second_factors JOIN accounts ON id = account_id WHERE email = $1",
            &[&person.email],
        )
        .await
        .unwrap()
        .get(0);
    assert!(
        !sealed
            .windows(4)
            .any(|part| secret.as_ref().windows(4).any(|it| it == part))
    );
    let history = format!("{:?}", told(&app, &person.client).await);
    let pending = superuser
        .query("SELECT row_to_json(p)::text FROM pending_sign_ins p", &[])
        .await
        .unwrap();
    let pending: String = pending.iter().map(|row| row.get::<_, String>(0)).collect();
    for secret in person.recovery_codes.iter().chain([&token, &person.secret]) {
        assert!(!history.contains(secret) && !pending.contains(secret));
    }
}

#[tokio::test]
async fn a_code_is_taken_once() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    // Not even the one that confirmed the second factor.
    let token = half(&app, &person.email).await;
    let (first, second) = (person.confirmed_with.clone(), code(&person.secret, 1));
    assert_eq!(outcome(&verify(&app, &token, &first).await), "INVALID");
    assert_eq!(outcome(&verify(&app, &token, &second).await), "IN");
    let token = half(&app, &person.email).await;
    assert_eq!(outcome(&verify(&app, &token, &second).await), "INVALID");
    // Nor one from before a code that was taken.
    assert_eq!(outcome(&verify(&app, &token, &first).await), "INVALID");
    later(&app, &person).await;
    let token = half(&app, &person.email).await;
    assert_eq!(
        outcome(&verify(&app, &token, &code(&person.secret, 0)).await),
        "IN"
    );
}

#[tokio::test]
async fn of_a_code_that_comes_many_times_at_once_one_gets_in() {
    let (app, other) = (TestApp::new().await, TestApp::new().await);
    let person = person(&app).await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(half(&app, &person.email).await);
    }
    let code = code(&person.secret, 1);
    let tries = tokens.iter().enumerate().map(|(number, token)| {
        let app = if number % 2 == 0 { &app } else { &other };
        verify(app, token, &code)
    });
    let mut outcomes: Vec<String> = join_all(tries).await.iter().map(outcome).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["IN", "INVALID", "INVALID", "INVALID"]);
}

#[tokio::test]
async fn of_many_codes_with_one_token_at_once_one_gets_in() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let token = half(&app, &person.email).await;
    let tries = person
        .recovery_codes
        .iter()
        .take(4)
        .map(|code| verify(&app, &token, code));
    let mut outcomes: Vec<String> = join_all(tries).await.iter().map(outcome).collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        ["IN", "UNAUTHENTICATED", "UNAUTHENTICATED", "UNAUTHENTICATED"]
    );
    let left = person
        .client
        .query("{ viewer { recoveryCodesLeft } }", json!({}))
        .await;
    assert_eq!(
        left["viewer"]["recoveryCodesLeft"], 9,
        "the others were not used up"
    );
}

#[tokio::test]
async fn who_guesses_is_stopped_by_the_token_and_by_the_account() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let token = half(&app, &person.email).await;
    let guess = wrong(&person.secret);
    for _ in 0..4 {
        assert_eq!(outcome(&verify(&app, &token, &guess).await), "INVALID");
    }
    assert_eq!(outcome(&verify(&app, &token, &guess).await), "UNAUTHENTICATED");
    let right = code(&person.secret, 1);
    assert_eq!(
        outcome(&verify(&app, &token, &right).await),
        "UNAUTHENTICATED",
        "it is void"
    );
    // Another token, and an instance that has seen nothing of it.
    let other = TestApp::new().await;
    let token = half(&other, &person.email).await;
    let refused = verify(&other, &token, &right).await;
    assert_eq!(outcome(&refused), "RATE_LIMITED");
    let wait = refused["errors"][0]["extensions"]["retryAfter"].as_i64().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Whoever owns the second factor is not shut out.
    assert_eq!(
        outcome(&verify(&other, &token, &person.recovery_codes[3]).await),
        "IN"
    );
    // The next wrong one makes the wait longer.
    let aged = format!(
        "UPDATE second_factors SET failed_at = failed_at - interval '61 seconds'
          WHERE account_id = (SELECT id FROM accounts WHERE email = '{}')",
        person.email
    );
    let superuser = app.superuser().await;
    superuser.batch_execute(&aged).await.unwrap();
    let token = half(&other, &person.email).await;
    assert_eq!(outcome(&verify(&other, &token, &guess).await), "INVALID");
    superuser.batch_execute(&aged).await.unwrap();
    assert_eq!(outcome(&verify(&other, &token, &right).await), "RATE_LIMITED");
    superuser.batch_execute(&aged).await.unwrap();
    later(&app, &person).await;
    assert_eq!(
        outcome(&verify(&other, &token, &code(&person.secret, 0)).await),
        "IN"
    );
}

#[tokio::test]
async fn guesses_at_once_are_all_counted() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let (guess, token) = (wrong(&person.secret), half(&app, &person.email).await);
    let tries = (0..12).map(|_| verify(&app, &token, &guess));
    let outcomes: Vec<String> = join_all(tries).await.iter().map(outcome).collect();
    let of = |kind: &str| outcomes.iter().filter(|it| *it == kind).count();
    let (looked_at, ended, waits) = (of("INVALID"), of("UNAUTHENTICATED"), of("RATE_LIMITED"));
    assert_eq!(looked_at + ended + waits, 12, "{outcomes:?}");
    // Four are told that they were wrong. The fifth is counted, too, and is told that it was the last.
    assert_eq!(looked_at, 4, "{outcomes:?}");
    let counted = format!(
        "SELECT failures FROM second_factors WHERE account_id = (SELECT id FROM accounts WHERE email = '{}')",
        person.email
    );
    let row = app.superuser().await.query_one(&counted, &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 5, "{outcomes:?}");
}

#[tokio::test]
async fn a_recovery_code_is_used_once_and_new_ones_end_the_old() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let token = half(&app, &person.email).await;
    let typed = person.recovery_codes[0].to_uppercase().replace('-', " ");
    let answer = verify(&app, &token, &typed).await;
    assert_eq!(outcome(&answer), "IN");
    assert_eq!(
        answer["data"]["verifySecondFactor"]["viewer"]["recoveryCodesLeft"],
        9
    );
    let token = half(&app, &person.email).await;
    assert_eq!(
        outcome(&verify(&app, &token, &person.recovery_codes[0]).await),
        "INVALID"
    );
    assert_eq!(
        told(&app, &person.client).await[1],
        (
            "VERIFIED".to_owned(),
            json!({ "method": "RECOVERY_CODE", "left": 9 })
        )
    );
    let regenerate = async |input: Value| {
        let (field, ty) = ("regenerateRecoveryCodes", "RegenerateRecoveryCodesInput");
        person.client.payload(field, ty, "recoveryCodes", input).await
    };
    assert_eq!(refusal(&regenerate(json!({})).await), "REQUIRED");
    assert_eq!(refusal(&regenerate(json!({ "password": "no" })).await), "INVALID");
    assert_eq!(
        refusal(&regenerate(json!({ "code": wrong(&person.secret) })).await),
        "INVALID"
    );
    let both = json!({ "code": code(&person.secret, 1), "password": PASSWORD });
    assert_eq!(refusal(&regenerate(both).await), "INVALID");
    let fresh = regenerate(json!({ "code": code(&person.secret, 1) })).await;
    let fresh = texts(&fresh["recoveryCodes"]);
    assert_eq!(
        outcome(&verify(&app, &token, &person.recovery_codes[1]).await),
        "INVALID"
    );
    assert_eq!(outcome(&verify(&app, &token, &fresh[0]).await), "IN");
    let fresh = regenerate(json!({ "password": PASSWORD })).await;
    assert_eq!(texts(&fresh["recoveryCodes"]).len(), 10);
}

#[tokio::test]
async fn a_token_for_the_second_factor_ends_with_its_time_the_password_and_the_user() {
    let app = TestApp::new().await;
    let admin = signed_up(&app, "guarded").await;
    let (client, email) = colleague(&app, &admin, Role::Sales).await;
    let person = enrol(&client).await;
    let superuser = app.superuser().await;
    let void = async |token: &str| {
        let answer = verify(&app, token, &person.recovery_codes[0]).await;
        assert_eq!(outcome(&answer), "UNAUTHENTICATED");
        answer["errors"].clone()
    };
    let token = half(&app, &email).await;
    let aged = format!(
        "UPDATE pending_sign_ins SET expires_at = now() - interval '1 second' WHERE tenant_id = '{}'",
        client.viewer().tenant_id
    );
    superuser.batch_execute(&aged).await.unwrap();
    let expired = void(&token).await;
    assert_eq!(void("").await, expired, "nothing tells what is wrong with it");
    assert_eq!(void(&"A".repeat(64)).await, expired);
    // What belongs to one tenant is not found in another.
    let token = half(&app, &email).await;
    let other = signed_up(&app, "other").await;
    let moved = {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        bytes[..16].copy_from_slice(other.viewer().tenant_id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    };
    assert_eq!(void(&moved).await, expired);
    let input = json!({ "currentPassword": PASSWORD, "newPassword": "another horse battery" });
    client
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    assert_eq!(void(&token).await, expired);
    let input = json!({ "currentPassword": "another horse battery", "newPassword": PASSWORD });
    client
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    let token = half(&app, &email).await;
    let user = write_id("user", client.viewer().user_id);
    let input = json!({ "userId": user, "isActive": false });
    admin
        .mutate("updateUser", "UpdateUserInput", "__typename", input)
        .await;
    assert_eq!(void(&token).await, expired);
}

#[tokio::test]
async fn a_second_factor_guards_every_tenant_of_a_person() {
    let app = TestApp::new().await;
    let other = signed_up(&app, "other").await;
    let client = signed_up(&app, "own").await;
    let email = email_of(&client).await;
    let input = json!({ "name": "Guest", "email": email, "password": PASSWORD, "role": "VIEWER" });
    let guest = other
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    app.verify(&email).await;
    let person = enrol(&client).await;
    // What a person has elsewhere is not told here, before they have shown it here.
    let seen = async || {
        let document = "query($id: ID!) { user(id: $id) { hasSecondFactor } }";
        let data = other.query(document, json!({ "id": guest["user"]["id"] })).await;
        data["user"]["hasSecondFactor"].clone()
    };
    assert_eq!(seen().await, false);
    let payload = sign_in(&app, &email, Some(&other)).await;
    assert_eq!(payload["accessToken"], Value::Null, "{payload}");
    let token = payload["secondFactor"]["token"].as_str().unwrap();
    let answer = verify(&app, token, &code(&person.secret, 1)).await;
    let there = app
        .with_token(
            answer["data"]["verifySecondFactor"]["accessToken"]
                .as_str()
                .unwrap(),
        )
        .await;
    assert_eq!(there.viewer().tenant_id, other.viewer().tenant_id);
    assert_eq!(seen().await, true);
    // The admin of one tenant cannot weaken what guards another.
    let reset = async |by: &Client| {
        let input = json!({ "userId": guest["user"]["id"] });
        by.payload(
            "resetSecondFactor",
            "ResetSecondFactorInput",
            "user { id }",
            input,
        )
        .await
    };
    let refused = reset(&other).await;
    assert_eq!(
        (refusal(&refused), &refused["userErrors"][0]["field"]),
        ("NOT_ALLOWED", &json!(["input", "userId"]))
    );
    assert!(half(&app, &email).await.len() > 40);
    // Given up in one tenant, it is gone in all.
    let input = json!({ "password": PASSWORD });
    client
        .mutate("disableTotp", "DisableTotpInput", "__typename", input)
        .await;
    assert_eq!(seen().await, false);
    assert!(app.app.authenticate(&there.token()).await.is_err());
    assert!(app.app.authenticate(&client.token()).await.is_ok());
    assert!(sign_in(&app, &email, Some(&other)).await["accessToken"].is_string());
}

#[tokio::test]
async fn a_second_factor_is_given_up_with_a_code_or_the_password() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "guarded").await;
    let disable = async |input: Value| {
        client
            .payload("disableTotp", "DisableTotpInput", "__typename", input)
            .await
    };
    assert_eq!(
        refusal(&disable(json!({ "password": PASSWORD })).await),
        "NOT_ALLOWED"
    );
    let person = enrol(&client).await;
    assert_eq!(refusal(&disable(json!({})).await), "REQUIRED");
    assert_eq!(refusal(&disable(json!({ "password": "no" })).await), "INVALID");
    assert_eq!(
        refusal(&disable(json!({ "code": wrong(&person.secret) })).await),
        "INVALID"
    );
    assert_eq!(
        refusal(&disable(json!({ "code": person.confirmed_with })).await),
        "INVALID",
        "a replay"
    );
    assert!(half(&app, &person.email).await.len() > 40);
    assert_eq!(
        refusal(&disable(json!({ "code": code(&person.secret, 1) })).await),
        "none"
    );
    assert!(sign_in(&app, &person.email, None).await["accessToken"].is_string());
    // Another begins with another secret.
    let again = enrol(&client).await;
    assert_ne!(again.secret, person.secret);
    let token = half(&app, &person.email).await;
    assert_eq!(
        outcome(&verify(&app, &token, &person.recovery_codes[0]).await),
        "INVALID"
    );
    assert_eq!(
        outcome(&verify(&app, &token, &again.recovery_codes[0]).await),
        "IN"
    );
}

#[tokio::test]
async fn a_tenant_can_want_a_second_factor_of_everybody() {
    let app = TestApp::new().await;
    let admin = signed_up(&app, "strict").await;
    let (member, email) = colleague(&app, &admin, Role::Sales).await;
    let require = async |wanted: bool| {
        let input = json!({ "mfaRequired": wanted });
        admin
            .payload(
                "updateTenant",
                "UpdateTenantInput",
                "tenant { mfaRequired }",
                input,
            )
            .await
    };
    let refused = require(true).await;
    assert_eq!(
        (refusal(&refused), &refused["userErrors"][0]["field"]),
        ("NOT_ALLOWED", &json!(["input", "mfaRequired"])),
        "nobody shuts themselves out"
    );
    enrol(&admin).await;
    assert_eq!(require(true).await["tenant"]["mfaRequired"], true);
    assert!(app.app.authenticate(&admin.token()).await.is_ok());
    assert!(
        app.app.authenticate(&member.token()).await.is_err(),
        "it was begun without"
    );

    let payload = sign_in(&app, &email, None).await;
    assert_eq!(payload["accessToken"], Value::Null);
    assert_eq!(payload["secondFactor"]["methods"], json!(["ENROL"]));
    let token = payload["secondFactor"]["token"].as_str().unwrap();
    assert_eq!(
        outcome(&verify(&app, token, "123456").await),
        "NOT_ALLOWED",
        "it is for setting one up"
    );
    let anon = app.anon();
    let begun = begin(&anon, json!({ "token": token })).await;
    let secret = begun["secret"].as_str().unwrap();
    assert_eq!(
        refusal(&confirm(&anon, json!({ "token": token, "code": wrong(secret) })).await),
        "INVALID"
    );
    let confirmed = confirm(&anon, json!({ "token": token, "code": code(secret, 0) })).await;
    let codes = texts(&confirmed["recoveryCodes"]);
    assert_eq!(codes.len(), 10);
    let inside = app
        .with_token(confirmed["signedIn"]["accessToken"].as_str().unwrap())
        .await;
    assert_eq!(inside.viewer().user_id, member.viewer().user_id);
    inside.query("{ tenant { name } }", json!({})).await;
    let document =
        "mutation($input: BeginTotpEnrolmentInput!) { beginTotpEnrolment(input: $input) { secret } }";
    let input = json!({ "input": { "token": token } });
    assert_eq!(
        anon.code(document, input).await,
        "UNAUTHENTICATED",
        "the token is used up"
    );
    // And a token for showing one is not for setting another up.
    let shows = half(&app, &email).await;
    assert_eq!(
        refusal(&begin(&anon, json!({ "token": shows })).await),
        "DUPLICATE"
    );
    assert_eq!(
        refusal(&confirm(&anon, json!({ "token": shows, "code": code(secret, 1) })).await),
        "DUPLICATE"
    );

    let input = json!({ "password": PASSWORD });
    let kept = inside
        .payload("disableTotp", "DisableTotpInput", "__typename", input.clone())
        .await;
    assert_eq!(refusal(&kept), "NOT_ALLOWED");
    assert_eq!(require(false).await["tenant"]["mfaRequired"], false);
    inside
        .mutate("disableTotp", "DisableTotpInput", "__typename", input)
        .await;
    assert!(sign_in(&app, &email, None).await["accessToken"].is_string());
}

#[tokio::test]
async fn an_admin_resets_the_second_factor_of_who_has_lost_it() {
    let app = TestApp::new().await;
    let admin = signed_up(&app, "tenant").await;
    let (member, email) = colleague(&app, &admin, Role::Sales).await;
    let reset = async |of: &Client| {
        let input = json!({ "userId": write_id("user", of.viewer().user_id) });
        let selection = "user { hasSecondFactor }";
        admin
            .payload("resetSecondFactor", "ResetSecondFactorInput", selection, input)
            .await
    };
    assert_eq!(refusal(&reset(&member).await), "NOT_ALLOWED", "there is none");
    enrol(&member).await;
    enrol(&admin).await;
    assert_eq!(
        refusal(&reset(&admin).await),
        "NOT_ALLOWED",
        "a stolen session could do that"
    );
    let token = half(&app, &email).await;
    // That somebody else has added them to another tenant takes nothing from their own.
    add(&app.tenant().await, &email).await;
    assert_eq!(reset(&member).await["user"]["hasSecondFactor"], false);
    assert!(app.app.authenticate(&member.token()).await.is_err());
    assert_ne!(outcome(&verify(&app, &token, "123456").await), "IN");
    assert!(sign_in(&app, &email, None).await["accessToken"].is_string());
    let kinds: Vec<String> = told(&app, &admin).await.into_iter().map(|it| it.0).collect();
    assert_eq!(kinds[..3], ["ENABLED", "ENABLED", "RESET"]);
    let colleague = app.user(&admin, Role::Viewer).await;
    let data = colleague
        .query("{ users { nodes { hasSecondFactor } } }", json!({}))
        .await;
    let seen: Vec<&Value> = data["users"]["nodes"].as_array().unwrap().iter().collect();
    let told = seen
        .iter()
        .filter(|user| !user["hasSecondFactor"].is_null())
        .count();
    assert_eq!(told, 1, "oneself only: {data}");
}

const TOKENS: &str = "accessToken refreshToken secondFactor { token methods }";

/// Makes a person, known by their address, a user of a client's tenant.
async fn add(to: &Client, email: &str) {
    let input = json!({ "name": "Guest", "email": email, "password": PASSWORD, "role": "VIEWER" });
    to.mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
}

async fn switch(client: &Client, to: &Client) -> Value {
    let input = json!({ "tenantId": write_id("tenant", to.viewer().tenant_id) });
    client
        .payload("switchTenant", "SwitchTenantInput", TOKENS, input)
        .await
}

/// Whether a refresh token is good.
async fn refreshes(app: &TestApp, payload: &Value) -> bool {
    let document = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken } }";
    let input = json!({ "input": { "refreshToken": payload["refreshToken"] } });
    let answer = app.anon().answer(document, input).await;
    answer["data"]["refreshSession"]["accessToken"].is_string()
}

async fn require(admin: &Client, wanted: bool) {
    let input = json!({ "mfaRequired": wanted });
    admin
        .mutate("updateTenant", "UpdateTenantInput", "__typename", input)
        .await;
}

/// A session of somebody who signs in with a password, and with a code when they have a second factor.
async fn session(app: &TestApp, email: &str, recovery_code: Option<&str>) -> Value {
    let input = json!({ "email": email, "password": PASSWORD });
    let payload = app.anon().payload("signIn", "SignInInput", TOKENS, input).await;
    let Some(code) = recovery_code else {
        return payload;
    };
    let input = json!({ "token": payload["secondFactor"]["token"], "code": code });
    app.anon()
        .payload("verifySecondFactor", "VerifySecondFactorInput", TOKENS, input)
        .await
}

#[tokio::test]
async fn a_session_without_a_second_factor_is_not_refreshed_where_one_is_wanted() {
    let app = TestApp::new().await;
    let admin = signed_up(&app, "strict").await;
    let (_, email) = colleague(&app, &admin, Role::Sales).await;
    let person = enrol(&admin).await;
    let (one, other) = (
        session(&app, &email, None).await,
        session(&app, &email, None).await,
    );
    let guarded = session(&app, &person.email, Some(&person.recovery_codes[0])).await;
    assert!(refreshes(&app, &one).await);
    // Not even if its end has been missed.
    let wanted = format!(
        "UPDATE tenants SET mfa_required = true WHERE id = '{}'",
        admin.viewer().tenant_id
    );
    let superuser = app.superuser().await;
    superuser.batch_execute(&wanted).await.unwrap();
    assert!(!refreshes(&app, &other).await);
    assert!(refreshes(&app, &guarded).await);
    superuser
        .batch_execute(&wanted.replace("true", "false"))
        .await
        .unwrap();
    assert!(refreshes(&app, &other).await, "it had not ended");
    let third = session(&app, &email, None).await;
    require(&admin, true).await;
    require(&admin, false).await;
    assert!(!refreshes(&app, &third).await, "it has ended");
    assert!(sign_in(&app, &email, None).await["accessToken"].is_string());
}

#[tokio::test]
async fn the_session_in_which_a_second_factor_is_set_up_goes_on() {
    let app = TestApp::new().await;
    let admin = signed_up(&app, "strict").await;
    let (_, email) = colleague(&app, &admin, Role::Sales).await;
    enrol(&admin).await;
    let payload = session(&app, &email, None).await;
    let client = app.with_token(payload["accessToken"].as_str().unwrap()).await;
    enrol(&client).await;
    require(&admin, true).await;
    assert!(refreshes(&app, &payload).await);
}

#[tokio::test]
async fn another_tenant_is_entered_with_what_it_wants() {
    let app = TestApp::new().await;
    let strict = signed_up(&app, "strict").await;
    enrol(&strict).await;
    let own = signed_up(&app, "own").await;
    let email = email_of(&own).await;
    add(&strict, &email).await;
    app.verify(&email).await;
    assert!(switch(&own, &strict).await["accessToken"].is_string());
    require(&strict, true).await;
    // Who has none sets one up, and is in then.
    let payload = switch(&own, &strict).await;
    assert_eq!(payload["accessToken"], Value::Null);
    assert_eq!(payload["refreshToken"], Value::Null);
    assert_eq!(payload["secondFactor"]["methods"], json!(["ENROL"]));
    let token = &payload["secondFactor"]["token"];
    let begun = begin(&app.anon(), json!({ "token": token })).await;
    let secret = begun["secret"].as_str().unwrap();
    let confirmed = confirm(&app.anon(), json!({ "token": token, "code": code(secret, 0) })).await;
    let there = confirmed["signedIn"]["accessToken"].as_str().unwrap();
    assert_eq!(
        app.with_token(there).await.viewer().tenant_id,
        strict.viewer().tenant_id
    );
    assert!(
        app.app.authenticate(&own.token()).await.is_err(),
        "it was begun without"
    );
    // Who has one has shown it for the session that they come with.
    let codes = texts(&confirmed["recoveryCodes"]);
    let payload = session(&app, &email, Some(&codes[0])).await;
    let guarded = app.with_token(payload["accessToken"].as_str().unwrap()).await;
    let payload = switch(&guarded, &strict).await;
    assert!(payload["accessToken"].is_string() && refreshes(&app, &payload).await);
    // And if they had not, they would have to.
    let without = format!(
        "UPDATE sessions SET by_second_factor = false WHERE id = '{}'",
        guarded.viewer().session_id
    );
    app.superuser().await.batch_execute(&without).await.unwrap();
    let payload = switch(&guarded, &strict).await;
    assert_eq!(payload["accessToken"], Value::Null);
    assert_eq!(
        payload["secondFactor"]["methods"],
        json!(["TOTP", "RECOVERY_CODE"])
    );
    let answer = verify(
        &app,
        payload["secondFactor"]["token"].as_str().unwrap(),
        &codes[1],
    )
    .await;
    assert_eq!(outcome(&answer), "IN");
}

#[tokio::test]
async fn founding_another_tenant_with_a_password_gets_nobody_past_their_second_factor() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let input =
        json!({ "tenantName": "Another", "name": "Grace", "email": person.email, "password": PASSWORD });
    let payload = app.anon().payload("signUp", "SignUpInput", TOKENS, input).await;
    assert_eq!(payload["accessToken"], Value::Null);
    let token = payload["secondFactor"]["token"].as_str().unwrap();
    let answer = verify(&app, token, &person.recovery_codes[0]).await;
    assert_eq!(outcome(&answer), "IN");
    let token = answer["data"]["verifySecondFactor"]["accessToken"]
        .as_str()
        .unwrap();
    let there = app.with_token(token).await;
    assert_ne!(there.viewer().tenant_id, person.client.viewer().tenant_id);
    let data = there
        .query("{ tenant { name } viewer { role } }", json!({}))
        .await;
    assert_eq!(
        data,
        json!({ "tenant": { "name": "Another" }, "viewer": { "role": "ADMIN" } })
    );
}

#[tokio::test]
async fn neither_a_reset_password_nor_an_invitation_gets_anybody_past_their_second_factor() {
    let app = mailing().await;
    let client = signed_up(&app, "guarded").await;
    app.verify(&email_of(&client).await).await;
    let person = enrol(&client).await;
    let inviter = app.tenant().await;
    let invite = async || {
        let earlier = postman().to(&person.email).len();
        let input = json!({ "email": person.email, "role": "SALES" });
        inviter
            .mutate("inviteUser", "InviteUserInput", "__typename", input)
            .await;
        postman().nth(&person.email, earlier + 1).await.token()
    };
    let pending = half(&app, &person.email).await;
    let earlier = postman().to(&person.email).len();
    let input = json!({ "email": person.email });
    let (field, ty) = ("requestPasswordReset", "RequestPasswordResetInput");
    app.anon().mutate(field, ty, "__typename", input).await;
    let link = postman().nth(&person.email, earlier + 1).await.token();
    let changed = "another horse battery";
    let input = json!({ "token": link, "newPassword": changed });
    app.anon()
        .mutate("resetPassword", "ResetPasswordInput", "__typename", input)
        .await;
    assert_eq!(
        outcome(&verify(&app, &pending, &person.recovery_codes[0]).await),
        "UNAUTHENTICATED",
        "with the old password nobody gets on"
    );
    let input = json!({ "email": person.email, "password": changed });
    let payload = app.anon().payload("signIn", "SignInInput", TOKENS, input).await;
    assert_eq!(payload["accessToken"], Value::Null);

    let input = json!({ "token": invite().await, "name": "Guest", "password": changed });
    let payload = app
        .anon()
        .payload("acceptInvitation", "AcceptInvitationInput", TOKENS, input)
        .await;
    assert_eq!(payload["accessToken"], Value::Null, "{payload}");
    let token = payload["secondFactor"]["token"].as_str().unwrap();
    let answer = verify(&app, token, &person.recovery_codes[0]).await;
    let token = answer["data"]["verifySecondFactor"]["accessToken"]
        .as_str()
        .unwrap();
    assert_eq!(
        app.with_token(token).await.viewer().tenant_id,
        inviter.viewer().tenant_id
    );
}

#[tokio::test]
async fn api_keys_go_on_and_have_nothing_to_do_with_second_factors() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "guarded").await;
    let (field, ty) = ("createApiKey", "CreateApiKeyInput");
    let input = json!({ "name": "Export", "permissions": ["USERS_READ", "USERS_WRITE", "TENANT_READ"] });
    let key = client.mutate(field, ty, "secret", input).await;
    let key = key["secret"].as_str().unwrap();
    let person = enrol(&client).await;
    let (colleague, _) = colleague(&app, &client, Role::Viewer).await;
    enrol(&colleague).await;
    require(&client, true).await;
    let program = app.identified(key).await.unwrap();
    program.query("{ tenant { mfaRequired } }", json!({})).await;
    let user = write_id("user", colleague.viewer().user_id);
    for (field, ty, input) in [
        (
            "beginTotpEnrolment",
            "BeginTotpEnrolmentInput",
            json!({ "password": PASSWORD }),
        ),
        (
            "confirmTotpEnrolment",
            "ConfirmTotpEnrolmentInput",
            json!({ "code": "123456" }),
        ),
        ("disableTotp", "DisableTotpInput", json!({ "password": PASSWORD })),
        (
            "regenerateRecoveryCodes",
            "RegenerateRecoveryCodesInput",
            json!({ "code": person.recovery_codes[0] }),
        ),
        (
            "resetSecondFactor",
            "ResetSecondFactorInput",
            json!({ "userId": user }),
        ),
    ] {
        let document = format!("mutation($input: {ty}!) {{ {field}(input: $input) {{ position }} }}");
        assert_eq!(
            program.code(&document, json!({ "input": input })).await,
            "FORBIDDEN",
            "{field}"
        );
    }
    let left = client.query("{ viewer { recoveryCodesLeft } }", json!({})).await;
    assert_eq!(left["viewer"]["recoveryCodesLeft"], 10);
}

#[tokio::test]
async fn where_mail_is_sent_only_who_has_proved_their_address_sets_a_second_factor_up() {
    let app = mailing().await;
    let client = signed_up(&app, "unproved").await;
    let begun = begin(&client, json!({ "password": PASSWORD })).await;
    assert_eq!(refusal(&begun), "NOT_ALLOWED");
    app.verify(&email_of(&client).await).await;
    enrol(&client).await;
}

#[tokio::test]
async fn what_comes_from_a_session_ends_with_it_and_does_not_come_from_one_that_has_ended() {
    let app = TestApp::new().await;
    let (own, other) = (signed_up(&app, "own").await, signed_up(&app, "other").await);
    let email = email_of(&own).await;
    add(&other, &email).await;
    app.verify(&email).await;
    let superuser = app.superuser().await;
    let set = async |what: &str| {
        let set = format!(
            "UPDATE sessions SET {what} WHERE id = '{}'",
            own.viewer().session_id
        );
        superuser.batch_execute(&set).await.unwrap();
    };
    set("expires_at = date_trunc('second', now()) + interval '1 hour'").await;
    for to in [&own, &other] {
        let there = switch(&own, to).await;
        let there = app.with_token(there["accessToken"].as_str().unwrap()).await;
        let ends = superuser
            .query_one(
                "SELECT a.expires_at = b.expires_at FROM sessions a, sessions b WHERE a.id = $1::text::uuid AND b.id = $2::text::uuid",
                &[&own.viewer().session_id.to_string(), &there.viewer().session_id.to_string()],
            )
            .await
            .unwrap();
        assert!(ends.get::<_, bool>(0), "no later than where it comes from");
    }
    // As when it is revoked on another instance at this moment.
    set("ended_at = now()").await;
    for to in [&own, &other] {
        assert_eq!(refusal(&switch(&own, to).await), "NOT_FOUND");
    }
}

#[tokio::test]
async fn nobody_waits_for_others_of_their_network_with_a_connection_or_locks_in_hand() {
    counter::install();
    let app = TestApp::new().await;
    let person = person(&app).await;
    let origin = Origin::new(Some("203.0.113.9".parse().unwrap()), None, "test");
    let limiter = app.app.limiter.clone();
    let (network, account) = (Policy::SignInNetwork, Policy::SignInAccount);
    let ahead = limiter
        .attempt(network, &origin, account, "somebody")
        .await
        .unwrap();
    let client = person.client.with_origin(origin.clone());
    let code = code(&person.secret, 1);
    counter::take();
    let asked = tokio::spawn(async move {
        let input = json!({ "code": code });
        client
            .payload("disableTotp", "DisableTotpInput", "__typename", input)
            .await
    });
    while counter::take().statements.is_empty() {
        tokio::task::yield_now().await;
    }
    app.settle().await;
    assert!(!asked.is_finished());
    ahead.succeeded().await;
    assert_eq!(asked.await.unwrap()["userErrors"], json!([]));
}

#[tokio::test]
async fn a_second_factor_waits_for_sessions_that_begin_without_it() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "guarded").await;
    let email = email_of(&client).await;
    let begun = begin(&client, json!({ "password": PASSWORD })).await;
    let secret = begun["secret"].as_str().unwrap().to_owned();
    // As whoever begins a session in another tenant, and has seen no second factor.
    let mut superuser = app.superuser().await;
    let beginning = superuser.transaction().await.unwrap();
    beginning
        .execute("SELECT FROM accounts WHERE email = $1 FOR SHARE", &[&email])
        .await
        .unwrap();
    let asked = tokio::spawn({
        let client = client.clone();
        async move { confirm(&client, json!({ "code": code(&secret, 0) })).await }
    });
    is_waited_for(&app, &beginning).await;
    assert!(!asked.is_finished());
    beginning.commit().await.unwrap();
    assert_eq!(asked.await.unwrap()["userErrors"], json!([]));
}

#[tokio::test]
async fn the_operator_helps_who_has_lost_everything_and_their_tenants_are_told() {
    let app = TestApp::new().await;
    let person = person(&app).await;
    let second = app.tenant().await;
    let input = json!({ "name": "G", "email": person.email, "password": PASSWORD, "role": "SALES" });
    second
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    let (db, hub) = (&app.app.db, &app.app.hub);
    let address = format!(" {} ", person.email.to_uppercase());
    let told_operator = mfa::reset_second_factor(db, hub, &address, false).await.unwrap();
    assert!(told_operator.contains(&person.email), "{told_operator}");
    let detail = json!({ "by": "OPERATOR" });
    for tenant in [&person.client, &second] {
        assert_eq!(
            told(&app, tenant).await.last(),
            Some(&("RESET".to_owned(), detail.clone()))
        );
    }
    let ended = "SELECT count(*) FROM sessions WHERE user_id = $1::text::uuid AND ended_at IS NULL";
    let row = app
        .superuser()
        .await
        .query_one(ended, &[&person.client.viewer().user_id.to_string()])
        .await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0, "no session goes on");
    let payload = sign_in(&app, &person.email, None).await;
    assert!(payload["accessToken"].is_string(), "{payload}");
    let codes = "SELECT count(*) FROM recovery_codes JOIN accounts ON id = account_id WHERE email = $1";
    let row = app.superuser().await.query_one(codes, &[&person.email]).await;
    assert_eq!(row.unwrap().get::<_, i64>(0), 0);
    // There is nothing to be taken away now, nor of somebody who is not there.
    for email in [&person.email, "nobody@test.example"] {
        assert!(mfa::reset_second_factor(db, hub, email, false).await.is_err());
    }
}

#[tokio::test]
async fn a_reset_that_stops_half_way_is_completed_by_the_next() {
    let app = TestApp::on(mail::database("half_a_reset").await, config()).await;
    let person = person(&app).await;
    let (second, third) = (app.tenant().await, app.tenant().await);
    for tenant in [&second, &third] {
        let input = json!({ "name": "G", "email": person.email, "password": PASSWORD, "role": "SALES" });
        tenant
            .mutate("createUser", "CreateUserInput", "user { id }", input)
            .await;
    }
    let tenants = [&person.client, &second, &third];
    fail_trail(&app, &second).await;
    let (db, hub) = (&app.app.db, &app.app.hub);
    let resets = async || {
        let mut counts = Vec::new();
        for tenant in tenants {
            let all = told(&app, tenant).await;
            counts.push(all.iter().filter(|(kind, _)| kind == "RESET").count());
        }
        counts
    };
    let reset = async |again: bool| mfa::reset_second_factor(db, hub, &person.email, again).await;
    let enrol_anew = async || {
        let payload = sign_in(&app, &person.email, None).await;
        let token = payload["accessToken"].as_str().expect("no second factor");
        enrol(&app.with_token(token).await).await;
    };
    let untold = write_id("tenant", second.viewer().tenant_id);
    let problem = reset(false).await.unwrap_err();
    assert!(
        problem.contains(&untold) && problem.contains("again"),
        "{problem}"
    );
    assert_eq!(resets().await, [1, 0, 1], "the others are told");
    // Who sets up another meanwhile does not lose it by that, however often it is run while the trail fails.
    enrol_anew().await;
    let problem = reset(false).await.unwrap_err();
    assert!(
        problem.contains(&untold) && problem.contains("--again"),
        "{problem}"
    );
    half(&app, &person.email).await;
    assert_eq!(resets().await, [1, 0, 1]);
    // Unless that is what the operator asks for: a trail that keeps failing does not keep them from it.
    let problem = reset(true).await.unwrap_err();
    assert!(problem.contains(&untold), "{problem}");
    assert_eq!(resets().await, [2, 0, 2]);
    let problem = reset(true).await.unwrap_err();
    assert!(problem.contains(&untold), "{problem}");
    assert_eq!(resets().await, [2, 0, 2], "there was nothing to be taken away");
    enrol_anew().await;
    let superuser = app.superuser().await;
    superuser
        .batch_execute("DROP TRIGGER fail ON audit_entries")
        .await
        .unwrap();
    let completed = reset(false).await.unwrap();
    assert!(completed.contains("before"), "{completed}");
    assert_eq!(resets().await, [2, 1, 2], "who was not told is told once");
    half(&app, &person.email).await;
    // The other is taken away by a call of its own, of which all are told again.
    reset(false).await.unwrap();
    assert_eq!(resets().await, [3, 2, 3]);
    for again in [false, true] {
        assert!(reset(again).await.is_err());
    }
}

#[tokio::test]
async fn whoever_gets_no_session_keeps_the_recovery_codes_that_are_shown_once() {
    let app = TestApp::on(mail::database("codes_without_session").await, config()).await;
    let admin = signed_up(&app, "strict").await;
    enrol(&admin).await;
    let (_, email) = colleague(&app, &admin, Role::Sales).await;
    admin
        .mutate(
            "updateTenant",
            "UpdateTenantInput",
            "tenant { id }",
            json!({ "mfaRequired": true }),
        )
        .await;
    let token = half(&app, &email).await;
    let begun = begin(&app.anon(), json!({ "token": token })).await;
    let secret = begun["secret"].as_str().unwrap();
    let superuser = app.superuser().await;
    let fail =
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no session'; END $$;
                CREATE TRIGGER fail BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION fail()";
    superuser.batch_execute(fail).await.unwrap();
    let input = json!({ "token": token, "code": code(secret, 0) });
    let confirmed = confirm(&app.anon(), input).await;
    assert_eq!(confirmed["signedIn"], Value::Null, "{confirmed}");
    let codes = texts(&confirmed["recoveryCodes"]);
    assert_eq!(codes.len(), 10);
    superuser
        .batch_execute("DROP TRIGGER fail ON sessions")
        .await
        .unwrap();
    let token = half(&app, &email).await;
    assert_eq!(outcome(&verify(&app, &token, &codes[0]).await), "IN");
}

#[tokio::test]
async fn a_tenant_that_adds_somebody_by_itself_cannot_keep_them_from_giving_their_second_factor_up() {
    let app = TestApp::new().await;
    let (person, other) = (person(&app).await, signed_up(&app, "strict").await);
    enrol(&other).await;
    add(&other, &person.email).await;
    app.verify(&person.email).await;
    let input = json!({ "mfaRequired": true });
    other
        .mutate("updateTenant", "UpdateTenantInput", "tenant { id }", input)
        .await;
    let input = json!({ "password": PASSWORD });
    person
        .client
        .mutate("disableTotp", "DisableTotpInput", "__typename", input)
        .await;
    // There it is wanted all the same.
    let asked = sign_in(&app, &person.email, Some(&other)).await;
    assert_eq!(asked["secondFactor"]["methods"], json!(["ENROL"]), "{asked}");
}
