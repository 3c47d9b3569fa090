//! Two agents with a relay beside their direct path, and data that follows their routes, in a plain loop.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::path::{LinkId, PathAgent, PathConfig, PathEvent, PathId, PathKind, Reason, Route, Traffic};
use proto::stun::Role;
use support::{keys, start};

const DIRECT: LinkId = LinkId::MAIN;
const RELAYED: LinkId = LinkId(9);

/// How often data leaves, and how often traffic is reported: as the endpoint does.
const DATA: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_millis(250);

#[test]
fn data_goes_by_the_relay_at_once_and_by_the_direct_path_from_its_proof_on() {
    let mut world = World::new(1);
    world.relay();
    world.run_for(1);
    assert!(world.sides.iter().all(|side| side.is_on(RELAYED)));
    world.introduce();
    world.run_for(2_000);
    assert!(world.sides.iter().all(|side| side.is_on(DIRECT)));
    for side in &world.sides {
        assert_eq!(side.reasons, [Reason::Relayed, Reason::BetterKind]);
    }
    assert!(world.longest_gap(0) <= 200 && world.longest_gap(1) <= 200);
}

#[test]
fn a_relay_that_comes_late_changes_nothing() {
    let mut world = World::joined(1);
    world.relay();
    world.run_for(5_000);
    assert!(world.sides.iter().all(|side| side.is_on(DIRECT) && side.route.also.is_none()));
}

#[test]
fn a_direct_path_that_dies_is_doubled_within_a_second_and_left_after_three_on_both_ends() {
    for acknowledges_only in [false, true] {
        let mut world = World::relayed(1);
        world.sends[1] = !acknowledges_only;
        world.run_for(1_000);
        world.forget_gaps();
        let before = world.elapsed_ms();
        world.dead = [true, true];
        while world.sides.iter().any(|side| side.route.also.is_none()) {
            world.run_for(10);
            assert!(world.elapsed_ms() - before < 1_500, "not both within 1.5 s");
        }
        world.run_for(5_000);
        assert!(world.sides.iter().all(|side| side.is_on(RELAYED)));
        assert!(world.longest_gap(0) < 1_500, "{} ms", world.longest_gap(0));
        assert!(world.longest_gap(1) < 1_500, "{} ms", world.longest_gap(1));
    }
}

#[test]
fn the_direct_path_is_taken_again_once_it_answers_more_than_once() {
    let mut world = World::relayed(1);
    world.dead = [true, true];
    world.run_for(6_000);
    world.dead = [false, false];
    let now = world.now;
    world.sides.iter_mut().for_each(|side| side.agent.handle_network_change(now));
    world.run_for(3_000);
    assert!(world.sides.iter().all(|side| side.is_on(DIRECT)), "{:?}", world.sides[0].reasons);
}

#[test]
fn a_path_that_works_one_way_is_left_by_both_and_loses_nothing_meanwhile() {
    for deaf in 0..2 {
        let mut world = World::relayed(1);
        world.forget_gaps();
        world.dead[1 - deaf] = true;
        world.run_for(15_000);
        assert!(world.sides.iter().all(|side| side.is_on(RELAYED)), "{deaf}");
        assert!(world.longest_gap(0) < 1_500 && world.longest_gap(1) < 1_500);
    }
}

#[test]
fn a_lossy_and_slow_path_does_not_flap() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.direct_rtt = Duration::from_millis(300);
        world.loss = 300;
        world.relay();
        world.introduce();
        world.run_for(10_000);
        let before = world.sides.each_ref().map(Side::switches);
        world.run_for(600_000);
        let after = world.sides.each_ref().map(Side::switches);
        assert!((0..2).all(|side| after[side] - before[side] <= 2), "seed {seed}: {before:?} {after:?}");
        assert!(world.longest_gap(0) < 2_000 && world.longest_gap(1) < 2_000);
    }
}

#[test]
fn after_a_short_break_both_sides_send_everything_once_again() {
    for dead in [[true, true], [true, false], [false, true]] {
        let mut world = World::relayed(1);
        world.run_for(1_000);
        world.dead = dead;
        world.run_for(1_200);
        assert!(world.sides.iter().any(|side| side.route.also.is_some()), "{dead:?}: nobody noticed");
        world.dead = [false, false];
        world.run_for(2_000);
        for side in &world.sides {
            assert!(side.is_on(DIRECT) && side.route.also.is_none(), "{dead:?}: {:?}", side.reasons);
        }
        let before = world.sides.each_ref().map(|side| side.reasons.len());
        world.run_for(60_000);
        assert_eq!(
            world.sides.each_ref().map(|side| side.reasons.len()),
            before,
            "{dead:?}: it does not rest"
        );
    }
}

