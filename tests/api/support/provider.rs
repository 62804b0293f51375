//! Other providers, and a browser that goes to them and comes back: a real one that speaks OpenID Connect, and one that
//! says whatever a test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use dealstream::config::{Config, ProviderSettings};
use dealstream::crypto;
use dealstream::db::embedded::end_with_this_thread;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use oauth2::url::Url;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::TestApp;
use super::app::{config, database_url};
use super::wire::Wire;

/// Where browsers would find the server: nobody goes there, the requests are brought to where it listens.
const API: &str = "https://api.crm.test";

/// The page that people come back to.
pub const PAGE: &str = "https://crm.test/signed-in";

const CLIENT: &str = "dealstream";

/// The real provider, by its issuer. It is shared and stays as long as the process.
pub fn issuer() -> &'static str {
    static ISSUER: OnceLock<String> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/provider.mjs");
            let mut command = Command::new("node");
            command.arg(script).arg(format!("{API}/sign-in/oidc/callback"));
            end_with_this_thread(&mut command, Signal::KILL);
            let child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let mut child = child.expect("node is installed: `make setup-tests`");
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let port = lines
                .next()
                .expect("the provider tells its port: `make setup-tests`");
            tell.send(format!("http://127.0.0.1:{}", port.unwrap())).unwrap();
            // It ends with its input.
            let _input = child.stdin.take();
            child.wait().unwrap();
        });
        told.recv().expect("the provider starts")
    })
}

/// Settings with one provider by this issuer.
pub fn with_issuer(issuer: &str) -> Config {
    Config {
        providers: ProviderSettings {
            api_url: Some(API.to_owned()),
            return_urls: vec![PAGE.to_owned(), "https://other.crm.test/in?a=b".to_owned()],
            oidc_issuer: Some(issuer.to_owned()),
            oidc_client_id: Some(CLIENT.to_owned()),
            oidc_client_secret: Some("a secret & more: of 100%".to_owned().into()),
            ..config().providers
        },
        ..config()
    }
}

/// Settings with GitHub at this address.
pub fn with_github(url: &str) -> Config {
    Config {
        providers: ProviderSettings {
            github_url: url.to_owned(),
            github_client_id: Some(CLIENT.to_owned()),
            github_client_secret: Some("hush".to_owned().into()),
            oidc_issuer: None,
            oidc_client_id: None,
            oidc_client_secret: None,
            ..with_issuer(url).providers
        },
        ..config()
    }
}

/// A server whose people sign in with a provider.
pub struct Site {
    pub app: TestApp,
    pub wire: Wire,
    provider: &'static str,
}

/// A browser that has been sent to a provider.
pub struct Visit {
    /// Where it was sent.
    pub location: Url,
    /// The whole cookie, as it was set.
    pub set_cookie: String,
    /// As the browser sends it.
    pub cookie: String,
    /// What the page keeps.
    pub verifier: String,
}

impl Visit {
    pub fn parameter(&self, name: &str) -> String {
        let found = self.location.query_pairs().find(|(it, _)| it == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.into_owned()
    }
}

/// What a server answers to a browser.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub location: Option<String>,
    pub cookies: Vec<String>,
    pub body: Vec<u8>,
}

impl Told {
    /// What stands behind the `#` of the page that it leads to: `code` or `error`, and its value.
    pub fn result(&self) -> (&str, &str) {
        let location = self
            .location
            .as_deref()
            .unwrap_or_else(|| panic!("{self:?} leads nowhere"));
        let (page, result) = location.split_once('#').expect("there is something behind it");
        assert_eq!(page, PAGE);
        result.split_once('=').unwrap()
    }

    pub fn code(&self) -> &str {
        match self.result() {
            ("code", code) => code,
            other => panic!("{other:?}"),
        }
    }
}

