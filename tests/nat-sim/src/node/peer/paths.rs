//! Checks, data, and the short-lived links that the agent asks for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::machine::random;
use proto::path::{CheckTransmit, LinkId, MappingQuery, PathAgent, PathEvent, PathId, PathKind, Traffic};
use proto::stun;

use super::{DATA, DATA_ANSWER, FreshLink, PeerNode};
use crate::net::SocketId;
use crate::node::Mutation;

/// How many short-lived links there are at once.
pub(super) const MAX_FRESH_LINKS: usize = 8;

/// How long one stays without carrying data.
pub(super) const FRESH_LINK_LIFE: Duration = Duration::from_secs(60);

impl PeerNode {
    pub(super) fn handle_check(&mut self, path: PathId, payload: &[u8], now: Instant) {
        let rank = self.rank(path.remote.ip());
        let Some(remote) = &mut self.remote else { return };
        remote.agent.set_rank(path.remote.ip(), rank);
        if stun::preview(payload).is_some_and(|preview| remote.agent.expects(&preview)) {
            let before = remote.agent.stats().checks_received;
            remote.agent.handle_check(path, payload, now);
            if remote.agent.stats().checks_received > before {
                self.lifetime_heard(path.link, now);
            }
        }
    }

    /// Sends a datagram of data, as a program does that waits for an answer.
    pub fn send_data(&mut self, now: Instant) {
        self.data.sent += 1;
        self.send_over_route(DATA, now);
        self.drain(now);
    }

    fn send_over_route(&mut self, what: u8, now: Instant) {
        let Some(route) = self.agent().map(PathAgent::route) else { return };
        for path in route.primary.into_iter().chain(route.also) {
            if let Some(remote) = &mut self.remote {
                remote.agent.handle_traffic(path, Traffic { sent: what == DATA, received: false }, now);
            }
            self.transmit(SocketId(path.link.0), path.remote, None, vec![what; 100]);
        }
    }

    /// Data of the other side counts only from where it has proven itself.
    pub(super) fn handle_data(&mut self, path: PathId, payload: &[u8], now: Instant) {
        if !self.watch.is_accepted(&path) {
            return;
        }
        let Some(remote) = &mut self.remote else { return };
        remote.agent.handle_traffic(path, Traffic { sent: false, received: true }, now);
        self.last_data = Some(path);
        match payload.first() {
            Some(&DATA) => {
                self.data.received += 1;
                self.send_over_route(DATA_ANSWER, now);
            }
            Some(&DATA_ANSWER) => self.data.answered += 1,
            Some(_) | None => {}
        }
    }

    /// Moves the agent's output on. Returns whether there was none.
    pub(super) fn drain_agent(&mut self, now: Instant) -> bool {
        let mut idle = true;
        while let Some(transmit) = self.remote.as_mut().and_then(|remote| remote.agent.poll_transmit()) {
            idle = false;
            self.send_check(transmit);
        }
        while let Some(event) = self.remote.as_mut().and_then(|remote| remote.agent.poll_event()) {
            idle = false;
            self.watch.event(&event, now);
            self.handle_path_event(&event, now);
        }
        idle
    }

    fn send_check(&mut self, transmit: CheckTransmit) {
        let Some(remote) = &self.remote else { return };
        let stats = remote.agent.stats();
        let altered = match self.mutation {
            Some(mutation) => mutation.alter(transmit, stats, &remote.named),
            None => Some(transmit),
        };
        if let Some(transmit) = altered {
            self.watch.sent(&transmit, (self.agents, stats.attempts));
            let CheckTransmit { path, ttl, payload } = transmit;
            self.transmit(SocketId(path.link.0), path.remote, ttl, payload);
        }
    }

    fn handle_path_event(&mut self, event: &PathEvent, now: Instant) {
        match event {
            PathEvent::Accept(path) => {
                self.note(format!("heard from {path:?}"));
                self.lifetime_proven(path.link, now);
            }
            PathEvent::Route { route, reason, .. } => {
                self.note(format!("route {:?}, also {:?}: {reason}", route.primary, route.also));
                match route.primary {
                    Some(path) => {
                        if self.agent().is_some_and(PathAgent::is_satisfied) {
                            self.stop_punching();
                        }
                        self.cancel_redial();
                        self.lifetime_begins(path.link, now);
                    }
                    None => self.redial(now),
                }
            }
            PathEvent::FreshLinkWanted => {
                if self.mutation != Some(Mutation::NeverChangesThePort) {
                    self.open_fresh_link(now);
                }
            }
            PathEvent::ExchangeWanted => self.redial(now),
            PathEvent::ReflexiveRuledOut => self.note("no direct path leads through both NATs"),
        }
    }

    /// Opens another local port and asks the server under which mapping it is seen.
    pub(super) fn open_fresh_link(&mut self, now: Instant) -> Option<LinkId> {
        if self.fresh_links.len() >= MAX_FRESH_LINKS {
            return None;
        }
        self.note("another port is tried");
        self.watch.link_opened();
        let id = self.new_link();
        let query = Some(MappingQuery::new(random(&mut self.rng), now));
        self.fresh_links.insert(id, FreshLink { query, expires: now + FRESH_LINK_LIFE });
        Some(id)
    }

    /// The number of a further socket. Whoever sends from it first opens it.
    pub(super) fn new_link(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.checked_add(1).unwrap_or(1);
        id
    }

    pub(super) fn ask_mappings(&mut self, now: Instant) {
        let server = self.server;
        let due: Vec<(LinkId, Vec<u8>)> = self
            .fresh_links
            .iter_mut()
            .filter_map(|(id, link)| Some((*id, link.query.as_mut()?.poll_transmit(now)?)))
            .collect();
        for (id, request) in due {
            self.transmit(SocketId(id.0), server, None, request);
        }
    }

    /// The server's word on a fresh link's mapping: the remote is told, and our own checks begin there.
    pub(super) fn handle_mapping(
        &mut self,
        link: LinkId,
        from: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        let Some(fresh) = self.fresh_links.get_mut(&link).filter(|_| from == self.server) else {
            return false;
        };
        let Some(mapped) = fresh.query.as_mut().and_then(|query| query.handle_answer(payload)) else {
            return false;
        };
        if let Some(remote) = &mut self.remote {
            remote.agent.add_link(link, PathKind::Direct, now);
        }
        self.trickle(vec![Candidate::new(CandidateKind::Reflexive, mapped)]);
        true
    }

    /// Closes the fresh links whose time is over and that carry nothing.
    pub(super) fn expire_fresh_links(&mut self, now: Instant) {
        let (primary, probe) = (self.primary().map(|path| path.link), self.probe);
        for (id, link) in &mut self.fresh_links {
            if link.expires <= now && (primary == Some(*id) || probe == Some(*id)) {
                link.expires = now + FRESH_LINK_LIFE;
            }
        }
        let over: Vec<LinkId> =
            self.fresh_links.iter().filter(|(_, link)| link.expires <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.close_fresh_link(id, now);
        }
    }

    pub(super) fn close_fresh_link(&mut self, id: LinkId, now: Instant) {
        self.fresh_links.remove(&id);
        self.closed.push_back(SocketId(id.0));
        if let Some(remote) = &mut self.remote {
            remote.agent.remove_link(id, now);
        }
    }
}
