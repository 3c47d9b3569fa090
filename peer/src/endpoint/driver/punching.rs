//! Learning how the NAT in front of us chooses ports, and the strategies that need to know: see [`proto::punch`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use proto::candidate::{Candidate, CandidateKind, Scope, scope};
use proto::machine::{earliest, random};
use proto::nat::NatProfile;
use proto::path::{LinkId, PathAgent, PathKind};
use proto::proof::NatWord;
use proto::punch::{Known, Punch, PunchAction, Survey, SurveyAction};
use proto::seen::Seen;
use proto::wire::session::ToServer;

use super::{Driver, unix_secs};
use crate::endpoint::PathPolicy;
use crate::endpoint::remote::{Remote, RemoteKey};

/// What is known of our NAT's ports, and whose sockets are open to guess some.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The server's further addresses.
    alternates: Vec<SocketAddr>,
    survey: Option<Survey>,
    profile: Option<NatProfile>,
    /// The remotes that sockets were opened for; none for the survey's.
    owners: BTreeMap<LinkId, Option<RemoteKey>>,
    /// The one remote that is searched for, or lets us search.
    searching: Option<RemoteKey>,
}

impl Ports {
    /// What is known of our NAT.
    pub(super) const fn nat(&self) -> Option<NatProfile> {
        self.profile
    }

    /// The server's further addresses.
    pub(super) fn alternates(&self) -> &[SocketAddr] {
        &self.alternates
    }

    pub(super) fn owns(&self, link: LinkId) -> bool {
        self.owners.contains_key(&link)
    }
}

impl Driver {
    /// A session is up, and the server has these addresses beside the one that it was reached at.
    pub(super) fn handle_alternates(&mut self, alternates: Vec<SocketAddr>, now: Instant) {
        self.ports.alternates = alternates;
        self.begin_survey(now);
    }

    /// There may be another NAT in front of us than before, or it has begun anew while it was asked.
    pub(super) fn begin_survey(&mut self, now: Instant) {
        self.close_owned(None);
        self.ports.profile = None;
        self.ports.survey = None;
        let observed = self.servers.observed().v4().filter(|addr| scope(*addr) == Scope::Global);
        let Some(observed) = observed else { return };
        let Some(server) = self.servers.address(true) else { return };
        // The server may know its own addresses wrongly, and its ports rightly.
        let beside = self.ports.alternates.iter().map(|addr| SocketAddr::new(server.ip(), addr.port()));
        let stated = self.ports.alternates.iter().copied().filter(|addr| scope(*addr) == Scope::Global);
        let alternates: Vec<SocketAddr> = stated.chain(beside).collect();
        let seed = random(&mut self.rng);
        self.ports.survey = Survey::new(server, &alternates, observed, seed, now);
    }

    /// Who holds a ticket of ours is told of our NAT with the first word of the server's. Returns whether there was nothing
    /// new to tell.
    pub(super) fn describe_nat(&mut self) -> bool {
        let is_mapped = self.mapped_candidate().is_some();
        let word = self.ports.profile.map(|profile| NatWord { profile, is_mapped });
        let server = self.parts.server.peer_id;
        let mut idle = true;
        for (share, shared) in &mut self.shares {
            if let Some(nat) = shared.doorman.describe(server, word, unix_secs()) {
                idle = false;
                self.session.describe(*share, nat);
            }
        }
        idle
    }

    /// The strategies for an exchange that begins.
    pub(super) fn new_punch(
        &mut self,
        agent: &mut PathAgent,
        observed: Seen,
        known: Known,
        now: Instant,
    ) -> Option<Punch> {
        let server = self.servers.address(true).filter(|_| self.parts.paths != PathPolicy::Relay)?;
        let seed = random(&mut self.rng);
        Punch::new(agent.probe(), server, observed.v4()?, known, seed, now)
    }

