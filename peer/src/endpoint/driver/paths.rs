//! Paths: what the agents send and hear, and the short-lived links that they ask for.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::machine::{earliest, random};
use proto::path::{CheckTransmit, LinkId, MappingQuery, PathEvent, PathKind, Reason};
use proto::stun::{self, Preview, Role};

use super::Driver;
use super::relays::FIRST_LINK;
use crate::endpoint::remote::RemoteKey;
use crate::endpoint::{EndpointEvent, PathPolicy, PathReport};
use crate::path_socket::Datagram;

/// How many short-lived links one process has at once.
const MAX_FRESH_LINKS: usize = 8;

/// How long one may stay without carrying anybody's data. Not less when there is a path: the remote may be
/// about to choose one over it.
const FRESH_LINK_LIFE: Duration = Duration::from_secs(60);

/// A short-lived link: another local port, for a remote that could not be reached from the main one.
#[derive(Debug)]
pub(super) struct FreshLink {
    key: RemoteKey,
    /// What asks the server for its mapping, in each family; none for one whose mapping the remote has found.
    queries: Vec<(SocketAddr, MappingQuery)>,
    expires: Instant,
}

impl Driver {
    pub(super) fn handle_datagram(&mut self, datagram: Datagram, now: Instant) {
        let Datagram { link, from, payload } = datagram;
        if self.handle_mapping(link, from, &payload, now)
            || self.handle_port(link, from, &payload, now)
            || self.handle_sighting(link, from, &payload, now)
        {
            return;
        }
        self.adopt_if_heard(link, &payload, now);
        let Some(preview) = stun::preview(&payload) else { return };
        let path = proto::path::PathId { link, remote: from };
        let found = self.remotes.values_mut().find(|remote| remote.agent.expects(&preview));
        match found {
            Some(remote) => {
                let before = remote.agent.stats().checks_received;
                if link.0 < FIRST_LINK {
                    self.ways.rank_for(&*self.parts.net, &mut remote.agent, from);
                }
                remote.agent.handle_check(path, &payload, now);
                if remote.agent.stats().checks_received > before {
                    self.lifetime_heard(link, now);
                }
            }
            None => match preview {
                Preview::Check(_) => tracing::trace!("a check of no exchange of ours"),
                Preview::Answer(_) => tracing::trace!(?link, %from, "an answer that nobody waits for"),
            },
        }
    }

    /// Moves the agents' output on. Returns whether there was none.
    pub(super) fn drain_agents(&mut self, now: Instant) -> bool {
        let mut idle = true;
        let keys: Vec<RemoteKey> = self.remotes.keys().copied().collect();
        for key in keys {
            while let Some(transmit) =
                self.remotes.get_mut(&key).and_then(|remote| remote.agent.poll_transmit())
            {
                idle = false;
                self.send_check(&transmit);
            }
            while let Some(event) = self.remotes.get_mut(&key).and_then(|remote| remote.agent.poll_event()) {
                idle = false;
                self.handle_path_event(key, event, now);
            }
        }
        idle
    }

    pub(super) fn send_check(&self, transmit: &CheckTransmit) {
        let CheckTransmit { path, ttl, payload } = transmit;
        let Some(link) = self.parts.socket.link(path.link) else { return };
        let sent = match ttl {
            Some(ttl) => link.send_with_ttl(path.remote, *ttl, payload),
            None => link.send_datagram(path.remote, payload),
        };
        if let Err(error) = sent {
            // No route, no such family, a full queue: a lost check, which the schedule makes up for.
            tracing::trace!(?path, %error, "a check could not be sent");
        }
    }

