//! A server that does what a test wants: its HTTP side names it, its UDP side takes sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use proto::id::{Instance, PeerId};
use proto::ticket::ServerHint;
use proto::wire::session::{FromServer, ToServer};
use proto::wire::{self, Deframer, VERSION};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use relay::quic::{Addresses, ResetKey, endpoint_config, server_config, session_transport};
use relay::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{key, soon};

/// The server.
#[derive(Debug)]
pub(crate) struct FakeServer {
    peer_id: PeerId,
    udp: SocketAddr,
    endpoint: Endpoint,
    http: FakeHttp,
}

/// One peer's session, welcomed.
#[derive(Debug)]
pub(crate) struct FakeSession {
    pub(crate) peer: PeerId,
    pub(crate) instance: Instance,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    deframer: Deframer,
}

/// An HTTP side that answers every request alike.
#[derive(Debug)]
pub(crate) struct FakeHttp {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// Speaks this protocol over QUIC.
    pub(crate) async fn start(alpn: &[u8]) -> Self {
        Self::speaking(&[alpn]).await
    }

    /// Speaks these.
    pub(crate) async fn speaking(alpns: &[&[u8]]) -> Self {
        let key = key();
        let reset = ResetKey::derive(&key, b"fake");
        let tls = tls::server_config(&key, alpns);
        let config = server_config(tls, &reset, Arc::new(session_transport()), Addresses::Real);
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = socket.local_addr().unwrap();
        let endpoint =
            Endpoint::new(endpoint_config(&reset, None), Some(config), socket, Arc::new(TokioRuntime));
        let http = FakeHttp::naming(key.peer_id(), &[udp]).await;
        Self { peer_id: key.peer_id(), udp, endpoint: endpoint.unwrap(), http }
    }

    pub(crate) fn url(&self) -> String {
        self.http.url()
    }

    pub(crate) fn hint(&self) -> ServerHint {
        ServerHint { url: self.url(), udp: vec![self.udp], peer_id: self.peer_id }
    }

    /// Shakes hands with whoever comes, as far as that goes.
    pub(crate) fn accept_all(&self) -> JoinHandle<()> {
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let _ = incoming.await;
            }
        })
    }

    /// The next connection.
    pub(crate) async fn connection(&self) -> Connection {
        soon("a connection", async { self.endpoint.accept().await.unwrap().await.unwrap() }).await
    }

    /// The next peer that comes, after its hello and our welcome.
    pub(crate) async fn session(&self) -> FakeSession {
        soon("a session", async {
            let connection = self.connection().await;
            let peer = tls::peer_id(&connection).unwrap();
            let (send, recv) = connection.accept_bi().await.unwrap();
            let instance = Instance([0; 8]);
            let deframer = Deframer::default();
            let mut session = FakeSession { peer, instance, connection, send, recv, deframer };
            let ToServer::Hello { instance, .. } = session.next().await else { panic!("no hello") };
            session.instance = instance;
            let observed = session.observed();
            let welcome = FromServer::Welcome {
                version: VERSION,
                observed,
                udp_alternate: Vec::new(),
                relays: Vec::new(),
            };
            session.send(welcome).await;
            session
        })
        .await
    }
}

impl FakeSession {
    pub(crate) fn observed(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(crate) async fn send(&mut self, message: FromServer) {
        self.send.write_all(&wire::frame(&message)).await.unwrap();
    }

    /// Bytes that are no message.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// The next message. Pings are answered and passed over.
    pub(crate) async fn next(&mut self) -> ToServer {
        soon("a message", async {
            loop {
                if let Some(body) = self.deframer.next_frame().unwrap() {
                    let message = wire::parse(&body).unwrap();
                    let ToServer::Ping(n) = message else { return message };
                    self.send(FromServer::Pong(n)).await;
                    continue;
                }
                let chunk = self.recv.read_chunk(4096, true).await.unwrap().unwrap();
                self.deframer.push(&chunk.bytes);
            }
        })
        .await
    }
}

impl FakeHttp {
    /// Names a server of this identity at these UDP addresses.
    pub(crate) async fn naming(peer_id: PeerId, udp: &[SocketAddr]) -> Self {
        let document = serde_json::json!({ "version": 1, "peer_id": peer_id.to_string(), "udp": udp });
        Self::answering("200 OK", &document.to_string()).await
    }

    pub(crate) async fn answering(status: &str, body: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { addr, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for FakeHttp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
