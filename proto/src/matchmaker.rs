//! **Matchmaker**: the server's side of every session.
//!
//! It knows who is here, under which address, sharing what; it carries offers to the newest registration of
//! a share, answers back to where the offer came from while the exchange is young, and trickles between the
//! two for as long as both are here: either may move. It forwards nothing else, so a session can't be used to
//! talk to strangers.

mod early;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::candidate::canonical;
use crate::id::{Instance, PeerId, ShareId};
use crate::limit::{Prefix, PrefixParts, Rate};
use crate::machine::{Bucket, earliest};
use crate::seen::Seen;
use crate::sighting::{Notary, Proof};
use crate::wire::VERSION;
use crate::wire::session::{FromServer, ToServer, Undeliverable, close};
use crate::wire::signal::{Nonce, Offer, RelayHint, SealedNat, Verdict};
use early::EarlyOffers;

/// Names a session among those of this server, never reused.
pub type SessionKey = u64;

/// What the matchmaker allows.
#[derive(Debug, Clone)]
pub struct MatchmakerConfig {
    /// Sessions in all: about 35 kB of QUIC state each.
    pub max_sessions: usize,
    /// Sessions of one prefix; those of this very machine, and those through a relay, count for none.
    pub max_sessions_each: usize,
    /// Shares of one session.
    pub max_shares: usize,
    /// Exchanges that one session has under way, as connector or as sharer.
    pub max_exchanges: usize,
    /// Offers of one session.
    pub offers_from: Rate,
    /// Offers to one session, whoever they are from.
    pub offers_to: Rate,
    /// Any messages of one session; more close it.
    pub messages: Rate,
    /// How long an exchange may be answered.
    pub exchange: Duration,
    /// How long a session may say nothing: a few of its pings.
    pub silence: Duration,
    /// How long the hello may take.
    pub hello: Duration,
    /// How long after its first session a server waits for sharers who may be on their way back to it: as long as they
    /// take after a short absence.
    pub returning: Duration,
    /// Who may register shares. Who only connects to one needs its ticket and nothing else.
    pub admission: Admission,
    /// Sent with each welcome.
    pub udp_alternate: Vec<SocketAddr>,
    /// Sent with each welcome.
    pub relays: Vec<RelayHint>,
    /// What knows the words of the server's sockets again; without it no sighting is believed.
    pub notary: Option<Notary>,
}

impl Default for MatchmakerConfig {
    fn default() -> Self {
        Self {
            max_sessions: 50_000,
            max_sessions_each: 50_000 / 8,
            max_shares: 64,
            max_exchanges: 256,
            offers_from: Rate { burst: 50, refill: Duration::from_millis(200) },
            offers_to: Rate { burst: 200, refill: Duration::from_millis(20) },
            messages: Rate { burst: 1000, refill: Duration::from_millis(5) },
            exchange: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            hello: Duration::from_secs(5),
            returning: Duration::from_secs(5),
            admission: Admission::default(),
            udp_alternate: Vec::new(),
            relays: Vec::new(),
            notary: None,
        }
    }
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub enum MatchmakerAction {
    /// Send this on that session.
    Send(SessionKey, FromServer),
    /// Close that session with this code of [`close`].
    Close(SessionKey, u32),
}

/// Counts since the start, and of what is here now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MatchmakerStats {
    /// Sessions now.
    pub sessions: usize,
    /// Shares registered now.
    pub shares: usize,
    /// Offers forwarded.
    pub offers_forwarded: u64,
    /// Offers for nobody.
    pub offers_offline: u64,
    /// Offers over a limit.
    pub offers_limited: u64,
    /// Answers and trickles forwarded.
    pub signals_forwarded: u64,
    /// Answers and trickles that belong to no exchange.
    pub signals_stray: u64,
    /// Sessions closed for what they sent, or did not.
    pub sessions_closed: u64,
}

#[derive(Debug)]
struct Session {
    peer: PeerId,
    instance: Option<Instance>,
    admitted: bool,
    observed: SocketAddr,
    /// Where it was seen beside its session: in the family that this does not use, or in both where it uses none.
    also: Seen,
    /// Whose part of all sessions it takes.
    prefix: Option<Prefix>,
    /// With what is said of the NAT to who holds the ticket.
    shares: BTreeMap<ShareId, Option<SealedNat>>,
    exchanges: VecDeque<Nonce>,
    offers_from: Bucket,
    offers_to: Bucket,
    messages: Bucket,
    silent_at: Instant,
    /// Under which time it stands in [`Matchmaker::silences`].
    listed_at: Instant,
}

