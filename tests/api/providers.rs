//! Signing in by way of other providers: who is recognised, and what attackers try.

use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dealstream::auth::provider::Providers;
use dealstream::config::{Config, ProviderSettings};
use dealstream::crypto;
use dealstream::db::id::write_id;
use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::config;
use crate::support::provider::{
    Deaf, Forge, Liar, PAGE, Says, Site, browse, consent, issuer, with_github, with_issuer,
};
use crate::support::recipes::{PASSWORD, refusals, signed_up};
use crate::support::{Client, TestApp};

/// Somebody with an account and a verified address.
struct Person {
    client: Client,
    email: String,
    subject: String,
}

impl Person {
    async fn of(app: &TestApp) -> Self {
        let client = signed_up(app, "visited").await;
        let data = client.query("{ viewer { user { email } } }", json!({})).await;
        let email = data["viewer"]["user"]["email"].as_str().unwrap().to_owned();
        app.verify(&email).await;
        Self {
            client,
            email,
            subject: Uuid::new_v4().to_string(),
        }
    }

    /// Answers their recovery codes.
    async fn set_up_a_second_factor(&self) -> Value {
        let (field, ty) = ("beginTotpEnrolment", "BeginTotpEnrolmentInput");
        let begun = self
            .client
            .payload(field, ty, "secret", json!({ "password": PASSWORD }));
        let secret = begun.await["secret"].as_str().unwrap().to_owned();
        let secret = totp_rs::Secret::try_from_base32(&secret).unwrap();
        let totp = totp_rs::Builder::new().with_secret(secret).build_noncompliant();
        let now = chrono::Utc::now().timestamp().try_into().unwrap();
        let input = json!({ "code": totp.generate(now).to_string() });
        let (field, ty) = ("confirmTotpEnrolment", "ConfirmTotpEnrolmentInput");
        let mut confirmed = self.client.mutate(field, ty, "recoveryCodes", input).await;
        confirmed["recoveryCodes"].take()
    }

    /// As the provider knows them.
    fn there(&self) -> Value {
        json!({ "sub": self.subject, "email": self.email, "email_verified": true })
    }
}

fn payload(answer: &Value) -> &Value {
    &answer["data"]["completeProviderSignIn"]
}

fn error(answer: &Value) -> &Value {
    &answer["errors"][0]["extensions"]["code"]
}

async fn linked(client: &Client) -> Value {
    let document = "{ linkedIdentities { provider email } }";
    client.query(document, json!({})).await["linkedIdentities"].clone()
}

async fn audited(app: &TestApp, client: &Client) -> Vec<(String, String)> {
    let sql = "SELECT kind, detail FROM audit_entries WHERE tenant_id::text = $1 AND entity = 'identity' ORDER BY sequence";
    let tenant = client.viewer().tenant_id.to_string();
    let rows = app.superuser().await.query(sql, &[&tenant]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_person_signs_in_by_way_of_a_provider() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let shown = site
        .app
        .anon()
        .query("{ signInProviders { name label url } }", json!({}))
        .await;
    assert_eq!(
        shown["signInProviders"],
        json!([{ "name": "oidc", "label": "OpenID Connect", "url": "https://api.crm.test/sign-in/oidc" }])
    );
    let visit = site.send().await;
    assert!(visit.location.as_str().starts_with(issuer()));
    assert_eq!(visit.parameter("response_type"), "code");
    assert_eq!(visit.parameter("code_challenge_method"), "S256");
    assert_eq!(visit.parameter("scope"), "openid email");
    assert_eq!(
        visit.parameter("redirect_uri"),
        "https://api.crm.test/sign-in/oidc/callback"
    );
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(visit.parameter(name).len(), 43, "{name}");
    }
    assert!(visit.cookie.starts_with("__Host-"));
    for attribute in [
        "; Secure",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Path=/;",
        "; Max-Age=600",
    ] {
        assert!(visit.set_cookie.contains(attribute), "{}", visit.set_cookie);
    }
    let back = consent(&visit.location, &person.there()).await;
    let told = site.receive(&back, &visit.cookie).await;
    assert_eq!(told.status, 303);
    assert!(told.cookies[0].contains("=; ") && told.cookies[0].contains("Max-Age=0"));
    let answer = site.complete(told.code(), &visit.verifier, None).await;
    let signed_in = payload(&answer);
    assert_eq!(signed_in["viewer"]["user"]["email"], json!(person.email));
    let client = site
        .app
        .with_token(signed_in["accessToken"].as_str().unwrap())
        .await;
    assert_eq!(client.viewer().user_id, person.client.viewer().user_id);
    let document = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken } }";
    let input = json!({ "input": { "refreshToken": signed_in["refreshToken"] } });
    site.app.anon().query(document, input).await;
    let known = json!([{ "provider": "oidc", "email": person.email }]);
    assert_eq!(linked(&client).await, known);
    // From now on they are found by the provider's name for them, whatever becomes of their address there.
    let moved = json!({ "sub": person.subject, "email": "moved@test.example", "email_verified": false });
    let (told, verifier) = site.by_way_of(&moved).await;
    let answer = site.complete(told.code(), &verifier, None).await;
    assert_eq!(payload(&answer)["viewer"]["user"]["email"], json!(person.email));
    assert_eq!(linked(&client).await, known);
    let audited = audited(&site.app, &client).await;
    let kinds: Vec<&str> = audited.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["LINKED", "USED", "USED"]);
    assert!(
        audited
            .iter()
            .all(|(_, detail)| detail == r#"{"provider":"oidc"}"#)
    );
}

