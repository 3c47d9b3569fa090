//! One pair: a link of ours and an address of the remote's, and what checks have shown of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{PathConfig, PathKind};
use crate::candidate::CandidateKind;
use crate::stun::Transaction;

/// How many unanswered checks are remembered: an answer later than that many is of no use.
const MAX_IN_FLIGHT: usize = 16;

/// IP and UDP headers, counted into every budget (IPv4: 28, IPv6: 48).
const HEADERS: u32 = 48;

/// Why a check leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// To open our own NAT, dying on the way.
    Prime,
    /// On the attempt's schedule.
    Scheduled,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) kind: PathKind,
    pub(super) candidate: CandidateKind,
    /// The remote proved, by a check of its own, that it holds the keys and sends from there.
    pub(super) heard: Option<Instant>,
    /// It answered a check of ours: the path works both ways.
    pub(super) proven: bool,
    /// Smoothed round trip (RFC 6298 §2: an eighth of each new sample).
    pub(super) rtt: Option<Duration>,
    /// Bytes sent to the address in this attempt while it was unproven.
    bytes: u32,
    primes_left: u8,
    scheduled: u32,
    interval: Duration,
    next: Option<Instant>,
    /// Further checks once proven, so that the far side hears enough to prove its own direction.
    confirmations_left: u8,
    in_flight: VecDeque<(Transaction, Instant)>,
    /// Since when checks have gone unanswered.
    pub(super) unanswered_since: Option<Instant>,
}

impl Pair {
    pub(super) const fn new(kind: PathKind, candidate: CandidateKind) -> Self {
        Self {
            kind,
            candidate,
            heard: None,
            proven: false,
            rtt: None,
            bytes: 0,
            primes_left: 0,
            scheduled: 0,
            interval: Duration::ZERO,
            next: None,
            confirmations_left: 0,
            in_flight: VecDeque::new(),
            unanswered_since: None,
        }
    }

    /// Begins an attempt: a prime at once where it is needed, then full checks.
    pub(super) fn begin(&mut self, config: &PathConfig, prime: bool, now: Instant) {
        self.bytes = 0;
        self.scheduled = 0;
        self.interval = config.first_interval;
        self.primes_left = u8::from(prime);
        self.next = Some(now);
    }

    /// What to send at `now`, if anything is due. Moves the schedule on.
    pub(super) fn due(&mut self, config: &PathConfig, now: Instant) -> Option<Occasion> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        if self.primes_left > 0 {
            self.primes_left -= 1;
            self.next = Some(now + config.prime_wait);
            return Some(Occasion::Prime);
        }
        if self.proven {
            self.confirmations_left = self.confirmations_left.saturating_sub(1);
            self.next = (self.confirmations_left > 0).then(|| now + config.first_interval);
            return Some(Occasion::Scheduled);
        }
        self.scheduled += 1;
        let more = self.scheduled < config.max_checks;
        self.next = more.then(|| now + self.interval);
        self.interval = self.interval.mul_f64(config.growth).min(config.last_interval);
        Some(Occasion::Scheduled)
    }

    /// A check out of turn, as soon as the pace allows: the remote was just heard there.
    pub(super) fn trigger(&mut self, now: Instant) {
        self.primes_left = 0;
        self.next = Some(now);
    }

    /// Whether so many more bytes may go to this address while it is unproven.
    pub(super) const fn affords(&self, config: &PathConfig, size: usize) -> bool {
        self.proven || self.bytes + size as u32 + HEADERS <= config.budget
    }

    pub(super) const fn spend(&mut self, size: usize) {
        if !self.proven {
            self.bytes += size as u32 + HEADERS;
        }
    }

    /// A check left.
    pub(super) fn sent(&mut self, transaction: Transaction, now: Instant) {
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((transaction, now));
        if self.proven && self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
        }
    }

    pub(super) fn awaits(&self, transaction: &Transaction) -> bool {
        self.in_flight.iter().any(|(waiting, _)| waiting == transaction)
    }

    /// An authenticated answer came. Returns whether the pair was unproven until now.
    pub(super) fn answered(&mut self, config: &PathConfig, transaction: &Transaction, now: Instant) -> bool {
        let Some(at) = self.in_flight.iter().position(|(waiting, _)| waiting == transaction) else {
            return false;
        };
        if let Some((_, sent)) = self.in_flight.remove(at) {
            let sample = now.saturating_duration_since(sent);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        self.unanswered_since = None;
        self.heard = Some(now);
        let new = !self.proven;
        if new {
            self.proven = true;
            self.primes_left = 0;
            self.confirmations_left = config.confirmations;
            self.next = (config.confirmations > 0).then(|| now + config.first_interval);
        }
        new
    }

    /// The path is dead: it has to be proven again.
    pub(super) fn fail(&mut self) {
        self.proven = false;
        self.unanswered_since = None;
        self.in_flight.clear();
        self.next = None;
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) const fn hush(&mut self) {
        self.next = None;
    }

    /// When silence on this pair becomes suspicious: three round trips, 300 ms at least, 1 s at most.
    pub(super) fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(Duration::from_millis(100));
        (rtt * 3).clamp(Duration::from_millis(300), Duration::from_secs(1))
    }
}
