//! TLS: which clients are served, and what happens when the certificate is renewed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dealstream::graphql::limits::Limits;
use dealstream::http::Settings;
use dealstream::http::tls::Tls;
use futures::{SinkExt, StreamExt};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::sync::CancellationToken;

use crate::support::folder::Folder;
use crate::support::wire::{TOKEN, Wire, until};

/// A certificate and its key, in files.
struct Pair {
    folder: Folder,
}

impl Pair {
    fn new(name: &str) -> (Self, CertificateDer<'static>) {
        let pair = Self {
            folder: Folder::new(name),
        };
        let certificate = pair.renew();
        (pair, certificate)
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        (
            self.folder.path().join("tls.crt"),
            self.folder.path().join("tls.key"),
        )
    }

    fn load(&self) -> Arc<Tls> {
        let (certificate, key) = self.files();
        Tls::load(&certificate, &key).unwrap()
    }

    /// Puts a new pair in the place of the old one.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = self.files();
        std::fs::write(certificate, made.cert.pem()).unwrap();
        std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }
}

fn client(
    trusted: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    protocol: &str,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(wire: &Wire, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(wire.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let greeted = connector.connect(name, stream);
    tokio::time::timeout(Duration::from_secs(20), greeted)
        .await
        .expect("it is agreed on or refused")
}

/// Asks over HTTP/1.1; answers head and body.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let body = r#"{"query":"{ __typename }"}"#;
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn served(tls: &Arc<Tls>, head_time: Duration) -> Wire {
    let settings = Settings {
        tls: Some(tls.clone()),
        head_time,
        ..Settings::default()
    };
    Wire::with(settings, Limits::default()).await
}

#[tokio::test]
async fn clients_of_tls_1_3_are_served_and_no_others() {
    let (pair, certificate) = Pair::new("tls-versions");
    let wire = served(&pair.load(), Duration::from_secs(10)).await;
    let mut stream = connect(&wire, &client(&certificate, &TLS13, "http/1.1"))
        .await
        .unwrap();
    let answer = ask(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("strict-transport-security: max-age=31536000"),
        "{answer}"
    );
    assert!(answer.ends_with('}'), "{answer}");

    let stream = connect(&wire, &client(&certificate, &TLS13, "h2")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let refused = connect(&wire, &client(&certificate, &TLS12, "http/1.1")).await;
    let refused = refused.expect_err("TLS 1.2 is refused").to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    // Nor is anything answered to who speaks in the clear.
    let reply = wire
        .raw(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!(reply.status, 0, "{reply:?}");
}

#[tokio::test]
async fn without_tls_a_browser_is_not_told_to_insist_on_it() {
    let reply = Wire::start().await.ask("{ __typename }").await;
    assert_eq!(reply.header("strict-transport-security"), None);
}

#[tokio::test]
async fn sockets_are_encrypted_too() {
    let (pair, certificate) = Pair::new("tls-socket");
    let wire = served(&pair.load(), Duration::from_secs(10)).await;
    let stream = connect(&wire, &client(&certificate, &TLS13, "http/1.1"))
        .await
        .unwrap();
    let mut request = "wss://localhost/graphql".into_client_request().unwrap();
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let init =
        json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {TOKEN}") } });
    socket.send(Message::text(init.to_string())).await.unwrap();
    let heard = socket.next().await.unwrap().unwrap();
    let heard: Value = serde_json::from_str(heard.to_text().unwrap()).unwrap();
    assert_eq!(heard, json!({ "type": "connection_ack" }));
    // When the server stops, it says so, and is not held up by who has not said anything yet.
    let _silent = TcpStream::connect(wire.address).await.unwrap();
    wire.shutdown.cancel();
    let closed = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(20), closed)
            .await
            .unwrap(),
        1012
    );
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let (pair, first) = Pair::new("tls-renewal");
    let tls = pair.load();
    let wire = served(&tls, Duration::from_secs(10)).await;
    let trusting_first = client(&first, &TLS13, "http/1.1");
    let mut kept = connect(&wire, &trusting_first).await.unwrap();
    assert_eq!(tls.refresh(), Ok(false));

    let second = pair.renew();
    assert_eq!(tls.refresh(), Ok(true));
    assert!(connect(&wire, &trusting_first).await.is_err());
    let trusting_second = client(&second, &TLS13, "http/1.1");
    let mut stream = connect(&wire, &trusting_second).await.unwrap();
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    // Who was there already is served to the end.
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 200"));

    // Half of a new pair, nonsense, and nothing at all.
    let (certificate, key) = pair.files();
    let key_of_second = std::fs::read(&key).unwrap();
    pair.renew();
    std::fs::write(&key, &key_of_second).unwrap();
    let problem = tls.refresh().expect_err("they do not go together");
    assert!(problem.contains("do not go together"), "{problem}");
    assert_eq!(tls.refresh(), Ok(false), "the same is complained of once");
    std::fs::write(&certificate, "nonsense").unwrap();
    assert!(tls.refresh().is_err());
    std::fs::remove_file(&key).unwrap();
    assert!(tls.refresh().is_err());
    assert!(connect(&wire, &trusting_second).await.is_ok());

    // It is taken over by itself, too.
    let stop = CancellationToken::new();
    let following = tokio::spawn(tls.clone().follow(Duration::from_millis(10), stop.clone()));
    let third = client(&pair.renew(), &TLS13, "http/1.1");
    let renewed = async {
        while connect(&wire, &third).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap();
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_greets_is_let_go() {
    let (pair, _) = Pair::new("tls-silent");
    let wire = served(&pair.load(), Duration::from_millis(200)).await;
    let mut silent = TcpStream::connect(wire.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(20), silent.read(&mut [0; 16])).await;
    assert!(matches!(closed.expect("it is closed"), Ok(0) | Err(_)));
    until("nothing is left of it", || true).await;
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let (pair, _) = Pair::new("tls-start");
    let (certificate, key) = pair.files();
    let missing = pair.folder.path().join("none");
    let problem =
        |certificate: &PathBuf, key: &PathBuf| Tls::load(certificate, key).map(drop).expect_err("no");
    assert!(problem(&missing, &key).starts_with("TLS_CERT_FILE"));
    assert!(problem(&certificate, &missing).starts_with("TLS_KEY_FILE"));
    assert!(problem(&key, &certificate).starts_with("TLS_CERT_FILE"));
}