#[tokio::test]
async fn who_comes_back_is_who_was_sent_and_comes_once() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let (one, two) = (site.send().await, site.send().await);
    let refused = async |back: &str, cookie: &str| {
        let told = site.receive(back, cookie).await;
        assert_eq!((told.status, told.location), (400, None));
        String::from_utf8(told.body).unwrap()
    };
    let state = |visit: &crate::support::provider::Visit| visit.parameter("state");
    // Nobody was sent with this state.
    let unknown = refused(&site.back(&crypto::random_token(), "x"), &one.cookie).await;
    assert!(unknown.contains("BAD_USER_INPUT"), "{unknown}");
    for odd in ["", "\0", &"A".repeat(5000)] {
        let told = browse(
            &site.url(&format!(
                "oidc/callback?state={}&code=x",
                odd.replace('\0', "%00")
            )),
            &[("cookie", &one.cookie)],
        )
        .await;
        assert_eq!(told.status, 400, "{odd:.9}");
    }
    assert_eq!(browse(&site.url("oidc/callback?code=x"), &[]).await.status, 400);
    // Not in this browser, and by that for nobody any more. Where the right cookie is one of two, either may be of somebody
    // else's making.
    for cookie in [
        "",
        "__Host-dealstream-visit=",
        "OTHER",
        "OWN; OTHER",
        "OTHER; OWN",
    ] {
        let visit = site.send().await;
        let back = consent(&visit.location, &person.there()).await;
        let cookie = cookie.replace("OTHER", &two.cookie).replace("OWN", &visit.cookie);
        assert_eq!(refused(&back, &cookie).await, unknown, "{cookie}");
        assert_eq!(refused(&back, &visit.cookie).await, unknown, "it was good once");
    }
    // Nor with another's code.
    let stolen = consent(&one.location, &person.there()).await;
    let code = stolen.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let back = format!("{}&iss={}", site.back(&state(&two), code), issuer());
    let told = site.receive(&back, &two.cookie).await;
    assert_eq!(told.result(), ("error", "failed"));
    // Good once.
    let visit = site.send().await;
    let back = consent(&visit.location, &person.there()).await;
    site.receive(&back, &visit.cookie).await.code();
    assert_eq!(refused(&back, &visit.cookie).await, unknown);
    // Not too late.
    let visit = site.send().await;
    let back = consent(&visit.location, &person.there()).await;
    let late = "UPDATE provider_visits SET expires_at = now() - interval '1 second' WHERE state_hash = $1";
    let hash = crypto::token_hash(&state(&visit)).to_vec();
    let superuser = site.app.superuser().await;
    assert_eq!(superuser.execute(late, &[&hash]).await.unwrap(), 1);
    assert_eq!(refused(&back, &visit.cookie).await, unknown);
}

#[tokio::test]
async fn a_code_is_good_once_in_time_and_for_the_page_that_began() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let superuser = site.app.superuser().await;
    let refused = async |code: &str, verifier: &str, tenant: Option<&str>| {
        let answer = site.complete(code, verifier, tenant).await;
        assert_eq!(error(&answer), "UNAUTHENTICATED", "{answer}");
        answer["errors"][0]["message"].clone()
    };
    let void = refused("", "", None).await;
    // Who has read the code over somebody's shoulder has no verifier, and takes the code from nobody but themselves.
    for verifier in ["", "x", &crypto::random_token()] {
        let (told, own) = site.by_way_of(&person.there()).await;
        assert_eq!(refused(told.code(), verifier, None).await, void);
        assert_eq!(refused(told.code(), &own, None).await, void, "it is used up");
    }
    // The challenge is no verifier.
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let challenge = URL_SAFE_NO_PAD.encode(crypto::token_hash(&verifier));
    assert_eq!(refused(told.code(), &challenge, None).await, void);
    assert_eq!(linked(&person.client).await, json!([]), "nothing has come of it");
    // Good once, also at the same time.
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let (code, verifier) = (told.code(), verifier.as_str());
    let (one, two) = futures::join!(
        site.complete(code, verifier, None),
        site.complete(code, verifier, None)
    );
    let good = [&one, &two]
        .iter()
        .filter(|it| payload(it)["accessToken"].is_string())
        .count();
    assert_eq!(good, 1);
    assert_eq!(refused(code, verifier, None).await, void);
    // Not too late, and not after the password has changed.
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let late = "UPDATE provider_proofs SET expires_at = now() - interval '1 second' WHERE code_hash = $1";
    let hash = crypto::token_hash(told.code()).to_vec();
    assert_eq!(superuser.execute(late, &[&hash]).await.unwrap(), 1);
    assert_eq!(refused(told.code(), &verifier, None).await, void);
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let input = json!({ "currentPassword": PASSWORD, "newPassword": "another horse battery" });
    person
        .client
        .mutate("changePassword", "ChangePasswordInput", "__typename", input)
        .await;
    assert_eq!(refused(told.code(), &verifier, None).await, void);
    // Nor for a tenant of others, which looks like none at all.
    let other = signed_up(&site.app, "other").await;
    for tenant in [other.viewer().tenant_id, Uuid::now_v7()] {
        let (told, verifier) = site.by_way_of(&person.there()).await;
        let tenant = write_id("tenant", tenant);
        assert_eq!(refused(told.code(), &verifier, Some(&tenant)).await, void);
    }
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let own = write_id("tenant", person.client.viewer().tenant_id);
    let answer = site.complete(told.code(), &verifier, Some(&own)).await;
    assert_eq!(payload(&answer)["viewer"]["tenant"]["id"], json!(own));
}

