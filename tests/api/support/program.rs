//! The program as it is started by people: a process of its own, which can be killed.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dealstream::db::embedded::end_with_this_thread;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The program with nothing from our environment, in a folder above which there is no `.env`, on any free port.
pub fn dealstream(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dealstream"));
    command.env_clear().current_dir("/").stdin(Stdio::null());
    for name in ["PATH", "PG_BINDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .env("DEALSTREAM_DATA_DIR", data)
        .env("LISTEN_ADDR", "127.0.0.1:0");
    command
}

/// An address to come back to: its port is below those that the system gives to whoever asks for any.
pub fn lasting_address() -> SocketAddr {
    let begin = rand::random_range(20_000..30_000);
    (begin..32_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a port is free")
}

/// A running server; ended without ceremony when a test fails.
pub struct Program {
    child: Child,
    pub address: String,
    pub banner: String,
}

impl Program {
    /// Starts the server and waits for its banner, which it prints when it answers. It ends with the thread that starts
    /// it at the latest, so that nothing is left of a test that is killed.
    pub fn start(mut command: Command) -> Self {
        end_with_this_thread(&mut command, Signal::KILL);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut program = Self {
            child,
            address: String::new(),
            banner: String::new(),
        };
        let mut lines = BufReader::new(program.child.stdout.take().unwrap()).lines();
        while !program.banner.contains("Ctrl-C") {
            let line = lines.next().expect("the banner is printed whole").unwrap();
            if let Some((_, address)) = line.split_once("GraphQL    http://") {
                program.address = address.trim_end_matches("/graphql").to_owned();
            }
            program.banner += &line;
            program.banner.push('\n');
        }
        program
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal, and waits for the end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a server once, and answers what it said; nothing when it is away, or goes away before it has said all.
pub async fn ask(address: &str, token: Option<&str>, query: &str, variables: &Value) -> Option<Value> {
    let body = json!({ "query": query, "variables": variables }).to_string();
    let authorization = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST /graphql HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         accept: application/graphql-response+json\r\n{authorization}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[body..]).ok()
    };
    let patience = Duration::from_secs(40);
    tokio::time::timeout(patience, asked)
        .await
        .expect("a server that is there answers")
}
