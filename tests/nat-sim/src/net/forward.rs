//! The way of one packet, hop by hop.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::event::{Event, Packet};
use super::{Delivery, HostId, LanId, Net, Place, RouterId, SiteId, SocketId, Target};
use crate::link::{Cut, Passage};
use crate::log::{Undelivered, What};
use crate::nat::{Egress, Ingress, Refusal, Refused};

impl Net {
    /// Carries a packet from where it was sent up to the core, or aside to a neighbour.
    pub(super) fn carry(&mut self, mut packet: Packet, mut place: Place, now: Instant) {
        loop {
            let lan = match place {
                Place::Site(site) => return self.cross_core(site, packet, now),
                Place::Lan(lan) => lan,
            };
            if let Some(target) = self.local.get(&(lan, packet.dst.ip())).copied() {
                return self.reach_nearby(target, packet, now);
            }
            let router = self.lans[lan.0].router;
            packet = match self.leave(router, packet, now) {
                Some(packet) => packet,
                None => return,
            };
            place = self.routers[router.0].place;
        }
    }

    /// Takes a packet from a router's inside to its outside. None: it went elsewhere, or nowhere.
    fn leave(&mut self, router: RouterId, mut packet: Packet, now: Instant) -> Option<Packet> {
        // The TTL is looked at before the source is rewritten, so a packet that dies here leaves no binding.
        if !self.spend_ttl(router, &mut packet, now) {
            return None;
        }
        if let Some(target) = self.inside(router, &packet) {
            if self.routers[router.0].isolates {
                self.dropped(&packet, Undelivered::Isolated(router), now);
            } else {
                self.reach_nearby(target, packet, now);
            }
            return None;
        }
        let (src, dst) = (packet.src, packet.dst);
        let Some(nat) = self.routers[router.0].nat_mut(dst.is_ipv6()) else {
            self.dropped(&packet, Undelivered::NoRoute, now);
            return None;
        };
        match nat.egress(src, dst, now) {
            Egress::Out { src } => {
                packet.src = src;
                self.translated(router, &packet, now);
                Some(packet)
            }
            Egress::Hairpin { src, dst } => {
                (packet.src, packet.dst) = (src, dst);
                self.translated(router, &packet, now);
                match self.inside(router, &packet) {
                    Some(target) => self.reach_nearby(target, packet, now),
                    None => self.dropped(&packet, Undelivered::NoRoute, now),
                }
                None
            }
            Egress::Refused(refused) => {
                self.refused(router, refused, &packet, now);
                None
            }
        }
    }

    /// Puts a packet on a site's uplink and takes it through the core.
    fn cross_core(&mut self, from: SiteId, packet: Packet, now: Instant) {
        let passage = self.sites[from.0].up.pass(packet.size(), now);
        let Some((packet, passage)) = self.uncut(packet, passage, now) else { return };
        let Some((to, _)) = self.public.get(&packet.dst.ip()).copied() else {
            return self.dropped(&packet, Undelivered::NoRoute, now);
        };
        let is_direct = !self.sites[from.0].is_server && !self.sites[to.0].is_server;
        if self.direct_is_cut && is_direct {
            return self.dropped(&packet, Undelivered::Cut(Cut::Lost), now);
        }
        let hops = self.hops(from, to);
        if packet.ttl <= hops {
            return self.dropped(&packet, Undelivered::TtlInCore, now);
        }
        let packet = Packet { ttl: packet.ttl - hops, ..packet };
        let delay = self.core_delay(from, to);
        if let Some(again) = passage.again {
            self.queue.push(again + delay, Event::AtDownlink { site: to, packet: packet.clone() });
        }
        self.queue.push(passage.at + delay, Event::AtDownlink { site: to, packet });
    }

    /// Takes a packet from the core down a site's link.
    pub(super) fn descend(&mut self, site: SiteId, packet: Packet, now: Instant) {
        let passage = self.sites[site.0].down.pass(packet.size(), now);
        let Some((packet, passage)) = self.uncut(packet, passage, now) else { return };
        // Looked up on arrival: the address may have moved while the packet was under way.
        let Some((_, target)) = self.public.get(&packet.dst.ip()).copied() else {
            return self.dropped(&packet, Undelivered::NoRoute, now);
        };
        if let Some(again) = passage.again {
            self.queue.push(again, Event::Reach { target, packet: packet.clone() });
        }
        if passage.at == now {
            self.reach(target, packet, now);
        } else {
            self.queue.push(passage.at, Event::Reach { target, packet });
        }
    }

