//! Whom a receiver lets in, and until when.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::wire::relay::Address;

/// How many open ways a receiver has at most. One more displaces the one that would close first: its owner
/// opens it again by sending.
pub(super) const MAX_WAYS: usize = 1024;

/// The open ways to one receiver.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<Address, Instant>);

impl Ways {
    /// Lets `from` in until then, or longer where that was so already.
    pub(super) fn open(&mut self, from: Address, until: Instant) {
        if let Some(known) = self.0.get_mut(&from) {
            *known = until.max(*known);
            return;
        }
        if self.0.len() >= MAX_WAYS
            && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(from, _)| *from)
        {
            self.0.remove(&first);
        }
        self.0.insert(from, until);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `from` is let in now.
    pub(super) fn is_open(&self, from: &Address, now: Instant) -> bool {
        self.0.get(from).is_some_and(|until| now < *until)
    }

    /// Forgets the ways that are closed.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, until| now < *until);
    }
}
