//! The sentence that describes a world, and building the world from it.
//!
//! Addresses are those of the documentation ranges: homes at 203.0.113.x (198.18/15 from the 251st on), servers
//! at 192.0.2.x, carriers inside 100.64/10, all IPv6 in 2001:db8::/32. Every LAN is 192.168.1.0/24, as most are,
//! and hosts have different numbers in it, so that a private address means nothing in another home.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Home, Node, World};
use crate::kind::Kind;
use crate::link::Quality;
use crate::nat::Policy;
use crate::net::{Core, HostId, Net, Outside, Place, RouterId, SiteId, SocketId};

/// The two UDP ports of a server.
const SERVER_PORTS: [u16; 2] = [3478, 3479];

/// The sockets of one server: number n of the list is its `SocketId(n)`. First two IPv4 addresses of two
/// ports each, then two IPv6 addresses of two ports each.
pub type ServerSockets = Vec<SocketAddr>;

/// A place at the table: what a node may know of its host when it is made.
#[derive(Debug)]
pub struct Seat<'a> {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: &'a str,
    /// How it reaches the Internet; none for a server and for a home of custom routers.
    pub kind: Option<Kind>,
    /// Whether it is a server.
    pub is_server: bool,
    /// Its own addresses.
    pub addresses: &'a [IpAddr],
    /// The port of its main socket, `SocketId(0)`, which is open on all addresses before anything happens. A
    /// server's sockets are those of its entry in `servers`.
    pub port: u16,
    /// The router's port that is mapped to the main socket, where the host has asked for one.
    pub mapped: Option<SocketAddr>,
    /// The sockets of all servers.
    pub servers: &'a [ServerSockets],
    /// A seed for this node alone.
    pub seed: u64,
    /// The start of virtual time.
    pub start: Instant,
}

#[derive(Debug, Clone)]
struct HomePlan {
    name: String,
    kind: Option<Kind>,
    /// The host's own router first.
    policies: Vec<Policy>,
    is_empty: bool,
    is_dual_stack: bool,
    server_rtt: Option<Duration>,
    wires: (Quality, Quality),
    shared_link: Option<u16>,
    carrier: Option<String>,
}

