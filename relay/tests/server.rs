//! A relay's server, from outside.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod peers;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use peers::{PATIENCE, Peer, dial, get, http, key, nobody, relay, relay_behind, until};
use proto::id::Instance;
use proto::relay::{DropReason, RouterLimits, login};
use proto::wire::relay::{Challenge, Check, Data, Denial, Frame, MAX_FRAME, SUBPROTOCOL};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn two_peers_exchange_batches_and_checks_once_they_let_each_other_in() {
    let relay = relay(RouterLimits::default());
    let (mut a, mut b) = (Peer::join(relay.http_addr()).await, Peer::join(relay.http_addr()).await);
    b.allow(a.address()).await;
    let batch = vec![0x40; 12_000];
    a.send(b.address(), &batch).await;
    let from_a = Frame::Data(Data { remote: a.address(), ecn: 0, segment: 1200, packets: &batch });
    assert_eq!(b.hear().await.unwrap(), from_a.encode());
    // Having sent, a has let b in.
    b.check(a.address(), b"stun").await;
    let from_b = Frame::Check(Check { remote: b.address(), datagram: b"stun" });
    assert_eq!(a.hear().await.unwrap(), from_b.encode());
    assert_eq!(relay.stats().forwarded_frames, 2);
}

#[tokio::test]
async fn a_flood_that_nobody_let_in_forwards_nothing() {
    let relay = relay(RouterLimits::default());
    let (mut a, mut b) = (Peer::join(relay.http_addr()).await, Peer::join(relay.http_addr()).await);
    for _ in 0..2000 {
        a.send(b.address(), &[0x40; 1200]).await;
    }
    until("the flood has arrived", || relay.stats().dropped(DropReason::Stranger) > 1000).await;
    assert_eq!(relay.stats().forwarded_bytes, 0);
    b.say(&Frame::Ping([1; 8])).await;
    assert_eq!(b.hear().await.unwrap(), Frame::Pong([1; 8]).encode());
}

#[tokio::test]
async fn a_login_with_another_relays_challenge_is_refused() {
    let relay = relay(RouterLimits::default());
    let (mut socket, _) = dial(relay.http_addr()).await;
    let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("no challenge") };
    let Ok(Frame::Challenge(challenge)) = Frame::parse(&bytes) else { panic!("no challenge") };
    assert_eq!(challenge.relay, relay.peer_id());
    let other = Challenge { relay: key().peer_id(), ..challenge };
    let login = login::answer(&other, &key(), Instance([1; 8]));
    socket.send(Message::binary(Frame::Login(login).encode())).await.unwrap();
    let Some(Ok(Message::Binary(last))) = socket.next().await else { panic!("no last word") };
    assert_eq!(last, Frame::Denied(Denial::BadLogin).encode());
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert_eq!(relay.stats().denied(Denial::BadLogin), 1);
}

#[tokio::test]
async fn only_the_same_instance_displaces_itself() {
    let relay = relay(RouterLimits::default());
    let identity = key();
    let again = || proto::key::SecretKey::from_pkcs8(identity.pkcs8()).unwrap();
    let at = relay.http_addr();
    let mut first = Peer::join_as(at, again(), Instance([1; 8])).await;
    let mut other = Peer::join_as(at, again(), Instance([2; 8])).await;
    let _second = Peer::join_as(at, again(), Instance([1; 8])).await;
    assert_eq!(first.hear().await.unwrap(), Frame::Denied(Denial::Replaced).encode());
    assert_eq!(first.hear().await, None);
    other.say(&Frame::Ping([2; 8])).await;
    assert_eq!(other.hear().await.unwrap(), Frame::Pong([2; 8]).encode());
    assert_eq!(relay.stats().sessions, 2);
}

#[tokio::test]
async fn whatever_is_no_frame_ends_its_connection_and_no_other() {
    let relay = relay(RouterLimits::default());
    let mut good = Peer::join(relay.http_addr()).await;
    let bad = [
        Message::text("text"),
        Message::binary(vec![4, 1, 2, 3]),
        Message::binary(vec![4; MAX_FRAME + 1]),
        Message::binary(Vec::new()),
    ];
    for (n, message) in bad.into_iter().enumerate() {
        let mut peer = Peer::join(relay.http_addr()).await;
        peer.socket.send(message).await.unwrap();
        while peer.hear().await.is_some() {}
        assert_eq!(relay.stats().malformed, 1 + n as u64);
    }
    // Neither do bytes that are no WebSocket.
    let (mut raw, _) = dial(relay.http_addr()).await;
    raw.get_mut().write_all(&[0xff; 100]).await.unwrap();
    while raw.next().await.is_some_and(|message| message.is_ok()) {}
    until("its session is gone", || relay.stats().connections == 1).await;
    good.say(&Frame::Ping([3; 8])).await;
    assert_eq!(good.hear().await.unwrap(), Frame::Pong([3; 8]).encode());
}

