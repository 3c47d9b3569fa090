//! Two agents on a wire in a plain loop: no clock, no sockets.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod networks;
mod ranks;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use proto::candidate::{Candidate, CandidateKind};
use proto::path::{LinkId, Outlook, PathConfig, PathEvent, PathId, PathKind, Reason, Route, Traffic};
use proto::proof::CheckKeys;
use proto::stun::{self, Role};
use support::keys;
use wire::{CONNECTOR, SHARER, Sent, Side, Wire, path};

#[test]
fn two_open_hosts_meet_in_one_round_trip_after_the_prime() {
    let mut wire = Wire::new(40);
    wire.introduce();
    wire.run_until(|wire| wire.joined(), 5_000);
    assert!(wire.elapsed_ms() <= 60 + 40 + 25, "{} ms", wire.elapsed_ms());
    assert_eq!(wire.sides[0].route.primary, Some(path(SHARER)));
    assert_eq!(wire.sides[0].reasons, [Reason::FirstProven]);
}

#[test]
fn the_sharer_primes_up_the_ladder_and_waits_while_the_connector_who_is_told_last_does_not() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(100);
    let first =
        |side| wire.log.iter().filter(move |sent| sent.side == side).map(|sent| (sent.at_ms, sent.ttl));
    assert_eq!(first(1).take(3).collect::<Vec<_>>(), [(0, Some(2)), (0, Some(3)), (60, None)]);
    assert_eq!(first(0).take(2).collect::<Vec<_>>(), [(0, None), (20, None)]);
}

#[test]
fn whoever_is_told_of_a_new_address_checks_it_at_once_and_from_a_new_link_primes() {
    for side in 0..2 {
        let mut wire = Wire::new(40);
        wire.deaf = true;
        wire.introduce();
        wire.run_for(200);
        let now = wire.now;
        let told: SocketAddr = "192.0.2.77:7".parse().unwrap();
        wire.sides[side].agent.add_candidate(Candidate::new(CandidateKind::Reflexive, told), now);
        wire.sides[side].agent.add_link(LinkId(1), PathKind::Direct, now);
        let from = wire.log.len();
        wire.run_for(30);
        let by = |to: &dyn Fn(&Sent) -> bool| {
            wire.log[from..].iter().filter(|sent| to(sent)).map(|sent| sent.ttl).next()
        };
        assert_eq!(by(&|sent| sent.to == told && sent.link == 0), Some(None));
        assert!(matches!(by(&|sent| sent.link == 1), Some(Some(2))));
    }
}

#[test]
fn later_attempts_climb_one_rung_higher_and_leave_failed_ports_silent() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(1_100);
    let from = wire.log.len();
    let now = wire.now;
    wire.sides[1].agent.add_link(LinkId(1), PathKind::Direct, now);
    wire.run_for(1_500);
    assert!(wire.log[from..].iter().all(|sent| sent.side == 1 && sent.link == 1));
    let ttls: Vec<_> = wire.log[from..].iter().filter_map(|sent| sent.ttl).collect();
    assert_eq!(ttls, [2, 3, 4]);
}

#[test]
fn four_attempts_without_a_path_are_a_verdict_and_then_half_a_minute_of_silence() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(500);
    assert_eq!(wire.sides[0].agent.outlook(), Outlook::Trying);
    wire.run_for(9_000);
    assert!(wire.sides.iter().all(|side| side.agent.outlook() == Outlook::Unreached));
    let sent = wire.log.len();
    wire.run_for(29_000);
    assert_eq!(wire.log.len(), sent);
    wire.run_for(10_000);
    assert!(wire.log.len() > sent);
}

