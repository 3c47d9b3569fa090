//! **Lifetime**: how long the NAT on our side keeps an idle flow, learned on a link that carries nothing.
//!
//! The main link is never risked. A probe link gets a proven path of its own to the remote and then rests. The
//! remote's agent checks such a late path from its side after ever longer rests ([`PathAgent`] does so of its
//! own accord). Each check that arrives shows that the NAT has kept the flow for that long; the first one that
//! is missing ends the probe, and the keepalive is made from the longest rest that worked. A lost check looks
//! like a lost flow, which errs on the safe side.
//!
//! [`PathAgent`]: super::PathAgent

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::LinkId;

/// The rests that are tried: past the cliffs at which NATs commonly give up (30, 60, 120 s).
const RESTS: [Duration; 4] =
    [Duration::from_secs(20), Duration::from_secs(35), Duration::from_secs(65), Duration::from_secs(125)];

/// The share of a rest that worked which the keepalive may take.
const SHARE: f64 = 0.8;

/// The keepalive where not even the first rest works.
const SHORTEST: Duration = Duration::from_secs(10);

/// From the first path to the probe: what is over sooner needs none, and within the time in which the server
/// still carries messages of the exchange.
const START: Duration = Duration::from_secs(10);

/// How long the probe link may take to get its path, and how late the remote's check may be.
const PATIENCE: Duration = Duration::from_secs(5);

/// When the remote checks a late path for the `n`-th time after it was last used, from 0.
pub(super) fn rest(n: usize) -> Option<Duration> {
    RESTS.get(n).copied()
}

/// What the shell must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeAction {
    /// Open a fresh link, as for [`super::PathEvent::FreshLinkWanted`], and tell by
    /// [`Lifetime::handle_proven`] once something was heard on it.
    OpenLink,
    /// Close the probe link.
    CloseLink(LinkId),
    /// Something was learned.
    Learned {
        /// For [`super::PathAgent::set_keepalive`].
        keepalive: Duration,
        /// The longest rest for which the NAT was seen to keep a flow. `None`: it kept none for any.
        kept: Option<Duration>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Opening { deadline: Instant },
    Resting { link: LinkId, since: Instant },
    Over,
}

/// The machine, for one remote.
#[derive(Debug)]
pub struct Lifetime {
    state: State,
    /// Which rest is tried.
    rest: usize,
    actions: VecDeque<LifetimeAction>,
}

impl Lifetime {
    /// Begins when the remote has its first path.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Waiting { until: now + START }, rest: 0, actions: VecDeque::new() }
    }

    /// The probe link that was asked for has a path, and carries no data.
    pub fn handle_proven(&mut self, link: LinkId, now: Instant) {
        if matches!(self.state, State::Opening { .. }) {
            self.state = State::Resting { link, since: now };
        }
    }

    /// A check of the remote's arrived on a link.
    pub fn handle_heard(&mut self, link: LinkId, now: Instant) {
        let State::Resting { link: resting, since } = self.state else { return };
        if resting != link {
            return;
        }
        if let Some(tried) = rest(self.rest).filter(|tried| now + PATIENCE / 5 >= since + *tried) {
            let keepalive = tried.mul_f64(SHARE);
            self.actions.push_back(LifetimeAction::Learned { keepalive, kept: Some(tried) });
            self.rest += 1;
        }
        self.state = State::Resting { link, since: now };
        if rest(self.rest).is_none() {
            self.end();
        }
    }

    /// The probe link can't go on: it carries data now, or is gone. What was learned holds.
    pub fn handle_lost(&mut self) {
        self.state = State::Over;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Waiting { .. } => {
                self.actions.push_back(LifetimeAction::OpenLink);
                self.state = State::Opening { deadline: now + PATIENCE };
            }
            State::Resting { .. } => {
                if self.rest == 0 {
                    self.actions.push_back(LifetimeAction::Learned { keepalive: SHORTEST, kept: None });
                }
                self.end();
            }
            State::Opening { .. } | State::Over => self.state = State::Over,
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Opening { deadline } => Some(deadline),
            State::Resting { since, .. } => rest(self.rest).map(|tried| since + tried + PATIENCE),
            State::Over => None,
        }
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<LifetimeAction> {
        self.actions.pop_front()
    }

    fn end(&mut self) {
        if let State::Resting { link, .. } = self.state {
            self.actions.push_back(LifetimeAction::CloseLink(link));
        }
        self.state = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;

    /// Plays shell, remote and NAT: a flow lives for `kept` of idleness. Gives the keepalives that were learned.
    fn learn(kept: Duration) -> Vec<u64> {
        let link = LinkId(1);
        let mut lifetime = Lifetime::new(start());
        let (mut keepalives, mut closed) = (Vec::new(), false);
        while let Some(mut now) = lifetime.poll_timeout() {
            let tried = rest(lifetime.rest).filter(|tried| *tried < kept);
            if let (State::Resting { since, .. }, Some(tried)) = (lifetime.state, tried) {
                now = since + tried;
                lifetime.handle_heard(link, now);
            }
            lifetime.handle_timeout(now);
            while let Some(action) = lifetime.poll_action() {
                match action {
                    LifetimeAction::OpenLink => {
                        lifetime.handle_proven(link, now);
                        // The checks that confirm the path come before any rest.
                        lifetime.handle_heard(link, now + Duration::from_millis(100));
                    }
                    LifetimeAction::CloseLink(closing) => closed = closing == link,
                    LifetimeAction::Learned { keepalive, kept: was_kept } => {
                        assert!(was_kept.is_none_or(|rest| keepalive < rest && rest < kept), "{was_kept:?}");
                        keepalives.push(keepalive.as_secs());
                    }
                }
            }
        }
        assert!(closed);
        keepalives
    }

    #[test]
    fn the_keepalive_stays_below_what_the_nat_keeps() {
        let learned = |secs| learn(Duration::from_secs(secs));
        assert_eq!(learned(15), [10]);
        assert_eq!(learned(30), [16]);
        assert_eq!(learned(60), [16, 28]);
        assert_eq!(learned(120), [16, 28, 52]);
        assert_eq!(learned(300), [16, 28, 52, 100]);
        for secs in 11..300 {
            assert!(learned(secs).iter().all(|keepalive| *keepalive < secs), "{secs}");
        }
    }

    #[test]
    fn a_probe_that_gets_no_path_teaches_nothing() {
        let now = start();
        let mut lifetime = Lifetime::new(now);
        lifetime.handle_timeout(now + START);
        assert_eq!(lifetime.poll_action(), Some(LifetimeAction::OpenLink));
        lifetime.handle_timeout(now + START + PATIENCE);
        assert_eq!((lifetime.poll_action(), lifetime.poll_timeout()), (None, None));
    }
}