#[tokio::test]
async fn nobody_is_recognised_by_an_address_that_is_not_proved_on_both_sides() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let result = async |claims: Value| {
        let (told, _) = site.by_way_of(&claims).await;
        let (kind, value) = told.result();
        match kind {
            "error" => value.to_owned(),
            _ => kind.to_owned(),
        }
    };
    let subject = || Uuid::new_v4().to_string();
    for (claims, expected) in [
        (
            json!({ "email": person.email, "email_verified": false }),
            "unverified_email",
        ),
        (
            json!({ "email": person.email, "email_verified": "no" }),
            "unverified_email",
        ),
        (json!({ "email": person.email }), "unverified_email"),
        (json!({}), "unverified_email"),
        (
            json!({ "email": "nobody@test.example", "email_verified": true }),
            "unknown_user",
        ),
        (json!({ "email": "", "email_verified": true }), "unknown_user"),
        (
            json!({ "email": "nul\0@test.example", "email_verified": true }),
            "unverified_email",
        ),
    ] {
        let mut claims = claims;
        claims["sub"] = subject().into();
        assert_eq!(result(claims.clone()).await, expected, "{claims}");
    }
    assert_eq!(result(json!({})).await, "denied");
    // Who has made an account with somebody else's address does not wait in it for its owner.
    let squatter = signed_up(&site.app, "squatter").await;
    let data = squatter.query("{ viewer { user { email } } }", json!({})).await;
    let claims =
        json!({ "sub": subject(), "email": data["viewer"]["user"]["email"], "email_verified": true });
    assert_eq!(result(claims).await, "unknown_user");
    assert_eq!(linked(&squatter).await, json!([]));
    // However it is written.
    let loud = json!({ "sub": person.subject, "email": person.email.to_uppercase(), "email_verified": true });
    let (told, verifier) = site.by_way_of(&loud).await;
    assert!(payload(&site.complete(told.code(), &verifier, None).await)["accessToken"].is_string());
    // Who gets a person's old address at the provider does not become them here.
    let successor = json!({ "sub": subject(), "email": person.email, "email_verified": true });
    assert_eq!(result(successor).await, "unknown_user");
    // Nor does who may enter no tenant.
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let shut = "UPDATE users SET is_active = false WHERE id::text = $1";
    let user = person.client.viewer().user_id.to_string();
    site.app.superuser().await.execute(shut, &[&user]).await.unwrap();
    let answer = site.complete(told.code(), &verifier, None).await;
    assert_eq!(error(&answer), "UNAUTHENTICATED");
    assert_eq!(result(person.there()).await, "unknown_user");
}

