//! One connection, as the router knows it.

use std::net::IpAddr;
use std::time::Instant;

use super::hold::Hold;
use super::outbox::Outbox;
use super::quota::RouterLimits;
use super::ways::Ways;
use crate::machine::{Bucket, earliest};
use crate::wire::relay::{Address, Denial};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) source: Option<IpAddr>,
    /// Who it is, once it has logged in.
    pub(super) address: Option<Address>,
    /// What it is to the relay's own server, where it spoke to that before it had logged in.
    pub(super) guest: Option<Address>,
    /// Whether it is a service of the relay's own server: it lets everybody in, and is not timed.
    pub(super) service: bool,
    pub(super) outbox: Outbox,
    pub(super) ways: Ways,
    pub(super) hold: Hold,
    pub(super) strangers: Bucket,
    pub(super) control: Bucket,
    pub(super) gone: Bucket,
    pub(super) ping_at: Instant,
    pub(super) silent_at: Instant,
    /// Since when its writer is at work without a byte taken.
    pub(super) writing_since: Option<Instant>,
    /// Whether its writer has found nothing, and waits to be told.
    pub(super) idle: bool,
    /// When it is looked at next: never later than [`Session::due`].
    pub(super) timer: Option<Instant>,
}

/// What time has brought a session.
pub(super) enum Due {
    Nothing,
    Ping,
    Cut(Denial),
}

impl Session {
    pub(super) fn new(source: Option<IpAddr>, limits: &RouterLimits, now: Instant) -> Self {
        let full = |rate: crate::limit::Rate| Bucket::full(rate.burst, rate.refill, now);
        Self {
            source,
            address: None,
            guest: None,
            service: false,
            outbox: Outbox::default(),
            ways: Ways::default(),
            hold: Hold::default(),
            strangers: full(limits.strangers_each),
            control: full(limits.control),
            gone: full(super::router::GONE),
            ping_at: now + limits.ping,
            silent_at: now + limits.login,
            writing_since: None,
            idle: true,
            timer: None,
        }
    }

    /// When it has to be looked at.
    pub(super) fn due(&self, limits: &RouterLimits) -> Option<Instant> {
        if self.service {
            return None;
        }
        let silent = Some(self.silent_at);
        let ping = self.address.map(|_| self.ping_at);
        let blocked = self.writing_since.map(|since| since + limits.blocked);
        [ping, blocked, self.hold.next_expiry()].into_iter().fold(silent, earliest)
    }

    /// What is due now.
    pub(super) fn look(&mut self, limits: &RouterLimits, now: Instant) -> Due {
        if self.writing_since.is_some_and(|since| since + limits.blocked <= now) {
            return Due::Cut(Denial::Slow);
        }
        if self.silent_at <= now {
            return Due::Cut(Denial::Silent);
        }
        if self.address.is_some() && self.ping_at <= now {
            self.ping_at = now + limits.ping;
            self.ways.expire(now);
            return Due::Ping;
        }
        Due::Nothing
    }

    /// Whether what `from` sends is let in.
    pub(super) fn lets_in(&self, from: &Address, now: Instant) -> bool {
        self.service || self.ways.is_open(from, now)
    }
}
