//! **Survey**: how the NAT in front of the main socket chooses ports, found out once a session.
//!
//! The main socket asks another of the server's addresses under which mapping it is seen there. If it is the same
//! as the session's, that is all (RFC 5780 §4.3, as far as that address shows). If it is another, further sockets
//! ask the server one after the other, and their ports show the allocator's rule.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::candidate::canonical;
use crate::machine::{earliest, random};
use crate::nat::{Dependence, NatProfile, PortSample, classify};
use crate::path::{CheckTransmit, LinkId, MappingQuery, PathId};

/// How many further sockets ask, where the ports differ.
const SAMPLES: u16 = 16;

/// How long their answers may take.
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
    /// This is known now. It is said once, and nothing follows.
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
    other: SocketAddr,
    main: MappingQuery,
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
    /// family. One at another IP address shows more and is preferred.
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
        let other = usable.min_by_key(|addr| addr.ip() == server.ip())?;
        let mut rng = ChaCha12Rng::from_seed(seed);
        let main = MappingQuery::new(random(&mut rng), now);
        let (asked, actions) = (Vec::new(), VecDeque::new());
        let mut survey = Self { observed, server, other, main, asked, deadline: None, rng, actions };
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
        if link == LinkId::MAIN && from == self.other {
            let Some(mapped) = self.main.handle_answer(datagram) else { return false };
            if canonical(mapped) == self.observed {
                self.conclude(Dependence::EndpointIndependent);
            } else {
                self.actions.push_back(SurveyAction::Open(SAMPLES));
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
        if let Some(request) = self.main.poll_transmit(now) {
            send(LinkId::MAIN, self.other, request);
        }
        for asked in &mut self.asked {
            if let Some(request) = asked.query.poll_transmit(now) {
                send(asked.link, self.server, request);
            }
        }
        if self.deadline.is_some_and(|at| at <= now) {
            // One address more can't tell these from those that depend on the address alone: the stricter holds.
            self.conclude(Dependence::AddressAndPortDependent);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.asked.iter().filter_map(|asked| asked.query.poll_timeout()).min();
        earliest(earliest(self.main.poll_timeout(), asked), self.deadline)
    }

    /// What the shell must do next.
    pub fn poll_action(&mut self) -> Option<SurveyAction> {
        self.actions.pop_front()
    }

    fn conclude(&mut self, mapping: Dependence) {
        self.deadline = None;
        let asked = std::mem::take(&mut self.asked);
        let samples: Vec<PortSample> = asked
            .iter()
            .filter_map(|asked| Some(PortSample { local: asked.local, mapped: asked.mapped? }))
            .collect();
        self.actions.extend(asked.into_iter().map(|asked| SurveyAction::Close(asked.link)));
        let latest = samples.last().map_or(self.observed.port(), |sample| sample.mapped);
        let profile = NatProfile { mapping, allocation: classify(&samples), latest };
        self.actions.push_back(SurveyAction::Known(profile));
    }
}