impl Session {
    /// Where it is seen.
    fn seen(&self) -> Seen {
        self.also.and(self.observed)
    }
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    connector: SessionKey,
    sharer: SessionKey,
    ends: Instant,
}

/// The machine.
#[derive(Debug)]
pub struct Matchmaker {
    config: MatchmakerConfig,
    sessions: BTreeMap<SessionKey, Session>,
    parts: PrefixParts,
    instances: BTreeMap<(PeerId, Instance), SessionKey>,
    /// Who shares what, the newest registration last.
    shares: BTreeMap<(PeerId, ShareId), Vec<SessionKey>>,
    exchanges: BTreeMap<Nonce, Exchange>,
    /// When each session falls silent, at the earliest: refreshed lazily, one entry a session.
    silences: BTreeSet<(Instant, SessionKey)>,
    early: EarlyOffers,
    actions: VecDeque<MatchmakerAction>,
    stats: MatchmakerStats,
}

impl Matchmaker {
    /// An empty one.
    pub fn new(config: MatchmakerConfig) -> Self {
        let parts = PrefixParts::new(config.max_sessions_each);
        let early = EarlyOffers::new(config.returning);
        Self {
            config,
            sessions: BTreeMap::new(),
            parts,
            instances: BTreeMap::new(),
            shares: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            silences: BTreeSet::new(),
            early,
            actions: VecDeque::new(),
            stats: MatchmakerStats::default(),
        }
    }

    /// A peer, proven by TLS, has a connection; `observed` is its address.
    pub fn handle_connected(&mut self, key: SessionKey, peer: PeerId, observed: SocketAddr, now: Instant) {
        self.early.begin(now);
        let ip = observed.ip().to_canonical();
        let prefix = (!ip.is_loopback() && !ip.is_unspecified()).then(|| Prefix::of(ip));
        if self.sessions.len() >= self.config.max_sessions || prefix.is_some_and(|it| !self.parts.take(it)) {
            self.actions.push_back(MatchmakerAction::Close(key, close::FULL));
            self.stats.sessions_closed += 1;
            return;
        }
        let MatchmakerConfig { offers_from, offers_to, messages, hello, .. } = self.config;
        let silent_at = now + hello;
        self.silences.insert((silent_at, key));
        self.sessions.insert(
            key,
            Session {
                peer,
                instance: None,
                admitted: false,
                observed: canonical(observed),
                also: Seen::NOWHERE,
                prefix,
                shares: BTreeMap::new(),
                exchanges: VecDeque::new(),
                offers_from: Bucket::full(offers_from.burst, offers_from.refill, now),
                offers_to: Bucket::full(offers_to.burst, offers_to.refill, now),
                messages: Bucket::full(messages.burst, messages.refill, now),
                silent_at,
                listed_at: silent_at,
            },
        );
    }

    /// The session's packets come from another address now.
    pub fn handle_rebound(&mut self, key: SessionKey, observed: SocketAddr) {
        let observed = canonical(observed);
        if let Some(session) = self.sessions.get_mut(&key)
            && session.observed != observed
        {
            session.observed = observed;
            // One of the same family is not known any more: the session's own is.
            session.also = session.also.only(|also| Seen::at(observed).like(also).is_none());
            self.send(key, FromServer::Observed(observed));
        }
    }

    /// The session's connection is gone.
    pub fn handle_disconnected(&mut self, key: SessionKey) {
        self.remove(key);
    }

    /// The session sent something that is no message.
    pub fn handle_malformed(&mut self, key: SessionKey) {
        self.cut(key, close::PROTOCOL);
    }

