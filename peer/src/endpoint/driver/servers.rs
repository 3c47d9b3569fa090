//! Where the server is, and where it sees us: in both families, whichever the session uses.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use proto::candidate::{Candidate, CandidateKind, Grounds, Scope, believable, scope};
use proto::nat64::Nat64Prefix;
use proto::path::{LinkId, PathKind};
use proto::punch::Survey;
use proto::seen::Seen;
use proto::server_addrs::ServerAddrs;
use proto::sighting::Sightings;
use proto::stun::Role;
use proto::wire::session::ToServer;
use proto::wire::signal::Claims;

use super::Driver;
use crate::endpoint::PathPolicy;
use crate::endpoint::remote::{Remote, RemoteKey};

/// What is known of the server's addresses, and of ours as it sees them.
#[derive(Debug)]
pub(super) struct ServerSide {
    pub(super) addrs: ServerAddrs,
    sightings: Sightings,
    /// How often a session through the relay ended because UDP was seen to pass, and no session has gone over UDP since.
    pub(super) left_relay: u32,
    /// The address at which the session has the server, unless it goes through the relay.
    session: Option<SocketAddr>,
    /// Where the session sees us, if it does.
    session_sees: Seen,
    observed: Seen,
    /// How this network reaches IPv4 addresses, where it has no IPv4.
    pub(super) nat64: Option<Nat64Prefix>,
}

impl ServerSide {
    pub(super) fn new(known: &[SocketAddr], seed: [u8; 32]) -> Self {
        Self {
            addrs: ServerAddrs::new(known.iter().copied()),
            sightings: Sightings::new(seed),
            left_relay: 0,
            session: None,
            session_sees: Seen::NOWHERE,
            observed: Seen::NOWHERE,
            nat64: None,
        }
    }

    /// The server was reached here, beside a session through its relay.
    pub(super) fn udp_passes(&mut self, addr: SocketAddr) {
        self.addrs.worked(addr);
        self.left_relay = self.left_relay.saturating_add(1);
    }

    /// Where the server sees us.
    pub(super) const fn observed(&self) -> Seen {
        self.observed
    }

    /// The address at which the session has the server, unless it goes through the relay.
    pub(super) const fn session(&self) -> Option<SocketAddr> {
        self.session
    }

    /// The server's address that sees us at an address of this family, as far as that is known; else one of that family.
    pub(super) fn address(&self, is_v4: bool) -> Option<SocketAddr> {
        let by_session = self.session.filter(|_| self.session_sees_v4() == Some(is_v4));
        let known = || self.addrs.as_slice().iter().copied().find(|addr| addr.is_ipv4() == is_v4);
        by_session.or_else(|| self.sightings.server(is_v4)).or_else(known)
    }

    /// Whether the session has the server at a loopback address. Where the server says that it sees us shows nothing: a
    /// server elsewhere would aim us at our own machine.
    fn is_on_this_machine(&self) -> bool {
        self.session.is_some_and(|addr| scope(addr) == Scope::Loopback)
    }

    /// The IPv4 address at which the server was really reached.
    fn reached_v4(&self) -> Option<IpAddr> {
        let by_session = self.session.filter(|_| self.session_sees_v4() == Some(true));
        let reached = by_session.or_else(|| self.sightings.server(true))?.ip();
        match (reached, self.nat64) {
            (IpAddr::V6(ip), Some(prefix)) => prefix.extract(ip).map(IpAddr::V4),
            _ => Some(reached),
        }
    }

    /// A candidate at the address by which this network reaches it. An address of our network's translator is no address
    /// of a peer's, and may stand for one that may not be claimed.
    fn passable(&self, candidate: Candidate) -> Option<Candidate> {
        let Some(prefix) = self.nat64 else { return Some(candidate) };
        match candidate.addr.ip() {
            IpAddr::V6(ip) if prefix.extract(ip).is_some() => None,
            IpAddr::V4(_) | IpAddr::V6(_) => {
                let addr = prefix.reach(candidate.addr).unwrap_or(candidate.addr);
                Some(Candidate { addr, ..candidate })
            }
        }
    }

    /// All of the server's addresses but the session's are asked where they see us, until that is known of both families.
    fn ask_the_others(&mut self, now: Instant) {
        let others = self.addrs.as_slice().iter().copied().filter(|addr| Some(*addr) != self.session);
        self.sightings.set_servers(others, self.session_sees_v4(), now);
    }

    /// Whether the session sees us at an IPv4 address, if it sees us.
    fn session_sees_v4(&self) -> Option<bool> {
        self.session_sees.iter().next().map(|addr| addr.is_ipv4())
    }

    /// Where the server sees us, once all of its addresses were asked: an address of the other family that none shows
    /// belongs to a network where we were before. While none shows anything, the server may be away.
    fn seen_by_all(&self) -> Option<Seen> {
        let seen = self.sightings.seen().also(self.session_sees);
        (self.sightings.has_settled() && !seen.is_empty()).then_some(seen)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sightings.poll_timeout()
    }
}

impl Driver {
    /// The session is up, at this address of the server's, or through its relay.
    pub(super) fn handle_server_reached(&mut self, direct: Option<SocketAddr>) {
        self.servers.session = direct;
        if let Some(addr) = direct {
            self.servers.addrs.worked(addr);
            self.servers.left_relay = 0;
        }
    }

