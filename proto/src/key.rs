//! The secret half of an identity.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::id::PeerId;

/// An Ed25519 key pair (RFC 8032). It has no text form, and its `Debug` shows the public half only.
pub struct SecretKey {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

/// The bytes are no Ed25519 key in PKCS #8 form (RFC 8410).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PKCS #8 form")]
pub struct InvalidKey;

impl SecretKey {
    /// Reads a key from PKCS #8 DER (version 1 or 2), as `rcgen` and `openssl genpkey` write it.
    ///
    /// # Errors
    /// [`InvalidKey`] when the bytes are anything else.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| InvalidKey)?;
        Ok(Self { pkcs8: der.to_vec(), pair })
    }

    /// The key's PKCS #8 DER, for the TLS stack and the key's file. Never to be logged.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The identity that this key proves.
    pub fn peer_id(&self) -> PeerId {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PeerId::from_bytes(bytes)
    }

    /// Signs `label ‖ 0x00 ‖ message`: a signature made for one purpose is worth nothing for another.
    pub fn sign(&self, label: &'static str, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(&labelled(label, message)).as_ref());
        bytes
    }
}

/// Whether `signature` is `signer`'s over `message` under `label` (see [`SecretKey::sign`]).
pub fn verify(signer: &PeerId, label: &'static str, message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, signer.as_bytes()).verify(&labelled(label, message), signature).is_ok()
}

fn labelled(label: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(label.len() + 1 + message.len());
    bytes.extend_from_slice(label.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(message);
    bytes
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.peer_id())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The PKCS #8 v1 form of RFC 8032 §7.1 test 1's seed.
    pub(crate) fn key() -> SecretKey {
        let mut der = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ];
        der.extend_from_slice(&[
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
            0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ]);
        SecretKey::from_pkcs8(&der).unwrap()
    }

    #[test]
    fn the_public_half_is_the_one_of_rfc_8032() {
        assert_eq!(key().peer_id().as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }

    #[test]
    fn a_signature_is_good_for_its_label_only() {
        let signature = key().sign("a", b"m");
        assert!(verify(&key().peer_id(), "a", b"m", &signature));
        assert!(!verify(&key().peer_id(), "b", b"m", &signature));
        assert!(!verify(&key().peer_id(), "a", b"n", &signature));
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert!(!format!("{:?}", key()).contains("9d61"));
    }
}
