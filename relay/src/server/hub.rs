//! The one driver of the [`Router`]: it hands in what happens and carries out what is decided.
//!
//! Everything happens under one short lock, in which nothing waits: frames are queued in the machine, and
//! each connection's writer is told when there is something for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::id::PeerId;
use proto::relay::login::Proven;
use proto::relay::{Router, RouterAction, RouterLimits, RouterStats, SessionKey};
use proto::wire::relay::Denial;
use tokio::sync::{Notify, watch};

/// All connections of a relay.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) relay: PeerId,
    state: Mutex<State>,
    /// The next timeout may have come nearer.
    sooner: Notify,
}

#[derive(Debug)]
struct State {
    router: Router,
    lines: BTreeMap<SessionKey, Arc<Line>>,
    next_key: SessionKey,
}

/// How a connection's task is reached.
#[derive(Debug)]
struct Line {
    ready: Notify,
    closed: watch::Sender<Option<Denial>>,
}

/// A connection's place at the relay; dropping it ends the session.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Arc<Hub>,
    key: SessionKey,
    line: Arc<Line>,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Hub {
    pub(super) fn new(relay: PeerId, limits: RouterLimits) -> Self {
        let state = State { router: Router::new(relay, limits, now()), lines: BTreeMap::new(), next_key: 0 };
        Self { relay, state: Mutex::new(state), sooner: Notify::new() }
    }

    /// Somebody wants in.
    pub(super) fn enter(self: &Arc<Self>, source: Option<IpAddr>) -> Result<Seat, Denial> {
        self.seat(|router, key, now| router.handle_connected(key, source, now))
    }

    /// The seat of the server's own services: everybody may send there.
    pub(super) fn service(self: &Arc<Self>) -> Result<Seat, Denial> {
        self.seat(|router, key, now| {
            router.open_service(key, now);
            Ok(())
        })
    }

    fn seat(
        self: &Arc<Self>,
        open: impl FnOnce(&mut Router, SessionKey, Instant) -> Result<(), Denial>,
    ) -> Result<Seat, Denial> {
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        let line = Arc::new(Line { ready: Notify::new(), closed: watch::Sender::new(None) });
        state.lines.insert(key, Arc::clone(&line));
        let entered = self.input(&mut state, |router, now| open(router, key, now));
        if entered.is_err() {
            state.lines.remove(&key);
        }
        drop(state);
        entered.map(|()| Seat { hub: Arc::clone(self), key, line })
    }

    /// Calls the machine when it wants to be called, for ever.
    pub(super) async fn keep_time(&self) {
        loop {
            let next = self.lock().router.poll_timeout();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = sleep => self.input(&mut self.lock(), Router::handle_timeout),
            }
        }
    }

    /// Tells everybody to come back after `back_in`.
    pub(super) fn restart(&self, back_in: Duration) {
        self.input(&mut self.lock(), |router, _| router.restart(back_in));
    }

    /// Ends every connection, each with a last word.
    pub(super) fn close(&self) {
        self.input(&mut self.lock(), |router, _| router.close());
    }

    pub(super) fn stats(&self) -> RouterStats {
        self.lock().router.stats()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one input in and carries out all that follows from it.
    fn input<T>(&self, state: &mut State, input: impl FnOnce(&mut Router, Instant) -> T) -> T {
        let before = state.router.poll_timeout();
        let result = input(&mut state.router, now());
        while let Some(action) = state.router.poll_action() {
            match action {
                RouterAction::Ready(key) => {
                    if let Some(line) = state.lines.get(&key) {
                        line.ready.notify_one();
                    }
                }
                RouterAction::Close(key, why) => {
                    if let Some(line) = state.lines.remove(&key) {
                        line.closed.send_replace(Some(why));
                    }
                }
            }
        }
        let after = state.router.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
        result
    }
}

impl Seat {
    /// The relay's identity.
    pub(super) fn relay(&self) -> PeerId {
        self.hub.relay
    }

    /// A packet for the server's own services came with the request.
    pub(super) fn first(&self, packet: &[u8]) {
        self.input(|router, now| router.handle_first(self.key, packet, now));
    }

    /// The login is good.
    pub(super) fn login(&self, proven: Proven) {
        self.input(|router, now| router.handle_login(self.key, proven, now));
    }

    /// It proves nothing.
    pub(super) fn bad_login(&self) {
        self.input(|router, _| router.handle_bad_login(self.key));
    }

    /// A message arrived.
    pub(super) fn frame(&self, message: Vec<u8>) {
        self.input(|router, now| router.handle_frame(self.key, message, now));
    }

    /// Something arrived that can't be one.
    pub(super) fn malformed(&self) {
        self.input(|router, _| router.handle_malformed(self.key));
    }

    /// The other end takes what is written.
    pub(super) fn progress(&self) {
        self.input(|router, now| router.handle_progress(self.key, now));
    }

    /// What is to be written next, now that what was taken before is written; waits for it.
    pub(super) async fn next(&self, budget: usize) -> Vec<Vec<u8>> {
        loop {
            let frames = self.input(|router, now| router.take(self.key, budget, now));
            if !frames.is_empty() {
                return frames;
            }
            self.line.ready.notified().await;
        }
    }

    /// Waits until the relay hangs up, and says why.
    pub(super) async fn closed(&self) -> Denial {
        let mut closed = self.line.closed.subscribe();
        match closed.wait_for(Option::is_some).await.map(|why| *why) {
            Ok(Some(why)) => why,
            // Neither can be: we hold the sender, and waited for a reason.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn input<T>(&self, input: impl FnOnce(&mut Router, Instant) -> T) -> T {
        self.hub.input(&mut self.hub.lock(), input)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.lines.remove(&self.key);
        self.hub.input(&mut state, |router, _| router.handle_disconnected(self.key));
    }
}
