//! The machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::SessionKey;
use super::login::Proven;
use super::outbox::{Lane, Outgoing};
use super::quota::{Quota, RouterLimits};
use super::session::{Due, Session};
use super::stats::{DropReason, RouterStats};
use crate::id::{Instance, PeerId};
use crate::limit::Rate;
use crate::wire::relay::{Address, BadFrame, Data, Denial, Frame, MAX_ALLOW, MAX_FIRST};

/// How often a sender is told that nobody is there.
pub(super) const GONE: Rate = Rate { burst: 8, refill: Duration::from_millis(500) };

/// How long a way stays open after the receiver sent by it.
const WAY: Duration = Duration::from_secs(MAX_ALLOW as u64);

/// What the shell must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterAction {
    /// This connection's writer, which found nothing at its last [`Router::take`], finds something now.
    Ready(SessionKey),
    /// End this connection; where it takes another frame, with this for a last word.
    Close(SessionKey, Denial),
}

/// The machine. See the module's page.
#[derive(Debug)]
pub struct Router {
    relay: PeerId,
    limits: RouterLimits,
    quota: Quota,
    sessions: BTreeMap<SessionKey, Session>,
    addresses: BTreeMap<Address, SessionKey>,
    timers: BTreeSet<(Instant, SessionKey)>,
    actions: VecDeque<RouterAction>,
    restarting: bool,
    stats: RouterStats,
}

impl Router {
    /// A relay of this identity, without peers.
    pub fn new(relay: PeerId, limits: RouterLimits, now: Instant) -> Self {
        Self {
            relay,
            quota: Quota::new(&limits, now),
            limits,
            sessions: BTreeMap::new(),
            addresses: BTreeMap::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            restarting: false,
            stats: RouterStats::default(),
        }
    }

    /// Somebody wants to connect from `source`; none, where that is a proxy's address and says nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn handle_connected(
        &mut self,
        key: SessionKey,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Denial> {
        let entered = if self.restarting {
            Err(Denial::Restarting)
        } else {
            self.quota.enter(source, &self.limits, now)
        };
        entered.inspect_err(|why| self.stats.add_denied(*why))?;
        self.sessions.insert(key, Session::new(source, &self.limits, now));
        self.set_timer(key);
        Ok(())
    }

    /// Makes this key the address of the server's own services: everybody may send to it.
    pub fn open_service(&mut self, key: SessionKey, now: Instant) {
        let address = self.service();
        let service = Session { service: true, ..Session::new(None, &self.limits, now) };
        self.sessions.insert(key, service);
        self.log_in(key, Proven::own(address), now);
    }

    /// A connection that has yet to log in sent a packet for the server's own services with its request. It goes there and
    /// nowhere else, once, and nobody but the services can answer: under an address that is this connection's alone, and
    /// stays what it is to them, so that the login is no move to another place.
    pub fn handle_first(&mut self, key: SessionKey, packet: &[u8], now: Instant) {
        let service = self.service();
        let Ok(segment) = u16::try_from(packet.len()) else { return };
        if segment == 0 || packet.len() > MAX_FIRST || !self.addresses.contains_key(&service) {
            return;
        }
        let guest = self.guest(key);
        let newcomer = |session: &&mut Session| session.address.is_none() && session.guest.is_none();
        let Some(session) = self.sessions.get_mut(&key).filter(newcomer) else { return };
        session.guest = Some(guest);
        let frame = Frame::Data(Data { remote: service, ecn: 0, segment, packets: packet }).encode();
        self.forward(key, guest, service, (Lane::Data, frame), now);
    }

    /// The connection's login is good.
    pub fn handle_login(&mut self, key: SessionKey, proven: Proven, now: Instant) {
        if self.sessions.get(&key).is_some_and(|session| session.address.is_some()) {
            return self.cut(key, Denial::Protocol);
        }
        self.log_in(key, proven, now);
        self.push_own(key, &Frame::Welcome);
        self.set_timer(key);
    }

    /// The connection's login proves nothing.
    pub fn handle_bad_login(&mut self, key: SessionKey) {
        self.cut(key, Denial::BadLogin);
    }

