//! **PathAgent**: the life of the paths to one remote peer.
//!
//! An attempt checks every pair (link of ours × candidate of theirs) on a paced schedule. A check is a
//! Binding request that proves the exchange's keys; it is answered to the address it was seen to come from,
//! which becomes a candidate too. A pair whose check was answered is *proven*; the best proven one is
//! *primary* and carries the data (`attempt`). From then on the agent keeps its binding alive, and looks for
//! evidence against it: a check, or data, that goes unanswered makes it *suspect* (data then goes over the
//! next best path too), and three seconds of that *dead* (`liveness`).
//!
//! A full check that arrives before the router there has sent anything can spoil that router's flow, so
//! whoever is the first of the two to know of a pair only *primes*: checks that die on the way and open our
//! own NATs, and full ones after a wait. Whoever learns of it second knows that the other has primed, and
//! sends full checks at once. With no path left or none found a new attempt begins, from a new local port,
//! because repeating what failed rarely helps (`docs/PROTOCOL.md` §5).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::pair::{Opening, Pair};
use super::{
    CheckTransmit, LinkId, Outlook, PathConfig, PathEvent, PathId, PathKind, PathStats, Reason, Route,
    Traffic,
};
use crate::candidate::{Candidate, CandidateKind, Scope, canonical, scope};
use crate::interface::Rank;
use crate::machine::earliest;
use crate::proof::CheckKeys;
use crate::stun::{self, CheckKey, Role};
use crate::wire::signal::Username;

/// How often a candidate may take another's place: a remote that names new ones without end gets no further
/// than this.
const MAX_REPLACED: u8 = 8;

/// How often the remote's network may change, as far as we care.
const REMOTE_CHANGES: Duration = Duration::from_secs(1);

/// How often another exchange is asked for, at the most.
const EXCHANGES: Duration = Duration::from_secs(5);

/// Addresses on which bytes were spent without a proof, at most: more than the candidates of both kinds, and less than
/// a remote can name that invents sources.
const MAX_SPENT: usize = 64;

/// Checks after the proof where the path has to show more than one answer: enough for those at a heavy loss.
const CAUTIOUS_CONFIRMATIONS: u8 = 12;

/// What a path is ranked by before its round trip.
pub(super) type Grade = (PathKind, Rank);

/// The machine.
#[derive(Debug)]
pub struct PathAgent {
    pub(super) config: PathConfig,
    pub(super) role: Role,
    username: Username,
    /// The connector's and the sharer's.
    keys: [CheckKey; 2],
    created: Instant,
    links: Vec<(LinkId, PathKind)>,
    remotes: Vec<Candidate>,
    /// Of the remote's addresses those that were ranked otherwise than by default.
    ranks: BTreeMap<IpAddr, Rank>,
    replaced: u8,
    pub(super) pairs: BTreeMap<PathId, Pair>,
    /// Bytes sent in this attempt to each address while it was unproven, headers counted.
    pub(super) spent: BTreeMap<SocketAddr, u32>,
    pub(super) route: Route,
    /// Since when there has been a primary, better than a relay's, without a break.
    pub(super) primary_since: Option<Instant>,
    /// When the primary last became another path.
    pub(super) changed_at: Option<Instant>,
    /// Until when round trips are not compared: just after a change they tell more of the queues than of the paths.
    pub(super) settles_until: Option<Instant>,
    /// Another path on which the remote has asked since it last asked on the primary.
    pub(super) asked_beside: Option<PathId>,
    pub(super) suspect_since: Option<Instant>,
    /// When the remote last sent data by a worse path than our primary.
    pub(super) doubted_at: Option<Instant>,
    /// When the remote last said that it has moved.
    remote_changed_at: Option<Instant>,
    /// When the primary was last cleared of a suspicion.
    pub(super) recovered_at: Option<Instant>,
    /// When a path better than a relay's last died.
    pub(super) fell_at: Option<Instant>,
    pub(super) keepalive: Duration,
    pub(super) keepalive_at: Option<Instant>,
    pub(super) settle_at: Option<Instant>,
    /// Since when data has gone out on the primary and nothing has come in.
    pub(super) owed_since: Option<Instant>,
    /// When a path that was busy has been silent for so long that it is asked whether it still works.
    pub(super) lull_at: Option<Instant>,
    pub(super) pace_until: Instant,
    pub(super) attempt_ends: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
    /// Attempts that failed since there was a path.
    pub(super) failed: u32,
    /// Whether a direct path was lost, or the remote moved, since this exchange began.
    pub(super) is_stale: bool,
    /// When another exchange was asked for last.
    asked_for_exchange: Option<Instant>,
    /// Exchanges without a direct path since there was one.
    pub(super) futile: u32,
    /// Whether all attempts that follow at once have found nothing better than an overlay.
    pub(super) is_overlay_best: bool,
    /// Whether the connector was followed to a path of a worse rank: it sees its networks otherwise than we see ours, and
    /// it alone chooses by rank from then on.
    pub(super) has_yielded: bool,
    /// Whether addresses that the server saw are left alone: see [`Self::rule_out_reflexive`].
    pub(super) is_reflexive_ruled_out: bool,
    /// Whether it was said that no direct path leads through both NATs: not before a port that the remote's router maps
    /// to it was tried.
    pub(super) is_direct_ruled_out: bool,
    pub(super) rng: ChaCha12Rng,
    pub(super) transmits: VecDeque<CheckTransmit>,
    pub(super) events: VecDeque<PathEvent>,
    pub(super) stats: PathStats,
}

