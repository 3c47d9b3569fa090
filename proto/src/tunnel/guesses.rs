//! **Guesses**: who may still try the password of a share.
//!
//! Wrong ones are counted for each share by itself, and there for each host: a neighbour who mistypes, or
//! somebody who visits another share, takes nothing from anybody. All hosts together have a slow rate for each
//! share, which holds against many addresses; a host that has been let in is not asked to share it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limit::Rate;
use crate::machine::Bucket;
use crate::name::ShareName;

/// What the machine allows.
#[derive(Debug, Clone)]
pub struct GuessesConfig {
    /// Wrong passwords of one host for one share: nobody mistypes more, and nobody guesses with as few.
    pub each: Rate,
    /// Of all hosts for one share.
    pub share: Rate,
    /// In all.
    pub total: Rate,
    /// Hosts that are remembered: a hundred bytes each. Half of the places are for those who guess.
    pub places: usize,
    /// For how long a host that was let in is remembered.
    pub known: Duration,
}

impl Default for GuessesConfig {
    fn default() -> Self {
        Self {
            each: Rate { burst: 20, refill: Duration::from_secs(3) },
            share: Rate { burst: 1000, refill: Duration::from_secs(1) },
            total: Rate { burst: 10_000, refill: Duration::from_millis(1) },
            places: 32_768,
            known: Duration::from_secs(24 * 3600),
        }
    }
}

#[derive(Debug)]
struct Host {
    bucket: Bucket,
    used: Instant,
    let_in: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Guesses {
    config: GuessesConfig,
    hosts: BTreeMap<(ShareName, IpAddr), Host>,
    shares: BTreeMap<ShareName, (Bucket, Instant)>,
    total: Bucket,
}

impl Guesses {
    /// One in which nobody has guessed.
    pub fn new(config: GuessesConfig, now: Instant) -> Self {
        let total = Bucket::full(config.total.burst, config.total.refill, now);
        Self { config, hosts: BTreeMap::new(), shares: BTreeMap::new(), total }
    }

    /// Whether this host may try the share's password. Where too many have, and there is no place left to
    /// remember one more, a host that is not known may not.
    pub fn may(&mut self, share: &ShareName, ip: IpAddr, now: Instant) -> bool {
        let has = |bucket: &Bucket, rate: Rate| bucket.clone().take(rate.burst, rate.refill, now);
        let own = self.hosts.get(&(share.clone(), host(ip)));
        let let_in = own.is_some_and(|own| own.let_in);
        let allowed = own.is_none_or(|own| has(&own.bucket, self.config.each))
            && (let_in
                || self.shares.get(share).is_none_or(|(bucket, _)| has(bucket, self.config.share))
                    && has(&self.total, self.config.total));
        allowed && (own.is_some() || self.has_place(now))
    }

    /// It has tried, and was wrong.
    pub fn handle_wrong(&mut self, share: &ShareName, ip: IpAddr, now: Instant) {
        let GuessesConfig { each, share: all, total, .. } = self.config;
        let full = |rate: Rate| Bucket::full(rate.burst, rate.refill, now);
        let fresh = || Host { bucket: full(each), used: now, let_in: false };
        let own = self.hosts.entry((share.clone(), host(ip))).or_insert_with(fresh);
        own.used = now;
        own.bucket.take(each.burst, each.refill, now);
        let (bucket, used) = self.shares.entry(share.clone()).or_insert_with(|| (full(all), now));
        *used = now;
        bucket.take(all.burst, all.refill, now);
        self.total.take(total.burst, total.refill, now);
    }

    /// It has tried, and was let in. It is remembered where there is room.
    pub fn handle_right(&mut self, share: &ShareName, ip: IpAddr, now: Instant) {
        let room = self.hosts.len() < self.config.places / 2;
        let key = (share.clone(), host(ip));
        if let Some(own) = self.hosts.get_mut(&key) {
            (own.used, own.let_in) = (now, true);
        } else if room {
            let Rate { burst, refill } = self.config.each;
            self.hosts
                .insert(key, Host { bucket: Bucket::full(burst, refill, now), used: now, let_in: true });
        }
    }

