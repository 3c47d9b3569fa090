//! What is seen of a peer from outside its machines: when it had a path, and what it should not have sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Scope, scope};
use proto::path::{CheckTransmit, PathEvent, PathId, Reason};

/// IP and UDP headers of the larger family.
const HEADERS: usize = 48;

/// What one attempt may send to an address that never proved anything.
const BUDGET: usize = 3000;

/// A global IPv6 address that is merely claimed gets this much: three checks of 100 bytes.
const CLAIMED_V6: (usize, usize) = (3, 100);

/// What a strategy for hard NATs may send in one exchange: all probes of a search and a question to the server about the
/// port from which it is made, which is repeated four times, or the rows of three volleys.
const PUNCHES: usize = 1715 + 5;

/// How many of them in any second, and how large each may be.
const PUNCHES_PER_SECOND: usize = 505;
const PUNCH_SIZE: usize = 100;

/// How many broken rules are kept.
const MAX_FAULTS: usize = 4;

/// Bytes and datagrams to one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams.
    pub packets: usize,
    /// Bytes, headers counted.
    pub bytes: usize,
}

/// What was seen of one peer.
#[derive(Debug, Default)]
pub struct Watch {
    first_direct: Option<Instant>,
    last_direct: Option<Instant>,
    verdict: Option<Instant>,
    /// When it read that in what the sharer said of its NAT before it answered.
    foreseen: Option<Instant>,
    misjudged: u32,
    checks: u64,
    wakes: u64,
    routes: Vec<(Instant, Option<PathId>, Reason)>,
    fresh_links: u32,
    accepted: BTreeSet<PathId>,
    heard: BTreeSet<SocketAddr>,
    /// By address: the attempt, and what was sent in it before the address was heard.
    unproven: BTreeMap<SocketAddr, ((u64, u32), Count)>,
    punches: usize,
    recent_punches: VecDeque<Instant>,
    faults: Vec<String>,
}

impl Watch {
    /// When it first had a path.
    #[must_use]
    pub fn first_direct(&self) -> Option<Instant> {
        self.first_direct
    }

    /// When it first knew that no direct path leads through both NATs.
    #[must_use]
    pub fn verdict(&self) -> Option<Instant> {
        self.verdict
    }

    /// How often an answer left a way that there was none of by what the sharer had said before.
    #[must_use]
    pub fn misjudged(&self) -> u32 {
        self.misjudged
    }

    /// How many checks and answers it has sent.
    #[must_use]
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// How often a timer of its went off.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// Each change of its route: when, the primary, why.
    #[must_use]
    pub fn routes(&self) -> &[(Instant, Option<PathId>, Reason)] {
        &self.routes
    }

    /// How often it opened another port.
    #[must_use]
    pub fn fresh_links(&self) -> u32 {
        self.fresh_links
    }

    /// Rules that it broke.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// How long it was without a path since it first had one, at the longest.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let mut gap = Duration::ZERO;
        let mut lost: Option<Instant> = None;
        for (at, primary, _) in &self.routes {
            match (primary, lost) {
                (None, None) => lost = Some(*at),
                (Some(_), Some(since)) => {
                    gap = gap.max(at.saturating_duration_since(since));
                    lost = None;
                }
                (None, Some(_)) | (Some(_), None) => {}
            }
        }
        gap
    }

    pub(super) fn is_accepted(&self, path: &PathId) -> bool {
        self.accepted.contains(path)
    }

    /// A new agent took over, which knows nothing of what the last one had proven.
    pub(super) fn new_agent(&mut self) {
        self.heard.clear();
        self.unproven.clear();
        self.punches = 0;
    }

    /// It reads in what the sharer said before that no direct path leads through both NATs.
    pub(super) fn foresaw(&mut self, now: Instant) {
        self.foreseen.get_or_insert(now);
    }

    /// The answer is what counts from here on: what was foreseen and is not so by now was never a verdict.
    pub(super) fn answered(&mut self) {
        let is_wrong = self.foreseen.take().is_some() && self.verdict.is_none();
        self.misjudged += u32::from(is_wrong);
    }

    pub(super) fn woken(&mut self) {
        self.wakes += 1;
    }

    pub(super) fn link_opened(&mut self) {
        self.fresh_links += 1;
    }

    /// `attempt` tells attempts of one agent apart, and one agent from the next.
    pub(super) fn sent(&mut self, transmit: &CheckTransmit, attempt: (u64, u32)) {
        self.checks += 1;
        let remote = transmit.path.remote;
        if self.heard.contains(&remote) {
            return;
        }
        let (of, count) = self.unproven.entry(remote).or_default();
        if *of != attempt {
            (*of, *count) = (attempt, Count::default());
        }
        count.packets += 1;
        count.bytes += transmit.payload.len() + HEADERS;
        if count.bytes > BUDGET {
            let fault = format!("{} bytes to {remote}, which has proven nothing", count.bytes);
            return self.fault(fault);
        }
        let (most, size) = CLAIMED_V6;
        let is_global_v6 = remote.is_ipv6() && scope(remote) == Scope::Global;
        if is_global_v6 && (count.packets > most || transmit.payload.len() > size) {
            let fault = format!("{} checks of {remote}, which is merely claimed", count.packets);
            self.fault(fault);
        }
    }

    /// A strategy for hard NATs sent something to the remote, or asked the server.
    pub(super) fn punched(&mut self, transmit: &CheckTransmit, now: Instant) {
        self.checks += 1;
        self.punches += 1;
        self.recent_punches.push_back(now);
        while self.recent_punches.front().is_some_and(|at| now >= *at + Duration::from_secs(1)) {
            self.recent_punches.pop_front();
        }
        let (count, recent, size) = (self.punches, self.recent_punches.len(), transmit.payload.len());
        if count > PUNCHES || recent > PUNCHES_PER_SECOND || size > PUNCH_SIZE {
            self.fault(format!("a punch of {size} bytes, number {count}, of {recent} in a second"));
        }
    }

    pub(super) fn event(&mut self, event: &PathEvent, now: Instant) {
        match event {
            PathEvent::Accept(path) => {
                self.accepted.insert(*path);
                self.heard.insert(path.remote);
                self.unproven.remove(&path.remote);
            }
            PathEvent::Route { route, reason, .. } => {
                if let Some(path) = route.primary {
                    self.first_direct.get_or_insert(now);
                    self.last_direct = Some(now);
                    if !self.heard.contains(&path.remote) {
                        self.fault(format!("a path to {}, which has proven nothing", path.remote));
                    }
                }
                if route.also.is_some() && (route.also == route.primary || route.primary.is_none()) {
                    self.fault(format!("a copy beside no primary: {route:?}"));
                }
                self.routes.push((now, route.primary, *reason));
            }
            PathEvent::FreshLinkWanted | PathEvent::ExchangeWanted => {}
            PathEvent::ReflexiveRuledOut => {
                self.verdict.get_or_insert(self.foreseen.unwrap_or(now));
            }
        }
    }

    /// The first few tell the story; a rule that is broken often is not told often.
    fn fault(&mut self, text: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(text);
        }
    }
}