/// Asks for an address as a browser does, and goes nowhere else.
pub async fn browse(url: &str, headers: &[(&str, &str)]) -> Told {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let request = headers.iter().fold(client.get(url), |request, (name, value)| {
        request.header(*name, *value)
    });
    let answer = request.send().await.unwrap();
    let text = |name: &str| {
        let all = answer.headers().get_all(name).iter();
        all.map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    Told {
        status: answer.status().as_u16(),
        location: text("location").pop(),
        cookies: text("set-cookie"),
        body: answer.bytes().await.unwrap().to_vec(),
    }
}

impl Site {
    /// One with the real provider.
    pub async fn open() -> Self {
        let issuer = tokio::task::spawn_blocking(issuer).await.unwrap();
        Self::with("oidc", with_issuer(issuer)).await
    }

    pub async fn with(provider: &'static str, config: Config) -> Self {
        let app = TestApp::on(database_url().await, config).await;
        let wire = Wire::serve(app.app.clone()).await;
        Self { app, wire, provider }
    }

    /// A path, where the server really is.
    pub fn url(&self, rest: &str) -> String {
        format!("http://{}/sign-in/{rest}", self.wire.address)
    }

    /// The page sends its browser away.
    pub async fn send(&self) -> Visit {
        let verifier = crypto::random_token();
        let challenge = URL_SAFE_NO_PAD.encode(crypto::token_hash(&verifier));
        let rest = format!("{}?return_to={PAGE}&challenge={challenge}", self.provider);
        let told = browse(&self.url(&rest), &[]).await;
        assert_eq!(told.status, 303, "{told:?}");
        let set_cookie = told.cookies.concat();
        Visit {
            location: Url::parse(&told.location.unwrap()).unwrap(),
            cookie: set_cookie.split(';').next().unwrap().to_owned(),
            set_cookie,
            verifier,
        }
    }

    /// The browser comes back from a provider, to the address that it was given.
    pub async fn receive(&self, back: &str, cookie: &str) -> Told {
        let rest = back.strip_prefix(&format!("{API}/sign-in/")).unwrap();
        browse(&self.url(rest), &[("cookie", cookie)]).await
    }

    /// Where a browser comes back to with a code.
    pub fn back(&self, state: &str, code: &str) -> String {
        format!(
            "{API}/sign-in/{}/callback?state={state}&code={code}",
            self.provider
        )
    }

    /// All of it with the real provider, up to the page.
    pub async fn by_way_of(&self, person: &Value) -> (Told, String) {
        let visit = self.send().await;
        let back = consent(&visit.location, person).await;
        (self.receive(&back, &visit.cookie).await, visit.verifier)
    }

    /// The page turns what it was told into a session.
    pub async fn complete(&self, code: &str, verifier: &str, tenant: Option<&str>) -> Value {
        let document = "mutation($input: CompleteProviderSignInInput!) { completeProviderSignIn(input: $input) {
            accessToken refreshToken viewer { user { email } tenant { id } } secondFactor { token methods } } }";
        let input = json!({ "code": code, "verifier": verifier, "tenantId": tenant });
        self.app.anon().answer(document, json!({ "input": input })).await
    }
}

/// Goes through the real provider as a person; answers where it sends them back to.
pub async fn consent(location: &Url, person: &Value) -> String {
    let person = person.to_string();
    let mut cookies = HashMap::new();
    let mut url = location.clone();
    for _ in 0..8 {
        let jar: Vec<String> = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let told = browse(
            url.as_str(),
            &[("cookie", &jar.join("; ")), ("x-person", &person)],
        )
        .await;
        for cookie in &told.cookies {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let next = told.location.clone();
        let next = next.unwrap_or_else(|| panic!("{url}: {}", String::from_utf8_lossy(&told.body)));
        if next.starts_with(API) {
            return next;
        }
        url = url.join(&next).unwrap();
    }
    panic!("the provider never sends anybody back")
}

/// A server that takes every connection and never answers.
pub struct Deaf {
    pub url: String,
    heard: Arc<AtomicUsize>,
}

impl Deaf {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = heard.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                open.push(connection);
            }
        });
        Self { url, heard }
    }

    /// How often it was asked.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// Makes a token of claims.
pub type Forge = Arc<dyn Fn(&Value) -> String + Send + Sync>;

/// What the other provider says.
#[derive(Clone, Default)]
pub struct Says {
    /// What differs from a good ID token; null takes a claim away.
    pub claims: Value,
    /// Makes an ID token of the claims that would be good, instead of signing them.
    pub forge: Option<Forge>,
    /// The name of the key in the header.
    pub kid: Option<String>,
    /// What `userinfo`, or GitHub's `user`, answers.
    pub user: Value,
    pub emails: Value,
    /// Sends whoever asks for a token elsewhere, where they would get it.
    pub redirects: bool,
    /// Whether it promises to name itself when it sends people back.
    pub names_itself: bool,
    /// Bytes of padding in what it says of a user.
    pub padding: usize,
    /// What the browser was sent with.
    pub challenge: String,
    pub nonce: String,
    /// How often its keys were asked for.
    pub asked_for_keys: usize,
}

/// A provider that says whatever a test wants.
#[derive(Clone)]
pub struct Liar {
    pub url: String,
    says: Arc<Mutex<Says>>,
    key: Arc<Ed25519KeyPair>,
}

