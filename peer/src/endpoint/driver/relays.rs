//! Relays: our connections to them, and the paths of remotes that lead through them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::id::{Instance, PeerId};
use proto::machine::random;
use proto::path::{LinkId, PathId, Route};
use proto::stun::Role;
use proto::wire::relay::{Address, PATH as RELAY};
use proto::wire::signal::{Claims, RelayHint};
use relay::client::{RelayClient, RelayClientConfig, RelayState};
use relay::outbound::Origin;
use relay::relayed::is_relayed;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::{Driver, Input};
use crate::endpoint::PathPolicy;
use crate::endpoint::remote::{Remote, RemoteKey};
use crate::endpoint::server_session::RelayedServer;

/// Relays that one process is at: its own and those of the sharers that it visits.
const MAX_RELAYS: usize = 8;

/// The links to relays. Those of sockets stay below.
pub(super) const FIRST_LINK: u16 = 0xff00;

/// The last of them is that of the server's own.
const SERVERS_LINK: LinkId = LinkId(0xffff);

/// How long UDP may take to carry a session before the server is tried by its relay too, where we don't wait at that (RFC
/// 8305 §5).
const UDP_ALONE: Duration = Duration::from_millis(250);

/// How long a remote that is not at its relay is left alone there: it may be on its way back.
const REJOIN: Duration = Duration::from_secs(1);

/// What a connection to a relay tells.
#[derive(Debug)]
pub(in crate::endpoint) enum RelayEvent {
    /// Frames can pass.
    Up,
    /// They can't.
    Down(String),
    /// Whoever has this address on the relay's link is not there.
    Absent(SocketAddr),
}

impl RelayEvent {
    /// Why the relay can't be used, where that is what happened.
    fn failure(&self) -> Option<String> {
        match self {
            Self::Down(why) => Some(why.clone()),
            Self::Up | Self::Absent(_) => None,
        }
    }
}

/// The relays.
#[derive(Debug, Default)]
pub(super) struct Relays {
    entries: BTreeMap<PeerId, Entry>,
    /// Those at which we may wait, by URLs that others can use, the most wanted first.
    homes: Vec<RelayHint>,
    home: Option<RelayHint>,
    opened: u16,
}

#[derive(Debug)]
struct Entry {
    hint: RelayHint,
    link: LinkId,
    client: RelayClient,
    up: bool,
    /// Why the last attempt failed, or the connection broke, where none has come up since.
    away: Option<String>,
    watcher: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Relays {
    /// The one at which we wait, by a URL that others can use.
    pub(super) fn home(&self) -> Option<&RelayHint> {
        self.home.as_ref()
    }

    /// The same, if we are at it now.
    pub(super) fn home_now(&self) -> Option<&RelayHint> {
        self.home.as_ref().filter(|home| self.entries.get(&home.peer_id).is_some_and(|entry| entry.up))
    }

    /// Whether a relay was tried, and we are not at it now.
    pub(super) fn is_away(&self, relay: PeerId) -> bool {
        self.entries.get(&relay).is_some_and(|entry| entry.away.is_some())
    }

    /// Whether the relay of this path is being connected to for the first time.
    pub(super) fn is_coming(&self, path: PathId) -> bool {
        self.by_link(path.link).is_some_and(|entry| !entry.up && entry.away.is_none())
    }

    /// A relay that was tried in vain, and why: the most wanted one.
    pub(super) fn trouble(&self) -> Option<(&str, &str)> {
        let of_homes = self.homes.iter().filter_map(|home| self.entries.get(&home.peer_id));
        let mut all = of_homes.chain(self.entries.values());
        all.find_map(|entry| Some((entry.hint.url.as_str(), entry.away.as_deref()?)))
    }

    /// The one at which we wait, or are to wait, if it is not the one that we wait at: the first that is up. While none is,
    /// the one that we have goes on trying.
    fn better_home(&self) -> Option<RelayHint> {
        let is_up = |hint: &RelayHint| self.entries.get(&hint.peer_id).is_some_and(|entry| entry.up);
        if self.home.as_ref().is_some_and(is_up) {
            return None;
        }
        self.homes.iter().find(|home| is_up(home)).cloned()
    }

    /// The first that was not tried yet, where all before it are away.
    fn untried_home(&self) -> Option<RelayHint> {
        let untried = self.homes.iter().position(|home| !self.entries.contains_key(&home.peer_id))?;
        let is_last_hope = self.homes[..untried].iter().all(|home| self.is_away(home.peer_id));
        is_last_hope.then(|| self.homes[untried].clone())
    }

    fn by_link(&self, link: LinkId) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.link == link)
    }

    /// The relay, for an address that only its link knows.
    pub(super) fn shown_addr(&self, addr: SocketAddr) -> SocketAddr {
        let knows = |entry: &&Entry| is_relayed(addr) && entry.client.link().address(addr).is_some();
        self.entries.values().find(knows).and_then(|entry| entry.client.reached()).unwrap_or(addr)
    }

    /// What a user is shown of a path's address and round trip: on a relay's link no address means anything,
    /// and until a check was answered, the round trip to the relay is all that is known.
    pub(super) fn shown(&self, path: PathId, rtt: Duration) -> (SocketAddr, Duration) {
        let Some(entry) = self.by_link(path.link) else { return (path.remote, rtt) };
        let known = if rtt.is_zero() { entry.client.took().unwrap_or_default() } else { rtt };
        (entry.client.reached().unwrap_or(path.remote), known)
    }
}

