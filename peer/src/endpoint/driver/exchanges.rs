//! Offers and answers: whom we ask, and whom we let in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind, MAX_CANDIDATES};
use proto::dial::{Dial, DialEvent, DialFailure};
use proto::doorman::{Decision, Doorman};
use proto::id::Instance;
use proto::machine::{Backoff, random};
use proto::path::{LinkId, PathAgent, PathConfig, PathId, PathKind, Route, Signals};
use proto::proof::CheckKeys;
use proto::punch::Known;
use proto::seen::Seen;
use proto::session::SessionEvent;
use proto::stun::Role;
use proto::ticket::Ticket;
use proto::wire::peer::close;
use proto::wire::session::ToServer;
use proto::wire::signal::{Answer, Claims, Offer, Refusal, RelayHint, Trickle, Verdict};
use tokio::sync::{mpsc, oneshot, watch};

use super::farewell::Farewell;
use super::{Driver, Shared, unix_secs};
use crate::endpoint::accept::{Access, Knock, Visit};
use crate::endpoint::remote::{Introduction, Meeting, Met, Remote, RemoteKey};
use crate::endpoint::{EndpointEvent, PathPolicy, ShareSpec, Standing};
use crate::error::Error;

/// How many remotes one process has at once.
const MAX_REMOTES: usize = 1024;

/// How long a connection may take from when both sides know each other.
const CONNECT: Duration = Duration::from_secs(30);

/// How long a search for a direct path goes on that nothing else disturbs: all of its attempts.
const SEARCH: Duration = Duration::from_secs(9);

/// The longest wait before a remote whose paths are lost is asked again. It may come back from a sleep at any
/// moment, with a stream that waits; after three minutes QUIC gives the connection up, and this ends.
const AGAIN: Duration = Duration::from_secs(3);

/// A dial that waits for the session, or for its time.
pub(super) struct PendingDial {
    pub(super) ticket: Ticket,
    pub(super) reply: Option<oneshot::Sender<Result<Introduction, Error>>>,
    /// The remote whose paths are lost, where this is to find new ones for it.
    pub(super) repunch: Option<RemoteKey>,
    pub(super) not_before: Option<Instant>,
    backoff: Backoff,
}

/// A dial under way.
pub(super) struct Dialling {
    number: u64,
    pub(super) dial: Dial,
    pub(super) repunch: Option<RemoteKey>,
    ticket: Ticket,
    reply: Option<oneshot::Sender<Result<Introduction, Error>>>,
    /// What becomes of the offer, for whoever was introduced before that was known.
    met: watch::Sender<Meeting>,
    /// The connection that began before the answer.
    pub(super) early: Option<Early>,
    /// Whether the sharer seems to be on this machine.
    is_beside: bool,
    /// Let in, this remote is to be reached by then.
    reaching: Option<RemoteKey>,
    backoff: Backoff,
}

/// A connection that begins as soon as the offer is on its way to the sharer: its packets go to the relay, and
/// wait there until the sharer lets them in.
pub(super) struct Early {
    pub(super) key: RemoteKey,
    pub(super) address: SocketAddr,
    pub(super) path: PathId,
    pub(super) connection: Option<quinn::Connection>,
}

impl PendingDial {
    pub(super) const fn new(
        ticket: Ticket,
        reply: Option<oneshot::Sender<Result<Introduction, Error>>>,
        repunch: Option<RemoteKey>,
        now: Instant,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), AGAIN);
        Self { ticket, reply, repunch, not_before: Some(now), backoff }
    }
}

impl Dialling {
    /// Whoever dialled can open the connection.
    fn introduce(&mut self, address: SocketAddr) {
        if let Some(reply) = self.reply.take() {
            let (exchange, met) = (*self.dial.exchange(), self.met.subscribe());
            let _gone = reply.send(Ok(Introduction { address, exchange, met }));
        }
    }