impl PathAgent {
    /// An agent of the exchange that `keys` belong to. It sends nothing until it has a link and a candidate.
    pub fn new(config: PathConfig, role: Role, keys: CheckKeys, seed: [u8; 32], now: Instant) -> Self {
        Self {
            config,
            role,
            username: keys.username,
            keys: [CheckKey::from(&keys.connector), CheckKey::from(&keys.sharer)],
            created: now,
            links: Vec::new(),
            remotes: Vec::new(),
            ranks: BTreeMap::new(),
            replaced: 0,
            pairs: BTreeMap::new(),
            spent: BTreeMap::new(),
            route: Route::default(),
            primary_since: None,
            changed_at: None,
            settles_until: None,
            asked_beside: None,
            suspect_since: None,
            doubted_at: None,
            remote_changed_at: None,
            recovered_at: None,
            fell_at: None,
            keepalive: config.keepalive,
            keepalive_at: None,
            settle_at: None,
            owed_since: None,
            lull_at: None,
            pace_until: now,
            attempt_ends: None,
            retry_at: None,
            failed: 0,
            is_stale: false,
            asked_for_exchange: None,
            futile: 0,
            is_overlay_best: false,
            has_yielded: false,
            is_reflexive_ruled_out: false,
            is_direct_ruled_out: false,
            rng: ChaCha12Rng::from_seed(seed),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stats: PathStats { attempts: 1, ..PathStats::default() },
        }
    }

    /// This agent takes the place of one of an earlier exchange with the same remote: what has been learned of their
    /// paths together goes on to count.
    pub fn succeed(&mut self, former: &Self) {
        self.fell_at = former.fell_at;
        self.asked_for_exchange = former.asked_for_exchange;
        let has_failed = former.failed >= former.config.rounds();
        self.futile = former.futile.saturating_add(u32::from(has_failed));
        if former.route.primary.is_some() {
            self.settles_until = Some(self.created + self.config.settle);
        }
    }

    /// A link of ours, over which every candidate is tried. Links that come after the main one are new to
    /// the remote: they have to be handed in no later than they are made known to it.
    pub fn add_link(&mut self, link: LinkId, kind: PathKind, now: Instant) {
        if self.links.iter().any(|(known, _)| *known == link) {
            return;
        }
        self.links.push((link, kind));
        for candidate in self.remotes.clone() {
            let is_known = self.is_known_to_remote(link, now) && self.role == Role::Connector;
            self.add_pair(PathId { link, remote: candidate.addr }, kind, candidate.kind, is_known, now);
        }
    }

    /// The link is gone, and every path over it.
    pub fn remove_link(&mut self, link: LinkId, now: Instant) {
        self.links.retain(|(known, _)| *known != link);
        self.pairs.retain(|path, _| path.link != link);
        if self.route.also.is_some_and(|path| path.link == link) {
            self.route.also = None;
        }
        if self.route.primary.is_some_and(|path| path.link == link) {
            self.drop_primary(Reason::LinkGone, now);
        }
    }

