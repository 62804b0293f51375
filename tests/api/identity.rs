//! Signing up and in, access tokens, and the tenant's settings.

use chrono::Utc;
use dealstream::auth::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::recipes::{PASSWORD, signed_up};
use crate::support::{Client, TestApp};

async fn sign_in(app: &TestApp, input: Value) -> Value {
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken expiresAt position userErrors { code }
        viewer { role permissions position user { id email name role } tenant { id name } } } }";
    app.anon().answer(document, json!({ "input": input })).await
}

#[tokio::test]
async fn who_signs_up_founds_a_tenant_and_is_its_admin() {
    let app = TestApp::new().await;
    let email = format!("Grace-{}@Test.Example", Uuid::new_v4().simple());
    let input = json!({ "tenantName": "Navy", "name": "Grace", "email": email, "password": PASSWORD, "currencyCode": "EUR" });
    let selection = "accessToken expiresAt viewer { role position user { email name isActive } tenant { id name currencyCode version } }";
    let payload = app
        .anon()
        .mutate("signUp", "SignUpInput", selection, input.clone())
        .await;
    let viewer = &payload["viewer"];
    assert_eq!(
        (&viewer["role"], &viewer["user"]["email"]),
        (&json!("ADMIN"), &json!(email.to_lowercase()))
    );
    assert_eq!(
        (&viewer["tenant"]["name"], &viewer["tenant"]["currencyCode"]),
        (&json!("Navy"), &json!("EUR"))
    );
    let client = app.with_token(payload["accessToken"].as_str().unwrap()).await;
    assert_eq!(client.position().await, viewer["position"].as_str().unwrap());
    assert_eq!(client.stages().await.len(), 6);
    let data = client
        .query(
            "{ users { nodes { email role } } deals { totalCount } tenant { id } }",
            json!({}),
        )
        .await;
    assert_eq!(
        data["users"]["nodes"],
        json!([{ "email": email.to_lowercase(), "role": "ADMIN" }])
    );
    assert_eq!(
        (&data["deals"]["totalCount"], &data["tenant"]["id"]),
        (&json!(0), &viewer["tenant"]["id"])
    );
    let mut other = input;
    other["password"] = json!("another password");
    let again = app
        .anon()
        .payload("signUp", "SignUpInput", "accessToken viewer { role }", other)
        .await;
    let error = &again["userErrors"][0];
    assert_eq!(
        (&error["code"], &error["field"]),
        (&json!("DUPLICATE"), &json!(["input", "email"]))
    );
    assert_eq!(
        (&again["accessToken"], &again["viewer"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_refused_sign_up_leaves_nothing_behind() {
    let app = TestApp::new().await;
    let client = signed_up(&app, "first").await;
    let data = client.query("{ viewer { user { email } } }", json!({})).await;
    let superuser = app.superuser().await;
    let name = format!("Second {}", Uuid::new_v4());
    let input = json!({ "tenantName": name, "name": "N", "email": data["viewer"]["user"]["email"], "password": "another password" });
    let payload = app
        .anon()
        .payload("signUp", "SignUpInput", "accessToken", input)
        .await;
    assert_eq!(payload["userErrors"][0]["code"], "DUPLICATE");
    let left = superuser
        .query_one("SELECT count(*) FROM tenants WHERE name = $1", &[&name])
        .await
        .unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn signing_in_needs_the_right_password_and_tells_nothing_otherwise() {
    let app = TestApp::unlimited().await;
    let client = signed_up(&app, "tenant").await;
    let me = client
        .query("{ viewer { user { id email } tenant { id } } }", json!({}))
        .await["viewer"]
        .clone();
    let (email, tenant) = (me["user"]["email"].as_str().unwrap(), &me["tenant"]["id"]);
    for input in [
        json!({ "email": email, "password": PASSWORD }),
        json!({ "email": format!("  {} ", email.to_uppercase()), "password": PASSWORD }),
        json!({ "email": email, "password": PASSWORD, "tenantId": tenant }),
    ] {
        let answer = sign_in(&app, input).await;
        let payload = &answer["data"]["signIn"];
        assert_eq!(
            (
                &payload["viewer"]["user"]["id"],
                &payload["viewer"]["tenant"]["id"]
            ),
            (&me["user"]["id"], tenant)
        );
        let signed_in = app.with_token(payload["accessToken"].as_str().unwrap()).await;
        assert_eq!(signed_in.viewer().rights.role, Role::Admin);
        let expires: chrono::DateTime<Utc> = payload["expiresAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(expires, signed_in.viewer().expires_at);
    }
    let wrong_password = sign_in(&app, json!({ "email": email, "password": "wrong horse battery" })).await;
    assert_eq!(
        wrong_password["errors"][0]["extensions"]["code"],
        "UNAUTHENTICATED"
    );
    let other = signed_up(&app, "other").await;
    let foreign = dealstream::db::id::write_id("tenant", other.viewer().tenant_id);
    for input in [
        json!({ "email": "nobody@test.example", "password": PASSWORD }),
        json!({ "email": email, "password": "" }),
        json!({ "email": email, "password": format!("{PASSWORD} ") }),
        json!({ "email": email, "password": "x".repeat(100_000) }),
        json!({ "email": "x".repeat(100_000), "password": PASSWORD }),
        json!({ "email": "", "password": PASSWORD }),
        json!({ "email": email, "password": PASSWORD, "tenantId": foreign }),
        json!({ "email": email, "password": PASSWORD, "tenantId": dealstream::db::id::write_id("tenant", Uuid::now_v7()) }),
    ] {
        assert_eq!(sign_in(&app, input.clone()).await, wrong_password, "{input:.100}");
    }
    // Who has been shut out gets the same answer.
    let superuser = app.superuser().await;
    let shut_out = format!(
        "UPDATE users SET is_active = false WHERE tenant_id = '{}'",
        client.viewer().tenant_id
    );
    superuser.batch_execute(&shut_out).await.unwrap();
    assert_eq!(
        sign_in(&app, json!({ "email": email, "password": PASSWORD })).await,
        wrong_password
    );
}

#[tokio::test]
async fn a_person_in_two_tenants_chooses_one_of_them() {
    let app = TestApp::new().await;
    let (first, second) = (signed_up(&app, "first").await, signed_up(&app, "second").await);
    let tenant = second.viewer().tenant_id;
    let email =
        first.query("{ viewer { user { email } } }", json!({})).await["viewer"]["user"]["email"].clone();
    let input = json!({ "name": "Guest", "email": email, "role": "VIEWER", "password": "a first password" });
    let guest = second
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    app.verify(email.as_str().unwrap()).await;
    let at = async |tenant: Option<Uuid>| {
        let tenant = tenant.map(|tenant| dealstream::db::id::write_id("tenant", tenant));
        let answer = sign_in(
            &app,
            json!({ "email": email, "password": PASSWORD, "tenantId": tenant }),
        )
        .await;
        app.with_token(answer["data"]["signIn"]["accessToken"].as_str().unwrap())
            .await
    };
    assert_eq!(
        at(None).await.viewer().tenant_id,
        first.viewer().tenant_id,
        "the first they joined"
    );
    let user = dealstream::db::id::read_id(guest["user"]["id"].as_str().unwrap())
        .unwrap()
        .1;
    let guest = at(Some(tenant)).await;
    assert_eq!(
        (
            guest.viewer().tenant_id,
            guest.viewer().rights.role,
            guest.viewer().user_id
        ),
        (tenant, Role::Viewer, user)
    );
    assert_ne!(
        user,
        first.viewer().user_id,
        "nothing tells that they are one person"
    );
    let data = guest
        .query("{ viewer { role user { name } tenant { name } } }", json!({}))
        .await;
    assert_eq!(
        data["viewer"],
        json!({ "role": "VIEWER", "user": { "name": "Guest" }, "tenant": { "name": "second" } })
    );
}

#[tokio::test]
async fn the_tenants_settings_are_changed_by_its_admin() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let deal = client.deal(json!({ "name": "D" })).await;
    let update = async |client: &Client, input: Value| {
        client
            .payload(
                "updateTenant",
                "UpdateTenantInput",
                "tenant { name currencyCode version }",
                input,
            )
            .await
    };
    let payload = update(&client, json!({ "name": " Renamed ", "currencyCode": "JPY" })).await;
    assert_eq!(
        payload["tenant"],
        json!({ "name": "Renamed", "currencyCode": "JPY", "version": 2 })
    );
    let same = update(&client, json!({ "name": "Renamed" })).await;
    assert_eq!(same["tenant"]["version"], 2);
    assert_eq!(
        update(&client, json!({ "name": "" })).await["userErrors"][0]["code"],
        "REQUIRED"
    );
    let stale = update(&client, json!({ "name": "Again", "expectedVersion": 1 })).await;
    assert_eq!(
        stale["userErrors"][0]["conflicts"],
        json!([{ "field": "name", "currentValue": "\"Renamed\"" }])
    );
    // New deals have the new currency, old ones keep theirs.
    let document = "query($id: ID!) { deal(id: $id) { amount { amount currencyCode } } }";
    let old = client.query(document, json!({ "id": deal })).await;
    assert_eq!(
        old["deal"]["amount"],
        json!({ "amount": "0.00", "currencyCode": "USD" })
    );
    let new = client.deal(json!({ "name": "D" })).await;
    let new = client.query(document, json!({ "id": new })).await;
    assert_eq!(
        new["deal"]["amount"],
        json!({ "amount": "0", "currencyCode": "JPY" })
    );
    let manager = app.user(&client, Role::Manager).await;
    let document = r#"mutation { updateTenant(input: { name: "Mine" }) { tenant { name } } }"#;
    assert_eq!(manager.code(document, json!({})).await, "FORBIDDEN");
}

#[tokio::test]
async fn filters_of_users_find_what_they_say() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    for role in [Role::Sales, Role::Sales, Role::Viewer] {
        app.user(&client, role).await;
    }
    let me = dealstream::db::id::write_id("user", client.viewer().user_id);
    let document = "query($filter: UserFilter) { users(filter: $filter) { totalCount } }";
    for (filter, count) in [
        (json!({}), 4),
        (json!({ "id": { "eq": me } }), 1),
        (json!({ "role": { "eq": "SALES" } }), 2),
        (json!({ "role": { "in": ["ADMIN", "VIEWER"] } }), 2),
        (json!({ "name": { "startsWith": "ada" } }), 1),
        (json!({ "email": { "contains": "@test.example" } }), 4),
        (json!({ "isActive": true }), 4),
        (json!({ "isActive": false }), 0),
        (
            json!({ "not": { "or": [{ "id": { "eq": me } }, { "role": { "eq": "SALES" } }] } }),
            1,
        ),
    ] {
        let data = client.query(document, json!({ "filter": filter })).await;
        assert_eq!(data["users"]["totalCount"], count, "{filter}");
    }
}
