//! One message of each kind, every field unlike its neighbours: what the pins pin and the fuzzers start from.

use proto::candidate::{Candidate, CandidateKind};
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::nat::{Allocation, Dependence, NatProfile, PortRange};
use proto::stun::{self, BindingRequest, Change, Role};
use proto::tunnel::access::{Access, Password};
use proto::wire::VERSION;
use proto::wire::gateway::{FromGateway, NotPublished, Publication, Scheme, ToGateway, Visitor};
use proto::wire::peer::{ECHO, Hello, Open, Target, TargetKind, Welcome};
use proto::wire::session::{FromServer, ToServer, Undeliverable};
use proto::wire::signal::{
    Answer, Challenge, Claims, Mac, NatHint, Nonce, Offer, Refusal, RelayHint, SealedNat, Trickle, Username,
    Verdict,
};

/// A message and what its pin is called.
pub(crate) type Named<T> = (&'static str, T);

const NONCE: Nonce = Nonce([0x22; 16]);
const SHARE: ShareId = ShareId([0x33; 8]);
const TICKET: TicketId = TicketId([0x44; 8]);
const MAC: Mac = Mac([0x55; 32]);
const INSTANCE: Instance = Instance([0x66; 8]);
const PEER: PeerId = PeerId::from_bytes([0x77; 32]);

/// The password of the checks.
pub(crate) const PASSWORD: &str = "6b65796b65796b65796b65796b657931";

fn relay() -> RelayHint {
    RelayHint { url: "https://r.example/relay".to_owned(), peer_id: PeerId::from_bytes([0x88; 32]) }
}

fn claims() -> Claims {
    let candidate = |kind, addr: &str| Candidate::new(kind, addr.parse().expect("an address"));
    Claims {
        candidates: vec![
            candidate(CandidateKind::Host, "192.168.1.2:4660"),
            candidate(CandidateKind::PeerReflexive, "198.51.100.7:300"),
            candidate(CandidateKind::Mapped, "203.0.113.9:65535"),
            candidate(CandidateKind::Reflexive, "[2001:db8::1]:22136"),
        ],
        relay: Some(relay()),
    }
}

fn offer() -> Offer {
    Offer {
        version: VERSION,
        share: SHARE,
        ticket: TICKET,
        nonce: NONCE,
        username: Username([0x99; 8]),
        challenge: Some(Challenge([0xaa; 16])),
        claims: claims(),
        mac: MAC,
        nat: None,
    }
}

fn answer(verdict: Verdict) -> Answer {
    Answer { version: VERSION, offer: NONCE, verdict, mac: MAC, nat: None }
}

fn trickle() -> Trickle {
    Trickle { version: VERSION, offer: NONCE, counter: 300, claims: claims(), mac: MAC, nat: None }
}

fn nat(allocation: Option<Allocation>, round: u8) -> NatHint {
    let profile = NatProfile { mapping: Dependence::AddressAndPortDependent, allocation, latest: 40_000 };
    NatHint { profile, round, mac: MAC }
}

/// Offers.
pub(crate) fn offers() -> Vec<Named<Offer>> {
    let bare = Offer { challenge: None, claims: Claims::default(), ..offer() };
    let told = Offer { nat: Some(nat(None, 0)), ..bare.clone() };
    vec![("offer", offer()), ("offer-bare", bare), ("offer-nat", told)]
}

/// Answers, one a verdict.
pub(crate) fn answers() -> Vec<Named<Answer>> {
    let accepted = Verdict::Accepted { nonce: Nonce([0xbb; 16]), claims: Claims::default() };
    let told = Answer { nat: Some(nat(Some(Allocation::Preserving), 0)), ..answer(accepted) };
    vec![
        ("answer-accepted", answer(Verdict::Accepted { nonce: Nonce([0xbb; 16]), claims: claims() })),
        ("answer-again", answer(Verdict::Again(Challenge([0xcc; 16])))),
        ("answer-refused", answer(Verdict::Refused(Refusal::Expired))),
        ("answer-nat", told),
    ]
}

/// Trickles.
pub(crate) fn trickles() -> Vec<Named<Trickle>> {
    let told = |allocation| Trickle { claims: Claims::default(), nat: Some(nat(allocation, 2)), ..trickle() };
    vec![
        ("trickle", trickle()),
        ("trickle-nat-unknown", told(None)),
        ("trickle-nat-preserving", told(Some(Allocation::Preserving))),
        ("trickle-nat-sequential", told(Some(Allocation::Sequential { step: -3 }))),
        ("trickle-nat-random", told(Some(Allocation::Random { range: PortRange::new(1024, 65_535) }))),
    ]
}

fn sealed() -> SealedNat {
    SealedNat { ticket: TICKET, sealed: (0..44).collect() }
}

fn forwarded(nat: Option<SealedNat>) -> FromServer {
    FromServer::Forwarded { offer: NONCE, to_instance: INSTANCE, relay: Some(relay()), nat }
}

/// Everything that a peer says to a server.
pub(crate) fn to_server() -> Vec<Named<ToServer>> {
    let (to, to_instance) = (PEER, INSTANCE);
    let refused = answer(Verdict::Refused(Refusal::Full));
    vec![
        ("hello", ToServer::Hello { version: VERSION, instance: INSTANCE, token: None }),
        (
            "hello-token",
            ToServer::Hello { version: VERSION, instance: INSTANCE, token: Some("let me in".to_owned()) },
        ),
        ("register", ToServer::Register { share: SHARE, nat: None }),
        ("register-nat", ToServer::Register { share: SHARE, nat: Some(sealed()) }),
        ("unregister", ToServer::Unregister { share: SHARE }),
        ("offer", ToServer::Offer { to, offer: offer() }),
        ("answer", ToServer::Answer { to, to_instance, answer: refused }),
        ("trickle", ToServer::Trickle { to, to_instance, trickle: trickle() }),
        ("ping", ToServer::Ping(70_000)),
        (
            "sighting",
            ToServer::Sighting { addr: "203.0.113.9:4242".parse().expect("an address"), proof: [0xdd; 32] },
        ),
    ]
}

/// Everything that a server says to a peer.
pub(crate) fn from_server() -> Vec<Named<FromServer>> {
    let (from, from_instance) = (PEER, INSTANCE);
    let observed = "203.0.113.9:4242".parse().expect("an address");
    let alternate = "[2001:db8::2]:3479".parse().expect("an address");
    let again = answer(Verdict::Again(Challenge([0xcc; 16])));
    let refused = answer(Verdict::Refused(Refusal::WrongTicket));
    vec![
        (
            "welcome",
            FromServer::Welcome {
                version: VERSION,
                observed,
                udp_alternate: vec![alternate],
                relays: vec![relay()],
            },
        ),
        ("observed", FromServer::Observed(observed)),
        ("registered", FromServer::Registered { share: SHARE }),
        ("displaced", FromServer::Displaced { share: SHARE }),
        ("forwarded", forwarded(None)),
        ("forwarded-nat", forwarded(Some(sealed()))),
        ("undelivered", FromServer::Undelivered { offer: NONCE, reason: Undeliverable::Busy }),
        ("offer", FromServer::Offer { from, from_instance, observed, offer: offer() }),
        ("answer", FromServer::Answer { from, from_instance, observed: Some(observed), answer: again }),
        ("answer-hidden", FromServer::Answer { from, from_instance, observed: None, answer: refused }),
        ("trickle", FromServer::Trickle { from, from_instance, observed, trickle: trickle() }),
        ("pong", FromServer::Pong(127)),
        ("also-seen", FromServer::AlsoSeen { from, from_instance, observed: alternate }),
    ]
}

/// The first message of two peers.
pub(crate) fn hellos() -> Vec<Named<Hello>> {
    vec![("hello", Hello { version: VERSION, share: SHARE, ticket: TICKET, instance: INSTANCE, proof: MAC })]
}

/// The answers to it.
pub(crate) fn welcomes() -> Vec<Named<Welcome>> {
    let targets =
        vec![Target { kind: TargetKind::Tcp, port: 8000 }, Target { kind: TargetKind::Udp, port: 0 }];
    vec![
        ("welcome-ready", Welcome::Ready { name: "calm-otter-lamp".to_owned(), targets }),
        ("welcome-refused", Welcome::Refused(Refusal::NotAllowed)),
    ]
}

/// What begins a visitor's stream.
pub(crate) fn opens() -> Vec<Named<Open>> {
    vec![("open", Open { target: 63 }), ("open-echo", Open { target: ECHO })]
}

/// Everything that a sharer says to a gateway.
pub(crate) fn to_gateway() -> Vec<Named<ToGateway>> {
    let password = Password::new(&SHARE, "me:secret");
    let nets = vec!["192.0.2.0/24".parse().expect("a network"), "2001:db8::/32".parse().expect("a network")];
    let publication = Publication {
        share: SHARE,
        name: "nas-at-home".to_owned(),
        signature: [0xab; 64],
        keep: true,
        host: Some("127.0.0.1:8080".to_owned()),
        access: Access::new(nets, Some(password)),
    };
    let bare = Publication { keep: false, host: None, access: Access::default(), ..publication.clone() };
    vec![
        (
            "hello",
            ToGateway::Hello { version: VERSION, instance: INSTANCE, token: Some("let me in".to_owned()) },
        ),
        ("publish", ToGateway::Publish(publication)),
        ("publish-bare", ToGateway::Publish(bare)),
        ("unpublish", ToGateway::Unpublish { share: SHARE }),
    ]
}

/// Everything that a gateway says to a sharer.
pub(crate) fn from_gateway() -> Vec<Named<FromGateway>> {
    let names = vec!["nas".to_owned(), "blog".to_owned()];
    let refused = |reason| FromGateway::Refused { share: SHARE, reason };
    vec![
        ("published", FromGateway::Published { share: SHARE, url: "http://nas.example.test".to_owned() }),
        ("refused", refused(NotPublished::Taken)),
        ("refused-names", refused(NotPublished::TooMany(names))),
        ("displaced", FromGateway::Displaced { share: SHARE }),
    ]
}

/// What begins a stream that a gateway opens.
pub(crate) fn visitors() -> Vec<Named<Visitor>> {
    let visitor = |address: &str, scheme| Visitor {
        version: VERSION,
        share: SHARE,
        address: address.parse().expect("an address"),
        scheme,
        host: "nas.example.test:8080".to_owned(),
    };
    vec![
        ("visitor", visitor("203.0.113.9", Scheme::Http)),
        ("visitor-v6", visitor("2001:db8::9", Scheme::Https)),
    ]
}

/// STUN messages of every kind that we write.
pub(crate) fn stun() -> Vec<Named<Vec<u8>>> {
    let v4 = "203.0.113.9:4242".parse().expect("an address");
    let v6 = "[2001:db8::2]:3479".parse().expect("an address");
    let request = stun::binding_request([0x11; 12]);
    let answer = BindingRequest::read(&request).expect("a request").answer(v4, Some(v4), Some(v6));
    let check = |role| stun::check_request([0x11; 12], Username([0x99; 8]), role, PASSWORD);
    vec![
        ("binding-request", request),
        ("binding-answer", answer),
        ("change-request", stun::change_request([0x11; 12], Change::PORT)),
        ("check-connector", check(Role::Connector)),
        ("check-sharer", check(Role::Sharer)),
        ("check-answer-v4", stun::check_answer([0x11; 12], v4, PASSWORD)),
        ("check-answer-v6", stun::check_answer([0x11; 12], v6, PASSWORD)),
    ]
}
