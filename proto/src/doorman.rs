//! **Doorman**: whom a sharer lets in.
//!
//! An offer is looked at before one packet leaves for whoever sent it: does its MAC prove a ticket of
//! ours, is the ticket still good, is the offer new? What was accepted once is remembered, so that the same
//! bytes again are ignored. Memory is bounded by generations: when one is full, the one before is
//! forgotten, and from then on an offer must carry the challenge of a generation that is remembered. The
//! same holds from the start for a ticket that is older than this process, whose earlier offers somebody
//! may have kept.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::id::{Instance, PeerId, ShareId, TicketId};
use crate::machine::random;
use crate::nat::NatProfile;
use crate::proof::{self, CheckKeys, Exchange, NatWord, Place, TicketSecret};
use crate::wire::VERSION;
use crate::wire::peer::Hello;
use crate::wire::signal::{Answer, Challenge, Claims, Mac, Nonce, Offer, Refusal, SealedNat, Verdict};

/// How many accepted offers one generation remembers (16 bytes each).
pub const GENERATION: usize = 4096;

/// A ticket as its sharer keeps it.
#[derive(Debug, Clone)]
pub struct Admission {
    /// What its holder proves.
    pub secret: TicketSecret,
    /// When it ends, in seconds since 1970.
    pub expires: Option<u64>,
    /// Whether it was made by this very process, so that no offer under it can be older.
    pub fresh: bool,
}

/// What to do with an offer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made once an offer and taken apart at once")]
pub enum Decision {
    /// Send the answer and begin checks.
    Admit {
        /// To the connector.
        answer: Answer,
        /// For the checks.
        keys: CheckKeys,
        /// For the MACs of trickles.
        exchange: Exchange,
        /// Of the ticket, for the same.
        secret: TicketSecret,
        /// What the connector says of its NAT.
        nat: Option<NatProfile>,
    },
    /// Send the answer and nothing else.
    Answer(Answer),
    /// Send nothing: the offer was seen before.
    Replayed,
}

/// Counts of offers by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoormanStats {
    /// Let in.
    pub admitted: u64,
    /// Asked to come again with a challenge.
    pub challenged: u64,
    /// Refused.
    pub refused: u64,
    /// Ignored as seen before.
    pub replayed: u64,
}

/// The machine, one for each share of a process.
#[derive(Debug)]
pub struct Doorman {
    me: PeerId,
    instance: Instance,
    share: ShareId,
    tickets: BTreeMap<TicketId, Admission>,
    /// The ticket that was admitted last: its holders are told of our NAT before they are let in.
    newest: Option<TicketId>,
    /// What they were told last.
    told: Option<NatWord>,
    key: [u8; 32],
    generation: u64,
    current: BTreeSet<Nonce>,
    previous: BTreeSet<Nonce>,
    rng: ChaCha12Rng,
    stats: DoormanStats,
}

impl Doorman {
    /// The doorman of `share`, which `me` shares from `instance`.
    pub fn new(me: PeerId, instance: Instance, share: ShareId, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        Self {
            me,
            instance,
            share,
            tickets: BTreeMap::new(),
            newest: None,
            told: None,
            key: random(&mut rng),
            generation: 0,
            current: BTreeSet::new(),
            previous: BTreeSet::new(),
            rng,
            stats: DoormanStats::default(),
        }
    }

    /// Lets the holders of a ticket in from here on.
    pub fn admit(&mut self, ticket: TicketId, admission: Admission) {
        self.tickets.insert(ticket, admission);
        (self.newest, self.told) = (Some(ticket), None);
    }

    /// No longer does.
    pub fn revoke(&mut self, ticket: TicketId) {
        self.tickets.remove(&ticket);
    }

    /// What is to lie at `server` for who holds the newest ticket, where it is not what lies there: our NAT, as far as it
    /// is known, or nothing any more. A share with several tickets tells no others.
    pub fn describe(
        &mut self,
        server: PeerId,
        word: Option<NatWord>,
        unix_secs: u64,
    ) -> Option<Option<SealedNat>> {
        if std::mem::replace(&mut self.told, word) == word {
            return None;
        }
        let newest = self.newest.and_then(|ticket| Some((ticket, self.tickets.get(&ticket)?)));
        let good = newest.filter(|(_, it)| it.expires.is_none_or(|expires| unix_secs < expires));
        let (Some((ticket, admission)), Some(word)) = (good, word) else { return Some(None) };
        let place = Place { sharer: self.me, instance: self.instance, server, share: self.share, ticket };
        let sealed = admission.secret.seal_nat(&place, &word, random(&mut self.rng));
        Some(Some(SealedNat { ticket, sealed }))
    }

    /// The counts so far.
    pub const fn stats(&self) -> DoormanStats {
        self.stats
    }

