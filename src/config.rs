//! Every setting of the server, in one struct. Nothing else reads the environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::error::{ContextKind, ContextValue};
use ipnet::IpNet;
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The settings, from the command line, the environment or a `.env` file, in this order of precedence.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// PostgreSQL to use, 15 or newer, as a `postgres://` URL. Without it the server runs a private PostgreSQL of its own.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,

    /// Where the embedded PostgreSQL keeps its data and the generated secrets.
    #[arg(
        long,
        env = "DEALSTREAM_DATA_DIR",
        default_value = ".dealstream",
        global = true
    )]
    pub data_dir: PathBuf,

    /// Address and port to listen on.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:4000", global = true)]
    pub listen_addr: SocketAddr,

    /// Port to listen on; overrides the port of the listen address.
    #[arg(long, env = "PORT", global = true)]
    pub port: Option<u16>,

    /// Threads that serve; as many as there are processors when left out.
    #[arg(long, env = "DEALSTREAM_THREADS", global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub threads: Option<u32>,

    /// Connections to PostgreSQL at most; 16 when left out, or 8 for each thread that serves where that is more, up to 64.
    #[arg(long, env = "DEALSTREAM_DATABASE_CONNECTIONS", global = true,
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: Option<u32>,

    /// Seconds to wait for a free database connection before a request is answered with UNAVAILABLE.
    #[arg(long, env = "DEALSTREAM_DATABASE_WAIT_SECONDS", default_value_t = 5, global = true,
          value_parser = clap::value_parser!(u32).range(1..=60))]
    pub database_wait_seconds: u32,

    /// Redis that tells instances of each other's changes at once, as a `redis://` or `redis+unix://` URL; without it, or
    /// while it is away, they see them within a second.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, global = true)]
    pub redis_url: Option<String>,

    /// Days that a tenant's history of changes is kept, for subscriptions to resume from.
    #[arg(long, env = "DEALSTREAM_HISTORY_DAYS", default_value_t = 30, global = true,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub history_days: u32,

    /// Changes that a tenant's history keeps at most.
    #[arg(long, env = "DEALSTREAM_HISTORY_EVENTS", default_value_t = 1_000_000, global = true,
          value_parser = clap::value_parser!(u32).range(1000..))]
    pub history_events: u32,

    /// File that the signed checkpoints of the audit trail are appended to. [default: audit-checkpoints.jsonl in the data
    /// folder]
    #[arg(long, env = "DEALSTREAM_AUDIT_CHECKPOINTS", global = true)]
    pub audit_checkpoints: Option<PathBuf>,

    /// Minutes between two checkpoints of the audit trail.
    #[arg(long, env = "DEALSTREAM_AUDIT_CHECKPOINT_MINUTES", default_value_t = 10, global = true,
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub audit_checkpoint_minutes: u32,

    /// Root secret of this installation, 32 bytes or more: seals the keys that sign access tokens. Generated and kept when PostgreSQL is embedded, required otherwise.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, global = true)]
    pub jwt_secret: Option<SecretString>,

    /// Keys that seal secrets in the database, as `name:base64` of 32 random bytes, separated by commas: the first seals,
    /// all of them open. Without them a key made from JWT_SECRET is used, which stays in the ring. With several instances, add
    /// a new key at the end everywhere before you put it first.
    #[arg(long, env = "DEALSTREAM_MASTER_KEYS", hide_env_values = true, global = true)]
    pub master_keys: Option<SecretString>,

    /// Issuer that access tokens carry and must carry.
    #[arg(long, env = "JWT_ISSUER", default_value = "dealstream", global = true)]
    pub jwt_issuer: String,

    /// Audience that access tokens carry and must carry.
    #[arg(long, env = "JWT_AUDIENCE", default_value = "dealstream", global = true)]
    pub jwt_audience: String,

    /// How access tokens are signed. A change makes a new key, which signs when it has been published for a while.
    #[arg(long, env = "JWT_ALGORITHM", value_enum, default_value_t = SigningAlgorithm::Rs256, global = true)]
    pub jwt_algorithm: SigningAlgorithm,

    /// Days after which a new key signs access tokens.
    #[arg(long, env = "JWT_KEY_DAYS", default_value_t = 90, global = true,
          value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub jwt_key_days: u32,

    /// Days after which a tenant's sensitive fields are sealed anew under a new key; 0 for when the command says so only.
    #[arg(long, env = "DEALSTREAM_DATA_KEY_DAYS", default_value_t = 365, global = true,
          value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub data_key_days: u32,

    /// Minutes that an access token is valid.
    #[arg(long, env = "JWT_ACCESS_TOKEN_MINUTES", default_value_t = 15, global = true,
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub jwt_access_token_minutes: u32,

    /// Another service whose tokens sign people in: its issuer URL, exactly as its tokens have it in `iss`. See the README for
    /// how claims are mapped.
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER",
        requires = "trusted_issuer_audience",
        global = true
    )]
    pub trusted_issuer: Option<String>,

    /// Audience that tokens of the trusted issuer must have.
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER_AUDIENCE",
        requires = "trusted_issuer",
        global = true
    )]
    pub trusted_issuer_audience: Option<String>,

    /// Where the trusted issuer publishes its keys. [default: what its OpenID configuration names]
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER_JWKS_URL",
        requires = "trusted_issuer",
        global = true
    )]
    pub trusted_issuer_jwks_url: Option<String>,

    /// Claim of the trusted issuer's tokens that has the tenant's id; without it people come to the first tenant that they
    /// joined.
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER_TENANT_CLAIM",
        requires = "trusted_issuer",
        global = true
    )]
    pub trusted_issuer_tenant_claim: Option<String>,

    /// Claim of the trusted issuer's tokens that has the e-mail address by which people are known here.
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER_EMAIL_CLAIM",
        default_value = "email",
        global = true
    )]
    pub trusted_issuer_email_claim: String,

    /// Claim of the trusted issuer's tokens that must be true: whether the address was verified.
    #[arg(
        long,
        env = "DEALSTREAM_TRUSTED_ISSUER_VERIFIED_CLAIM",
        default_value = "email_verified",
        global = true
    )]
    pub trusted_issuer_verified_claim: String,

    /// Whether the trusted issuer asks everybody for a second factor. Otherwise a tenant that requires one takes those of its
    /// tokens only that have `mfa` in the claim `amr`.
    #[arg(long, env = "DEALSTREAM_TRUSTED_ISSUER_MFA", default_value_t = false, action = clap::ArgAction::Set, global = true)]
    pub trusted_issuer_mfa: bool,

    /// Mail server, as `smtps://user:password@mail.example.com` or `smtp://…?tls=required`. Without it no mail is sent:
    /// links are logged when PostgreSQL is embedded, and what needs mail is refused otherwise.
    #[arg(long, env = "SMTP_URL", hide_env_values = true, global = true)]
    pub smtp_url: Option<SecretString>,

    /// Sender of mail, for example `Acme CRM <crm@acme.example>`. Required with SMTP_URL.
    #[arg(long, env = "DEALSTREAM_MAIL_FROM", global = true)]
    pub mail_from: Option<String>,

    /// Where the links in mail lead: the address of your web application, which takes the token behind the `#`. The server
    /// itself when left out.
    #[arg(long, env = "DEALSTREAM_PUBLIC_URL", global = true)]
    pub public_url: Option<String>,

    /// Who may found a tenant: anybody at once, anybody who proves their address by mail, or nobody. `verified` with
    /// SMTP_URL when left out, `open` otherwise.
    #[arg(long, env = "DEALSTREAM_SIGN_UP", value_enum, global = true)]
    pub sign_up: Option<SignUp>,

    /// Providers by which people sign in.
    #[command(flatten)]
    pub providers: ProviderSettings,

    /// Whether the page at /graphiql is served.
    #[arg(long, env = "DEALSTREAM_GRAPHIQL", default_value_t = true, action = clap::ArgAction::Set, global = true)]
    pub graphiql: bool,

    /// Whether clients may ask for the schema.
    #[arg(long, env = "DEALSTREAM_INTROSPECTION", default_value_t = true, action = clap::ArgAction::Set, global = true)]
    pub introspection: bool,

    /// The server's certificate in PEM, with those that lead to its root; with it and TLS_KEY_FILE connections are
    /// encrypted, by TLS 1.3 only. A renewed file is taken over while the server runs.
    #[arg(long, env = "TLS_CERT_FILE", requires = "tls_key_file", global = true)]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of the certificate, in PEM.
    #[arg(long, env = "TLS_KEY_FILE", requires = "tls_cert_file", global = true)]
    pub tls_key_file: Option<PathBuf>,

    /// Origins, besides the server's own, whose pages may use the API, such as `https://crm.example.com`, separated by commas.
    #[arg(long, env = "DEALSTREAM_ALLOWED_ORIGINS", value_delimiter = ',', value_parser = origin, global = true)]
    pub allowed_origins: Vec<String>,

    /// Proxies whose X-Forwarded-For or Forwarded header is believed, as addresses or networks such as 10.0.0.0/8,
    /// separated by commas.
    #[arg(long, env = "DEALSTREAM_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, global = true)]
    pub trusted_proxies: Vec<IpNet>,

    /// Limits that are not as they are by default, such as `create-client=500/1h,requests=off`; `all=off` means all.
    #[arg(long, env = "DEALSTREAM_LIMITS", value_delimiter = ',', global = true)]
    pub limits: Vec<String>,

    /// Subscriptions that one user may have open on this instance.
    #[arg(long, env = "DEALSTREAM_STREAMS_PER_USER", default_value_t = 10_000, global = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_per_user: u32,

    /// Subscriptions that one tenant may have open on this instance.
    #[arg(long, env = "DEALSTREAM_STREAMS_PER_TENANT", default_value_t = 50_000, global = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub streams_per_tenant: u32,

    /// Whether an empty embedded database is filled with the two demo tenants.
    #[arg(long, env = "DEALSTREAM_DEMO", default_value_t = true, action = clap::ArgAction::Set, global = true)]
    pub demo: bool,

    /// Log as text or as one JSON object a line.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,

    /// What to log, as a filter of tracing-subscriber, for example `info,dealstream=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", global = true)]
    pub log: String,

    /// How the history is followed.
    #[arg(skip)]
    pub pace: Pace,
}