    /// The connection sent what can't be a frame: another kind of message, or one over the limit.
    pub fn handle_malformed(&mut self, key: SessionKey) {
        self.stats.malformed += 1;
        self.cut(key, Denial::Protocol);
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, key: SessionKey) {
        self.remove(key);
    }

    /// The connection sent a message.
    pub fn handle_frame(&mut self, key: SessionKey, message: Vec<u8>, now: Instant) {
        let (silence, service) = (self.limits.silence, self.service());
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(from) = session.address else { return self.handle_malformed(key) };
        session.silent_at = now + silence;
        let guest = session.guest;
        let from = |to: Address| guest.filter(|_| to == service).unwrap_or(from);
        match Frame::parse(&message) {
            Ok(Frame::Data(data)) => {
                let to = data.remote;
                self.forward(key, from(to), to, (Lane::Data, message), now);
            }
            Ok(Frame::Check(check)) => {
                let to = check.remote;
                self.forward(key, from(to), to, (Lane::Control, message), now);
            }
            Ok(frame) => self.handle_control(key, &frame, now),
            Err(BadFrame::UnknownKind(_)) => self.stats.unknown += 1,
            Err(BadFrame::TooLong(_) | BadFrame::TooShort | BadFrame::OutOfBounds(_)) => {
                self.handle_malformed(key);
            }
        }
    }

