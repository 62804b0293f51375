//! Drives a running Dealstream and its PostgreSQL in turn, and prints what a request costs. See `bench/README.md`.

mod check;
mod cpu;
mod data;
mod drive;
mod sql;
mod wire;
mod work;

use std::path::PathBuf;

use clap::Parser;

use cpu::Processes;
use drive::{Bench, Side};
use sql::{Db, Way};
use wire::Wire;
use work::Workload;

/// What can go wrong ends the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Drives a running Dealstream and its PostgreSQL in turn, and prints what a request costs.
#[derive(Parser)]
struct Options {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:4000")]
    server: String,
    /// The server's process.
    #[arg(long)]
    server_pid: u32,
    /// Its data folder, with the embedded PostgreSQL.
    #[arg(long)]
    data_dir: PathBuf,
    /// The password of the tenants' admins.
    #[arg(long, default_value = "dealstream-demo")]
    password: String,
    /// Seconds of a round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds of each side.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Requests at the same time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    concurrency: Vec<usize>,
    /// Workloads to run; all when left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Sides to run, to look at one of them with a profiler; all when left out.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<Side>,
    /// The most connections that PostgreSQL is asked over, as many as the server has.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    match run(Options::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    // Line 1 is the process, line 5 the folder of the socket.
    let pid_file = std::fs::read_to_string(options.data_dir.join("postgres/postmaster.pid"))?;
    let mut lines = pid_file.lines();
    let postmaster = lines.next().unwrap_or_default().trim().parse()?;
    let socket = lines.nth(3).unwrap_or_default().trim().to_owned();
    let url = format!("host={socket} user=postgres dbname=dealstream");
    let processes = Processes {
        server: options.server_pid,
        postmaster,
    };

    let db = sql::connect(&url).await?;
    let mut wire = Wire::connect(&options.server).await?;
    println!("{}", data_set(&db).await?);
    let tenants = data::load(&mut wire, &db, &options.password).await?;
    counts(&mut wire, &db, &tenants).await?;
    let (served, plain) = (
        Db::open(&url, Way::Served).await?,
        Db::open(&url, Way::Plain).await?,
    );
    let workloads = match options.only.is_empty() {
        true => Workload::ALL.to_vec(),
        false => options.only,
    };
    for workload in &workloads {
        check::answers(&mut wire, &db, [&served, &plain], &tenants, *workload).await?;
    }
    println!("The answers are right.\n");
    // Freshly loaded pages are not yet known to be visible to all, which index-only scans need.
    db.batch_execute("VACUUM (ANALYZE)").await?;
    drop((served, plain));

    let sides = match options.sides.is_empty() {
        true => Side::ALL.to_vec(),
        false => options.sides,
    };
    let bench = Bench {
        server: &options.server,
        url: &url,
        processes,
        tenants: &tenants,
        connections: options.connections,
        seconds: options.seconds,
        rounds: options.rounds,
        sides,
    };
    println!("{}", drive::HEADING);
    for workload in workloads {
        for concurrency in &options.concurrency {
            let row = bench.measure(workload, *concurrency).await?;
            println!("{row}");
        }
    }
    let (now, highest) = cpu::memory(processes.server)?;
    println!(
        "\nMemory of the server: {now:.0} MiB resident now, {highest:.0} MiB at its highest (aim: 80 MiB)."
    );
    Ok(())
}

async fn data_set(db: &tokio_postgres::Client) -> Result<String> {
    let mut parts = Vec::new();
    for table in [
        "tenants",
        "companies",
        "contacts",
        "deals",
        "deal_stage_changes",
        "interactions",
    ] {
        let row = db
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?;
        parts.push(format!("{} {}", row.get::<_, i64>(0), table.replace('_', " ")));
    }
    Ok(format!("Data: {}.", parts.join(", ")))
}

/// Every tenant's own numbers, as the server tells them.
async fn counts(wire: &mut Wire, db: &tokio_postgres::Client, tenants: &[data::Tenant]) -> Result<()> {
    let lists = ["companies", "contacts", "deals", "interactions", "pipelines"];
    for tenant in tenants {
        for list in lists {
            let document = format!("{{ {list}(first: 1) {{ totalCount }} }}");
            let told = wire
                .query(&tenant.token, &document, serde_json::json!({}))
                .await?;
            let sql = format!("SELECT count(*) FROM {list} WHERE tenant_id = $1");
            let counted: i64 = db.query_one(&sql, &[&tenant.id]).await?.get(0);
            if told[list]["totalCount"] != counted {
                return Err(format!("{list}: the server tells {told}, the table has {counted}").into());
            }
        }
    }
    Ok(())
}
