//! Where clients reach a server: which of its possible addresses are told to whom.
//!
//! A server sees the addresses of its own machine, which may all be private: behind a cloud's address translation, in a
//! container, or behind a home's router. So it tells every address that may work, best first, and none that is narrower
//! than where the asker is: a private address means another machine in another network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::candidate::{Scope, canonical, scope};
use crate::interface::is_shared;
use crate::ticket::MAX_ADDRS;

/// From how far an address can be used, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// From this machine: loopback.
    Machine,
    /// From one local network: private (RFC 1918) and ULA (RFC 4193).
    Network,
    /// From one carrier's network, or one overlay: 100.64/10 (RFC 6598).
    Carrier,
    /// From everywhere.
    World,
}

impl Width {
    /// The width of an address; none where it is no destination.
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        match scope(SocketAddr::new(ip, 1)) {
            Scope::Unusable => None,
            Scope::Loopback => Some(Self::Machine),
            Scope::Local => Some(Self::Network),
            Scope::Global if is_shared(ip) => Some(Self::Carrier),
            Scope::Global => Some(Self::World),
        }
    }
}

/// Who asks, as far as the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Where it is.
    pub width: Width,
    /// The address of this machine that it reached, where that is known.
    pub reached: Option<IpAddr>,
}

impl Asker {
    /// One that comes from `from`, an address of its own; somebody from far away, where that is none.
    pub fn at(from: IpAddr, reached: Option<IpAddr>) -> Self {
        Self { width: Width::of(from).unwrap_or(Width::World), reached }
    }

    /// One of whose address nothing is known, as behind a proxy.
    pub const fn unknown(reached: Option<IpAddr>) -> Self {
        Self { width: Width::World, reached }
    }

    /// Whether an address is of use to it.
    fn can_use(&self, ip: IpAddr) -> bool {
        Width::of(ip).is_some_and(|width| width >= self.width)
    }
}

/// One of a server's UDP sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    bound: SocketAddr,
    /// What the operator says that clients reach, at most one of each family.
    stated: Vec<SocketAddr>,
}

impl Door {
    /// A socket that is bound to this address: `[::]` is both families, `0.0.0.0` is IPv4.
    pub fn new(bound: SocketAddr) -> Self {
        Self { bound: canonical(bound), stated: Vec::new() }
    }

    /// What it is bound to.
    pub const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Whether packets to this address, or one of this family, can come to it.
    pub fn serves(&self, ip: IpAddr) -> bool {
        let (own, ip) = (self.bound.ip(), ip.to_canonical());
        own.is_ipv4() == ip.is_ipv4() || own.is_unspecified() && own.is_ipv6()
    }

    /// What the operator says that clients reach in place of `local`, an address of this machine; none where the
    /// operator says nothing of that family.
    pub fn stated_for(&self, local: IpAddr) -> Option<SocketAddr> {
        self.stated.iter().copied().find(|stated| stated.is_ipv4() == local.to_canonical().is_ipv4())
    }

    /// The port at which clients of this family reach it, whatever the address.
    pub fn port(&self, is_v4: bool) -> u16 {
        let stated = self.stated.iter().find(|stated| stated.is_ipv4() == is_v4).or(self.stated.first());
        stated.map_or(self.bound.port(), SocketAddr::port)
    }

    /// Whether the operator says anything of it.
    pub fn is_stated(&self) -> bool {
        !self.stated.is_empty()
    }

    /// Whether it is bound to one address that everybody can use, so that nothing else is to be known of it.
    fn is_certain(&self) -> bool {
        Width::of(self.bound.ip()) == Some(Width::World)
    }

    /// Whether a host by whose name clients come, at an address that is not this machine's, may lead here.
    fn may_be_led_to(&self) -> bool {
        !self.is_certain() && !self.bound.ip().is_loopback()
    }

    /// The addresses for this asker, best first, each with where it is known from.
    fn known(&self, known: &Surroundings, asker: &Asker) -> Vec<(Source, SocketAddr)> {
        let of = |source, ips: &[IpAddr], port: &dyn Fn(IpAddr) -> u16| {
            let usable = ips.iter().map(IpAddr::to_canonical);
            let usable = usable.filter(|ip| self.serves(*ip) && asker.can_use(*ip));
            usable.map(|ip| (source, SocketAddr::new(ip, port(ip)))).collect::<Vec<_>>()
        };
        let outside = |ip| self.stated_for(ip).map_or(self.bound.port(), |stated| stated.port());
        let here = |_| self.bound.port();
        let mut all: Vec<_> = self.stated.iter().map(|stated| (Source::Stated, *stated)).collect();
        if self.may_be_led_to() {
            all.extend(of(Source::Named, &known.named, &outside));
        }
        if self.bound.ip().is_unspecified() {
            let reached: Vec<_> = asker.reached.into_iter().collect();
            all.extend(of(Source::Reached, &reached, &here));
            let own: Vec<_> =
                known.own.iter().copied().filter(|ip| Width::of(*ip) == Some(Width::World)).collect();
            all.extend(of(Source::Own, &own, &here));
        } else {
            all.extend(of(Source::Reached, &[self.bound.ip()], &here));
        }
        let mut told: Vec<(Source, SocketAddr)> = Vec::new();
        for (source, addr) in all {
            if !told.iter().any(|(_, other)| *other == addr) {
                told.push((source, addr));
            }
        }
        told
    }
}

