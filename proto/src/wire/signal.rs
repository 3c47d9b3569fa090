//! What two peers say to each other through a server before they share a path: offer, answer, trickle.
//!
//! Each carries a MAC under the ticket's secret ([`crate::proof`]); the server forwards them unread.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Bounded, Malformed, tail};
use crate::candidate::{Candidate, MAX_CANDIDATES};
use crate::id::{PeerId, ShareId, TicketId};
use crate::nat::NatProfile;

/// The longest URL in any message or ticket, in bytes.
pub const MAX_URL: usize = 200;

/// The longest sealed word, in bytes: those of today have 44.
pub const MAX_SEALED: usize = 64;

/// 128 random bits that make an exchange unlike any other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

/// The sharer's proof of freshness, which an offer must repeat under its MAC when it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge(pub [u8; 16]);

/// HMAC-SHA-256 under the ticket's secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 32]);

/// The name under which an exchange's checks are authenticated: 8 random bytes of the offer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Username(pub [u8; 8]);

macro_rules! hex_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), data_encoding::HEXLOWER.encode(&self.0[..4]))
            }
        }
    )*};
}
hex_debug!(Nonce, Challenge, Mac, Username);

/// A relay and the identity by which it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayHint {
    /// `http://…/relay` or `https://…/relay`; or, from a server, `/relay` on the very URL by which it was asked.
    pub url: String,
    /// The relay's identity.
    pub peer_id: PeerId,
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claims {
    /// Where it may be reached, at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// The relay at which it waits.
    pub relay: Option<RelayHint>,
}

/// A connector's request to be let in to a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// [`super::VERSION`].
    pub version: u8,
    /// The share.
    pub share: ShareId,
    /// The ticket under whose secret the MAC is.
    pub ticket: TicketId,
    /// Names this exchange.
    pub nonce: Nonce,
    /// Names this exchange's checks.
    pub username: Username,
    /// What the sharer asked to see, if it did.
    pub challenge: Option<Challenge>,
    /// The connector's own claims.
    pub claims: Claims,
    /// Over all of the above, both identities, the connector's instance and the server's identity.
    pub mac: Mac,
    /// What is said of the connector's NAT. Programs that know nothing of it neither write nor read it.
    #[serde(with = "tail")]
    pub nat: Option<NatHint>,
}

/// Why a sharer does not let an offer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The ticket or its secret is not one of the share's.
    WrongTicket,
    /// The ticket's time is over.
    Expired,
    /// The ticket was revoked.
    Revoked,
    /// The identity is not among those allowed.
    NotAllowed,
    /// The sharer has as many visitors as it takes.
    Full,
    /// The sharer does not speak the offer's version.
    Version,
}

/// What a sharer makes of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Let in: checks may begin.
    Accepted {
        /// The sharer's half of the check keys.
        nonce: Nonce,
        /// The sharer's own claims.
        claims: Claims,
    },
    /// The offer must come again with this under its MAC, and with a new nonce.
    Again(Challenge),
    /// Not let in.
    Refused(Refusal),
}

/// A sharer's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`super::VERSION`].
    pub version: u8,
    /// The exchange.
    pub offer: Nonce,
    /// The verdict.
    pub verdict: Verdict,
    /// Over all of the above, the offer's share and ticket, both identities, both instances and the
    /// server's identity. A sharer that does not know the ticket signs with zeroes.
    pub mac: Mac,
    /// What is said of the sharer's NAT, with a verdict of [`Verdict::Accepted`]. Programs that know nothing of it
    /// neither write nor read it.
    #[serde(with = "tail")]
    pub nat: Option<NatHint>,
}

/// Further claims within an accepted exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trickle {
    /// [`super::VERSION`].
    pub version: u8,
    /// The exchange.
    pub offer: Nonce,
    /// Rises with each message of one sender, from 1; an older one is ignored.
    pub counter: u32,
    /// What is claimed in addition.
    pub claims: Claims,
    /// Over all of the above and the exchange's context.
    pub mac: Mac,
    /// What is said of the sender's NAT. Programs that know nothing of it neither write nor read it.
    #[serde(with = "tail")]
    pub nat: Option<NatHint>,
}

/// What a peer says of the NAT in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatHint {
    /// What is known of it.
    pub profile: NatProfile,
    /// For which round of a strategy it is said; 0 for none, as in an offer or an answer.
    pub round: u8,
    /// Over all of the above, the trickle's counter, or 0 with an offer or an answer, and the exchange's context.
    pub mac: Mac,
}

/// What a sharer says of its NAT to whoever holds this ticket, sealed ([`crate::proof::TicketSecret::seal_nat`]): the
/// server that passes it on reads nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedNat {
    /// The ticket.
    pub ticket: TicketId,
    /// At most [`MAX_SEALED`] bytes.
    pub sealed: Vec<u8>,
}

impl Bounded for SealedNat {
    fn check_bounds(&self) -> Result<(), Malformed> {
        if self.sealed.len() > MAX_SEALED { Err(Malformed::OutOfBounds("a sealed word")) } else { Ok(()) }
    }
}

impl Bounded for Claims {
    fn check_bounds(&self) -> Result<(), Malformed> {
        if self.candidates.len() > MAX_CANDIDATES {
            return Err(Malformed::OutOfBounds("the number of candidates"));
        }
        if self.relay.as_ref().is_some_and(|relay| relay.url.len() > MAX_URL) {
            return Err(Malformed::OutOfBounds("the relay's URL"));
        }
        Ok(())
    }
}

impl Bounded for Offer {
    fn check_bounds(&self) -> Result<(), Malformed> {
        self.claims.check_bounds()
    }
}

impl Bounded for Answer {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match &self.verdict {
            Verdict::Accepted { claims, .. } => claims.check_bounds(),
            Verdict::Again(_) | Verdict::Refused(_) => Ok(()),
        }
    }
}

impl Bounded for Trickle {
    fn check_bounds(&self) -> Result<(), Malformed> {
        self.claims.check_bounds()
    }
}
