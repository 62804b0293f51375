//! What a request costs: the server and its PostgreSQL in turn.

use clap::Args;

use crate::drive::{self, Bench, Side};
use crate::sql::{self, Db, Way};
use crate::wire::Wire;
use crate::work::Workload;
use crate::{Result, Target, check, cpu, data};

/// What is measured, and how long.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
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

/// Checks the answers, then measures and prints.
pub async fn run(options: Options) -> Result<()> {
    let (processes, url) = options.target.look_up()?;
    let db = sql::connect(&url).await?;
    let mut wire = Wire::connect(&options.target.server).await?;
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
        server: &options.target.server,
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
