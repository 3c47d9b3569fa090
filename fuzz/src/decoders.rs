//! What `proto` reads: each function takes bytes as a stranger could send them, and panics when a promise
//! about them is broken.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use proto::candidate::{Grounds, MAX_CANDIDATES, Scope, believable, canonical, scope};
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::key::SecretKey;
use proto::name::ShareName;
use proto::nat64::Nat64Prefix;
use proto::proof::{Exchange, TicketSecret};
use proto::public_udp::{ECHO, PublicUdp, PublicUdpStats, Reply};
use proto::seen::Seen;
use proto::sighting::{Notary, Proof};
use proto::stun::{self, BindingAnswer, BindingRequest, Preview, Role};
use proto::ticket::{PREFIX, Ticket};
use proto::wire::gateway::{FromGateway, ToGateway, Visitor};
use proto::wire::peer::{Hello, Open, Welcome};
use proto::wire::relay::{self, Address, BadFrame, Frame};
use proto::wire::session::{FromServer, ToServer};
use proto::wire::signal::{Answer, Claims, Mac, NatHint, Offer, Trickle};
use proto::wire::{self, Bounded, Deframer, MAX_FRAME, Malformed};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The targets here, by the names of their corpora.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("ticket", ticket),
    ("identity", identity),
    ("to_server", to_server),
    ("from_server", from_server),
    ("between_peers", between_peers),
    ("visitors", visitors),
    ("signals", signals),
    ("relay_frames", relay_frames),
    ("stun", stun),
    ("public_udp", public_udp),
    ("nat64", nat64),
];

const PASSWORD: &str = "6b65796b65796b65796b65796b657931";

/// A ticket: as a user pastes it, and its content with a checksum that fits.
pub fn ticket(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read_ticket(text);
    }
    let sum = ring::digest::digest(&ring::digest::SHA256, data);
    let sealed = [data, &sum.as_ref()[..4]].concat();
    read_ticket(&format!("{PREFIX}{}", BASE32_NOPAD.encode(&sealed).to_ascii_lowercase()));
}

