//! A mail server that keeps what it is given, and applications that send through it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use base64::Engine;
use dealstream::config::{Config, Pace};
use dealstream::db::embedded::end_with_this_thread;
use dealstream::db::migrate;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::TestApp;
use super::app::config;
use super::cluster;

/// A mail as it came over the wire.
#[derive(Debug, Clone)]
pub struct Received {
    pub to: Vec<String>,
    /// The headers, unfolded and decoded as far as they are ASCII.
    pub headers: Vec<String>,
    pub text: String,
    pub html: String,
}

#[derive(Default)]
struct Inbox {
    /// As the mail server tells of them: who asks for one reads it, and fails if it cannot be read.
    mails: Mutex<Vec<Value>>,
    news: Condvar,
}

impl Inbox {
    fn to(&self, email: &str) -> Vec<Value> {
        let mails = self.mails.lock().unwrap();
        let to = json!([email]);
        mails.iter().filter(|mail| mail["to"] == to).cloned().collect()
    }
}

/// A running mail server. It ends with the thread that started it, or when it is dropped.
pub struct Postman {
    child: Child,
    port: u16,
    inbox: Arc<Inbox>,
}

impl Postman {
    /// Starts one on this port, or on any.
    pub fn start(port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/smtp.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(port.to_string());
        end_with_this_thread(&mut command, Signal::KILL);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("node is installed: `make setup-tests`");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .next()
            .expect("the mail server tells its port: `make setup-tests`")
            .unwrap()
            .parse()
            .unwrap();
        let inbox = Arc::<Inbox>::default();
        let kept = inbox.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mail = serde_json::from_str(&line).unwrap();
                kept.mails.lock().unwrap().push(mail);
                kept.news.notify_all();
            }
        });
        Self { child, port, inbox }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All mails to an address so far.
    pub fn to(&self, email: &str) -> Vec<Received> {
        let mails = self.inbox.to(email);
        mails.iter().map(Received::read).collect()
    }

    /// Waits until an address has so many mails, and answers the last.
    pub async fn nth(&self, email: &str, count: usize) -> Received {
        let (inbox, email) = (self.inbox.clone(), email.to_owned());
        let wait = move || {
            let began = Instant::now();
            loop {
                if let Some(mail) = inbox.to(&email).get(count - 1) {
                    return Received::read(mail);
                }
                assert!(
                    began.elapsed() < Duration::from_secs(90),
                    "no mail to {email} came"
                );
                let mails = inbox.mails.lock().unwrap();
                let _news = inbox.news.wait_timeout(mails, Duration::from_millis(200));
            }
        };
        tokio::task::spawn_blocking(wait).await.unwrap()
    }
}

impl Drop for Postman {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Received {
    fn read(line: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let message = text(&line["message"]);
        let (head, body) = message.split_once("\r\n\r\n").unwrap();
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let (_, boundary) = unfolded.split_once("boundary=\"").unwrap();
        let (boundary, _) = boundary.split_once('"').unwrap();
        // No less than that: a line of a link may begin with hyphens too.
        let body = format!("\r\n{body}");
        let parts: Vec<&str> = body.split(&format!("\r\n--{boundary}")).collect();
        let part = |kind: &str| {
            let of_kind = |part: &&&str| part.contains(&format!("Content-Type: {kind}"));
            let part = parts.iter().find(of_kind).unwrap();
            let (head, body) = part.split_once("\r\n\r\n").unwrap();
            decode(head, body)
        };
        Self {
            to: line["to"].as_array().unwrap().iter().map(text).collect(),
            headers: unfolded.split("\r\n").map(str::to_owned).collect(),
            text: part("text/plain"),
            html: part("text/html"),
        }
    }

    /// The token of the link in it.
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once('#').expect("there is a link in it");
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// The page that the link leads to.
    pub fn page(&self) -> &str {
        let (before, _) = self.text.split_once('#').expect("there is a link in it");
        before.rsplit('/').next().unwrap()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let found = self
            .headers
            .iter()
            .find_map(|header| header.strip_prefix(&prefix));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }
}

/// A part of a mail without its transfer encoding.
fn decode(head: &str, body: &str) -> String {
    if head.contains("base64") {
        let letters: String = body.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(letters).unwrap();
        return String::from_utf8(bytes).unwrap();
    }
    if !head.contains("quoted-printable") {
        return body.to_owned();
    }
    let joined = body.replace("=\r\n", "");
    let mut parts = joined.split('=');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

/// Settings for mail through a server on this port.
pub fn with_mail(port: u16) -> Config {
    Config {
        smtp_url: Some(format!("smtp://127.0.0.1:{port}").into()),
        mail_from: Some("Dealstream <crm@sender.example>".to_owned()),
        public_url: Some("https://crm.example.com".to_owned()),
        sign_up: Some(dealstream::config::SignUp::Open),
        pace: Pace {
            mail: Duration::from_millis(100),
            // What a test has claimed that ends is sent by another.
            mail_claim: Duration::from_secs(15),
            ..Pace::default()
        },
        ..config()
    }
}

/// A migrated database of its own: whoever looks for mail in a shared one would take it.
pub async fn database(name: &str) -> String {
    let url = cluster::create_database(name).await;
    migrate::migrate(&url).await.unwrap();
    url
}

/// What tests of mail share: a mail server, a database, and somebody who delivers. Tests' own applications only write
/// mail down: one that ends in the midst of sending would leave a mail claimed.
struct PostOffice {
    postman: Postman,
    url: String,
}

fn post_office() -> &'static PostOffice {
    static OFFICE: OnceLock<&'static PostOffice> = OnceLock::new();
    OFFICE.get_or_init(|| {
        let (tell, told) = mpsc::channel();
        // The mail server ends with this thread, which stays as long as the process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let postman = Postman::start(0);
                let url = database("mail").await;
                let app = TestApp::on(url.clone(), with_mail(postman.port())).await;
                let office: &'static PostOffice = Box::leak(Box::new(PostOffice { postman, url }));
                tell.send(office).unwrap();
                app.app.mail.clone().deliver(CancellationToken::new()).await;
            });
        });
        told.recv().expect("the post office opens")
    })
}

/// The mail server that tests share.
pub fn postman() -> &'static Postman {
    &post_office().postman
}

/// An application whose mail comes to the shared server.
pub async fn mailing() -> TestApp {
    mailing_with(|_| {}).await
}

/// As [`mailing`], with other settings.
pub async fn mailing_with(change: impl FnOnce(&mut Config)) -> TestApp {
    let office = tokio::task::spawn_blocking(post_office).await.unwrap();
    let mut config = with_mail(office.postman.port());
    change(&mut config);
    TestApp::on(office.url.clone(), config).await
}

#[test]
fn a_link_may_have_hyphens_where_a_line_ends() {
    let message = "Subject: Hello\r\nContent-Type: multipart/alternative;\r\n boundary=\"edge\"\r\n\r\n\
                   --edge\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                   https://crm.example.com/reset#abc=\r\n--def\r\n\
                   --edge\r\nContent-Type: text/html\r\n\r\n<p>abc</p>\r\n--edge--\r\n";
    let mail = Received::read(&json!({ "to": ["ada@test.example"], "message": message }));
    assert_eq!((mail.token().as_str(), mail.page()), ("abc--def", "reset"));
    assert_eq!(mail.html, "<p>abc</p>");
}
