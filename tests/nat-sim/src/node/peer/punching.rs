//! Learning how our NAT chooses ports, and the strategies that need to know: see [`proto::punch`].

use std::net::SocketAddr;
use std::time::Instant;

use proto::candidate::{Candidate, CandidateKind};
use proto::machine::{earliest, random};
use proto::nat::NatProfile;
use proto::path::{CheckTransmit, LinkId, PathAgent, PathKind};
use proto::punch::{Known, Punch, PunchAction, Survey, SurveyAction};
use proto::seen::Seen;
use proto::wire::session::ToServer;

use super::paths::{FRESH_LINK_LIFE, MAX_FRESH_LINKS};
use super::{FreshLink, PeerNode};
use crate::net::SocketId;
use crate::node::Mutation;

/// The ports of a host's own sockets are the network's to choose here. Only a NAT that keeps them would make a
/// difference, and such a one is symmetric in none of the laboratory's kinds.
const UNKNOWN_PORT: u16 = 0;

impl PeerNode {
    /// How its NAT chooses ports, once it has found out.
    #[must_use]
    pub fn nat(&self) -> Option<NatProfile> {
        self.profile
    }

    /// There may be another NAT in front of us than before, or it has begun anew while it was asked.
    pub(super) fn start_survey(&mut self, now: Instant) {
        let Some(observed) = self.observed else { return };
        let seed = random(&mut self.rng);
        self.profile = None;
        self.survey = Survey::new(self.server, &self.alternates, observed, seed, now);
    }

    pub(super) fn new_punch(
        &mut self,
        agent: &mut PathAgent,
        observed: Seen,
        known: Known,
        now: Instant,
    ) -> Option<Punch> {
        if self.mutation == Some(Mutation::GuessesNoPort) {
            return None;
        }
        let seed = random(&mut self.rng);
        Punch::new(agent.probe(), self.server, observed.v4()?, known, seed, now)
    }

    pub(super) fn stop_punching(&mut self) {
        if let Some(punch) = self.remote.as_mut().and_then(|remote| remote.punch.as_mut()) {
            punch.stop();
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
        let survey = self.survey.as_mut();
        let punch = self.remote.as_mut().and_then(|remote| remote.punch.as_mut());
        survey.is_some_and(|survey| survey.handle_answer(link, from, payload, now))
            || punch.is_some_and(|punch| punch.handle_answer(link, from, payload, now))
    }

    /// The remote was heard on a socket that was opened for that: it becomes a link. Over the limit the packet is
    /// lost, and its sender tries another one.
    pub(super) fn adopt_if_heard(&mut self, link: LinkId, payload: &[u8], now: Instant) {
        if self.fresh_links.len() >= MAX_FRESH_LINKS {
            return;
        }
        let Some(remote) = &mut self.remote else { return };
        let Some(punch) = remote.punch.as_mut().filter(|punch| punch.owns(link)) else { return };
        if !remote.agent.is_remotes(payload) {
            return;
        }
        punch.release(link);
        self.fresh_links.insert(link, FreshLink { query: None, expires: now + FRESH_LINK_LIFE });
        remote.agent.add_link(link, PathKind::Direct, now);
        self.note(format!("the other side has found socket {}", link.0));
    }

    pub(super) fn punch_timeout(&mut self, now: Instant) {
        if let Some(survey) = &mut self.survey {
            survey.handle_timeout(now);
        }
        if let Some(punch) = self.remote.as_mut().and_then(|remote| remote.punch.as_mut()) {
            punch.handle_timeout(now);
        }
    }

    pub(super) fn punch_poll_timeout(&self) -> Option<Instant> {
        let punch = self.remote.as_ref().and_then(|remote| remote.punch.as_ref());
        earliest(self.survey.as_ref().and_then(Survey::poll_timeout), punch.and_then(Punch::poll_timeout))
    }

    /// Moves the survey and the strategies on. Returns whether there was nothing to do.
    pub(super) fn drain_punch(&mut self, now: Instant) -> bool {
        let mut idle = true;
        let punch = self.remote.as_mut().and_then(|remote| remote.punch.as_mut());
        if let Some(punch) = punch.filter(|punch| punch.wants_to_search(now)) {
            punch.begin_search(now);
        }
        while let Some(action) = self.survey.as_mut().and_then(Survey::poll_action) {
            idle = false;
            match action {
                SurveyAction::Open(count) => {
                    let links: Vec<_> = (0..count).map(|_| (self.new_link(), UNKNOWN_PORT)).collect();
                    if let Some(survey) = &mut self.survey {
                        survey.handle_opened(&links, now);
                    }
                }
                SurveyAction::Send(transmit) => self.send_punch(transmit),
                SurveyAction::Close(link) => self.closed.push_back(SocketId(link.0)),
                SurveyAction::Known(profile) => {
                    self.note(format!("our NAT: {profile:?}"));
                    self.profile = Some(profile);
                    if let Some(punch) = self.remote.as_mut().and_then(|remote| remote.punch.as_mut()) {
                        punch.handle_profile(profile, now);
                    }
                }
            }
        }
        while let Some(action) = self.next_punch_action() {
            idle = false;
            self.act_on(action, now);
        }
        idle
    }

    fn next_punch_action(&mut self) -> Option<PunchAction> {
        self.remote.as_mut()?.punch.as_mut()?.poll_action()
    }

    fn act_on(&mut self, action: PunchAction, now: Instant) {
        match action {
            PunchAction::Open(count) => {
                let links: Vec<LinkId> = (0..count).map(|_| self.new_link()).collect();
                if let Some(punch) = self.remote.as_mut().and_then(|remote| remote.punch.as_mut()) {
                    punch.handle_opened(&links, now);
                }
            }
            PunchAction::Send(transmit) => {
                self.watch.punched(&transmit, now);
                self.send_punch(transmit);
            }
            PunchAction::Close(link) => self.closed.push_back(SocketId(link.0)),
            PunchAction::Tell(profile, round) => {
                let (Some(remote), Some(session)) = (&mut self.remote, &mut self.session) else { return };
                let trickle = remote.signals.tell(self.me, profile, round);
                session.signal(ToServer::Trickle { to: remote.key.0, to_instance: remote.key.1, trickle });
            }
            PunchAction::Name(addresses) => {
                let reflexive = |addr| Candidate::new(CandidateKind::Reflexive, addr);
                self.note(format!("named to the other side: {addresses:?}"));
                self.trickle(addresses.into_iter().map(reflexive).collect());
            }
            PunchAction::GiveUp => {
                let (ours, is_mapped) = (self.observed.map(|addr| addr.ip()), self.mapped.is_some());
                let Some(remote) = &mut self.remote else { return };
                if !is_mapped && ours.is_none_or(|ip| !remote.observed.has_ip(ip)) {
                    remote.agent.rule_out_reflexive(now);
                }
            }
        }
    }

    fn send_punch(&mut self, transmit: CheckTransmit) {
        let CheckTransmit { path, ttl, payload } = transmit;
        self.transmit(SocketId(path.link.0), path.remote, ttl, payload);
    }
}
