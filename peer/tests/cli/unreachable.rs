//! A server that is not there: ten seconds, and then one line.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use proto::ticket::ServerHint;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::refusals::ticket_at;
use crate::support::fake_server::FakeHttp;
use crate::support::{Home, key};

/// A port that refuses connections, and that nobody else gets for as long as it is held.
pub(crate) fn refusing_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// It gives the server its ten seconds, and not many more.
fn took_its_time(since: Instant) {
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(9500) && took < Duration::from_secs(25), "{took:?}");
}

#[tokio::test]
async fn a_share_whose_server_refuses_connections_gives_up_after_ten_seconds() {
    let (_held, closed) = refusing_port();
    let (home, since) = (Home::new(), Instant::now());
    let ended = home.run(&["share", "8000", "--server", &format!("http://{closed}"), "--json"]).await;
    ended.failed(3, "server-unreachable").says(&closed.to_string()).says("check");
    took_its_time(since);
}

#[tokio::test]
async fn a_share_whose_server_is_dead_over_udp_gives_up_after_ten_seconds() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let http = FakeHttp::naming(key().peer_id(), &[silent.local_addr().unwrap()]).await;
    let (home, since) = (Home::new(), Instant::now());
    let ended = home.run(&["share", "8000", "--server", &http.url(), "--json"]).await;
    ended.failed(3, "server-silent").says("UDP");
    took_its_time(since);
}

#[tokio::test]
async fn a_connector_whose_server_is_dead_gives_up_after_ten_seconds() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let hint = ServerHint {
        url: "http://127.0.0.1:1".into(),
        udp: vec![silent.local_addr().unwrap()],
        peer_id: key().peer_id(),
    };
    let (home, since) = (Home::new(), Instant::now());
    let ended = home.run(&["connect", &ticket_at(hint).to_text(), "--json"]).await;
    ended
        .failed(3, "server-silent")
        .says("UDP")
        .says("this ticket names a server on the sharer's own machine");
    took_its_time(since);
    // It was said long before.
    let warning: Value = serde_json::from_str(ended.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&warning["event"], &warning["code"]), (&"warning".into(), &"local-server-silent".into()));
}

#[tokio::test]
async fn a_url_that_is_no_culvert_server_is_said_at_once() {
    let home = Home::new();
    for (status, body, says) in [
        ("404 Not Found", "", "404"),
        ("200 OK", "<html>", "no Culvert server"),
        ("200 OK", r#"{"version":2,"peer_id":"aaaa","udp":[]}"#, "Culvert server"),
    ] {
        let (http, since) = (FakeHttp::answering(status, body).await, Instant::now());
        let ended = home.run(&["share", "8000", "--server", &http.url(), "--json"]).await;
        ended.failed(3, "server-unreachable").says(says);
        assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
    }
}
