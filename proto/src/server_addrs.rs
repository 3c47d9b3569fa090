//! **ServerAddrs**: where a server's UDP port may be, by all that is known.
//!
//! A server may stand behind a NAT, in a container or at home, and know only addresses that are worth nothing outside.
//! So its word is one source among several: the addresses of its URL's host, in both families, at the ports that it
//! names; what a ticket says; and, before all of them, what has worked.

use std::net::{IpAddr, SocketAddr};

use crate::candidate::{Scope, canonical, scope};
use crate::reach::Width;

/// How many addresses are kept.
pub const MAX_SERVER_ADDRS: usize = 16;

/// The addresses, most likely first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerAddrs {
    known: Vec<SocketAddr>,
    /// Where the server was last reached.
    worked: Option<SocketAddr>,
}

impl ServerAddrs {
    /// What is known at first.
    pub fn new(known: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut addrs = Self::default();
        addrs.learn(known);
        addrs
    }

    /// Further ones. Those that are new come behind what is known, and are returned; of too many the last known ones go.
    pub fn learn(&mut self, addrs: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let mut new = Vec::new();
        for addr in addrs.into_iter().map(canonical) {
            let is_usable = scope(addr) != Scope::Unusable;
            if is_usable
                && !self.known.contains(&addr)
                && !new.contains(&addr)
                && new.len() < MAX_SERVER_ADDRS / 2
            {
                new.push(addr);
            }
        }
        self.known.truncate(MAX_SERVER_ADDRS - new.len());
        self.known.extend(&new);
        new
    }

    /// The server was reached here: from now on it is the first.
    pub fn worked(&mut self, addr: SocketAddr) {
        let addr = canonical(addr);
        self.known.retain(|known| *known != addr);
        self.known.truncate(MAX_SERVER_ADDRS - 1);
        self.known.insert(0, addr);
        self.worked = Some(addr);
    }

    /// All of them.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.known
    }

    /// Whether there are addresses of IPv4 and of IPv6.
    pub fn has_both_families(&self) -> bool {
        self.known.iter().any(SocketAddr::is_ipv4) && self.known.iter().any(SocketAddr::is_ipv6)
    }

    /// In the order in which they are dialled. What worked comes first, of whichever family: a relay must not be faster
    /// because of addresses before it that do not answer. Then loopback, which is there or is not. Then IPv4: a NAT's
    /// mapping can only be learned from the server, while a global IPv6 address is known without it.
    pub fn to_dial(&self) -> Vec<SocketAddr> {
        let mut addrs = self.known.clone();
        addrs.sort_by_key(|addr| (self.worked != Some(*addr), !addr.ip().is_loopback(), addr.is_ipv6()));
        addrs
    }
}

/// The addresses of a URL's host at the UDP ports that its server, or a ticket, names.
pub fn at_host(hosts: &[IpAddr], named: impl IntoIterator<Item = u16>) -> Vec<SocketAddr> {
    let mut ports: Vec<u16> = Vec::new();
    for port in named.into_iter().filter(|port| *port != 0) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let at = |port: &u16| hosts.iter().map(|ip| canonical(SocketAddr::new(*ip, *port))).collect::<Vec<_>>();
    ports.iter().flat_map(at).collect()
}

/// The addresses of a server's document that can be meant for us, who reached it at `reached` by TCP; through a proxy it
/// is not known where. One that is worth less far from the server than the one that we reached it at is not: a public
/// server that names a private address is behind a NAT, and there may be somebody else at that address here.
pub fn meant_for_us(named: &[SocketAddr], reached: Option<IpAddr>) -> Vec<SocketAddr> {
    let least = reached.and_then(Width::of).unwrap_or(Width::Network);
    let is_wide = |addr: &SocketAddr| Width::of(addr.ip()).is_some_and(|width| width >= least);
    named.iter().map(|addr| canonical(*addr)).filter(is_wide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_worked_is_first_and_what_is_new_is_told_once() {
        let mut known = ServerAddrs::new(addrs(&["192.0.2.1:1", "[2001:db8::1]:1"]));
        assert_eq!(
            known.learn(addrs(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.2:1", "0.0.0.0:1"])),
            addrs(&["192.0.2.2:1"])
        );
        known.worked("192.0.2.2:1".parse().unwrap());
        assert_eq!(known.as_slice(), addrs(&["192.0.2.2:1", "192.0.2.1:1", "[2001:db8::1]:1"]));
    }

    #[test]
    fn the_newest_are_kept_of_too_many() {
        let mut known = ServerAddrs::default();
        for n in 0..100 {
            known.learn(addrs(&[&format!("192.0.2.{n}:1")]));
            known.worked("198.51.100.1:1".parse().unwrap());
        }
        assert_eq!(known.as_slice().len(), MAX_SERVER_ADDRS);
        assert_eq!(known.as_slice()[0].to_string(), "198.51.100.1:1");
        assert!(known.as_slice().contains(&"192.0.2.99:1".parse().unwrap()));
        assert!(
            known.learn((0..100).map(|n| SocketAddr::from(([203, 0, 113, n], 1)))).len()
                <= MAX_SERVER_ADDRS / 2
        );
    }

    #[test]
    fn what_worked_is_dialled_first_then_loopback_and_ipv4_before_ipv6() {
        let mut known = ServerAddrs::new(addrs(&["[2001:db8::1]:1", "192.0.2.1:1", "127.0.0.1:1"]));
        assert_eq!(known.to_dial(), addrs(&["127.0.0.1:1", "192.0.2.1:1", "[2001:db8::1]:1"]));
        known.worked("[2001:db8::1]:1".parse().unwrap());
        assert_eq!(known.to_dial(), addrs(&["[2001:db8::1]:1", "127.0.0.1:1", "192.0.2.1:1"]), "it worked");
    }

    #[test]
    fn the_host_is_looked_for_at_each_port_that_is_named() {
        let hosts = ["203.0.113.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(
            at_host(&hosts, [3478, 3478, 0, 443]),
            addrs(&["203.0.113.1:3478", "[2001:db8::1]:3478", "203.0.113.1:443", "[2001:db8::1]:443"])
        );
        assert!(at_host(&hosts, []).is_empty());
    }

    #[test]
    fn a_public_servers_private_addresses_are_not_meant_for_us() {
        let named = addrs(&["127.0.1.1:1", "10.0.0.5:1", "203.0.113.1:1", "[fd00::1]:1"]);
        let from = |reached: &str| meant_for_us(&named, Some(reached.parse().unwrap()));
        assert_eq!(from("203.0.113.1"), addrs(&["203.0.113.1:1"]));
        assert_eq!(from("10.0.0.5"), addrs(&["10.0.0.5:1", "203.0.113.1:1", "[fd00::1]:1"]));
        assert_eq!(from("127.0.0.1"), named);
        assert_eq!(meant_for_us(&named, None), addrs(&["10.0.0.5:1", "203.0.113.1:1", "[fd00::1]:1"]));
    }
}
