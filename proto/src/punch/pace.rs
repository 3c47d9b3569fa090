//! **Pace**: when the batches of a long series leave, which is 500 packets in any second, and no more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a batch leaves.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);

/// Packets of a batch.
pub(super) const BATCH: usize = 5;

/// Batches in the time that they are counted in.
const BATCHES: usize = 100;
const SECOND: Duration = Duration::from_secs(1);

/// How many leave at once, where a busy machine kept the shell from sending: in a series that has to be through before
/// flows close, late packets are lost ones.
const AT_ONCE: u32 = 3;

/// When the last ones left.
#[derive(Debug, Default)]
pub(super) struct Pace {
    left: VecDeque<Instant>,
}

impl Pace {
    /// A batch that was due at `due` leaves at `now`: when the next one is due.
    pub(super) fn after(&mut self, due: Instant, now: Instant) -> Instant {
        if self.left.len() == BATCHES {
            self.left.pop_front();
        }
        self.left.push_back(now);
        let behind = now.checked_sub((AT_ONCE - 1) * INTERVAL).unwrap_or(now);
        self.not_before(due.max(behind) + INTERVAL)
    }

    /// `due`, or when the second has room for one more.
    pub(super) fn not_before(&self, due: Instant) -> Instant {
        let is_full = self.left.len() == BATCHES;
        self.left.front().filter(|_| is_full).map_or(due, |first| due.max(*first + SECOND))
    }
}
