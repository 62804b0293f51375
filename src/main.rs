//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime;

use dealstream::app::{self, App};
use dealstream::auth::keys::{AHEAD, Keys};
use dealstream::config::Config;
use dealstream::crm::secrets;
use dealstream::crypto::Vault;
use dealstream::db::embedded::Embedded;
use dealstream::db::id::read_id;
use dealstream::db::{Database, migrate, sealed};
use dealstream::http::tls::Tls;
use dealstream::http::{Http, Settings};
use dealstream::identity::{mfa, providers};
use dealstream::sensitive::DataKeys;
use dealstream::{api, audit, demo, events, http, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A multi-tenant CRM whose API is the product.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Every setting can also be given in the environment or in a file named .env, and a secret in a file that NAME_FILE names, \
                  such as JWT_SECRET_FILE. There PG_BINDIR, too, names the \
                  folder of PostgreSQL's programs, where they are not found by themselves."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (what happens without a command)
    Serve,
    /// Bring the database to this version's schema, and stop
    Migrate,
    /// Print the GraphQL schema
    Schema,
    /// Tell all clients to read their data anew: after restoring a backup, or after a failover that lost changes
    NewEpoch {
        /// Only the clients of this tenant, by its id
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
    },
    /// Prove the audit trail whole, and sign it
    #[command(subcommand)]
    Audit(audit::command::Command),
    /// Fill the database with lifelike tenants, to try things or to measure them
    Demo(demo::Size),
    /// The master keys, and the keys that sign access tokens and seal sensitive fields
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The people who sign in
    #[command(subcommand)]
    Users(UsersCommand),
}

