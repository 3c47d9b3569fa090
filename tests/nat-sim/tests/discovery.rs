//! Behaviour discovery against every NAT of the laboratory: the product's client and the product's server, with
//! nothing but the model between them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nat_sim::dice::Dice;
use nat_sim::kind::{Behaviour, Kind};
use nat_sim::nat::{self, Allocation as Given, Egress, Hairpin, Nat, Policy};
use proto::nat::{Allocation, Dependence, Discovery, DiscoveryConfig, Findings, SOCKETS};
use proto::public_udp::PublicUdp;

const ONE_WAY: Duration = Duration::from_millis(20);
const SERVER: [&str; 4] = ["203.0.113.1:3478", "203.0.113.1:3479", "203.0.113.2:3478", "203.0.113.2:3479"];
const SERVER_V6: [&str; 4] =
    ["[2001:db8::1]:3478", "[2001:db8::1]:3479", "[2001:db8::2]:3478", "[2001:db8::2]:3479"];

/// A datagram on its way.
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
    inbound: bool,
}

/// A host behind NATs, its own first, and a server at all of its addresses.
struct World {
    nats: Vec<Nat>,
    server: PublicUdp,
    corners: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    /// By the time of arrival; the number keeps what leaves together in order.
    flights: BTreeMap<(Instant, u64), Flight>,
    sent: u64,
    dice: Dice,
    loss: f64,
    /// New flows of other hosts for each packet of ours.
    others: u16,
}

impl World {
    fn new(policies: Vec<Policy>, corners: &[&str], seed: u64, now: Instant) -> Self {
        let corners: Vec<SocketAddr> = corners.iter().map(|text| text.parse().unwrap()).collect();
        let inside: IpAddr = match (corners[0].is_ipv6(), policies.is_empty()) {
            (true, _) => "2001:db8:1::2",
            (false, true) => "198.51.100.7",
            (false, false) => "192.168.1.2",
        }
        .parse()
        .unwrap();
        let outside = ["198.51.100.1", "198.51.100.2"].map(|text| vec![text.parse().unwrap()]);
        let nats = policies.into_iter().zip(outside).enumerate();
        let nats = nats.map(|(n, (policy, ip))| Nat::new(policy, ip, Dice::new(seed, n as u64))).collect();
        Self {
            nats,
            server: PublicUdp::new(true, corners.clone(), now),
            corners,
            local: (0..SOCKETS as u16).map(|n| SocketAddr::new(inside, 40_000 + 7 * n)).collect(),
            flights: BTreeMap::new(),
            sent: 0,
            dice: Dice::new(seed, 9),
            loss: 0.0,
            others: 0,
        }
    }

    fn fly(&mut self, flight: Flight, now: Instant) {
        self.sent += 1;
        if !self.dice.chance(self.loss) {
            self.flights.insert((now + ONE_WAY, self.sent), flight);
        }
    }

    /// Lets a packet of the host's out.
    fn leave(&mut self, mut from: SocketAddr, to: SocketAddr, payload: Vec<u8>, now: Instant) {
        if self.local.contains(&to) {
            return self.fly(Flight { from, to, payload, inbound: true }, now);
        }
        for layer in 0..self.nats.len() {
            self.nats[layer].foreign_flows(self.others);
            match self.nats[layer].egress(from, to, now) {
                Egress::Out { src } => from = src,
                Egress::Hairpin { src, dst } => return self.enter(src, dst, payload, layer, now),
                Egress::Refused(_) => return,
            }
        }
        self.fly(Flight { from, to, payload, inbound: false }, now);
    }

    /// Lets a packet in through the NATs below a layer.
    fn enter(&mut self, from: SocketAddr, mut to: SocketAddr, payload: Vec<u8>, below: usize, now: Instant) {
        for nat in self.nats[..below].iter_mut().rev() {
            let Some(dst) = nat.ingress(from, to, now).dst() else { return };
            to = dst;
        }
        self.fly(Flight { from, to, payload, inbound: true }, now);
    }

