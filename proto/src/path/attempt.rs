//! Attempts: which pairs are checked, when, how often, and what follows when none is proven.

use std::net::SocketAddr;
use std::time::Instant;

use super::pair::{Occasion, Opening, Pair};
use super::{PathAgent, PathEvent, PathId, PathKind};
use crate::candidate::{CandidateKind, Scope, scope};
use crate::machine::jitter;
use crate::stun::CHECK_SIZE;

/// IP and UDP headers, counted into every budget (IPv4: 28, IPv6: 48).
const HEADERS: u32 = 48;

impl PathAgent {
    /// A pair that was not there before. `is_primed`: the remote has primed for it already.
    pub(super) fn add_pair(
        &mut self,
        path: PathId,
        kind: PathKind,
        candidate: CandidateKind,
        is_primed: bool,
        now: Instant,
    ) {
        let opening = if is_primed { Opening::AtOnce } else { self.opening(path.remote, kind, candidate) };
        let mut pair = Pair::new(kind, candidate, now);
        if self.is_ruled_out(kind, candidate) {
            self.pairs.entry(path).or_insert(pair);
            return;
        }
        pair.begin(&self.config, opening, now);
        self.pairs.entry(path).or_insert(pair);
        let least = match self.attempt_ends {
            Some(ends) => ends.max(now + self.config.latecomer),
            None => now + self.config.attempt_length(self.failed),
        };
        self.attempt_ends = Some(least);
        self.retry_at = None;
    }

    /// Everything that is not proven is checked from the beginning, with what is left of the budgets.
    pub(super) fn begin_attempt(&mut self, now: Instant) {
        self.stats.attempts += 1;
        let paths: Vec<PathId> =
            self.pairs.iter().filter(|(_, pair)| !pair.proven).map(|(path, _)| *path).collect();
        for path in paths {
            let Some((kind, candidate)) = self.pairs.get(&path).map(|pair| (pair.kind, pair.candidate))
            else {
                continue;
            };
            if self.is_ruled_out(kind, candidate) {
                continue;
            }
            let opening = self.opening(path.remote, kind, candidate);
            if let Some(pair) = self.pairs.get_mut(&path) {
                pair.begin(&self.config, opening, now);
            }
        }
        self.attempt_ends = Some(now + self.config.attempt_length(self.failed));
    }

    /// An attempt found nothing. The next one is made from another port at once, and the ports that failed
    /// stay silent: whatever spoilt their flows lives for as long as they are used. After so many of those
    /// everything is tried again, rarely.
    pub(super) fn end_attempt(&mut self, now: Instant) {
        for pair in self.pairs.values_mut().filter(|pair| !pair.proven) {
            pair.hush();
        }
        if self.is_reflexive_ruled_out {
            return self.end_last_attempt(now);
        }
        self.failed = self.failed.saturating_add(1);
        if self.is_stale {
            self.ask_for_exchange(now);
        }
        let rounds = self.config.rounds();
        if self.failed < rounds {
            self.stats.attempts += 1;
            self.spent.clear();
            self.attempt_ends = Some(now + self.config.attempt_length(self.failed));
            self.events.push_back(PathEvent::FreshLinkWanted);
        } else if self.is_direct() {
            self.rest_on_overlay();
        } else {
            self.retry_later(now);
        }
    }

    /// Nothing better than an overlay was found, and nothing more is looked for until a network changes.
    pub(super) const fn rest_on_overlay(&mut self) {
        self.is_overlay_best = true;
        self.failed = 0;
        self.attempt_ends = None;
        self.retry_at = None;
    }

    fn retry_later(&mut self, now: Instant) {
        let wait = self.config.retry_wait(self.failed - self.config.rounds() + self.futile);
        self.retry_at = Some(now + wait + jitter(&mut self.rng, wait / 4));
    }

    /// No port that either NAT gives the other side can be found ([`crate::punch::Method::Hopeless`]): addresses
    /// that a server saw are of no use, and are left alone from here on. Others are tried once to the end. It holds
    /// until the network changes.
    pub fn rule_out_reflexive(&mut self, now: Instant) {
        if self.is_reflexive_ruled_out || self.is_satisfied() {
            return;
        }
        self.is_reflexive_ruled_out = true;
        for pair in self.pairs.values_mut() {
            if pair.kind != PathKind::Relay && is_reflexive(pair.candidate) && pair.heard.is_none() {
                pair.hush();
            }
        }
        let is_mapped = |pair: &Pair| pair.candidate == CandidateKind::Mapped && pair.next().is_some();
        if !self.pairs.values().any(is_mapped) {
            self.rule_out_direct();
        }
        let is_under_way =
            |pair: &Pair| pair.kind != PathKind::Relay && !pair.proven && pair.next().is_some();
        if !self.pairs.values().any(is_under_way) {
            self.end_last_attempt(now);
        }
    }

