//! Remotes that are gone: their ways stay for a moment, so that the connection under them can say that it ends.
//! Without one the other side would wait for its idle timeout.

use std::net::SocketAddr;
use std::time::Instant;

use proto::path::{LinkId, PathId};

use super::Driver;
use crate::endpoint::FAREWELL;

/// What a remote leaves behind.
#[derive(Debug)]
pub(super) struct Farewell {
    address: SocketAddr,
    relayed: Option<PathId>,
    links: Vec<LinkId>,
    ends: Instant,
}

impl Farewell {
    pub(super) fn new(
        address: SocketAddr,
        relayed: Option<PathId>,
        links: Vec<LinkId>,
        now: Instant,
    ) -> Self {
        Self { address, relayed, links, ends: now + FAREWELL }
    }
}

impl Driver {
    pub(super) fn part(&mut self, farewell: Farewell) {
        self.farewells.push(farewell);
    }

    pub(super) fn farewells_timeout(&self) -> Option<Instant> {
        self.farewells.iter().map(|farewell| farewell.ends).min()
    }

    pub(super) fn end_farewells(&mut self, now: Instant) {
        for farewell in self.farewells.extract_if(.., |farewell| farewell.ends <= now).collect::<Vec<_>>() {
            self.parts.socket.close_remote(farewell.address);
            for link in farewell.links {
                self.close_link(link);
            }
            // It may have come back meanwhile, to the same place.
            if let Some(path) = farewell.relayed.filter(|path| !self.is_used(*path)) {
                self.leave_relay(path);
            }
        }
    }

    /// Whether somebody is to be reached by this path through a relay.
    fn is_used(&self, path: PathId) -> bool {
        self.remotes.values().any(|remote| remote.relayed == Some(path))
            || self
                .dials
                .iter()
                .filter_map(|dialling| dialling.early.as_ref())
                .any(|early| early.path == path)
    }
}