#[test]
fn with_a_relay_a_direct_path_is_looked_for_as_without() {
    let mut world = World::new(1);
    world.dead = [true, true];
    world.relay();
    world.introduce();
    world.run_for(12_000);
    assert!(world.sides.iter().all(|side| side.is_on(RELAYED)));
    assert!(world.sides.iter().all(|side| side.fresh_links == 3), "{}", world.sides[0].fresh_links);
    world.dead = [false, false];
    world.run_for(60_000);
    assert!(world.sides.iter().all(|side| side.is_on(DIRECT)));
}

#[test]
fn a_relay_that_is_gone_is_left_at_once() {
    let mut world = World::new(1);
    world.relay();
    world.run_for(100);
    let (now, path) = (world.now, world.sides[0].relayed());
    world.sides[0].agent.remove_path(path, now);
    world.run_for(1);
    assert_eq!(world.sides[0].route, Route::default());
    assert_eq!(world.sides[0].reasons.last(), Some(&Reason::LinkGone));
}

#[test]
fn a_connector_that_is_not_at_its_relay_yet_is_waited_for_and_one_that_left_is_not() {
    let arrival = PathConfig::default().arrival;
    // A connector is told by the sharer's answer, which names no relay that it is not at.
    for (side, since, stays) in [(1, arrival / 2, true), (1, arrival, false), (0, arrival / 2, false)] {
        let mut world = World::new(1);
        world.relay();
        world.run_for(1);
        let (began, path) = (world.now, world.sides[side].relayed());
        let is_gone = world.sides[side].agent.handle_absent(path, began + since);
        world.run_for(1);
        assert_eq!((!is_gone, world.sides[side].is_on(RELAYED)), (stays, stays), "{side}, {since:?}");
    }
}

struct Side {
    agent: PathAgent,
    /// Where the other side is, directly and at the relay.
    remotes: [SocketAddr; 2],
    route: Route,
    reasons: Vec<Reason>,
    fresh_links: u32,
    /// What passed on each path since the last report.
    traffic: BTreeMap<PathId, Traffic>,
    /// When data last arrived, and the longest time without.
    arrived: Option<Instant>,
    gap: Duration,
}

impl Side {
    fn new(role: Role, seed: u8, remotes: [&str; 2], start: Instant) -> Self {
        Self {
            agent: PathAgent::new(PathConfig::default(), role, keys(), [seed; 32], start),
            remotes: remotes.map(|addr| addr.parse().unwrap()),
            route: Route::default(),
            reasons: Vec::new(),
            fresh_links: 0,
            traffic: BTreeMap::new(),
            arrived: None,
            gap: Duration::ZERO,
        }
    }

    fn is_on(&self, link: LinkId) -> bool {
        self.route.primary.is_some_and(|path| path.link == link)
    }

    fn relayed(&self) -> PathId {
        PathId { link: RELAYED, remote: self.remotes[1] }
    }

    /// How often the primary became another path.
    fn switches(&self) -> usize {
        let kept = |reason: &&Reason| !matches!(reason, Reason::Suspect | Reason::Recovered);
        self.reasons.iter().filter(kept).count()
    }
}

enum Packet {
    Check(Vec<u8>),
    Data { asks: bool },
}

