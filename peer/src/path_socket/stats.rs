//! What a path socket counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::path::PathId;
use tokio::time::Instant;

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Sent to an address that stands for nobody.
    NoRemote,
    /// Sent while no path to the remote was proven.
    NoPath,
    /// Sent by a link that was removed.
    NoLink,
    /// The link's queue was full, and nothing would have sent the packet again.
    LinkFull,
    /// The link refused it: too long for the interface, no route.
    LinkRefused,
    /// Received STUN that nobody took in time.
    StunOverflow,
    /// Received, and neither STUN nor QUIC.
    Unknown,
    /// A link said of it what can't be: longer than its buffer, or no stride.
    Malformed,
    /// Received from a source that nobody accepts, and no room to hold it.
    HoldFull,
    /// Held until nobody had accepted its source in time.
    HoldExpired,
    /// A link failed to receive. Counts failures, not packets.
    LinkFailed,
}

impl DropReason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::NoRemote,
        Self::NoPath,
        Self::NoLink,
        Self::LinkFull,
        Self::LinkRefused,
        Self::StunOverflow,
        Self::Unknown,
        Self::Malformed,
        Self::HoldFull,
        Self::HoldExpired,
        Self::LinkFailed,
    ];

    /// The reason as a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRemote => "no-remote",
            Self::NoPath => "no-path",
            Self::NoLink => "no-link",
            Self::LinkFull => "link-full",
            Self::LinkRefused => "link-refused",
            Self::StunOverflow => "stun-overflow",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::HoldFull => "hold-full",
            Self::HoldExpired => "hold-expired",
            Self::LinkFailed => "link-failed",
        }
    }
}

/// One counter for each [`DropReason`].
#[derive(Debug, Default)]
pub(super) struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    pub(super) fn add(&self, reason: DropReason, packets: usize) {
        self.0[reason as usize].fetch_add(packets as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> BTreeMap<DropReason, u64> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.0[reason as usize].load(Ordering::Relaxed)))
            .collect()
    }
}

/// What went over one path, as it happens.
#[derive(Debug)]
pub(super) struct Counters {
    since: Instant,
    tx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    last_tx: AtomicU64,
    last_rx: AtomicU64,
}

impl Counters {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            tx_bytes: AtomicU64::new(0),
            tx_packets: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            rx_packets: AtomicU64::new(0),
            last_tx: AtomicU64::new(0),
            last_rx: AtomicU64::new(0),
        }
    }

    pub(super) fn sent(&self, packets: usize, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.last_tx.store(self.clock(), Ordering::Relaxed);
    }

    pub(super) fn received(&self, packets: usize, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.last_rx.store(self.clock(), Ordering::Relaxed);
    }

    /// Now, in nanoseconds since the counters were made, and never 0, which means never.
    fn clock(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn instant(&self, clock: &AtomicU64) -> Option<Instant> {
        match clock.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.since + Duration::from_nanos(nanos)),
        }
    }

    /// When something last came, or when the path was new.
    pub(super) fn last_sign(&self) -> Instant {
        self.instant(&self.last_rx).unwrap_or(self.since)
    }

    pub(super) fn snapshot(&self, remote: SocketAddr, path: PathId, accepted: bool) -> PathStats {
        PathStats {
            remote,
            path,
            accepted,
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            tx_packets: self.tx_packets.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
            rx_packets: self.rx_packets.load(Ordering::Relaxed),
            last_tx: self.instant(&self.last_tx),
            last_rx: self.instant(&self.last_rx),
        }
    }
}

/// What went over one path of one remote. QUIC packets only, and unauthenticated: QUIC itself drops forgeries
/// later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStats {
    /// The address that stands for the remote.
    pub remote: SocketAddr,
    /// The path.
    pub path: PathId,
    /// Whether packets that arrive by it are handed up.
    pub accepted: bool,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// When the last packet left.
    pub last_tx: Option<Instant>,
    /// When the last packet came.
    pub last_rx: Option<Instant>,
}

/// A snapshot of all that a path socket counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Packets that went no further, by reason; each reason is there.
    pub drops: BTreeMap<DropReason, u64>,
    /// Packets held until somebody accepts their source.
    pub held: usize,
    /// The paths of all remotes, in order.
    pub paths: Vec<PathStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_and_a_name_of_its_own() {
        let drops = Drops::default();
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            drops.add(reason, n);
        }
        assert_eq!(drops.snapshot().into_values().collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
        let names: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::name).into();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
