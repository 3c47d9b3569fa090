//! A NAT's memory: bindings with their holes, and strangers' entries, each with an idle clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::policy::{Expiry, Refresh, Scope, WhenFull};
use super::{Bindings, Why};

/// A full table is searched for expired entries at most this often, so that a flood costs no time.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The key of a binding: an internal endpoint, and the remotes that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) inner: SocketAddr,
    pub(super) remote: Scope,
}

/// When something was last used, by direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    outbound: Instant,
    inbound: Option<Instant>,
}

impl Clock {
    pub(super) fn started(now: Instant) -> Self {
        Self { started: now, outbound: now, inbound: None }
    }

    fn last(&self) -> Instant {
        self.inbound.map_or(self.outbound, |inbound| inbound.max(self.outbound))
    }

    fn is_live(&self, expiry: &Expiry, now: Instant) -> bool {
        let timeout = if self.inbound.is_some() { expiry.two_way } else { expiry.one_way };
        let fresh = |at: Instant| now.saturating_duration_since(at) < timeout;
        let inbound = self.inbound.unwrap_or(self.started);
        match expiry.refresh {
            Refresh::Outbound => fresh(self.outbound),
            Refresh::Inbound => fresh(inbound),
            Refresh::Either => fresh(self.last()),
            Refresh::PerDirection => fresh(self.outbound) && fresh(inbound),
        }
    }
}

#[derive(Debug, Clone)]
struct Binding {
    external: SocketAddr,
    clock: Clock,
    /// The remotes that are admitted, by the filtering behaviour.
    holes: BTreeMap<Scope, Clock>,
}

/// Entries are counted as connection tracking does: one for a binding and its first hole, one for each
/// further hole, one for each stranger.
#[derive(Debug, Clone)]
pub(super) struct Table {
    expiry: Expiry,
    entries_max: usize,
    when_full: WhenFull,
    bindings: BTreeMap<Flow, Binding>,
    by_external: BTreeMap<SocketAddr, Flow>,
    /// (external endpoint, remote) → when the remote last sent.
    strangers: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    further_holes: usize,
    swept: Option<Instant>,
}

