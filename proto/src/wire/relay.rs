//! The conversation of a peer with a relay: a WebSocket (RFC 6455) at [`PATH`] with the subprotocol
//! [`SUBPROTOCOL`], one frame in each binary message, numbers big-endian.
//!
//! ```text
//!   relay ── Challenge ──▶ peer          0 │ relay's PeerId 32 │ challenge 32
//!   peer  ── Login     ──▶ relay         1 │ PeerId 32 │ instance 8 │ signature 64
//!   relay ── Welcome   ──▶ peer          2
//!   relay ── Denied    ──▶ peer          3 │ why 1                       its last word, at any time
//!
//!   peer ◀── Data   ──▶ relay ◀──▶ peer  4 │ PeerId 32 │ instance 8 │ ECN 1 │ segment 2 │ packets …
//!   peer ◀── Check  ──▶ relay ◀──▶ peer  5 │ PeerId 32 │ instance 8 │ datagram …
//!   peer  ── Allow     ──▶ relay         6 │ PeerId 32 │ instance 8 │ seconds 1
//!   both  ── Ping, Pong ─▶ both       7, 8 │ any 8 bytes, the same in both
//!   relay ── Gone      ──▶ peer          9 │ PeerId 32 │ instance 8       nobody is there
//!   relay ── Restarting ─▶ peer         10 │ milliseconds 2               come back after as long
//! ```
//!
//! In what a peer sends, the PeerId and the instance are the receiver's; the relay puts the sender's in
//! their place, and forwards the rest as it is. `Data` holds a whole batch: packets of `segment` bytes each,
//! of which the last may be shorter. Bytes behind a frame of fixed length are ignored, and so are frames of
//! a kind from 11 on: a later minor version may say more.

use std::fmt;

use crate::id::{Instance, PeerId};

/// The path of a relay's URL.
pub const PATH: &str = "/relay";

/// The WebSocket subprotocol. It carries the version of the conversation.
pub const SUBPROTOCOL: &str = "culvert-relay-1";

/// The packets of one [`Frame::Data`], in bytes: what one call to a UDP socket can carry.
pub const MAX_BATCH: usize = 65_535;

/// How many packets that may be: as many as Linux takes in one batch (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// The datagram of one [`Frame::Check`], in bytes: a STUN message on any link fits.
pub const MAX_CHECK: usize = 1500;

/// The header of the request for [`PATH`] in which the first packet to the relay's own server may come: it is heard before
/// the login, so that the server's answer comes with the challenge. In base64 (RFC 4648 §5, without padding).
pub const FIRST_HEADER: &str = "culvert-first";

/// The longest such packet, in bytes: a first packet of QUIC fits (RFC 9000 §14.1).
pub const MAX_FIRST: usize = 1500;

/// What a [`Frame::Data`] has before its packets.
pub const DATA_HEAD: usize = ADDRESS_END + 3;

/// What a [`Frame::Check`] has before its datagram.
pub const CHECK_HEAD: usize = ADDRESS_END;

/// The longest frame.
pub const MAX_FRAME: usize = DATA_HEAD + MAX_BATCH;

/// The longest frame of a peer that has not been welcomed, and the longest of any but data and checks.
pub const MAX_GREETING: usize = 256;

/// The longest time, in seconds, for which one [`Frame::Allow`] opens the relay.
pub const MAX_ALLOW: u8 = 60;

const ADDRESS_END: usize = 1 + 32 + 8;

/// Where a relay finds one process of an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The identity.
    pub peer: PeerId,
    /// The process of it; [`Instance::SERVICE`] at the relay's own identity is a service of the relay's server.
    pub instance: Instance,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.peer.short(), self.instance)
    }
}

/// Why a relay hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// The login's signature is not the peer's over this relay's challenge, or its instance is reserved.
    BadLogin = 0,
    /// The relay has as many connections as it takes.
    Full = 1,
    /// Too many connections from this source, or too many in too short a time.
    Limited = 2,
    /// The same instance has logged in anew.
    Replaced = 3,
    /// The peer sent what it may not.
    Protocol = 4,
    /// The peer said nothing for too long.
    Silent = 5,
    /// The peer took nothing for too long.
    Slow = 6,
    /// The relay stops.
    Restarting = 7,
}

