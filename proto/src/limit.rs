//! Limits on what strangers get: token buckets by source prefix, and one for all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::machine::Bucket;

/// How many prefixes are remembered. When all places are taken by prefixes that still owe, a new one is
/// refused: the limiter then sheds strangers, never memory.
pub const MAX_PREFIXES: usize = 16_384;

/// A source's network: /24 of IPv4, /56 of IPv6. Whoever holds one address usually holds the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix([u8; 8]);

impl Prefix {
    /// The prefix of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self([4, 0, 0, 0, a, b, c, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, ..] = ip.octets();
                Self([6, a, b, c, d, e, f, g])
            }
        }
    }
}

/// How many of something each prefix holds, of which none gets more than its part.
#[derive(Debug)]
pub struct PrefixParts {
    each: usize,
    held: BTreeMap<Prefix, usize>,
}

impl PrefixParts {
    /// Nobody has anything yet; `each` is what a prefix may hold at the most.
    pub const fn new(each: usize) -> Self {
        Self { each, held: BTreeMap::new() }
    }

    /// Whether one more is there for this prefix, which then holds it until [`Self::give_back`].
    pub fn take(&mut self, prefix: Prefix) -> bool {
        let held = self.held.get(&prefix).copied().unwrap_or(0);
        let has_room = held < self.each;
        if has_room {
            self.held.insert(prefix, held + 1);
        }
        has_room
    }

    /// A prefix holds one less.
    pub fn give_back(&mut self, prefix: Prefix) {
        match self.held.get_mut(&prefix) {
            Some(held) if *held > 1 => *held -= 1,
            Some(_) | None => drop(self.held.remove(&prefix)),
        }
    }
}

/// A rate: `burst` at once, then one every `refill`.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// How long until one more.
    pub refill: Duration,
}

/// A rate for each prefix and one in all.
#[derive(Debug)]
pub struct PrefixLimiter {
    each: Rate,
    total: Rate,
    total_bucket: Bucket,
    buckets: BTreeMap<Prefix, (Bucket, Instant)>,
}

impl PrefixLimiter {
    /// A limiter that starts full.
    pub fn new(each: Rate, total: Rate, now: Instant) -> Self {
        let total_bucket = Bucket::full(total.burst, total.refill, now);
        Self { each, total, total_bucket, buckets: BTreeMap::new() }
    }

    /// Whether one more is allowed to this source.
    pub fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        let prefix = Prefix::of(source.ip());
        if !self.buckets.contains_key(&prefix) && self.buckets.len() >= MAX_PREFIXES {
            let idle = self.each.refill * self.each.burst;
            self.buckets.retain(|_, (_, used)| now.saturating_duration_since(*used) < idle);
            if self.buckets.len() >= MAX_PREFIXES {
                return false;
            }
        }
        let Rate { burst, refill } = self.each;
        let (bucket, used) =
            self.buckets.entry(prefix).or_insert_with(|| (Bucket::full(burst, refill, now), now));
        *used = now;
        bucket.take(burst, refill, now) && self.allow_unplaced(now)
    }

    /// Whether one more is allowed to somebody whose address says nothing: behind a proxy, all have the same.
    pub fn allow_unplaced(&mut self, now: Instant) -> bool {
        self.total_bucket.take(self.total.burst, self.total.refill, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;

    fn rate(burst: u32, refill_ms: u64) -> Rate {
        Rate { burst, refill: Duration::from_millis(refill_ms) }
    }

    #[test]
    fn neighbours_share_a_bucket_and_strangers_do_not() {
        let now = start();
        let mut limiter = PrefixLimiter::new(rate(5, 1000), rate(1000, 1), now);
        let mut allowed = |text: &str| limiter.allow(text.parse().unwrap(), now);
        assert_eq!((1..=10).filter(|n| allowed(&format!("192.0.2.{n}:9"))).count(), 5);
        assert!(allowed("192.0.3.1:9"));
        assert_eq!((1..=10).filter(|n| allowed(&format!("[2001:db8:0:{n}::1]:9"))).count(), 5);
        assert!(allowed("[2001:db8:1::1]:9"));
    }

    #[test]
    fn a_prefix_has_its_part_and_gives_it_back() {
        let mut parts = PrefixParts::new(2);
        let [one, other] = ["192.0.2.1", "192.0.3.1"].map(|ip| Prefix::of(ip.parse().unwrap()));
        assert!(parts.take(one) && parts.take(one) && !parts.take(one) && parts.take(other));
        parts.give_back(one);
        assert!(parts.take(one) && !parts.take(one));
        [one, one, other].into_iter().for_each(|prefix| parts.give_back(prefix));
        assert!(parts.held.is_empty());
    }

    #[test]
    fn the_total_holds_against_many_prefixes() {
        let now = start();
        let mut limiter = PrefixLimiter::new(rate(5, 1000), rate(100, 1000), now);
        let hits = (0..5000_u32).filter(|n| {
            let ip = IpAddr::from([10, (n >> 8) as u8, *n as u8, 1]);
            limiter.allow(SocketAddr::new(ip, 1), now)
        });
        assert_eq!(hits.count(), 100);
    }

    #[test]
    fn memory_is_bounded_and_recovers() {
        let mut now = start();
        let mut limiter = PrefixLimiter::new(rate(5, 1000), rate(1_000_000, 0), now);
        let ip = |n: u32| SocketAddr::new(IpAddr::from([1 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 1]), 1);
        for n in 0..MAX_PREFIXES as u32 + 100 {
            limiter.allow(ip(n), now);
        }
        assert_eq!(limiter.buckets.len(), MAX_PREFIXES);
        assert!(!limiter.allow(ip(500_000), now));
        now += Duration::from_secs(6);
        assert!(limiter.allow(ip(500_000), now));
        assert!(limiter.buckets.len() < 10);
    }
}
