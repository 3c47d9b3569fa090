//! Packets for a remote to which no path is proven yet.
//!
//! The two ends prove a path at slightly different moments. The one that is first sends at once, and what the
//! other has to answer before its own proof arrives would be lost, and come again only after QUIC's probe
//! timeout, ten times later. So it waits here for a moment.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::udp::{EcnCodepoint, Transmit};
use tokio::time::Instant;

/// How long a packet waits: past QUIC's first probe timeout it would only be sent twice.
const PATIENCE: Duration = Duration::from_millis(250);

/// Bytes that wait for one remote: a handshake's worth.
const MAX_BYTES_EACH: usize = 16 * 1024;

/// Bytes that wait in all. The oldest give way.
const MAX_BYTES: usize = 256 * 1024;

/// A packet, or a batch.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    remote: SocketAddr,
    ecn: Option<EcnCodepoint>,
    segment_size: Option<usize>,
    contents: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Outbox {
    /// Keeps a packet for a moment. Returns how many packets are lost for it, itself included.
    pub(super) fn push(&mut self, transmit: &Transmit<'_>, now: Instant) -> usize {
        let remote = transmit.destination;
        let mut lost = self.expire(now);
        let each: usize = self.waiting.iter().filter(|w| w.remote == remote).map(|w| w.contents.len()).sum();
        if each + transmit.contents.len() > MAX_BYTES_EACH {
            return lost + packets(transmit.contents.len(), transmit.segment_size);
        }
        self.bytes += transmit.contents.len();
        self.waiting.push_back(Waiting {
            since: now,
            remote,
            ecn: transmit.ecn,
            segment_size: transmit.segment_size,
            contents: transmit.contents.to_vec(),
        });
        while self.bytes > MAX_BYTES {
            lost += self.drop_oldest();
        }
        lost
    }

    /// What still waits for a remote, and how many packets have waited too long for anybody.
    pub(super) fn take(&mut self, remote: SocketAddr, now: Instant) -> (Vec<Waiting>, usize) {
        let lost = self.expire(now);
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.remote == remote);
        self.waiting = left;
        self.bytes = self.waiting.iter().map(|waiting| waiting.contents.len()).sum();
        (taken.into(), lost)
    }

    fn expire(&mut self, now: Instant) -> usize {
        let mut lost = 0;
        while self.waiting.front().is_some_and(|oldest| now.duration_since(oldest.since) > PATIENCE) {
            lost += self.drop_oldest();
        }
        lost
    }

    fn drop_oldest(&mut self) -> usize {
        let Some(oldest) = self.waiting.pop_front() else { return 0 };
        self.bytes -= oldest.contents.len();
        packets(oldest.contents.len(), oldest.segment_size)
    }
}

impl Waiting {
    pub(super) fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.remote,
            ecn: self.ecn,
            contents: &self.contents,
            segment_size: self.segment_size,
            src_ip: None,
        }
    }
}

fn packets(len: usize, segment_size: Option<usize>) -> usize {
    segment_size.map_or(1, |size| len.div_ceil(size.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(n: u8) -> SocketAddr {
        SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)], 1))
    }

    fn packet(to: u8, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: remote(to), ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_comes_out_in_order_and_for_its_own_remote() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        for (to, byte) in [(1, 1), (2, 9), (1, 2)] {
            assert_eq!(outbox.push(&packet(to, &[byte; 100]), now), 0);
        }
        let (taken, lost) = outbox.take(remote(1), now);
        let firsts: Vec<_> = taken.iter().map(|waiting| waiting.transmit().contents[0]).collect();
        assert_eq!((firsts, lost), (vec![1, 2], 0));
        assert_eq!(outbox.bytes, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_is_lost() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        outbox.push(&packet(1, &[0; 100]), now);
        let (taken, lost) = outbox.take(remote(1), now + PATIENCE + Duration::from_millis(1));
        assert_eq!((taken.len(), lost, outbox.bytes), (0, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_for_each_remote_and_in_all() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let lost: usize = (0..100).map(|_| outbox.push(&packet(1, &[0; 1200]), now)).sum();
        assert_eq!(outbox.bytes, 1200 * (MAX_BYTES_EACH / 1200));
        assert_eq!(lost, 100 - MAX_BYTES_EACH / 1200);
        for n in 0..=255 {
            for _ in 0..10 {
                outbox.push(&packet(n, &[0; 1200]), now);
            }
        }
        assert!(outbox.bytes <= MAX_BYTES);
    }
}