#[tokio::test]
async fn a_provider_is_a_first_factor_only() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let codes = person.set_up_a_second_factor().await;
    let mut there = person.there();
    there["amr"] = json!(["mfa", "otp"]);
    let (told, verifier) = site.by_way_of(&there).await;
    let answer = site.complete(told.code(), &verifier, None).await;
    let pending = payload(&answer);
    assert_eq!(
        (&pending["accessToken"], &pending["refreshToken"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        pending["secondFactor"]["methods"],
        json!(["TOTP", "RECOVERY_CODE"])
    );
    assert_eq!(
        linked(&person.client).await,
        json!([]),
        "half a sign-in leaves nothing behind"
    );
    let input = json!({ "token": pending["secondFactor"]["token"], "code": codes[0] });
    let (field, ty) = ("verifySecondFactor", "VerifySecondFactorInput");
    let entered = site.app.anon().mutate(field, ty, "accessToken", input).await;
    assert!(entered["accessToken"].is_string());
    // A tenant that wants one of everybody wants it of those who come this way, too.
    let input = json!({ "mfaRequired": true });
    person
        .client
        .mutate("updateTenant", "UpdateTenantInput", "__typename", input)
        .await;
    let email = format!("{}@test.example", Uuid::new_v4().simple());
    let input = json!({ "name": "Colleague", "email": email, "password": PASSWORD, "role": "SALES" });
    person
        .client
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    site.app.verify(&email).await;
    let claims = json!({ "sub": Uuid::new_v4(), "email": email, "email_verified": true });
    let (told, verifier) = site.by_way_of(&claims).await;
    let answer = site.complete(told.code(), &verifier, None).await;
    assert_eq!(payload(&answer)["accessToken"], Value::Null);
    assert_eq!(payload(&answer)["secondFactor"]["methods"], json!(["ENROL"]));
}

#[tokio::test]
async fn a_provider_that_knows_somebody_can_be_made_to_forget() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let (told, verifier) = site.by_way_of(&person.there()).await;
    let answer = site.complete(told.code(), &verifier, None).await;
    let by_it = site
        .app
        .with_token(payload(&answer)["accessToken"].as_str().unwrap())
        .await;
    let unlink = async |client: &Client, provider: &str| {
        let (field, ty) = ("unlinkProvider", "UnlinkProviderInput");
        let payload = client
            .payload(field, ty, "__typename", json!({ "provider": provider }))
            .await;
        payload["userErrors"][0]["code"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    };
    let other = Person::of(&site.app).await;
    assert_eq!(linked(&other.client).await, json!([]), "others see nothing of it");
    assert_eq!(unlink(&other.client, "oidc").await, "NOT_FOUND");
    assert_eq!(unlink(&person.client, "google").await, "NOT_FOUND");
    // Whoever is on the way back by it does not get in any more.
    let (told, verifier) = site.by_way_of(&person.there()).await;
    assert_eq!(unlink(&person.client, "oidc").await, "none");
    assert_eq!(
        error(&site.complete(told.code(), &verifier, None).await),
        "UNAUTHENTICATED"
    );
    assert!(!by_it.is_known_to(&site.app.app), "other sessions end");
    assert!(person.client.is_known_to(&site.app.app));
    assert_eq!(linked(&person.client).await, json!([]));
    let moved = json!({ "sub": person.subject, "email": "moved@test.example", "email_verified": true });
    let (told, _) = site.by_way_of(&moved).await;
    assert_eq!(told.result(), ("error", "unknown_user"));
    let kinds: Vec<String> = audited(&site.app, &person.client)
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["LINKED", "USED", "UNLINKED"]);
    // Programs have nothing to do with it.
    let input = json!({ "name": "Export", "permissions": ["USERS_READ"] });
    let key = person
        .client
        .mutate("createApiKey", "CreateApiKeyInput", "secret", input)
        .await;
    let program = site
        .app
        .identified(key["secret"].as_str().unwrap())
        .await
        .unwrap();
    for document in [
        "{ linkedIdentities { email } }",
        "mutation { unlinkProvider(input: { provider: \"oidc\" }) { position } }",
    ] {
        assert_eq!(program.code(document, json!({})).await, "FORBIDDEN");
    }
}

#[tokio::test]
async fn who_is_half_in_by_a_provider_does_not_get_in_when_it_is_made_to_forget_them() {
    let site = Site::open().await;
    let person = Person::of(&site.app).await;
    let begin = async || {
        let (told, verifier) = site.by_way_of(&person.there()).await;
        payload(&site.complete(told.code(), &verifier, None).await).clone()
    };
    assert!(begin().await["accessToken"].is_string());
    let codes = person.set_up_a_second_factor().await;
    // It is not the code that is wrong.
    let show = async |pending: &Value, code: &Value| {
        let document = "mutation($input: VerifySecondFactorInput!) { verifySecondFactor(input: $input) { accessToken } }";
        let input = json!({ "input": { "token": pending["secondFactor"]["token"], "code": code } });
        let answer = site.app.anon().answer(document, input).await;
        answer["data"]["verifySecondFactor"]["accessToken"].is_string()
    };
    assert!(show(&begin().await, &codes[0]).await);
    let pending = begin().await;
    let input = json!({ "provider": "oidc" });
    let (field, ty) = ("unlinkProvider", "UnlinkProviderInput");
    person.client.mutate(field, ty, "__typename", input).await;
    assert!(!show(&pending, &codes[1]).await);
    assert!(show(&begin().await, &codes[1]).await, "as if for the first time");
}