    fn handle_path_event(&mut self, key: RemoteKey, event: PathEvent, now: Instant) {
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        match event {
            PathEvent::Accept(path) => {
                self.parts.socket.accept_from(remote.address, path);
                self.lifetime_proven(path.link, now);
            }
            PathEvent::Route { route, primary, reason } => {
                self.parts.socket.set_route(remote.address, route);
                if reason == Reason::Suspect {
                    self.session.handle_doubt(now);
                }
                if matches!(reason, Reason::Suspect | Reason::Silence) {
                    // The way to a relay may have died with the path, and TCP would say so much later.
                    self.try_relays();
                }
                let Some(remote) = self.remotes.get_mut(&key) else { return };
                let current = route.primary.zip(primary).map(|(path, (kind, _))| (kind, path));
                remote.history.record(now, current, reason);
                let peer = key.0;
                match (route.primary, primary) {
                    (Some(path), Some((kind, rtt))) => {
                        tracing::info!(?peer, ?kind, %reason, "path");
                        let is_satisfied = remote.agent.is_satisfied();
                        remote.look_for_losses();
                        let (shown, rtt) = self.relays.shown(path, rtt);
                        let report = PathReport { peer, kind, remote: shown, rtt, reason };
                        if remote.last_path.replace((kind, shown)) != Some((kind, shown)) {
                            self.event(EndpointEvent::Path(report));
                        }
                        if is_satisfied {
                            self.end_punch(key);
                        }
                        self.reached(key);
                        self.lifetime_begins(key, path, now);
                    }
                    _ => {
                        tracing::info!(?peer, %reason, "no path");
                        if remote.role == Role::Connector {
                            let was_relayed =
                                remote.last_path.is_some_and(|(kind, _)| kind == PathKind::Relay);
                            self.repunch_lost(key, was_relayed && reason == Reason::LinkGone, now);
                        }
                    }
                }
            }
            PathEvent::FreshLinkWanted => {
                self.open_fresh_link(key, now);
            }
            PathEvent::ExchangeWanted => self.repunch(key, now),
            PathEvent::ReflexiveRuledOut => self.keep_to_relay(key, now),
        }
    }

    /// No direct path leads through both NATs. Whoever is on the relay's is told why it stays there.
    fn keep_to_relay(&mut self, key: RemoteKey, now: Instant) {
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        let (peer, reason) = (key.0, Reason::NoDirect);
        tracing::info!(?peer, %reason, "no direct path");
        if let Some((path, kind, rtt)) = remote.agent.primary() {
            remote.history.record(now, Some((kind, path)), reason);
            let (remote, rtt) = self.relays.shown(path, rtt);
            self.event(EndpointEvent::Path(PathReport { peer, kind, remote, rtt, reason }));
        }
    }

    /// Opens another local port for a remote and asks the server under which mapping it is seen.
    pub(super) fn open_fresh_link(&mut self, key: RemoteKey, now: Instant) -> Option<LinkId> {
        let servers = self.mapping_servers();
        if !self.has_room_for_fresh_link() || servers.is_empty() {
            return None;
        }
        let id = self.bind_link()?;
        let query = |server| (server, MappingQuery::new(random(&mut self.rng), now));
        let queries = servers.into_iter().map(query).collect();
        self.keep_fresh_link(key, id, queries, now);
        self.ask_mappings(now);
        Some(id)
    }

    pub(super) fn has_room_for_fresh_link(&self) -> bool {
        self.parts.paths != PathPolicy::Relay && self.fresh_links.len() < MAX_FRESH_LINKS
    }

