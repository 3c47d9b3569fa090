//! **Discovery**: what the NAT in front of this machine does, by RFC 5780 §4: mapping, filtering, hairpin; and how
//! it chooses ports.
//!
//! All tests that don't build on each other's answers run at once, each from a socket that was not used before,
//! so that no test's own hole in the filter spoils another one. It takes two seconds at the most.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::query::Query;
use super::{Dependence, Findings, PortSample, classify};
use crate::candidate::canonical;
use crate::machine::{earliest, random};
use crate::stun::{self, BindingAnswer, BindingRequest, Change};

/// How many sockets the shell opens.
pub const SOCKETS: usize = 11;

const MAPPING: usize = 0;
const FILTERING: usize = 1;
const NEIGHBOUR: usize = 2;
const SAMPLES: Range<usize> = 3..SOCKETS;

/// Between the samples: close enough for few flows of others, apart enough to stay in order.
const PACE: Duration = Duration::from_millis(5);

/// What is known before the first packet.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// The STUN server.
    pub server: SocketAddr,
    /// Further addresses of the server's. Of use are those with the same IP address.
    pub alternates: Vec<SocketAddr>,
    /// The local addresses of the [`SOCKETS`] sockets, as packets to the server leave from them.
    pub local: Vec<SocketAddr>,
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// From which socket, counted from 0.
    pub socket: usize,
    /// Where to.
    pub to: SocketAddr,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Where the server sees us.
    Plain,
    /// The mapping towards the server's other port, other IP address, and both.
    OtherPort,
    OtherIp,
    OtherBoth,
    /// Whether an answer from there gets in.
    FromPort,
    FromBoth,
    /// Where it sees the neighbour, and whether we reach each other there.
    Neighbour,
    Hairpin,
    /// One more mapping.
    Sample,
}

/// The machine.
#[derive(Debug)]
pub struct Discovery {
    config: DiscoveryConfig,
    rng: ChaCha12Rng,
    queries: Vec<(Purpose, Query)>,
    probes: VecDeque<Probe>,
    has_crossed: bool,
}

impl Discovery {
    /// Begins at once. The seed makes the transactions.
    pub fn new(config: DiscoveryConfig, seed: [u8; 32], now: Instant) -> Self {
        let server = canonical(config.server);
        let rng = ChaCha12Rng::from_seed(seed);
        let mut this = Self { config, rng, queries: Vec::new(), probes: VecDeque::new(), has_crossed: false };
        this.config.server = server;
        this.ask(Purpose::Plain, MAPPING, server, Change::NONE, now);
        this.ask(Purpose::Neighbour, NEIGHBOUR, server, Change::NONE, now);
        if let Some(other) = this.other_port() {
            this.ask(Purpose::OtherPort, MAPPING, other, Change::NONE, now);
            this.ask(Purpose::FromPort, FILTERING, server, Change::PORT, now);
        }
        this.send_due(now);
        this
    }

