//! The conversation of a peer with a rendezvous: ALPN `culvert-session/1`, one bidirectional QUIC stream
//! opened by the peer, frames both ways.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::signal::{Answer, MAX_URL, Nonce, Offer, RelayHint, SealedNat, Trickle};
use super::{Bounded, Malformed, tail};
use crate::id::{Instance, PeerId, ShareId};

/// The ALPN of a session.
pub const ALPN: &[u8] = b"culvert-session/1";

/// The longest admission token, in bytes.
pub const MAX_TOKEN: usize = 256;

/// The most relays, and the most alternate addresses, that a welcome names.
pub const MAX_HINTS: usize = 8;

/// The QUIC application error codes with which a session is closed, by the server but for [`close::DONE`].
pub mod close {
    /// The peer has no more to say.
    pub const DONE: u32 = 0;
    /// The server stops; come back.
    pub const RESTARTING: u32 = 1;
    /// The same instance opened a newer session.
    pub const REPLACED: u32 = 2;
    /// A message broke the protocol.
    pub const PROTOCOL: u32 = 3;
    /// The server has as many sessions as it takes.
    pub const FULL: u32 = 4;
    /// The peer may not register here.
    pub const NOT_ADMITTED: u32 = 5;
    /// The peer was silent for too long.
    pub const SILENT: u32 = 6;
}

/// From a peer to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToServer {
    /// First on every session.
    Hello {
        /// [`super::VERSION`].
        version: u8,
        /// Which process of the identity this is.
        instance: Instance,
        /// Admission to a private server.
        token: Option<String>,
    },
    /// Send this share's offers here. Said again on one session it only says anew what the NAT is.
    Register {
        /// The share.
        share: ShareId,
        /// The sharer's NAT, for who holds the ticket. Programs that know nothing of it neither write nor read it.
        #[serde(with = "tail")]
        nat: Option<SealedNat>,
    },
    /// No more offers for this share.
    Unregister {
        /// The share.
        share: ShareId,
    },
    /// For whoever shares `offer.share` under `to`.
    Offer {
        /// The sharer.
        to: PeerId,
        /// What it is offered.
        offer: Offer,
    },
    /// To the sender of an offer.
    Answer {
        /// The connector.
        to: PeerId,
        /// Which process of it.
        to_instance: Instance,
        /// The answer.
        answer: Answer,
    },
    /// Within an exchange that was offered or answered.
    Trickle {
        /// The other side.
        to: PeerId,
        /// Which process of it.
        to_instance: Instance,
        /// The claims.
        trickle: Trickle,
    },
    /// Asks for [`FromServer::Pong`].
    Ping(u32),
    /// The server has seen this peer's main socket at another address than the session's: see [`crate::sighting`].
    Sighting {
        /// Where.
        addr: SocketAddr,
        /// By which the server knows its own word again.
        proof: [u8; 32],
    },
}

/// Why the server did not deliver an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Undeliverable {
    /// Nobody there shares this. Unknown and offline look the same.
    Offline,
    /// The sender or the receiver has had more offers than the limits allow.
    Busy,
}

/// From the server to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    /// The answer to a hello.
    Welcome {
        /// [`super::VERSION`].
        version: u8,
        /// The peer's address as the server sees it.
        observed: SocketAddr,
        /// Further addresses for behaviour discovery (RFC 5780).
        udp_alternate: Vec<SocketAddr>,
        /// Relays that the server advertises.
        relays: Vec<RelayHint>,
    },
    /// The peer's address has changed.
    Observed(SocketAddr),
    /// The share's offers come here from now on.
    Registered {
        /// The share.
        share: ShareId,
    },
    /// A newer registration has the share's offers; this one stays, unused.
    Displaced {
        /// The share.
        share: ShareId,
    },
    /// An offer was forwarded: whom packets may be addressed to, before any answer.
    Forwarded {
        /// The offer's nonce.
        offer: Nonce,
        /// The sharer's instance.
        to_instance: Instance,
        /// The relay at which it waits, as the server knows.
        relay: Option<RelayHint>,
        /// What the sharer said of its NAT with its registration, for the offer's ticket. Programs that know nothing of
        /// it neither write nor read it.
        #[serde(with = "tail")]
        nat: Option<SealedNat>,
    },
    /// An offer went nowhere.
    Undelivered {
        /// The offer's nonce.
        offer: Nonce,
        /// Why.
        reason: Undeliverable,
    },
    /// An offer for a share of this peer's.
    Offer {
        /// The connector.
        from: PeerId,
        /// Which process of it.
        from_instance: Instance,
        /// Its address as the server sees it: the server's word alone.
        observed: SocketAddr,
        /// The offer.
        offer: Offer,
    },
    /// The answer to an offer of this peer's.
    Answer {
        /// The sharer.
        from: PeerId,
        /// Which process of it.
        from_instance: Instance,
        /// Its address as the server sees it; only with an accepted offer.
        observed: Option<SocketAddr>,
        /// The answer.
        answer: Answer,
    },
    /// Further claims within an exchange.
    Trickle {
        /// The other side.
        from: PeerId,
        /// Which process of it.
        from_instance: Instance,
        /// Its address as the server sees it now.
        observed: SocketAddr,
        /// The claims.
        trickle: Trickle,
    },
    /// The answer to a ping.
    Pong(u32),
    /// Said right before the other side's offer, answer or trickle: the server has seen it at this address too, which is
    /// of the family that its session does not use.
    AlsoSeen {
        /// The other side.
        from: PeerId,
        /// Which process of it.
        from_instance: Instance,
        /// Where.
        observed: SocketAddr,
    },
}

impl Bounded for ToServer {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Self::Hello { token, .. } if token.as_ref().is_some_and(|text| text.len() > MAX_TOKEN) => {
                Err(Malformed::OutOfBounds("the token"))
            }
            Self::Offer { offer, .. } => offer.check_bounds(),
            Self::Answer { answer, .. } => answer.check_bounds(),
            Self::Trickle { trickle, .. } => trickle.check_bounds(),
            Self::Register { nat, .. } => nat.iter().try_for_each(Bounded::check_bounds),
            Self::Hello { .. } | Self::Unregister { .. } | Self::Ping(_) | Self::Sighting { .. } => Ok(()),
        }
    }
}

impl Bounded for FromServer {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Self::Welcome { udp_alternate, relays, .. } => {
                if udp_alternate.len() > MAX_HINTS || relays.len() > MAX_HINTS {
                    return Err(Malformed::OutOfBounds("the number of hints"));
                }
                relays.iter().try_for_each(check_relay)
            }
            Self::Forwarded { relay, nat, .. } => {
                relay.iter().try_for_each(check_relay)?;
                nat.iter().try_for_each(Bounded::check_bounds)
            }
            Self::Offer { offer, .. } => offer.check_bounds(),
            Self::Answer { answer, .. } => answer.check_bounds(),
            Self::Trickle { trickle, .. } => trickle.check_bounds(),
            Self::Observed(_)
            | Self::Registered { .. }
            | Self::Displaced { .. }
            | Self::Undelivered { .. }
            | Self::Pong(_)
            | Self::AlsoSeen { .. } => Ok(()),
        }
    }
}

fn check_relay(relay: &RelayHint) -> Result<(), Malformed> {
    if relay.url.len() > MAX_URL { Err(Malformed::OutOfBounds("a relay's URL")) } else { Ok(()) }
}