/// Providers by which people sign in, besides their passwords.
#[derive(Debug, Clone, Args)]
pub struct ProviderSettings {
    /// Address by which browsers reach this server, such as `https://api.example.com`: other providers send people back to
    /// it, at `/sign-in/google/callback` and the like. Needed for signing in with them.
    #[arg(long, env = "DEALSTREAM_API_URL", value_parser = origin, global = true)]
    pub api_url: Option<String>,

    /// Pages of your web application that people may come back to after signing in with another provider, as whole
    /// addresses, separated by commas. Needed for signing in with them.
    #[arg(long, env = "DEALSTREAM_RETURN_URLS", value_delimiter = ',', global = true)]
    pub return_urls: Vec<String>,

    /// The client that Google has registered for this server.
    #[arg(long, env = "GOOGLE_CLIENT_ID", global = true)]
    pub google_client_id: Option<String>,

    /// Its secret.
    #[arg(long, env = "GOOGLE_CLIENT_SECRET", hide_env_values = true, global = true)]
    pub google_client_secret: Option<SecretString>,

    /// The client that GitHub has registered for this server.
    #[arg(long, env = "GITHUB_CLIENT_ID", global = true)]
    pub github_client_id: Option<String>,

    /// Its secret.
    #[arg(long, env = "GITHUB_CLIENT_SECRET", hide_env_values = true, global = true)]
    pub github_client_secret: Option<SecretString>,

