//! Proofs of a ticket's secret: the MACs of offers, answers and trickles, the keys of connectivity checks,
//! the proof on an open connection, and the key under which a sharer's NAT is told. Each has a label of its own, so none
//! stands in for another.

mod sealed;

pub use sealed::{NatWord, Place};

use std::fmt;

use ring::{hkdf, hmac};
use serde::Serialize;

use crate::id::{Instance, PeerId, ShareId, TicketId};
use crate::nat::NatProfile;
use crate::wire::signal::{Answer, Challenge, Claims, Mac, NatHint, Nonce, Offer, Trickle, Username};
use crate::wire::{self, VERSION};

const OFFER: &[u8] = b"culvert/1 offer";
const ANSWER: &[u8] = b"culvert/1 answer";
const TRICKLE: &[u8] = b"culvert/1 trickle";
const NAT: &[u8] = b"culvert/1 nat";
const CONNECTION: &[u8] = b"culvert/1 connection";
const CHECKS: &[u8] = b"culvert/1 checks";

/// 128 random bits that whoever may enter a share knows. It has no text form outside a ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret([u8; 16]);

/// Between whom, and by which server, an exchange takes place: what every MAC of it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Who offers.
    pub connector: PeerId,
    /// Which process of it.
    pub connector_instance: Instance,
    /// Who shares.
    pub sharer: PeerId,
    /// By which server, so that another server can't forward what it overheard.
    pub server: PeerId,
    /// What is shared.
    pub share: ShareId,
    /// Under which ticket.
    pub ticket: TicketId,
}

/// The passwords of one exchange's connectivity checks, one a direction, so that a check that is thrown
/// back at its sender fails.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckKeys {
    /// Names the exchange in every request.
    pub username: Username,
    /// For requests of the connector and the answers to them.
    pub connector: String,
    /// For requests of the sharer and the answers to them.
    pub sharer: String,
}

impl TicketSecret {
    /// The secret with these bits.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bits, for the ticket and the sharer's file. Never to be logged.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The MAC of an offer, whose own `mac` field is not looked at.
    pub fn offer_mac(&self, exchange: &Exchange, offer: &Offer) -> Mac {
        self.mac(
            OFFER,
            &(exchange, offer.version, offer.nonce, offer.username, offer.challenge, &offer.claims),
        )
    }

    /// Whether an offer's MAC is right.
    pub fn proves_offer(&self, exchange: &Exchange, offer: &Offer) -> bool {
        self.proves(
            OFFER,
            &(exchange, offer.version, offer.nonce, offer.username, offer.challenge, &offer.claims),
            &offer.mac,
        )
    }

    /// The MAC of an answer by the sharer's `instance`; the answer's own `mac` field is not looked at.
    pub fn answer_mac(&self, exchange: &Exchange, instance: Instance, answer: &Answer) -> Mac {
        self.mac(ANSWER, &(exchange, answer.version, instance, answer.offer, &answer.verdict))
    }

    /// Whether an answer's MAC is right.
    pub fn proves_answer(&self, exchange: &Exchange, instance: Instance, answer: &Answer) -> bool {
        self.proves(ANSWER, &(exchange, answer.version, instance, answer.offer, &answer.verdict), &answer.mac)
    }

    /// The MAC of a trickle by `sender`, one of the exchange's two.
    pub fn trickle_mac(
        &self,
        exchange: &Exchange,
        sender: (PeerId, Instance),
        offer: Nonce,
        counter: u32,
        claims: &Claims,
    ) -> Mac {
        self.mac(TRICKLE, &(exchange, VERSION, sender, offer, counter, claims))
    }

    /// Whether a trickle's MAC is right.
    pub fn proves_trickle(&self, exchange: &Exchange, sender: (PeerId, Instance), trickle: &Trickle) -> bool {
        let Trickle { version, offer, counter, claims, mac, nat: _ } = trickle;
        self.proves(TRICKLE, &(exchange, version, sender, offer, counter, claims), mac)
    }

    /// What `sender` says of its NAT, for this round, with its trickle of this number, or with the offer or the
    /// answer itself, which have the number 0.
    pub fn nat_hint(
        &self,
        exchange: &Exchange,
        sender: (PeerId, Instance),
        (offer, counter): (Nonce, u32),
        (profile, round): (NatProfile, u8),
    ) -> NatHint {
        let mac = self.mac(NAT, &(exchange, VERSION, sender, offer, counter, &profile, round));
        NatHint { profile, round, mac }
    }

    /// Whether what was said with that message of its sender's NAT is the sender's.
    pub fn proves_nat(
        &self,
        exchange: &Exchange,
        sender: (PeerId, Instance),
        (offer, counter): (Nonce, u32),
        hint: &NatHint,
    ) -> bool {
        let NatHint { profile, round, mac } = hint;
        self.proves(NAT, &(exchange, VERSION, sender, offer, counter, profile, round), mac)
    }

    /// The proof on an open connection: over 32 bytes of its TLS exporter, so that it is worth nothing on
    /// any other.
    pub fn connection_proof(&self, exchange: &Exchange, exporter: &[u8; 32]) -> Mac {
        self.mac(CONNECTION, &(exchange, VERSION, exporter))
    }

