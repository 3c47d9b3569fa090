//! Candidates: addresses at which a peer may be reached, and which of them may be believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::interface::is_shared;
use crate::seen::Seen;

/// How many candidates one side may name. More are refused with the whole message (RFC 8445 §19.5.1
/// is why there is a limit).
pub const MAX_CANDIDATES: usize = 8;

/// Where a candidate comes from (RFC 8445 §5.1.1), best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of one of the peer's own interfaces.
    Host,
    /// Learned from an authenticated check that came from it.
    PeerReflexive,
    /// Given by the peer's router on request (PCP, NAT-PMP, UPnP).
    Mapped,
    /// Observed by the rendezvous or another STUN server.
    Reflexive,
}

/// One address to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address.
    pub addr: SocketAddr,
}

impl Candidate {
    /// A candidate with its address in canonical form (an IPv4-mapped IPv6 address becomes IPv4).
    pub fn new(kind: CandidateKind, addr: SocketAddr) -> Self {
        Self { kind, addr: canonical(addr) }
    }
}

/// The address with an IPv4-mapped IPv6 form (RFC 4291 §2.5.5.2) turned into IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(addr: SocketAddr) -> Self {
        if canonical(addr).is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As a user reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// What an address is good for, as the question "may we send there?" needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Never a destination: unspecified, multicast, broadcast, link-local metadata, port 0, …
    Unusable,
    /// This machine.
    Loopback,
    /// A local network: private (RFC 1918), ULA (RFC 4193) or IPv6 link-local.
    Local,
    /// Anywhere else: 100.64/10 and the documentation ranges included, which carriers and
    /// laboratories use.
    Global,
}

/// The scope of an address.
pub fn scope(addr: SocketAddr) -> Scope {
    let addr = canonical(addr);
    if addr.port() == 0 {
        return Scope::Unusable;
    }
    match addr.ip() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

/// Where clouds without a link-local address tell a machine its secrets: Alibaba's and Oracle's.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// The same over IPv6: Amazon's and Google's.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let first = ip.octets()[0];
    if ip.is_loopback() {
        Scope::Loopback
    } else if first == 0 || first >= 224 || ip.is_link_local() || METADATA_V4.contains(&ip) {
        Scope::Unusable
    } else if ip.is_private() {
        Scope::Local
    } else {
        Scope::Global
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let head = ip.segments()[0];
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_unspecified() || ip.is_multicast() || (head & 0xffc0) == 0xfe80 {
        // A link-local address means nothing without an interface, which no message carries.
        Scope::Unusable
    } else if METADATA_V6.contains(&ip) || embedded(ip).is_some_and(|ip| scope_v4(ip) != Scope::Global) {
        // A translator or a tunnel would carry the packet to a place that may not be named.
        Scope::Unusable
    } else if (head & 0xfe00) == 0xfc00 || (head & 0xffc0) == 0xfec0 {
        Scope::Local
    } else {
        Scope::Global
    }
}

/// The IPv4 address to which packets for an IPv6 address are carried: NAT64 by its well-known prefix (RFC 6052 §2.1),
/// 6to4 (RFC 3056 §2), and IPv4-compatible addresses (RFC 4291 §2.5.5.1).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// What a peer's claims are judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grounds {
    /// Where the server sees the peer.
    pub observed: Seen,
    /// Whether our own session is on this machine too.
    pub loopback: bool,
    /// Whether an address of ours is in 100.64.0.0/10, where an overlay or a carrier may have put the peer too.
    pub holds_shared: bool,
    /// The IPv4 address at which we reached the server ourselves.
    pub server: Option<IpAddr>,
}

impl Grounds {
    /// The public address of the network that the peer and the server are both in: the server sees the peer at an
    /// address that is worth nothing elsewhere, and we reached the server at a global one. The router in between is
    /// that of both.
    fn shared_router(&self) -> Option<IpAddr> {
        let is_inside = self.observed.is_inside();
        let is_global = |ip: &IpAddr| scope(SocketAddr::new(*ip, 1)) == Scope::Global;
        self.server.map(|ip| ip.to_canonical()).filter(|ip| is_inside && ip.is_ipv4() && is_global(ip))
    }

