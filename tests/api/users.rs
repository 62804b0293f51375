//! The tenant's users: adding, changing and removing them, and what becomes of their sessions.

use std::time::Duration;

use dealstream::auth::Role;
use dealstream::config::Config;
use dealstream::db::id::write_id;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::app::{config, database_url};
use crate::support::recipes::{PASSWORD, signed_up};
use crate::support::wire::until;
use crate::support::{Client, TestApp};

const USER: &str = "user { id name email role isActive version }";

async fn create(client: &Client, input: Value) -> Value {
    client.payload("createUser", "CreateUserInput", USER, input).await
}

async fn update(client: &Client, input: Value) -> Value {
    client.payload("updateUser", "UpdateUserInput", USER, input).await
}

async fn delete(client: &Client, input: Value) -> Value {
    client
        .payload("deleteUser", "DeleteUserInput", "deletedUserId", input)
        .await
}

async fn change_password(client: &Client, current: &str, new: &str) -> Value {
    let input = json!({ "currentPassword": current, "newPassword": new });
    client
        .payload("changePassword", "ChangePasswordInput", "__typename", input)
        .await
}

fn address() -> String {
    format!("{}@test.example", uuid::Uuid::new_v4().simple())
}

fn id_of(client: &Client) -> String {
    write_id("user", client.viewer().user_id)
}

/// Signs in, to a tenant or the first; nothing when that is refused.
async fn sign_in(app: &TestApp, email: &str, password: &str, tenant: Option<&Client>) -> Option<Client> {
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let tenant = tenant.map(|client| write_id("tenant", client.viewer().tenant_id));
    let input = json!({ "email": email, "password": password, "tenantId": tenant });
    let answer = app.anon().answer(document, json!({ "input": input })).await;
    if !answer["errors"].is_null() {
        assert_eq!(
            answer["errors"][0]["message"],
            "The e-mail address or the password is wrong."
        );
        return None;
    }
    Some(
        app.with_token(answer["data"]["signIn"]["accessToken"].as_str().unwrap())
            .await,
    )
}

/// The first user error's field and code.
fn refusal(payload: &Value) -> (&str, &str) {
    let error = &payload["userErrors"][0];
    let field = error["field"].as_array().and_then(|path| path.last());
    (
        field.and_then(Value::as_str).unwrap_or_default(),
        error["code"].as_str().unwrap_or("none"),
    )
}

fn good(client: &Client) -> bool {
    client.is_known_to(&client.app)
}

#[tokio::test]
async fn an_admin_adds_a_person_who_then_signs_in() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let email = address();
    let input = json!({
        "name": " Linus ", "email": email.to_uppercase(), "password": PASSWORD, "role": "SALES", "idempotencyKey": "one",
    });
    let payload = create(&admin, input.clone()).await;
    let user = &payload["user"];
    assert_eq!(
        (&user["name"], &user["email"], &user["role"], &user["isActive"]),
        (&json!("Linus"), &json!(email), &json!("SALES"), &json!(true))
    );
    assert_eq!(
        create(&admin, input).await,
        payload,
        "a retry is answered the same"
    );
    let linus = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    assert_eq!(linus.viewer().rights.role, Role::Sales);
    assert_eq!(linus.viewer().tenant_id, admin.viewer().tenant_id);
    assert_eq!(json!(id_of(&linus)), user["id"]);
    linus.company("Acme").await;
    let again = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "ADMIN" });
    assert_eq!(
        refusal(&create(&admin, again.clone()).await),
        ("email", "DUPLICATE")
    );
    let document = "mutation($input: CreateUserInput!) { createUser(input: $input) { position } }";
    assert_eq!(linus.code(document, json!({ "input": again })).await, "FORBIDDEN");
}