    /// The sharer has let us in.
    fn meet(&self) {
        self.met.send_replace(Some(Ok(Met { is_beside: self.is_beside })));
    }
}

impl Driver {
    pub(super) fn share(&mut self, spec: ShareSpec, visits: mpsc::Sender<Visit>) {
        let ShareSpec { share, name, targets, tickets } = spec;
        let (me, instance) = (self.parts.me, self.parts.instance);
        let mut doorman = Doorman::new(me, instance, share, random(&mut self.rng));
        for (ticket, admission) in tickets {
            doorman.admit(ticket, admission);
        }
        self.shares.insert(share, Shared { doorman, name, targets, visits });
        self.session.register(share);
    }

    pub(super) fn handle_session_event(&mut self, event: SessionEvent, now: Instant) {
        match event {
            SessionEvent::Up { observed, udp_alternate, relays } => {
                self.wait_at(&relays);
                self.show_all_addresses(now);
                self.handle_observed(observed, now);
                self.handle_alternates(udp_alternate, now);
                self.renew_exchanges(now);
                self.ask_why_relayed();
                let _ = self.parts.standing.send(Standing::Up);
            }
            SessionEvent::Down => {
                let _ = self.parts.standing.send(Standing::Down);
            }
            SessionEvent::GaveUp => {
                let (url, why) = (self.parts.server.url.clone(), self.why_no_session());
                self.fail(&Error::ServerSilent { url, why });
            }
            SessionEvent::Observed(observed) => self.handle_observed(observed, now),
            SessionEvent::Registered(share) => {
                self.registered = true;
                self.event(EndpointEvent::Registered(share));
            }
            SessionEvent::Displaced(share) => self.event(EndpointEvent::Displaced(share)),
            SessionEvent::Forwarded { offer, to_instance, relay, nat } => {
                for dialling in &mut self.dials {
                    dialling.dial.handle_forwarded(offer, to_instance, relay.clone(), nat.as_ref());
                }
            }
            SessionEvent::Undelivered { offer, reason } => {
                for dialling in &mut self.dials {
                    dialling.dial.handle_undelivered(offer, reason);
                }
            }
            SessionEvent::Answer { from, observed, answer } => {
                for dialling in &mut self.dials {
                    dialling.dial.handle_answer(from, observed, &answer);
                }
            }
            SessionEvent::Offer { from, observed, offer } => self.handle_offer(from, observed, &offer, now),
            SessionEvent::Trickle { from, observed, trickle } => {
                self.handle_trickle(from, observed, &trickle, now);
            }
        }
    }

    fn handle_offer(&mut self, from: RemoteKey, observed: Seen, offer: &Offer, now: Instant) {
        let claims =
            (self.remotes.len() < MAX_REMOTES || self.remotes.contains_key(&from)).then(|| self.claims());
        let server = self.parts.server.peer_id;
        let ours = self.ports.nat();
        let Some(shared) = self.shares.get_mut(&offer.share) else { return };
        match shared.doorman.handle_offer(server, from, offer, claims, ours, unix_secs()) {
            Decision::Replayed => {
                tracing::info!(peer = ?from.0, "an offer came a second time and is ignored")
            }
            Decision::Answer(answer) => {
                if let Verdict::Refused(refusal) = answer.verdict {
                    tracing::info!(peer = ?from.0, ?refusal, "an offer is refused");
                    self.event(EndpointEvent::OfferRefused { share: offer.share, peer: from.0 });
                }
                self.answer(from, answer);
            }
            Decision::Admit { answer, keys, exchange, secret, nat } => {
                self.answer(from, answer);
                let signals = Signals::new(exchange, secret, offer.nonce);
                let known = Known { ours, told: ours, theirs: nat };
                let is_at_home = self.relays.home_now().is_some();
                self.meet(from, Role::Sharer, keys, signals, &offer.claims, observed, known, None, now);
                self.told_relay(from, is_at_home);
                self.join_at_home(from, &offer.claims, now);
            }
        }
    }

