//! A server that says as much as it can, and in all of that nothing secret or personal.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::support::cluster;
use crate::support::folder::Folder;
use crate::support::program::{Program, dealstream};

const PATIENCE: Duration = Duration::from_secs(40);

/// Sends a request with these headers and answers the JSON of the answer, if it is any.
async fn send(address: &str, method: &str, target: &str, headers: &str, body: &str) -> Value {
    let request = format!(
        "{method} {target} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n");
        body.map_or(Value::Null, |at| {
            serde_json::from_slice(&answer[at + 4..]).unwrap_or_default()
        })
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it answers")
}

struct Client<'a> {
    address: &'a str,
    token: Option<String>,
}

impl Client<'_> {
    async fn post(&self, body: Value) -> Value {
        self.post_with("", body).await
    }

    async fn post_with(&self, headers: &str, body: Value) -> Value {
        let authorization = match &self.token {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let headers = format!("content-type: application/json\r\n{authorization}{headers}");
        send(self.address, "POST", "/graphql", &headers, &body.to_string()).await
    }

    async fn ask(&self, query: &str, input: Value) -> Value {
        self.post(json!({ "query": query, "variables": { "input": input } }))
            .await
    }
}

const SIGN_UP: &str =
    "mutation CanaryTest($input: SignUpInput!) { signUp(input: $input) { accessToken userErrors { code } } }";
const SIGN_IN: &str = "mutation CanaryTest($input: SignInInput!) { signIn(input: $input) { accessToken refreshToken userErrors { code } } }";
const CONTACT: &str = "mutation CanaryTest($input: CreateContactInput!) { createContact(input: $input) { contact { id } userErrors { code } } }";

/// What must not be found. Each is a word of its own, so that it is known which.
struct Canaries {
    strings: Vec<(&'static str, String)>,
}

impl Canaries {
    fn new() -> Self {
        Self { strings: Vec::new() }
    }

    /// A word that is nowhere else.
    fn word(&mut self, what: &'static str) -> String {
        let word = format!("canary{}{}", what.replace(' ', ""), rand::random::<u32>());
        self.add(what, &word);
        word
    }

    fn add(&mut self, what: &'static str, text: &str) {
        self.strings.push((what, text.to_owned()));
    }

    fn assert_silent(&self, log: &str) {
        for (what, text) in &self.strings {
            let line = log.lines().find(|line| line.contains(text));
            assert!(line.is_none(), "the {what} was logged: {line:?}");
        }
    }
}

/// A server at TRACE over a database of its own; answers what it wrote.
async fn lives_through_everything(format: &str) -> (String, Canaries) {
    let folder = Folder::new(&format!("canary-{format}"));
    let mut canaries = Canaries::new();
    let url = cluster::create_database(&format!("canary_{format}")).await;
    let (begin, end) = url.split_once('@').unwrap();
    let database_password = canaries.word("password of the database");
    let with_password = format!("{begin}:{database_password}@{end}");
    let secret = canaries.word("root secret") + "0123456789abcdef";

    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    };
    let log_path = folder.path().join("log");
    let mut command = dealstream(&folder.path().join("data"));
    command
        .env("DATABASE_URL_FILE", write("url", &with_password))
        .env("JWT_SECRET_FILE", write("secret", &secret))
        .env(
            "RUST_LOG",
            "trace,tokio_postgres=trace,hyper=trace,h2=trace,tungstenite=trace,rustls=trace",
        )
        .env("LOG_FORMAT", format)
        .stderr(File::create(&log_path).unwrap());
    let mut program = Program::start(command);
    let address = program.address.clone();
    work(&address, &url, &mut canaries).await;
    program.end(Signal::TERM);
    (std::fs::read_to_string(&log_path).unwrap(), canaries)
}