#[tokio::test]
async fn bad_input_of_a_new_user_is_told_all_at_once() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let input = json!({ "name": " ", "email": "nowhere", "password": "short", "role": "VIEWER" });
    let payload = create(&admin, input).await;
    assert_eq!(payload["user"], Value::Null);
    let told: Vec<_> = payload["userErrors"].as_array().unwrap().iter().collect();
    let told: Vec<_> = told
        .iter()
        .map(|error| {
            (
                error["field"][1].as_str().unwrap(),
                error["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("name", "REQUIRED"),
            ("email", "INVALID"),
            ("password", "INVALID")
        ]
    );
    let long = json!({ "name": "N", "email": address(), "password": "x".repeat(1025), "role": "VIEWER" });
    assert_eq!(refusal(&create(&admin, long).await), ("password", "TOO_LONG"));
}

#[tokio::test]
async fn who_belongs_to_another_tenant_keeps_their_password_and_nothing_tells_of_it() {
    let app = TestApp::new().await;
    let grace = signed_up(&app, "first").await;
    let me = grace.query("{ viewer { user { email } } }", json!({})).await;
    let email = me["viewer"]["user"]["email"].as_str().unwrap();
    let admin = app.tenant().await;
    let input = |email: &str| json!({ "name": "N", "email": email, "password": "a first password", "role": "VIEWER" });
    let (known, unknown) = (
        create(&admin, input(email)).await,
        create(&admin, input(&address())).await,
    );
    let without = |mut payload: Value| {
        payload["user"]["id"].take();
        payload["user"]["email"].take();
        payload["position"].take();
        payload
    };
    // The id is as new as that of a new person.
    let id = known["user"]["id"].as_str().unwrap();
    assert!(
        *id > *write_id("user", grace.viewer().user_id)
            && id[..10] == unknown["user"]["id"].as_str().unwrap()[..10]
    );
    assert_eq!(without(known), without(unknown));
    assert!(
        sign_in(&app, email, "a first password", Some(&admin))
            .await
            .is_none(),
        "another's admin sets no password"
    );
    let here = sign_in(&app, email, PASSWORD, Some(&admin)).await;
    assert!(
        here.is_none(),
        "who has not proved their address does not come in"
    );
    app.verify(email).await;
    let here = sign_in(&app, email, PASSWORD, Some(&admin)).await.unwrap();
    assert_eq!(here.viewer().tenant_id, admin.viewer().tenant_id);
    assert_eq!(here.viewer().rights.role, Role::Viewer);
    let there = sign_in(&app, email, PASSWORD, None).await.unwrap();
    assert_eq!(there.viewer().tenant_id, grace.viewer().tenant_id);
    // What happens to them in one tenant is nothing to the other.
    let off = update(&admin, json!({ "userId": id_of(&here), "isActive": false })).await;
    assert_eq!(off["user"]["isActive"], false);
    assert!(!good(&here) && good(&there));
    assert!(sign_in(&app, email, PASSWORD, Some(&admin)).await.is_none());
    assert!(sign_in(&app, email, PASSWORD, Some(&grace)).await.is_some());
    delete(&admin, json!({ "userId": id_of(&here) })).await;
    assert!(sign_in(&app, email, PASSWORD, None).await.is_some());
}

#[tokio::test]
async fn another_role_holds_at_once_and_ends_what_was_signed_in_with_the_old_one() {
    let app = TestApp::new().await;
    let elsewhere = TestApp::new().await;
    elsewhere.app.start().await.unwrap();
    let admin = app.tenant().await;
    let email = address();
    let input = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "SALES" });
    let user = create(&admin, input).await["user"]["id"].clone();
    let (one, two) = (
        sign_in(&app, &email, PASSWORD, None).await.unwrap(),
        sign_in(&app, &email, PASSWORD, None).await.unwrap(),
    );
    // A name is no reason to sign in again.
    let renamed = update(
        &admin,
        json!({ "userId": user, "name": "Linus", "role": "SALES" }),
    )
    .await;
    assert_eq!(renamed["user"]["version"], 2);
    assert!(good(&one) && good(&two));
    let ended = app.app.revocations.watch(one.viewer());
    let goes_on = app.app.revocations.watch(admin.viewer());
    let changed = update(
        &admin,
        json!({ "userId": user, "role": "VIEWER", "expectedVersion": 2 }),
    )
    .await;
    assert_eq!(
        (&changed["user"]["role"], &changed["user"]["version"]),
        (&json!("VIEWER"), &json!(3))
    );
    assert!(!good(&one) && !good(&two));
    tokio::time::timeout(Duration::from_secs(8), ended)
        .await
        .expect("an open socket is told");
    assert!(futures::FutureExt::now_or_never(goes_on).is_none());
    // On this instance and on any other, whoever signs in right now has the new role.
    for app in [&app, &elsewhere] {
        let again = sign_in(app, &email, PASSWORD, None).await.unwrap();
        assert!(good(&again));
        assert_eq!(again.viewer().rights.role, Role::Viewer);
    }
    until("the other instance to hear of it", || {
        !one.is_known_to(&elsewhere.app)
    })
    .await;
    let again = sign_in(&elsewhere, &email, PASSWORD, None).await.unwrap();
    assert!(good(&again));
    // A stale change is refused and ends nothing.
    let stale = update(
        &admin,
        json!({ "userId": user, "role": "ADMIN", "expectedVersion": 2 }),
    )
    .await;
    assert_eq!(refusal(&stale), ("expectedVersion", "CONFLICT"));
    assert_eq!(
        stale["userErrors"][0]["conflicts"],
        json!([{ "field": "role", "currentValue": "\"VIEWER\"" }])
    );
    assert!(again.is_known_to(&app.app));
}