    fn answer(&mut self, to: RemoteKey, answer: Answer) {
        self.session.signal(ToServer::Answer { to: to.0, to_instance: to.1, answer });
    }

    /// Both sides know each other: checks begin. A remote that we have already keeps its stable address, and
    /// its connection with it.
    #[allow(clippy::too_many_arguments, reason = "an exchange has that many parts")]
    fn meet(
        &mut self,
        key: RemoteKey,
        role: Role,
        keys: CheckKeys,
        signals: Signals,
        claims: &Claims,
        observed: Seen,
        known: Known,
        early: Option<SocketAddr>,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.lifetime_loses(key, now);
        let mut agent = PathAgent::new(PathConfig::default(), role, keys, random(&mut self.rng), now);
        if self.parts.paths != PathPolicy::Relay {
            agent.add_link(LinkId::MAIN, PathKind::Direct, now);
            for candidate in self.believed(claims, observed) {
                self.ways.rank_for(&*self.parts.net, &mut agent, candidate.addr);
                agent.add_candidate(candidate, now);
            }
            // What worked until now most likely still does.
            let former = self.remotes.get(&key).and_then(|remote| remote.agent.primary());
            if let Some((path, ..)) = former.filter(|(_, kind, _)| *kind == PathKind::Direct) {
                self.ways.rank_for(&*self.parts.net, &mut agent, path.remote);
                agent.recheck(path, now);
            }
        }
        self.end_punch(key);
        let punch = self.new_punch(&mut agent, observed, known, now);
        if let Some(remote) = self.remotes.get_mut(&key) {
            agent.succeed(&remote.agent);
            remote.agent = agent;
            remote.met_at = now;
            remote.punch = punch;
            remote.signals = signals;
            remote.observed = observed;
            // A connection that has ended is not the one that this exchange is for.
            if remote.connection.as_ref().is_some_and(|connection| connection.close_reason().is_some()) {
                remote.connection = None;
                remote.expires = Some(now + CONNECT);
            }
            return Some(remote.address);
        }
        let address = early.or_else(|| self.parts.socket.open_remote())?;
        let mut remote = Remote::new(role, address, agent, signals, observed, now + CONNECT, now);
        remote.punch = punch;
        self.remotes.insert(key, remote);
        Some(address)
    }

    /// What we say of ourselves: the port that our router maps to us, and the addresses of our interfaces as
    /// [`Interfaces::claims`](proto::interface::Interfaces::claims) chooses them. One place is left for what the server sees.
    pub(super) fn claims(&self) -> Claims {
        let Some(port) = self.main_port() else { return Claims::default() };
        let mapped = self.mapped_candidate();
        let ips = self.ways.interfaces().claims(MAX_CANDIDATES - 1 - usize::from(mapped.is_some()));
        let hosts = ips.into_iter().map(|ip| Candidate::new(CandidateKind::Host, SocketAddr::new(ip, port)));
        let candidates = mapped.into_iter().chain(hosts).collect();
        let candidates = if self.parts.paths == PathPolicy::Relay { Vec::new() } else { candidates };
        Claims { candidates, relay: self.relays.home_now().cloned() }
    }

    /// A connector that is at the relay where we wait can be reached there.
    fn join_at_home(&mut self, key: RemoteKey, claims: &Claims, now: Instant) {
        let Some(home) = self.relays.home().map(|home| home.peer_id) else { return };
        if claims.relay.as_ref().is_some_and(|relay| relay.peer_id == home) {
            self.join_at_relay(key, home, now);
        }
    }

    fn main_port(&self) -> Option<u16> {
        let link = self.parts.socket.link(LinkId::MAIN)?;
        link.local_addr().ok().map(|addr| addr.port())
    }

