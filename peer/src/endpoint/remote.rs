//! One remote peer, as the driver keeps it: its stable address, its agent, its exchange.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use proto::id::{Instance, PeerId};
use proto::path::{LinkId, PathAgent, PathId, PathKind, Traffic};
use proto::proof::{Exchange, TicketSecret};
use proto::stun::Role;
use proto::wire::VERSION;
use proto::wire::signal::{Claims, Nonce, Trickle};

use crate::path_socket::PathSocket;

/// A remote is a process of an identity, seen in one of the two roles: dialling oneself, both ends have the
/// same identity and differ in the instance alone.
pub(super) type RemoteKey = (PeerId, Instance);

/// What a connector needs to open its connection.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    /// The remote's stable address.
    pub(super) address: SocketAddr,
    /// Where it was reached first.
    pub(super) reached_at: Option<SocketAddr>,
    /// For the proof.
    pub(super) exchange: Exchange,
}

#[derive(Debug)]
pub(super) struct Remote {
    pub(super) role: Role,
    pub(super) address: SocketAddr,
    pub(super) agent: PathAgent,
    pub(super) signals: Signals,
    /// Its address as the server saw it.
    pub(super) observed: Option<SocketAddr>,
    pub(super) connection: Option<quinn::Connection>,
    /// Without a connection it is forgotten then.
    pub(super) expires: Option<Instant>,
    /// The short-lived links that were opened for it.
    pub(super) links: Vec<LinkId>,
    /// The path that was reported last.
    pub(super) last_path: Option<(PathKind, PathId)>,
    traffic: BTreeMap<PathId, (u64, u64)>,
}

impl Remote {
    pub(super) const fn new(
        role: Role,
        address: SocketAddr,
        agent: PathAgent,
        signals: Signals,
        observed: Option<SocketAddr>,
        expires: Instant,
    ) -> Self {
        Self {
            role,
            address,
            agent,
            signals,
            observed,
            connection: None,
            expires: Some(expires),
            links: Vec::new(),
            last_path: None,
            traffic: BTreeMap::new(),
        }
    }

    /// There is a path again. What QUIC sent before it is lost, and would be sent again only when a timer says
    /// so that has doubled each time; the answer to one more byte shows the loss at once.
    pub(super) fn look_for_losses(&self) {
        if let Some(connection) = &self.connection {
            let _ = connection.send_datagram(vec![0].into());
        }
    }

    /// Tells the agent what passed since the last time. Returns whether anything did.
    pub(super) fn report_traffic(&mut self, socket: &PathSocket, now: Instant) -> bool {
        let route = self.agent.route();
        let mut any = false;
        for path in route.primary.into_iter().chain(route.also) {
            let Some(stats) = socket.path_stats(self.address, path) else { continue };
            let (tx, rx) =
                self.traffic.insert(path, (stats.tx_packets, stats.rx_packets)).unwrap_or_default();
            let traffic = Traffic { sent: stats.tx_packets > tx, received: stats.rx_packets > rx };
            if traffic.sent || traffic.received {
                any = true;
                self.agent.handle_traffic(path, traffic, now);
            }
        }
        any
    }
}

/// The authenticated messages of one exchange beside its offer and answer.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) exchange: Exchange,
    pub(super) secret: TicketSecret,
    pub(super) offer: Nonce,
    sent: u32,
    received: u32,
}

impl Signals {
    pub(super) const fn new(exchange: Exchange, secret: TicketSecret, offer: Nonce) -> Self {
        Self { exchange, secret, offer, sent: 0, received: 0 }
    }

    /// Our further claims.
    pub(super) fn trickle(&mut self, me: RemoteKey, claims: Claims) -> Trickle {
        self.sent += 1;
        let mac = self.secret.trickle_mac(&self.exchange, me, self.offer, self.sent, &claims);
        Trickle { version: VERSION, offer: self.offer, counter: self.sent, claims, mac }
    }

    /// Whether a trickle is the remote's, and newer than the last.
    pub(super) fn accepts(&mut self, from: RemoteKey, trickle: &Trickle) -> bool {
        let new = trickle.counter > self.received && trickle.offer == self.offer;
        let proven = new && self.secret.proves_trickle(&self.exchange, from, trickle);
        if proven {
            self.received = trickle.counter;
        }
        proven
    }
}