impl Driver {
    /// Waits at the first of these relays that can be connected to; those that were named before are more wanted.
    pub(super) fn wait_at(&mut self, hints: &[RelayHint]) {
        for hint in hints {
            let hint = self.resolved(hint);
            let is_known = self.relays.homes.iter().any(|home| home.peer_id == hint.peer_id);
            if !is_known && self.relays.homes.len() < MAX_RELAYS {
                self.relays.homes.push(hint);
            }
        }
        self.try_homes();
    }

    /// Connects to the next relay where those before it are away, and waits at the first that is up.
    fn try_homes(&mut self) {
        while let Some(hint) = self.relays.untried_home() {
            if self.open_relay(&hint) {
                self.relays.home.get_or_insert(hint);
                break;
            }
            self.relays.homes.retain(|home| home.peer_id != hint.peer_id);
        }
        let Some(home) = self.relays.better_home() else { return };
        let before = self.relays.home.replace(home.clone());
        if before.is_some_and(|before| before.peer_id != home.peer_id) {
            tracing::info!(url = home.url, "another relay is waited at: the one before is away");
            for remote in self.remotes.values_mut().filter(|remote| remote.role == Role::Sharer) {
                remote.knows_relay = false;
            }
        }
        self.tell_relay(home.peer_id);
    }

    /// Whatever relay its peers wait at, a server takes sessions at its own URL by WebSocket as well, unless it was told
    /// not to: for who has no UDP.
    pub(super) fn open_servers_relay(&mut self) {
        let hint = RelayHint { url: RELAY.to_owned(), peer_id: self.parts.server.peer_id };
        self.open_relay_after(&self.resolved(&hint), UDP_ALONE);
    }

    /// UDP carries the session. What has come up by now stays, for the next time that it does not.
    pub(super) fn leave_servers_relay(&mut self) {
        let server = self.parts.server.peer_id;
        let is_home = self.relays.home().is_some_and(|home| home.peer_id == server);
        let is_idle = |entry: &Entry| !entry.up && !self.is_met_on(entry.link);
        if !is_home && self.relays.entries.get(&server).is_some_and(is_idle) {
            self.relays.entries.remove(&server);
            self.parts.socket.remove_link(SERVERS_LINK);
        }
    }

    /// Whether some remote is, or is to be, met on this link.
    fn is_met_on(&self, link: LinkId) -> bool {
        let mut early = self.dials.iter().filter_map(|dialling| dialling.early.as_ref());
        self.remotes.values().any(|remote| remote.relayed.is_some_and(|path| path.link == link))
            || early.any(|early| early.path.link == link)
    }

    /// A relay's URL in full: a server names its own by `/relay`, on the very URL by which it was asked.
    pub(super) fn resolved(&self, hint: &RelayHint) -> RelayHint {
        if !hint.url.starts_with('/') {
            return hint.clone();
        }
        let base = self.parts.server.url.trim_end_matches('/');
        RelayHint { url: format!("{base}{}", hint.url), peer_id: hint.peer_id }
    }

