//! A peer node: the product's machines at the sockets of one host, as the peer's driver puts them together.

mod exchange;
mod lifetime;
mod paths;
mod punching;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use proto::candidate::{Candidate, CandidateKind};
use proto::dial::Dial;
use proto::doorman::{Admission, Doorman};
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::interface::{Interfaces, OwnAddress};
use proto::machine::{Backoff, earliest, random};
use proto::nat::NatProfile;
use proto::path::{Lifetime, LinkId, MappingQuery, PathAgent, PathId, Signals};
use proto::proof::TicketSecret;
use proto::punch::{Punch, Survey};
use proto::seen::Seen;
use proto::session::{Session, SessionAction, SessionConfig};
use proto::stun;
use proto::ticket::{ServerHint, Ticket};
use proto::wire::{self, VERSION};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::conduit::{Conduit, connection_of};
use super::{Mutation, Watch};
use crate::net::SocketId;
use crate::world::{Seat, Transmit};

const CONNECTOR: PeerId = PeerId::from_bytes([1; 32]);
const SHARER: PeerId = PeerId::from_bytes([2; 32]);
const SERVER: PeerId = PeerId::from_bytes([3; 32]);
const SHARE: ShareId = ShareId([4; 8]);
const TICKET: TicketId = TicketId([5; 8]);
const SECRET: TicketSecret = TicketSecret::from_bytes([6; 16]);

/// The number of the main socket, and of the main link.
const MAIN: SocketId = SocketId(LinkId::MAIN.0);

/// A datagram of data, and the answer to one.
const DATA: u8 = 0x80;
const DATA_ANSWER: u8 = 0x81;

/// Which of the two a peer is.
#[derive(Debug)]
enum Part {
    Connector { dial: Option<Box<Dial>>, dial_at: Option<Instant>, backoff: Backoff },
    Sharer { doorman: Box<Doorman> },
}

/// The other side, once an exchange is open.
#[derive(Debug)]
struct Remote {
    key: (PeerId, Instance),
    agent: PathAgent,
    punch: Option<Punch>,
    signals: Signals,
    /// Where the server saw it.
    observed: Seen,
    /// All that it named.
    named: Vec<Candidate>,
}

/// A short-lived link.
#[derive(Debug)]
struct FreshLink {
    /// None for one whose mapping the remote has found.
    query: Option<MappingQuery>,
    expires: Instant,
}

/// What has passed as data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Data {
    /// Datagrams sent, copies not counted.
    pub sent: u64,
    /// Datagrams of the other side that arrived, copies counted.
    pub received: u64,
    /// Answers to ours that arrived, copies counted.
    pub answered: u64,
}

/// A peer of a world.
#[derive(Debug)]
pub struct PeerNode {
    me: (PeerId, Instance),
    servers: Vec<SocketAddr>,
    server: SocketAddr,
    interfaces: Interfaces,
    port: u16,
    part: Part,
    session: Option<Session>,
    conduit: Option<Conduit>,
    observed: Option<SocketAddr>,
    /// The router's port that is mapped to the main socket.
    mapped: Option<SocketAddr>,
    remote: Option<Remote>,
    agents: u64,
    fresh_links: BTreeMap<LinkId, FreshLink>,
    next_link: u16,
    /// The server's further addresses.
    alternates: Vec<SocketAddr>,
    survey: Option<Survey>,
    /// How our NAT chooses ports.
    profile: Option<NatProfile>,
    learns_lifetime: bool,
    lifetime: Option<Lifetime>,
    /// The link on which the lifetime is probed.
    probe: Option<LinkId>,
    mutation: Option<Mutation>,
    watch: Watch,
    data: Data,
    last_data: Option<PathId>,
    rng: ChaCha12Rng,
    out: VecDeque<Transmit>,
    closed: VecDeque<SocketId>,
    notes: VecDeque<String>,
}

