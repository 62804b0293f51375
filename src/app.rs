//! The only place where the parts meet.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Schema, Services};
use crate::audit::Checkpoints;
use crate::auth::api_key::{self, ApiKeys};
use crate::auth::external::External;
use crate::auth::keys::Keys;
use crate::auth::provider::{Door, Providers};
use crate::auth::token::{self, Tokens};
use crate::auth::{Limiter, Origin, Revocations, Viewer};
use crate::config::Config;
use crate::crm::secrets;
use crate::crypto::{self, MasterKey, Vault};
use crate::db::{Database, migrate};
use crate::error::{Error, Result};
use crate::events::retention::Rounds;
use crate::events::{Hub, Redis, Retention};
use crate::graphql::Session;
use crate::graphql::limits::{Documents, Limits};
use crate::identity::{self, refusals::Refusals};
use crate::mail::Mail;
use crate::sensitive::DataKeys;

/// The running application: everything that a request needs.
pub struct App {
    pub config: Config,
    pub db: Database,
    pub hub: Arc<Hub>,
    redis: Option<Redis>,
    pub schema: Schema,
    /// The guard that every document passes before it is executed.
    pub documents: Documents,
    /// Opens what is kept sealed.
    pub vault: Arc<Vault>,
    /// Signs the audit trail from time to time.
    pub checkpoints: Arc<Checkpoints>,
    data_keys: Arc<DataKeys>,
    pub tokens: Arc<Tokens>,
    /// Which tokens are refused all the same.
    pub revocations: Arc<Revocations>,
    /// Bounds what may be asked how often.
    pub limiter: Arc<Limiter>,
    api_keys: ApiKeys,
    /// The issuer whose tokens sign people in besides our own.
    external: Option<External>,
    refusals: Refusals,
    /// What is mailed to people.
    pub mail: Arc<Mail>,
    /// Where people go out to other providers and come in again, when there are any.
    pub door: Option<Door>,
    /// Cancelled when the server begins to stop.
    pub shutdown: CancellationToken,
}

impl App {
    /// Makes the application over a database that has been migrated, and refuses one that would not keep tenants apart.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn new(config: Config, database_url: &str) -> Result<Arc<Self>, String> {
        let lifetime = TimeDelta::minutes(i64::from(config.jwt_access_token_minutes));
        let vault = Arc::new(vault(&config)?);
        let checkpoints = Checkpoints::new(&vault, config.audit_checkpoints());
        let checkpoints = checkpoints.map_err(|error| error.message())?;
        let wait = Duration::from_secs(u64::from(config.database_wait_seconds));
        let connections = config.database_connections();
        let db = Database::of_threads(database_url, connections, wait, config.threads())?;
        let redis = config.redis_url.as_deref().map(Redis::new).transpose()?;
        migrate::verify_isolation(&db).await?;
        let tokens = Arc::new(Tokens::new(
            Arc::new(keys(&config, &db, &vault)),
            &config.jwt_issuer,
            &config.jwt_audience,
            lifetime,
        ));
        let hub = Hub::new(db.clone(), config.pace);
        let limits = Limits {
            introspection: config.introspection,
            ..Limits::default()
        };
        let revocations = Revocations::new(tokens.lifetime().to_std().unwrap_or_default());
        let limiter = Limiter::new(
            &config.limits,
            config.redis_url.as_deref(),
            vault.derive("limits"),
        )?;
        let mail = Mail::new(&config, db.clone(), vault.clone())?;
        let providers = Arc::new(Providers::new(&config)?);
        let data_keys = DataKeys::new(vault.clone());
        let services = Services {
            vault: vault.clone(),
            data_keys: data_keys.clone(),
            tokens: tokens.clone(),
            revocations: revocations.clone(),
            limiter: limiter.clone(),
            mail: mail.clone(),
            sign_up: config.sign_up(),
            providers: providers.clone(),
        };
        let refusals = Refusals::new(db.clone(), hub.clone(), limiter.clone());
        let door = match providers.list() {
            [] => None,
            _ => {
                let told = refusals.clone();
                let hears = Box::new(move |origin: &Origin, refused| told.tell(origin, refused));
                Some(Door::new(providers, db.clone(), vault.clone(), hears))
            }
        };
        let (schema, documents) = api::build(services, limits);
        Ok(Arc::new(Self {
            api_keys: ApiKeys::new(revocations.clone()),
            external: External::of(&config, revocations.clone())?,
            config,
            db,
            hub,
            redis,
            schema,
            documents,
            vault,
            checkpoints,
            data_keys,
            tokens,
            revocations,
            limiter,
            mail,
            door,
            refusals,
            shutdown: CancellationToken::new(),
        }))
    }

    /// Begins what a server does by itself: signing access tokens, with keys of its own making or those of other instances;
    /// telling them of changes and hearing of theirs, and of the sessions that they have ended; forgetting old history.
    /// Until `shutdown`.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start(&self) -> Result<(), String> {
        let keys = self.tokens.keys();
        keys.prepare().await.map_err(|error| {
            tracing::error!(?error, "there are no keys to sign access tokens with");
            format!(
                "the keys that sign access tokens cannot be had: {}",
                error.message()
            )
        })?;
        keys.follow(self.shutdown.clone());
        if let Some(redis) = &self.redis {
            redis.connect(&self.hub, self.shutdown.clone());
        }
        self.limiter.share(self.shutdown.clone());
        let retention = Retention {
            age: TimeDelta::days(i64::from(self.config.history_days)),
            events: i64::from(self.config.history_events),
        };
        let (every, shutdown) = (self.config.pace.tidy, self.shutdown.clone());
        tokio::spawn(Rounds::default().go(self.db.clone(), retention, every, shutdown));
        tokio::spawn(self.mail.clone().deliver(self.shutdown.clone()));
        let every = Duration::from_secs(60 * u64::from(self.config.audit_checkpoint_minutes));
        tracing::info!(key = %self.checkpoints.key(), file = %self.checkpoints.path().display(), "checkpoints of the audit trail");
        tokio::spawn(
            self.checkpoints
                .clone()
                .go(self.db.clone(), every, self.shutdown.clone()),
        );
        let age = i64::from(self.config.data_key_days);
        let age = (age > 0).then(|| TimeDelta::days(age));
        tokio::spawn(secrets::keep(
            self.db.clone(),
            self.vault.clone(),
            self.data_keys.clone(),
            age,
            self.shutdown.clone(),
        ));
        let followed = self.revocations.follow(self.db.clone(), self.shutdown.clone());
        followed.await.map_err(|error| {
            tracing::error!(?error, "the revocations cannot be read");
            format!("the revoked sessions cannot be read: {}", error.message())
        })
    }

    /// Who an access token stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when it is not valid, or no longer.
    pub async fn authenticate(&self, token: &str) -> Result<Viewer> {
        let viewer = self.tokens.verify(token).await?;
        if self.revocations.revokes(&viewer) {
            return Err(Error::Unauthenticated("Sign in again."));
        }
        Ok(viewer)
    }

    /// Who sends a bearer token of whatever kind, from where.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when it is not valid, or no longer.
    pub async fn identify(&self, bearer: &str, origin: &Origin) -> Result<Viewer> {
        if api_key::is_api_key(bearer) {
            let look_up = async move |hash: [u8; 32]| identity::api_keys::holder(&self.db, &hash).await;
            self.api_keys.identify(bearer, look_up).await
        } else if let Some(external) = self.external.as_ref().filter(|it| it.is_meant(bearer)) {
            let look_up =
                async move |proved| identity::external::identify(&self.refusals, proved, origin).await;
            external.identify(bearer, look_up).await
        } else {
            self.authenticate(bearer).await
        }
    }

    /// A session for one operation. Put it into the request as `Arc<Session>`.
    pub fn session(&self, viewer: Option<Viewer>) -> Session {
        Session::new(self.db.clone(), self.hub.clone(), viewer)
    }
}