    pub(super) fn keep_fresh_link(
        &mut self,
        key: RemoteKey,
        id: LinkId,
        queries: Vec<(SocketAddr, MappingQuery)>,
        now: Instant,
    ) {
        self.fresh_links.insert(id, FreshLink { key, queries, expires: now + FRESH_LINK_LIFE });
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.links.push(id);
        }
    }

    /// Binds another local port, of both families.
    pub(super) fn bind_link(&mut self) -> Option<LinkId> {
        let bound = match self.parts.net.bind_udp((Ipv6Addr::UNSPECIFIED, 0).into()) {
            Ok(bound) => bound,
            Err(error) => {
                tracing::debug!(%error, "no further socket");
                return None;
            }
        };
        let mut id = LinkId(self.next_link);
        while self.fresh_links.contains_key(&id) || self.ports.owns(id) {
            id = LinkId(following(id));
        }
        self.next_link = following(id);
        self.parts.socket.add_link(id, bound);
        Some(id)
    }

    /// The server's addresses that show the mappings of further links: of each family in which it sees us.
    fn mapping_servers(&self) -> Vec<SocketAddr> {
        let seen = self.servers.observed();
        let families = match (seen.v4(), seen.v6()) {
            (Some(_), Some(_)) => &[true, false][..],
            (None, Some(_)) => &[false],
            // Through a relay it sees us nowhere.
            (_, None) => &[true],
        };
        families.iter().filter_map(|is_v4| self.servers.address(*is_v4)).collect()
    }

    fn ask_mappings(&mut self, now: Instant) {
        for (id, fresh) in &mut self.fresh_links {
            for (server, query) in &mut fresh.queries {
                while let Some(request) = query.poll_transmit(now) {
                    if let Some(link) = self.parts.socket.link(*id) {
                        let _ = link.send_datagram(*server, &request);
                    }
                }
            }
        }
    }

    /// The server's word on a fresh link's mapping: the remote is told, and our own checks begin there.
    fn handle_mapping(&mut self, link: LinkId, from: SocketAddr, payload: &[u8], now: Instant) -> bool {
        let Some(fresh) = self.fresh_links.get_mut(&link) else { return false };
        let mut of_sender = fresh.queries.iter_mut().filter(|(server, _)| *server == from);
        let Some(mapped) = of_sender.find_map(|(_, query)| query.handle_answer(payload)) else {
            return false;
        };
        let key = fresh.key;
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.agent.add_link(link, PathKind::Direct, now);
        }
        self.trickle(key, vec![Candidate::new(CandidateKind::Reflexive, mapped)]);
        true
    }

    pub(super) fn fresh_links_timeout(&self) -> Option<Instant> {
        self.fresh_links.values().fold(None, |next, fresh| {
            let query = fresh.queries.iter().filter_map(|(_, query)| query.poll_timeout()).min();
            earliest(next, earliest(query, Some(fresh.expires)))
        })
    }

    pub(super) fn expire_fresh_links(&mut self, now: Instant) {
        self.ask_mappings(now);
        let over: Vec<_> =
            self.fresh_links.iter().filter(|(_, fresh)| fresh.expires <= now).map(|(id, _)| *id).collect();
        for id in over {
            let key = self.fresh_links.get(&id).map(|fresh| fresh.key);
            let Some(remote) = key.and_then(|key| self.remotes.get_mut(&key)) else {
                self.close_link(id);
                continue;
            };
            let carries_data = remote.agent.route().primary.is_some_and(|path| path.link == id);
            if carries_data || self.lifetime.is_probe(id) {
                if let Some(fresh) = self.fresh_links.get_mut(&id) {
                    fresh.expires = now + FRESH_LINK_LIFE;
                }
                continue;
            }
            self.close_fresh_link(id, now);
        }
    }

    /// Whether an IPv4 NAT may be in front of us: the server sees us at an IPv4 address, or nowhere.
    pub(super) fn is_seen_at_v4(&self) -> bool {
        let seen = self.servers.observed();
        seen.v4().is_some() || seen.is_empty()
    }

    pub(super) fn close_fresh_link(&mut self, id: LinkId, now: Instant) {
        let key = self.fresh_links.get(&id).map(|fresh| fresh.key);
        if let Some(remote) = key.and_then(|key| self.remotes.get_mut(&key)) {
            remote.agent.remove_link(id, now);
            remote.links.retain(|link| *link != id);
        }
        self.close_link(id);
    }

    pub(super) fn close_link(&mut self, link: LinkId) {
        self.fresh_links.remove(&link);
        self.parts.socket.remove_link(link);
    }
}

/// The number of the next link of a socket, once around below those of relays.
const fn following(link: LinkId) -> u16 {
    if link.0 + 1 < FIRST_LINK { link.0 + 1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_sockets_never_have_the_numbers_of_relays() {
        assert_eq!(following(LinkId::MAIN), 1);
        assert_eq!(following(LinkId(FIRST_LINK - 2)), FIRST_LINK - 1);
        assert_eq!(following(LinkId(FIRST_LINK - 1)), 1);
    }
}
