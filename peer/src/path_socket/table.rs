//! Who is where: links, remotes, and the paths between.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use proto::path::{LinkId, PathId, Route};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use relay::net::Link;
use tokio::time::Instant;

use super::hop::Hop;
use super::stats::{Counters, DropReason, PathStats};
use crate::congestion::PathEpoch;

/// Remotes at a time. One more is refused: each is a peer that the shell has let in.
pub(super) const MAX_REMOTES: usize = 4096;

/// Paths by which one remote's packets are let in. One more displaces the one, off the route, that was silent
/// longest: a remote that roams leaves paths behind it.
pub(super) const MAX_ACCEPTED: usize = 16;

/// The port of every remote's address. It means nothing; QUIC wants one that is not 0.
const REMOTE_PORT: u16 = 1;

#[derive(Debug)]
pub(super) struct Table {
    links: BTreeMap<LinkId, Arc<dyn Link>>,
    remotes: HashMap<SocketAddr, Remote>,
    /// Each path's packets go up as one remote's.
    accepted: HashMap<PathId, (SocketAddr, Arc<Counters>)>,
    rng: ChaCha20Rng,
}

#[derive(Debug, Default)]
struct Remote {
    route: Route,
    /// Whether data has had a way of which the length of packets can be learned.
    has_had_mtu: bool,
    epoch: PathEpoch,
    /// What is accepted or on the route.
    paths: BTreeMap<PathId, Path>,
}

#[derive(Debug)]
struct Path {
    accepted: bool,
    /// No other remote gets it by merely being accepted.
    reserved: bool,
    counters: Arc<Counters>,
}