/// Refuses settings that an [`App`] could not be made with, before anything is made or migrated. Nothing is connected.
///
/// # Errors
/// A sentence for the operator, which names the setting.
pub fn check(config: &Config) -> Result<(), String> {
    let mut config = config.clone();
    // Where it is kept beside the data it is good.
    let made = || STANDARD.encode(crypto::random_bytes::<48>()).into();
    config.jwt_secret.get_or_insert_with(made);
    let vault = Arc::new(vault(&config)?);
    if let Some(url) = &config.redis_url {
        Redis::new(url)?;
    }
    let url = config.database_url.as_deref().unwrap_or("postgres://localhost");
    let db = Database::new(url, 2, Duration::from_secs(1))?;
    Limiter::new(
        &config.limits,
        config.redis_url.as_deref(),
        vault.derive("limits"),
    )?;
    Mail::new(&config, db, vault)?;
    Providers::new(&config)?;
    External::of(&config, Revocations::new(Duration::ZERO))?;
    Ok(())
}

/// The keys that sign access tokens, as the settings want them.
pub fn keys(config: &Config, db: &Database, vault: &Arc<Vault>) -> Keys {
    Keys::new(
        db.clone(),
        vault.clone(),
        config.jwt_algorithm,
        config.jwt_key_days,
    )
}

/// The ring of master keys: those of the settings, or the one that the root secret stands for.
///
/// # Errors
/// A sentence for the operator.
pub fn vault(config: &Config) -> Result<Vault, String> {
    let secret = config
        .jwt_secret
        .as_ref()
        .ok_or("JWT_SECRET is missing: give at least 32 random bytes.")?;
    let secret = secret.expose_secret().as_bytes();
    token::check_secret(secret)?;
    let root = MasterKey::of_secret(secret);
    let Some(given) = &config.master_keys else {
        return Vault::new([root]);
    };
    let given = given.expose_secret().split(',').map(MasterKey::parse);
    // What was sealed before master keys were given stays readable.
    let keys: Result<Vec<_>, String> = given.chain([Ok(root)]).collect();
    keys.and_then(Vault::new)
        .map_err(|problem| format!("DEALSTREAM_MASTER_KEYS: {problem}."))
}

/// The root secret of a server with an embedded database: made at the first start and kept beside the data.
///
/// # Errors
/// A sentence for the operator.
pub fn kept_secret(data_dir: &Path) -> Result<SecretString, String> {
    let path = data_dir.join("jwt-secret");
    match std::fs::read_to_string(&path) {
        Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().to_owned().into()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(format!(
                "The root secret in {} cannot be read: {error}",
                path.display()
            ));
        }
    }
    let secret = STANDARD.encode(crypto::random_bytes::<48>());
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| format!("The root secret cannot be kept in {}: {error}", path.display()))?;
    Ok(secret.into())
}
