//! **Dial**: a connector's way through offer and answer to the keys of an exchange.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::candidate::CandidateKind;
use crate::id::{Instance, PeerId};
use crate::machine::random;
use crate::nat::NatProfile;
use crate::proof::{CheckKeys, Exchange, Place};
use crate::punch::{Method, method};
use crate::seen::Seen;
use crate::ticket::Ticket;
use crate::wire::VERSION;
use crate::wire::session::Undeliverable;
use crate::wire::signal::{
    Answer, Challenge, Claims, Mac, Nonce, Offer, Refusal, RelayHint, SealedNat, Username, Verdict,
};

/// How long a sharer may take to answer before it counts as away.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often one dial may be asked to come again: a sharer that asks without end is not worth more.
const MAX_CHALLENGES: u8 = 3;

/// How a dial ends without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody shares this there now.
    Offline,
    /// The server was asked too often.
    Busy,
    /// The sharer did not answer in time.
    NoAnswer,
    /// The sharer refused. [`Refusal::WrongTicket`] also stands for an answer that does not prove the
    /// ticket's secret.
    Refused(Refusal),
}

/// What comes of a dial.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made once a dial")]
pub enum DialEvent {
    /// Packets may be addressed to this process of the sharer.
    Forwarded {
        /// The process.
        instance: Instance,
        /// The relay at which it waits.
        relay: Option<RelayHint>,
        /// Whether no direct path leads through both NATs, by what the sharer last said of its own. Its answer may
        /// say better, and is what counts.
        is_hopeless: bool,
    },
    /// Let in.
    Accepted {
        /// The nonce of the offer that was.
        offer: Nonce,
        /// Which process of the sharer.
        instance: Instance,
        /// For the checks.
        keys: CheckKeys,
        /// What the sharer says of itself.
        claims: Claims,
        /// Where the server sees it.
        observed: Seen,
        /// What it says of its NAT.
        nat: Option<NatProfile>,
    },
    /// Not.
    Failed(DialFailure),
}

/// The machine, for one attempt.
#[derive(Debug)]
pub struct Dial {
    ticket: Ticket,
    exchange: Exchange,
    claims: Claims,
    nat: Option<NatProfile>,
    current: Offer,
    challenges: u8,
    deadline: Option<Instant>,
    rng: ChaCha12Rng,
    transmits: VecDeque<Offer>,
    events: VecDeque<DialEvent>,
}

impl Dial {
    /// Offers at once, with these claims and what is known of our NAT, from this process of `me`.
    pub fn new(
        ticket: Ticket,
        me: (PeerId, Instance),
        claims: Claims,
        nat: Option<NatProfile>,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let exchange = Exchange {
            connector: me.0,
            connector_instance: me.1,
            sharer: ticket.sharer,
            server: ticket.server.peer_id,
            share: ticket.share,
            ticket: ticket.id,
        };
        let mut rng = ChaCha12Rng::from_seed(seed);
        let current = offer(&ticket, &exchange, (claims.clone(), nat), None, &mut rng);
        Self {
            ticket,
            exchange,
            claims,
            nat,
            current: current.clone(),
            challenges: 0,
            deadline: Some(now + ANSWER_TIMEOUT),
            rng,
            transmits: VecDeque::from([current]),
            events: VecDeque::new(),
        }
    }

    /// The exchange, for the proof on the open connection.
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// What it says of ourselves.
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What it says of our NAT.
    pub const fn nat(&self) -> Option<NatProfile> {
        self.nat
    }

    /// Whether this dial is the one that `offer` names.
    pub fn is(&self, offer: Nonce) -> bool {
        self.current.nonce == offer
    }

    /// There is a new session with the server, and an offer that was under way was lost with the old one, or its
    /// answer was: it is made again, under another nonce. Nothing is said of a NAT that may not be ours any more.
    pub fn handle_new_session(&mut self, now: Instant) {
        if self.deadline.is_some() {
            self.deadline = Some(now + ANSWER_TIMEOUT);
            self.nat = None;
            self.transmits.clear();
            self.offer(None);
        }
    }

    /// The server forwarded the offer.
    pub fn handle_forwarded(
        &mut self,
        offer: Nonce,
        instance: Instance,
        relay: Option<RelayHint>,
        nat: Option<&SealedNat>,
    ) {
        if self.is(offer) && self.deadline.is_some() {
            let is_hopeless = nat.is_some_and(|nat| self.is_hopeless(instance, nat));
            self.events.push_back(DialEvent::Forwarded { instance, relay, is_hopeless });
        }
    }

