//! What a router counts.

use crate::wire::relay::Denial;

/// Why a frame was not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Nobody is logged in under its receiver's address.
    Offline,
    /// The receiver did not let it in in time.
    NotLetIn,
    /// It waited to be let in, and had to make room, or found none.
    HoldFull,
    /// Its sender, or its sender's network, sends too much to those who did not let it in.
    Stranger,
    /// The receiver's queue of data is full.
    DataFull,
    /// The receiver's queue of control is full.
    ControlFull,
    /// The receiver left before it was written.
    ReceiverGone,
    /// The relay as a whole has as much queued as it takes.
    RelayFull,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Offline,
        Self::NotLetIn,
        Self::HoldFull,
        Self::Stranger,
        Self::DataFull,
        Self::ControlFull,
        Self::ReceiverGone,
        Self::RelayFull,
    ];

    /// A short name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::NotLetIn => "not_let_in",
            Self::HoldFull => "hold_full",
            Self::Stranger => "stranger",
            Self::DataFull => "data_full",
            Self::ControlFull => "control_full",
            Self::ReceiverGone => "receiver_gone",
            Self::RelayFull => "relay_full",
        }
    }
}

/// Counts since the start, and of what is here now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouterStats {
    /// Connections now, logged in or not.
    pub connections: usize,
    /// Peers logged in now.
    pub sessions: usize,
    /// Bytes in queues now.
    pub queued_bytes: usize,
    /// Bytes held now.
    pub held_bytes: usize,
    /// Logins that were good.
    pub logins: u64,
    /// Frames of peers handed to their receivers' writers.
    pub forwarded_frames: u64,
    /// The bytes of those frames, heads included.
    pub forwarded_bytes: u64,
    /// Messages that were no frame.
    pub malformed: u64,
    /// Frames of a kind that this version does not know.
    pub unknown: u64,
    /// Frames of peers that were not forwarded: see [`RouterStats::dropped`].
    pub(super) dropped: [u64; DropReason::ALL.len()],
    /// Connections ended or turned away by the relay: see [`RouterStats::denied`].
    pub(super) denied: [u64; Denial::ALL.len()],
}

impl RouterStats {
    /// How many frames were lost for this reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many connections the relay ended, or turned away, for this reason.
    pub const fn denied(&self, why: Denial) -> u64 {
        self.denied[why as usize]
    }

    pub(super) const fn add_dropped(&mut self, reason: DropReason, frames: usize) {
        self.dropped[reason as usize] += frames as u64;
    }

    pub(super) const fn add_denied(&mut self, why: Denial) {
        self.denied[why as usize] += 1;
    }
}
