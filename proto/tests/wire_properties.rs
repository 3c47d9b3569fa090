//! What holds for all messages and for all bytes: what is written is read back, and whatever comes is
//! either a message within its limits or a typed error.

use std::fmt::Debug;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proto::candidate::{Candidate, CandidateKind, MAX_CANDIDATES};
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::name::MAX_NAME;
use proto::nat::{Allocation, Dependence, NatProfile, PortRange};
use proto::wire::peer::{ECHO, Hello, MAX_TARGETS, Open, Target, TargetKind, Welcome};
use proto::wire::session::{FromServer, MAX_HINTS, MAX_TOKEN, ToServer, Undeliverable};
use proto::wire::signal::{
    Answer, Challenge, Claims, MAX_SEALED, MAX_URL, Mac, NatHint, Nonce, Offer, Refusal, RelayHint,
    SealedNat, Trickle, Username, Verdict,
};
use proto::wire::{Bounded, Deframer, MAX_FRAME, Malformed, body, frame, parse};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn addr() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn kind() -> impl Strategy<Value = CandidateKind> {
    use CandidateKind::{Host, Mapped, PeerReflexive, Reflexive};
    prop_oneof![Just(Host), Just(PeerReflexive), Just(Mapped), Just(Reflexive)]
}

fn relay() -> impl Strategy<Value = RelayHint> {
    ("[!-~]{0,200}", peer()).prop_map(|(url, peer_id)| RelayHint { url, peer_id })
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId::from_bytes)
}

fn claims() -> impl Strategy<Value = Claims> {
    let candidate = (kind(), addr()).prop_map(|(kind, addr)| Candidate { kind, addr });
    (vec(candidate, 0..=MAX_CANDIDATES), option::of(relay()))
        .prop_map(|(candidates, relay)| Claims { candidates, relay })
}