impl Denial {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::BadLogin,
        Self::Full,
        Self::Limited,
        Self::Replaced,
        Self::Protocol,
        Self::Silent,
        Self::Slow,
        Self::Restarting,
    ];

    /// A short name, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadLogin => "bad_login",
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Replaced => "replaced",
            Self::Protocol => "protocol",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Restarting => "restarting",
        }
    }
}

/// Packets of QUIC, as one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// The other side: the receiver's address to the relay, the sender's from it.
    pub remote: Address,
    /// The ECN codepoint (RFC 3168) of all of them, 0–3.
    pub ecn: u8,
    /// How long each is but the last, from 1 on.
    pub segment: u16,
    /// The packets, from 1 to [`MAX_BATCH`] bytes and at most [`MAX_SEGMENTS`] packets.
    pub packets: &'a [u8],
}

/// A datagram of the connectivity checks, or whatever else wants to pass by the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check<'a> {
    /// The other side, as in [`Data`].
    pub remote: Address,
    /// From 1 to [`MAX_CHECK`] bytes.
    pub datagram: &'a [u8],
}

/// What a relay sends first: who it is, and what is to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The relay's identity.
    pub relay: PeerId,
    /// Random.
    pub challenge: [u8; 32],
}

/// What a peer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// Who it is.
    pub from: Address,
    /// The proof: see [`crate::relay::login`].
    pub signature: [u8; 64],
}