    fn serve(&mut self, flight: Flight, now: Instant) {
        let Flight { from, to, payload, .. } = flight;
        if !self.corners.contains(&to) {
            return;
        }
        let Some(reply) = self.server.answer(&payload, from, Some(to), now) else { return };
        self.enter(reply.from.unwrap_or(to), from, reply.payload, self.nats.len(), now);
    }

    /// What the discovery finds, and how long it takes.
    fn discover(mut self, seed: u8, start: Instant) -> (Findings, Duration) {
        let config = DiscoveryConfig {
            server: self.corners[0],
            alternates: self.corners[1..].to_vec(),
            local: self.local.clone(),
        };
        let (mut now, mut discovery) = (start, Discovery::new(config, [seed; 32], start));
        loop {
            while let Some(probe) = discovery.poll_transmit() {
                let from = self.local[probe.socket];
                self.leave(from, probe.to, probe.payload, now);
            }
            if let Some(findings) = discovery.findings() {
                return (findings, now - start);
            }
            let arrival = self.flights.first_key_value().map(|((at, _), _)| *at);
            let timeout = discovery.poll_timeout();
            now = [arrival, timeout].into_iter().flatten().min().expect("it ends").max(now);
            if arrival.is_some_and(|at| at <= now) {
                let (_, flight) = self.flights.pop_first().unwrap();
                if flight.inbound {
                    let socket = self.local.iter().position(|addr| *addr == flight.to).unwrap();
                    discovery.handle_datagram(socket, flight.from, &flight.payload, now);
                } else {
                    self.serve(flight, now);
                }
            } else {
                discovery.handle_timeout(now);
            }
        }
    }
}

fn find(policies: Vec<Policy>, corners: &[&str], seed: u64) -> (Findings, Duration) {
    let now = Instant::now();
    World::new(policies, corners, seed, now).discover(seed as u8, now)
}

fn word(dependence: nat::Dependence) -> Dependence {
    match dependence {
        nat::Dependence::EndpointIndependent => Dependence::EndpointIndependent,
        nat::Dependence::AddressDependent => Dependence::AddressDependent,
        nat::Dependence::AddressAndPortDependent => Dependence::AddressAndPortDependent,
    }
}

/// The strictest of the layers, which is what the world sees.
fn strictest(policies: &[Policy], of: impl Fn(&Policy) -> nat::Dependence) -> Dependence {
    policies.iter().map(|policy| word(of(policy))).max().unwrap_or(Dependence::EndpointIndependent)
}

#[test]
fn every_kind_is_found_to_be_what_it_is() {
    for kind in Kind::all() {
        let policies = kind.policies();
        let corners = if kind == Kind::Ipv6Firewall { SERVER_V6 } else { SERVER };
        for seed in 1..=5 {
            let (found, took) = find(policies.clone(), &corners, seed);
            assert!(took < Duration::from_millis(2500), "{kind}: {took:?}");
            if kind == Kind::UdpBlocked {
                assert_eq!(found, Findings::default(), "{kind}");
                continue;
            }
            let translates = policies.iter().any(|policy| policy.translates);
            let mapping = match translates {
                true => strictest(&policies, |policy| policy.mapping),
                false => Dependence::EndpointIndependent,
            };
            let hairpins = |policy: &Policy| policy.hairpin == Hairpin::ExternalSource;
            assert_eq!(found.mapping, Some(mapping), "{kind}");
            assert_eq!(found.filtering, Some(strictest(&policies, |policy| policy.filtering)), "{kind}");
            assert_eq!((found.is_translated, found.has_two_addresses), (translates, true), "{kind}");
            assert_eq!(found.hairpin, Some(!translates || policies.iter().any(hairpins)), "{kind}");
            assert_eq!(found.rtt, Some(2 * ONE_WAY), "{kind}");
            assert_allocation(kind, &policies, &found);
        }
    }
}

