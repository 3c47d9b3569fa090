//! What becomes of a peer's frame.

use std::time::Instant;

use super::{Router, WAY};
use crate::limit::{Prefix, Rate};
use crate::relay::outbox::{Lane, Outgoing};
use crate::relay::stats::DropReason;
use crate::relay::{SessionKey, hold};
use crate::wire::relay::{Address, readdress};

/// One receiver's queue may be as long as this part of the room that is left to all: however many don't read, as much
/// is left as for so many more of them (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
const SHARE: usize = 64;

impl Router {
    /// Carries a peer's frame to where it is addressed, or holds it, or drops it.
    pub(super) fn forward(
        &mut self,
        key: SessionKey,
        from: Address,
        to: Address,
        (lane, mut frame): (Lane, Vec<u8>),
        now: Instant,
    ) {
        let receiver = self.addresses.get(&to).copied().or_else(|| self.guest_of(&from, &to));
        let is_open = receiver
            .and_then(|receiver| self.sessions.get(&receiver))
            .is_some_and(|session| session.lets_in(&from, now));
        // Whoever calls at doors that are closed, or not there, pays before anything is done for him.
        let affords = is_open || self.takes_strangers(key, now);
        if affords {
            if let Some(session) = self.sessions.get_mut(&key) {
                // Who sends lets the other one answer.
                session.ways.open(to, now + WAY);
            }
            self.release(key, &to);
        }
        let Some(receiver) = receiver else {
            self.stats.add_dropped(DropReason::Offline, 1);
            return self.tell_gone(key, to, now);
        };
        readdress(&mut frame, &from);
        if is_open {
            return self.push(receiver, from, lane, frame);
        }
        if !affords {
            return self.stats.add_dropped(DropReason::Stranger, 1);
        }
        let source = self.sessions.get(&key).and_then(|session| session.source);
        self.hold(receiver, from, source.map(Prefix::of), (lane, frame), now);
    }

    /// The connection that the services know by this address, if it is they who ask.
    fn guest_of(&self, from: &Address, to: &Address) -> Option<SessionKey> {
        if *from != self.service() || to.peer != self.relay {
            return None;
        }
        let key = u64::from_be_bytes(to.instance.0).checked_sub(1)?;
        self.sessions.get(&key).is_some_and(|session| session.guest == Some(*to)).then_some(key)
    }

    /// Whether one more frame of this connection's to somebody who did not let it in is looked at.
    fn takes_strangers(&mut self, key: SessionKey, now: Instant) -> bool {
        let Rate { burst, refill } = self.limits.strangers_each;
        let Some(session) = self.sessions.get_mut(&key) else { return false };
        session.strangers.take(burst, refill, now) && self.quota.stranger(session.source, now)
    }

    fn hold(
        &mut self,
        receiver: SessionKey,
        from: Address,
        source: Option<Prefix>,
        frame: (Lane, Vec<u8>),
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&receiver) else { return };
        let before = session.hold.bytes();
        if self.stats.held_bytes + hold::MAX_PAIR > self.limits.held {
            return self.stats.add_dropped(DropReason::RelayFull, 1);
        }
        let lost = session.hold.push(from, source, frame, now);
        self.stats.held_bytes = self.stats.held_bytes - before + session.hold.bytes();
        self.stats.add_dropped(DropReason::HoldFull, lost);
        self.set_timer(receiver);
    }

    /// Sends on what is held of `from` for this receiver, which has let it in.
    pub(super) fn release(&mut self, receiver: SessionKey, from: &Address) {
        let Some(session) = self.sessions.get_mut(&receiver) else { return };
        if session.hold.bytes() == 0 {
            return;
        }
        let before = session.hold.bytes();
        let released: Vec<_> = session.hold.release(from).collect();
        self.stats.held_bytes -= before - session.hold.bytes();
        for (lane, frame) in released {
            self.push(receiver, *from, lane, frame);
        }
    }

    fn push(&mut self, receiver: SessionKey, from: Address, lane: Lane, frame: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(&receiver) else { return };
        if self.stats.queued_bytes + frame.len() > self.limits.queued {
            return self.stats.add_dropped(DropReason::RelayFull, 1);
        }
        let before = session.outbox.bytes();
        let limit = self.limits.data_queue.min((self.limits.queued - self.stats.queued_bytes) / SHARE);
        let (lost, reason) = match lane {
            Lane::Data => (session.outbox.push_data(from, frame, limit), DropReason::DataFull),
            Lane::Control => {
                let outgoing = Outgoing { frame, forwarded: true };
                let fits = session.outbox.push_control(outgoing, self.limits.control_queue);
                (usize::from(!fits), DropReason::ControlFull)
            }
        };
        self.stats.queued_bytes = self.stats.queued_bytes - before + session.outbox.bytes();
        self.stats.add_dropped(reason, lost);
        self.ring(receiver);
    }
}
