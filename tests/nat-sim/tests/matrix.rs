//! The matrix at smoke size: which pairs go direct, how fast, and that the laboratory notices a peer that
//! lacks a remedy.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "failures name their seeds")]

use std::time::Duration;

use nat_sim::kind::{Behaviour, Kind};
use nat_sim::matrix::{Cell, Pair, Setting, all_pairs};
use nat_sim::node::{Actor, Mutation, populate};
use nat_sim::oracle::Remedy;
use nat_sim::world::World;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// Endpoint-independent mapping, which two sides of need no guess.
const EIM: [Kind; 4] = [Kind::OPEN, Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED, Kind::PORT_RESTRICTED];

fn cell(a: Kind, b: Kind, setting: &Setting, runs: usize) -> Cell {
    let cell = Cell::measure(Pair { a, b }, setting, runs, 7);
    assert_eq!(cell.faults, [], "{a} x {b}");
    cell
}

/// R/2 + 1.5 D + 60 ms, and one interval between two checks.
const SOON: Duration = Duration::from_millis(20 + 60 + 60 + 20);

#[test]
fn every_pair_that_can_go_direct_does() {
    let is_sure = |pair: &Pair| pair.remedy().is_direct() && pair.remedy() != Remedy::Scatter;
    for pair in all_pairs().into_iter().filter(is_sure) {
        let cell = cell(pair.a, pair.b, &Setting::default(), 2);
        assert!(cell.is_always_direct(), "{pair}: seeds {:?}", cell.failed);
    }
}

#[test]
fn endpoint_independent_pairs_go_direct_in_time_leaky_or_not() {
    for a in EIM {
        for b in EIM {
            for (a, b) in [(a, b), (a.leaky(), b), (a.leaky(), b.leaky())] {
                let cell = cell(a, b, &Setting::default(), 6);
                assert!(cell.is_always_direct(), "{a} x {b}: seeds {:?}", cell.failed);
                assert!(cell.quantile(0.5) <= Some(SOON), "{a} x {b}: {:?}", cell.times);
            }
        }
    }
}

#[test]
fn a_symmetric_side_meets_whoever_answers_to_its_observed_source_as_soon() {
    for a in [Kind::SYMMETRIC_SEQUENTIAL, Kind::SYMMETRIC_RANDOM] {
        for b in [Kind::OPEN, Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED] {
            let cell = cell(a, b, &Setting::default(), 10);
            assert!(cell.is_always_direct(), "{a} x {b}: seeds {:?}", cell.failed);
            assert!(cell.quantile(0.5) <= Some(SOON), "{a} x {b}: {:?}", cell.times);
        }
    }
}

#[test]
fn loss_and_jitter_delay_leaky_pairs_and_do_not_keep_them_apart() {
    let rough = Setting { loss: 0.05, jitter: 50 * MS, ..Setting::default() };
    let leaky = Kind::PORT_RESTRICTED.leaky();
    for (a, b) in [(leaky, leaky), (Kind::PORT_RESTRICTED, leaky), (leaky.behind_carrier(), leaky)] {
        let cell = cell(a, b, &rough, 30);
        assert!(cell.is_always_direct(), "{a} x {b}: seeds {:?}", cell.failed);
    }
}

#[test]
fn a_far_server_costs_leaky_pairs_an_attempt_at_most() {
    let far = Setting { server_rtt: 300 * MS, direct_rtt: 10 * MS, ..Setting::default() };
    let leaky = Kind::PORT_RESTRICTED.leaky();
    let cell = cell(leaky, leaky, &far, 20);
    assert!(cell.is_always_direct(), "seeds {:?}", cell.failed);
}

#[test]
fn a_hopeless_pair_ends_with_a_verdict_and_without_a_flood() {
    for a in [Kind::SYMMETRIC_SEQUENTIAL, Kind::SYMMETRIC_RANDOM, Kind::SYMMETRIC_SEQUENTIAL.leaky()] {
        let b = Kind::SYMMETRIC_RANDOM;
        let cell = cell(a, b, &Setting::default(), 10);
        assert_eq!((cell.direct, cell.unreached), (0, 10), "{a} x {b}");
        assert!(cell.packets.iter().all(|packets| *packets < 40.0), "{a} x {b}: {:?}", cell.packets);
    }
}