impl Table {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            links: BTreeMap::new(),
            remotes: HashMap::new(),
            accepted: HashMap::new(),
            rng: ChaCha20Rng::from_seed(seed),
        }
    }

    pub(super) fn add_link(&mut self, id: LinkId, link: Arc<dyn Link>) {
        self.links.insert(id, link);
    }

    /// Forgets the link, and no longer accepts what a later link of the same number might bring.
    pub(super) fn remove_link(&mut self, id: LinkId) {
        self.links.remove(&id);
        let gone: Vec<(PathId, SocketAddr)> = self
            .accepted
            .iter()
            .filter(|(path, _)| path.link == id)
            .map(|(&path, &(remote, _))| (path, remote))
            .collect();
        for (path, remote) in gone {
            self.stop_accepting(remote, path);
        }
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&Arc<dyn Link>> {
        self.links.get(&id)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Arc<dyn Link>> {
        self.links.values()
    }

    /// A new address for a remote: a unique local one (RFC 4193), random so that nobody can guess a live one.
    pub(super) fn open(&mut self) -> Option<SocketAddr> {
        if self.remotes.len() >= MAX_REMOTES {
            return None;
        }
        loop {
            let mut bytes = [0; 16];
            self.rng.fill_bytes(&mut bytes);
            bytes[0] = 0xfd;
            let remote = SocketAddr::from((Ipv6Addr::from(bytes), REMOTE_PORT));
            if let Entry::Vacant(free) = self.remotes.entry(remote) {
                free.insert(Remote::default());
                return Some(remote);
            }
        }
    }

    pub(super) fn close(&mut self, remote: SocketAddr) {
        if let Some(closed) = self.remotes.remove(&remote) {
            for path in closed.paths.keys() {
                if self.accepted.get(path).is_some_and(|(owner, _)| *owner == remote) {
                    self.accepted.remove(path);
                }
            }
        }
    }

    /// Sets the route; tells whether there is such a remote.
    pub(super) fn set_route(&mut self, remote: SocketAddr, route: Route, now: Instant) -> bool {
        let Some(entry) = self.remotes.get_mut(&remote) else { return false };
        if route.primary.is_some() && route.primary != entry.route.primary {
            entry.epoch.advance();
        }
        let link = |path: PathId| self.links.get(&path.link);
        entry.has_had_mtu |= route.primary.and_then(link).is_some_and(|link| link.has_mtu());
        entry.route = route;
        for path in [route.primary, route.also].into_iter().flatten() {
            entry.path(path, now);
        }
        entry.forget_unused();
        true
    }

    /// Lets packets of `path` in as `remote`'s; tells whether there is such a remote. Of two remotes that
    /// want one path, the later has it: a NAT gave the address to somebody else.
    pub(super) fn accept(&mut self, remote: SocketAddr, path: PathId, now: Instant) -> bool {
        if !self.remotes.contains_key(&remote) {
            return false;
        }
        if let Some(&(owner, _)) = self.accepted.get(&path) {
            if owner == remote {
                return true;
            }
            if self.is_reserved(owner, path) {
                return false;
            }
            self.stop_accepting(owner, path);
        }
        if let Some(displaced) = self.remotes.get(&remote).and_then(Remote::crowded_out) {
            self.stop_accepting(remote, displaced);
        }
        let entry = self.remotes.entry(remote).or_default().path(path, now);
        entry.accepted = true;
        self.accepted.insert(path, (remote, Arc::clone(&entry.counters)));
        true
    }

    /// As [`Self::accept`], for good: only who reserves it too takes it away.
    pub(super) fn reserve(&mut self, remote: SocketAddr, path: PathId, now: Instant) -> bool {
        if let Some(&(owner, _)) = self.accepted.get(&path) {
            self.stop_accepting(owner, path);
        }
        let accepted = self.accept(remote, path, now);
        if accepted && let Some(entry) = self.remotes.get_mut(&remote) {
            entry.path(path, now).reserved = true;
        }
        accepted
    }

    fn is_reserved(&self, owner: SocketAddr, path: PathId) -> bool {
        let entry = self.remotes.get(&owner).and_then(|remote| remote.paths.get(&path));
        entry.is_some_and(|path| path.reserved)
    }

    pub(super) fn stop_accepting(&mut self, remote: SocketAddr, path: PathId) {
        if self.accepted.get(&path).is_none_or(|(owner, _)| *owner != remote) {
            return;
        }
        self.accepted.remove(&path);
        if let Some(entry) = self.remotes.get_mut(&remote) {
            if let Some(path) = entry.paths.get_mut(&path) {
                path.accepted = false;
                path.reserved = false;
            }
            entry.forget_unused();
        }
    }

    /// What is raised when the remote's primary path is another one.
    pub(super) fn epoch(&self, remote: SocketAddr) -> Option<PathEpoch> {
        self.remotes.get(&remote).map(|entry| entry.epoch.clone())
    }

    /// Whose packets come by `path`.
    pub(super) fn accepted(&self, path: PathId) -> Option<(SocketAddr, &Arc<Counters>)> {
        self.accepted.get(&path).map(|(remote, counters)| (*remote, counters))
    }

    /// Where packets to `remote` go: one hop, or two that both get them.
    pub(super) fn hops(&self, remote: SocketAddr) -> Result<(Hop, Option<Hop>), DropReason> {
        let entry = self.remotes.get(&remote).ok_or(DropReason::NoRemote)?;
        let route = &entry.route;
        if route.primary.is_none() && route.also.is_none() {
            return Err(DropReason::NoPath);
        }
        let hop = |path: Option<PathId>| {
            let path = path?;
            let link = Arc::clone(self.links.get(&path.link)?);
            let counters = Arc::clone(&entry.paths.get(&path)?.counters);
            let is_blind = !entry.has_had_mtu && !link.has_mtu();
            Some(Hop { path, link, counters, is_blind })
        };
        let copy = route.also.filter(|_| route.also != route.primary);
        match (hop(route.primary), hop(copy)) {
            (Some(primary), also) => Ok((primary, also)),
            (None, Some(also)) => Ok((also, None)),
            (None, None) => Err(DropReason::NoLink),
        }
    }

    pub(super) fn path_stats(&self, remote: SocketAddr, path: PathId) -> Option<PathStats> {
        let entry = self.remotes.get(&remote)?.paths.get(&path)?;
        Some(entry.counters.snapshot(remote, path, entry.accepted))
    }

    /// What went over all paths, in order.
    pub(super) fn stats(&self) -> Vec<PathStats> {
        let mut stats: Vec<PathStats> = self
            .remotes
            .iter()
            .flat_map(|(&remote, entry)| {
                entry.paths.iter().map(move |(&id, path)| path.counters.snapshot(remote, id, path.accepted))
            })
            .collect();
        stats.sort_by_key(|stats| (stats.remote, stats.path));
        stats
    }
}

impl Remote {
    fn path(&mut self, id: PathId, now: Instant) -> &mut Path {
        self.paths.entry(id).or_insert_with(|| Path {
            accepted: false,
            reserved: false,
            counters: Arc::new(Counters::new(now)),
        })
    }

    fn on_route(&self, id: PathId) -> bool {
        self.route.primary == Some(id) || self.route.also == Some(id)
    }

    fn forget_unused(&mut self) {
        let route = self.route;
        self.paths.retain(|&id, path| path.accepted || route.primary == Some(id) || route.also == Some(id));
    }

    /// The path that has to go before another one can be accepted, if one has to.
    fn crowded_out(&self) -> Option<PathId> {
        let accepted = || self.paths.iter().filter(|(_, path)| path.accepted);
        if accepted().count() < MAX_ACCEPTED {
            return None;
        }
        let idle = accepted().filter(|(id, _)| !self.on_route(**id));
        idle.min_by_key(|(_, path)| path.counters.last_sign()).map(|(&id, _)| id)
    }
}
