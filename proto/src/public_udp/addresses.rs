//! A server's own UDP addresses: which of them belong together, and which is ourselves.

use std::net::SocketAddr;

use crate::candidate::canonical;
use crate::reach::Door;
use crate::stun::Change;

/// The addresses that a server is bound to, its main one first, and what clients reach in their place.
#[derive(Debug)]
pub(super) struct Addresses {
    bound: Vec<SocketAddr>,
    doors: Vec<Door>,
}

impl Addresses {
    pub(super) fn new(doors: Vec<Door>) -> Self {
        Self { bound: doors.iter().map(Door::bound).collect(), doors }
    }

    /// What the operator says that clients reach in place of this address of ours.
    fn stated(&self, local: SocketAddr) -> Option<SocketAddr> {
        let is_it = |door: &&Door| {
            let bound = door.bound();
            bound == local
                || bound.ip().is_unspecified() && bound.port() == local.port() && door.serves(local.ip())
        };
        self.doors.iter().filter(is_it).find_map(|door| door.stated_for(local.ip()))
    }

    /// An address of ours as clients know it: what the operator states, else as it is.
    pub(super) fn public(&self, local: SocketAddr) -> SocketAddr {
        let local = canonical(local);
        self.stated(local).unwrap_or(local)
    }

    /// Whether what clients see of these four corners is two IP addresses with two ports each as well. What is stated of
    /// some of them alone shows nothing of the others.
    fn is_public_grid(&self, origin: SocketAddr, other: SocketAddr) -> bool {
        let at = |ip, port| self.stated(SocketAddr::new(ip, port));
        match (
            self.stated(origin),
            at(origin.ip(), other.port()),
            at(other.ip(), origin.port()),
            self.stated(other),
        ) {
            (None, None, None, None) => true,
            (Some(a), Some(b), Some(c), Some(d)) => {
                let ips = a.ip() == b.ip() && c.ip() == d.ip() && a.ip() != c.ip();
                ips && a.port() == c.port() && b.port() == d.port() && a.port() != b.port()
            }
            _some => false,
        }
    }

    /// The address at another IP address and another port than `origin`, of which RFC 5780 §7.4 makes
    /// OTHER-ADDRESS: only where both IP addresses have both ports, or a client would wait for what never comes.
    pub(super) fn other(&self, origin: SocketAddr) -> Option<SocketAddr> {
        let origin = canonical(origin);
        let has = |ip, port| self.bound.contains(&SocketAddr::new(ip, port));
        self.bound.iter().copied().find(|other| {
            other.is_ipv4() == origin.is_ipv4()
                && other.ip() != origin.ip()
                && other.port() != origin.port()
                && has(origin.ip(), origin.port())
                && has(origin.ip(), other.port())
                && has(other.ip(), origin.port())
                && self.is_public_grid(origin, *other)
        })
    }

    /// The address that answers for `origin` where a request wants that changed, if there is one. The other port
    /// of the same IP address needs no second IP address, and may be a wildcard's.
    pub(super) fn changed(&self, origin: SocketAddr, change: Change) -> Option<SocketAddr> {
        let origin = canonical(origin);
        let other = self.other(origin);
        match change {
            Change { ip: false, port: false } => Some(origin),
            Change { ip: true, port: true } => other,
            Change { ip: true, port: false } => other.map(|other| SocketAddr::new(other.ip(), origin.port())),
            Change { ip: false, port: true } => {
                let port = match other {
                    Some(other) => other.port(),
                    None => self.other_port(origin)?,
                };
                Some(SocketAddr::new(origin.ip(), port))
            }
        }
    }

    fn other_port(&self, origin: SocketAddr) -> Option<u16> {
        let serves = |bound: &SocketAddr| {
            bound.ip() == origin.ip() || bound.ip().is_unspecified() && (bound.is_ipv6() || origin.is_ipv4())
        };
        let others = self.bound.iter().filter(|bound| bound.port() != origin.port());
        others.filter(|bound| serves(bound)).map(SocketAddr::port).next()
    }

