//! The network: hosts on LANs, routers in series, and the public core between them, as one machine.
//!
//! A packet leaves a host with [`Net::send`], climbs through the routers above it at once, crosses the core
//! in half a round trip, passes its destination's routers, and comes out of [`Net::poll_delivery`]. Each
//! *site* (a home's outermost attachment, or a server) has an uplink and a downlink of its own, so that a
//! packet whose TTL is used up by its own routers dies in the core, as on the Internet. Sites on one
//! *shared link* have no core hop between them, and there it doesn't.
//!
//! Drive it like the product's machines: after each [`Net::send`] or [`Net::advance`], drain
//! [`Net::poll_delivery`]; sleep until [`Net::poll_timeout`]. Events are ordered by (time, sequence), so equal
//! inputs give equal runs. Nothing here knows what a payload means.

mod event;
mod forward;
mod topology;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use event::{Event, Packet, Queue};
use topology::{Host, Lan, Router, Site, Target};
pub use topology::{HostId, LanId, Outside, Place, RouterId, SiteId, Traffic};

use crate::dice::Dice;
use crate::log::{Log, Undelivered, What};
use crate::nat::Nat;

/// The ports that sockets get which don't ask for one: the Linux default.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// The TTL of packets that don't ask for one.
pub const DEFAULT_TTL: u8 = 64;

/// A socket of one host, numbered by the host's owner. An unknown number is opened on first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u16);

/// What lies between sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Core {
    /// Routers between two sites that share no link. Each takes one from the TTL.
    pub hops: u8,
    /// Round trip between a home and a server (R), where the home has none of its own.
    pub server_rtt: Duration,
    /// Round trip between two homes (D).
    pub direct_rtt: Duration,
    /// Time that a packet takes between two hosts below one router.
    pub lan_delay: Duration,
}

impl Default for Core {
    /// Four hops; R and D of 40 ms; 0.1 ms in a LAN.
    fn default() -> Self {
        Self {
            hops: 4,
            server_rtt: Duration::from_millis(40),
            direct_rtt: Duration::from_millis(40),
            lan_delay: Duration::from_micros(100),
        }
    }
}

/// What comes out at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A datagram.
    Datagram {
        /// Whose.
        host: HostId,
        /// On which socket.
        socket: SocketId,
        /// Its source as the host sees it.
        from: SocketAddr,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// An ICMP error for a packet that was sent from this socket.
    Unreachable {
        /// Whose.
        host: HostId,
        /// From which socket.
        socket: SocketId,
        /// Where it was sent to.
        to: SocketAddr,
    },
}

/// The network of one world.
#[derive(Debug)]
pub struct Net {
    start: Instant,
    core: Core,
    seed: u64,
    streams: u64,
    dice: Dice,
    sites: Vec<Site>,
    routers: Vec<Router>,
    lans: Vec<Lan>,
    hosts: Vec<Host>,
    /// What answers to a public address.
    public: BTreeMap<IpAddr, (SiteId, Target)>,
    /// What answers to an address on a LAN.
    local: BTreeMap<(LanId, IpAddr), Target>,
    queue: Queue,
    ready: VecDeque<Delivery>,
    packets: u64,
    /// Nothing passes from home to home.
    direct_is_cut: bool,
    log: Log,
}

impl Net {
    /// An empty network whose virtual time starts at `start`. Its log keeps its entries only if the `story`
    /// is wanted.
    #[must_use]
    pub fn new(seed: u64, start: Instant, core: Core, story: bool) -> Self {
        Self {
            start,
            core,
            seed,
            streams: 0,
            dice: Dice::new(seed, 0),
            sites: Vec::new(),
            routers: Vec::new(),
            lans: Vec::new(),
            hosts: Vec::new(),
            public: BTreeMap::new(),
            local: BTreeMap::new(),
            queue: Queue::default(),
            ready: VecDeque::new(),
            packets: 0,
            direct_is_cut: false,
            log: Log::new(story),
        }
    }

