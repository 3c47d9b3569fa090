//! Connections that begin at a relay, and what becomes of them.

use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::link::Quality;
use nat_sim::world::World;
use peer::endpoint::EndpointEvent;
use peer::{Error, PathPolicy};
use proto::no_udp::Cause;
use proto::path::{PathKind, Reason};
use tokio::time::{Instant, sleep, timeout};

use crate::lab::{D, GRAIN, Lab, MS, Peer, R, SEC, pair, run};
use crate::service::{self, Visitor, stalls};

const HOME: Kind = Kind::PORT_RESTRICTED;
const HARD: Kind = Kind::SYMMETRIC_RANDOM;
const BLOCKED: Kind = Kind::UdpBlocked;

/// A sharer at `b` that is registered and waits at the relay.
pub(crate) async fn sharer(lab: &Lab) -> Peer {
    let b = lab.relayed_peer("b", PathPolicy::Auto);
    service::start(&b.net());
    b.share().await.unwrap();
    // Its connection to the relay takes two round trips, as its session and registration do.
    sleep(2 * R).await;
    b
}

/// What its paths were, one after the other. That one stays is said too, and changes nothing.
pub(crate) fn kinds(peer: &Peer) -> Vec<PathKind> {
    let mut kinds: Vec<PathKind> = peer.paths().into_iter().map(|(_, report)| report.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn two_hard_nats_meet_at_the_relay() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1_000_000).await;
        assert_eq!((kinds(&a), kinds(&b)), (vec![PathKind::Relay], vec![PathKind::Relay]));
    });
}

/// From the start of a connector behind this to the first byte of an answer, over the relay alone. To the server it has R,
/// the sharer `theirs`.
fn first_answer(a: Kind, theirs: Duration) -> Duration {
    let plan = World::plan(1).home("a", a).home("b", HARD).at_server_rtt(theirs);
    run(&plan.server("s").server_rtt(R).direct_rtt(D), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let began = Instant::now();
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let begun = a.endpoint.begin(&lab.ticket()).await.unwrap();
        Visitor::fetch(&begun.early(), 8).await;
        let took = began.elapsed();
        begun.finish().await.unwrap();
        let changes = &b.endpoint.status().await.unwrap().peers[0].changes;
        let reasons: Vec<Reason> = changes.iter().map(|change| change.reason).collect();
        assert!(!reasons.contains(&Reason::LinkGone), "{reasons:?}");
        took
    })
}

#[test]
fn the_first_answer_over_the_relay_comes_after_the_round_trips_that_it_needs() {
    // R to the server each: session and relay, offer and login; then the handshake, then proof and request.
    let took = first_answer(HARD, R);
    println!("{took:?}");
    assert!(took <= 2 * R + 2 * (R + R) + 20 * MS, "{took:?}");
}

#[test]
fn without_udp_the_first_answer_comes_one_round_trip_later() {
    // The session's handshake goes through the relay. It begins with the request for that, and waits for TCP alone.
    let took = first_answer(BLOCKED, R);
    println!("{took:?}");
    assert!(took <= 3 * R + 2 * (R + R) + 20 * MS, "{took:?}");
}

#[test]
fn a_sharer_near_the_server_keeps_the_way_to_a_connector_that_is_still_on_its_own() {
    // The offer is there while the connector logs in at the relay: whoever checks the way now is told that nobody is there.
    for near in [2 * MS, D, R / 2] {
        let took = first_answer(HARD, near);
        println!("S = {near:?}: {took:?}");
        assert!(took <= 2 * R + 2 * (R + near) + 20 * MS, "S = {near:?}: {took:?}");
    }
}

#[test]
fn data_begins_at_the_relay_and_goes_on_directly() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 20_000_000).await;
        for peer in [&a, &b] {
            assert_eq!(kinds(peer).last(), Some(&PathKind::Direct));
        }
        let rtt = a.paths().last().unwrap().1.rtt;
        assert!(rtt >= D && rtt <= D + 4 * GRAIN, "{rtt:?}");
    });
}