/// Two agents, side 0 the connector's. Data of each side that `sends` is acknowledged by the other.
struct World {
    sides: [Side; 2],
    start: Instant,
    now: Instant,
    direct_rtt: Duration,
    relay_rtt: Duration,
    /// Of a thousand direct packets.
    loss: u64,
    /// Nothing from this side arrives directly.
    dead: [bool; 2],
    sends: [bool; 2],
    data_at: Instant,
    report_at: Instant,
    flying: BTreeMap<(Instant, u64), (usize, LinkId, Packet)>,
    sequence: u64,
    random: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let start = start();
        let sides = [
            Side::new(Role::Connector, seed as u8, ["203.0.113.9:5000", "[fd63::2]:1"], start),
            Side::new(Role::Sharer, seed as u8 + 100, ["198.51.100.7:4000", "[fd63::1]:1"], start),
        ];
        Self {
            sides,
            start,
            now: start,
            direct_rtt: Duration::from_millis(20),
            relay_rtt: Duration::from_millis(100),
            loss: 0,
            dead: [false, false],
            sends: [true, true],
            data_at: start,
            report_at: start + REPORT,
            flying: BTreeMap::new(),
            sequence: 0,
            random: seed + 1,
        }
    }

    fn joined(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.introduce();
        world.run_for(3_000);
        world
    }

    fn relayed(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.relay();
        world.introduce();
        world.run_for(5_000);
        assert!(world.sides.iter().all(|side| side.is_on(DIRECT)));
        world
    }

    fn relay(&mut self) {
        for side in &mut self.sides {
            side.agent.add_relayed(side.relayed(), self.now);
        }
    }

    fn introduce(&mut self) {
        for side in &mut self.sides {
            side.agent.add_link(DIRECT, PathKind::Direct, self.now);
            side.agent.add_candidate(Candidate::new(CandidateKind::Reflexive, side.remotes[0]), self.now);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.now.duration_since(self.start).as_millis() as u64
    }

    fn forget_gaps(&mut self) {
        for side in &mut self.sides {
            (side.arrived, side.gap) = (Some(self.now), Duration::ZERO);
        }
    }

    /// The longest time in which this side got no data, in milliseconds.
    fn longest_gap(&self, side: usize) -> u64 {
        self.sides[side].gap.as_millis() as u64
    }

    fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.drain();
            let timers = self.sides.iter().filter_map(|side| side.agent.poll_timeout()).min();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let own = self.data_at.min(self.report_at);
            let next = [Some(own), timers, arrival].into_iter().flatten().min().unwrap();
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.arrive();
            if self.data_at <= self.now {
                self.data_at = self.now + DATA;
                let senders = (0..2).filter(|side| self.sends[*side]).collect::<Vec<_>>();
                senders.into_iter().for_each(|side| self.send(side, true));
            }
            if self.report_at <= self.now {
                self.report_at = self.now + REPORT;
                self.report();
            }
            self.sides.iter_mut().for_each(|side| side.agent.handle_timeout(self.now));
        }
    }

    fn send(&mut self, from: usize, asks: bool) {
        let route = self.sides[from].route;
        for path in route.primary.into_iter().chain(route.also) {
            self.sides[from].traffic.entry(path).or_default().sent = true;
            self.fly(from, path.link, Packet::Data { asks });
        }
    }

    fn report(&mut self) {
        for side in &mut self.sides {
            for (path, traffic) in std::mem::take(&mut side.traffic) {
                side.agent.handle_traffic(path, traffic, self.now);
            }
        }
    }

    fn fly(&mut self, from: usize, link: LinkId, packet: Packet) {
        // Knuth's generator: which packets are lost is the seed's affair.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lost = (self.random >> 33) % 1000 < self.loss;
        if link != RELAYED && (self.dead[from] || lost) {
            return;
        }
        let rtt = if link == RELAYED { self.relay_rtt } else { self.direct_rtt };
        self.sequence += 1;
        self.flying.insert((self.now + rtt / 2, self.sequence), (1 - from, link, packet));
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, link, packet) = entry.remove();
            let remote = self.sides[to].remotes[usize::from(link == RELAYED)];
            let path = PathId { link, remote };
            match packet {
                Packet::Check(datagram) => self.sides[to].agent.handle_check(path, &datagram, self.now),
                Packet::Data { asks } => {
                    let side = &mut self.sides[to];
                    side.traffic.entry(path).or_default().received = true;
                    let since = side.arrived.replace(self.now).unwrap_or(self.now);
                    side.gap = side.gap.max(self.now.duration_since(since));
                    if asks && !self.sends[to] {
                        self.send(to, false);
                    }
                }
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        for index in 0..2 {
            while let Some(transmit) = self.sides[index].agent.poll_transmit() {
                if transmit.ttl.is_none() {
                    self.fly(index, transmit.path.link, Packet::Check(transmit.payload));
                }
            }
            let side = &mut self.sides[index];
            while let Some(event) = side.agent.poll_event() {
                match event {
                    PathEvent::Route { route, reason, .. } => {
                        side.route = route;
                        side.reasons.push(reason);
                    }
                    PathEvent::FreshLinkWanted => side.fresh_links += 1,
                    PathEvent::Accept(_) | PathEvent::ExchangeWanted | PathEvent::ReflexiveRuledOut => {}
                }
            }
        }
    }
}