    /// A path through a relay. It carries data at once, without a proof: the relay knows both ends by their
    /// keys, and brings nobody what he has not let in, so that there is no stranger's address to protect.
    /// Checks of it measure its round trip.
    pub fn add_relayed(&mut self, path: PathId, now: Instant) {
        let new = || Pair::new(PathKind::Relay, CandidateKind::PeerReflexive, now);
        let pair = self.pairs.entry(path).or_insert_with(new);
        if !pair.proven {
            pair.take_for_proven(&self.config, now);
            self.events.push_back(PathEvent::Accept(path));
            self.promote(path, now);
        }
    }

    /// A path is no more, whatever was heard of it: its relay says so.
    pub fn remove_path(&mut self, path: PathId, now: Instant) {
        self.pairs.remove(&path);
        if self.route.also == Some(path) {
            self.route.also = None;
        }
        if self.route.primary == Some(path) {
            self.drop_primary(Reason::LinkGone, now);
        }
    }

    /// A relay says that nobody is where this path leads. Returns whether it is no more: a connector names a relay to
    /// which it is still on its way, and what it sends from there wants its answer by the same path.
    pub fn handle_absent(&mut self, path: PathId, now: Instant) -> bool {
        let is_coming = self.role == Role::Sharer && now < self.created + self.config.arrival;
        let is_gone = self.route.primary == Some(path) && !is_coming;
        if is_gone {
            self.remove_path(path, now);
        }
        is_gone
    }

    /// An address of the remote's, believed as far as [`crate::candidate::believable`] goes. Over the limit
    /// a reflexive one takes the place of one that was never heard, and any other is ignored.
    pub fn add_candidate(&mut self, candidate: Candidate, now: Instant) {
        let candidate = Candidate::new(candidate.kind, candidate.addr);
        let is_known = self.remotes.iter().any(|other| other.addr == candidate.addr);
        if is_known || !self.make_room_for(candidate) {
            return;
        }
        self.remotes.push(candidate);
        for (link, kind) in self.links.clone() {
            let is_known = self.is_known_to_remote(link, now);
            self.add_pair(PathId { link, remote: candidate.addr }, kind, candidate.kind, is_known, now);
        }
    }

    /// How good a way to an address of the remote's is, by the interface that packets for it leave by. The shell says so
    /// before an address can become a path: before it hands in a candidate, a check from there, or a path to be checked
    /// again. What it does not rank is [`Rank::Public`].
    pub fn set_rank(&mut self, remote: IpAddr, rank: Rank) {
        let remote = remote.to_canonical();
        if self.ranks.len() >= MAX_SPENT {
            // What strangers sent from is ranked too, before it is known to prove nothing.
            self.ranks.retain(|ip, _| self.remotes.iter().any(|other| other.addr.ip() == *ip));
        }
        if rank == Rank::default() {
            self.ranks.remove(&remote);
        } else if self.ranks.len() < MAX_SPENT {
            self.ranks.insert(remote, rank);
        }
    }

    /// The addresses of the remote's that are known, to be ranked again when our own network has changed. A path that is
    /// of a better rank by that takes over with the next answer on it.
    pub fn remotes(&self) -> impl Iterator<Item = IpAddr> {
        self.remotes.iter().map(|remote| remote.addr.ip())
    }

    /// The paths on which the remote was heard: data that comes on them is its.
    pub fn heard(&self) -> impl Iterator<Item = PathId> {
        self.pairs.iter().filter(|(_, pair)| pair.heard.is_some()).map(|(path, _)| *path)
    }

    pub(super) fn rank(&self, path: &PathId) -> Rank {
        self.ranks.get(&path.remote.ip()).copied().unwrap_or_default()
    }

    /// How good a path is before its round trip is measured, best first.
    pub(super) fn grade(&self, path: &PathId) -> Option<Grade> {
        self.pairs.get(path).map(|pair| (pair.kind, self.rank(path)))
    }

    /// A check of this exchange, for [`crate::punch`] to send where no pair leads. Its answer is expected nowhere.
    pub fn probe(&mut self) -> Vec<u8> {
        let transaction = crate::machine::random(&mut self.rng);
        stun::check_request(transaction, self.username, self.role, self.key(self.role))
    }

    /// Whether a datagram is a check of the remote's in this exchange.
    pub fn is_remotes(&self, datagram: &[u8]) -> bool {
        let theirs = other(self.role);
        stun::verify_check(datagram, theirs, self.key(theirs)).is_some()
    }

