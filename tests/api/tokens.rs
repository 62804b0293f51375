//! Access tokens under attack, and the keys that sign them.

use std::time::Duration;

use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::Utc;
use dealstream::app::App;
use dealstream::auth::keys::AHEAD;
use dealstream::auth::token::check_secret;
use dealstream::config::{Config, SigningAlgorithm};
use dealstream::db::migrate;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::{SECRET, config};
use crate::support::cluster::create_database;
use crate::support::wire::Wire;
use crate::support::{Client, TestApp};

fn base64(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The claims of a token as the application issues it.
fn claims(client: &Client) -> Value {
    let token = client.token();
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

/// The header of the application's tokens.
fn header(app: &App) -> Header {
    let ring = app.tokens.keys().ring();
    let signer = ring.signer(Utc::now()).unwrap();
    Header {
        typ: Some("at+jwt".to_owned()),
        kid: Some(signer.kid.clone()),
        ..Header::new(signer.signs_with().0)
    }
}

/// A token of any claims that has the application's own signature.
fn signed(app: &App, header: &Header, claims: &Value) -> String {
    let ring = app.tokens.keys().ring();
    let (_, key) = ring.signer(Utc::now()).unwrap().signs_with();
    jsonwebtoken::encode(header, claims, key).unwrap()
}

/// A token of any header and claims, as text, with an HMAC under any secret.
fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(&header.to_string()), base64(&claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

async fn assert_refused(app: &App, what: &str, token: &str) {
    let refused = app.authenticate(token).await;
    let code = refused.err().map(|error| error.code());
    assert_eq!(code, Some("UNAUTHENTICATED"), "a token {what} is refused");
}

/// An application with a database, and so with keys, of its own.
async fn alone(name: &str, config: Config) -> TestApp {
    let url = create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    TestApp::on(url, config).await
}

fn eddsa() -> Config {
    Config {
        jwt_algorithm: SigningAlgorithm::EdDsa,
        ..config()
    }
}

/// The first published key of an application.
fn published(app: &App) -> Value {
    app.tokens.keys().jwks()["keys"][0].clone()
}

#[tokio::test]
async fn a_token_is_valid_only_if_everything_about_it_is_right() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let (right, now) = (claims(&client), Utc::now().timestamp());
    let header = header(&app.app);
    let with = |claim: &str, value: Value| {
        let mut claims = right.clone();
        claims[claim] = value;
        signed(&app.app, &header, &claims)
    };
    let without = |claim: &str| {
        let mut claims = right.clone();
        claims.as_object_mut().unwrap().remove(claim);
        signed(&app.app, &header, &claims)
    };
    let good = signed(&app.app, &header, &right);
    assert_eq!(app.app.authenticate(&good).await.unwrap(), *client.viewer());
    // By the specification these are the same.
    let long = Header {
        typ: Some("application/AT+JWT".to_owned()),
        ..header.clone()
    };
    assert!(
        app.app
            .authenticate(&signed(&app.app, &long, &right))
            .await
            .is_ok()
    );
    let other = TestApp::new().await.tenant().await;
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let of_other = claims(&other).to_string();
    let mut bad = vec![
        ("expired", with("exp", json!(now - 6))),
        ("expired long ago", with("exp", json!(0))),
        ("expired before there were clocks", with("exp", json!(-1))),
        ("of no known end", with("exp", json!(i64::MAX))),
        (
            "that ends by half a second",
            with("exp", json!(now as f64 + 60.5)),
        ),
        ("that ends in words", with("exp", json!("tomorrow"))),
        ("that ends in digits", with("exp", json!((now + 60).to_string()))),
        ("that never ends", with("exp", Value::Null)),
        ("not yet valid", with("nbf", json!(now + 60))),
        (
            "not yet valid, in digits",
            with("nbf", json!((now - 60).to_string())),
        ),
        ("older than tokens become", with("iat", json!(now - 15 * 60 - 6))),
        ("issued in digits", with("iat", json!(now.to_string()))),
        ("of another issuer", with("iss", json!("somebody"))),
        (
            "of several issuers",
            with("iss", json!(["dealstream", "somebody"])),
        ),
        (
            "of an issuer that begins alike",
            with("iss", json!("dealstream.example")),
        ),
        ("for another audience", with("aud", json!("something"))),
        (
            "for several audiences",
            with("aud", json!(["dealstream", "something"])),
        ),
        ("of no person", with("sub", json!("root"))),
        ("of a number", with("sub", json!(1))),
        ("of no tenant", with("tid", json!(""))),
        ("of no session", with("sid", json!("all"))),
        ("of no name", with("jti", json!("first"))),
        ("of an unknown role", with("role", json!("ROOT"))),
        ("without a signature", format!("{head}.{body}.")),
        ("without its end", format!("{head}.{body}")),
        (
            "with another's body",
            format!("{head}.{}.{signature}", base64(&of_other)),
        ),
        ("with a longer signature", format!("{good}A")),
        ("with a shorter signature", good[..good.len() - 4].to_owned()),
        ("with a fourth part", format!("{good}.{signature}")),
        ("with an empty fourth part", format!("{good}.")),
        ("with a part before", format!(".{good}")),
        ("with a space before", format!(" {good}")),
        ("with a line's end", format!("{good}\n")),
        ("with a space within", good.replacen('.', ". ", 1)),
        ("in padded base64", format!("{good}==")),
        ("twice", format!("{good},{good}")),
        ("empty", String::new()),
        ("of garbage", "garbage".to_owned()),
        ("of dots", "..".to_owned()),
        ("of control characters", "\0.\0.\0".to_owned()),
        ("of letters beyond ASCII", "ä.ö.ü".to_owned()),
        ("huge", format!("{head}.{}.{signature}", "A".repeat(1_000_000))),
        (
            "of a huge header",
            format!("{}.{body}.{signature}", "A".repeat(1_000_000)),
        ),
        (
            "of deep brackets",
            format!("{}.{body}.{signature}", base64(&"[".repeat(5000))),
        ),
    ];
    for claim in [
        "iss", "aud", "sub", "tid", "sid", "jti", "role", "nbf", "exp", "iat",
    ] {
        bad.push((claim, without(claim)));
    }
    for (what, token) in &bad {
        assert_refused(&app.app, what, token).await;
        // Nor is it remembered as anything else.
        assert_refused(&app.app, what, token).await;
    }
    assert!(app.app.authenticate(&good).await.is_ok());
    let expired = app
        .app
        .authenticate(&with("exp", json!(now - 60)))
        .await
        .unwrap_err();
    assert!(expired.message().starts_with("The access token has expired."));
}

#[tokio::test]
async fn what_a_header_says_is_believed_of_nothing_but_the_key() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let right = claims(&client);
    let good = client.token();
    let (_, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let kid = header(&app.app).kid.unwrap();
    let head = |value: Value| base64(&value.to_string());
    // No algorithm, in whatever letters.
    for none in ["none", "None", "NONE", "nOnE", "", "null"] {
        for (typ, kid) in [
            (Some("at+jwt"), Some(&kid)),
            (None, None),
            (Some("JWT"), Some(&kid)),
        ] {
            let head = head(json!({ "alg": none, "typ": typ, "kid": kid }));
            for end in ["", signature] {
                assert_refused(&app.app, none, &format!("{head}.{body}.{end}")).await;
            }
        }
    }
    assert_refused(
        &app.app,
        "without alg",
        &format!(
            "{}.{body}.{signature}",
            head(json!({ "typ": "at+jwt", "kid": kid }))
        ),
    )
    .await;

    // The published key as the secret of an HMAC, in every form that somebody could take it for.
    let jwk = published(&app.app);
    let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let hmac_head = json!({ "alg": "HS256", "typ": "at+jwt", "kid": kid });
    let set = app.app.tokens.keys().jwks();
    let pem = public_pem(&n);
    for secret in [
        n.as_slice(),
        jwk["n"].as_str().unwrap().as_bytes(),
        jwk.to_string().as_bytes(),
        set.to_string().as_bytes(),
        pem.as_bytes(),
        pem.trim().as_bytes(),
        kid.as_bytes(),
        SECRET.as_bytes(),
        b"",
    ] {
        assert_refused(
            &app.app,
            "signed with what is public",
            &forged(&hmac_head, &right, secret),
        )
        .await;
    }

    // Another algorithm than the key's, with a right signature of the key, or of nobody.
    for algorithm in [
        "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384",
        "HS512", "RS256 ", "rs256",
    ] {
        let head = head(json!({ "alg": algorithm, "typ": "at+jwt", "kid": kid }));
        assert_refused(&app.app, algorithm, &format!("{head}.{body}.{signature}")).await;
    }
    let rs512 = Header {
        alg: Algorithm::RS512,
        ..header(&app.app)
    };
    assert_refused(&app.app, "of another digest", &signed(&app.app, &rs512, &right)).await;

    // Keys that the token brings or points to.
    let theirs = rsa();
    let (public, private) = (&theirs.0, &theirs.1);
    for (name, value) in [
        ("jwk", public.clone()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!([STANDARD.encode(b"certificate")])),
        ("x5t", json!("AAAA")),
    ] {
        let mut bringing = serde_json::to_value(header(&app.app)).unwrap();
        bringing[name] = value;
        let bringing: Header = serde_json::from_value(bringing).unwrap();
        let token = jsonwebtoken::encode(&bringing, &right, private).unwrap();
        assert_refused(&app.app, name, &token).await;
    }
    let other_kid = Header {
        kid: public["kid"].as_str().map(str::to_owned),
        ..header(&app.app)
    };
    assert_refused(
        &app.app,
        "of their own key",
        &jsonwebtoken::encode(&other_kid, &right, private).unwrap(),
    )
    .await;

    // What a receiver must understand, and does not; and other kinds of tokens.
    let critical = Header {
        crit: Some(vec!["exp".to_owned()]),
        ..header(&app.app)
    };
    assert_refused(
        &app.app,
        "with critical extensions",
        &signed(&app.app, &critical, &right),
    )
    .await;
    for typ in [
        None,
        Some("JWT"),
        Some("at+jwt "),
        Some("id+jwt"),
        Some("logout+jwt"),
        Some(""),
    ] {
        let other = Header {
            typ: typ.map(str::to_owned),
            ..header(&app.app)
        };
        assert_refused(&app.app, "of another type", &signed(&app.app, &other, &right)).await;
    }
}

/// A key of somebody else: published, and to sign with.
fn rsa() -> (Value, EncodingKey) {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{KeyPair, RsaPublicKeyComponents};
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let of = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let der = STANDARD.encode(pair.as_der().unwrap().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    let kid = Uuid::new_v4().simple().to_string() + "01234567890";
    let public = json!({
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
        "n": URL_SAFE_NO_PAD.encode(&of.n), "e": URL_SAFE_NO_PAD.encode(&of.e),
    });
    (public, EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap())
}

/// An RSA key of 2048 bits as people find it in files.
fn public_pem(n: &[u8]) -> String {
    let head = "30820122300d06092a864886f70d01010105000382010f003082010a0282010100";
    let byte = |at: usize| u8::from_str_radix(&head[at..at + 2], 16).unwrap();
    let mut der: Vec<u8> = (0..head.len()).step_by(2).map(byte).collect();
    der.extend_from_slice(n);
    der.extend_from_slice(&[2, 3, 1, 0, 1]);
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

#[tokio::test]
async fn the_name_of_a_key_is_a_name_and_nothing_else() {
    let app = TestApp::new().await;
    let client = app.tenant().await;
    let right = claims(&client);
    let kid = header(&app.app).kid.unwrap();
    let huge = "k".repeat(7000);
    let turned = kid.to_uppercase();
    for name in [
        None,
        Some(""),
        Some("unknown"),
        Some("../../../../dev/null"),
        Some("/etc/passwd"),
        Some("file:///dev/null"),
        Some("https://evil.example/key"),
        Some("' OR '1'='1"),
        Some("'; DROP TABLE signing_keys; --"),
        Some("' UNION SELECT 'RS256' --"),
        Some("kid\0"),
        Some("%00"),
        Some("$(id)"),
        Some(&*huge),
        Some(&*turned),
        Some(&kid[1..]),
        Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        let header = Header {
            kid: name.map(str::to_owned),
            ..header(&app.app)
        };
        assert_refused(&app.app, "of another key", &signed(&app.app, &header, &right)).await;
    }
    for kid in [json!(null), json!(1), json!([kid]), json!({ "kid": kid })] {
        let head = json!({ "alg": "RS256", "typ": "at+jwt", "kid": kid });
        assert_refused(&app.app, "of a strange key", &forged(&head, &right, b"")).await;
    }
    assert!(app.app.authenticate(&client.token()).await.is_ok());
}

#[tokio::test]
async fn a_key_is_good_for_its_own_algorithm_alone() {
    let app = alone("tokens_eddsa", eddsa()).await;
    let client = app.tenant().await;
    let jwk = published(&app.app);
    assert_eq!(
        (&jwk["kty"], &jwk["crv"], &jwk["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
    );
    let good = client.token();
    assert_eq!(app.app.authenticate(&good).await.unwrap(), *client.viewer());
    let (head, rest) = good.split_once('.').unwrap();
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    assert_eq!(
        head,
        json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": jwk["kid"] })
    );
    for algorithm in ["RS256", "HS256", "ES256", "none"] {
        let mut other = head.clone();
        other["alg"] = json!(algorithm);
        assert_refused(
            &app.app,
            algorithm,
            &format!("{}.{rest}", base64(&other.to_string())),
        )
        .await;
    }
    let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    let mut hmac_head = head.clone();
    hmac_head["alg"] = json!("HS256");
    assert_refused(
        &app.app,
        "signed with what is public",
        &forged(&hmac_head, &claims(&client), &x),
    )
    .await;
    // A right signature with a key of the right kind that is not ours.
    let theirs = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
    let token = jsonwebtoken::encode(
        &header(&app.app),
        &claims(&client),
        &EncodingKey::from_ed_der(theirs.as_ref()),
    )
    .unwrap();
    assert_refused(&app.app, "of another key", &token).await;
}

#[tokio::test]
async fn keys_of_a_new_algorithm_are_published_before_they_sign_and_old_ones_verify_on() {
    let one = alone("tokens_rotation", config()).await;
    let client = one.tenant().await;
    let first = client.token();
    let before = published(&one.app);
    assert_eq!(before["alg"], "RS256");
    // A second instance has the same key, and its own opinion of algorithms.
    let other = TestApp::on(one.url.clone(), eddsa()).await;
    assert!(client.is_known_to(&other.app));
    let both = other.app.tokens.keys().jwks();
    assert_eq!(both["keys"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&both["keys"][0], &both["keys"][1]["alg"]),
        (&before, &json!("EdDSA"))
    );
    let still = header(&other.app);
    assert_eq!(still.alg, Algorithm::RS256, "the new key is published only");
    // Starting once more makes no more of them.
    let third = TestApp::on(one.url.clone(), eddsa()).await;
    assert_eq!(third.app.tokens.keys().jwks(), both);

    // When its time comes, it signs; the first instance has not looked since, and finds the key when it sees the token.
    let superuser = one.superuser().await;
    superuser
        .batch_execute(
            "UPDATE signing_keys SET signs_from = now() - CASE algorithm WHEN 'EdDSA' THEN interval '0' ELSE interval '1 hour' END",
        )
        .await
        .unwrap();
    other.app.tokens.keys().look().await.unwrap();
    assert_eq!(header(&other.app).alg, Algorithm::EdDSA);
    let second = signed(&other.app, &header(&other.app), &claims(&client));
    assert_eq!(published(&one.app), before);
    assert!(one.app.authenticate(&second).await.is_ok());
    assert_eq!(one.app.tokens.keys().jwks(), both);
    for app in [&one, &other, &third] {
        assert!(app.app.authenticate(&first).await.is_ok());
        assert!(app.app.authenticate(&second).await.is_ok());
    }

    // After longer than any token lives, the old key is no longer good, although the token has been seen before.
    superuser
        .batch_execute("UPDATE signing_keys SET signs_from = signs_from - interval '26 hours'")
        .await
        .unwrap();
    for app in [&one, &other] {
        app.app.tokens.keys().look().await.unwrap();
        assert_refused(&app.app, "of an old key", &first).await;
        assert!(app.app.authenticate(&second).await.is_ok());
        assert_eq!(app.app.tokens.keys().jwks()["keys"], json!([both["keys"][1]]));
    }
}

#[tokio::test]
async fn instances_that_start_together_make_one_key() {
    let url = create_database("tokens_first").await;
    migrate::migrate(&url).await.unwrap();
    let apps = futures::future::join_all((0..4).map(|_| TestApp::on(url.clone(), eddsa()))).await;
    let set = apps[0].app.tokens.keys().jwks();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);
    for app in &apps {
        assert_eq!(app.app.tokens.keys().jwks(), set);
    }
    // When its days are over, one of them makes the next.
    let superuser = apps[0].superuser().await;
    superuser
        .batch_execute("UPDATE signing_keys SET created_at = now() - interval '89 days 23 hours', signs_from = created_at")
        .await
        .unwrap();
    let keys: Vec<_> = apps.iter().map(|app| app.app.tokens.keys()).collect();
    let due = async || {
        futures::future::join_all(keys.iter().map(async |keys| {
            keys.look().await.unwrap();
            keys.rotate_when_due().await.unwrap();
        }))
        .await;
        keys[0].look().await.unwrap();
        keys[0].jwks()["keys"].as_array().unwrap().len()
    };
    assert_eq!(due().await, 1);
    superuser
        .batch_execute("UPDATE signing_keys SET created_at = now() - interval '90 days'")
        .await
        .unwrap();
    assert_eq!(due().await, 2);
    assert_eq!(due().await, 2);
    let row = superuser
        .query_one("SELECT count(*), max(signs_from) - now() FROM signing_keys WHERE signs_from > now() + interval '59 minutes'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 1, "it is published for {AHEAD:?}");
    let ring = keys[0].ring();
    assert_eq!(
        ring.signer(Utc::now()).unwrap().kid,
        set["keys"][0]["kid"].as_str().unwrap()
    );
}

#[tokio::test]
async fn keys_that_may_be_known_to_others_go_at_once() {
    let one = alone("tokens_discard", eddsa()).await;
    let other = TestApp::on(one.url.clone(), eddsa()).await;
    let client = one.tenant().await;
    let (old, stolen) = (published(&one.app), client.token());
    assert!(other.app.authenticate(&stolen).await.is_ok());
    one.app.tokens.keys().rotate(Duration::ZERO, true).await.unwrap();
    assert_refused(&one.app, "of a discarded key", &stolen).await;
    let set = one.app.tokens.keys().jwks();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);
    assert_ne!(set["keys"][0], old);
    // What the others do once a minute.
    other.app.tokens.keys().look().await.unwrap();
    assert_refused(&other.app, "of a discarded key", &stolen).await;
    assert!(
        client.is_known_to(&other.app),
        "what is signed from now on is good"
    );
}

#[tokio::test]
async fn nobody_adds_a_key_by_writing_it_into_the_table() {
    let app = alone("tokens_planted", config()).await;
    let client = app.tenant().await;
    let (public, private) = rsa();
    let planted = Header {
        kid: public["kid"].as_str().map(str::to_owned),
        ..header(&app.app)
    };
    let token = jsonwebtoken::encode(&planted, &claims(&client), &private).unwrap();
    let superuser = app.superuser().await;
    // As good as it gets without the master key: another's sealed part under one's own name.
    superuser
        .execute(
            "INSERT INTO signing_keys SELECT $1, algorithm, sealed, created_at, signs_from FROM signing_keys",
            &[&planted.kid],
        )
        .await
        .unwrap();
    app.app.tokens.keys().look().await.unwrap();
    assert_refused(&app.app, "of a planted key", &token).await;
    assert_eq!(app.app.tokens.keys().jwks()["keys"].as_array().unwrap().len(), 1);
    // An installation with another root secret has keys of its own.
    let stranger = Config {
        jwt_secret: Some(
            "another-secret-that-only-tests-would-use-0123456789"
                .to_owned()
                .into(),
        ),
        ..config()
    };
    let stranger = TestApp::on(app.url.clone(), stranger).await;
    assert_refused(&stranger.app, "of another installation", &client.token()).await;
}

#[tokio::test]
async fn the_private_parts_are_sealed_and_of_nobody_but_the_directory() {
    let app = alone("tokens_sealed", config()).await;
    let superuser = app.superuser().await;
    let sealed: Vec<u8> = superuser
        .query_one("SELECT sealed FROM signing_keys", &[])
        .await
        .unwrap()
        .get(0);
    // Neither a key in DER nor the modulus in it.
    let n = URL_SAFE_NO_PAD
        .decode(published(&app.app)["n"].as_str().unwrap())
        .unwrap();
    assert!(!sealed.windows(16).any(|part| part == &n[..16]));
    assert!(RsaKeyPair::from_pkcs8(&sealed).is_err());
    let read = "SET ROLE dealstream_app; SELECT sealed FROM signing_keys";
    let denied = superuser.batch_execute(read).await.unwrap_err();
    assert!(
        denied.to_string().contains("db error") || denied.to_string().contains("denied"),
        "{denied}"
    );
}

#[tokio::test]
async fn unknown_keys_make_an_instance_look_once_a_second_at_most() {
    crate::support::counter::install();
    let app = TestApp::new().await;
    let client = app.tenant().await;
    app.settle().await;
    crate::support::counter::take();
    for _ in 0..200 {
        let kid = URL_SAFE_NO_PAD.encode(dealstream::crypto::random_bytes::<32>());
        let header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": kid });
        assert_refused(
            &app.app,
            "of an unknown key",
            &forged(&header, &claims(&client), b""),
        )
        .await;
    }
    let looks = crate::support::counter::take().statements;
    let looks = looks
        .iter()
        .filter(|statement| statement.contains("FROM signing_keys"))
        .count();
    // In debug builds on a busy machine two hundred take a while.
    assert!((1..=20).contains(&looks), "{looks} looks");
}

#[tokio::test]
async fn the_published_keys_are_served_for_keeping() {
    let app = TestApp::new().await;
    let wire = Wire::serve(app.app.clone()).await;
    let reply = wire.send("GET", "/.well-known/jwks.json", "", "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(reply.json(), app.app.tokens.keys().jwks());
    for key in reply.json()["keys"].as_array().unwrap() {
        for secret in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(secret).is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_of_others_verifies_our_tokens_by_our_published_keys() {
    for (name, config, algorithm) in [
        ("tokens_peer_rsa", config(), "RS256"),
        ("tokens_peer_ed", eddsa(), "EdDSA"),
    ] {
        let app = alone(name, config).await;
        let client = app.tenant().await;
        let wire = Wire::serve(app.app.clone()).await;
        let user = client.viewer().user_id.to_string();
        let arguments = [
            format!("http://{}", wire.address),
            client.token(),
            algorithm.to_owned(),
            user,
        ];
        wire.peer("tokens.mjs", &arguments).await;
    }
}

#[test]
fn operators_list_and_rotate_keys_by_command() {
    use crate::support::folder::Folder;
    use crate::support::program::dealstream;
    let folder = Folder::new("tokens-command");
    let run = |arguments: &[&str]| {
        let output = dealstream(folder.path())
            .env("JWT_ALGORITHM", "EdDSA")
            .arg("keys")
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let told = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = told
            .lines()
            .filter(|line| line.contains("made"))
            .map(str::to_owned)
            .collect();
        lines
    };
    assert_eq!(run(&["list"]), [""; 0]);
    let first = run(&["rotate"]);
    assert!(
        first.len() == 1 && first[0].ends_with("signs") && first[0].contains("EdDSA"),
        "{first:?}"
    );
    let second = run(&["rotate"]);
    assert!(
        second.len() == 2 && second[0].ends_with("signs") && second[1].contains("signs from"),
        "{second:?}"
    );
    let third = run(&["rotate", "--now"]);
    assert!(
        third.len() == 3 && third[0].contains("verifies until") && third[1].ends_with("signs"),
        "{third:?}"
    );
    assert_eq!(run(&["list"]), third);
    let last = run(&["rotate", "--discard"]);
    assert!(
        last.len() == 1
            && last[0].ends_with("signs")
            && !third.iter().any(|line| line[..43] == last[0][..43]),
        "{last:?}"
    );
}

#[test]
fn a_weak_secret_is_refused() {
    for weak in [
        &b""[..],
        b"short",
        &[b'x'; 64],
        b"0123456789012345678901234567890",
    ] {
        assert!(check_secret(weak).is_err());
    }
    assert!(check_secret(SECRET.as_bytes()).is_ok());
}
