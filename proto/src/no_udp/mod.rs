//! **Reach**: whether UDP passes between this machine and the server, and why not, in words for the person who can
//! mend it.
//!
//! A [`Probe`] asks one UDP address of the server, from a socket of its own, and ends in an [`Outcome`]. [`diagnose`]
//! weighs the outcomes of all addresses. It blames the user's network only where a second, independent fact says so:
//! silence alone may be the fault of either side.

mod cause;
mod probe;

use std::net::SocketAddr;

pub use cause::{Cause, Here, diagnose};
pub use probe::Probe;

/// What became of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered, and saw the probe come from this address.
    Answered(SocketAddr),
    /// Nothing came back.
    Silent,
    /// What became of it otherwise.
    Refused(Refused),
}

/// Why a probe did not leave, or what came back in the answer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This machine has no route to the address, or no address of its family.
    NoRoute,
    /// The firewall of this machine did not let the probe out (EPERM).
    Here,
    /// A firewall or a router on the way said so by ICMP.
    OnTheWay(Unreachable),
    /// Nothing listens at the port (ICMP port unreachable; RFC 792, RFC 4443 §3.1).
    PortClosed,
}

/// Which ICMP message came back. Systems that read these messages for a program leave only so much of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Host unreachable, or prohibited for that host.
    Host,
    /// Network unreachable, or prohibited for that network.
    Network,
    /// Administratively prohibited.
    Prohibited,
}

impl Unreachable {
    /// As a user reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host unreachable or prohibited",
            Self::Network => "network unreachable or prohibited",
            Self::Prohibited => "administratively prohibited",
        }
    }
}

/// One address that was probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// The address.
    pub at: SocketAddr,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether it belongs to the host of the server's URL; else the server named it.
    pub is_by_name: bool,
}

impl Tried {
    /// Whether the server answered there.
    pub const fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered(_))
    }
}