    /// Sends a datagram from a host's socket, which is opened if need be. Without a `ttl` it is
    /// [`DEFAULT_TTL`].
    pub fn send(
        &mut self,
        now: Instant,
        (host, socket): (HostId, SocketId),
        to: SocketAddr,
        ttl: Option<u8>,
        payload: Vec<u8>,
    ) {
        let ttl = ttl.unwrap_or(DEFAULT_TTL);
        let bound = self.open(host, socket, None);
        let sender = &mut self.hosts[host.0];
        sender.traffic.sent += 1;
        sender.traffic.sent_bytes += payload.len() as u64;
        let source =
            if bound.ip().is_unspecified() { sender.address_towards(to.ip()) } else { Some(bound.ip()) };
        let src = SocketAddr::new(source.unwrap_or(bound.ip()), bound.port());
        let place = sender.place;
        self.packets += 1;
        let packet = self.packets;
        let what = What::Sent { packet, host, socket, src, dst: to, ttl, bytes: payload.len() };
        self.log.record(now.saturating_duration_since(self.start), what, &payload);
        let origin = event::Origin { host, socket, to, sent: now };
        let packet = Packet { number: packet, src, dst: to, ttl, origin, payload };
        if source.is_some_and(|source| source.is_ipv4() == to.is_ipv4()) {
            self.carry(packet, place, now);
        } else {
            self.dropped(&packet, Undelivered::NoRoute, now);
        }
    }

    /// When [`Net::advance`] next has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// Takes the first event that is due at `now`. False: there is none.
    pub fn advance(&mut self, now: Instant) -> bool {
        let Some((at, event)) = self.queue.pop_due(now) else { return false };
        match event {
            Event::AtDownlink { site, packet } => self.descend(site, packet, at),
            Event::Reach { target, packet } => self.reach(target, packet, at),
            Event::Unreachable { origin } => {
                let event::Origin { host, socket, to, .. } = origin;
                self.ready.push_back(Delivery::Unreachable { host, socket, to });
            }
        }
        true
    }

    /// The next datagram or error that reached a host.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        self.ready.pop_front()
    }

    /// Opens a socket, if it isn't open: on the address and port of `local` (an unspecified address
    /// stands for all of the host's, port 0 for an ephemeral one), or on an ephemeral port of all
    /// addresses and both families. Returns where it is bound.
    pub fn open(&mut self, host: HostId, socket: SocketId, local: Option<SocketAddr>) -> SocketAddr {
        let Self { hosts, dice, .. } = self;
        let host = &mut hosts[host.0];
        if let Some(bound) = host.sockets.get(&socket) {
            return *bound;
        }
        let mut bound = local.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        while bound.port() == 0 {
            let port = dice.port(&EPHEMERAL_PORTS);
            if !host.ports.contains_key(&(port, None)) {
                bound.set_port(port);
            }
        }
        let ip = (!bound.ip().is_unspecified()).then_some(bound.ip());
        host.ports.insert((bound.port(), ip), socket);
        host.sockets.insert(socket, bound);
        bound
    }

    /// Closes a socket. Its number may be used again and gets another port.
    pub fn close(&mut self, host: HostId, socket: SocketId) {
        let host = &mut self.hosts[host.0];
        if let Some(bound) = host.sockets.remove(&socket) {
            let ip = (!bound.ip().is_unspecified()).then_some(bound.ip());
            host.ports.remove(&(bound.port(), ip));
        }
    }

    /// The addresses that a host's own interfaces have.
    #[must_use]
    pub fn addresses(&self, host: HostId) -> &[IpAddr] {
        &self.hosts[host.0].addresses
    }

    /// What a host has sent and received.
    #[must_use]
    pub fn traffic(&self, host: HostId) -> Traffic {
        self.hosts[host.0].traffic
    }

    /// The NAT or firewall of a router for one family.
    #[must_use]
    pub fn nat(&self, router: RouterId, ipv6: bool) -> Option<&Nat> {
        self.routers[router.0].nat(ipv6)
    }

    /// What lies between sites.
    #[must_use]
    pub fn core(&self) -> Core {
        self.core
    }

    /// What happened.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Writes a node's remark into the log.
    pub fn note(&mut self, host: HostId, text: String, now: Instant) {
        self.log.record(now.saturating_duration_since(self.start), What::Note { host, text }, &[]);
    }

    /// Writes into the log that the world changed.
    pub fn note_fault(&mut self, text: String, now: Instant) {
        self.log.record(now.saturating_duration_since(self.start), What::Fault(text), &[]);
    }

    fn dropped(&mut self, packet: &Packet, why: Undelivered, now: Instant) {
        let what = What::Dropped { packet: packet.number, why };
        self.log.record(now.saturating_duration_since(self.start), what, &[]);
    }

    /// Independent dice for one more part of the network.
    fn next_dice(&mut self) -> Dice {
        self.streams += 1;
        Dice::new(self.seed, self.streams)
    }
}
