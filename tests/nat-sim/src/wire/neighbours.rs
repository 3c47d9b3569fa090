//! Ethernet frames and ARP: who on a cable has which hardware address.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::packet::Packet;

/// Packets that may wait for one neighbour's hardware address.
const WAITING_MAX: usize = 32;

/// Neighbours that may be waited for at a time.
const ASKED_MAX: usize = 32;

const ETHERNET_HEADER: usize = 14;
const TYPE_IPV4: [u8; 2] = [8, 0];
const TYPE_ARP: [u8; 2] = [8, 6];
/// Ethernet and IPv4, with addresses of 6 and 4 bytes.
const ARP_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// A hardware address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];

/// What a frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet to be routed.
    Packet(Packet),
    /// Frames to send because of it: an answer, or packets that waited for it.
    Frames(Vec<Vec<u8>>),
}

/// One end of a cable: our addresses there, and those of who is at the other end.
#[derive(Debug)]
pub struct Neighbours {
    mac: Mac,
    address: Ipv4Addr,
    known: BTreeMap<Ipv4Addr, Mac>,
    waiting: BTreeMap<Ipv4Addr, VecDeque<Packet>>,
}

impl Neighbours {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(mac: Mac, address: Ipv4Addr) -> Self {
        Self { mac, address, known: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Reads a frame. What is not for us, or of no use, gives nothing.
    pub fn receive(&mut self, frame: &[u8]) -> Received {
        let nothing = Received::Frames(Vec::new());
        let Some((header, body)) = frame.split_at_checked(ETHERNET_HEADER) else { return nothing };
        match (&header[..6], &header[12..]) {
            (to, kind) if to == self.mac && kind == TYPE_IPV4 => {
                Packet::parse(body).map_or(nothing, Received::Packet)
            }
            (to, kind) if (to == self.mac || to == BROADCAST) && kind == TYPE_ARP => {
                self.receive_arp(body).map_or(nothing, Received::Frames)
            }
            _ => nothing,
        }
    }

    /// The frame that takes a packet to a neighbour, or that asks for its hardware address while the packet
    /// waits. None: too many wait already.
    pub fn send(&mut self, next_hop: Ipv4Addr, packet: Packet) -> Option<Vec<u8>> {
        if let Some(mac) = self.known.get(&next_hop) {
            return Some(self.frame(*mac, TYPE_IPV4, packet.bytes()));
        }
        if self.waiting.len() >= ASKED_MAX && !self.waiting.contains_key(&next_hop) {
            return None;
        }
        let waiting = self.waiting.entry(next_hop).or_default();
        if waiting.len() >= WAITING_MAX {
            return None;
        }
        waiting.push_back(packet);
        Some(self.arp(BROADCAST, REQUEST, next_hop))
    }

    fn receive_arp(&mut self, body: &[u8]) -> Option<Vec<Vec<u8>>> {
        let body: &[u8; 28] = body.first_chunk()?;
        let (kind, operation) = (&body[..6], &body[6..8]);
        let mac: Mac = *body[8..].first_chunk()?;
        let sender = Ipv4Addr::from(*body[14..].first_chunk::<4>()?);
        let target = Ipv4Addr::from(*body[24..].first_chunk::<4>()?);
        if kind != ARP_OVER_ETHERNET || target != self.address || sender.is_unspecified() {
            return None;
        }
        self.known.insert(sender, mac);
        let waited = self.waiting.remove(&sender).unwrap_or_default();
        let mut frames: Vec<Vec<u8>> =
            waited.iter().map(|packet| self.frame(mac, TYPE_IPV4, packet.bytes())).collect();
        if operation == REQUEST {
            frames.insert(0, self.arp(mac, REPLY, sender));
        }
        Some(frames)
    }

    fn arp(&self, to: Mac, operation: [u8; 2], target: Ipv4Addr) -> Vec<u8> {
        let asked = if operation == REQUEST { Mac::default() } else { to };
        let body = [
            ARP_OVER_ETHERNET.as_slice(),
            &operation,
            &self.mac,
            &self.address.octets(),
            &asked,
            &target.octets(),
        ];
        self.frame(to, TYPE_ARP, &body.concat())
    }

    fn frame(&self, to: Mac, kind: [u8; 2], body: &[u8]) -> Vec<u8> {
        [to.as_slice(), &self.mac, &kind, body].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::packet;
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

    fn pair() -> (Neighbours, Neighbours) {
        (Neighbours::new([2, 0, 0, 0, 0, 1], A), Neighbours::new([2, 0, 0, 0, 0, 2], B))
    }

    fn some_packet() -> Packet {
        packet(17, "192.168.1.1:1000", "192.168.1.2:2000", 9, b"hello")
    }

    #[test]
    fn a_packet_waits_until_its_neighbour_has_said_who_it_is() {
        let (mut a, mut b) = pair();
        let question = a.send(B, some_packet()).unwrap();
        let Received::Frames(answers) = b.receive(&question) else { panic!("a question is no packet") };
        let Received::Frames(released) = a.receive(&answers[0]) else { panic!("an answer is no packet") };
        assert_eq!((answers.len(), released.len()), (1, 1));
        assert_eq!(b.receive(&released[0]), Received::Packet(some_packet()));
        // Both know each other from that one exchange.
        let frame = b.send(A, some_packet()).unwrap();
        assert_eq!(a.receive(&frame), Received::Packet(some_packet()));
    }

    #[test]
    fn frames_for_others_and_torn_ones_give_nothing() {
        let (mut a, mut b) = pair();
        let nothing = || Received::Frames(Vec::new());
        let mut frame = a.frame([2, 0, 0, 0, 0, 3], TYPE_IPV4, some_packet().bytes());
        assert_eq!(b.receive(&frame), nothing());
        frame[5] = 2;
        assert!(matches!(b.receive(&frame), Received::Packet(_)));
        let question = a.send(B, some_packet()).unwrap();
        for torn in (0..frame.len()).map(|n| &frame[..n]).chain((0..question.len()).map(|n| &question[..n])) {
            assert_eq!(b.receive(torn), nothing());
        }
        assert_eq!(a.receive(&question), nothing(), "our own question, come back");
    }

    #[test]
    fn nobody_waits_without_bound() {
        let (mut a, _) = pair();
        for _ in 0..WAITING_MAX {
            assert!(a.send(B, some_packet()).is_some());
        }
        assert_eq!(a.send(B, some_packet()), None);
        for n in 0..ASKED_MAX {
            let host = Ipv4Addr::from_bits(A.to_bits() + 100 + u32::try_from(n).unwrap());
            assert_eq!(a.send(host, some_packet()).is_some(), n + 1 < ASKED_MAX);
        }
    }
}
