//! One question to one address: a STUN Binding request, asked three times.

use std::time::{Duration, Instant};

use super::{Outcome, Refused};
use crate::stun::{self, Transaction};

/// From the first request to each further one (RFC 8489 §6.2.1 would begin with 500 ms).
const REPEATS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(800)];

/// From the first request to the verdict that nothing comes back.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How many refusals end the probe: one may be of a server that is just starting again.
const REFUSALS: u8 = 2;

/// The machine.
#[derive(Debug)]
pub struct Probe {
    transaction: Transaction,
    begin: Instant,
    sent: usize,
    is_due: bool,
    refused: Option<Refused>,
    refusals: u8,
    outcome: Option<Outcome>,
}

impl Probe {
    /// Begins at once.
    pub const fn new(transaction: Transaction, now: Instant) -> Self {
        Self { transaction, begin: now, sent: 0, is_due: true, refused: None, refusals: 0, outcome: None }
    }

    /// A datagram that came back. What is no answer to this probe is ignored.
    pub fn handle_datagram(&mut self, datagram: &[u8]) {
        if let Some(mapped) = stun::mapped_address(datagram, self.transaction) {
            self.outcome.get_or_insert(Outcome::Answered(mapped));
        }
    }

    /// The system refused to send, or reported what came back in the answer's place.
    pub fn handle_refused(&mut self, refused: Refused) {
        // Where several reasons are told, the first is the nearest to this machine.
        let refused = *self.refused.get_or_insert(refused);
        self.refusals = self.refusals.saturating_add(1);
        if refused == Refused::NoRoute || self.refusals >= REFUSALS {
            self.outcome.get_or_insert(Outcome::Refused(refused));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        if now >= self.begin + PATIENCE {
            self.outcome = Some(self.refused.map_or(Outcome::Silent, Outcome::Refused));
        } else if REPEATS.get(self.sent.wrapping_sub(1)).is_some_and(|after| now >= self.begin + *after) {
            self.is_due = true;
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once there is an outcome.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        let after = REPEATS.get(self.sent.wrapping_sub(1)).copied().unwrap_or(PATIENCE);
        Some(self.begin + after)
    }

    /// The request, when it is due.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.outcome.is_some() || !std::mem::take(&mut self.is_due) {
            return None;
        }
        self.sent += 1;
        Some(stun::binding_request(self.transaction))
    }

    /// What became of it, once that is known.
    pub const fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;
    use crate::stun::BindingRequest;

    const OURS: Transaction = [7; 12];

    fn probe() -> (Probe, Instant) {
        let now = start();
        let mut probe = Probe::new(OURS, now);
        assert!(probe.poll_transmit().is_some() && probe.poll_transmit().is_none());
        (probe, now)
    }

    fn answer(transaction: Transaction) -> Vec<u8> {
        let request = BindingRequest::read(&stun::binding_request(transaction)).unwrap();
        request.answer("203.0.113.7:4000".parse().unwrap(), None, None)
    }

    #[test]
    fn an_answer_ends_it_and_one_to_another_question_does_not() {
        let (mut probe, _) = probe();
        probe.handle_datagram(&answer([8; 12]));
        probe.handle_datagram(b"nonsense");
        assert_eq!(probe.outcome(), None);
        probe.handle_datagram(&answer(OURS));
        assert_eq!(probe.outcome(), Some(Outcome::Answered("203.0.113.7:4000".parse().unwrap())));
        assert_eq!((probe.poll_timeout(), probe.poll_transmit()), (None, None));
    }

    #[test]
    fn it_asks_three_times_and_is_silent_after_a_second_and_a_half() {
        let (mut probe, begin) = probe();
        let mut asked = vec![];
        let mut last = begin;
        while let Some(at) = probe.poll_timeout() {
            last = at;
            probe.handle_timeout(at);
            asked.extend(probe.poll_transmit().map(|_| at - begin));
        }
        assert_eq!(asked, REPEATS);
        assert_eq!((probe.outcome(), last - begin), (Some(Outcome::Silent), PATIENCE));
    }

    #[test]
    fn one_refusal_is_forgiven_where_an_answer_follows_and_two_are_not() {
        let (mut probe, _) = probe();
        probe.handle_refused(Refused::PortClosed);
        assert_eq!(probe.outcome(), None);
        let mut other = Probe { outcome: None, ..probe };
        other.handle_datagram(&answer(OURS));
        assert!(matches!(other.outcome(), Some(Outcome::Answered(_))));
        let (mut probe, begin) = self::probe();
        probe.handle_refused(Refused::Here);
        let mut patient = Probe { outcome: None, ..probe };
        patient.handle_timeout(begin + PATIENCE);
        assert_eq!(patient.outcome(), Some(Outcome::Refused(Refused::Here)));
        patient.handle_refused(Refused::PortClosed);
        assert_eq!(patient.outcome(), Some(Outcome::Refused(Refused::Here)));
    }

    #[test]
    fn where_there_is_no_route_nothing_is_waited_for() {
        let (mut probe, _) = probe();
        probe.handle_refused(Refused::NoRoute);
        assert_eq!(probe.outcome(), Some(Outcome::Refused(Refused::NoRoute)));
    }
}
