//! The application under test, in this process, over the shared PostgreSQL.
//!
//! Every test has an application of its own and tenants of its own in one database, so tests run beside each other and
//! clean nothing up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_graphql::{Request, Variables};
use dealstream::app::App;
use dealstream::auth::token::Grant;
use dealstream::auth::{Origin, Permission, Rights, Role, Viewer};
use dealstream::config::Config;
use dealstream::db::id::Id;
use dealstream::db::migrate;
use dealstream::error::Error;
use dealstream::events::Work;
use dealstream::founding;
use dealstream::graphql::scalar::CurrencyCode;
use dealstream::graphql::{Session, eager};
use dealstream::http::live::{self, Live};
use dealstream::identity::{self, NewTenant, User};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{cluster, counter};

/// The root secret of tests.
pub const SECRET: &str = "a-secret-that-only-tests-would-ever-use-0123456789";

/// The application, as a server would have it.
pub struct TestApp {
    pub app: Arc<App>,
    /// Its subscriptions.
    pub live: Arc<Live>,
    pub url: String,
}

/// The migrated database that tests share.
pub async fn database_url() -> String {
    static URL: OnceCell<String> = OnceCell::const_new();
    let made = URL.get_or_init(|| async {
        // On a thread of its own: the runtime of the first test must not matter to the others.
        let made = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(1)
                .build()
                .unwrap();
            runtime.block_on(async {
                let url = cluster::create_database("shared").await;
                migrate::migrate(&url).await.unwrap();
                url
            })
        });
        tokio::task::spawn_blocking(|| made.join().unwrap())
            .await
            .unwrap()
    });
    made.await.clone()
}

/// The settings of tests.
pub fn config() -> Config {
    Config {
        jwt_secret: Some(SECRET.to_owned().into()),
        database_connections: Some(8),
        threads: Some(1),
        demo: false,
        ..Config::defaults()
    }
}

impl TestApp {
    /// An application over the shared database.
    pub async fn new() -> Self {
        Self::on(database_url().await, config()).await
    }

    /// The same without limits: for tests that ask, or guess, more often than anybody may.
    pub async fn unlimited() -> Self {
        let limits = vec!["all=off".to_owned()];
        Self::on(database_url().await, Config { limits, ..config() }).await
    }

    /// One with so many connections at most, whose statements are [counted](counter).
    pub async fn counted(connections: u32) -> Self {
        counter::install();
        let config = Config {
            database_connections: Some(connections),
            ..config()
        };
        Self::on(database_url().await, config).await
    }

    /// An application over another database, or with other settings.
    pub async fn on(url: String, config: Config) -> Self {
        let app = App::new(config, &url)
            .await
            .unwrap_or_else(|problem| panic!("{problem}"));
        app.tokens.keys().prepare().await.unwrap();
        let live = Live::new(app.clone(), 20);
        Self { app, live, url }
    }

    /// Somebody who has not signed in.
    pub fn anon(&self) -> Client {
        Client {
            app: self.app.clone(),
            live: self.live.clone(),
            viewer: None,
            idempotency_key: None,
            origin: Origin::default(),
        }
    }

    /// A fresh tenant; the client is its admin.
    pub async fn tenant(&self) -> Client {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let email = format!("admin-{number}-{}@test.example", uuid::Uuid::new_v4().simple());
        let new = NewTenant {
            name: format!("Tenant {number}"),
            currency_code: CurrencyCode::USD,
            user_name: "Ada Admin".to_owned(),
            email,
            // Nobody signs in with it: tests of signing in sign up themselves.
            password_hash: "-".to_owned(),
        };
        let (work, tenant, user) = founding::found_tenant(&self.app.db, &self.app.hub, new)
            .await
            .unwrap();
        work.finish().await.unwrap();
        self.client(tenant.id.uuid(), user.id.uuid(), Role::Admin)
    }

    /// A further user of a client's tenant.
    pub async fn user(&self, of: &Client, role: Role) -> Client {
        let tenant = of.viewer().tenant_id;
        let work = Work::begin(&self.app.db, self.app.hub.clone(), tenant, None)
            .await
            .unwrap();
        let id = Id::generate();
        let user = User {
            id,
            name: format!("{role:?} User"),
            email: format!("{}@test.example", uuid::Uuid::new_v4().simple()),
            role,
            custom_role_id: None,
            is_active: true,
            created_at: work.now(),
            updated_at: work.now(),
            version: 1,
        };
        // They have no account, and cannot sign in.
        identity::insert_user(&work, &user, Uuid::now_v7()).await.unwrap();
        work.finish().await.unwrap();
        self.client(tenant, id.uuid(), role)
    }