#[test]
fn addresses_that_a_server_saw_are_left_alone_once_they_are_ruled_out_and_no_other_port_is_asked_for() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(100);
    let now = wire.now;
    for side in &mut wire.sides {
        let private = "192.168.7.7:7".parse().unwrap();
        side.agent.add_candidate(Candidate::new(CandidateKind::Host, private), now);
        side.agent.rule_out_reflexive(now);
        assert_eq!(side.agent.outlook(), Outlook::Trying, "a private address is left");
    }
    let from = wire.log.len();
    wire.run_for(1_500);
    let private = |sent: &Sent| sent.to.to_string() == "192.168.7.7:7";
    assert!(wire.log.len() > from && wire.log[from..].iter().all(private));
    assert!(wire.sides.iter().all(|side| side.agent.outlook() == Outlook::Unreached));
    let from = wire.log.len();
    wire.run_for(60_000);
    assert!(wire.log.len() > from && wire.log[from..].iter().all(private), "and tried again, rarely");
    assert!(wire.sides.iter().all(|side| side.fresh_links == 0));
    let (from, now) = (wire.log.len(), wire.now);
    wire.sides[0].agent.handle_network_change(now);
    wire.run_for(500);
    assert!(!wire.log[from..].iter().all(private), "another network may have another NAT");
}

#[test]
fn nothing_is_left_to_try_where_a_server_saw_all_addresses() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    let now = wire.now;
    wire.sides.iter_mut().for_each(|side| side.agent.rule_out_reflexive(now));
    assert!(wire.sides.iter().all(|side| side.agent.outlook() == Outlook::Unreached));
    let from = wire.log.len();
    wire.run_for(300_000);
    assert_eq!(wire.log.len(), from);
    assert!(wire.sides.iter().all(|side| side.agent.poll_timeout().is_none()));
}

#[test]
fn a_direct_path_is_not_ruled_out_before_a_port_that_the_remotes_router_maps_was_tried() {
    let said = |side: &mut Side| {
        std::iter::from_fn(|| side.agent.poll_event()).any(|event| event == PathEvent::ReflexiveRuledOut)
    };
    for is_mapped in [false, true] {
        let mut wire = Wire::new(40);
        wire.deaf = true;
        wire.introduce();
        let now = wire.now;
        let mapped = "198.51.100.7:7".parse().unwrap();
        let side = &mut wire.sides[0];
        if is_mapped {
            side.agent.add_candidate(Candidate::new(CandidateKind::Mapped, mapped), now);
        }
        side.agent.rule_out_reflexive(now);
        assert_eq!(said(side), !is_mapped);
        if is_mapped {
            assert_eq!(side.agent.outlook(), Outlook::Trying);
            let over = std::iter::from_fn(|| {
                let at = side.agent.poll_timeout().filter(|_| side.agent.outlook() == Outlook::Trying)?;
                side.agent.handle_timeout(at);
                Some(said(side))
            });
            assert_eq!(over.filter(|said| *said).count(), 1);
        }
    }
}

#[test]
fn who_was_ruled_out_and_comes_all_the_same_is_met() {
    let mut wire = Wire::new(40);
    wire.introduce();
    let now = wire.now;
    wire.sides[0].agent.rule_out_reflexive(now);
    wire.run_until(|wire| wire.joined(), 5_000);
}

#[test]
fn a_symmetric_nat_is_met_by_answering_where_the_check_came_from() {
    // The sharer's packets to the connector leave from a port that nobody announced.
    let mut wire = Wire::new(40);
    wire.rewrite.insert((1, SHARER.parse().unwrap()), "203.0.113.9:61234".parse().unwrap());
    wire.introduce();
    wire.run_until(|wire| wire.joined(), 5_000);
    assert_eq!(wire.sides[0].route.primary, Some(path("203.0.113.9:61234")));
    assert_eq!(wire.sides[1].route.primary, Some(path(CONNECTOR)));
}

#[test]
fn a_tenth_of_loss_starves_neither_side() {
    for seed in 0..200 {
        let mut wire = Wire::new(40);
        wire.loss = Some(seed);
        wire.introduce();
        wire.run_until(|wire| wire.joined(), 5_000);
    }
}

#[test]
fn an_address_that_never_answers_gets_three_kilobytes_and_then_silence() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(3_500);
    let mut bytes: BTreeMap<(usize, SocketAddr), usize> = BTreeMap::new();
    for sent in wire.log.iter().filter(|sent| sent.at_ms <= 3_400) {
        *bytes.entry((sent.side, sent.to)).or_default() += sent.size + 28;
    }
    assert!(bytes.values().all(|bytes| *bytes <= 3000), "{bytes:?}");
    let last = wire.log.iter().map(|sent| sent.at_ms).max().unwrap();
    assert!(last < 3_000, "the last check left at {last} ms");
}