    /// The server may be reached at these addresses too.
    pub(super) fn handle_found(&mut self, addrs: Vec<SocketAddr>, now: Instant) {
        let new = self.servers.addrs.learn(addrs);
        if !new.is_empty() {
            tracing::debug!(?new, "the server may be here too");
            self.look_at_ways_to_server();
            self.servers.ask_the_others(now);
        }
    }

    /// The session sees us here; through a relay it sees nothing.
    pub(super) fn handle_observed(&mut self, observed: SocketAddr, now: Instant) {
        self.servers.session_sees = Seen::at(observed);
        self.servers.ask_the_others(now);
        self.handle_seen(self.servers.observed.also(self.servers.session_sees), now);
    }

    /// A session has begun: what the last one was told of our addresses the server does not know any more.
    pub(super) fn show_all_addresses(&mut self, now: Instant) {
        self.servers.sightings.restart(now);
    }

    /// A session has begun, and with the last one have ended the exchanges in which a remote could be told of another address.
    /// Who dialled a remote and has no direct path to it offers once more.
    pub(super) fn renew_exchanges(&mut self, now: Instant) {
        let is_without = |remote: &Remote| remote.role == Role::Connector && !is_direct(remote);
        let keys = self.remotes.iter().filter(|(_, remote)| is_without(remote)).map(|(key, _)| *key);
        for key in keys.collect::<Vec<RemoteKey>>() {
            if self.parts.paths != PathPolicy::Relay {
                self.repunch(key, now);
            }
        }
    }

    /// Our address as the server sees it. Behind another public address is another NAT.
    fn handle_seen(&mut self, observed: Seen, now: Instant) {
        let before = std::mem::replace(&mut self.servers.observed, observed);
        if before == observed {
            return;
        }
        match (before.v4(), observed.v4()) {
            (Some(before), Some(observed)) => {
                if before.ip() != observed.ip() {
                    self.forget_lifetime(now);
                }
                if Survey::is_doubted(self.ports.nat().as_ref(), before, observed) {
                    self.begin_survey(now);
                }
            }
            (None, Some(_)) => self.begin_survey(now),
            (_, None) => {}
        }
        if observed.has_moved_from(&before) {
            self.begin_anew(now);
        }
    }

    /// The server has been shown a further address of ours, and names it with each word of ours that it forwards. Those
    /// who need it have one: they may have met us on this session before the server knew.
    fn tell_of_further_address(&mut self, addr: SocketAddr) {
        let sought = self.remotes.iter().filter(|(_, remote)| !is_direct(remote));
        for key in sought.map(|(key, _)| *key).collect::<Vec<RemoteKey>>() {
            self.trickle(key, vec![Candidate::new(CandidateKind::Reflexive, addr)]);
        }
    }

    /// Whether it was the server's word on where it sees the main socket.
    pub(super) fn handle_sighting(
        &mut self,
        link: LinkId,
        from: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        if link != LinkId::MAIN || !self.servers.sightings.handle_answer(from, payload, now) {
            return false;
        }
        while let Some(sighting) = self.servers.sightings.poll_event() {
            tracing::debug!(?sighting, "the server sees us here too");
            let (addr, proof) = (sighting.mapped, sighting.proof.0);
            self.session.signal(ToServer::Sighting { addr, proof });
            self.handle_seen(self.servers.observed.and(addr), now);
            self.tell_of_further_address(addr);
        }
        true
    }

    /// Sends what is due to the server's other addresses.
    pub(super) fn ask_for_sightings(&mut self, now: Instant) {
        let Some(main) = self.parts.socket.link(LinkId::MAIN) else { return };
        while let Some((server, request)) = self.servers.sightings.poll_transmit(now) {
            // No route, no such family: an address that does not answer.
            let _ = main.send_datagram(server, &request);
        }
        if let Some(seen) = self.servers.seen_by_all() {
            self.handle_seen(seen, now);
        }
    }

    /// Which of a peer's claims are tried, and at which addresses: see [`believable`].
    pub(super) fn believed(&self, claims: &Claims, observed: Seen) -> Vec<Candidate> {
        let believed = believable(&claims.candidates, &self.grounds(observed));
        believed.into_iter().filter_map(|candidate| self.servers.passable(candidate)).collect()
    }

    /// What the claims of a peer that the server sees there are judged by.
    fn grounds(&self, observed: Seen) -> Grounds {
        let loopback = self.servers.is_on_this_machine();
        let holds_shared = self.ways.interfaces().holds_shared();
        Grounds { observed, loopback, holds_shared, server: self.servers.reached_v4() }
    }
}

/// Whether data takes a direct path to it.
fn is_direct(remote: &Remote) -> bool {
    remote.agent.primary().is_some_and(|(_, kind, _)| kind == PathKind::Direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_cannot_say_that_it_is_on_this_machine() {
        let mut side = ServerSide::new(&[], [1; 32]);
        side.observed = Seen::at("127.0.0.1:1".parse().unwrap());
        for (session, is_here) in [
            (None, false),
            (Some("203.0.113.1:3478"), false),
            (Some("127.0.0.1:3478"), true),
            (Some("[::1]:1"), true),
        ] {
            side.session = session.map(|text| text.parse().unwrap());
            assert_eq!(side.is_on_this_machine(), is_here, "{session:?}");
        }
    }
}