impl PeerNode {
    pub(super) fn new(seat: &Seat<'_>, mutation: Option<Mutation>) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seat.seed);
        let is_connector = seat.name == "a";
        let me = (if is_connector { CONNECTOR } else { SHARER }, Instance(random(&mut rng)));
        let part = if is_connector {
            let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
            Part::Connector { dial: None, dial_at: None, backoff }
        } else {
            let mut doorman = Doorman::new(me.0, me.1, SHARE, random(&mut rng));
            doorman.admit(TICKET, Admission { secret: SECRET, expires: None, fresh: true });
            Part::Sharer { doorman: Box::new(doorman) }
        };
        let servers = seat.servers.first().cloned().unwrap_or_default();
        let mut node = Self {
            me,
            server: nearest(&servers, seat.addresses),
            servers,
            interfaces: interfaces(seat.addresses),
            port: seat.port,
            part,
            session: None,
            conduit: None,
            observed: None,
            mapped: seat.mapped,
            remote: None,
            agents: 0,
            fresh_links: BTreeMap::new(),
            next_link: 1,
            alternates: Vec::new(),
            survey: None,
            profile: None,
            learns_lifetime: false,
            lifetime: None,
            probe: None,
            mutation,
            watch: Watch::default(),
            data: Data::default(),
            last_data: None,
            rng,
            out: VecDeque::new(),
            closed: VecDeque::new(),
            notes: VecDeque::new(),
        };
        if !is_connector {
            node.start_session(seat.start);
        }
        node
    }

    /// Connects to the sharer: the session and the offer leave in one flight.
    pub fn dial(&mut self, now: Instant) {
        if let Part::Connector { dial_at, .. } = &mut self.part {
            *dial_at = Some(now);
            if self.session.is_none() {
                self.start_session(now);
            }
            self.handle_timeout(now);
        }
    }

    /// Opens the session, and learns what there is to know of the NAT, before anything is dialled.
    pub fn get_ready(&mut self, now: Instant) {
        self.start_session(now);
        self.handle_timeout(now);
    }

    /// Its router maps a port to it from now on, or none any more. A remote that is still looked for hears of it.
    pub fn set_mapped(&mut self, mapped: Option<SocketAddr>, now: Instant) {
        self.mapped = mapped;
        if let Some(addr) = mapped.filter(|_| self.primary().is_none()) {
            self.trickle(vec![Candidate::new(CandidateKind::Mapped, addr)]);
        }
        self.drain(now);
    }

    /// The port that its router maps to it.
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// What was seen of it.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Its agent, while there is an exchange.
    #[must_use]
    pub fn agent(&self) -> Option<&PathAgent> {
        self.remote.as_ref().map(|remote| &remote.agent)
    }

    /// The path that its data takes.
    #[must_use]
    pub fn primary(&self) -> Option<PathId> {
        self.agent().and_then(|agent| agent.route().primary)
    }

