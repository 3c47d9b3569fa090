//! The port that our router maps to us, as a candidate.

use std::net::SocketAddr;

use proto::candidate::{Candidate, CandidateKind};

use super::Driver;
use crate::endpoint::remote::RemoteKey;

impl Driver {
    /// The router maps a port to us, another one, or none any more. Remotes that are still looked for hear of it;
    /// the others don't need it.
    pub(super) fn handle_mapped(&mut self, mapped: Option<SocketAddr>) {
        self.mapped = mapped;
        let Some(candidate) = self.mapped_candidate() else { return };
        let sought = self.remotes.iter().filter(|(_, remote)| remote.agent.route().primary.is_none());
        let keys: Vec<RemoteKey> = sought.map(|(key, _)| *key).collect();
        for key in keys {
            self.trickle(key, vec![candidate]);
        }
    }

    /// Only at the address that the server sees: behind a second NAT no packet reaches the router's own, and no peer
    /// would believe it. A server that sees a local address is in our own network: its router is ours, and the peer
    /// knows at which address it reached the server.
    pub(super) fn mapped_candidate(&self) -> Option<Candidate> {
        let observed = self.servers.observed();
        let mapped = self.mapped.filter(|mapped| observed.has_ip(mapped.ip()) || observed.is_inside())?;
        Some(Candidate::new(CandidateKind::Mapped, mapped))
    }
}
