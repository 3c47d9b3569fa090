//! Which of several networks between two peers carries the data, and how soon another one does.

use std::time::Duration;

use proto::interface::Rank;
use proto::path::{LinkId, PathKind};

use crate::networks::Networks;

const LAN: [&str; 2] = ["192.168.1.10:4000", "192.168.1.11:5000"];
const PUBLIC: [&str; 2] = ["198.51.100.7:4000", "203.0.113.9:5000"];
const OVERLAY: [&str; 2] = ["10.147.17.1:4000", "10.147.17.2:5000"];

#[test]
fn an_overlay_that_answers_first_is_left_as_soon_as_a_better_path_is_proven_and_never_taken_again() {
    for (addrs, rank) in [(LAN, Rank::Lan), (PUBLIC, Rank::Public)] {
        let mut net = Networks::new();
        let overlay = net.network(OVERLAY, [Rank::Overlay; 2], 1);
        net.name(overlay);
        net.run_for(300);
        assert_eq!(net.primaries(), [Some(overlay); 2]);
        net.begin_data();
        let better = net.network(addrs, [rank; 2], 40);
        net.name(better);
        net.run_for(100);
        assert_eq!(net.primaries(), [Some(better); 2]);
        net.run_for(600_000);
        assert_eq!(net.primaries(), [Some(better); 2]);
        assert_eq!(net.changes(), [2; 2]);
    }
}

#[test]
fn an_overlay_that_is_named_beside_a_lan_carries_nothing_for_longer_than_a_second() {
    for rtt_ms in [1, 40, 300] {
        let mut net = Networks::new();
        let overlay = net.network(OVERLAY, [Rank::Overlay; 2], 1);
        let lan = net.network(LAN, [Rank::Lan; 2], rtt_ms);
        net.name(overlay);
        net.name(lan);
        net.begin_data();
        net.run_for(1_000);
        assert_eq!(net.primaries(), [Some(lan); 2]);
        net.run_for(600_000);
        assert!(net.changes().iter().all(|changes| *changes <= 2), "{:?}", net.changes());
    }
}

#[test]
fn an_overlay_is_used_where_it_is_the_only_way_and_the_search_for_a_better_one_ends() {
    let mut net = Networks::new();
    let overlay = net.network(OVERLAY, [Rank::Overlay; 2], 10);
    let closed = net.network(PUBLIC, [Rank::Public; 2], 40);
    net.networks[closed].is_up = false;
    net.name(overlay);
    net.name(closed);
    net.run_for(1_500);
    assert_eq!(net.primaries(), [Some(overlay); 2]);
    assert!(net.parties.iter().all(|party| !party.agent.is_satisfied()), "a better one is looked for");
    net.run_for(10_000);
    assert!(net.parties.iter().all(|party| party.agent.is_satisfied()));
    let asked = net.parties.each_ref().map(|party| party.fresh_links);
    assert_eq!(asked, [3; 2], "another port in each further attempt");
    let sent = net.parties.each_ref().map(|party| party.agent.stats().checks_sent);
    net.run_for(600_000);
    assert_eq!(net.parties.each_ref().map(|party| party.fresh_links), asked);
    for (party, before) in net.parties.iter().zip(sent) {
        let keepalives = party.agent.stats().checks_sent - before;
        assert!(keepalives <= 46, "{keepalives} in ten minutes");
    }
    assert_eq!(net.changes(), [1; 2]);
}

#[test]
fn a_search_beside_an_overlay_begins_again_with_a_change_of_the_network_and_not_with_a_late_address() {
    let mut net = Networks::new();
    let overlay = net.network(OVERLAY, [Rank::Overlay; 2], 10);
    net.name(overlay);
    net.run_for(20_000);
    let closed = net.network(PUBLIC, [Rank::Public; 2], 40);
    net.networks[closed].is_up = false;
    net.name(closed);
    net.run_for(20_000);
    let before = net.parties[0].fresh_links;
    net.run_for(20_000);
    assert_eq!(net.parties[0].fresh_links, before);
    let now = net.now;
    net.parties[0].agent.handle_network_change(now);
    net.run_for(20_000);
    assert_eq!(net.parties[0].fresh_links, before + 3);
}

#[test]
fn sides_that_rank_differently_agree_within_a_minute_and_stay() {
    for seeing in 0..2 {
        for (first_ms, second_ms) in [(1, 40), (40, 1), (20, 20)] {
            let mut net = Networks::new();
            let mut ranks = [Rank::Public; 2];
            ranks[seeing] = Rank::Overlay;
            let overlay = net.network(OVERLAY, ranks, first_ms);
            net.name(overlay);
            net.run_for(300);
            let public = net.network(PUBLIC, [Rank::Public; 2], second_ms);
            net.name(public);
            net.begin_data();
            net.run_for(60_000);
            let agreed = net.primaries();
            assert_eq!(agreed[0], agreed[1], "seen by {seeing}, {first_ms} and {second_ms} ms");
            if seeing == 0 {
                assert_eq!(agreed[0], Some(public), "the connector leads");
            }
            let changes = net.changes();
            assert!(changes.iter().all(|changes| *changes <= 3), "{changes:?}");
            net.run_for(600_000);
            assert_eq!((net.primaries(), net.changes()), (agreed, changes));
        }
    }
}

