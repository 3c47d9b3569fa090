//! **Scatter**: two NATs that draw ports, each from a small block.
//!
//! Each side opens flows to ports of the other's block. Two of them meet where each has the very port that the other
//! aims at, which neither side can know: with flows for a share `s` of both blocks they do so with `1 - exp(-s²)`.
//! Three quarters (43 %) are the most that a side takes: a NAT keeps the ports for half a minute, and the rest is for
//! everything else behind the same block.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::context::{Context, PunchAction};
use super::pace::{BATCH, INTERVAL, Pace};
use super::prime_ttl;
use super::search::{SOCKETS, drawn};
use crate::nat::{NatProfile, PortRange};
use crate::path::LinkId;

/// The most flows: three quarters of 512 ports.
const FLOWS: u32 = 384;

/// How often each flow sends a full check, once both sides' are open.
const PASSES: u8 = 2;

/// How long the sockets may take to be there, and the other side to have opened its flows.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long the flows stay open after the last check.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Phase {
    Opening,
    /// For the other side.
    Waiting,
    /// So many passes of full checks are over.
    Checking(u8),
    Resting,
}

#[derive(Debug)]
pub(super) struct Scatter {
    targets: Vec<SocketAddr>,
    flows: Vec<(LinkId, SocketAddr)>,
    phase: Phase,
    /// How many flows have had their turn in this phase.
    done: usize,
    is_other_open: bool,
    pace: Pace,
    next: Instant,
}

impl Scatter {
    pub(super) fn new(
        (ours, theirs): (PortRange, PortRange),
        is_other_open: bool,
        context: &mut Context,
        now: Instant,
    ) -> Self {
        context.open(SOCKETS);
        let count = (ours.size().min(theirs.size()) * 3 / 4).min(FLOWS);
        let ip = context.remote.ip();
        let ports = drawn(theirs, count as usize, &mut context.rng);
        let targets = ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect();
        let next = now + PATIENCE;
        let (flows, phase, pace) = (Vec::new(), Phase::Opening, Pace::default());
        Self { targets, flows, phase, done: 0, is_other_open, pace, next }
    }

    /// The sockets are there. Each has as many flows as it takes for all targets.
    pub(super) fn handle_opened(&mut self, links: &[LinkId], now: Instant) {
        self.flows = links.iter().copied().cycle().zip(std::mem::take(&mut self.targets)).collect();
        self.next = now;
    }

    /// The other side has opened its flows.
    pub(super) fn handle_told(&mut self, now: Instant) {
        self.is_other_open = true;
        if matches!(self.phase, Phase::Waiting) {
            self.begin(Phase::Checking(0), now);
        }
    }

    /// Returns whether it is over.
    pub(super) fn handle_timeout(&mut self, ours: &NatProfile, context: &mut Context, now: Instant) -> bool {
        if self.next > now {
            return false;
        }
        let (ttl, after) = match self.phase {
            _ if self.flows.is_empty() => return true,
            Phase::Waiting | Phase::Resting => return true,
            Phase::Opening => (Some(prime_ttl(0)), Phase::Waiting),
            Phase::Checking(n) if n + 1 < PASSES => (None, Phase::Checking(n + 1)),
            Phase::Checking(_) => (None, Phase::Resting),
        };
        for (link, target) in self.flows.iter().skip(self.done).take(BATCH) {
            context.probe(*link, *target, ttl);
        }
        self.done += BATCH;
        self.next = self.pace.after(self.next, now);
        if self.done < self.flows.len() {
            return false;
        }
        match after {
            Phase::Waiting => {
                context.actions.push_back(PunchAction::Tell(*ours, 1));
                let phase = if self.is_other_open { Phase::Checking(0) } else { Phase::Waiting };
                self.begin(phase, now);
            }
            Phase::Opening | Phase::Checking(_) | Phase::Resting => self.begin(after, now),
        }
        false
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next
    }

    fn begin(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.done = 0;
        self.next = match phase {
            Phase::Opening | Phase::Checking(_) => self.pace.not_before(now + INTERVAL),
            Phase::Waiting => now + PATIENCE,
            Phase::Resting => now + REST,
        };
    }
}
