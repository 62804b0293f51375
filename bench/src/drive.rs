//! Rounds of load, in turn, and what they cost.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::Result;
use crate::cpu::{Processes, Used};
use crate::data::{Choices, Tenant};
use crate::sql::{Db, Way};
use crate::wire::Wire;
use crate::work::Workload;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// The server, over HTTP.
    Server,
    /// PostgreSQL, as the server asks it.
    Served,
    /// PostgreSQL, as one would ask it by hand.
    Plain,
}

impl Side {
    /// In the order of a round.
    pub const ALL: [Self; 3] = [Self::Server, Self::Served, Self::Plain];
}

/// What is the same for all measurements of a run.
pub struct Bench<'a> {
    pub server: &'a str,
    pub url: &'a str,
    pub processes: Processes,
    pub tenants: &'a [Tenant],
    pub connections: usize,
    pub seconds: f64,
    pub rounds: usize,
    pub sides: Vec<Side>,
}

/// What the rounds of one side add up to.
#[derive(Default)]
struct Sum {
    /// Of every request, in nanoseconds.
    latencies: Vec<u64>,
    elapsed: Duration,
    used: Used,
    /// Time of processors that neither the server nor PostgreSQL nor this program used, as a share of all processors' time.
    others: f64,
}

/// A line of the table.
pub struct Row {
    workload: Workload,
    concurrency: usize,
    server: Sum,
    served: Sum,
    plain: Sum,
}

enum Worker {
    Server(Wire),
    Database(Box<Db>),
}

impl Worker {
    /// Asks until the time is over; answers how long each request took.
    async fn run(
        &mut self,
        bench: &Bench<'_>,
        workload: Workload,
        seed: u64,
        place: (usize, usize),
        end: Instant,
    ) -> Result<Vec<u64>> {
        let mut choices = Choices::new(seed << 16 | place.0 as u64);
        let mut latencies = Vec::with_capacity(4096);
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(latencies);
            }
            let (tenant, about) = workload.choose(bench.tenants, &mut choices, place);
            match self {
                Self::Server(wire) => {
                    let answer = wire.post(&tenant.token, &workload.body(&about)).await?;
                    // Errors of a request come first, those that a person can mend last.
                    let mended = workload != Workload::Move || find(answer, b"\"userErrors\":[]");
                    if !answer.starts_with(b"{\"data\":{") || !mended {
                        return Err(String::from_utf8_lossy(answer).into_owned().into());
                    }
                }
                Self::Database(db) => {
                    db.run(workload, tenant, &about).await?;
                }
            }
            latencies.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

impl Bench<'_> {
    /// Measures one workload at one concurrency: short rounds of each side in turn, after a warm-up of each.
    pub async fn measure(&self, workload: Workload, concurrency: usize) -> Result<Row> {
        let mut sums = [Sum::default(), Sum::default(), Sum::default()];
        let mut sides = Vec::new();
        for (side, sum) in Side::ALL.into_iter().zip(&mut sums) {
            if self.sides.contains(&side) {
                let mut workers = self.workers(side, concurrency).await?;
                self.round(workload, 0, &mut workers, self.seconds.min(0.3))
                    .await?;
                sides.push((workers, sum));
            }
        }
        for round in 1..=self.rounds {
            for (workers, sum) in &mut sides {
                let one = self.round(workload, round as u64, workers, self.seconds).await?;
                sum.latencies.extend(one.latencies);
                sum.elapsed += one.elapsed;
                sum.used += one.used;
                sum.others += one.others / self.rounds as f64;
            }
        }
        drop(sides);
        let [server, served, plain] = sums.map(|mut sum| {
            sum.latencies.sort_unstable();
            sum
        });
        Ok(Row {
            workload,
            concurrency,
            server,
            served,
            plain,
        })
    }

    async fn workers(&self, side: Side, concurrency: usize) -> Result<Vec<Worker>> {
        let way = match side {
            Side::Server => {
                let open = (0..concurrency).map(|_| Wire::connect(self.server));
                return Ok(try_join_all(open)
                    .await?
                    .into_iter()
                    .map(Worker::Server)
                    .collect());
            }
            Side::Served => Way::Served,
            Side::Plain => Way::Plain,
        };
        // The server has no more connections either, however many ask it.
        let open = (0..concurrency.min(self.connections)).map(|_| Db::open(self.url, way));
        let open = try_join_all(open).await?;
        Ok(open.into_iter().map(|db| Worker::Database(db.into())).collect())
    }

    async fn round(
        &self,
        workload: Workload,
        number: u64,
        workers: &mut [Worker],
        seconds: f64,
    ) -> Result<Sum> {
        let many = workers.len();
        let before = self.processes.used()?;
        let begun = Instant::now();
        let end = begun + Duration::from_secs_f64(seconds);
        let runs = workers
            .iter_mut()
            .enumerate()
            .map(|(index, worker)| worker.run(self, workload, number, (index, many), end));
        let latencies = try_join_all(runs).await?.concat();
        let elapsed = begun.elapsed();
        let used = self.processes.used()? - before;
        Ok(Sum {
            latencies,
            elapsed,
            used,
            others: used.by_others(elapsed),
        })
    }
}

impl Sum {
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds within which this share of requests was answered.
    fn within(&self, share: f64) -> f64 {
        let index = (self.latencies.len() as f64 * share) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(index.min(last))
            .map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    }

    /// Seconds per 1,000 requests.
    fn per_thousand(&self, nanos: u64) -> f64 {
        nanos as f64 / 1e6 / self.latencies.len() as f64
    }
}

/// The table's head, in Markdown.
pub const HEADING: &str = "\
| workload | at once | requests/s | p50 ms | p99 ms | of database alone | CPU s/1,000: server | PostgreSQL | served SQL alone | plain SQL | CPU ratio | aim | others |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            concurrency,
            server,
            served,
            plain,
        } = self;
        let ours = server.per_thousand(server.used.server);
        let postgres = server.per_thousand(server.used.postgres);
        let baseline = plain.per_thousand(plain.used.postgres);
        write!(
            f,
            "| {} | {concurrency} | {:.0} | {:.2} | {:.2} | {:.0} % | {ours:.3} | {postgres:.3} | {:.3} | {baseline:.3} | {:.2} | {:.1} | {:.0} % |",
            workload.name(),
            server.per_second(),
            server.within(0.5),
            server.within(0.99),
            100.0 * server.per_second() / served.per_second(),
            served.per_thousand(served.used.postgres),
            (ours + postgres) / baseline,
            workload.aim(),
            100.0 * (server.others + served.others + plain.others) / self.sides_run() as f64,
        )
    }
}

impl Row {
    fn sides_run(&self) -> usize {
        [&self.server, &self.served, &self.plain]
            .iter()
            .filter(|sum| !sum.latencies.is_empty())
            .count()
            .max(1)
    }
}
