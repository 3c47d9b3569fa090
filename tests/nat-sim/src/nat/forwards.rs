//! Ports that hosts inside have asked the router for (PCP, NAT-PMP, UPnP IGD).
//!
//! As on Linux such a mapping is a rule for what comes in, whoever sent it; answers leave by the same port, and what
//! the host begins itself is the policy's. Where the host has begun a flow with the same remote before, Linux shows it
//! another source port and translates the answers back; here that flow goes over to the mapped port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The rules, and the flows that came in by them.
#[derive(Debug, Clone, Default)]
pub(super) struct Forwards {
    /// External endpoint → internal one.
    rules: BTreeMap<SocketAddr, SocketAddr>,
    /// (internal endpoint, remote) → external endpoint, and when a packet last passed.
    flows: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Instant)>,
}

impl Forwards {
    pub(super) fn add(&mut self, external: SocketAddr, inner: SocketAddr) {
        self.rules.insert(external, inner);
    }

    /// Whether a rule has this external endpoint.
    pub(super) fn has(&self, external: SocketAddr) -> bool {
        self.rules.contains_key(&external)
    }

    /// Where a packet from `remote` to an external endpoint goes by a rule, if there is one.
    pub(super) fn receive(
        &mut self,
        external: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let inner = *self.rules.get(&external)?;
        self.flows.insert((inner, remote), (external, now));
        Some(inner)
    }

    /// By which external endpoint an answer leaves, where a flow that came in lives for so long after its last packet.
    pub(super) fn answer(
        &mut self,
        inner: SocketAddr,
        remote: SocketAddr,
        life: Duration,
        now: Instant,
    ) -> Option<SocketAddr> {
        let (external, last) = self.flows.get_mut(&(inner, remote))?;
        if now.saturating_duration_since(*last) >= life {
            return None;
        }
        *last = now;
        Some(*external)
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.flows.clear();
    }
}
