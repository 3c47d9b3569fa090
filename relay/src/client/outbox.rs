//! Frames on their way to a relay.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use proto::wire::relay::{Address, Data, Frame, MAX_FIRST};
use tokio::sync::Notify;

use crate::relayed::{Lane, Outlet};

/// Bytes of data that wait at most: so little that what is behind them is not late, and enough to keep the
/// connection busy while the sending task is scheduled.
const DATA: usize = 256 * 1024;

/// Bytes of data that wait for the connection to be there: the first flights of a few handshakes.
const EARLY: usize = 32 * 1024;

/// Bytes of control that wait at most.
const CONTROL: usize = 64 * 1024;

/// Two lanes, each bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: Mutex<Lanes>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    /// Whether a relay takes frames now.
    up: bool,
    control: VecDeque<Vec<u8>>,
    control_bytes: usize,
    data: VecDeque<Vec<u8>>,
    data_bytes: usize,
    blocked: Vec<Waker>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay takes frames from here on: these first.
    pub(super) fn open(&self, first: Vec<Vec<u8>>) {
        let mut lanes = self.lock();
        lanes.up = true;
        for frame in first.into_iter().rev() {
            lanes.control_bytes += frame.len();
            lanes.control.push_front(frame);
        }
        drop(lanes);
        self.ready.notify_one();
    }

    /// Takes out the first packet for the relay's own `server`, once there is one, while there is no connection yet.
    pub(super) async fn first(&self, server: Address) -> Vec<u8> {
        loop {
            if let Some(packet) = self.lock().take_first(server) {
                return packet;
            }
            self.ready.notified().await;
        }
    }

    /// It takes none any more: whatever waits is lost, as packets are, and nobody waits for room.
    pub(super) fn close(&self) {
        let mut lanes = self.lock();
        let blocked = std::mem::take(&mut *lanes).blocked;
        drop(lanes);
        blocked.into_iter().for_each(Waker::wake);
    }

    /// The next frames, about `budget` bytes of them, once there are any. Control goes first.
    pub(super) async fn next(&self, budget: usize) -> Vec<Vec<u8>> {
        loop {
            let frames = self.take(budget);
            if !frames.is_empty() {
                return frames;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self, budget: usize) -> Vec<Vec<u8>> {
        let mut lanes = self.lock();
        if !lanes.up {
            return Vec::new();
        }
        let mut frames: Vec<_> = lanes.control.drain(..).collect();
        lanes.control_bytes = 0;
        let mut bytes = 0;
        while bytes < budget
            && let Some(frame) = lanes.data.pop_front()
        {
            bytes += frame.len();
            frames.push(frame);
        }
        lanes.data_bytes -= bytes;
        let blocked = if lanes.has_room() { std::mem::take(&mut lanes.blocked) } else { Vec::new() };
        drop(lanes);
        blocked.into_iter().for_each(Waker::wake);
        frames
    }
}

impl Lanes {
    fn take_first(&mut self, server: Address) -> Option<Vec<u8>> {
        let (index, packet) =
            self.data.iter().enumerate().find_map(|(index, frame)| match Frame::parse(frame) {
                Ok(Frame::Data(Data { remote, packets, .. }))
                    if remote == server && packets.len() <= MAX_FIRST =>
                {
                    Some((index, packets.to_vec()))
                }
                Ok(_) | Err(_) => None,
            })?;
        self.data_bytes -= self.data.remove(index)?.len();
        Some(packet)
    }

    fn has_room(&self) -> bool {
        !self.up || self.data_bytes < DATA
    }
}

impl Outlet for Outbox {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> bool {
        let mut lanes = self.lock();
        let taken = match lane {
            Lane::Control if lanes.control_bytes < CONTROL => {
                lanes.control_bytes += frame.len();
                lanes.control.push_back(frame);
                true
            }
            Lane::Control => false,
            Lane::Data if lanes.up && lanes.data_bytes >= DATA => return false,
            // While there is no relay, what is over the bound is lost without a word: nobody should wait for it.
            Lane::Data if !lanes.up && lanes.data_bytes + frame.len() > EARLY => return true,
            Lane::Data => {
                lanes.data_bytes += frame.len();
                lanes.data.push_back(frame);
                true
            }
        };
        drop(lanes);
        self.ready.notify_one();
        taken
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lanes = self.lock();
        if lanes.has_room() {
            return Poll::Ready(());
        }
        lanes.blocked.retain(|waker| !waker.will_wake(cx.waker()));
        lanes.blocked.push(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn control_passes_by_data_and_both_wait_for_the_relay() {
        let outbox = Outbox::default();
        assert!(outbox.send(Lane::Data, vec![1; 10]) && outbox.send(Lane::Control, vec![2; 10]));
        assert!(outbox.take(1000).is_empty());
        outbox.open(vec![vec![3; 10]]);
        assert_eq!(outbox.next(1000).await, [vec![3; 10], vec![2; 10], vec![1; 10]]);
    }

    #[test]
    fn a_full_outbox_says_so_while_there_is_a_relay_and_loses_silently_while_there_is_none() {
        let outbox = Arc::new(Outbox::default());
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            assert!(outbox.send(Lane::Data, vec![1; 10_000]));
        }
        assert!(outbox.lock().data_bytes <= EARLY);
        assert_eq!(outbox.poll_room(&mut cx), Poll::Ready(()));
        outbox.open(Vec::new());
        while outbox.send(Lane::Data, vec![1; 10_000]) {}
        assert!(outbox.lock().data_bytes <= DATA + 10_000);
        assert_eq!(outbox.poll_room(&mut cx), Poll::Pending);
        while !outbox.take(64 * 1024).is_empty() {}
        assert_eq!(outbox.poll_room(&mut cx), Poll::Ready(()));
        assert_eq!(outbox.lock().data_bytes, 0);
    }

    #[test]
    fn what_waited_for_a_relay_that_is_gone_is_not_sent_to_the_next() {
        let outbox = Outbox::default();
        outbox.open(Vec::new());
        outbox.send(Lane::Data, vec![1; 10]);
        outbox.close();
        outbox.open(Vec::new());
        assert!(outbox.take(1000).is_empty());
    }
}