    /// Whether the proof on an open connection is right.
    pub fn proves_connection(&self, exchange: &Exchange, exporter: &[u8; 32], proof: &Mac) -> bool {
        self.proves(CONNECTION, &(exchange, VERSION, exporter), proof)
    }

    /// The keys of an accepted exchange's checks (HKDF-SHA-256, RFC 5869), over both nonces and both
    /// instances.
    pub fn check_keys(
        &self,
        exchange: &Exchange,
        sharer_instance: Instance,
        username: Username,
        connector_nonce: Nonce,
        sharer_nonce: Nonce,
    ) -> CheckKeys {
        let context = wire::body(&(exchange, sharer_instance, username, connector_nonce, sharer_nonce));
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, CHECKS).extract(&self.0);
        let derive = |role: &[u8]| {
            let mut key = [0_u8; 32];
            secret
                .expand(&[role, &context], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut key))
                .expect("one hash length is always to be had");
            data_encoding::HEXLOWER.encode(&key)
        };
        CheckKeys { username, connector: derive(b"connector"), sharer: derive(b"sharer") }
    }

    fn mac<T: Serialize>(&self, label: &[u8], content: &T) -> Mac {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut mac = Mac([0; 32]);
        mac.0.copy_from_slice(hmac::sign(&key, &labelled(label, content)).as_ref());
        mac
    }

    fn proves<T: Serialize>(&self, label: &[u8], content: &T, mac: &Mac) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, &labelled(label, content), &mac.0).is_ok()
    }
}

/// `label ‖ 0x00 ‖ postcard(content)`.
fn labelled<T: Serialize>(label: &[u8], content: &T) -> Vec<u8> {
    let mut bytes = label.to_vec();
    bytes.push(0);
    bytes.extend(wire::body(content));
    bytes
}

/// A challenge that `key`, which never leaves its process, makes for one generation of offers.
pub(crate) fn challenge(key: &[u8; 32], generation: u64) -> Challenge {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, &generation.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&tag.as_ref()[..16]);
    Challenge(bytes)
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

impl fmt::Debug for CheckKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckKeys(of {:?})", self.username)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::{Candidate, CandidateKind};

    fn exchange() -> Exchange {
        Exchange {
            connector: PeerId::from_bytes([1; 32]),
            connector_instance: Instance([2; 8]),
            sharer: PeerId::from_bytes([3; 32]),
            server: PeerId::from_bytes([4; 32]),
            share: ShareId([5; 8]),
            ticket: TicketId([6; 8]),
        }
    }

    fn offer(secret: &TicketSecret) -> Offer {
        let mut offer = Offer {
            version: VERSION,
            share: ShareId([5; 8]),
            ticket: TicketId([6; 8]),
            nonce: Nonce([7; 16]),
            username: Username([8; 8]),
            challenge: None,
            claims: Claims::default(),
            mac: Mac([0; 32]),
            nat: None,
        };
        offer.mac = secret.offer_mac(&exchange(), &offer);
        offer
    }

    const SECRET: TicketSecret = TicketSecret::from_bytes([9; 16]);

    #[test]
    fn an_offer_proves_every_field_it_carries() {
        let good = offer(&SECRET);
        assert!(SECRET.proves_offer(&exchange(), &good));
        let candidate = Candidate::new(CandidateKind::Host, "192.168.1.2:1".parse().unwrap());
        let claims = Claims { candidates: vec![candidate], relay: None };
        for bad in [
            Offer { nonce: Nonce([0; 16]), ..good.clone() },
            Offer { username: Username([0; 8]), ..good.clone() },
            Offer { challenge: Some(Challenge([0; 16])), ..good.clone() },
            Offer { claims, ..good.clone() },
            Offer { version: 2, ..good.clone() },
            Offer { mac: Mac([0; 32]), ..good },
        ] {
            assert!(!SECRET.proves_offer(&exchange(), &bad), "{bad:?}");
        }
    }

    #[test]
    fn an_offer_is_worth_nothing_between_others() {
        let good = offer(&SECRET);
        let other = PeerId::from_bytes([99; 32]);
        for wrong in [
            Exchange { connector: other, ..exchange() },
            Exchange { sharer: other, ..exchange() },
            Exchange { server: other, ..exchange() },
            Exchange { connector_instance: Instance([0; 8]), ..exchange() },
            Exchange { share: ShareId([0; 8]), ..exchange() },
            Exchange { ticket: TicketId([0; 8]), ..exchange() },
        ] {
            assert!(!SECRET.proves_offer(&wrong, &good), "{wrong:?}");
        }
        assert!(!TicketSecret::from_bytes([0; 16]).proves_offer(&exchange(), &good));
    }

    #[test]
    fn check_keys_differ_by_direction_and_by_every_input() {
        let keys = |instance, connector, sharer| {
            SECRET.check_keys(
                &exchange(),
                Instance([instance; 8]),
                Username([1; 8]),
                Nonce([connector; 16]),
                Nonce([sharer; 16]),
            )
        };
        let base = keys(1, 2, 3);
        assert_ne!(base.connector, base.sharer);
        for other in [keys(9, 2, 3), keys(1, 9, 3), keys(1, 2, 9)] {
            assert_ne!(base.connector, other.connector);
            assert_ne!(base.sharer, other.sharer);
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert_eq!(format!("{SECRET:?}"), "TicketSecret(…)");
    }
}
