//! Who is attached to what: building a network, and changing it under its hosts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Net, SocketId};
use crate::link::{Link, Quality};
use crate::nat::{Nat, Policy};

/// A host of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A router of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub usize);

/// A LAN, or a carrier's access network, below a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LanId(pub usize);

/// An attachment to the public core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub usize);

/// Where a host, or the outside of a router, is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// To the public core. A site holds one host or one router.
    Site(SiteId),
    /// To the LAN below a router.
    Lan(LanId),
}

/// The outside of a new router.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Where it is.
    pub place: Place,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// What it does to IPv4; none: it has no IPv4.
    pub ipv4: Option<Policy>,
    /// What it does to IPv6; none: it has no IPv6.
    pub ipv6: Option<Policy>,
}

/// What a host has sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Datagrams sent, those that got nowhere included.
    pub sent: u64,
    /// Their payload, in bytes.
    pub sent_bytes: u64,
    /// Datagrams that reached a socket.
    pub received: u64,
}

/// What answers to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Host(HostId),
    Router(RouterId),
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) up: Link,
    pub(super) down: Link,
    pub(super) is_server: bool,
    /// Its own R.
    pub(super) server_rtt: Option<Duration>,
    /// The link that it shares with other sites.
    pub(super) shared_link: Option<u16>,
}

#[derive(Debug)]
pub(super) struct Router {
    pub(super) place: Place,
    pub(super) lans: Vec<LanId>,
    pub(super) isolates: bool,
    ipv4: Option<Nat>,
    ipv6: Option<Nat>,
}

impl Router {
    pub(super) fn nat(&self, ipv6: bool) -> Option<&Nat> {
        if ipv6 { self.ipv6.as_ref() } else { self.ipv4.as_ref() }
    }

    pub(super) fn nat_mut(&mut self, ipv6: bool) -> Option<&mut Nat> {
        if ipv6 { self.ipv6.as_mut() } else { self.ipv4.as_mut() }
    }
}

#[derive(Debug)]
pub(super) struct Lan {
    pub(super) router: RouterId,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) place: Place,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) sockets: BTreeMap<SocketId, SocketAddr>,
    /// By port and, for a socket of one address, that.
    pub(super) ports: BTreeMap<(u16, Option<IpAddr>), SocketId>,
    pub(super) traffic: Traffic,
}

impl Host {
    /// The address from which it sends to `remote`: its first of that family.
    pub(super) fn address_towards(&self, remote: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().find(|ip| ip.is_ipv4() == remote.is_ipv4()).copied()
    }
}

impl Net {
    /// Adds an attachment to the core, with perfect wires.
    pub fn add_site(&mut self, is_server: bool) -> SiteId {
        let up = Link::new(Quality::default(), self.next_dice());
        let down = Link::new(Quality::default(), self.next_dice());
        self.sites.push(Site { up, down, is_server, server_rtt: None, shared_link: None });
        SiteId(self.sites.len() - 1)
    }

    /// Adds a router. Its LANs are kept apart from each other if it `isolates`.
    pub fn add_router(&mut self, outside: Outside, isolates: bool) -> RouterId {
        let Outside { place, addresses, ipv4, ipv6 } = outside;
        let family = |ipv6| addresses.iter().copied().filter(move |ip| ip.is_ipv6() == ipv6).collect();
        let ipv4 = ipv4.map(|policy| Nat::new(policy, family(false), self.next_dice()));
        let ipv6 = ipv6.map(|policy| Nat::new(policy, family(true), self.next_dice()));
        let router = RouterId(self.routers.len());
        self.routers.push(Router { place, lans: Vec::new(), isolates, ipv4, ipv6 });
        for ip in addresses {
            self.register(place, ip, Target::Router(router));
        }
        router
    }

    /// Adds a LAN below a router.
    pub fn add_lan(&mut self, router: RouterId) -> LanId {
        let lan = LanId(self.lans.len());
        self.lans.push(Lan { router });
        self.routers[router.0].lans.push(lan);
        lan
    }

    /// The LAN that was added first below a router.
    #[must_use]
    pub fn first_lan(&self, router: RouterId) -> Option<LanId> {
        self.routers[router.0].lans.first().copied()
    }

    /// Adds a host.
    pub fn add_host(&mut self, place: Place, addresses: Vec<IpAddr>) -> HostId {
        let host = HostId(self.hosts.len());
        self.hosts.push(Host {
            place,
            addresses: Vec::new(),
            sockets: BTreeMap::new(),
            ports: BTreeMap::new(),
            traffic: Traffic::default(),
        });
        self.attach(host, place, addresses);
        host
    }

    /// Moves a host elsewhere, as a laptop that changes networks. Sockets on all addresses stay open.
    pub fn move_host(&mut self, host: HostId, place: Place, addresses: Vec<IpAddr>) {
        let Host { place: old, addresses: had, .. } = &mut self.hosts[host.0];
        let (old, had) = (*old, std::mem::take(had));
        for ip in had {
            self.unregister(old, ip);
        }
        self.attach(host, place, addresses);
    }

