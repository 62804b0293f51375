//! Forgotten passwords, verified addresses and signing up: what a mailed link is good for, and what nothing tells.

use dealstream::auth::{Origin, Role};
use dealstream::config::SignUp;
use dealstream::db::id::write_id;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::counter;
use crate::support::mail::{self, mailing, mailing_with, postman, with_mail};
use crate::support::recipes::{PASSWORD, signed_up};
use crate::support::{Client, TestApp};

const OWN: &str = "a password of one's own";

fn address() -> String {
    format!("{}@test.example", Uuid::new_v4().simple())
}

async fn sign_in(app: &TestApp, email: &str, password: &str, tenant: Option<&Client>) -> Option<Client> {
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let tenant = tenant.map(|tenant| write_id("tenant", tenant.viewer().tenant_id));
    let input = json!({ "email": email, "password": password, "tenantId": tenant });
    let answer = app.anon().answer(document, json!({ "input": input })).await;
    let token = answer["data"]["signIn"]["accessToken"].as_str()?;
    Some(app.with_token(token).await)
}

fn refusal(payload: &Value) -> (&str, &str) {
    let error = &payload["userErrors"][0];
    let field = error["field"].as_array().and_then(|path| path.last()?.as_str());
    (
        field.unwrap_or_default(),
        error["code"].as_str().unwrap_or("none"),
    )
}

async fn email_of(client: &Client) -> String {
    let me = client.query("{ viewer { user { email } } }", json!({})).await;
    me["viewer"]["user"]["email"].as_str().unwrap().to_owned()
}

async fn request_reset(client: &Client, email: &str) -> Value {
    let input = json!({ "email": email });
    client
        .payload(
            "requestPasswordReset",
            "RequestPasswordResetInput",
            "__typename",
            input,
        )
        .await
}

async fn reset(client: &Client, token: &str, password: &str) -> Value {
    let input = json!({ "token": token, "newPassword": password });
    client
        .payload("resetPassword", "ResetPasswordInput", "__typename", input)
        .await
}

async fn verify(client: &Client, token: &str) -> Value {
    let input = json!({ "token": token });
    client
        .payload("verifyEmail", "VerifyEmailInput", "__typename", input)
        .await
}

async fn is_verified(client: &Client) -> bool {
    let me = client.query("{ viewer { isEmailVerified } }", json!({})).await;
    me["viewer"]["isEmailVerified"].as_bool().unwrap()
}

/// A person whose account their tenant's admin has made, with a first password.
async fn made_by(admin: &Client, email: &str, role: &str) -> Value {
    let input = json!({ "name": "Linus", "email": email, "password": PASSWORD, "role": role });
    admin
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await
}

#[tokio::test]
async fn a_forgotten_password_is_set_anew_by_a_link_that_is_used_once() {
    let app = mailing().await;
    let grace = signed_up(&app, "tenant").await;
    let email = email_of(&grace).await;
    let (one, two) = (
        sign_in(&app, &email, PASSWORD, None).await.unwrap(),
        grace.in_another_session(),
    );
    assert_eq!(
        request_reset(&app.anon(), &email.to_uppercase()).await["userErrors"],
        json!([])
    );
    let mail = postman().nth(&email, 1).await;
    assert_eq!(mail.page(), "reset-password");
    request_reset(&app.anon(), &email).await;
    let other_token = postman().nth(&email, 2).await.token();
    let token = mail.token();
    for (password, refused) in [
        ("short", ("newPassword", "INVALID")),
        ("1234567890", ("newPassword", "INVALID")),
        (&email, ("newPassword", "INVALID")),
        (&"x".repeat(1025), ("newPassword", "TOO_LONG")),
    ] {
        assert_eq!(refusal(&reset(&app.anon(), &token, password).await), refused);
    }
    let done = reset(&app.anon(), &token, OWN).await;
    assert_eq!(done["userErrors"], json!([]));
    for client in [&grace, &one, &two] {
        assert!(app.app.revocations.revokes(client.viewer()), "every session ends");
    }
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    let again = sign_in(&app, &email, OWN, None).await.unwrap();
    assert!(
        is_verified(&again).await,
        "who has read the mail has proved the address"
    );
    // Neither this link nor the other one works any more, and the answers are alike.
    let used = reset(&app.anon(), &token, PASSWORD).await;
    assert_eq!(refusal(&used), ("token", "NOT_FOUND"));
    let long = "A".repeat(100_000);
    for token in [&other_token, "", "\0", &long, &token[1..]] {
        assert_eq!(reset(&app.anon(), token, PASSWORD).await, used);
    }
    assert!(sign_in(&app, &email, OWN, None).await.is_some());
}

