//! One pair, and one run of it.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use proto::path::{Outlook, PathAgent};

use crate::dice::Dice;
use crate::kind::{Kind, UnknownKind};
use crate::link::{Loss, Quality};
use crate::node::{Actor, Mutation, populate};
use crate::oracle::{Remedy, direct_path_possible};
use crate::world::{Plan, World};

/// Within this time of the offer a run has to be direct to count.
const WITHIN: Duration = Duration::from_secs(5);

/// After this time it never will be: all attempts that follow each other are over.
const OVER: Duration = Duration::from_secs(14);

/// How long the sharer gets to register before the connector begins.
const REGISTRATION: Duration = Duration::from_secs(3);

/// Two kinds of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// One side's.
    pub a: Kind,
    /// The other's.
    pub b: Kind,
}

/// What lies between the two, and what they do wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// R: the mean of both sides' round trips to the server, which differ.
    pub server_rtt: Duration,
    /// D: the round trip between the two.
    pub direct_rtt: Duration,
    /// Loss on each home's wire, in each direction.
    pub loss: f64,
    /// Jitter on each home's wire, in each direction.
    pub jitter: Duration,
    /// Flows that other hosts open through each home's outermost router, a second.
    pub foreign_flows: u32,
    /// Whether both sides know their NATs before the offer; else the connector begins with it.
    pub is_ready: bool,
    /// What both peers do wrong.
    pub mutation: Option<Mutation>,
}

impl Default for Setting {
    fn default() -> Self {
        let rtt = Duration::from_millis(40);
        Self {
            server_rtt: rtt,
            direct_rtt: rtt,
            loss: 0.0,
            jitter: Duration::ZERO,
            foreign_flows: 5,
            is_ready: false,
            mutation: None,
        }
    }
}

/// What became of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The seed that repeats it.
    pub seed: u64,
    /// From the server's forwarding the offer until both sides had a path, if that was within five seconds.
    pub direct: Option<Duration>,
    /// Whether both found a path later than that.
    pub late: bool,
    /// Whether both sides gave the verdict that there is none.
    pub unreached: bool,
    /// From the server's forwarding the offer until one side, and then both, knew that no direct path leads through
    /// their NATs.
    pub verdict: Option<(Duration, Duration)>,
    /// Checks and answers that each side sent until then.
    pub checks: [u64; 2],
    /// Rules that were broken.
    pub faults: Vec<String>,
}

