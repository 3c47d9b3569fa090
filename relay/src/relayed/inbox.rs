//! Batches that came from a relay and wait for quinn.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::body::Bytes;
use quinn::udp::{EcnCodepoint, RecvMeta};

/// Bytes that may wait: what a fast relay brings while the receiving task is scheduled late.
const CAPACITY: usize = 1024 * 1024;

/// Packets of one length, the last maybe shorter, from one remote.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) from: SocketAddr,
    pub(super) ecn: u8,
    pub(super) segment: usize,
    pub(super) packets: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    receiver: Option<Waker>,
    feeders: Vec<Waker>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when there is room.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.bytes < CAPACITY {
            return Poll::Ready(());
        }
        waiting.feeders.retain(|feeder| !feeder.will_wake(cx.waker()));
        waiting.feeders.push(cx.waker().clone());
        Poll::Pending
    }

    /// Puts a batch behind the others. Without room it is lost: returns whether it was not.
    pub(super) fn push(&self, batch: Batch) -> bool {
        let mut waiting = self.lock();
        if waiting.bytes >= CAPACITY {
            return false;
        }
        waiting.bytes += batch.packets.len();
        waiting.batches.push_back(batch);
        let receiver = waiting.receiver.take();
        drop(waiting);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        true
    }

    /// Fills as many buffers as there are batches, or parts of them that fit.
    pub(super) fn poll(
        &self,
        cx: &Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut waiting = self.lock();
        let mut filled = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(len) = waiting.take(buf, meta) else { break };
            waiting.bytes -= len;
            filled += 1;
        }
        if filled == 0 {
            waiting.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let feeders =
            if waiting.bytes < CAPACITY { std::mem::take(&mut waiting.feeders) } else { Vec::new() };
        drop(waiting);
        feeders.into_iter().for_each(Waker::wake);
        Poll::Ready(filled)
    }
}

impl Waiting {
    /// Moves whole packets of the first batch into a buffer. Gives how many bytes left the queue.
    fn take(&mut self, buf: &mut [u8], meta: &mut RecvMeta) -> Option<usize> {
        loop {
            let batch = self.batches.front_mut()?;
            let stride = batch.segment.min(batch.packets.len());
            // No packet of ours is longer than any buffer of quinn's.
            let fits = buf.len() / stride.max(1) * stride;
            if fits == 0 {
                let lost = self.batches.pop_front()?;
                self.bytes -= lost.packets.len();
                continue;
            }
            let part = batch.packets.split_to(fits.min(batch.packets.len()));
            buf[..part.len()].copy_from_slice(&part);
            *meta = RecvMeta {
                addr: batch.from,
                len: part.len(),
                stride,
                ecn: EcnCodepoint::from_bits(batch.ecn),
                dst_ip: None,
            };
            if batch.packets.is_empty() {
                self.batches.pop_front();
            }
            return Some(part.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn batch(n: u8, segment: usize, len: usize) -> Batch {
        let from = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)], 1));
        Batch { from, ecn: 2, segment, packets: vec![n; len].into() }
    }

    fn receive(inbox: &Inbox, size: usize) -> Vec<(usize, usize)> {
        let mut memory = vec![0; size * 4];
        let mut bufs: Vec<_> = memory.chunks_mut(size).map(IoSliceMut::new).collect();
        let mut meta = [RecvMeta::default(); 4];
        match inbox.poll(&Context::from_waker(Waker::noop()), &mut bufs, &mut meta) {
            Poll::Ready(filled) => meta[..filled].iter().map(|meta| (meta.len, meta.stride)).collect(),
            Poll::Pending => Vec::new(),
        }
    }

    #[test]
    fn a_batch_is_split_where_a_buffer_ends_and_never_within_a_packet() {
        let inbox = Inbox::default();
        assert!(inbox.push(batch(1, 1200, 5000)));
        assert_eq!(receive(&inbox, 3000), [(2400, 1200), (2400, 1200), (200, 200)]);
        assert_eq!(receive(&inbox, 3000), []);
    }

    #[test]
    fn a_packet_that_no_buffer_holds_is_lost_and_the_next_one_comes() {
        let inbox = Inbox::default();
        assert!(inbox.push(batch(1, 2000, 4000)) && inbox.push(batch(2, 100, 100)));
        assert_eq!(receive(&inbox, 1500), [(100, 100)]);
    }

    #[test]
    fn memory_is_bounded_and_room_comes_back() {
        let inbox = Inbox::default();
        let mut taken = 0;
        while inbox.push(batch(1, 1200, 60_000)) {
            taken += 1;
        }
        assert!(taken * 60_000 < CAPACITY + 60_000 * 2);
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll_room(&cx), Poll::Pending);
        assert_eq!(receive(&inbox, 64_000).len(), 4);
        assert_eq!(inbox.poll_room(&cx), Poll::Ready(()));
    }
}