/// Where an address is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The operator.
    Stated,
    /// The name by which clients come.
    Named,
    /// The route back to the asker, or what the socket is bound to.
    Reached,
    /// This machine.
    Own,
}

/// What the server finds out about where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The addresses of the host by whose name clients come: the public URL's, else the domain's.
    pub named: Vec<IpAddr>,
    /// The addresses of this machine.
    pub own: Vec<IpAddr>,
}

/// An address that was stated and has no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "--udp-public {0}: no UDP socket is left for it: there may be one address of each family for --udp, and then for each \
     --udp-alternate, in their order"
)]
pub struct NoDoor(pub SocketAddr);

/// Assigns what the operator states to the sockets: each address goes to the first socket of its family that has none of
/// that family yet. A socket that is left without one is taken to be at the stated IP address of an earlier one that is
/// bound to the same local address, with its own port.
///
/// # Errors
/// An address is left over. The others are assigned.
pub fn state(doors: &mut [Door], stated: &[SocketAddr]) -> Result<(), NoDoor> {
    let mut left = Ok(());
    for addr in stated.iter().copied().map(canonical) {
        let free = |door: &&mut Door| door.serves(addr.ip()) && door.stated_for(addr.ip()).is_none();
        match doors.iter_mut().find(free) {
            Some(door) => door.stated.push(addr),
            None => left = left.and(Err(NoDoor(addr))),
        }
    }
    for n in 1..doors.len() {
        let (earlier, rest) = doors.split_at_mut(n);
        let Some(door) = rest.first_mut() else { break };
        let beside = earlier.iter().filter(|other| other.bound.ip() == door.bound.ip());
        let inherited: Vec<_> = beside.flat_map(|other| other.stated.clone()).collect();
        for addr in inherited {
            if door.stated_for(addr.ip()).is_none() {
                door.stated.push(SocketAddr::new(addr.ip(), door.bound.port()));
            }
        }
    }
    left
}

/// The addresses of these sockets that may work for this asker, best first, eight at most: of several sockets the best
/// of each come first. None is no error: the asker's way is the relay then.
pub fn told(doors: &[Door], known: &Surroundings, asker: &Asker) -> Vec<SocketAddr> {
    let lists: Vec<Vec<_>> = doors.iter().map(|door| door.known(known, asker)).collect();
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|n| lists.iter().filter_map(move |list| list.get(n)));
    in_turn.map(|(_, addr)| *addr).take(MAX_ADDRS).collect()
}

/// One address of each of these sockets and of each family, for a client that has a session already: the best, where
/// the one that the client reached counts more than a name. Those of the family in which it comes are first. Of a socket
/// that no address is known of, the port is told with an unspecified address: the client knows where it reached the server.
pub fn beside(doors: &[Door], known: &Surroundings, asker: &Asker) -> Vec<SocketAddr> {
    let comes_by_v6 = asker.reached.is_some_and(|ip| ip.to_canonical().is_ipv6());
    let best = |door: &Door, v6: bool| {
        let all = door.known(known, asker);
        let of = |source| move |(from, addr): &&(Source, SocketAddr)| *from == source && addr.is_ipv6() == v6;
        let order = [Source::Stated, Source::Reached, Source::Named, Source::Own];
        order.into_iter().find_map(|source| all.iter().find(of(source)).map(|(_, addr)| *addr))
    };
    let families = [comes_by_v6, !comes_by_v6];
    let all = families.into_iter().flat_map(|v6| doors.iter().filter_map(move |door| best(door, v6)));
    let mut all: Vec<SocketAddr> = all.collect();
    let is_unknown = |door: &&Door| best(door, true).is_none() && best(door, false).is_none();
    all.extend(doors.iter().filter(is_unknown).map(|door| {
        let any = if comes_by_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        SocketAddr::new(any, door.port(!comes_by_v6))
    }));
    all.truncate(MAX_ADDRS);
    all
}

#[cfg(test)]
mod tests;
