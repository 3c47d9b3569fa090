//! Two agents on a wire, in a plain loop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::path::{
    CheckTransmit, LinkId, PathAgent, PathConfig, PathEvent, PathId, PathKind, Reason, Route, Traffic,
};
use proto::stun::Role;

use crate::support::{keys, start};

pub(crate) const CONNECTOR: &str = "198.51.100.7:4000";
pub(crate) const SHARER: &str = "203.0.113.9:5000";

pub(crate) fn path(text: &str) -> PathId {
    PathId { link: LinkId::MAIN, remote: text.parse().unwrap() }
}

/// What left, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at_ms: u64,
    pub(crate) side: usize,
    pub(crate) link: u16,
    pub(crate) to: SocketAddr,
    pub(crate) ttl: Option<u8>,
    pub(crate) size: usize,
}

pub(crate) struct Side {
    pub(crate) agent: PathAgent,
    pub(crate) route: Route,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) fresh_links: u32,
    pub(crate) exchanges: u32,
}

/// Two agents, side 0 the connector's, and what lies between: a delay, losses, a NAT of one line.
pub(crate) struct Wire {
    pub(crate) sides: [Side; 2],
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) rtt: Duration,
    /// Addresses with a delay of their own.
    pub(crate) delays: BTreeMap<SocketAddr, u64>,
    /// (sender, its address) → the address that the other side sees.
    pub(crate) rewrite: BTreeMap<(usize, SocketAddr), SocketAddr>,
    /// The seed of one loss in ten.
    pub(crate) loss: Option<u64>,
    /// Nothing arrives.
    pub(crate) deaf: bool,
    pub(crate) flying: BTreeMap<(Instant, u64), (usize, SocketAddr, Vec<u8>)>,
    pub(crate) sequence: u64,
    pub(crate) log: Vec<Sent>,
}

impl Wire {
    pub(crate) fn new(rtt_ms: u64) -> Self {
        let start = start();
        let side = |role, seed| Side {
            agent: PathAgent::new(PathConfig::default(), role, keys(), [seed; 32], start),
            route: Route::default(),
            reasons: Vec::new(),
            fresh_links: 0,
            exchanges: 0,
        };
        Self {
            sides: [side(Role::Connector, 1), side(Role::Sharer, 2)],
            start,
            now: start,
            rtt: Duration::from_millis(rtt_ms),
            delays: BTreeMap::new(),
            rewrite: BTreeMap::new(),
            loss: None,
            deaf: false,
            flying: BTreeMap::new(),
            sequence: 0,
            log: Vec::new(),
        }
    }

    pub(crate) fn joined_pair() -> Self {
        let mut wire = Self::new(40);
        wire.introduce();
        wire.run_until(Self::joined, 5_000);
        wire
    }

    /// Each side learns the other's reflexive candidate.
    pub(crate) fn introduce(&mut self) {
        for (side, remote) in [(0, SHARER), (1, CONNECTOR)] {
            self.sides[side].agent.add_link(LinkId::MAIN, PathKind::Direct, self.now);
            let candidate = Candidate::new(CandidateKind::Reflexive, remote.parse().unwrap());
            self.sides[side].agent.add_candidate(candidate, self.now);
        }
    }

    pub(crate) fn joined(&self) -> bool {
        self.sides.iter().all(|side| side.route.primary.is_some())
    }

    pub(crate) fn exchanges(&self) -> [u32; 2] {
        self.sides.each_ref().map(|side| side.exchanges)
    }

    /// Data goes unanswered until both sides have given the path up.
    pub(crate) fn lose_direct(&mut self) {
        for _ in 0..50 {
            let now = self.now;
            for side in &mut self.sides {
                if let Some(path) = side.route.primary {
                    side.agent.handle_traffic(path, Traffic { sent: true, received: false }, now);
                }
            }
            self.run_for(100);
            if !self.sides.iter().any(|side| side.route.primary.is_some()) {
                return;
            }
        }
        panic!("not given up");
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.now.duration_since(self.start).as_millis() as u64
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.run(|_| false, end);
    }

    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool, limit_ms: u64) {
        let end = self.now + Duration::from_millis(limit_ms);
        self.run(&done, end);
        assert!(done(self), "not within {limit_ms} ms; {:?}", self.log);
    }

    pub(crate) fn run(&mut self, done: impl Fn(&Self) -> bool, end: Instant) {
        for _ in 0..1_000_000 {
            self.drain();
            if done(self) {
                return;
            }
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let timers = self.sides.iter().filter_map(|side| side.agent.poll_timeout()).min();
            let next = arrival.into_iter().chain(timers).min().filter(|next| *next <= end);
            let Some(next) = next else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, from, payload) = entry.remove();
                let path = PathId { link: LinkId::MAIN, remote: from };
                self.sides[to].agent.handle_check(path, &payload, self.now);
                self.drain();
            }
            for side in &mut self.sides {
                side.agent.handle_timeout(self.now);
            }
        }
        panic!("a timer that never moves: {:?}", self.sides.each_ref().map(|side| side.agent.poll_timeout()));
    }

    pub(crate) fn drain(&mut self) {
        for index in 0..2 {
            while let Some(transmit) = self.sides[index].agent.poll_transmit() {
                self.fly(index, transmit);
            }
            let side = &mut self.sides[index];
            while let Some(event) = side.agent.poll_event() {
                match event {
                    PathEvent::Route { route, reason, .. } => {
                        side.route = route;
                        side.reasons.push(reason);
                    }
                    PathEvent::FreshLinkWanted => side.fresh_links += 1,
                    PathEvent::ExchangeWanted => side.exchanges += 1,
                    PathEvent::Accept(_) | PathEvent::ReflexiveRuledOut => {}
                }
            }
        }
    }

    fn fly(&mut self, index: usize, transmit: CheckTransmit) {
        let CheckTransmit { path, ttl, payload } = transmit;
        let at_ms = self.elapsed_ms();
        self.log.push(Sent {
            at_ms,
            side: index,
            link: path.link.0,
            to: path.remote,
            ttl,
            size: payload.len(),
        });
        self.sequence += 1;
        let lost = self.loss.is_some_and(|seed| {
            (seed * 7919 + self.sequence).wrapping_mul(6_364_136_223_846_793_005) >> 33 & 0x3ff < 102
        });
        if self.deaf || lost || ttl.is_some() {
            return;
        }
        // What the far side sends back to a special address comes from that address again.
        let own: SocketAddr = [CONNECTOR, SHARER][index].parse().unwrap();
        let special = self.delays.keys().next().copied().filter(|_| self.last_special(index, &path));
        let seen = special.or_else(|| self.rewrite.get(&(index, own)).copied()).unwrap_or(own);
        let delay = self.delays.get(&path.remote).or_else(|| self.delays.get(&seen)).copied();
        let delay = delay.map_or(self.rtt, Duration::from_millis) / 2;
        self.flying.insert((self.now + delay, self.sequence), (1 - index, seen, payload));
    }

    /// Whether the sharer answers over its special address: the connector's check came to it.
    fn last_special(&self, index: usize, path: &PathId) -> bool {
        index == 1
            && path.remote == CONNECTOR.parse().unwrap()
            && self
                .log
                .iter()
                .rev()
                .skip(1)
                .find(|sent| sent.side == 0)
                .is_some_and(|sent| self.delays.contains_key(&sent.to))
    }
}