    /// Gives a packet to what answers to its destination, through the routers above a host.
    pub(super) fn reach(&mut self, mut target: Target, mut packet: Packet, now: Instant) {
        loop {
            let router = match target {
                Target::Host(host) => return self.deliver(host, packet, now),
                Target::Router(router) => router,
            };
            let (src, dst) = (packet.src, packet.dst);
            let Some(nat) = self.routers[router.0].nat_mut(dst.is_ipv6()) else {
                return self.dropped(&packet, Undelivered::NoRoute, now);
            };
            match nat.ingress(src, dst, now) {
                Ingress::In { dst } => packet.dst = dst,
                Ingress::Refused(refused) => return self.refused(router, refused, &packet, now),
            }
            // What is for the router itself needs no TTL, so an early probe with its last hop still leaves
            // its trace in the table above.
            if !self.spend_ttl(router, &mut packet, now) {
                return;
            }
            self.translated(router, &packet, now);
            target = match self.inside(router, &packet) {
                Some(target) => target,
                None => return self.dropped(&packet, Undelivered::NoRoute, now),
            };
        }
    }

    fn reach_nearby(&mut self, target: Target, packet: Packet, now: Instant) {
        self.queue.push(now + self.core.lan_delay, Event::Reach { target, packet });
    }

    fn deliver(&mut self, host: HostId, packet: Packet, now: Instant) {
        let Some(socket) = self.socket_at(host, packet.dst) else {
            self.dropped(&packet, Undelivered::NoSocket(host), now);
            return self.tell_sender(&packet, now);
        };
        self.hosts[host.0].traffic.received += 1;
        let what = What::Delivered { packet: packet.number, host, socket };
        self.log.record(now.saturating_duration_since(self.start), what, &[]);
        let Packet { src: from, payload, .. } = packet;
        self.ready.push_back(Delivery::Datagram { host, socket, from, payload });
    }

    /// The socket of a host at `dst`; none also when the host has moved away from that address.
    fn socket_at(&self, host: HostId, dst: SocketAddr) -> Option<SocketId> {
        let host = &self.hosts[host.0];
        let at = |ip| host.ports.get(&(dst.port(), ip));
        let socket = at(Some(dst.ip())).or_else(|| at(None)).copied();
        socket.filter(|_| host.addresses.contains(&dst.ip()))
    }

    /// What answers to the packet's destination on one of the router's LANs.
    fn inside(&self, router: RouterId, packet: &Packet) -> Option<Target> {
        let at = |lan: &LanId| self.local.get(&(*lan, packet.dst.ip())).copied();
        self.routers[router.0].lans.iter().find_map(at)
    }

    fn spend_ttl(&mut self, router: RouterId, packet: &mut Packet, now: Instant) -> bool {
        if packet.ttl <= 1 {
            self.dropped(packet, Undelivered::TtlAt(router), now);
            return false;
        }
        packet.ttl -= 1;
        true
    }

    fn translated(&mut self, router: RouterId, packet: &Packet, now: Instant) {
        let what = What::Translated { packet: packet.number, router, src: packet.src, dst: packet.dst };
        self.log.record(now.saturating_duration_since(self.start), what, &[]);
    }

    fn refused(&mut self, router: RouterId, refused: Refused, packet: &Packet, now: Instant) {
        self.dropped(packet, Undelivered::Refused(router, refused), now);
        if refused.told == Refusal::Icmp {
            self.tell_sender(packet, now);
        }
    }

    /// Sends an ICMP error to the packet's sender, in the time that the packet took. It is not translated
    /// router by router: the sender's socket is known.
    fn tell_sender(&mut self, packet: &Packet, now: Instant) {
        let took = now.saturating_duration_since(packet.origin.sent);
        self.queue.push(now + took, Event::Unreachable { origin: packet.origin });
    }

    fn uncut(
        &mut self,
        packet: Packet,
        passage: Result<Passage, Cut>,
        now: Instant,
    ) -> Option<(Packet, Passage)> {
        match passage {
            Ok(passage) => Some((packet, passage)),
            Err(cut) => {
                self.dropped(&packet, Undelivered::Cut(cut), now);
                None
            }
        }
    }

    fn hops(&self, from: SiteId, to: SiteId) -> u8 {
        let (from, to) = (&self.sites[from.0], &self.sites[to.0]);
        let share = from.shared_link.is_some() && from.shared_link == to.shared_link;
        if share { 0 } else { self.core.hops }
    }

    /// One way: half of D between homes; half of R, the home's own if it has one, to or from a server.
    fn core_delay(&self, from: SiteId, to: SiteId) -> Duration {
        let (from, to) = (&self.sites[from.0], &self.sites[to.0]);
        let rtt = match (from.is_server, to.is_server) {
            (false, false) => self.core.direct_rtt,
            (false, true) => from.server_rtt.unwrap_or(self.core.server_rtt),
            (true, false) => to.server_rtt.unwrap_or(self.core.server_rtt),
            (true, true) => self.core.server_rtt,
        };
        rtt / 2
    }
}