#[test]
fn a_hopeless_pair_is_known_for_such_by_both_with_the_servers_first_word() {
    let [counted, drawn] = [Kind::SYMMETRIC_SEQUENTIAL, Kind::SYMMETRIC_RANDOM];
    // A connector that begins has to find out first: at R/2 it is welcomed, and asks twice. Then it says so.
    for (is_ready, r_halves) in [(true, (1, 1)), (false, (7, 7))] {
        for (a, b) in [(drawn, drawn), (counted, drawn), (drawn, Kind::SymmetricBlock)] {
            let setting = Setting { is_ready, ..Setting::default() };
            let cell = cell(a, b, &setting, 20);
            let after = |halves| setting.server_rtt / 2 * halves + 20 * MS;
            assert_eq!(cell.verdicts.len(), 20, "{a} x {b}");
            let (one, both) = cell.verdict_quantile(if is_ready { 1.0 } else { 0.5 }).unwrap();
            assert!(one <= after(r_halves.0) && both <= after(r_halves.1), "{a} x {b}: {one:?}, {both:?}");
        }
    }
}

/// A pair that draws ports, ready, whose sharer's router has a port for it that the sharer knows of only once `until`
/// has come.
fn mapped_late(until: impl Fn(&World<Actor>) -> bool) -> World<Actor> {
    let pair = Pair { a: Kind::SYMMETRIC_RANDOM, b: Kind::Mapped };
    let seed = (0..).find(|seed| pair.connects_from_a(*seed)).unwrap();
    let mut world = populate(&pair.plan(&Setting::default(), seed), None);
    let mapped = world.node("b").peer().mapped();
    world.with_node("b", |node, now| node.peer_mut().set_mapped(None, now));
    world.run_until(3 * SEC, |world| world.node("b").peer().is_registered());
    world.with_node("a", |node, now| node.peer_mut().get_ready(now));
    world.run_until(3 * SEC, |_| false);
    world.with_node("a", |node, now| node.peer_mut().dial(now));
    assert!(world.run_until(4 * SEC, until));
    world.with_node("b", |node, now| node.peer_mut().set_mapped(mapped, now));
    world.run_until(8 * SEC, |world| {
        ["a", "b"].iter().all(|name| world.node(name).peer().primary().is_some())
    });
    world
}

#[test]
fn a_port_that_is_mapped_meanwhile_is_met_whatever_was_said_of_the_nat_before() {
    let has_forwarded = |world: &World<Actor>| !world.node("s").server().offers_forwarded().is_empty();
    let has_answered = |world: &World<Actor>| world.node("a").peer().agent().is_some();
    // Known before the sharer answers, it is in the answer, and what was foreseen was never a verdict.
    let world = mapped_late(has_forwarded);
    let [a, b] = ["a", "b"].map(|name| world.node(name).peer());
    assert!(a.primary().is_some() && b.primary().is_some());
    assert_eq!((a.watch().misjudged(), a.watch().verdict()), (1, None));
    // Known after, it is named at once.
    let world = mapped_late(has_answered);
    let [a, b] = ["a", "b"].map(|name| world.node(name).peer());
    assert!(a.primary().is_some() && b.primary().is_some());
    assert_eq!(a.watch().misjudged(), 0);
}

#[test]
fn two_small_blocks_meet_four_times_in_ten_and_within_ten_seconds() {
    let block = Kind::SymmetricBlock;
    let cell = cell(block, block, &Setting::default(), 60);
    assert!((14..40).contains(&(cell.direct + cell.late)), "{} direct, {} late", cell.direct, cell.late);
    assert!(cell.packets.iter().all(|packets| *packets < 1715.0), "{:?}", cell.packets);
}

#[test]
fn a_small_block_is_searched_faster_than_all_ports() {
    let cell = cell(Kind::SymmetricBlock, Kind::PORT_RESTRICTED, &Setting::default(), 30);
    assert!(cell.is_always_direct(), "seeds {:?}", cell.failed);
    assert!(cell.quantile(0.5) <= Some(1000 * MS), "{:?}", cell.times);
}

