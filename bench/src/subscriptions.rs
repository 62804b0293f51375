//! What subscribers cost while nothing happens, how soon each is told of a change, and what the telling costs.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use futures::future::try_join_all;
use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::cpu::{self, Processes, Used};
use crate::crowd::{self, Crowd, Delivery, Subscriber};
use crate::data::{self, Mover, id};
use crate::token::Signer;
use crate::wire::Wire;
use crate::work::{About, Workload};
use crate::{Result, Target, sql};

/// Connections over which deals are moved: enough for a change to be asked for in time while others are not answered.
const MOVERS: usize = 16;
/// How long a connection may have been idle and is still used: the server lets go of idle ones later than that.
const IDLE: Duration = Duration::from_secs(3);
/// Tenants in which deals are moved, at most, when every subscriber has one of their own.
const MOVED_IN: usize = 256;
/// How often it is looked whether everything has arrived.
const LOOK: Duration = Duration::from_millis(5);
/// How long to wait for more to arrive before what has arrived is taken for all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to look for what should not arrive any more.
const AFTERMATH: Duration = Duration::from_millis(300);

/// Whom the subscribers belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Spread {
    /// All to one tenant, and each is told of every change.
    One,
    /// Each to a tenant of their own, and one of them is told of a change.
    Each,
}

/// What is measured, and how long.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The server's root secret, for tokens signed with its key.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: String,
    /// How many subscribe.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Whom they belong to.
    #[arg(long, value_enum, default_value_t = Spread::One)]
    spread: Spread,
    /// Changes a second, one round for each.
    #[arg(long, value_delimiter = ',', default_value = "1,20", value_parser = rate)]
    changes: Vec<f64>,
    /// Seconds in which changes are made in a round.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Seconds for which nothing happens.
    #[arg(long, default_value_t = 5.0)]
    idle: f64,
    /// Print the head of the table first.
    #[arg(long)]
    heading: bool,
}

/// Reads how many there are to be in a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.01..=10_000.0).contains(&rate) {
        true => Ok(rate),
        false => Err("give 0.01 to 10000".to_owned()),
    }
}

/// A tenant with subscribers.
struct House {
    tenant: Uuid,
    token: std::sync::Arc<str>,
    pipeline: Uuid,
    subscribers: usize,
}

/// A deal that is moved when it is its turn.
struct Turn {
    house: usize,
    mover: Mover,
}

/// A change that was made.
#[derive(Debug, Clone, Copy)]
struct Change {
    house: usize,
    position: i64,
    /// Just before the request was sent: microseconds since 1970.
    asked: i64,
}

/// Memory and processor time without anything to tell.
struct Idle {
    subscribers: usize,
    spread: Spread,
    /// From the first connection to the last `UpToDate`.
    gathering: Duration,
    /// KiB of the server's resident memory for each subscriber: at first, and when each has been told of a change.
    fresh: f64,
    touched: f64,
    used: Used,
    elapsed: Duration,
}

/// What a round adds up to.
struct Round {
    changes: usize,
    /// From the first request to the last delivery, and as long as the changes were to take at least.
    elapsed: Duration,
    /// Microseconds until each delivery from the commit and from the request, in order of size.
    committed: Vec<i64>,
    asked: Vec<i64>,
    used: Used,
    others: f64,
}

