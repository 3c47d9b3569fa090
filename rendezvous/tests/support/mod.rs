//! A server on loopback, and a client as plain as can be.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::key::SecretKey;
use proto::wire::session::{ALPN, FromServer, ToServer};
use proto::wire::signal::{Answer, Claims, Mac, Nonce, Offer, Trickle, Username, Verdict};
use proto::wire::{Deframer, VERSION, frame, parse};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TokioRuntime};
use relay::gateway::TunnelPorts;
use relay::net::OsNet;
use relay::quic::{ResetKey, endpoint_config, session_transport};
use relay::tls;
use rendezvous::{Alternate, Bind, Server, ServerConfig, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// Longer than anything here takes, and shorter than a stuck test is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A key nobody had before.
pub(crate) fn key() -> SecretKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    SecretKey::from_pkcs8(&pair.serialize_der()).unwrap()
}

/// Everything on loopback, on free ports.
pub(crate) fn loopback() -> ServerConfig {
    let any = Bind::exactly((Ipv4Addr::LOCALHOST, 0).into());
    ServerConfig {
        udp: any,
        udp_alternate: Alternate::NextPort,
        http: any,
        admin: Some(any),
        tunnel_ports: Some(TunnelPorts::ANY),
        ..ServerConfig::default()
    }
}

/// A server with this configuration.
pub(crate) fn start(config: ServerConfig) -> Server {
    try_start(config).unwrap()
}

/// The same, where an address may be taken.
pub(crate) fn try_start(config: ServerConfig) -> Result<Server, StartError> {
    Server::start(config, &key(), Arc::new(OsNet))
}

/// A QUIC endpoint with an identity.
pub(crate) struct Client {
    pub(crate) key: SecretKey,
    pub(crate) endpoint: Endpoint,
}

impl Client {
    pub(crate) fn new() -> Self {
        let key = key();
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let config = endpoint_config(&ResetKey::derive(&key, b"test"), None);
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime)).unwrap();
        Self { key, endpoint }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Dials `to`, expecting `pinned` there.
    pub(crate) async fn dial(
        &self,
        to: SocketAddr,
        pinned: PeerId,
        alpn: &[u8],
    ) -> Result<Connection, ConnectionError> {
        let mut config = ClientConfig::new(Arc::new(tls::client_config(&self.key, pinned, alpn)));
        config.transport_config(Arc::new(session_transport()));
        self.endpoint.connect_with(config, to, tls::SERVER_NAME).unwrap().await
    }

    /// A session that was welcomed.
    pub(crate) async fn session(&self, server: &Server, instance: u8) -> Session {
        self.session_at(server.udp_addrs()[0], server.peer_id(), instance).await
    }

    pub(crate) async fn session_at(&self, to: SocketAddr, pinned: PeerId, instance: u8) -> Session {
        let mut session = self.open(to, pinned).await;
        session.send(hello(instance)).await;
        let welcome = session.next().await;
        assert!(matches!(welcome, FromServer::Welcome { version: VERSION, .. }), "{welcome:?}");
        session.welcome = Some(welcome);
        session
    }

    /// A session that has said nothing yet.
    pub(crate) async fn open(&self, to: SocketAddr, pinned: PeerId) -> Session {
        let connection = self.dial(to, pinned, ALPN).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let deframer = Deframer::default();
        Session { connection, send, receive, deframer, welcome: None }
    }
}

/// One session's client side.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    pub(crate) deframer: Deframer,
    pub(crate) welcome: Option<FromServer>,
}

impl Session {
    pub(crate) async fn send(&mut self, message: ToServer) {
        self.send.write_all(&frame(&message)).await.unwrap();
    }

    /// The next message; a closed session is a failure.
    pub(crate) async fn next(&mut self) -> FromServer {
        self.try_next().await.unwrap()
    }

    pub(crate) async fn try_next(&mut self) -> Result<FromServer, ConnectionError> {
        let next = async {
            loop {
                if let Some(body) = self.deframer.next_frame().unwrap() {
                    return Ok(parse(&body).unwrap());
                }
                match self.receive.read_chunk(4096, true).await {
                    Ok(Some(chunk)) => self.deframer.push(&chunk.bytes),
                    Ok(None) | Err(_) => return Err(self.connection.closed().await),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the server says nothing")
    }

    /// Why the server closed the session.
    pub(crate) async fn closed_with(&mut self) -> u64 {
        loop {
            match self.try_next().await {
                Ok(_) => {}
                Err(ConnectionError::ApplicationClosed(close)) => return close.error_code.into_inner(),
                Err(error) => panic!("closed for another reason: {error}"),
            }
        }
    }

    pub(crate) async fn ping(&mut self, n: u32) {
        self.send(ToServer::Ping(n)).await;
        assert_eq!(self.next().await, FromServer::Pong(n));
    }

    pub(crate) async fn register(&mut self, n: u8) {
        self.send(ToServer::Register { share: share(n), nat: None }).await;
        assert_eq!(self.next().await, FromServer::Registered { share: share(n) });
    }
}

pub(crate) fn hello(instance: u8) -> ToServer {
    ToServer::Hello { version: VERSION, instance: Instance([instance; 8]), token: None }
}

pub(crate) fn share(n: u8) -> ShareId {
    ShareId([n; 8])
}

pub(crate) fn offer(n: u8, nonce: u8) -> Offer {
    Offer {
        version: VERSION,
        share: share(n),
        ticket: TicketId([1; 8]),
        nonce: Nonce([nonce; 16]),
        username: Username([2; 8]),
        challenge: None,
        claims: Claims::default(),
        mac: Mac([3; 32]),
        nat: None,
    }
}

pub(crate) fn answer(nonce: u8) -> Answer {
    Answer {
        version: VERSION,
        offer: Nonce([nonce; 16]),
        verdict: Verdict::Accepted { nonce: Nonce([9; 16]), claims: Claims::default() },
        mac: Mac([4; 32]),
        nat: None,
    }
}

pub(crate) fn trickle(nonce: u8, counter: u32) -> Trickle {
    Trickle {
        version: VERSION,
        offer: Nonce([nonce; 16]),
        counter,
        claims: Claims::default(),
        mac: Mac([5; 32]),
        nat: None,
    }
}

/// Asks over HTTP and gives the whole answer, head and body.
pub(crate) async fn http(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A connection may be reset behind the answer.
    let _end = tokio::time::timeout(PATIENCE, read).await.expect("no end of the answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> String {
    http(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")).await
}

/// The body of an answer.
pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The value of one line of the metrics.
pub(crate) async fn metric(server: &Server, line: &str) -> u64 {
    let answer = get(server.admin_addr().unwrap(), "/metrics").await;
    let value = body(&answer).lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in {answer}")).parse().unwrap()
}

/// Waits until a condition holds that has no event of its own: everything else in this runtime runs between two
/// looks.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "never happened: {what}");
}

/// A UDP socket that asks `to`.
pub(crate) async fn udp(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// The next datagram.
pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("no answer");
    buffer[..received.unwrap()].to_vec()
}
