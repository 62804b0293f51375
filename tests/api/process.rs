//! The program as it is started by people: what it prints, how it ends, how it comes back.

use std::fs;
use std::io::Read;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::support::cluster::create_database;
use crate::support::folder::Folder;
use crate::support::program::{Program, dealstream};

/// The status line of `GET /health/ready`.
fn ready(server: &Program) -> String {
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    let request = format!(
        "GET /health/ready HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.address
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
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

    let mut server = Program::start(dealstream(&data));
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
    assert_eq!(ready(&server), "HTTP/1.1 200 OK");
    let secret = fs::read(data.join("jwt-secret")).unwrap();
    let made = fs::metadata(data.join("postgres/PG_VERSION"))
        .unwrap()
        .modified()
        .unwrap();
    assert!(!server.end(Signal::KILL).success());

    let mut server = Program::start(dealstream(&data));
    assert_eq!(ready(&server), "HTTP/1.1 200 OK");
    assert!(server.end(Signal::TERM).success());
    assert!(!noted.exists(), "PostgreSQL has stopped");

    let mut server = Program::start(dealstream(&data));
    assert_eq!(ready(&server), "HTTP/1.1 200 OK");
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
        ("LISTEN_ADDR", "nowhere", "LISTEN_ADDR"),
        ("PORT", "70000", "PORT"),
        (
            "DEALSTREAM_DATABASE_CONNECTIONS",
            "0",
            "DEALSTREAM_DATABASE_CONNECTIONS",
        ),
        ("LOG_FORMAT", "xml", "LOG_FORMAT"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL"),
        ("DEALSTREAM_MASTER_KEYS", "bad", "DEALSTREAM_MASTER_KEYS"),
        ("DEALSTREAM_LIMITS", "nonsense=1", "DEALSTREAM_LIMITS"),
        ("SMTP_URL", "smtps://mail.example", "DEALSTREAM_MAIL_FROM"),
        ("OIDC_ISSUER", "https://issuer.example", "OIDC_"),
        ("GITHUB_CLIENT_ID", "one", "GITHUB_CLIENT_SECRET"),
        ("RUST_LOG", "dealstream=loud", "RUST_LOG"),
        ("JWT_SECRET", "short", "JWT_SECRET"),
        ("JWT_SECRET", "changemechangemechangemechangeme", "JWT_SECRET"),
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
        assert!(!told.contains(value) || !name.ends_with("SECRET"), "{told}");
    }
    // With everything given that goes together, it is the last that is told.
    let told = refusal(dealstream(folder.path()).envs([
        ("SMTP_URL", "smtps://ada:hush-hush@mail.example"),
        ("DEALSTREAM_MAIL_FROM", "crm@acme.example"),
        ("DEALSTREAM_API_URL", "https://api.acme.example"),
        ("DEALSTREAM_RETURN_URLS", "https://app.acme.example/in"),
        ("GITHUB_CLIENT_ID", "one"),
        ("GITHUB_CLIENT_SECRET", "hush-hush"),
        ("OIDC_ISSUER", "https://issuer.example"),
        ("OIDC_CLIENT_ID", "one"),
        ("OIDC_CLIENT_SECRET", "hush-hush"),
        ("DEALSTREAM_TRUSTED_ISSUER", "https://other.example"),
        ("DEALSTREAM_TRUSTED_ISSUER_AUDIENCE", "crm"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("TLS_CERT_FILE", "/nonexistent/certificate"),
        ("TLS_KEY_FILE", "/nonexistent/key"),
    ]));
    assert!(told.contains("/nonexistent/certificate"), "{told}");
    assert!(!told.contains("hush-hush"), "{told}");
    let made: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(made.is_empty(), "nothing is made before: {made:?}");
}

#[tokio::test]
async fn a_given_database_wants_a_given_secret() {
    let folder = Folder::new("process-secret");
    let url = create_database("for_a_refusal").await;
    let told = refusal(dealstream(folder.path()).env("DATABASE_URL", url));
    assert!(told.contains("JWT_SECRET"), "{told}");
}
