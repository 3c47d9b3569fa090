//! What the driver knows, for whoever asks how things stand.

use std::time::Instant;

use super::Driver;
use crate::endpoint::remote::{Remote, RemoteKey};
use crate::endpoint::status::{PeerStatus, Status};

impl Driver {
    pub(super) fn status(&self, now: Instant) -> Status {
        let peers = self.remotes.iter().filter_map(|(key, remote)| self.peer_status(*key, remote, now));
        let (is_relayed, no_udp) = self.diagnosis.relayed();
        Status {
            is_relayed,
            no_udp,
            observed: self.servers.observed().iter().next(),
            server: self.servers.session(),
            nat_keeps: self.lifetime.kept(),
            peers: peers.collect(),
        }
    }

    /// `None` for a remote that is not connected yet, or not any more.
    fn peer_status(&self, (peer, _): RemoteKey, remote: &Remote, now: Instant) -> Option<PeerStatus> {
        let connection =
            remote.connection.as_ref().filter(|connection| connection.close_reason().is_none())?;
        let traffic = connection.stats();
        let primary = remote.agent.primary().map(|(path, kind, rtt)| {
            let (shown, rtt) = self.relays.shown(path, rtt);
            (kind, shown, rtt)
        });
        let mut changes = remote.history.changes(now);
        for (_, remote) in changes.iter_mut().filter_map(|change| change.path.as_mut()) {
            *remote = self.relays.shown_addr(*remote);
        }
        Some(PeerStatus {
            peer,
            role: remote.role,
            path: primary,
            bytes_in: traffic.udp_rx.bytes,
            bytes_out: traffic.udp_tx.bytes,
            known_for: remote.history.known_for(now),
            changes,
        })
    }
}
