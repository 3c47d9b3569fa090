//! What is known of the NAT in front of a socket, in the words of RFC 4787, and how it is found out.
//!
//! A [`NatProfile`] is what a strategy for hard NATs needs to choose by: on what a mapping depends, and how the
//! next one's port is chosen. `ports` reads the latter from a few samples. [`Discovery`] finds everything out that
//! a STUN server can show.

mod discovery;
mod findings;
mod ports;
mod query;

use serde::{Deserialize, Serialize};

pub use discovery::{Discovery, DiscoveryConfig, Probe, SOCKETS};
pub use findings::Findings;
pub use ports::{PortSample, classify};

/// On what a NAT's decision about a remote endpoint depends (RFC 4787 §4.1 for mappings, §5 for filters), least
/// strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// On nothing: one external endpoint for all remotes; whoever sends to it gets in.
    EndpointIndependent,
    /// On the remote's address.
    AddressDependent,
    /// On the remote's address and port.
    AddressAndPortDependent,
}

impl Dependence {
    /// The word of RFC 4787.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range between two ports, in whichever order they come.
    pub const fn new(a: u16, b: u16) -> Self {
        if a <= b { Self { first: a, last: b } } else { Self { first: b, last: a } }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports: 1 to 65 536.
    pub const fn size(self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// Whether a port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl From<(u16, u16)> for PortRange {
    fn from((a, b): (u16, u16)) -> Self {
        Self::new(a, b)
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first, range.last)
    }
}

/// How a NAT chooses the port of a new mapping (RFC 4787 §4.2), as far as samples show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Allocation {
    /// It keeps the socket's own port.
    Preserving,
    /// It counts: each new mapping, whoever's it is, has the last one's port plus `step`.
    Sequential {
        /// From one port to the next; negative where it counts down, never 0.
        step: i16,
    },
    /// It follows no rule that samples show, within a range.
    Random {
        /// Where all its ports are likely to lie: a little wider than those that were seen.
        range: PortRange,
    },
}

/// What is known of the NAT in front of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NatProfile {
    /// On what a mapping depends. Where the server has one address only, an address-dependent mapping looks
    /// endpoint-independent. Where none of its other addresses answers, nothing of this is seen, and the ports follow
    /// no rule that would help: that is called address-dependent. See [`Self::is_assumed`].
    pub mapping: Dependence,
    /// How ports are chosen; `None` where it was not looked for, which an endpoint-independent mapping does not
    /// need, or not enough samples came back.
    pub allocation: Option<Allocation>,
    /// The port of the newest mapping that was seen: a sequential allocator counts on from here, and other hosts'
    /// flows with it.
    pub latest: u16,
}

impl NatProfile {
    /// Whether another remote endpoint sees another port, so that what the server observed is of no use to it.
    pub const fn is_symmetric(&self) -> bool {
        match self.mapping {
            Dependence::EndpointIndependent => false,
            Dependence::AddressDependent | Dependence::AddressAndPortDependent => true,
        }
    }

    /// Whether it is only prepared for that another remote endpoint sees another port: one mapping for all of them, with a
    /// port that was drawn, looks the same from one address of the server's.
    pub const fn is_assumed(&self) -> bool {
        match self.mapping {
            Dependence::AddressDependent => true,
            Dependence::EndpointIndependent | Dependence::AddressAndPortDependent => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_ends_in_order_wherever_it_comes_from() {
        assert_eq!(PortRange::new(9, 3), PortRange::new(3, 9));
        let wild: PortRange = postcard::from_bytes(&postcard::to_allocvec(&(9_u16, 3_u16)).unwrap()).unwrap();
        assert_eq!((wild.first(), wild.last(), wild.size()), (3, 9, 7));
        assert_eq!(PortRange::new(0, u16::MAX).size(), 65_536);
    }
}