/// The secret of a new API key.
async fn key_of(client: &Client) -> String {
    let input = json!({ "name": "Export", "permissions": ["DEALS_READ"] });
    let made = client
        .mutate("createApiKey", "CreateApiKeyInput", "secret", input)
        .await;
    made["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reset_revokes_the_persons_api_keys_everywhere_and_nobody_elses() {
    let app = mailing().await;
    let grace = signed_up(&app, "keys").await;
    let email = email_of(&grace).await;
    let second = app.tenant().await;
    made_by(&second, &email, "ADMIN").await;
    app.verify(&email).await;
    let there = sign_in(&app, &email, PASSWORD, Some(&second)).await.unwrap();
    let (home, away, another) = (key_of(&grace).await, key_of(&there).await, key_of(&second).await);
    // One's own change of the password leaves them alone.
    let changed = json!({ "currentPassword": PASSWORD, "newPassword": "another good password" });
    grace
        .mutate("changePassword", "ChangePasswordInput", "__typename", changed)
        .await;
    for key in [&home, &away, &another] {
        assert!(app.identified(key).await.is_ok());
    }
    let program = app.identified(&away).await.unwrap();
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 1).await.token();
    assert_eq!(reset(&app.anon(), &token, OWN).await["userErrors"], json!([]));
    assert!(
        app.app.revocations.revokes(program.viewer()),
        "its open sockets end"
    );
    for key in [&home, &away] {
        assert!(app.identified(key).await.is_err());
    }
    assert!(app.identified(&another).await.is_ok());
    let again = sign_in(&app, &email, OWN, Some(&grace)).await.unwrap();
    assert_eq!(
        again.query("{ apiKeys { id } }", json!({})).await["apiKeys"],
        json!([])
    );
    let trail = again
        .query("{ auditEvents(first: 20) { nodes { entity kind } } }", json!({}))
        .await;
    let told = trail["auditEvents"]["nodes"].as_array().unwrap();
    for (entity, kind) in [("user", "PASSWORD_RESET"), ("api_key", "DELETED")] {
        assert!(
            told.contains(&json!({ "entity": entity, "kind": kind })),
            "{trail}"
        );
    }
}

#[tokio::test]
async fn an_expired_link_and_one_for_something_else_reset_nothing() {
    let app = mailing().await;
    let grace = signed_up(&app, "tenant").await;
    let email = email_of(&grace).await;
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 1).await.token();
    let expire = "UPDATE links SET expires_at = now() - interval '1 second' WHERE email = $1";
    app.superuser().await.execute(expire, &[&email]).await.unwrap();
    assert_eq!(
        refusal(&reset(&app.anon(), &token, OWN).await),
        ("token", "NOT_FOUND")
    );
    grace
        .query(
            "mutation { requestEmailVerification { userErrors { code } } }",
            json!({}),
        )
        .await;
    let for_verifying = postman().nth(&email, 2).await;
    assert_eq!(for_verifying.page(), "verify-email");
    let token = for_verifying.token();
    assert_eq!(
        refusal(&reset(&app.anon(), &token, OWN).await),
        ("token", "NOT_FOUND")
    );
    assert_eq!(
        verify(&grace, &token).await["userErrors"],
        json!([]),
        "it was not used up by that"
    );
}

