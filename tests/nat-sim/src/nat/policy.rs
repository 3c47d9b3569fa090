//! What a NAT may be, in the words of RFC 4787.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// On what a decision about a remote endpoint depends. Also the key under which the decision is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// On nothing: all remotes share it.
    Any,
    /// On the remote's address.
    Address(IpAddr),
    /// On the remote's address and port.
    Endpoint(SocketAddr),
}

/// The three behaviours of RFC 4787, of mappings (section 4.1) and of filters (section 5) alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// EIM or EIF.
    EndpointIndependent,
    /// ADM or ADF.
    AddressDependent,
    /// APDM or APDF.
    AddressAndPortDependent,
}

impl Dependence {
    /// All three, least strict first.
    pub const ALL: [Self; 3] =
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];

    /// The key of `remote` under this behaviour.
    #[must_use]
    pub fn scope(self, remote: SocketAddr) -> Scope {
        match self {
            Self::EndpointIndependent => Scope::Any,
            Self::AddressDependent => Scope::Address(remote.ip()),
            Self::AddressAndPortDependent => Scope::Endpoint(remote),
        }
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

/// How the external port of a new binding is chosen (RFC 4787 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allocation {
    /// The internal port; when that is in use, the next free one above it.
    Preserving,
    /// The internal port; a flow that finds it in use gets a random port for each destination, so its
    /// mapping is no longer the policy's. This is the non-deterministic NAT of RFC 4787 section 7.
    PreservingUntilClash,
    /// The last port given out plus `step`, wrapping within the range. A `step` of 0 counts as 1.
    Sequential {
        /// Distance between neighbours, negative for an allocator that counts down.
        step: i16,
    },
    /// Any free port of the range.
    Random,
    /// Any free port of a block of `size` that belongs to the internal address, as carriers give out.
    RandomInBlock {
        /// Ports in a block. 0 counts as 1.
        size: u16,
    },
}

/// Which packets restart the idle clock (RFC 4787 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refresh {
    /// Outbound ones only: the least that REQ-6 demands.
    Outbound,
    /// Inbound ones only, against REQ-6.
    Inbound,
    /// Either direction, as Linux does.
    Either,
    /// Each direction has a clock of its own, and the first to run out ends the binding.
    PerDirection,
}

/// When an idle binding, and an idle hole in the filter, goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// Idle time after which it goes while no inbound packet was let through it.
    pub one_way: Duration,
    /// The same once there was one.
    pub two_way: Duration,
    /// What counts as not idle.
    pub refresh: Refresh,
}

impl Expiry {
    /// `nf_conntrack_udp_timeout` and `…_timeout_stream` as Linux ships them: 30 s unreplied, 120 s replied.
    pub const LINUX: Self = Self {
        one_way: Duration::from_secs(30),
        two_way: Duration::from_secs(120),
        refresh: Refresh::Either,
    };

    /// One timeout for all bindings.
    #[must_use]
    pub const fn after(timeout: Duration, refresh: Refresh) -> Self {
        Self { one_way: timeout, two_way: timeout, refresh }
    }
}

/// What becomes of a packet from inside to an external endpoint of this very NAT (RFC 4787 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hairpin {
    /// It is refused.
    None,
    /// It comes back with the sender's internal endpoint as its source.
    InternalSource,
    /// It comes back with the sender's external endpoint as its source: REQ-9.
    ExternalSource,
}

/// What becomes of an inbound packet that nothing inside asked for, beyond that it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strangers {
    /// It leaves no trace: the router drops its WAN input, or is no Linux.
    Forgotten,
    /// It makes a connection-tracking entry of the router's own, which takes the reply tuple: while that
    /// lives, packets of the pair are the router's, and a flow of ours to the same remote is moved to
    /// another port. This is Linux without an input drop.
    Tracked,
}

/// How a refused packet's sender learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Not at all.
    Silence,
    /// By an ICMP error.
    Icmp,
}

/// What a full table does with a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhenFull {
    /// Refuses it.
    RefuseNew,
    /// Forgets the binding that was idle for longest, with its holes.
    EvictIdlest,
}

/// A NAT's or a firewall's whole behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether addresses are rewritten. A stateful firewall only filters.
    pub translates: bool,
    /// Whether UDP passes at all, in either direction.
    pub passes_udp: bool,
    /// Which remotes share an external endpoint.
    pub mapping: Dependence,
    /// Which remotes may answer to it.
    pub filtering: Dependence,
    /// Which port it has.
    pub allocation: Allocation,
    /// The ports that are given out. A preserved port may lie outside.
    pub ports: RangeInclusive<u16>,
    /// How long it lasts.
    pub expiry: Expiry,
    /// Whether neighbours can use it.
    pub hairpin: Hairpin,
    /// What an early probe leaves behind.
    pub strangers: Strangers,
    /// What a refused sender is told.
    pub refusal: Refusal,
    /// Most entries of the table: bindings, holes beyond a binding's first, and strangers' entries.
    pub entries_max: usize,
    /// What happens to one more.
    pub when_full: WhenFull,
}

impl Policy {
    /// The ports a Linux masquerade chooses from (measured: 64 512 of them).
    pub const LINUX_PORTS: RangeInclusive<u16> = 1024..=65535;

    /// A translator of the given mapping and filtering that keeps ports, expires as Linux does, has no
    /// hairpin, forgets strangers in silence, and holds 65 536 entries.
    #[must_use]
    pub const fn nat(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            translates: true,
            passes_udp: true,
            mapping,
            filtering,
            allocation: Allocation::Preserving,
            ports: Self::LINUX_PORTS,
            expiry: Expiry::LINUX,
            hairpin: Hairpin::None,
            strangers: Strangers::Forgotten,
            refusal: Refusal::Silence,
            entries_max: 65_536,
            when_full: WhenFull::RefuseNew,
        }
    }

    /// A stateful firewall: rewrites nothing and lets in the endpoints that were sent to.
    #[must_use]
    pub const fn firewall() -> Self {
        let mut policy = Self::nat(Dependence::EndpointIndependent, Dependence::AddressAndPortDependent);
        policy.translates = false;
        policy
    }

    /// The same with another port allocation.
    #[must_use]
    pub fn allocating(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// The same with another expiry.
    #[must_use]
    pub fn expiring(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// The same with another hairpin.
    #[must_use]
    pub fn hairpinning(mut self, hairpin: Hairpin) -> Self {
        self.hairpin = hairpin;
        self
    }

    /// The same as a Linux router without an input drop: strangers are tracked, and told by ICMP.
    #[must_use]
    pub fn leaky(mut self) -> Self {
        self.strangers = Strangers::Tracked;
        self.refusal = Refusal::Icmp;
        self
    }
}
