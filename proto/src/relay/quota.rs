//! What strangers may have of a relay.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::limit::{Prefix, PrefixLimiter, Rate};
use crate::wire::relay::Denial;

/// The limits of a relay, all on by default.
#[derive(Debug, Clone)]
pub struct RouterLimits {
    /// Connections in all, and from one prefix.
    pub connections: (usize, usize),
    /// Logins from one prefix. A carrier's NAT after an outage fits.
    pub logins_each: Rate,
    /// Logins in all: what half a core can check.
    pub logins_total: Rate,
    /// How long a login may take: a round trip on a slow path.
    pub login: Duration,
    /// Frames of one peer to those who did not let it in: the first flights to a few.
    pub strangers_each: Rate,
    /// The same of one prefix.
    pub strangers_prefix: Rate,
    /// The same in all.
    pub strangers_total: Rate,
    /// Allows, pings and the like of one peer; more close its connection.
    pub control: Rate,
    /// Bytes that wait for one receiver: about 70 batches of full packets.
    pub data_queue: usize,
    /// Bytes of checks that wait for one receiver; the relay's own control has as much again.
    pub control_queue: usize,
    /// Bytes that wait for all receivers together.
    pub queued: usize,
    /// Bytes held in all.
    pub held: usize,
    /// How long a receiver may take nothing while something waits for it.
    pub blocked: Duration,
    /// How often each peer is sent a ping, which also keeps proxies from hanging up.
    pub ping: Duration,
    /// How long a peer may say nothing: a few pings.
    pub silence: Duration,
}

impl Default for RouterLimits {
    fn default() -> Self {
        let rate = |burst, micros| Rate { burst, refill: Duration::from_micros(micros) };
        Self {
            connections: (20_000, 512),
            logins_each: rate(200, 50_000),
            logins_total: rate(4000, 500),
            login: Duration::from_secs(10),
            strangers_each: rate(128, 20_000),
            strangers_prefix: rate(1024, 2000),
            strangers_total: rate(16_384, 50),
            control: rate(1000, 5000),
            data_queue: 1024 * 1024,
            control_queue: 32 * 1024,
            queued: 512 * 1024 * 1024,
            held: 64 * 1024 * 1024,
            blocked: Duration::from_secs(2),
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(40),
        }
    }
}

/// Who has how much of it.
#[derive(Debug)]
pub(super) struct Quota {
    logins: PrefixLimiter,
    strangers: PrefixLimiter,
    connections: usize,
    sources: BTreeMap<Prefix, usize>,
}

impl Quota {
    pub(super) fn new(limits: &RouterLimits, now: Instant) -> Self {
        Self {
            logins: PrefixLimiter::new(limits.logins_each, limits.logins_total, now),
            strangers: PrefixLimiter::new(limits.strangers_prefix, limits.strangers_total, now),
            connections: 0,
            sources: BTreeMap::new(),
        }
    }

    /// A connection wants in. One of unknown source, behind a proxy of ours, only counts among all.
    pub(super) fn enter(
        &mut self,
        source: Option<IpAddr>,
        limits: &RouterLimits,
        now: Instant,
    ) -> Result<(), Denial> {
        if self.connections >= limits.connections.0 {
            return Err(Denial::Full);
        }
        let prefix = source.map(Prefix::of);
        let each = prefix.and_then(|prefix| self.sources.get(&prefix)).copied().unwrap_or(0);
        if each >= limits.connections.1 || !allow(&mut self.logins, source, now) {
            return Err(Denial::Limited);
        }
        self.connections += 1;
        if let Some(prefix) = prefix {
            self.sources.insert(prefix, each + 1);
        }
        Ok(())
    }

    /// It is gone.
    pub(super) fn leave(&mut self, source: Option<IpAddr>) {
        self.connections = self.connections.saturating_sub(1);
        let Some(prefix) = source.map(Prefix::of) else { return };
        match self.sources.get_mut(&prefix) {
            Some(each) if *each > 1 => *each -= 1,
            Some(_) | None => drop(self.sources.remove(&prefix)),
        }
    }

    /// Whether one more frame from this source to somebody who did not let it in is looked at.
    pub(super) fn stranger(&mut self, source: Option<IpAddr>, now: Instant) -> bool {
        allow(&mut self.strangers, source, now)
    }

    pub(super) const fn connections(&self) -> usize {
        self.connections
    }
}

fn allow(limiter: &mut PrefixLimiter, source: Option<IpAddr>, now: Instant) -> bool {
    match source {
        Some(ip) => limiter.allow(SocketAddr::new(ip, 0), now),
        None => limiter.allow_unplaced(now),
    }
}
