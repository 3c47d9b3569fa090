//! A local server that takes anything for a request, and remembers how often it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    asked: Asked,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        Self { addr, asked }
    }

    /// How often each connection was asked, by the first line of its first request, at the gateway so far.
    pub(crate) fn asked(&self) -> Vec<(String, usize)> {
        self.asked.lock().unwrap().clone().into_iter().collect()
    }
}

/// Reads a request to its end, as it says it has one.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if value("transfer-encoding:").is_some() {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.ok()?);
        }
    } else if let Some(length) = value("content-length:") {
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
    }
    Some(head)
}

async fn serve(mut stream: TcpStream, asked: Asked) {
    let mut first = None;
    while let Some(head) = request(&mut stream).await {
        let line = first.get_or_insert_with(|| head.lines().next().unwrap_or_default().to_owned());
        *asked.lock().unwrap().entry(line.clone()).or_default() += 1;
        let upgraded = head.contains("\nupgrade: websocket\r");
        let answer: &[u8] = if upgraded {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
