//! The routers of one home, as a pure machine: packets in, packets out. It is what a wire does between its
//! LANs and its WAN.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::packet::{Complaint, Packet, Protocol};
use crate::dice::Dice;
use crate::kind::Kind;
use crate::nat::{Egress, Expiry, Ingress, Nat, Policy, Refusal, Refused};

/// The carrier's network between a home's router and its own, as far as a packet's addresses show it.
const CARRIER_NET: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

/// `nf_conntrack_tcp_timeout_established` is 5 days; an hour is as good as that for a test.
const TCP_TIMEOUT: Duration = Duration::from_secs(3_600);

/// An address and how many of its leading bits name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The router's own address there.
    pub address: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
}

impl Subnet {
    /// Whether an address belongs to it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        self.prefix == 0 || differing.leading_zeros() >= u32::from(self.prefix)
    }
}

/// An interface of the home's routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// A LAN, by its number.
    Lan(usize),
    /// The public side.
    Wan,
}

/// A packet that leaves the routers, and by which interface.
pub type Forwarded = Option<(Side, Packet)>;

/// One router: what it does to each protocol. No translators: it only routes.
#[derive(Debug)]
struct Layer {
    address: Ipv4Addr,
    translators: Option<Translators>,
}

#[derive(Debug)]
struct Translators {
    udp: Nat,
    tcp: Nat,
    echo: Nat,
}

impl Translators {
    fn new(policy: &Policy, address: Ipv4Addr, seed: u64, layer: u64) -> Self {
        let nat = |policy, stream| {
            Nat::new(policy, vec![IpAddr::V4(address)], Dice::new(seed, 16 + layer * 4 + stream))
        };
        let others = Policy { passes_udp: true, ..policy.clone() };
        let tcp = Expiry { one_way: TCP_TIMEOUT, two_way: TCP_TIMEOUT, ..policy.expiry };
        Self { udp: nat(policy.clone(), 0), tcp: nat(others.clone().expiring(tcp), 1), echo: nat(others, 2) }
    }

    fn of(&mut self, protocol: Protocol) -> &mut Nat {
        match protocol {
            Protocol::Udp => &mut self.udp,
            Protocol::Tcp => &mut self.tcp,
            Protocol::Echo => &mut self.echo,
        }
    }
}

/// All routers of one home, its own first, a carrier's above it.
#[derive(Debug)]
pub struct Gateway {
    layers: Vec<Layer>,
    lans: Vec<Subnet>,
    isolates: bool,
}

impl Gateway {
    /// The routers of `kind` with this public address. All chance comes from `seed`.
    #[must_use]
    pub fn new(kind: Kind, lans: Vec<Subnet>, address: Ipv4Addr, seed: u64) -> Self {
        let policies = kind.policies();
        let outermost = policies.len().saturating_sub(1);
        let layer = |(n, policy): (usize, &Policy)| {
            let address = if n == outermost { address } else { CARRIER_NET };
            let stream = u64::try_from(n).unwrap_or_default();
            Layer { address, translators: Some(Translators::new(policy, address, seed, stream)) }
        };
        let mut layers: Vec<Layer> = policies.iter().enumerate().map(layer).collect();
        if layers.is_empty() {
            layers.push(Layer { address, translators: None });
        }
        Self { layers, lans, isolates: kind == Kind::SameNatHairpin }
    }

    /// Loses all state of all routers, as a power cut does.
    pub fn reboot(&mut self) {
        for translators in self.layers.iter_mut().filter_map(|layer| layer.translators.as_mut()) {
            for nat in [&mut translators.udp, &mut translators.tcp, &mut translators.echo] {
                nat.reboot();
            }
        }
    }