    /// The session sent a message.
    pub fn handle_message(&mut self, key: SessionKey, message: ToServer, now: Instant) {
        let silence = self.config.silence;
        let Rate { burst, refill } = self.config.messages;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.messages.take(burst, refill, now) {
            return self.cut(key, close::PROTOCOL);
        }
        let greeted = session.instance.is_some();
        if greeted {
            session.silent_at = now + silence;
        }
        match message {
            ToServer::Hello { version, instance, token } if !greeted && version == VERSION => {
                session.admitted = self.config.admission.admits(&session.peer, token.as_deref());
                self.handle_hello(key, instance, now);
            }
            ToServer::Register { .. } if greeted && !session.admitted => self.cut(key, close::NOT_ADMITTED),
            ToServer::Register { share, nat } if greeted => self.register(key, share, nat, now),
            ToServer::Unregister { share } if greeted => self.unregister(key, share),
            ToServer::Offer { to, offer } if greeted => self.handle_offer(key, to, offer, now),
            ToServer::Answer { to: _, to_instance: _, answer } if greeted => {
                let Some(connector) = self.connector_of(key, answer.offer, now) else { return };
                let (from, from_instance, observed) = self.identity(key);
                // Who is not let in does not learn where the sharer is.
                let accepted = matches!(answer.verdict, Verdict::Accepted { .. });
                let observed = accepted.then_some(observed);
                if accepted {
                    self.tell_also_seen(connector, key);
                }
                self.send(connector, FromServer::Answer { from, from_instance, observed, answer });
            }
            ToServer::Trickle { to: _, to_instance: _, trickle } if greeted => {
                let Some(other) = self.other_side(key, trickle.offer) else { return };
                let (from, from_instance, observed) = self.identity(key);
                self.tell_also_seen(other, key);
                self.send(other, FromServer::Trickle { from, from_instance, observed, trickle });
            }
            ToServer::Ping(n) if greeted => self.send(key, FromServer::Pong(n)),
            ToServer::Sighting { addr, proof } if greeted => {
                self.handle_sighting(key, addr, &Proof(proof), now)
            }
            ToServer::Hello { .. }
            | ToServer::Register { .. }
            | ToServer::Unregister { .. }
            | ToServer::Offer { .. }
            | ToServer::Answer { .. }
            | ToServer::Trickle { .. }
            | ToServer::Ping(_)
            | ToServer::Sighting { .. } => self.cut(key, close::PROTOCOL),
        }
    }

