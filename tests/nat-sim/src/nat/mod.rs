//! One NAT or stateful firewall, as two functions: [`Nat::egress`] for a packet from inside and
//! [`Nat::ingress`] for one from outside.
//!
//! A packet's life in here: egress finds the flow's *binding* by the mapping behaviour, or makes one with
//! a port from the allocator, and opens a *hole* for the destination by the filtering behaviour. Ingress
//! finds the binding by its external endpoint and lets the packet through a live hole. Bindings and holes
//! have idle clocks, and are dropped when next met after they ran out.
//!
//! The trap of Linux routers without an input drop is [`Strangers::Tracked`]: a refused packet leaves an
//! entry for (external endpoint, remote). While it lives, that pair's packets never reach the inside, and a
//! flow of ours to that remote, which would need the same reply tuple, is *moved* to a random port, of which
//! both sides' retries then keep the entry and the moved binding alive.
//!
//! A NAT knows no TTL: a router counts hops (see [`crate::net`]). A refused egress leaves nothing behind, but
//! for one that turned round: it has opened its own hole even where the neighbour's filter refuses it.

mod forwards;
mod policy;
mod ports;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use forwards::Forwards;
pub use policy::{
    Allocation, Dependence, Expiry, Hairpin, Policy, Refresh, Refusal, Scope, Strangers, WhenFull,
};
use ports::Ports;
use table::{Clock, Flow, Table};

use crate::dice::Dice;

/// Why a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// This NAT passes no UDP.
    UdpBlocked,
    /// It has no external address of the packet's family.
    NoExternalAddress,
    /// Every port that the flow may have is in use.
    NoPort,
    /// The table is full.
    TableFull,
    /// The destination is an external endpoint of this NAT, which has no hairpin.
    NoHairpin,
    /// No binding has this external endpoint.
    NoBinding,
    /// The binding's filter doesn't admit the sender.
    Filtered,
    /// An earlier probe of the same sender took the reply tuple for the router itself.
    Stranger,
}

/// A refused packet: why, and whether its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The reason.
    pub why: Why,
    /// By ICMP, or not at all.
    pub told: Refusal,
}

/// What becomes of a packet from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Egress {
    /// It leaves from this external endpoint.
    Out {
        /// The packet's new source.
        src: SocketAddr,
    },
    /// It turns round to a neighbour inside.
    Hairpin {
        /// The packet's new source.
        src: SocketAddr,
        /// The packet's new destination.
        dst: SocketAddr,
    },
    /// It is dropped.
    Refused(Refused),
}

/// What becomes of a packet from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ingress {
    /// It goes to this internal endpoint.
    In {
        /// The packet's new destination.
        dst: SocketAddr,
    },
    /// It is dropped.
    Refused(Refused),
}

/// A NAT or a stateful firewall.
#[derive(Debug, Clone)]
pub struct Nat {
    policy: Policy,
    external: Vec<IpAddr>,
    ports: Ports,
    table: Table,
    forwards: Forwards,
    /// The flow of each internal endpoint whose port its further ones share: see [`Self::keeps_to_moved`].
    moved: BTreeMap<SocketAddr, Flow>,
    dice: Dice,
}

impl Nat {
    /// A NAT with these external addresses; a firewall needs none. With several of a family, all flows of
    /// one internal address use the same one ("paired" pooling, RFC 4787 REQ-2).
    ///
    /// `policy.ports` must not be empty.
    #[must_use]
    pub fn new(policy: Policy, external: Vec<IpAddr>, dice: Dice) -> Self {
        let ports = Ports::new(policy.allocation, policy.ports.clone());
        let table = Table::new(policy.expiry, policy.entries_max, policy.when_full);
        let (forwards, moved) = (Forwards::default(), BTreeMap::new());
        Self { policy, external, ports, table, forwards, moved, dice }
    }

    /// Its behaviour.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its external addresses.
    #[must_use]
    pub fn external(&self) -> &[IpAddr] {
        &self.external
    }