    /// Where GitHub is: a GitHub Enterprise Server has an address of its own.
    #[arg(long, env = "GITHUB_URL", default_value = "https://github.com", global = true)]
    pub github_url: String,

    /// Another provider that speaks OpenID Connect, by its issuer.
    #[arg(long, env = "OIDC_ISSUER", global = true)]
    pub oidc_issuer: Option<String>,

    /// The client that it has registered for this server.
    #[arg(long, env = "OIDC_CLIENT_ID", global = true)]
    pub oidc_client_id: Option<String>,

    /// Its secret.
    #[arg(long, env = "OIDC_CLIENT_SECRET", hide_env_values = true, global = true)]
    pub oidc_client_secret: Option<SecretString>,

    /// What people call it.
    #[arg(long, env = "OIDC_NAME", default_value = "OpenID Connect", global = true)]
    pub oidc_name: String,
}

/// An origin as browsers send it: a scheme and a host, with a port where it is not the usual one.
fn origin(text: &str) -> Result<String, String> {
    let origin = text.trim().trim_end_matches('/').to_ascii_lowercase();
    let host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"))
        .unwrap_or_default();
    let fit = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    if host.is_empty() || !host.chars().all(fit) {
        return Err("an origin such as https://crm.example.com is needed; there is no wildcard".to_owned());
    }
    Ok(origin)
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "an address or a network such as 10.0.0.0/8 is needed".to_owned())
}

