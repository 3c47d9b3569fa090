//! Visitors who speak HTTP/2, and what stays of their requests' connections to the local server.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use h2::client::SendRequest;
use hyper::Request;
use hyper::body::Bytes;
use relay::https::{Certificate, CertificateFiles, Https};
use rendezvous::{Bind, ServerConfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio_rustls::TlsConnector;

use crate::staying::{numbers, public};
use crate::support::origin::Origin;
use crate::support::{Home, Rendezvous, key, soon};
use crate::web::head;

/// The server's certificate, and its key, as files have them.
fn issued() -> &'static (CertificateDer<'static>, String, String) {
    static ISSUED: OnceLock<(CertificateDer<'static>, String, String)> = OnceLock::new();
    ISSUED.get_or_init(|| {
        let issued = rcgen::generate_simple_self_signed(["nas.example.test".to_owned()]).unwrap();
        (issued.cert.der().clone(), issued.cert.pem(), issued.signing_key.serialize_pem())
    })
}

fn with_tls(config: &mut ServerConfig) {
    let dir = tempfile::tempdir().unwrap();
    let files = CertificateFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    std::fs::write(&files.cert, &issued().1).unwrap();
    std::fs::write(&files.key, &issued().2).unwrap();
    let bind = Bind::exactly("127.0.0.1:0".parse().unwrap());
    config.https = Some(Https { bind, certificate: Certificate::load(files).unwrap() });
}

/// A visitor's connection.
struct Visit(SendRequest<Bytes>);

impl Visit {
    async fn new(server: &Rendezvous) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(issued().0.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(server.https()).await.unwrap();
        let name = ServerName::try_from("nas.example.test").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// The content of the answer.
    async fn ask(&self, method: &str) -> String {
        let mut send = self.0.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        let request = Request::builder().method(method).uri("https://nas.example.test/").body(()).unwrap();
        let answer = soon("an answer", send.send_request(request, true).unwrap().0).await.unwrap();
        assert_eq!(answer.status(), 200);
        let (mut body, mut content) = (answer.into_body(), Vec::new());
        while let Some(piece) = soon("its content", body.data()).await {
            content.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(content).unwrap()
    }
}

#[tokio::test]
async fn streams_that_follow_each_other_have_one_connection_to_the_local_server_and_nobody_else_has_it() {
    let (server, home) = (Rendezvous::with(key(), with_tls), Home::new());
    let (origin, _ends) = numbers("").await;
    let _share = public(&server, &home, &origin).await;
    let (one, other) = (Visit::new(&server).await, Visit::new(&server).await);
    assert_eq!(one.ask("GET").await, "1:1");
    assert_eq!(one.ask("GET").await, "1:2");
    assert_eq!(other.ask("GET").await, "2:1");
    assert_eq!(one.ask("POST").await, "3:1");
    assert_eq!(other.ask("GET").await, "2:2");
}

#[tokio::test]
async fn streams_at_the_same_time_have_a_connection_each_and_leave_them_to_the_next_ones() {
    const AT_ONCE: usize = 4;

    let (server, home) = (Rendezvous::with(key(), with_tls), Home::new());
    let (connections, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(AT_ONCE)));
    // Answers when all have asked.
    let origin = Origin::serving("127.0.0.1", move |mut stream: TcpStream| {
        let (connection, all) = (connections.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&all));
        async move {
            for request in 1.. {
                if head(&mut stream).await.is_empty() {
                    break;
                }
                all.wait().await;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{connection}:{request}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let _share = public(&server, &home, &origin).await;
    let visit = Visit::new(&server).await;
    for turn in 1..=3 {
        let (a, b, c, d) =
            tokio::join!(visit.ask("GET"), visit.ask("GET"), visit.ask("GET"), visit.ask("GET"));
        let expected: BTreeSet<_> = (1..=AT_ONCE).map(|connection| format!("{connection}:{turn}")).collect();
        assert_eq!(BTreeSet::from([a, b, c, d]), expected);
    }
}

#[tokio::test]
async fn a_connection_over_which_no_stream_asks_is_closed_while_its_visitor_stays() {
    let (server, home) = (Rendezvous::with(key(), with_tls), Home::new());
    let (origin, mut ends) = numbers("").await;
    let _share = public(&server, &home, &origin).await;
    let visit = Visit::new(&server).await;
    assert_eq!(visit.ask("GET").await, "1:1");
    assert_eq!(soon("its end", ends.recv()).await, Some(1));
    assert_eq!(visit.ask("GET").await, "2:1");
}