#[tokio::test]
async fn who_is_refused_although_they_are_known_is_told_of_to_their_tenants() {
    let site = Site::open().await;
    let app = &site.app;
    let person = Person::of(app).await;
    let unknown = async |claims: &Value| {
        let (told, _) = site.by_way_of(claims).await;
        assert_eq!(told.result(), ("error", "unknown_user"));
    };
    let void = async |code: &str, verifier: &str, tenant: Option<Uuid>| {
        let tenant = tenant.map(|tenant| write_id("tenant", tenant));
        let answer = site.complete(code, verifier, tenant.as_deref()).await;
        assert_eq!(error(&answer), "UNAUTHENTICATED", "{answer}");
    };
    let told = async |client: &Client, reasons: &[&str]| {
        let found = refusals(app, client, reasons.len()).await;
        let expected: Vec<Value> = reasons
            .iter()
            .map(|reason| json!({ "by": "oidc", "reason": reason }))
            .collect();
        assert_eq!(found, expected);
    };
    // An account with their address that nobody has proved to be theirs.
    let squatter = signed_up(app, "squatter").await;
    let data = squatter.query("{ viewer { user { email } } }", json!({})).await;
    let email = &data["viewer"]["user"]["email"];
    unknown(&json!({ "sub": Uuid::new_v4(), "email": email, "email_verified": true })).await;
    told(&squatter, &["ADDRESS_NOT_VERIFIED"]).await;
    // A tenant that has added them without being asked hears of it when it is about that tenant.
    let other = app.tenant().await;
    let input = json!({ "name": "Added", "email": person.email, "password": PASSWORD, "role": "SALES" });
    let added = other
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    // Whoever has their old address at the provider.
    let (back, verifier) = site.by_way_of(&person.there()).await;
    assert!(payload(&site.complete(back.code(), &verifier, None).await)["accessToken"].is_string());
    unknown(&json!({ "sub": Uuid::new_v4(), "email": person.email, "email_verified": true })).await;
    told(&person.client, &["LINKED_TO_ANOTHER"]).await;
    // Whoever has their code and no verifier.
    let (back, _) = site.by_way_of(&person.there()).await;
    void(back.code(), &crypto::random_token(), None).await;
    told(&person.client, &["LINKED_TO_ANOTHER", "CODE_OF_ANOTHER"]).await;
    let mut reasons = vec!["LINKED_TO_ANOTHER", "CODE_OF_ANOTHER", "NOT_ADMITTED"];
    let (back, verifier) = site.by_way_of(&person.there()).await;
    void(back.code(), &verifier, Some(squatter.viewer().tenant_id)).await;
    told(&person.client, &reasons).await;
    // Whom a tenant has shut out.
    let input = json!({ "userId": added["user"]["id"], "isActive": false });
    other
        .mutate("updateUser", "UpdateUserInput", "position", input)
        .await;
    let (back, verifier) = site.by_way_of(&person.there()).await;
    void(back.code(), &verifier, Some(other.viewer().tenant_id)).await;
    reasons.push("NOT_ADMITTED");
    told(&person.client, &reasons).await;
    told(&other, &["NOT_ADMITTED"]).await;
    // Whose password has changed meanwhile.
    let (back, verifier) = site.by_way_of(&person.there()).await;
    let input = json!({ "currentPassword": PASSWORD, "newPassword": "another horse battery" });
    let (field, ty) = ("changePassword", "ChangePasswordInput");
    person.client.mutate(field, ty, "__typename", input).await;
    void(back.code(), &verifier, None).await;
    reasons.push("CHANGED_MEANWHILE");
    told(&person.client, &reasons).await;
    // Who may come in nowhere any more.
    let shut = "UPDATE users SET is_active = false WHERE id::text = $1";
    let user = person.client.viewer().user_id.to_string();
    app.superuser().await.execute(shut, &[&user]).await.unwrap();
    unknown(&person.there()).await;
    reasons.push("NOT_ADMITTED");
    told(&person.client, &reasons).await;
    told(&other, &["NOT_ADMITTED"]).await;
    told(&squatter, &["ADDRESS_NOT_VERIFIED"]).await;
    let sql = "SELECT DISTINCT ip, entity || '/' || record_id FROM audit_entries
                WHERE tenant_id::text = $1 AND kind = 'SIGN_IN_REFUSED'";
    let tenant = squatter.viewer().tenant_id.to_string();
    let row = app.superuser().await.query_one(sql, &[&tenant]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "127.0.0.1");
    assert_eq!(
        row.get::<_, &str>(1),
        format!("user/{}", squatter.viewer().user_id)
    );
}

#[tokio::test]
async fn nobody_fills_the_trail_of_others_by_being_refused() {
    let mut config = with_issuer(tokio::task::spawn_blocking(issuer).await.unwrap());
    config.limits = vec!["refusal=2/1h".to_owned()];
    let site = Site::with("oidc", config).await;
    let squatter = signed_up(&site.app, "flooded").await;
    let data = squatter.query("{ viewer { user { email } } }", json!({})).await;
    let email = &data["viewer"]["user"]["email"];
    for _ in 0..5 {
        let claims = json!({ "sub": Uuid::new_v4(), "email": email, "email_verified": true });
        let (told, _) = site.by_way_of(&claims).await;
        assert_eq!(told.result(), ("error", "unknown_user"));
    }
    // Another way in is counted apart, so that what happens there is told of.
    let document = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
    let input = json!({ "input": { "email": email, "password": "not the right one" } });
    assert_eq!(site.app.anon().code(document, input).await, "UNAUTHENTICATED");
    let found = refusals(&site.app, &squatter, 3).await;
    let ways: Vec<&str> = found
        .iter()
        .map(|detail| detail["by"].as_str().unwrap())
        .collect();
    assert_eq!(ways, ["oidc", "oidc", "password"]);
}

