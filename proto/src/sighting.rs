//! **Sightings**: how a server comes to know a peer's address in the family that its session does not use.
//!
//! The peer sends a Binding request from its main socket to the server's address of that family. The answer has the
//! mapped address and a [`Proof`]: a MAC by which the server knows its own words again. The peer hands both in on its
//! session. The proof came by a packet to the address, so whoever hands it in hears what is sent there; a spoofed
//! request shows the proof to the owner of the address alone. The server remembers nothing of the request.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use ring::hmac;

use crate::candidate::canonical;
use crate::machine::{earliest, random};
use crate::seen::Seen;
use crate::stun::{self, Transaction};

/// For how long a proof is made alike. It is believed for that and the time before: half a minute to a minute.
const SLOT: Duration = Duration::from_secs(30);

/// From one request to the next while there is an answer: half of the 30 s for which common NATs keep a binding.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// From a request to the next one while no answer comes; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest time between two requests to an address that does not answer.
const LAST_RETRY: Duration = Duration::from_secs(120);

/// Requests without an answer after which an address that has answered counts as silent.
const SILENT_AFTER: u32 = 4;

/// The most addresses that are asked at once.
const MAX_ASKED: usize = 8;

/// What a server says of an address, so that it knows it again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

impl fmt::Debug for Proof {
    /// Without its bytes, which are a secret of the server and the peer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// Makes and checks proofs. A server's sockets and its sessions have the same one.
#[derive(Debug, Clone)]
pub struct Notary {
    key: hmac::Key,
    began: Instant,
}

impl Notary {
    /// With a secret of this process alone.
    pub fn new(secret: [u8; 32], now: Instant) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), began: now }
    }

    /// The proof for what is seen at this address now.
    pub fn prove(&self, addr: SocketAddr, now: Instant) -> Proof {
        let mut proof = Proof([0; 32]);
        proof.0.copy_from_slice(hmac::sign(&self.key, &said(addr, self.slot(now))).as_ref());
        proof
    }

    /// Whether a proof is one of these, and not older than a minute.
    pub fn proves(&self, addr: SocketAddr, proof: &Proof, now: Instant) -> bool {
        let slot = self.slot(now);
        let was_made_in = |slot: u64| hmac::verify(&self.key, &said(addr, slot), &proof.0).is_ok();
        was_made_in(slot) || slot.checked_sub(1).is_some_and(was_made_in)
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs()
    }
}

/// What a proof is the MAC of.
fn said(addr: SocketAddr, slot: u64) -> Vec<u8> {
    let addr = canonical(addr);
    let mut said = b"culvert sighting".to_vec();
    match addr {
        SocketAddr::V4(v4) => said.extend([&[4][..], &v4.ip().octets()].concat()),
        SocketAddr::V6(v6) => said.extend([&[6][..], &v6.ip().octets()].concat()),
    }
    said.extend(addr.port().to_be_bytes());
    said.extend(slot.to_be_bytes());
    said
}

/// The server has seen our main socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The server's address that was asked.
    pub server: SocketAddr,
    /// Ours, as it was seen there.
    pub mapped: SocketAddr,
    /// What the server knows it again by.
    pub proof: Proof,
}

/// Asks a server's addresses where they see our main socket, and goes on asking those that answer, so that the NAT
/// keeps the binding.
#[derive(Debug)]
pub struct Sightings {
    rng: ChaCha12Rng,
    asked: BTreeMap<SocketAddr, Asked>,
    /// The family in which the session shows us already.
    session_sees_v4: Option<bool>,
    events: VecDeque<Sighting>,
}

#[derive(Debug)]
struct Asked {
    transaction: Transaction,
    /// Requests since the last answer.
    unanswered: u32,
    /// None for one that shows nothing which is not known.
    next: Option<Instant>,
    seen: Option<SocketAddr>,
}

impl Sightings {
    /// Asks nobody yet.
    pub fn new(seed: [u8; 32]) -> Self {
        let (asked, events) = (BTreeMap::new(), VecDeque::new());
        Self { rng: ChaCha12Rng::from_seed(seed), asked, session_sees_v4: None, events }
    }