    /// Whether a datagram that [`stun::preview`] took for a check, or an answer, is of this agent's exchange.
    pub fn expects(&self, preview: &stun::Preview) -> bool {
        match preview {
            stun::Preview::Check(username) => *username == self.username,
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
        let is_busy = pair.heard.is_some_and(|at| now <= at + self.config.busy);
        let is_news = pair.heard.is_some() && pair.was_quiet(now);
        if traffic.received {
            // Data alone opens nothing: what is heard first has to be a check or an answer.
            pair.heard = pair.heard.map(|_| now);
            // Whose data comes here has not moved elsewhere.
            pair.asked = pair.asked.map(|_| now);
            pair.unanswered_since = None;
        }
        if self.route.primary != Some(path) {
            if traffic.received {
                self.doubt_with_remote(path, now);
                if is_news {
                    self.ask_both(path, now);
                }
                self.excuse_primary(path, now);
            }
            return;
        }
        if traffic.received {
            self.owed_since = None;
            self.lull_at = is_busy.then_some(now + self.config.lull);
            self.recover(now);
        } else if traffic.sent && self.owed_since.is_none() {
            self.owed_since = Some(now);
        }
    }

    /// The network changed on our side: everything is checked again at once.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.spent.clear();
        self.check_everything(now);
    }

    /// The remote says that its network changed. What was spent on addresses that never answered stays spent, and a
    /// remote that says so without end gets no further than once a second.
    pub fn handle_remote_change(&mut self, now: Instant) {
        if self.remote_changed_at.is_some_and(|at| now < at + REMOTE_CHANGES) {
            return;
        }
        self.remote_changed_at = Some(now);
        self.is_stale = true;
        self.renew_budgets();
        self.check_everything(now);
        // Its old address may be gone: until that answers, data goes by another proven way too, if there is one.
        if self.route.primary.is_some() && self.suspect_since.is_none() {
            self.suspect(now);
        }
    }

    /// The remote has moved: where it has answered before, it may be again, whatever was sent there in vain meanwhile.
    fn renew_budgets(&mut self) {
        let has_answered = |addr: &SocketAddr| {
            self.pairs.iter().any(|(path, pair)| path.remote == *addr && pair.has_answered)
        };
        self.spent.retain(|addr, _| !has_answered(addr));
    }

    fn check_everything(&mut self, now: Instant) {
        self.failed = 0;
        (self.is_overlay_best, self.has_yielded) = (false, false);
        (self.is_reflexive_ruled_out, self.is_direct_ruled_out) = (false, false);
        self.begin_attempt(now);
        for pair in self.pairs.values_mut().filter(|pair| pair.proven) {
            pair.trigger(now);
        }
        if let Some(path) = self.route.primary {
            self.check(path, None, now);
        }
    }

    /// A path that the exchange before this one had proven: it is checked at once, and without primes.
    pub fn recheck(&mut self, path: PathId, now: Instant) {
        if !self.links.iter().any(|(known, _)| *known == path.link) {
            self.links.push((path.link, PathKind::Direct));
        }
        let known = self.remotes.iter().find(|other| other.addr == path.remote).map(|known| known.kind);
        let kind = known.unwrap_or(CandidateKind::PeerReflexive);
        if known.is_none() {
            self.remotes.push(Candidate { kind, addr: path.remote });
        }
        self.pairs.remove(&path);
        self.add_pair(path, PathKind::Direct, kind, true, now);
    }

    /// How long a path may be quiet from here on, as [`super::Lifetime`] learns it.
    pub fn set_keepalive(&mut self, keepalive: Duration) {
        self.keepalive = keepalive;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.spent.clear();
            self.begin_attempt(now);
            if !self.is_reflexive_ruled_out {
                self.events.push_back(PathEvent::FreshLinkWanted);
                self.ask_for_exchange(now);
            }
        }
        // First, so that an attempt that is over sends nothing more.
        if self.attempt_ends.is_some_and(|at| at <= now) {
            self.attempt_ends = None;
            if !self.is_satisfied() {
                self.end_attempt(now);
            }
        }
        self.run_schedule(now);
        self.watch_primary(now);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let checks = self.pairs.values().filter_map(Pair::next).min().map(|at| at.max(self.pace_until));
        let next = earliest(checks, self.primary_timeout());
        earliest(next, earliest(self.retry_at, self.attempt_ends))
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

