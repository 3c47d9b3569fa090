//! **Survey**: how the NAT in front of the main socket chooses ports, found out once a session.
//!
//! The main socket asks two others of the server's addresses under which mapping it is seen there: one at another IP
//! address, and one at another port alone. If it is the same as the session's, that is all (RFC 5780 §4.3, as far as
//! those addresses show). If it is another, or neither of them answers (a firewall in front of the server may let its
//! main port through alone), further sockets ask the server's main address, and their ports show the allocator's rule.
//! That rule does not show on what a mapping depends: see [`NatProfile::is_assumed`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::candidate::canonical;
use crate::machine::{earliest, random};
use crate::nat::{Allocation, Dependence, NatProfile, PortSample, classify};
use crate::path::{CheckTransmit, LinkId, MappingQuery, PathId};

/// How many further sockets ask, where the ports differ.
const SAMPLES: u16 = 16;

/// How long the server's other addresses may take to answer before samples are asked for without them: a firewall lets
/// the server's main port through alone. An answer that comes later counts all the same.
const SILENT: Duration = Duration::from_millis(500);

/// How long the answers to the samples may take.
const PATIENCE: Duration = Duration::from_millis(700);

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurveyAction {
    /// Open so many sockets, and hand those that there are to [`Survey::handle_opened`] in one call.
    Open(u16),
    /// Send a datagram.
    Send(CheckTransmit),
    /// Close a socket.
    Close(LinkId),
    /// This is known now. It is said once, and nothing follows. Where nothing answers it is not said.
    Known(NatProfile),
}

#[derive(Debug)]
struct Asked {
    link: LinkId,
    local: u16,
    query: MappingQuery,
    mapped: Option<u16>,
}

/// The machine.
#[derive(Debug)]
pub struct Survey {
    observed: SocketAddr,
    server: SocketAddr,
    /// The server's other addresses that the main socket asks, and what for.
    others: Vec<(SocketAddr, MappingQuery)>,
    /// Whether one of them saw the main socket where the session does.
    is_same_elsewhere: bool,
    /// Whether one of them saw it at another.
    has_seen_another: bool,
    /// Whether the samples are asked for.
    is_sampling: bool,
    asked: Vec<Asked>,
    deadline: Option<Instant>,
    rng: ChaCha12Rng,
    actions: VecDeque<SurveyAction>,
}

impl Survey {
    /// Whether a survey is to begin again, or what it found is not to be believed, now that the server sees the main socket
    /// at `observed` instead of `before`. Behind another public address is another NAT. Another port tells of a NAT that
    /// has begun anew: what was asked meanwhile looks like ports that depend on the remote. A port that was the same for
    /// all remotes was not asked for meanwhile, and is not asked for again: a router that leaks moves a socket's port for
    /// good, which would look alike.
    #[must_use]
    pub fn is_doubted(known: Option<&NatProfile>, before: SocketAddr, observed: SocketAddr) -> bool {
        let depends = known.is_none_or(|nat| nat.mapping != Dependence::EndpointIndependent);
        before.ip() != observed.ip() || before != observed && depends
    }

    /// Of the main socket that `server` sees at `observed`. `None` where the server has no other address of that
    /// family.
    pub fn new(
        server: SocketAddr,
        alternates: &[SocketAddr],
        observed: SocketAddr,
        seed: [u8; 32],
        now: Instant,
    ) -> Option<Self> {
        let (server, observed) = (canonical(server), canonical(observed));
        let usable = alternates.iter().map(|addr| canonical(*addr)).filter(|addr| {
            addr.is_ipv4() == server.is_ipv4() && *addr != server && !addr.ip().is_unspecified()
        });
        let (elsewhere, beside): (Vec<_>, Vec<_>) = usable.partition(|addr| addr.ip() != server.ip());
        let asked = elsewhere.first().into_iter().chain(beside.first());
        let mut rng = ChaCha12Rng::from_seed(seed);
        let others: Vec<_> = asked.map(|addr| (*addr, MappingQuery::new(random(&mut rng), now))).collect();
        if others.is_empty() {
            return None;
        }
        let mut survey = Self {
            observed,
            server,
            others,
            is_same_elsewhere: false,
            has_seen_another: false,
            is_sampling: false,
            asked: Vec::new(),
            deadline: Some(now + SILENT),
            rng,
            actions: VecDeque::new(),
        };
        survey.handle_timeout(now);
        Some(survey)
    }

