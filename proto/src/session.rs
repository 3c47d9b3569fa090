//! **Session**: a peer's standing conversation with its server.
//!
//! The shell dials and moves frames; this machine says when to dial, what to send and what it meant. The
//! session is re-made for ever with jittered back-off; only a peer that was never welcomed gives up.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::candidate::canonical;
use crate::id::{Instance, PeerId, ShareId};
use crate::machine::{earliest, jitter};
use crate::seen::Seen;
use crate::wire::VERSION;
use crate::wire::session::{FromServer, ToServer, Undeliverable};
use crate::wire::signal::{Answer, Nonce, Offer, RelayHint, SealedNat, Trickle};

/// How the session behaves in time.
#[derive(Debug, Clone, Copy)]
pub struct SessionConfig {
    /// How long the server may take to welcome, from the start on, before the first failure is final.
    pub give_up: Duration,
    /// How long one attempt may take: several QUIC retransmissions on a slow path.
    pub attempt: Duration,
    /// Between pings. Half of the 30 s for which common NATs keep an idle binding.
    pub ping: Duration,
    /// How long a pong may take before the session counts as lost.
    pub pong: Duration,
    /// The same after a network change, when it is likely to be: three round trips on a slow path.
    pub hurried_pong: Duration,
    /// The longest wait before the first attempt, and before any. In between it grows by an eighth of the time
    /// for which the server has been away, so that a short outage is over soon and a long one is not hammered.
    /// Each wait is anything up to that at random: whoever was cut off at the same moment does not come back at
    /// the same moment.
    pub retry: (Duration, Duration),
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            give_up: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
            ping: Duration::from_secs(15),
            pong: Duration::from_secs(5),
            hurried_pong: Duration::from_millis(1500),
            retry: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub enum SessionAction {
    /// Dial the server.
    Dial,
    /// Send this.
    Send(ToServer),
    /// Close the connection, or stop dialling.
    Close,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub enum SessionEvent {
    /// The server welcomed this session.
    Up {
        /// Our address as it sees it.
        observed: SocketAddr,
        /// Its further addresses.
        udp_alternate: Vec<SocketAddr>,
        /// Its relays.
        relays: Vec<RelayHint>,
    },
    /// The session was lost and is being re-made.
    Down,
    /// The server was never reached, and the time for it is over.
    GaveUp,
    /// Our address changed.
    Observed(SocketAddr),
    /// The share's offers come here.
    Registered(ShareId),
    /// They go to a newer process.
    Displaced(ShareId),
    /// Our offer was forwarded.
    Forwarded {
        /// Its nonce.
        offer: Nonce,
        /// To which process.
        to_instance: Instance,
        /// Its relay.
        relay: Option<RelayHint>,
        /// What it says of its NAT.
        nat: Option<SealedNat>,
    },
    /// Our offer went nowhere.
    Undelivered {
        /// Its nonce.
        offer: Nonce,
        /// Why.
        reason: Undeliverable,
    },
    /// Somebody offers.
    Offer {
        /// Who.
        from: (PeerId, Instance),
        /// Where the server sees it.
        observed: Seen,
        /// What.
        offer: Offer,
    },
    /// Our offer was answered.
    Answer {
        /// By whom.
        from: (PeerId, Instance),
        /// Where the server sees it: nowhere, unless the offer was accepted.
        observed: Seen,
        /// How.
        answer: Answer,
    },
    /// More of an exchange.
    Trickle {
        /// By whom.
        from: (PeerId, Instance),
        /// Where the server sees it now.
        observed: Seen,
        /// What.
        trickle: Trickle,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting to dial.
    Waiting { until: Instant },
    /// Dialling, or waiting for the welcome.
    Greeting { deadline: Instant },
    /// Welcomed.
    Up { next_ping: Instant, pong_due: Option<Instant> },
    /// Given up.
    Over,
}

/// A share that is registered on every session.
#[derive(Debug, Default)]
struct Registration {
    /// Whether its offers come here.
    has_offers: bool,
    /// What is said of our NAT, until the session is another.
    nat: Option<SealedNat>,
    /// Whether the server has not heard that yet.
    is_untold: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    instance: Instance,
    token: Option<String>,
    shares: BTreeMap<ShareId, Registration>,
    started: Instant,
    welcomed_ever: bool,
    state: State,
    lost_since: Instant,
    /// The network has changed, and the server not said a word since.
    moved: bool,
    pings: u32,
    /// Where the sender of the next message is seen beside the address of its session.
    also_seen: Option<(PeerId, Instance, Seen)>,
    rng: ChaCha12Rng,
    actions: VecDeque<SessionAction>,
    events: VecDeque<SessionEvent>,
}

impl Session {
    /// A session of this process; it dials at once.
    pub fn new(
        config: SessionConfig,
        instance: Instance,
        token: Option<String>,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            config,
            instance,
            token,
            shares: BTreeMap::new(),
            started: now,
            welcomed_ever: false,
            state: State::Waiting { until: now },
            lost_since: now,
            moved: false,
            pings: 0,
            also_seen: None,
            rng: ChaCha12Rng::from_seed(seed),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Registers a share, now and on every session to come.
    pub fn register(&mut self, share: ShareId) {
        if self.shares.contains_key(&share) {
            return;
        }
        self.shares.insert(share, Registration::default());
        if self.is_connected() {
            self.send(ToServer::Register { share, nat: None });
        }
    }

    /// Says what our NAT is to who holds a share's ticket, or that it is not known any more. It holds until the next
    /// session, behind whose address may be another NAT. One whose offers go to a newer process says it once it has
    /// them again: a server that knows nothing of this would take it for yet a newer registration.
    pub fn describe(&mut self, share: ShareId, nat: Option<SealedNat>) {
        let Some(registration) = self.shares.get_mut(&share) else { return };
        if registration.nat != nat {
            (registration.nat, registration.is_untold) = (nat, true);
            self.tell_nat(share);
        }
    }

    fn tell_nat(&mut self, share: ShareId) {
        let is_up = self.is_up();
        let Some(registration) = self.shares.get_mut(&share).filter(|it| is_up && it.has_offers) else {
            return;
        };
        if std::mem::take(&mut registration.is_untold) {
            let nat = registration.nat.clone();
            self.send(ToServer::Register { share, nat });
        }
    }

    /// No longer does.
    pub fn unregister(&mut self, share: ShareId) {
        if self.shares.remove(&share).is_some() && self.is_connected() {
            self.send(ToServer::Unregister { share });
        }
    }

    /// Sends a message of an exchange. On a session that is down it is lost, as the exchange is.
    pub fn signal(&mut self, message: ToServer) {
        if self.is_connected() {
            self.send(message);
        }
    }

    /// Whether frames can be sent.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// The connection is open: the hello, the registrations and whatever was asked for leave in one flight.
    pub fn handle_connected(&mut self, _now: Instant) {
        if !matches!(self.state, State::Greeting { .. }) {
            return;
        }
        self.send(ToServer::Hello { version: VERSION, instance: self.instance, token: self.token.clone() });
        for (share, registration) in &mut self.shares {
            *registration = Registration::default();
            self.actions.push_back(SessionAction::Send(ToServer::Register { share: *share, nat: None }));
        }
    }

    /// The connection is gone, or could not be made.
    pub fn handle_lost(&mut self, now: Instant) {
        if matches!(self.state, State::Greeting { .. } | State::Up { .. }) {
            self.retry(now);
        }
    }

    /// The network changed: an attempt is made at once, in place of one that is under way, and a session that
    /// is up must soon show that it still is. QUIC follows a client that moves (RFC 9000 §9), so it may be.
    pub fn handle_network_change(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { until } => {
                *until = now;
                self.lost_since = now;
            }
            State::Greeting { .. } => {
                self.actions.push_back(SessionAction::Close);
                self.lost_since = now;
                self.state = State::Waiting { until: now };
            }
            State::Up { .. } => {
                self.moved = true;
                self.ping(self.config.hurried_pong, now);
            }
            State::Over => {}
        }
    }

    /// A path to somebody else does not answer: if that is because the NAT on our side has lost its state, the
    /// server sees us under another address, and says so. A session that is down has its own way up.
    pub fn handle_doubt(&mut self, now: Instant) {
        if let State::Up { pong_due: None, .. } = self.state {
            self.ping(self.config.pong, now);
        }
    }

    /// A message of the server's.
    pub fn handle_message(&mut self, message: FromServer, now: Instant) {
        self.moved = false;
        if let State::Up { next_ping, pong_due } = &mut self.state {
            // Anything heard is a sign of life, and refreshed the binding on its way.
            *pong_due = None;
            *next_ping = now + self.config.ping;
        }
        let also_seen = self.also_seen.take();
        let seen = |from: PeerId, instance: Instance, observed: Option<SocketAddr>| {
            let also = also_seen.filter(|(peer, of, _)| (*peer, *of) == (from, instance));
            also.map(|(_, _, seen)| seen).unwrap_or_default().also(observed.into_iter().collect())
        };
        match message {
            FromServer::Welcome { version: _, observed, udp_alternate, relays } => {
                self.handle_welcome(observed, udp_alternate, relays, now);
            }
            FromServer::Observed(addr) => self.event(SessionEvent::Observed(canonical(addr))),
            FromServer::Registered { share } => self.handle_registered(share),
            FromServer::Displaced { share } => {
                if let Some(registration) = self.shares.get_mut(&share) {
                    registration.has_offers = false;
                }
                self.event(SessionEvent::Displaced(share));
            }
            FromServer::Forwarded { offer, to_instance, relay, nat } => {
                self.event(SessionEvent::Forwarded { offer, to_instance, relay, nat });
            }
            FromServer::Undelivered { offer, reason } => {
                self.event(SessionEvent::Undelivered { offer, reason })
            }
            FromServer::Offer { from, from_instance, observed, offer } => {
                let observed = seen(from, from_instance, Some(observed));
                self.event(SessionEvent::Offer { from: (from, from_instance), observed, offer });
            }
            FromServer::Answer { from, from_instance, observed, answer } => {
                let observed = seen(from, from_instance, observed);
                self.event(SessionEvent::Answer { from: (from, from_instance), observed, answer });
            }
            FromServer::Trickle { from, from_instance, observed, trickle } => {
                let observed = seen(from, from_instance, Some(observed));
                self.event(SessionEvent::Trickle { from: (from, from_instance), observed, trickle });
            }
            FromServer::Pong(_) => {}
            FromServer::AlsoSeen { from, from_instance, observed } => {
                let before = also_seen.filter(|(peer, of, _)| (*peer, *of) == (from, from_instance));
                let before = before.map(|(_, _, seen)| seen).unwrap_or_default();
                self.also_seen = Some((from, from_instance, before.and(observed)));
            }
        }
    }

    fn handle_registered(&mut self, share: ShareId) {
        if let Some(registration) = self.shares.get_mut(&share) {
            // The answer to what was said anew tells nothing new.
            if std::mem::replace(&mut registration.has_offers, true) {
                return;
            }
            self.tell_nat(share);
        }
        self.event(SessionEvent::Registered(share));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until } if until <= now => {
                self.state = State::Greeting { deadline: now + self.config.attempt };
                self.actions.push_back(SessionAction::Dial);
            }
            State::Greeting { deadline } if deadline <= now => {
                self.actions.push_back(SessionAction::Close);
                self.retry(now);
            }
            State::Up { pong_due: Some(due), .. } if due <= now => {
                self.actions.push_back(SessionAction::Close);
                self.retry(now);
            }
            State::Up { next_ping, .. } if next_ping <= now => self.ping(self.config.pong, now),
            State::Waiting { .. } | State::Greeting { .. } | State::Up { .. } | State::Over => {}
        }
        if !self.welcomed_ever && self.state != State::Over && now >= self.started + self.config.give_up {
            self.actions.push_back(SessionAction::Close);
            self.event(SessionEvent::GaveUp);
            self.state = State::Over;
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match self.state {
            State::Waiting { until } => Some(until),
            State::Greeting { deadline } => Some(deadline),
            State::Up { next_ping, pong_due } => earliest(Some(next_ping), pong_due),
            State::Over => return None,
        };
        let give_up = (!self.welcomed_ever).then(|| self.started + self.config.give_up);
        earliest(next, give_up)
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<SessionAction> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    fn handle_welcome(
        &mut self,
        observed: SocketAddr,
        udp_alternate: Vec<SocketAddr>,
        relays: Vec<RelayHint>,
        now: Instant,
    ) {
        if !matches!(self.state, State::Greeting { .. }) {
            return;
        }
        self.welcomed_ever = true;
        self.state = State::Up { next_ping: now + self.config.ping, pong_due: None };
        self.event(SessionEvent::Up { observed: canonical(observed), udp_alternate, relays });
    }

    /// Asks for a sign of life within `patience`, or sooner if it was asked for before.
    fn ping(&mut self, patience: Duration, now: Instant) {
        let State::Up { next_ping, pong_due } = &mut self.state else { return };
        *next_ping = now + self.config.ping;
        *pong_due = earliest(*pong_due, Some(now + patience));
        self.pings = self.pings.wrapping_add(1);
        self.send(ToServer::Ping(self.pings));
    }

    fn retry(&mut self, now: Instant) {
        if self.is_up() {
            self.event(SessionEvent::Down);
            self.lost_since = now;
        }
        let (shortest, longest) = self.config.retry;
        let whole = (shortest + now.saturating_duration_since(self.lost_since) / 8).min(longest);
        // A network that changed is nobody's but ours: no crowd comes back with us.
        let delay =
            if std::mem::take(&mut self.moved) { Duration::ZERO } else { jitter(&mut self.rng, whole) };
        self.state = State::Waiting { until: now + delay };
    }

    /// Frames may leave as soon as the connection is open, before the welcome.
    const fn is_connected(&self) -> bool {
        matches!(self.state, State::Up { .. } | State::Greeting { .. })
    }

    fn send(&mut self, message: ToServer) {
        self.actions.push_back(SessionAction::Send(message));
    }

    fn event(&mut self, event: SessionEvent) {
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
