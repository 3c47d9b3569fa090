//! A network with somebody at each host: the loop that drives them, jumping from wake-up to wake-up.
//!
//! ```
//! use nat_sim::kind::Kind;
//! use nat_sim::world::World;
//!
//! let plan = World::plan(7).home("a", Kind::PORT_RESTRICTED).home("b", Kind::FULL_CONE.leaky()).server("s");
//! # let _ = plan;
//! ```
//!
//! What sits at a host is a [`Node`]: a machine of the product behind a small adapter. After each input it is
//! drained of all that it wants sent before anyone gets the next input.

mod plan;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

pub use plan::{Plan, Seat, ServerSockets};

use crate::link::Quality;
use crate::log::Names;
use crate::net::{Delivery, HostId, Net, Place, RouterId, SiteId, SocketId};

/// Inputs at one instant after which a world is taken to be spinning.
const INPUTS_AT_ONE_INSTANT_MAX: u32 = 100_000;

/// A datagram that a node wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From this socket, which is opened on an ephemeral port if it isn't open.
    pub socket: SocketId,
    /// To this address.
    pub to: SocketAddr,
    /// Hops it may take; none for the usual 64.
    pub ttl: Option<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Who sits at a host. Outputs are polled until there are none, after each input.
pub trait Node {
    /// Takes a datagram that reached one of its sockets.
    fn handle_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, payload: &[u8]);

    /// Acts on the time that [`Node::poll_timeout`] named.
    fn handle_timeout(&mut self, now: Instant);

    /// Learns that a datagram to `to` was refused. Unconnected sockets don't, so by default nothing happens.
    fn handle_unreachable(&mut self, _now: Instant, _socket: SocketId, _to: SocketAddr) {}

    /// Learns that the host's addresses changed.
    fn handle_network_change(&mut self, _now: Instant, _addresses: &[IpAddr]) {}

    /// When it next wants [`Node::handle_timeout`]. After that call it must name a later time, or none.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// The next socket to close, after what it sent.
    fn poll_close(&mut self) -> Option<SocketId> {
        None
    }

    /// The next remark for the log.
    fn poll_note(&mut self) -> Option<String> {
        None
    }
}

/// What belongs to one home.
#[derive(Debug, Clone)]
struct Home {
    site: SiteId,
    /// The host's own first. Empty for an open home.
    routers: Vec<RouterId>,
    /// Where a host of this home is attached, and its addresses there.
    seat: (Place, Vec<IpAddr>),
}

/// A network with a node at each host.
#[derive(Debug)]
pub struct World<N> {
    net: Net,
    nodes: Vec<N>,
    hosts: Vec<String>,
    routers: Vec<String>,
    homes: BTreeMap<String, Home>,
    seed: u64,
    start: Instant,
    now: Instant,
    inputs_at_now: u32,
}

impl World<()> {
    /// Starts the sentence that describes a world.
    #[must_use]
    pub fn plan(seed: u64) -> Plan {
        Plan::new(seed)
    }
}

impl<N: Node> World<N> {
    /// The virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.start)
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The seed of all chance in it.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The network.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The network, to open sockets in it and to send from outside of the loop, at a time that the world
    /// has reached ([`World::run_until`]).
    pub fn net_mut(&mut self) -> &mut Net {
        &mut self.net
    }

