//! STUN (RFC 8489) as far as Culvert speaks it: Binding requests and answers, plain ones between anybody
//! and the server, authenticated ones as connectivity checks between peers.
//!
//! The codec is `stun-rs`; this layer adds what it leaves open: a message whose integrity must be checked
//! has to carry MESSAGE-INTEGRITY-SHA256, and nothing may follow the message.

mod binding;

use std::fmt;
use std::net::SocketAddr;

use stun_rs::attributes::ice::{IceControlled, IceControlling};
use stun_rs::attributes::stun::{Fingerprint, MessageIntegritySha256, UserName, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{
    DecoderContextBuilder, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage,
    StunMessageBuilder,
};

use crate::candidate::canonical;
use crate::wire::signal::Username;

pub use binding::{
    BindingAnswer, BindingRequest, Change, binding_request, change_request, mapped_address, sighting_request,
};

/// The largest STUN message that is looked at, in bytes.
pub const MAX_MESSAGE: usize = 1500;

/// The size of a check, in bytes. Its answer is never larger.
pub const CHECK_SIZE: usize = 96;

/// Which side of an exchange sends a check. It takes the place of ICE's role (RFC 8445 §6.1.1), which the
/// exchange has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The one who made the offer.
    Connector,
    /// The one who answered it.
    Sharer,
}

/// A transaction's 96 random bits.
pub type Transaction = [u8; 12];

/// Whether a datagram is STUN and not QUIC: the two first bits are 0 and the cookie is there (RFC 9443).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= 20 && datagram[0] < 4 && datagram[4..8] == [0x21, 0x12, 0xa4, 0x42]
}

/// A password of checks, made ready once: RFC 8489's preparation of a password costs more than its HMAC.
#[derive(Clone)]
pub struct CheckKey(HMACKey);

impl From<&str> for CheckKey {
    fn from(password: &str) -> Self {
        Self(HMACKey::new_short_term(password).expect("a derived password is hexadecimal"))
    }
}

impl From<&String> for CheckKey {
    fn from(password: &String) -> Self {
        password.as_str().into()
    }
}

impl From<&Self> for CheckKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

impl fmt::Debug for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckKey(…)")
    }
}

/// An authenticated check, [`CHECK_SIZE`] bytes.
pub fn check_request(
    transaction: Transaction,
    username: Username,
    role: Role,
    key: impl Into<CheckKey>,
) -> Vec<u8> {
    let request = StunMessageBuilder::new(BINDING, MessageClass::Request)
        .with_transaction_id(transaction.into())
        .with_attribute(UserName::new(username_text(username)).expect("hexadecimal is a valid USERNAME"));
    let request = match role {
        Role::Connector => request.with_attribute(IceControlling::new(0)),
        Role::Sharer => request.with_attribute(IceControlled::new(0)),
    };
    encode(
        request
            .with_attribute(MessageIntegritySha256::new(key.into().0))
            .with_attribute(Fingerprint::default())
            .build(),
    )
}

/// The answer to a check that came from `source`.
pub fn check_answer(transaction: Transaction, source: SocketAddr, key: impl Into<CheckKey>) -> Vec<u8> {
    encode(
        StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(transaction.into())
            .with_attribute(XorMappedAddress::from(canonical(source)))
            .with_attribute(MessageIntegritySha256::new(key.into().0))
            .with_attribute(Fingerprint::default())
            .build(),
    )
}

/// What a datagram is before anything of it is believed: enough to find the exchange it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preview {
    /// A check of the exchange that has this username.
    Check(Username),
    /// An answer to this transaction.
    Answer(Transaction),
}

/// Reads as much of a datagram as it takes to find its exchange; nothing of it is authenticated.
pub fn preview(datagram: &[u8]) -> Option<Preview> {
    let message = decode(datagram, None)?;
    match message.class() {
        MessageClass::Request => {
            let name = message.get::<UserName>()?.as_user_name().ok()?;
            let bytes = data_encoding::HEXLOWER.decode(name.as_str().as_bytes()).ok()?;
            Some(Preview::Check(Username(bytes.try_into().ok()?)))
        }
        MessageClass::SuccessResponse => Some(Preview::Answer(*message.transaction_id().as_bytes())),
        MessageClass::ErrorResponse | MessageClass::Indication => None,
    }
}

/// The transaction of a check by the side `role` that `key` authenticates.
pub fn verify_check(datagram: &[u8], role: Role, key: impl Into<CheckKey>) -> Option<Transaction> {
    let request = decode(datagram, Some(key.into()))?;
    let right_role = match role {
        Role::Connector => request.get::<IceControlling>().is_some(),
        Role::Sharer => request.get::<IceControlled>().is_some(),
    };
    (request.class() == MessageClass::Request && request.method() == BINDING && right_role)
        .then(|| *request.transaction_id().as_bytes())
}