    /// These are the server's addresses without that of the session, which sees us at an IPv4 address, or at an IPv6 one,
    /// if it sees us. What was asked before goes on.
    pub fn set_servers(
        &mut self,
        servers: impl IntoIterator<Item = SocketAddr>,
        session_sees_v4: Option<bool>,
        now: Instant,
    ) {
        self.session_sees_v4 = session_sees_v4;
        let (mut v4, mut v6): (Vec<_>, Vec<_>) =
            servers.into_iter().map(canonical).partition(SocketAddr::is_ipv4);
        v4.truncate(MAX_ASKED - v6.len().min(MAX_ASKED / 2));
        v6.truncate(MAX_ASKED - v4.len());
        let servers = [v4, v6].concat();
        self.asked.retain(|server, _| servers.contains(server));
        for server in servers {
            let transaction = random(&mut self.rng);
            let first = Asked { transaction, unanswered: 0, next: Some(now), seen: None };
            self.asked.entry(server).or_insert(first);
        }
        for asked in self.asked.values_mut() {
            if asked.seen.is_some_and(|seen| session_sees_v4 == Some(seen.is_ipv4())) {
                (asked.seen, asked.next) = (None, None);
            }
        }
    }

    /// The network has changed, or the session is another: everything is asked again, and told again.
    pub fn restart(&mut self, now: Instant) {
        for asked in self.asked.values_mut() {
            (asked.unanswered, asked.next, asked.seen) = (0, Some(now), None);
        }
    }

    /// Whether each address has answered, counts as silent, or shows nothing new: then [`Self::seen`] is all that there is.
    pub fn has_settled(&self) -> bool {
        let is_settled =
            |asked: &Asked| asked.seen.is_some() || asked.next.is_none() || asked.unanswered > SILENT_AFTER;
        self.asked.values().all(is_settled)
    }

    /// Where the main socket is seen beside the session.
    pub fn seen(&self) -> Seen {
        self.asked.values().filter_map(|asked| asked.seen).collect()
    }

    /// The server's address that sees the main socket at an address of this family.
    pub fn server(&self, is_v4: bool) -> Option<SocketAddr> {
        let sees = |asked: &Asked| asked.seen.is_some_and(|seen| seen.is_ipv4() == is_v4);
        self.asked.iter().find(|(_, asked)| sees(asked)).map(|(server, _)| *server)
    }

    /// Whether it was an answer to a question of this.
    pub fn handle_answer(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let from = canonical(from);
        let seen = self.seen();
        let Some(asked) = self.asked.get_mut(&from) else { return false };
        let Some(answer) = stun::BindingAnswer::read(datagram, asked.transaction) else { return false };
        asked.transaction = random(&mut self.rng);
        let mapped = canonical(answer.mapped);
        let is_known = self.session_sees_v4 == Some(mapped.is_ipv4()) || seen.like(mapped).is_some();
        if asked.seen.is_none() && is_known {
            // One address that shows this family is enough.
            asked.next = None;
            return true;
        }
        (asked.unanswered, asked.next) = (0, Some(now + KEEPALIVE));
        // An older server proves nothing; its word on a port is good all the same for fresh links.
        let is_news = asked.seen.replace(mapped) != Some(mapped);
        if let Some(proof) = answer.proof.filter(|_| is_news) {
            self.events.push_back(Sighting { server: from, mapped, proof });
        }
        true
    }

    /// A request that is due, and where it goes: from the main socket.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let (server, asked) =
            self.asked.iter_mut().find(|(_, asked)| asked.next.is_some_and(|at| at <= now))?;
        let wait = FIRST_RETRY.saturating_mul(1 << asked.unanswered.min(16)).min(LAST_RETRY);
        asked.unanswered += 1;
        asked.next = Some(now + wait);
        let (server, request) = (*server, stun::sighting_request(asked.transaction));
        if asked.unanswered > SILENT_AFTER && asked.seen.take().is_some() {
            // Another one may show what this one did.
            for resting in self.asked.values_mut().filter(|asked| asked.next.is_none()) {
                (resting.unanswered, resting.next) = (0, Some(now));
            }
        }
        Some((server, request))
    }

    /// When [`Self::poll_transmit`] has something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().fold(None, |next, asked| earliest(next, asked.next))
    }

    /// What the server has seen, to be handed in on the session.
    pub fn poll_event(&mut self) -> Option<Sighting> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
