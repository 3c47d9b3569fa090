//! Visitors who speak HTTP/2, and what stays of their requests' connections to the local server.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use h2::RecvStream;
use h2::client::SendRequest;
use hyper::Request;
use hyper::body::Bytes;
use relay::https::{Certificate, CertificateFiles, Https};
use rendezvous::{Bind, ServerConfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::staying::{numbers, public};
use crate::support::origin::Origin;
use crate::support::{Home, Rendezvous, key, soon};
use crate::web::{head, ready, share};

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

    /// The answer, of which the head has come.
    async fn begin(&self, method: &str, name: &str) -> RecvStream {
        let mut send = self.0.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        let uri = format!("https://{name}.example.test/");
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let answer = soon("an answer", send.send_request(request, true).unwrap().0).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    /// The content of the answer.
    async fn ask(&self, method: &str, name: &str) -> String {
        let (mut body, mut content) = (self.begin(method, name).await, Vec::new());
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
    assert_eq!(one.ask("GET", "nas").await, "1:1");
    assert_eq!(one.ask("GET", "nas").await, "1:2");
    assert_eq!(other.ask("GET", "nas").await, "2:1");
    assert_eq!(other.ask("GET", "nas").await, "2:2");
    assert_eq!(one.ask("POST", "nas").await, "3:1");
}

#[tokio::test]
async fn another_name_on_the_same_connection_of_a_visitor_has_another_one() {
    let (server, homes) = (Rendezvous::with(key(), with_tls), [Home::new(), Home::new()]);
    let (origin, _ends) = numbers("").await;
    let mut other = share(&homes[1], &server, &origin.target(), &["--name", "cam"]);
    ready(&mut other).await;
    let _share = public(&server, &homes[0], &origin).await;
    let visit = Visit::new(&server).await;
    for (name, seen) in [("nas", "1:1"), ("cam", "2:1"), ("nas", "1:2"), ("cam", "2:2")] {
        assert_eq!(visit.ask("GET", name).await, seen);
    }
}

#[tokio::test]
async fn what_was_given_up_in_the_middle_of_its_answer_leaves_no_connection() {
    let (server, home) = (Rendezvous::with(key(), with_tls), Home::new());
    let (ended, mut ends) = mpsc::unbounded_channel();
    // Answers by halves.
    let origin = Origin::serving("127.0.0.1", move |mut stream: TcpStream| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await.unwrap();
            assert_eq!(head(&mut stream).await, "", "nobody asks on");
            let _nobody_asks = ended.send(());
        }
    })
    .await;
    let _share = public(&server, &home, &origin).await;
    let visit = Visit::new(&server).await;
    for _ in 0..3 {
        let mut body = visit.begin("GET", "nas").await;
        assert_eq!(soon("half of it", body.data()).await.unwrap().unwrap(), "half");
        drop(body);
        soon("its end", ends.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_stays_where_a_share_has_half_of_the_exchanges_that_it_may_have() {
    let crowded = |config: &mut ServerConfig| {
        with_tls(config);
        config.limits.gateway.exchanges = 1;
    };
    let (server, home) = (Rendezvous::with(key(), crowded), Home::new());
    let (origin, _ends) = numbers("").await;
    let _share = public(&server, &home, &origin).await;
    let visit = Visit::new(&server).await;
    assert_eq!(visit.ask("GET", "nas").await, "1:1");
    assert_eq!(visit.ask("GET", "nas").await, "2:1");
}

#[tokio::test]
async fn streams_at_the_same_time_have_a_connection_each_and_leave_six_to_the_next_ones() {
    const AT_ONCE: usize = 8;

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
                let content = format!("{connection:02}:{request}");
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{content}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let _share = public(&server, &home, &origin).await;
    let visit = Arc::new(Visit::new(&server).await);
    let at_once = async || {
        let mut asking = JoinSet::new();
        for _ in 0..AT_ONCE {
            let visit = Arc::clone(&visit);
            asking.spawn(async move { visit.ask("GET", "nas").await });
        }
        asking.join_all().await.into_iter().collect::<BTreeSet<_>>()
    };
    let first: BTreeSet<_> = (1..=AT_ONCE).map(|connection| format!("{connection:02}:1")).collect();
    assert_eq!(at_once().await, first);
    let second = at_once().await;
    assert_eq!(second.iter().filter(|seen| seen.ends_with(":2")).count(), 6, "{second:?}");
    assert!(second.contains("09:1") && second.contains("10:1"), "{second:?}");
}

#[tokio::test]
async fn a_connection_over_which_no_stream_asks_is_closed_while_its_visitor_stays() {
    let (server, home) = (Rendezvous::with(key(), with_tls), Home::new());
    let (origin, mut ends) = numbers("").await;
    let _share = public(&server, &home, &origin).await;
    let visit = Visit::new(&server).await;
    assert_eq!(visit.ask("GET", "nas").await, "1:1");
    assert_eq!(soon("its end", ends.recv()).await, Some(1));
    assert_eq!(visit.ask("GET", "nas").await, "2:1");
}