    /// The host of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn host(&self, name: &str) -> HostId {
        let found = self.hosts.iter().position(|host| host == name);
        HostId(found.unwrap_or_else(|| panic!("no host is named {name}")))
    }

    /// The node at the host of this name.
    ///
    /// # Panics
    /// There is no such host.
    #[must_use]
    pub fn node(&self, name: &str) -> &N {
        &self.nodes[self.host(name).0]
    }

    /// Gives a node an input of its own, and sends what comes of it.
    ///
    /// # Panics
    /// There is no such host.
    pub fn with_node<T>(&mut self, name: &str, input: impl FnOnce(&mut N, Instant) -> T) -> T {
        let host = self.host(name);
        let output = input(&mut self.nodes[host.0], self.now);
        self.drain(host);
        output
    }

    /// The routers of a home, the host's own first.
    ///
    /// # Panics
    /// There is no such home.
    #[must_use]
    pub fn routers(&self, home: &str) -> &[RouterId] {
        &self.home(home).routers
    }

    /// Takes the next input, jumping to its time. False: nothing will ever happen again.
    ///
    /// # Panics
    /// The world spins: 100 000 inputs came at one instant.
    pub fn step(&mut self) -> bool {
        let Some((at, who)) = self.next_wake() else { return false };
        if at > self.now {
            self.now = at;
            self.inputs_at_now = 0;
        }
        self.inputs_at_now += 1;
        let spins = self.inputs_at_now > INPUTS_AT_ONE_INSTANT_MAX;
        assert!(!spins, "seed {}: {who:?} spins at {:?}", self.seed, self.elapsed());
        match who {
            Wake::Net => self.advance_net(),
            Wake::Node(host) => {
                self.nodes[host.0].handle_timeout(self.now);
                self.drain(host);
            }
        }
        true
    }

    /// Runs until `done` or until so long after the start. Returns whether it was done.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let limit = self.start + limit;
        loop {
            if done(self) {
                return true;
            }
            match self.next_wake() {
                Some((at, _)) if at <= limit => self.step(),
                _ => {
                    self.now = self.now.max(limit);
                    return false;
                }
            };
        }
    }

    /// Runs for a span of virtual time.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.elapsed() + span, |_| false);
    }

    /// The story so far, one event a line, if the plan asked for it.
    #[must_use]
    pub fn story(&self) -> String {
        let names = Names { hosts: &self.hosts, routers: &self.routers };
        self.net.log().entries().iter().map(|entry| names.line(entry) + "\n").collect()
    }

    /// Power-cycles all routers of a home.
    ///
    /// # Panics
    /// There is no such home.
    pub fn reboot_routers(&mut self, home: &str) {
        for router in self.home(home).routers.clone() {
            self.net.reboot(router);
        }
        self.net.note_fault(format!("the routers of {home} reboot"), self.now);
    }

    /// Gives a home's outermost router another public address.
    ///
    /// # Panics
    /// There is no such home.
    pub fn change_public_address(&mut self, home: &str, address: IpAddr) {
        if let Some(router) = self.home(home).routers.last().copied() {
            self.net.change_address(router, address);
        }
        self.net.note_fault(format!("the public address of {home} becomes {address}"), self.now);
    }

    /// Changes the wires of a home.
    ///
    /// # Panics
    /// There is no such home.
    pub fn cut_direct(&mut self, is_cut: bool) {
        self.net.cut_direct(is_cut);
        let what = if is_cut { "nothing passes" } else { "packets pass again" };
        self.net.note_fault(format!("{what} between homes"), self.now);
    }

    /// Changes a home's wires.
    ///
    /// # Panics
    /// There is no such home.
    pub fn set_quality(&mut self, home: &str, up: Quality, down: Quality) {
        self.net.set_quality(self.home(home).site, up, down);
        self.net.note_fault(format!("the wires of {home} change"), self.now);
    }

    /// Lets neighbours of a home open flows through its outermost router.
    ///
    /// # Panics
    /// There is no such home.
    pub fn foreign_flows(&mut self, home: &str, flows: u16) {
        if let Some(router) = self.home(home).routers.last().copied() {
            self.net.foreign_flows(router, flows);
        }
    }

    /// Moves a host into another home, and tells its node.
    ///
    /// # Panics
    /// There is no such host, or no such home.
    pub fn roam(&mut self, host: &str, home: &str) {
        let id = self.host(host);
        let (place, addresses) = self.home(home).seat.clone();
        self.net.move_host(id, place, addresses.clone());
        self.net.note_fault(format!("{host} moves to {home}"), self.now);
        self.nodes[id.0].handle_network_change(self.now, &addresses);
        self.drain(id);
    }

    fn home(&self, name: &str) -> &Home {
        self.homes.get(name).unwrap_or_else(|| panic!("no home is named {name}"))
    }

    /// What comes next: packets before nodes at the same instant, nodes in the order of their hosts.
    fn next_wake(&self) -> Option<(Instant, Wake)> {
        let packets = self.net.poll_timeout().map(|at| (at, Wake::Net));
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter_map(|(n, node)| Some((node.poll_timeout()?, Wake::Node(HostId(n)))));
        let (at, who) = packets.into_iter().chain(nodes).min_by_key(|(at, _)| *at)?;
        Some((at.max(self.now), who))
    }

    fn advance_net(&mut self) {
        self.net.advance(self.now);
        while let Some(delivery) = self.net.poll_delivery() {
            let host = match delivery {
                Delivery::Datagram { host, socket, from, payload } => {
                    self.nodes[host.0].handle_datagram(self.now, socket, from, &payload);
                    host
                }
                Delivery::Unreachable { host, socket, to } => {
                    self.nodes[host.0].handle_unreachable(self.now, socket, to);
                    host
                }
            };
            self.drain(host);
        }
    }

    fn drain(&mut self, host: HostId) {
        let node = &mut self.nodes[host.0];
        while let Some(text) = node.poll_note() {
            self.net.note(host, text, self.now);
        }
        while let Some(Transmit { socket, to, ttl, payload }) = node.poll_transmit() {
            self.net.send(self.now, (host, socket), to, ttl, payload);
        }
        while let Some(socket) = node.poll_close() {
            self.net.close(host, socket);
        }
    }
}

/// Who wakes up next.
#[derive(Debug, Clone, Copy)]
enum Wake {
    Net,
    Node(HostId),
}