    fn handle_trickle(&mut self, from: RemoteKey, observed: Seen, trickle: &Trickle, now: Instant) {
        let Some(remote) = self.remotes.get_mut(&from) else { return };
        if !remote.signals.accepts(from, trickle) {
            tracing::debug!(peer = ?from.0, "a trickle proves nothing and is ignored");
            return;
        }
        let before = remote.observed;
        remote.observed = before.also(observed);
        if observed.has_moved_from(&before) {
            tracing::debug!(peer = ?from.0, "it has moved");
            remote.agent.handle_remote_change(now);
        }
        if let (Some(punch), Some((nat, round))) = (&mut remote.punch, remote.signals.told(from, trickle)) {
            tracing::debug!(peer = ?from.0, ?nat, round, "its NAT");
            punch.handle_told(nat, round, now);
        }
        let is_direct = self.parts.paths != PathPolicy::Relay;
        let candidates = if is_direct { self.believed(&trickle.claims, observed) } else { Vec::new() };
        let Some(remote) = self.remotes.get_mut(&from) else { return };
        let role = remote.role;
        for candidate in candidates {
            self.ways.rank_for(&*self.parts.net, &mut remote.agent, candidate.addr);
            remote.agent.add_candidate(candidate, now);
        }
        match role {
            Role::Sharer => self.join_at_home(from, &trickle.claims, now),
            Role::Connector => self.join_where_it_is(from, &trickle.claims, now),
        }
    }

    /// Sends further candidates to a remote, within its exchange.
    pub(super) fn trickle(&mut self, key: RemoteKey, candidates: Vec<Candidate>) {
        self.trickle_claims(key, Claims { candidates, relay: None });
    }

    /// Sends further claims to a remote, within its exchange.
    pub(super) fn trickle_claims(&mut self, key: RemoteKey, claims: Claims) {
        let me = (self.parts.me, self.parts.instance);
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        let trickle = remote.signals.trickle(me, claims);
        self.session.signal(ToServer::Trickle { to: key.0, to_instance: key.1, trickle });
    }

