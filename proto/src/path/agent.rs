//! **PathAgent**: the life of the paths to one remote peer.
//!
//! An attempt checks every pair (link of ours × candidate of theirs) on a paced schedule: where a NAT may
//! lie between, first one check that dies behind our own router and only opens it, then full ones. A check
//! is a Binding request that proves the exchange's keys; it is answered to the address it was seen to come
//! from, which becomes a candidate too. A pair whose check was answered is *proven*; the best proven one is
//! *primary* and carries the data. From then on the agent keeps its binding alive, and looks for evidence
//! against it: a check, or data, that goes unanswered makes it *suspect* (data then goes over the next best
//! path too), and three seconds of that *dead*. With no path left a new attempt begins, from a new local
//! port after one that failed, because repeating what failed rarely helps (`docs/PROTOCOL.md` §5).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::pair::{Occasion, Pair};
use super::{CheckTransmit, LinkId, PathId, PathKind, Route};
use crate::candidate::{Candidate, CandidateKind, Scope, canonical, scope};
use crate::machine::{earliest, jitter, random};
use crate::proof::CheckKeys;
use crate::stun::{self, CHECK_SIZE, Role};

/// How the agent behaves in time, and how much it may send.
#[derive(Debug, Clone, Copy)]
pub struct PathConfig {
    /// From one full check of a pair to the next, at first.
    pub first_interval: Duration,
    /// By how much that grows with each.
    pub growth: f64,
    /// And where it ends.
    pub last_interval: Duration,
    /// Full checks of one pair in one attempt: two seconds' worth.
    pub max_checks: u32,
    /// Bytes, headers counted, to one unproven address in one attempt.
    pub budget: u32,
    /// Checks of a global IPv6 address that the remote merely claims, until it is heard.
    pub max_unheard_v6: u32,
    /// Between any two checks (RFC 8445 §14 asks for 5 ms at the least).
    pub pace: Duration,
    /// The hop limit of a prime: past our own router, short of anybody else's.
    pub prime_ttl: u8,
    /// From the prime to the first full check, so that the far side's prime has left too.
    pub prime_wait: Duration,
    /// Checks after the proof.
    pub confirmations: u8,
    /// How long a proven path may be quiet: half of the 30 s for which common NATs keep a binding.
    pub keepalive: Duration,
    /// From suspicion to death.
    pub dead_after: Duration,
    /// Waits before the second, third and any further attempt.
    pub retry: [Duration; 4],
    /// Addresses of the remote, claimed and learned.
    pub max_remotes: usize,
    /// How much faster another path of the same kind must be, as a share and in time.
    pub hysteresis: (f64, Duration),
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            first_interval: Duration::from_millis(20),
            growth: 1.5,
            last_interval: Duration::from_millis(200),
            max_checks: 14,
            budget: 3000,
            max_unheard_v6: 3,
            pace: Duration::from_millis(5),
            prime_ttl: 2,
            prime_wait: Duration::from_millis(60),
            confirmations: 3,
            keepalive: Duration::from_secs(15),
            dead_after: Duration::from_secs(3),
            retry: [1, 30, 60, 120].map(Duration::from_secs),
            max_remotes: 16,
            hysteresis: (0.8, Duration::from_millis(5)),
        }
    }
}

/// Why the route is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The first path that was proven.
    FirstProven,
    /// A path of a better kind was proven.
    BetterKind,
    /// A path of the same kind turned out faster.
    Faster,
    /// The primary does not answer; the next best path carries a copy.
    Suspect,
    /// It answers again.
    Recovered,
    /// The primary was silent for too long.
    Silence,
    /// The link under it is gone.
    LinkGone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstProven => "first path proven",
            Self::BetterKind => "a better kind of path was proven",
            Self::Faster => "a faster path was proven",
            Self::Suspect => "the path does not answer",
            Self::Recovered => "the path answers again",
            Self::Silence => "the path was silent for too long",
            Self::LinkGone => "the network under the path is gone",
        })
    }
}