    /// Whether our ports and those of the sharer's NAT would both have to be found. A port that a router maps need not
    /// be.
    fn is_hopeless(&self, instance: Instance, nat: &SealedNat) -> bool {
        let Exchange { sharer, server, share, ticket, .. } = self.exchange;
        let place = Place { sharer, instance, server, share, ticket };
        let word = (nat.ticket == ticket).then(|| self.ticket.secret.open_nat(&place, &nat.sealed)).flatten();
        let (Some(ours), Some(theirs)) = (self.nat, word) else { return false };
        let is_mapped = self.claims.candidates.iter().any(|it| it.kind == CandidateKind::Mapped);
        let is_assumed = ours.is_assumed() || theirs.profile.is_assumed();
        !is_assumed
            && !is_mapped
            && !theirs.is_mapped
            && method(&ours, Some(&theirs.profile)) == Method::Hopeless
    }

    /// The server did not.
    pub fn handle_undelivered(&mut self, offer: Nonce, reason: Undeliverable) {
        if self.is(offer) {
            self.fail(match reason {
                Undeliverable::Offline => DialFailure::Offline,
                Undeliverable::Busy => DialFailure::Busy,
            });
        }
    }

    /// The sharer answered. An answer to any but the current offer, or from anybody else, is ignored.
    pub fn handle_answer(&mut self, from: (PeerId, Instance), observed: Seen, answer: &Answer) {
        if !self.is(answer.offer) || from.0 != self.ticket.sharer || self.deadline.is_none() {
            return;
        }
        if !self.ticket.secret.proves_answer(&self.exchange, from.1, answer) {
            return self.fail(DialFailure::Refused(Refusal::WrongTicket));
        }
        if answer.version != VERSION {
            return self.fail(DialFailure::Refused(Refusal::Version));
        }
        match &answer.verdict {
            Verdict::Accepted { nonce, claims } => {
                self.deadline = None;
                let keys = self.ticket.secret.check_keys(
                    &self.exchange,
                    from.1,
                    self.current.username,
                    self.current.nonce,
                    *nonce,
                );
                let claims = claims.clone();
                let (secret, place) = (&self.ticket.secret, (answer.offer, 0));
                let hint = answer.nat.filter(|hint| secret.proves_nat(&self.exchange, from, place, hint));
                self.events.push_back(DialEvent::Accepted {
                    offer: answer.offer,
                    instance: from.1,
                    keys,
                    claims,
                    observed,
                    nat: hint.map(|hint| hint.profile),
                });
            }
            Verdict::Again(challenge) if self.challenges < MAX_CHALLENGES => {
                self.challenges += 1;
                self.offer(Some(*challenge));
            }
            Verdict::Again(_) => self.fail(DialFailure::NoAnswer),
            Verdict::Refused(refusal) => self.fail(DialFailure::Refused(*refusal)),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.fail(DialFailure::NoAnswer);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// An offer to send to the ticket's sharer.
    pub fn poll_transmit(&mut self) -> Option<Offer> {
        self.transmits.pop_front()
    }

    /// What came of it.
    pub fn poll_event(&mut self) -> Option<DialEvent> {
        self.events.pop_front()
    }

    fn offer(&mut self, challenge: Option<Challenge>) {
        let said = (self.claims.clone(), self.nat);
        self.current = offer(&self.ticket, &self.exchange, said, challenge, &mut self.rng);
        self.transmits.push_back(self.current.clone());
    }

    fn fail(&mut self, failure: DialFailure) {
        if self.deadline.take().is_some() {
            self.events.push_back(DialEvent::Failed(failure));
        }
    }
}

fn offer(
    ticket: &Ticket,
    exchange: &Exchange,
    (claims, nat): (Claims, Option<NatProfile>),
    challenge: Option<Challenge>,
    rng: &mut ChaCha12Rng,
) -> Offer {
    let mut offer = Offer {
        version: VERSION,
        share: ticket.share,
        ticket: ticket.id,
        nonce: Nonce(random(rng)),
        username: Username(random(rng)),
        challenge,
        claims,
        mac: Mac([0; 32]),
        nat: None,
    };
    offer.mac = ticket.secret.offer_mac(exchange, &offer);
    let (me, place) = ((exchange.connector, exchange.connector_instance), (offer.nonce, 0));
    offer.nat = nat.map(|profile| ticket.secret.nat_hint(exchange, me, place, (profile, 0)));
    offer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::Candidate;
    use crate::clock::start;
    use crate::id::{ShareId, TicketId};
    use crate::nat::{Allocation, Dependence, PortRange};
    use crate::proof::{NatWord, TicketSecret};
    use crate::ticket::ServerHint;

    const SHARER: (PeerId, Instance) = (PeerId::from_bytes([2; 32]), Instance([2; 8]));
    const ME: (PeerId, Instance) = (PeerId::from_bytes([3; 32]), Instance([3; 8]));

    const NAT: NatProfile =
        NatProfile { mapping: Dependence::AddressAndPortDependent, allocation: None, latest: 40_000 };

    fn ticket() -> Ticket {
        let server = ServerHint { url: String::new(), udp: vec![], peer_id: PeerId::from_bytes([1; 32]) };
        Ticket {
            version: VERSION,
            id: TicketId([4; 8]),
            secret: TicketSecret::from_bytes([5; 16]),
            expires: None,
            share: ShareId([6; 8]),
            server,
            relay: None,
            sharer: SHARER.0,
        }
    }

    fn dial(now: Instant) -> (Dial, Offer) {
        let mut dial = Dial::new(ticket(), ME, Claims::default(), Some(NAT), [7; 32], now);
        let offer = dial.poll_transmit().unwrap();
        (dial, offer)
    }

    fn answer(dial: &Dial, offer: &Offer, secret: &TicketSecret, verdict: Verdict) -> Answer {
        let mut answer =
            Answer { version: VERSION, offer: offer.nonce, verdict, mac: Mac([0; 32]), nat: None };
        answer.mac = secret.answer_mac(dial.exchange(), SHARER.1, &answer);
        answer
    }

    fn accepted() -> Verdict {
        Verdict::Accepted { nonce: Nonce([8; 16]), claims: Claims::default() }
    }

    #[test]
    fn an_accepted_offer_gives_the_keys_that_the_sharer_derives() {
        let (mut dial, offer) = dial(start());
        let answer = answer(&dial, &offer, &ticket().secret, accepted());
        dial.handle_answer(SHARER, Seen::NOWHERE, &answer);
        let Some(DialEvent::Accepted { keys, .. }) = dial.poll_event() else { panic!("not accepted") };
        let theirs = ticket().secret.check_keys(
            dial.exchange(),
            SHARER.1,
            offer.username,
            offer.nonce,
            Nonce([8; 16]),
        );
        assert!(keys == theirs);
        assert_eq!(dial.poll_timeout(), None);
    }

    #[test]
    fn what_an_answer_says_of_a_nat_counts_where_its_sharer_said_it() {
        for (speaker, heard) in [(SHARER, Some(NAT)), (ME, None)] {
            let (mut dial, offer) = dial(start());
            let hint = ticket().secret.nat_hint(dial.exchange(), speaker, (offer.nonce, 0), (NAT, 0));
            let answer = answer(&dial, &offer, &ticket().secret, accepted());
            dial.handle_answer(SHARER, Seen::NOWHERE, &Answer { nat: Some(hint), ..answer });
            let Some(DialEvent::Accepted { nat, .. }) = dial.poll_event() else { panic!("not accepted") };
            assert_eq!(nat, heard);
        }
    }

    const DRAWN: NatProfile =
        NatProfile { allocation: Some(Allocation::Random { range: PortRange::new(1024, 65_535) }), ..NAT };

    /// What the server's first word tells a connector, by its own NAT and claims, and by what the sharer said.
    fn foresees(ours: Option<NatProfile>, claims: Claims, said: NatWord, by: Instance) -> bool {
        let mut dial = Dial::new(ticket(), ME, claims, ours, [7; 32], start());
        let Exchange { sharer, server, share, ticket: id, .. } = *dial.exchange();
        let place = Place { sharer, instance: SHARER.1, server, share, ticket: id };
        let nat = SealedNat { ticket: id, sealed: ticket().secret.seal_nat(&place, &said, [1; 12]) };
        let offer = dial.poll_transmit().unwrap();
        dial.handle_forwarded(offer.nonce, by, None, Some(&nat));
        let Some(DialEvent::Forwarded { is_hopeless, .. }) = dial.poll_event() else { panic!("no event") };
        is_hopeless
    }

    #[test]
    fn a_pair_is_hopeless_by_the_first_word_where_both_draw_ports_and_neither_has_a_mapped_one() {
        let none = Claims::default;
        let drawn = NatWord { profile: DRAWN, is_mapped: false };
        assert!(foresees(Some(DRAWN), none(), drawn, SHARER.1));
        assert!(!foresees(None, none(), drawn, SHARER.1), "nothing is known of ours");
        assert!(!foresees(Some(DRAWN), none(), drawn, ME.1), "another process said it");
        assert!(!foresees(Some(DRAWN), none(), NatWord { is_mapped: true, ..drawn }, SHARER.1));
        assert!(!foresees(Some(DRAWN), none(), NatWord { profile: NAT, ..drawn }, SHARER.1));
        let assumed = NatProfile { mapping: Dependence::AddressDependent, ..DRAWN };
        assert!(!foresees(Some(DRAWN), none(), NatWord { profile: assumed, ..drawn }, SHARER.1));
        assert!(!foresees(Some(assumed), none(), drawn, SHARER.1));
        let mapped = Candidate::new(CandidateKind::Mapped, "198.51.100.1:4000".parse().unwrap());
        let claims = Claims { candidates: vec![mapped], relay: None };
        assert!(!foresees(Some(DRAWN), claims, drawn, SHARER.1));
    }

    #[test]
    fn an_offer_tells_of_our_nat_until_the_session_is_another() {
        let now = start();
        let (mut dial, first) = dial(now);
        let is_ours = |dial: &Dial, offer: &Offer| {
            let place = (offer.nonce, 0);
            offer.nat.is_some_and(|hint| ticket().secret.proves_nat(dial.exchange(), ME, place, &hint))
        };
        assert!(is_ours(&dial, &first));
        let again = answer(&dial, &first, &ticket().secret, Verdict::Again(Challenge([9; 16])));
        dial.handle_answer(SHARER, Seen::NOWHERE, &again);
        let second = dial.poll_transmit().unwrap();
        assert!(is_ours(&dial, &second));
        dial.handle_new_session(now);
        assert_eq!((dial.poll_transmit().unwrap().nat, dial.nat()), (None, None));
    }

    #[test]
    fn an_answer_under_another_secret_means_the_ticket_is_wrong() {
        let (mut dial, offer) = dial(start());
        let answer = answer(&dial, &offer, &TicketSecret::from_bytes([0; 16]), accepted());
        dial.handle_answer(SHARER, Seen::NOWHERE, &answer);
        let event = dial.poll_event();
        assert!(matches!(event, Some(DialEvent::Failed(DialFailure::Refused(Refusal::WrongTicket)))));
    }

    #[test]
    fn an_answer_of_another_version_is_not_taken_for_ours() {
        let (mut dial, offer) = dial(start());
        let answer = Answer { version: 2, ..answer(&dial, &offer, &ticket().secret, accepted()) };
        // The MAC covers the version: only who knows the secret can say another one, as here.
        let mac = ticket().secret.answer_mac(dial.exchange(), SHARER.1, &answer);
        dial.handle_answer(SHARER, Seen::NOWHERE, &Answer { mac, ..answer });
        let event = dial.poll_event();
        assert!(matches!(event, Some(DialEvent::Failed(DialFailure::Refused(Refusal::Version)))));
    }

    #[test]
    fn an_answer_from_anybody_else_is_ignored() {
        let (mut dial, offer) = dial(start());
        let answer = answer(&dial, &offer, &ticket().secret, accepted());
        dial.handle_answer(ME, Seen::NOWHERE, &answer);
        dial.handle_answer(SHARER, Seen::NOWHERE, &Answer { offer: Nonce([0; 16]), ..answer });
        assert!(dial.poll_event().is_none());
    }

    #[test]
    fn a_challenged_offer_comes_again_with_a_new_nonce_and_not_for_ever() {
        let (mut dial, mut offer) = dial(start());
        for _ in 0..MAX_CHALLENGES {
            let challenge = Challenge([9; 16]);
            let again = answer(&dial, &offer, &ticket().secret, Verdict::Again(challenge));
            dial.handle_answer(SHARER, Seen::NOWHERE, &again);
            let next = dial.poll_transmit().unwrap();
            assert_eq!(next.challenge, Some(challenge));
            assert_ne!(next.nonce, offer.nonce);
            offer = next;
        }
        let again = answer(&dial, &offer, &ticket().secret, Verdict::Again(Challenge([9; 16])));
        dial.handle_answer(SHARER, Seen::NOWHERE, &again);
        assert!(dial.poll_transmit().is_none());
        assert!(matches!(dial.poll_event(), Some(DialEvent::Failed(DialFailure::NoAnswer))));
    }

    #[test]
    fn an_offer_that_was_lost_with_its_session_is_made_again_on_the_next() {
        let now = start();
        let (mut dial, first) = dial(now);
        let later = now + Duration::from_secs(5);
        dial.handle_new_session(later);
        let second = dial.poll_transmit().unwrap();
        assert_ne!(second.nonce, first.nonce);
        assert_eq!(dial.poll_timeout(), Some(later + ANSWER_TIMEOUT));
        let answer = answer(&dial, &second, &ticket().secret, accepted());
        dial.handle_answer(SHARER, Seen::NOWHERE, &answer);
        assert!(matches!(dial.poll_event(), Some(DialEvent::Accepted { .. })));
        dial.handle_new_session(later);
        assert!(dial.poll_transmit().is_none(), "what was accepted is not offered again");
    }

    #[test]
    fn a_sharer_that_does_not_answer_counts_as_away() {
        let now = start();
        let (mut dial, _) = dial(now);
        assert_eq!(dial.poll_timeout(), Some(now + ANSWER_TIMEOUT));
        dial.handle_timeout(now + ANSWER_TIMEOUT);
        assert!(matches!(dial.poll_event(), Some(DialEvent::Failed(DialFailure::NoAnswer))));
    }
}
