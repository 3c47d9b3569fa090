//! What a server's UDP port answers to anybody: plain STUN Binding requests and the `echo` datagram.
//!
//! These are the only two answers to an unproven address, and both are limited by source prefix and in
//! total (`docs/PROTOCOL.md` §2).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Scope, canonical, scope};
use crate::limit::{PrefixLimiter, Rate};
use crate::stun;

/// The datagram that asks for [`echo_answer`].
pub const ECHO: &[u8] = b"echo";

/// At most one echo a second with a burst of five for each prefix.
const ECHO_EACH: Rate = Rate { burst: 5, refill: Duration::from_secs(1) };
/// At most 200 echoes a second in all: 20 kB/s out, whatever comes in.
const ECHO_TOTAL: Rate = Rate { burst: 200, refill: Duration::from_millis(5) };
/// A NAT's worth of programs, each with a few requests.
const STUN_EACH: Rate = Rate { burst: 200, refill: Duration::from_millis(10) };
/// About 1.5 MB/s out at the most.
const STUN_TOTAL: Rate = Rate { burst: 4000, refill: Duration::from_micros(50) };

/// Counts of what came in, by what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublicUdpStats {
    /// Binding requests answered.
    pub stun_answered: u64,
    /// `echo` datagrams answered.
    pub echo_answered: u64,
    /// Requests over a limit.
    pub limited: u64,
    /// Datagrams that are neither.
    pub malformed: u64,
}

/// The machine.
#[derive(Debug)]
pub struct PublicUdp {
    echo: Option<PrefixLimiter>,
    stun: PrefixLimiter,
    own: Vec<SocketAddr>,
    stats: PublicUdpStats,
}

impl PublicUdp {
    /// A machine that answers `echo` too, or not. `own` are the server's own addresses, which are never
    /// answered, or two servers could be made to talk for ever.
    pub fn new(echo: bool, own: Vec<SocketAddr>, now: Instant) -> Self {
        Self {
            echo: echo.then(|| PrefixLimiter::new(ECHO_EACH, ECHO_TOTAL, now)),
            stun: PrefixLimiter::new(STUN_EACH, STUN_TOTAL, now),
            own: own.into_iter().map(canonical).collect(),
            stats: PublicUdpStats::default(),
        }
    }

    /// The answer to a datagram that is not QUIC, if it gets one. `origin` is the address it came to,
    /// `other` the one at another IP and port, where the server has it.
    pub fn answer(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        origin: Option<SocketAddr>,
        other: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let source = canonical(source);
        if scope(source) == Scope::Unusable || self.is_own(source, origin) {
            self.stats.malformed += 1;
            return None;
        }
        if datagram == ECHO {
            return self.answer_echo(source, now);
        }
        if !stun::is_stun(datagram) {
            self.stats.malformed += 1;
            return None;
        }
        // The limit comes first: it is cheaper than parsing.
        if !self.stun.allow(source, now) {
            self.stats.limited += 1;
            return None;
        }
        let answer = stun::answer_binding(datagram, source, origin, other);
        match answer {
            Some(_) => self.stats.stun_answered += 1,
            None => self.stats.malformed += 1,
        }
        answer
    }

    /// The counts so far.
    pub const fn stats(&self) -> PublicUdpStats {
        self.stats
    }

    fn answer_echo(&mut self, source: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let Some(limiter) = &mut self.echo else {
            self.stats.malformed += 1;
            return None;
        };
        if !limiter.allow(source, now) {
            self.stats.limited += 1;
            return None;
        }
        self.stats.echo_answered += 1;
        Some(echo_answer(source))
    }

    /// A wildcard of ours stands for loopback and for the address that was asked: a source there with our port
    /// is ourselves. Anybody else may well have the same port number.
    fn is_own(&self, source: SocketAddr, origin: Option<SocketAddr>) -> bool {
        let here =
            source.ip().is_loopback() || origin.is_some_and(|origin| canonical(origin).ip() == source.ip());
        self.own
            .iter()
            .any(|own| *own == source || (own.ip().is_unspecified() && own.port() == source.port() && here))
    }
}

/// One line of JSON that names the observed address.
pub fn echo_answer(source: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        r#"{{"address":"{}","family":"{family}","port":{},"size":{}}}"#,
        source.ip(),
        source.port(),
        ECHO.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        now + Duration::from_secs(100_000)
    }

    fn machine(echo: bool, now: Instant) -> PublicUdp {
        PublicUdp::new(echo, vec!["203.0.113.1:3478".parse().unwrap(), "[::]:3479".parse().unwrap()], now)
    }

    fn ask(machine: &mut PublicUdp, datagram: &[u8], source: &str, now: Instant) -> Option<String> {
        let answer = machine.answer(datagram, source.parse().unwrap(), None, None, now);
        answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn echo_is_answered_with_the_observed_address() {
        let now = start();
        let answer = ask(&mut machine(true, now), b"echo", "[::ffff:198.51.100.7]:43191", now).unwrap();
        assert_eq!(answer, r#"{"address":"198.51.100.7","family":"IPv4","port":43191,"size":4}"#);
    }

    #[test]
    fn echo_is_five_at_once_and_one_a_second() {
        let mut now = start();
        let mut machine = machine(true, now);
        let mut burst =
            |now| (0..20).filter(|_| ask(&mut machine, b"echo", "198.51.100.7:1", now).is_some()).count();
        assert_eq!(burst(now), 5);
        now += Duration::from_secs(1);
        assert_eq!(burst(now), 1);
    }

    #[test]
    fn echo_can_be_turned_off_and_takes_four_bytes_exactly() {
        let now = start();
        assert_eq!(ask(&mut machine(false, now), b"echo", "198.51.100.7:1", now), None);
        assert_eq!(ask(&mut machine(true, now), b"echo\n", "198.51.100.7:1", now), None);
        assert_eq!(ask(&mut machine(true, now), b"Echo", "198.51.100.7:1", now), None);
    }

    #[test]
    fn our_own_ports_are_never_answered() {
        let now = start();
        let mut machine = machine(true, now);
        assert_eq!(ask(&mut machine, b"echo", "203.0.113.1:3478", now), None);
        assert_eq!(ask(&mut machine, b"echo", "127.0.0.1:3479", now), None);
        assert_eq!(machine.stats().malformed, 2);
        assert!(ask(&mut machine, b"echo", "203.0.113.2:3478", now).is_some());
        let asked = Some("203.0.113.9:3479".parse().unwrap());
        let mut from = |source: &str| machine.answer(b"echo", source.parse().unwrap(), asked, None, now);
        assert_eq!(from("203.0.113.9:3479"), None);
        assert!(from("198.51.100.7:3479").is_some(), "a NAT may map somebody to the same port");
    }

    #[test]
    fn a_stun_flood_from_one_prefix_is_held_to_its_rate() {
        let now = start();
        let mut machine = machine(true, now);
        let request = stun::binding_request([1; 12]);
        let answered =
            (0..10_000).filter(|_| ask(&mut machine, &request, "198.51.100.7:1", now).is_some()).count();
        assert_eq!(answered, STUN_EACH.burst as usize);
        assert_eq!(machine.stats().limited, 10_000 - answered as u64);
    }
}
