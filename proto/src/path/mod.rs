//! Paths: the ways by which packets reach one remote peer.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

/// A way out of this machine: a UDP socket of ours, or a connection to a relay. Numbered by the shell;
/// 0 is the main socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u16);

impl LinkId {
    /// The main UDP socket, whose binding the rendezvous observes.
    pub const MAIN: Self = Self(0);
}

/// What packets of a path pass through, best first: the derived order is the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// UDP from host to host.
    Direct,
    /// The same datagrams, framed over one TCP connection from host to host.
    DirectTcp,
    /// Through a relay.
    Relay,
}

/// One path to a remote: the link that packets leave by and the address they are sent to.
///
/// On a UDP link the address is the remote's own. On a relay's link it is the address by which that
/// link knows the remote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId {
    /// The link.
    pub link: LinkId,
    /// Where on it.
    pub remote: SocketAddr,
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.remote, self.link.0)
    }
}

/// By which paths data leaves for one remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Route {
    /// Carries the data. None: there is no proven path, and packets are lost.
    pub primary: Option<PathId>,
    /// Carries a copy of it, while the primary is suspect.
    pub also: Option<PathId>,
}

mod agent;
mod attempt;
mod config;
mod lifetime;
mod liveness;
mod mapping;
mod pair;
mod report;
mod signals;

pub use agent::PathAgent;
pub use config::PathConfig;
pub use lifetime::{Lifetime, LifetimeAction};
pub use mapping::MappingQuery;
pub use report::{Outlook, PathEvent, PathStats, Reason, Traffic};
pub use signals::Signals;

/// A datagram of the agent's own, to send as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTransmit {
    /// By which link, to which address.
    pub path: PathId,
    /// The hop limit, where it is to die on the way: it opens our own NAT and reaches nobody else's.
    pub ttl: Option<u8>,
    /// The datagram.
    pub payload: Vec<u8>,
}