    /// Connects to a relay, where that is allowed and not done. Tells whether we are at it.
    pub(super) fn open_relay(&mut self, hint: &RelayHint) -> bool {
        self.open_relay_after(hint, Duration::ZERO)
    }

    fn open_relay_after(&mut self, hint: &RelayHint, wait: Duration) -> bool {
        if self.parts.paths == PathPolicy::Direct {
            return false;
        }
        if self.relays.entries.contains_key(&hint.peer_id) {
            return true;
        }
        let origin = Origin::of_relay(&hint.url).filter(|_| self.relays.entries.len() < MAX_RELAYS);
        let Some(origin) = origin else {
            tracing::debug!(url = hint.url, "one relay too many, or no URL of one");
            return false;
        };
        let config = RelayClientConfig {
            origin,
            relay: hint.peer_id,
            key: std::sync::Arc::clone(&self.parts.key),
            instance: self.parts.instance,
            wait,
            seed: random(&mut self.rng),
        };
        let (client, absent) = RelayClient::open(config, self.parts.outbound.clone());
        let link = if hint.peer_id == self.parts.server.peer_id {
            SERVERS_LINK
        } else {
            self.relays.opened = self.relays.opened.wrapping_add(1);
            LinkId(FIRST_LINK + self.relays.opened % 0xff)
        };
        self.parts.socket.add_link(link, client.link());
        let watching = watch_relay(hint.peer_id, client.state(), absent, self.parts.inputs.clone());
        let watcher = tokio::spawn(watching).abort_handle();
        self.relays
            .entries
            .insert(hint.peer_id, Entry { hint: hint.clone(), link, client, up: false, away: None, watcher });
        true
    }

    /// The way to a remote through a relay, and whether it can be used now. The remote is let in there.
    pub(super) fn relay_path(&self, relay: PeerId, key: RemoteKey) -> Option<(PathId, bool)> {
        let entry = self.relays.entries.get(&relay)?;
        let remote = entry.client.allow(Address { peer: key.0, instance: key.1 });
        Some((PathId { link: entry.link, remote }, entry.up))
    }

    /// A remote waits at this relay: there is one path more to it.
    pub(super) fn join_at_relay(&mut self, key: RemoteKey, relay: PeerId, now: Instant) {
        let Some((path, is_up)) = self.relay_path(relay, key) else { return };
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        let before = remote.relayed.replace(path);
        if is_up {
            remote.agent.add_relayed(path, now);
        }
        if let Some(before) = before.filter(|before| *before != path) {
            self.leave_relay(before);
        }
    }

    /// A sharer has said at which relay it waits: we meet it there.
    pub(super) fn join_where_it_is(&mut self, key: RemoteKey, claims: &Claims, now: Instant) {
        let Some(hint) = claims.relay.as_ref().map(|hint| self.resolved(hint)) else { return };
        if self.open_relay(&hint) {
            self.join_at_relay(key, hint.peer_id, now);
            self.tell_relay(hint.peer_id);
        }
    }

