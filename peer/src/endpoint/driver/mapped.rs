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

    /// Only at the address that the server sees: behind a second NAT the router's own is reached by nobody, and no
    /// peer would believe it.
    pub(super) fn mapped_candidate(&self) -> Option<Candidate> {
        let mapped =
            self.mapped.filter(|mapped| self.observed.is_some_and(|addr| addr.ip() == mapped.ip()))?;
        Some(Candidate::new(CandidateKind::Mapped, mapped))
    }
}
