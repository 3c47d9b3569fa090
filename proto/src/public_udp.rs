//! What a server's UDP port answers to anybody: plain STUN Binding requests and the `echo` datagram.
//!
//! These are the only two answers to an unproven address, and both are limited by source prefix and in
//! total (`docs/PROTOCOL.md` §2).

mod addresses;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::{Scope, canonical, scope};
use crate::limit::{PrefixLimiter, Rate};
use crate::reach::Door;
use crate::sighting::Notary;
use crate::stun::{self, BindingRequest};
use addresses::Addresses;

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
    /// Binding requests to be answered from an address that the server doesn't have.
    pub stun_unchangeable: u64,
    /// `echo` datagrams answered.
    pub echo_answered: u64,
    /// Requests over a limit.
    pub limited: u64,
    /// Datagrams that are neither.
    pub malformed: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its bytes, for the source of the datagram.
    pub payload: Vec<u8>,
    /// The server's address that it leaves from, where that is not the one that was asked.
    pub from: Option<SocketAddr>,
}

/// The machine.
#[derive(Debug)]
pub struct PublicUdp {
    echo: Option<PrefixLimiter>,
    stun: PrefixLimiter,
    own: Addresses,
    notary: Option<Notary>,
    stats: PublicUdpStats,
}

impl PublicUdp {
    /// A machine that answers `echo` too, or not. `own` are the addresses that the server is bound to. They are
    /// never answered, or two servers could be made to talk for ever; and they answer for each other.
    pub fn new(echo: bool, own: Vec<SocketAddr>, now: Instant) -> Self {
        Self::behind(echo, own.into_iter().map(Door::new).collect(), now)
    }

    /// The same, where clients reach other addresses than those that the sockets are bound to: RESPONSE-ORIGIN and
    /// OTHER-ADDRESS name what they reach.
    pub fn behind(echo: bool, own: Vec<Door>, now: Instant) -> Self {
        Self {
            echo: echo.then(|| PrefixLimiter::new(ECHO_EACH, ECHO_TOTAL, now)),
            stun: PrefixLimiter::new(STUN_EACH, STUN_TOTAL, now),
            own: Addresses::new(own),
            notary: None,
            stats: PublicUdpStats::default(),
        }
    }

    /// The same, which also proves to its sessions where it saw them.
    #[must_use]
    pub fn with_notary(mut self, notary: Notary) -> Self {
        self.notary = Some(notary);
        self
    }

