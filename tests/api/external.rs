//! People whom another issuer has signed in: a real one is played here, with keys of its own, and so is who attacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
    RsaPublicKeyComponents,
};
use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::Utc;
use dealstream::app::App;
use dealstream::auth::external::External;
use dealstream::auth::{Means, Origin, Revocations, Role};
use dealstream::config::{Config, Renewal};
use dealstream::db::id::write_id;
use dealstream::error::Error;
use dealstream::identity::providers;
use futures::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::Mutex;
use uuid::Uuid;

use crate::api_keys::introspect;
use crate::sessions::Subscriber;
use crate::support::app::{config, database_url};
use crate::support::mail;
use crate::support::provider::Deaf;
use crate::support::recipes::{PASSWORD, fail_trail, is_waited_for, refusals, signed_up};
use crate::support::wire::Wire;
use crate::support::{Client, TestApp};

const AUDIENCE: &str = "crm";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the issuer: how it signs, and what it publishes.
struct Signer {
    algorithm: Algorithm,
    encoding: EncodingKey,
    public: Value,
}

fn signer(kid: &str, algorithm: Algorithm) -> Signer {
    let (encoding, mut public) = match algorithm {
        Algorithm::RS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let of = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
            let der = STANDARD.encode(pair.as_der().unwrap().as_ref());
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
            (
                EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
                json!({ "kty": "RSA", "n": base64(of.n), "e": base64(of.e) }),
            )
        }
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let point = pair.public_key().as_ref().to_vec();
            (
                EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
                json!({ "kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..]) }),
            )
        }
        _ => {
            let pair = Ed25519KeyPair::generate().unwrap();
            (
                EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref()),
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key().as_ref()) }),
            )
        }
    };
    public["kid"] = json!(kid);
    Signer {
        algorithm,
        encoding,
        public,
    }
}

/// What the issuer answers: status, and body or where else to look.
type Answer = (StatusCode, String);

/// An issuer that publishes keys.
struct Issuer {
    url: String,
    signer: Signer,
    answers: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let signer = signer("the-key", Algorithm::EdDSA);
        let body = json!({ "keys": [signer.public] }).to_string();
        let first = body.clone();
        let answers = Arc::new(Mutex::new((StatusCode::OK, body)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (told, counted, own) = (answers.clone(), asked.clone(), url.clone());
        let answer = move |uri: Uri| {
            let (told, counted, own, first) = (told.clone(), counted.clone(), own.clone(), first.clone());
            async move {
                let elsewhere = match uri.path() {
                    "/keys" => None,
                    // Where it sends people who ask for its keys there are some.
                    "/moved" => Some(first),
                    _ => Some(json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }).to_string()),
                };
                if let Some(body) = elsewhere {
                    return (StatusCode::OK, [(header::LOCATION, String::new())], body);
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let (status, body) = told.lock().unwrap().clone();
                (status, [(header::LOCATION, format!("{own}/moved"))], body)
            }
        };
        let router = Router::new().fallback(get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            signer,
            answers,
            asked,
        }
    }

    fn publish(&self, keys: &[&Value]) {
        *self.answers.lock().unwrap() = (StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    fn answer(&self, status: StatusCode, body: &str) {
        *self.answers.lock().unwrap() = (status, body.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The settings with which it is trusted.
    fn trusted(&self) -> Config {
        Config {
            trusted_issuer: Some(self.url.clone()),
            trusted_issuer_audience: Some(AUDIENCE.to_owned()),
            ..config()
        }
    }

    async fn app(&self) -> TestApp {
        TestApp::on(database_url().await, self.trusted()).await
    }

    /// What it says of somebody.
    fn claims(&self, email: &str) -> Value {
        let now = Utc::now().timestamp();
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": format!("of {email}"), "iat": now, "exp": now + 300,
            "email": email, "email_verified": true, "jti": Uuid::new_v4(),
        })
    }

    fn header(&self) -> Header {
        Header {
            kid: Some(self.signer.public["kid"].as_str().unwrap().to_owned()),
            ..Header::new(self.signer.algorithm)
        }
    }

    fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(), claims, &self.signer.encoding).unwrap()
    }

    fn token(&self, email: &str) -> String {
        self.sign(&self.claims(email))
    }
}

async fn email_of(client: &Client) -> String {
    let me = client.query("{ viewer { user { email } } }", json!({})).await;
    me["viewer"]["user"]["email"].as_str().unwrap().to_owned()
}

/// A user of a tenant with an account: the id and the address.
async fn colleague(of: &Client, role: &str) -> (String, String) {
    let email = format!("{}@test.example", Uuid::new_v4().simple());
    let input = json!({ "name": "Linus", "email": email, "password": PASSWORD, "role": role });
    let made = of
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    (made["user"]["id"].as_str().unwrap().to_owned(), email)
}