fn read_ticket(text: &str) {
    match text.parse::<Ticket>() {
        Ok(ticket) => assert_eq!(ticket.to_text().parse(), Ok(ticket)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The names of peers and shares, and the file of a key.
pub fn identity(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(peer) = text.parse::<PeerId>() {
            assert_eq!(peer.to_string().parse(), Ok(peer));
            assert!(text.trim().eq_ignore_ascii_case(&peer.to_string()));
        }
        if let Ok(name) = text.parse::<ShareName>() {
            assert_eq!(name.as_str(), text);
        }
    }
    if let Ok(key) = SecretKey::from_pkcs8(data) {
        assert!(proto::key::verify(&key.peer_id(), "fuzz", data, &key.sign("fuzz", data)));
    }
}

/// What a peer says to a server. The first byte is how many bytes come at a time.
pub fn to_server(data: &[u8]) {
    stream::<ToServer>(data);
}

/// What a server says to a peer. The first byte is how many bytes come at a time.
pub fn from_server(data: &[u8]) {
    stream::<FromServer>(data);
}

/// What peers say to each other. The first byte is how many bytes come at a time.
pub fn between_peers(data: &[u8]) {
    stream::<Hello>(data);
    stream::<Welcome>(data);
    stream::<Open>(data);
}

/// What sharers and gateways say to each other. The first byte is how many bytes come at a time.
pub fn visitors(data: &[u8]) {
    stream::<ToGateway>(data);
    stream::<FromGateway>(data);
    stream::<Visitor>(data);
}

fn stream<T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug>(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = read_all::<T>(bytes, bytes.len().max(1));
    assert_eq!(whole, read_all::<T>(bytes, usize::from(*step).max(1)), "the pieces make a difference");
    for message in whole.0.iter().flatten() {
        is_sane(message);
    }
}

type ReadAll<T> = (Vec<Result<T, Malformed>>, Option<Malformed>);

/// The messages of a stream, and what ended it early.
fn read_all<T: DeserializeOwned + Bounded>(bytes: &[u8], step: usize) -> ReadAll<T> {
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        deframer.push(piece);
        loop {
            match deframer.next_frame() {
                Ok(Some(body)) => messages.push(wire::parse(&body)),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// A message that was read keeps its limits, and is read again from what it is written as.
fn is_sane<T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug>(message: &T) {
    assert_eq!(message.check_bounds(), Ok(()));
    let body = wire::body(message);
    assert!(body.len() <= MAX_FRAME, "{} bytes", body.len());
    assert_eq!(wire::parse::<T>(&body).as_ref(), Ok(message));
}

/// One message of a relay's WebSocket.
pub fn relay_frames(data: &[u8]) {
    match Frame::parse(data) {
        Ok(frame) => {
            let bytes = frame.encode();
            assert!(data.starts_with(&bytes), "it is written otherwise than it was read");
            assert_eq!(Frame::parse(&bytes), Ok(frame));
            if let Frame::Data(batch) = frame {
                assert!((1..=relay::MAX_SEGMENTS).contains(&batch.count()));
            }
            let other = Address { peer: PeerId::from_bytes([9; 32]), instance: Instance([9; 8]) };
            let mut forwarded = bytes.clone();
            relay::readdress(&mut forwarded, &other);
            assert_eq!(forwarded.len(), bytes.len());
        }
        Err(BadFrame::UnknownKind(kind)) => assert_eq!(data.first(), Some(&kind)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Offers, answers and trickles, and what is believed of them.
pub fn signals(data: &[u8]) {
    let secret = TicketSecret::from_bytes([1; 16]);
    let peer = |n| PeerId::from_bytes([n; 32]);
    let (connector, instance) = (peer(2), Instance([2; 8]));
    let (share, ticket) = (ShareId([4; 8]), TicketId([5; 8]));
    let (sharer, server) = (peer(3), peer(6));
    let exchange = Exchange { connector, connector_instance: instance, sharer, server, share, ticket };
    if let Ok(mut offer) = wire::parse::<Offer>(data) {
        is_sane(&offer);
        check_claims(&offer.claims);
        assert!(!secret.proves_offer(&exchange, &offer), "nobody guesses a MAC");
        offer.mac = secret.offer_mac(&exchange, &offer);
        assert!(secret.proves_offer(&exchange, &offer));
    }
    if let Ok(answer) = wire::parse::<Answer>(data) {
        is_sane(&answer);
        assert!(!secret.proves_answer(&exchange, instance, &answer), "nobody guesses a MAC");
    }
    if let Ok(mut trickle) = wire::parse::<Trickle>(data) {
        is_sane(&trickle);
        check_claims(&trickle.claims);
        trickle.mac = Mac([0; 32]);
        let place = (trickle.offer, trickle.counter);
        let is_proven = |hint: NatHint| secret.proves_nat(&exchange, (connector, instance), place, &hint);
        assert!(!trickle.nat.is_some_and(is_proven), "nobody guesses a MAC");
        assert!(!secret.proves_trickle(&exchange, (connector, instance), &trickle), "nobody guesses a MAC");
    }
}

fn check_claims(claims: &Claims) {
    let observed: SocketAddr = "203.0.113.9:4000".parse().expect("an address");
    for observed in [Seen::NOWHERE, Seen::at(observed)] {
        let believed = believable(&claims.candidates, &Grounds { observed, ..Grounds::default() });
        assert!(believed.len() <= MAX_CANDIDATES);
        for candidate in believed {
            assert_eq!(candidate.addr, canonical(candidate.addr));
            let strange = candidate.addr.is_ipv4() && !observed.has_ip(candidate.addr.ip());
            match scope(candidate.addr) {
                Scope::Unusable | Scope::Loopback => panic!("{candidate:?} is believed"),
                Scope::Global => assert!(!strange, "{candidate:?} is believed"),
                Scope::Local => {}
            }
        }
    }
}

/// A datagram on a port that speaks STUN: as it is, and with a header that fits it.
pub fn stun(data: &[u8]) {
    read_stun(data);
    if data.len() >= 20 {
        let mut fitted = data.to_vec();
        fitted[0] &= 3;
        fitted[2..4].copy_from_slice(&((data.len() - 20) as u16).to_be_bytes());
        fitted[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        read_stun(&fitted);
    }
}

fn read_stun(datagram: &[u8]) {
    let source: SocketAddr = "203.0.113.9:4000".parse().expect("an address");
    let seen = stun::preview(datagram);
    if seen.is_some() {
        assert!(stun::is_stun(datagram));
    }
    for role in [Role::Connector, Role::Sharer] {
        if let Some(transaction) = stun::verify_check(datagram, role, PASSWORD) {
            assert!(matches!(seen, Some(Preview::Check(_)) | None));
            assert_eq!(transaction[..], datagram[8..20]);
        }
    }
    if let Some((transaction, _)) = stun::verify_answer(datagram, PASSWORD) {
        assert_eq!(seen, Some(Preview::Answer(transaction)));
    }
    if let Some(Preview::Answer(transaction)) = seen
        && let Some(answer) = BindingAnswer::read(datagram, transaction)
    {
        assert_eq!(stun::mapped_address(datagram, transaction), Some(answer.mapped));
    }
    if let Some(request) = BindingRequest::read(datagram) {
        let answer = request.answer(source, Some(source), Some(source));
        let transaction = datagram[8..20].try_into().expect("twelve bytes");
        assert_eq!(stun::mapped_address(&answer, transaction), Some(source));
        assert_eq!(BindingRequest::read(&answer), None, "answers are not answered");
        if request.wants_proof() {
            let answer = request.answer_with_proof(source, &Proof([7; 32]));
            assert!(answer.len() <= datagram.len(), "{} for {}", answer.len(), datagram.len());
            let read = BindingAnswer::read(&answer, transaction).expect("our own answer");
            assert_eq!((read.mapped, read.proof), (source, Some(Proof([7; 32]))));
        }
    }
}

/// Datagrams to a server's UDP port: a byte that names the source, a byte of length, the datagram, and again.
pub fn public_udp(data: &[u8]) {
    let start = Instant::now() + Duration::from_secs(100_000);
    let own: SocketAddr = "203.0.113.1:3478".parse().expect("an address");
    let corners = ["203.0.113.1:3479", "203.0.113.2:3478", "203.0.113.2:3479"];
    let bound = [own].into_iter().chain(corners.map(|text| text.parse().expect("an address")));
    let bound: Vec<SocketAddr> = bound.collect();
    let mut machine = PublicUdp::new(true, bound.clone(), start).with_notary(Notary::new([3; 32], start));
    let (mut rest, mut now, mut heard) = (data, start, 0);
    while let [name, length, tail @ ..] = rest {
        let (datagram, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        now += Duration::from_millis(u64::from(*length));
        let source = source(*name);
        heard += 1;
        if let Some(Reply { payload: answer, from }) = machine.answer(datagram, source, Some(own), now) {
            assert!(source != own && scope(source) != Scope::Unusable, "{source} was answered");
            assert!(datagram == ECHO || stun::is_stun(datagram));
            assert!(answer.len() <= 120, "{} bytes", answer.len());
            assert!(from.is_none_or(|from| from != own && bound.contains(&from)), "{from:?}");
        }
    }
    let stats = machine.stats();
    let PublicUdpStats { stun_answered, stun_unchangeable, echo_answered, limited, malformed } = stats;
    assert_eq!(stun_answered + stun_unchangeable + echo_answered + limited + malformed, heard);
}

/// What a network's DNS says of the NAT64: addresses of sixteen bytes each, and the last one is to be reached.
pub fn nat64(data: &[u8]) {
    let answers: Vec<Ipv6Addr> = data.as_chunks::<16>().0.iter().map(|bytes| (*bytes).into()).collect();
    let (Some(prefix), Some(last)) = (Nat64Prefix::learn(&answers), answers.last()) else { return };
    let octets = last.octets();
    let ip = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    assert_eq!(prefix.extract(prefix.synthesise(ip)), Some(ip));
    if let Some(reached) = prefix.reach(SocketAddr::new(ip.into(), 1)) {
        assert_eq!(scope(SocketAddr::new(ip.into(), 1)), Scope::Global);
        assert!(reached.is_ipv6() && scope(reached) != Scope::Loopback, "{reached}");
    }
}

/// One of 256 addresses, of which some are none to answer to.
fn source(name: u8) -> SocketAddr {
    let text = match name {
        0 => "203.0.113.1:3478".to_owned(),
        1 => "[::ffff:203.0.113.1]:3478".to_owned(),
        2 => "0.0.0.0:1".to_owned(),
        3 => "224.0.0.1:1".to_owned(),
        4 => "198.51.100.1:0".to_owned(),
        5 => "[fe80::1]:9".to_owned(),
        6..128 => format!("198.51.100.{name}:4000"),
        128..=255 => format!("[2001:db8:{name:x}::1]:4000"),
    };
    text.parse().expect("an address")
}