#[tokio::test]
async fn the_deactivated_are_out_until_they_are_let_in_again() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let email = address();
    let input = json!({ "name": "L", "email": email, "password": PASSWORD, "role": "SALES" });
    let user = create(&admin, input).await["user"]["id"].clone();
    let linus = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    update(&admin, json!({ "userId": user, "isActive": false })).await;
    assert!(!good(&linus));
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    assert!(sign_in(&app, &email, PASSWORD, Some(&admin)).await.is_none());
    update(&admin, json!({ "userId": user, "isActive": true })).await;
    assert!(!good(&linus), "an old session does not come back");
    let again = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    assert!(good(&again));
}

#[tokio::test]
async fn a_tenant_keeps_an_active_admin() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let me = id_of(&admin);
    // Neither those without the role nor those without access count.
    app.user(&admin, Role::Manager).await;
    let former = app.user(&admin, Role::Admin).await;
    update(&admin, json!({ "userId": id_of(&former), "isActive": false })).await;
    for (input, field) in [
        (json!({ "userId": me, "role": "MANAGER" }), "role"),
        (json!({ "userId": me, "isActive": false }), "isActive"),
        (
            json!({ "userId": me, "isActive": false, "role": "VIEWER" }),
            "isActive",
        ),
    ] {
        assert_eq!(refusal(&update(&admin, input).await), (field, "NOT_ALLOWED"));
    }
    let gone = delete(&admin, json!({ "userId": me })).await;
    assert_eq!(refusal(&gone), ("userId", "NOT_ALLOWED"));
    assert!(good(&admin));
    let successor = app.user(&admin, Role::Admin).await;
    let stepped_down = update(&admin, json!({ "userId": me, "role": "VIEWER" })).await;
    assert_eq!(stepped_down["user"]["role"], "VIEWER");
    assert!(!good(&admin));
    assert_eq!(
        refusal(&delete(&successor, json!({ "userId": id_of(&successor) })).await),
        ("userId", "NOT_ALLOWED")
    );
}