    /// The connection took some bytes of what is being written to it.
    pub fn handle_progress(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&key)
            && session.writing_since.is_some()
        {
            session.writing_since = Some(now);
        }
    }

    /// Takes what is to be written to a connection next, now that what was taken before is written: up to
    /// `budget` bytes, and always a frame where there is one. Nothing: [`RouterAction::Ready`] will tell.
    pub fn take(&mut self, key: SessionKey, budget: usize, now: Instant) -> Vec<Vec<u8>> {
        let Some(session) = self.sessions.get_mut(&key) else { return Vec::new() };
        let before = session.outbox.bytes();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < budget
            && let Some(Outgoing { frame, forwarded }) = session.outbox.pop()
        {
            bytes += frame.len();
            if forwarded {
                self.stats.forwarded_frames += 1;
                self.stats.forwarded_bytes += frame.len() as u64;
            }
            taken.push(frame);
        }
        self.stats.queued_bytes -= before - session.outbox.bytes();
        session.idle = taken.is_empty();
        session.writing_since = (!session.idle).then_some(now);
        self.set_timer(key);
        taken
    }

    /// The relay stops: everybody is told to come back after as long, and nobody is let in any more.
    pub fn restart(&mut self, back_in: Duration) {
        self.restarting = true;
        let millis = u16::try_from(back_in.as_millis()).unwrap_or(u16::MAX);
        let keys: Vec<_> = self.addresses.values().copied().collect();
        for key in keys {
            self.push_own(key, &Frame::Restarting(millis));
        }
    }

    /// Ends every connection, for good.
    pub fn close(&mut self) {
        let keys: Vec<_> = self.sessions.keys().copied().collect();
        keys.into_iter().for_each(|key| self.cut(key, Denial::Restarting));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            session.timer = None;
            let held = session.hold.bytes();
            let expired = session.hold.expire(now);
            self.stats.held_bytes -= held - session.hold.bytes();
            self.stats.add_dropped(DropReason::NotLetIn, expired);
            match session.look(&self.limits, now) {
                Due::Nothing => {}
                Due::Ping => self.push_own(key, &Frame::Ping(*b"culvert?")),
                Due::Cut(why) => self.cut(key, why),
            }
            self.set_timer(key);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<RouterAction> {
        self.actions.pop_front()
    }

    /// The counts.
    pub fn stats(&self) -> RouterStats {
        RouterStats { connections: self.quota.connections(), sessions: self.addresses.len(), ..self.stats }
    }

    /// The server's own services.
    const fn service(&self) -> Address {
        Address { peer: self.relay, instance: Instance::SERVICE }
    }

    /// What a connection is to the services before it has logged in: nobody has an address of the relay's identity but they.
    const fn guest(&self, key: SessionKey) -> Address {
        Address { peer: self.relay, instance: Instance((key + 1).to_be_bytes()) }
    }

    fn handle_control(&mut self, key: SessionKey, frame: &Frame<'_>, now: Instant) {
        let Rate { burst, refill } = self.limits.control;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.control.take(burst, refill, now) {
            return self.cut(key, Denial::Protocol);
        }
        match *frame {
            Frame::Allow { from, seconds } => {
                session.ways.open(from, now + Duration::from_secs(seconds.into()));
                self.release(key, &from);
            }
            Frame::Ping(bytes) => self.push_own(key, &Frame::Pong(bytes)),
            Frame::Pong(_) => {}
            Frame::Challenge(_)
            | Frame::Login(_)
            | Frame::Welcome
            | Frame::Denied(_)
            | Frame::Data(_)
            | Frame::Check(_)
            | Frame::Gone(_)
            | Frame::Restarting(_) => self.handle_malformed(key),
        }
    }

    /// Gives a connection its address. Only the same instance displaces itself, and what it had let in stays.
    fn log_in(&mut self, key: SessionKey, proven: Proven, now: Instant) {
        let (address, service) = (proven.address(), self.service());
        let older = self.addresses.get(&address).copied();
        let inherited = older.and_then(|older| self.sessions.get_mut(&older)).map(|session| {
            let (ways, hold) = (std::mem::take(&mut session.ways), std::mem::take(&mut session.hold));
            (ways, hold)
        });
        if let Some(older) = older {
            self.cut(older, Denial::Replaced);
        }
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.address = Some(address);
        session.silent_at = now + self.limits.silence;
        (session.ways, session.hold) = inherited.unwrap_or_default();
        if session.guest.is_some() {
            session.ways.open(service, now + WAY);
        }
        self.addresses.insert(address, key);
        self.stats.logins += 1;
    }

    /// Sends a frame of the relay's own. One that finds the lane full is not worth waiting for.
    fn push_own(&mut self, key: SessionKey, frame: &Frame<'_>) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| !session.service) else { return };
        let before = session.outbox.bytes();
        let outgoing = Outgoing { frame: frame.encode(), forwarded: false };
        session.outbox.push_control(outgoing, self.limits.control_queue * 2);
        self.stats.queued_bytes = self.stats.queued_bytes - before + session.outbox.bytes();
        self.ring(key);
    }

    /// Tells a writer that waits.
    fn ring(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.idle && !session.outbox.is_empty() {
            session.idle = false;
            self.actions.push_back(RouterAction::Ready(key));
        }
    }

    fn tell_gone(&mut self, key: SessionKey, to: Address, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.gone.take(GONE.burst, GONE.refill, now) {
            self.push_own(key, &Frame::Gone(to));
        }
    }

    fn cut(&mut self, key: SessionKey, why: Denial) {
        if self.sessions.contains_key(&key) {
            self.stats.add_denied(why);
            self.actions.push_back(RouterAction::Close(key, why));
            self.remove(key);
        }
    }

    fn remove(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        if !session.service {
            self.quota.leave(session.source);
        }
        if let Some(at) = session.timer {
            self.timers.remove(&(at, key));
        }
        if let Some(address) = session.address
            && self.addresses.get(&address) == Some(&key)
        {
            self.addresses.remove(&address);
        }
        self.stats.queued_bytes -= session.outbox.bytes();
        self.stats.held_bytes -= session.hold.bytes();
        self.stats.add_dropped(DropReason::ReceiverGone, session.outbox.forwarded_len());
        self.stats.add_dropped(DropReason::NotLetIn, session.hold.len());
    }

    /// Has the session looked at when something of it is due; what became due later than it was is found
    /// out then.
    fn set_timer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(due) = session.due(&self.limits) else { return };
        if session.timer.is_none_or(|at| due < at) {
            if let Some(at) = session.timer.replace(due) {
                self.timers.remove(&(at, key));
            }
            self.timers.insert((due, key));
        }
    }
}

mod forward;
#[cfg(test)]
mod tests;
