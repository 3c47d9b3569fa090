//! Offers, answers and trickles: whom we ask, and whom we let in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind, Grounds, MAX_CANDIDATES, believable};
use proto::dial::{Dial, DialEvent};
use proto::doorman::Decision;
use proto::id::{Instance, PeerId};
use proto::interface::{Interfaces, Rank};
use proto::machine::random;
use proto::path::{LinkId, Outlook, PathAgent, PathConfig, PathKind, Signals};
use proto::proof::{CheckKeys, NatWord};
use proto::punch::{Known, Survey};
use proto::seen::Seen;
use proto::session::SessionEvent;
use proto::stun::Role;
use proto::wire::session::ToServer;
use proto::wire::signal::{Claims, Offer, Trickle};

use super::{Part, PeerNode, Remote, SECRET, SERVER, SHARE, SHARER};

/// How long after the verdict a user tries again.
const STARTED_AGAIN: Duration = Duration::from_secs(100);

impl PeerNode {
    pub(super) fn handle_session_event(&mut self, event: SessionEvent, now: Instant) {
        match event {
            SessionEvent::Up { observed, udp_alternate, .. } => {
                self.handle_observed(observed);
                self.alternates = udp_alternate;
                self.start_survey(now);
            }
            SessionEvent::Observed(observed) => {
                let before = self.observed;
                self.handle_observed(observed);
                let known = self.profile.as_ref();
                if before.is_none_or(|before| Survey::is_doubted(known, before, observed)) {
                    self.start_survey(now);
                }
            }
            SessionEvent::Offer { from, observed, offer } => self.handle_offer(from, observed, &offer, now),
            SessionEvent::Trickle { from, observed, trickle } => {
                self.handle_trickle(from, observed, &trickle, now);
            }
            SessionEvent::Answer { from, observed, answer } => {
                if let Some(dial) = self.current_dial() {
                    dial.handle_answer(from, observed, &answer);
                }
            }
            SessionEvent::Forwarded { offer, to_instance, relay, nat } => {
                if let Some(dial) = self.current_dial() {
                    dial.handle_forwarded(offer, to_instance, relay, nat.as_ref());
                }
            }
            SessionEvent::Undelivered { offer, reason } => {
                if let Some(dial) = self.current_dial() {
                    dial.handle_undelivered(offer, reason);
                }
            }
            SessionEvent::Down => self.note("the session is down"),
            // The program ends, and is started again.
            SessionEvent::GaveUp => self.start_session(now),
            SessionEvent::Registered(_) | SessionEvent::Displaced(_) => {}
        }
    }

    /// Our address as the server sees it. A remote learns of a new one.
    fn handle_observed(&mut self, observed: SocketAddr) {
        if self.observed.replace(observed) != Some(observed) {
            self.note(format!("the server sees us at {observed}"));
            self.trickle(vec![Candidate::new(CandidateKind::Reflexive, observed)]);
        }
    }

    fn handle_offer(&mut self, from: (PeerId, Instance), observed: Seen, offer: &Offer, now: Instant) {
        let (claims, ours) = (self.claims(), self.profile);
        let Part::Sharer { doorman } = &mut self.part else { return };
        let answer = match doorman.handle_offer(SERVER, from, offer, Some(claims), ours, 0) {
            Decision::Replayed => return,
            Decision::Answer(answer) => answer,
            Decision::Admit { answer, keys, exchange, secret, nat } => {
                let signals = Signals::new(exchange, secret, offer.nonce);
                let known = Known { ours, told: ours, theirs: nat };
                self.meet(from, Role::Sharer, keys, signals, &offer.claims, observed, known, now);
                answer
            }
        };
        if let Some(session) = &mut self.session {
            session.signal(ToServer::Answer { to: from.0, to_instance: from.1, answer });
        }
    }

    /// Who holds the ticket is told of our NAT with the first word of the server's. Returns whether there was nothing new
    /// to tell.
    pub(super) fn describe_nat(&mut self) -> bool {
        let is_mapped = self.mapped.is_some();
        let word = self.profile.map(|profile| NatWord { profile, is_mapped });
        let (Part::Sharer { doorman }, Some(session)) = (&mut self.part, &mut self.session) else {
            return true;
        };
        let Some(nat) = doorman.describe(SERVER, word, 0) else { return true };
        session.describe(SHARE, nat);
        false
    }