    /// Whether `source` is ourselves. A wildcard of ours stands for loopback and for the address that was asked:
    /// a source there with our port is ours. Anybody else may well have the same port number.
    pub(super) fn is_own(&self, source: SocketAddr, origin: Option<SocketAddr>) -> bool {
        let here =
            source.ip().is_loopback() || origin.is_some_and(|origin| canonical(origin).ip() == source.ip());
        let is_bound = |own: &SocketAddr| {
            *own == source || own.ip().is_unspecified() && own.port() == source.port() && here
        };
        self.bound.iter().any(is_bound)
            || self.doors.iter().any(|door| door.stated_for(source.ip()) == Some(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::state;

    fn addresses(bound: &[&str]) -> Addresses {
        translated(bound, &[])
    }

    fn translated(bound: &[&str], stated: &[&str]) -> Addresses {
        let mut doors: Vec<_> = bound.iter().map(|text| Door::new(addr(text))).collect();
        state(&mut doors, &stated.iter().map(|text| addr(text)).collect::<Vec<_>>()).unwrap();
        Addresses::new(doors)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const GRID: [&str; 4] = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:2"];

    #[test]
    fn with_two_addresses_and_both_ports_each_change_leads_to_its_corner() {
        let grid = addresses(&GRID);
        for (n, origin) in GRID.iter().enumerate() {
            let to = |ip, port| grid.changed(addr(origin), Change { ip, port }).unwrap().to_string();
            assert_eq!(grid.other(addr(origin)).unwrap().to_string(), GRID[3 - n]);
            let corners = [to(false, false), to(false, true), to(true, false), to(true, true)];
            assert_eq!(corners, [n, n ^ 1, n ^ 2, 3 - n].map(|corner| GRID[corner]));
        }
    }

    #[test]
    fn a_corner_that_is_missing_leaves_no_other_address() {
        for missing in 0..4 {
            let three: Vec<&str> =
                GRID.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, addr)| *addr).collect();
            let addresses = addresses(&three);
            for origin in &three {
                assert_eq!(addresses.other(addr(origin)), None);
                assert_eq!(addresses.changed(addr(origin), Change::BOTH), None);
            }
        }
    }

    #[test]
    fn a_second_port_needs_no_second_address_and_may_be_a_wildcards() {
        for bound in [["192.0.2.1:1", "192.0.2.1:2"], ["[::]:1", "[::]:2"], ["0.0.0.0:1", "0.0.0.0:2"]] {
            let addresses = addresses(&bound);
            let changed = |origin, change| addresses.changed(addr(origin), change);
            assert_eq!(changed("192.0.2.1:1", Change::PORT), Some(addr("192.0.2.1:2")));
            assert_eq!(changed("192.0.2.1:2", Change::PORT), Some(addr("192.0.2.1:1")));
            assert_eq!(changed("192.0.2.1:1", Change::BOTH), None);
            assert_eq!(changed("192.0.2.1:1", Change { ip: true, port: false }), None);
        }
        assert_eq!(addresses(&["[::]:1"]).changed(addr("192.0.2.1:1"), Change::PORT), None);
        let v4_only = addresses(&["[2001:db8::1]:1", "0.0.0.0:2"]);
        assert_eq!(v4_only.changed(addr("[2001:db8::1]:1"), Change::PORT), None);
    }

    #[test]
    fn the_families_are_grids_of_their_own() {
        let v6 = ["[2001:db8::1]:1", "[2001:db8::1]:2", "[2001:db8::2]:1", "[2001:db8::2]:2"];
        let both = addresses(&[&v6[..2], &GRID, &v6[2..]].concat());
        assert_eq!(both.other(addr(GRID[0])), Some(addr(GRID[3])));
        assert_eq!(both.other(addr(v6[0])), Some(addr(v6[3])));
        assert_eq!(addresses(&[v6[0], v6[1], GRID[0], GRID[1]]).other(addr(GRID[0])), None);
    }

    #[test]
    fn an_address_that_is_translated_has_its_public_form() {
        let one = translated(&["[::]:1", "[::]:2"], &["203.0.113.1:11"]);
        assert_eq!(one.public(addr("10.0.0.5:1")), addr("203.0.113.1:11"));
        assert_eq!(one.public(addr("10.0.0.5:2")), addr("203.0.113.1:2"));
        assert_eq!(one.public(addr("[fd00::5]:1")), addr("[fd00::5]:1"), "nothing is said of that family");
        assert_eq!(addresses(&["[::]:1"]).public(addr("10.0.0.5:1")), addr("10.0.0.5:1"));
        assert!(one.is_own(addr("203.0.113.1:11"), None), "a router may lead back to ourselves");
    }

    #[test]
    fn the_other_address_is_one_only_where_clients_see_two_addresses_with_two_ports() {
        let public = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1", "203.0.113.2:2"];
        let other = |stated: &[&str]| translated(&GRID, stated).other(addr(GRID[0]));
        assert_eq!(other(&public), Some(addr(GRID[3])));
        assert_eq!(translated(&GRID, &public).public(addr(GRID[3])), addr(public[3]));
        let one_address = ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.1:3", "203.0.113.1:4"];
        assert_eq!(other(&one_address), None);
        assert_eq!(other(&public[..1]), None, "of the second address nothing is known");
        let crossed = [public[0], public[1], public[3], public[2]];
        assert_eq!(other(&crossed), None);
    }
}
