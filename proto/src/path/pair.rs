//! One pair: a link of ours and an address of the remote's, and what checks have shown of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lifetime::rest;
use super::{PathConfig, PathKind};
use crate::candidate::CandidateKind;
use crate::machine::earliest;
use crate::stun::Transaction;

/// How many unanswered checks are remembered: an answer later than that many is of no use.
const MAX_IN_FLIGHT: usize = 16;

/// How many round trips are compared by the best of them: a busy machine or a full queue only ever adds to one.
const SAMPLES: usize = 4;

/// How long one may tell how fast a path is.
const FRESH: Duration = Duration::from_secs(1);

/// What is heard on a pair after so long a silence is news: the remote may have moved there. Longer than the gaps of
/// an attempt, and than those between the reports of traffic on a busy path.
const QUIET: Duration = Duration::from_millis(1500);

/// A round trip that is so old says nothing any more: longer than two keepalives.
const OLD: Duration = Duration::from_secs(30);

/// Why a check leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// To open our own NATs, dying on the way at the hop limits from the first to the last.
    Primes((u8, u8)),
    /// On the attempt's schedule.
    Scheduled,
}

/// How the checks of a pair begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// With a full check: there is no NAT of the remote's to upset, or it has been opened already.
    AtOnce,
    /// With a ladder of primes, and full checks only after a wait.
    Primed {
        /// The lowest and the highest hop limit.
        ttls: (u8, u8),
        /// From the first prime to the first full check.
        wait: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) kind: PathKind,
    pub(super) candidate: CandidateKind,
    /// Since when there is such a pair.
    pub(super) since: Instant,
    /// When the remote last proved that it holds the keys and sends from there.
    pub(super) heard: Option<Instant>,
    /// When it last sent a check of its own there.
    pub(super) asked: Option<Instant>,
    /// It answered a check of ours: the path works both ways.
    pub(super) proven: bool,
    /// Answers since it last failed.
    pub(super) answers: u32,
    /// Whether it has ever answered, before it failed or since.
    pub(super) has_answered: bool,
    /// Smoothed round trip (RFC 6298 §2: an eighth of each new sample).
    pub(super) rtt: Option<Duration>,
    /// The latest samples of it, the newest last, and when that was taken.
    samples: VecDeque<Duration>,
    sampled: Option<Instant>,
    /// The lowest and the highest hop limit of the primes still to send.
    primes: Option<(u8, u8)>,
    full_checks_from: Option<Instant>,
    scheduled: u32,
    interval: Duration,
    next: Option<Instant>,
    /// After how many rests it was checked, and when the next one is over.
    rest: Option<(usize, Instant)>,
    /// Further checks once proven, so that the far side hears enough to prove its own direction.
    confirmations_left: u8,
    in_flight: VecDeque<(Transaction, Instant)>,
    last_sent: Option<Instant>,
    /// Since when checks have gone unanswered.
    pub(super) unanswered_since: Option<Instant>,
}

impl Pair {
    pub(super) const fn new(kind: PathKind, candidate: CandidateKind, since: Instant) -> Self {
        Self {
            kind,
            candidate,
            since,
            heard: None,
            asked: None,
            proven: false,
            answers: 0,
            has_answered: false,
            rtt: None,
            samples: VecDeque::new(),
            sampled: None,
            primes: None,
            full_checks_from: None,
            scheduled: 0,
            interval: Duration::ZERO,
            next: None,
            rest: None,
            confirmations_left: 0,
            in_flight: VecDeque::new(),
            last_sent: None,
            unanswered_since: None,
        }
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self, config: &PathConfig, opening: Opening, now: Instant) {
        self.scheduled = 0;
        self.interval = config.first_interval;
        self.next = Some(now);
        match opening {
            Opening::AtOnce => self.trigger(now),
            Opening::Primed { ttls, wait } => {
                self.primes = Some(ttls);
                self.full_checks_from = Some(now + wait);
            }
        }
    }

    /// Whether what is due next is a prime.
    pub(super) const fn is_priming(&self) -> bool {
        self.primes.is_some()
    }

