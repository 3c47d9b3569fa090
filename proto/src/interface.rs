//! Our own interfaces: which of them lead to a LAN, to containers or into an overlay, how good a way to a remote is by
//! that, and which of our addresses a peer is told.
//!
//! Nothing here asks a system: the shell hands in what it could learn of each address, and by which address packets
//! for the whole Internet leave. What could not be learned is left at its default, and addresses alone decide.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::candidate::{Scope, scope};

/// An interface that takes fewer bytes at a time, and is not the way to the Internet, is most likely an overlay: each
/// of its packets has to fit into one of another network, and an Ethernet takes 1500.
const OVERLAY_MTU: u32 = 1400;

/// A network device, as far as a system tells. The default knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name; empty if that is not known.
    pub name: String,
    /// The longest packet that it takes, in bytes.
    pub mtu: Option<u32>,
    /// Whether there is a card or a modem, real or given to a virtual machine.
    pub is_hardware: bool,
    /// Whether it is a bridge to which no hardware is joined, as for containers and virtual machines.
    pub is_bridge: bool,
    /// Whether a program is at its other end: tun, tap, WireGuard.
    pub is_tunnel: bool,
    /// Whether there is one machine alone at the other end.
    pub is_point_to_point: bool,
}

/// An address of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// How many bits of it all neighbours share, if that is known.
    pub prefix: Option<u8>,
    /// The device that has it.
    pub device: Device,
}

impl From<IpAddr> for OwnAddress {
    /// An address of which nothing else is known.
    fn from(ip: IpAddr) -> Self {
        Self { ip, prefix: None, device: Device::default() }
    }
}

/// What an address of ours leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A real network.
    Lan,
    /// Containers or virtual machines of this host.
    Bridge,
    /// A network that is made of tunnels through others.
    Overlay,
}

/// How good a way to an address of a remote is, before any round trip is measured, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rank {
    /// The remote is in a network that we are in, too.
    Lan,
    /// By way of routers.
    #[default]
    Public,
    /// Through an overlay, which wraps each packet and sends it by one of the other ways, or through a relay of its own.
    Overlay,
}

/// All addresses of ours, and what is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    own: Vec<OwnAddress>,
    /// By which of them packets leave for the whole Internet, at most one in each family.
    defaults: Vec<IpAddr>,
}

impl Interfaces {
    /// `defaults`: the local addresses of the default routes.
    pub fn new(mut own: Vec<OwnAddress>, defaults: Vec<IpAddr>) -> Self {
        own.retain(|address| is_usable(address.ip));
        own.sort_by_key(|address| (address.ip.is_ipv6(), address.ip));
        own.dedup_by_key(|address| address.ip);
        Self { own, defaults }
    }