/// What the agent tells its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEvent {
    /// Packets from there are the remote's from here on.
    Accept(PathId),
    /// Data takes this route from here on.
    Route {
        /// The route.
        route: Route,
        /// The primary's kind and round trip.
        primary: Option<(PathKind, Duration)>,
        /// Why.
        reason: Reason,
    },
    /// An attempt failed: another local port should be tried. The shell opens a link, tells the remote of
    /// its mapping, and hands it in with [`PathAgent::add_link`].
    FreshLinkWanted,
}

/// What passed on a path since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Something that wants an answer left.
    pub sent: bool,
    /// Something authenticated arrived.
    pub received: bool,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Checks sent, primes among them.
    pub checks_sent: u64,
    /// Authenticated checks received, and answered where the budget allowed.
    pub checks_received: u64,
    /// Authenticated answers received.
    pub answers_received: u64,
    /// Datagrams that named the exchange and proved nothing.
    pub unauthenticated: u64,
    /// Attempts begun.
    pub attempts: u32,
}

/// The machine.
#[derive(Debug)]
pub struct PathAgent {
    config: PathConfig,
    role: Role,
    keys: CheckKeys,
    links: Vec<(LinkId, PathKind)>,
    remotes: Vec<Candidate>,
    pairs: BTreeMap<PathId, Pair>,
    route: Route,
    suspect_since: Option<Instant>,
    keepalive_at: Option<Instant>,
    /// Since when data has gone out on the primary and nothing has come in.
    owed_since: Option<Instant>,
    pace_until: Instant,
    attempt_ends: Option<Instant>,
    retry_at: Option<Instant>,
    attempt: u32,
    rng: ChaCha12Rng,
    transmits: VecDeque<CheckTransmit>,
    events: VecDeque<PathEvent>,
    stats: PathStats,
}

impl PathAgent {
    /// An agent of the exchange that `keys` belong to. It sends nothing until it has a link and a candidate.
    pub fn new(config: PathConfig, role: Role, keys: CheckKeys, seed: [u8; 32], now: Instant) -> Self {
        Self {
            config,
            role,
            keys,
            links: Vec::new(),
            remotes: Vec::new(),
            pairs: BTreeMap::new(),
            route: Route::default(),
            suspect_since: None,
            keepalive_at: None,
            owed_since: None,
            pace_until: now,
            attempt_ends: None,
            retry_at: None,
            attempt: 0,
            rng: ChaCha12Rng::from_seed(seed),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: PathStats { attempts: 1, ..PathStats::default() },
        }
    }

    /// A link of ours, over which every candidate is tried.
    pub fn add_link(&mut self, link: LinkId, kind: PathKind, now: Instant) {
        if self.links.iter().any(|(known, _)| *known == link) {
            return;
        }
        self.links.push((link, kind));
        for candidate in self.remotes.clone() {
            self.add_pair(PathId { link, remote: candidate.addr }, kind, candidate.kind, now);
        }
    }

    /// The link is gone, and every path over it.
    pub fn remove_link(&mut self, link: LinkId, now: Instant) {
        self.links.retain(|(known, _)| *known != link);
        self.pairs.retain(|path, _| path.link != link);
        if self.route.primary.is_some_and(|path| path.link == link) {
            self.drop_primary(Reason::LinkGone, now);
        }
    }

    /// An address of the remote's, believed as far as [`crate::candidate::believable`] goes. Over the limit
    /// it is ignored.
    pub fn add_candidate(&mut self, candidate: Candidate, now: Instant) {
        let candidate = Candidate::new(candidate.kind, candidate.addr);
        let known = self.remotes.iter().any(|other| other.addr == candidate.addr);
        if known || self.remotes.len() >= self.config.max_remotes {
            return;
        }
        self.remotes.push(candidate);
        for (link, kind) in self.links.clone() {
            self.add_pair(PathId { link, remote: candidate.addr }, kind, candidate.kind, now);
        }
    }

    /// Whether a datagram that [`stun::preview`] took for a check, or an answer, is of this agent's exchange.
    pub fn expects(&self, preview: &stun::Preview) -> bool {
        match preview {
            stun::Preview::Check(username) => *username == self.keys.username,
            stun::Preview::Answer(transaction) => self.pairs.values().any(|pair| pair.awaits(transaction)),
        }
    }

