//! The primary: which path it is, whether it still works, and what takes its place.

use std::time::{Duration, Instant};

use super::pair::Pair;
use super::{PathAgent, PathEvent, PathId, PathKind, Reason, Route};
use crate::interface::Rank;
use crate::machine::{earliest, jitter};
use crate::stun::Role;

/// How long the connector must have left the primary alone until checks of its on another path mean that it
/// has moved there: longer than the gaps of an attempt.
const FOLLOW_AFTER: Duration = Duration::from_millis(1500);

/// How long a better path that has just died has to show more than one answer before it is trusted again,
/// and how many: or a lossy one would be left and taken again without end.
const CAUTION: Duration = Duration::from_secs(30);
const CAUTIOUS_ANSWERS: u32 = 3;

/// How long the remote's data by a worse path means that it doubts our primary: longer than from one report
/// of traffic to the next.
const DOUBT: Duration = Duration::from_millis(600);

/// How long after our own suspicion has ended the remote may still be doubting because of it: [`DOUBT`], a report of
/// traffic on either side, and a round trip by the worse path.
const ECHO: Duration = Duration::from_secs(2);

/// How long after a change of ours the remote may still be on its way to the same one.
const CHANGING: Duration = Duration::from_secs(1);

/// How often the primary is asked while the remote's data comes by another path that is as good. A sharer takes
/// it for the word of the connector, which it follows after [`FOLLOW_AFTER`].
const ASTRAY: Duration = Duration::from_secs(1);

impl PathAgent {
    /// Makes a proven path primary if it is better than the one we have.
    pub(super) fn promote(&mut self, path: PathId, now: Instant) {
        let Some(pair) = self.pairs.get(&path).filter(|pair| pair.proven) else { return };
        let leads = self.role == Role::Connector;
        let grades = (self.grade(&path), self.route.primary.and_then(|primary| self.grade(&primary)));
        let is_better = grades.0 < grades.1 && (leads || !self.has_yielded);
        let reason = match self.route.primary.and_then(|primary| self.pairs.get(&primary)) {
            None if pair.kind == PathKind::Relay && self.is_direct_ruled_out => Reason::NoDirect,
            None if pair.kind == PathKind::Relay => Reason::Relayed,
            None => Reason::FirstProven,
            Some(_) if self.route.primary == Some(path) => return,
            Some(current) if pair.kind < current.kind || is_better => {
                if self.is_cautious(now) && pair.answers < CAUTIOUS_ANSWERS {
                    return;
                }
                Reason::BetterKind
            }
            // Between equals the connector chooses, or the two might never agree.
            Some(current)
                if leads
                    && grades.0 == grades.1
                    && self.has_settled(now)
                    && self.is_faster(pair, current) =>
            {
                if !current.is_fresh(now) {
                    return self.ask_primary(now);
                }
                Reason::Faster
            }
            Some(_) if self.suspect_since.is_some() => return self.duplicate(),
            Some(_) => return,
        };
        self.set_primary(path, reason, now);
    }

    fn has_settled(&self, now: Instant) -> bool {
        self.settles_until.is_none_or(|at| now >= at)
    }

    /// A check of the remote's came on another path than our primary. `is_news`: nothing had come there for a while.
    pub(super) fn compare_with_primary(&mut self, path: PathId, is_news: bool, now: Instant) {
        let Some(primary) = self.route.primary else { return };
        let (Some(pair), Some(current)) = (self.pairs.get(&path), self.pairs.get(&primary)) else { return };
        let is_left_alone = current.asked.is_none_or(|at| now >= at + FOLLOW_AFTER);
        let is_equal = pair.kind == current.kind && pair.proven;
        // Once may be a late path's check after a rest; a connector that has moved comes again.
        let is_again = self.asked_beside.replace(path) == Some(path);
        match self.role {
            Role::Sharer if is_equal && is_left_alone && is_again => {
                self.has_yielded |= self.rank(&path) > self.rank(&primary);
                self.set_primary(path, Reason::Followed, now);
            }
            // The remote may have moved, and its old address be dead: ask there, before data is lost.
            Role::Connector if is_equal && is_left_alone && is_again => self.check(primary, None, now),
            _ if is_news => self.ask_both(path, now),
            Role::Sharer | Role::Connector => {}
        }
    }

    /// The remote sends by another path than our primary, after it was quiet there: its network may have changed under
    /// it, and whichever of the two has died has to be known before much is lost. A connector leaves the other path
    /// alone if it answered lately: the sharer, which may only not have followed yet, goes by what is asked where.
    pub(super) fn ask_both(&mut self, path: PathId, now: Instant) {
        let Some(primary) = self.route.primary else { return };
        self.check(primary, None, now);
        let leads = self.role == Role::Connector;
        if self.pairs.get(&path).is_some_and(|pair| pair.proven && (!leads || pair.is_old(now))) {
            self.check(path, None, now);
        }
    }

