//! Drives a running Dealstream, and prints what a request and what a delivery cost. See `bench/README.md`.

mod check;
mod cpu;
mod crowd;
mod data;
mod drive;
mod frames;
mod requests;
mod sql;
mod subscriptions;
mod token;
mod wire;
mod work;

use std::path::PathBuf;

use clap::{Args, Parser};

use cpu::Processes;

/// What can go wrong ends the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Drives a running Dealstream, and prints what it costs.
#[derive(Parser)]
enum Command {
    /// What a request costs, besides what it costs PostgreSQL alone.
    Requests(requests::Options),
    /// What subscribers cost, and how soon they are told.
    Subscriptions(subscriptions::Options),
}

/// What is measured.
#[derive(Args)]
struct Target {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:4000")]
    server: String,
    /// The server's process.
    #[arg(long)]
    server_pid: u32,
    /// Its data folder, with the embedded PostgreSQL.
    #[arg(long)]
    data_dir: PathBuf,
}

impl Target {
    /// The processes, and where PostgreSQL is reached as its superuser.
    fn look_up(&self) -> Result<(Processes, String)> {
        // Line 1 is the process, line 5 the folder of the socket.
        let pid_file = std::fs::read_to_string(self.data_dir.join("postgres/postmaster.pid"))?;
        let mut lines = pid_file.lines();
        let postmaster = lines.next().unwrap_or_default().trim().parse()?;
        let socket = lines.nth(3).unwrap_or_default().trim();
        let processes = Processes {
            server: self.server_pid,
            postmaster,
        };
        Ok((
            processes,
            format!("host={socket} user=postgres dbname=dealstream"),
        ))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let ended = match Command::parse() {
        Command::Requests(options) => requests::run(options).await,
        Command::Subscriptions(options) => subscriptions::run(options).await,
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
