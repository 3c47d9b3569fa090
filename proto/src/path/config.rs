//! How the agent behaves in time, and how much it may send.

use std::time::Duration;

/// The agent's numbers. The defaults are those that the laboratory's figures hold for.
#[derive(Debug, Clone, Copy)]
pub struct PathConfig {
    /// From one full check of a pair to the next, at first.
    pub first_interval: Duration,
    /// By how much that grows with each.
    pub growth: f64,
    /// And where it ends.
    pub last_interval: Duration,
    /// Full checks of one pair in one attempt: two seconds' worth.
    pub max_checks: u32,
    /// Bytes, headers counted, to one unproven address in one attempt, over all links.
    pub budget: u32,
    /// Checks of a global IPv6 address that the remote merely claims, until it is heard.
    pub max_unheard_v6: u32,
    /// Between any two checks (RFC 8445 §14 asks for 5 ms at the least).
    pub pace: Duration,
    /// The hop limits of the first attempt's primes: past our own router, past a carrier's above it.
    pub prime_ttls: (u8, u8),
    /// How much higher the ladder of each attempt goes, those later than the last as that one. It ends where it began: a
    /// prime that goes too far reaches the remote's router, and upsets it as a full check does.
    pub prime_steps: [u8; 4],
    /// From the primes to the first full check, so that the far side's NAT is open too: in the first
    /// attempt, and in those after it, where bad timing is a likely cause of the failure.
    pub prime_waits: [Duration; 3],
    /// Checks after the proof.
    pub confirmations: u8,
    /// From a change of the primary to the next check of it, which lets the sharer follow the connector.
    pub settle: Duration,
    /// How long a proven path may be quiet: half of the 30 s for which common NATs keep a binding.
    pub keepalive: Duration,
    /// How long a path that was busy is silent before it is checked: whoever only listened owes nothing and is
    /// owed nothing, and learns by this alone that its own router has forgotten it.
    pub lull: Duration,
    /// A path is busy that brings something twice in this time: a single packet is no conversation.
    pub busy: Duration,
    /// From suspicion to death.
    pub dead_after: Duration,
    /// How long each of the attempts may take that follow each other at once, every one with a new port.
    pub attempts: [Duration; 4],
    /// How long an attempt goes on at the least after a pair has come to it.
    pub latecomer: Duration,
    /// Waits before any further attempt: longer than a NAT keeps a flow that a bad start has spoilt.
    pub retry: [Duration; 3],
    /// How much later than its offer a connector may come to its relay: by TCP, a proxy, TLS and the login that is up to
    /// four round trips, of 0.6 s over a satellite.
    pub arrival: Duration,
    /// Addresses that the remote may name at a time.
    pub max_claimed: usize,
    /// Addresses that may be learned from its checks.
    pub max_learned: usize,
    /// How much faster another path of the same kind must be, as a share and in time.
    pub hysteresis: (f64, Duration),
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            first_interval: Duration::from_millis(20),
            growth: 1.5,
            last_interval: Duration::from_millis(200),
            max_checks: 14,
            budget: 3000,
            max_unheard_v6: 3,
            pace: Duration::from_millis(5),
            prime_ttls: (2, 3),
            prime_steps: [0, 1, 2, 0],
            prime_waits: [60, 400, 800].map(Duration::from_millis),
            confirmations: 3,
            settle: Duration::from_millis(2500),
            keepalive: Duration::from_secs(15),
            lull: Duration::from_millis(300),
            busy: Duration::from_secs(1),
            dead_after: Duration::from_secs(3),
            attempts: [1, 2, 3, 3].map(Duration::from_secs),
            latecomer: Duration::from_millis(700),
            retry: [30, 60, 120].map(Duration::from_secs),
            arrival: Duration::from_millis(2500),
            max_claimed: crate::candidate::MAX_CANDIDATES,
            max_learned: 8,
            hysteresis: (0.8, Duration::from_millis(5)),
        }
    }
}

impl PathConfig {
    /// How long an attempt waits between its primes and its full checks.
    pub(super) fn prime_wait(&self, attempt: u32) -> Duration {
        nth(&self.prime_waits, attempt)
    }

    /// The hop limits of an attempt's primes.
    pub(super) fn ladder(&self, attempt: u32) -> (u8, u8) {
        let (first, last) = self.prime_ttls;
        (first, last.saturating_add(nth(&self.prime_steps, attempt)))
    }

    /// How long an attempt may take.
    pub(super) fn attempt_length(&self, attempt: u32) -> Duration {
        nth(&self.attempts, attempt)
    }

    /// The wait before the `n`-th attempt after those that follow each other at once.
    pub(super) fn retry_wait(&self, n: u32) -> Duration {
        nth(&self.retry, n)
    }

    /// How many attempts follow each other at once.
    pub(super) const fn rounds(&self) -> u32 {
        self.attempts.len() as u32
    }
}

/// The `n`-th of them, or the last.
fn nth<T: Copy + Default>(list: &[T], n: u32) -> T {
    list.get(n as usize).or(list.last()).copied().unwrap_or_default()
}