    fn rule_out_direct(&mut self) {
        if !self.is_direct() && !std::mem::replace(&mut self.is_direct_ruled_out, true) {
            self.events.push_back(PathEvent::ReflexiveRuledOut);
        }
    }

    /// What is left to be tried was tried: it is tried again, rarely, and no other port would help it.
    fn end_last_attempt(&mut self, now: Instant) {
        if self.is_direct() {
            return self.rest_on_overlay();
        }
        self.rule_out_direct();
        let rounds = self.config.rounds();
        self.failed = self.failed.saturating_add(1).max(rounds);
        self.attempt_ends = None;
        let is_worth_it = |pair: &Pair| !pair.proven && !self.is_ruled_out(pair.kind, pair.candidate);
        if self.pairs.values().any(is_worth_it) {
            self.retry_later(now);
        }
    }

    fn is_ruled_out(&self, kind: PathKind, candidate: CandidateKind) -> bool {
        self.is_reflexive_ruled_out && kind != PathKind::Relay && is_reflexive(candidate)
    }

    pub(super) fn run_schedule(&mut self, now: Instant) {
        while now >= self.pace_until {
            let due = self
                .pairs
                .iter()
                .filter_map(|(path, pair)| Some((pair.next()?, !pair.is_priming(), pair.candidate, *path)));
            let Some((at, .., path)) = due.min() else { return };
            if at > now {
                return;
            }
            let affords = self.affords(path.remote, CHECK_SIZE);
            let Some(pair) = self.pairs.get_mut(&path) else { return };
            if !affords {
                pair.hush();
                continue;
            }
            let Some(occasion) = pair.due(&self.config, now) else { continue };
            match occasion {
                // Back to back: until the last one has left, the far side may find an outer router closed.
                Occasion::Primes((first, last)) => {
                    for ttl in first..=last {
                        if self.affords(path.remote, CHECK_SIZE) {
                            self.check(path, Some(ttl), now);
                        }
                    }
                }
                Occasion::Scheduled => self.check(path, None, now),
            }
        }
    }

    /// Whether so many more bytes may go to this address. Of a global IPv6 address we have only the remote's
    /// word until something is heard from it.
    pub(super) fn affords(&self, remote: SocketAddr, size: usize) -> bool {
        let pairs = || self.pairs.iter().filter(|(path, _)| path.remote == remote).map(|(_, pair)| pair);
        if pairs().any(|pair| pair.proven) {
            return true;
        }
        let is_global_v6 = remote.is_ipv6() && scope(remote) == Scope::Global;
        let is_direct = pairs().all(|pair| pair.kind == PathKind::Direct);
        let is_merely_claimed = is_global_v6 && is_direct && pairs().all(|pair| pair.heard.is_none());
        let budget = match is_merely_claimed {
            true => self.config.max_unheard_v6 * (CHECK_SIZE as u32 + HEADERS),
            false => self.config.budget,
        };
        self.spent.get(&remote).copied().unwrap_or(0) + size as u32 + HEADERS <= budget
    }

    pub(super) fn spend(&mut self, remote: SocketAddr, size: usize) {
        if !self.is_proven(remote) {
            *self.spent.entry(remote).or_default() += size as u32 + HEADERS;
        }
    }

    fn is_proven(&self, remote: SocketAddr) -> bool {
        self.pairs.iter().any(|(path, pair)| path.remote == remote && pair.proven)
    }

    /// Primes only where a NAT of the remote's may lie on the way: it is its router that an early full check
    /// upsets. One that has mapped a port passes the check on.
    fn opening(&self, remote: SocketAddr, kind: PathKind, candidate: CandidateKind) -> Opening {
        let primes = kind == PathKind::Direct
            && remote.is_ipv4()
            && scope(remote) == Scope::Global
            && !matches!(candidate, CandidateKind::Host | CandidateKind::Mapped);
        if !primes {
            return Opening::AtOnce;
        }
        let (ttls, wait) = (self.config.ladder(self.failed), self.config.prime_wait(self.failed));
        Opening::Primed { ttls, wait }
    }
}

/// Whether a server, or the remote's NAT, has shown it.
const fn is_reflexive(candidate: CandidateKind) -> bool {
    match candidate {
        CandidateKind::Reflexive | CandidateKind::PeerReflexive => true,
        CandidateKind::Host | CandidateKind::Mapped => false,
    }
}