    fn has_place(&mut self, now: Instant) -> bool {
        if self.hosts.len() >= self.config.places || self.shares.len() >= self.config.places {
            let GuessesConfig { each, share, known, .. } = self.config;
            let idle = |used: Instant, over: Duration| now.saturating_duration_since(used) >= over;
            self.hosts
                .retain(|_, own| !idle(own.used, if own.let_in { known } else { each.refill * each.burst }));
            self.shares.retain(|_, (_, used)| !idle(*used, share.refill * share.burst));
        }
        self.hosts.len() < self.config.places && self.shares.len() < self.config.places
    }
}

/// A host, as far as addresses tell: one of IPv4, or a /64 of IPv6, all of which one host can have.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;

    struct World {
        guesses: Guesses,
        now: Instant,
    }

    impl World {
        fn new(config: GuessesConfig) -> Self {
            let now = start();
            Self { guesses: Guesses::new(config, now), now }
        }

        fn may(&mut self, share: &str, ip: &str) -> bool {
            self.guesses.may(&share.parse().unwrap(), ip.parse().unwrap(), self.now)
        }

        /// How many of so many wrong passwords are looked at.
        fn guess(&mut self, share: &str, ip: &str, times: usize) -> usize {
            let looked_at = |_: &usize| {
                let allowed = self.may(share, ip);
                if allowed {
                    self.guesses.handle_wrong(&share.parse().unwrap(), ip.parse().unwrap(), self.now);
                }
                allowed
            };
            (0..times).filter(looked_at).count()
        }

        fn let_in(&mut self, share: &str, ip: &str) {
            self.guesses.handle_right(&share.parse().unwrap(), ip.parse().unwrap(), self.now);
        }
    }

    #[test]
    fn a_host_that_guesses_takes_nothing_from_its_neighbours_nor_from_other_shares() {
        let mut world = World::new(GuessesConfig::default());
        assert_eq!(world.guess("nas", "192.0.2.1", 100), 20);
        assert!(world.may("nas", "192.0.2.2") && world.may("tv", "192.0.2.1"));
        assert_eq!(world.guess("nas", "2001:db8::1", 100), 20);
        assert!(!world.may("nas", "2001:db8::2"), "all of a /64 is one host's");
        assert!(world.may("nas", "2001:db8:0:1::1"));
        world.now += Duration::from_secs(3);
        assert_eq!(world.guess("nas", "192.0.2.1", 100), 1);
    }

    #[test]
    fn many_addresses_together_guess_slowly_and_lock_nobody_out_who_was_let_in() {
        let mut world = World::new(GuessesConfig::default());
        world.let_in("nas", "203.0.113.1");
        let looked_at: usize =
            (0..200).map(|n| world.guess("nas", &format!("2001:db8:0:{n:x}::1"), 100)).sum();
        assert_eq!(looked_at, 1000);
        assert!(!world.may("nas", "203.0.113.2"));
        assert!(world.may("nas", "203.0.113.1") && world.may("tv", "203.0.113.2"));
        assert_eq!(world.guess("nas", "203.0.113.1", 100), 20, "it guesses no more than anybody");
    }

    #[test]
    fn the_total_holds_against_many_shares() {
        let total = Rate { burst: 50, refill: Duration::from_secs(1) };
        let mut world = World::new(GuessesConfig { total, ..GuessesConfig::default() });
        let looked_at: usize = (0..10).map(|n| world.guess(&format!("nas{n}"), "192.0.2.1", 10)).sum();
        assert_eq!(looked_at, 50);
        assert!(!world.may("tv", "203.0.113.1"));
    }

    #[test]
    fn without_a_place_to_remember_it_a_stranger_does_not_guess() {
        let mut world = World::new(GuessesConfig { places: 8, ..GuessesConfig::default() });
        (0..8).for_each(|n| world.let_in("nas", &format!("192.0.2.{n}")));
        assert_eq!(world.guesses.hosts.len(), 4, "the other half is for those who guess");
        (4..8).for_each(|n| assert_eq!(world.guess("nas", &format!("192.0.2.{n}"), 1), 1));
        assert!(
            !world.may("nas", "203.0.113.1")
                && world.may("nas", "192.0.2.0")
                && world.may("nas", "192.0.2.7")
        );
        world.now += Duration::from_secs(60);
        assert!(world.may("nas", "203.0.113.1"));
        assert_eq!(world.guesses.hosts.len(), 4, "those who were let in are still known");
    }
}
