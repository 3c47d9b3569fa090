//! One IPv4 packet: its endpoints read and rewritten, its checksums made anew.
//!
//! Checksums are always computed and never adjusted: what a veth carries has often none yet, because the
//! sending kernel leaves them to a network card that isn't there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Shortest IPv4 header, and the only one that is written.
const HEADER: usize = 20;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// What a packet's ports are, by protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Ports of UDP.
    Udp,
    /// Ports of TCP.
    Tcp,
    /// ICMP echo: the identifier is the asker's port, and the asked one's is 0.
    Echo,
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Nobody listens there, or a filter says so.
    PortUnreachable,
    /// The TTL ran out.
    TimeExceeded,
}

impl Complaint {
    const fn type_and_code(self) -> [u8; 2] {
        match self {
            Self::PortUnreachable => [3, 3],
            Self::TimeExceeded => [11, 0],
        }
    }
}

/// An unfragmented IPv4 packet with ports, or an ICMP error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    header: usize,
}

impl Packet {
    /// Reads a packet; what follows it in the frame is cut off. None for what a router of ours doesn't
    /// forward: fragments, other protocols, ICMP errors, and what is cut short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let header = usize::from(first & 15) * 4;
        let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x3fff;
        if first >> 4 != 4 || header < HEADER || fragment != 0 {
            return None;
        }
        let packet = Self { bytes: bytes.get(..length)?.to_vec(), header };
        let least = match packet.protocol()? {
            Protocol::Udp | Protocol::Echo => 8,
            Protocol::Tcp => 20,
        };
        (packet.bytes.len() >= header + least).then_some(packet)
    }

    /// The packet as it goes into a frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What its ports are. None for an ICMP error of ours.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match (self.bytes[9], self.bytes.get(self.header)?) {
            (17, _) => Some(Protocol::Udp),
            (6, _) => Some(Protocol::Tcp),
            (1, 0 | 8) => Some(Protocol::Echo),
            _ => None,
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn src(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address(12)), self.port(0))
    }

    /// Where it goes to.
    #[must_use]
    pub fn dst(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address(16)), self.port(2))
    }

    /// The destination without its port.
    #[must_use]
    pub fn dst_address(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// Hops that it may still take.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.bytes[8]
    }

    /// Takes a hop. False when it has none left, and it stays as it is then.
    pub fn spend_ttl(&mut self) -> bool {
        let left = self.ttl() > 1;
        if left {
            self.bytes[8] -= 1;
            self.seal();
        }
        left
    }

    /// Gives it other endpoints, and right checksums. Endpoints of IPv6 are left out.
    pub fn rewrite(&mut self, src: Option<SocketAddr>, dst: Option<SocketAddr>) {
        for (at, port_at, endpoint) in [(12, 0, src), (16, 2, dst)] {
            if let Some(SocketAddr::V4(endpoint)) = endpoint {
                self.bytes[at..at + 4].copy_from_slice(&endpoint.ip().octets());
                self.set_port(port_at, endpoint.port());
            }
        }
        self.seal();
    }

    /// The error of the router at `from` about this packet, to its sender.
    #[must_use]
    pub fn complaint(&self, complaint: Complaint, from: Ipv4Addr) -> Self {
        let quoted = &self.bytes[..self.bytes.len().min(self.header + 8)];
        let length = u16::try_from(HEADER + ICMP_HEADER + quoted.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut bytes = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 1, 0, 0];
        bytes.extend(from.octets());
        bytes.extend(self.address(12).octets());
        bytes.extend(complaint.type_and_code());
        bytes.extend([0; 6]);
        bytes.extend(quoted);
        let mut error = Self { bytes, header: HEADER };
        error.seal();
        error
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3])
    }

    /// Where the port of a side (0 for the source, 2 for the destination) is. None where it has none.
    fn port_at(&self, side: usize) -> Option<usize> {
        match (self.protocol()?, self.bytes[self.header], side) {
            (Protocol::Udp | Protocol::Tcp, ..) => Some(self.header + side),
            // An asker's identifier belongs to its own side, and in an answer to the other one.
            (Protocol::Echo, 8, 0) | (Protocol::Echo, 0, 2) => Some(self.header + 4),
            (Protocol::Echo, ..) => None,
        }
    }

    fn port(&self, side: usize) -> u16 {
        self.port_at(side).map_or(0, |at| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn set_port(&mut self, side: usize, port: u16) {
        if let Some(at) = self.port_at(side) {
            self.bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
    }

    /// Makes both checksums anew.
    fn seal(&mut self) {
        self.put(10, 0);
        let sum = checksum(0, &self.bytes[..self.header]);
        self.put(10, sum);
        let (offset, pseudo) = match self.bytes[9] {
            17 => (6, self.pseudo_header()),
            6 => (16, self.pseudo_header()),
            _ => (2, 0),
        };
        let at = self.header + offset;
        self.put(at, 0);
        let sum = checksum(pseudo, &self.bytes[self.header..]);
        // For UDP, 0 would say that there is none.
        self.put(at, if sum == 0 && self.bytes[9] == 17 { 0xffff } else { sum });
    }

    fn put(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn pseudo_header(&self) -> u32 {
        let length = u32::try_from(self.bytes.len() - self.header).unwrap_or(u32::MAX);
        words(&self.bytes[12..20]) + u32::from(self.bytes[9]) + length
    }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// The Internet checksum (RFC 1071) over `start` and `bytes`.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start + words(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet with these endpoints, as a kernel sends it before a network card fills its checksums in.
    pub(in crate::wire) fn packet(protocol: u8, src: &str, dst: &str, ttl: u8, payload: &[u8]) -> Packet {
        let (src, dst): (std::net::SocketAddrV4, std::net::SocketAddrV4) =
            (src.parse().unwrap(), dst.parse().unwrap());
        let mut transport = match protocol {
            1 => [[8, 0, 0, 0], [0, 0, 0, 1]].concat(),
            6 => [[0; 12].as_slice(), &[0x50, 2, 0, 0], &[0; 4]].concat(),
            _ => vec![0; 8],
        };
        if protocol == 1 {
            transport[4..6].copy_from_slice(&src.port().to_be_bytes());
        } else {
            transport[..2].copy_from_slice(&src.port().to_be_bytes());
            transport[2..4].copy_from_slice(&dst.port().to_be_bytes());
        }
        if protocol == 17 {
            transport[5] = 8 + u8::try_from(payload.len()).unwrap();
        }
        let length = u8::try_from(20 + transport.len() + payload.len()).unwrap();
        let head = [0x45, 0, 0, length, 0, 0, 0x40, 0, ttl, protocol, 0, 0];
        let bytes = [&head, src.ip().octets().as_slice(), &dst.ip().octets(), &transport, payload].concat();
        Packet::parse(&bytes).unwrap()
    }

    /// Whether both checksums are those that a receiving kernel demands.
    fn is_sealed(packet: &Packet) -> bool {
        let pseudo = if packet.bytes[9] == 1 { 0 } else { packet.pseudo_header() };
        checksum(0, &packet.bytes[..packet.header]) == 0
            && checksum(pseudo, &packet.bytes[packet.header..]) == 0
    }

    #[test]
    fn a_rewritten_packet_has_the_new_endpoints_and_right_checksums() {
        for protocol in [6, 17] {
            for payload in [b"even".as_slice(), b"odd"] {
                let mut packet = packet(protocol, "192.168.1.2:4000", "203.0.113.1:3478", 64, payload);
                let other = "198.51.100.2:61000".parse().unwrap();
                packet.rewrite(Some(other), None);
                assert_eq!((packet.src(), packet.dst()), (other, "203.0.113.1:3478".parse().unwrap()));
                assert!(is_sealed(&packet) && packet.bytes.ends_with(payload));
                packet.rewrite(None, Some(other));
                assert_eq!((packet.src(), packet.dst()), (other, other));
                assert!(is_sealed(&packet));
            }
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_echo_has_its_identifier_on_the_askers_side() {
        let mut packet = packet(1, "192.168.1.2:77", "203.0.113.1:0", 64, b"");
        assert_eq!((packet.src().port(), packet.dst().port()), (77, 0));
        packet.rewrite(Some("198.51.100.2:78".parse().unwrap()), None);
        assert!(is_sealed(&packet) && packet.src().port() == 78);
        packet.bytes[20] = 0;
        assert_eq!((packet.src().port(), packet.dst().port()), (0, 78));
    }

    #[test]
    fn the_last_hop_is_not_spent() {
        let mut packet = packet(17, "192.168.1.2:4000", "203.0.113.1:3478", 2, b"");
        assert!(packet.spend_ttl() && is_sealed(&packet));
        assert!(!packet.spend_ttl());
        assert_eq!(packet.ttl(), 1);
    }

    #[test]
    fn a_complaint_quotes_what_it_is_about_and_goes_to_its_sender() {
        let packet = packet(17, "192.168.1.2:4000", "203.0.113.1:3478", 1, b"payload");
        let error = packet.complaint(Complaint::TimeExceeded, Ipv4Addr::new(192, 168, 1, 1));
        assert!(is_sealed(&error) && error.protocol().is_none());
        assert_eq!(error.bytes[12..20], [192, 168, 1, 1, 192, 168, 1, 2]);
        assert_eq!(error.bytes[20..22], [11, 0]);
        assert_eq!(error.bytes[28..], packet.bytes[..28]);
    }

    #[test]
    fn what_is_no_whole_packet_of_a_known_protocol_is_refused() {
        let whole = packet(17, "192.168.1.2:4000", "203.0.113.1:3478", 64, b"payload");
        let spoilt = |at: usize, value: u8| {
            let mut bytes = whole.bytes.clone();
            bytes[at] = value;
            Packet::parse(&bytes)
        };
        for (at, value) in [(0, 0x65), (0, 0x44), (3, 200), (3, 27), (6, 0x20), (7, 1), (9, 47)] {
            assert_eq!(spoilt(at, value), None, "byte {at} = {value}");
        }
        for length in 0..whole.bytes.len() {
            assert_eq!(Packet::parse(&whole.bytes[..length]), None);
        }
        let trailing = [&whole.bytes, [0; 9].as_slice()].concat();
        assert_eq!(Packet::parse(&trailing), Some(whole));
    }
}