fn code(found: &Result<Client, Error>) -> &'static str {
    match found {
        Ok(_) => "none",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn who_has_signed_in_elsewhere_does_what_their_role_here_permits() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let mut issuer = Issuer::start().await;
        issuer.signer = signer("another", algorithm);
        issuer.publish(&[&json!({ "kty": "oct", "kid": "odd" }), &issuer.signer.public]);
        let app = issuer.app().await;
        let admin = app.tenant().await;
        let (id, email) = colleague(&admin, "SALES").await;
        // What the token says of rights is the issuer's affair.
        let mut claims = issuer.claims(&email.to_uppercase());
        claims["role"] = json!("ADMIN");
        claims["scope"] = json!("TENANT_WRITE USERS_WRITE");
        claims["aud"] = json!([AUDIENCE, "something else"]);
        let token = issuer.sign(&claims);
        let linus = app.identified(&token).await.unwrap();
        assert_eq!(linus.viewer().means, Means::External);
        assert_eq!(
            linus.viewer().rights,
            app.user(&admin, Role::Sales).await.viewer().rights
        );
        assert_eq!(linus.viewer().tenant_id, admin.viewer().tenant_id);
        assert_eq!(write_id("user", linus.viewer().user_id), id);

        let wire = Wire::serve(app.app.clone()).await;
        let bearer = format!("authorization: Bearer {token}");
        let me = wire.post(&bearer, "{ viewer { role user { id } } }").await.json();
        assert_eq!(
            me["data"]["viewer"],
            json!({ "role": "SALES", "user": { "id": id } })
        );
        let mut socket = Subscriber::of(&wire, &token).await;
        let deal = linus.deal(json!({ "name": "Heard" })).await;
        let stage = admin.stage("Proposal").await;
        linus.move_deal(json!({ "dealId": deal, "stageId": stage })).await;
        let frame = socket.hear().await;
        let event = &frame["payload"]["data"]["dealStageChanged"];
        assert_eq!(event["__typename"], "DealStageChangedEvent", "{frame}");
        let document = "mutation { updateTenant(input: { name: \"Mine\" }) { position } }";
        assert_eq!(linus.code(document, json!({})).await, "FORBIDDEN");
        // The account itself stays closed, and keys that would outlive the token are not made.
        for document in [
            "{ sessions { id } }",
            "mutation { signOut { position } }",
            "mutation { revokeOtherSessions { position } }",
            "mutation { leaveTenant { position } }",
            "mutation { requestEmailVerification { __typename } }",
        ] {
            assert_eq!(linus.code(document, json!({})).await, "FORBIDDEN", "{document}");
        }
        let boss = app
            .identified(&issuer.token(&colleague(&admin, "ADMIN").await.1))
            .await
            .unwrap();
        let document =
            "mutation { createApiKey(input: { name: \"K\", permissions: [DEALS_READ] }) { secret } }";
        assert_eq!(boss.code(document, json!({})).await, "FORBIDDEN");

        let (status, told) = introspect(&wire, &admin.token(), &token).await;
        assert_eq!((status, &told["active"]), (200, &json!(true)), "{told}");
        assert_eq!((&told["user_id"], &told["role"]), (&json!(id), &json!("SALES")));
        assert_eq!(told["exp"], claims["exp"]);
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_is_good_only_if_everything_about_it_is_right() {
    let issuer = Issuer::start().await;
    let rsa = signer("rsa", Algorithm::RS256);
    let short = json!({ "kty": "oct", "kid": "secret", "k": base64("a shared secret of many letters"), "alg": "HS256" });
    issuer.publish(&[&issuer.signer.public, &rsa.public, &short]);
    let app = issuer.app().await;
    let grace = signed_up(&app, "external").await;
    let email = email_of(&grace).await;
    let (right, now) = (issuer.claims(&email), Utc::now().timestamp());
    // Whom nobody here knows yet: only by an address are they found.
    let new = email_of(&signed_up(&app, "new").await).await;
    let anew = |change: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims(&new);
        change(&mut claims);
        issuer.sign(&claims)
    };
    let with = |claim: &str, value: Value| {
        let mut claims = right.clone();
        claims[claim] = value;
        issuer.sign(&claims)
    };
    let headed = |change: &dyn Fn(&mut Header)| {
        let mut header = issuer.header();
        change(&mut header);
        jsonwebtoken::encode(&header, &right, &issuer.signer.encoding).unwrap()
    };
    let forged = |header: Value, signature: &dyn Fn(&str) -> Vec<u8>| {
        let message = format!("{}.{}", base64(header.to_string()), base64(right.to_string()));
        let signature = signature(&message);
        format!("{message}.{}", base64(signature))
    };
    let hmac = |secret: Vec<u8>| {
        move |message: &str| {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
    };
    for good in [
        issuer.sign(&right),
        with("nbf", json!(now)),
        with("exp", json!(now as f64 + 60.5)),
        headed(&|header| header.typ = None),
        headed(&|header| header.typ = Some("at+jwt".into())),
        headed(&|header| header.typ = Some("application/AT+JWT".into())),
    ] {
        let found = app.identified(&good).await;
        assert_eq!(found.unwrap().viewer().user_id, grace.viewer().user_id);
    }
    let outsider = signer("the-key", Algorithm::EdDSA);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (n, x) = (text(&rsa.public["n"]), text(&issuer.signer.public["x"]));
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let ring = app.app.tokens.keys().ring();
    let ours = ring.signer(Utc::now()).unwrap();
    let our_header = Header {
        kid: Some(ours.kid.clone()),
        ..Header::new(ours.signs_with().0)
    };
    let mut our_claims = right.clone();
    our_claims["iss"] = json!("dealstream");
    our_claims["aud"] = json!("dealstream");
    let mut bad = vec![
        ("for another audience", with("aud", json!("something"))),
        ("for our own audience", with("aud", json!("dealstream"))),
        ("for no audience", with("aud", json!([]))),
        ("of another issuer", with("iss", json!("https://id.example.com"))),
        (
            "of an issuer that ends alike",
            with("iss", json!(format!("{}/", issuer.url))),
        ),
        ("of several issuers", with("iss", json!([issuer.url]))),
        ("in our name", with("iss", json!("dealstream"))),
        ("in our name, to us", issuer.sign(&our_claims)),
        ("expired", with("exp", json!(now - 6))),
        ("that ends in digits", with("exp", json!((now + 60).to_string()))),
        ("that never ends", with("exp", Value::Null)),
        ("of no known end", with("exp", json!(1e300))),
        ("not yet valid", with("nbf", json!(now + 60))),
        (
            "not yet valid, in digits",
            with("nbf", json!((now - 60).to_string())),
        ),
        ("issued tomorrow", with("iat", json!(now + 86_400))),
        ("issued in digits", with("iat", json!(now.to_string()))),
        ("of a day and an hour", with("iat", json!(now - 25 * 3600))),
        ("of nobody", with("sub", json!(""))),
        ("of a number", with("sub", json!(17))),
        (
            "of an address that is not verified",
            anew(&|claims| claims["email_verified"] = json!(false)),
        ),
        (
            "of an address that is said to be verified",
            anew(&|claims| claims["email_verified"] = json!("true")),
        ),
        (
            "of an address that is verified by a number",
            anew(&|claims| claims["email_verified"] = json!(1)),
        ),
        (
            "of an address of which nothing is said",
            anew(&|claims| drop(claims.as_object_mut().unwrap().remove("email_verified"))),
        ),
        (
            "of several addresses",
            anew(&|claims| claims["email"] = json!([new])),
        ),
        (
            "of an unknown address",
            anew(&|claims| claims["email"] = json!("nobody@test.example")),
        ),
        (
            "of an address with more",
            anew(&|claims| claims["email"] = json!(format!("{new}\0"))),
        ),
        (
            "of a long address",
            anew(&|claims| claims["email"] = json!("x".repeat(3000))),
        ),
        (
            "of a long name",
            anew(&|claims| claims["sub"] = json!("x".repeat(256))),
        ),
        (
            "of a name with more",
            anew(&|claims| claims["sub"] = json!("somebody\0")),
        ),
        ("bound to a key", with("cnf", json!({ "jkt": "x" }))),
        ("huge", with("padding", json!("x".repeat(10_000)))),
        (
            "that is an ID for logging out",
            headed(&|header| header.typ = Some("logout+jwt".into())),
        ),
        (
            "bound to a proof",
            headed(&|header| header.typ = Some("dpop+jwt".into())),
        ),
        (
            "with something critical",
            headed(&|header| header.crit = Some(vec!["b64".into()])),
        ),
        ("without a key's name", headed(&|header| header.kid = None)),
        (
            "with an empty name of a key",
            headed(&|header| header.kid = Some(String::new())),
        ),
        (
            "of an unknown key",
            headed(&|header| header.kid = Some("unknown".into())),
        ),
        (
            "of another key",
            headed(&|header| header.kid = Some("rsa".into())),
        ),
        (
            "of a shared secret",
            headed(&|header| header.kid = Some("secret".into())),
        ),
        (
            "of an outsider's key",
            jsonwebtoken::encode(&issuer.header(), &right, &outsider.encoding).unwrap(),
        ),
        (
            "with our key's signature",
            jsonwebtoken::encode(&our_header, &right, ours.signs_with().1).unwrap(),
        ),
        (
            "of none",
            forged(json!({ "alg": "none", "kid": "the-key" }), &|_| Vec::new()),
        ),
        (
            "of None",
            forged(json!({ "alg": "None", "kid": "rsa" }), &|_| Vec::new()),
        ),
        (
            "by the public key",
            forged(json!({ "alg": "HS256", "kid": "the-key" }), &hmac(decoded(&x))),
        ),
        (
            "by the public key's name",
            forged(json!({ "alg": "HS256", "kid": "rsa" }), &hmac(decoded(&n))),
        ),
        (
            "by its text",
            forged(
                json!({ "alg": "HS256", "kid": "rsa" }),
                &hmac(rsa.public.to_string().into_bytes()),
            ),
        ),
        (
            "by the published secret",
            forged(
                json!({ "alg": "HS256", "kid": "secret" }),
                &hmac(b"a shared secret of many letters".to_vec()),
            ),
        ),
        ("with its own key", {
            let header = Header {
                jwk: serde_json::from_value(outsider.public.clone()).ok(),
                ..issuer.header()
            };
            jsonwebtoken::encode(&header, &right, &outsider.encoding).unwrap()
        }),
        ("without a signature", {
            let token = issuer.sign(&right);
            token[..=token.rfind('.').unwrap()].to_owned()
        }),
    ];
    for claim in ["iss", "aud", "sub", "iat", "exp", "email"] {
        let mut claims = right.clone();
        claims.as_object_mut().unwrap().remove(claim);
        bad.push((claim, issuer.sign(&claims)));
    }
    for (what, token) in &bad {
        // Nor is it remembered as anything else.
        for _ in 0..2 {
            assert_eq!(code(&app.identified(token).await), "UNAUTHENTICATED", "{what}");
        }
    }
    let found = app.identified(&anew(&|_| {})).await;
    assert!(found.is_ok(), "it is not they who are refused");
    // An outsider cannot speak in our name either, by a key that is published under the name of ours.
    let mut posing = outsider.public.clone();
    posing["kid"] = json!(ours.kid);
    let second = Issuer::start().await;
    second.publish(&[&posing]);
    let app = second.app().await;
    let header = Header {
        typ: Some("at+jwt".into()),
        kid: Some(ours.kid.clone()),
        ..Header::new(Algorithm::EdDSA)
    };
    let body = grace.token().split('.').nth(1).unwrap().to_owned();
    let own: Value = serde_json::from_slice(&decoded(&body)).unwrap();
    let token = jsonwebtoken::encode(&header, &own, &outsider.encoding).unwrap();
    assert_eq!(code(&app.identified(&token).await), "UNAUTHENTICATED");
    let theirs = jsonwebtoken::encode(&header, &second.claims(&email), &outsider.encoding).unwrap();
    assert!(
        app.identified(&theirs).await.is_ok(),
        "under their own name they may"
    );
    assert!(
        app.identified(&grace.token()).await.is_ok(),
        "and ours are good as ever"
    );
}

#[tokio::test]
async fn without_a_trusted_issuer_nobody_elses_tokens_are_looked_at() {
    let issuer = Issuer::start().await;
    let app = TestApp::new().await;
    let email = email_of(&signed_up(&app, "untrusting").await).await;
    assert_eq!(
        code(&app.identified(&issuer.token(&email)).await),
        "UNAUTHENTICATED"
    );
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn unknown_keys_do_not_make_us_hammer_the_issuer() {
    let issuer = Issuer::start().await;
    let app = issuer.app().await;
    let email = email_of(&signed_up(&app, "flooded").await).await;
    assert_eq!(issuer.asked(), 0, "nothing is fetched before it is needed");
    let flood = (0..200).map(|number| {
        let header = Header {
            kid: Some(format!("key {number}")),
            ..issuer.header()
        };
        let token = jsonwebtoken::encode(&header, &issuer.claims(&email), &issuer.signer.encoding).unwrap();
        let app = &app;
        async move { code(&app.identified(&token).await) }
    });
    let refused = join_all(flood).await;
    assert!(refused.iter().all(|code| *code == "UNAUTHENTICATED"));
    assert_eq!(issuer.asked(), 1);
    assert!(app.identified(&issuer.token(&email)).await.is_ok());
    assert_eq!(issuer.asked(), 1, "what is known needs no asking");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_waited_for_and_its_last_keys_are_kept() {
    let issuer = Issuer::start().await;
    let published = issuer.answers.lock().unwrap().1.clone();
    let app = issuer.app().await;
    let email = email_of(&signed_up(&app, "away").await).await;
    for (status, body) in [
        (StatusCode::SERVICE_UNAVAILABLE, published.clone()),
        (StatusCode::FOUND, published.clone()),
        (StatusCode::OK, "<html>".to_owned()),
        (
            StatusCode::OK,
            json!({ "keys": [issuer.signer.public], "padding": "x".repeat(300_000) }).to_string(),
        ),
    ] {
        issuer.answer(status, &body);
        // Another application, so that none waits for the pause of the one before.
        let other = issuer.app().await;
        assert_eq!(
            code(&other.identified(&issuer.token(&email)).await),
            "UNAVAILABLE"
        );
    }
    assert_eq!(code(&app.identified(&issuer.token(&email)).await), "UNAVAILABLE");
    let wire = Wire::serve(app.app.clone()).await;
    let bearer = format!("authorization: Bearer {}", issuer.token(&email));
    assert_eq!(wire.post(&bearer, "{ viewer { role } }").await.status, 503);
    issuer.answer(StatusCode::OK, &published);
    let back = async {
        while app.identified(&issuer.token(&email)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back)
        .await
        .expect("it is asked again");
}

/// An application that asks for the keys again for each token.
async fn eager(issuer: &Issuer, kept: Duration) -> TestApp {
    let mut config = issuer.trusted();
    config.pace.published = Renewal {
        fresh: Duration::ZERO,
        kept,
        again: Duration::ZERO,
        again_at_first: Duration::ZERO,
        ..Renewal::default()
    };
    TestApp::on(database_url().await, config).await
}

#[tokio::test]
async fn while_an_issuer_is_away_its_last_keys_are_good_for_a_time_and_no_longer_than_it_wants() {
    let issuer = Issuer::start().await;
    let (long, short) = (Duration::from_secs(3600), Duration::ZERO);
    let (app, hasty) = (eager(&issuer, long).await, eager(&issuer, short).await);
    let email = email_of(&signed_up(&app, "kept").await).await;
    assert!(app.identified(&issuer.token(&email)).await.is_ok());
    issuer.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
    let asked = issuer.asked();
    for _ in 0..2 {
        assert!(app.identified(&issuer.token(&email)).await.is_ok());
    }
    assert!(issuer.asked() > asked, "it was asked, and did not answer");
    assert_eq!(
        code(&hasty.identified(&issuer.token(&email)).await),
        "UNAVAILABLE"
    );
    // It is back, and has taken its keys back: those are good no more.
    issuer.publish(&[]);
    let refused = async {
        while app.identified(&issuer.token(&email)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await;
    refused.expect("it is asked again, and answers");
    assert_eq!(
        code(&app.identified(&issuer.token(&email)).await),
        "UNAUTHENTICATED"
    );
}

#[tokio::test]
async fn an_issuer_that_hangs_is_waited_for_once_by_all() {
    let deaf = Deaf::start().await;
    let config = Config {
        trusted_issuer: Some(deaf.url.clone()),
        ..Issuer::start().await.trusted()
    };
    let app = TestApp::on(database_url().await, config).await;
    let issuer = Issuer {
        url: deaf.url.clone(),
        ..Issuer::start().await
    };
    let tokens = (0..20).map(|_| issuer.token("grace@test.example"));
    let found = join_all(tokens.map(|token| {
        let app = &app;
        async move { code(&app.identified(&token).await) }
    }));
    assert_eq!(found.await, vec!["UNAVAILABLE"; 20]);
    assert_eq!(deaf.heard(), 1);
}

#[tokio::test]
async fn who_is_shut_out_here_is_out_at_once_and_a_new_role_counts_at_once() {
    let issuer = Issuer::start().await;
    let (app, other) = (issuer.app().await, issuer.app().await);
    for app in [&app, &other] {
        app.app.start().await.unwrap();
    }
    let admin = app.tenant().await;
    let (id, email) = colleague(&admin, "SALES").await;
    let token = issuer.token(&email);
    let wire = Wire::serve(other.app.clone()).await;
    let change = async |input: Value| {
        admin
            .mutate("updateUser", "UpdateUserInput", "position", input)
            .await;
    };
    let role = async || {
        let found = app.identified(&token).await;
        found.map(|client| client.viewer().rights.role).ok()
    };
    assert_eq!(role().await, Some(Role::Sales));
    let mut socket = Subscriber::of(&wire, &token).await;
    change(json!({ "userId": id, "role": "VIEWER" })).await;
    let since = Instant::now();
    assert_eq!(
        role().await,
        Some(Role::Viewer),
        "the same token, with what they may now"
    );
    assert_eq!(socket.closed(since).await, 4403);
    let mut socket = Subscriber::of(&wire, &token).await;
    change(json!({ "userId": id, "isActive": false })).await;
    let since = Instant::now();
    assert_eq!(role().await, None);
    assert_eq!(socket.closed(since).await, 4403);
    assert_eq!(code(&other.identified(&token).await), "UNAUTHENTICATED");
    assert_eq!(
        code(&app.identified(&issuer.token(&email)).await),
        "UNAUTHENTICATED"
    );
    change(json!({ "userId": id, "isActive": true })).await;
    assert_eq!(role().await, Some(Role::Viewer));
    admin
        .mutate(
            "deleteUser",
            "DeleteUserInput",
            "position",
            json!({ "userId": id }),
        )
        .await;
    assert_eq!(role().await, None);
}

#[tokio::test]
async fn the_tenant_is_that_of_the_token_and_one_belongs_to_it() {
    let issuer = Issuer::start().await;
    let named = Config {
        trusted_issuer_tenant_claim: Some("https://crm.example.com/tenant".to_owned()),
        trusted_issuer_email_claim: "upn".to_owned(),
        trusted_issuer_verified_claim: "upn_verified".to_owned(),
        ..issuer.trusted()
    };
    let url = database_url().await;
    let (app, unnamed) = (TestApp::on(url.clone(), named).await, issuer.app().await);
    let grace = signed_up(&app, "first").await;
    let email = email_of(&grace).await;
    let (second, foreign) = (app.tenant().await, app.tenant().await);
    let input = json!({ "name": "Grace", "email": email, "password": PASSWORD, "role": "VIEWER" });
    second
        .mutate("createUser", "CreateUserInput", "user { id }", input)
        .await;
    let tenant = |client: &Client| client.viewer().tenant_id;
    let token = |tenant: Value| {
        let mut claims = issuer.claims("somebody@test.example");
        claims["sub"] = json!(format!("of {email}"));
        claims["upn"] = json!(email);
        claims["upn_verified"] = json!(true);
        claims["https://crm.example.com/tenant"] = tenant;
        issuer.sign(&claims)
    };
    let into = async |value: Value| {
        let found = app.identified(&token(value)).await;
        found.map(|client| tenant(&client)).ok()
    };
    let second_id = json!(write_id("tenant", tenant(&second)));
    // Somebody added them to an account that has not proved its address: as when signing in, they wait.
    assert_eq!(into(second_id.clone()).await, None);
    app.verify(&email).await;
    assert_eq!(into(second_id).await, Some(tenant(&second)));
    assert_eq!(into(json!(tenant(&second))).await, Some(tenant(&second)));
    assert_eq!(
        into(json!(write_id("tenant", tenant(&grace)))).await,
        Some(tenant(&grace))
    );
    for refused in [
        json!(write_id("tenant", tenant(&foreign))),
        json!(tenant(&foreign)),
        json!(write_id("user", tenant(&grace))),
        json!(""),
        json!("*"),
        json!([tenant(&grace)]),
        Value::Null,
    ] {
        assert_eq!(into(refused.clone()).await, None, "{refused}");
    }
    // Where tokens say nothing of tenants, people come to the one that they joined first.
    let found = unnamed.identified(&issuer.token(&email)).await.unwrap();
    assert_eq!(tenant(&found), tenant(&grace));
}

#[tokio::test]
async fn a_tenant_that_requires_a_second_factor_wants_one_from_the_issuer_too() {
    let issuer = Issuer::start().await;
    let always = Config {
        trusted_issuer_mfa: true,
        ..issuer.trusted()
    };
    let (app, always) = (
        issuer.app().await,
        TestApp::on(database_url().await, always).await,
    );
    let grace = signed_up(&app, "second-factor").await;
    let email = email_of(&grace).await;
    let token = |amr: Value| {
        let mut claims = issuer.claims(&email);
        claims["amr"] = amr;
        issuer.sign(&claims)
    };
    assert!(app.identified(&token(Value::Null)).await.is_ok());
    // Who has set one up here is not passed over, whatever the tenant wants.
    let careful = signed_up(&app, "careful").await;
    let careful = email_of(&careful).await;
    let set_up = "INSERT INTO second_factors (account_id, secret, created_at, confirmed_at)
                  SELECT id, 'x', now(), now() FROM accounts WHERE email = $1";
    let superuser = app.superuser().await;
    superuser.execute(set_up, &[&careful]).await.unwrap();
    let mut claims = issuer.claims(&careful);
    assert_eq!(
        code(&app.identified(&issuer.sign(&claims)).await),
        "UNAUTHENTICATED"
    );
    claims["amr"] = json!(["pwd", "mfa"]);
    assert!(app.identified(&issuer.sign(&claims)).await.is_ok());
    let require = format!(
        "UPDATE tenants SET mfa_required = true WHERE id = '{}'",
        grace.viewer().tenant_id
    );
    app.superuser().await.batch_execute(&require).await.unwrap();
    for amr in [
        Value::Null,
        json!([]),
        json!(["pwd"]),
        json!("mfa"),
        json!(["MFA"]),
    ] {
        let refused = app.identified(&token(amr.clone())).await;
        assert_eq!(code(&refused), "UNAUTHENTICATED", "{amr}");
        assert!(refused.err().unwrap().message().contains("second factor"));
    }
    assert!(app.identified(&token(json!(["pwd", "mfa"]))).await.is_ok());
    assert!(always.identified(&token(Value::Null)).await.is_ok());
}

#[tokio::test]
async fn a_person_is_found_by_their_address_once_and_then_known_by_their_name_at_the_issuer() {
    let issuer = Issuer::start().await;
    let app = issuer.app().await;
    let grace = signed_up(&app, "linked-by-issuer").await;
    let email = email_of(&grace).await;
    let linked = async || {
        let document = "{ linkedIdentities { provider email } }";
        grace.query(document, json!({})).await["linkedIdentities"].clone()
    };
    let who = async |sub: &str, email: &str, verified: bool| {
        let mut claims = issuer.claims(email);
        claims["sub"] = json!(sub);
        claims["email_verified"] = json!(verified);
        let found = app.identified(&issuer.sign(&claims)).await;
        found.map(|client| client.viewer().user_id).ok()
    };
    let own = Some(grace.viewer().user_id);
    assert_eq!(who("7", &email, false).await, None, "nobody knows them yet");
    assert_eq!(linked().await, json!([]), "who was refused leaves nothing behind");
    refusals(&app, &grace, 1).await;
    // All at once for the first time.
    let at_once = join_all((0..8).map(|_| who("7", &email, true))).await;
    assert_eq!(at_once, vec![own; 8]);
    assert_eq!(
        linked().await,
        json!([{ "provider": "trusted-issuer", "email": email }])
    );
    // Whatever becomes of their address there, also when it is that of somebody else here.
    let other = email_of(&signed_up(&app, "other-by-issuer").await).await;
    for (email, verified) in [("moved@test.example", true), (&email, false), (&other, true)] {
        assert_eq!(who("7", email, verified).await, own, "{email}");
    }
    // Who is given their old address there does not become them.
    assert_eq!(who("8", &email, true).await, None);
    let told = json!({ "by": "trusted-issuer", "reason": "LINKED_TO_ANOTHER" });
    assert_eq!(refusals(&app, &grace, 2).await[1], told);
    // Each issuer has names of its own, and for each audience.
    let second = Issuer::start().await;
    let elsewhere = second.app().await;
    assert!(elsewhere.identified(&second.token(&email)).await.is_ok());
    let audience = Config {
        trusted_issuer_audience: Some("another".to_owned()),
        ..issuer.trusted()
    };
    let another = TestApp::on(database_url().await, audience).await;
    let mut claims = issuer.claims(&email);
    claims["aud"] = json!("another");
    assert!(another.identified(&issuer.sign(&claims)).await.is_ok());
    // Until they say so.
    let input = json!({ "provider": "trusted-issuer" });
    let (field, ty) = ("unlinkProvider", "UnlinkProviderInput");
    grace.mutate(field, ty, "__typename", input).await;
    assert_eq!(linked().await, json!([]));
    assert_eq!(who("7", "moved@test.example", true).await, None);
    assert_eq!(who("8", &email, true).await, own);
    assert_eq!(who("7", &email, true).await, None);
    // Or an operator, for whom the issuer calls by another name since.
    let (db, hub) = (&app.app.db, &app.app.hub);
    let address = format!(" {} ", email.to_uppercase());
    let told = providers::unlink(db, hub, &address, "trusted-issuer").await;
    assert!(told.unwrap().contains(&email));
    let sql = "SELECT count(*) FROM sessions WHERE user_id::text = $1 AND ended_at IS NULL";
    let user = grace.viewer().user_id.to_string();
    let open = app.superuser().await.query_one(sql, &[&user]).await.unwrap();
    assert_eq!(open.get::<_, i64>(0), 0, "no session goes on");
    for (email, provider) in [
        (&*email, "trusted-issuer"),
        (&email, "google"),
        ("nobody@test.example", "trusted-issuer"),
    ] {
        let nothing = providers::unlink(db, hub, email, provider).await;
        assert!(nothing.is_err(), "{email} {provider}");
    }
    assert_eq!(who("7", &email, true).await, own);
    let sql = "SELECT kind || detail FROM audit_entries WHERE tenant_id::text = $1 AND entity = 'identity' ORDER BY sequence";
    let tenant = grace.viewer().tenant_id.to_string();
    let rows = app.superuser().await.query(sql, &[&tenant]).await.unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let linked = r#"LINKED{"provider":"trusted-issuer"}"#;
    let unlinked = r#"UNLINKED{"provider":"trusted-issuer"}"#;
    let by_operator = r#"UNLINKED{"by":"OPERATOR","provider":"trusted-issuer"}"#;
    assert_eq!(
        kinds,
        [linked, linked, linked, unlinked, linked, by_operator, linked]
    );
}

#[tokio::test]
async fn who_is_unlinked_at_this_moment_is_not_linked_anew_by_an_address_that_nobody_has_verified() {
    let issuer = Issuer::start().await;
    let app = issuer.app().await;
    let grace = signed_up(&app, "unlinked-meanwhile").await;
    let email = email_of(&grace).await;
    assert!(app.identified(&issuer.token(&email)).await.is_ok());
    let unverified = || {
        let mut claims = issuer.claims(&email);
        claims["email_verified"] = json!(false);
        issuer.sign(&claims)
    };
    let mut superuser = app.superuser().await;
    let long_ago = "UPDATE linked_identities SET last_used_at = now() - interval '2 hours' WHERE email = $1";
    superuser.execute(long_ago, &[&email]).await.unwrap();
    assert!(app.identified(&unverified()).await.is_ok());
    let just_now =
        "SELECT FROM linked_identities WHERE email = $1 AND last_used_at > now() - interval '1 hour'";
    assert_eq!(superuser.execute(just_now, &[&email]).await.unwrap(), 1);
    superuser.execute(long_ago, &[&email]).await.unwrap();
    let unlinking = superuser.transaction().await.unwrap();
    let unlink = "DELETE FROM linked_identities WHERE email = $1";
    assert_eq!(unlinking.execute(unlink, &[&email]).await.unwrap(), 1);
    let token = unverified();
    let (found, ()) = tokio::join!(app.identified(&token), async {
        is_waited_for(&app, &unlinking).await;
        unlinking.commit().await.unwrap();
    });
    assert_eq!(code(&found), "UNAUTHENTICATED");
    let linked = grace.query("{ linkedIdentities { provider } }", json!({})).await;
    assert_eq!(linked["linkedIdentities"], json!([]));
    let told = json!({ "by": "trusted-issuer", "reason": "CHANGED_MEANWHILE" });
    assert_eq!(refusals(&app, &grace, 1).await, [told]);
}

#[tokio::test]
async fn a_trail_that_fails_keeps_nobody_out_and_no_other_from_hearing_of_a_link() {
    let issuer = Issuer::start().await;
    let app = TestApp::on(mail::database("untold_link").await, issuer.trusted()).await;
    let grace = signed_up(&app, "linked-untold").await;
    let email = email_of(&grace).await;
    let (second, third) = (app.tenant().await, app.tenant().await);
    for tenant in [&second, &third] {
        let input = json!({ "name": "Grace", "email": email, "password": PASSWORD, "role": "VIEWER" });
        tenant
            .mutate("createUser", "CreateUserInput", "user { id }", input)
            .await;
    }
    fail_trail(&app, &second).await;
    for _ in 0..2 {
        let found = app.identified(&issuer.token(&email)).await.unwrap();
        assert_eq!(found.viewer().user_id, grace.viewer().user_id);
    }
    let linked = "SELECT count(*) FROM audit_entries WHERE tenant_id::text = $1 AND kind = 'LINKED'";
    let superuser = app.superuser().await;
    for (tenant, expected) in [(&grace, 1), (&second, 0), (&third, 1)] {
        let tenant = tenant.viewer().tenant_id.to_string();
        let row = superuser.query_one(linked, &[&tenant]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), expected);
    }
}

#[tokio::test]
async fn who_is_refused_although_they_are_known_is_told_of_to_their_tenants() {
    let issuer = Issuer::start().await;
    let app = issuer.app().await;
    let wire = Wire::serve(app.app.clone()).await;
    let grace = signed_up(&app, "refused-elsewhere").await;
    let email = email_of(&grace).await;
    let refused = async |claims: Value| {
        let bearer = format!("authorization: Bearer {}", issuer.sign(&claims));
        assert_eq!(wire.post(&bearer, "{ viewer { role } }").await.status, 401);
    };
    let mut claims = issuer.claims(&email);
    claims["email_verified"] = json!(false);
    refused(claims).await;
    refusals(&app, &grace, 1).await;
    let set_up = "INSERT INTO second_factors (account_id, secret, created_at, confirmed_at)
                  SELECT id, 'x', now(), now() FROM accounts WHERE email = $1";
    let superuser = app.superuser().await;
    superuser.execute(set_up, &[&email]).await.unwrap();
    refused(issuer.claims(&email)).await;
    refusals(&app, &grace, 2).await;
    let shut = format!(
        "UPDATE users SET is_active = false WHERE id = '{}'",
        grace.viewer().user_id
    );
    superuser.batch_execute(&shut).await.unwrap();
    let introspected = introspect(&wire, &app.tenant().await.token(), &issuer.token(&email)).await;
    assert_eq!(introspected.1, json!({ "active": false }));
    let told = |reason: &str| json!({ "by": "trusted-issuer", "reason": reason });
    assert_eq!(
        refusals(&app, &grace, 3).await,
        [
            told("ADDRESS_NOT_VERIFIED"),
            told("SECOND_FACTOR_MISSING"),
            told("NOT_ADMITTED")
        ]
    );
    let sql =
        "SELECT ip, request_id FROM audit_entries WHERE tenant_id::text = $1 AND kind = 'SIGN_IN_REFUSED'";
    let tenant = grace.viewer().tenant_id.to_string();
    for row in superuser.query(sql, &[&tenant]).await.unwrap() {
        assert_eq!(row.get::<_, &str>(0), "127.0.0.1");
        assert!(!row.get::<_, &str>(1).is_empty());
    }
}

#[tokio::test]
async fn the_settings_of_a_trusted_issuer_are_checked_when_the_server_starts() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = Config {
            trusted_issuer: Some("https://id.example.com".to_owned()),
            trusted_issuer_audience: Some(AUDIENCE.to_owned()),
            ..config()
        };
        change(&mut config);
        External::of(&config, Revocations::new(Duration::from_secs(60))).err()
    };
    assert_eq!(refused(&|_| {}), None);
    for (setting, change) in [
        (
            "AUDIENCE",
            (&|config: &mut Config| config.trusted_issuer_audience = None) as &dyn Fn(&mut Config),
        ),
        ("AUDIENCE", &|config| {
            config.trusted_issuer_audience = Some(String::new())
        }),
        ("JWT_ISSUER", &|config| {
            config.jwt_issuer = "https://id.example.com".to_owned();
        }),
        ("JWKS_URL", &|config| {
            config.trusted_issuer_jwks_url = Some("http://id.example.com/keys".to_owned());
        }),
        ("ISSUER", &|config| {
            config.trusted_issuer = Some("http://id.example.com".to_owned());
        }),
        ("ISSUER", &|config| {
            config.trusted_issuer = Some("Acme".to_owned())
        }),
    ] {
        let problem = refused(change).unwrap_or_else(|| panic!("{setting} is taken"));
        assert!(problem.contains(setting), "{problem}");
    }
    // Whose configuration names another issuer is not that one.
    let issuer = Issuer::start().await;
    let other = Config {
        trusted_issuer: Some(format!("{}/realm", issuer.url)),
        ..issuer.trusted()
    };
    let app: Arc<App> = TestApp::on(database_url().await, other).await.app;
    let mut claims = issuer.claims("grace@test.example");
    claims["iss"] = json!(format!("{}/realm", issuer.url));
    let found = app.identify(&issuer.sign(&claims), &Origin::default()).await;
    assert_eq!(found.unwrap_err().code(), "UNAVAILABLE");
    assert_eq!(issuer.asked(), 0, "its keys are not asked for");
}
