//! Bad input from everywhere: strangers' datagrams, a server's messages, a visitor's bytes.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use peer::{Endpoint, EndpointConfig};
use proto::id::{Instance, PeerId};
use proto::proof::TicketSecret;
use proto::stun;
use proto::ticket::Ticket;
use proto::wire::VERSION;
use proto::wire::session::{ALPN, FromServer, ToServer};
use proto::wire::signal::{Claims, Mac, Nonce, Offer, Refusal, Username, Verdict};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use ring::digest::{SHA256, digest};
use support::fake_server::{FakeHttp, FakeServer, FakeSession};
use support::impostor::exchange;
use support::origin::Origin;
use support::visitor::{ask, is_served, noise, ready};
use support::wire::Wire;
use support::{Home, Pair, Rendezvous, key, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How many datagrams each peer gets.
const DATAGRAMS: usize = 20_000;

/// By how much a program may grow under them, in kB.
const GROWTH: u64 = 16 << 10;

/// Makes datagrams of every kind that a stranger may send.
struct Nonsense {
    rng: ChaCha8Rng,
    /// Where random bytes are cut from.
    pool: Vec<u8>,
    /// Real packets, to play again as they were and with a bit changed.
    seen: Vec<Vec<u8>>,
}

impl Nonsense {
    fn new(seed: u64, seen: Vec<Vec<u8>>) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), pool: noise(seed, 1 << 18), seen }
    }

    fn random(&mut self, length: usize) -> Vec<u8> {
        let at = self.below(self.pool.len() - length);
        self.pool[at..at + length].to_vec()
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit
    }

    fn next(&mut self) -> Vec<u8> {
        let length = self.below(1500);
        match self.below(12) {
            0 => Vec::new(),
            1 => b"echo".to_vec(),
            2 => self.random(length),
            3 => self.with_head(length, &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42]),
            4 => self.with_head(length, &[1, 1, 0xff, 0xff, 0x21, 0x12, 0xa4, 0x42]),
            5 => self.with_head(length, &[0, 1, 0, 8]),
            6 => {
                let mut transaction = [0; 12];
                self.rng.fill_bytes(&mut transaction);
                stun::binding_request(transaction)
            }
            // QUIC's first packet, and one of a connection that stands.
            7 => self.with_head(length.max(1200), &[0xc3, 0, 0, 0, 1, 8]),
            8 => self.with_head(length, &[0x43]),
            9 if self.below(20) == 0 => self.oversized(),
            _ if self.seen.is_empty() => self.random(length),
            9 | 10 => {
                let at = self.below(self.seen.len());
                self.seen[at].clone()
            }
            _ => {
                let at = self.below(self.seen.len());
                let mut bytes = self.seen[at].clone();
                let bit = self.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            }
        }
    }

    fn with_head(&mut self, length: usize, head: &[u8]) -> Vec<u8> {
        let mut bytes = self.random(length.max(head.len()));
        bytes[..head.len()].copy_from_slice(head);
        bytes
    }

    fn oversized(&mut self) -> Vec<u8> {
        let head: &[u8] =
            if self.below(2) == 0 { &[0x43] } else { &[0, 1, 0xfd, 0xd4, 0x21, 0x12, 0xa4, 0x42] };
        self.with_head(65_000, head)
    }
}