    /// The database as its superuser sees it: beside all policies.
    pub async fn superuser(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// Lets an address be one that its owner has proved to be theirs.
    pub async fn verify(&self, email: &str) {
        let verify = "UPDATE accounts SET email_verified_at = now() WHERE email = $1";
        let verified = self.superuser().await.execute(verify, &[&email]).await.unwrap();
        assert_eq!(verified, 1);
    }

    /// Waits until connections that were given back off their users' path are free again.
    pub async fn settle(&self) {
        self.settle_but(0).await;
    }

    /// The same, but for so many that are held on purpose.
    pub async fn settle_but(&self, held: usize) {
        let settled = async {
            loop {
                let (open, free) = self.app.db.pool_status();
                if open == free + held {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), settled)
            .await
            .expect("a connection was not given back");
    }

    /// Somebody who is known already.
    pub fn acting_as(&self, viewer: Viewer) -> Client {
        Client {
            viewer: Some(viewer),
            ..self.anon()
        }
    }

    /// Who a token stands for.
    pub async fn with_token(&self, token: &str) -> Client {
        Client {
            viewer: Some(self.app.authenticate(token).await.unwrap()),
            ..self.anon()
        }
    }

    /// Who sends a bearer token of whatever kind, or why nobody does.
    pub async fn identified(&self, bearer: &str) -> Result<Client, Error> {
        Ok(Client {
            viewer: Some(self.app.identify(bearer, &Origin::default()).await?),
            ..self.anon()
        })
    }

    fn client(&self, tenant: uuid::Uuid, user: uuid::Uuid, role: Role) -> Client {
        let grant = Grant {
            tenant_id: tenant,
            user_id: user,
            session_id: Uuid::now_v7(),
            token_id: Uuid::now_v7(),
            rights: Arc::new(Rights::of(role)),
            ends_at: None,
        };
        let (_, viewer) = self.app.tokens.issue(grant, chrono::Utc::now()).unwrap();
        Client {
            app: self.app.clone(),
            live: self.live.clone(),
            viewer: Some(viewer),
            idempotency_key: None,
            origin: Origin::default(),
        }
    }
}

/// Somebody who uses the API.
#[derive(Clone)]
pub struct Client {
    pub app: Arc<App>,
    pub live: Arc<Live>,
    viewer: Option<Viewer>,
    idempotency_key: Option<String>,
    origin: Origin,
}

impl Client {
    /// Who this is.
    pub fn viewer(&self) -> &Viewer {
        self.viewer.as_ref().unwrap()
    }

    /// The access token that they have, for requests over the wire.
    pub fn token(&self) -> String {
        let viewer = self.viewer();
        let grant = Grant {
            tenant_id: viewer.tenant_id,
            user_id: viewer.user_id,
            session_id: viewer.session_id,
            token_id: viewer.token_id,
            rights: viewer.rights.clone(),
            ends_at: None,
        };
        self.app.tokens.issue(grant, chrono::Utc::now()).unwrap().0
    }

    /// Whether the access token that they have is good, for this instance of the application.
    pub fn is_known_to(&self, app: &App) -> bool {
        let known = app.authenticate(&self.token()).now_or_never();
        known.expect("the keys are known, and nobody is asked").is_ok()
    }

    /// The same person with these permissions only.
    pub fn limited_to(&self, permissions: &[Permission]) -> Self {
        let viewer = self.viewer();
        let rights = viewer.rights.only(permissions.iter().copied().collect());
        Self {
            viewer: Some(Viewer {
                rights: Arc::new(rights),
                ..viewer.clone()
            }),
            ..self.clone()
        }
    }

    /// The same person, signed in a second time.
    pub fn in_another_session(&self) -> Self {
        let viewer = Viewer {
            session_id: Uuid::now_v7(),
            token_id: Uuid::now_v7(),
            ..self.viewer().clone()
        };
        Self {
            viewer: Some(viewer),
            ..self.clone()
        }
    }

    /// The same person with other rights.
    pub fn with_rights(&self, rights: Rights) -> Self {
        let viewer = Viewer {
            rights: Arc::new(rights),
            ..self.viewer().clone()
        };
        Self {
            viewer: Some(viewer),
            ..self.clone()
        }
    }

    /// The same client with an `Idempotency-Key` header.
    pub fn with_idempotency_key(&self, key: &str) -> Self {
        Self {
            idempotency_key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The same client at another address, or with another request.
    pub fn with_origin(&self, origin: Origin) -> Self {
        Self {
            origin,
            ..self.clone()
        }
    }

    /// A session, as the server makes one for each request.
    pub fn session(&self) -> Arc<Session> {
        Arc::new(
            self.app
                .session(self.viewer.clone())
                .with_idempotency_key(self.idempotency_key.clone())
                .with_origin(self.origin.clone()),
        )
    }

    /// The whole answer to a document.
    pub async fn answer(&self, document: &str, variables: Value) -> Value {
        let prepared = match self
            .app
            .documents
            .prepare(document, None, Variables::from_json(variables))
        {
            Ok(prepared) => prepared,
            Err(refusal) => return json!({ "errors": refusal.errors }),
        };
        let session = self.session();
        let response = loop {
            let request: Request = prepared.request().data(session.clone());
            let response = self.app.schema.execute(request).await;
            if let Some(response) = session.conclude(response).await {
                break response;
            }
        };
        let mut data = Vec::new();
        eager::write(&response.data, &mut data);
        let mut answer = json!({ "data": serde_json::from_slice::<Value>(&data).unwrap() });
        if !response.errors.is_empty() {
            answer["errors"] = json!(response.errors);
        }
        answer
    }

    /// The answers of a subscription.
    pub fn subscribe(&self, document: &str, variables: Value) -> BoxStream<'static, Value> {
        let prepared = self
            .app
            .documents
            .prepare(document, None, Variables::from_json(variables))
            .unwrap_or_else(|refusal| panic!("{document}\n{refusal}"));
        let steps = self.live.subscribe(self.viewer.as_ref(), prepared);
        let answers = live::frames(steps).map(|answer| match answer {
            Ok(frame) => serde_json::from_slice(&frame).unwrap(),
            Err(errors) => json!({ "errors": errors }),
        });
        Box::pin(answers)
    }

    /// Where the tenant's history stands.
    pub async fn position(&self) -> String {
        let data = self.query("{ viewer { position } }", json!({})).await;
        data["viewer"]["position"].as_str().unwrap().to_owned()
    }

    /// The data of an answer that must have no errors.
    pub async fn query(&self, document: &str, variables: Value) -> Value {
        let mut answer = self.answer(document, variables).await;
        assert!(answer.get("errors").is_none(), "{document}\n{answer:#}");
        answer["data"].take()
    }

    /// The code of the first error of an answer that must have one.
    pub async fn code(&self, document: &str, variables: Value) -> String {
        let answer = self.answer(document, variables).await;
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        code.unwrap_or_else(|| panic!("{document}\n{answer:#}"))
            .to_owned()
    }

    /// Runs a mutation whose payload must have no user errors, and answers the payload.
    pub async fn mutate(&self, field: &str, input_type: &str, selection: &str, input: Value) -> Value {
        let payload = self.payload(field, input_type, selection, input).await;
        assert_eq!(payload["userErrors"], json!([]), "{field}");
        payload
    }

    /// Runs a mutation and answers its payload, `userErrors` and `position` included.
    pub async fn payload(&self, field: &str, input_type: &str, selection: &str, input: Value) -> Value {
        let document = format!(
            "mutation($input: {input_type}!) {{ {field}(input: $input) {{ {selection} position
               userErrors {{ field code message conflicts {{ field currentValue }} }} }} }}"
        );
        let mut data = self.query(&document, json!({ "input": input })).await;
        data[field].take()
    }

    /// The stages of the default pipeline: `(id, name)`.
    pub async fn stages(&self) -> Vec<(String, String)> {
        let data = self
            .query(
                "{ pipelines { nodes { isDefault stages { id name } } } }",
                json!({}),
            )
            .await;
        let pipelines = data["pipelines"]["nodes"].as_array().unwrap();
        let default = pipelines
            .iter()
            .find(|pipeline| pipeline["isDefault"] == true)
            .unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        default["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| (text(&stage["id"]), text(&stage["name"])))
            .collect()
    }

    /// The id of a stage of the default pipeline by its name.
    pub async fn stage(&self, name: &str) -> String {
        self.stages()
            .await
            .into_iter()
            .find(|(_, other)| other == name)
            .unwrap()
            .0
    }

    /// A new company, by its id.
    pub async fn company(&self, name: &str) -> String {
        let payload = self
            .mutate(
                "createCompany",
                "CreateCompanyInput",
                "company { id }",
                json!({ "name": name }),
            )
            .await;
        payload["company"]["id"].as_str().unwrap().to_owned()
    }

    /// A new contact, by its id.
    pub async fn contact(&self, input: Value) -> String {
        let payload = self
            .mutate("createContact", "CreateContactInput", "contact { id }", input)
            .await;
        payload["contact"]["id"].as_str().unwrap().to_owned()
    }

    /// A new deal, by its id.
    pub async fn deal(&self, input: Value) -> String {
        let payload = self
            .mutate("createDeal", "CreateDealInput", "deal { id }", input)
            .await;
        payload["deal"]["id"].as_str().unwrap().to_owned()
    }

    /// A new interaction, by its id.
    pub async fn interaction(&self, input: Value) -> String {
        let payload = self
            .mutate(
                "createInteraction",
                "CreateInteractionInput",
                "interaction { id }",
                input,
            )
            .await;
        payload["interaction"]["id"].as_str().unwrap().to_owned()
    }

    /// Moves a deal, and answers the payload.
    pub async fn move_deal(&self, input: Value) -> Value {
        let selection = "deal { id status stage { name } winProbability closedAt lostReason version }
                         stageChange { fromStage { name } toStage { name } duration }";
        self.payload("moveDeal", "MoveDealInput", selection, input).await
    }
}
