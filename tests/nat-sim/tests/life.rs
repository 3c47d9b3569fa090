//! A path's life after it was found: idleness, rebinding, reboots, moves.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "failures name their seeds")]

use std::time::Duration;

use nat_sim::kind::{Behaviour, Kind};
use nat_sim::nat::{Expiry, Refresh};
use nat_sim::node::{Actor, PeerNode, populate};
use nat_sim::world::{Plan, World};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn homes(a: Kind, b: Kind) -> Plan {
    World::plan(5).home("a", a).home("b", b).server("s")
}

/// The same, with a table that forgets what was idle for so long.
fn forgetful(secs: u32, refresh: Refresh) -> Plan {
    let policy = || Behaviour::PortRestricted.policy().unwrap().expiring(Expiry::after(SEC * secs, refresh));
    World::plan(5).home_behind("a", vec![policy()]).home_behind("b", vec![policy()]).server("s")
}

/// The world once both sides have a path.
fn joined(plan: &Plan) -> World<Actor> {
    joined_after(plan, |_| {})
}

/// The same, with peers that were changed before.
fn joined_after(plan: &Plan, change: impl Fn(&mut PeerNode)) -> World<Actor> {
    let mut world = populate(plan, None);
    for name in ["a", "b"] {
        world.with_node(name, |node, _| change(node.peer_mut()));
    }
    world.run_for(SEC);
    world.with_node("a", |node, now| node.peer_mut().dial(now));
    assert!(world.run_until(10 * SEC, both_have_a_path), "no path");
    world
}

fn both_have_a_path(world: &World<Actor>) -> bool {
    sides(world).iter().all(|side| side.primary().is_some())
}

fn sides(world: &World<Actor>) -> [&PeerNode; 2] {
    ["a", "b"].map(|name| world.node(name).peer())
}

/// Sends data from `a` every 20 ms for so long. Gives the longest time without an answer.
fn talk(world: &mut World<Actor>, span: Duration) -> Duration {
    let end = world.elapsed() + span;
    let (mut answered, mut since, mut longest) = (0, world.elapsed(), Duration::ZERO);
    while world.elapsed() < end {
        world.with_node("a", |node, now| node.peer_mut().send_data(now));
        world.run_for(20 * MS);
        let data = world.node("a").peer().data();
        if data.answered > answered {
            answered = data.answered;
            since = world.elapsed();
        }
        longest = longest.max(world.elapsed() - since);
    }
    longest
}

#[test]
fn ten_idle_minutes_behind_bindings_of_30_s_need_no_new_hole() {
    for refresh in [Refresh::Outbound, Refresh::Inbound, Refresh::Either, Refresh::PerDirection] {
        let mut world = joined(&forgetful(30, refresh));
        world.run_for(600 * SEC);
        for side in sides(&world) {
            assert_eq!(side.watch().longest_gap(), Duration::ZERO);
            assert_eq!(side.watch().fresh_links(), 0);
            assert_eq!(side.agent().unwrap().stats().attempts, 1, "{refresh:?}");
        }
        assert!(talk(&mut world, SEC) < 100 * MS);
    }
}

#[test]
fn the_keepalive_is_learned_from_the_nat_without_risking_the_path() {
    for (kept, checks) in [(30, 60..100), (60, 35..65), (130, 8..25)] {
        let mut world = joined_after(&forgetful(kept, Refresh::Either), PeerNode::learn_lifetime);
        world.run_for(400 * SEC);
        let before = sides(&world).map(|side| side.watch().checks());
        world.run_for(600 * SEC);
        for (side, before) in sides(&world).into_iter().zip(before) {
            let sent = side.watch().checks() - before;
            assert!(checks.contains(&sent), "{kept} s: {sent} checks in ten minutes");
            assert_eq!(side.watch().longest_gap(), Duration::ZERO);
        }
        assert!(talk(&mut world, SEC) < 100 * MS, "{kept}");
    }
}

#[test]
fn a_nat_that_forgets_a_flow_in_use_interrupts_it_for_a_second_at_most() {
    for (a, b) in [
        (Kind::SYMMETRIC_RANDOM, Kind::FULL_CONE),
        (Kind::SYMMETRIC_RANDOM, Kind::ADDRESS_RESTRICTED),
        (Kind::FULL_CONE, Kind::SYMMETRIC_SEQUENTIAL),
        (Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED),
    ] {
        let mut world = joined(&homes(a, b));
        talk(&mut world, 2 * SEC);
        let home = if a == Kind::SYMMETRIC_RANDOM { "a" } else { "b" };
        world.reboot_routers(home);
        let gap = talk(&mut world, 10 * SEC);
        assert!(gap <= SEC, "{a} x {b}: {gap:?}");
    }
}

#[test]
fn an_idle_pair_finds_a_rebooted_nat_again_within_a_keepalive() {
    for kind in [Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED.leaky(), Kind::FULL_CONE] {
        for home in ["a", "b"] {
            let mut world = joined(&homes(kind, kind));
            world.run_for(20 * SEC);
            world.reboot_routers(home);
            world.run_for(25 * SEC);
            assert!(talk(&mut world, 2 * SEC) < 200 * MS, "{kind}, {home}");
        }
    }
}

#[test]
fn a_host_that_roams_is_found_again_whichever_side_it_is() {
    for (who, limit) in [("a", 6 * SEC), ("b", 12 * SEC)] {
        let plan = homes(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
        let mut world = joined(&plan.empty_home("cafe", Kind::PORT_RESTRICTED));
        talk(&mut world, SEC);
        world.roam(who, "cafe");
        let gap = talk(&mut world, 40 * SEC);
        assert!(gap <= limit, "{who}: {gap:?}");
    }
}

#[test]
fn a_new_public_address_is_met_again_by_a_new_offer() {
    for home in ["a", "b"] {
        let mut world = joined(&homes(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED));
        talk(&mut world, SEC);
        world.change_public_address(home, "198.51.100.200".parse().unwrap());
        let gap = talk(&mut world, 60 * SEC);
        assert!(gap <= 25 * SEC, "{home}: {gap:?}");
    }
}