#[derive(Subcommand)]
enum UsersCommand {
    /// Take away the second factor of somebody who has lost it and whom no admin can help, and end all their sessions.
    /// Make sure before that it is they who ask
    ResetSecondFactor {
        /// The address that they sign in with
        #[arg(long)]
        email: String,
        /// Also take away one that was set up since the last time, while audit trails do not tell of that yet
        #[arg(long)]
        again: bool,
    },
    /// Forget by what name a provider knows somebody, whom it calls by another since, and end all their sessions: their
    /// address links them again. Make sure before that it is still the same person
    Unlink {
        /// The address that they sign in with
        #[arg(long)]
        email: String,
        /// `google`, `github`, `oidc`, or `trusted-issuer` for the service whose access tokens this server trusts
        #[arg(long)]
        provider: String,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List the keys that sign access tokens: which signs, which is to follow, and which only verify what they have signed.
    /// And the master keys, with the number of values that each has sealed: one with none is no longer needed
    List,
    /// Make a new key that signs access tokens, before its time. It signs when it has been published for an hour
    Rotate {
        /// Let it sign at once: services that have kept the published keys learn of it later
        #[arg(long)]
        now: bool,
        /// Let it sign at once and take all others away, because somebody else may know them: every access token ends
        /// within a minute, and clients refresh theirs
        #[arg(long)]
        discard: bool,
    },
    /// Make new keys for sensitive fields, and seal all values anew under them while everything stays readable and is found
    RotateData {
        /// Only those of this tenant, by its id
        #[arg(long, value_name = "ID")]
        tenant: Option<String>,
        /// Make no new keys, and finish what an interrupted rotation has left
        #[arg(long)]
        resume: bool,
    },
    /// Seal everything by the current master key that older ones have sealed, so that they can be taken out of the ring.
    /// Servers may run meanwhile; what is interrupted is finished by the next time
    Rewrap,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("dealstream: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        Err(error) => return Err(format!("the file .env cannot be read: {error}")),
    }
    let command = Cli::command();
    Config::refuse_unknown_variables(
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()),
        &command,
    )?;
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let secrets = Config::secrets_from_files(|name| std::env::var_os(name), &command)?;
    arguments.splice(
        1.min(arguments.len())..,
        secrets.into_iter().chain(std::env::args_os().skip(1)),
    );
    let matches = command.clone().try_get_matches_from(arguments);
    let matches = matches.unwrap_or_else(|error| {
        let _ = error.print();
        if let Some(variable) = Config::variable_of(&error, &command) {
            eprintln!("In the environment, or in .env, this setting is {variable}.");
        }
        std::process::exit(error.exit_code())
    });
    let Cli { command, mut config } = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    let command = command.unwrap_or(Command::Serve);
    if matches!(command, Command::Schema) {
        print!("{}", api::sdl());
        return Ok(());
    }
    telemetry::init(&config)?;
    if matches!(command, Command::Serve | Command::Demo(_)) {
        app::check(&config)?;
    }
    let tls = match (&config.tls_cert_file, &config.tls_key_file) {
        (Some(certificate), Some(key)) if matches!(command, Command::Serve) => {
            Some(Tls::load(certificate, key)?)
        }
        _ => None,
    };
    // Held to the end: PostgreSQL stops when this is dropped, or when the process dies before.
    let mut embedded = None;
    let url = match &config.database_url {
        Some(_) if config.jwt_secret.is_none() && matches!(command, Command::Serve) => {
            return Err(
                "JWT_SECRET is missing: with DATABASE_URL, give at least 32 random bytes.".to_owned(),
            );
        }
        Some(url) => url.clone(),
        None => {
            let started = Embedded::start(&config.data_dir).map_err(|error| error.to_string())?;
            if config.jwt_secret.is_none() {
                config.jwt_secret = Some(app::kept_secret(&config.data_dir)?);
            }
            let url = started.url();
            embedded = Some(started);
            url
        }
    };
    let mut runtime = match command {
        // Those who serve are threads of their own.
        Command::Serve => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().map_err(|error| error.to_string())?;
    let done = runtime.block_on(async {
        let applied = migrate::migrate(&url).await?;
        if applied > 0 {
            tracing::info!(applied, "the database was migrated");
        }
        match command {
            Command::Migrate => {
                match applied {
                    0 => println!("The database is at this version's schema already."),
                    _ => println!("The database is at this version's schema now. Migrations: {applied}."),
                }
                Ok(())
            }
            Command::NewEpoch { tenant } => new_epoch(&url, tenant.as_deref()).await,
            Command::Keys(command) => keys(&config, &url, &command).await,
            Command::Users(command) => {
                let db = Database::new(&url, 2, Duration::from_secs(10))?;
                migrate::verify_isolation(&db).await?;
                let hub = events::Hub::new(db.clone(), config.pace);
                let done = match command {
                    UsersCommand::ResetSecondFactor { email, again } => {
                        mfa::reset_second_factor(&db, &hub, &email, again).await?
                    }
                    UsersCommand::Unlink { email, provider } => {
                        providers::unlink(&db, &hub, &email, &provider).await?
                    }
                };
                println!("{done}");
                Ok(())
            }
            Command::Audit(command) => {
                let db = Database::new(&url, 2, Duration::from_secs(10))?;
                migrate::verify_isolation(&db).await?;
                let vault = config.jwt_secret.as_ref().map(|_| app::vault(&config));
                let (vault, file) = (vault.transpose()?, config.audit_checkpoints());
                println!(
                    "{}",
                    audit::command::run(command, &db, vault.as_ref(), &file).await?
                );
                Ok(())
            }
            Command::Demo(size) => {
                // Nobody signs in meanwhile, so no secret need be given for it.
                let unused = || format!("{}{}", uuid::Uuid::new_v4(), uuid::Uuid::new_v4()).into();
                config.jwt_secret.get_or_insert_with(unused);
                // One runtime does all of it.
                config.threads = Some(1);
                let app = App::new(config, &url).await?;
                demo::run(&app, &size).await
            }
            Command::Serve | Command::Schema => serve(config, &url, embedded.is_some(), tls).await,
        }
    });
    drop(runtime);
    if let Some(mut embedded) = embedded {
        embedded.stop();
    }
    done
}

/// Gives the histories new epochs, so that no client goes on from what may have been lost.
async fn new_epoch(url: &str, tenant: Option<&str>) -> Result<(), String> {
    let tenant = tenant
        .map(|id| match read_id(id) {
            Some(("tenant", tenant)) => Ok(tenant),
            _ => Err(format!(
                "{id} is not the id of a tenant, which begins with `tenant_`"
            )),
        })
        .transpose()?;
    let db = Database::new(url, 2, Duration::from_secs(10))?;
    migrate::verify_isolation(&db).await?;
    let renewed = events::renew_epochs(&db, tenant).await;
    let renewed = renewed.map_err(|error| {
        tracing::error!(?error, "new epochs could not be given");
        error.message()
    })?;
    println!("New epochs: {renewed}. Clients of these tenants read their data anew.");
    Ok(())
}

/// Shows the keys, or makes new ones.
async fn keys(config: &Config, url: &str, command: &KeysCommand) -> Result<(), String> {
    let db = Database::new(url, 2, Duration::from_secs(10))?;
    migrate::verify_isolation(&db).await?;
    let vault = Arc::new(app::vault(config)?);
    let keys = app::keys(config, &db, &vault);
    let done = match command {
        KeysCommand::RotateData { tenant, resume } => {
            let keys = DataKeys::new(vault);
            println!(
                "{}",
                secrets::renew(&db, &keys, tenant.as_deref(), *resume).await?
            );
            return Ok(());
        }
        KeysCommand::Rewrap => return rewrap(&db, &vault).await,
        KeysCommand::List => keys.look().await,
        KeysCommand::Rotate { now, discard } => {
            let ahead = if *now || *discard { Duration::ZERO } else { AHEAD };
            keys.rotate(ahead, *discard).await
        }
    };
    done.map_err(|error| {
        tracing::error!(?error, "the signing keys cannot be read or written");
        error.message()
    })?;
    list(&keys);
    if matches!(command, KeysCommand::List) {
        println!("{}", master_keys(&db, &vault).await?);
    }
    Ok(())
}

/// Lets the current master key take over, and tells what is left under others.
async fn rewrap(db: &Database, vault: &Vault) -> Result<(), String> {
    let progress = |table, values| tracing::info!(table, values, "sealed by the current master key");
    let done = sealed::rewrap(db, vault, progress).await.map_err(|error| {
        tracing::error!(?error, "the current master key cannot take over");
        error.message()
    })?;
    println!("Values sealed by the current master key now: {}.", done.values);
    println!("{}", master_keys(db, vault).await?);
    match done.unreadable {
        0 => Ok(()),
        count => Err(format!(
            "{count} values cannot be opened and stay as they are: the log names them"
        )),
    }
}

async fn master_keys(db: &Database, vault: &Vault) -> Result<String, String> {
    let kept = sealed::kept(db).await.map_err(|error| {
        tracing::error!(?error, "what the master keys have sealed cannot be counted");
        error.message()
    })?;
    Ok(sealed::told(vault, &kept))
}

fn list(keys: &Keys) {
    let minute = |at: DateTime<Utc>| at.format("%F %R UTC");
    let (ring, now) = (keys.ring(), Utc::now());
    let signer = ring.signer(now).map(|key| key.kid.clone());
    for key in ring.keys() {
        let state = match key.until {
            _ if Some(&key.kid) == signer.as_ref() => "signs".to_owned(),
            Some(until) if until <= now => "is out of use".to_owned(),
            Some(until) if key.signs_from <= now => format!("verifies until {}", minute(until)),
            _ => format!("signs from {}", minute(key.signs_from)),
        };
        println!(
            "{}  {}  made {}, {state}",
            key.kid,
            key.algorithm.name(),
            minute(key.created_at)
        );
    }
}

/// Serves until SIGINT or SIGTERM.
async fn serve(config: Config, url: &str, embedded: bool, tls: Option<Arc<Tls>>) -> Result<(), String> {
    let address = config.listen_addr();
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let app = App::new(config, url).await?;
    app.start().await?;
    let demo = embedded && app.config.demo;
    if demo {
        let loaded = demo::small(&app).await;
        loaded.map_err(|error| {
            tracing::error!(?error, "the demo data could not be loaded");
            format!("the demo data could not be loaded: {}", error.message())
        })?;
    }
    print!("{}", banner(&app.config, address, embedded, demo));
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        stop_signal().await;
        tracing::info!("stopping");
        shutdown.cancel();
    });
    let settings = Settings {
        tls: tls.clone(),
        ..Settings::of(&app.config, demo)
    };
    if let Some(tls) = tls {
        tokio::spawn(tls.follow(http::tls::LOOK, app.shutdown.clone()));
    }
    let http = Http::of(app.clone(), settings);
    let room = http::serve::raise_file_limit(app.config.threads(), app.config.database_connections());
    let served = http::serve::serve(http, listener, room).await;
    served.map_err(|error| format!("the threads that serve cannot be started: {error}"))?;
    // What was done until now is signed as well.
    if let Err(error) = app.checkpoints.round(&app.db).await {
        tracing::error!(?error, "the audit trail's last checkpoints could not be written");
    }
    Ok(())
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// What a person needs to know to begin.
fn banner(config: &Config, address: SocketAddr, embedded: bool, demo: bool) -> String {
    let scheme = if config.tls_cert_file.is_some() {
        "https"
    } else {
        "http"
    };
    let mut lines = vec![
        String::new(),
        "  Dealstream is running.".to_owned(),
        String::new(),
    ];
    if config.graphiql {
        lines.push(format!("  GraphiQL   {scheme}://{address}/graphiql"));
    }
    lines.push(format!("  GraphQL    {scheme}://{address}/graphql"));
    if demo {
        lines.push("  Sign in    ada@acme.example, tenant Acme Sales, password dealstream-demo".to_owned());
        lines.push(
            "             grace@globex.example, tenant Globex Realty, password dealstream-demo".to_owned(),
        );
        if !address.ip().is_loopback() {
            lines.push(
                "             Everybody who reaches this address can do so: see DEALSTREAM_DEMO.".to_owned(),
            );
        }
    }
    if embedded {
        let data = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
        lines.push(format!(
            "  Data       {} (a PostgreSQL of its own)",
            data.display()
        ));
    }
    lines.push("  Stop       Ctrl-C".to_owned());
    lines.push(String::new());
    lines.push(String::new());
    lines.join("\n")
}
