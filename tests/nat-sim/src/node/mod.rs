//! Nodes that drive the product's machines at the hosts of a world, in the place of its programs.
//!
//! What the programs put around the machines is done here in the same way and no cleverer: the session's
//! packets, the checks and the data all pass the peer's main socket, so that the NATs see what they would see;
//! the server answers by what it observes. Only the session's QUIC is the laboratory's own `conduit`.

mod conduit;
mod mutation;
mod peer;
mod server;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub use mutation::Mutation;
pub use peer::PeerNode;
pub use server::ServerNode;
pub use watch::{Count, Watch};

use crate::net::SocketId;
use crate::world::{Node, Plan, Seat, Transmit, World};

/// Who sits at a host.
#[derive(Debug)]
pub enum Actor {
    /// A peer: the host named `a` connects, every other one shares.
    Peer(Box<PeerNode>),
    /// The server.
    Server(Box<ServerNode>),
}

impl Actor {
    /// The peer.
    ///
    /// # Panics
    /// It is the server.
    #[must_use]
    pub fn peer(&self) -> &PeerNode {
        match self {
            Self::Peer(peer) => peer,
            Self::Server(_) => panic!("a server is no peer"),
        }
    }

    /// The peer, to give it an input of its own.
    ///
    /// # Panics
    /// It is the server.
    pub fn peer_mut(&mut self) -> &mut PeerNode {
        match self {
            Self::Peer(peer) => peer,
            Self::Server(_) => panic!("a server is no peer"),
        }
    }

    /// The server.
    ///
    /// # Panics
    /// It is a peer.
    #[must_use]
    pub fn server(&self) -> &ServerNode {
        match self {
            Self::Server(server) => server,
            Self::Peer(_) => panic!("a peer is no server"),
        }
    }
}

/// A world of the plan, which has to name the hosts `a` and `b` and one server, with nodes at its hosts. `a`
/// connects to what `b` shares as soon as it is told to: see [`PeerNode::dial`].
pub fn populate(plan: &Plan, mutation: Option<Mutation>) -> World<Actor> {
    plan.build(|seat: &Seat<'_>| {
        if seat.is_server {
            Actor::Server(Box::new(ServerNode::new(seat)))
        } else {
            Actor::Peer(Box::new(PeerNode::new(seat, mutation)))
        }
    })
}

impl Node for Actor {
    fn handle_datagram(&mut self, now: Instant, socket: SocketId, from: SocketAddr, payload: &[u8]) {
        match self {
            Self::Peer(peer) => peer.handle_datagram(now, socket, from, payload),
            Self::Server(server) => server.handle_datagram(now, socket, from, payload),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Peer(peer) => peer.handle_timeout(now),
            Self::Server(server) => server.handle_timeout(now),
        }
    }

    fn handle_network_change(&mut self, now: Instant, addresses: &[IpAddr]) {
        if let Self::Peer(peer) = self {
            peer.handle_network_change(now, addresses);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Peer(peer) => peer.poll_timeout(),
            Self::Server(server) => server.poll_timeout(),
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        match self {
            Self::Peer(peer) => peer.poll_transmit(),
            Self::Server(server) => server.poll_transmit(),
        }
    }

    fn poll_close(&mut self) -> Option<SocketId> {
        match self {
            Self::Peer(peer) => peer.poll_close(),
            Self::Server(_) => None,
        }
    }

    fn poll_note(&mut self) -> Option<String> {
        match self {
            Self::Peer(peer) => peer.poll_note(),
            Self::Server(_) => None,
        }
    }
}