    /// Moves dials on. Returns whether there was nothing to do.
    pub(super) fn drain_dials(&mut self, now: Instant) -> bool {
        let mut idle = true;
        if self.link.frames.is_some() {
            let (due, waiting) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|pending: &PendingDial| pending.not_before.is_none_or(|at| at <= now));
            self.pending = waiting;
            for pending in due {
                idle = false;
                self.start_dial(pending, now);
            }
        }
        for number in self.dials.iter().map(|dialling| dialling.number).collect::<Vec<_>>() {
            idle &= self.drain_dial(number, now);
        }
        idle
    }

    /// Moves one dial on. What one does may end another.
    fn drain_dial(&mut self, number: u64, now: Instant) -> bool {
        let mut idle = true;
        while let Some(index) = self.dials.iter().position(|dialling| dialling.number == number) {
            let dialling = &mut self.dials[index];
            if let Some(offer) = dialling.dial.poll_transmit() {
                let to = dialling.ticket.sharer;
                self.session.signal(ToServer::Offer { to, offer });
            } else if let Some(event) = dialling.dial.poll_event() {
                if self.handle_dial_event(index, event, now) {
                    self.end_dial(number, now);
                }
            } else {
                break;
            }
            idle = false;
        }
        idle
    }

    /// A dial is over. What it began with and no remote has taken over goes with it.
    fn end_dial(&mut self, number: u64, now: Instant) {
        let Some(index) = self.dials.iter().position(|dialling| dialling.number == number) else { return };
        if let Some(early) = self.dials.remove(index).early {
            self.end_early(early, now);
        }
    }

    fn end_early(&mut self, early: Early, now: Instant) {
        if let Some(connection) = &early.connection {
            connection.close(close::DONE.into(), b"done");
        }
        self.part(Farewell::new(early.address, Some(early.path), Vec::new(), now));
    }

    fn start_dial(&mut self, pending: PendingDial, now: Instant) {
        let PendingDial { ticket, reply, repunch, not_before: _, backoff } = pending;
        let me = (self.parts.me, self.parts.instance);
        let relay = self.relay_of(&ticket);
        let claims = Claims { relay, ..self.claims() };
        let dial = Dial::new(ticket.clone(), me, claims, self.ports.nat(), random(&mut self.rng), now);
        let met = watch::Sender::new(None);
        self.dialled += 1;
        self.dials.push(Dialling {
            number: self.dialled,
            dial,
            repunch,
            ticket,
            reply,
            met,
            early: None,
            is_beside: false,
            reaching: None,
            backoff,
        });
    }

    /// The relay at which we meet a ticket's sharer, as far as we know before its answer. We are there from
    /// now on, unless it is known that we can't be.
    pub(super) fn relay_of(&mut self, ticket: &Ticket) -> Option<RelayHint> {
        let hint = ticket.relay.clone().or_else(|| self.relays.home().cloned())?;
        let hint = self.resolved(&hint);
        (self.open_relay(&hint) && !self.relays.is_away(hint.peer_id)).then_some(hint)
    }

    /// The offer is on its way to this process of the sharer: the connection begins, where there is a relay to
    /// take its packets.
    fn begin_early(&mut self, index: usize, instance: Instance) {
        let dialling = &self.dials[index];
        let key = (dialling.ticket.sharer, instance);
        if dialling.repunch.is_some() || dialling.reply.is_none() || self.remotes.contains_key(&key) {
            return;
        }
        let Some(relay) = dialling.dial.claims().relay.as_ref().map(|relay| relay.peer_id) else { return };
        let Some((path, is_up)) = self.relay_path(relay, key) else { return };
        let Some(address) = self.parts.socket.open_remote() else { return };
        self.parts.socket.accept_from(address, path);
        if is_up {
            self.parts.socket.set_route(address, Route { primary: Some(path), also: None });
        }
        let dialling = &mut self.dials[index];
        dialling.early = Some(Early { key, address, path, connection: None });
        dialling.introduce(address);
    }

    /// A connection that has begun and is met by no remote yet.
    pub(super) fn early(&mut self, address: SocketAddr) -> Option<&mut Early> {
        self.dials
            .iter_mut()
            .filter_map(|dialling| dialling.early.as_mut())
            .find(|early| early.address == address)
    }

    /// Whoever wanted this connection does not any more.
    pub(super) fn forget_early(&mut self, address: SocketAddr, now: Instant) {
        let is_its =
            |dialling: &Dialling| dialling.early.as_ref().is_some_and(|early| early.address == address);
        let Some(number) =
            self.dials.iter().find(|dialling| is_its(dialling)).map(|dialling| dialling.number)
        else {
            return;
        };
        self.end_dial(number, now);
    }

    /// Whether a sharer seems to be on this machine: the server sees both at one address, and the sharer has an address of
    /// ours; or the server is on the sharer's machine, and on ours.
    fn is_beside(&self, claims: &Claims, observed: Seen) -> bool {
        let here = self.servers.observed();
        let is_same_home = observed.shares_ip_with(&here) || observed.is_empty() && here.is_empty();
        let ours = self.parts.net.addresses().unwrap_or_default();
        let is_ours = |ip: IpAddr| ip.is_loopback() || ours.contains(&ip);
        let has_ours = || claims.candidates.iter().any(|candidate| is_ours(candidate.addr.ip()));
        let has_server = observed.iter().any(|addr| addr.ip().is_loopback());
        let have_server = || self.servers.session().is_some_and(|addr| is_ours(addr.ip()));
        if has_server { is_same_home || have_server() } else { is_same_home && has_ours() }
    }

    /// Returns whether the dial is over.
    fn handle_dial_event(&mut self, index: usize, event: DialEvent, now: Instant) -> bool {
        match event {
            DialEvent::Forwarded { instance, relay: _, is_hopeless } => {
                if is_hopeless {
                    let peer = self.dials[index].ticket.sharer;
                    tracing::info!(
                        ?peer,
                        "no direct path is to be expected: neither NAT's ports can be known"
                    );
                }
                self.begin_early(index, instance);
                false
            }
            DialEvent::Accepted { instance, keys, claims, observed, offer, nat } => {
                let exchange = *self.dials[index].dial.exchange();
                let told = self.dials[index].dial.nat();
                let known = Known { ours: self.ports.nat(), told, theirs: nat };
                let sharer = (exchange.sharer, instance);
                if let Some(old) = self.dials[index].repunch.filter(|old| *old != sharer) {
                    // The sharer is another process now: the connection's other end is gone.
                    self.dials[index].repunch = None;
                    self.dials[index].reply = None;
                    self.forget(old, (close::DONE, "the peer was started again"), now);
                    return true;
                }
                let secret = self.dials[index].ticket.secret.clone();
                let signals = Signals::new(exchange, secret, offer);
                self.dials[index].is_beside = self.is_beside(&claims, observed);
                let early = match self.dials[index].early.take() {
                    Some(early) if early.key != sharer => {
                        self.end_early(early, now);
                        None
                    }
                    early => early,
                };
                let address = early.as_ref().map(|early| early.address);
                let address =
                    self.meet(sharer, Role::Connector, keys, signals, &claims, observed, known, address, now);
                if address.is_none() {
                    self.dials[index].early = early;
                    self.refuse_dial(index, Error::Local("too many peers at once".into()));
                    return true;
                }
                self.tickets.insert(sharer, self.dials[index].ticket.clone());
                self.dials[index].reaching = Some(sharer);
                self.dials[index].meet();
                // Of another relay than the sharer's it was told in vain.
                let relay = |claims: &Claims| claims.relay.as_ref().map(|relay| relay.peer_id);
                let told = relay(self.dials[index].dial.claims());
                let is_told = told.is_some() && told == relay(&claims);
                self.told_relay(sharer, is_told);
                self.meet_at_relay(sharer, early, &claims, now);
                let has_relay = self.remotes.get(&sharer).is_some_and(|remote| remote.relayed.is_some());
                // One that was there before may come back to its relay.
                let is_new = self.dials[index].repunch.is_none();
                if self.parts.paths == PathPolicy::Relay && !has_relay && is_new {
                    self.dials[index].reaching = None;
                    self.refuse_dial(index, Error::NoRelay("neither the ticket nor the peer names one"));
                    self.forget(sharer, (close::DONE, "no path"), now);
                    return true;
                }
                self.dials[index].repunch.is_some()
            }
            DialEvent::Failed(failure) => {
                let repunch = self.dials[index].repunch;
                if repunch.is_some() && failure != DialFailure::Refused(Refusal::Revoked) {
                    self.retry_later(index, now);
                } else {
                    self.refuse_dial(index, Error::Dial(failure));
                }
                true
            }
        }
    }

    fn retry_later(&mut self, index: usize, now: Instant) {
        let Dialling { ticket, repunch, backoff, .. } = &mut self.dials[index];
        let wait = backoff.next_delay(&mut self.rng);
        let mut pending = PendingDial::new(ticket.clone(), None, *repunch, now + wait);
        pending.backoff = backoff.clone();
        self.pending.push(pending);
    }

    fn refuse_dial(&mut self, index: usize, error: Error) {
        match self.dials[index].reply.take() {
            Some(reply) => drop(reply.send(Err(error))),
            None => drop(self.dials[index].met.send_replace(Some(Err(error)))),
        }
    }

    /// The sharer has said at which relay it waits: the path that was begun with goes on, or gives way.
    fn meet_at_relay(&mut self, key: RemoteKey, early: Option<Early>, claims: &Claims, now: Instant) {
        let hint = claims.relay.as_ref().map(|hint| self.resolved(hint));
        if let Some(remote) = self.remotes.get_mut(&key)
            && let Some(early) = early
        {
            remote.relayed = Some(early.path);
            if early.connection.is_some() {
                (remote.connection, remote.expires) = (early.connection, None);
            }
        }
        match hint.filter(|hint| self.open_relay(hint)) {
            Some(_) => self.join_where_it_is(key, claims, now),
            None => {
                let Some(remote) = self.remotes.get_mut(&key) else { return };
                let address = remote.address;
                if let Some(path) = remote.relayed.take() {
                    self.leave_relay(path);
                    self.parts.socket.set_route(address, Route::default());
                }
            }
        }
    }

    /// A remote has its first path: whoever dialled it can open the connection.
    pub(super) fn reached(&mut self, key: RemoteKey) {
        let Some(index) = self.dials.iter().position(|dialling| dialling.reaching == Some(key)) else {
            return;
        };
        let mut dialling = self.dials.remove(index);
        if let Some(remote) = self.remotes.get(&key) {
            dialling.introduce(remote.address);
        }
    }

    /// A remote that was dialled is given up: there is no path to it.
    pub(super) fn unreachable(&mut self, key: RemoteKey) {
        let Some(index) = self.dials.iter().position(|dialling| dialling.reaching == Some(key)) else {
            return;
        };
        let error = match self.parts.paths {
            PathPolicy::Auto => match self.relays.trouble() {
                Some((url, why)) => Error::RelayAway { url: url.to_owned(), why: why.to_owned() },
                None => Error::NoPath,
            },
            PathPolicy::Direct => Error::NoDirectPath,
            PathPolicy::Relay => Error::NoRelay("the one that both know of cannot be reached"),
        };
        self.refuse_dial(index, error);
        self.dials.remove(index);
    }

    /// A connector's paths are all lost, or may be: it asks again, which also makes the sharer punch from its
    /// side. If it waits to do so already, it waits no longer than until `at`.
    pub(super) fn repunch(&mut self, key: RemoteKey, at: Instant) {
        let under_way = self.dials.iter().any(|dialling| dialling.repunch == Some(key));
        if let Some(waiting) = self.pending.iter_mut().find(|pending| pending.repunch == Some(key)) {
            waiting.not_before = Some(waiting.not_before.map_or(at, |before| before.min(at)));
            return;
        }
        let Some(ticket) = self.tickets.get(&key).filter(|_| !under_way) else { return };
        self.pending.push(PendingDial::new(ticket.clone(), None, Some(key), at));
    }

    /// A connector has no path any more. A sharer that is not at the relay where it said it would be is not asked
    /// again before the search for a direct path, which each asking starts anew, has had its time.
    pub(super) fn repunch_lost(&mut self, key: RemoteKey, was_relayed: bool, now: Instant) {
        let Some(remote) = self.remotes.get(&key) else { return };
        let rest = if self.parts.paths == PathPolicy::Relay { AGAIN } else { SEARCH };
        let at = if was_relayed { now.max(remote.met_at + rest) } else { now };
        self.repunch(key, at);
    }

    /// A connection proves itself, or does not.
    pub(super) fn handle_knock(&mut self, knock: Knock) {
        let Knock { address, peer, hello, exporter, connection, reply } = knock;
        let server = self.parts.server.peer_id;
        let key = (peer, hello.instance);
        // The stable address belongs to the remote whose exchange opened the path: it has to be the same.
        let expected = self.remotes.get(&key).is_some_and(|remote| remote.address == address);
        let decision = match self.shares.get(&hello.share) {
            Some(shared) if expected => {
                shared.doorman.check_hello(server, peer, &hello, &exporter, unix_secs()).map(|()| Access {
                    name: shared.name.clone(),
                    targets: shared.targets.clone(),
                    visits: shared.visits.clone(),
                })
            }
            Some(_) | None => Err(Refusal::WrongTicket),
        };
        if decision.is_ok()
            && let Some(remote) = self.remotes.get_mut(&key)
        {
            remote.connection = Some(connection);
            remote.expires = None;
        }
        let _ = reply.send(decision);
    }
}