    /// What the remote owes the primary came by another path that is as good: it has only not followed yet, or we have
    /// not. Whether the primary works is asked, and not guessed, while that goes on.
    pub(super) fn excuse_primary(&mut self, path: PathId, now: Instant) {
        let kind = |path| self.pairs.get(&path).map(|pair| pair.kind);
        if kind(path) == self.route.primary.and_then(kind) {
            self.owed_since = None;
            self.lull_at.get_or_insert(now + ASTRAY);
        }
    }

    fn is_faster(&self, new: &Pair, current: &Pair) -> bool {
        let (Some(new), Some(current)) = (new.best(), current.best()) else { return false };
        let (share, margin) = self.config.hysteresis;
        new < current.mul_f64(share) && new + margin < current
    }

    /// What is known of the primary's round trip is old: it is asked before another path is called faster.
    fn ask_primary(&mut self, now: Instant) {
        if let Some(primary) = self.route.primary {
            self.check(primary, None, now);
        }
    }

    /// The primary has just answered: now it can be compared with a path that did so before it.
    pub(super) fn compare_with_fresh(&mut self, now: Instant) {
        let fresh = self.others().filter(|(_, pair)| pair.is_fresh(now));
        if let Some(path) =
            fresh.min_by_key(|(path, pair)| (self.grade(path), pair.best(), **path)).map(|(path, _)| *path)
        {
            self.promote(path, now);
        }
    }

    fn set_primary(&mut self, path: PathId, reason: Reason, now: Instant) {
        self.route = Route { primary: Some(path), also: None };
        self.changed_at = Some(now);
        // The first path of its kind may well be followed by a faster one at once.
        let is_first =
            matches!(reason, Reason::FirstProven | Reason::Relayed | Reason::NoDirect | Reason::BetterKind);
        if !is_first {
            self.settles_until = Some(now + self.config.settle);
        }
        self.recovered_at = None;
        // What another exchange has been given of it since is this one's again.
        self.events.push_back(PathEvent::Accept(path));
        self.suspect_since = None;
        self.doubted_at = None;
        self.owed_since = None;
        if self.is_direct() {
            self.primary_since.get_or_insert(now);
            self.futile = 0;
        } else {
            self.primary_since = None;
        }
        if self.is_satisfied() {
            self.failed = 0;
            self.is_stale = false;
            self.attempt_ends = None;
            self.retry_at = None;
        } else if self.is_direct() && self.attempt_ends.is_none() {
            // Whatever could be better was tried before the overlay came.
            self.rest_on_overlay();
        }
        self.asked_beside = None;
        self.settle_at = Some(now + self.config.settle);
        self.postpone_keepalive(now);
        self.announce(reason);
    }

    fn announce(&mut self, reason: Reason) {
        let primary = self.primary().map(|(_, kind, rtt)| (kind, rtt));
        self.events.push_back(PathEvent::Route { route: self.route, primary, reason });
    }

    /// Whether the primary is no relay's.
    pub(super) fn is_direct(&self) -> bool {
        let primary = self.route.primary.and_then(|path| self.pairs.get(&path));
        primary.is_some_and(|pair| pair.kind < PathKind::Relay)
    }

    /// Whether no better path is looked for than the primary. While that leads through an overlay, one is, for as
    /// long as all attempts take that follow at once.
    pub fn is_satisfied(&self) -> bool {
        let is_overlay = || self.route.primary.is_some_and(|path| self.rank(&path) == Rank::Overlay);
        self.is_direct() && (self.is_overlay_best || !is_overlay())
    }

    /// Whether a better path died lately.
    pub(super) fn is_cautious(&self, now: Instant) -> bool {
        self.fell_at.is_some_and(|at| now < at + CAUTION)
    }

    /// The remote's data came by a worse path than our primary: it hears nothing there from us any more, or
    /// nothing comes through to us. What we send goes both ways until that is over.
    pub(super) fn doubt_with_remote(&mut self, path: PathId, now: Instant) {
        let kind = |path| self.pairs.get(&path).map(|pair| pair.kind);
        let is_worse = self.route.primary.and_then(kind).is_some_and(|primary| kind(path) > Some(primary));
        if !is_worse || self.changed_at.is_some_and(|at| now < at + CHANGING) {
            return;
        }
        // Who suspects by what it missed itself ends that by what it hears itself. Only the other one follows, or
        // each would keep the other at it for as long as there is data.
        let is_own = self.suspect_since.is_some() && self.doubted_at.is_none();
        if is_own || self.recovered_at.is_some_and(|at| now < at + ECHO) {
            return;
        }
        self.doubted_at = Some(now);
        if self.suspect_since.is_none() {
            self.suspect(now);
        }
    }

    pub(super) fn suspect(&mut self, now: Instant) {
        self.suspect_since = Some(now);
        self.keepalive_at = Some(now);
        self.duplicate();
    }

