//! The conversation of a sharer with the gateway of its server: ALPN `culvert-gateway/1`, dialled by the
//! sharer to the server's pinned identity.
//!
//! The sharer opens the first bidirectional stream and publishes its shares on it, frames both ways. Every
//! further bidirectional stream is opened by the gateway: one exchange of a visitor, which begins with a
//! [`Visitor`] frame. Behind it the stream is the local server's connection, byte for byte: HTTP/1.1.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::session::MAX_TOKEN;
use super::signal::MAX_URL;
use super::{Bounded, Malformed};
use crate::id::{Instance, PeerId, ShareId};
use crate::key::{SecretKey, verify};
use crate::name::MAX_NAME;
use crate::tunnel::access::{Access, MAX_ALLOWED};

/// The ALPN of a sharer's connection for visitors.
pub const ALPN: &[u8] = b"culvert-gateway/1";

/// The TLS exporter's label (RFC 8446 §7.5) for the nonce of a claim: 32 bytes that both ends know, and no
/// other connection has.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-culvert-name-claim-1";

/// The longest `Host` that a share sets, in bytes.
pub const MAX_HOST: usize = 260;

/// The label of a claim's signature.
const CLAIM_LABEL: &str = "culvert/1 name claim";

/// The QUIC application error codes with which a connection or a stream for visitors ends.
pub mod close {
    /// Nothing more to do; of a stream, the exchange is over.
    pub const DONE: u32 = 0;
    /// The server stops; come back.
    pub const RESTARTING: u32 = 1;
    /// A message broke the protocol.
    pub const PROTOCOL: u32 = 3;
    /// The gateway has as many sharers as it takes.
    pub const FULL: u32 = 4;
    /// Nothing is shown over the connection, and its place is wanted.
    pub const UNUSED: u32 = 14;
    /// A stream is for a share that is not public here.
    pub const NOT_PUBLIC: u32 = 15;
    /// The local server refused the connection.
    pub const TARGET_REFUSED: u32 = 16;
    /// The local server did not answer the connection at all.
    pub const TARGET_SILENT: u32 = 17;
    /// One end gave the exchange up, and the other is to notice.
    pub const RESET: u32 = 18;
    /// The sharer serves as many visitors as it takes.
    pub const BUSY: u32 = 19;
}

/// From a sharer to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub enum ToGateway {
    /// First on every connection.
    Hello {
        /// [`super::VERSION`].
        version: u8,
        /// Which process of the identity this is.
        instance: Instance,
        /// Admission to a private server.
        token: Option<String>,
    },
    /// Show this share to the world.
    Publish(Publication),
    /// No more.
    Unpublish {
        /// The share.
        share: ShareId,
    },
}

/// A share, and how it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The share.
    pub share: ShareId,
    /// The name that is claimed for it.
    pub name: String,
    /// The proof that the name is claimed for this server, on this very connection.
    #[serde(with = "signature")]
    pub signature: [u8; 64],
    /// Whether the name is to be held while its owner is away.
    pub keep: bool,
    /// What the local server gets as `Host`; the visitor's own where there is none.
    pub host: Option<String>,
    /// Who may visit.
    pub access: Access,
}

/// Why a share is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NotPublished {
    /// The name is no name, too short, or an international one.
    InvalidName,
    /// Nobody gets this name.
    Reserved,
    /// Another identity has it.
    Taken,
    /// This identity has as many names as one may have: these.
    TooMany(Vec<String>),
    /// Too many names were claimed in a short time, or there are too many in all.
    Busy,
    /// The signature does not hold.
    BadSignature,
    /// This identity may not register here.
    NotAdmitted,
    /// The server can't keep the name.
    NotKept,
}

/// From the gateway to a sharer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGateway {
    /// Visitors of this share come here from now on.
    Published {
        /// The share.
        share: ShareId,
        /// Where browsers find it.
        url: String,
    },
    /// The share is not shown.
    Refused {
        /// The share.
        share: ShareId,
        /// Why.
        reason: NotPublished,
    },
    /// A newer connection of the identity has the name; this one stays, unused.
    Displaced {
        /// The share.
        share: ShareId,
    },
}

/// How a visitor reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Scheme {
    /// In clear.
    Http,
    /// By TLS.
    Https,
}

/// First on every stream that the gateway opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// [`super::VERSION`].
    pub version: u8,
    /// Which share it is for.
    pub share: ShareId,
    /// Where the visitor is.
    pub address: IpAddr,
    /// How it came.
    pub scheme: Scheme,
    /// The host that it asked for.
    pub host: String,
}