    /// Takes a packet from a host on a LAN.
    pub fn outbound(&mut self, lan: usize, packet: Packet, now: Instant) -> Forwarded {
        let mut packet = packet;
        for n in 0..self.layers.len() {
            let before = packet.clone();
            // The TTL is looked at before the source is rewritten, so a packet that dies here leaves no binding.
            if !packet.spend_ttl() {
                return self.complain(Side::Lan(lan), &before, Complaint::TimeExceeded);
            }
            if n == 0
                && let Some(neighbours) = self.lan_of(packet.dst_address())
            {
                return (!self.isolates).then_some((Side::Lan(neighbours), packet));
            }
            let Some(translators) = &mut self.layers[n].translators else { continue };
            let nat = translators.of(packet.protocol()?);
            match nat.egress(packet.src(), packet.dst(), now) {
                Egress::Out { src } => packet.rewrite(Some(src), None),
                Egress::Hairpin { src, dst } => {
                    packet.rewrite(Some(src), Some(dst));
                    return self.descend(n, packet, now);
                }
                Egress::Refused(refused) => return self.refuse(Side::Lan(lan), &before, refused),
            }
        }
        Some((Side::Wan, packet))
    }

    /// Takes a packet from the public side.
    pub fn inbound(&mut self, packet: Packet, now: Instant) -> Forwarded {
        self.descend(self.layers.len(), packet, now)
    }

    /// Takes a packet down from above the routers `0..from`.
    fn descend(&mut self, from: usize, packet: Packet, now: Instant) -> Forwarded {
        let original = packet.clone();
        let mut packet = packet;
        for layer in self.layers[..from].iter_mut().rev() {
            if let Some(translators) = &mut layer.translators {
                match translators.of(packet.protocol()?).ingress(packet.src(), packet.dst(), now) {
                    Ingress::In { dst } => packet.rewrite(None, Some(dst)),
                    Ingress::Refused(refused) => return self.refuse(Side::Wan, &original, refused),
                }
            }
            // What is for the router itself needs no TTL, so an early probe with its last hop still leaves
            // its trace in the table.
            if !packet.spend_ttl() {
                return self.complain(Side::Wan, &original, Complaint::TimeExceeded);
            }
        }
        let lan = self.lan_of(packet.dst_address())?;
        Some((Side::Lan(lan), packet))
    }

