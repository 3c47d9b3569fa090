//! What the machines share: back-off, budgets, the earliest of several timeouts.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::RngCore as _;

/// The earlier of two timeouts, where `None` is never.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A random duration below `limit`.
pub fn jitter(rng: &mut ChaCha12Rng, limit: Duration) -> Duration {
    limit.mul_f64(f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0))
}

/// Random bytes.
pub fn random<const N: usize>(rng: &mut ChaCha12Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Exponential back-off with jitter: attempt *n* waits between half of `first · 2ⁿ` and the whole of it,
/// `limit` at most.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    attempts: u32,
}

impl Backoff {
    /// A fresh back-off.
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, attempts: 0 }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self, rng: &mut ChaCha12Rng) -> Duration {
        let whole = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.limit);
        self.attempts = self.attempts.saturating_add(1);
        whole / 2 + jitter(rng, whole / 2)
    }

    /// After a success.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A token bucket: `burst` at once, then one every `refill`.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// When the bucket was, or will be, empty of debt: it holds (now − this) / refill tokens.
    empty_since: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(burst: u32, refill: Duration, now: Instant) -> Self {
        Self { empty_since: now.checked_sub(refill * burst).unwrap_or(now) }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, burst: u32, refill: Duration, now: Instant) -> bool {
        if let Some(floor) = now.checked_sub(refill * burst) {
            self.empty_since = self.empty_since.max(floor);
        }
        let next = self.empty_since + refill;
        if next > now {
            return false;
        }
        self.empty_since = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;
    use rand_chacha::rand_core::SeedableRng as _;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut now, second) = (start(), Duration::from_secs(1));
        let mut bucket = Bucket::full(5, second, now);
        assert_eq!((0..10).filter(|_| bucket.take(5, second, now)).count(), 5);
        now += second;
        assert_eq!((0..10).filter(|_| bucket.take(5, second, now)).count(), 1);
        now += second * 100;
        assert_eq!((0..10).filter(|_| bucket.take(5, second, now)).count(), 5);
    }

    #[test]
    fn back_off_doubles_to_its_limit_with_jitter() {
        let mut rng = ChaCha12Rng::from_seed([1; 32]);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for n in 0..40_u32 {
            let whole = Duration::from_secs(1 << n.min(10)).min(Duration::from_secs(30));
            let delay = backoff.next_delay(&mut rng);
            assert!(delay >= whole / 2 && delay <= whole, "{n}: {delay:?}");
        }
    }
}
