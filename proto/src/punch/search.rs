//! **Search**: one side opens many flows, the other tries ports at random, until it finds one of them.
//!
//! With 256 flows among 64 512 ports, 175 probes find one half of the time, 1148 in 99 of 100 cases, and 1715 in
//! 999 of 1000 (`1 - C(S-n, m)/C(S, m)`). The side whose NAT draws ports opens the flows, by primes, and says when
//! all are open; the side whose port stays tries, in an order without repetition, only the remote's one address,
//! and only where its ports were seen to lie. It does so from a socket of its own, where the other side knows of that in time
//! ([`super::spare`]), else from the main one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::RngCore as _;

use super::context::{Context, PunchAction};
use super::pace::{BATCH, Pace};
use super::prime_ttl;
use crate::nat::{NatProfile, PortRange};
use crate::path::LinkId;

/// Flows of the side whose NAT draws ports.
pub(super) const SOCKETS: u16 = 256;

/// Fewer are not worth the other side's probes.
const FEWEST: usize = 64;

/// Probes of the other side.
const PROBES: usize = 1715;

/// The round for which the side that opens says that its flows go to the port that it was told of.
pub(super) const AIMED: u8 = 2;

/// How long the flows stay open: for all probes, the way to be told of them, and one way back.
const OPEN: Duration = Duration::from_secs(6);

/// The side that opens.
#[derive(Debug)]
pub(super) struct Opening {
    links: Vec<LinkId>,
    primed: usize,
    /// The other side's port, where it has told of one that it will search from.
    aim: Option<u16>,
    pace: Pace,
    next: Instant,
}

impl Opening {
    pub(super) fn new(aim: Option<u16>, context: &mut Context, now: Instant) -> Self {
        context.open(SOCKETS);
        Self { links: Vec::new(), primed: 0, aim, pace: Pace::default(), next: now + OPEN }
    }

    /// The other side has told of a port that it will search from. Once, and before it has heard that all flows are there,
    /// they begin anew.
    pub(super) fn aim(&mut self, port: u16) {
        let is_in_time = self.links.is_empty() || self.primed < self.links.len();
        if is_in_time && self.aim.is_none() {
            (self.aim, self.primed) = (Some(port), 0);
        }
    }

    pub(super) fn handle_opened(&mut self, links: &[LinkId], now: Instant) {
        if links.len() >= FEWEST {
            self.links = links.to_vec();
        }
        self.next = now;
    }

    /// Returns whether it is over.
    pub(super) fn handle_timeout(&mut self, ours: &NatProfile, context: &mut Context, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        if self.primed == self.links.len() {
            return true;
        }
        let port = self.aim.unwrap_or_else(|| context.remote.port());
        let remote = SocketAddr::new(context.remote.ip(), port);
        for link in self.links.iter().skip(self.primed).take(BATCH) {
            context.probe(*link, remote, Some(prime_ttl(0)));
        }
        self.primed = (self.primed + BATCH).min(self.links.len());
        self.next = self.pace.after(self.next, now);
        if self.primed == self.links.len() {
            let round = if self.aim.is_some() { AIMED } else { 1 };
            context.actions.push_back(PunchAction::Tell(*ours, round));
            self.next = now + OPEN;
        }
        false
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next
    }
}

/// So many ports of a range, or all, in random order.
pub(super) fn drawn(range: PortRange, count: usize, rng: &mut ChaCha12Rng) -> Vec<u16> {
    let mut ports: Vec<u16> = (range.first().max(1)..=range.last()).collect();
    let most = ports.len().min(count);
    for n in 0..most {
        let left = (ports.len() - n) as u32;
        // The remainder is as good as even: there are 2^16 times as many numbers as ports.
        ports.swap(n, n + (rng.next_u32() % left) as usize);
    }
    ports.truncate(most);
    ports
}

/// The side that tries.
#[derive(Debug)]
pub(super) struct Seeking {
    link: LinkId,
    ports: Vec<u16>,
    pace: Pace,
    next: Instant,
}

impl Seeking {
    pub(super) fn new(link: LinkId, range: PortRange, context: &mut Context, now: Instant) -> Self {
        Self { link, ports: drawn(range, PROBES, &mut context.rng), pace: Pace::default(), next: now }
    }

    /// Returns whether it is over.
    pub(super) fn handle_timeout(&mut self, context: &mut Context, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        let ip = context.remote.ip();
        for port in self.ports.drain(..BATCH.min(self.ports.len())) {
            context.probe(self.link, SocketAddr::new(ip, port), None);
        }
        self.next = self.pace.after(self.next, now);
        self.ports.is_empty()
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next
    }
}
