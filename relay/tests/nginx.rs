//! The relay behind the real nginx, with the configuration that the documentation gives.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

#[path = "../../tests/support/nginx.rs"]
mod nginx;
mod peers;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use nginx::Nginx;
use peers::{Peer, key, relay};
use proto::id::Instance;
use proto::relay::RouterLimits;
use proto::wire::relay::{Data, Frame, SUBPROTOCOL};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const HOST: &str = "culvert.test";

/// nginx in front of a relay, with the documented configuration, which ends TLS.
struct Front {
    nginx: Nginx,
    root: CertificateDer<'static>,
}

impl Front {
    /// In front of `upstream`; `None` where there is no nginx.
    fn start(upstream: SocketAddr, read_timeout: &str) -> Option<Self> {
        let issued = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let nginx = Nginx::start(|dir, at| {
            fs::write(dir.join("cert.pem"), issued.cert.pem()).unwrap();
            fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
            documented(dir, at, upstream, read_timeout)
        })?;
        Some(Self { nginx, root: issued.cert.der().clone() })
    }

    async fn dial(&self) -> WebSocketStream<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.nginx.at).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let mut request = format!("wss://{HOST}/relay").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
        tokio_tungstenite::client_async(request, stream).await.unwrap().0
    }

    async fn join(&self) -> Peer<TlsStream<TcpStream>> {
        Peer::log_in(self.dial().await, key(), Instance([1; 8])).await
    }
}

/// The documented configuration, with what everybody replaces replaced.
fn documented(dir: &Path, listen: SocketAddr, upstream: SocketAddr, read_timeout: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx/culvert.conf");
    let mut text = fs::read_to_string(path).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    for (from, to) in [
        ("listen 443 ssl http2;", format!("listen {listen} ssl http2;")),
        ("listen [::]:443 ssl http2;", String::new()),
        ("server 127.0.0.1:8080;", format!("server {upstream};")),
        ("example.com *.example.com", HOST.to_owned()),
        ("/etc/ssl/culvert/fullchain.pem", file("cert.pem")),
        ("/etc/ssl/culvert/privkey.pem", file("key.pem")),
        ("proxy_read_timeout 60s", format!("proxy_read_timeout {read_timeout}")),
    ] {
        assert!(text.contains(from), "the documented configuration has no {from:?}");
        text = text.replace(from, &to);
    }
    text
}

#[tokio::test]
async fn peers_reach_each_other_through_nginx_which_ends_tls() {
    let relay = relay(RouterLimits::default());
    let Some(front) = Front::start(relay.http_addr(), "60s") else { return };
    let (mut a, mut b) = (front.join().await, front.join().await);
    b.allow(a.address()).await;
    for size in [1, 1200, 12_000, 65_000] {
        let batch = vec![0x40; size];
        a.send(b.address(), &batch).await;
        let from_a = Frame::Data(Data { remote: a.address(), ecn: 0, segment: 1200, packets: &batch });
        assert_eq!(b.hear().await.unwrap(), from_a.encode());
    }
}

#[tokio::test]
async fn pings_keep_an_idle_connection_longer_than_nginx_waits() {
    // The documented 15 s and 60 s, at a twentieth.
    let limits = RouterLimits { ping: Duration::from_millis(750), ..RouterLimits::default() };
    let relay = relay(limits);
    let Some(front) = Front::start(relay.http_addr(), "3s") else { return };
    let mut peer = front.join().await;
    for _ in 0..6 {
        let frame = peer.hear().await.expect("nginx hung up");
        assert!(matches!(Frame::parse(&frame), Ok(Frame::Ping(_))));
    }
    assert_eq!(relay.stats().sessions, 1);
}

#[tokio::test]
async fn without_pings_nginx_hangs_up_when_its_time_is_over() {
    let limits = RouterLimits { ping: Duration::from_secs(3600), ..RouterLimits::default() };
    let relay = relay(limits);
    let Some(front) = Front::start(relay.http_addr(), "1s") else { return };
    let mut peer = front.join().await;
    let ended = timeout(Duration::from_secs(10), peer.socket.next()).await.unwrap();
    assert!(ended.is_none_or(|message| message.is_err()));
}