    /// Entries in its table that have not been dropped yet, expired ones included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.table.entries()
    }

    /// Passes a packet from `src` inside to `dst`. Makes or refreshes the flow's binding and hole.
    pub fn egress(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Egress {
        let passed = if !self.policy.passes_udp {
            Err(Why::UdpBlocked)
        } else if self.policy.translates && self.external.contains(&dst.ip()) {
            self.turn_round(src, dst, now)
        } else {
            self.bind(src, dst, now).map(|src| Egress::Out { src })
        };
        passed.unwrap_or_else(|why| Egress::Refused(self.refused(why)))
    }

    /// Passes a packet from `src` outside to `dst`, which is an external endpoint of this NAT or, behind a
    /// firewall, an internal one.
    pub fn ingress(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Ingress {
        let admitted = if self.policy.passes_udp { self.admit(src, dst, now) } else { Err(Why::UdpBlocked) };
        match admitted {
            Ok(dst) => Ingress::In { dst },
            Err(why) => Ingress::Refused(self.refused(why)),
        }
    }

    /// Maps a port of the router's to an internal endpoint, as PCP, NAT-PMP and UPnP IGD do on request: the same port
    /// where it is free. None without an address of the family.
    pub fn forward(&mut self, inner: SocketAddr) -> Option<SocketAddr> {
        let external = SocketAddr::new(self.external_for(inner.ip())?, inner.port());
        self.forwards.add(external, inner);
        Some(external)
    }

    /// Loses all state, as a power cut does. The allocator starts anew elsewhere.
    pub fn reboot(&mut self) {
        self.table.clear();
        self.forwards.clear();
        self.moved.clear();
        self.ports.reset();
    }

    /// Gets other external addresses and loses all state, as a masquerade does when its line is redialled.
    pub fn change_address(&mut self, external: Vec<IpAddr>) {
        self.external = external;
        self.reboot();
    }

    /// Counts `flows` new flows of other hosts, which move a sequential allocator on.
    pub fn foreign_flows(&mut self, flows: u16) {
        self.ports.skip(flows, &mut self.dice);
    }

    fn refused(&self, why: Why) -> Refused {
        Refused { why, told: self.policy.refusal }
    }

    /// The external endpoint of the flow from `src` to `dst`, made or refreshed, its hole too.
    fn bind(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Result<SocketAddr, Why> {
        if let Some(external) = self.forwards.answer(src, dst, self.policy.expiry.two_way, now) {
            return Ok(external);
        }
        let hole = self.policy.filtering.scope(dst);
        if let Some(flow) = self.live_flow(src, dst, now) {
            return self.table.send(&flow, hole, now).ok_or(Why::TableFull);
        }
        if !self.table.make_room(now, None) {
            return Err(Why::TableFull);
        }
        let (flow, external) = self.new_flow(src, dst, now)?;
        self.table.insert(flow, external, hole, Clock::started(now));
        Ok(external)
    }

    /// The flow's live binding: one of its own, to which it was moved, before the one of its mapping.
    fn live_flow(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Option<Flow> {
        let usual = Flow { inner: src, remote: self.policy.mapping.scope(dst) };
        let own = Flow { inner: src, remote: Scope::Endpoint(dst) };
        if own != usual && self.may_move() && self.table.live(&own, now).is_some() {
            return Some(own);
        }
        if let Some(moved) = self.moved_flow(src, dst, &usual, now) {
            return Some(moved);
        }
        let external = self.table.live(&usual, now)?;
        (!self.table.is_strangers(external, dst, now)).then_some(usual)
    }

    /// Where the flow of a socket that was moved goes, unless it is an old one: the kernel gives each new flow the port
    /// of the socket's newest one, if the tuple is free (`find_appropriate_src`).
    fn moved_flow(&mut self, src: SocketAddr, dst: SocketAddr, usual: &Flow, now: Instant) -> Option<Flow> {
        let moved = *self.moved.get(&src)?;
        let Some(external) = self.table.live(&moved, now) else {
            self.moved.remove(&src);
            return None;
        };
        let is_old = self.table.has_hole(usual, self.policy.filtering.scope(dst), now);
        (!is_old && !self.table.is_strangers(external, dst, now)).then_some(moved)
    }

    /// Whether a socket that was moved for one remote keeps to that port for others: Linux, that is.
    fn keeps_to_moved(&self) -> bool {
        self.policy.strangers == Strangers::Tracked
            && self.policy.mapping == Dependence::EndpointIndependent
            && self.policy.filtering == Dependence::AddressAndPortDependent
    }

    /// Where a flow without a usable binding gets one: under the mapping's key, or, when its port is in use
    /// or its reply tuple taken, under a key of its own with a random port.
    fn new_flow(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        now: Instant,
    ) -> Result<(Flow, SocketAddr), Why> {
        let usual = Flow { inner: src, remote: self.policy.mapping.scope(dst) };
        if !self.policy.translates {
            return Ok((usual, src));
        }
        let ip = self.external_for(src.ip()).ok_or(Why::NoExternalAddress)?;
        let own = Flow { inner: src, remote: Scope::Endpoint(dst) };
        let (table, forwards) = (&self.table, &self.forwards);
        let is_free = |port| {
            let external = SocketAddr::new(ip, port);
            table.is_free(external, now) && !forwards.has(external)
        };
        let is_ours = |port| is_free(port) && !table.is_strangers(SocketAddr::new(ip, port), dst, now);
        let has_usual = table.is_live(&usual, now);
        if !has_usual {
            let chosen = if own == usual {
                self.ports.choose(src, &mut self.dice, is_ours)
            } else {
                self.ports.choose(src, &mut self.dice, is_free)
            };
            let chosen = chosen.ok_or(Why::NoPort)?;
            let external = SocketAddr::new(ip, chosen.port);
            let keeps_mapping =
                !(chosen.clashed && self.policy.allocation == Allocation::PreservingUntilClash);
            if keeps_mapping && is_ours(chosen.port) {
                return Ok((usual, external));
            }
        }
        let port = self.ports.makeshift(&mut self.dice, is_ours).ok_or(Why::NoPort)?;
        if self.keeps_to_moved() {
            self.moved.insert(src, own);
        }
        Ok((own, SocketAddr::new(ip, port)))
    }

    fn admit(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Result<SocketAddr, Why> {
        if let Some(inner) = self.forwards.receive(dst, src, now) {
            return Ok(inner);
        }
        if self.policy.strangers == Strangers::Tracked && self.table.is_strangers(dst, src, now) {
            self.table.track_stranger(dst, src, now);
            return Err(Why::Stranger);
        }
        let hole = self.policy.filtering.scope(src);
        let admitted = self.table.receive(dst, hole, now);
        // A firewall rewrites nothing, so no flow of ours could need another port.
        if admitted.is_err()
            && self.policy.translates
            && self.policy.strangers == Strangers::Tracked
            && self.table.make_room(now, None)
        {
            self.table.track_stranger(dst, src, now);
        }
        admitted
    }

    fn turn_round(&mut self, src: SocketAddr, dst: SocketAddr, now: Instant) -> Result<Egress, Why> {
        if self.policy.hairpin == Hairpin::None {
            return Err(Why::NoHairpin);
        }
        let external = self.bind(src, dst, now)?;
        let inner = self.table.receive(dst, self.policy.filtering.scope(external), now)?;
        let src = if self.policy.hairpin == Hairpin::InternalSource { src } else { external };
        Ok(Egress::Hairpin { src, dst: inner })
    }

    /// Whether a flow can have a binding other than its mapping's.
    fn may_move(&self) -> bool {
        self.policy.strangers == Strangers::Tracked
            || self.policy.allocation == Allocation::PreservingUntilClash
    }

    fn external_for(&self, inner: IpAddr) -> Option<IpAddr> {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == inner.is_ipv4();
        let count = self.external.iter().filter(same_family).count();
        let pick = match inner {
            IpAddr::V4(ip) => usize::from(ip.octets()[3]),
            IpAddr::V6(ip) => usize::from(ip.octets()[15]),
        };
        self.external.iter().filter(same_family).nth(pick.checked_rem(count)?).copied()
    }
}

impl Egress {
    /// The packet's new source, unless it was dropped.
    #[must_use]
    pub fn src(&self) -> Option<SocketAddr> {
        match self {
            Self::Out { src } | Self::Hairpin { src, .. } => Some(*src),
            Self::Refused(_) => None,
        }
    }
}

impl Ingress {
    /// The packet's new destination, unless it was dropped.
    #[must_use]
    pub fn dst(&self) -> Option<SocketAddr> {
        match self {
            Self::In { dst } => Some(*dst),
            Self::Refused(_) => None,
        }
    }
}

/// The bindings of one internal endpoint, for a story or an assertion: external endpoint by remote scope.
pub type Bindings = BTreeMap<Scope, SocketAddr>;

impl Nat {
    /// The live bindings of `inner`.
    #[must_use]
    pub fn bindings(&self, inner: SocketAddr, now: Instant) -> Bindings {
        self.table.bindings(inner, now)
    }
}