async fn work(address: &str, url: &str, canaries: &mut Canaries) {
    let mut client = Client { address, token: None };
    let (name, tenant) = (canaries.word("name"), canaries.word("name of the tenant"));
    let password = canaries.word("password");
    let email = format!("{}@test.example", canaries.word("address"));
    let sign_up = json!({ "tenantName": tenant, "name": name, "email": email, "password": password });
    let answer = client.ask(SIGN_UP, sign_up.clone()).await;
    let token = answer["data"]["signUp"]["accessToken"]
        .as_str()
        .unwrap()
        .to_owned();
    canaries.add("access token", token.rsplit('.').next().unwrap());
    // The same again is refused by a constraint, the password is wrong, the account is none.
    client.ask(SIGN_UP, sign_up).await;
    let wrong = canaries.word("wrong password");
    client
        .ask(SIGN_IN, json!({ "email": email, "password": wrong }))
        .await;
    let nobody = format!("{}@test.example", canaries.word("unknown address"));
    client
        .ask(SIGN_IN, json!({ "email": nobody, "password": password }))
        .await;
    let answer = client
        .ask(SIGN_IN, json!({ "email": email, "password": password }))
        .await;
    let token = answer["data"]["signIn"]["accessToken"]
        .as_str()
        .unwrap()
        .to_owned();
    canaries.add("access token", token.rsplit('.').next().unwrap());

    let refresh = answer["data"]["signIn"]["refreshToken"].as_str().unwrap();
    canaries.add("refresh token", refresh.rsplit('.').next().unwrap());
    let used_up = refresh.to_owned();
    let again = "mutation($token: String!) { refreshSession(input: { refreshToken: $token }) { accessToken refreshToken } }";
    for _ in 0..2 {
        let body = json!({ "query": again, "variables": { "token": used_up } });
        let answer = client.post(body).await;
        let successor = answer["data"]["refreshSession"]["refreshToken"].as_str().unwrap();
        canaries.add("refresh token", successor.rsplit('.').next().unwrap());
    }
    let made_up = canaries.word("made-up refresh token");
    client
        .post(json!({ "query": again, "variables": { "token": made_up } }))
        .await;

    // Tokens that are none, in each place where one can be.
    let forged = format!("eyJhbGciOiJub25lIn0.{}.x", canaries.word("forged token"));
    client.token = Some(forged);
    client.post(json!({ "query": "{ viewer { role } }" })).await;
    client.token = Some(canaries.word("opaque token"));
    client.post(json!({ "query": "{ viewer { role } }" })).await;
    client.token = Some(token.clone());

    // People, by variables and by literals, with a key that is remembered.
    let phone = "+49301234567890";
    canaries.add("phone number", "301234567890");
    let person = canaries.word("name of a contact");
    let contact_email = format!("{}@test.example", canaries.word("address of a contact"));
    let notes = canaries.word("notes");
    let contact = json!({ "name": person, "email": contact_email, "phone": phone, "notes": notes });
    let key = format!("idempotency-key: {}\r\n", canaries.word("idempotency key"));
    let body = json!({ "query": CONTACT, "variables": { "input": contact } });
    for _ in 0..2 {
        let answer = client.post_with(&key, body.clone()).await;
        assert!(
            answer["data"]["createContact"]["contact"]["id"].is_string(),
            "{answer}"
        );
    }
    let literal = canaries.word("literal");
    let query =
        format!("mutation {{ createContact(input: {{ name: \"{literal}\" }}) {{ contact {{ id }} }} }}");
    client.post(json!({ "query": query })).await;
    let filter = canaries.word("filter");
    let query = format!("{{ contacts(filter: {{ name: {{ contains: \"{filter}\" }} }}) {{ totalCount }} }}");
    client.post(json!({ "query": query })).await;

    // What cannot be read: documents, variables, ids, cursors, bodies, query strings.
    let bad = canaries.word("bad input");
    for body in [
        json!({ "query": format!("{{ {bad}") }),
        json!({ "query": format!("{{ {bad} }}") }),
        json!({ "query": CONTACT, "variables": { "input": { "name": 7, "email": bad } } }),
        json!({ "query": CONTACT, "variables": { "input": { "name": "x", "phone": bad, "email": bad } } }),
        json!({ "query": format!("{{ contact(id: \"{bad}\") {{ id }} }}") }),
        json!({ "query": format!("{{ contacts(after: \"{bad}\") {{ totalCount }} }}") }),
        json!({ "query": "{ a }", "operationName": bad }),
        json!({ "query": bad, "variables": bad }),
    ] {
        client.post(body).await;
    }
    let json = "content-type: application/json\r\n";
    send(address, "POST", "/graphql", json, &format!("{{\"query\": {bad}")).await;
    send(
        address,
        "GET",
        &format!("/graphql?query=%7B{bad}%7D&variables={bad}"),
        "",
        "",
    )
    .await;
    send(address, "GET", &format!("/{bad}?{bad}"), "", "").await;
    let forged_line = "\x1b[2J\u{202e}2026-11-21T00:00:00Z ERROR dealstream: forged";
    let headers = format!("{json}user-agent: {bad}{forged_line}\r\nx-request-id: {bad} {forged_line}\r\n");
    send(
        address,
        "POST",
        "/graphql",
        &headers,
        "{\"query\":\"{ __typename }\"}",
    )
    .await;

    // An error of PostgreSQL that repeats what it was given.
    let (superuser, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut hashes = superuser
        .query("SELECT password_hash FROM accounts", &[])
        .await
        .unwrap();
    canaries.add(
        "hash of the password",
        &hashes.remove(0).get::<_, String>(0)[30..],
    );
    superuser
        .batch_execute(
            "CREATE FUNCTION repeat_it() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'invalid contact: \"%\"', NEW.name USING DETAIL = NEW.email; END $$;
             CREATE TRIGGER repeat_it BEFORE INSERT ON contacts FOR EACH ROW EXECUTE FUNCTION repeat_it()",
        )
        .await
        .unwrap();
    let failing = json!({ "name": canaries.word("name in an error"), "email": contact_email });
    let answer = client.ask(CONTACT, failing).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "INTERNAL", "{answer}");

    socket(address, &token, canaries).await;
    client
        .post(json!({ "query": "mutation { signOut { position } }" }))
        .await;
    client.post(json!({ "query": "{ viewer { role } }" })).await;
}