impl Pair {
    /// What it needs.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        direct_path_possible(self.a, self.b)
    }

    /// The world of one run. Half of the seeds let the other side connect, and the server is nearer to one
    /// side than to the other by as much as R allows.
    #[must_use]
    pub fn plan(&self, setting: &Setting, seed: u64) -> Plan {
        let mut dice = Dice::new(seed, 2_000);
        let (a, b) = if self.connects_from_a(seed) { (self.a, self.b) } else { (self.b, self.a) };
        let near = setting.server_rtt / 2 + dice.up_to(setting.server_rtt);
        let far = setting.server_rtt * 2 - near;
        let loss = if setting.loss > 0.0 { Loss::Uniform(setting.loss) } else { Loss::None };
        let wire = Quality { loss, jitter: setting.jitter, ..Quality::default() };
        World::plan(seed)
            .home("a", a)
            .at_server_rtt(near)
            .over(wire, wire)
            .home("b", b)
            .at_server_rtt(far)
            .over(wire, wire)
            .server("s")
            .direct_rtt(setting.direct_rtt)
    }

    /// Whether the connector, which is the world's host `a`, has this pair's first kind.
    #[must_use]
    pub fn connects_from_a(&self, seed: u64) -> bool {
        Dice::new(seed, 2_001).chance(0.5)
    }

    /// Runs it once.
    #[must_use]
    pub fn run(&self, setting: &Setting, seed: u64) -> Run {
        let mut world = populate(&self.plan(setting, seed), setting.mutation);
        self.run_in(&mut world, setting)
    }

    /// Runs it in a world of this setting that is kept.
    pub fn run_in(&self, world: &mut World<Actor>, setting: &Setting) -> Run {
        let seed = world.seed();
        world.run_until(REGISTRATION, |world| world.node("b").peer().is_registered());
        if setting.is_ready {
            world.with_node("a", |node, now| node.peer_mut().get_ready(now));
            let knows = |world: &World<Actor>, name| world.node(name).peer().nat().is_some();
            let limit = world.elapsed() + REGISTRATION;
            world.run_until(limit, |world| knows(world, "a") && knows(world, "b"));
            // And what the sharer has to say of its own is at the server.
            world.run_until(world.elapsed() + setting.server_rtt, |_| false);
        }
        world.with_node("a", |node, now| node.peer_mut().dial(now));
        let limit = world.elapsed() + OVER;
        run_among_others(world, limit, setting.foreign_flows);
        let sides = ["a", "b"].map(|name| world.node(name).peer());
        let offered = world.node("s").server().offers_forwarded().first().copied();
        let since_offer = |both: [Option<Instant>; 2]| match (offered, both) {
            (Some(offered), [Some(a), Some(b)]) => Some((
                a.min(b).saturating_duration_since(offered),
                a.max(b).saturating_duration_since(offered),
            )),
            _ => None,
        };
        let took = since_offer(sides.map(|side| side.watch().first_direct())).map(|(_, both)| both);
        let unreached = |side: &crate::node::PeerNode| {
            side.agent().is_some_and(|agent| agent.outlook() == Outlook::Unreached)
        };
        let mut checks = sides.map(|side| side.watch().checks());
        if !self.connects_from_a(seed) {
            checks.reverse();
        }
        Run {
            seed,
            direct: took.filter(|took| *took <= WITHIN),
            late: took.is_some_and(|took| took > WITHIN),
            unreached: sides.into_iter().all(unreached),
            verdict: since_offer(sides.map(|side| side.watch().verdict())),
            checks,
            faults: sides.iter().flat_map(|side| side.watch().faults().iter().cloned()).collect(),
        }
    }
}

/// Runs until it is over, while other hosts open flows at uneven times.
fn run_among_others(world: &mut World<Actor>, limit: Duration, foreign_flows: u32) {
    let mut dice = Dice::new(world.seed(), 2_002);
    let Some(mean) = Duration::from_secs(1).checked_div(2 * foreign_flows) else {
        world.run_until(limit, is_over);
        return;
    };
    while world.elapsed() < limit {
        let next = world.elapsed() + dice.up_to(2 * mean);
        if world.run_until(next.min(limit), is_over) {
            return;
        }
        world.foreign_flows(if dice.chance(0.5) { "a" } else { "b" }, 1);
    }
}

fn is_over(world: &World<Actor>) -> bool {
    let outlook = |name| world.node(name).peer().agent().map(PathAgent::outlook);
    let [a, b] = ["a", "b"].map(outlook);
    let decided = |outlook| matches!(outlook, Some(Outlook::Reached | Outlook::Unreached));
    decided(a) && a == b
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.a, self.b)
    }
}

/// A pair that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownPair {
    /// There is no colon in it.
    NoColon(String),
    /// One of its kinds has no such name.
    Kind(UnknownKind),
}

impl fmt::Display for UnknownPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColon(text) => write!(f, "`{text}` is not a pair of kinds: write A:B"),
            Self::Kind(kind) => kind.fmt(f),
        }
    }
}

impl Error for UnknownPair {}

impl FromStr for Pair {
    type Err = UnknownPair;

    fn from_str(text: &str) -> Result<Self, UnknownPair> {
        let (a, b) = text.split_once(':').ok_or_else(|| UnknownPair::NoColon(text.to_owned()))?;
        let kind = |name: &str| name.trim().parse().map_err(UnknownPair::Kind);
        Ok(Self { a: kind(a)?, b: kind(b)? })
    }
}
