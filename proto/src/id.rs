//! Names of things: who a peer is, which process of it, which share, which ticket.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

/// An identity: the Ed25519 public key of a peer or a server (RFC 8032, 32 bytes).
///
/// Its text form is 52 characters of lower-case base32 (RFC 4648 §6) without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId([u8; 32]);

/// Why a text is not the name of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {expected} of base32 (a-z, 2-7), and this is not")]
pub struct InvalidId {
    what: &'static str,
    expected: &'static str,
}

impl PeerId {
    /// The identity whose public key is `bytes`. Any 32 bytes are accepted: a key that is not a
    /// point of the curve simply never verifies.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten characters of the text form: enough for a person to tell two peers apart.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

impl FromStr for PeerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let error = InvalidId { what: "a peer id", expected: "52 characters" };
        let upper = text.trim().to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| error)?;
        Ok(Self(bytes.try_into().map_err(|_| error)?))
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id! {
    /// One process of an identity: 64 random bits, drawn at start. An address at a server or a relay
    /// is (`PeerId`, `Instance`); instances of one identity coexist.
    Instance, 8
}

random_id! {
    /// One share of an identity, kept with it so that a ticket stays good over restarts.
    ShareId, 8
}

random_id! {
    /// One ticket of a share: what a sharer's list of secrets, expiries and revocations is keyed by.
    TicketId, 8
}

impl Instance {
    /// The instance under which a server's own services are addressed through a relay.
    pub const SERVICE: Self = Self([0; 8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_survives_its_text_form() {
        let id = PeerId::from_bytes([7; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse::<PeerId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<PeerId>(), Ok(id));
    }

    #[test]
    fn a_shortened_peer_id_is_refused() {
        let text = PeerId::from_bytes([7; 32]).to_string();
        assert!(text[..51].parse::<PeerId>().is_err());
        assert!("".parse::<PeerId>().is_err());
    }
}