    /// Whether its session with the server stands.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.observed.is_some() && self.session.as_ref().is_some_and(Session::is_up)
    }

    /// What has passed as data.
    #[must_use]
    pub fn data(&self) -> Data {
        self.data
    }

    /// The path by which data last arrived.
    #[must_use]
    pub fn last_data(&self) -> Option<PathId> {
        self.last_data
    }

    fn start_session(&mut self, now: Instant) {
        let seed = random(&mut self.rng);
        let mut session = Session::new(SessionConfig::default(), self.me.1, None, seed, now);
        if matches!(self.part, Part::Sharer { .. }) {
            session.register(SHARE);
        }
        self.conduit = None;
        self.session = Some(session);
    }

    fn ticket(&self) -> Ticket {
        let server = ServerHint { url: String::new(), udp: vec![self.server], peer_id: SERVER };
        Ticket {
            version: VERSION,
            id: TICKET,
            secret: SECRET,
            expires: None,
            share: SHARE,
            server,
            relay: None,
            sharer: SHARER,
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        payload: &[u8],
    ) {
        let link = LinkId(socket.0);
        if connection_of(payload).is_some() {
            self.handle_session_datagram(payload, now);
        } else if stun::is_stun(payload) {
            if !self.handle_mapping(link, from, payload, now) && !self.handle_port(link, from, payload, now) {
                self.adopt_if_heard(link, payload, now);
                self.handle_check(PathId { link, remote: from }, payload, now);
            }
        } else {
            self.handle_data(PathId { link, remote: from }, payload, now);
        }
        self.drain(now);
    }

    fn handle_session_datagram(&mut self, payload: &[u8], now: Instant) {
        let Some(conduit) = &mut self.conduit else { return };
        if connection_of(payload) != Some(conduit.connection()) {
            return;
        }
        let messages = conduit.handle(payload);
        let Some(session) = &mut self.session else { return };
        for message in messages.iter().filter_map(|message| wire::parse(message).ok()) {
            session.handle_message(message, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.watch.woken();
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
        }
        if let Some(remote) = &mut self.remote {
            remote.agent.handle_timeout(now);
        }
        self.dial_timeout(now);
        self.punch_timeout(now);
        self.lifetime_timeout(now);
        self.expire_fresh_links(now);
        self.drain(now);
    }

    pub(super) fn handle_network_change(&mut self, now: Instant, addresses: &[IpAddr]) {
        self.interfaces = interfaces(addresses);
        let server = nearest(&self.servers, addresses);
        if self.session.is_some() && server != self.server {
            self.server = server;
            self.start_session(now);
        }
        if let Some(session) = &mut self.session {
            session.handle_network_change(now);
        }
        self.rank_again();
        if let Some(remote) = &mut self.remote {
            remote.agent.handle_network_change(now);
        }
        let claims = self.claims();
        self.trickle(claims.candidates);
        self.redial(now);
        self.drain(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = earliest(
            self.session.as_ref().and_then(Session::poll_timeout),
            self.conduit.as_ref().and_then(Conduit::poll_timeout),
        );
        let session = earliest(session, self.lifetime.as_ref().and_then(Lifetime::poll_timeout));
        let exchange = earliest(self.dial_poll_timeout(), self.agent().and_then(PathAgent::poll_timeout));
        let fresh = self.fresh_links.values();
        let query = |link: &FreshLink| link.query.as_ref().and_then(MappingQuery::poll_timeout);
        let fresh = fresh.map(|link| earliest(query(link), Some(link.expires)));
        let session = earliest(session, self.punch_poll_timeout());
        earliest(earliest(session, exchange), fresh.fold(None, earliest))
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    pub(super) fn poll_close(&mut self) -> Option<SocketId> {
        self.closed.pop_front()
    }

    pub(super) fn poll_note(&mut self) -> Option<String> {
        self.notes.pop_front()
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push_back(text.into());
    }

    fn transmit(&mut self, socket: SocketId, to: SocketAddr, ttl: Option<u8>, payload: Vec<u8>) {
        self.out.push_back(Transmit { socket, to, ttl, payload });
    }

    /// Takes everything out of every machine, until none has anything left.
    fn drain(&mut self, now: Instant) {
        loop {
            let mut idle = self.drain_session(now);
            idle &= self.describe_nat();
            idle &= self.drain_dial(now);
            idle &= self.drain_agent(now);
            idle &= self.drain_punch(now);
            if idle {
                break;
            }
        }
        self.ask_mappings(now);
        let server = self.server;
        while let Some(payload) = self.conduit.as_mut().and_then(|conduit| conduit.poll_transmit(now)) {
            self.transmit(MAIN, server, None, payload);
        }
    }

    fn drain_session(&mut self, now: Instant) -> bool {
        let mut idle = true;
        while let Some(action) = self.session.as_mut().and_then(Session::poll_action) {
            idle = false;
            match action {
                SessionAction::Dial => {
                    let mut conduit = Conduit::new(u64::from_be_bytes(random(&mut self.rng)));
                    conduit.send(self.me.0.as_bytes().to_vec(), now);
                    self.conduit = Some(conduit);
                    if let Some(session) = &mut self.session {
                        session.handle_connected(now);
                    }
                }
                SessionAction::Send(message) => {
                    if let Some(conduit) = &mut self.conduit {
                        conduit.send(wire::body(&message), now);
                    }
                }
                SessionAction::Close => self.conduit = None,
            }
        }
        while let Some(event) = self.session.as_mut().and_then(Session::poll_event) {
            idle = false;
            self.handle_session_event(event, now);
        }
        idle
    }
}

/// What a host knows of its interfaces: their addresses, of which the first of each family is the way out.
fn interfaces(addresses: &[IpAddr]) -> Interfaces {
    let first = |is_v4: bool| addresses.iter().copied().find(|ip| ip.is_ipv4() == is_v4);
    let defaults = first(true).into_iter().chain(first(false)).collect();
    Interfaces::new(addresses.iter().copied().map(OwnAddress::from).collect(), defaults)
}

/// The first socket of the family that the host has: IPv4 comes first.
fn nearest(servers: &[SocketAddr], addresses: &[IpAddr]) -> SocketAddr {
    let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
    let found = servers.iter().find(|addr| addr.is_ipv4() == has_v4);
    *found.unwrap_or_else(|| panic!("a world of peers has a server"))
}