    /// Whether a remote has heard at which relay we are.
    pub(super) fn told_relay(&mut self, key: RemoteKey, is_told: bool) {
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.knows_relay = is_told;
        }
    }

    /// Those who would look for us at this relay, and have not heard that we are there, hear it as soon as we are.
    fn tell_relay(&mut self, relay: PeerId) {
        let Some(entry) = self.relays.entries.get(&relay).filter(|entry| entry.up) else { return };
        let (link, hint) = (entry.link, entry.hint.clone());
        let is_home = self.relays.home().is_some_and(|home| home.peer_id == relay);
        let looks_there = |remote: &Remote| match remote.role {
            Role::Sharer => is_home,
            Role::Connector => remote.relayed.is_some_and(|path| path.link == link),
        };
        let untold = self.remotes.iter().filter(|(_, remote)| !remote.knows_relay && looks_there(remote));
        for key in untold.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.told_relay(key, true);
            self.trickle_claims(key, Claims { candidates: Vec::new(), relay: Some(hint.clone()) });
        }
    }

    /// A path through a relay is needed no more.
    pub(super) fn leave_relay(&self, path: PathId) {
        if let Some(entry) = self.relays.by_link(path.link) {
            entry.client.forbid(path.remote);
        }
    }

    /// Every relay is asked whether it is still there, or dialled now: the network may have changed.
    pub(super) fn try_relays(&self) {
        self.relays.entries.values().for_each(|entry| entry.client.try_now());
    }

    pub(super) fn handle_relay(&mut self, relay: PeerId, event: RelayEvent, now: Instant) {
        let Some(entry) = self.relays.entries.get_mut(&relay) else { return };
        let link = entry.link;
        if relay == self.parts.server.peer_id {
            self.diagnosis.handle_tcp(event.failure());
        }
        match event {
            RelayEvent::Up => {
                (entry.up, entry.away) = (true, None);
                for remote in self.remotes.values_mut() {
                    if let Some(path) = remote.relayed.filter(|path| path.link == link) {
                        remote.agent.add_relayed(path, now);
                    }
                }
                self.route_early(link, true);
                self.try_homes();
                self.tell_relay(relay);
            }
            RelayEvent::Down(why) => {
                tracing::info!(?relay, why, "the relay is away");
                let was_up = std::mem::take(&mut entry.up);
                entry.away = Some(why);
                for remote in self.remotes.values_mut() {
                    if let Some(path) = remote.relayed.filter(|path| path.link == link) {
                        remote.agent.remove_path(path, now);
                    }
                }
                self.route_early(link, false);
                self.try_homes();
                if was_up && relay == self.parts.server.peer_id {
                    // TCP tells at once that a program was killed, QUIC only when something goes unanswered.
                    self.session.handle_network_change(now);
                }
            }
            RelayEvent::Absent(addr) => {
                let path = PathId { link, remote: addr };
                for remote in self.remotes.values_mut().filter(|remote| remote.relayed == Some(path)) {
                    if remote.agent.handle_absent(path, now) {
                        remote.rejoins = Some(now + REJOIN);
                    }
                }
            }
        }
    }

    /// When a remote is looked for again at its relay.
    pub(super) fn rejoins_timeout(&self) -> Option<Instant> {
        self.remotes.values().filter_map(|remote| remote.rejoins).min()
    }

    pub(super) fn rejoin(&mut self, now: Instant) {
        for remote in self.remotes.values_mut().filter(|remote| remote.rejoins.is_some_and(|at| at <= now)) {
            remote.rejoins = None;
            let is_up = |path: &PathId| self.relays.by_link(path.link).is_some_and(|entry| entry.up);
            if let Some(path) = remote.relayed.filter(is_up) {
                remote.agent.add_relayed(path, now);
            }
        }
    }

    /// Connections that begin before the sharer's answer have no other path than this link's.
    fn route_early(&self, link: LinkId, is_up: bool) {
        for early in self.dials.iter().filter_map(|dialling| dialling.early.as_ref()) {
            if early.path.link == link && !self.remotes.contains_key(&early.key) {
                let route = Route { primary: is_up.then_some(early.path), also: None };
                self.parts.socket.set_route(early.address, route);
            }
        }
    }

    /// The way to the server's session through its own relay, if we are at that.
    pub(super) fn relayed_server(&self) -> Option<RelayedServer> {
        let server = self.parts.server.peer_id;
        let entry = self.relays.entries.get(&server)?;
        let address = Address { peer: server, instance: Instance::SERVICE };
        let path = PathId { link: entry.link, remote: entry.client.link().addr(address) };
        Some(RelayedServer { path, state: entry.client.state(), expected: entry.client.expect_first() })
    }
}

/// Passes on what a connection to a relay tells, for as long as there is an endpoint.
async fn watch_relay(
    relay: PeerId,
    mut state: watch::Receiver<RelayState>,
    mut absent: mpsc::Receiver<SocketAddr>,
    inputs: mpsc::WeakSender<Input>,
) {
    loop {
        let event = tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                match &*state.borrow_and_update() {
                    RelayState::Up(_) => RelayEvent::Up,
                    RelayState::Down(why) => RelayEvent::Down(why.clone()),
                    RelayState::Connecting | RelayState::Opening(_) => continue,
                }
            }
            Some(addr) = absent.recv() => RelayEvent::Absent(addr),
        };
        let Some(inputs) = inputs.upgrade() else { return };
        if inputs.send(Input::Relay { relay, event }).await.is_err() {
            return;
        }
    }
}
