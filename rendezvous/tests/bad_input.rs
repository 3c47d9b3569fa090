//! Random and mutated bytes on every port change nothing but counters, and a good client is served all the
//! while.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use proto::id::{Instance, PeerId};
use proto::limit::Rate;
use proto::matchmaker::MatchmakerConfig;
use proto::stun;
use proto::wire::frame;
use proto::wire::session::{ALPN, ToServer};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use rendezvous::{Limits, Server, ServerConfig};
use support::{Client, Session, answer, get, hello, http, loopback, offer, start, trickle, udp, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes to do harm with, the same in each run.
struct Dice(ChaCha12Rng);

impl Dice {
    fn new(seed: u8) -> Self {
        Self(ChaCha12Rng::from_seed([seed; 32]))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0.next_u32() as usize % limit
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(longest + 1)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// The bytes with a few flipped, cut, repeated or appended.
    fn mutate(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.extend(self.bytes(40)),
                2 => bytes.extend_from_within(at.min(bytes.len())..),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
        bytes.truncate(1400);
        bytes
    }
}

/// What a QUIC client sends first, taken from one that gets no answer.
async fn initial() -> Vec<u8> {
    let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new();
    let dialling = client.dial(trap.local_addr().unwrap(), PeerId::from_bytes([1; 32]), ALPN);
    let mut buffer = [0; 2048];
    tokio::select! {
        _ = dialling => panic!("nobody answers"),
        received = trap.recv(&mut buffer) => buffer[..received.unwrap()].to_vec(),
    }
}

async fn still_serves(server: &Server, good: &mut Session) {
    good.ping(1).await;
    Client::new().session(server, 9).await.ping(2).await;
    assert!(get(server.http_addr(), "/.well-known/culvert").await.starts_with("HTTP/1.1 200 "));
    assert!(get(server.admin_addr().unwrap(), "/healthz").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn datagrams_of_every_kind_change_only_counters() {
    let limits = Limits { handshake: Duration::from_millis(100), ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    let mut good = Client::new().session(&server, 1).await;
    let mut dice = Dice::new(1);
    let originals =
        [initial().await, stun::binding_request([7; 12]), b"echo".to_vec(), vec![0x40; 60], vec![]];
    for to in [server.udp_addrs()[0], server.udp_alternate_addrs()[0]] {
        let socket = udp(to).await;
        for round in 0..6000 {
            let datagram = if round % 2 == 0 {
                dice.bytes(1400)
            } else {
                let original = originals[dice.below(originals.len())].clone();
                dice.mutate(original)
            };
            // A socket whose answers nobody reads may be full for a moment.
            let _lost = socket.send(&datagram).await;
            if round % 500 == 0 {
                good.ping(round).await;
            }
        }
    }
    still_serves(&server, &mut good).await;
    let stats = server.stats();
    assert!(stats.udp.malformed > 1000, "{stats:?}");
    assert_eq!((stats.matchmaker.sessions_closed, stats.matchmaker.offers_forwarded), (0, 0), "{stats:?}");
    until("the good one is left", || server.stats().matchmaker.sessions == 1).await;
}

#[tokio::test]
async fn more_handshakes_than_are_let_in_pass_without_harm() {
    let limits =
        Limits { retry_above: 8, handshakes: 16, handshake: Duration::from_millis(200), ..Limits::default() };
    let server = start(ServerConfig { limits, ..loopback() });
    let mut good = Client::new().session(&server, 1).await;
    // Each from a port of its own, with an address that will never be proven.
    for _ in 0..200 {
        udp(server.udp_addrs()[0]).await.send(&initial().await).await.unwrap();
    }
    still_serves(&server, &mut good).await;
    until("those that hang are given up", || {
        let stats = server.stats();
        stats.handshakes_failed + 3 >= stats.handshakes_begun && stats.handshakes_retried > 0
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_http_change_only_counters() {
    let server = start(loopback());
    let mut good = Client::new().session(&server, 1).await;
    let mut dice = Dice::new(2);
    let request =
        b"GET /.well-known/culvert HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for to in [server.http_addr(), server.admin_addr().unwrap()] {
        for round in 0..200 {
            let bytes = if round % 2 == 0 { dice.bytes(20_000) } else { dice.mutate(request.to_vec()) };
            throw(to, &bytes).await;
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
        assert!(!http(to, &long).await.starts_with("HTTP/1.1 200"));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
        assert!(!http(to, &many).await.starts_with("HTTP/1.1 200"));
    }
    still_serves(&server, &mut good).await;
    let stats = server.stats();
    assert!(stats.http_broken > 50 && stats.gateway.bad_heads > 100, "{stats:?}");
}

/// Sends, ends, and reads whatever comes.
async fn throw(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _refused = stream.write_all(bytes).await;
    let _refused = stream.shutdown().await;
    let mut answer = Vec::new();
    let _refused = tokio::time::timeout(support::PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
}

fn messages() -> Vec<ToServer> {
    let (to, to_instance) = (PeerId::from_bytes([1; 32]), Instance([1; 8]));
    vec![
        hello(5),
        ToServer::Register { share: support::share(1), nat: None },
        ToServer::Unregister { share: support::share(1) },
        ToServer::Offer { to, offer: offer(1, 1) },
        ToServer::Answer { to, to_instance, answer: answer(1) },
        ToServer::Trickle { to, to_instance, trickle: trickle(1, 1) },
        ToServer::Ping(1),
    ]
}

#[tokio::test]
async fn frames_of_every_kind_end_no_session_but_their_own() {
    let server = start(loopback());
    let mut good = Client::new().session(&server, 1).await;
    good.register(1).await;
    let mut dice = Dice::new(3);
    let bad = Client::new();
    let messages = messages();
    for round in 0..400 {
        let mut session = if round % 4 == 0 {
            bad.open(server.udp_addrs()[0], server.peer_id()).await
        } else {
            bad.session(&server, 5).await
        };
        let bytes = match round % 3 {
            0 => dice.bytes(5000),
            1 => {
                let message = frame(&messages[dice.below(messages.len())]);
                dice.mutate(message)
            }
            _ => {
                // A frame whose length is right and whose body is not.
                let body = dice.bytes(300);
                [&(body.len() as u16).to_be_bytes()[..], &body].concat()
            }
        };
        let _closed = session.send.write_all(&bytes).await;
        let _closed = session.send.finish();
        // The server closes in any case, as the stream has ended: nothing hangs.
        tokio::time::timeout(support::PATIENCE, session.connection.closed()).await.expect("it stays open");
    }
    still_serves(&server, &mut good).await;
    let stats = server.stats();
    assert!(stats.frames_undecodable > 50 && stats.frames_too_long > 50, "{stats:?}");
    assert_eq!(stats.matchmaker.shares, 1, "only the good one's is left");
}

#[tokio::test]
async fn a_session_gets_one_stream_and_no_more() {
    let server = start(loopback());
    let mut session = Client::new().session(&server, 1).await;
    let more = async {
        tokio::select! {
            _ = session.connection.open_bi() => "a second stream",
            _ = session.connection.open_uni() => "a one-way stream",
        }
    };
    let opened = tokio::time::timeout(Duration::from_millis(100), more).await;
    assert!(opened.is_err(), "{opened:?}");
    assert!(session.connection.send_datagram(vec![1].into()).is_err());
    session.ping(1).await;
}

#[tokio::test]
async fn a_session_that_floods_is_closed_and_others_go_on() {
    let messages = Rate { burst: 100, refill: Duration::from_millis(5) };
    let matchmaker = MatchmakerConfig { messages, ..MatchmakerConfig::default() };
    let server = start(ServerConfig { matchmaker, ..loopback() });
    let mut good = Client::new().session(&server, 1).await;
    let mut flood = Client::new().session(&server, 2).await;
    let bytes: Vec<u8> = (0..2000).flat_map(|n| frame(&ToServer::Ping(n))).collect();
    let _closed = flood.send.write_all(&bytes).await;
    flood.closed_with().await;
    still_serves(&server, &mut good).await;
}
