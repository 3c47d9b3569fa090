//! Connections to local servers that have stayed behind a visitor's exchanges, for its next ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use super::upstream::{Lent, Upstream};

/// How long one waits: a browser asks for all that belongs to a page at once, and many servers close theirs after a few
/// seconds.
const STAYS: Duration = Duration::from_secs(1);

/// How many wait for a visitor who asks for several things at the same time: a browser has six to a server that speaks no
/// HTTP/2.
const AT_ONCE: usize = 6;

/// What has stayed for one visitor's connection.
#[derive(Clone)]
pub(crate) struct Stayed {
    room: usize,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    /// Each until when. The one that came last is the last.
    upstreams: Mutex<VecDeque<(Instant, Upstream)>>,
    changed: Notify,
}

impl Stayed {
    /// For a visitor who asks for one thing after the other.
    pub(crate) fn in_turn() -> Self {
        Self { room: 1, held: Arc::default() }
    }

    /// For one who asks for many at the same time, each of which has a clone of it.
    pub(crate) fn at_once() -> Self {
        Self { room: AT_ONCE, held: Arc::default() }
    }

    /// Whether several requests have it at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.room > 1
    }

    /// What a request that begins now may use. Where it is the only one, all goes with it: what it does not use waits for
    /// no later one.
    pub(crate) fn for_request(&self) -> Self {
        if self.is_shared() {
            return self.clone();
        }
        let held = Held::default();
        *lock(&held) = std::mem::take(&mut *lock(&self.held));
        Self { room: self.room, held: Arc::new(held) }
    }

    /// One that was made for the same visitor, and over which nothing has come since.
    pub(crate) fn take(&self, lent: &Lent) -> Option<Upstream> {
        loop {
            let (_, upstream) = {
                let mut held = lock(&self.held);
                let at = held.iter().rposition(|(_, upstream)| upstream.lent.as_ref() == Some(lent))?;
                held.remove(at)?
            };
            if let Some(upstream) = upstream.again() {
                return Some(upstream);
            }
        }
    }

    /// Has one wait, in the place of the one that has waited longest where there is no room.
    pub(crate) fn put(&self, upstream: Upstream) {
        let displaced = {
            let mut held = lock(&self.held);
            held.push_back((Instant::now() + STAYS, upstream));
            if held.len() > self.room { held.pop_front() } else { None }
        };
        drop(displaced);
        // A request that is the only one is through before anybody looks after what has stayed.
        if self.is_shared() {
            self.held.changed.notify_one();
        }
    }

    /// Drops those that have waited long enough, for as long as it is polled. One task does.
    pub(crate) async fn expire(&self) -> Infallible {
        loop {
            let oldest = lock(&self.held).front().map(|(until, _)| *until);
            let due = async {
                match oldest {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => drop(self.pop_due()),
                () = self.held.changed.notified() => {}
            }
        }
    }

    fn pop_due(&self) -> Option<(Instant, Upstream)> {
        let mut held = lock(&self.held);
        let is_due = held.front().is_some_and(|(until, _)| *until <= Instant::now());
        if is_due { held.pop_front() } else { None }
    }
}

fn lock(held: &Held) -> MutexGuard<'_, VecDeque<(Instant, Upstream)>> {
    held.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
}
