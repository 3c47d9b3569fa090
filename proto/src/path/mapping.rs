//! **MappingQuery**: asks a STUN server under which address a fresh link is seen.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stun::{self, Transaction};

/// From the first request to the second; it doubles. RFC 8489 §6.2.1 starts at 500 ms where nothing is known
/// of the round trip; here a session with the same server stands, and an attempt waits.
const FIRST_RETRY: Duration = Duration::from_millis(150);

/// Requests in all: two seconds' worth.
const MAX_REQUESTS: u32 = 5;

/// The machine, for one link.
#[derive(Debug)]
pub struct MappingQuery {
    transaction: Transaction,
    sent: u32,
    next: Option<Instant>,
}

impl MappingQuery {
    /// Asks at once, with these random bits.
    pub const fn new(transaction: Transaction, now: Instant) -> Self {
        Self { transaction, sent: 0, next: Some(now) }
    }

    /// A datagram for the server that is due at `now`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next.is_none_or(|at| at > now) {
            return None;
        }
        self.next = (self.sent + 1 < MAX_REQUESTS).then(|| now + FIRST_RETRY * (1 << self.sent));
        self.sent += 1;
        Some(stun::binding_request(self.transaction))
    }

    /// When [`Self::poll_transmit`] has something.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// A datagram of the server's. The first answer gives the address, and ends the query.
    pub fn handle_answer(&mut self, datagram: &[u8]) -> Option<SocketAddr> {
        if self.sent == 0 || self.sent > MAX_REQUESTS {
            return None;
        }
        let mapped = stun::mapped_address(datagram, self.transaction)?;
        self.next = None;
        self.sent = MAX_REQUESTS + 1;
        Some(mapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;

    #[test]
    fn it_asks_five_times_ever_more_rarely_and_then_no_more() {
        let begin = start();
        let mut query = MappingQuery::new([1; 12], begin);
        let mut asked = Vec::new();
        while let Some(at) = query.poll_timeout() {
            assert!(query.poll_transmit(at).is_some());
            asked.push(at.duration_since(begin).as_millis());
        }
        assert_eq!(asked, [0, 150, 450, 1050, 2250]);
    }

    #[test]
    fn the_first_answer_ends_it_and_strangers_answers_do_not() {
        let now = start();
        let mut query = MappingQuery::new([1; 12], now);
        let answer = |transaction| {
            let seen = "203.0.113.7:4000".parse().unwrap();
            let asked = stun::BindingRequest::read(&stun::binding_request(transaction)).unwrap();
            asked.answer(seen, None, None)
        };
        assert_eq!(query.handle_answer(&answer([1; 12])), None, "nothing was asked yet");
        query.poll_transmit(now);
        assert_eq!(query.handle_answer(&answer([2; 12])), None);
        assert_eq!(query.handle_answer(&answer([1; 12])), Some("203.0.113.7:4000".parse().unwrap()));
        assert_eq!((query.poll_timeout(), query.handle_answer(&answer([1; 12]))), (None, None));
    }
}