/// The pace of following the history: no settings, but tests want another.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a lost hint can delay delivery.
    pub poll: Duration,
    /// How often at most a live stream that has moved on says `UpToDate` again.
    pub retell: Duration,
    /// How long the newest events stay in memory when nobody follows them any more: most come back soon.
    pub linger: Duration,
    /// How often what is too old is looked for.
    pub tidy: Duration,
    /// How long a mail waits after the first failure; each further one doubles it.
    pub mail: Duration,
    /// How long nobody else takes a mail that somebody has begun to send: longer than sending may take.
    pub mail_claim: Duration,
    /// Of what other servers publish.
    pub published: Renewal,
}

/// How often what another server publishes is fetched, and how long it is good: no settings, either.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    /// After how long it is fetched anew.
    pub fresh: Duration,
    /// How long it is good when it cannot be.
    pub kept: Duration,
    /// How often at most it is fetched, whatever is looked for.
    pub again: Duration,
    /// The same as long as there is none.
    pub again_at_first: Duration,
    /// How long fetching may take, all in all.
    pub patience: Duration,
}

impl Default for Renewal {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(10 * 60),
            kept: Duration::from_secs(24 * 60 * 60),
            again: Duration::from_secs(30),
            again_at_first: Duration::from_secs(3),
            patience: Duration::from_secs(5),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            retell: Duration::from_secs(30),
            linger: Duration::from_secs(30),
            tidy: Duration::from_secs(300),
            mail: Duration::from_secs(5),
            mail_claim: Duration::from_secs(300),
            published: Renewal::default(),
        }
    }
}

/// How access tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 and keys of 2048 bits, which every library knows.
    #[value(name = "RS256")]
    Rs256,
    /// Ed25519: shorter tokens, signed faster.
    #[value(name = "EdDSA")]
    EdDsa,
}