impl Publication {
    /// A publication that `key` claims at this server, on the connection that exported `nonce`.
    pub fn new(key: &SecretKey, server: &PeerId, nonce: &[u8; 32], share: ShareId, name: &str) -> Self {
        Self {
            share,
            name: name.to_owned(),
            signature: key.sign(CLAIM_LABEL, &claim(server, nonce, name)),
            keep: true,
            host: None,
            access: Access::default(),
        }
    }

    /// Whether `claimant` signed the claim, for this server and this connection.
    pub fn is_signed_by(&self, claimant: &PeerId, server: &PeerId, nonce: &[u8; 32]) -> bool {
        verify(claimant, CLAIM_LABEL, &claim(server, nonce, &self.name), &self.signature)
    }
}

/// What a claim's signature covers: server ‖ nonce ‖ name. The name has whatever length is left.
fn claim(server: &PeerId, nonce: &[u8; 32], name: &str) -> Vec<u8> {
    [&server.as_bytes()[..], nonce, name.as_bytes()].concat()
}

impl Bounded for ToGateway {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Self::Hello { token, .. } if token.as_ref().is_some_and(|text| text.len() > MAX_TOKEN) => {
                Err(Malformed::OutOfBounds("the token"))
            }
            Self::Publish(publication) => publication.check_bounds(),
            Self::Hello { .. } | Self::Unpublish { .. } => Ok(()),
        }
    }
}

impl Bounded for Publication {
    fn check_bounds(&self) -> Result<(), Malformed> {
        if self.name.len() > MAX_NAME {
            return Err(Malformed::OutOfBounds("the name"));
        }
        if self.host.as_ref().is_some_and(|host| !is_host(host)) {
            return Err(Malformed::OutOfBounds("the host"));
        }
        if self.access.allowed().len() > MAX_ALLOWED {
            return Err(Malformed::OutOfBounds("the number of networks"));
        }
        Ok(())
    }
}

/// Whether a text can stand in a `Host` field, whatever host it is of.
pub fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= MAX_HOST && text.bytes().all(plain)
}

impl Bounded for FromGateway {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Self::Published { url, .. } if url.len() > MAX_URL + MAX_NAME => {
                Err(Malformed::OutOfBounds("the URL"))
            }
            Self::Refused { reason: NotPublished::TooMany(names), .. }
                if names.len() > 16 || names.iter().any(|name| name.len() > MAX_NAME) =>
            {
                Err(Malformed::OutOfBounds("the names"))
            }
            Self::Published { .. } | Self::Refused { .. } | Self::Displaced { .. } => Ok(()),
        }
    }
}

impl Bounded for Visitor {
    fn check_bounds(&self) -> Result<(), Malformed> {
        if is_host(&self.host) { Ok(()) } else { Err(Malformed::OutOfBounds("the host")) }
    }
}

/// 64 bytes, without a length: serde's own arrays end at 32.
mod signature {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = bytes.split_at(32);
        let halves = (<[u8; 32]>::try_from(a), <[u8; 32]>::try_from(b));
        match halves {
            (Ok(a), Ok(b)) => (a, b).serialize(serializer),
            (Err(_), _) | (_, Err(_)) => Err(serde::ser::Error::custom("64 bytes are two times 32")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let (a, b) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        [a, b].concat().try_into().map_err(|_| D::Error::custom("two times 32 bytes are 64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    const SERVER: PeerId = PeerId::from_bytes([3; 32]);
    const SHARE: ShareId = ShareId([4; 8]);

    #[test]
    fn a_claim_is_good_for_its_name_server_and_connection_alone() {
        let claim = Publication::new(&key(), &SERVER, &[5; 32], SHARE, "nas-at-home");
        let me = key().peer_id();
        assert!(claim.is_signed_by(&me, &SERVER, &[5; 32]));
        assert!(!claim.is_signed_by(&me, &SERVER, &[6; 32]));
        assert!(!claim.is_signed_by(&me, &me, &[5; 32]));
        assert!(!claim.is_signed_by(&SERVER, &SERVER, &[5; 32]));
        let other = Publication { name: "nas-at-work".to_owned(), ..claim };
        assert!(!other.is_signed_by(&me, &SERVER, &[5; 32]));
    }

    #[test]
    fn what_a_share_sets_as_its_host_can_be_nothing_else() {
        for host in ["127.0.0.1:8080", "[::1]:80", "nas.local", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a b", "a\r\nX: y", "a/b", "a@b", "ä", &"a".repeat(MAX_HOST + 1)] {
            assert!(!is_host(host), "{host}");
        }
    }
}