/// The status that somebody gets for whom a proxy speaks, and the connection.
async fn ask_for(at: SocketAddr, visitor: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!(
        "GET /relay HTTP/1.1\r\nHost: {at}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nX-Forwarded-For: {visitor}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_peer_counts_for_itself() {
    let one_each = RouterLimits { connections: (100, 1), ..RouterLimits::default() };
    let relay = relay_behind(&["127.0.0.0/8"], one_each);
    let mut open = Vec::new();
    for (visitor, expected) in [
        ("192.0.2.1", "101"),
        ("192.0.2.9", "429"),
        ("6.6.6.6, 198.51.100.1", "101"),
        ("198.51.100.2", "429"),
    ] {
        let (status, stream) = ask_for(relay.http_addr(), visitor).await;
        assert_eq!(status, expected, "{visitor}");
        open.push(stream);
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut_and_another_one_does_not_notice() {
    let relay = relay(RouterLimits::default());
    let at = relay.http_addr();
    let (mut a, mut slow, mut quick) = (Peer::join(at).await, Peer::join(at).await, Peer::join(at).await);
    slow.allow(a.address()).await;
    quick.allow(a.address()).await;
    let batch = vec![0x40; 60_000];
    let sent_until = tokio::time::Instant::now() + Duration::from_secs(10);
    while relay.stats().denied(Denial::Slow) == 0 {
        assert!(tokio::time::Instant::now() < sent_until, "the slow reader was never cut");
        a.send(slow.address(), &batch).await;
        a.send(quick.address(), &[0x41; 100]).await;
        assert!(quick.hear().await.unwrap().ends_with(&[0x41; 100]));
    }
    assert!(relay.stats().dropped(DropReason::DataFull) > 0);
    assert_eq!(relay.stats().sessions, 2);
}

#[tokio::test]
async fn an_idle_connection_hears_a_ping_and_is_kept() {
    let ping = Duration::from_millis(50);
    let relay = relay(RouterLimits { ping, silence: ping * 40, ..RouterLimits::default() });
    let mut peer = Peer::join(relay.http_addr()).await;
    for _ in 0..5 {
        let frame = peer.hear().await.unwrap();
        let Ok(Frame::Ping(bytes)) = Frame::parse(&frame) else { panic!("{frame:?}") };
        peer.say(&Frame::Pong(bytes)).await;
    }
    assert_eq!(relay.stats().sessions, 1);
}

#[tokio::test]
async fn a_relay_that_stops_says_when_to_come_back() {
    let relay = relay(RouterLimits::default());
    let mut peer = Peer::join(relay.http_addr()).await;
    let hears = async {
        let first = peer.hear().await.unwrap();
        (first, peer.hear().await.unwrap(), peer.hear().await)
    };
    let (heard, ()) = tokio::join!(hears, relay.shutdown());
    let last = Frame::Denied(Denial::Restarting).encode();
    assert_eq!(heard, (Frame::Restarting(500).encode(), last, None));
}

#[tokio::test]
async fn requests_that_are_no_upgrade_of_ours_are_answered_by_what_is_wrong() {
    let relay = relay(RouterLimits::default());
    let good = "GET /relay HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: other, culvert-relay-1\r\n\r\n";
    let status = async |request: String| http(relay.http_addr(), &request).await[9..12].to_owned();
    // The key and the answer are RFC 6455's own.
    let answer = http(relay.http_addr(), good).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: culvert-relay-1\r\n"), "{answer}");
    assert_eq!(status(good.replace("Upgrade: WebSocket\r\n", "")).await, "426");
    assert_eq!(status(good.replace(", Upgrade", "")).await, "426");
    assert_eq!(status(good.replace(": 13", ": 8")).await, "426");
    assert_eq!(status(good.replace("culvert-relay-1", "culvert-relay-9")).await, "400");
    assert_eq!(status(good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")).await, "400");
    assert_eq!(status(good.replace("Host: x", "Host: x\r\nOrigin: https://example.com")).await, "403");
    assert_eq!(status(good.replace("GET", "POST")).await, "405");
    assert_eq!(status(good.replace("/relay", "/other")).await, "404");
}

#[tokio::test]
async fn a_relay_that_is_full_says_so_before_the_upgrade() {
    let relay = relay(RouterLimits { connections: (1, 1), ..RouterLimits::default() });
    let _peer = Peer::join(relay.http_addr()).await;
    let request = "GET /relay HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: culvert-relay-1\r\n\r\n";
    assert!(http(relay.http_addr(), request).await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn the_metrics_tell_what_became_of_every_frame() {
    let relay = relay(RouterLimits::default());
    let mut peer = Peer::join(relay.http_addr()).await;
    peer.send(nobody(), &[0x40; 10]).await;
    assert_eq!(peer.hear().await.unwrap(), Frame::Gone(nobody()).encode());
    let metrics = get(relay.admin_addr().unwrap(), "/metrics").await;
    for line in
        ["relay_frames_dropped_total{reason=\"offline\"} 1", "relay_sessions 1", "relay_logins_total 1"]
    {
        assert!(metrics.contains(&format!("culvert_{line}\n")), "{line}\n{metrics}");
    }
    assert!(get(relay.admin_addr().unwrap(), "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_that_never_logs_in_is_ended() {
    let relay = relay(RouterLimits { login: Duration::from_millis(100), ..RouterLimits::default() });
    let (mut socket, _) = dial(relay.http_addr()).await;
    let _challenge = socket.next().await.unwrap().unwrap();
    let Some(Ok(Message::Binary(last))) = socket.next().await else { panic!("no last word") };
    assert_eq!(last, Frame::Denied(Denial::Silent).encode());
    // And one that never even speaks HTTP costs no session.
    let mut silent = TcpStream::connect(relay.http_addr()).await.unwrap();
    assert_eq!(relay.stats().connections, 0);
    drop(relay);
    let mut rest = Vec::new();
    let _ended = timeout(PATIENCE, silent.read_to_end(&mut rest)).await.unwrap();
}