async fn socket(address: &str, token: &str, canaries: &mut Canaries) {
    let mut request = format!("ws://{address}/graphql").into_client_request().unwrap();
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = connect_async(request).await.unwrap();
    let word = canaries.word("variable on a socket");
    let query = "query($name: String!) { contacts(filter: { name: { eq: $name } }) { totalCount } }";
    for message in [
        json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {token}") } }),
        json!({ "type": "subscribe", "id": word, "payload": { "query": query, "variables": { "name": word } } }),
        json!({ "type": "subscribe", "id": "2", "payload": { "query": format!("{{ {word} }}") } }),
        json!({ "type": "ping", "payload": { "word": word } }),
        json!({ "type": word }),
    ] {
        let _ = socket.send(Message::text(message.to_string())).await;
    }
    // The last message is none, so that the server closes when it has answered what came before or not.
    let closed = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it is closed");
}

fn unprintable(line: &str) -> bool {
    line.contains(|letter: char| letter.is_control() || letter == '\u{202e}')
}

#[tokio::test]
async fn nothing_secret_or_personal_is_in_a_log_of_text() {
    let (log, canaries) = lives_through_everything("text").await;
    canaries.assert_silent(&log);
    assert!(
        log.contains("an operation was answered"),
        "it does not log at its lowest levels"
    );
    assert!(log.contains("a request failed"), "{log}");
    assert!(!log.lines().any(unprintable));
    assert!(!log.contains("forged"));
}

#[tokio::test]
async fn nothing_secret_or_personal_is_in_a_log_of_json() {
    let (log, canaries) = lives_through_everything("json").await;
    canaries.assert_silent(&log);
    assert!(!log.lines().any(unprintable));
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "service", "message"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
        assert!(line["context"].is_object(), "{line}");
    }
    let answered = lines
        .iter()
        .filter(|line| line["message"] == "an operation was answered");
    let of_somebody: Vec<_> = answered
        .filter(|line| line["context"]["tenant"].is_string())
        .collect();
    assert!(of_somebody.len() > 3, "{of_somebody:?}");
    for line in of_somebody {
        assert!(
            line["requestId"].is_string() && line["context"]["user"].is_string(),
            "{line}"
        );
    }
    let failed = lines.iter().find(|line| line["message"] == "a request failed");
    let failed = failed.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(failed["context"]["operation"], "CanaryTest");
    assert!(
        failed["context"]["cause"]
            .as_str()
            .unwrap()
            .contains("invalid contact"),
        "{failed}"
    );
}

#[test]
fn a_secret_is_given_once() {
    use clap::{Args, Command};
    use dealstream::config::Config;
    use std::ffi::OsString;

    let folder = Folder::new("secrets");
    let file = folder.path().join("secret");
    std::fs::write(&file, "  from the file\n").unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let command = Config::augment_args(Command::new("dealstream"));
    let read = |given: &[(&str, &Path)]| {
        let variable = |name: &str| {
            let found = given.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Config::secrets_from_files(variable, &command)
    };
    assert_eq!(read(&[]), Ok(vec![]));
    let found = read(&[
        ("JWT_SECRET_FILE", &file),
        ("DATABASE_URL", Path::new("postgres://x")),
    ])
    .unwrap();
    assert_eq!(found, ["--jwt-secret=from the file"]);
    for name in [
        "DATABASE_URL",
        "REDIS_URL",
        "JWT_SECRET",
        "DEALSTREAM_MASTER_KEYS",
    ] {
        let in_file = format!("{name}_FILE");
        assert_eq!(read(&[(&in_file, &file)]).unwrap().len(), 1, "{name}");
        let both = read(&[(&in_file, &file), (name, Path::new("x"))]).unwrap_err();
        assert!(
            both.contains(&in_file) && !both.contains("from the file"),
            "{both}"
        );
        assert!(Config::refuse_unknown_variables([in_file], &command).is_ok());
    }
    for wrong in [folder.path().join("none"), empty] {
        let problem = read(&[("JWT_SECRET_FILE", &wrong)]).unwrap_err();
        assert!(problem.starts_with("JWT_SECRET_FILE"), "{problem}");
    }
    // What is no secret has no such form.
    let unknown = ["DEALSTREAM_GRAPHIQL_FILE".to_owned()];
    assert!(Config::refuse_unknown_variables(unknown, &command).is_err());
}
