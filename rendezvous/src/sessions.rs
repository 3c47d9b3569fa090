//! The one driver of the [`Matchmaker`]: it hands in what happens and carries out what is decided.
//!
//! Everything happens under one short lock, in which nothing waits: messages go to bounded queues, one for
//! each session, and a session that lets its queue run over is closed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::id::PeerId;
use proto::matchmaker::{Matchmaker, MatchmakerAction, MatchmakerConfig, MatchmakerStats, SessionKey};
use proto::reach::Asker;
use proto::server_health::Way;
use proto::wire;
use proto::wire::session::{FromServer, ToServer, close};
use proto::wire::signal::RelayHint;
use quinn::{Connection, VarInt};
use relay::relayed::is_relayed;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::checks::Checks;
use crate::stats::{ByWay, Counters};

/// All sessions of a server.
#[derive(Debug)]
pub(crate) struct Sessions {
    state: Mutex<State>,
    /// The next timeout may have come nearer.
    sooner: Notify,
    counters: Arc<Counters>,
    addresses: Arc<Addresses>,
    checks: Checks,
    /// Messages that wait for one session.
    queue: usize,
}

#[derive(Debug)]
struct State {
    matchmaker: Matchmaker,
    lines: BTreeMap<SessionKey, Line>,
    /// How many there are, by the way that they came.
    by_way: ByWay,
    next_key: SessionKey,
}

/// How a session is reached.
#[derive(Debug)]
struct Line {
    connection: Connection,
    frames: mpsc::Sender<Vec<u8>>,
    /// The address of ours that the peer talks to, where it is known.
    local: Option<IpAddr>,
    way: Way,
}

/// A session's place among the others; dropping it ends the session.
#[derive(Debug)]
pub(crate) struct Seat {
    sessions: Arc<Sessions>,
    key: SessionKey,
}

/// Where a session comes from, as a peer is told: of one through the relay nothing is known.
fn observed(remote: SocketAddr) -> SocketAddr {
    if is_relayed(remote) { (Ipv6Addr::UNSPECIFIED, 0).into() } else { remote }
}

impl Sessions {
    pub(crate) fn new(
        config: MatchmakerConfig,
        queue: usize,
        counters: Arc<Counters>,
        (addresses, checks): (Arc<Addresses>, Checks),
    ) -> Self {
        let (matchmaker, lines, by_way) = (Matchmaker::new(config), BTreeMap::new(), ByWay::default());
        let state = Mutex::new(State { matchmaker, lines, by_way, next_key: 0 });
        Self { state, sooner: Notify::new(), counters, addresses, checks, queue }
    }

    /// These are the relays from now on, best first.
    pub(crate) fn set_relays(&self, relays: Vec<RelayHint>) {
        self.lock().matchmaker.set_relays(relays);
    }

    /// A peer has connected. The frames for it come out of the receiver.
    pub(crate) fn connected(
        self: &Arc<Self>,
        peer: PeerId,
        connection: &Connection,
    ) -> (Seat, mpsc::Receiver<Vec<u8>>) {
        let (frames, receiver) = mpsc::channel(self.queue);
        let remote = connection.remote_address();
        let observed = observed(remote);
        let way = if is_relayed(remote) { Way::Relay } else { Way::Udp(remote) };
        let local = connection.local_ip().filter(|_| way != Way::Relay);
        let line = Line { connection: connection.clone(), frames, local, way };
        self.checks.session(peer, way);
        self.counters.sessions_opened.at(way).add();
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        *state.by_way.of(way) += 1;
        state.lines.insert(key, line);
        self.input(state, |matchmaker, now| matchmaker.handle_connected(key, peer, observed, now));
        (Seat { sessions: Arc::clone(self), key }, receiver)
    }

    /// Calls the machine when it wants to be called, for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let next = self.lock().matchmaker.poll_timeout();
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at.into()) => {
                        self.input(self.lock(), Matchmaker::handle_timeout);
                    }
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// What has been counted, and how many there are by the way that they came.
    pub(crate) fn stats(&self) -> (MatchmakerStats, ByWay) {
        let state = self.lock();
        (state.matchmaker.stats(), state.by_way)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one input in and carries out all that follows from it.
    fn input(
        &self,
        mut state: MutexGuard<'_, State>,
        input: impl FnOnce(&mut Matchmaker, std::time::Instant),
    ) {
        let before = state.matchmaker.poll_timeout();
        input(&mut state.matchmaker, Instant::now().into_std());
        while let Some(action) = state.matchmaker.poll_action() {
            state.carry_out(action, self);
        }
        let after = state.matchmaker.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
    }
}

impl State {
    fn carry_out(&mut self, action: MatchmakerAction, sessions: &Sessions) {
        match action {
            MatchmakerAction::Send(key, message) => {
                let Some(line) = self.lines.get(&key) else { return };
                let frame = wire::frame(&line.complete(message, &sessions.addresses));
                if line.frames.try_send(frame).is_err() {
                    sessions.counters.sessions_overflowed.add();
                    self.hang_up(key, close::SILENT);
                    self.matchmaker.handle_disconnected(key);
                }
            }
            MatchmakerAction::Close(key, code) => self.hang_up(key, code),
        }
    }

    fn remove(&mut self, key: SessionKey) -> Option<Line> {
        let line = self.lines.remove(&key)?;
        *self.by_way.of(line.way) -= 1;
        Some(line)
    }

    fn hang_up(&mut self, key: SessionKey, code: u32) {
        if let Some(line) = self.remove(key) {
            line.connection.close(VarInt::from_u32(code), b"");
        }
    }
}

impl Line {
    /// Names the addresses that this peer can use.
    fn complete(&self, mut message: FromServer, addresses: &Addresses) -> FromServer {
        if let FromServer::Welcome { udp_alternate, .. } = &mut message {
            *udp_alternate = addresses.beside(&match self.way {
                Way::Udp(remote) => Asker::at(remote.ip(), self.local),
                Way::Relay => Asker::unknown(None),
            });
        }
        message
    }
}

impl Seat {
    /// The session sent a message.
    pub(crate) fn message(&self, message: ToServer) {
        self.input(|matchmaker, now| matchmaker.handle_message(self.key, message, now));
    }

    /// The session sent something that is no message.
    pub(crate) fn malformed(&self) {
        self.input(|matchmaker, _| matchmaker.handle_malformed(self.key));
    }

    /// The session's packets come from this address now, or still.
    pub(crate) fn seen_at(&self, remote: SocketAddr) {
        let observed = observed(remote);
        self.input(|matchmaker, _| matchmaker.handle_rebound(self.key, observed));
    }

    fn input(&self, input: impl FnOnce(&mut Matchmaker, std::time::Instant)) {
        self.sessions.input(self.sessions.lock(), input);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.lock().remove(self.key);
        self.input(|matchmaker, _| matchmaker.handle_disconnected(self.key));
    }
}
