//! What behaviour discovery found.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Allocation, Dependence, NatProfile};

/// What behaviour discovery found. A `None` was not found out: no answer, or a server that can't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Our address as the server sees it; `None` where no UDP comes back.
    pub mapped: Option<SocketAddr>,
    /// From request to answer.
    pub rtt: Option<Duration>,
    /// Whether the server sees another address than our own.
    pub is_translated: bool,
    /// Whether the server answered at two IP addresses. With one alone, an address-dependent mapping looks like
    /// an endpoint-independent one, and an endpoint-independent filter like an address-dependent one.
    pub has_two_addresses: bool,
    /// On what mappings depend.
    pub mapping: Option<Dependence>,
    /// On what filters depend.
    pub filtering: Option<Dependence>,
    /// How ports are chosen.
    pub allocation: Option<Allocation>,
    /// Whether two sockets behind the NAT reach each other by their public addresses (RFC 4787 §6).
    pub hairpin: Option<bool>,
}

impl Findings {
    /// Whether UDP to the server, and back, works.
    pub const fn has_udp(&self) -> bool {
        self.mapped.is_some()
    }

    /// The part of it that strategies for hard NATs go by.
    pub fn profile(&self) -> Option<NatProfile> {
        let latest = self.mapped?.port();
        Some(NatProfile { mapping: self.mapping?, allocation: self.allocation, latest })
    }
}
