//! One end of a reliable, ordered conversation over the world's datagrams, in the place of the session's QUIC
//! connection: what is lost comes again, and the connection is known by its number and not by its address,
//! so that the server sees a NAT's new mapping as it does with QUIC.
//!
//! A datagram is one byte that no STUN message has, the connection's number, the message's number (0: none),
//! the number up to which everything has arrived, and the message.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The first byte: in QUIC's range of RFC 9443.
const MARK: u8 = 0x40;
const HEAD: usize = 17;

/// From a message to its first repetition; it doubles up to [`LAST_REPEAT`]. QUIC's is three initial round
/// trips at the start.
const FIRST_REPEAT: Duration = Duration::from_millis(250);
const LAST_REPEAT: Duration = Duration::from_secs(2);
const MAX_REPEATS: u32 = 12;

#[derive(Debug)]
struct Unacknowledged {
    number: u32,
    payload: Vec<u8>,
    due: Instant,
    repeats: u32,
}

/// One end.
#[derive(Debug)]
pub(super) struct Conduit {
    connection: u64,
    sent: u32,
    waiting: VecDeque<Unacknowledged>,
    received: u32,
    ahead: BTreeMap<u32, Vec<u8>>,
    acknowledge: bool,
}

/// The number of the connection that a datagram belongs to, if it is of a conduit at all.
pub(super) fn connection_of(datagram: &[u8]) -> Option<u64> {
    let bytes = datagram.get(1..9)?.try_into().ok()?;
    (datagram[0] == MARK && datagram.len() >= HEAD).then(|| u64::from_be_bytes(bytes))
}

impl Conduit {
    pub(super) const fn new(connection: u64) -> Self {
        Self {
            connection,
            sent: 0,
            waiting: VecDeque::new(),
            received: 0,
            ahead: BTreeMap::new(),
            acknowledge: false,
        }
    }

    pub(super) const fn connection(&self) -> u64 {
        self.connection
    }

    pub(super) fn send(&mut self, payload: Vec<u8>, now: Instant) {
        self.sent += 1;
        self.waiting.push_back(Unacknowledged { number: self.sent, payload, due: now, repeats: 0 });
    }

    /// Takes a datagram of this connection, and gives the messages that are complete with it, in order.
    pub(super) fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let word = |at: usize| {
            datagram.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
        };
        let (Some(number), Some(acknowledged)) = (word(9), word(13)) else { return Vec::new() };
        self.waiting.retain(|message| message.number > acknowledged);
        if number == 0 {
            return Vec::new();
        }
        self.acknowledge = true;
        if number > self.received {
            self.ahead.insert(number, datagram[HEAD..].to_vec());
        }
        let mut messages = Vec::new();
        while let Some(message) = self.ahead.remove(&(self.received + 1)) {
            self.received += 1;
            messages.push(message);
        }
        messages
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|message| message.due).min()
    }

    /// The next datagram that is due. Whoever was not heard for all repetitions is left alone.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.waiting.retain(|message| message.repeats <= MAX_REPEATS);
        let due = self.waiting.iter_mut().find(|message| message.due <= now);
        if due.is_none() && !self.acknowledge {
            return None;
        }
        self.acknowledge = false;
        let mut datagram = vec![MARK];
        datagram.extend(self.connection.to_be_bytes());
        datagram.extend(due.as_ref().map_or(0, |message| message.number).to_be_bytes());
        datagram.extend(self.received.to_be_bytes());
        if let Some(message) = due {
            datagram.extend(&message.payload);
            message.due = now + (FIRST_REPEAT * (1 << message.repeats.min(8))).min(LAST_REPEAT);
            message.repeats += 1;
        }
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_once_and_in_order_although_half_the_datagrams_are_lost() {
        let mut now = Instant::now();
        let (mut a, mut b) = (Conduit::new(7), Conduit::new(7));
        for n in 0..20_u8 {
            a.send(vec![n], now);
        }
        let (mut got, mut count) = (Vec::new(), 0_u32);
        while let Some(at) = a.poll_timeout() {
            now = now.max(at);
            while let Some(datagram) = a.poll_transmit(now) {
                count += 1;
                // No rhythm, or the same message might be lost each time.
                if count.wrapping_mul(2_654_435_761) >> 31 == 0 {
                    got.extend(b.handle(&datagram));
                    while let Some(answer) = b.poll_transmit(now) {
                        a.handle(&answer);
                    }
                }
            }
        }
        assert_eq!(got, (0..20).map(|n| vec![n]).collect::<Vec<_>>());
    }
}
