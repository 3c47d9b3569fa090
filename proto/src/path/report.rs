//! What the agent tells its shell, and what the shell tells it.

use std::fmt;
use std::time::Duration;

use super::{PathId, PathKind, Route};

/// Why the route is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The first path that was proven.
    FirstProven,
    /// A relay's, which needs no proof, while there is no other.
    Relayed,
    /// The same, and no direct path can be found: see [`PathEvent::ReflexiveRuledOut`].
    NoDirect,
    /// A path of a better kind or rank was proven.
    BetterKind,
    /// A path of the same kind and rank turned out faster.
    Faster,
    /// The connector keeps to this path; the sharer goes with it.
    Followed,
    /// The primary does not answer; the next best path carries a copy.
    Suspect,
    /// It answers again.
    Recovered,
    /// The primary was silent for too long.
    Silence,
    /// The link under it is gone.
    LinkGone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstProven => "first path proven",
            Self::Relayed => "the relay carries it until a direct path works",
            Self::NoDirect => {
                "both routers choose ports that nobody can know; a port mapped at one of them would help"
            }
            Self::BetterKind => "a better kind of path was proven",
            Self::Faster => "a faster path was proven",
            Self::Followed => "the other side keeps to this path",
            Self::Suspect => "the path does not answer",
            Self::Recovered => "the path answers again",
            Self::Silence => "the path was silent for too long",
            Self::LinkGone => "the network under the path is gone",
        })
    }
}

/// What the agent tells its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEvent {
    /// Packets from there are the remote's from here on.
    Accept(PathId),
    /// Data takes this route from here on.
    Route {
        /// The route.
        route: Route,
        /// The primary's kind and round trip.
        primary: Option<(PathKind, Duration)>,
        /// Why.
        reason: Reason,
    },
    /// An attempt failed: another local port should be tried. The shell opens a link, tells the remote of
    /// its mapping, and hands it in with [`super::PathAgent::add_link`]. The link should stay for a minute
    /// even when another path is found: the remote may be about to choose one over it.
    FreshLinkWanted,
    /// A direct path is wanted that this exchange has not found, or found before something changed: the connector
    /// should offer again, so that both sides begin at the same time, with all their strategies. It is said to a
    /// connector alone, five seconds apart at the least; the agent goes on by itself meanwhile.
    ExchangeWanted,
    /// Both NATs give the other side ports that nobody can know, so that no direct path leads through them: see
    /// [`super::PathAgent::rule_out_reflexive`]. It is said once.
    ReflexiveRuledOut,
}

/// What passed on a path since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Something that wants an answer left.
    pub sent: bool,
    /// Something authenticated arrived.
    pub received: bool,
}

/// How the search for a path stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Attempts are under way.
    Trying,
    /// There is a path.
    Reached,
    /// Every attempt that follows at once has failed, each with another port: these two networks do not
    /// let each other's packets in. It is tried again, rarely.
    Unreached,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Checks sent, primes among them.
    pub checks_sent: u64,
    /// Authenticated checks received, and answered where the budget allowed.
    pub checks_received: u64,
    /// Authenticated answers received.
    pub answers_received: u64,
    /// Datagrams that named the exchange and proved nothing.
    pub unauthenticated: u64,
    /// Attempts begun.
    pub attempts: u32,
}