#[test]
fn a_search_that_finds_many_flows_at_once_keeps_to_a_few_of_them() {
    let pair = Pair { a: Kind::SymmetricBlock, b: Kind::PORT_RESTRICTED };
    for seed in [254_999_406_995_349, 278_988_114_901_295] {
        let run = pair.run(&Setting::default(), seed);
        assert!(run.direct.is_some_and(|took| took < 1000 * MS), "{seed}: {run:?}");
    }
}

#[test]
fn a_mapped_port_is_met_by_everybody_at_once() {
    for a in Kind::all().into_iter().chain(Kind::FURTHER) {
        let pair = Pair { a, b: Kind::Mapped };
        if !pair.remedy().is_direct() {
            continue;
        }
        let cell = cell(pair.a, pair.b, &Setting::default(), 6);
        assert!(cell.is_always_direct(), "{pair}: seeds {:?}", cell.failed);
        // R/2 + D + 60 ms, and what the answer is later at the connector's than the offer at the sharer's.
        assert!(cell.quantile(0.5) <= Some((20 + 40 + 60) * MS), "{pair}: {:?}", cell.times);
    }
}

#[test]
fn a_counted_port_is_predicted_within_a_second_among_other_hosts_flows() {
    let counted = Kind::SYMMETRIC_SEQUENTIAL;
    for b in [Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED.leaky(), Kind::PORT_RESTRICTED.behind_carrier()] {
        let cell = cell(counted, b, &Setting::default(), 30);
        assert!(cell.is_always_direct(), "{counted} x {b}: seeds {:?}", cell.failed);
        assert!(cell.quantile(1.0) <= Some(1000 * MS), "{counted} x {b}: {:?}", cell.times);
    }
}

#[test]
fn two_counted_ports_are_predicted_within_a_second_and_a_half_among_other_hosts_flows() {
    let counted = Kind::SYMMETRIC_SEQUENTIAL;
    for (a, b) in
        [(counted, counted), (counted.leaky(), counted.leaky()), (counted.behind_carrier(), counted)]
    {
        let cell = cell(a, b, &Setting::default(), 30);
        assert!(cell.direct >= 29, "{a} x {b}: seeds {:?}", cell.failed);
        assert!(cell.quantile(0.95) <= Some(1500 * MS), "{a} x {b}: {:?}", cell.times);
    }
}

#[test]
fn a_drawn_port_is_found_among_all_in_two_seconds_and_hardly_ever_in_more_than_five() {
    let drawn = Kind::SYMMETRIC_RANDOM;
    for b in [Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED.leaky(), Kind::PORT_RESTRICTED.behind_carrier()] {
        let cell = cell(drawn, b, &Setting::default(), 30);
        assert!(cell.is_always_direct(), "{drawn} x {b}: seeds {:?}", cell.failed);
        assert!(cell.quantile(0.5) <= Some(2000 * MS), "{drawn} x {b}: {:?}", cell.times);
    }
}

/// Two routers in a row of which one is symmetric, and the other keeps ports or draws them from a block once for all.
const LAYERS: [Kind; 4] = Kind::ONE_SYMMETRIC_LAYER;

#[test]
fn one_layer_that_counts_in_front_of_one_that_keeps_ports_is_predicted_as_a_single_one_is() {
    let [counted_outside, ..] = LAYERS;
    for b in [Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED.behind_carrier(), Kind::SYMMETRIC_SEQUENTIAL] {
        let cell = cell(counted_outside, b, &Setting::default(), 30);
        assert!(cell.direct >= 29, "{counted_outside} x {b}: seeds {:?}", cell.failed);
        assert!(cell.quantile(0.95) <= Some(1500 * MS), "{counted_outside} x {b}: {:?}", cell.times);
    }
}

#[test]
fn one_layer_that_draws_ports_is_searched_for_as_a_single_one_is() {
    let [_, drawn @ ..] = LAYERS;
    for a in drawn {
        for b in [Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED.behind_carrier()] {
            let cell = cell(a, b, &Setting::default(), 20);
            assert!(cell.is_always_direct(), "{a} x {b}: seeds {:?}", cell.failed);
            assert!(cell.quantile(0.5) <= Some(2000 * MS), "{a} x {b}: {:?}", cell.times);
        }
    }
}

