//! What waits to be written to one receiver: a small lane for control, and one for data in which each
//! sender has its turn.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::relay::Address;

/// What a frame takes in memory beside its bytes. It keeps queues of small frames bounded too.
const OVERHEAD: usize = 64;

/// How many bytes a sender's turn gains it: a batch of full packets.
const QUANTUM: usize = 16 * 1024;

/// How a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Before all data.
    Control,
    /// In its sender's turn.
    Data,
}

/// What a frame counts for in a queue.
pub(super) const fn cost(frame: &[u8]) -> usize {
    frame.len() + OVERHEAD
}

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    /// Whether it is a peer's, and not the relay's own.
    pub(super) forwarded: bool,
}

/// All that waits for one receiver.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: VecDeque<Outgoing>,
    control_bytes: usize,
    flows: BTreeMap<Address, Flow>,
    /// The senders that have something waiting, in the order of their turns.
    turns: VecDeque<Address>,
    data_bytes: usize,
}

/// What waits of one sender.
#[derive(Debug, Default)]
struct Flow {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// What it may still send in this turn.
    credit: usize,
}

impl Outbox {
    /// What waits, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.control_bytes + self.data_bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.turns.is_empty()
    }

    /// How many frames of peers wait.
    pub(super) fn forwarded_len(&self) -> usize {
        let control = self.control.iter().filter(|outgoing| outgoing.forwarded).count();
        control + self.flows.values().map(|flow| flow.frames.len()).sum::<usize>()
    }

    /// Adds a control frame, unless that would be over `limit`. Whether it did.
    pub(super) fn push_control(&mut self, outgoing: Outgoing, limit: usize) -> bool {
        let size = cost(&outgoing.frame);
        let fits = self.control_bytes + size <= limit;
        if fits {
            self.control_bytes += size;
            self.control.push_back(outgoing);
        }
        fits
    }

    /// Adds a data frame. Where that would be over `limit`, whoever has most waiting loses its newest; says
    /// how many frames that took.
    pub(super) fn push_data(&mut self, from: Address, frame: Vec<u8>, limit: usize) -> usize {
        let size = cost(&frame);
        let mut lost = 0;
        while self.data_bytes + size > limit {
            let own = self.flows.get(&from).map_or(0, |flow| flow.bytes);
            let fattest = self.flows.iter().max_by_key(|(_, flow)| flow.bytes);
            let Some((fattest, _)) = fattest.filter(|(_, flow)| flow.bytes > own + size) else {
                return lost + 1;
            };
            let fattest = *fattest;
            lost += self.drop_newest(fattest);
        }
        let flow = self.flows.entry(from).or_default();
        if flow.frames.is_empty() {
            self.turns.push_back(from);
        }
        flow.frames.push_back(frame);
        flow.bytes += size;
        self.data_bytes += size;
        lost
    }

    /// The frame that leaves next.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        if let Some(outgoing) = self.control.pop_front() {
            self.control_bytes -= cost(&outgoing.frame);
            return Some(outgoing);
        }
        loop {
            // Deficit round robin (Shreedhar and Varghese, 1995).
            let from = *self.turns.front()?;
            let flow = self.flows.get_mut(&from)?;
            let size = flow.frames.front().map_or(0, |frame| cost(frame));
            if flow.credit < size {
                flow.credit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let frame = flow.frames.pop_front()?;
            flow.credit -= size;
            flow.bytes -= size;
            self.data_bytes -= size;
            if flow.frames.is_empty() {
                self.flows.remove(&from);
                self.turns.pop_front();
            }
            return Some(Outgoing { frame, forwarded: true });
        }
    }

    fn drop_newest(&mut self, from: Address) -> usize {
        let Some(flow) = self.flows.get_mut(&from) else { return 0 };
        let Some(frame) = flow.frames.pop_back() else { return 0 };
        flow.bytes -= cost(&frame);
        self.data_bytes -= cost(&frame);
        if flow.frames.is_empty() {
            self.flows.remove(&from);
            self.turns.retain(|turn| *turn != from);
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Instance, PeerId};

    fn peer(n: u8) -> Address {
        Address { peer: PeerId::from_bytes([n; 32]), instance: Instance([n; 8]) }
    }

    /// A frame of `len` bytes that begins with its sender's number.
    fn frame(from: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[0] = from;
        frame
    }

    #[test]
    fn senders_of_small_and_of_large_frames_get_the_same_bytes() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push_data(peer(1), frame(1, 1000), usize::MAX);
        }
        for _ in 0..30 {
            outbox.push_data(peer(2), frame(2, 60_000), usize::MAX);
        }
        let mut bytes = [0_usize; 3];
        while bytes.iter().sum::<usize>() < 1_000_000 {
            let out = outbox.pop().unwrap().frame;
            bytes[usize::from(out[0])] += out.len();
        }
        assert!(bytes[1].abs_diff(bytes[2]) < 100_000, "{bytes:?}");
    }

    #[test]
    fn a_sender_that_fills_the_queue_does_not_keep_another_out() {
        let mut outbox = Outbox::default();
        let limit = 100_000;
        for _ in 0..1000 {
            outbox.push_data(peer(1), frame(1, 1000), limit);
        }
        let lost: usize = (0..40).map(|_| outbox.push_data(peer(2), frame(2, 1000), limit)).sum();
        assert!(outbox.bytes() <= limit);
        let out: Vec<_> = std::iter::from_fn(|| outbox.pop()).map(|out| out.frame[0]).collect();
        assert_eq!(out.iter().filter(|from| **from == 2).count(), 40, "{lost} of the other's were lost");
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn control_passes_by_data_and_has_its_own_limit() {
        let mut outbox = Outbox::default();
        outbox.push_data(peer(1), frame(1, 100), 10_000);
        let control = |n| Outgoing { frame: frame(n, 100), forwarded: true };
        assert!(outbox.push_control(control(9), 200));
        assert!(!outbox.push_control(control(8), 200));
        assert_eq!(outbox.forwarded_len(), 2);
        assert_eq!(outbox.pop().unwrap().frame[0], 9);
        assert_eq!(outbox.pop().unwrap().frame[0], 1);
        assert!(outbox.is_empty() && outbox.pop().is_none());
    }
}