#[test]
fn an_address_that_was_learned_is_checked_no_faster_than_one_that_was_named() {
    let mut wire = Wire::joined_pair();
    // The answers go elsewhere, as where another NAT is on the way back.
    let learned: SocketAddr = "192.0.2.99:9".parse().unwrap();
    let probe = wire.sides[0].agent.probe();
    let now = wire.now;
    wire.sides[1].agent.handle_check(PathId { link: LinkId::MAIN, remote: learned }, &probe, now);
    wire.deaf = true;
    let from = wire.log.len();
    wire.run_for(500);
    let checks = wire.log[from..].iter().filter(|sent| sent.to == learned && sent.size > 90);
    let times: Vec<u64> = checks.map(|sent| sent.at_ms).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [20, 30, 45, 67, 101, 152]);
}

#[test]
fn a_connector_whose_direct_path_died_asks_for_another_exchange_if_no_check_brings_it_back() {
    let mut wire = Wire::joined_pair();
    wire.run_for(5_000);
    wire.deaf = true;
    wire.lose_direct();
    assert_eq!(wire.exchanges(), [0, 0]);
    wire.run_for(1_100);
    assert_eq!(wire.exchanges(), [1, 0], "the sharer waits for the offer");
    wire.run_for(9_000);
    assert_eq!(wire.exchanges(), [1, 0]);
    wire.run_for(60_000);
    assert_eq!(wire.exchanges(), [2, 0], "and once more with each later attempt");
}

#[test]
fn a_connector_whose_remote_moves_without_end_asks_for_an_exchange_each_five_seconds_at_the_most() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    for _ in 0..40 {
        let now = wire.now;
        wire.sides.iter_mut().for_each(|side| side.agent.handle_remote_change(now));
        wire.run_for(1_500);
    }
    let [asked, of_sharer] = wire.exchanges();
    assert!((10..=12).contains(&asked) && of_sharer == 0, "{asked} and {of_sharer}");
}

#[test]
fn an_exchange_that_follows_one_in_vain_is_followed_by_the_next_one_later() {
    let waits = [1, 2, 3].map(|exchanges| {
        let mut wire = Wire::new(40);
        for _ in 1..exchanges {
            let mut former = Wire::new(40);
            former.deaf = true;
            former.introduce();
            former.run_for(9_500);
            former.sides[0].agent.succeed(&wire.sides[0].agent);
            wire = former;
        }
        let mut last = Wire::new(40);
        last.sides[0].agent.succeed(&wire.sides[0].agent);
        last.deaf = true;
        last.introduce();
        last.run_until(|wire| wire.exchanges()[0] > 0, 200_000);
        last.elapsed_ms() / 1_000 - 9
    });
    let within = |wait: u64, least: u64| (least..=least + least / 4).contains(&wait);
    assert!(within(waits[0], 30) && within(waits[1], 60) && within(waits[2], 120), "{waits:?}");
}

#[test]
fn an_address_that_is_named_late_does_not_put_the_next_attempt_off_for_long() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(900);
    let (now, late) = (wire.now, "192.0.2.77:7".parse().unwrap());
    wire.sides[0].agent.add_candidate(Candidate::new(CandidateKind::Reflexive, late), now);
    wire.run_for(690);
    assert_eq!(wire.sides[0].fresh_links, 0, "it has its time");
    wire.run_for(20);
    assert_eq!(wire.sides[0].fresh_links, 1);
}

#[test]
fn an_attempt_that_failed_asks_for_another_port() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    wire.run_for(900);
    assert_eq!(wire.sides.iter().map(|side| side.fresh_links).sum::<u32>(), 0);
    wire.run_for(200);
    assert_eq!(wire.sides.iter().map(|side| side.fresh_links).sum::<u32>(), 2);
}

