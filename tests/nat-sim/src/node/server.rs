//! A server node: the product's [`Matchmaker`] and [`PublicUdp`] at the sockets of a world's server.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use proto::id::PeerId;
use proto::machine::earliest;
use proto::matchmaker::{Matchmaker, MatchmakerAction, MatchmakerConfig, SessionKey};
use proto::public_udp::PublicUdp;
use proto::wire;
use proto::wire::session::{FromServer, MAX_HINTS};

use super::conduit::{Conduit, connection_of};
use crate::net::SocketId;
use crate::world::{Seat, Transmit};

/// One peer's connection, and where it was last heard from.
#[derive(Debug)]
struct Connection {
    conduit: Conduit,
    key: Option<SessionKey>,
    at: (SocketId, SocketAddr),
}

/// The server of a world.
#[derive(Debug)]
pub struct ServerNode {
    matchmaker: Matchmaker,
    public: PublicUdp,
    connections: BTreeMap<u64, Connection>,
    by_key: BTreeMap<SessionKey, u64>,
    next_key: SessionKey,
    out: VecDeque<Transmit>,
    offers_forwarded: Vec<Instant>,
}

impl ServerNode {
    pub(super) fn new(seat: &Seat<'_>) -> Self {
        let own = seat.servers.iter().flatten().copied();
        let udp_alternate = own.filter(|addr| seat.addresses.contains(&addr.ip())).take(MAX_HINTS).collect();
        Self {
            matchmaker: Matchmaker::new(MatchmakerConfig { udp_alternate, ..MatchmakerConfig::default() }),
            public: PublicUdp::new(false, Vec::new(), seat.start),
            connections: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_key: 0,
            out: VecDeque::new(),
            offers_forwarded: Vec::new(),
        }
    }

    /// When it forwarded an offer.
    #[must_use]
    pub fn offers_forwarded(&self) -> &[Instant] {
        &self.offers_forwarded
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        payload: &[u8],
    ) {
        if let Some(reply) = self.public.answer(payload, from, None, now) {
            self.out.push_back(Transmit { socket, to: from, ttl: None, payload: reply.payload });
        }
        if let Some(number) = connection_of(payload) {
            self.handle_connection(number, (socket, from), payload, now);
        }
        self.drain(now);
    }

    fn handle_connection(&mut self, number: u64, at: (SocketId, SocketAddr), payload: &[u8], now: Instant) {
        let fresh = || Connection { conduit: Conduit::new(number), key: None, at };
        let connection = self.connections.entry(number).or_insert_with(fresh);
        if connection.at != at {
            connection.at = at;
            if let Some(key) = connection.key {
                self.matchmaker.handle_rebound(key, at.1);
            }
        }
        for message in connection.conduit.handle(payload) {
            match connection.key {
                // First on a connection is who it is, which TLS proves in the product.
                None => {
                    let Ok(id) = message.as_slice().try_into() else { continue };
                    self.next_key += 1;
                    connection.key = Some(self.next_key);
                    self.by_key.insert(self.next_key, number);
                    self.matchmaker.handle_connected(self.next_key, PeerId::from_bytes(id), at.1, now);
                }
                Some(key) => match wire::parse(&message) {
                    Ok(message) => self.matchmaker.handle_message(key, message, now),
                    Err(_) => self.matchmaker.handle_malformed(key),
                },
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.matchmaker.handle_timeout(now);
        self.drain(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let repeats =
            self.connections.values().filter_map(|connection| connection.conduit.poll_timeout()).min();
        earliest(repeats, self.matchmaker.poll_timeout())
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    fn drain(&mut self, now: Instant) {
        while let Some(action) = self.matchmaker.poll_action() {
            match action {
                MatchmakerAction::Send(key, message) => {
                    if matches!(message, FromServer::Offer { .. }) {
                        self.offers_forwarded.push(now);
                    }
                    let connection =
                        self.by_key.get(&key).and_then(|number| self.connections.get_mut(number));
                    if let Some(connection) = connection {
                        connection.conduit.send(wire::body(&message), now);
                    }
                }
                MatchmakerAction::Close(key, _) => {
                    if let Some(number) = self.by_key.remove(&key) {
                        self.connections.remove(&number);
                    }
                }
            }
        }
        for Connection { conduit, at: (socket, to), .. } in self.connections.values_mut() {
            while let Some(payload) = conduit.poll_transmit(now) {
                self.out.push_back(Transmit { socket: *socket, to: *to, ttl: None, payload });
            }
        }
    }
}