    /// A STUN datagram for this exchange.
    pub fn handle_check(&mut self, path: PathId, datagram: &[u8], now: Instant) {
        let path = PathId { remote: canonical(path.remote), ..path };
        match stun::preview(datagram) {
            Some(stun::Preview::Check(_)) => self.handle_request(path, datagram, now),
            Some(stun::Preview::Answer(_)) => self.handle_answer(path, datagram, now),
            None => self.stats.unauthenticated += 1,
        }
    }

    /// What passed on a path since the last report, as far as the shell's counters tell.
    pub fn handle_traffic(&mut self, path: PathId, traffic: Traffic, now: Instant) {
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        if traffic.received {
            pair.heard = Some(now);
            pair.unanswered_since = None;
        }
        if self.route.primary != Some(path) {
            return;
        }
        if traffic.received {
            self.owed_since = None;
            self.recover();
        } else if traffic.sent && self.owed_since.is_none() {
            self.owed_since = Some(now);
        }
    }

    /// The network under us changed: everything is checked again at once.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.begin_attempt(now);
        if let Some(path) = self.route.primary {
            self.check(path, None, now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.begin_attempt(now);
        }
        self.run_schedule(now);
        self.watch_primary(now);
        if self.attempt_ends.is_some_and(|at| at <= now) {
            self.attempt_ends = None;
            if self.route.primary.is_none() {
                self.end_attempt(now);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let checks = self.pairs.values().filter_map(Pair::next).min().map(|at| at.max(self.pace_until));
        let mut next = earliest(checks, self.keepalive_at);
        next = earliest(next, self.suspicion_at());
        next = earliest(next, self.suspect_since.map(|since| since + self.config.dead_after));
        earliest(earliest(next, self.retry_at), self.attempt_ends)
    }

    /// A datagram to send.
    pub fn poll_transmit(&mut self) -> Option<CheckTransmit> {
        self.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// The route that data takes.
    pub const fn route(&self) -> Route {
        self.route
    }

    /// The kind and round trip of the primary.
    pub fn primary(&self) -> Option<(PathId, PathKind, Duration)> {
        let path = self.route.primary?;
        let pair = self.pairs.get(&path)?;
        Some((path, pair.kind, pair.rtt.unwrap_or_default()))
    }

    /// The counts so far.
    pub const fn stats(&self) -> PathStats {
        self.stats
    }

    fn add_pair(&mut self, path: PathId, kind: PathKind, candidate: CandidateKind, now: Instant) {
        let mut pair = Pair::new(kind, candidate);
        pair.begin(&self.config, needs_prime(kind, candidate, path.remote), now);
        self.pairs.entry(path).or_insert(pair);
        self.attempt_ends = Some(now + self.attempt_length());
        self.retry_at = None;
    }

    fn begin_attempt(&mut self, now: Instant) {
        self.stats.attempts += 1;
        for (path, pair) in &mut self.pairs {
            if !pair.proven {
                pair.begin(&self.config, needs_prime(pair.kind, pair.candidate, path.remote), now);
            }
        }
        self.attempt_ends = Some(now + self.attempt_length());
    }

    /// An attempt found nothing: another port at once, and the same again later.
    fn end_attempt(&mut self, now: Instant) {
        let waits = self.config.retry;
        let wait = waits[(self.attempt as usize).min(waits.len() - 1)];
        self.attempt = self.attempt.saturating_add(1);
        self.retry_at = Some(now + wait + jitter(&mut self.rng, wait / 4));
        self.events.push_back(PathEvent::FreshLinkWanted);
    }

    /// How long an attempt may take until it counts as failed: its whole schedule and a slow answer.
    fn attempt_length(&self) -> Duration {
        self.config.prime_wait + self.config.last_interval * self.config.max_checks + Duration::from_millis(500)
    }

    fn run_schedule(&mut self, now: Instant) {
        while now >= self.pace_until {
            let due = self.pairs.iter().filter_map(|(path, pair)| Some((pair.next()?, pair.candidate, *path)));
            let Some((at, _, path)) = due.min() else { return };
            if at > now {
                return;
            }
            let Some(pair) = self.pairs.get_mut(&path) else { return };
            let unheard_v6 = pair.heard.is_none()
                && !pair.proven
                && path.remote.is_ipv6()
                && pair.kind == PathKind::Direct
                && scope(path.remote) == Scope::Global;
            let cap = if unheard_v6 { self.config.max_unheard_v6 } else { self.config.max_checks };
            let Some(occasion) = pair.due(&PathConfig { max_checks: cap, ..self.config }, now) else { return };
            if !pair.affords(&self.config, CHECK_SIZE) {
                pair.hush();
                continue;
            }
            let ttl = (occasion == Occasion::Prime).then_some(self.config.prime_ttl);
            self.check(path, ttl, now);
        }
    }

    fn check(&mut self, path: PathId, ttl: Option<u8>, now: Instant) {
        let transaction = random(&mut self.rng);
        let payload = stun::check_request(transaction, self.keys.username, self.role, self.password(self.role));
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        pair.spend(payload.len());
        pair.sent(transaction, now);
        self.pace_until = now + self.config.pace;
        self.stats.checks_sent += 1;
        self.transmits.push_back(CheckTransmit { path, ttl, payload });
        if self.route.primary == Some(path) {
            self.keepalive_at = Some(now + self.keepalive_interval());
        }
    }

    fn handle_request(&mut self, path: PathId, datagram: &[u8], now: Instant) {
        let theirs = other(self.role);
        let Some(transaction) = stun::verify_check(datagram, theirs, self.password(theirs)) else {
            self.stats.unauthenticated += 1;
            return;
        };
        let Some(kind) = self.links.iter().find(|(link, _)| *link == path.link).map(|(_, kind)| *kind) else {
            return;
        };
        self.stats.checks_received += 1;
        if !self.pairs.contains_key(&path) && !self.learn(path, kind) {
            return;
        }
        let answer = stun::check_answer(transaction, path.remote, self.password(theirs));
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        let first = pair.heard.replace(now).is_none();
        pair.unanswered_since = None;
        if pair.affords(&self.config, answer.len()) {
            pair.spend(answer.len());
            // The answer goes to where the check was seen to come from, whatever the candidate said.
            self.transmits.push_back(CheckTransmit { path, ttl: None, payload: answer });
        }
        if !pair.proven {
            let asap = self.pace_until.max(now);
            if pair.next().is_none_or(|next| next > asap) {
                pair.trigger(asap);
            }
        }
        if first {
            self.events.push_back(PathEvent::Accept(path));
        }
        if self.route.primary == Some(path) {
            self.recover();
        }
    }

    /// A peer-reflexive candidate: an authenticated check came from an address that nobody named.
    fn learn(&mut self, path: PathId, kind: PathKind) -> bool {
        let known = self.remotes.iter().any(|other| other.addr == path.remote);
        if !known {
            if self.remotes.len() >= self.config.max_remotes || scope(path.remote) == Scope::Unusable {
                return false;
            }
            self.remotes.push(Candidate { kind: CandidateKind::PeerReflexive, addr: path.remote });
        }
        self.pairs.insert(path, Pair::new(kind, CandidateKind::PeerReflexive));
        true
    }

    fn handle_answer(&mut self, path: PathId, datagram: &[u8], now: Instant) {
        let Some((transaction, _mapped)) = stun::verify_answer(datagram, self.password(self.role)) else {
            self.stats.unauthenticated += 1;
            return;
        };
        // An answer from elsewhere than the check went to proves nothing (RFC 8445 §7.2.5.2.1).
        let Some(pair) = self.pairs.get_mut(&path).filter(|pair| pair.awaits(&transaction)) else { return };
        self.stats.answers_received += 1;
        let first_heard = pair.heard.is_none();
        pair.answered(&self.config, &transaction, now);
        if first_heard {
            self.events.push_back(PathEvent::Accept(path));
        }
        if self.route.primary == Some(path) {
            self.owed_since = None;
            self.recover();
        }
        self.promote(path, now);
    }

    /// Makes a proven path primary if it is better than the one we have.
    fn promote(&mut self, path: PathId, now: Instant) {
        let Some(pair) = self.pairs.get(&path).filter(|pair| pair.proven) else { return };
        let reason = match self.route.primary.and_then(|primary| self.pairs.get(&primary)) {
            None => Reason::FirstProven,
            Some(_) if self.route.primary == Some(path) => return,
            Some(current) if pair.kind < current.kind => Reason::BetterKind,
            Some(current) if pair.kind == current.kind && self.is_faster(pair, current) => Reason::Faster,
            Some(_) if self.suspect_since.is_some() => return self.duplicate(),
            Some(_) => return,
        };
        self.set_primary(path, reason, now);
    }

    fn is_faster(&self, new: &Pair, current: &Pair) -> bool {
        let (Some(new), Some(current)) = (new.rtt, current.rtt) else { return false };
        let (share, margin) = self.config.hysteresis;
        new < current.mul_f64(share) && new + margin < current
    }

    fn set_primary(&mut self, path: PathId, reason: Reason, now: Instant) {
        self.route = Route { primary: Some(path), also: None };
        self.suspect_since = None;
        self.owed_since = None;
        self.attempt = 0;
        self.attempt_ends = None;
        self.retry_at = None;
        self.keepalive_at = Some(now + self.keepalive_interval());
        self.announce(reason);
    }

    fn announce(&mut self, reason: Reason) {
        let primary = self.primary().map(|(_, kind, rtt)| (kind, rtt));
        self.events.push_back(PathEvent::Route { route: self.route, primary, reason });
    }

    /// When the primary becomes suspect if nothing comes.
    fn suspicion_at(&self) -> Option<Instant> {
        if self.suspect_since.is_some() {
            return None;
        }
        let pair = self.pairs.get(&self.route.primary?)?;
        let since = earliest(pair.unanswered_since, self.owed_since)?;
        Some(since + pair.patience())
    }

    fn watch_primary(&mut self, now: Instant) {
        let Some(path) = self.route.primary else { return };
        if self.suspicion_at().is_some_and(|at| at <= now) {
            self.suspect_since = Some(now);
            self.keepalive_at = Some(now);
            self.duplicate();
        }
        if self.suspect_since.is_some_and(|since| now >= since + self.config.dead_after) {
            if let Some(pair) = self.pairs.get_mut(&path) {
                pair.fail();
            }
            return self.drop_primary(Reason::Silence, now);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.check(path, None, now);
            if self.suspect_since.is_some() {
                self.keepalive_at = Some(now + self.config.last_interval);
            }
        }
    }

    /// The best proven path beside the primary.
    fn second(&self) -> Option<PathId> {
        let proven = self.pairs.iter().filter(|(path, pair)| pair.proven && self.route.primary != Some(**path));
        proven.min_by_key(|(path, pair)| (pair.kind, pair.rtt, **path)).map(|(path, _)| *path)
    }

    fn duplicate(&mut self) {
        let also = self.second();
        if also != self.route.also || also.is_none() {
            self.route.also = also;
            self.announce(Reason::Suspect);
        }
    }

    fn recover(&mut self) {
        if self.suspect_since.take().is_some() {
            self.owed_since = None;
            self.route.also = None;
            self.announce(Reason::Recovered);
        }
    }

    fn drop_primary(&mut self, reason: Reason, now: Instant) {
        self.route.primary = None;
        let next = self.second();
        self.route = Route::default();
        self.suspect_since = None;
        self.owed_since = None;
        self.keepalive_at = None;
        match next {
            Some(path) => {
                self.set_primary(path, reason, now);
                self.check(path, None, now);
            }
            None => self.announce(reason),
        }
        self.begin_attempt(now);
    }

    fn keepalive_interval(&mut self) -> Duration {
        self.config.keepalive - jitter(&mut self.rng, self.config.keepalive / 10)
    }

    fn password(&self, role: Role) -> &str {
        match role {
            Role::Connector => &self.keys.connector,
            Role::Sharer => &self.keys.sharer,
        }
    }
}

const fn other(role: Role) -> Role {
    match role {
        Role::Connector => Role::Sharer,
        Role::Sharer => Role::Connector,
    }
}

/// Only where a NAT of the remote's may lie on the way: it is its router that an early full check upsets.
fn needs_prime(kind: PathKind, candidate: CandidateKind, remote: SocketAddr) -> bool {
    kind == PathKind::Direct
        && remote.is_ipv4()
        && scope(remote) == Scope::Global
        && matches!(candidate, CandidateKind::Reflexive | CandidateKind::Mapped)
}