fn offer() -> impl Strategy<Value = Offer> {
    let names = any::<(u8, [u8; 8], [u8; 8], [u8; 16], [u8; 8], Option<[u8; 16]>, [u8; 32])>();
    (names, claims()).prop_map(|((version, share, ticket, nonce, username, challenge, mac), claims)| Offer {
        version,
        share: ShareId(share),
        ticket: TicketId(ticket),
        nonce: Nonce(nonce),
        username: Username(username),
        challenge: challenge.map(Challenge),
        claims,
        mac: Mac(mac),
        nat: None,
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    use Refusal::{Expired, Full, NotAllowed, Revoked, Version, WrongTicket};
    prop::sample::select(vec![WrongTicket, Expired, Revoked, NotAllowed, Full, Version])
}

fn answer() -> impl Strategy<Value = Answer> {
    let verdict = prop_oneof![
        (any::<[u8; 16]>(), claims())
            .prop_map(|(nonce, claims)| Verdict::Accepted { nonce: Nonce(nonce), claims }),
        any::<[u8; 16]>().prop_map(|bytes| Verdict::Again(Challenge(bytes))),
        refusal().prop_map(Verdict::Refused),
    ];
    (any::<(u8, [u8; 16], [u8; 32])>(), verdict).prop_map(|((version, offer, mac), verdict)| Answer {
        version,
        offer: Nonce(offer),
        verdict,
        mac: Mac(mac),
        nat: None,
    })
}

fn trickle() -> impl Strategy<Value = Trickle> {
    (any::<(u8, [u8; 16], u32, [u8; 32])>(), claims()).prop_map(|((version, offer, counter, mac), claims)| {
        Trickle { version, offer: Nonce(offer), counter, claims, mac: Mac(mac), nat: None }
    })
}

fn nat_hint() -> impl Strategy<Value = NatHint> {
    let allocation = prop_oneof![
        Just(Allocation::Preserving),
        any::<i16>().prop_map(|step| Allocation::Sequential { step }),
        any::<(u16, u16)>().prop_map(|(a, b)| Allocation::Random { range: PortRange::new(a, b) }),
    ];
    let mapping = prop::sample::select(vec![
        Dependence::EndpointIndependent,
        Dependence::AddressDependent,
        Dependence::AddressAndPortDependent,
    ]);
    (mapping, option::of(allocation), any::<(u16, u8, [u8; 32])>()).prop_map(
        |(mapping, allocation, (latest, round, mac))| NatHint {
            profile: NatProfile { mapping, allocation, latest },
            round,
            mac: Mac(mac),
        },
    )
}

fn sealed() -> impl Strategy<Value = SealedNat> {
    (any::<[u8; 8]>(), vec(any::<u8>(), 0..=MAX_SEALED))
        .prop_map(|(ticket, sealed)| SealedNat { ticket: TicketId(ticket), sealed })
}

fn to_server() -> impl Strategy<Value = ToServer> {
    let whom = || (peer(), any::<[u8; 8]>().prop_map(Instance));
    let share = || any::<[u8; 8]>().prop_map(ShareId);
    prop_oneof![
        (any::<(u8, [u8; 8])>(), option::of("[ -~]{0,256}")).prop_map(|((version, instance), token)| {
            ToServer::Hello { version, instance: Instance(instance), token }
        }),
        share().prop_map(|share| ToServer::Register { share, nat: None }),
        share().prop_map(|share| ToServer::Unregister { share }),
        (peer(), offer()).prop_map(|(to, offer)| ToServer::Offer { to, offer }),
        (whom(), answer()).prop_map(|((to, to_instance), answer)| ToServer::Answer {
            to,
            to_instance,
            answer
        }),
        (whom(), trickle()).prop_map(|((to, to_instance), trickle)| ToServer::Trickle {
            to,
            to_instance,
            trickle
        }),
        any::<u32>().prop_map(ToServer::Ping),
        (addr(), any::<[u8; 32]>()).prop_map(|(addr, proof)| ToServer::Sighting { addr, proof }),
    ]
}

fn from_server() -> impl Strategy<Value = FromServer> {
    let whom = || (peer(), any::<[u8; 8]>().prop_map(Instance));
    let share = || any::<[u8; 8]>().prop_map(ShareId);
    let nonce = || any::<[u8; 16]>().prop_map(Nonce);
    let reason = prop_oneof![Just(Undeliverable::Offline), Just(Undeliverable::Busy)];
    prop_oneof![
        (any::<u8>(), addr(), vec(addr(), 0..=MAX_HINTS), vec(relay(), 0..=MAX_HINTS)).prop_map(
            |(version, observed, udp_alternate, relays)| FromServer::Welcome {
                version,
                observed,
                udp_alternate,
                relays
            }
        ),
        addr().prop_map(FromServer::Observed),
        share().prop_map(|share| FromServer::Registered { share }),
        share().prop_map(|share| FromServer::Displaced { share }),
        (nonce(), whom(), option::of(relay())).prop_map(|(offer, (_, to_instance), relay)| {
            FromServer::Forwarded { offer, to_instance, relay, nat: None }
        }),
        (nonce(), reason).prop_map(|(offer, reason)| FromServer::Undelivered { offer, reason }),
        (whom(), addr(), offer()).prop_map(|((from, from_instance), observed, offer)| FromServer::Offer {
            from,
            from_instance,
            observed,
            offer
        }),
        (whom(), option::of(addr()), answer()).prop_map(|((from, from_instance), observed, answer)| {
            FromServer::Answer { from, from_instance, observed, answer }
        }),
        (whom(), addr(), trickle()).prop_map(|((from, from_instance), observed, trickle)| {
            FromServer::Trickle { from, from_instance, observed, trickle }
        }),
        any::<u32>().prop_map(FromServer::Pong),
        (whom(), addr()).prop_map(|((from, from_instance), observed)| FromServer::AlsoSeen {
            from,
            from_instance,
            observed
        }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let kind = prop_oneof![Just(TargetKind::Tcp), Just(TargetKind::Udp)];
    let target = (kind, any::<u16>()).prop_map(|(kind, port)| Target { kind, port });
    prop_oneof![
        ("[ -~]{0,63}", vec(target, 0..=MAX_TARGETS))
            .prop_map(|(name, targets)| Welcome::Ready { name, targets }),
        refusal().prop_map(Welcome::Refused),
    ]
}

fn is_read<T: DeserializeOwned + Bounded + PartialEq>(bytes: &[u8], message: &T) -> bool {
    parse::<T>(bytes).is_ok_and(|read| read == *message)
}

/// What keeps a message from being read back.
fn refusal_of<T: Serialize + DeserializeOwned + Bounded>(message: &T) -> Option<Malformed> {
    parse::<T>(&body(message)).err()
}

/// A message with something said at its end, cut anywhere within that, is the one that says nothing.
fn comes_whole_or_not_at_all<T>(told: &T, bare: &T, at: prop::sample::Index) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    let (bytes, least) = (body(told), body(bare).len());
    prop_assert!(is_read(&bytes, told));
    prop_assert!(is_read(&bytes[..least + at.index(bytes.len() - least)], bare));
    Ok(())
}

/// A message in its frame fits, comes out of the stream whole, and is what it was; appended bytes, as a
/// later version would send them, change nothing; and cut anywhere it is no message.
fn survives<T>(message: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    let mut deframer = Deframer::default();
    deframer.push(&frame(message));
    let bytes = deframer.next_frame().expect("it fits").expect("it is whole");
    prop_assert_eq!(deframer.next_frame(), Ok(None));
    prop_assert!(is_read(&bytes, message));
    prop_assert!(is_read(&[&bytes[..], &[7; 3]].concat(), message));
    for cut in (0..bytes.len()).rev().step_by(1 + bytes.len() / 16) {
        prop_assert_eq!(parse::<T>(&bytes[..cut]), Err(Malformed::Undecodable), "cut at {}", cut);
    }
    Ok(())
}

/// Whatever is read from these bytes keeps its limits, and is read again from what it is written as.
fn is_sane<T>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    if let Ok(message) = parse::<T>(bytes) {
        prop_assert_eq!(message.check_bounds(), Ok(()));
        prop_assert!(is_read(&body(&message), &message));
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_message_to_a_server_survives_the_wire(message in to_server()) {
        survives(&message)?;
    }

    #[test]
    fn every_message_from_a_server_survives_the_wire(message in from_server()) {
        survives(&message)?;
    }

    #[test]
    fn every_signal_survives_the_wire(offer in offer(), answer in answer(), trickle in trickle()) {
        survives(&offer)?;
        survives(&answer)?;
        survives(&trickle)?;
    }

    #[test]
    fn what_is_said_of_a_nat_comes_whole_or_not_at_all(
        (offer, answer, trickle) in (offer(), answer(), trickle()),
        hint in nat_hint(),
        at in any::<prop::sample::Index>(),
    ) {
        comes_whole_or_not_at_all(&Offer { nat: Some(hint), ..offer.clone() }, &offer, at)?;
        comes_whole_or_not_at_all(&Answer { nat: Some(hint), ..answer.clone() }, &answer, at)?;
        comes_whole_or_not_at_all(&Trickle { nat: Some(hint), ..trickle.clone() }, &trickle, at)?;
    }

    #[test]
    fn what_is_sealed_of_a_nat_comes_whole_or_not_at_all(
        nat in sealed(),
        (share, nonce, instance) in any::<([u8; 8], [u8; 16], [u8; 8])>(),
        relay in option::of(relay()),
        at in any::<prop::sample::Index>(),
    ) {
        let register = |nat| ToServer::Register { share: ShareId(share), nat };
        comes_whole_or_not_at_all(&register(Some(nat.clone())), &register(None), at)?;
        let (offer, to_instance) = (Nonce(nonce), Instance(instance));
        let forwarded = |nat| FromServer::Forwarded { offer, to_instance, relay: relay.clone(), nat };
        comes_whole_or_not_at_all(&forwarded(Some(nat)), &forwarded(None), at)?;
    }

    #[test]
    fn every_message_between_peers_survives_the_wire(
        (version, share, ticket, instance, proof) in any::<(u8, [u8; 8], [u8; 8], [u8; 8], [u8; 32])>(),
        welcome in welcome(),
        target in 0..MAX_TARGETS as u16,
    ) {
        let (share, ticket) = (ShareId(share), TicketId(ticket));
        survives(&Hello { version, share, ticket, instance: Instance(instance), proof: Mac(proof) })?;
        survives(&welcome)?;
        survives(&Open { target })?;
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..600), first in 0..12_u8) {
        // A first byte that names a variant, so that what follows it is looked at.
        let named = [&[first], &bytes[..]].concat();
        for bytes in [&bytes, &named] {
            is_sane::<ToServer>(bytes)?;
            is_sane::<FromServer>(bytes)?;
            is_sane::<Offer>(bytes)?;
            is_sane::<Answer>(bytes)?;
            is_sane::<Trickle>(bytes)?;
            is_sane::<Hello>(bytes)?;
            is_sane::<Welcome>(bytes)?;
            is_sane::<Open>(bytes)?;
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_is_a_message_or_an_error(
        to in to_server(),
        from in from_server(),
        at in any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let (mut to, mut from) = (body(&to), body(&from));
        let place = at.index(to.len());
        to[place] ^= change;
        is_sane::<ToServer>(&to)?;
        let place = at.index(from.len());
        from[place] ^= change;
        is_sane::<FromServer>(&from)?;
    }

    #[test]
    fn a_count_over_its_limit_is_refused(
        mut claims in claims(),
        extra in 1..50_usize,
        addrs in vec(addr(), MAX_HINTS + 1..40),
        offer in offer(),
    ) {
        let named = Candidate { kind: CandidateKind::Host, addr: addrs[0] };
        claims.candidates = vec![named; MAX_CANDIDATES + extra];
        let out = Some(Malformed::OutOfBounds("the number of candidates"));
        let (to, offer) = (PeerId::from_bytes([0; 32]), Offer { claims: claims.clone(), ..offer });
        let (version, nonce, mac) = (offer.version, offer.nonce, offer.mac);
        prop_assert_eq!(refusal_of(&offer), out);
        prop_assert_eq!(refusal_of(&ToServer::Offer { to, offer }), out);
        let verdict = Verdict::Accepted { nonce, claims: claims.clone() };
        prop_assert_eq!(refusal_of(&Answer { version, offer: nonce, verdict, mac, nat: None }), out);
        prop_assert_eq!(refusal_of(&Trickle { version, offer: nonce, counter: 1, claims, mac, nat: None }), out);

        let observed = addrs[0];
        let welcome = FromServer::Welcome { version, observed, udp_alternate: addrs, relays: vec![] };
        prop_assert_eq!(refusal_of(&welcome), Some(Malformed::OutOfBounds("the number of hints")));
        let targets = vec![Target { kind: TargetKind::Tcp, port: 1 }; MAX_TARGETS + extra];
        let welcome = Welcome::Ready { name: String::new(), targets };
        prop_assert_eq!(refusal_of(&welcome), Some(Malformed::OutOfBounds("the number of targets")));
        let target = (MAX_TARGETS + extra - 1) as u16;
        prop_assert_eq!(refusal_of(&Open { target: ECHO }), None);
        prop_assert_eq!(refusal_of(&Open { target }), Some(Malformed::OutOfBounds("the target")));
    }

    #[test]
    fn a_text_over_its_limit_is_refused(offer in offer(), extra in 1..200_usize) {
        let peer_id = PeerId::from_bytes([1; 32]);
        let relay = Some(RelayHint { url: "u".repeat(MAX_URL + extra), peer_id });
        let (nonce, to_instance) = (offer.nonce, Instance([1; 8]));
        let claims = Claims { relay: relay.clone(), ..Claims::default() };
        let offer = Offer { claims, ..offer };
        prop_assert_eq!(refusal_of(&offer), Some(Malformed::OutOfBounds("the relay's URL")));
        let forwarded = FromServer::Forwarded { offer: nonce, to_instance, relay, nat: None };
        prop_assert_eq!(refusal_of(&forwarded), Some(Malformed::OutOfBounds("a relay's URL")));
        let nat = Some(SealedNat { ticket: TicketId([1; 8]), sealed: vec![0; MAX_SEALED + extra] });
        let register = ToServer::Register { share: ShareId([1; 8]), nat: nat.clone() };
        prop_assert_eq!(refusal_of(&register), Some(Malformed::OutOfBounds("a sealed word")));
        let forwarded = FromServer::Forwarded { offer: nonce, to_instance, relay: None, nat };
        prop_assert_eq!(refusal_of(&forwarded), Some(Malformed::OutOfBounds("a sealed word")));
        let token = Some("t".repeat(MAX_TOKEN + extra));
        let hello = ToServer::Hello { version: 1, instance: to_instance, token };
        prop_assert_eq!(refusal_of(&hello), Some(Malformed::OutOfBounds("the token")));
        let welcome = Welcome::Ready { name: "n".repeat(MAX_NAME + extra), targets: vec![] };
        prop_assert_eq!(refusal_of(&welcome), Some(Malformed::OutOfBounds("the name")));
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    assert_eq!(parse::<Hello>(&[0; MAX_FRAME + 1]), Err(Malformed::TooLong(MAX_FRAME + 1)));
}

#[test]
fn a_count_that_the_bytes_do_not_hold_takes_no_memory_and_is_refused() {
    // `Welcome::Ready` with an empty name and 2⁶³ targets.
    let bytes = [&[0, 0][..], &[0xff; 8], &[0x7f]].concat();
    assert_eq!(parse::<Welcome>(&bytes), Err(Malformed::Undecodable));
}
