//! What comes out of a link later, in order of (time, sequence).

use std::collections::BTreeMap;
use std::time::Instant;

/// Packets that may be under way; more are lost, as in a full buffer.
const CAPACITY: usize = 65_536;

/// Things that are due at their times.
#[derive(Debug)]
pub(super) struct Queue<T> {
    due: BTreeMap<(Instant, u64), T>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), sequence: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, at: Instant, thing: T) {
        if self.due.len() < CAPACITY {
            self.sequence += 1;
            self.due.insert((at, self.sequence), thing);
        }
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        self.next_at().filter(|at| *at <= now)?;
        self.due.pop_first().map(|(_, thing)| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_due_first_comes_out_first_and_equals_keep_their_order() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for (ms, thing) in [(2, 'c'), (1, 'a'), (1, 'b')] {
            queue.push(now + Duration::from_millis(ms), thing);
        }
        assert_eq!(queue.pop_due(now), None);
        let later = now + Duration::from_millis(2);
        let out: String = std::iter::from_fn(|| queue.pop_due(later)).collect();
        assert_eq!((out.as_str(), queue.next_at()), ("abc", None));
    }
}