/// Runs all of it and prints the table.
pub async fn run(options: Options) -> Result<()> {
    let (processes, url) = options.target.look_up()?;
    let db = sql::connect(&url).await?;
    let kept: String = db.query_one("SHOW track_commit_timestamp", &[]).await?.get(0);
    if kept != "on" {
        return Err("PostgreSQL does not keep when transactions commit: set track_commit_timestamp".into());
    }
    let houses = houses(&db, &url, &options).await?;
    let turns = turns(&db, &houses).await?;
    let mut bench = Bench {
        db,
        processes,
        server: options.target.server.clone(),
        houses,
        turns,
        turn: 0,
        changes: 0,
    };
    bench.db.batch_execute("VACUUM (ANALYZE)").await?;

    // What the server has to take once, it has taken before memory is looked at.
    bench.make(f64::INFINITY, 4 * MOVERS).await?;
    let before = settled(processes).await?;
    let subscribers: Vec<Subscriber> = bench
        .houses
        .iter()
        .flat_map(|house| {
            (0..house.subscribers).map(|_| Subscriber {
                token: house.token.clone(),
                pipeline: id("pipeline", house.pipeline),
            })
        })
        .collect();
    let begun = Instant::now();
    let crowd = Crowd::gather(&options.target.server, subscribers)?;
    wait(&crowd, |live, _| (live, options.subscribers)).await?;
    let gathering = begun.elapsed();
    let fresh = settled(processes).await?;
    let (idle_from, idling) = (processes.used()?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(options.idle)).await;
    let (used, elapsed) = (processes.used()? - idle_from, idling.elapsed());
    // One change for each tenant that changes are made in, so for all subscribers of one.
    let first = match options.spread {
        Spread::One => 1,
        Spread::Each => bench.turns.len(),
    };
    bench.round(&crowd, f64::INFINITY, first).await?;
    let touched = settled(processes).await?;
    let each = |memory: f64| (memory - before) * 1024.0 / options.subscribers as f64;
    let idle = Idle {
        subscribers: options.subscribers,
        spread: options.spread,
        gathering,
        fresh: each(fresh),
        touched: each(touched),
        used,
        elapsed,
    };

    if options.heading {
        println!("{HEADING}");
    }
    for rate in &options.changes {
        let round = bench
            .round(&crowd, *rate, (rate * options.seconds).ceil().max(1.0) as usize)
            .await?;
        println!("{idle}{round}");
    }
    Ok(())
}

/// The tenants: the one with the most deals, or as many as there are subscribers.
async fn houses(db: &Client, url: &str, options: &Options) -> Result<Vec<House>> {
    let (tenants, subscribers) = match options.spread {
        Spread::One => (1, options.subscribers),
        Spread::Each => (options.subscribers, 1),
    };
    let found = db
        .query(
            "SELECT t.id, u.id, p.id FROM tenants t
               JOIN LATERAL (SELECT id FROM users WHERE tenant_id = t.id AND role = 'ADMIN' ORDER BY id LIMIT 1) u ON true
               JOIN LATERAL (SELECT id FROM pipelines WHERE tenant_id = t.id ORDER BY id LIMIT 1) p ON true
              ORDER BY (SELECT count(*) FROM deals d WHERE d.tenant_id = t.id) DESC, t.id LIMIT $1",
            &[&i64::try_from(tenants)?],
        )
        .await?;
    if found.len() < tenants {
        return Err(format!("{tenants} tenants are needed and {} are there", found.len()).into());
    }
    let signer = Signer::open(&options.jwt_secret, url).await?;
    let house = |row: &tokio_postgres::Row| {
        let tenant = row.get(0);
        Ok(House {
            tenant,
            token: signer.admin(tenant, row.get(1))?.into(),
            pipeline: row.get(2),
            subscribers,
        })
    };
    found.iter().map(house).collect()
}

/// Deals to move, from tenants all over. None is moved by two at once.
async fn turns(db: &Client, houses: &[House]) -> Result<Vec<Turn>> {
    let step = houses.len().div_ceil(MOVED_IN);
    let mut turns = Vec::new();
    for (number, house) in houses.iter().enumerate().step_by(step) {
        let movers = data::movers(db, house.tenant).await?;
        let here = movers
            .into_iter()
            .filter(|mover| mover.pipeline == house.pipeline);
        let most = if houses.len() == 1 { usize::MAX } else { 1 };
        turns.extend(here.take(most).map(|mover| Turn { house: number, mover }));
    }
    if turns.len() < MOVERS {
        return Err(format!("{MOVERS} open deals are needed and {} are there", turns.len()).into());
    }
    // As many for each connection, so that a deal always comes to the same one.
    turns.truncate(turns.len() / MOVERS * MOVERS);
    Ok(turns)
}

/// Resident memory in MiB, once what is given back late has been given back.
async fn settled(processes: Processes) -> Result<f64> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(cpu::memory(processes.server)?.0)
}