#[test]
fn a_lan_that_dies_is_replaced_by_the_overlay_and_taken_again_when_it_is_back() {
    let mut net = Networks::new();
    let overlay = net.network(OVERLAY, [Rank::Overlay; 2], 1);
    let lan = net.network(LAN, [Rank::Lan; 2], 1);
    net.name(overlay);
    net.name(lan);
    net.run_for(1_000);
    net.begin_data();
    net.networks[lan].is_up = false;
    net.run_for(3_000);
    assert_eq!(net.primaries(), [Some(overlay); 2]);
    assert!(net.parties.iter().all(|party| party.longest_gap <= Duration::from_millis(700)));
    net.networks[lan].is_up = true;
    let now = net.now;
    net.parties[0].agent.handle_network_change(now);
    net.run_for(1_000);
    assert_eq!(net.primaries(), [Some(lan); 2]);
}

/// A sharer that reaches the connector through a VPN, and by its own router after that is down. The connector may have
/// met it there before, until the VPN came up.
fn vpn_goes_down(is_known: bool, rtt_ms: u64) -> Networks {
    let mut net = Networks::new();
    let home = net.network(PUBLIC, [Rank::Public; 2], rtt_ms);
    let vpn = net.network([PUBLIC[0], "192.0.2.50:5000"], [Rank::Public; 2], rtt_ms);
    net.networks[vpn].is_up = false;
    net.begin_data();
    if is_known {
        net.name(home);
        net.run_for(5_000);
        // Another port was asked for meanwhile: what is sent in vain leaves by two.
        let now = net.now;
        net.parties[0].agent.add_link(LinkId(1), PathKind::Direct, now);
        move_sharer(&mut net, home, vpn);
    } else {
        (net.networks[home].is_up, net.networks[vpn].is_up) = (false, true);
        net.name(vpn);
    }
    net.run_for(10_000);
    assert_eq!(net.primaries(), [Some(vpn); 2]);
    net.begin_data();
    move_sharer(&mut net, vpn, home);
    net.run_for(3_000);
    net
}

/// The sharer's packets leave by another network from here on. The system tells it once its own has been quiet, and
/// the server tells the connector.
fn move_sharer(net: &mut Networks, from: usize, to: usize) {
    (net.networks[from].is_up, net.networks[to].is_up) = (false, true);
    net.run_for(100);
    let now = net.now;
    net.parties[1].agent.handle_network_change(now);
    let half = net.networks[to].rtt.as_millis() as u64 / 2;
    net.run_for(half);
    let now = net.now;
    net.parties[0].agent.handle_remote_change(now);
    net.name_to(0, to);
}

#[test]
fn a_vpn_that_goes_down_at_the_sharer_stalls_neither_side_once_the_connector_is_told() {
    for is_known in [false, true] {
        for rtt_ms in [2, 40, 100] {
            let net = vpn_goes_down(is_known, rtt_ms);
            assert_eq!(net.primaries(), [Some(0); 2]);
            let gaps = net.parties.each_ref().map(|party| party.longest_gap);
            let longest = gaps.iter().max().unwrap();
            // The system is quiet for 100 ms; then the server tells the connector, which asks the way that it knows.
            let bound = Duration::from_millis(150 + 3 * rtt_ms);
            assert!(*longest <= bound, "{is_known}, {rtt_ms} ms: {gaps:?}");
        }
    }
}

#[test]
fn round_trips_are_not_compared_just_after_a_change() {
    let mut net = Networks::new();
    let first = net.network(PUBLIC, [Rank::Public; 2], 60);
    net.name(first);
    net.run_for(5_000);
    let second = net.network(["198.51.100.7:4001", "203.0.113.9:5001"], [Rank::Public; 2], 20);
    net.name(second);
    net.run_for(1_000);
    assert_eq!(net.primaries()[0], Some(second), "no change has just been");
    net.networks[first].rtt = Duration::from_millis(2);
    let changes = net.changes()[0];
    for _ in 0..10 {
        let now = net.now;
        net.parties[0].agent.handle_network_change(now);
        net.run_for(100);
    }
    assert_eq!(net.changes()[0], changes);
    net.run_for(5_000);
    assert_eq!((net.primaries()[0], net.changes()[0]), (Some(first), changes + 1));
}