    /// How the search for a path stands.
    pub const fn outlook(&self) -> Outlook {
        match self.route.primary {
            Some(_) => Outlook::Reached,
            None if self.failed >= self.config.rounds() => Outlook::Unreached,
            None => Outlook::Trying,
        }
    }

    /// The counts so far.
    pub const fn stats(&self) -> PathStats {
        self.stats
    }

    /// Whether the remote knew of this link before it told us of what is added now, and so has primed
    /// towards it. The connector's main link is in its offer; of the sharer's the connector learns by the
    /// answer, so that only later claims are behind that.
    fn is_known_to_remote(&self, link: LinkId, now: Instant) -> bool {
        link == LinkId::MAIN && (self.role == Role::Connector || now > self.created)
    }

    /// Whether one more candidate fits, once one that was never heard has gone for a better one.
    fn make_room_for(&mut self, newcomer: Candidate) -> bool {
        let claimed = |candidate: &&Candidate| candidate.kind != CandidateKind::PeerReflexive;
        if self.remotes.iter().filter(claimed).count() < self.config.max_claimed {
            return true;
        }
        let is_reflexive = |kind| matches!(kind, CandidateKind::Reflexive | CandidateKind::Mapped);
        if !is_reflexive(newcomer.kind) || self.replaced >= MAX_REPLACED {
            return false;
        }
        let heard = |candidate: &Candidate| {
            self.pairs.iter().any(|(path, pair)| path.remote == candidate.addr && pair.heard.is_some())
        };
        let unheard: Vec<Candidate> =
            self.remotes.iter().filter(claimed).filter(|c| !heard(c)).copied().collect();
        // The last of the hosts' own addresses, or the oldest of the reflexive ones.
        let hosts = unheard.iter().rev().find(|candidate| !is_reflexive(candidate.kind));
        let Some(victim) = hosts.or(unheard.first()).copied() else { return false };
        self.replaced += 1;
        self.remotes.retain(|candidate| candidate.addr != victim.addr);
        self.pairs.retain(|path, _| path.remote != victim.addr);
        true
    }

    fn handle_request(&mut self, path: PathId, datagram: &[u8], now: Instant) {
        let theirs = other(self.role);
        let Some(transaction) = stun::verify_check(datagram, theirs, self.key(theirs)) else {
            self.stats.unauthenticated += 1;
            return;
        };
        let by_link = || self.links.iter().find(|(link, _)| *link == path.link).map(|(_, kind)| *kind);
        let Some(kind) = self.pairs.get(&path).map(|pair| pair.kind).or_else(by_link) else { return };
        self.stats.checks_received += 1;
        if !self.pairs.contains_key(&path) && !self.learn(path, kind, now) {
            return;
        }
        let is_news = self.pairs.get(&path).is_some_and(|pair| pair.was_quiet(now));
        if is_news {
            self.renew_budgets();
        }
        let answer = stun::check_answer(transaction, path.remote, self.key(theirs));
        if self.affords(path.remote, answer.len()) {
            self.spend(path.remote, answer.len());
            // The answer goes to where the check was seen to come from, whatever the candidate said.
            self.transmits.push_back(CheckTransmit { path, ttl: None, payload: answer });
        }
        let asap = self.pace_until.max(now);
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        let first = pair.heard.replace(now).is_none();
        pair.asked = Some(now);
        pair.unanswered_since = None;
        if !pair.proven && pair.next().is_none_or(|next| next > asap || pair.is_priming()) {
            pair.trigger(asap);
        }
        if first {
            self.events.push_back(PathEvent::Accept(path));
        }
        if self.route.primary == Some(path) {
            self.asked_beside = None;
            self.recover(now);
        } else {
            self.compare_with_primary(path, is_news, now);
        }
    }

