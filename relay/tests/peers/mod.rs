//! A relay on loopback, and a peer as plain as can be.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use proto::id::{Instance, PeerId};
use proto::key::SecretKey;
use proto::relay::{RouterLimits, login};
use proto::wire::relay::{Address, Check, Data, Frame, SUBPROTOCOL};
use relay::listen::Bind;
use relay::net::OsNet;
use relay::standalone::{RelayConfig, StandAlone};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Response;

/// Longer than anything here takes, and shorter than a stuck test is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A key nobody had before.
pub(crate) fn key() -> SecretKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    SecretKey::from_pkcs8(&pair.serialize_der()).unwrap()
}

/// A relay on free ports of loopback.
pub(crate) fn relay(limits: RouterLimits) -> StandAlone {
    relay_behind(&[], limits)
}

/// The same, which believes these proxies.
pub(crate) fn relay_behind(trusted: &[&str], limits: RouterLimits) -> StandAlone {
    let any = Bind::exactly((Ipv4Addr::LOCALHOST, 0).into());
    let trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
    let config = RelayConfig { http: any, https: None, admin: Some(any), trusted_proxies, limits };
    StandAlone::start(config, key().peer_id(), &OsNet).unwrap()
}

/// A WebSocket to `at`, not logged in.
pub(crate) async fn dial(at: SocketAddr) -> (WebSocketStream<TcpStream>, Response<Option<Vec<u8>>>) {
    let mut request = format!("ws://{at}/relay").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
    let stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap()
}

/// A peer that says and hears frames.
pub(crate) struct Peer<T = TcpStream> {
    pub(crate) key: SecretKey,
    pub(crate) socket: WebSocketStream<T>,
    pub(crate) instance: Instance,
}

impl Peer {
    /// Logs in with a new key.
    pub(crate) async fn join(at: SocketAddr) -> Self {
        Self::join_as(at, key(), Instance([1; 8])).await
    }

    pub(crate) async fn join_as(at: SocketAddr, key: SecretKey, instance: Instance) -> Self {
        Self::log_in(dial(at).await.0, key, instance).await
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    pub(crate) async fn log_in(socket: WebSocketStream<T>, key: SecretKey, instance: Instance) -> Self {
        let mut peer = Self { key, socket, instance };
        let Frame::Challenge(challenge) = Frame::parse(&peer.hear().await.unwrap()).unwrap() else {
            panic!("no challenge")
        };
        let login = login::answer(&challenge, &peer.key, instance);
        peer.say(&Frame::Login(login)).await;
        assert_eq!(peer.hear().await.unwrap(), Frame::Welcome.encode());
        peer
    }

    pub(crate) fn address(&self) -> Address {
        Address { peer: self.key.peer_id(), instance: self.instance }
    }

    pub(crate) async fn say(&mut self, frame: &Frame<'_>) {
        self.socket.send(Message::binary(frame.encode())).await.unwrap();
    }

    pub(crate) async fn send(&mut self, to: Address, packets: &[u8]) {
        self.say(&Frame::Data(Data { remote: to, ecn: 0, segment: 1200, packets })).await;
    }

    pub(crate) async fn check(&mut self, to: Address, datagram: &[u8]) {
        self.say(&Frame::Check(Check { remote: to, datagram })).await;
    }

    pub(crate) async fn allow(&mut self, from: Address) {
        self.say(&Frame::Allow { from, seconds: 60 }).await;
        // The answer to a ping comes after the allow has had its effect.
        self.say(&Frame::Ping(*b"allowed?")).await;
        assert_eq!(self.hear().await.unwrap(), Frame::Pong(*b"allowed?").encode());
    }

    /// The next frame; none when the relay has hung up.
    pub(crate) async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.unwrap()? {
                Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// Sends `request` as it is, and gives all of the answer up to the end of the head.
pub(crate) async fn http(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            answer.truncate(end + 4);
            break;
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

/// The page at `path`.
pub(crate) async fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Nobody's address.
pub(crate) fn nobody() -> Address {
    Address { peer: PeerId::from_bytes([0x77; 32]), instance: Instance([7; 8]) }
}

/// Waits until `done`, which has no event of its own: everything else in this runtime runs between two looks.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, waited).await.is_ok(), "{what}");
}