#[tokio::test]
async fn an_admin_who_has_yet_to_prove_their_address_keeps_no_tenant_going() {
    let app = TestApp::new().await;
    let (admin, elsewhere) = (app.tenant().await, app.tenant().await);
    let (me, email) = (id_of(&admin), address());
    let input = json!({ "name": "Eve", "email": email, "password": PASSWORD, "role": "ADMIN" });
    for tenant in [&elsewhere, &admin] {
        assert_eq!(create(tenant, input.clone()).await["userErrors"], json!([]));
    }
    assert!(sign_in(&app, &email, PASSWORD, Some(&admin)).await.is_none());
    let step_down = json!({ "userId": me, "role": "MANAGER" });
    for answer in [
        update(&admin, step_down.clone()).await,
        update(&admin, json!({ "userId": me, "isActive": false })).await,
        delete(&admin, json!({ "userId": me })).await,
    ] {
        assert_eq!(refusal(&answer).1, "NOT_ALLOWED", "{answer}");
    }
    app.verify(&email).await;
    assert_eq!(update(&admin, step_down).await["user"]["role"], "MANAGER");
}

#[tokio::test]
async fn a_tenant_adds_so_many_people_an_hour_and_hashes_no_further_password() {
    let config = Config {
        limits: vec!["invitation=2/1h".to_owned()],
        ..config()
    };
    let app = TestApp::on(database_url().await, config).await;
    let (admin, other) = (app.tenant().await, app.tenant().await);
    let new = || json!({ "name": "N", "email": address(), "password": PASSWORD, "role": "VIEWER" });
    let document =
        "mutation($input: CreateUserInput!) { createUser(input: $input) { userErrors { field code } } }";
    // What is refused before anything is hashed costs nothing.
    let short = json!({ "name": "N", "email": address(), "password": "short", "role": "VIEWER" });
    for _ in 0..3 {
        assert_eq!(refusal(&create(&admin, short.clone()).await).0, "password");
    }
    for _ in 0..2 {
        assert_eq!(create(&admin, new()).await["userErrors"], json!([]));
    }
    let refused = admin.answer(document, json!({ "input": new() })).await;
    let error = &refused["errors"][0]["extensions"];
    assert_eq!(error["code"], "RATE_LIMITED", "{refused}");
    assert!(error["retryAfter"].as_i64().unwrap() > 0);
    assert_eq!(create(&other, new()).await["userErrors"], json!([]));
}

#[tokio::test]
async fn of_admins_who_remove_each_other_at_the_same_time_one_remains() {
    let app = TestApp::new().await;
    for round in 0..5 {
        let first = app.tenant().await;
        let mut admins = vec![first.clone()];
        for _ in 0..3 {
            admins.push(app.user(&first, Role::Admin).await);
        }
        let count = admins.len();
        let acts = (0..count).map(|number| {
            let (admin, other) = (&admins[number], id_of(&admins[(number + 1) % count]));
            async move {
                match (number + round) % 3 {
                    0 => update(admin, json!({ "userId": other, "role": "SALES" })).await,
                    1 => update(admin, json!({ "userId": other, "isActive": false })).await,
                    _ => delete(admin, json!({ "userId": other })).await,
                }
            }
        });
        let answers = join_all(acts).await;
        let refused = answers
            .iter()
            .filter(|answer| refusal(answer).1 == "NOT_ALLOWED")
            .count();
        assert_eq!(refused, 1, "{answers:#?}");
        let filter = json!({ "filter": { "role": { "eq": "ADMIN" }, "isActive": true } });
        let document = "query($filter: UserFilter) { users(filter: $filter) { totalCount } }";
        assert_eq!(first.query(document, filter).await["users"]["totalCount"], 1);
    }
}