    /// A peer-reflexive candidate: an authenticated check came from an address that nobody named.
    fn learn(&mut self, path: PathId, kind: PathKind, now: Instant) -> bool {
        let known = self.remotes.iter().find(|other| other.addr == path.remote);
        let candidate = known.map_or(CandidateKind::PeerReflexive, |known| known.kind);
        if known.is_none() {
            let learned = |candidate: &&Candidate| candidate.kind == CandidateKind::PeerReflexive;
            let is_full = self.remotes.iter().filter(learned).count() >= self.config.max_learned;
            let is_one_too_many = self.spent.len() >= MAX_SPENT && !self.spent.contains_key(&path.remote);
            let is_unusable = scope(path.remote) == Scope::Unusable || is_one_too_many;
            if is_unusable || is_full && !self.forget_learned() {
                return false;
            }
            self.remotes.push(Candidate { kind: candidate, addr: path.remote });
        }
        let mut pair = Pair::new(kind, candidate, now);
        pair.begin(&self.config, Opening::AtOnce, now);
        self.pairs.insert(path, pair);
        true
    }

    /// Makes room among the learned addresses: the one that was heard longest ago, and carries nothing, goes.
    fn forget_learned(&mut self) -> bool {
        let route = self.route;
        let in_use = |addr| [route.primary, route.also].into_iter().flatten().any(|path| path.remote == addr);
        let heard = |addr| {
            self.pairs.iter().filter(|(path, _)| path.remote == addr).filter_map(|(_, p)| p.heard).max()
        };
        let learned = self.remotes.iter().filter(|candidate| candidate.kind == CandidateKind::PeerReflexive);
        let idle = learned.map(|candidate| candidate.addr).filter(|addr| !in_use(*addr));
        let Some(victim) = idle.min_by_key(|addr| heard(*addr)) else { return false };
        self.remotes.retain(|candidate| candidate.addr != victim);
        self.pairs.retain(|path, _| path.remote != victim);
        true
    }

    fn handle_answer(&mut self, path: PathId, datagram: &[u8], now: Instant) {
        let Some((transaction, _mapped)) = stun::verify_answer(datagram, self.key(self.role)) else {
            self.stats.unauthenticated += 1;
            return;
        };
        // An answer from elsewhere than the check went to proves nothing (RFC 8445 §7.2.5.2.1).
        let Some(pair) = self.pairs.get_mut(&path).filter(|pair| pair.awaits(&transaction)) else { return };
        self.stats.answers_received += 1;
        let first_heard = pair.heard.is_none();
        let first_proof = !pair.proven;
        let confirmations =
            if self.is_cautious(now) { CAUTIOUS_CONFIRMATIONS } else { self.config.confirmations };
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        pair.answered(confirmations, self.config.first_interval, &transaction, now);
        // An address that comes late may be a probe of how long the remote's NAT keeps it: see `Lifetime`.
        let is_late = self.primary_since.is_some_and(|since| pair.since >= since + self.config.settle * 2);
        if first_proof && is_late && path.link == LinkId::MAIN && pair.candidate != CandidateKind::Host {
            pair.check_after_rests(now);
        }
        if first_heard {
            self.events.push_back(PathEvent::Accept(path));
        }
        if self.route.primary == Some(path) {
            self.owed_since = None;
            self.recover(now);
            self.compare_with_fresh(now);
        } else {
            self.promote(path, now);
        }
    }

    pub(super) fn check(&mut self, path: PathId, ttl: Option<u8>, now: Instant) {
        let transaction = crate::machine::random(&mut self.rng);
        let payload = stun::check_request(transaction, self.username, self.role, self.key(self.role));
        self.spend(path.remote, payload.len());
        let Some(pair) = self.pairs.get_mut(&path) else { return };
        pair.sent(transaction, now);
        self.pace_until = now + self.config.pace;
        self.stats.checks_sent += 1;
        self.transmits.push_back(CheckTransmit { path, ttl, payload });
        if self.route.primary == Some(path) {
            self.postpone_keepalive(now);
        }
    }

    pub(super) fn ask_for_exchange(&mut self, now: Instant) {
        let is_too_soon = self.asked_for_exchange.is_some_and(|at| now < at + EXCHANGES);
        if self.role == Role::Connector && !is_too_soon {
            self.asked_for_exchange = Some(now);
            self.is_stale = false;
            self.events.push_back(PathEvent::ExchangeWanted);
        }
    }

    const fn key(&self, role: Role) -> &CheckKey {
        let [connector, sharer] = &self.keys;
        match role {
            Role::Connector => connector,
            Role::Sharer => sharer,
        }
    }
}

const fn other(role: Role) -> Role {
    match role {
        Role::Connector => Role::Sharer,
        Role::Sharer => Role::Connector,
    }
}
