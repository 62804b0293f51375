//! Invitations by mail: who gets in, and who does not.

use std::time::Duration;

use dealstream::auth::{Permission, Reach, Rights, Role};
use dealstream::config::Config;
use dealstream::db::id::{read_id, write_id};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::counter;
use crate::support::mail::{self, Postman, mailing, postman, with_mail};
use crate::support::program::lasting_address;
use crate::support::recipes::PASSWORD;
use crate::support::{Client, TestApp};

const INVITATION: &str = "invitation { id email name role expiresAt isExpired invitedBy { name } }";

fn address() -> String {
    format!("{}@test.example", Uuid::new_v4().simple())
}

async fn invite(client: &Client, input: Value) -> Value {
    client
        .payload("inviteUser", "InviteUserInput", INVITATION, input)
        .await
}

/// Invites an address, and answers the token that was mailed to it.
async fn invited(client: &Client, email: &str, role: &str) -> String {
    let earlier = postman().to(email).len();
    let payload = invite(client, json!({ "email": email, "role": role })).await;
    assert_eq!(payload["userErrors"], json!([]));
    postman().nth(email, earlier + 1).await.token()
}

async fn accept(client: &Client, input: Value) -> Value {
    let selection = "accessToken viewer { role user { id name email } tenant { id name } }";
    client
        .payload("acceptInvitation", "AcceptInvitationInput", selection, input)
        .await
}

async fn preview(app: &TestApp, token: &str) -> Value {
    let document = "query($token: String!) { invitation(token: $token) { tenantName inviterName email name mustSetPassword } }";
    app.anon().query(document, json!({ "token": token })).await["invitation"].clone()
}

async fn sign_in(app: &TestApp, email: &str, password: &str, tenant: Option<Uuid>) -> Option<Client> {
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let tenant = tenant.map(|tenant| write_id("tenant", tenant));
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

fn good(app: &TestApp, client: &Client) -> bool {
    !app.app.revocations.revokes(client.viewer())
}

/// An account that another tenant's admin made, with a password that they chose.
async fn made_elsewhere(app: &TestApp, email: &str) -> Client {
    let elsewhere = app.tenant().await;
    let input = json!({ "name": "Somebody", "email": email, "password": PASSWORD, "role": "VIEWER" });
    elsewhere
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    elsewhere
}

#[tokio::test]
async fn who_is_invited_gets_a_link_and_comes_in_by_it_once() {
    let app = mailing().await;
    let admin = app.tenant().await;
    let email = address();
    let payload = invite(
        &admin,
        json!({ "email": email.to_uppercase(), "name": "Grace", "role": "SALES" }),
    )
    .await;
    let invitation = &payload["invitation"];
    assert_eq!(
        (
            &invitation["email"],
            &invitation["role"],
            &invitation["invitedBy"]["name"]
        ),
        (&json!(email), &json!("SALES"), &json!("Ada Admin"))
    );
    let list = "{ invitations { totalCount nodes { id email isExpired } } }";
    let listed = admin.query(list, json!({})).await;
    assert_eq!(
        listed["invitations"],
        json!({ "totalCount": 1, "nodes": [{ "id": invitation["id"], "email": email, "isExpired": false }] })
    );
    let tenant = admin.query("{ tenant { name } }", json!({})).await["tenant"]["name"].clone();

    let mail = postman().nth(&email, 1).await;
    assert_eq!(mail.page(), "invitation");
    assert!(mail.text.contains("https://crm.example.com/invitation#"));
    assert!(mail.html.contains(&mail.token()));
    assert_eq!(mail.header("From"), "Dealstream <crm@sender.example>");
    assert_eq!(mail.header("To"), format!("Grace <{email}>"));
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Subject").contains("Ada Admin invites you to Tenant"));
    let token = mail.token();
    assert_eq!(token.len(), 43, "256 bits");
    assert_eq!(
        preview(&app, &token).await,
        json!({ "tenantName": tenant, "inviterName": "Ada Admin", "email": email, "name": "Grace", "mustSetPassword": true })
    );

    for (password, refused) in [
        (json!("short"), ("password", "INVALID")),
        (json!("password123"), ("password", "INVALID")),
        (json!(email), ("password", "INVALID")),
        (json!(null), ("password", "REQUIRED")),
    ] {
        let payload = accept(&app.anon(), json!({ "token": token, "password": password })).await;
        assert_eq!(refusal(&payload), refused, "{password}");
    }
    let input = json!({ "token": token, "name": "Grace Hopper", "password": PASSWORD });
    let accepted = accept(&app.anon(), input.clone()).await;
    let grace = app.with_token(accepted["accessToken"].as_str().unwrap()).await;
    assert_eq!(
        (grace.viewer().tenant_id, grace.viewer().rights.role),
        (admin.viewer().tenant_id, Role::Sales)
    );
    assert_eq!(
        (
            &accepted["viewer"]["user"]["name"],
            &accepted["viewer"]["user"]["email"]
        ),
        (&json!("Grace Hopper"), &json!(email))
    );
    assert_eq!(grace.position().await, accepted["position"].as_str().unwrap());
    // Used is used.
    assert_eq!(preview(&app, &token).await, Value::Null);
    assert_eq!(refusal(&accept(&app.anon(), input).await), ("token", "NOT_FOUND"));
    assert_eq!(admin.query(list, json!({})).await["invitations"]["totalCount"], 0);
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_some());
    let again = invite(&admin, json!({ "email": email, "role": "ADMIN" })).await;
    assert_eq!(refusal(&again), ("email", "DUPLICATE"));
}

