//! **Seen**: at which addresses a server sees a peer, at most one of each family.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::candidate::{Scope, canonical, scope};

/// The addresses at which a server sees a peer's main socket. Of a peer that is at the server through a relay, and
/// has shown no address by a [`crate::sighting`], it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    v4: Option<SocketAddrV4>,
    v6: Option<SocketAddrV6>,
}

impl Seen {
    /// Seen nowhere.
    pub const NOWHERE: Self = Self { v4: None, v6: None };

    /// Seen at one address. An unspecified one is none.
    pub fn at(addr: SocketAddr) -> Self {
        Self::NOWHERE.and(addr)
    }

    /// Seen at this address too; it takes the place of the one of its family. An unspecified one is none.
    #[must_use]
    pub fn and(mut self, addr: SocketAddr) -> Self {
        match canonical(addr) {
            addr if addr.ip().is_unspecified() => {}
            SocketAddr::V4(addr) => self.v4 = Some(addr),
            SocketAddr::V6(addr) => self.v6 = Some(addr),
        }
        self
    }

    /// Seen at the addresses of `newer`, and at those of ours whose family that lacks.
    #[must_use]
    pub fn also(self, newer: Self) -> Self {
        newer.iter().fold(self, Self::and)
    }

    /// Seen at the addresses that `keep` wants.
    #[must_use]
    pub fn only(self, keep: impl Fn(SocketAddr) -> bool) -> Self {
        self.iter().filter(|addr| keep(*addr)).collect()
    }

    /// The IPv4 address.
    pub fn v4(&self) -> Option<SocketAddr> {
        self.v4.map(SocketAddr::V4)
    }

    /// The IPv6 address.
    pub fn v6(&self) -> Option<SocketAddr> {
        self.v6.map(SocketAddr::V6)
    }

    /// The address of the family of `other`.
    pub fn like(&self, other: SocketAddr) -> Option<SocketAddr> {
        if canonical(other).is_ipv4() { self.v4() } else { self.v6() }
    }

    /// All of them, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.v4().into_iter().chain(self.v6())
    }

    /// Whether it is seen nowhere.
    pub const fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// Whether one of them has this IP address.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.iter().any(|addr| addr.ip() == ip.to_canonical())
    }

    /// Whether the server sees it from inside of a network that both are in: at a local IPv4 address, whatever IPv6 shows,
    /// which no router translates; or, where it is seen in IPv6 alone, at a local address of that.
    pub fn is_inside(&self) -> bool {
        let by = self.v4().or_else(|| self.v6());
        by.is_some_and(|addr| matches!(scope(addr), Scope::Loopback | Scope::Local))
    }

    /// Whether both are seen behind one address: behind one NAT.
    pub fn shares_ip_with(&self, other: &Self) -> bool {
        self.iter().any(|addr| other.has_ip(addr.ip()))
    }

    /// Whether this is another place than `before`. A family that was only learned, or is not known any more, is no
    /// move.
    pub fn has_moved_from(&self, before: &Self) -> bool {
        let is_elsewhere = |addr: SocketAddr| before.like(addr).is_some_and(|before| before != addr);
        !self.is_empty() && (before.is_empty() || self.iter().any(is_elsewhere))
    }
}

impl From<SocketAddr> for Seen {
    fn from(addr: SocketAddr) -> Self {
        Self::at(addr)
    }
}

impl FromIterator<SocketAddr> for Seen {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addrs: I) -> Self {
        addrs.into_iter().fold(Self::NOWHERE, Self::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(addrs: &[&str]) -> Seen {
        addrs.iter().map(|text| text.parse::<SocketAddr>().unwrap()).collect()
    }

    #[test]
    fn it_holds_one_address_of_each_family_and_no_unspecified_one() {
        let both = seen(&["192.0.2.1:1", "[2001:db8::1]:2", "[::ffff:192.0.2.9]:9"]);
        let addrs: Vec<_> = both.iter().map(|addr| addr.to_string()).collect();
        assert_eq!(addrs, ["192.0.2.9:9", "[2001:db8::1]:2"]);
        assert_eq!(seen(&["[::]:0"]), Seen::NOWHERE);
        assert!(both.has_ip("::ffff:192.0.2.9".parse().unwrap()));
        assert!(both.shares_ip_with(&seen(&["[2001:db8::1]:9"])));
        assert!(!both.shares_ip_with(&seen(&["192.0.2.1:9"])));
    }

    #[test]
    fn a_local_ipv4_address_shows_that_the_server_is_in_the_same_network() {
        for (addrs, is_inside) in [
            (&["192.168.1.2:1"][..], true),
            (&["127.0.0.1:1", "[2001:db8::1]:2"], true),
            (&["[fd00::2]:1"], true),
            (&["192.0.2.1:1", "[fd00::2]:1"], false),
            (&["[2001:db8::1]:2"], false),
            (&[], false),
        ] {
            assert_eq!(seen(addrs).is_inside(), is_inside, "{addrs:?}");
        }
    }

    #[test]
    fn a_family_that_is_only_learned_is_no_move() {
        let (v4, both) = (seen(&["192.0.2.1:1"]), seen(&["192.0.2.1:1", "[2001:db8::1]:2"]));
        assert!(!both.has_moved_from(&v4));
        assert!(!v4.has_moved_from(&both));
        assert!(seen(&["192.0.2.1:7"]).has_moved_from(&both));
        assert!(v4.has_moved_from(&Seen::NOWHERE));
        assert!(!Seen::NOWHERE.has_moved_from(&v4));
    }
}
