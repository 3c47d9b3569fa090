//! Visitors who speak TLS: to names, to the server itself, to its relay.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use relay::access_log::{AccessLog, AccessLogTo};
use relay::gateway::GatewayLimits;
use relay::https::{Certificate, CertificateFiles, Https};
use rendezvous::{Bind, Limits, Server, ServerConfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{PATIENCE, body, loopback, start, until};
use crate::tunnel::{SHORT, mirror, open};

/// A server for `example.test` with a certificate, and what a client needs to believe it.
pub(crate) struct Secured {
    pub(crate) server: Server,
    root: CertificateDer<'static>,
    dir: TempDir,
}

/// A certificate in the directory, with one name more.
fn issue(dir: &Path, more: &str) -> CertificateDer<'static> {
    let names = ["example.test", "*.example.test", "localhost", more].map(str::to_owned);
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert.pem"), issued.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
    issued.cert.der().clone()
}

pub(crate) fn secured(change: impl FnOnce(&mut GatewayLimits)) -> Secured {
    let dir = tempfile::tempdir().unwrap();
    let root = issue(dir.path(), "first.test");
    let files = CertificateFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    let certificate = Certificate::load(files).unwrap();
    let mut gateway = GatewayLimits::default();
    change(&mut gateway);
    let any = Bind::exactly("127.0.0.1:0".parse().unwrap());
    let server = start(ServerConfig {
        https: Some(Https { bind: any, certificate }),
        limits: Limits { gateway, ..Limits::default() },
        domain: "example.test".to_owned(),
        access_log: AccessLog::open(&AccessLogTo::File(dir.path().join("access.log"))).unwrap(),
        ..loopback()
    });
    Secured { server, root, dir }
}

impl Secured {
    /// What has been written of requests so far.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("access.log")).unwrap()
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.server.https_addr().unwrap()
    }

    pub(crate) async fn dial(&self, host: &str, alpn: &[&str]) -> TlsStream<TcpStream> {
        self.try_dial(host, alpn).await.unwrap()
    }

    async fn try_dial(&self, host: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.at()).await?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Asks over HTTP/1.1, and gives the whole answer.
    async fn get(&self, host: &str, path: &str) -> String {
        let mut stream = self.dial(host, &["http/1.1"]).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.expect("no end").expect("no proper end");
        answer
    }
}

#[tokio::test]
async fn a_name_is_visited_over_tls_and_its_url_says_so() {
    let secured = secured(|_| ());
    let url = crate::tunnel::register(&secured.server, "/nasty").await["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("https://nasty.example.test:{}", secured.at().port()));
    let tunnel = open(&secured.server, "forwstest", 2, mirror).await;
    let answer = secured.get(&format!("{}.example.test", tunnel.name), "/a?b").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let head = body(&answer);
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nX-Forwarded-Proto: https\r\n") && head.contains(";proto=https\r\n"), "{head}");
}

#[tokio::test]
async fn the_server_itself_is_asked_over_tls_and_names_its_relay_there() {
    let secured = secured(|_| ());
    let host = format!("localhost:{}", secured.at().port());
    let mut stream = secured.dial("localhost", &[]).await;
    let request = format!("GET /.well-known/culvert HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["relays"][0]["url"], format!("https://{host}/relay"));
    let page = secured.get("example.test", "/").await;
    let url = format!("https://example.test:{}", secured.at().port());
    assert!(page.contains(&format!("--server '{url}'")), "{page}");
}

#[tokio::test]
async fn the_relay_takes_websockets_over_over_tls() {
    let secured = secured(|_| ());
    let mut stream = secured.dial("example.test", &["http/1.1"]).await;
    let request = "GET /relay HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: culvert-relay-1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // Its challenge: a binary message.
    assert_eq!(stream.read_u8().await.unwrap(), 0x82);
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed_in_time_and_counted() {
    let secured = secured(|limits| limits.head = SHORT);
    let mut silent = TcpStream::connect(secured.at()).await.unwrap();
    let mut plain = TcpStream::connect(secured.at()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await.unwrap();
    for stream in [&mut silent, &mut plain] {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _end = tokio::time::timeout(PATIENCE, read).await.expect("it stays open");
        assert!(!rest.starts_with(b"HTTP"));
    }
    until("both are counted", || secured.server.stats().gateway.bad_handshakes == 2).await;
}

#[tokio::test]
async fn who_finds_no_place_is_told_so_over_tls() {
    let secured = secured(|limits| limits.connections_each = 1);
    let _first = secured.dial("example.test", &["h2"]).await;
    until("it has its place", || secured.server.stats().gateway.visitors == 1).await;
    let mut second = secured.dial("example.test", &["h2", "http/1.1"]).await;
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nRetry-After: "), "{answer}");
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart_and_what_is_open_stays() {
    let mut secured = secured(|_| ());
    let mut open = secured.dial("example.test", &["http/1.1"]).await;
    secured.root = issue(secured.dir.path(), "another.test");
    let renewed = async { while secured.try_dial("example.test", &[]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, renewed).await.expect("it is never served");
    open.write_all(b"GET / HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