/// A world in words.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    core: Core,
    story: bool,
    homes: Vec<HomePlan>,
    servers: Vec<String>,
    carriers: BTreeMap<String, Policy>,
    shared_links: u16,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            core: Core::default(),
            story: false,
            homes: Vec::new(),
            servers: Vec::new(),
            carriers: BTreeMap::new(),
            shared_links: 0,
        }
    }

    /// A home of this kind with a host of the same name. Homes of a kind that shares a router share one.
    #[must_use]
    pub fn home(self, name: &str, kind: Kind) -> Self {
        self.add(name, Some(kind), kind.policies())
    }

    /// A home behind these routers in series, the host's own first.
    #[must_use]
    pub fn home_behind(self, name: &str, policies: Vec<Policy>) -> Self {
        self.add(name, None, policies)
    }

    /// A home without a host, for one to roam to.
    #[must_use]
    pub fn empty_home(self, name: &str, kind: Kind) -> Self {
        self.home(name, kind).last(|home| home.is_empty = true)
    }

    /// A public server with two addresses of each family and two ports on each.
    #[must_use]
    pub fn server(mut self, name: &str) -> Self {
        self.servers.push(name.to_owned());
        self
    }

    /// Changes the routers of the home named last.
    #[must_use]
    pub fn whose_routers(self, change: impl Fn(&mut Policy)) -> Self {
        self.last(|home| home.policies.iter_mut().for_each(change))
    }

    /// Gives the home named last global IPv6 behind stateful firewalls, beside its IPv4.
    #[must_use]
    pub fn with_ipv6(self) -> Self {
        self.last(|home| home.is_dual_stack = true)
    }

    /// Gives the home named last its own round trip to servers.
    #[must_use]
    pub fn at_server_rtt(self, rtt: Duration) -> Self {
        self.last(|home| home.server_rtt = Some(rtt))
    }

    /// Gives the home named last these wires, up and down.
    #[must_use]
    pub fn over(self, up: Quality, down: Quality) -> Self {
        self.last(|home| home.wires = (up, down))
    }

    /// Puts the last `count` homes on one link, without a router of the Internet between them.
    #[must_use]
    pub fn on_one_link(mut self, count: usize) -> Self {
        self.shared_links += 1;
        for home in self.homes.iter_mut().rev().take(count) {
            home.shared_link = Some(self.shared_links);
        }
        self
    }

    /// Puts the last `count` homes behind one carrier's router, above their own.
    #[must_use]
    pub fn behind_one_carrier(mut self, count: usize, policy: Policy) -> Self {
        let name = format!("carrier {}", self.carriers.len() + 1);
        for home in self.homes.iter_mut().rev().take(count) {
            home.carrier = Some(name.clone());
        }
        self.carriers.insert(name, policy);
        self
    }

    /// Sets the round trip between a home and a server (R).
    #[must_use]
    pub fn server_rtt(mut self, rtt: Duration) -> Self {
        self.core.server_rtt = rtt;
        self
    }

    /// Sets the round trip between two homes (D).
    #[must_use]
    pub fn direct_rtt(mut self, rtt: Duration) -> Self {
        self.core.direct_rtt = rtt;
        self
    }

    /// Sets the number of public routers between two homes.
    #[must_use]
    pub fn core_hops(mut self, hops: u8) -> Self {
        self.core.hops = hops;
        self
    }

    /// Keeps every event for [`World::story`].
    #[must_use]
    pub fn telling_the_story(mut self) -> Self {
        self.story = true;
        self
    }

    /// Builds the network alone.
    #[must_use]
    pub fn build_net(&self, start: Instant) -> Net {
        Builder::new(self, start).build().net
    }

    /// Builds the world, with a node for each host from `node_at`, and sends what the nodes want sent at once.
    pub fn build<N: Node>(&self, node_at: impl FnMut(&Seat<'_>) -> N) -> World<N> {
        // An instant can't be invented; only differences of this one are ever looked at.
        self.build_at(Instant::now(), node_at)
    }

    /// The same with virtual time starting at `start`.
    pub fn build_at<N: Node>(&self, start: Instant, mut node_at: impl FnMut(&Seat<'_>) -> N) -> World<N> {
        let built = Builder::new(self, start).build();
        let Builder { mut net, hosts, routers, homes, servers, .. } = built;
        let count = hosts.len();
        let mut nodes = Vec::with_capacity(count);
        for (n, (name, kind, is_server)) in hosts.iter().enumerate() {
            let port = net.open(HostId(n), SocketId(0), None).port();
            let router = homes.get(name).and_then(|home| home.routers.first()).copied();
            let mapped = router.filter(|_| *kind == Some(Kind::Mapped)).and_then(|router| {
                let inner = SocketAddr::new(*net.addresses(HostId(n)).first()?, port);
                net.forward_port(router, inner)
            });
            nodes.push(node_at(&Seat {
                host: HostId(n),
                name,
                kind: *kind,
                is_server: *is_server,
                addresses: net.addresses(HostId(n)),
                port,
                mapped,
                servers: &servers,
                seed: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64 + 1),
                start,
            }));
        }
        let hosts = hosts.into_iter().map(|(name, ..)| name).collect();
        let seed = self.seed;
        let mut world =
            World { net, nodes, hosts, routers, homes, seed, start, now: start, inputs_at_now: 0 };
        for n in 0..count {
            world.drain(HostId(n));
        }
        world
    }

    fn add(mut self, name: &str, kind: Option<Kind>, policies: Vec<Policy>) -> Self {
        self.homes.push(HomePlan {
            name: name.to_owned(),
            kind,
            policies,
            is_empty: false,
            is_dual_stack: kind.is_some_and(|kind| kind.layers() == 0),
            server_rtt: None,
            wires: (Quality::default(), Quality::default()),
            shared_link: None,
            carrier: None,
        });
        self
    }

    fn last(mut self, change: impl FnOnce(&mut HomePlan)) -> Self {
        if let Some(home) = self.homes.last_mut() {
            change(home);
        }
        self
    }
}

/// The work of building: a network and the names of its parts.
struct Builder<'a> {
    plan: &'a Plan,
    net: Net,
    hosts: Vec<(String, Option<Kind>, bool)>,
    routers: Vec<String>,
    homes: BTreeMap<String, Home>,
    servers: Vec<ServerSockets>,
    /// Routers that several homes are behind, by what they share.
    shared: BTreeMap<String, (SiteId, RouterId)>,
}

impl<'a> Builder<'a> {
    fn new(plan: &'a Plan, start: Instant) -> Self {
        Self {
            plan,
            net: Net::new(plan.seed, start, plan.core, plan.story),
            hosts: Vec::new(),
            routers: Vec::new(),
            homes: BTreeMap::new(),
            servers: Vec::new(),
            shared: BTreeMap::new(),
        }
    }

    fn build(mut self) -> Self {
        let plan = self.plan;
        for (number, home) in (0_u16..).zip(&plan.homes) {
            let built = self.build_home(number, home);
            if !home.is_empty {
                let (place, addresses) = built.seat.clone();
                self.net.add_host(place, addresses);
                self.hosts.push((home.name.clone(), home.kind, false));
            }
            self.homes.insert(home.name.clone(), built);
        }
        for (number, name) in (0_u8..).zip(&plan.servers) {
            self.build_server(number, name);
        }
        self
    }