/// What an answer that `key` authenticates says: its transaction, and our address as the far side
/// sees it.
pub fn verify_answer(datagram: &[u8], key: impl Into<CheckKey>) -> Option<(Transaction, SocketAddr)> {
    let answer = decode(datagram, Some(key.into()))?;
    if answer.class() != MessageClass::SuccessResponse || answer.method() != BINDING {
        return None;
    }
    Some((*answer.transaction_id().as_bytes(), mapped(&answer)?))
}

fn mapped(message: &StunMessage) -> Option<SocketAddr> {
    let attribute = message.get::<XorMappedAddress>()?.as_xor_mapped_address().ok()?;
    Some(canonical(*attribute.socket_address()))
}

fn username_text(username: Username) -> String {
    data_encoding::HEXLOWER.encode(&username.0)
}

fn encode(message: StunMessage) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let size = MessageEncoderBuilder::default()
        .build()
        .encode(&mut bytes, &message)
        .expect("our own messages are under 256 bytes");
    bytes.truncate(size);
    bytes
}

/// Decodes one whole message; with a key, one that it authenticates.
fn decode(datagram: &[u8], key: Option<CheckKey>) -> Option<StunMessage> {
    if !is_stun(datagram) || datagram.len() > MAX_MESSAGE {
        return None;
    }
    let declared = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
    if datagram.len() != 20 + declared {
        return None;
    }
    let mut context = DecoderContextBuilder::default();
    let is_keyed = key.is_some();
    if let Some(CheckKey(key)) = key {
        context = context.with_key(key).with_validation();
    }
    let decoder = MessageDecoderBuilder::default().with_context(context.build()).build();
    let (message, size) = decoder.decode(datagram).ok()?;
    let authenticated =
        message.get::<MessageIntegritySha256>().is_some() && message.get::<Fingerprint>().is_some();
    (size == datagram.len() && (!is_keyed || authenticated)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "203.0.113.7:40001";
    const PASSWORD: &str = "6b65796b65796b65796b65796b657931";

    fn check() -> Vec<u8> {
        check_request([1; 12], Username([2; 8]), Role::Connector, PASSWORD)
    }

    #[test]
    fn a_check_is_verified_by_its_own_password_and_role_alone() {
        assert_eq!(check().len(), CHECK_SIZE);
        assert_eq!(preview(&check()), Some(Preview::Check(Username([2; 8]))));
        assert_eq!(verify_check(&check(), Role::Connector, PASSWORD), Some([1; 12]));
        assert_eq!(verify_check(&check(), Role::Sharer, PASSWORD), None);
        assert_eq!(verify_check(&check(), Role::Connector, "00"), None);
    }

    #[test]
    fn a_check_without_integrity_is_refused() {
        // What a validating decoder of stun-rs lets pass.
        let bare = encode(
            StunMessageBuilder::new(BINDING, MessageClass::Request)
                .with_transaction_id([1; 12].into())
                .with_attribute(UserName::new("0202020202020202").unwrap())
                .with_attribute(IceControlling::new(0))
                .with_attribute(Fingerprint::default())
                .build(),
        );
        assert_eq!(preview(&bare), Some(Preview::Check(Username([2; 8]))));
        assert_eq!(verify_check(&bare, Role::Connector, PASSWORD), None);
    }

    #[test]
    fn a_username_of_another_length_is_nobodys() {
        for name in
            ["a", "02", "020202020202020", "02020202020202020", "0202020202020202ff", "x202020202020202"]
        {
            let named = encode(
                StunMessageBuilder::new(BINDING, MessageClass::Request)
                    .with_transaction_id([1; 12].into())
                    .with_attribute(UserName::new(name).unwrap())
                    .build(),
            );
            assert_eq!(preview(&named), None, "{name}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut long = check();
        long.extend([0; 4]);
        assert_eq!(preview(&long), None);
        assert_eq!(verify_check(&long, Role::Connector, PASSWORD), None);
    }

    #[test]
    fn every_flipped_bit_of_a_check_is_noticed() {
        for bit in 0..check().len() * 8 {
            let mut bad = check();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify_check(&bad, Role::Connector, PASSWORD), None, "bit {bit}");
        }
    }

    #[test]
    fn an_answer_is_no_larger_than_its_check() {
        for source in [SOURCE, "[2001:db8::1]:65535"] {
            let source: SocketAddr = source.parse().unwrap();
            let answer = check_answer([1; 12], source, PASSWORD);
            assert!(answer.len() <= CHECK_SIZE, "{}", answer.len());
            assert_eq!(verify_answer(&answer, PASSWORD), Some(([1; 12], source)));
            assert_eq!(verify_answer(&answer, "00"), None);
        }
    }

    #[test]
    fn junk_is_nothing() {
        let mut junk = vec![0_u8; 64];
        for seed in 0..20_000_u32 {
            for (at, byte) in junk.iter_mut().enumerate() {
                *byte = (seed.wrapping_mul(2_654_435_761).rotate_left(at as u32) >> 7) as u8;
            }
            junk[0] &= 3;
            junk[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            let _ = (preview(&junk), verify_check(&junk, Role::Sharer, PASSWORD));
            assert_eq!(verify_answer(&junk, PASSWORD), None);
        }
    }
}