#[tokio::test]
async fn a_user_whom_nothing_refers_to_is_removed_and_may_come_back() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let email = address();
    let input =
        |password: &str| json!({ "name": "L", "email": email, "password": password, "role": "SALES" });
    let user = create(&admin, input(PASSWORD)).await["user"]["id"].clone();
    let linus = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    let stale = delete(&admin, json!({ "userId": user, "expectedVersion": 9 })).await;
    assert_eq!(refusal(&stale), ("expectedVersion", "CONFLICT"));
    let input_of_delete = json!({ "userId": user, "idempotencyKey": "once" });
    let removed = delete(&admin, input_of_delete.clone()).await;
    assert_eq!(removed["deletedUserId"], user);
    assert_eq!(delete(&admin, input_of_delete).await, removed);
    assert_eq!(
        refusal(&delete(&admin, json!({ "userId": user })).await),
        ("userId", "NOT_FOUND")
    );
    assert!(!good(&linus));
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    // They belong to no tenant any more: nothing is left of their account, and a new first password is one.
    let again = create(&admin, input("another password")).await;
    assert_ne!(again["user"]["id"], user);
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    assert!(good(
        &sign_in(&app, &email, "another password", None).await.unwrap()
    ));
}

#[tokio::test]
async fn a_user_whom_records_refer_to_is_kept() {
    let app = TestApp::new().await;
    let admin = app.tenant().await;
    let new = async || app.user(&admin, Role::Sales).await;
    let (of_company, of_contact, of_deal, mover, caller) =
        (new().await, new().await, new().await, new().await, new().await);
    let input = json!({ "name": "C", "ownerId": id_of(&of_company) });
    admin
        .mutate("createCompany", "CreateCompanyInput", "company { id }", input)
        .await;
    let contact = admin
        .contact(json!({ "name": "C", "ownerId": id_of(&of_contact) }))
        .await;
    let deal = admin
        .deal(json!({ "name": "D", "ownerId": id_of(&of_deal) }))
        .await;
    let stage = admin.stage("Proposal").await;
    mover.move_deal(json!({ "dealId": deal, "stageId": stage })).await;
    caller
        .interaction(json!({ "kind": "CALL", "subject": "S", "contactId": contact }))
        .await;
    for (user, what) in [
        (&of_company, "companies"),
        (&of_contact, "contacts"),
        (&of_deal, "deals"),
        (&mover, "changes of stages"),
        (&caller, "interactions"),
    ] {
        let payload = delete(&admin, json!({ "userId": id_of(user) })).await;
        assert_eq!(refusal(&payload), ("userId", "IN_USE"));
        let message = payload["userErrors"][0]["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("to the user: {what}.")) && message.contains("Deactivate"),
            "{message}"
        );
        assert!(good(user), "a refused removal ends no session");
    }
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_in_every_tenant() {
    let app = TestApp::new().await;
    let elsewhere = TestApp::new().await;
    elsewhere.app.start().await.unwrap();
    let grace = signed_up(&app, "first").await;
    let me = grace.query("{ viewer { user { email } } }", json!({})).await;
    let email = me["viewer"]["user"]["email"].as_str().unwrap();
    let admin = app.tenant().await;
    let input = json!({ "name": "G", "email": email, "password": PASSWORD, "role": "VIEWER" });
    create(&admin, input).await;
    app.verify(email).await;
    let at_home = sign_in(&app, email, PASSWORD, None).await.unwrap();
    let guest = sign_in(&app, email, PASSWORD, Some(&admin)).await.unwrap();
    for (current, new, refused) in [
        ("wrong", "a new password", ("currentPassword", "INVALID")),
        ("", "a new password", ("currentPassword", "INVALID")),
        (PASSWORD, "short", ("newPassword", "INVALID")),
        (PASSWORD, &*"x".repeat(1025), ("newPassword", "TOO_LONG")),
    ] {
        assert_eq!(refusal(&change_password(&grace, current, new).await), refused);
    }
    assert!(good(&grace) && good(&at_home) && good(&guest));
    let changed = change_password(&guest, PASSWORD, "a new password").await;
    assert_eq!(changed["userErrors"], json!([]));
    assert!(good(&guest), "who changed it goes on");
    assert!(!good(&grace) && !good(&at_home));
    assert!(good(&admin));
    until("the other instance to hear of it", || {
        [&grace, &at_home]
            .iter()
            .all(|client| !client.is_known_to(&elsewhere.app))
    })
    .await;
    assert!(guest.is_known_to(&elsewhere.app));
    assert!(sign_in(&app, email, PASSWORD, None).await.is_none());
    let again = sign_in(&app, email, "a new password", None).await.unwrap();
    assert!(good(&again));
    // The next change ends the session that the last one kept.
    change_password(&again, "a new password", PASSWORD).await;
    assert!(good(&again) && !good(&guest));
}

#[tokio::test]
async fn of_two_who_change_one_password_at_the_same_time_one_is_refused() {
    let app = TestApp::new().await;
    let one = signed_up(&app, "tenant").await;
    let two = one.in_another_session();
    let (first, second) = futures::join!(
        change_password(&one, PASSWORD, "the first password"),
        change_password(&two, PASSWORD, "the second password"),
    );
    let mut codes = [refusal(&first), refusal(&second)];
    codes.sort_unstable();
    assert_eq!(codes, [("", "none"), ("currentPassword", "INVALID")]);
    assert!(good(&one) != good(&two));
}

/// Passwords must be found nowhere but, slowly hashed, with the account.
#[tokio::test]
async fn a_password_leaves_no_trace() {
    use sha2::{Digest, Sha256};
    let app = TestApp::new().await;
    let grace = signed_up(&app, "tenant").await;
    let email = address();
    let input = json!({
        "name": "L", "email": email, "password": "Xyzzy-plugh-42", "role": "SALES", "idempotencyKey": "k",
    });
    let first = create(&grace, input.clone()).await;
    let mut other = input.clone();
    other["password"] = json!("something else");
    assert_eq!(
        create(&grace, other).await,
        first,
        "the password is not part of what is compared"
    );
    let tenant = grace.viewer().tenant_id;
    let kept = format!(
        "SELECT input_hash FROM idempotency_keys WHERE tenant_id = '{tenant}' AND operation = 'createUser'"
    );
    let superuser = app.superuser().await;
    let hash: Vec<u8> = superuser.query_one(&kept, &[]).await.unwrap().get(0);
    for with_password in [false, true] {
        let mut input = input.clone();
        let fields = input.as_object_mut().unwrap();
        fields.remove("idempotencyKey");
        if !with_password {
            fields.remove("password");
        }
        // The order of the fields is that of the executor; a search over all of them finds the right one.
        let found = permutations(input.as_object().unwrap())
            .iter()
            .any(|text| Sha256::digest(format!("[[\"input\",{text}]]")).as_slice() == hash);
        assert_eq!(found, !with_password);
    }
    let traces = format!(
        "SELECT count(*) FROM (SELECT change::text AS text FROM events WHERE tenant_id = '{tenant}'
            UNION ALL SELECT answer::text FROM idempotency_keys WHERE tenant_id = '{tenant}') t
          WHERE text ILIKE '%xyzzy%' OR text LIKE '%argon2%'"
    );
    assert_eq!(
        superuser.query_one(&traces, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
}

/// An object as JSON text, its fields in every order.
fn permutations(object: &serde_json::Map<String, Value>) -> Vec<String> {
    fn go(left: &[String], so_far: &str, found: &mut Vec<String>) {
        if left.is_empty() {
            found.push(format!("{{{}}}", so_far.trim_start_matches(',')));
        }
        for (index, field) in left.iter().enumerate() {
            let mut rest = left.to_vec();
            rest.remove(index);
            go(&rest, &format!("{so_far},{field}"), found);
        }
    }
    let fields: Vec<_> = object
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
        .collect();
    let mut found = Vec::new();
    go(&fields, "", &mut found);
    found
}
