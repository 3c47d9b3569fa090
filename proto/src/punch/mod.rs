//! Punch: strategies for NATs that give each remote endpoint a port of its own, so that the port which the
//! server saw is of no use to anybody else (`docs/PROTOCOL.md` §5).
//!
//! [`Survey`] finds out once a session how our own NAT chooses ports, [`method`] says what to do about two such
//! NATs, and [`Punch`] does it, for one exchange:
//! - a NAT that *counts*, against one that keeps its port: `bracket` opens a flow to the remote between two flows
//!   to the server, whose ports then tell the one in the middle;
//! - two that count: `volley` lets each side open flows, on both sides at once, to a port that the other's NAT is
//!   about to give out;
//! - a NAT that *draws* ports, against one that keeps its port: `search` opens many flows on one side and tries
//!   random ports from the other, until two meet (the birthday problem);
//! - two that draw ports, each from a small block: `scatter` opens flows on both sides, in the hope that two meet.
//!
//! All of them only make a first packet arrive. It is a check of the exchange, so that from there on the
//! [`PathAgent`](crate::path::PathAgent) does what it always does: the socket on which one arrived becomes a link
//! of its, and nothing is lost in between.

mod bracket;
mod context;
mod machine;
mod pace;
mod scatter;
mod search;
mod spare;
mod survey;
mod volley;

pub use context::PunchAction;
pub use machine::{Known, Punch};
pub use survey::{Survey, SurveyAction};

use crate::nat::{Allocation, NatProfile, PortRange};

/// The most sockets that one exchange opens at a time.
pub const MAX_SOCKETS: u16 = search::SOCKETS;

/// The most ports of a block that two sides search at once: the 512 that carriers give a subscriber, and what an
/// estimate from samples adds where a block begins anywhere.
const SMALL: u32 = 768;

/// The hop limit that passes our own NATs and reaches nobody else's, one more with each further round, as the
/// agent's primes.
fn prime_ttl(round: u8) -> u8 {
    round.saturating_add(3).min(5)
}

/// What to do about the NATs of two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing: no port has to be guessed, or the other side does what there is to do, or too little is known.
    Plain,
    /// Open a flow to the remote between two flows to the server, and name the ports in between.
    Bracket {
        /// Our NAT's.
        step: i16,
    },
    /// Both sides aim at a port that the other's NAT is about to give out.
    Volley {
        /// Their NAT's.
        step: i16,
    },
    /// Open many flows to the remote, one of which it will find.
    Open,
    /// Try ports of the remote's at random.
    Seek {
        /// Where they lie.
        range: PortRange,
    },
    /// Open flows to ports of the remote's at random, as the remote does to ours: both blocks are small.
    Scatter {
        /// Where our ports lie.
        ours: PortRange,
        /// Where theirs do.
        theirs: PortRange,
    },
    /// Nothing helps: both sides' ports would have to be found at once.
    Hopeless,
}

/// How a NAT chooses the port that another remote endpoint will see.
enum Choice {
    Kept,
    Counted(i16),
    Drawn(PortRange),
    Unknown,
}

impl Choice {
    fn of(nat: &NatProfile) -> Self {
        match nat.allocation {
            _ if !nat.is_symmetric() => Self::Kept,
            Some(Allocation::Preserving) => Self::Kept,
            // A step of 0 is nobody's: it came from the wire.
            Some(Allocation::Sequential { step: 0 }) | None => Self::Unknown,
            Some(Allocation::Sequential { step }) => Self::Counted(step),
            Some(Allocation::Random { range }) => Self::Drawn(range),
        }
    }
}

/// What our side does, by what is known of our NAT and of theirs.
pub fn method(ours: &NatProfile, theirs: Option<&NatProfile>) -> Method {
    let theirs = theirs.map_or(Choice::Unknown, Choice::of);
    match (Choice::of(ours), theirs) {
        (Choice::Counted(step), Choice::Kept | Choice::Unknown) => Method::Bracket { step },
        (Choice::Counted(_), Choice::Counted(step)) => Method::Volley { step },
        (Choice::Drawn(_), Choice::Kept) => Method::Open,
        (Choice::Kept, Choice::Drawn(range)) => Method::Seek { range },
        (Choice::Drawn(ours), Choice::Drawn(theirs)) if ours.size().max(theirs.size()) <= SMALL => {
            Method::Scatter { ours, theirs }
        }
        (Choice::Drawn(_), Choice::Drawn(_) | Choice::Counted(_))
        | (Choice::Counted(_), Choice::Drawn(_)) => Method::Hopeless,
        (Choice::Kept, Choice::Kept | Choice::Counted(_) | Choice::Unknown)
        | (Choice::Drawn(_), Choice::Unknown)
        | (Choice::Unknown, _) => Method::Plain,
    }
}

/// `count` steps on from a port; none beyond the ports there are.
fn stepped(port: u16, step: i16, count: i32) -> Option<u16> {
    let target = i32::from(port) + i32::from(step) * count;
    u16::try_from(target).ok().filter(|port| *port > 0)
}