#[test]
fn one_symmetric_layer_meets_at_once_whoever_answers_to_its_observed_source() {
    for a in LAYERS {
        for b in [Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED.behind_carrier()] {
            let cell = cell(a, b, &Setting::default(), 10);
            assert!(cell.is_always_direct(), "{a} x {b}: seeds {:?}", cell.failed);
            assert!(cell.quantile(0.5) <= Some(SOON), "{a} x {b}: {:?}", cell.times);
        }
    }
}

/// Runs of a cell with and without a mutation.
const SAMPLE: usize = 8;

/// How many of [`SAMPLE`] runs of a cell go direct with and without a mutation.
fn with_and_without(mutation: Mutation, a: Kind, b: Kind, setting: Setting) -> (usize, usize) {
    let direct = |mutation| Cell::measure(Pair { a, b }, &Setting { mutation, ..setting }, SAMPLE, 3).direct;
    (direct(None), direct(Some(mutation)))
}

fn turns_red(mutation: Mutation, a: Kind, b: Kind, setting: Setting) {
    let (with, without) = with_and_without(mutation, a, b, setting);
    assert_eq!(with, SAMPLE, "{a} x {b} as it is");
    assert!(without < SAMPLE, "{a} x {b} stays green: {mutation:?}");
}

fn stays_green(mutation: Mutation, a: Kind, b: Kind) {
    assert_eq!(
        with_and_without(mutation, a, b, Setting::default()),
        (SAMPLE, SAMPLE),
        "{a} x {b}: {mutation:?}"
    );
}

#[test]
fn who_skips_the_prime_loses_two_leaky_routers_and_no_others() {
    let leaky = Kind::PORT_RESTRICTED.leaky();
    let mutation = Mutation::SkipsThePrime;
    turns_red(mutation, leaky, leaky, Setting::default());
    turns_red(mutation, leaky.behind_carrier(), leaky, Setting::default());
    stays_green(mutation, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    stays_green(mutation, Kind::FULL_CONE.leaky(), Kind::FULL_CONE.leaky());
}

#[test]
fn who_stops_after_the_first_receipt_starves_the_other_side() {
    let mutation = Mutation::StopsAfterTheFirstReceipt;
    // Where they are further apart both have asked by the time that they hear each other.
    let near = Setting { direct_rtt: 10 * MS, ..Setting::default() };
    for kind in EIM {
        turns_red(mutation, kind, kind, near);
    }
}

#[test]
fn who_guesses_no_port_loses_the_pairs_that_need_it_and_no_others() {
    let mutation = Mutation::GuessesNoPort;
    let [counted, drawn] = [Kind::SYMMETRIC_SEQUENTIAL, Kind::SYMMETRIC_RANDOM];
    for (a, b) in [(counted, Kind::PORT_RESTRICTED), (counted, counted), (drawn, Kind::PORT_RESTRICTED)] {
        turns_red(mutation, a, b, Setting::default());
    }
    stays_green(mutation, drawn, Kind::ADDRESS_RESTRICTED);
    stays_green(mutation, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
}

#[test]
fn who_answers_to_the_candidate_loses_every_side_with_random_ports_and_no_other() {
    let mutation = Mutation::AnswersToTheCandidate;
    for b in [Kind::OPEN, Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED] {
        turns_red(mutation, Kind::SYMMETRIC_RANDOM, b, Setting::default());
    }
    stays_green(mutation, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    stays_green(mutation, Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED);
}

#[test]
fn who_never_changes_the_port_loses_leaky_routers_far_from_the_server() {
    let mutation = Mutation::NeverChangesThePort;
    let far = Setting { server_rtt: 300 * MS, direct_rtt: 10 * MS, ..Setting::default() };
    let leaky = Kind::PORT_RESTRICTED.leaky();
    turns_red(mutation, leaky, leaky, far);
    turns_red(mutation, leaky, Kind::PORT_RESTRICTED, far);
    stays_green(mutation, leaky, leaky);
}

#[test]
fn a_pair_is_read_back_from_its_name() {
    for pair in all_pairs() {
        assert_eq!(pair.to_string().parse(), Ok(pair));
    }
    assert!("open".parse::<Pair>().unwrap_err().to_string().contains("A:B"));
    assert!("open:easy".parse::<Pair>().unwrap_err().to_string().contains("nat-sim list"));
    assert_eq!(Behaviour::ALL.len(), 6);
}