    /// Both sides know each other: checks begin.
    #[allow(clippy::too_many_arguments, reason = "an exchange has that many parts")]
    fn meet(
        &mut self,
        key: (PeerId, Instance),
        role: Role,
        keys: CheckKeys,
        signals: Signals,
        claims: &Claims,
        observed: Seen,
        known: Known,
        now: Instant,
    ) {
        let mut agent = PathAgent::new(PathConfig::default(), role, keys, random(&mut self.rng), now);
        agent.add_link(LinkId::MAIN, PathKind::Direct, now);
        let named = believable(&claims.candidates, &Grounds { observed, ..Grounds::default() });
        self.note(format!("checks begin: {}", list(&named)));
        for candidate in &named {
            agent.set_rank(candidate.addr.ip(), self.rank(candidate.addr.ip()));
            agent.add_candidate(*candidate, now);
        }
        self.agents += 1;
        self.watch.new_agent();
        self.forget_lifetime(now);
        self.stop_punching();
        self.drain_punch(now);
        let punch = self.new_punch(&mut agent, observed, known, now);
        if let Some(former) = self.remote.as_ref().filter(|former| former.key == key) {
            agent.succeed(&former.agent);
        }
        self.remote = Some(Remote { key, agent, punch, signals, observed, named });
    }

    fn handle_trickle(&mut self, from: (PeerId, Instance), observed: Seen, trickle: &Trickle, now: Instant) {
        let Some(remote) = self.remote.as_mut().filter(|remote| remote.key == from) else { return };
        if !remote.signals.accepts(from, trickle) {
            return;
        }
        if std::mem::replace(&mut remote.observed, observed) != observed {
            remote.agent.handle_network_change(now);
        }
        if let (Some(punch), Some((nat, round))) = (&mut remote.punch, remote.signals.told(from, trickle)) {
            punch.handle_told(nat, round, now);
        }
        let candidates = believable(&trickle.claims.candidates, &Grounds { observed, ..Grounds::default() });
        for candidate in &candidates {
            remote.agent.set_rank(candidate.addr.ip(), rank(&self.interfaces, candidate.addr.ip()));
            remote.agent.add_candidate(*candidate, now);
        }
        remote.named.extend(&candidates);
        if let Some(hint) = trickle.nat {
            self.note(format!("the other side's NAT: {:?}, for round {}", hint.profile, hint.round));
        }
        self.note(format!("the other side adds: {}", list(&candidates)));
    }

    /// Sends further claims to the remote, if there is one.
    pub(super) fn trickle(&mut self, candidates: Vec<Candidate>) {
        let (Some(remote), Some(session)) = (&mut self.remote, &mut self.session) else { return };
        let trickle = remote.signals.trickle(self.me, Claims { candidates, relay: None });
        session.signal(ToServer::Trickle { to: remote.key.0, to_instance: remote.key.1, trickle });
    }

    /// What we say of ourselves: the addresses of our interfaces.
    pub(super) fn claims(&self) -> Claims {
        let host = |ip| Candidate::new(CandidateKind::Host, SocketAddr::new(ip, self.port));
        let mapped = self.mapped.map(|addr| Candidate::new(CandidateKind::Mapped, addr));
        let most = MAX_CANDIDATES - 1 - usize::from(mapped.is_some());
        let hosts = self.interfaces.claims(most).into_iter().map(host);
        Claims { candidates: mapped.into_iter().chain(hosts).collect(), relay: None }
    }

    /// How good the way to an address is.
    pub(super) fn rank(&self, remote: IpAddr) -> Rank {
        rank(&self.interfaces, remote)
    }

    /// Another network has other ranks.
    pub(super) fn rank_again(&mut self) {
        let Some(remote) = &mut self.remote else { return };
        for ip in remote.agent.remotes().collect::<Vec<_>>() {
            remote.agent.set_rank(ip, rank(&self.interfaces, ip));
        }
    }

    fn current_dial(&mut self) -> Option<&mut Dial> {
        match &mut self.part {
            Part::Connector { dial, .. } => dial.as_deref_mut(),
            Part::Sharer { .. } => None,
        }
    }

