//! What a sharer says of its NAT to whoever holds its ticket, by way of a server that can't read it.
//!
//! It lies at the server beside the registration of the share, so that a connector has it as soon as its offer is
//! on its way. An offer or an answer says the same later and with authority; this is no more than a hint.

use ring::{aead, hkdf};
use serde::{Deserialize, Serialize};

use super::TicketSecret;
use crate::id::{Instance, PeerId, ShareId, TicketId};
use crate::nat::NatProfile;
use crate::wire;

const SEALED: &[u8] = b"culvert/1 sealed nat";

/// Random bytes in front of what is sealed.
const NONCE: usize = aead::NONCE_LEN;

/// What is sealed is always as long, zeroes at its end, so that its length says nothing. The longest takes 13.
const PLAIN: usize = 16;

/// Where a sealed word belongs: elsewhere it can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Who shares.
    pub sharer: PeerId,
    /// Which process of it.
    pub instance: Instance,
    /// By which server.
    pub server: PeerId,
    /// What is shared.
    pub share: ShareId,
    /// Under which ticket.
    pub ticket: TicketId,
}

/// What a sharer knows of the way in to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatWord {
    /// Its NAT.
    pub profile: NatProfile,
    /// Whether its router maps a port to it, whatever the NAT is like otherwise.
    pub is_mapped: bool,
}

impl TicketSecret {
    /// Seals a word with ChaCha20-Poly1305 (RFC 8439) under a key for this place alone (HKDF-SHA-256, RFC 5869).
    /// `nonce` is random, another one each time.
    pub fn seal_nat(&self, place: &Place, word: &NatWord, nonce: [u8; NONCE]) -> Vec<u8> {
        let mut text = wire::body(word);
        debug_assert!(text.len() <= PLAIN, "no word is longer");
        text.resize(PLAIN, 0);
        self.sealing_key(place)
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::empty(),
                &mut text,
            )
            .expect("a few bytes can always be sealed");
        [&nonce[..], &text].concat()
    }

    /// Opens it, if it is from this place and whole. Bytes behind the word that a later version may have put there
    /// are ignored.
    pub fn open_nat(&self, place: &Place, sealed: &[u8]) -> Option<NatWord> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE>()?;
        let (nonce, mut text) = (aead::Nonce::assume_unique_for_key(*nonce), text.to_vec());
        let plain = self.sealing_key(place).open_in_place(nonce, aead::Aad::empty(), &mut text).ok()?;
        let (word, _rest) = postcard::take_from_bytes(plain).ok()?;
        Some(word)
    }

    fn sealing_key(&self, place: &Place) -> aead::LessSafeKey {
        let place = wire::body(place);
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, SEALED)
            .extract(&self.0)
            .expand(&[&place], &aead::CHACHA20_POLY1305)
            .map(aead::UnboundKey::from)
            .expect("one hash length is always to be had");
        aead::LessSafeKey::new(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{Allocation, Dependence, PortRange};
    use crate::wire::signal::MAX_SEALED;

    const SECRET: TicketSecret = TicketSecret::from_bytes([9; 16]);

    const PLACE: Place = Place {
        sharer: PeerId::from_bytes([1; 32]),
        instance: Instance([2; 8]),
        server: PeerId::from_bytes([3; 32]),
        share: ShareId([4; 8]),
        ticket: TicketId([5; 8]),
    };

    fn word(allocation: Option<Allocation>, is_mapped: bool) -> NatWord {
        let mapping = Dependence::AddressAndPortDependent;
        NatWord { profile: NatProfile { mapping, allocation, latest: u16::MAX }, is_mapped }
    }

    fn drawn() -> NatWord {
        word(Some(Allocation::Random { range: PortRange::new(u16::MAX - 1, u16::MAX) }), true)
    }

    #[test]
    fn the_bytes_of_a_sealed_word_are_pinned() {
        let pinned = "070707070707070707070707\
                      498d6e256aa4c9adcc53a8370aa4a313a189af1ed93695956af6fbdf6be8e5f8";
        let sealed = SECRET.seal_nat(&PLACE, &drawn(), [7; 12]);
        assert_eq!(data_encoding::HEXLOWER.encode(&sealed), pinned);
    }

    #[test]
    fn all_words_are_opened_again_and_are_as_long_as_each_other() {
        for word in [word(None, false), word(Some(Allocation::Preserving), true), drawn()] {
            let sealed = SECRET.seal_nat(&PLACE, &word, [7; 12]);
            assert_eq!((SECRET.open_nat(&PLACE, &sealed), sealed.len()), (Some(word), 44));
            assert!(sealed.len() <= MAX_SEALED);
        }
    }

    #[test]
    fn a_word_is_opened_by_nobody_else_and_nowhere_else() {
        let sealed = SECRET.seal_nat(&PLACE, &drawn(), [7; 12]);
        assert_eq!(TicketSecret::from_bytes([8; 16]).open_nat(&PLACE, &sealed), None);
        let other = PeerId::from_bytes([99; 32]);
        for elsewhere in [
            Place { sharer: other, ..PLACE },
            Place { instance: Instance([99; 8]), ..PLACE },
            Place { server: other, ..PLACE },
            Place { share: ShareId([99; 8]), ..PLACE },
            Place { ticket: TicketId([99; 8]), ..PLACE },
        ] {
            assert_eq!(SECRET.open_nat(&elsewhere, &sealed), None, "{elsewhere:?}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_word_is_noticed_and_every_cut() {
        let sealed = SECRET.seal_nat(&PLACE, &drawn(), [7; 12]);
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SECRET.open_nat(&PLACE, &bent), None, "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(SECRET.open_nat(&PLACE, &sealed[..cut]), None, "cut at {cut}");
        }
    }
}
