//! Chance: every random choice of the laboratory, from one seed.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A source of random choices that is replayed exactly by the same seed and stream.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice of `stream` under `seed`. Different streams of one seed are independent, so that one part
    /// of a world can draw more often without changing what another draws.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..n`; 0 when `n` is 0. The bias is below `n / 2^32`.
    pub fn below(&mut self, n: u32) -> u32 {
        let scaled = (u64::from(self.0.next_u32()) * u64::from(n)) >> 32;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// A port of `range`.
    pub fn port(&mut self, range: &RangeInclusive<u16>) -> u16 {
        let span = u32::from(range.end().saturating_sub(*range.start())) + 1;
        range.start().saturating_add(u16::try_from(self.below(span)).unwrap_or(0))
    }

    /// True with probability `p`. Draws nothing when `p` is 0 or less, or 1 or more.
    pub fn chance(&mut self, p: f64) -> bool {
        if p <= 0.0 {
            return false;
        }
        p >= 1.0 || f64::from(self.0.next_u32()) < p * (f64::from(u32::MAX) + 1.0)
    }

    /// A duration in `0..=limit`, in whole nanoseconds. Draws nothing when `limit` is 0.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        if limit.is_zero() {
            return Duration::ZERO;
        }
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX - 1);
        let scaled = (u128::from(self.0.next_u64()) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_stream_draw_the_same_numbers_and_another_stream_does_not() {
        let draw = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            (0..8).map(|_| dice.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn choices_stay_within_their_limits_and_reach_both_ends() {
        let mut dice = Dice::new(1, 0);
        let ports: Vec<u16> = (0..2_000).map(|_| dice.port(&(10..=19))).collect();
        assert_eq!((ports.iter().min(), ports.iter().max()), (Some(&10), Some(&19)));
        assert!((0..2_000).all(|_| dice.up_to(Duration::from_millis(5)) <= Duration::from_millis(5)));
        assert!(!dice.chance(0.0) && dice.chance(1.0));
        let hits = (0..20_000).filter(|_| dice.chance(0.05)).count();
        assert!((850..1_150).contains(&hits), "{hits} of 20 000 at 5 %");
    }
}