    /// These are the relays from now on, best first; who is here already keeps what it was told.
    pub fn set_relays(&mut self, relays: Vec<RelayHint>) {
        self.config.relays = relays;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (from, to, offer) in self.early.that_waited_in_vain(now) {
            self.handle_offer(from, to, offer, now);
        }
        while let Some(&(at, key)) = self.silences.first() {
            if at > now {
                break;
            }
            self.silences.pop_first();
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            if session.silent_at <= now {
                self.cut(key, close::SILENT);
            } else {
                session.listed_at = session.silent_at;
                self.silences.insert((session.listed_at, key));
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.silences.first().map(|(at, _)| *at), self.early.poll_timeout())
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<MatchmakerAction> {
        self.actions.pop_front()
    }

    /// The counts.
    pub fn stats(&self) -> MatchmakerStats {
        MatchmakerStats { sessions: self.sessions.len(), shares: self.shares.len(), ..self.stats }
    }

    fn handle_hello(&mut self, key: SessionKey, instance: Instance, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.instance = Some(instance);
        session.silent_at = now + self.config.silence;
        let (peer, observed) = (session.peer, session.observed);
        // Only the same instance displaces itself.
        if let Some(older) = self.instances.insert((peer, instance), key)
            && older != key
        {
            self.actions.push_back(MatchmakerAction::Close(older, close::REPLACED));
            self.remove(older);
            self.instances.insert((peer, instance), key);
        }
        let MatchmakerConfig { udp_alternate, relays, .. } = &self.config;
        let welcome = FromServer::Welcome {
            version: VERSION,
            observed,
            udp_alternate: udp_alternate.clone(),
            relays: relays.clone(),
        };
        self.send(key, welcome);
    }

    /// The session was seen at another address than its own. What proves nothing, or is too old, is no fault: it may
    /// have waited on the way.
    fn handle_sighting(&mut self, key: SessionKey, addr: SocketAddr, proof: &Proof, now: Instant) {
        let addr = canonical(addr);
        let is_proven = self.config.notary.as_ref().is_some_and(|notary| notary.proves(addr, proof, now));
        let Some(session) = self.sessions.get_mut(&key).filter(|_| is_proven) else { return };
        let is_other = session.observed.ip().is_unspecified() || session.observed.is_ipv4() != addr.is_ipv4();
        if is_other {
            session.also = session.also.and(addr);
        }
    }

    /// What is about to be forwarded to `to` comes from a session that is seen elsewhere too.
    fn tell_also_seen(&mut self, to: SessionKey, about: SessionKey) {
        let (from, from_instance, _) = self.identity(about);
        let also = self.sessions.get(&about).map(|session| session.also).unwrap_or_default();
        for observed in also.iter() {
            self.send(to, FromServer::AlsoSeen { from, from_instance, observed });
        }
    }

    /// Carries an offer to the newest registration of its share. At a server that has just started a sharer may be on its
    /// way back: until then the offer waits for it.
    fn handle_offer(&mut self, key: SessionKey, to: PeerId, offer: Offer, now: Instant) {
        let nonce = offer.nonce;
        match self.open_exchange(key, to, offer.share, nonce, now) {
            Ok((sharer, to_instance)) => {
                let (from, from_instance, observed) = self.identity(key);
                self.stats.offers_forwarded += 1;
                let relay = self.config.relays.first().cloned();
                let nat = self.nat_told(key, sharer, &offer);
                self.send(key, FromServer::Forwarded { offer: nonce, to_instance, relay, nat });
                self.tell_also_seen(sharer, key);
                self.send(sharer, FromServer::Offer { from, from_instance, observed, offer });
            }
            Err(Undeliverable::Offline) if self.early.takes(key, to, &offer, now) => {}
            Err(reason) => {
                match reason {
                    Undeliverable::Offline => self.stats.offers_offline += 1,
                    Undeliverable::Busy => self.stats.offers_limited += 1,
                }
                self.send(key, FromServer::Undelivered { offer: nonce, reason });
            }
        }
    }

    fn register(&mut self, key: SessionKey, share: ShareId, nat: Option<SealedNat>, now: Instant) {
        let max_shares = self.config.max_shares;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if let Some(told) = session.shares.get_mut(&share) {
            // Whoever has registered later goes on to have the offers.
            *told = nat;
            return;
        }
        if session.shares.len() >= max_shares {
            return self.cut(key, close::PROTOCOL);
        }
        session.shares.insert(share, nat);
        let peer = session.peer;
        let line = self.shares.entry((peer, share)).or_default();
        let displaced = line.last().copied().filter(|last| *last != key);
        line.retain(|other| *other != key);
        line.push(key);
        self.send(key, FromServer::Registered { share });
        if let Some(older) = displaced {
            self.send(older, FromServer::Displaced { share });
        }
        for (from, to, offer) in self.early.for_share(peer, share) {
            self.handle_offer(from, to, offer, now);
        }
    }

    fn unregister(&mut self, key: SessionKey, share: ShareId) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let peer = session.peer;
        if session.shares.remove(&share).is_some() {
            self.leave_line(key, peer, share);
        }
    }

    /// Takes a session out of a share's line; the one before it has the offers again.
    fn leave_line(&mut self, key: SessionKey, peer: PeerId, share: ShareId) {
        let Some(line) = self.shares.get_mut(&(peer, share)) else { return };
        let was_newest = line.last() == Some(&key);
        line.retain(|other| *other != key);
        let heir = line.last().copied();
        if line.is_empty() {
            self.shares.remove(&(peer, share));
        }
        if let (true, Some(heir)) = (was_newest, heir) {
            self.send(heir, FromServer::Registered { share });
        }
    }

    fn open_exchange(
        &mut self,
        key: SessionKey,
        to: PeerId,
        share: ShareId,
        nonce: Nonce,
        now: Instant,
    ) -> Result<(SessionKey, Instance), Undeliverable> {
        let MatchmakerConfig { offers_from, offers_to, max_exchanges, exchange, .. } = self.config;
        let session = self.sessions.get_mut(&key).ok_or(Undeliverable::Offline)?;
        if !session.offers_from.take(offers_from.burst, offers_from.refill, now) {
            return Err(Undeliverable::Busy);
        }
        let line = self.shares.get(&(to, share)).ok_or(Undeliverable::Offline)?;
        let sharer = *line.last().ok_or(Undeliverable::Offline)?;
        let sharer_session = self.sessions.get_mut(&sharer).ok_or(Undeliverable::Offline)?;
        if !sharer_session.offers_to.take(offers_to.burst, offers_to.refill, now)
            || self.exchanges.contains_key(&nonce)
        {
            return Err(Undeliverable::Busy);
        }
        let instance = sharer_session.instance.ok_or(Undeliverable::Offline)?;
        self.exchanges.insert(nonce, Exchange { connector: key, sharer, ends: now + exchange });
        self.note_exchange(key, nonce, max_exchanges);
        if sharer != key {
            self.note_exchange(sharer, nonce, max_exchanges);
        }
        Ok((sharer, instance))
    }

    /// What a sharer says of its NAT to who made this offer. Behind one address with it there may be one NAT for both,
    /// through which no port has to be found: of that the sharer knows nothing yet.
    fn nat_told(&self, connector: SessionKey, sharer: SessionKey, offer: &Offer) -> Option<SealedNat> {
        let (connector, sharer) = (self.sessions.get(&connector)?, self.sessions.get(&sharer)?);
        let told = sharer.shares.get(&offer.share)?.as_ref()?;
        let is_one_home = connector.seen().shares_ip_with(&sharer.seen());
        let is_for_them = told.ticket == offer.ticket && !is_one_home;
        is_for_them.then(|| told.clone())
    }

    /// Remembers an exchange with a session; the oldest of too many is forgotten, as are those that ended.
    fn note_exchange(&mut self, key: SessionKey, nonce: Nonce, max: usize) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.exchanges.push_back(nonce);
        while session.exchanges.len() > max {
            if let Some(oldest) = session.exchanges.pop_front() {
                self.exchanges.remove(&oldest);
            }
        }
    }