#[test]
fn a_merely_claimed_global_v6_address_gets_three_checks() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    let now = wire.now;
    let claimed = Candidate::new(CandidateKind::Host, "[2001:db8::1]:9".parse().unwrap());
    wire.sides[0].agent.add_link(LinkId::MAIN, PathKind::Direct, now);
    wire.sides[0].agent.add_candidate(claimed, now);
    wire.run_for(3_000);
    assert_eq!(wire.log.len(), 3);
}

#[test]
fn checks_keep_the_pace_however_many_pairs_there_are() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    let now = wire.now;
    wire.sides[0].agent.add_link(LinkId::MAIN, PathKind::Direct, now);
    for n in 1..=8 {
        let host = Candidate::new(CandidateKind::Host, format!("192.168.1.{n}:9").parse().unwrap());
        wire.sides[0].agent.add_candidate(host, now);
    }
    wire.run_for(3_000);
    let times: Vec<_> = wire.log.iter().map(|sent| sent.at_ms).collect();
    assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 5), "{times:?}");
}

#[test]
fn more_addresses_than_the_limit_are_ignored() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    let now = wire.now;
    wire.sides[0].agent.add_link(LinkId::MAIN, PathKind::Direct, now);
    for n in 0..1000_u16 {
        let host = Candidate::new(CandidateKind::Host, SocketAddr::from(([10, 0, 0, 1], 1000 + n)));
        wire.sides[0].agent.add_candidate(host, now);
    }
    wire.run_for(10_000);
    let targets: std::collections::BTreeSet<_> = wire.log.iter().map(|sent| sent.to).collect();
    assert_eq!(targets.len(), PathConfig::default().max_claimed);
}

#[test]
fn an_idle_pair_sends_keepalives_and_nothing_else() {
    let mut wire = Wire::joined_pair();
    wire.run_for(2_000);
    let before = wire.log.len();
    wire.run_for(600_000);
    let sent = wire.log.len() - before;
    // Each side checks every 13.5 to 15 s, and answers the other's.
    assert!((4 * 40..=4 * 46).contains(&sent), "{sent} in ten minutes");
    assert!(wire.joined());
}

#[test]
fn a_busy_path_that_falls_silent_is_checked_once_and_a_single_packet_is_not_busy() {
    for (packets, checks) in [(1, 0), (4, 1)] {
        let mut wire = Wire::joined_pair();
        // The checks of the beginning are over, the next ones far.
        wire.run_for(5_000);
        for _ in 0..packets {
            let now = wire.now;
            wire.sides[1].agent.handle_traffic(path(CONNECTOR), Traffic { sent: false, received: true }, now);
            wire.run_for(250);
        }
        let before = wire.sides[1].agent.stats().checks_sent;
        wire.run_for(5_000);
        assert_eq!(wire.sides[1].agent.stats().checks_sent - before, checks, "{packets} packets");
    }
}

#[test]
fn a_path_that_goes_dead_is_suspected_within_a_second_of_traffic_and_dropped_after_three() {
    let mut wire = Wire::joined_pair();
    wire.run_for(2_000);
    wire.deaf = true;
    let now = wire.now;
    wire.sides[0].agent.handle_traffic(path(SHARER), Traffic { sent: true, received: false }, now);
    wire.run_for(1_000);
    assert_eq!(wire.sides[0].reasons, [Reason::FirstProven, Reason::Suspect]);
    wire.run_for(3_500);
    assert_eq!(wire.sides[0].reasons.last(), Some(&Reason::Silence));
    assert_eq!(wire.sides[0].route, Route::default());
    wire.deaf = false;
    wire.run_until(|wire| wire.sides[0].route.primary.is_some(), 5_000);
}

#[test]
fn a_suspect_that_answers_recovers_without_a_switch() {
    let mut wire = Wire::joined_pair();
    wire.run_for(2_000);
    wire.deaf = true;
    let now = wire.now;
    wire.sides[0].agent.handle_traffic(path(SHARER), Traffic { sent: true, received: false }, now);
    wire.run_for(1_000);
    wire.deaf = false;
    wire.run_for(1_000);
    assert_eq!(wire.sides[0].reasons, [Reason::FirstProven, Reason::Suspect, Reason::Recovered]);
}

