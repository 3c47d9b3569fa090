//! Two agents with several networks between them, each with its own addresses, delay and rank; data flows both ways.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::interface::Rank;
use proto::path::{LinkId, PathAgent, PathConfig, PathEvent, PathId, PathKind, Reason, Route, Traffic};
use proto::stun::Role;

use crate::support::{keys, start};

/// From one datagram of data to the next, on each side.
const EVERY: Duration = Duration::from_millis(10);

/// A network that both sides are in.
pub(crate) struct Network {
    /// The connector's address in it, and the sharer's.
    addrs: [SocketAddr; 2],
    /// How each of them ranks the other's address.
    ranks: [Rank; 2],
    pub(crate) rtt: Duration,
    pub(crate) is_up: bool,
}

pub(crate) struct Party {
    pub(crate) agent: PathAgent,
    pub(crate) route: Route,
    /// All primaries so far, and why.
    pub(crate) history: Vec<(SocketAddr, Reason)>,
    pub(crate) fresh_links: u32,
    /// When data of the other side last arrived, and the longest time without any.
    heard: Instant,
    pub(crate) longest_gap: Duration,
}

enum Packet {
    Check(Vec<u8>),
    Data,
}

pub(crate) struct Networks {
    pub(crate) parties: [Party; 2],
    pub(crate) networks: Vec<Network>,
    pub(crate) now: Instant,
    pub(crate) has_data: bool,
    data_at: Instant,
    sequence: u64,
    flying: BTreeMap<(Instant, u64), (usize, SocketAddr, Packet)>,
}

impl Networks {
    pub(crate) fn new() -> Self {
        let start = start();
        let party = |role, seed| Party {
            agent: PathAgent::new(PathConfig::default(), role, keys(), [seed; 32], start),
            route: Route::default(),
            history: Vec::new(),
            fresh_links: 0,
            heard: start,
            longest_gap: Duration::ZERO,
        };
        let mut parties = [party(Role::Connector, 1), party(Role::Sharer, 2)];
        for party in &mut parties {
            party.agent.add_link(LinkId::MAIN, PathKind::Direct, start);
        }
        Self {
            parties,
            networks: Vec::new(),
            now: start,
            has_data: false,
            data_at: start,
            sequence: 0,
            flying: BTreeMap::new(),
        }
    }

    /// Adds a network. The addresses are the connector's and the sharer's, and so are the ranks.
    pub(crate) fn network(&mut self, addrs: [&str; 2], ranks: [Rank; 2], rtt_ms: u64) -> usize {
        let addrs = addrs.map(|text| text.parse().unwrap());
        let rtt = Duration::from_millis(rtt_ms);
        self.networks.push(Network { addrs, ranks, rtt, is_up: true });
        self.networks.len() - 1
    }

    /// Both sides are told of the other's address in a network.
    pub(crate) fn name(&mut self, network: usize) {
        for side in 0..2 {
            self.name_to(side, network);
        }
    }

    /// One side is told of the other's address in a network.
    pub(crate) fn name_to(&mut self, side: usize, network: usize) {
        let Network { addrs, ranks, .. } = &self.networks[network];
        let candidate = Candidate::new(CandidateKind::Host, addrs[1 - side]);
        let agent = &mut self.parties[side].agent;
        agent.set_rank(candidate.addr.ip(), ranks[side]);
        agent.add_candidate(candidate, self.now);
    }

    /// Where the primaries lead by: the connector's network, and the sharer's.
    pub(crate) fn primaries(&self) -> [Option<usize>; 2] {
        [0, 1].map(|side| {
            let primary = self.parties[side].route.primary?;
            let is_its = |network: &Network| network.is_up && network.addrs[1 - side] == primary.remote;
            self.networks.iter().position(is_its)
        })
    }

    pub(crate) fn changes(&self) -> [usize; 2] {
        self.parties.each_ref().map(|party| party.history.len())
    }

    pub(crate) fn begin_data(&mut self) {
        self.has_data = true;
        self.data_at = self.now;
        for party in &mut self.parties {
            (party.heard, party.longest_gap) = (self.now, Duration::ZERO);
        }
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            self.drain();
            let timers = self.parties.iter().filter_map(|party| party.agent.poll_timeout()).min();
            let data = self.has_data.then_some(self.data_at);
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = [timers, data, arrival].into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if self.has_data && self.data_at <= self.now {
                self.data_at = self.now + EVERY;
                self.send_data();
            }
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, from, packet) = entry.remove();
                self.arrive(to, from, packet);
                self.drain();
            }
            for party in &mut self.parties {
                party.agent.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn send_data(&mut self) {
        for side in 0..2 {
            let Route { primary, also } = self.parties[side].route;
            for path in primary.into_iter().chain(also) {
                let sent = Traffic { sent: true, received: false };
                self.parties[side].agent.handle_traffic(path, sent, self.now);
                self.fly(side, path.remote, Packet::Data);
            }
        }
    }

    fn arrive(&mut self, to: usize, from: SocketAddr, packet: Packet) {
        let rank = |network: &&Network| network.addrs[1 - to] == from;
        let rank = self.networks.iter().find(rank).map(|network| network.ranks[to]).unwrap_or_default();
        let party = &mut self.parties[to];
        let path = PathId { link: LinkId::MAIN, remote: from };
        match packet {
            Packet::Check(datagram) => {
                party.agent.set_rank(from.ip(), rank);
                party.agent.handle_check(path, &datagram, self.now);
            }
            Packet::Data => {
                party.longest_gap = party.longest_gap.max(self.now - party.heard);
                party.heard = self.now;
                party.agent.handle_traffic(path, Traffic { sent: false, received: true }, self.now);
            }
        }
    }

    fn fly(&mut self, side: usize, to: SocketAddr, packet: Packet) {
        let leads = |network: &&Network| network.is_up && network.addrs[1 - side] == to;
        let Some(network) = self.networks.iter().find(leads) else { return };
        self.sequence += 1;
        let arrival = (self.now + network.rtt / 2, self.sequence);
        self.flying.insert(arrival, (1 - side, network.addrs[side], packet));
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(transmit) = self.parties[side].agent.poll_transmit() {
                if transmit.ttl.is_none() {
                    self.fly(side, transmit.path.remote, Packet::Check(transmit.payload));
                }
            }
            let party = &mut self.parties[side];
            while let Some(event) = party.agent.poll_event() {
                match event {
                    PathEvent::Route { route, reason, .. } => {
                        if let Some(path) = route.primary.filter(|_| route.primary != party.route.primary) {
                            party.history.push((path.remote, reason));
                        }
                        party.route = route;
                    }
                    PathEvent::FreshLinkWanted => party.fresh_links += 1,
                    PathEvent::Accept(_) | PathEvent::ExchangeWanted | PathEvent::ReflexiveRuledOut => {}
                }
            }
        }
    }
}
