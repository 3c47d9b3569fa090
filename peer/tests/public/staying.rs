//! Connections to the local server that stay for their visitor's next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::origin::Origin;
use crate::support::{Home, Program, Rendezvous, soon};
use crate::web::{head, mirror, ready, share};

/// Answers each request with the number of its connection and its own on that, and `behind`; tells of connections
/// that have ended.
pub(crate) async fn numbers(behind: &'static str) -> (Origin, mpsc::UnboundedReceiver<usize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let (ended, ends) = mpsc::unbounded_channel();
    let origin = Origin::serving("127.0.0.1", move |mut stream: TcpStream| {
        let (connections, ended) = (Arc::clone(&connections), ended.clone());
        async move {
            let connection = connections.fetch_add(1, Ordering::Relaxed) + 1;
            for request in 1.. {
                if head(&mut stream).await.is_empty() {
                    break;
                }
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{connection}:{request}{behind}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            let _nobody_asks = ended.send(connection);
        }
    })
    .await;
    (origin, ends)
}

pub(crate) async fn public(server: &Rendezvous, home: &Home, origin: &Origin) -> Program {
    let mut share = share(home, server, &origin.target(), &["--name", "nas"]);
    ready(&mut share).await;
    share
}

/// A visitor's connection that asks on.
struct Visit(TcpStream);

impl Visit {
    async fn new(server: &Rendezvous) -> Self {
        Self(TcpStream::connect(server.http()).await.unwrap())
    }

    /// The content of the answer, which has a length.
    async fn ask(&mut self, line: &str, fields: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\nHost: nas.example.test\r\n{fields}\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let head = soon("an answer", head(&mut self.0)).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.split_once("Content-Length: ").unwrap().1.split_once("\r\n").unwrap().0;
        let mut content = vec![0; length.parse().unwrap()];
        soon("its content", self.0.read_exact(&mut content)).await.unwrap();
        String::from_utf8(content).unwrap()
    }
}

#[tokio::test]
async fn a_visitor_that_asks_on_has_one_connection_to_the_local_server_and_nobody_else_has_it() {
    let (server, home, (origin, _ends)) = (Rendezvous::start(), Home::new(), numbers("").await);
    let _share = public(&server, &home, &origin).await;
    let (mut one, mut other) = (Visit::new(&server).await, Visit::new(&server).await);
    assert_eq!(one.ask("GET /", "").await, "1:1");
    assert_eq!(one.ask("GET /", "").await, "1:2");
    assert_eq!(other.ask("GET /", "").await, "2:1");
    assert_eq!(one.ask("GET /", "").await, "1:3");
}

#[tokio::test]
async fn what_may_not_be_asked_twice_has_a_connection_of_its_own() {
    let (server, home, (origin, _ends)) = (Rendezvous::start(), Home::new(), numbers("").await);
    let _share = public(&server, &home, &origin).await;
    let mut visit = Visit::new(&server).await;
    assert_eq!(visit.ask("GET /", "").await, "1:1");
    assert_eq!(visit.ask("POST /", "Content-Length: 0\r\n").await, "2:1");
    assert_eq!(visit.ask("GET /", "").await, "2:2");
}

#[tokio::test]
async fn what_comes_through_a_proxy_has_a_connection_of_its_own() {
    let (server, home, (origin, _ends)) = (Rendezvous::start(), Home::new(), numbers("").await);
    let _share = public(&server, &home, &origin).await;
    let mut proxy = Visit::new(&server).await;
    for turn in 1..=3 {
        let seen = proxy.ask("GET /", "X-Forwarded-For: 192.0.2.1\r\n").await;
        assert_eq!(seen, format!("{turn}:1"));
    }
    assert_eq!(proxy.ask("GET /", "Via: 1.1 x\r\n").await, "4:1");
}

#[tokio::test]
async fn what_a_local_server_says_without_being_asked_is_no_answer() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n6:6";
    let (server, home, (origin, _ends)) = (Rendezvous::start(), Home::new(), numbers(evil).await);
    let _share = public(&server, &home, &origin).await;
    let mut visit = Visit::new(&server).await;
    for turn in 1..=3 {
        assert_eq!(visit.ask("GET /", "").await, format!("{turn}:1"));
    }
}

#[tokio::test]
async fn content_of_an_answer_that_has_none_spoils_no_later_one() {
    let (server, home) = (Rendezvous::start(), Home::new());
    // Sends what a HEAD must not have when the next request is there.
    let origin = Origin::serving("127.0.0.1", |mut stream: TcpStream| async move {
        let mut owed = "";
        loop {
            let asked = head(&mut stream).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
            let content = if asked.starts_with("HEAD") { "" } else { "whole" };
            if asked.is_empty()
                || stream.write_all(format!("{owed}{answer}{content}").as_bytes()).await.is_err()
            {
                break;
            }
            owed = if asked.starts_with("HEAD") { "owed!" } else { "" };
        }
    })
    .await;
    let _share = public(&server, &home, &origin).await;
    let mut visit = Visit::new(&server).await;
    visit.0.write_all(b"HEAD / HTTP/1.1\r\nHost: nas.example.test\r\n\r\n").await.unwrap();
    assert!(soon("an answer", head(&mut visit.0)).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(visit.ask("GET /", "").await, "whole");
}

#[tokio::test]
async fn a_local_server_that_closes_behind_each_answer_costs_no_visitor_one() {
    let (server, home, origin) = (Rendezvous::start(), Home::new(), mirror().await);
    let _share = public(&server, &home, &origin).await;
    let mut visit = Visit::new(&server).await;
    for turn in 0..50 {
        assert!(visit.ask(&format!("GET /{turn}"), "").await.starts_with(&format!("GET /{turn} ")));
    }
}

#[tokio::test]
async fn a_visitor_that_is_busy_otherwise_holds_no_connection() {
    for busy in [
        "GET / HTTP/1.1\r\nHost: nas",
        "POST / HTTP/1.1\r\nHost: nas.example.test\r\nContent-Length: 9\r\n\r\n",
    ] {
        let (server, home, (origin, mut ends)) = (Rendezvous::start(), Home::new(), numbers("").await);
        let _share = public(&server, &home, &origin).await;
        let mut visit = Visit::new(&server).await;
        assert_eq!(visit.ask("GET /", "").await, "1:1");
        visit.0.write_all(busy.as_bytes()).await.unwrap();
        // The limits of what it is busy with are 10 s and 60 s.
        let ended = tokio::time::timeout(Duration::from_secs(8), ends.recv()).await;
        assert_eq!(ended, Ok(Some(1)), "{busy}");
    }
}

#[tokio::test]
async fn a_connection_over_which_nobody_asks_is_closed_while_its_visitor_stays() {
    let (server, home, (origin, mut ends)) = (Rendezvous::start(), Home::new(), numbers("").await);
    let _share = public(&server, &home, &origin).await;
    let mut visit = Visit::new(&server).await;
    assert_eq!(visit.ask("GET /", "").await, "1:1");
    assert_eq!(soon("its end", ends.recv()).await, Some(1));
    assert_eq!(visit.ask("GET /", "").await, "2:1");
}
