//! The conversation of two peers over their own QUIC connection: ALPN `culvert/1`.
//!
//! The connector opens the first bidirectional stream and proves the ticket on it; every further
//! bidirectional stream is one visitor's, or an echo, and begins with an [`Open`] frame. Visitors' streams may come in
//! the same flight as the proof; the sharer looks at none before it has checked that.

use serde::{Deserialize, Serialize};

use super::signal::{Mac, Refusal};
use super::{Bounded, Malformed};
use crate::id::{Instance, ShareId, TicketId};
use crate::name::MAX_NAME;

/// The ALPN between peers.
pub const ALPN: &[u8] = b"culvert/1";

/// The TLS exporter's label (RFC 8446 §7.5) for the proof of the ticket.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-culvert-ticket-1";

/// The most targets that one share has.
pub const MAX_TARGETS: usize = 64;

/// The target that is the sharer's own program: whatever is sent comes back as it is, so that a round trip is
/// measured. A program that is too old for it refuses the stream with [`close::PROTOCOL`].
pub const ECHO: u16 = u16::MAX;

/// QUIC application error codes: why a connection or a stream ends.
pub mod close {
    /// Nothing more to do.
    pub const DONE: u32 = 0;
    /// The connector was not let in; the reason was written on the first stream.
    pub const REFUSED: u32 = 1;
    /// A message broke the protocol.
    pub const PROTOCOL: u32 = 2;
    /// The process stops.
    pub const STOPPING: u32 = 3;
    /// A stream's target refused the connection.
    pub const TARGET_REFUSED: u32 = 16;
    /// A stream's target does not exist.
    pub const NO_SUCH_TARGET: u32 = 17;
    /// The TCP connection at the far end was reset.
    pub const RESET: u32 = 18;
    /// The sharer serves as many visitors as it takes.
    pub const BUSY: u32 = 19;
}

/// First on the first stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::VERSION`].
    pub version: u8,
    /// The share.
    pub share: ShareId,
    /// The ticket.
    pub ticket: TicketId,
    /// Which process of the connector's identity this is.
    pub instance: Instance,
    /// [`crate::proof::TicketSecret::connection_proof`].
    pub proof: Mac,
}

/// What kind of service a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TargetKind {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One target, as much of it as a visitor may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its port, which the connector's listener takes if it can; 0 where the target has none.
    pub port: u16,
}

/// The sharer's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Let in.
    Ready {
        /// The share's name.
        name: String,
        /// Its targets, in the order in which [`Open::target`] numbers them.
        targets: Vec<Target>,
    },
    /// Not let in; the connection closes behind it.
    Refused(Refusal),
}

/// First on every visitor's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Which target, from 0; or [`ECHO`].
    pub target: u16,
}

impl Bounded for Hello {
    fn check_bounds(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl Bounded for Open {
    fn check_bounds(&self) -> Result<(), Malformed> {
        if usize::from(self.target) < MAX_TARGETS || self.target == ECHO {
            Ok(())
        } else {
            Err(Malformed::OutOfBounds("the target"))
        }
    }
}

impl Bounded for Welcome {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Self::Ready { name, .. } if name.len() > MAX_NAME => Err(Malformed::OutOfBounds("the name")),
            Self::Ready { targets, .. } if targets.len() > MAX_TARGETS => {
                Err(Malformed::OutOfBounds("the number of targets"))
            }
            Self::Ready { .. } | Self::Refused(_) => Ok(()),
        }
    }
}
