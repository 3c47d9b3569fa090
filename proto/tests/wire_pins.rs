//! The bytes of every message, pinned: programs of different ages talk to each other.

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use data_encoding::HEXLOWER;
use proto::candidate::CandidateKind;
use proto::stun::{self, Preview, Role};
use proto::wire::gateway::{NotPublished, Scheme};
use proto::wire::peer::{Hello, TargetKind, Welcome};
use proto::wire::session::{FromServer, ToServer, Undeliverable};
use proto::wire::signal::{Refusal, Username};
use proto::wire::{Bounded, MAX_FRAME, body, parse};
use samples::Named;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Compares what we write now with what `tests/pins/<file>` says we have always written.
#[track_caller]
fn check_pins(file: &str, pins: &str, written: &[Named<Vec<u8>>]) {
    let mut pinned: BTreeMap<&str, &str> =
        pins.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    for (name, bytes) in written {
        let hex = HEXLOWER.encode(bytes);
        match pinned.remove(name) {
            None => panic!("`{name}` has no pin yet; add this line to tests/pins/{file}:\n{name} {hex}"),
            Some(old) if old != hex => panic!(
                "the bytes of `{name}` changed, and programs in the field would not understand it any \
                 more.\npinned: {old}\n   now: {hex}\nPut back what changed: new variants and new fields \
                 go last. If the break is meant, raise the version, and with it this line of \
                 tests/pins/{file}."
            ),
            Some(_) => {}
        }
    }
    assert!(pinned.is_empty(), "tests/pins/{file} pins what nobody writes any more: {:?}", pinned.keys());
}

fn bodies<T: Serialize>(messages: &[Named<T>]) -> Vec<Named<Vec<u8>>> {
    messages.iter().map(|(name, message)| (*name, body(message))).collect()
}

/// That each message is read from the bytes it is written as.
#[track_caller]
fn check_reading<T: Serialize + DeserializeOwned + Bounded + PartialEq + Debug>(messages: Vec<Named<T>>) {
    for (name, message) in messages {
        assert_eq!(parse(&body(&message)).as_ref(), Ok(&message), "{name}");
    }
}

/// That the messages have every variant among them: zeroes are a body of any, so a first byte that is
/// none's is one that can't be read.
#[track_caller]
fn check_complete<T: Serialize + DeserializeOwned + Debug>(messages: &[Named<T>]) {
    let pinned: BTreeSet<u8> = messages.iter().map(|(_, message)| body(message)[0]).collect();
    // From 128 on, a varint takes two bytes.
    for tag in 0..128 {
        let mut bytes = [0; MAX_FRAME];
        bytes[0] = tag;
        if let Ok((message, _)) = postcard::take_from_bytes::<T>(&bytes) {
            assert!(pinned.contains(&tag), "there is no pin for {message:?}");
        }
    }
}

/// The variants of an enum without content, by their numbers on the wire.
fn variants<T: DeserializeOwned + Debug>() -> Vec<String> {
    (0..128).map_while(|tag| postcard::from_bytes::<T>(&[tag]).ok()).map(|it| format!("{it:?}")).collect()
}

#[test]
fn the_bytes_to_a_server_are_pinned() {
    check_pins("to_server.txt", include_str!("pins/to_server.txt"), &bodies(&samples::to_server()));
    check_complete(&samples::to_server());
    check_reading::<ToServer>(samples::to_server());
}

#[test]
fn the_bytes_from_a_server_are_pinned() {
    check_pins("from_server.txt", include_str!("pins/from_server.txt"), &bodies(&samples::from_server()));
    check_complete(&samples::from_server());
    check_reading::<FromServer>(samples::from_server());
}

#[test]
fn the_bytes_of_offers_answers_and_trickles_are_pinned() {
    let mut written = bodies(&samples::offers());
    written.extend(bodies(&samples::answers()));
    written.extend(bodies(&samples::trickles()));
    check_pins("signal.txt", include_str!("pins/signal.txt"), &written);
    check_reading(samples::offers());
    check_reading(samples::answers());
    check_reading(samples::trickles());
    let verdicts: Vec<_> = samples::answers().into_iter().map(|(name, it)| (name, it.verdict)).collect();
    check_complete(&verdicts);
}

#[test]
fn the_bytes_between_peers_are_pinned() {
    let mut written = bodies(&samples::hellos());
    written.extend(bodies(&samples::welcomes()));
    written.extend(bodies(&samples::opens()));
    check_pins("peer.txt", include_str!("pins/peer.txt"), &written);
    check_complete(&samples::welcomes());
    check_reading::<Hello>(samples::hellos());
    check_reading::<Welcome>(samples::welcomes());
    check_reading(samples::opens());
}

#[test]
fn the_bytes_between_sharers_and_gateways_are_pinned() {
    let mut written = bodies(&samples::to_gateway());
    written.extend(bodies(&samples::from_gateway()));
    written.extend(bodies(&samples::visitors()));
    check_pins("gateway.txt", include_str!("pins/gateway.txt"), &written);
    check_complete(&samples::to_gateway());
    check_complete(&samples::from_gateway());
    check_reading(samples::to_gateway());
    check_reading(samples::from_gateway());
    check_reading(samples::visitors());
}

#[test]
fn the_numbers_of_reasons_and_kinds_are_pinned() {
    assert_eq!(
        variants::<Refusal>(),
        ["WrongTicket", "Expired", "Revoked", "NotAllowed", "Full", "Version"],
        "new refusals go last"
    );
    assert_eq!(variants::<Undeliverable>(), ["Offline", "Busy"], "new reasons go last");
    assert_eq!(variants::<TargetKind>(), ["Tcp", "Udp"], "new kinds of targets go last");
    assert_eq!(variants::<Scheme>(), ["Http", "Https"], "new schemes go last");
    let reasons: Vec<_> =
        (0..128_u8).map_while(|tag| postcard::from_bytes::<NotPublished>(&[tag, 0]).ok()).collect();
    assert_eq!(
        format!("{reasons:?}"),
        "[InvalidName, Reserved, Taken, TooMany([]), Busy, BadSignature, NotAdmitted, NotKept]",
        "new reasons go last"
    );
    assert_eq!(
        variants::<CandidateKind>(),
        ["Host", "PeerReflexive", "Mapped", "Reflexive"],
        "new kinds of candidates go last"
    );
}

#[test]
fn the_bytes_of_stun_are_pinned() {
    check_pins("stun.txt", include_str!("pins/stun.txt"), &samples::stun());
}

#[test]
fn pinned_checks_are_still_believed() {
    let pinned = |wanted: &str| {
        let line = include_str!("pins/stun.txt").lines().find_map(|line| line.strip_prefix(wanted));
        HEXLOWER.decode(line.unwrap().trim().as_bytes()).unwrap()
    };
    let check = pinned("check-connector ");
    assert_eq!(stun::preview(&check), Some(Preview::Check(Username([0x99; 8]))));
    assert_eq!(stun::verify_check(&check, Role::Connector, samples::PASSWORD), Some([0x11; 12]));
    let check = pinned("check-sharer ");
    assert_eq!(stun::verify_check(&check, Role::Sharer, samples::PASSWORD), Some([0x11; 12]));
    for (name, addr) in [("check-answer-v4 ", "203.0.113.9:4242"), ("check-answer-v6 ", "[2001:db8::2]:3479")]
    {
        let answer = stun::verify_answer(&pinned(name), samples::PASSWORD);
        assert_eq!(answer, Some(([0x11; 12], addr.parse().unwrap())), "{name}");
    }
}
