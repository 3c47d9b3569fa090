//! The relay behind the real nginx, with the configuration that the documentation gives.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod peers;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use peers::{Peer, key, relay};
use proto::id::Instance;
use proto::relay::RouterLimits;
use proto::wire::relay::{Data, Frame, SUBPROTOCOL};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const HOST: &str = "culvert.test";

/// nginx in a directory of its own, in front of `upstream`.
struct Nginx {
    child: Child,
    at: SocketAddr,
    root: rustls::pki_types::CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Whether there is no nginx here. In CI there must be one.
fn skipped() -> bool {
    let missing = Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err();
    assert!(
        !missing || std::env::var("CI").as_deref() != Ok("true"),
        "nginx is missing (Debian: nginx-light)"
    );
    if missing {
        eprintln!("skipped: nginx is missing (Debian: nginx-light)");
    }
    missing
}

/// The documented configuration, with what everybody replaces replaced.
fn configuration(dir: &Path, listen: SocketAddr, upstream: SocketAddr, read_timeout: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx/culvert.conf");
    let mut text = fs::read_to_string(path).unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    for (from, to) in [
        ("listen 443 ssl;", format!("listen {listen} ssl;")),
        ("listen [::]:443 ssl;", String::new()),
        ("server 127.0.0.1:8080;", format!("server {upstream};")),
        ("example.com *.example.com", HOST.to_owned()),
        ("/etc/ssl/culvert/fullchain.pem", file("cert.pem")),
        ("/etc/ssl/culvert/privkey.pem", file("key.pem")),
        ("proxy_read_timeout 60s", format!("proxy_read_timeout {read_timeout}")),
    ] {
        assert!(text.contains(from), "the documented configuration has no {from:?}");
        text = text.replace(from, &to);
    }
    format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log {errors};\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {body};\nproxy_temp_path {proxy};\n{text}\n}}\n",
        pid = file("pid"),
        errors = file("errors"),
        body = file("body"),
        proxy = file("proxy"),
    )
}

async fn nginx(upstream: SocketAddr, read_timeout: &str) -> Nginx {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    fs::write(dir.path().join("cert.pem"), issued.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
    // nginx does not say which port it got: ask for a free one, and again should somebody have been quicker.
    for _ in 0..10 {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let conf = dir.path().join("nginx.conf");
        fs::write(&conf, configuration(dir.path(), at, upstream, read_timeout)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&conf).stderr(Stdio::null()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        loop {
            if TcpStream::connect(at).await.is_ok() && child.try_wait().unwrap().is_none() {
                return Nginx { child, at, root: issued.cert.der().clone(), _dir: dir };
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("nginx does not start: {}", fs::read_to_string(dir.path().join("errors")).unwrap_or_default());
}

impl Nginx {
    async fn dial(&self) -> WebSocketStream<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.at).await.unwrap();
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

#[tokio::test]
async fn peers_reach_each_other_through_nginx_which_ends_tls() {
    if skipped() {
        return;
    }
    let relay = relay(RouterLimits::default());
    let nginx = nginx(relay.http_addr(), "60s").await;
    let (mut a, mut b) = (nginx.join().await, nginx.join().await);
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
    if skipped() {
        return;
    }
    // The documented 15 s and 60 s, at a twentieth.
    let limits = RouterLimits { ping: Duration::from_millis(750), ..RouterLimits::default() };
    let relay = relay(limits);
    let nginx = nginx(relay.http_addr(), "3s").await;
    let mut peer = nginx.join().await;
    for _ in 0..6 {
        let frame = peer.hear().await.expect("nginx hung up");
        assert!(matches!(Frame::parse(&frame), Ok(Frame::Ping(_))));
    }
    assert_eq!(relay.stats().sessions, 1);
}

#[tokio::test]
async fn without_pings_nginx_hangs_up_when_its_time_is_over() {
    if skipped() {
        return;
    }
    let limits = RouterLimits { ping: Duration::from_secs(3600), ..RouterLimits::default() };
    let relay = relay(limits);
    let nginx = nginx(relay.http_addr(), "1s").await;
    let mut peer = nginx.join().await;
    let ended = timeout(Duration::from_secs(10), peer.socket.next()).await.unwrap();
    assert!(ended.is_none_or(|message| message.is_err()));
}