#[tokio::test]
async fn an_id_token_is_believed_if_all_of_it_is_right() {
    let liar = Liar::start().await;
    let site = Site::with("oidc", with_issuer(&liar.url)).await;
    let person = Person::of(&site.app).await;
    let says = |claims: Value| Says {
        claims,
        ..Says::default()
    };
    let good = json!({ "sub": person.subject, "email": person.email });
    let result = async |says: Says| {
        let told = liar.tells(&site, says).await;
        let (kind, value) = told.result();
        match kind {
            "error" => value.to_owned(),
            _ => kind.to_owned(),
        }
    };
    assert_eq!(result(says(good.clone())).await, "code");
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        says(claims)
    };
    assert_eq!(result(with("aud", json!(["dealstream"]))).await, "code");
    let mut several = with("aud", json!(["dealstream", "another"]));
    assert_eq!(result(several.clone()).await, "failed", "for whom of the two?");
    several.claims["azp"] = "dealstream".into();
    assert_eq!(result(several.clone()).await, "code");
    several.claims["azp"] = "another".into();
    assert_eq!(result(several).await, "failed");
    let now = chrono::Utc::now().timestamp();
    for (name, value) in [
        ("nonce", json!("of another sign-in")),
        ("nonce", Value::Null),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", Value::Null),
        ("azp", json!("another")),
        ("iss", json!("https://accounts.google.com")),
        ("iss", json!(format!("{}/", liar.url))),
        ("iss", json!([liar.url])),
        ("iss", Value::Null),
        ("exp", json!(now - 120)),
        ("exp", json!((now + 300).to_string())),
        ("exp", Value::Null),
        ("iat", Value::Null),
        ("nbf", json!(now + 3600)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("x".repeat(256))),
        ("sub", json!(7)),
    ] {
        assert_eq!(
            result(with(name, value.clone())).await,
            "failed",
            "{name}: {value}"
        );
    }
    // What is signed otherwise, or not at all, with claims that are right.
    let forged = |forge: Forge| Says {
        forge: Some(forge),
        ..says(good.clone())
    };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |alg: &'static str| -> Forge {
        Arc::new(move |claims| {
            format!(
                "{}.{}.",
                part(&json!({ "alg": alg, "kid": "good" })),
                part(claims)
            )
        })
    };
    // The public key as a secret, which everybody knows.
    let secret = URL_SAFE_NO_PAD.decode(liar.public()).unwrap();
    let by_secret = |kid: &'static str| -> Forge {
        let secret = secret.clone();
        Arc::new(move |claims| {
            let header = Header {
                kid: Some(kid.to_owned()),
                ..Header::new(Algorithm::HS256)
            };
            jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&secret)).unwrap()
        })
    };
    let by_another: Forge = Arc::new(|claims| {
        let key = Ed25519KeyPair::generate().unwrap();
        let key = EncodingKey::from_ed_der(key.to_pkcs8().unwrap().as_ref());
        let header = Header {
            kid: Some("good".to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    });
    let text = |text: &'static str, times: usize| -> Forge { Arc::new(move |_| text.repeat(times)) };
    for (what, forge) in [
        ("none", unsigned("none")),
        ("no signature", unsigned("EdDSA")),
        ("no signature of a secret", unsigned("HS256")),
        ("the public key as a secret", by_secret("good")),
        ("a published secret", by_secret("shared")),
        ("another key", by_another),
        ("nothing", text("", 1)),
        ("no token", text("a.b.c", 1)),
        ("a long text", text("x", 20_000)),
    ] {
        assert_eq!(result(forged(forge)).await, "failed", "{what}");
    }
    assert_eq!(
        result(says(good.clone())).await,
        "code",
        "it is not the liar who is refused"
    );
    // An unknown key makes nobody ask for the keys all the time.
    let before = liar.says().asked_for_keys;
    for _ in 0..3 {
        let unknown = Says {
            kid: Some("unknown".to_owned()),
            ..says(good.clone())
        };
        assert_eq!(result(unknown).await, "failed");
    }
    assert_eq!(liar.says().asked_for_keys, before);
}

#[tokio::test]
async fn what_else_a_provider_says_is_not_believed_blindly() {
    let liar = Liar::start().await;
    let site = Site::with("oidc", with_issuer(&liar.url)).await;
    let person = Person::of(&site.app).await;
    // The address may be told of apart, of the same person.
    let apart = |user: Value| Says {
        claims: json!({ "sub": person.subject, "email": null, "email_verified": null }),
        user,
        ..Says::default()
    };
    let good = json!({ "sub": person.subject, "email": person.email, "email_verified": true });
    let result = async |says: Says| {
        let told = liar.tells(&site, says).await;
        let (kind, value) = told.result();
        (kind.to_owned(), value.to_owned())
    };
    let failed = ("error".to_owned(), "failed".to_owned());
    assert_eq!(result(apart(good.clone())).await.0, "code");
    let mut another = good.clone();
    another["sub"] = "another".into();
    assert_eq!(result(apart(another)).await, failed);
    let mut unverified = good.clone();
    unverified["email_verified"] = json!(false);
    assert_eq!(result(apart(unverified)).await.1, "unverified_email");
    // Nobody is sent elsewhere with a code, and nobody reads without end.
    let mut endless = apart(good.clone());
    endless.padding = 1 << 20;
    assert_eq!(result(endless).await, failed);
    let mut elsewhere = apart(good.clone());
    elsewhere.redirects = true;
    assert_eq!(result(elsewhere).await, failed);
    // Nobody else sends people back in its name, and with an error there is no code: all else is right here.
    let own = format!("&iss={}", liar.url);
    let with = async |site: &Site, more: &str| {
        let told = liar.tells_with(site, apart(good.clone()), more).await;
        told.result().0.to_owned()
    };
    assert_eq!(with(&site, &own).await, "code");
    assert_eq!(with(&site, "").await, "code");
    for more in ["&iss=https://accounts.google.com", "&iss=", "&error=x"] {
        assert_eq!(with(&site, more).await, "error", "{more}");
    }
    // Who promises to name itself does.
    liar.says().names_itself = true;
    let strict = Site::with("oidc", with_issuer(&liar.url)).await;
    assert_eq!(with(&strict, &own).await, "code");
    assert_eq!(with(&strict, "").await, "error");
    // Another's code is noticed by the challenge of PKCE alone: the ID token would be for who brings it.
    let (one, two) = (site.send().await, site.send().await);
    liar.expects(&two, apart(good.clone()));
    liar.says().challenge = one.parameter("code_challenge");
    let back = site.back(&two.parameter("state"), "a-code");
    assert_eq!(
        site.receive(&back, &two.cookie).await.result(),
        ("error", "failed")
    );
}

#[tokio::test]
async fn a_person_signs_in_with_github() {
    let liar = Liar::start().await;
    let site = Site::with("github", with_github(&liar.url)).await;
    let person = Person::of(&site.app).await;
    let number = u64::from(rand::random::<u32>());
    let says = |emails: Value| Says {
        user: json!({ "id": number, "login": "ada", "email": person.email }),
        emails,
        ..Says::default()
    };
    let email = |email: &str, primary: bool, verified: bool| json!({ "email": email, "primary": primary, "verified": verified, "visibility": null });
    let result = async |says: Says| {
        let told = liar.tells(&site, says).await;
        let (kind, value) = told.result();
        (kind.to_owned(), value.to_owned())
    };
    for emails in [
        json!([]),
        json!([email(&person.email, true, false)]),
        json!([
            email(&person.email, false, true),
            email("other@test.example", true, false)
        ]),
    ] {
        assert_eq!(result(says(emails)).await.1, "unverified_email");
    }
    assert_eq!(result(says(json!("nothing"))).await.1, "failed");
    let good = json!([
        email("other@test.example", false, true),
        email(&person.email, true, true)
    ]);
    let visit = site.send().await;
    assert_eq!(visit.parameter("scope"), "user:email");
    assert_eq!(visit.parameter("code_challenge_method"), "S256");
    assert_eq!(result(says(good.clone())).await.0, "code");
    // Without the verifier of this very visit the code is good for nothing.
    let (one, two) = (site.send().await, site.send().await);
    assert_ne!(one.parameter("code_challenge"), two.parameter("code_challenge"));
    let back = site.back(&one.parameter("state"), "a-code");
    assert_eq!(
        site.receive(&back, &one.cookie).await.result(),
        ("error", "failed")
    );
}

#[tokio::test]
async fn people_are_sent_to_known_providers_and_back_to_known_pages_only() {
    let site = Site::open().await;
    let challenge = URL_SAFE_NO_PAD.encode(crypto::token_hash("x"));
    let status = async |rest: &str| {
        let told = browse(&site.url(rest), &[]).await;
        assert!(told.status == 303 || told.location.is_none() && told.cookies.is_empty());
        told.status
    };
    let page = |page: &str| format!("oidc?return_to={page}&challenge={challenge}");
    assert_eq!(status(&page(PAGE)).await, 303);
    assert_eq!(status(&page("https://other.crm.test/in?a=b")).await, 303);
    for other in [
        "",
        "https://crm.test",
        "https://crm.test/signed-in/",
        "https://crm.test/signed-in/../other",
        "https://crm.test/signed-in%23x",
        "https://crm.test/signed-in?x",
        "https://crm.test@evil.example/signed-in",
        "https://evil.example/https://crm.test/signed-in",
        "HTTPS://crm.test/signed-in",
        "//evil.example",
        "javascript:alert(1)",
    ] {
        assert_eq!(status(&page(other)).await, 400, "{other}");
    }
    for challenge in [
        "",
        "x",
        &"A".repeat(42),
        &"A".repeat(44),
        &"!".repeat(43),
        &"A".repeat(9000),
    ] {
        let rest = format!("oidc?return_to={PAGE}&challenge={challenge}");
        assert_eq!(status(&rest).await, 400, "{challenge:.9}");
    }
    assert_eq!(status(&format!("oidc?return_to={PAGE}")).await, 400);
    assert_eq!(status(&page(PAGE).replace("oidc", "google")).await, 404);
    assert_eq!(status(&page(PAGE).replace("oidc", "github")).await, 404);
    assert_eq!(status("github/callback?state=x&code=x").await, 404);
    let post = format!("/sign-in/{}", page(PAGE));
    assert_eq!(site.wire.send("POST", &post, "", "").await.status, 405);
    // Where there is none, there is nothing.
    let none = Site::with("oidc", config()).await;
    assert_eq!(browse(&none.url(&page(PAGE)), &[]).await.status, 404);
    // Who tries too often waits.
    let mut few = with_issuer(issuer());
    few.limits = vec!["provider-sign-in=2/1m".to_owned()];
    let few = Site::with("oidc", few).await;
    for _ in 0..2 {
        assert_eq!(browse(&few.url(&page(PAGE)), &[]).await.status, 303);
    }
    assert_eq!(browse(&few.url(&page(PAGE)), &[]).await.status, 429);
    // A provider that is away is no fault of ours.
    let away = Site::with("oidc", with_issuer("http://127.0.0.1:9")).await;
    assert_eq!(browse(&away.url(&page(PAGE)), &[]).await.status, 503);
}

#[tokio::test]
async fn a_provider_that_hangs_is_waited_for_once_by_all() {
    let deaf = Deaf::start().await;
    let site = Site::with("oidc", with_issuer(&deaf.url)).await;
    let challenge = URL_SAFE_NO_PAD.encode(crypto::token_hash("x"));
    let url = site.url(&format!("oidc?return_to={PAGE}&challenge={challenge}"));
    let told = join_all((0..20).map(|_| browse(&url, &[]))).await;
    assert!(told.iter().all(|told| told.status == 503), "{told:?}");
    assert_eq!(deaf.heard(), 1);
}

#[test]
fn settings_of_providers_that_cannot_work_are_refused() {
    let good = with_issuer("https://id.example.com").providers;
    let refused = |providers: ProviderSettings| {
        let config = Config {
            providers,
            ..config()
        };
        Providers::new(&config).err().unwrap_or_default()
    };
    assert_eq!(refused(good.clone()), "");
    assert_eq!(refused(config().providers), "");
    let of = |change: &dyn Fn(&mut ProviderSettings)| {
        let mut settings = good.clone();
        change(&mut settings);
        refused(settings)
    };
    for (problem, named) in [
        (of(&|it| it.api_url = None), "DEALSTREAM_API_URL"),
        (
            of(&|it| it.api_url = Some("http://api.example.com".to_owned())),
            "DEALSTREAM_API_URL",
        ),
        (of(&|it| it.return_urls.clear()), "DEALSTREAM_RETURN_URLS"),
        (
            of(&|it| it.return_urls.push("http://crm.example.com/in".to_owned())),
            "DEALSTREAM_RETURN_URLS",
        ),
        (
            of(&|it| it.return_urls.push("https://crm.example.com/#in".to_owned())),
            "DEALSTREAM_RETURN_URLS",
        ),
        (
            of(&|it| it.return_urls.push("crm.example.com".to_owned())),
            "DEALSTREAM_RETURN_URLS",
        ),
        (
            of(&|it| it.oidc_issuer = Some("http://id.example.com".to_owned())),
            "OIDC_ISSUER",
        ),
        (
            of(&|it| it.oidc_issuer = Some("https://id.example.com?a".to_owned())),
            "OIDC_ISSUER",
        ),
        (of(&|it| it.oidc_issuer = None), "OIDC_ISSUER"),
        (of(&|it| it.oidc_client_secret = None), "OIDC_CLIENT_SECRET"),
        (
            of(&|it| it.google_client_id = Some("id".to_owned())),
            "GOOGLE_CLIENT_SECRET",
        ),
        (
            of(&|it| it.github_client_secret = Some("hush".to_owned().into())),
            "GITHUB_CLIENT_ID",
        ),
    ] {
        assert!(problem.contains(named), "{named}: {problem}");
        assert!(
            !problem.contains("hush") && !problem.contains("100%"),
            "{problem}"
        );
    }
}