#[test]
fn a_faster_path_of_the_same_kind_takes_over_and_a_slightly_faster_one_does_not() {
    for (delay_ms, takes_over) in [(4, true), (38, false)] {
        let mut wire = Wire::new(40);
        wire.introduce();
        wire.run_until(|wire| wire.joined(), 5_000);
        wire.delays.insert("192.168.1.9:5000".parse().unwrap(), delay_ms);
        let now = wire.now;
        let host = Candidate::new(CandidateKind::Host, "192.168.1.9:5000".parse().unwrap());
        wire.sides[0].agent.add_candidate(host, now);
        wire.run_for(3_000);
        assert_eq!(wire.sides[0].route.primary == Some(path("192.168.1.9:5000")), takes_over);
    }
}

#[test]
fn a_primary_whose_first_answers_were_late_is_asked_again_before_another_is_called_faster() {
    let mut wire = Wire::new(118);
    wire.introduce();
    wire.run_until(|wire| wire.joined(), 5_000);
    wire.run_for(1_000);
    wire.rtt = Duration::from_millis(4);
    wire.run_for(8_000);
    wire.delays.insert("192.168.1.9:5000".parse().unwrap(), 2);
    let now = wire.now;
    let host = Candidate::new(CandidateKind::Host, "192.168.1.9:5000".parse().unwrap());
    wire.sides[0].agent.add_candidate(host, now);
    wire.run_for(3_000);
    assert_eq!(wire.sides[0].reasons, [Reason::FirstProven]);
}

#[test]
fn a_remote_that_moves_without_end_has_one_budget() {
    let mut wire = Wire::new(40);
    wire.deaf = true;
    wire.introduce();
    for _ in 0..90 {
        wire.run_for(10);
        let now = wire.now;
        wire.sides.iter_mut().for_each(|side| side.agent.handle_remote_change(now));
    }
    let bytes: usize = wire.log.iter().filter(|sent| sent.side == 1).map(|sent| sent.size + 48).sum();
    assert!(bytes <= 3_000, "{bytes}");
}

#[test]
fn a_path_of_the_exchange_before_is_tried_at_once() {
    for side in 0..2 {
        let mut wire = Wire::new(40);
        let known = path([SHARER, CONNECTOR][side]);
        let now = wire.now;
        wire.sides[side].agent.recheck(known, now);
        wire.sides[1 - side].agent.add_link(LinkId::MAIN, PathKind::Direct, now);
        wire.run_for(45);
        assert_eq!(wire.sides[side].route.primary, Some(known));
    }
}

#[test]
fn a_removed_link_takes_its_paths_along() {
    let mut wire = Wire::joined_pair();
    let now = wire.now;
    wire.sides[0].agent.remove_link(LinkId::MAIN, now);
    wire.run_for(10);
    assert_eq!(wire.sides[0].route, Route::default());
    assert_eq!(wire.sides[0].reasons.last(), Some(&Reason::LinkGone));
}

#[test]
fn checks_without_the_keys_change_nothing() {
    let mut wire = Wire::new(40);
    wire.introduce();
    let now = wire.now;
    let stranger = CheckKeys { connector: "00".into(), sharer: "00".into(), ..keys() };
    let forged = stun::check_request([1; 12], keys().username, Role::Sharer, &stranger.sharer);
    let reflected = stun::check_request([1; 12], keys().username, Role::Connector, &keys().connector);
    for datagram in [forged, reflected] {
        wire.sides[0].agent.handle_check(path("192.0.2.66:6"), &datagram, now);
    }
    assert_eq!(wire.sides[0].agent.stats().unauthenticated, 2);
    wire.run_for(3_000);
    assert!(wire.log.iter().all(|sent| sent.to != "192.0.2.66:6".parse().unwrap()));
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let run = || {
        let mut wire = Wire::new(40);
        wire.loss = Some(7);
        wire.introduce();
        wire.run_for(60_000);
        wire.log
    };
    assert_eq!(run(), run());
}