#[tokio::test]
async fn what_waits_to_be_mailed_can_be_read_by_nobody() {
    // Nobody delivers in this database.
    let app = TestApp::on(mail::database("unsent").await, with_mail(1)).await;
    let admin = app.tenant().await;
    let email = address();
    invite(
        &admin,
        json!({ "email": email, "name": "Legible", "role": "SALES" }),
    )
    .await;
    let superuser = app.superuser().await;
    let waiting = superuser.query("SELECT sealed FROM mails", &[]).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let sealed: Vec<u8> = waiting[0].get(0);
    for secret in [
        email.as_bytes(),
        b"Legible",
        admin.viewer().tenant_id.as_bytes(),
        b"Invitation",
    ] {
        assert!(!sealed.windows(secret.len()).any(|window| window == secret));
    }
    let links = superuser.query("SELECT FROM links", &[]).await.unwrap();
    assert!(links.is_empty(), "a link is made when it is sent");
}

#[tokio::test]
async fn inviting_tells_nothing_of_whether_an_address_is_known() {
    counter::install();
    let app = TestApp::on(mail::database("inviting").await, with_mail(1)).await;
    let admin = app.tenant().await;
    let (unknown, unverified, verified) = (address(), address(), address());
    made_elsewhere(&app, &unverified).await;
    made_elsewhere(&app, &verified).await;
    let verify = format!("UPDATE accounts SET email_verified_at = now() WHERE email = '{verified}'");
    app.superuser().await.batch_execute(&verify).await.unwrap();
    // Statements are prepared the first time.
    invite(&admin, json!({ "email": address(), "role": "SALES" })).await;
    let mut seen = Vec::new();
    for email in [&unknown, &unverified, &verified] {
        app.settle().await;
        counter::take();
        let mut answer = invite(&admin, json!({ "email": email, "role": "SALES" })).await;
        app.settle().await;
        let statements = counter::take().statements.len();
        for changing in ["id", "expiresAt"] {
            answer["invitation"][changing].take();
        }
        answer["position"].take();
        seen.push((answer.to_string().replace(email, "<email>"), statements));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert!(seen[0].1 > 5, "statements are counted");
}

#[tokio::test]
async fn a_verified_account_proves_itself_with_its_password_or_its_session() {
    let app = mailing().await;
    let (first, second, third) = (app.tenant().await, app.tenant().await, app.tenant().await);
    let email = address();
    let token = invited(&first, &email, "SALES").await;
    let accepted = accept(
        &app.anon(),
        json!({ "token": token, "name": "Grace", "password": PASSWORD }),
    )
    .await;
    let grace = app.with_token(accepted["accessToken"].as_str().unwrap()).await;

    let token = invited(&second, &email, "VIEWER").await;
    assert_eq!(preview(&app, &token).await["mustSetPassword"], false);
    for (password, refused) in [
        (json!("not the password"), ("password", "INVALID")),
        (json!("x".repeat(1_000_000)), ("password", "INVALID")),
        (json!(null), ("password", "REQUIRED")),
    ] {
        let input = json!({ "token": token, "name": "Grace", "password": password });
        assert_eq!(refusal(&accept(&app.anon(), input.clone()).await), refused);
        // Somebody else's session proves nothing.
        assert_eq!(refusal(&accept(&third, input).await), refused);
    }
    let accepted = accept(
        &app.anon(),
        json!({ "token": token, "name": "Grace", "password": PASSWORD }),
    )
    .await;
    let guest = app.with_token(accepted["accessToken"].as_str().unwrap()).await;
    assert_eq!(guest.viewer().tenant_id, second.viewer().tenant_id);
    assert_ne!(guest.viewer().user_id, grace.viewer().user_id);
    assert!(good(&app, &grace), "nothing changed for the account");

    let token = invited(&third, &email, "ADMIN").await;
    let accepted = accept(&grace, json!({ "token": token, "name": "Grace" })).await;
    let third_time = app.with_token(accepted["accessToken"].as_str().unwrap()).await;
    assert_eq!(
        (third_time.viewer().tenant_id, third_time.viewer().rights.role),
        (third.viewer().tenant_id, Role::Admin)
    );
    for tenant in [&first, &second, &third] {
        let tenant = tenant.viewer().tenant_id;
        assert!(sign_in(&app, &email, PASSWORD, Some(tenant)).await.is_some());
    }
}

#[tokio::test]
async fn who_made_an_account_for_somebody_else_does_not_get_into_their_other_tenants() {
    let app = mailing().await;
    let email = address();
    let hostile = made_elsewhere(&app, &email).await;
    let intruder = sign_in(&app, &email, PASSWORD, None)
        .await
        .expect("in their own tenant they may");
    let victim = app.tenant().await;
    let input = json!({ "name": "V", "email": email, "password": "some first password", "role": "ADMIN" });
    victim
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    // The victim's tenant has the address too, but whoever knows the password has not proved to be meant.
    let at_victim = Some(victim.viewer().tenant_id);
    assert!(sign_in(&app, &email, PASSWORD, at_victim).await.is_none());
    assert!(
        sign_in(&app, &email, "some first password", at_victim)
            .await
            .is_none()
    );

    // Another tenant invites: the mailed link, and not the known password, decides.
    let other = app.tenant().await;
    let token = invited(&other, &email, "MANAGER").await;
    assert_eq!(preview(&app, &token).await["mustSetPassword"], true);
    let own = "a password of one's own";
    let accepted = accept(
        &app.anon(),
        json!({ "token": token, "name": "V", "password": own }),
    )
    .await;
    assert!(accepted["accessToken"].is_string(), "{accepted}");
    assert!(!good(&app, &intruder), "earlier sessions end");
    assert!(
        sign_in(&app, &email, PASSWORD, None).await.is_none(),
        "the earlier password is void"
    );
    for tenant in [&hostile, &victim, &other] {
        let tenant = tenant.viewer().tenant_id;
        assert!(sign_in(&app, &email, own, Some(tenant)).await.is_some());
    }
}

#[tokio::test]
async fn who_takes_over_an_account_by_a_link_takes_its_api_keys_away() {
    let app = mailing().await;
    let (email, other) = (address(), app.tenant().await);
    let elsewhere = app.tenant().await;
    let input = json!({ "name": "Somebody", "email": email, "password": PASSWORD, "role": "ADMIN" });
    elsewhere
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    let intruder = sign_in(&app, &email, PASSWORD, None).await.unwrap();
    let input = json!({ "name": "Door", "permissions": ["DEALS_READ"] });
    let made = intruder
        .mutate("createApiKey", "CreateApiKeyInput", "secret", input)
        .await;
    let key = made["secret"].as_str().unwrap();
    assert!(app.identified(key).await.is_ok());
    let token = invited(&other, &email, "SALES").await;
    let input = json!({ "token": token, "name": "V", "password": "a password of one's own" });
    assert!(accept(&app.anon(), input).await["accessToken"].is_string());
    assert!(app.identified(key).await.is_err());
    let trail = elsewhere
        .query("{ auditEvents(first: 10) { nodes { kind } } }", json!({}))
        .await;
    assert!(trail.to_string().contains("PASSWORD_RESET"), "{trail}");
}

#[tokio::test]
async fn a_known_accounts_password_is_guessed_at_as_little_here_as_when_signing_in() {
    let app = mailing().await;
    let tenant = app.tenant().await;
    let grace = crate::support::recipes::signed_up(&app, "guessed").await;
    let me = grace.query("{ viewer { user { email } } }", json!({})).await;
    let email = me["viewer"]["user"]["email"].as_str().unwrap().to_owned();
    app.verify(&email).await;
    let token = invited(&tenant, &email, "SALES").await;
    let input = |password: &str| json!({ "token": token, "name": "G", "password": password });
    for _ in 0..5 {
        let guessed = accept(&app.anon(), input("not the password")).await;
        assert_eq!(refusal(&guessed), ("password", "INVALID"));
    }
    let document =
        "mutation($input: AcceptInvitationInput!) { acceptInvitation(input: $input) { accessToken } }";
    let code = app
        .anon()
        .code(document, json!({ "input": input(PASSWORD) }))
        .await;
    assert_eq!(code, "RATE_LIMITED");
    // It is one count with signing in.
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let input = json!({ "email": email, "password": PASSWORD });
    let code = app.anon().code(document, json!({ "input": input })).await;
    assert_eq!(code, "RATE_LIMITED");
}

#[tokio::test]
async fn an_invitation_gives_what_its_inviter_may_give_when_it_is_accepted() {
    let app = mailing().await;
    let admin = app.tenant().await;
    let change = async |user: &Client, input: Value| {
        let mut input = input;
        input["userId"] = json!(write_id("user", user.viewer().user_id));
        admin
            .mutate("updateUser", "UpdateUserInput", "position", input)
            .await;
    };
    for lost in [json!({ "role": "MANAGER" }), json!({ "isActive": false })] {
        let inviter = app.user(&admin, Role::Admin).await;
        let email = address();
        let token = invited(&inviter, &email, "VIEWER").await;
        let input = |token: &str| json!({ "token": token, "name": "N", "password": PASSWORD });
        change(&inviter, lost).await;
        let refused = accept(&app.anon(), input(&token)).await;
        assert_eq!(refusal(&refused), ("token", "NOT_FOUND"));
        assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
        // Somebody who may can send it again.
        let listed = admin.query("{ invitations { nodes { id } } }", json!({})).await;
        let again = json!({ "invitationId": listed["invitations"]["nodes"][0]["id"] });
        let sent = admin
            .mutate("resendInvitation", "ResendInvitationInput", INVITATION, again)
            .await;
        assert_eq!(sent["invitation"]["invitedBy"]["name"], "Ada Admin");
        let token = postman().nth(&email, 2).await.token();
        assert!(accept(&app.anon(), input(&token)).await["accessToken"].is_string());
    }
    // A role that has come to permit more than its inviter may give is given by nobody.
    let input = json!({ "name": "Recruiter", "permissions": ["USERS_READ", "USERS_WRITE", "DEALS_READ"] });
    let role = async |input: Value| {
        let made = admin
            .mutate("createRole", "CreateRoleInput", "role { id }", input)
            .await;
        made["role"]["id"].clone()
    };
    let recruiters = role(input).await;
    let interns = role(json!({ "name": "Intern", "permissions": ["DEALS_READ"] })).await;
    let recruiter = app.user(&admin, Role::Viewer).await;
    change(&recruiter, json!({ "customRoleId": recruiters })).await;
    let rights = [
        Permission::UsersRead,
        Permission::UsersWrite,
        Permission::DealsRead,
    ];
    let rights = Rights::custom(Role::Custom, None, rights.into_iter().collect(), Reach::ALL);
    let recruiter = recruiter.with_rights(rights);
    let email = address();
    let payload = invite(&recruiter, json!({ "email": email, "customRoleId": interns })).await;
    assert_eq!(payload["userErrors"], json!([]));
    let token = postman().nth(&email, 1).await.token();
    let more = json!({ "roleId": interns, "permissions": ["DEALS_READ", "AUDIT_READ"] });
    admin
        .mutate("updateRole", "UpdateRoleInput", "position", more)
        .await;
    let input = json!({ "token": token, "name": "N", "password": PASSWORD });
    assert_eq!(
        refusal(&accept(&app.anon(), input.clone()).await),
        ("token", "NOT_FOUND")
    );
    let less = json!({ "roleId": interns, "permissions": ["DEALS_READ"] });
    admin
        .mutate("updateRole", "UpdateRoleInput", "position", less)
        .await;
    assert!(accept(&app.anon(), input).await["accessToken"].is_string());
}

#[tokio::test]
async fn a_link_that_is_expired_revoked_replaced_or_forged_opens_nothing() {
    let app = mailing().await;
    let (admin, other) = (app.tenant().await, app.tenant().await);
    let superuser = app.superuser().await;
    let email = address();
    let first = invited(&admin, &email, "SALES").await;
    let refused = async |token: &str| {
        assert_eq!(preview(&app, token).await, Value::Null);
        let input = json!({ "token": token, "name": "N", "password": PASSWORD });
        let payload = accept(&app.anon(), input).await;
        assert_eq!(refusal(&payload), ("token", "NOT_FOUND"));
        payload
    };
    let forged = refused("").await;
    let mut turned: String = first.clone();
    turned.replace_range(0..1, if first.starts_with('A') { "B" } else { "A" });
    let long = "A".repeat(100_000);
    for token in [
        "A",
        "\0",
        "' OR true --",
        &turned,
        &long,
        &first.to_lowercase(),
        &format!("{first}="),
    ] {
        assert_eq!(refused(token).await, forged, "{token:.50}");
    }
    let id = async || {
        let listed = admin.query("{ invitations { nodes { id } } }", json!({})).await;
        listed["invitations"]["nodes"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // Sent again, with another link.
    let again = json!({ "invitationId": id().await, "expiresInDays": 1 });
    let foreign = other
        .payload(
            "resendInvitation",
            "ResendInvitationInput",
            INVITATION,
            again.clone(),
        )
        .await;
    assert_eq!(refusal(&foreign), ("invitationId", "NOT_FOUND"));
    admin
        .mutate("resendInvitation", "ResendInvitationInput", INVITATION, again)
        .await;
    assert_eq!(refused(&first).await, forged);
    let second = postman().nth(&email, 2).await.token();
    assert_ne!(preview(&app, &second).await, Value::Null);
    // Expired.
    let set = |past: &str| {
        let tenant = admin.viewer().tenant_id;
        format!("UPDATE invitations SET expires_at = now() + interval '{past}' WHERE tenant_id = '{tenant}'")
    };
    superuser.batch_execute(&set("-1 second")).await.unwrap();
    assert_eq!(refused(&second).await, forged);
    let listed = admin
        .query("{ invitations { nodes { isExpired } } }", json!({}))
        .await;
    assert_eq!(listed["invitations"]["nodes"], json!([{ "isExpired": true }]));
    superuser.batch_execute(&set("1 day")).await.unwrap();
    superuser
        .execute(
            "UPDATE links SET expires_at = now() - interval '1 second' WHERE email = $1",
            &[&email],
        )
        .await
        .unwrap();
    assert_eq!(refused(&second).await, forged);
    // Revoked.
    let again = json!({ "invitationId": id().await });
    admin
        .mutate("resendInvitation", "ResendInvitationInput", INVITATION, again)
        .await;
    let third = postman().nth(&email, 3).await.token();
    let revoke = json!({ "invitationId": id().await });
    let foreign = other
        .payload(
            "revokeInvitation",
            "RevokeInvitationInput",
            "revokedInvitationId",
            revoke.clone(),
        )
        .await;
    assert_eq!(refusal(&foreign), ("invitationId", "NOT_FOUND"));
    assert_ne!(preview(&app, &third).await, Value::Null);
    admin
        .mutate(
            "revokeInvitation",
            "RevokeInvitationInput",
            "revokedInvitationId",
            revoke,
        )
        .await;
    assert_eq!(refused(&third).await, forged);
    assert!(sign_in(&app, &email, PASSWORD, None).await.is_none());
    // A new one for the same address is another.
    let fourth = invited(&admin, &email, "VIEWER").await;
    assert_ne!(preview(&app, &fourth).await, Value::Null);
}

#[tokio::test]
async fn of_those_who_accept_with_one_link_at_the_same_time_one_comes_in() {
    let app = mailing().await;
    for _ in 0..3 {
        let admin = app.tenant().await;
        let email = address();
        let token = invited(&admin, &email, "SALES").await;
        let input = |name: &str| json!({ "token": token, "name": name, "password": PASSWORD });
        let (one, two, three) = (app.anon(), app.anon(), app.anon());
        let answers = futures::join!(
            accept(&one, input("One")),
            accept(&two, input("Two")),
            accept(&three, input("Three"))
        );
        let answers = [answers.0, answers.1, answers.2];
        let in_count = answers.iter().filter(|it| it["accessToken"].is_string()).count();
        let out = answers.iter().filter(|it| refusal(it) == ("token", "NOT_FOUND"));
        assert_eq!((in_count, out.count()), (1, 2), "{answers:#?}");
        assert_eq!(
            admin.query("{ users { totalCount } }", json!({})).await["users"]["totalCount"],
            2
        );
    }
}

#[tokio::test]
async fn what_is_typed_into_an_invitation_reaches_nobody_else() {
    let app = mailing().await;
    let admin = app.tenant().await;
    for name in ["Eve\r\nBcc: victim@test.example", "Eve\nX", "\0"] {
        let payload = invite(
            &admin,
            json!({ "email": address(), "name": name, "role": "SALES" }),
        )
        .await;
        assert_eq!(refusal(&payload), ("name", "INVALID"), "{name:?}");
    }
    for email in [
        "a@test.example\r\nBcc: v@test.example",
        "a@test.example, v@test.example",
        "<a@test.example>",
        "a b@c.de",
    ] {
        let payload = invite(&admin, json!({ "email": email, "role": "SALES" })).await;
        assert_eq!(refusal(&payload), ("email", "INVALID"), "{email:?}");
    }
    let name = "\"Eve\" <victim@test.example>, =?utf-8?q?x=0D=0ABcc:_v@test.example?= ; é";
    let email = address();
    invite(&admin, json!({ "email": email, "name": name, "role": "SALES" })).await;
    let mail = postman().nth(&email, 1).await;
    assert_eq!(mail.to, std::slice::from_ref(&email));
    let names: Vec<String> = mail
        .headers
        .iter()
        .map(|header| header.split_once(':').unwrap().0.to_lowercase())
        .collect();
    for name in ["bcc", "cc", "reply-to"] {
        assert!(!names.iter().any(|it| it == name), "{names:?}");
    }
    assert!(mail.header("To").ends_with(&format!("<{email}>")));
    assert!(postman().to("victim@test.example").is_empty());
}

#[tokio::test]
async fn mail_waits_for_a_server_that_is_away_and_is_given_up_when_it_is_refused() {
    let port = lasting_address().port();
    let app = TestApp::on(mail::database("away").await, with_mail(port)).await;
    app.app.start().await.unwrap();
    let admin = app.tenant().await;
    let superuser = app.superuser().await;
    let email = address();
    let payload = invite(&admin, json!({ "email": email, "role": "SALES" })).await;
    assert_eq!(payload["userErrors"], json!([]), "nobody waits for a mail server");
    let waiting = async || -> (i64, i64, i64) {
        let counts =
            "SELECT (SELECT count(*) FROM mails), (SELECT coalesce(max(attempts), 0) FROM mails)::int8,
                             (SELECT count(*) FROM links)";
        let row = superuser.query_one(counts, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    let wait_until = async |what: &str, holds: &dyn Fn((i64, i64, i64)) -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !holds(waiting().await) {
            assert!(std::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait_until("it is tried again", &|(mails, attempts, _)| {
        mails == 1 && attempts >= 3
    })
    .await;
    let postman = Postman::start(port);
    let token = postman.nth(&email, 1).await.token();
    assert_ne!(preview(&app, &token).await, Value::Null);
    wait_until("what was sent is forgotten, and one link is left", &|counts| {
        counts == (0, 0, 1)
    })
    .await;
    assert_eq!(postman.to(&email).len(), 1, "it came once");

    let later = format!("later-{}", address());
    invite(&admin, json!({ "email": later, "role": "SALES" })).await;
    postman.nth(&later, 1).await;
    let refused = format!("refused-{}", address());
    invite(&admin, json!({ "email": refused, "role": "SALES" })).await;
    wait_until("what is refused is given up", &|(mails, _, links)| {
        (mails, links) == (0, 2)
    })
    .await;
    assert!(postman.to(&refused).is_empty());
    drop(postman);
    let listed = admin.query("{ invitations { totalCount } }", json!({})).await;
    assert_eq!(listed["invitations"]["totalCount"], 3);
}

#[tokio::test]
async fn without_a_mail_server_a_shared_database_invites_nobody() {
    let url = crate::support::app::database_url().await;
    let config = Config {
        database_url: Some(url.clone()),
        ..crate::support::app::config()
    };
    let app = TestApp::on(url, config).await;
    let admin = app.tenant().await;
    let payload = invite(&admin, json!({ "email": address(), "role": "SALES" })).await;
    assert_eq!(payload["userErrors"][0]["code"], "NOT_ALLOWED");
    let message = payload["userErrors"][0]["message"].as_str().unwrap();
    assert!(message.contains("SMTP_URL"), "{message}");
    let listed = admin.query("{ invitations { totalCount } }", json!({})).await;
    assert_eq!(listed["invitations"]["totalCount"], 0);
}

#[tokio::test]
async fn who_has_left_is_no_longer_named_as_the_inviter() {
    let app = mailing().await;
    let admin = app.tenant().await;
    let inviter = app.user(&admin, Role::Admin).await;
    let token = invited(&inviter, &address(), "SALES").await;
    assert_eq!(preview(&app, &token).await["inviterName"], "Admin User");
    let user = write_id("user", inviter.viewer().user_id);
    let gone = admin
        .mutate(
            "deleteUser",
            "DeleteUserInput",
            "deletedUserId",
            json!({ "userId": user }),
        )
        .await;
    assert_eq!(
        read_id(gone["deletedUserId"].as_str().unwrap()).unwrap().1,
        inviter.viewer().user_id
    );
    assert_eq!(preview(&app, &token).await["inviterName"], Value::Null);
    let listed = admin
        .query("{ invitations { nodes { invitedBy { id } } } }", json!({}))
        .await;
    assert_eq!(listed["invitations"]["nodes"], json!([{ "invitedBy": null }]));
}