/// The ports are the outermost layer's choice.
fn assert_allocation(kind: Kind, policies: &[Policy], found: &Findings) {
    let outermost = policies.iter().rfind(|policy| policy.translates).map(|policy| policy.allocation);
    match (outermost.unwrap_or(Given::Preserving), found.allocation) {
        (Given::Preserving | Given::PreservingUntilClash, Some(Allocation::Preserving)) => {}
        (Given::Sequential { step }, Some(Allocation::Sequential { step: seen })) => {
            assert_eq!(seen, step, "{kind}");
        }
        (Given::Random, Some(Allocation::Random { range })) => assert!(range.size() > 30_000, "{range:?}"),
        (Given::RandomInBlock { size }, Some(Allocation::Random { range })) => {
            assert!(range.size() < 3 * u32::from(size), "{kind}: {range:?}");
        }
        (given, seen) => panic!("{kind}: {given:?} is taken for {seen:?}"),
    }
}

#[test]
fn every_mapping_with_every_filter_is_told_apart() {
    for mapping in nat::Dependence::ALL {
        for filtering in nat::Dependence::ALL {
            for allocation in [Given::Preserving, Given::Random, Given::Sequential { step: 2 }] {
                let policy = Policy::nat(mapping, filtering).allocating(allocation);
                let (found, _) = find(vec![policy], &SERVER, 3);
                // A second mapping of one socket can't have the port that the first one keeps.
                assert_eq!(found.mapping, Some(word(mapping)), "{mapping} {filtering} {allocation:?}");
                assert_eq!(found.filtering, Some(word(filtering)), "{mapping} {filtering} {allocation:?}");
            }
        }
    }
}

#[test]
fn a_server_with_one_address_says_what_it_can_and_no_more() {
    for mapping in nat::Dependence::ALL {
        for filtering in nat::Dependence::ALL {
            let policy = Policy::nat(mapping, filtering).allocating(Given::Random);
            let (found, _) = find(vec![policy], &SERVER[..2], 3);
            let seen = match mapping {
                nat::Dependence::AddressDependent => Dependence::EndpointIndependent,
                nat::Dependence::EndpointIndependent | nat::Dependence::AddressAndPortDependent => {
                    word(mapping)
                }
            };
            assert_eq!((found.mapping, found.has_two_addresses), (Some(seen), false), "{mapping}");
            let seen = word(filtering).max(Dependence::AddressDependent);
            assert_eq!(found.filtering, Some(seen), "{filtering}");
        }
        let (found, _) = find(vec![Policy::nat(mapping, mapping)], &SERVER[..1], 3);
        assert_eq!((found.mapping, found.filtering, found.has_udp()), (None, None, true), "one port alone");
    }
}

#[test]
fn steps_and_blocks_are_found_between_flows_of_others_and_losses() {
    let policy = || Behaviour::SymmetricSequential.policy().unwrap();
    for (step, others, loss) in [(1, 0, 0.1), (-1, 1, 0.0), (2, 3, 0.05), (-3, 0, 0.1), (8, 2, 0.05)] {
        let mut right = 0;
        for seed in 1..=100 {
            let now = Instant::now();
            let policy = policy().allocating(Given::Sequential { step });
            let mut world = World::new(vec![policy], &SERVER, seed, now);
            (world.others, world.loss) = (others, loss);
            let (found, took) = world.discover(seed as u8, now);
            assert!(took < Duration::from_secs(4), "{took:?}");
            let expected = i32::from(step) * i32::from(others + 1);
            right += usize::from(
                found.allocation == Some(Allocation::Sequential { step: expected as i16 })
                    && found.mapping == Some(Dependence::AddressAndPortDependent),
            );
        }
        assert!(right >= 95, "step {step}, {others} others, loss {loss}: {right} of 100");
    }
}

#[test]
fn neither_losses_nor_the_seed_change_what_is_found() {
    for kind in [Kind::FULL_CONE, Kind::ADDRESS_RESTRICTED, Kind::PORT_RESTRICTED] {
        let mut right = 0;
        for seed in 1..=100 {
            let now = Instant::now();
            let mut world = World::new(kind.policies(), &SERVER, seed, now);
            world.loss = 0.05;
            let (found, _) = world.discover(seed as u8, now);
            let filtering = strictest(&kind.policies(), |policy| policy.filtering);
            right += usize::from(
                found.mapping == Some(Dependence::EndpointIndependent) && found.filtering == Some(filtering),
            );
        }
        assert!(right >= 98, "{kind}: {right} of 100");
    }
}