    /// The answer to a datagram that is not QUIC, if it gets one. `origin` is the address that it came to, where
    /// that is known.
    pub fn answer(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        origin: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Reply> {
        let source = canonical(source);
        if scope(source) == Scope::Unusable || self.own.is_own(source, origin) {
            self.stats.malformed += 1;
            return None;
        }
        if datagram == ECHO {
            return self.answer_echo(source, now).map(|payload| Reply { payload, from: None });
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
        let Some(request) = BindingRequest::read(datagram) else {
            self.stats.malformed += 1;
            return None;
        };
        let reply = match &self.notary {
            Some(notary) if request.wants_proof() => {
                let payload = request.answer_with_proof(source, &notary.prove(source, now));
                Some(Reply { payload, from: None })
            }
            Some(_) | None => self.answer_binding(&request, source, origin),
        };
        match reply {
            Some(_) => self.stats.stun_answered += 1,
            None => self.stats.stun_unchangeable += 1,
        }
        reply
    }

    fn answer_binding(
        &self,
        request: &BindingRequest,
        source: SocketAddr,
        asked: Option<SocketAddr>,
    ) -> Option<Reply> {
        let change = request.change();
        let from = if change.is_any() { Some(self.own.changed(asked?, change)?) } else { None };
        let other = asked.and_then(|asked| self.own.other(asked));
        let public = |local: Option<SocketAddr>| local.map(|local| self.own.public(local));
        Some(Reply { payload: request.answer(source, public(from.or(asked)), public(other)), from })
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
    use crate::clock::start;
    use crate::stun::Change;

    fn machine(echo: bool, now: Instant) -> PublicUdp {
        PublicUdp::new(echo, vec!["203.0.113.1:3478".parse().unwrap(), "[::]:3479".parse().unwrap()], now)
    }

    fn ask(machine: &mut PublicUdp, datagram: &[u8], source: &str, now: Instant) -> Option<String> {
        let reply = machine.answer(datagram, source.parse().unwrap(), None, now);
        reply.map(|reply| String::from_utf8_lossy(&reply.payload).into_owned())
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
        let mut from = |source: &str| machine.answer(b"echo", source.parse().unwrap(), asked, now);
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

    /// A server with two addresses and both ports on each.
    fn grid(now: Instant) -> PublicUdp {
        let all = ["203.0.113.1:3478", "203.0.113.1:3479", "203.0.113.2:3478", "203.0.113.2:3479"];
        PublicUdp::new(false, all.map(|text| text.parse().unwrap()).to_vec(), now)
    }

    #[test]
    fn a_request_for_a_change_is_answered_from_the_corner_that_it_names() {
        let now = start();
        let (source, asked) = ("198.51.100.7:1".parse().unwrap(), "203.0.113.1:3478".parse().ok());
        let ask = |change| {
            let request = stun::change_request([1; 12], change);
            let reply = grid(now).answer(&request, source, asked, now).unwrap();
            assert!(reply.payload.len() <= request.len());
            let answer = stun::BindingAnswer::read(&reply.payload, [1; 12]).unwrap();
            assert_eq!(answer.mapped, source);
            assert_eq!(
                answer.other.unwrap().to_string(),
                "203.0.113.2:3479",
                "of the address that was asked"
            );
            reply.from.map(|from| from.to_string())
        };
        assert_eq!(ask(Change::BOTH).as_deref(), Some("203.0.113.2:3479"));
        assert_eq!(ask(Change::PORT).as_deref(), Some("203.0.113.1:3479"));
        assert_eq!(ask(Change { ip: true, port: false }).as_deref(), Some("203.0.113.2:3478"));
        assert_eq!(ask(Change::NONE), None);
    }

    #[test]
    fn behind_a_translation_the_answer_names_what_clients_reach() {
        let now = start();
        let bound = ["10.0.0.5:3478", "10.0.0.5:3479", "10.0.0.6:3478", "10.0.0.6:3479"];
        let public = ["203.0.113.1:3478", "203.0.113.1:3479", "203.0.113.2:3478", "203.0.113.2:3479"];
        let mut doors = bound.map(|text| Door::new(text.parse().unwrap())).to_vec();
        crate::reach::state(&mut doors, &public.map(|text| text.parse().unwrap())).unwrap();
        let mut machine = PublicUdp::behind(false, doors, now);
        let source = "198.51.100.7:1".parse().unwrap();
        for (request, from) in [
            (stun::binding_request([1; 12]), None),
            (stun::change_request([1; 12], Change::BOTH), bound[3].parse().ok()),
        ] {
            let reply = machine.answer(&request, source, bound[0].parse().ok(), now).unwrap();
            assert_eq!(reply.from, from, "the socket is the local one");
            // RESPONSE-ORIGIN (RFC 5780 §7.3), in IPv4.
            let (ip, port) =
                (if from.is_some() { 2 } else { 1 }, if from.is_some() { 3479_u16 } else { 3478 });
            let origin = [&[0x80, 0x2b, 0, 8, 0, 1][..], &port.to_be_bytes(), &[203, 0, 113, ip]].concat();
            assert!(reply.payload.windows(origin.len()).any(|part| part == origin), "{reply:?}");
            let answer = stun::BindingAnswer::read(&reply.payload, [1; 12]).unwrap();
            assert_eq!(answer.other.unwrap().to_string(), public[3]);
        }
    }

    #[test]
    fn a_change_that_the_server_cannot_make_is_not_answered_and_counted() {
        let now = start();
        let mut machine = machine(true, now);
        let request = stun::change_request([1; 12], Change::BOTH);
        let source = "198.51.100.7:1".parse().unwrap();
        assert_eq!(machine.answer(&request, source, "203.0.113.1:3478".parse().ok(), now), None);
        assert_eq!(machine.answer(&request, source, None, now), None, "nobody knows what address was asked");
        assert_eq!(machine.stats().stun_unchangeable, 2);
    }

    #[test]
    fn requests_for_a_change_are_held_to_the_same_rate() {
        let now = start();
        let mut machine = grid(now);
        let request = stun::change_request([1; 12], Change::PORT);
        let asked = "203.0.113.1:3478".parse().ok();
        let mut ask = || machine.answer(&request, "198.51.100.7:1".parse().unwrap(), asked, now).is_some();
        assert_eq!((0..1000).filter(|_| ask()).count(), STUN_EACH.burst as usize);
    }
}
