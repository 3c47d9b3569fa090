//! A localtunnel client and its local server in one: each connection to the tunnel's port goes to a function.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use relay::gateway::GatewayLimits;
use rendezvous::{Limits, Server, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, body, get, loopback, start};

/// Ends with its last connection when it is dropped.
pub(crate) struct Tunnel {
    pub(crate) name: String,
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

/// A server for `example.test`.
pub(crate) fn server(change: impl FnOnce(&mut GatewayLimits)) -> Server {
    let mut gateway = GatewayLimits::default();
    change(&mut gateway);
    start(ServerConfig {
        limits: Limits { gateway, ..Limits::default() },
        domain: "example.test".to_owned(),
        ..loopback()
    })
}

/// What the server says to who registers.
pub(crate) async fn register(server: &Server, path: &str) -> Value {
    serde_json::from_str(body(&get(server.http_addr(), path).await)).unwrap()
}

/// Registers, and holds `connections` open, each of which `serve` gets and after which there is another.
pub(crate) async fn open<F>(
    server: &Server,
    name: &str,
    connections: usize,
    serve: fn(TcpStream) -> F,
) -> Tunnel
where
    F: Future<Output = ()> + Send + 'static,
{
    let told = register(server, &format!("/{name}")).await;
    let port = u16::try_from(told["port"].as_u64().unwrap()).unwrap();
    let name = told["id"].as_str().unwrap().to_owned();
    let to = SocketAddr::new(server.http_addr().ip(), port);
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(async move {
            while let Ok(stream) = TcpStream::connect(to).await {
                serve(stream).await;
            }
        });
    }
    Tunnel { name, port, _tasks: tasks }
}

/// Reads a request's head.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}

/// Answers with the head it was asked with, as a body.
pub(crate) async fn mirror(mut stream: TcpStream) {
    let asked = head(&mut stream).await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{asked}", asked.len());
    let _gone = stream.write_all(answer.as_bytes()).await;
}

/// A visitor's connection.
pub(crate) struct Visit(pub(crate) TcpStream);

impl Visit {
    pub(crate) async fn new(server: &Server) -> Self {
        Self(TcpStream::connect(server.http_addr()).await.unwrap())
    }

    /// One from that address of this machine.
    pub(crate) async fn from(server: &Server, ip: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        Self(socket.connect(server.http_addr()).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads until what came ends so.
    pub(crate) async fn read_until(&mut self, end: &str) -> String {
        let mut came = Vec::new();
        let read = async {
            while !came.ends_with(end.as_bytes()) {
                match self.0.read_u8().await {
                    Ok(byte) => came.push(byte),
                    Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&came)),
                }
            }
        };
        assert!(tokio::time::timeout(PATIENCE, read).await.is_ok(), "no {end:?}");
        String::from_utf8(came).unwrap()
    }

    /// Reads until the end, which may be a reset.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        let _end = tokio::time::timeout(PATIENCE, read).await.expect("no end");
        String::from_utf8(rest).unwrap()
    }
}

/// Asks for a path of that name's share, on a connection of its own, and gives the whole answer.
pub(crate) async fn ask(server: &Server, name: &str, request: &str) -> String {
    let mut visit = Visit::new(server).await;
    let (line, rest) = request.split_once("\r\n").unwrap_or((request, ""));
    visit
        .send(&format!("{line} HTTP/1.1\r\nHost: {name}.example.test\r\nConnection: close\r\n{rest}\r\n"))
        .await;
    visit.rest().await
}

/// A few milliseconds, for limits that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(60);
