//! Lifelike data: two small tenants to try Dealstream with, and as many large ones as one likes to measure it with.
//!
//! `words` → `story` (a year made up from a seed) → `load` (written like everything else: in the tenant's transaction,
//! under row-level security, with its history).

mod calendar;
mod dice;
mod load;
mod story;
#[rustfmt::skip]
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{NaiveDate, Utc};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::app::App;
use crate::auth::{Role, password};
use crate::db::directory;
use crate::error::{Error, Result};
use crate::graphql::scalar::CurrencyCode;
use calendar::Calendar;
use dice::Dice;
use load::{Blueprint, Person, load};
use story::Scope;

/// The password of every user of a demo tenant.
pub const PASSWORD: &str = "dealstream-demo";

/// Who signs in to the two small tenants first.
const ADMINS: [&str; 2] = ["ada@acme.example", "grace@globex.example"];

/// How much `dealstream demo` makes. All but `tenants` are numbers for each tenant.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Tenants to make; those that are there already are left as they are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tenants: u32,

    /// Contacts of each tenant
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub contacts: u32,

    /// Companies of each tenant [default: a fifth of the contacts]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub companies: Option<u32>,

    /// Deals of each tenant, with a year of stage changes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub deals: u32,

    /// Interactions of each tenant; without contacts, companies and deals there are none
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(0..=5_000_000))]
    pub interactions: u32,

    /// The same seed makes the same data
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// The day that the data lead up to [default: today]
    #[arg(long)]
    pub until: Option<NaiveDate>,
}

impl Size {
    fn companies(&self) -> u32 {
        self.companies.unwrap_or(self.contacts / 5)
    }

    fn scope(&self) -> Scope {
        Scope {
            companies: self.companies() as usize,
            contacts: self.contacts as usize,
            deals: self.deals as usize,
            interactions: self.interactions as usize,
        }
    }

    /// Reports that a tenant's making brings: each record counts when it is written and when its history is.
    fn records(&self) -> u64 {
        let scope = self.scope();
        2 * (scope.companies + scope.contacts + scope.deals + scope.interactions) as u64
    }
}

/// How the filling goes on.
#[derive(Debug, Clone)]
pub enum Report {
    /// So many records, or their part of the history, have been written.
    Records(usize),
    /// A tenant is complete.
    Made { number: u32, took: Duration },
    /// A tenant was there already.
    Skipped { number: u32 },
}