impl Liar {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            says: Arc::default(),
            key: Arc::new(Ed25519KeyPair::generate().unwrap()),
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(Self::metadata))
            .route("/keys", get(Self::keys))
            .route("/token", post(Self::token))
            .route("/elsewhere", post(Self::code))
            .route("/login/oauth/access_token", post(Self::token))
            .route("/userinfo", get(Self::user))
            .route("/api/v3/user", get(Self::user))
            .route("/api/v3/user/emails", get(Self::emails))
            .with_state(liar.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        liar
    }

    pub fn says(&self) -> std::sync::MutexGuard<'_, Says> {
        self.says.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a browser is sent back with from here, when the liar says this.
    pub async fn tells(&self, site: &Site, says: Says) -> Told {
        self.tells_with(site, says, "").await
    }

    /// The same with more parameters.
    pub async fn tells_with(&self, site: &Site, says: Says, more: &str) -> Told {
        let visit = site.send().await;
        self.expects(&visit, says);
        let back = site.back(&visit.parameter("state"), "a-code");
        site.receive(&format!("{back}{more}"), &visit.cookie).await
    }

    /// Whoever comes with a code from now on has to be of this visit, and is told this.
    pub fn expects(&self, visit: &Visit, says: Says) {
        let mut now = self.says();
        let parameter = |name: &str| {
            let found = visit.location.query_pairs().find(|(it, _)| it == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        *now = Says {
            challenge: parameter("code_challenge"),
            nonce: parameter("nonce"),
            asked_for_keys: now.asked_for_keys,
            names_itself: now.names_itself,
            ..says
        };
    }

    /// Its public key, as the letters of a JSON Web Key.
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref())
    }

    /// The claims of an ID token that is good, but for what it says differently.
    pub fn claims(&self) -> Value {
        let says = self.says();
        let now = Utc::now().timestamp();
        let mut claims = json!({ "iss": self.url, "aud": CLIENT, "sub": "somebody", "nonce": says.nonce,
            "iat": now, "exp": now + 300, "email": "somebody@test.example", "email_verified": true });
        for (name, value) in says.claims.as_object().into_iter().flatten() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    async fn metadata(State(liar): State<Self>) -> Json<Value> {
        let url = |path: &str| format!("{}{path}", liar.url);
        Json(
            json!({ "issuer": liar.url, "authorization_endpoint": url("/authorize"), "token_endpoint": url("/token"),
            "jwks_uri": url("/keys"), "userinfo_endpoint": url("/userinfo"),
            "authorization_response_iss_parameter_supported": liar.says().names_itself }),
        )
    }

    async fn keys(State(liar): State<Self>) -> Json<Value> {
        liar.says().asked_for_keys += 1;
        Json(json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "x": liar.public(), "kid": "good", "use": "sig" },
            { "kty": "oct", "k": liar.public(), "kid": "shared", "alg": "HS256" },
        ] }))
    }

    async fn token(liar: State<Self>, form: Form<HashMap<String, String>>) -> Response {
        if liar.says().redirects {
            let elsewhere = format!("{}/elsewhere", liar.url);
            return (StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere)]).into_response();
        }
        Self::code(liar, form).await
    }

    async fn code(State(liar): State<Self>, Form(form): Form<HashMap<String, String>>) -> Response {
        let says = liar.says().clone();
        let hash = crypto::token_hash(form.get("code_verifier").map_or("", String::as_str));
        if URL_SAFE_NO_PAD.encode(hash) != says.challenge || form["code"] != "a-code" {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
        }
        let signed = || {
            let pkcs8 = self_pkcs8(&liar.key);
            let header = Header {
                kid: says.kid.clone().or_else(|| Some("good".to_owned())),
                ..Header::new(Algorithm::EdDSA)
            };
            jsonwebtoken::encode(&header, &liar.claims(), &EncodingKey::from_ed_der(&pkcs8)).unwrap()
        };
        let id_token = match &says.forge {
            Some(forge) => forge(&liar.claims()),
            None => signed(),
        };
        Json(json!({ "access_token": "for-userinfo", "token_type": "Bearer", "id_token": id_token }))
            .into_response()
    }

    async fn user(State(liar): State<Self>, headers: HeaderMap) -> Response {
        let says = liar.says().clone();
        if headers
            .get("authorization")
            .is_none_or(|it| it != "Bearer for-userinfo")
        {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let mut user = says.user;
        if says.padding > 0 {
            user["padding"] = "x".repeat(says.padding).into();
        }
        Json(user).into_response()
    }

    async fn emails(State(liar): State<Self>) -> Json<Value> {
        Json(liar.says().emails.clone())
    }
}

fn self_pkcs8(key: &Ed25519KeyPair) -> Vec<u8> {
    key.to_pkcs8().unwrap().as_ref().to_vec()
}