    fn lan_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.lans.iter().position(|lan| lan.contains(address))
    }

    fn refuse(&self, from: Side, packet: &Packet, refused: Refused) -> Forwarded {
        match refused.told {
            Refusal::Silence => None,
            Refusal::Icmp => self.complain(from, packet, Complaint::PortUnreachable),
        }
    }

    /// An error, back to where the packet came from.
    fn complain(&self, from: Side, packet: &Packet, complaint: Complaint) -> Forwarded {
        let address = match from {
            Side::Lan(lan) => self.lans.get(lan)?.address,
            Side::Wan => self.layers.last()?.address,
        };
        Some((from, packet.complaint(complaint, address)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::packet;
    use super::*;

    const UDP: u8 = 17;
    const TCP: u8 = 6;
    const INSIDE: &str = "192.168.1.2:4000";
    const SERVER: &str = "203.0.113.1:3478";
    const STRANGER: &str = "192.0.2.2:5000";

    fn gateway(kind: &str) -> Gateway {
        let lan = |net| Subnet { address: Ipv4Addr::new(192, 168, net, 1), prefix: 24 };
        let address = Ipv4Addr::new(198, 51, 100, 2);
        Gateway::new(kind.parse().unwrap(), vec![lan(1), lan(3)], address, 1)
    }

    /// Sends out, and says from where it left and with which TTL.
    fn out(gateway: &mut Gateway, protocol: u8, dst: &str, ttl: u8) -> Option<(String, u8)> {
        let (side, packet) = gateway.outbound(0, packet(protocol, INSIDE, dst, ttl, b"x"), Instant::now())?;
        (side == Side::Wan).then(|| (packet.src().to_string(), packet.ttl()))
    }

    /// Sends in, and says to whom it came.
    fn back(gateway: &mut Gateway, src: &str, dst: &str) -> Option<(Side, String)> {
        let (side, packet) = gateway.inbound(packet(UDP, src, dst, 9, b"x"), Instant::now())?;
        Some((side, packet.dst().to_string()))
    }

    #[test]
    fn a_packet_leaves_translated_with_one_hop_less_per_router_and_its_answer_comes_back() {
        for (kind, ttl) in [("port-restricted", 63), ("cgnat(port-restricted)", 62)] {
            let mut gateway = gateway(kind);
            let (src, left) = out(&mut gateway, UDP, SERVER, 64).unwrap();
            assert!(src.starts_with("198.51.100.2:") && left == ttl, "{kind}: {src}, TTL {left}");
            let answered = Some((Side::Lan(0), INSIDE.to_owned()));
            assert_eq!(back(&mut gateway, SERVER, &src), answered, "{kind}");
            assert_eq!(back(&mut gateway, STRANGER, &src), None, "{kind}");
        }
    }

    #[test]
    fn a_reboot_forgets_who_may_answer() {
        let mut gateway = gateway("port-restricted");
        let (src, _) = out(&mut gateway, UDP, SERVER, 64).unwrap();
        gateway.reboot();
        assert_eq!(back(&mut gateway, SERVER, &src), None);
    }

    #[test]
    fn a_low_ttl_dies_at_the_router_that_it_names_and_the_sender_is_told() {
        let mut gateway = gateway("cgnat(port-restricted)");
        for (ttl, leaves) in [(1, false), (2, false), (3, true)] {
            let packet = packet(UDP, INSIDE, SERVER, ttl, b"x");
            let (side, answer) = gateway.outbound(0, packet, Instant::now()).unwrap();
            assert_eq!(side == Side::Wan, leaves, "TTL {ttl}");
            assert_eq!(answer.protocol().is_some(), leaves, "TTL {ttl}");
        }
    }

    #[test]
    fn an_open_home_is_routed_and_costs_a_hop() {
        let mut gateway = gateway("open");
        assert_eq!(out(&mut gateway, UDP, SERVER, 64), Some((INSIDE.to_owned(), 63)));
        assert_eq!(back(&mut gateway, STRANGER, INSIDE), Some((Side::Lan(0), INSIDE.to_owned())));
    }

    #[test]
    fn blocking_udp_leaves_tcp_alone() {
        let mut gateway = gateway("udp-blocked");
        assert_eq!(out(&mut gateway, UDP, SERVER, 64), None);
        assert_eq!(out(&mut gateway, TCP, SERVER, 64), Some(("198.51.100.2:4000".to_owned(), 63)));
    }

    #[test]
    fn a_leaky_router_tells_strangers_off_and_moves_our_flow_to_them() {
        let mut gateway = gateway("port-restricted+leaky");
        let (mapped, _) = out(&mut gateway, UDP, SERVER, 64).unwrap();
        let (side, error) = gateway.inbound(packet(UDP, STRANGER, &mapped, 9, b"x"), Instant::now()).unwrap();
        assert!(side == Side::Wan && error.protocol().is_none());
        assert_ne!(out(&mut gateway, UDP, STRANGER, 64).unwrap().0, mapped);
    }

    #[test]
    fn neighbours_meet_where_the_router_joins_their_lans_and_by_its_hairpin_where_it_does_not() {
        let neighbour = "192.168.3.2:4000";
        let to = |gateway: &mut Gateway, lan, src, dst| {
            let (side, packet) = gateway.outbound(lan, packet(UDP, src, dst, 9, b"x"), Instant::now())?;
            Some((side, packet.src().to_string(), packet.dst().to_string()))
        };
        let mut joined = gateway("same-nat");
        let direct = (Side::Lan(1), INSIDE.to_owned(), neighbour.to_owned());
        assert_eq!(to(&mut joined, 0, INSIDE, neighbour), Some(direct));

        let mut apart = gateway("same-nat+hairpin");
        assert_eq!(to(&mut apart, 0, INSIDE, neighbour), None);
        let (_, first, _) = to(&mut apart, 0, INSIDE, SERVER).unwrap();
        let (_, second, _) = to(&mut apart, 1, neighbour, SERVER).unwrap();
        assert_eq!(to(&mut apart, 0, INSIDE, &second), None, "the neighbour has not sent yet");
        let (side, src, dst) = to(&mut apart, 1, neighbour, &first).unwrap();
        assert_eq!((side, src, dst.as_str()), (Side::Lan(0), second, INSIDE));
    }
}