    /// Judges an offer that `server` forwarded. `claims` are our own, for the answer, or none where there is
    /// no room for one more; `nat` is what is known of our NAT, for the same; `unix_secs` is the wall clock, which
    /// only expiry looks at.
    pub fn handle_offer(
        &mut self,
        server: PeerId,
        from: (PeerId, Instance),
        offer: &Offer,
        claims: Option<Claims>,
        nat: Option<NatProfile>,
        unix_secs: u64,
    ) -> Decision {
        let exchange = self.exchange(server, from, offer.ticket);
        let Some(ticket) = self.tickets.get(&offer.ticket) else {
            return self.refuse(&exchange, None, offer, Refusal::WrongTicket);
        };
        let secret = ticket.secret.clone();
        if offer.version != VERSION {
            return self.refuse(&exchange, Some(&secret), offer, Refusal::Version);
        }
        if offer.share != self.share || !secret.proves_offer(&exchange, offer) {
            return self.refuse(&exchange, Some(&secret), offer, Refusal::WrongTicket);
        }
        if ticket.expires.is_some_and(|expires| unix_secs >= expires) {
            return self.refuse(&exchange, Some(&secret), offer, Refusal::Expired);
        }
        let fresh = ticket.fresh && self.generation == 0;
        if self.current.contains(&offer.nonce) || self.previous.contains(&offer.nonce) {
            self.stats.replayed += 1;
            return Decision::Replayed;
        }
        if !(fresh && offer.challenge.is_none() || offer.challenge.is_some_and(|c| self.is_current(c))) {
            self.stats.challenged += 1;
            let verdict = Verdict::Again(proof::challenge(&self.key, self.generation));
            return Decision::Answer(self.answer(&exchange, Some(&secret), offer, verdict));
        }
        let Some(claims) = claims else {
            return self.refuse(&exchange, Some(&secret), offer, Refusal::Full);
        };
        self.remember(offer.nonce);
        self.stats.admitted += 1;
        let nonce = Nonce(random(&mut self.rng));
        let keys = secret.check_keys(&exchange, self.instance, offer.username, offer.nonce, nonce);
        let mut answer = self.answer(&exchange, Some(&secret), offer, Verdict::Accepted { nonce, claims });
        let (me, place) = ((self.me, self.instance), (offer.nonce, 0));
        answer.nat = nat.map(|profile| secret.nat_hint(&exchange, me, place, (profile, 0)));
        let theirs = offer.nat.filter(|hint| secret.proves_nat(&exchange, from, place, hint));
        Decision::Admit { answer, keys, exchange, secret, nat: theirs.map(|hint| hint.profile) }
    }

    /// Judges the proof on an open connection from `from`, whose TLS exporter gave `exporter`.
    ///
    /// # Errors
    /// The refusal to send.
    pub fn check_hello(
        &self,
        server: PeerId,
        from: PeerId,
        hello: &Hello,
        exporter: &[u8; 32],
        unix_secs: u64,
    ) -> Result<(), Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Version);
        }
        let ticket = self.tickets.get(&hello.ticket).ok_or(Refusal::WrongTicket)?;
        let exchange = self.exchange(server, (from, hello.instance), hello.ticket);
        if hello.share != self.share || !ticket.secret.proves_connection(&exchange, exporter, &hello.proof) {
            return Err(Refusal::WrongTicket);
        }
        match ticket.expires {
            Some(expires) if unix_secs >= expires => Err(Refusal::Expired),
            Some(_) | None => Ok(()),
        }
    }

    fn exchange(&self, server: PeerId, from: (PeerId, Instance), ticket: TicketId) -> Exchange {
        Exchange {
            connector: from.0,
            connector_instance: from.1,
            sharer: self.me,
            server,
            share: self.share,
            ticket,
        }
    }

    fn is_current(&self, challenge: Challenge) -> bool {
        challenge == proof::challenge(&self.key, self.generation)
            || self.generation > 0 && challenge == proof::challenge(&self.key, self.generation - 1)
    }

    fn remember(&mut self, nonce: Nonce) {
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
            self.generation += 1;
        }
        self.current.insert(nonce);
    }

    fn refuse(
        &mut self,
        exchange: &Exchange,
        secret: Option<&TicketSecret>,
        offer: &Offer,
        refusal: Refusal,
    ) -> Decision {
        self.stats.refused += 1;
        Decision::Answer(self.answer(exchange, secret, offer, Verdict::Refused(refusal)))
    }

    fn answer(
        &self,
        exchange: &Exchange,
        secret: Option<&TicketSecret>,
        offer: &Offer,
        verdict: Verdict,
    ) -> Answer {
        let mut answer =
            Answer { version: VERSION, offer: offer.nonce, verdict, mac: Mac([0; 32]), nat: None };
        if let Some(secret) = secret {
            answer.mac = secret.answer_mac(exchange, self.instance, &answer);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
