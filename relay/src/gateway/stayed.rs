//! Connections to local servers that have stayed behind a visitor's exchanges, for its next ones.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::tunnel::keep::Waiting;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::upstream::{Lent, Upstream};

/// How many wait for a visitor who asks for several things at the same time: a browser has six to a server that speaks no
/// HTTP/2.
const AT_ONCE: usize = 6;

/// What has stayed for one visitor's connection.
#[derive(Clone)]
pub(crate) struct Stayed {
    held: Arc<Held>,
    is_shared: bool,
}

struct Held {
    upstreams: Mutex<Waiting<Upstream>>,
    changed: Notify,
}

impl Stayed {
    /// For a visitor who asks for one thing after the other.
    pub(crate) fn in_turn() -> Self {
        Self { held: Held::with(Waiting::new(1)), is_shared: false }
    }

    /// For one who asks for many at the same time, each of which has a clone of it.
    pub(crate) fn at_once() -> Self {
        Self { held: Held::with(Waiting::new(AT_ONCE)), is_shared: true }
    }

    /// Whether several requests have it at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// What a request that begins now may use. Where it is the only one, all goes with it: what it does not use waits for
    /// no later one.
    pub(crate) fn for_request(&self) -> Self {
        if self.is_shared {
            return self.clone();
        }
        let held = std::mem::replace(&mut *self.held.lock(), Waiting::new(1));
        Self { held: Held::with(held), is_shared: false }
    }

    /// One that was made for the same visitor, and over which nothing has come since.
    pub(crate) fn take(&self, lent: &Lent) -> Option<Upstream> {
        loop {
            let taken = self.held.lock().take(|upstream| upstream.lent.as_ref() == Some(lent))?;
            if let Some(upstream) = taken.again() {
                return Some(upstream);
            }
        }
    }

    /// Has one wait, in the place of the one that has waited longest where there is no room.
    pub(crate) fn put(&self, upstream: Upstream) {
        let displaced = self.held.lock().put(upstream, Instant::now().into_std());
        drop(displaced);
        // A request that is the only one is through before anybody looks after what has stayed.
        if self.is_shared {
            self.held.changed.notify_one();
        }
    }

    /// Drops those that have waited long enough, for as long as it is polled. One task does.
    pub(crate) async fn expire(&self) -> Infallible {
        loop {
            let oldest = self.held.lock().timeout();
            let due = async {
                match oldest {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => drop(self.pop_due()),
                () = self.held.changed.notified() => {}
            }
        }
    }

    fn pop_due(&self) -> Option<Upstream> {
        self.held.lock().pop_due(Instant::now().into_std())
    }
}

impl Held {
    fn with(upstreams: Waiting<Upstream>) -> Arc<Self> {
        Arc::new(Self { upstreams: Mutex::new(upstreams), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<Upstream>> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
