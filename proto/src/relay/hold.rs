//! What arrived for a receiver that did not let it in yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::limit::Prefix;
use crate::relay::outbox::{Lane, cost};
use crate::wire::relay::Address;

/// How long a frame is held: an offer's way to the receiver and the allow's way back, on a slow path.
pub(super) const HELD: Duration = Duration::from_secs(5);

/// What is held of one sender for one receiver: its first flights.
pub(super) const MAX_PAIR: usize = 8 * 1024;

/// The senders of whom something is held for one receiver.
pub(super) const MAX_PAIRS: usize = 64;

#[derive(Debug)]
struct Waiting {
    since: Instant,
    lane: Lane,
    frame: Vec<u8>,
}

/// What is held of one sender.
#[derive(Debug)]
struct Pair {
    source: Option<Prefix>,
    frames: VecDeque<Waiting>,
    bytes: usize,
}

/// What is held for one receiver.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pairs: BTreeMap<Address, Pair>,
    bytes: usize,
}

impl Hold {
    /// What is held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds a frame. Says how many are lost for it.
    pub(super) fn push(
        &mut self,
        from: Address,
        source: Option<Prefix>,
        (lane, frame): (Lane, Vec<u8>),
        now: Instant,
    ) -> usize {
        let size = cost(&frame);
        if size > MAX_PAIR {
            return 1;
        }
        let mut lost = 0;
        if !self.pairs.contains_key(&from) && self.pairs.len() >= MAX_PAIRS {
            lost += self.make_room();
        }
        let pair =
            self.pairs.entry(from).or_insert_with(|| Pair { source, frames: VecDeque::new(), bytes: 0 });
        while pair.bytes + size > MAX_PAIR
            && let Some(oldest) = pair.frames.pop_front()
        {
            pair.bytes -= cost(&oldest.frame);
            self.bytes -= cost(&oldest.frame);
            lost += 1;
        }
        pair.bytes += size;
        self.bytes += size;
        pair.frames.push_back(Waiting { since: now, lane, frame });
        lost
    }

    /// Takes out what is held of one sender, the oldest first.
    pub(super) fn release(&mut self, from: &Address) -> impl Iterator<Item = (Lane, Vec<u8>)> {
        let pair = self.pairs.remove(from);
        self.bytes -= pair.as_ref().map_or(0, |pair| pair.bytes);
        pair.into_iter().flat_map(|pair| pair.frames).map(|waiting| (waiting.lane, waiting.frame))
    }

    /// Drops what was held for too long. Says how many frames that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let mut lost = 0;
        for pair in self.pairs.values_mut() {
            while let Some(oldest) = pair.frames.front().filter(|oldest| oldest.since + HELD <= now) {
                let size = cost(&oldest.frame);
                pair.bytes -= size;
                self.bytes -= size;
                pair.frames.pop_front();
                lost += 1;
            }
        }
        self.pairs.retain(|_, pair| !pair.frames.is_empty());
        lost
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.pairs.values().filter_map(|pair| pair.frames.front()).map(|oldest| oldest.since + HELD).min()
    }

    /// How many frames are held.
    pub(super) fn len(&self) -> usize {
        self.pairs.values().map(|pair| pair.frames.len()).sum()
    }

    /// Drops the oldest pair among those of the source that has most of them: one network's flood makes room
    /// for others, not for itself at their cost.
    fn make_room(&mut self) -> usize {
        let mut sources = BTreeMap::<Option<Prefix>, usize>::new();
        for pair in self.pairs.values() {
            *sources.entry(pair.source).or_default() += 1;
        }
        let Some(crowded) = sources.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source)
        else {
            return 0;
        };
        let of_the_crowd = self.pairs.iter().filter(|(_, pair)| pair.source == crowded);
        let oldest = of_the_crowd
            .min_by_key(|(_, pair)| pair.frames.front().map(|waiting| waiting.since))
            .map(|(from, _)| *from);
        let pair = oldest.and_then(|oldest| self.pairs.remove(&oldest));
        self.bytes -= pair.as_ref().map_or(0, |pair| pair.bytes);
        pair.map_or(0, |pair| pair.frames.len())
    }
}