    fn build_server(&mut self, number: u8, name: &str) {
        let site = self.net.add_site(true);
        let v4 =
            [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, number.wrapping_mul(10).wrapping_add(n))));
        let v6 = [1, 2].map(|n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, number.into(), 0, 0, 0, n)));
        let addresses: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
        let on_ports = |ip: &IpAddr| SERVER_PORTS.map(|port| SocketAddr::new(*ip, port));
        let sockets: ServerSockets = addresses.iter().flat_map(on_ports).collect();
        let host = self.net.add_host(Place::Site(site), addresses);
        for (n, socket) in (0..).zip(&sockets) {
            self.net.open(host, SocketId(n), Some(*socket));
        }
        self.hosts.push((name.to_owned(), None, true));
        self.servers.push(sockets);
    }

    /// Builds a home's routers from the outside in, and says where its host sits.
    fn build_home(&mut self, number: u16, home: &HomePlan) -> Home {
        let shared_name = match home.kind {
            Some(kind) if kind.shares_a_router() => Some(kind.to_string()),
            _ => None,
        };
        let (site, mut place, mut routers) = self.outermost(number, home);
        for (layer, policy) in home.policies.iter().enumerate().rev() {
            let known = shared_name.as_ref().and_then(|name| self.shared.get(name)).copied();
            let router = match known {
                Some((_, router)) => router,
                None => self.add_router(number, home, layer, place, policy),
            };
            if let Some(name) = &shared_name {
                self.shared.insert(name.clone(), (site, router));
            }
            routers.insert(0, router);
            place = Place::Lan(self.lan_below(router, home.kind == Some(Kind::SameLan)));
        }
        let addresses = self.host_addresses(number, home, place);
        Home { site, routers, seat: (place, addresses) }
    }

    /// Where a home's outermost own router is attached, and the carrier's router above it.
    fn outermost(&mut self, number: u16, home: &HomePlan) -> (SiteId, Place, Vec<RouterId>) {
        let shared = match (&home.carrier, home.kind) {
            (Some(carrier), _) => self.shared.get(carrier),
            (None, Some(kind)) if kind.shares_a_router() => self.shared.get(&kind.to_string()),
            (None, _) => None,
        };
        if let Some((site, router)) = shared.copied() {
            let above = if home.carrier.is_some() { vec![router] } else { Vec::new() };
            return (site, Place::Lan(self.lan_below(router, true)), above);
        }
        let site = self.net.add_site(false);
        self.net.set_quality(site, home.wires.0, home.wires.1);
        if let Some(rtt) = home.server_rtt {
            self.net.set_server_rtt(site, rtt);
        }
        if let Some(link) = home.shared_link {
            self.net.set_shared_link(site, link);
        }
        let Some(carrier) = &home.carrier else { return (site, Place::Site(site), Vec::new()) };
        let policy = self.plan.carriers.get(carrier).cloned();
        let outside = Outside {
            place: Place::Site(site),
            addresses: vec![public_v4(number)],
            ipv4: policy,
            ipv6: home.is_dual_stack.then(Policy::firewall),
        };
        let router = self.net.add_router(outside, false);
        self.routers.push(carrier.clone());
        self.shared.insert(carrier.clone(), (site, router));
        (site, Place::Lan(self.net.add_lan(router)), vec![router])
    }

    fn add_router(
        &mut self,
        number: u16,
        home: &HomePlan,
        layer: usize,
        place: Place,
        policy: &Policy,
    ) -> RouterId {
        let address = match place {
            Place::Site(_) => public_v4(number),
            Place::Lan(_) => IpAddr::V4(Ipv4Addr::from(0x6440_0002_u32 + (u32::from(number) << 8))),
        };
        let firewall = home.is_dual_stack.then(Policy::firewall);
        let outside = if policy.translates {
            Outside { place, addresses: vec![address], ipv4: Some(policy.clone()), ipv6: firewall }
        } else {
            Outside { place, addresses: Vec::new(), ipv4: None, ipv6: Some(policy.clone()) }
        };
        let isolates = home.kind == Some(Kind::SameNatHairpin);
        self.routers.push(match layer {
            0 => format!("{}'s router", home.name),
            _ => format!("{}'s carrier", home.name),
        });
        self.net.add_router(outside, isolates)
    }

    /// The LAN that all below a router share, or one more of its LANs.
    fn lan_below(&mut self, router: RouterId, is_shared: bool) -> crate::net::LanId {
        match self.net.first_lan(router) {
            Some(lan) if is_shared => lan,
            _ => self.net.add_lan(router),
        }
    }

    fn host_addresses(&self, number: u16, home: &HomePlan, place: Place) -> Vec<IpAddr> {
        let v4 = match place {
            Place::Site(_) => public_v4(number),
            Place::Lan(_) => IpAddr::V4(Ipv4Addr::from(0xc0a8_010a_u32 + u32::from(number))),
        };
        let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0x10));
        if home.kind == Some(Kind::Ipv6Firewall) {
            return vec![v6];
        }
        if home.is_dual_stack { vec![v4, v6] } else { vec![v4] }
    }
}

/// The public IPv4 address of home number `number`.
fn public_v4(number: u16) -> IpAddr {
    match u8::try_from(number) {
        Ok(low @ 0..250) => IpAddr::V4(Ipv4Addr::new(203, 0, 113, low + 1)),
        _ => IpAddr::V4(Ipv4Addr::from(0xc612_0000_u32 + u32::from(number))),
    }
}