impl Table {
    pub(super) fn new(expiry: Expiry, entries_max: usize, when_full: WhenFull) -> Self {
        Self {
            expiry,
            entries_max,
            when_full,
            bindings: BTreeMap::new(),
            by_external: BTreeMap::new(),
            strangers: BTreeMap::new(),
            further_holes: 0,
            swept: None,
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.bindings.len() + self.further_holes + self.strangers.len()
    }

    pub(super) fn clear(&mut self) {
        self.bindings.clear();
        self.by_external.clear();
        self.strangers.clear();
        self.further_holes = 0;
    }

    pub(super) fn is_live(&self, flow: &Flow, now: Instant) -> bool {
        self.bindings.get(flow).is_some_and(|binding| binding.clock.is_live(&self.expiry, now))
    }

    /// The external endpoint of `flow`'s live binding. Drops a dead one.
    pub(super) fn live(&mut self, flow: &Flow, now: Instant) -> Option<SocketAddr> {
        let binding = self.bindings.get(flow)?;
        if binding.clock.is_live(&self.expiry, now) {
            return Some(binding.external);
        }
        self.remove(flow);
        None
    }

    /// Whether `flow`'s binding has a live hole of this scope.
    pub(super) fn has_hole(&self, flow: &Flow, hole: Scope, now: Instant) -> bool {
        let holes = self.bindings.get(flow).map(|binding| &binding.holes);
        holes.and_then(|holes| holes.get(&hole)).is_some_and(|clock| clock.is_live(&self.expiry, now))
    }

    /// Whether no live binding has this external endpoint.
    pub(super) fn is_free(&self, external: SocketAddr, now: Instant) -> bool {
        self.by_external.get(&external).is_none_or(|flow| !self.is_live(flow, now))
    }

    /// Whether packets between this external endpoint and this remote are the router's own.
    pub(super) fn is_strangers(&self, external: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        let last = self.strangers.get(&(external, remote));
        last.is_some_and(|last| now.saturating_duration_since(*last) < self.expiry.one_way)
    }

    /// Makes or refreshes a stranger's entry. The caller has made room.
    pub(super) fn track_stranger(&mut self, external: SocketAddr, remote: SocketAddr, now: Instant) {
        self.strangers.insert((external, remote), now);
    }

    /// Adds a binding with its first hole, in place of the flow's last one and of a dead one on the same
    /// endpoint.
    pub(super) fn insert(&mut self, flow: Flow, external: SocketAddr, hole: Scope, clock: Clock) {
        self.remove(&flow);
        if let Some(dead) = self.by_external.get(&external).copied() {
            self.remove(&dead);
        }
        let holes = BTreeMap::from([(hole, clock)]);
        self.bindings.insert(flow, Binding { external, clock, holes });
        self.by_external.insert(external, flow);
    }

    /// Refreshes a live binding outbound, and makes or refreshes its hole. None: there is no room for one.
    pub(super) fn send(&mut self, flow: &Flow, hole: Scope, now: Instant) -> Option<SocketAddr> {
        let is_new = self.bindings.get(flow).is_some_and(|binding| !binding.holes.contains_key(&hole));
        if is_new && !self.make_room(now, Some(flow)) {
            return None;
        }
        let binding = self.bindings.get_mut(flow)?;
        binding.clock.outbound = now;
        let clock = binding.holes.entry(hole).or_insert_with(|| Clock::started(now));
        if !clock.is_live(&self.expiry, now) {
            *clock = Clock::started(now);
        }
        clock.outbound = now;
        self.further_holes += usize::from(is_new && binding.holes.len() > 1);
        Some(binding.external)
    }

    /// The internal endpoint behind `external`, when the binding and the hole are live; refreshes both inbound.
    pub(super) fn receive(
        &mut self,
        external: SocketAddr,
        hole: Scope,
        now: Instant,
    ) -> Result<SocketAddr, Why> {
        let flow = *self.by_external.get(&external).ok_or(Why::NoBinding)?;
        if self.live(&flow, now).is_none() {
            return Err(Why::NoBinding);
        }
        let binding = self.bindings.get_mut(&flow).ok_or(Why::NoBinding)?;
        let clock = binding.holes.get_mut(&hole).ok_or(Why::Filtered)?;
        if !clock.is_live(&self.expiry, now) {
            return Err(Why::Filtered);
        }
        clock.inbound = Some(now);
        binding.clock.inbound = Some(now);
        Ok(flow.inner)
    }

    /// Whether one more entry fits, after the rule for a full table was applied. `keep` is not evicted.
    pub(super) fn make_room(&mut self, now: Instant, keep: Option<&Flow>) -> bool {
        if self.entries() < self.entries_max {
            return true;
        }
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.sweep(now);
        }
        if self.entries() >= self.entries_max && self.when_full == WhenFull::EvictIdlest {
            self.evict_idlest(keep);
        }
        self.entries() < self.entries_max
    }

    pub(super) fn bindings(&self, inner: SocketAddr, now: Instant) -> Bindings {
        let from = Flow { inner, remote: Scope::Any };
        self.bindings
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(flow, _)| flow.inner == inner)
            .filter(|(_, binding)| binding.clock.is_live(&self.expiry, now))
            .map(|(flow, binding)| (flow.remote, binding.external))
            .collect()
    }

    fn remove(&mut self, flow: &Flow) {
        if let Some(binding) = self.bindings.remove(flow) {
            self.by_external.remove(&binding.external);
            self.further_holes -= binding.holes.len().saturating_sub(1);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let expiry = self.expiry;
        self.strangers.retain(|_, last| now.saturating_duration_since(*last) < expiry.one_way);
        let by_external = &mut self.by_external;
        let mut further_holes = 0;
        self.bindings.retain(|_, binding| {
            if !binding.clock.is_live(&expiry, now) {
                by_external.remove(&binding.external);
                return false;
            }
            binding.holes.retain(|_, clock| clock.is_live(&expiry, now));
            further_holes += binding.holes.len().saturating_sub(1);
            true
        });
        self.further_holes = further_holes;
    }

    /// A binding goes with all its holes, a stranger alone, whichever was idle for longest.
    fn evict_idlest(&mut self, keep: Option<&Flow>) {
        let stranger = self.strangers.iter().min_by_key(|(_, last)| **last).map(|(key, last)| (*key, *last));
        let binding = self
            .bindings
            .iter()
            .filter(|(flow, _)| keep != Some(*flow))
            .min_by_key(|(_, binding)| binding.clock.last())
            .map(|(flow, binding)| (*flow, binding.clock.last()));
        match (stranger, binding) {
            (Some((key, last)), Some((_, used))) if last <= used => {
                self.strangers.remove(&key);
            }
            (Some((key, _)), None) => {
                self.strangers.remove(&key);
            }
            (_, Some((flow, _))) => self.remove(&flow),
            (None, None) => {}
        }
    }
}
