//! What strangers may not have.

use proto::admission::Admission;
use proto::tunnel::pool::PoolConfig;
use proto::wire::gateway::{FromGateway, NotPublished, ToGateway, close};
use rendezvous::{Limits, Server, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sharer::{Sharer, hello};
use crate::support::{PATIENCE, body, get, http, loopback, share, start, until};
use crate::tunnel::{SHORT, Visit, ask, head, mirror, open, register, server};

#[tokio::test]
async fn one_source_has_so_many_connections_and_is_told() {
    let server = server(|limits| (limits.connections, limits.connections_each) = (3, 2));
    let (_one, two) = (Visit::new(&server).await, Visit::new(&server).await);
    until("both are there", || server.stats().gateway.visitors == 2).await;
    let mut third = Visit::new(&server).await;
    let told = third.rest().await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("\r\nRetry-After: "), "{told}");
    drop(two);
    until("one has left", || server.stats().gateway.visitors == 1).await;
    assert!(get(server.http_addr(), "/").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(server.stats().gateway.crowded_each, 1);
}

#[tokio::test]
async fn slow_visitors_are_told_or_closed() {
    let server = server(|limits| (limits.head, limits.idle, limits.body) = (SHORT, SHORT, SHORT));
    let _tunnel = open(&server, "forwstest", 2, mirror).await;
    let mut silent = Visit::new(&server).await;
    assert_eq!(silent.rest().await, "");
    let mut slow = Visit::new(&server).await;
    slow.send("GET / HTTP/1.1\r\nHost: for").await;
    assert!(slow.rest().await.starts_with("HTTP/1.1 408 "));
    let mut idle = Visit::new(&server).await;
    idle.send("GET / HTTP/1.1\r\nHost: nobody.example.test\r\n\r\n").await;
    assert!(idle.rest().await.ends_with("Check the address.\n"));
    async fn patient(mut stream: TcpStream) {
        let mut rest = Vec::new();
        let _closed = stream.read_to_end(&mut rest).await;
    }
    let _patient = open(&server, "patient", 1, patient).await;
    let mut body = Visit::new(&server).await;
    body.send("POST / HTTP/1.1\r\nHost: patient.example.test\r\nContent-Length: 5\r\n\r\nab").await;
    assert!(body.rest().await.starts_with("HTTP/1.1 408 "));
    let stats = server.stats().gateway;
    assert_eq!((stats.slow_heads, stats.slow_bodies), (1, 1));
}

/// Visitors of four networks who begin a head and leave it at that.
async fn slow_crowd(server: &Server) -> Vec<Visit> {
    let mut crowd = Vec::new();
    for n in 0..400_u16 {
        let mut visit = Visit::from(server, [127, 0, 1 + (n % 4) as u8, 1].into()).await;
        visit.send("GET / HTTP/1.1\r\nHost: for").await;
        crowd.push(visit);
    }
    crowd
}

#[tokio::test]
async fn a_crowd_of_slow_visitors_keeps_nobody_waiting() {
    let server = server(|_| ());
    let _tunnel = open(&server, "forwstest", 2, mirror).await;
    let crowd = slow_crowd(&server).await;
    until("all are there", || server.stats().gateway.visitors == crowd.len()).await;
    for _ in 0..20 {
        assert!(ask(&server, "forwstest", "GET /").await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(server.stats().gateway.slow_heads, 0, "they were gone before it was tried");
}

#[tokio::test]
async fn a_crowd_of_slow_visitors_is_cut_at_its_limit() {
    let server = server(|limits| limits.head = SHORT);
    let crowd = slow_crowd(&server).await;
    let all = crowd.len() as u64;
    for mut visit in crowd {
        assert!(visit.rest().await.starts_with("HTTP/1.1 408 "));
    }
    assert_eq!(server.stats().gateway.slow_heads, all);
}

/// Sends for as long as somebody reads.
async fn endless(mut stream: TcpStream) {
    if head(&mut stream).await.is_empty() {
        return;
    }
    let block = [b'x'; 16 * 1024];
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    while stream.write_all(&block).await.is_ok() {}
}

#[tokio::test]
async fn who_does_not_read_is_cut() {
    let server = server(|limits| limits.blocked = SHORT);
    let _tunnel = open(&server, "forwstest", 1, endless).await;
    let mut visit = Visit::new(&server).await;
    visit.send("GET / HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n").await;
    until("it is cut", || server.stats().gateway.slow_readers == 1).await;
    until("its connection is free", || server.stats().gateway.connections == 1).await;
}

#[tokio::test]
async fn visitors_wait_for_a_busy_client_in_bounds() {
    let tunnels =
        PoolConfig { waiting: 1, busy: SHORT, tunnels: 2, tunnels_each: 2, ..PoolConfig::default() };
    let limits = Limits { tunnels, ..Limits::default() };
    let server = start(ServerConfig { limits, domain: "example.test".to_owned(), ..loopback() });
    let _tunnel = open(&server, "forwstest", 1, endless).await;
    until("it is connected", || server.stats().gateway.connections == 1).await;
    let mut busy = Visit::new(&server).await;
    busy.send("GET / HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n").await;
    busy.read_until("xxxx").await;
    let (a, b) = tokio::join!(ask(&server, "forwstest", "GET /"), ask(&server, "forwstest", "GET /"));
    for answer in [a, b] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
    }
    // Tunnels too are bounded: one that is left makes room, one that is used does not.
    let second = open(&server, "second", 1, mirror).await;
    until("it is connected", || server.stats().gateway.connections == 2).await;
    assert!(get(server.http_addr(), "/third").await.starts_with("HTTP/1.1 503 "));
    drop(second);
    until("it has left", || server.stats().gateway.connections == 1).await;
    assert_eq!(register(&server, "/third").await["id"], "third");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_visitor_and_anybody_else_does_not() {
    let trusted = ServerConfig {
        domain: "example.test".to_owned(),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        public_url: Some("https://example.test".parse().unwrap()),
        ..loopback()
    };
    let server = start(trusted);
    let asked = "GET /forwstest HTTP/1.1\r\nHost: example.test\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";
    let told: serde_json::Value = serde_json::from_str(body(&http(server.http_addr(), asked).await)).unwrap();
    assert_eq!(told["url"], "https://forwstest.example.test");
    // The tunnel is 203.0.113.9's, and this is somebody else.
    let to = (server.http_addr().ip(), u16::try_from(told["port"].as_u64().unwrap()).unwrap());
    let mut stranger = TcpStream::connect(to).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, stranger.read_u8()).await.expect("still open");
    assert!(closed.is_err());
    assert_eq!(server.stats().gateway.strangers, 1);
    let tunnel = open(&server, "other", 1, mirror).await;
    let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n";
    let seen = ask(&server, &tunnel.name, &format!("GET /\r\n{fields}")).await;
    assert!(
        seen.contains("\r\nX-Forwarded-For: 203.0.113.9, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn who_shows_nothing_has_no_place_for_long() {
    let server = server(|limits| limits.unused = SHORT);
    let mut sharer = Sharer::new(&server).await;
    assert!(matches!(sharer.publish(&server).await, FromGateway::Published { .. }));
    let mut idle = Sharer::new(&server).await;
    idle.say(&[hello()]).await;
    assert_eq!(idle.closed_with().await, u64::from(close::UNUSED));
    assert_eq!(sharer.connection.close_reason(), None, "it shows something");
    sharer.say(&[ToGateway::Unpublish { share: share(1) }]).await;
    assert_eq!(sharer.closed_with().await, u64::from(close::UNUSED));
    until("their places are free", || server.stats().gateway.sharers == 0).await;
}

#[tokio::test]
async fn who_is_not_admitted_is_told_so_and_has_no_place_for_long() {
    let mut config = ServerConfig { domain: "example.test".to_owned(), ..loopback() };
    config.limits.gateway.unused = SHORT;
    config.admission = Admission::new(Some("secret"), []);
    let server = start(config);
    let mut sharer = Sharer::new(&server).await;
    let refused = FromGateway::Refused { share: share(1), reason: NotPublished::NotAdmitted };
    assert_eq!(sharer.publish(&server).await, refused);
    assert_eq!(sharer.closed_with().await, u64::from(close::UNUSED));
}