#[test]
fn whoever_has_no_udp_at_all_has_everything_through_the_relay() {
    for (a, b) in [(BLOCKED, HOME), (HOME, BLOCKED), (BLOCKED, BLOCKED)] {
        run(&pair(1, a, b), 1, async |lab| {
            let _server = lab.server_with_relay();
            let _b = sharer(&lab).await;
            let a = lab.relayed_peer("a", PathPolicy::Auto);
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 1_000_000).await;
            assert_eq!(kinds(&a), [PathKind::Relay]);
        });
    }
}

#[test]
fn a_session_that_is_relayed_for_want_of_udp_says_so_once_and_any_other_never() {
    let heard = async |lab: &Lab, policy| {
        let _b = sharer(lab).await;
        let a = lab.relayed_peer("a", policy);
        let mut events = a.endpoint.events();
        let _connection = a.connect(&lab.ticket()).await.unwrap();
        sleep(60 * SEC).await;
        lab.world.with_world(|world| world.reboot_routers("a"));
        sleep(60 * SEC).await;
        let mut causes = Vec::new();
        while let Ok(event) = events.try_recv() {
            causes.extend(if let EndpointEvent::NoUdp(cause) = event { Some(cause) } else { None });
        }
        let status = a.endpoint.status().await.unwrap();
        assert_eq!(status.no_udp.is_some(), !causes.is_empty());
        causes
    };
    run(&pair(1, BLOCKED, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let causes = heard(&lab, PathPolicy::Auto).await;
        assert!(matches!(causes[..], [Cause::Silent { passes_elsewhere: false, .. }]), "{causes:?}");
    });
    for (a, policy) in [(HOME, PathPolicy::Auto), (BLOCKED, PathPolicy::Relay)] {
        run(&pair(1, a, HOME), 1, async |lab| {
            let _server = lab.server_with_relay();
            assert_eq!(heard(&lab, policy).await, []);
        });
    }
}

#[test]
fn where_no_udp_passes_the_error_of_a_direct_path_names_the_cause() {
    run(&pair(1, BLOCKED, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let _b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Direct);
        let error = a.connect(&lab.ticket()).await.unwrap_err().to_string();
        assert!(error.contains("does not answer: no UDP came back from the server at"), "{error}");
    });
}

#[test]
fn a_kind_of_path_can_be_forced() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let _b = sharer(&lab).await;
        for (policy, kind) in [(PathPolicy::Direct, PathKind::Direct), (PathPolicy::Relay, PathKind::Relay)] {
            let a = lab.relayed_peer("a", policy);
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 1_000_000).await;
            sleep(5 * SEC).await;
            assert_eq!(kinds(&a), [kind]);
            connection.close();
            a.endpoint.close().await;
        }
    });
}

#[test]
fn a_kind_of_path_that_cannot_be_had_is_an_error_of_its_own() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let _server = lab.server_with_relay();
        let _b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Direct);
        assert_eq!(a.connect(&lab.ticket()).await.unwrap_err(), Error::NoDirectPath);
    });
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server();
        let b = lab.peer("b", 0);
        service::start(&b.net());
        b.share().await.unwrap();
        let a = lab.relayed_peer("a", PathPolicy::Relay);
        let error = a.connect(&lab.ticket()).await.unwrap_err();
        assert!(matches!(error, Error::NoRelay(_)), "{error:?}");
    });
}

#[test]
fn nobody_waits_at_a_relay_that_the_sharer_cannot_reach() {
    for (policy, expected) in [
        (PathPolicy::Auto, Error::NoPath),
        (PathPolicy::Relay, Error::NoRelay("neither the ticket nor the peer names one")),
    ] {
        run(&pair(1, HARD, HARD), 1, async |lab| {
            let _server = lab.server_with_relay();
            let b = lab.peer_behind_proxy("b", PathPolicy::Auto);
            service::start(&b.net());
            b.share().await.unwrap();
            sleep(SEC).await;
            let a = lab.relayed_peer("a", policy);
            let began = lab.world.elapsed();
            assert_eq!(a.connect(&lab.ticket()).await.unwrap_err(), expected);
            let took = lab.world.elapsed() - began;
            println!("{took:?}: {:?}", kinds(&a));
            assert!(took < 10 * SEC, "{took:?}");
            assert_eq!(kinds(&a), []);
        });
    }
}