    /// When the primary wants [`PathAgent::handle_timeout`].
    pub(super) fn primary_timeout(&self) -> Option<Instant> {
        let check = earliest(self.keepalive_at, self.lull_at);
        earliest(earliest(check, self.suspicion_at()), self.death_at())
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

    /// When a suspect primary is given up: soon where another path of its kind has answered since.
    fn death_at(&self) -> Option<Instant> {
        let since = self.suspect_since?;
        let current = self.pairs.get(&self.route.primary?)?;
        let is_replaceable = self.alive(since).and_then(|path| self.pairs.get(&path));
        let is_replaceable = is_replaceable.is_some_and(|pair| pair.kind == current.kind);
        Some(since + if is_replaceable { current.patience() } else { self.config.dead_after })
    }

    pub(super) fn watch_primary(&mut self, now: Instant) {
        let Some(path) = self.route.primary else { return };
        if self.suspicion_at().is_some_and(|at| at <= now) {
            self.suspect(now);
        }
        if self.death_at().is_some_and(|at| at <= now) {
            if self.is_direct() {
                self.fell_at = Some(now);
            }
            // What has not answered either since then goes too: often it is one router that they all had.
            for (other, pair) in &mut self.pairs {
                if *other == path || pair.proven && pair.heard < self.suspect_since {
                    pair.fail();
                }
            }
            return self.drop_primary(Reason::Silence, now);
        }
        if earliest(self.keepalive_at, self.lull_at).is_some_and(|at| at <= now) {
            let settles = self.settle_at.is_some_and(|at| at <= now);
            self.check(path, None, now);
            if let Some(rival) = self.rival(path).filter(|_| settles) {
                self.check(rival, None, now);
            }
            if self.suspect_since.is_some() {
                self.keepalive_at = Some(now + self.config.last_interval);
                if let Some(other) = self.longest_unasked() {
                    self.check(other, None, now);
                }
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = (&PathId, &Pair)> {
        self.pairs.iter().filter(|(path, pair)| pair.proven && self.route.primary != Some(**path))
    }

    /// A path that seemed faster than the primary while round trips were not compared: both are asked again, and the
    /// answers compared.
    fn rival(&self, primary: PathId) -> Option<PathId> {
        let current = self.pairs.get(&primary).filter(|_| self.role == Role::Connector)?;
        let equal = self.others().filter(|(path, _)| self.grade(path) == self.grade(&primary));
        let faster = equal.filter(|(_, pair)| self.is_faster(pair, current));
        faster.min_by_key(|(path, pair)| (pair.best(), **path)).map(|(path, _)| *path)
    }

    /// The best proven path beside the primary: one that was heard since the primary became suspect, or else since it
    /// was heard last, if any.
    fn second(&self) -> Option<PathId> {
        let heard = self.route.primary.and_then(|path| self.pairs.get(&path)?.heard);
        let alive = self.suspect_since.and_then(|since| self.alive(since));
        let best = || self.others().min_by_key(|(path, pair)| (self.grade(path), pair.rtt, **path));
        let later = || heard.filter(|_| self.suspect_since.is_some()).and_then(|at| self.alive(at));
        alive.or_else(later).or_else(|| best().map(|(path, _)| *path))
    }

    /// The best of those that were heard since then.
    fn alive(&self, since: Instant) -> Option<PathId> {
        let alive = self.others().filter(|(_, pair)| pair.heard.is_some_and(|at| at >= since));
        alive.min_by_key(|(path, pair)| (self.grade(path), pair.rtt, **path)).map(|(path, _)| *path)
    }

    /// Of the proven paths beside the primary the one whose last check is the oldest.
    fn longest_unasked(&self) -> Option<PathId> {
        self.others().min_by_key(|(path, pair)| (pair.last_sent(), **path)).map(|(path, _)| *path)
    }

    fn duplicate(&mut self) {
        let also = self.second();
        if also != self.route.also || also.is_none() {
            self.route.also = also;
            self.announce(Reason::Suspect);
        }
    }

    /// Something came on the primary.
    pub(super) fn recover(&mut self, now: Instant) {
        if self.suspect_since.is_some() && self.doubted_at.is_some_and(|at| now < at + DOUBT) {
            // It works for us, and not for the remote.
            self.suspect_since = Some(now);
        } else if self.suspect_since.take().is_some() {
            self.owed_since = None;
            self.doubted_at = None;
            self.recovered_at = Some(now);
            self.route.also = None;
            self.announce(Reason::Recovered);
        }
    }

    pub(super) fn drop_primary(&mut self, reason: Reason, now: Instant) {
        self.is_stale |= self.is_direct();
        self.route.primary = None;
        let next = self.second();
        self.route = Route::default();
        self.suspect_since = None;
        self.owed_since = None;
        self.keepalive_at = None;
        self.lull_at = None;
        self.settle_at = None;
        match next {
            Some(path) => {
                self.set_primary(path, reason, now);
                self.check(path, None, now);
                (self.is_overlay_best, self.has_yielded) = (false, false);
            }
            None => {
                self.primary_since = None;
                self.announce(reason);
            }
        }
        self.spent.clear();
        self.begin_attempt(now);
    }

    /// The next keepalive after a check of the primary, or after a change of it.
    pub(super) fn postpone_keepalive(&mut self, now: Instant) {
        self.lull_at = None;
        let usual = now + self.keepalive - jitter(&mut self.rng, self.keepalive / 10);
        self.settle_at = self.settle_at.filter(|at| *at > now);
        self.keepalive_at = Some(self.settle_at.map_or(usual, |at| at.min(usual)));
    }
}
