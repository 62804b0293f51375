//! The program as it is started by people: what it prints, how it ends, how it comes back.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{cluster::create_database, folder::Folder};

/// The program with nothing from our environment, in a folder above which there is no `.env`.
fn dealstream(data: &Path) -> Command {
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

/// A running server; ended without ceremony when a test fails.
struct Server {
    child: Child,
    address: String,
    banner: String,
}

impl Server {
    /// Starts the server and waits for its banner, which it prints when it answers.
    fn start(data: &Path) -> Self {
        let child = dealstream(data).stdout(Stdio::piped()).spawn().unwrap();
        let mut server = Self {
            child,
            address: String::new(),
            banner: String::new(),
        };
        let mut lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
        while !server.banner.contains("Ctrl-C") {
            let line = lines.next().expect("the banner is printed whole").unwrap();
            if let Some((_, address)) = line.split_once("GraphQL    http://") {
                server.address = address.trim_end_matches("/graphql").to_owned();
            }
            server.banner += &line;
            server.banner.push('\n');
        }
        server
    }

    fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }

    /// The status line of `GET /health/ready`.
    fn ready(&self) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "GET /health/ready HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refusal(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_killed_server_comes_back_on_the_same_data_and_both_signals_end_it_cleanly() {
    let folder = Folder::new("process");
    let data = folder.path().join("data");
    let noted = data.join("postgres/postmaster.pid");

    let mut server = Server::start(&data);
    for wanted in [
        "/graphiql",
        "/graphql",
        "ada@acme.example",
        "grace@globex.example",
        data.to_str().unwrap(),
    ] {
        assert!(
            server.banner.contains(wanted),
            "`{wanted}` is not in the banner:\n{}",
            server.banner
        );
    }
    assert_eq!(server.ready(), "HTTP/1.1 200 OK");
    let secret = fs::read(data.join("jwt-secret")).unwrap();
    let made = fs::metadata(data.join("postgres/PG_VERSION"))
        .unwrap()
        .modified()
        .unwrap();
    assert!(!server.end(Signal::KILL).success());

    let mut server = Server::start(&data);
    assert_eq!(server.ready(), "HTTP/1.1 200 OK");
    assert!(server.end(Signal::TERM).success());
    assert!(!noted.exists(), "PostgreSQL has stopped");

    let mut server = Server::start(&data);
    assert_eq!(server.ready(), "HTTP/1.1 200 OK");
    assert_eq!(
        fs::read(data.join("jwt-secret")).unwrap(),
        secret,
        "tokens stay valid"
    );
    assert_eq!(
        fs::metadata(data.join("postgres/PG_VERSION"))
            .unwrap()
            .modified()
            .unwrap(),
        made
    );
    assert!(server.end(Signal::INT).success());
    assert!(!noted.exists(), "PostgreSQL has stopped");
}

#[test]
fn without_postgresql_one_sentence_says_what_to_do() {
    let folder = Folder::new("process-none");
    let told = refusal(dealstream(folder.path()).env("PG_BINDIR", "/nonexistent"));
    assert!(told.contains("PG_BINDIR is /nonexistent"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    let folder = Folder::new("process-settings");
    let cases = [
        ("LISTEN_ADDR", "nowhere", "--listen-addr"),
        ("PORT", "70000", "--port"),
        ("DEALSTREAM_DATABASE_CONNECTIONS", "0", "--database-connections"),
        ("LOG_FORMAT", "xml", "--log-format"),
        ("RUST_LOG", "dealstream=loud", "RUST_LOG"),
        ("JWT_SECRET", "short", "JWT_SECRET"),
        ("REDIS_URL", "nowhere", "REDIS_URL"),
        ("REDIS_URL", "rediss://localhost", "REDIS_URL"),
        ("DEALSTREAM_DEMOO", "true", "DEALSTREAM_DEMOO"),
        (
            "JWT_SECRETS",
            "0123456789012345678901234567890123456789",
            "JWT_SECRETS",
        ),
    ];
    for (name, value, told_by) in cases {
        let told = refusal(dealstream(folder.path()).env(name, value));
        assert!(told.contains(told_by), "{name}={value}: {told}");
    }
}

#[tokio::test]
async fn a_given_database_wants_a_given_secret() {
    let folder = Folder::new("process-secret");
    let url = create_database("for_a_refusal").await;
    let told = refusal(dealstream(folder.path()).env("DATABASE_URL", url));
    assert!(told.contains("JWT_SECRET"), "{told}");
}