    fn believes(&self, candidate: &Candidate) -> bool {
        let ip = candidate.addr.ip();
        match scope(candidate.addr) {
            Scope::Unusable | Scope::Loopback => false,
            Scope::Local => true,
            Scope::Global if self.holds_shared && is_shared(ip) => true,
            Scope::Global => ip.is_ipv6() || self.observed.has_ip(ip) || self.shared_router() == Some(ip),
        }
    }
}

/// Which of the candidates that a peer claims for itself may be tried, and what the server observed of it.
///
/// A peer may name its local addresses. A global IPv4 address counts only if the server observed that very IP for it, or
/// if it is in 100.64.0.0/10 and one of ours is too, or if it is the server's own and the server observed a local
/// address: then both are behind one router, and the peer's own port at that router's address is tried too, which its
/// packets to us open. A loopback address can't be claimed; the server may observe one, and it counts where our own
/// session is on this machine too. What is dropped was never a reason to refuse the rest.
pub fn believable(claimed: &[Candidate], grounds: &Grounds) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in claimed.iter().take(MAX_CANDIDATES) {
        let candidate = Candidate::new(candidate.kind, candidate.addr);
        let is_known = kept.iter().any(|other| other.addr == candidate.addr);
        if grounds.believes(&candidate) && !is_known && candidate.kind != CandidateKind::PeerReflexive {
            kept.push(candidate);
        }
    }
    let port = claimed.iter().find(|claim| claim.kind == CandidateKind::Host).map(|claim| claim.addr.port());
    let guess = grounds.shared_router().zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
    let is_usable = |addr: &SocketAddr| match scope(*addr) {
        Scope::Unusable => false,
        Scope::Loopback => grounds.loopback,
        Scope::Local | Scope::Global => true,
    };
    let observed: Vec<SocketAddr> = grounds.observed.iter().chain(guess).filter(is_usable).collect();
    let unclaimed: Vec<SocketAddr> =
        observed.into_iter().filter(|addr| !kept.iter().any(|other| other.addr == *addr)).collect();
    kept.truncate(MAX_CANDIDATES - unclaimed.len());
    kept.extend(unclaimed.into_iter().map(|addr| Candidate { kind: CandidateKind::Reflexive, addr }));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(text: &str) -> Grounds {
        Grounds { observed: Seen::at(text.parse().unwrap()), ..Grounds::default() }
    }

    fn addrs(kept: &[Candidate]) -> Vec<String> {
        kept.iter().map(|candidate| candidate.addr.to_string()).collect()
    }

    fn host(text: &str) -> Candidate {
        Candidate::new(CandidateKind::Host, text.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_never_destinations() {
        for text in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "239.255.255.255:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "169.254.169.254:80",
            "192.0.2.1:0",
            "[::]:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "[::ffff:0.0.0.0]:1",
            "[::ffff:169.254.169.254]:80",
            "100.100.100.200:80",
            "192.0.0.192:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[64:ff9b::10.0.0.5]:80",
            "[64:ff9b::127.0.0.1]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[2002:a9fe:a9fe::1]:80",
            "[2002:c0a8:101::1]:80",
            "[::127.0.0.1]:80",
        ] {
            assert_eq!(scope(text.parse().unwrap()), Scope::Unusable, "{text}");
        }
    }

    #[test]
    fn carrier_and_documentation_ranges_are_usable() {
        for text in ["100.64.0.1:1", "192.0.2.1:1", "198.51.100.1:1", "203.0.113.1:1", "[2001:db8::1]:1"] {
            assert_eq!(scope(text.parse().unwrap()), Scope::Global, "{text}");
        }
    }

    #[test]
    fn an_address_that_is_carried_to_a_public_one_is_usable() {
        for text in ["[64:ff9b::192.0.2.1]:1", "[2002:c000:201::1]:1"] {
            assert_eq!(scope(text.parse().unwrap()), Scope::Global, "{text}");
        }
    }

    #[test]
    fn a_mapped_loopback_is_loopback() {
        assert_eq!(scope("[::ffff:127.0.0.1]:1".parse().unwrap()), Scope::Loopback);
    }

    #[test]
    fn loopback_is_believed_of_the_server_alone_and_only_on_its_machine() {
        let loopback: SocketAddr = "127.0.0.1:22".parse().unwrap();
        let here = Grounds { loopback: true, ..Grounds::default() };
        assert!(believable(&[host("127.0.0.1:22")], &here).is_empty());
        assert!(believable(&[], &observed("127.0.0.1:22")).is_empty());
        assert_eq!(believable(&[], &Grounds { observed: Seen::at(loopback), ..here }).len(), 1);
    }

    #[test]
    fn a_strangers_global_v4_address_is_dropped_and_its_own_is_kept() {
        let claimed = [host("198.51.100.9:53"), host("203.0.113.7:4001"), host("192.168.1.2:4000")];
        let kept = believable(&claimed, &observed("203.0.113.7:4000"));
        let addrs: Vec<_> = kept.iter().map(|c| c.addr.to_string()).collect();
        assert_eq!(addrs, ["203.0.113.7:4001", "192.168.1.2:4000", "203.0.113.7:4000"]);
    }

    #[test]
    fn a_shared_address_is_believed_where_we_hold_one() {
        let observed = "203.0.113.7:4000".parse().unwrap();
        let claimed = [host("100.64.0.0:1"), host("100.127.255.255:1"), host("100.128.0.1:1")];
        let tried = |holds_shared| {
            let grounds = Grounds { observed: Seen::at(observed), holds_shared, ..Grounds::default() };
            believable(&claimed, &grounds).len()
        };
        assert_eq!(tried(false), 1, "the observed one alone");
        assert_eq!(tried(true), 3);
    }

    #[test]
    fn the_observed_address_is_kept_among_eight_claims() {
        let claimed: Vec<_> = (1..=9).map(|n| host(&format!("192.168.1.{n}:1"))).collect();
        let kept = believable(&claimed, &observed("203.0.113.7:4000"));
        assert_eq!(kept.len(), MAX_CANDIDATES);
        assert_eq!(kept.last().unwrap().kind, CandidateKind::Reflexive);
    }

    #[test]
    fn the_server_vouches_for_one_address_of_each_family() {
        let observed =
            Seen::at("[2001:db8::7]:4000".parse().unwrap()).and("203.0.113.7:4000".parse().unwrap());
        let grounds = Grounds { observed, ..Grounds::default() };
        let kept = believable(&[host("203.0.113.7:4001"), host("198.51.100.9:53")], &grounds);
        assert_eq!(addrs(&kept), ["203.0.113.7:4001", "203.0.113.7:4000", "[2001:db8::7]:4000"]);
    }

    #[test]
    fn a_peer_beside_the_server_is_looked_for_behind_the_servers_own_router() {
        let server = "203.0.113.1".parse().ok();
        let mapped = Candidate::new(CandidateKind::Mapped, "203.0.113.1:777".parse().unwrap());
        let claimed = [mapped, host("192.168.1.2:4000"), host("198.51.100.9:53")];
        for inside in ["192.168.1.1:61000", "192.168.1.2:4000", "127.0.0.1:4000", "[fd00::2]:4000"] {
            let kept = believable(&claimed, &Grounds { server, ..observed(inside) });
            let addrs = addrs(&kept);
            for wanted in ["203.0.113.1:777", "192.168.1.2:4000", "203.0.113.1:4000"] {
                assert!(addrs.iter().any(|addr| addr == wanted), "{wanted} for {inside}: {addrs:?}");
            }
            assert!(!addrs.iter().any(|addr| addr == "198.51.100.9:53"));
        }
        // Its IPv6 address, which no router translates, shows nothing of that.
        let both = Seen::at("[2001:db8::2]:4000".parse().unwrap()).and("192.168.1.2:4000".parse().unwrap());
        let kept = believable(&claimed, &Grounds { server, observed: both, ..Grounds::default() });
        assert!(addrs(&kept).iter().any(|addr| addr == "203.0.113.1:4000"), "{kept:?}");
        // We are in that network too, or the peer is elsewhere, or nothing was observed: no guess.
        for (server, inside) in [
            ("192.168.1.9", "192.168.1.2:4000"),
            ("203.0.113.1", "198.51.100.7:1"),
            ("203.0.113.1", "[::]:0"),
        ] {
            let kept = believable(&claimed, &Grounds { server: server.parse().ok(), ..observed(inside) });
            assert!(!addrs(&kept).iter().any(|addr| addr.starts_with("203.0.113.1:")), "{inside}");
        }
    }
}