/// Waits until what is counted has come to a number; `count` tells both.
async fn wait(crowd: &Crowd, count: impl Fn(usize, usize) -> (usize, usize)) -> Result<()> {
    let (mut known, mut since) = (0, Instant::now());
    loop {
        let (live, deliveries) = crowd.progress()?;
        let (reached, wanted) = count(live, deliveries);
        if reached >= wanted {
            return Ok(());
        }
        if reached > known {
            (known, since) = (reached, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(format!(
                "{reached} of {wanted} have come, and none for {} s",
                PATIENCE.as_secs()
            )
            .into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Bench {
    db: Client,
    processes: Processes,
    server: String,
    houses: Vec<House>,
    turns: Vec<Turn>,
    /// Whose turn it is.
    turn: usize,
    /// Changes made so far.
    changes: usize,
}

impl Bench {
    /// Makes so many changes at this rate, whether earlier ones have been answered or not.
    async fn make(&mut self, rate: f64, changes: usize) -> Result<Vec<Change>> {
        let begun = Instant::now();
        let (first, turns, houses, made) = (self.turn, &self.turns, &self.houses, self.changes);
        let (server, many) = (&self.server, MOVERS);
        let workers = (0..many).map(|worker| async move {
            let mut own = Vec::new();
            let (mut wire, mut last) = (Wire::connect(server).await?, Instant::now());
            // Turns are dealt out such that a deal always comes to the same worker.
            let offset = (worker + many - first % many) % many;
            for number in (offset..changes).step_by(many) {
                let due = begun + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
                let turn = &turns[(first + number) % turns.len()];
                let about = About::Move {
                    deal: turn.mover.id,
                    stage: turn.mover.next(),
                    key: format!("bench-{}-{}", std::process::id(), made + number),
                };
                if last.elapsed() > IDLE {
                    wire = Wire::connect(server).await?;
                }
                let asked = crowd::now();
                let answer = wire
                    .post(&houses[turn.house].token, &Workload::Move.body(&about))
                    .await?;
                own.push(Change {
                    house: turn.house,
                    position: position(answer)?,
                    asked,
                });
                last = Instant::now();
            }
            Ok::<_, crate::Error>(own)
        });
        let mut all = try_join_all(workers).await?.concat();
        all.sort_unstable_by_key(|change| (change.house, change.position));
        self.turn = (first + changes) % self.turns.len();
        self.changes += changes;
        Ok(all)
    }

    /// Makes changes and sees that each arrives where it must, once and in order.
    async fn round(&mut self, crowd: &Crowd, rate: f64, changes: usize) -> Result<Round> {
        let (before, begun) = (self.processes.used()?, Instant::now());
        let changes = self.make(rate, changes).await?;
        let due: usize = changes
            .iter()
            .map(|change| self.houses[change.house].subscribers)
            .sum();
        wait(crowd, |_, deliveries| (deliveries, due)).await?;
        let (used, whole) = (self.processes.used()? - before, begun.elapsed());
        tokio::time::sleep(AFTERMATH).await;
        crowd.progress()?;
        let deliveries = crowd.take();
        self.judge(&changes, &deliveries)?;

        let commits = self.commits(&changes).await?;
        let times: HashMap<(usize, i64), (i64, i64)> = changes
            .iter()
            .zip(commits)
            .map(|(change, commit)| ((change.house, change.position), (commit, change.asked)))
            .collect();
        let (mut committed, mut asked) = (Vec::new(), Vec::new());
        for delivery in &deliveries {
            let (commit, request) = times[&(self.house_of(delivery), delivery.position)];
            committed.push(delivery.at - commit);
            asked.push(delivery.at - request);
        }
        committed.sort_unstable();
        asked.sort_unstable();
        let from = changes
            .iter()
            .map(|change| change.asked)
            .min()
            .unwrap_or_default();
        let to = deliveries
            .iter()
            .map(|delivery| delivery.at)
            .max()
            .unwrap_or_default();
        // The last change has its share of the time like the others, however soon it is delivered.
        let elapsed = Duration::from_micros(u64::try_from(to - from)?);
        Ok(Round {
            changes: changes.len(),
            elapsed: elapsed.max(Duration::from_secs_f64(changes.len() as f64 / rate)),
            committed,
            asked,
            used,
            others: used.by_others(whole),
        })
    }

    fn house_of(&self, delivery: &Delivery) -> usize {
        match self.houses.len() {
            1 => 0,
            _ => delivery.subscriber as usize,
        }
    }

    /// Whether every subscriber got every change of their tenant once and in order, and nothing else.
    fn judge(&self, changes: &[Change], deliveries: &[Delivery]) -> Result<()> {
        let mut positions = vec![Vec::new(); self.houses.len()];
        for change in changes {
            positions[change.house].push(change.position);
        }
        let mut heard = vec![0; self.houses.iter().map(|house| house.subscribers).sum()];
        for delivery in deliveries {
            let subscriber = delivery.subscriber as usize;
            let place: &mut usize = &mut heard[subscriber];
            let due = positions[self.house_of(delivery)].get(*place);
            if due != Some(&delivery.position) {
                return Err(format!(
                    "subscriber {subscriber} was told of position {} where {due:?} was due",
                    delivery.position
                )
                .into());
            }
            *place += 1;
        }
        let houses = self.houses.iter().enumerate();
        let due = houses.flat_map(|(house, it)| std::iter::repeat_n(positions[house].len(), it.subscribers));
        match heard.iter().zip(due).position(|(heard, due)| *heard != due) {
            Some(subscriber) => Err(format!("subscriber {subscriber} has not heard everything").into()),
            None => Ok(()),
        }
    }

    /// When PostgreSQL committed each, in microseconds since 1970.
    async fn commits(&self, changes: &[Change]) -> Result<Vec<i64>> {
        let sql = "SELECT pg_xact_commit_timestamp(e.xmin)
                     FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS c (tenant_id, position, number)
                     JOIN events e USING (tenant_id, position) ORDER BY c.number";
        let tenants: Vec<Uuid> = changes
            .iter()
            .map(|change| self.houses[change.house].tenant)
            .collect();
        let positions: Vec<i64> = changes.iter().map(|change| change.position).collect();
        let rows = self.db.query(sql, &[&tenants, &positions]).await?;
        if rows.len() != changes.len() {
            return Err("a change has left no event".into());
        }
        let moment = |row: &tokio_postgres::Row| row.get::<_, DateTime<Utc>>(0).timestamp_micros();
        Ok(rows.iter().map(moment).collect())
    }
}

/// The position of a move that was made.
fn position(answer: &[u8]) -> Result<i64> {
    let answer: Value = serde_json::from_slice(answer)?;
    let moved = &answer["data"]["moveDeal"];
    match (&answer.get("errors"), moved["position"].as_str()) {
        (None, Some(position)) if moved["userErrors"].as_array().is_some_and(Vec::is_empty) => {
            Ok(crowd::number(position.as_bytes())?)
        }
        _ => Err(answer.to_string().into()),
    }
}

/// Milliseconds within which this share was done.
fn within(sorted: &[i64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(index.min(last))
        .map_or(f64::NAN, |micros| *micros as f64 / 1e3)
}

/// The table's head, in Markdown.
const HEADING: &str = "\
| tenants | subscribers | s to gather | KiB each: idle | after a change | CPU idle: server | PostgreSQL | changes made | deliveries/s | ms from commit: p50 | p99 | max | ms from request: p50 | p99 | max | CPU µs per delivery: server | PostgreSQL | client | others |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |nanos: u64| 100.0 * nanos as f64 / self.elapsed.as_nanos() as f64;
        let tenants = match self.spread {
            Spread::One => "one",
            Spread::Each => "one each",
        };
        write!(
            f,
            "| {tenants} | {} | {:.1} | {:.1} | {:.1} | {:.1} % | {:.1} % |",
            self.subscribers,
            self.gathering.as_secs_f64(),
            self.fresh,
            self.touched,
            share(self.used.server),
            share(self.used.postgres),
        )
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let deliveries = self.committed.len() as f64;
        write!(
            f,
            " {} in {seconds:.1} s | {:.0} |",
            self.changes,
            deliveries / seconds
        )?;
        for times in [&self.committed, &self.asked] {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|share| within(times, share));
            write!(f, " {half:.1} | {most:.1} | {all:.1} |")?;
        }
        for nanos in [self.used.server, self.used.postgres, self.used.ours] {
            write!(f, " {:.1} |", nanos as f64 / 1e3 / deliveries)?;
        }
        write!(f, " {:.0} % |", 100.0 * self.others)
    }
}
