//! Random worlds: anything between any two kinds, faults on the way, and rules that hold in all of them.
//!
//! A world is drawn from one seed. It has a minute of weather and faults, then the wires become perfect, and
//! not long after that everything has to have come right:
//! - what the watches saw at any time (budgets, proof before promotion) broke no rule;
//! - both sides have a path, or neither; and what either sends as data arrives by the other's primary;
//! - a pair that needs no guess has one;
//! - whoever has a path sends keepalives and wakes for nothing else.

mod drawn;

use std::fmt;
use std::time::Duration;

pub use drawn::{Drawn, Fault};

use crate::node::{Actor, PeerNode, populate};
use crate::oracle::Remedy;
use crate::world::World;

/// When the weather clears.
const CLEARS: Duration = Duration::from_secs(70);

/// When a pair that needs no guess has to have a path: three minutes later, more than the longest wait between
/// two attempts. For one that can only be lucky it is not worth waiting.
const RIGHT: Duration = Duration::from_secs(70 + 180);
const LUCKY: Duration = Duration::from_secs(70 + 30);

/// How long both sides get to agree on one path: a keepalive after the last change, and another.
const SETTLES: Duration = Duration::from_secs(45);

/// The time in which a quiet world is looked at, and what a side may do in it. A keepalive every 13.5 s at the
/// least and the answer to the other's; a ping to the server every 15 s, with its acknowledgements.
const QUIET: Duration = Duration::from_secs(60);
const QUIET_CHECKS: u64 = 12;
const QUIET_PACKETS: u64 = 30;
const QUIET_WAKES: u64 = 40;

/// What became of one world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its one-line description.
    pub what: String,
    /// Whether both sides had a path in the end.
    pub is_direct: bool,
    /// The rules that it broke.
    pub broken: Vec<String>,
    /// The hash over everything that happened.
    pub fingerprint: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)?;
        self.broken.iter().try_for_each(|rule| write!(f, "\n    {rule}"))
    }
}

/// Runs the world of a seed.
#[must_use]
pub fn run(seed: u64) -> Report {
    tell(seed, false).0
}

/// Runs the world of a seed, with or without its story.
#[must_use]
pub fn tell(seed: u64, story: bool) -> (Report, String) {
    let drawn = Drawn::of(seed);
    let plan = drawn.plan();
    let plan = if story { plan.telling_the_story() } else { plan };
    let mut world = populate(&plan, None);
    drawn.play(&mut world, CLEARS);
    let limit = if is_certain(drawn.remedy()) { RIGHT } else { LUCKY };
    world.run_until(limit, |world| sides(world).iter().all(|side| side.primary().is_some()));
    world.run_for(SETTLES);
    let broken = judge(&drawn, &mut world);
    let is_direct = sides(&world).iter().all(|side| side.primary().is_some());
    let fingerprint = world.net().log().fingerprint();
    let report = Report { seed, what: drawn.to_string(), is_direct, broken, fingerprint };
    (report, world.story())
}

/// How long the proof of a path that one side has may take on the other: a few round trips, and less than a path lives
/// that one side alone holds to be one.
const PROVES: Duration = Duration::from_secs(2);

/// How long after a path's change there is more to do than to keep it: confirmations, and probes of its lifetime. A probe
/// rests four minutes in all, and what comes of it through a NAT that has forgotten the flow comes from a new address,
/// which is probed as well.
const SETTLING: Duration = Duration::from_secs(600);

fn sides(world: &World<Actor>) -> [&PeerNode; 2] {
    ["a", "b"].map(|name| world.node(name).peer())
}

fn judge(drawn: &Drawn, world: &mut World<Actor>) -> Vec<String> {
    let mut broken = Vec::new();
    let paths = |world: &World<Actor>| sides(world).map(|side| side.primary().is_some());
    // Who stays on the relay searches again now and then, and may have found only now.
    if let [true, false] | [false, true] = paths(world) {
        world.run_for(PROVES);
    }
    match paths(world) {
        [true, true] => {
            stays_quiet(world, &mut broken);
            agrees(world, &mut broken);
        }
        [false, false] => {
            if is_certain(drawn.remedy()) {
                broken.push(format!("no path, although all it takes is {}", drawn.remedy()));
            }
        }
        [a, b] => broken.push(format!("they disagree whether there is a path: a {a}, b {b}")),
    }
    for (name, side) in ["a", "b"].into_iter().zip(sides(world)) {
        broken.extend(side.watch().faults().iter().map(|fault| format!("{name}: {fault}")));
    }
    broken
}

/// Whether a remedy leads to a path in every world.
fn is_certain(remedy: Remedy) -> bool {
    use Remedy::{Birthday, Predict, RelayOnly, Scatter, SendOrder};
    !matches!(remedy, SendOrder | Predict | Birthday | Scatter | RelayOnly)
}

fn stays_quiet(world: &mut World<Actor>, broken: &mut Vec<String>) {
    let count = |world: &World<Actor>, name: &str| {
        let watch = world.node(name).peer().watch();
        [watch.checks(), world.net().traffic(world.host(name)).sent, watch.wakes()]
    };
    // A search may have ended only now, and what follows a first path takes a while.
    let last_change =
        sides(world).into_iter().filter_map(|side| side.watch().routes().last()).map(|(at, ..)| *at);
    if last_change.max().is_some_and(|at| world.now() < at + SETTLING) {
        world.run_for(SETTLING);
    }
    let before = ["a", "b"].map(|name| count(world, name));
    world.run_for(QUIET);
    for (name, before) in ["a", "b"].into_iter().zip(before) {
        let after = count(world, name);
        let did: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let most = [QUIET_CHECKS, QUIET_PACKETS, QUIET_WAKES];
        if did.iter().zip(most).any(|(did, most)| *did > most) {
            broken.push(format!("{name} is not quiet: checks, packets, wakes {did:?} in a minute"));
        }
    }
}

/// Data of either side has to arrive by the other's primary.
fn agrees(world: &mut World<Actor>, broken: &mut Vec<String>) {
    world.with_node("a", |node, now| node.peer_mut().send_data(now));
    world.run_for(Duration::from_secs(2));
    world.with_node("b", |node, now| node.peer_mut().send_data(now));
    world.run_for(Duration::from_secs(2));
    for (name, side) in ["a", "b"].into_iter().zip(sides(world)) {
        if side.primary().is_none() || side.last_data() != side.primary() {
            let (last, primary) = (side.last_data(), side.primary());
            broken.push(format!("{name}'s data arrives by {last:?}, and its own leaves by {primary:?}"));
        }
    }
}