/// Whether the two small tenants are there.
///
/// # Errors
/// When the database fails.
pub async fn is_there(app: &App) -> Result<bool> {
    for email in ADMINS {
        if !has_account(app, email).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn has_account(app: &App, email: &str) -> Result<bool> {
    Ok(directory::find_account(&app.db, email).await?.is_some())
}

/// Makes the two small tenants, Acme Sales and Globex Realty, unless they are there. Everybody's password is
/// [`PASSWORD`].
///
/// # Errors
/// When the database fails; a tenant is made wholly or not at all.
pub async fn small(app: &App) -> Result<()> {
    if is_there(app).await? {
        return Ok(());
    }
    let hash = password::hash(PASSWORD.to_owned()).await?;
    let calendar = Calendar::until(Utc::now().date_naive());
    let person = |name: &str, email: &str, role| Person {
        name: name.to_owned(),
        email: email.to_owned(),
        role,
    };
    let acme = Blueprint {
        name: "Acme Sales".to_owned(),
        currency_code: CurrencyCode::USD,
        trade: &words::TRADES[0],
        people: vec![
            person("Ada Byron", ADMINS[0], Role::Admin),
            person("Linus Berg", "linus@acme.example", Role::Sales),
            person("Vera Lindholm", "vera@acme.example", Role::Viewer),
        ],
        scope: Scope {
            companies: 60,
            contacts: 140,
            deals: 120,
            interactions: 200,
        },
    };
    let globex = Blueprint {
        name: "Globex Realty".to_owned(),
        currency_code: CurrencyCode::find("EUR").unwrap_or(CurrencyCode::USD),
        trade: &words::TRADES[1],
        people: vec![person("Grace Okafor", ADMINS[1], Role::Admin)],
        scope: Scope {
            companies: 60,
            contacts: 90,
            deals: 80,
            interactions: 160,
        },
    };
    for (seed, blueprint) in (1..).zip([acme, globex]) {
        if has_account(app, &blueprint.people[0].email).await? {
            continue;
        }
        load(app, blueprint, &hash, &calendar, &mut Dice::new(0, seed), &|_| ()).await?;
    }
    Ok(())
}

/// The address with which one signs in to a tenant of [`fill`] as somebody.
fn email(who: &str, number: u32) -> String {
    format!("{who}@tenant-{number}.example")
}

/// A tenant of [`fill`]: a trade, a name, and the people of a small sales team.
fn blueprint(size: &Size, number: u32, dice: &mut Dice) -> Blueprint<'static> {
    let trade = &words::TRADES[(number as usize - 1) % words::TRADES.len()];
    let team = [
        ("admin", Role::Admin),
        ("manager", Role::Manager),
        ("sales-1", Role::Sales),
        ("sales-2", Role::Sales),
        ("sales-3", Role::Sales),
        ("sales-4", Role::Sales),
        ("marketing", Role::Marketing),
        ("viewer", Role::Viewer),
    ];
    let people = team.map(|(who, role)| {
        let culture = dice.pick(&words::CULTURES);
        Person {
            name: format!("{} {}", dice.pick(culture.given), dice.pick(culture.family)),
            email: email(who, number),
            role,
        }
    });
    Blueprint {
        name: format!("{} {number}", dice.pick(trade.tenants)),
        currency_code: CurrencyCode::USD,
        trade,
        people: people.into(),
        scope: size.scope(),
    }
}

/// Makes large tenants, several at a time. One that is there already, by its admin's address, is left as it is, so that
/// an interrupted filling can be taken up again.
///
/// # Errors
/// When the database fails; a tenant is made wholly or not at all.
pub async fn fill(
    app: &Arc<App>,
    size: &Size,
    report: impl Fn(Report) + Send + Sync + 'static,
) -> Result<()> {
    let hash: Arc<str> = password::hash(PASSWORD.to_owned()).await?.into();
    let calendar = Calendar::until(size.until.unwrap_or_else(|| Utc::now().date_naive()));
    let report = Arc::new(report);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    stream::iter(1..=size.tenants)
        .map(|number| {
            let (app, size, hash, report) = (app.clone(), size.clone(), hash.clone(), report.clone());
            let tenant = async move {
                if has_account(&app, &email("admin", number)).await? {
                    report(Report::Skipped { number });
                    return Ok(());
                }
                let began = Instant::now();
                let mut dice = Dice::new(size.seed, u64::from(number));
                let blueprint = blueprint(&size, number, &mut dice);
                load(&app, blueprint, &hash, &calendar, &mut dice, &*report).await?;
                report(Report::Made {
                    number,
                    took: began.elapsed(),
                });
                Ok(())
            };
            async { tokio::spawn(tenant).await.map_err(Error::internal)? }
        })
        .buffer_unordered(cores)
        .try_collect()
        .await
}

/// The command `dealstream demo`: [`fill`] with a progress bar, or a line for each tenant where there is no terminal.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(app: &Arc<App>, size: &Size) -> Result<(), String> {
    let bar = ProgressBar::new(u64::from(size.tenants) * size.records());
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed} gone, {eta} to go  {msg}");
    bar.set_style(style.map_err(|error| error.to_string())?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let began = Instant::now();
    let (tenants, records) = (size.tenants, size.records());
    let reporting = bar.clone();
    let report = move |report| match report {
        Report::Records(count) => reporting.inc(count as u64),
        Report::Made { number, took } if reporting.is_hidden() => {
            println!(
                "tenant {number} of {tenants} is there, in {:.1} s",
                took.as_secs_f64()
            );
        }
        Report::Made { number, .. } => reporting.set_message(format!("tenant {number} of {tenants}")),
        Report::Skipped { number } => {
            reporting.inc(records);
            reporting.suspend(|| println!("tenant {number} was there already"));
        }
    };
    let filled = fill(app, size, report).await;
    bar.finish_and_clear();
    filled.map_err(|error| {
        tracing::error!(?error, "the demo data could not be written");
        format!(
            "the demo data could not be written: {} What has been completed stays.",
            error.message()
        )
    })?;
    println!("Filled in {:.0} s.", began.elapsed().as_secs_f64());
    let last = if tenants > 1 {
        format!(" … {}", email("admin", tenants))
    } else {
        String::new()
    };
    println!(
        "Sign in as {}{last}, or as manager@, sales-1@ to sales-4@, marketing@ or",
        email("admin", 1)
    );
    println!("viewer@ of the same tenants; the password is {PASSWORD}");
    Ok(())
}