#[tokio::test]
async fn of_two_who_use_one_link_at_the_same_time_one_is_refused() {
    let app = mailing().await;
    let grace = signed_up(&app, "tenant").await;
    let email = email_of(&grace).await;
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 1).await.token();
    let (one, two) = (app.anon(), app.anon());
    let (first, second) = futures::join!(
        reset(&one, &token, OWN),
        reset(&two, &token, "another of one's own")
    );
    let mut codes = [refusal(&first), refusal(&second)];
    codes.sort_unstable();
    assert_eq!(codes, [("", "none"), ("token", "NOT_FOUND")]);
    let won = if refusal(&first).1 == "none" {
        OWN
    } else {
        "another of one's own"
    };
    assert!(sign_in(&app, &email, won, None).await.is_some());
}

#[tokio::test]
async fn asking_for_a_new_password_tells_nothing_of_whether_the_address_is_known() {
    counter::install();
    let app = TestApp::on(mail::database("resetting").await, with_mail(1)).await;
    let grace = signed_up(&app, "tenant").await;
    let known = email_of(&grace).await;
    request_reset(&app.anon(), &address()).await;
    let mut seen = Vec::new();
    for email in [&known, &address()] {
        app.settle().await;
        counter::take();
        let answer = request_reset(&app.anon(), email).await;
        app.settle().await;
        seen.push((answer, counter::take().statements));
    }
    assert_eq!(seen[0].0, seen[1].0);
    let kinds = |statements: &[String]| -> Vec<String> {
        let kind = |statement: &String| statement.split(" -- ").next().unwrap().to_owned();
        statements.iter().map(kind).collect()
    };
    assert_eq!(kinds(&seen[0].1), kinds(&seen[1].1), "the same statements");
    assert!(seen[0].1.len() >= 3);
}

#[tokio::test]
async fn signing_in_runs_the_same_statements_for_known_and_unknown_addresses() {
    counter::install();
    let app = TestApp::new().await;
    let grace = signed_up(&app, "tenant").await;
    let known = email_of(&grace).await;
    sign_in(&app, &address(), PASSWORD, None).await;
    let mut seen = Vec::new();
    for email in [&address(), &known] {
        app.settle().await;
        counter::take();
        assert!(sign_in(&app, email, "not the password", None).await.is_none());
        let statements = counter::take().statements.into_iter();
        let kind = |statement: String| statement.split(" -- ").next().unwrap().to_owned();
        seen.push(statements.map(kind).collect::<Vec<_>>());
    }
    assert!(!seen[0].is_empty());
    // What is noted in the trail of the account's tenants is noted aside, once the answer is on its way.
    assert_eq!(seen[0], seen[1][..seen[0].len()]);
}

#[tokio::test]
async fn an_address_is_verified_by_who_reads_its_mail_and_is_signed_in() {
    let app = mailing().await;
    let (grace, other) = (signed_up(&app, "tenant").await, signed_up(&app, "other").await);
    let email = email_of(&grace).await;
    assert!(!is_verified(&grace).await);
    let request = "mutation { requestEmailVerification { userErrors { code } } }";
    grace.query(request, json!({})).await;
    let token = postman().nth(&email, 1).await.token();
    // Reading a mail that somebody else asked for proves nothing for them.
    let document = "mutation($input: VerifyEmailInput!) { verifyEmail(input: $input) { position } }";
    let nobody = app
        .anon()
        .code(document, json!({ "input": { "token": token } }))
        .await;
    assert_eq!(nobody, "UNAUTHENTICATED");
    assert_eq!(refusal(&verify(&other, &token).await), ("token", "NOT_FOUND"));
    assert!(!is_verified(&grace).await);
    let verified = verify(&grace, &token).await;
    assert_eq!(verified["userErrors"], json!([]));
    assert!(verified["position"].is_string());
    assert!(is_verified(&grace).await && !is_verified(&other).await);
    assert_eq!(refusal(&verify(&grace, &token).await), ("token", "NOT_FOUND"));
    // There is nothing more to prove.
    grace.query(request, json!({})).await;
    let waiting = app
        .superuser()
        .await
        .query("SELECT id FROM mails", &[])
        .await
        .unwrap();
    assert!(waiting.len() < 50, "mail goes out");
    assert_eq!(postman().to(&email).len(), 1);
}

