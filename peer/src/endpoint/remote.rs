//! One remote peer, as the driver keeps it: its stable address, its agent, its exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use proto::id::{Instance, PeerId};
use proto::path::{LinkId, Outlook, PathAgent, PathId, PathKind, Signals, Traffic};
use proto::proof::Exchange;
use proto::punch::Punch;
use proto::seen::Seen;
use proto::stun::Role;
use tokio::sync::watch;

use super::status::History;
use crate::error::Error;
use crate::path_socket::PathSocket;

/// A remote is a process of an identity, seen in one of the two roles: dialling oneself, both ends have the
/// same identity and differ in the instance alone.
pub(super) type RemoteKey = (PeerId, Instance);

/// What a connector needs to open its connection.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    /// The remote's stable address.
    pub(super) address: SocketAddr,
    /// For the proof.
    pub(super) exchange: Exchange,
    /// What becomes of the offer, where that is not known yet.
    pub(super) met: watch::Receiver<Meeting>,
}

/// What became of an offer, once that is known.
pub(super) type Meeting = Option<Result<Met, Error>>;

/// The sharer has let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met {
    /// It seems to be on this very machine.
    pub(super) is_beside: bool,
}

#[derive(Debug)]
pub(super) struct Remote {
    pub(super) role: Role,
    pub(super) address: SocketAddr,
    pub(super) agent: PathAgent,
    /// While it has no path and a NAT on the way may need a guess.
    pub(super) punch: Option<Punch>,
    pub(super) signals: Signals,
    /// Where the server saw it.
    pub(super) observed: Seen,
    pub(super) connection: Option<quinn::Connection>,
    /// Without a connection it is forgotten then.
    pub(super) expires: Option<Instant>,
    /// The short-lived links that were opened for it.
    pub(super) links: Vec<LinkId>,
    /// The way to it through a relay, whether that is up or not.
    pub(super) relayed: Option<PathId>,
    /// Whether it has heard at which relay we are.
    pub(super) knows_relay: bool,
    /// When that is tried again: the remote was not there.
    pub(super) rejoins: Option<Instant>,
    /// When the exchange began.
    pub(super) met_at: Instant,
    /// The path that was reported last, as a user is shown it.
    pub(super) last_path: Option<(PathKind, SocketAddr)>,
    /// Its paths so far.
    pub(super) history: History,
    traffic: BTreeMap<PathId, (u64, u64)>,
}

impl Remote {
    pub(super) const fn new(
        role: Role,
        address: SocketAddr,
        agent: PathAgent,
        signals: Signals,
        observed: Seen,
        expires: Instant,
        now: Instant,
    ) -> Self {
        Self {
            role,
            address,
            agent,
            punch: None,
            signals,
            observed,
            connection: None,
            expires: Some(expires),
            links: Vec::new(),
            relayed: None,
            knows_relay: false,
            rejoins: None,
            met_at: now,
            last_path: None,
            history: History::new(now),
            traffic: BTreeMap::new(),
        }
    }

    /// Whether it is needed no more: its connection has ended, the time for one is over, or it was dialled and every way to
    /// it was tried. While a relay is being connected to (`may_be_relayed`) there is one way left.
    pub(super) fn is_over(&self, may_be_relayed: bool, now: Instant) -> bool {
        match &self.connection {
            Some(connection) => connection.close_reason().is_some(),
            None => {
                let is_hopeless = self.agent.outlook() == Outlook::Unreached && !may_be_relayed;
                self.role == Role::Connector && is_hopeless || self.expires.is_some_and(|at| at <= now)
            }
        }
    }

    /// Tells the agent what has left since the last time, and nothing of what came: that is for the next report, or one
    /// flight, seen in two, would look like a conversation.
    pub(super) fn report_sent(&mut self, socket: &PathSocket, now: Instant) {
        let route = self.agent.route();
        for path in route.primary.into_iter().chain(route.also) {
            let Some(stats) = socket.path_stats(self.address, path) else { continue };
            let (tx, _) = self.traffic.entry(path).or_default();
            if std::mem::replace(tx, stats.tx_packets) < stats.tx_packets {
                self.agent.handle_traffic(path, Traffic { sent: true, received: false }, now);
            }
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
        let mut paths: BTreeSet<PathId> = self.agent.heard().collect();
        paths.extend(route.primary.into_iter().chain(route.also).chain(self.relayed));
        for path in paths {
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