/// Who may found a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SignUp {
    /// Anybody, at once.
    Open,
    /// Anybody who follows a link that is mailed to their address.
    Verified,
    /// Nobody.
    Closed,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Config {
    /// The settings as their defaults have them: for tests and tools, which then change what they need.
    pub fn defaults() -> Self {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            config: Config,
        }
        let command = <Defaults as clap::CommandFactory>::command().mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(["dealstream"]);
        <Config as clap::FromArgMatches>::from_arg_matches(&matches)
            .expect("every setting has a default or is optional")
    }

    /// How many connections to PostgreSQL there may be.
    pub fn database_connections(&self) -> u32 {
        let usual = self.threads().saturating_mul(8).clamp(16, 64);
        self.database_connections.unwrap_or(usual)
    }

    /// How many threads serve.
    pub fn threads(&self) -> u32 {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads
            .unwrap_or_else(|| u32::try_from(processors()).unwrap_or(1))
    }

    /// Who may found a tenant.
    pub fn sign_up(&self) -> SignUp {
        let unless_set = match self.smtp_url {
            Some(_) => SignUp::Verified,
            None => SignUp::Open,
        };
        self.sign_up.unwrap_or(unless_set)
    }

    /// The address to listen on, with the port override applied.
    pub fn listen_addr(&self) -> SocketAddr {
        let mut addr = self.listen_addr;
        if let Some(port) = self.port {
            addr.set_port(port);
        }
        addr
    }

    /// Where the checkpoints of the audit trail are.
    pub fn audit_checkpoints(&self) -> PathBuf {
        self.audit_checkpoints
            .clone()
            .unwrap_or_else(|| self.data_dir.join("audit-checkpoints.jsonl"))
    }

    /// Refuses environment variables that look like settings and are none, so that a typing error is noticed at start.
    ///
    /// # Errors
    /// The sentence to print, which names the variable.
    pub fn refuse_unknown_variables(
        names: impl IntoIterator<Item = String>,
        command: &clap::Command,
    ) -> Result<(), String> {
        let known: Vec<&str> = variables(command).map(|(name, _)| name).collect();
        let in_files: Vec<String> = secrets(command).map(|(name, _)| file_of(name)).collect();
        for name in names {
            let ours = name.starts_with("DEALSTREAM_") || name.starts_with("JWT_");
            if ours && !known.contains(&name.as_str()) && !in_files.contains(&name) {
                return Err(format!(
                    "{name} is not a setting of Dealstream; see `dealstream --help` for the list."
                ));
            }
        }
        Ok(())
    }

    /// The variable of the setting that an error of the command line is about.
    pub fn variable_of<'a>(error: &clap::Error, command: &'a clap::Command) -> Option<&'a str> {
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let named = argument.split_whitespace().next()?.strip_prefix("--")?;
        variables(command)
            .find(|(_, argument)| argument.get_long() == Some(named))
            .map(|(variable, _)| variable)
    }

    /// The secrets that are given as files: for every secret setting `NAME` a variable `NAME_FILE` may name a file to
    /// read it from. Answers them as arguments of the command line.
    ///
    /// # Errors
    /// The sentence to print, when one is given in both ways or its file cannot be read.
    pub fn secrets_from_files(
        variable: impl Fn(&str) -> Option<OsString>,
        command: &clap::Command,
    ) -> Result<Vec<OsString>, String> {
        let mut arguments = Vec::new();
        for (name, long) in secrets(command) {
            let named = file_of(name);
            let Some(path) = variable(&named).filter(|path| !path.is_empty()) else {
                continue;
            };
            if variable(name).is_some() {
                return Err(format!("{name} and {named} are both given: give one of them."));
            }
            let path = PathBuf::from(path);
            let refuse = |why: String| format!("{named} ({}) {why}.", path.display());
            let text =
                std::fs::read_to_string(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
            let text = Zeroizing::new(text);
            let secret = text.trim();
            if secret.is_empty() {
                return Err(refuse("is empty".to_owned()));
            }
            arguments.push(format!("--{long}={secret}").into());
        }
        Ok(arguments)
    }
}

/// The settings with their variables.
fn variables(command: &clap::Command) -> impl Iterator<Item = (&str, &clap::Arg)> {
    command
        .get_arguments()
        .filter_map(|argument| Some((argument.get_env()?.to_str()?, argument)))
}

/// The variables of settings that are secret, with the names of their options.
fn secrets(command: &clap::Command) -> impl Iterator<Item = (&str, &str)> {
    variables(command)
        .filter(|(_, argument)| argument.is_hide_env_values_set())
        .filter_map(|(name, argument)| Some((name, argument.get_long()?)))
}

/// The variable that names the file of a secret.
fn file_of(name: &str) -> String {
    format!("{name}_FILE")
}