    /// What to send at `now`, if anything is due. Moves the schedule on.
    pub(super) fn due(&mut self, config: &PathConfig, now: Instant) -> Option<Occasion> {
        if self.next.is_none_or(|next| next > now) {
            let (n, _) = self.rest.take_if(|(_, at)| *at <= now)?;
            if self.unanswered_since.is_some() {
                // The last rest was too long already.
                return None;
            }
            self.rest = rest(n + 1).map(|rest| (n + 1, now + rest));
            return Some(Occasion::Scheduled);
        }
        if let Some(ttls) = self.primes.take() {
            self.next = self.full_checks_from.take().map(|at| at.max(now));
            return Some(Occasion::Primes(ttls));
        }
        if self.proven {
            self.confirmations_left = self.confirmations_left.saturating_sub(1);
            self.next = (self.confirmations_left > 0).then(|| now + config.first_interval);
            self.rest = self.rest.and_then(|(n, _)| Some((n, now + rest(n)?)));
            return Some(Occasion::Scheduled);
        }
        self.scheduled += 1;
        let more = self.scheduled < config.max_checks;
        self.next = more.then(|| now + self.interval);
        self.interval = self.interval.mul_f64(config.growth).min(config.last_interval);
        Some(Occasion::Scheduled)
    }

    /// A check out of turn, as soon as the pace allows: the remote was just heard there.
    pub(super) const fn trigger(&mut self, now: Instant) {
        self.primes = None;
        self.full_checks_from = None;
        self.next = Some(now);
    }

    /// Checks it again after each of the rests that a probe link takes.
    pub(super) fn check_after_rests(&mut self, now: Instant) {
        self.rest = rest(0).map(|rest| (0, now + rest));
    }

    /// A check left.
    pub(super) fn sent(&mut self, transaction: Transaction, now: Instant) {
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((transaction, now));
        self.last_sent = Some(now);
        if self.proven && self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
        }
    }

    pub(super) const fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    pub(super) fn awaits(&self, transaction: &Transaction) -> bool {
        self.in_flight.iter().any(|(waiting, _)| waiting == transaction)
    }

    /// It needs no proof, and a check only to learn its round trip.
    pub(super) fn take_for_proven(&mut self, config: &PathConfig, now: Instant) {
        self.hush();
        self.heard = Some(now);
        self.proven = true;
        self.confirmations_left = config.confirmations;
        self.next = Some(now);
    }

    /// An authenticated answer came. The first one is followed by so many confirmations, this far apart.
    pub(super) fn answered(
        &mut self,
        confirmations: u8,
        interval: Duration,
        transaction: &Transaction,
        now: Instant,
    ) {
        let Some(at) = self.in_flight.iter().position(|(waiting, _)| waiting == transaction) else { return };
        if let Some((_, sent)) = self.in_flight.remove(at) {
            let sample = now.saturating_duration_since(sent);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(sample);
            self.sampled = Some(now);
        }
        self.unanswered_since = None;
        self.heard = Some(now);
        self.answers = self.answers.saturating_add(1);
        self.has_answered = true;
        if !self.proven {
            self.rest = None;
            self.proven = true;
            self.primes = None;
            self.confirmations_left = confirmations;
            self.next = (confirmations > 0).then(|| now + interval);
        }
    }

    /// The best of the latest round trips: what the path takes where nothing keeps it.
    pub(super) fn best(&self) -> Option<Duration> {
        self.samples.iter().min().copied()
    }

    /// Whether nothing was heard on it for a while.
    pub(super) fn was_quiet(&self, now: Instant) -> bool {
        self.heard.is_none_or(|at| now >= at + QUIET)
    }

    /// Whether its round trip was not measured for a long time.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.sampled.is_none_or(|at| now >= at + OLD)
    }

    /// Whether it answered just now.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.sampled.is_some_and(|at| now <= at + FRESH)
    }

    /// The path is dead: it has to be proven again.
    pub(super) fn fail(&mut self) {
        self.proven = false;
        self.answers = 0;
        self.heard = None;
        self.unanswered_since = None;
        self.samples.clear();
        self.in_flight.clear();
        self.hush();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        earliest(self.next, self.rest.map(|(_, at)| at))
    }

    /// Sends nothing more of its own accord.
    pub(super) const fn hush(&mut self) {
        self.primes = None;
        self.full_checks_from = None;
        self.next = None;
        self.rest = None;
    }

    /// When silence on this pair becomes suspicious: three round trips, 300 ms at least, 1 s at most.
    pub(super) fn patience(&self) -> Duration {
        let rtt = self.rtt.unwrap_or(Duration::from_millis(100));
        (rtt * 3).clamp(Duration::from_millis(300), Duration::from_secs(1))
    }
}