    /// Our addresses, without those that nobody else can use.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().map(|address| address.ip)
    }

    /// Whether an address of ours is in 100.64.0.0/10, so that others of that range may be near: see
    /// [`crate::candidate::believable`].
    pub fn holds_shared(&self) -> bool {
        self.own.iter().any(|address| is_shared(address.ip))
    }

    /// Whether an address is in a network that we are in, as far as its prefix is known.
    pub fn has_neighbour(&self, remote: IpAddr) -> bool {
        self.own.iter().any(|address| address.has_neighbour(remote.to_canonical()))
    }

    /// What an address of ours leads to.
    pub fn medium(&self, address: &OwnAddress) -> Medium {
        let OwnAddress { ip, device, .. } = address;
        let is_default = self.carries_default(address);
        let is_real = device.is_hardware || is_default;
        // A modem in raw mode looks like a tunnel, and a telephone line like one with a machine at its other end.
        let is_line = is_default && scope(SocketAddr::new(*ip, 1)) == Scope::Global && !is_shared(*ip);
        let is_tunnel = !device.is_hardware && (device.is_tunnel || device.is_point_to_point && !is_line);
        let is_narrow = !is_default && device.mtu.is_some_and(|mtu| mtu < OVERLAY_MTU);
        if is_tailscale_v6(*ip) || is_tunnel || is_narrow || is_shared(*ip) && !is_real {
            Medium::Overlay
        } else if device.is_bridge && !is_default {
            Medium::Bridge
        } else {
            Medium::Lan
        }
    }

    /// The rank of the way to a remote address, for which packets leave from `source`.
    pub fn rank(&self, source: Option<IpAddr>, remote: IpAddr) -> Rank {
        let remote = remote.to_canonical();
        let is_overlay = |address: &OwnAddress| self.medium(address) == Medium::Overlay;
        let holds_overlay = || self.own.iter().any(|address| is_shared(address.ip) && is_overlay(address));
        if is_tailscale_v6(remote) || is_shared(remote) && holds_overlay() {
            return Rank::Overlay;
        }
        let is_local = scope(SocketAddr::new(remote, 1)) != Scope::Global;
        let Some(own) = self.own.iter().find(|address| Some(address.ip) == source) else {
            return if is_local { Rank::Lan } else { Rank::Public };
        };
        let is_near = match own.prefix {
            Some(_) => self.beside(own).any(|address| address.has_neighbour(remote)),
            None => is_local,
        };
        match self.medium(own) {
            Medium::Overlay => Rank::Overlay,
            Medium::Lan | Medium::Bridge if is_near => Rank::Lan,
            Medium::Lan | Medium::Bridge => Rank::Public,
        }
    }

    /// The addresses that a peer is told, at most so many, best first: those of the default routes, those of other
    /// LANs, global IPv6, overlays, bridges. Each of these groups has seats that no other one takes, except bridges:
    /// a host has any number of those, and one of them is hardly ever the way to a peer.
    pub fn claims(&self, most: usize) -> Vec<IpAddr> {
        let mut claims: Vec<(Group, IpAddr)> =
            self.own.iter().map(|address| (self.group(address), address.ip)).collect();
        claims.sort_by_key(|(group, ip)| (*group, ip.is_ipv6(), *ip));
        let mut seated = BTreeSet::new();
        for (group, ip) in &claims {
            let alike = seated.iter().filter(|(other, of): &&(Group, IpAddr)| {
                other == group && (group.seats_are_shared() || of.is_ipv6() == ip.is_ipv6())
            });
            if alike.count() < group.seats() && seated.len() < most {
                seated.insert((*group, *ip));
            }
        }
        for claim in &claims {
            if seated.len() < most {
                seated.insert(*claim);
            }
        }
        claims.into_iter().filter(|claim| seated.contains(claim)).map(|(_, ip)| ip).collect()
    }

    fn group(&self, address: &OwnAddress) -> Group {
        let is_global_v6 = address.ip.is_ipv6() && scope(SocketAddr::new(address.ip, 1)) == Scope::Global;
        match self.medium(address) {
            Medium::Overlay => Group::Overlay,
            Medium::Bridge => Group::Bridge,
            Medium::Lan if self.defaults.contains(&address.ip) => Group::Default,
            Medium::Lan if is_global_v6 => Group::GlobalV6,
            Medium::Lan => Group::Lan,
        }
    }

    /// Whether the default route, of either family, leaves by the device of an address.
    fn carries_default(&self, address: &OwnAddress) -> bool {
        self.beside(address).any(|other| self.defaults.contains(&other.ip))
    }

    /// The addresses of the same device.
    fn beside<'a>(&'a self, address: &'a OwnAddress) -> impl Iterator<Item = &'a OwnAddress> {
        self.own.iter().filter(move |other| {
            let is_known = !address.device.name.is_empty();
            other.ip == address.ip || is_known && other.device.name == address.device.name
        })
    }
}

impl OwnAddress {
    /// Whether a remote address is in the same network.
    fn has_neighbour(&self, remote: IpAddr) -> bool {
        let Some(prefix) = self.prefix else { return false };
        match (self.ip, remote) {
            (IpAddr::V4(own), IpAddr::V4(remote)) => {
                let differing = own.to_bits() ^ remote.to_bits();
                differing.leading_zeros() >= u32::from(prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(remote)) => {
                let differing = own.to_bits() ^ remote.to_bits();
                differing.leading_zeros() >= u32::from(prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The groups of claims, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Default,
    Lan,
    GlobalV6,
    Overlay,
    Bridge,
}

impl Group {
    /// How many of a group come before the next group's first: seven in all, as many as a peer names.
    const fn seats(self) -> usize {
        match self {
            Self::Default | Self::GlobalV6 | Self::Overlay => 1,
            Self::Lan => 2,
            Self::Bridge => 0,
        }
    }

    /// Whether these are for both families together, and not for each.
    const fn seats_are_shared(self) -> bool {
        match self {
            Self::Lan | Self::GlobalV6 | Self::Bridge => true,
            Self::Default | Self::Overlay => false,
        }
    }
}

fn is_usable(ip: IpAddr) -> bool {
    matches!(scope(SocketAddr::new(ip, 1)), Scope::Local | Scope::Global)
}

/// Whether an address is in 100.64.0.0/10 (RFC 6598), which carriers give to their customers, and Tailscale, Headscale
/// and NetBird to their members.
pub fn is_shared(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(_) => false,
    }
}

/// Whether an address is in the range of which Tailscale gives one to each member, fd7a:115c:a1e0::/48.
fn is_tailscale_v6(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

#[cfg(test)]
mod tests;
