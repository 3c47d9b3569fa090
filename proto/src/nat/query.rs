//! One question to a STUN server: when it is sent, and what came of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stun::{BindingAnswer, Transaction};

/// From the first request to each further one. RFC 8489 §6.2.1 starts at 500 ms and would take too long here.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(900)];

/// From the last request to the verdict that there is no answer.
const PATIENCE: Duration = Duration::from_millis(600);

/// A question: datagrams of one transaction from one socket to one address.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) socket: usize,
    pub(super) to: SocketAddr,
    pub(super) transaction: Transaction,
    pub(super) payload: Vec<u8>,
    repeats: &'static [Duration],
    begin: Instant,
    sent: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { next: Instant },
    Answered { answer: Option<BindingAnswer>, after: Duration },
    Silent,
}

impl Query {
    /// A question that is first sent at `begin`; `once` and never again, or until it is answered.
    pub(super) const fn new(
        socket: usize,
        to: SocketAddr,
        transaction: Transaction,
        payload: Vec<u8>,
        begin: Instant,
        once: bool,
    ) -> Self {
        let repeats: &[Duration] = if once { &[] } else { &REPEATS };
        Self {
            socket,
            to,
            transaction,
            payload,
            repeats,
            begin,
            sent: 0,
            state: State::Waiting { next: begin },
        }
    }

    /// Whether a request is due, which is counted as sent then. After the last one's time there is no answer.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let State::Waiting { next } = self.state else { return false };
        if next > now {
            return false;
        }
        if self.sent > self.repeats.len() {
            self.state = State::Silent;
            return false;
        }
        self.sent += 1;
        let next = match self.repeats.get(self.sent - 1) {
            Some(after) => self.begin + *after,
            None => now + PATIENCE,
        };
        self.state = State::Waiting { next };
        true
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { next } => Some(next),
            State::Answered { .. } | State::Silent => None,
        }
    }

    /// It is over: answered by a server, or, with `None`, heard by a socket of our own.
    pub(super) fn settle(&mut self, answer: Option<BindingAnswer>, now: Instant) {
        if matches!(self.state, State::Waiting { .. }) && self.sent > 0 {
            self.state = State::Answered { answer, after: now.saturating_duration_since(self.begin) };
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Answered { .. } | State::Silent)
    }

    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }

    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        self.answer().map(|answer| answer.mapped)
    }

    pub(super) const fn answer(&self) -> Option<BindingAnswer> {
        match self.state {
            State::Answered { answer, .. } => answer,
            State::Waiting { .. } | State::Silent => None,
        }
    }

    /// From the first request to the answer: the round trip where it was the first that was answered.
    pub(super) const fn took(&self) -> Option<Duration> {
        match self.state {
            State::Answered { after, .. } => Some(after),
            State::Waiting { .. } | State::Silent => None,
        }
    }
}
