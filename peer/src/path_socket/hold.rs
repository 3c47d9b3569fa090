//! Packets from sources that nobody accepts yet.
//!
//! The first QUIC packet over a new path may overtake the check that proves the path. Dropped, it comes again
//! only after QUIC's first timeout, which is most of a second on a fresh connection. So it waits a little.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use proto::path::PathId;
use quinn::udp::EcnCodepoint;
use tokio::time::Instant;

/// How long a packet waits: what a check and its answer take on most of the Internet. Held any longer, QUIC's
/// own copy would come first.
pub(super) const HOLD_TIME: Duration = Duration::from_millis(100);

/// Packets and bytes held for one source: a first flight, and a GSO batch on a new path. The newest is
/// dropped.
const MAX_SOURCE_PACKETS: usize = 16;
const MAX_SOURCE_BYTES: usize = 32 * 1024;

/// Packets and bytes held for all sources. The oldest is dropped: a flood of strangers' packets shortens the
/// wait of a friend's, it doesn't refuse it.
const MAX_PACKETS: usize = 1024;
const MAX_BYTES: usize = 1024 * 1024;

/// One packet that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) path: PathId,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Vec<u8>,
    at: Instant,
}

/// A packet whose source has been accepted, and the address under which it goes up.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) remote: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) payload: Vec<u8>,
}

/// What a push has cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Packets that waited in vain.
    pub(super) expired: usize,
    /// Packets for which there was no room, the new one perhaps.
    pub(super) crowded_out: usize,
}

#[derive(Debug, Default)]
pub(super) struct Hold {
    packets: VecDeque<Held>,
    bytes: usize,
    sources: HashMap<PathId, Share>,
    /// Bounded by what was held.
    released: VecDeque<Released>,
}

/// What one source takes of the room.
#[derive(Debug, Default)]
struct Share {
    packets: usize,
    bytes: usize,
}

impl Hold {
    /// Holds a packet from `path`.
    pub(super) fn push(
        &mut self,
        now: Instant,
        path: PathId,
        ecn: Option<EcnCodepoint>,
        payload: &[u8],
    ) -> Cost {
        let mut cost = Cost { expired: self.expire(now), crowded_out: 0 };
        let share = self.sources.entry(path).or_default();
        if share.packets >= MAX_SOURCE_PACKETS || share.bytes + payload.len() > MAX_SOURCE_BYTES {
            cost.crowded_out += 1;
            if share.packets == 0 {
                self.sources.remove(&path);
            }
            return cost;
        }
        share.packets += 1;
        share.bytes += payload.len();
        self.bytes += payload.len();
        self.packets.push_back(Held { path, ecn, payload: payload.to_vec(), at: now });
        while self.packets.len() > MAX_PACKETS || self.bytes > MAX_BYTES {
            self.pop();
            cost.crowded_out += 1;
        }
        cost
    }

    /// Forgets what has waited too long, and tells how many packets that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets.len();
        while self.packets.front().is_some_and(|held| now.duration_since(held.at) > HOLD_TIME) {
            self.pop();
        }
        before - self.packets.len()
    }

    /// Moves what came from `path` to the packets that go up as `remote`; tells whether there were any.
    pub(super) fn release(&mut self, path: PathId, remote: SocketAddr) -> bool {
        if self.sources.remove(&path).is_none() {
            return false;
        }
        for held in std::mem::take(&mut self.packets) {
            if held.path == path {
                self.bytes -= held.payload.len();
                self.released.push_back(Released { remote, ecn: held.ecn, payload: held.payload });
            } else {
                self.packets.push_back(held);
            }
        }
        true
    }

    /// The next packet to go up.
    pub(super) fn pop_released(&mut self) -> Option<Released> {
        self.released.pop_front()
    }

    /// Packets that wait.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Drops the oldest packet.
    fn pop(&mut self) {
        let Some(held) = self.packets.pop_front() else { return };
        self.bytes -= held.payload.len();
        if let Some(share) = self.sources.get_mut(&held.path) {
            share.packets -= 1;
            share.bytes -= held.payload.len();
            if share.packets == 0 {
                self.sources.remove(&held.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::path::LinkId;

    use super::*;

    fn source(port: u16) -> PathId {
        PathId { link: LinkId::MAIN, remote: SocketAddr::from(([192, 0, 2, 1], port)) }
    }

    fn remote() -> SocketAddr {
        "[fd00::1]:1".parse().unwrap()
    }

    fn released(hold: &mut Hold) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| hold.pop_released()).map(|released| released.payload).collect()
    }

    #[test]
    fn a_source_gets_its_own_packets_back_in_order() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        for (port, payload) in [(1, b"a"), (2, b"b"), (1, b"c")] {
            assert_eq!(hold.push(now, source(port), None, payload), Cost::default());
        }
        assert!(hold.release(source(1), remote()));
        assert_eq!(released(&mut hold), [b"a", b"c"]);
        assert_eq!(hold.len(), 1);
        assert!(!hold.release(source(1), remote()));
    }

    #[test]
    fn a_packet_waits_for_the_hold_time_and_no_longer() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        hold.push(now, source(1), None, b"a");
        assert_eq!(hold.expire(now + HOLD_TIME), 0);
        assert_eq!(hold.expire(now + HOLD_TIME + Duration::from_millis(1)), 1);
        assert!(!hold.release(source(1), remote()));
        assert_eq!((hold.len(), hold.bytes, hold.sources.len()), (0, 0, 0));
    }

    #[test]
    fn one_source_fills_its_own_room_only() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let crowded_out: usize = (0..100).map(|_| hold.push(now, source(1), None, b"a").crowded_out).sum();
        assert_eq!(crowded_out, 100 - MAX_SOURCE_PACKETS);
        assert_eq!(hold.push(now, source(2), None, &[0; MAX_SOURCE_BYTES]).crowded_out, 0);
        assert_eq!(hold.push(now, source(2), None, b"a").crowded_out, 1);
        assert_eq!(hold.push(now, source(3), None, &[0; MAX_SOURCE_BYTES + 1]).crowded_out, 1);
        assert_eq!(hold.sources.len(), 2);
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_the_newest_stay() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        for port in 1..=5000 {
            hold.push(now, source(port), None, &[0; 10]);
        }
        assert_eq!(
            (hold.len(), hold.sources.len(), hold.bytes),
            (MAX_PACKETS, MAX_PACKETS, 10 * MAX_PACKETS)
        );
        for port in 1..=5000 {
            hold.push(now, source(port), None, &[0; 20_000]);
        }
        assert!(hold.bytes <= MAX_BYTES);
        assert!(hold.release(source(5000), remote()));
    }
}
