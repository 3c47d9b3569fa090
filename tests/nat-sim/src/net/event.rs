//! Packets under way, and what happens next, in order of (time, sequence).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Instant;

use super::{HostId, SiteId, SocketId, Target};

/// Who sent a packet, for the ICMP error that may come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) host: HostId,
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
    pub(super) sent: Instant,
}

/// A packet, with the addresses that it has where it is.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) number: u64,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) ttl: u8,
    pub(super) origin: Origin,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    /// Size with IP and UDP headers, in bytes.
    pub(super) fn size(&self) -> usize {
        self.payload.len() + if self.dst.is_ipv4() { 28 } else { 48 }
    }
}

/// What happens when its time has come.
#[derive(Debug)]
pub(super) enum Event {
    /// A packet has crossed the core.
    AtDownlink { site: SiteId, packet: Packet },
    /// A packet is at a host or at a router's outside.
    Reach { target: Target, packet: Packet },
    /// An ICMP error is back at the sender.
    Unreachable { origin: Origin },
}

#[derive(Debug)]
struct Due {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    sequence: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Due { at, sequence: self.sequence, event }));
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Event)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at, due.event))
    }
}