#[test]
fn whoever_reaches_its_relay_late_says_so_and_is_found_there() {
    for late in ["a", "b"] {
        run(&pair(1, HOME, HOME), 1, async |lab| {
            let _server = lab.server_with_relay();
            let [a, b] = ["a", "b"].map(|host| {
                let auto = PathPolicy::Auto;
                if host == late { lab.peer_behind_proxy(host, auto) } else { lab.relayed_peer(host, auto) }
            });
            service::start(&b.net());
            b.share().await.unwrap();
            sleep(SEC).await;
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 1_000_000).await;
            let _proxy = lab.proxy();
            // The longest wait between two attempts, and a little.
            sleep(35 * SEC).await;
            assert_eq!((kinds(&a), kinds(&b)), (vec![PathKind::Direct], vec![PathKind::Direct]), "{late}");
            lab.world.with_world(|world| world.cut_direct(true));
            let stall = Visitor::longest_stall(&connection, 5_000_000).await;
            println!("{late}: {stall:?}");
            assert!(stall < 1500 * MS, "{late}: {stall:?}");
            sleep(5 * SEC).await;
            assert_eq!((kinds(&a).pop(), kinds(&b).pop()), (Some(PathKind::Relay), Some(PathKind::Relay)));
        });
    }
}

#[test]
fn a_server_that_was_killed_is_missed_at_once_and_found_within_three_seconds() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let took = lab.restart(server, &b, Lab::server_with_relay).await;
        assert!(took <= 3 * SEC, "{took:?}");
    });
}

#[test]
fn a_direct_path_that_dies_stalls_a_transfer_for_less_than_two_seconds() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1_000_000).await;
        assert_eq!(kinds(&a).last(), Some(&PathKind::Direct));
        lab.world.with_world(|world| world.cut_direct(true));
        let stall = Visitor::longest_stall(&connection, 5_000_000).await;
        assert!(stall < 1500 * MS, "{stall:?}");
        sleep(5 * SEC).await;
        for peer in [&a, &b] {
            assert_eq!(kinds(peer).last(), Some(&PathKind::Relay));
        }
        // And back, once it works again.
        lab.world.with_world(|world| world.cut_direct(false));
        sleep(60 * SEC).await;
        Visitor::fetch(&connection, 1_000_000).await;
        for peer in [&a, &b] {
            assert_eq!(kinds(peer).last(), Some(&PathKind::Direct));
        }
    });
}

#[test]
fn a_direct_path_that_died_in_a_pause_is_missed_with_the_next_request_and_not_later() {
    // The counters of an idle path are read every two seconds: the request comes at any time between.
    for pause in (0..8).map(|n| 6 * SEC + n * 250 * MS) {
        run(&pair(1, HOME, HOME), 1, async |lab| {
            let _server = lab.server_with_relay();
            let _b = sharer(&lab).await;
            let a = lab.relayed_peer("a", PathPolicy::Auto);
            let connection = a.connect(&lab.ticket()).await.unwrap();
            let mut visitor = Visitor::echo(&connection).await;
            visitor.round_trip().await;
            sleep(pause).await;
            assert_eq!(kinds(&a).last(), Some(&PathKind::Direct));
            lab.world.with_world(|world| world.cut_direct(true));
            sleep(SEC).await;
            let took = visitor.round_trip().await;
            println!("a request after {pause:?}: {took:?}");
            // Suspicion at 0.3 s; QUIC repeats what was lost by then, and the relay's round trip is 2 R.
            assert!(took <= 300 * MS + 2 * R + 500 * MS, "after {pause:?}: {took:?}");
        });
    }
}