/// One frame. It borrows its packets from where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "made on the stack and taken apart at once")]
pub enum Frame<'a> {
    /// First from the relay.
    Challenge(Challenge),
    /// First from the peer.
    Login(Login),
    /// The login is good; whatever follows is forwarded.
    Welcome,
    /// The relay hangs up.
    Denied(Denial),
    /// Packets.
    Data(Data<'a>),
    /// A datagram in the lane that passes by the packets.
    Check(Check<'a>),
    /// Lets what this address sends through.
    Allow {
        /// Whose packets.
        from: Address,
        /// For how long from now, 1–[`MAX_ALLOW`].
        seconds: u8,
    },
    /// Asks for [`Frame::Pong`].
    Ping([u8; 8]),
    /// Answers a ping, with its bytes.
    Pong([u8; 8]),
    /// Nobody is logged in under this address.
    Gone(Address),
    /// The relay will hang up; come back after this many milliseconds.
    Restarting(u16),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Over the limit of its kind.
    #[error("a frame of {0} bytes is over its kind's limit")]
    TooLong(usize),
    /// It ends before its fields do.
    #[error("a frame ends too early")]
    TooShort,
    /// A field breaks its limit.
    #[error("{0} is out of bounds")]
    OutOfBounds(&'static str),
    /// A kind that this version does not know. To be ignored, and counted.
    #[error("frames of kind {0} are not known")]
    UnknownKind(u8),
}

mod kind {
    pub(super) const CHALLENGE: u8 = 0;
    pub(super) const LOGIN: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const DENIED: u8 = 3;
    pub(super) const DATA: u8 = 4;
    pub(super) const CHECK: u8 = 5;
    pub(super) const ALLOW: u8 = 6;
    pub(super) const PING: u8 = 7;
    pub(super) const PONG: u8 = 8;
    pub(super) const GONE: u8 = 9;
    pub(super) const RESTARTING: u8 = 10;
}

impl<'a> Frame<'a> {
    /// Reads a frame from a message.
    ///
    /// # Errors
    /// [`BadFrame`] when it is none.
    pub fn parse(message: &'a [u8]) -> Result<Self, BadFrame> {
        let (&kind, rest) = message.split_first().ok_or(BadFrame::TooShort)?;
        let limit = match kind {
            kind::DATA => MAX_FRAME,
            kind::CHECK => CHECK_HEAD + MAX_CHECK,
            _ => MAX_GREETING,
        };
        if message.len() > limit {
            return Err(BadFrame::TooLong(message.len()));
        }
        let mut fields = Fields(rest);
        Ok(match kind {
            kind::CHALLENGE => {
                let relay = PeerId::from_bytes(*fields.take()?);
                Self::Challenge(Challenge { relay, challenge: *fields.take()? })
            }
            kind::LOGIN => Self::Login(Login { from: fields.address()?, signature: *fields.take()? }),
            kind::WELCOME => Self::Welcome,
            kind::DENIED => Self::Denied(denial(*fields.take()?)?),
            kind::DATA => Self::Data(Data::parse(fields)?),
            kind::CHECK => Self::Check(Check::parse(fields)?),
            kind::ALLOW => {
                let (from, &[seconds]) = (fields.address()?, fields.take()?);
                let seconds = in_bounds((1..=MAX_ALLOW).contains(&seconds), seconds, "the time of an allow")?;
                Self::Allow { from, seconds }
            }
            kind::PING => Self::Ping(*fields.take()?),
            kind::PONG => Self::Pong(*fields.take()?),
            kind::GONE => Self::Gone(fields.address()?),
            kind::RESTARTING => Self::Restarting(u16::from_be_bytes(*fields.take()?)),
            unknown => return Err(BadFrame::UnknownKind(unknown)),
        })
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Challenge(Challenge { relay, challenge }) => {
                [&[kind::CHALLENGE][..], relay.as_bytes(), challenge].concat()
            }
            Self::Login(Login { from, signature }) => addressed(kind::LOGIN, from, &[signature]),
            Self::Welcome => vec![kind::WELCOME],
            Self::Denied(why) => vec![kind::DENIED, *why as u8],
            Self::Data(Data { remote, ecn, segment, packets }) => {
                addressed(kind::DATA, remote, &[&[*ecn], &segment.to_be_bytes(), packets])
            }
            Self::Check(Check { remote, datagram }) => addressed(kind::CHECK, remote, &[datagram]),
            Self::Allow { from, seconds } => addressed(kind::ALLOW, from, &[&[*seconds]]),
            Self::Ping(bytes) => [&[kind::PING][..], bytes].concat(),
            Self::Pong(bytes) => [&[kind::PONG][..], bytes].concat(),
            Self::Gone(address) => addressed(kind::GONE, address, &[]),
            Self::Restarting(millis) => [&[kind::RESTARTING][..], &millis.to_be_bytes()].concat(),
        }
    }
}

impl<'a> Data<'a> {
    fn parse(mut fields: Fields<'a>) -> Result<Self, BadFrame> {
        let (remote, &[ecn]) = (fields.address()?, fields.take()?);
        let (segment, packets) = (u16::from_be_bytes(*fields.take()?), fields.0);
        in_bounds(ecn < 4, (), "the ECN codepoint")?;
        in_bounds(segment > 0, (), "the length of a packet")?;
        in_bounds(!packets.is_empty(), (), "the length of a batch")?;
        let count = packets.len().div_ceil(usize::from(segment));
        in_bounds(count <= MAX_SEGMENTS, (), "the number of packets")?;
        Ok(Self { remote, ecn, segment, packets })
    }

    /// How many packets these are.
    pub fn count(&self) -> usize {
        self.packets.len().div_ceil(usize::from(self.segment.max(1)))
    }
}

impl<'a> Check<'a> {
    fn parse(mut fields: Fields<'a>) -> Result<Self, BadFrame> {
        let (remote, datagram) = (fields.address()?, fields.0);
        in_bounds(!datagram.is_empty(), Self { remote, datagram }, "the length of a check")
    }
}

/// Puts another address into a data or check frame: the sender's in the receiver's place.
pub fn readdress(frame: &mut [u8], remote: &Address) {
    if let Some(place) = frame.get_mut(1..ADDRESS_END) {
        let (peer, instance) = place.split_at_mut(32);
        peer.copy_from_slice(remote.peer.as_bytes());
        instance.copy_from_slice(&remote.instance.0);
    }
}

fn addressed(kind: u8, address: &Address, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ADDRESS_END + rest.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(kind);
    bytes.extend_from_slice(address.peer.as_bytes());
    bytes.extend_from_slice(&address.instance.0);
    rest.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn in_bounds<T>(holds: bool, value: T, what: &'static str) -> Result<T, BadFrame> {
    if holds { Ok(value) } else { Err(BadFrame::OutOfBounds(what)) }
}

fn denial([number]: [u8; 1]) -> Result<Denial, BadFrame> {
    Denial::ALL.get(usize::from(number)).copied().ok_or(BadFrame::OutOfBounds("the reason of a denial"))
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], BadFrame> {
        let (field, rest) = self.0.split_first_chunk().ok_or(BadFrame::TooShort)?;
        self.0 = rest;
        Ok(field)
    }

    fn address(&mut self) -> Result<Address, BadFrame> {
        let peer = PeerId::from_bytes(*self.take()?);
        Ok(Address { peer, instance: Instance(*self.take()?) })
    }
}

#[cfg(test)]
mod tests;