/// Strangers' datagrams, a few at a time, so that most of them arrive.
async fn spray(to: &[SocketAddr], mut nonsense: Nonsense) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for number in 0..DATAGRAMS {
        for to in to {
            let _full = socket.send_to(&nonsense.next(), to).await;
        }
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The peer's address for somebody on this machine, whatever interface its path goes by.
fn here(path: &serde_json::Value) -> SocketAddr {
    let remote: SocketAddr = path["remote"].as_str().unwrap().parse().unwrap();
    (Ipv4Addr::LOCALHOST, remote.port()).into()
}

async fn take(at: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut bytes = Vec::new();
    soon("the transfer's end", stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_datagrams_change_nothing() {
    let file: Arc<[u8]> = noise(1, 8 << 20).into();
    let given = Arc::clone(&file);
    let origin = Origin::serving("127.0.0.1", move |mut stream| {
        let given = Arc::clone(&given);
        async move { stream.write_all(&given).await.unwrap() }
    })
    .await;
    // Each has a wire to its server, so that real packets are seen, and can come from where they came from.
    let server = Rendezvous::start();
    let (sharers, connectors) = (Wire::to(server.udp()).await, Wire::to(server.udp()).await);
    let http = FakeHttp::naming(server.peer_id(), &[sharers.addr()]).await;
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&http.url(), &origin.target());
    let mut ticket: Ticket = share.ticket().await.parse().unwrap();
    // A wire is one peer's: the connector asks a URL of its own where the server is.
    let http_of_connector = FakeHttp::naming(server.peer_id(), &[connectors.addr()]).await;
    ticket.server.url = http_of_connector.url();
    ticket.server.udp = vec![connectors.addr()];
    let mut connect = connector.connect(&ticket.to_text());
    let sharer_at = here(&connect.event("path").await);
    let connector_at = here(&share.event("path").await);
    let at = ready(&mut connect).await;
    assert!(take(at).await == *file);
    let before = (share.memory(), connect.memory());

    let seen = [sharers.seen(), connectors.seen()].concat();
    assert!(seen.len() > 20, "little was seen: {}", seen.len());
    let strangers = tokio::spawn(spray_both(sharer_at, connector_at, seen.clone()));
    let replays = async {
        let mut nonsense = Nonsense::new(3, seen);
        for _ in 0..DATAGRAMS / 10 {
            for wire in [&sharers, &connectors] {
                wire.inject(&nonsense.next()).await;
            }
            tokio::task::yield_now().await;
        }
    };
    let transfers = async {
        let mut rounds = 0;
        while rounds == 0 || !strangers.is_finished() {
            assert!(take(at).await == *file, "round {rounds}");
            rounds += 1;
        }
    };
    tokio::join!(replays, transfers);
    strangers.await.unwrap();
    assert!(take(at).await == *file);
    let after = (share.memory(), connect.memory());
    assert!(after.0 < before.0 + GROWTH && after.1 < before.1 + GROWTH, "{before:?} → {after:?} kB");
    // The sharer's session stands as well: somebody new gets in.
    ticket.server.udp = vec![server.udp()];
    let mut late = Home::new().connect(&ticket.to_text());
    assert!(take(ready(&mut late).await).await == *file);
    for program in [&mut share, &mut connect] {
        assert_eq!(program.notes(), [""; 0]);
    }
}

async fn spray_both(sharer: SocketAddr, connector: SocketAddr, seen: Vec<Vec<u8>>) {
    spray(&[sharer, connector], Nonsense::new(2, seen)).await;
}

#[tokio::test]
async fn garbage_at_the_listener_is_bytes_like_any_other() {
    let origin = Origin::echo().await;
    let pair = Pair::of(&[&origin.target()]).await;
    for length in [0, 1, 2, 3, 100, 4097, 70_000] {
        let garbage = noise(length as u64, length);
        assert!(ask(pair.at[0], &garbage).await.unwrap() == garbage, "{length}");
    }
}

/// An offer under this ticket from somebody whom the server names.
fn offer(ticket: &Ticket, from: (PeerId, Instance), nonce: u8) -> Offer {
    let mut offer = Offer {
        version: VERSION,
        share: ticket.share,
        ticket: ticket.id,
        nonce: Nonce([nonce; 16]),
        username: Username([nonce; 8]),
        challenge: None,
        claims: Claims::default(),
        mac: Mac([0; 32]),
        nat: None,
    };
    offer.mac = ticket.secret.offer_mac(&exchange(ticket, from), &offer);
    offer
}

/// Forwards an offer. Nothing is asked about the answer, if there is one.
async fn forward(session: &mut FakeSession, from: (PeerId, Instance), offer: Offer) {
    let observed = "127.0.0.1:9".parse().unwrap();
    session.send(FromServer::Offer { from: from.0, from_instance: from.1, observed, offer }).await;
}

async fn answer(session: &mut FakeSession) -> (Nonce, Verdict) {
    let message = session.next().await;
    let ToServer::Answer { answer, .. } = message else { panic!("no answer: {message:?}") };
    (answer.offer, answer.verdict)
}

/// The share's program at a server that is ours, registered.
async fn shared_at_our_server(server: &FakeServer, home: &Home) -> (support::Program, FakeSession, Ticket) {
    let mut share = home.share(&server.url(), "8000");
    let mut session = server.session().await;
    let ToServer::Register { share: id, .. } = session.next().await else { panic!("no registration") };
    session.send(FromServer::Registered { share: id }).await;
    let ticket = share.ticket().await.parse().unwrap();
    (share, session, ticket)
}

#[tokio::test]
async fn an_offer_that_comes_again_is_ignored() {
    let (server, home) = (FakeServer::start(ALPN).await, Home::new());
    let (_share, mut session, ticket) = shared_at_our_server(&server, &home).await;
    let from = (key().peer_id(), Instance([1; 8]));
    let first = offer(&ticket, from, 1);
    forward(&mut session, from, first.clone()).await;
    let (nonce, verdict) = answer(&mut session).await;
    assert!(nonce == first.nonce && matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");

    // The same bytes again, as often as the server likes, are answered by nothing: the next answer is that to
    // the next offer.
    for _ in 0..5 {
        forward(&mut session, from, first.clone()).await;
    }
    let second = offer(&ticket, from, 2);
    forward(&mut session, from, second.clone()).await;
    let (nonce, verdict) = answer(&mut session).await;
    assert!(nonce == second.nonce && matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    // Nor is it worth anything in another's name.
    let thief = (key().peer_id(), Instance([1; 8]));
    forward(&mut session, thief, offer(&ticket, from, 3)).await;
    assert_eq!(answer(&mut session).await.1, Verdict::Refused(Refusal::WrongTicket));
}

#[tokio::test]
async fn after_a_restart_an_old_offer_is_asked_to_come_again() {
    let (server, home) = (FakeServer::start(ALPN).await, Home::new());
    let (share, session, ticket) = shared_at_our_server(&server, &home).await;
    drop((share, session));
    let (_share, mut session, again) = shared_at_our_server(&server, &home).await;
    assert_eq!(again, ticket);
    let from = (key().peer_id(), Instance([1; 8]));
    let kept = offer(&ticket, from, 1);
    for _ in 0..2 {
        forward(&mut session, from, kept.clone()).await;
        assert!(matches!(answer(&mut session).await.1, Verdict::Again(_)));
    }
    // Who knows the secret can repeat the challenge under it.
    forward(&mut session, from, kept.clone()).await;
    let Verdict::Again(challenge) = answer(&mut session).await.1 else { panic!("no challenge") };
    let mut fresh = Offer { challenge: Some(challenge), nonce: Nonce([2; 16]), ..kept };
    fresh.mac = ticket.secret.offer_mac(&exchange(&ticket, from), &fresh);
    forward(&mut session, from, fresh).await;
    assert!(matches!(answer(&mut session).await.1, Verdict::Accepted { .. }));
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_left_and_tried_again() {
    let (server, home) = (FakeServer::start(ALPN).await, Home::new());
    let (_share, mut session, _) = shared_at_our_server(&server, &home).await;
    let instance = session.instance;
    for garbage in [&[0xff, 0xff, 1, 2, 3][..], &[0, 3, 0xff, 0xff, 0xff], &[0, 0]] {
        session.send_raw(garbage).await;
        session = server.session().await;
        assert_eq!(session.instance, instance, "the same process");
        assert!(matches!(session.next().await, ToServer::Register { .. }));
    }
}

#[tokio::test]
async fn a_guest_that_asks_for_what_is_not_there_is_refused_that_alone() {
    let (server, origin, home) = (Rendezvous::start(), Origin::echo().await, Home::new());
    let mut share = home.share(&server.url(), &origin.target());
    let ticket: Ticket = share.ticket().await.parse().unwrap();
    let config = EndpointConfig::new(Arc::new(key()), ticket.server.clone());
    let guest = Endpoint::bind(config, Arc::new(relay::net::OsNet)).unwrap();
    let wrong = Ticket { secret: TicketSecret::from_bytes([0; 16]), ..ticket.clone() };
    guest.connect(&wrong).await.unwrap_err();
    let connection = soon("the connection", guest.connect(&ticket)).await.unwrap();
    let (_send, mut recv) = connection.open(7).await.unwrap();
    let error = soon("the refusal", recv.read_to_end(100)).await.unwrap_err();
    let code = proto::wire::peer::close::NO_SUCH_TARGET.into();
    assert!(matches!(error, quinn::ReadToEndError::Read(quinn::ReadError::Reset(found)) if found == code));
    let (mut send, mut recv) = connection.open(0).await.unwrap();
    let file = noise(9, 100_000);
    send.write_all(&file).await.unwrap();
    send.finish().unwrap();
    let echoed = soon("the echo", recv.read_to_end(1 << 20)).await.unwrap();
    assert_eq!(digest(&SHA256, &echoed).as_ref(), digest(&SHA256, &file).as_ref());
    // Others are let in as before.
    let mut connect = Home::new().connect(&ticket.to_text());
    is_served(ready(&mut connect).await).await;
}