#[test]
fn an_upgrade_from_the_relay_stalls_a_transfer_for_less_than_a_round_trip() {
    let wire = Quality { rate: Some(12_500_000), queue: 500_000, ..Quality::default() };
    let plan = World::plan(1).home("a", HOME).over(wire, wire).home("b", HOME).over(wire, wire);
    run(&plan.server("s").server_rtt(R).direct_rtt(D), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let began = Instant::now() - lab.world.elapsed();
        // Until the first two attempts at a direct path are over, so that the relay is in full use by then.
        lab.world.with_world(|world| world.cut_direct(true));
        let open = async {
            sleep(3 * SEC).await;
            lab.world.with_world(|world| world.cut_direct(false));
            std::future::pending::<()>().await;
        };
        let transfer = async {
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::arrivals(&connection, 32_000_000).await
        };
        let arrivals = tokio::select! { arrivals = transfer => arrivals, () = open => unreachable!() };
        for peer in [&a, &b] {
            assert_eq!(kinds(peer)[..2], [PathKind::Relay, PathKind::Direct]);
        }
        // The sharer's is the end that sends; what it sent through the relay is on its way for R still.
        let upgraded = began + b.paths()[1].0;
        assert!(arrivals[0] + 2 * SEC < upgraded && upgraded + SEC < *arrivals.last().unwrap());
        let around = |from, to| {
            let within = stalls(&arrivals).filter(|(at, _)| (from..to).contains(at));
            within.map(|(_, stall)| stall).max().unwrap_or_default()
        };
        let (before, stall) = (around(upgraded - SEC, upgraded), around(upgraded, upgraded + SEC));
        println!("the longest stall in a second before the upgrade: {before:?}; after it: {stall:?}");
        assert!(stall < R, "{stall:?}");
    });
}

#[test]
fn a_narrow_direct_path_that_follows_the_relay_swallows_nothing() {
    let narrow = Quality { mtu: 1280, ..Quality::default() };
    let plan = World::plan(1).home("a", HOME).over(narrow, narrow).home("b", HOME).over(narrow, narrow);
    run(&plan.server("s").server_rtt(R).direct_rtt(D), 1, async |lab| {
        let _server = lab.server_with_relay();
        let _b = sharer(&lab).await;
        // Long enough at the relay for QUIC to have learned what passes there.
        lab.world.with_world(|world| world.cut_direct(true));
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 5_000_000).await;
        lab.world.with_world(|world| world.cut_direct(false));
        let stall = Visitor::longest_stall(&connection, 60_000_000).await;
        assert_eq!(kinds(&a).last(), Some(&PathKind::Direct));
        assert!(stall < 500 * MS, "{stall:?}");
    });
}

#[test]
fn a_pair_that_needs_a_guess_comes_back_to_its_direct_path_after_a_reboot_or_a_move() {
    let sequential = Kind::SYMMETRIC_SEQUENTIAL;
    for (a, b) in [(sequential, HOME), (HOME, sequential), (HOME, Kind::SYMMETRIC_RANDOM)] {
        for fault in ["a reboots", "b reboots", "b moves"] {
            let plan = World::plan(1).home("a", a).home("b", b).empty_home("elsewhere", b);
            run(&plan.server("s").server_rtt(R).direct_rtt(D), 1, async |lab| {
                let _server = lab.server_with_relay();
                let _b = sharer(&lab).await;
                let a_peer = lab.relayed_peer("a", PathPolicy::Auto);
                let connection = a_peer.connect(&lab.ticket()).await.unwrap();
                let mut visitor = Visitor::echo(&connection).await;
                becomes_direct(&a_peer, &mut visitor).await;
                let at = lab.world.elapsed();
                lab.world.with_world(|world| match fault {
                    "a reboots" => world.reboot_routers("a"),
                    "b reboots" => world.reboot_routers("b"),
                    _ => world.roam("b", "elsewhere"),
                });
                becomes_direct(&a_peer, &mut visitor).await;
                let took = lab.world.elapsed() - at;
                println!("{a} × {b}: {fault}: direct again after {took:?}");
                assert!(took <= 15 * SEC, "{a} × {b}: {fault}: {took:?}");
            });
        }
    }
}

/// Waits until what is said ten times a second is answered by a direct path, ten times on end.
async fn becomes_direct(peer: &Peer, visitor: &mut Visitor) {
    let is_direct = || peer.paths().last().is_some_and(|(_, path)| path.kind == PathKind::Direct);
    let comes = async {
        let mut answers = 0;
        while answers < 10 {
            let took = visitor.round_trip().await;
            answers = if is_direct() && took <= D + 10 * MS { answers + 1 } else { 0 };
            sleep(100 * MS).await;
        }
    };
    timeout(60 * SEC, comes).await.expect("no direct path in a minute");
}