    /// A remote's exchange is over, and so is all that was opened for it.
    pub(super) fn end_punch(&mut self, key: RemoteKey) {
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.punch = None;
        }
        self.close_owned(Some(key));
        if self.ports.searching == Some(key) {
            self.ports.searching = None;
        }
    }

    /// Whether it was the server's answer to a question about ports.
    pub(super) fn handle_port(
        &mut self,
        link: LinkId,
        from: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        match self.ports.owners.get(&link) {
            Some(Some(key)) => {
                let punch = self.remotes.get_mut(key).and_then(|remote| remote.punch.as_mut());
                punch.is_some_and(|punch| punch.handle_answer(link, from, payload, now))
            }
            Some(None) | None => {
                let survey = self.ports.survey.as_mut();
                survey.is_some_and(|survey| survey.handle_answer(link, from, payload, now))
            }
        }
    }

    /// A remote was heard on a socket that was opened for that: it becomes a link. Over the limit the packet is
    /// lost, and its sender tries another one.
    pub(super) fn adopt_if_heard(&mut self, link: LinkId, payload: &[u8], now: Instant) {
        let Some(Some(key)) = self.ports.owners.get(&link).copied() else { return };
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        if !remote.agent.is_remotes(payload) || !self.has_room_for_fresh_link() {
            return;
        }
        tracing::debug!(peer = ?key.0, ?link, "a guessed port was found");
        self.ports.owners.remove(&link);
        self.keep_fresh_link(key, link, Vec::new(), now);
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        if let Some(punch) = &mut remote.punch {
            punch.release(link);
        }
        remote.agent.add_link(link, PathKind::Direct, now);
    }

    pub(super) fn punch_timeout(&mut self, now: Instant) {
        if let Some(survey) = &mut self.ports.survey {
            survey.handle_timeout(now);
        }
        // One whose path leads through an overlay is satisfied with it after a while, without a word.
        let is_over = |remote: &Remote| remote.punch.is_some() && remote.agent.is_satisfied();
        let over = self.remotes.iter().filter(|(_, remote)| is_over(remote)).map(|(key, _)| *key);
        for key in over.collect::<Vec<_>>() {
            self.end_punch(key);
        }
        for punch in self.remotes.values_mut().filter_map(|remote| remote.punch.as_mut()) {
            punch.handle_timeout(now);
        }
    }

    pub(super) fn punch_poll_timeout(&self) -> Option<Instant> {
        let punches = self.remotes.values().filter_map(|remote| remote.punch.as_ref()?.poll_timeout());
        earliest(self.ports.survey.as_ref().and_then(Survey::poll_timeout), punches.min())
    }

    /// Moves the survey and the strategies on. Returns whether there was nothing to do.
    pub(super) fn drain_punches(&mut self, now: Instant) -> bool {
        let mut idle = true;
        while let Some(action) = self.ports.survey.as_mut().and_then(Survey::poll_action) {
            idle = false;
            self.act_on_survey(action, now);
        }
        let keys: Vec<RemoteKey> = self.remotes.keys().copied().collect();
        for key in keys {
            self.allow_search(key, now);
            while let Some(action) = self.punch(key).and_then(Punch::poll_action) {
                idle = false;
                self.act_on_punch(key, action, now);
            }
        }
        idle
    }

    fn act_on_survey(&mut self, action: SurveyAction, now: Instant) {
        match action {
            SurveyAction::Open(count) => {
                let links = self.open_many(count, None);
                let port = |link| self.parts.socket.link(link)?.local_addr().ok().map(|addr| addr.port());
                let sockets: Vec<_> =
                    links.into_iter().filter_map(|link| Some((link, port(link)?))).collect();
                if let Some(survey) = &mut self.ports.survey {
                    survey.handle_opened(&sockets, now);
                }
            }
            SurveyAction::Send(transmit) => self.send_check(&transmit),
            SurveyAction::Close(link) => self.close_guess(link),
            SurveyAction::Known(profile) => {
                tracing::debug!(?profile, "our NAT");
                self.ports.profile = Some(profile);
                for punch in self.remotes.values_mut().filter_map(|remote| remote.punch.as_mut()) {
                    punch.handle_profile(profile, now);
                }
            }
        }
    }

    /// One remote is searched for at a time.
    fn allow_search(&mut self, key: RemoteKey, now: Instant) {
        let searching = self.ports.searching;
        let Some(punch) = self.punch(key) else { return };
        if searching == Some(key) && !punch.is_searching() {
            self.ports.searching = None;
        } else if searching.is_none() && punch.wants_to_search(now) {
            punch.begin_search(now);
            self.ports.searching = Some(key);
        }
    }

    fn punch(&mut self, key: RemoteKey) -> Option<&mut Punch> {
        self.remotes.get_mut(&key)?.punch.as_mut()
    }

    fn act_on_punch(&mut self, key: RemoteKey, action: PunchAction, now: Instant) {
        match action {
            PunchAction::Open(count) => {
                let links = self.open_many(count, Some(key));
                if let Some(punch) = self.punch(key) {
                    punch.handle_opened(&links, now);
                }
            }
            PunchAction::Send(transmit) => self.send_check(&transmit),
            PunchAction::Close(link) => self.close_guess(link),
            PunchAction::Tell(profile, round) => {
                let me = (self.parts.me, self.parts.instance);
                let Some(remote) = self.remotes.get_mut(&key) else { return };
                let trickle = remote.signals.tell(me, profile, round);
                self.session.signal(ToServer::Trickle { to: key.0, to_instance: key.1, trickle });
            }
            PunchAction::Name(addresses) => {
                tracing::debug!(peer = ?key.0, ?addresses, "ports are named");
                let reflexive = |addr| Candidate::new(CandidateKind::Reflexive, addr);
                self.trickle(key, addresses.into_iter().map(reflexive).collect());
            }
            PunchAction::GiveUp => self.give_up(key, now),
        }
    }

    /// No guess helps. Where one NAT is in front of both, or a router maps a port to us, none is needed.
    fn give_up(&mut self, key: RemoteKey, now: Instant) {
        let (ours, is_mapped) = (self.servers.observed(), self.mapped_candidate().is_some());
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        if !is_mapped && !remote.observed.shares_ip_with(&ours) {
            remote.agent.rule_out_reflexive(now);
        }
    }

    /// Opens so many sockets for guesses, or as many as the system lets us.
    fn open_many(&mut self, count: u16, owner: Option<RemoteKey>) -> Vec<LinkId> {
        let links: Vec<LinkId> = (0..count).map_while(|_| self.bind_link()).collect();
        self.ports.owners.extend(links.iter().map(|link| (*link, owner)));
        links
    }

    fn close_guess(&mut self, link: LinkId) {
        if self.ports.owners.remove(&link).is_some() {
            self.parts.socket.remove_link(link);
        }
    }

    fn close_owned(&mut self, owner: Option<RemoteKey>) {
        let owned = self.ports.owners.iter().filter(|(_, of)| **of == owner);
        for link in owned.map(|(link, _)| *link).collect::<Vec<_>>() {
            self.close_guess(link);
        }
    }
}