    /// A connector without a path asks again, which makes the sharer punch too.
    pub(super) fn redial(&mut self, now: Instant) {
        if let Part::Connector { dial: None, dial_at, .. } = &mut self.part {
            dial_at.get_or_insert(now);
        }
    }

    /// There is a path: nothing is left to ask for.
    pub(super) fn cancel_redial(&mut self) {
        if let Part::Connector { dial_at, .. } = &mut self.part {
            *dial_at = None;
        }
    }

    pub(super) fn dial_poll_timeout(&self) -> Option<Instant> {
        match &self.part {
            Part::Connector { dial: Some(dial), .. } => dial.poll_timeout(),
            // One that waits for the session needs no timer: the session's coming up is an input.
            Part::Connector { dial: None, dial_at, .. } => dial_at.filter(|_| self.conduit.is_some()),
            Part::Sharer { .. } => None,
        }
    }

    pub(super) fn dial_timeout(&mut self, now: Instant) {
        // A program says that there is no path, and is started again.
        let is_hopeless = self.agent().is_some_and(|agent| agent.outlook() == Outlook::Unreached);
        if let Part::Connector { dial: None, dial_at, .. } = &mut self.part
            && is_hopeless
        {
            dial_at.get_or_insert(now + STARTED_AGAIN);
        }
        if let Some(dial) = self.current_dial() {
            dial.handle_timeout(now);
        }
    }

    /// Moves the dial on. Returns whether there was nothing to do.
    pub(super) fn drain_dial(&mut self, now: Instant) -> bool {
        let (me, ticket, claims, nat) = (self.me, self.ticket(), self.claims(), self.profile);
        let Part::Connector { dial, dial_at, .. } = &mut self.part else { return true };
        let mut idle = true;
        if dial.is_none() && self.conduit.is_some() && dial_at.is_some_and(|at| at <= now) {
            *dial_at = None;
            *dial = Some(Box::new(Dial::new(ticket, me, claims, nat, random(&mut self.rng), now)));
        }
        while let (Some(offer), Some(session)) =
            (dial.as_deref_mut().and_then(Dial::poll_transmit), &mut self.session)
        {
            idle = false;
            session.signal(ToServer::Offer { to: SHARER, offer });
        }
        while let Some(event) = self.current_dial().and_then(Dial::poll_event) {
            idle = false;
            self.handle_dial_event(event, now);
        }
        idle
    }

    fn handle_dial_event(&mut self, event: DialEvent, now: Instant) {
        match event {
            DialEvent::Forwarded { is_hopeless, .. } => {
                if is_hopeless {
                    self.note("no direct path is to be expected");
                    self.watch.foresaw(now);
                }
            }
            DialEvent::Accepted { instance, keys, claims, observed, offer, nat } => {
                let Part::Connector { dial, backoff, .. } = &mut self.part else { return };
                let Some(dial) = dial.take() else { return };
                backoff.reset();
                let signals = Signals::new(*dial.exchange(), SECRET, offer);
                let known = Known { ours: self.profile, told: dial.nat(), theirs: nat };
                self.meet((SHARER, instance), Role::Connector, keys, signals, &claims, observed, known, now);
                self.drain_punch(now);
                self.drain_agent(now);
                self.watch.answered();
            }
            DialEvent::Failed(failure) => {
                let Part::Connector { dial, dial_at, backoff } = &mut self.part else { return };
                *dial = None;
                *dial_at = Some(now + backoff.next_delay(&mut self.rng));
                self.note(format!("the offer came to nothing: {failure:?}"));
            }
        }
    }
}

/// How good the way to an address is, for packets that leave by the first address of its family.
fn rank(interfaces: &Interfaces, remote: IpAddr) -> Rank {
    let source = interfaces.addresses().find(|ip| ip.is_ipv4() == remote.is_ipv4());
    interfaces.rank(source, remote)
}

fn list(candidates: &[Candidate]) -> String {
    let names = candidates.iter().map(|candidate| format!("{} ({:?})", candidate.addr, candidate.kind));
    names.collect::<Vec<_>>().join(", ")
}