#[tokio::test]
async fn a_password_that_somebody_else_chose_verifies_nothing() {
    let app = mailing().await;
    let admin = app.tenant().await;
    let email = address();
    made_by(&admin, &email, "SALES").await;
    let linus = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    let request = "mutation { requestEmailVerification { userErrors { code } } }";
    linus.query(request, json!({})).await;
    let token = postman().nth(&email, 1).await.token();
    assert_eq!(refusal(&verify(&linus, &token).await), ("token", "NOT_ALLOWED"));
    assert!(!is_verified(&linus).await);
    let input = json!({ "currentPassword": PASSWORD, "newPassword": OWN });
    linus
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    assert_eq!(verify(&linus, &token).await["userErrors"], json!([]));
    assert!(is_verified(&linus).await);
}

async fn switch(client: &Client, tenant: Uuid) -> Value {
    let input = json!({ "tenantId": write_id("tenant", tenant) });
    let selection = "accessToken viewer { role tenant { id } }";
    client
        .payload("switchTenant", "SwitchTenantInput", selection, input)
        .await
}

async fn memberships(client: &Client) -> Vec<(String, String, bool)> {
    let document = "{ viewer { memberships { tenant { id name } role isCurrent } } }";
    let data = client.query(document, json!({})).await;
    let list = data["viewer"]["memberships"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.iter()
        .map(|it| {
            (
                text(&it["tenant"]["id"]),
                text(&it["role"]),
                it["isCurrent"] == true,
            )
        })
        .collect()
}

#[tokio::test]
async fn a_person_goes_from_tenant_to_tenant_but_only_to_their_own() {
    let app = mailing().await;
    let grace = signed_up(&app, "home").await;
    let email = email_of(&grace).await;
    let (second, foreign) = (app.tenant().await, app.tenant().await);
    let guest = made_by(&second, &email, "MANAGER").await["user"]["id"].clone();
    let id = |client: &Client| write_id("tenant", client.viewer().tenant_id);
    // Until the address is proved, nothing leads there.
    let home = (id(&grace), "ADMIN".to_owned(), true);
    assert_eq!(memberships(&grace).await, std::slice::from_ref(&home));
    let refused = switch(&grace, second.viewer().tenant_id).await;
    assert_eq!(refusal(&refused), ("tenantId", "NOT_FOUND"));
    app.verify(&email).await;
    assert_eq!(
        memberships(&grace).await,
        [home, (id(&second), "MANAGER".to_owned(), false)]
    );
    let there = switch(&grace, second.viewer().tenant_id).await;
    assert_eq!(
        there["viewer"],
        json!({ "role": "MANAGER", "tenant": { "id": id(&second) } })
    );
    let there = app.with_token(there["accessToken"].as_str().unwrap()).await;
    assert_eq!(there.viewer().tenant_id, second.viewer().tenant_id);
    assert_ne!(there.viewer().session_id, grace.viewer().session_id);
    assert!(
        !app.app.revocations.revokes(grace.viewer()),
        "the session here goes on"
    );
    assert!(memberships(&there).await[1].2);
    let back = switch(&there, grace.viewer().tenant_id).await;
    assert_eq!(back["viewer"]["role"], "ADMIN");
    for tenant in [foreign.viewer().tenant_id, Uuid::now_v7()] {
        assert_eq!(switch(&grace, tenant).await, refused);
    }
    // Who is shut out there neither sees the tenant nor goes there.
    second
        .mutate(
            "updateUser",
            "UpdateUserInput",
            "user { id }",
            json!({ "userId": guest, "isActive": false }),
        )
        .await;
    assert_eq!(memberships(&grace).await.len(), 1);
    assert_eq!(switch(&grace, second.viewer().tenant_id).await, refused);
}

#[tokio::test]
async fn an_api_key_begins_no_session_and_stays_in_its_tenant() {
    let app = mailing().await;
    let grace = signed_up(&app, "home").await;
    let email = email_of(&grace).await;
    let second = app.tenant().await;
    made_by(&second, &email, "ADMIN").await;
    app.verify(&email).await;
    let input = json!({ "name": "Export", "permissions": ["CONTACTS_READ"] });
    let made = grace
        .mutate("createApiKey", "CreateApiKeyInput", "secret", input)
        .await;
    let key = app.identified(made["secret"].as_str().unwrap()).await.unwrap();
    assert_eq!(memberships(&key).await.len(), 1);
    let tenant = write_id("tenant", second.viewer().tenant_id);
    for (document, input) in [
        (
            "mutation($input: SwitchTenantInput!) { switchTenant(input: $input) { accessToken } }",
            json!({ "tenantId": tenant }),
        ),
        ("mutation { leaveTenant { position } }", json!({})),
        (
            "mutation($input: VerifyEmailInput!) { verifyEmail(input: $input) { position } }",
            json!({ "token": "x" }),
        ),
    ] {
        assert_eq!(key.code(document, json!({ "input": input })).await, "FORBIDDEN");
    }
    // Nor does it prove to be the person whom an invitation is for.
    let third = app.tenant().await;
    let input = json!({ "email": email, "role": "ADMIN" });
    third
        .mutate("inviteUser", "InviteUserInput", "invitation { id }", input)
        .await;
    let token = postman().nth(&email, 1).await.token();
    let input = json!({ "token": token, "name": "Grace" });
    let accepted = key
        .payload("acceptInvitation", "AcceptInvitationInput", "accessToken", input)
        .await;
    assert_eq!(refusal(&accepted), ("password", "REQUIRED"));
}

async fn leave(client: &Client) -> Value {
    let document = "mutation { leaveTenant { isKept userErrors { field code } } }";
    client.query(document, json!({})).await["leaveTenant"].take()
}

#[tokio::test]
async fn who_leaves_is_out_at_once_and_the_last_admin_stays() {
    let app = mailing().await;
    let admin = app.tenant().await;
    assert_eq!(refusal(&leave(&admin).await).1, "NOT_ALLOWED");
    let email = address();
    made_by(&admin, &email, "SALES").await;
    let linus = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    assert_eq!(leave(&linus).await["isKept"], false);
    assert!(app.app.revocations.revokes(linus.viewer()));
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    let owner = app.user(&admin, Role::Sales).await;
    owner.company("Owned").await;
    owner
        .interaction(json!({ "kind": "CALL", "subject": "S", "companyId": owner.company("Called").await }))
        .await;
    assert_eq!(leave(&owner).await["isKept"], true);
    assert!(app.app.revocations.revokes(owner.viewer()));
    // Of admins who leave at the same time one stays.
    for _ in 0..3 {
        let admin = app.tenant().await;
        let (two, three) = (
            app.user(&admin, Role::Admin).await,
            app.user(&admin, Role::Admin).await,
        );
        let answers = futures::join!(leave(&admin), leave(&two), leave(&three));
        let answers = [answers.0, answers.1, answers.2];
        let stayed = answers.iter().filter(|it| refusal(it).1 == "NOT_ALLOWED").count();
        assert_eq!(stayed, 1, "{answers:#?}");
    }
}

async fn sign_up(app: &TestApp, email: &str, password: &str) -> Value {
    let input = json!({ "tenantName": "Founded", "name": "Grace", "email": email, "password": password });
    let selection = "accessToken mustConfirm viewer { tenant { name } user { name } }";
    app.anon()
        .payload("signUp", "SignUpInput", selection, input)
        .await
}

async fn complete(app: &TestApp, token: &str, password: &str) -> Value {
    let input = json!({ "token": token, "password": password });
    let selection = "accessToken mustConfirm viewer { isEmailVerified tenant { name } user { name email } }";
    app.anon()
        .payload("completeSignUp", "CompleteSignUpInput", selection, input)
        .await
}

#[tokio::test]
async fn where_addresses_are_verified_signing_up_tells_nothing_and_a_link_completes_it() {
    counter::install();
    let app = mailing_with(|config| config.sign_up = Some(SignUp::Verified)).await;
    let email = address();
    let asked = sign_up(&app, &email, PASSWORD).await;
    assert_eq!(
        (&asked["accessToken"], &asked["mustConfirm"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(asked["userErrors"], json!([]));
    let mail = postman().nth(&email, 1).await;
    assert_eq!(mail.page(), "complete-sign-up");
    let token = mail.token();
    assert!(
        sign_in(&app, &email, PASSWORD, None).await.is_none(),
        "nothing is founded yet"
    );
    // Whoever gave somebody else's address does not get in by their click: the password decides.
    let wrong = complete(&app, &token, OWN).await;
    assert_eq!(refusal(&wrong), ("password", "INVALID"));
    let done = complete(&app, &token, PASSWORD).await;
    assert_eq!(
        done["viewer"],
        json!({ "isEmailVerified": true, "tenant": { "name": "Founded" }, "user": { "name": "Grace", "email": email } })
    );
    let grace = app.with_token(done["accessToken"].as_str().unwrap()).await;
    assert_eq!(grace.stages().await.len(), 6);
    assert_eq!(
        refusal(&complete(&app, &token, PASSWORD).await),
        ("token", "NOT_FOUND")
    );

    // A known address is answered the same; its owner is told by mail, and no link comes with it.
    let mut seen = Vec::new();
    for address in [&email, &address()] {
        app.settle().await;
        counter::take();
        let answer = sign_up(&app, address, OWN).await;
        app.settle().await;
        seen.push((answer, counter::take().statements.len()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0, asked);
    let told = postman().nth(&email, 2).await;
    assert!(told.text.contains("has an account already") && !told.text.contains('#'));
    assert!(sign_in(&app, &email, OWN, None).await.is_none());
    // With the right password it is another tenant of the same person.
    let second = sign_up(&app, &email, PASSWORD).await;
    let second = app.with_token(second["accessToken"].as_str().unwrap()).await;
    assert_eq!(memberships(&second).await.len(), 2);
}

fn from(ip: &str) -> Origin {
    Origin::new(Some(ip.parse().unwrap()), None, "1")
}

#[tokio::test]
async fn who_signs_up_with_their_address_has_not_failed_to_sign_in() {
    let app = mailing_with(|config| config.sign_up = Some(SignUp::Verified)).await;
    let office = app.anon().with_origin(from("192.0.2.77"));
    let ask = async |client: &Client, email: &str, password: &str| {
        let document = "mutation($input: SignUpInput!) { signUp(input: $input) { mustConfirm } }";
        let input = json!({ "tenantName": "T", "name": "N", "email": email, "password": password });
        client.answer(document, json!({ "input": input })).await
    };
    for _ in 0..6 {
        let asked = ask(&office, &address(), PASSWORD).await;
        assert_eq!(asked["data"]["signUp"]["mustConfirm"], true, "{asked}");
    }
    let email = address();
    assert_eq!(
        ask(&office, &email, PASSWORD).await["data"]["signUp"]["mustConfirm"],
        true
    );
    let token = postman().nth(&email, 1).await.token();
    let document = "mutation($input: CompleteSignUpInput!) { completeSignUp(input: $input) { accessToken } }";
    let input = json!({ "input": { "token": token, "password": PASSWORD } });
    let done = office.answer(document, input).await;
    assert!(
        done["data"]["completeSignUp"]["accessToken"].is_string(),
        "{done}"
    );
    // Who guesses at the password of one account is held up all the same, from wherever they do it.
    let guesses = (0..6).map(async |n| {
        let guesser = app.anon().with_origin(from(&format!("198.51.100.{n}")));
        ask(&guesser, &email, OWN).await
    });
    let answers = futures::future::join_all(guesses).await;
    let refused = |answer: &&Value| answer["errors"][0]["extensions"]["code"] == "RATE_LIMITED";
    assert_eq!(answers.iter().filter(refused).count(), 1, "{answers:#?}");
}

#[tokio::test]
async fn a_new_password_ends_the_wait_that_wrong_ones_have_brought_wherever_one_is() {
    let app = mailing().await;
    let grace = signed_up(&app, "locked").await;
    let email = email_of(&grace).await;
    let try_from = async |ip: &str, password: &str| {
        let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
        let input = json!({ "input": { "email": email, "password": password } });
        let answer = app.anon().with_origin(from(ip)).answer(document, input).await;
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        code.unwrap_or("IN").to_owned()
    };
    for n in 0..5 {
        assert_eq!(
            try_from(&format!("198.51.100.{n}"), "wrong").await,
            "UNAUTHENTICATED"
        );
    }
    assert_eq!(try_from("203.0.113.5", PASSWORD).await, "RATE_LIMITED");
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 1).await.token();
    let telephone = app.anon().with_origin(from("192.0.2.9"));
    assert_eq!(reset(&telephone, &token, OWN).await["userErrors"], json!([]));
    assert_eq!(try_from("192.0.2.9", OWN).await, "IN");
    assert_eq!(try_from("203.0.113.6", OWN).await, "IN");
}

#[tokio::test]
async fn who_changes_their_password_voids_the_links_for_a_new_one_that_were_mailed_before() {
    let app = mailing().await;
    let grace = signed_up(&app, "changing").await;
    let email = email_of(&grace).await;
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 1).await.token();
    let input = json!({ "currentPassword": PASSWORD, "newPassword": OWN });
    grace
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    let refused = reset(&app.anon(), &token, "what an intruder wants").await;
    assert_eq!(refusal(&refused), ("token", "NOT_FOUND"));
    assert!(sign_in(&app, &email, OWN, None).await.is_some());
}

#[tokio::test]
async fn of_two_links_for_one_address_the_first_founds_and_the_other_is_void() {
    let app = mailing_with(|config| config.sign_up = Some(SignUp::Verified)).await;
    let email = address();
    sign_up(&app, &email, PASSWORD).await;
    let hostile = postman().nth(&email, 1).await.token();
    sign_up(&app, &email, OWN).await;
    let own = postman().nth(&email, 2).await.token();
    assert!(complete(&app, &own, OWN).await["accessToken"].is_string());
    assert_eq!(
        refusal(&complete(&app, &hostile, PASSWORD).await),
        ("token", "NOT_FOUND")
    );
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
}

#[tokio::test]
async fn where_sign_up_is_open_a_known_address_needs_its_password() {
    let app = TestApp::new().await;
    let grace = signed_up(&app, "first").await;
    let email = email_of(&grace).await;
    let refused = sign_up(&app, &email, OWN).await;
    assert_eq!(refusal(&refused), ("email", "DUPLICATE"));
    assert_eq!(refused["accessToken"], Value::Null);
    let founded = sign_up(&app, &email, PASSWORD).await;
    let second = app.with_token(founded["accessToken"].as_str().unwrap()).await;
    assert_ne!(second.viewer().tenant_id, grace.viewer().tenant_id);
    assert_eq!(memberships(&second).await.len(), 2);
    assert!(sign_in(&app, &email, PASSWORD, Some(&second)).await.is_some());
}

#[tokio::test]
async fn a_closed_server_founds_nothing() {
    let app = mailing_with(|config| config.sign_up = Some(SignUp::Closed)).await;
    let email = address();
    assert_eq!(refusal(&sign_up(&app, &email, PASSWORD).await).1, "NOT_ALLOWED");
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
}

#[tokio::test]
async fn the_strictest_of_a_persons_tenants_decides_about_their_password() {
    let app = mailing().await;
    let grace = signed_up(&app, "home").await;
    let email = email_of(&grace).await;
    let strict = app.tenant().await;
    let update = async |input: Value| {
        strict
            .payload(
                "updateTenant",
                "UpdateTenantInput",
                "tenant { minPasswordLength timeZone }",
                input,
            )
            .await
    };
    for (input, refused) in [
        (
            json!({ "minPasswordLength": 9 }),
            ("minPasswordLength", "OUT_OF_RANGE"),
        ),
        (
            json!({ "minPasswordLength": 129 }),
            ("minPasswordLength", "OUT_OF_RANGE"),
        ),
        (json!({ "timeZone": "Europe/Atlantis" }), ("timeZone", "INVALID")),
        (json!({ "timeZone": "europe/berlin" }), ("timeZone", "INVALID")),
        (
            json!({ "timeZone": "posix/Europe/Berlin" }),
            ("timeZone", "INVALID"),
        ),
        (
            json!({ "timeZone": "UTC+3; DROP TABLE tenants" }),
            ("timeZone", "INVALID"),
        ),
    ] {
        assert_eq!(refusal(&update(input.clone()).await), refused, "{input}");
    }
    let set = update(json!({ "minPasswordLength": 24, "timeZone": "Europe/Berlin" })).await;
    assert_eq!(
        set["tenant"],
        json!({ "minPasswordLength": 24, "timeZone": "Europe/Berlin" })
    );
    let input = json!({ "name": "N", "email": address(), "password": OWN, "role": "VIEWER" });
    let created = strict
        .payload("createUser", "CreateUserInput", "user { id }", input)
        .await;
    assert_eq!(refusal(&created), ("password", "INVALID"), "23 characters");
    let change = async |new: &str| {
        let input = json!({ "currentPassword": PASSWORD, "newPassword": new });
        grace
            .payload("changePassword", "ChangePasswordInput", "__typename", input)
            .await
    };
    // Who adds somebody without asking them decides nothing about their password.
    let stricter = app.tenant().await;
    let long = "a first password of more than sixty letters, chosen by whoever adds people";
    let input = json!({ "minPasswordLength": 60 });
    stricter
        .mutate("updateTenant", "UpdateTenantInput", "tenant { id }", input)
        .await;
    let input = json!({ "name": "N", "email": email, "password": long, "role": "VIEWER" });
    stricter
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    app.verify(&email).await;
    let input = json!({ "email": email, "role": "VIEWER" });
    strict
        .mutate("inviteUser", "InviteUserInput", "invitation { id }", input)
        .await;
    let token = postman().nth(&email, 1).await.token();
    let input = json!({ "token": token, "name": "N", "password": PASSWORD });
    app.anon()
        .mutate("acceptInvitation", "AcceptInvitationInput", "accessToken", input)
        .await;
    assert_eq!(refusal(&change(OWN).await), ("newPassword", "INVALID"));
    request_reset(&app.anon(), &email).await;
    let token = postman().nth(&email, 2).await.token();
    assert_eq!(
        refusal(&reset(&app.anon(), &token, OWN).await),
        ("newPassword", "INVALID")
    );
    let long = "long enough for both of them";
    assert_eq!(reset(&app.anon(), &token, long).await["userErrors"], json!([]));
}