    /// A datagram that came to a socket.
    pub fn handle_datagram(&mut self, socket: usize, from: SocketAddr, payload: &[u8], now: Instant) {
        if let Some(request) = BindingRequest::read(payload) {
            self.handle_neighbour(socket, request.transaction(), now);
        } else {
            self.handle_answer(socket, canonical(from), payload, now);
        }
        self.send_due(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.send_due(now);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queries.iter().fold(None, |next, (_, query)| earliest(next, query.poll_timeout()))
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// What was found, once everything was answered or has had its time.
    pub fn findings(&self) -> Option<Findings> {
        if !self.queries.iter().all(|(_, query)| query.is_over()) {
            return None;
        }
        let plain = self.query(Purpose::Plain);
        let mapped = self.queries.iter().find_map(|(_, query)| query.mapped());
        Some(Findings {
            mapped,
            rtt: plain.and_then(Query::took),
            is_translated: plain.and_then(Query::mapped)
                != self.config.local.get(MAPPING).copied().map(canonical)
                && mapped.is_some(),
            has_two_addresses: self.query(Purpose::OtherIp).is_some_and(Query::is_answered),
            mapping: self.mapping(),
            filtering: self.filtering(),
            allocation: classify(&self.samples()),
            hairpin: self.hairpin(),
        })
    }

    fn handle_answer(&mut self, socket: usize, from: SocketAddr, payload: &[u8], now: Instant) {
        let awaited = |purpose: Purpose, query: &Query| match purpose {
            // One that ignores what was asked for answers from the same address: it shows nothing.
            Purpose::FromPort => from.ip() == query.to.ip() && from.port() != query.to.port(),
            Purpose::FromBoth => from.ip() != query.to.ip() && from.port() != query.to.port(),
            Purpose::Hairpin => false,
            Purpose::Plain
            | Purpose::OtherPort
            | Purpose::OtherIp
            | Purpose::OtherBoth
            | Purpose::Neighbour
            | Purpose::Sample => from == query.to,
        };
        let found = self.queries.iter_mut().find_map(|(purpose, query)| {
            if query.socket != socket || !awaited(*purpose, query) {
                return None;
            }
            let answer = BindingAnswer::read(payload, query.transaction)?;
            query.settle(Some(answer), now);
            Some((*purpose, answer))
        });
        let Some((purpose, answer)) = found else { return };
        if purpose == Purpose::Plain {
            self.handle_plain(answer, now);
        }
        self.cross(now);
    }

    /// A packet of our own that turned round at the NAT.
    fn handle_neighbour(&mut self, socket: usize, transaction: stun::Transaction, now: Instant) {
        let heard = self.queries.iter_mut().find(|(purpose, query)| {
            *purpose == Purpose::Hairpin && query.transaction == transaction && query.socket != socket
        });
        if let Some((_, query)) = heard {
            query.settle(None, now);
        }
    }

    /// The first answer: UDP works, and the server says whether it has another IP address.
    fn handle_plain(&mut self, answer: BindingAnswer, now: Instant) {
        let server = self.config.server;
        let other = answer.other.filter(|other| {
            other.is_ipv4() == server.is_ipv4() && other.ip() != server.ip() && other.port() != server.port()
        });
        if let Some(other) = other {
            let other_ip = SocketAddr::new(other.ip(), server.port());
            self.ask(Purpose::OtherIp, MAPPING, other_ip, Change::NONE, now);
            self.ask(Purpose::OtherBoth, MAPPING, other, Change::NONE, now);
            self.ask(Purpose::FromBoth, FILTERING, server, Change::BOTH, now);
            if self.query(Purpose::FromPort).is_none() {
                self.ask(Purpose::FromPort, FILTERING, server, Change::PORT, now);
            }
        }
        let other_port = self.other_port().or(other.map(|other| SocketAddr::new(server.ip(), other.port())));
        let mut at = now + PACE;
        for socket in SAMPLES {
            for to in [Some(server), other_port].into_iter().flatten() {
                self.ask(Purpose::Sample, socket, to, Change::NONE, at);
                at += PACE;
            }
        }
    }

    /// Once both are known, two sockets send to each other's public address. Each opens its own filter for the
    /// other so.
    fn cross(&mut self, now: Instant) {
        let mapped = |purpose| self.query(purpose).and_then(Query::mapped);
        let (Some(ours), Some(neighbours)) = (mapped(Purpose::Plain), mapped(Purpose::Neighbour)) else {
            return;
        };
        if !self.has_crossed {
            self.has_crossed = true;
            self.ask(Purpose::Hairpin, MAPPING, neighbours, Change::NONE, now);
            self.ask(Purpose::Hairpin, NEIGHBOUR, ours, Change::NONE, now);
        }
    }

    fn ask(&mut self, purpose: Purpose, socket: usize, to: SocketAddr, change: Change, begin: Instant) {
        let transaction = random(&mut self.rng);
        let payload = match change.is_any() {
            true => stun::change_request(transaction, change),
            false => stun::binding_request(transaction),
        };
        // One that was lost and sent again would be out of order among the samples.
        let once = purpose == Purpose::Sample;
        self.queries.push((purpose, Query::new(socket, to, transaction, payload, begin, once)));
    }

    fn send_due(&mut self, now: Instant) {
        for (_, query) in &mut self.queries {
            while query.is_due(now) {
                self.probes.push_back(Probe {
                    socket: query.socket,
                    to: query.to,
                    payload: query.payload.clone(),
                });
            }
        }
    }

    fn other_port(&self) -> Option<SocketAddr> {
        let server = self.config.server;
        let mut others = self.config.alternates.iter().map(|other| canonical(*other));
        others.find(|other| other.ip() == server.ip() && other.port() != server.port())
    }

    fn query(&self, purpose: Purpose) -> Option<&Query> {
        self.queries.iter().find(|(of, _)| *of == purpose).map(|(_, query)| query)
    }

    /// RFC 5780 §4.3, and the server's other port besides.
    fn mapping(&self) -> Option<Dependence> {
        let mapped = |purpose| self.query(purpose).and_then(Query::mapped);
        let first = mapped(Purpose::Plain)?;
        let (other_port, other_ip) = (mapped(Purpose::OtherPort), mapped(Purpose::OtherIp));
        let both = mapped(Purpose::OtherBoth);
        let by_port = other_port.map(|port| port != first).or_else(|| Some(other_ip? != both?));
        let by_address = other_ip.map(|ip| ip != first);
        match (by_address, by_port) {
            (_, Some(true)) => Some(Dependence::AddressAndPortDependent),
            (Some(true), Some(false)) => Some(Dependence::AddressDependent),
            (Some(false) | None, Some(false)) | (Some(false), None) => Some(Dependence::EndpointIndependent),
            (Some(true) | None, None) => None,
        }
    }

    /// RFC 5780 §4.4.
    fn filtering(&self) -> Option<Dependence> {
        self.query(Purpose::Plain)?.mapped()?;
        let gets_in = |purpose| self.query(purpose).map(Query::is_answered);
        match (gets_in(Purpose::FromBoth), gets_in(Purpose::FromPort)) {
            (Some(true), _) => Some(Dependence::EndpointIndependent),
            (_, Some(true)) => Some(Dependence::AddressDependent),
            (_, Some(false)) => Some(Dependence::AddressAndPortDependent),
            (_, None) => None,
        }
    }

    fn hairpin(&self) -> Option<bool> {
        let mut crossings =
            self.queries.iter().filter(|(purpose, _)| *purpose == Purpose::Hairpin).peekable();
        crossings.peek()?;
        Some(crossings.any(|(_, query)| query.is_answered()))
    }

    /// The samples, in the order in which they were sent, without those that found a mapping already there.
    fn samples(&self) -> Vec<PortSample> {
        let mut samples: Vec<(usize, PortSample)> = Vec::new();
        for (purpose, query) in &self.queries {
            let (Some(mapped), Some(local)) = (query.mapped(), self.config.local.get(query.socket)) else {
                continue;
            };
            let sample = PortSample { local: local.port(), mapped: mapped.port() };
            let is_new = !samples.iter().any(|(socket, old)| (*socket, *old) == (query.socket, sample));
            if *purpose == Purpose::Sample && is_new {
                samples.push((query.socket, sample));
            }
        }
        samples.into_iter().map(|(_, sample)| sample).collect()
    }
}
