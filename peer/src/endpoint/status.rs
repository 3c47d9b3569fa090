//! How an endpoint and its peers stand, for whoever asks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::id::PeerId;
use proto::no_udp::Cause;
use proto::path::{PathId, PathKind, Reason};
use proto::stun::Role;

/// How many changes of a peer's path are remembered.
const REMEMBERED: usize = 8;

/// How an endpoint stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its address as the server saw it last.
    pub observed: Option<SocketAddr>,
    /// At which address of its own the server has the session: none while there is no session, or it goes through the
    /// server's relay.
    pub server: Option<SocketAddr>,
    /// For how long the NAT on our side was seen to keep an idle flow; it may keep it for longer. `None` where that
    /// has not been learned, or it keeps none for 20 s.
    pub nat_keeps: Option<Duration>,
    /// Whether its session goes through the server's relay.
    pub is_relayed: bool,
    /// Why no UDP passes to the server, where that is why the session is relayed.
    pub no_udp: Option<Cause>,
    /// The peers that it has a connection with.
    pub peers: Vec<PeerStatus>,
}

/// How one peer stands.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// Our part in it: as [`Role::Sharer`] we are visited, as [`Role::Connector`] we visit.
    pub role: Role,
    /// The path that carries data now: through what, to which address, and its round trip as the checks measured
    /// it. `None` while there is none.
    pub path: Option<(PathKind, SocketAddr, Duration)>,
    /// Bytes of UDP received on its connection, over all paths.
    pub bytes_in: u64,
    /// Bytes of UDP sent.
    pub bytes_out: u64,
    /// For how long it has been known.
    pub known_for: Duration,
    /// The latest changes of its path, the oldest first.
    pub changes: Vec<PathChange>,
}

/// One change of a peer's path.
#[derive(Debug, Clone, Copy)]
pub struct PathChange {
    /// How long ago it was.
    pub ago: Duration,
    /// Through what, and to which address, data went from then on; `None`: nowhere.
    pub path: Option<(PathKind, SocketAddr)>,
    /// Why.
    pub reason: Reason,
}

/// What is remembered of one peer's paths.
#[derive(Debug)]
pub(super) struct History {
    since: Instant,
    changes: VecDeque<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    at: Instant,
    path: Option<(PathKind, PathId)>,
    reason: Reason,
}

impl History {
    pub(super) const fn new(since: Instant) -> Self {
        Self { since, changes: VecDeque::new() }
    }

    pub(super) fn record(&mut self, at: Instant, path: Option<(PathKind, PathId)>, reason: Reason) {
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at, path, reason });
    }

    pub(super) fn known_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    pub(super) fn changes(&self, now: Instant) -> Vec<PathChange> {
        let change = |change: &Change| PathChange {
            ago: now.saturating_duration_since(change.at),
            path: change.path.map(|(kind, path)| (kind, path.remote)),
            reason: change.reason,
        };
        self.changes.iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_latest_changes_are_remembered_and_no_more_than_that() {
        let start = tokio::time::Instant::now().into_std();
        let mut history = History::new(start);
        for second in 1..=20 {
            history.record(start + Duration::from_secs(second), None, Reason::Silence);
        }
        let now = start + Duration::from_secs(21);
        let ago: Vec<u64> = history.changes(now).iter().map(|change| change.ago.as_secs()).collect();
        assert_eq!(ago, [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(history.known_for(now).as_secs(), 21);
    }
}
