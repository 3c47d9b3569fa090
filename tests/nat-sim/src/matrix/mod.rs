//! The matrix: every pair of kinds, run many times, with the product's machines at its hosts.

mod cell;
mod pair;

pub use cell::{Cell, spread};
pub use pair::{Pair, Run, Setting, UnknownPair};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::kind::Kind;

/// Every pair of named kinds, in the order in which a matrix shows them.
#[must_use]
pub fn all_pairs() -> Vec<Pair> {
    let kinds: Vec<Kind> = Kind::all().into_iter().chain(Kind::FURTHER).collect();
    let rows = kinds.iter().enumerate();
    rows.flat_map(|(n, a)| kinds[n..].iter().map(|b| Pair { a: *a, b: *b })).collect()
}

/// Does `work` for each number below `count`, on as many threads as there are processors, and gives the
/// results in order.
pub fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(count.max(1));
    let mut done: Vec<(usize, T)> = thread::scope(|scope| {
        let take = || {
            let mut done = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return done;
                }
                done.push((n, work(n)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
            .collect()
    });
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}
