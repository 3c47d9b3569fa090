//! **Unread**: how much all who do not read may make a server hold, and who is cut when it is more.
//!
//! A write that has to wait stands for what is held behind it. Who reads at all waits for moments only, and who
//! does not for ever: so it is the one that has waited longest who goes, and the others never notice.

use std::collections::BTreeMap;

/// A write that waits, never named again once it has ended. In the order of when they began.
pub type WaitKey = u64;

/// The machine. With each waiting write it keeps what its driver needs to end it.
#[derive(Debug)]
pub struct Unread<T> {
    budget: u64,
    held: u64,
    next: WaitKey,
    waiting: BTreeMap<WaitKey, (u32, T)>,
}

impl<T> Unread<T> {
    /// Nobody waits. `budget` is in bytes.
    pub const fn new(budget: u64) -> Self {
        Self { budget, held: 0, next: 0, waiting: BTreeMap::new() }
    }

    /// A write begins to wait, and `bytes` are held because of it at the most.
    pub fn handle_blocked(&mut self, bytes: u32, write: T) -> WaitKey {
        let key = self.next;
        self.next += 1;
        self.held += u64::from(bytes);
        self.waiting.insert(key, (bytes, write));
        key
    }

    /// It waits no longer, for whatever reason. That of one which was cut is known already.
    pub fn handle_moved(&mut self, key: WaitKey) {
        if let Some((bytes, _)) = self.waiting.remove(&key) {
            self.held -= u64::from(bytes);
        }
    }

    /// Who is to be cut now, and counts no more.
    pub fn poll_cut(&mut self) -> Option<T> {
        if self.held <= self.budget {
            return None;
        }
        let (_, (bytes, write)) = self.waiting.pop_first()?;
        self.held -= u64::from(bytes);
        Some(write)
    }

    /// How many bytes are held at the most.
    pub const fn held(&self) -> u64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(unread: &mut Unread<char>) -> String {
        std::iter::from_fn(|| unread.poll_cut()).collect()
    }

    #[test]
    fn over_the_budget_those_go_who_have_waited_longest() {
        let mut unread = Unread::new(10);
        let a = unread.handle_blocked(4, 'a');
        unread.handle_blocked(4, 'b');
        assert_eq!(cut(&mut unread), "");
        unread.handle_blocked(4, 'c');
        assert_eq!((cut(&mut unread).as_str(), unread.held()), ("a", 8));
        // It notices later that it was cut.
        unread.handle_moved(a);
        unread.handle_blocked(9, 'd');
        assert_eq!((cut(&mut unread).as_str(), unread.held()), ("bc", 9));
    }

    #[test]
    fn who_reads_now_and_then_stays_while_those_who_do_not_go() {
        let mut unread = Unread::new(100);
        let mut reader = unread.handle_blocked(10, 'r');
        for _ in 0..1000 {
            unread.handle_moved(reader);
            reader = unread.handle_blocked(10, 'r');
            unread.handle_blocked(10, 's');
            assert!(!cut(&mut unread).contains('r'));
        }
    }

    #[test]
    fn what_is_larger_than_the_budget_goes_at_once() {
        let mut unread = Unread::new(10);
        unread.handle_blocked(11, 'a');
        assert_eq!((cut(&mut unread).as_str(), unread.held()), ("a", 0));
        unread.handle_blocked(u32::MAX, 'b');
        unread.handle_blocked(u32::MAX, 'c');
        assert_eq!((cut(&mut unread).as_str(), unread.held()), ("bc", 0));
    }

    proptest! {
        #[test]
        fn no_more_is_ever_held_than_the_budget(
            writes in prop::collection::vec((0_u32..40, any::<bool>(), 0_usize..8), 0..200),
        ) {
            let mut unread = Unread::new(100);
            let mut keys = Vec::new();
            for (bytes, moves, which) in writes {
                if moves && !keys.is_empty() {
                    unread.handle_moved(keys.swap_remove(which % keys.len()));
                } else {
                    keys.push(unread.handle_blocked(bytes, 'x'));
                }
                cut(&mut unread);
                prop_assert!(unread.held() <= 100);
                let sum: u64 = unread.waiting.values().map(|(bytes, _)| u64::from(*bytes)).sum();
                prop_assert_eq!(unread.held(), sum);
            }
        }
    }
}