    /// A host's round trip to servers: its site's own, if that has one.
    #[must_use]
    pub fn server_rtt(&self, host: HostId) -> Duration {
        let mut place = self.hosts[host.0].place;
        loop {
            match place {
                Place::Site(site) => return self.sites[site.0].server_rtt.unwrap_or(self.core.server_rtt),
                Place::Lan(lan) => place = self.routers[self.lans[lan.0].router.0].place,
            }
        }
    }

    /// Sets a site's own round trip to servers.
    pub fn set_server_rtt(&mut self, site: SiteId, rtt: Duration) {
        self.sites[site.0].server_rtt = Some(rtt);
    }

    /// Puts a site on a link that it shares with the other sites of the same number.
    pub fn set_shared_link(&mut self, site: SiteId, link: u16) {
        self.sites[site.0].shared_link = Some(link);
    }

    /// Changes a site's wires.
    pub fn set_quality(&mut self, site: SiteId, up: Quality, down: Quality) {
        let site = &mut self.sites[site.0];
        site.up.set_quality(up);
        site.down.set_quality(down);
    }

    /// Lets nothing pass from home to home any more, while the servers are reached as before; or lets it.
    pub fn cut_direct(&mut self, is_cut: bool) {
        self.direct_is_cut = is_cut;
    }

    /// Power-cycles a router: all its state is gone.
    pub fn reboot(&mut self, router: RouterId) {
        let Router { ipv4, ipv6, .. } = &mut self.routers[router.0];
        for nat in [ipv4, ipv6].into_iter().flatten() {
            nat.reboot();
        }
    }

    /// Gives a router's translator of `address`'s family another external address in place of all it had.
    pub fn change_address(&mut self, router: RouterId, address: IpAddr) {
        let place = self.routers[router.0].place;
        let Some(nat) = self.routers[router.0].nat_mut(address.is_ipv6()) else { return };
        let had = nat.external().to_vec();
        nat.change_address(vec![address]);
        for ip in had {
            self.unregister(place, ip);
        }
        self.register(place, address, Target::Router(router));
    }

    /// Has a router map one of its ports to a host's socket, as if the host had asked for it. None where it has no
    /// such address.
    pub fn forward_port(&mut self, router: RouterId, inner: SocketAddr) -> Option<SocketAddr> {
        self.routers[router.0].nat_mut(inner.is_ipv6())?.forward(inner)
    }

    /// Lets other hosts behind a router open `flows` flows, which moves a sequential allocator on.
    pub fn foreign_flows(&mut self, router: RouterId, flows: u16) {
        if let Some(nat) = self.routers[router.0].nat_mut(false) {
            nat.foreign_flows(flows);
        }
    }

    /// The external endpoints that a router has given to an internal one.
    #[must_use]
    pub fn bindings(&self, router: RouterId, inner: SocketAddr, now: Instant) -> Vec<SocketAddr> {
        let nat = self.nat(router, inner.is_ipv6());
        nat.map_or_else(Vec::new, |nat| nat.bindings(inner, now).into_values().collect())
    }

    fn attach(&mut self, host: HostId, place: Place, addresses: Vec<IpAddr>) {
        for ip in &addresses {
            self.register(place, *ip, Target::Host(host));
        }
        let host = &mut self.hosts[host.0];
        host.place = place;
        host.addresses = addresses;
    }

    /// Makes an address reachable at a place, and above it as far as routers only filter.
    fn register(&mut self, mut place: Place, ip: IpAddr, mut target: Target) {
        loop {
            let lan = match place {
                Place::Site(site) => {
                    self.public.insert(ip, (site, target));
                    return;
                }
                Place::Lan(lan) => lan,
            };
            self.local.insert((lan, ip), target);
            let Some((above, router)) = self.filtering_router(lan, ip) else { return };
            (place, target) = (above, Target::Router(router));
        }
    }

    fn unregister(&mut self, mut place: Place, ip: IpAddr) {
        loop {
            let lan = match place {
                Place::Site(_) => {
                    self.public.remove(&ip);
                    return;
                }
                Place::Lan(lan) => lan,
            };
            self.local.remove(&(lan, ip));
            let Some((above, _)) = self.filtering_router(lan, ip) else { return };
            place = above;
        }
    }

    /// The router above a LAN and its outside, if it passes this family without translating it.
    fn filtering_router(&self, lan: LanId, ip: IpAddr) -> Option<(Place, RouterId)> {
        let id = self.lans[lan.0].router;
        let router = &self.routers[id.0];
        let nat = router.nat(ip.is_ipv6())?;
        (!nat.policy().translates).then_some((router.place, id))
    }
}