    /// The sockets that were asked for, each with its own port.
    pub fn handle_opened(&mut self, sockets: &[(LinkId, u16)], now: Instant) {
        for (link, local) in sockets.iter().copied() {
            let query = MappingQuery::new(random(&mut self.rng), now);
            self.asked.push(Asked { link, local, query, mapped: None });
        }
        self.deadline = Some(now + PATIENCE);
        self.handle_timeout(now);
    }

    /// Whether it was an answer to a question of this.
    pub fn handle_answer(&mut self, link: LinkId, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let from = canonical(from);
        let other = self.others.iter().position(|(addr, _)| link == LinkId::MAIN && *addr == from);
        if let Some(other) = other {
            let Some(mapped) = self.others[other].1.handle_answer(datagram) else { return false };
            self.others.remove(other);
            if canonical(mapped) != self.observed {
                self.has_seen_another = true;
                self.others.clear();
                self.take_samples();
            } else if self.others.iter().all(|(addr, _)| addr.ip() == self.server.ip()) {
                // One at another IP address shows all that one at another port would.
                self.conclude(Dependence::EndpointIndependent);
            } else {
                self.is_same_elsewhere = true;
            }
            return true;
        }
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.link == link && from == self.server)
        else {
            return false;
        };
        let Some(mapped) = asked.query.handle_answer(datagram) else { return false };
        asked.mapped = Some(mapped.port());
        if self.asked.iter().all(|asked| asked.mapped.is_some()) {
            self.deadline = Some(now);
        }
        true
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut send = |link, remote, payload| {
            let path = PathId { link, remote };
            self.actions.push_back(SurveyAction::Send(CheckTransmit { path, ttl: None, payload }));
        };
        for (addr, query) in &mut self.others {
            if let Some(request) = query.poll_transmit(now) {
                send(LinkId::MAIN, *addr, request);
            }
        }
        for asked in &mut self.asked {
            if let Some(request) = asked.query.poll_transmit(now) {
                send(asked.link, self.server, request);
            }
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.handle_deadline();
        }
    }

    fn handle_deadline(&mut self) {
        if self.is_same_elsewhere {
            return self.conclude(Dependence::EndpointIndependent);
        }
        if !self.is_sampling {
            return self.take_samples();
        }
        match classify(&self.samples()) {
            // One address more can't tell these from those that depend on the address alone: the stricter holds.
            _ if self.has_seen_another => self.conclude(Dependence::AddressAndPortDependent),
            // Its ports are the sockets' own: most NATs that keep them keep one mapping for all remotes.
            Some(Allocation::Preserving) => self.conclude(Dependence::EndpointIndependent),
            Some(Allocation::Sequential { .. } | Allocation::Random { .. }) => {
                self.conclude(Dependence::AddressDependent);
            }
            None => self.end(),
        }
    }

    /// The main socket is not seen everywhere where the session sees it, or that can't be told so far.
    fn take_samples(&mut self) {
        if !std::mem::replace(&mut self.is_sampling, true) {
            self.deadline = None;
            self.actions.push_back(SurveyAction::Open(SAMPLES));
        }
    }

    fn samples(&self) -> Vec<PortSample> {
        let sample = |asked: &Asked| Some(PortSample { local: asked.local, mapped: asked.mapped? });
        self.asked.iter().filter_map(sample).collect()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.asked.iter().filter_map(|asked| asked.query.poll_timeout()).min();
        let others = self.others.iter().filter_map(|(_, query)| query.poll_timeout()).min();
        earliest(earliest(others, asked), self.deadline)
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<SurveyAction> {
        self.actions.pop_front()
    }

    fn conclude(&mut self, mapping: Dependence) {
        let samples = self.samples();
        self.end();
        let newest = samples.last().filter(|_| mapping != Dependence::EndpointIndependent);
        let latest = newest.map_or(self.observed.port(), |sample| sample.mapped);
        let profile = NatProfile { mapping, allocation: classify(&samples), latest };
        self.actions.push_back(SurveyAction::Known(profile));
    }

    fn end(&mut self) {
        self.deadline = None;
        self.others.clear();
        let asked = std::mem::take(&mut self.asked);
        self.actions.extend(asked.into_iter().map(|asked| SurveyAction::Close(asked.link)));
    }
}

#[cfg(test)]
mod tests;
