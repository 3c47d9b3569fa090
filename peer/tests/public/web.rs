//! A web server of a few lines, and a browser of as many.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous, soon};

/// Reads a head: everything up to its empty line.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Answers with the head that it got.
pub(crate) async fn mirror() -> Origin {
    Origin::serving("127.0.0.1", |mut stream: TcpStream| async move {
        let seen = head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len());
        let _gone = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

/// `peer share TARGET --server URL --public --json` with more.
pub(crate) fn share(home: &Home, server: &Rendezvous, target: &str, more: &[&str]) -> Program {
    let url = server.url();
    let args = [&["share", target, "--server", &url, "--public", "--json"], more].concat();
    home.spawn(&args)
}

/// Waits for `ready`.
pub(crate) async fn ready(program: &mut Program) -> Value {
    program.event("ready").await
}

/// Asks for `request`, which is a method, a path and further fields, of a name; gives the whole answer.
pub(crate) async fn ask(server: SocketAddr, name: &str, request: &str) -> String {
    let (line, fields) = request.split_once("\r\n").unwrap_or((request, ""));
    let text = format!("{line} HTTP/1.1\r\nHost: {name}.example.test\r\nConnection: close\r\n{fields}\r\n");
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _reset = soon("the answer's end", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks until an answer begins so.
pub(crate) async fn ask_until(server: SocketAddr, name: &str, start: &str) -> String {
    soon(start, async {
        loop {
            let answer = ask(server, name, "GET /").await;
            if answer.starts_with(start) {
                return answer;
            }
        }
    })
    .await
}