    /// Whose offer this session, as its sharer, may answer still.
    fn connector_of(&mut self, key: SessionKey, nonce: Nonce, now: Instant) -> Option<SessionKey> {
        let exchange = self.exchanges.get(&nonce).filter(|it| it.sharer == key && it.ends > now);
        let connector = exchange.map(|exchange| exchange.connector);
        self.count_signal(connector)
    }

    /// The far side of an exchange of this session's.
    fn other_side(&mut self, key: SessionKey, nonce: Nonce) -> Option<SessionKey> {
        let other = self.exchanges.get(&nonce).and_then(|exchange| match key {
            _ if exchange.sharer == key => Some(exchange.connector),
            _ if exchange.connector == key => Some(exchange.sharer),
            _ => None,
        });
        self.count_signal(other)
    }

    const fn count_signal(&mut self, to: Option<SessionKey>) -> Option<SessionKey> {
        match to {
            Some(_) => self.stats.signals_forwarded += 1,
            None => self.stats.signals_stray += 1,
        }
        to
    }

    /// Who a greeted session is.
    fn identity(&self, key: SessionKey) -> (PeerId, Instance, SocketAddr) {
        let session = self.sessions.get(&key).expect("asked of a live session only");
        (session.peer, session.instance.unwrap_or(Instance::SERVICE), session.observed)
    }

    fn cut(&mut self, key: SessionKey, code: u32) {
        if !self.sessions.contains_key(&key) {
            return;
        }
        self.stats.sessions_closed += 1;
        self.actions.push_back(MatchmakerAction::Close(key, code));
        self.remove(key);
    }

    fn remove(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        self.early.forget(key);
        self.silences.remove(&(session.listed_at, key));
        if let Some(prefix) = session.prefix {
            self.parts.give_back(prefix);
        }
        if let Some(instance) = session.instance
            && self.instances.get(&(session.peer, instance)) == Some(&key)
        {
            self.instances.remove(&(session.peer, instance));
        }
        for share in session.shares.into_keys() {
            self.leave_line(key, session.peer, share);
        }
        for nonce in session.exchanges {
            self.exchanges.remove(&nonce);
        }
    }

    fn send(&mut self, key: SessionKey, message: FromServer) {
        self.actions.push_back(MatchmakerAction::Send(key, message));
    }
}

#[cfg(test)]
mod tests;
