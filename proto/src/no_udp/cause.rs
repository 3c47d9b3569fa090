//! Why no UDP passes, and how to mend it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Outcome, Refused, Tried, Unreachable};
use crate::candidate::{Family, Scope, scope};

/// Why no UDP passes between this machine and the server. Its text is a clause that names the cause and the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server has addresses of one family alone, and this machine of the other.
    NoSharedFamily {
        /// The server's.
        server: Family,
    },
    /// There is no route to it.
    NoRoute {
        /// Where it should be.
        at: SocketAddr,
    },
    /// The firewall of this machine.
    RefusedHere {
        /// Where the packet was to go.
        at: SocketAddr,
    },
    /// A firewall or router on the way, the server's own included.
    RefusedOnTheWay {
        /// Where the packet was to go.
        at: SocketAddr,
        /// What it said.
        said: Unreachable,
    },
    /// The server's port is closed.
    PortClosed {
        /// Which.
        at: SocketAddr,
    },
    /// The server names itself by an address of its own network.
    PrivateAddress {
        /// Which.
        at: SocketAddr,
    },
    /// One UDP port of the server does not answer, and another one does.
    PortSilent {
        /// The one that doesn't.
        at: SocketAddr,
        /// The one that does.
        other: u16,
    },
    /// Nothing comes back.
    Silent {
        /// From where.
        at: SocketAddr,
        /// Whether UDP between this machine and other hosts passes.
        passes_elsewhere: bool,
    },
}

impl Cause {
    /// The word that a script gets.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoSharedFamily { .. } => "no-shared-family",
            Self::NoRoute { .. } => "no-route",
            Self::RefusedHere { .. } => "refused-here",
            Self::RefusedOnTheWay { .. } => "refused-by-network",
            Self::PortClosed { .. } => "port-closed",
            Self::PrivateAddress { .. } => "private-address",
            Self::PortSilent { .. } => "port-silent",
            Self::Silent { .. } => "silent",
        }
    }

    /// Whether it is known by what did not come back alone: then it may be another one, or pass.
    pub const fn is_silence(self) -> bool {
        match self {
            Self::PortSilent { .. } | Self::Silent { .. } => true,
            Self::NoSharedFamily { .. }
            | Self::NoRoute { .. }
            | Self::RefusedHere { .. }
            | Self::RefusedOnTheWay { .. }
            | Self::PortClosed { .. }
            | Self::PrivateAddress { .. } => false,
        }
    }

    /// The cause in a few words, without the cure.
    pub const fn brief(self) -> &'static str {
        match self {
            Self::NoSharedFamily { server: Family::V4 } => {
                "the server has IPv4 only, and this machine IPv6 only"
            }
            Self::NoSharedFamily { server: Family::V6 } => {
                "the server has IPv6 only, and this machine IPv4 only"
            }
            Self::NoRoute { .. } => "there is no route",
            Self::RefusedHere { .. } => "this machine's own firewall refuses it",
            Self::RefusedOnTheWay { .. } => "a firewall on the way refuses it",
            Self::PortClosed { .. } => "the port is closed",
            Self::PrivateAddress { .. } => "the server names an address of its own network",
            Self::PortSilent { .. } | Self::Silent { .. } => "no answer",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSharedFamily { server } => write!(
                f,
                "the server has {0} addresses only, and this machine has {1} only: its operator can give the server an \
                 {1} address too",
                server.name(),
                server.other().name()
            ),
            Self::NoRoute { at } => {
                write!(f, "this machine has no route to the server's UDP address {at}: check its network")
            }
            Self::RefusedHere { at } => write!(
                f,
                "this machine's own firewall refuses UDP to the server at {at}: let UDP out to port {}",
                at.port()
            ),
            Self::RefusedOnTheWay { at, said } => write!(
                f,
                "a firewall refuses UDP to the server at {at} ({}), either the server's or one of this network: UDP port \
                 {} has to be open there",
                said.name(),
                at.port()
            ),
            Self::PortClosed { at } => write!(
                f,
                "UDP port {} of the server at {} is closed: its operator should open it, or forward it to the server",
                at.port(),
                at.ip()
            ),
            Self::PrivateAddress { at } => write!(
                f,
                "the server says that its UDP address is {at}, which is one of its own network and does not answer here: \
                 its operator should name the public one with --udp-public"
            ),
            Self::PortSilent { at, other } => write!(
                f,
                "UDP port {} of the server at {} does not answer, though its port {other} does: its operator should open \
                 it",
                at.port(),
                at.ip()
            ),
            Self::Silent { at, passes_elsewhere: true } => write!(
                f,
                "no UDP came back from the server at {at}, though UDP to other hosts passes here: its operator should open \
                 UDP port {} in the server's firewall",
                at.port()
            ),
            Self::Silent { at, passes_elsewhere: false } => write!(
                f,
                "no UDP came back from the server at {at}: either the server's firewall or this network drops it; UDP port \
                 {} has to be open in both",
                at.port()
            ),
        }
    }
}

/// What else is known of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Here {
    /// It has an IPv4 address.
    pub has_v4: bool,
    /// It has an IPv6 address that is good outside of its own link.
    pub has_v6: bool,
    /// UDP to a host other than the server is known to pass.
    pub passes_elsewhere: bool,
}

impl Here {
    /// A machine with these addresses.
    pub fn with(addresses: &[IpAddr]) -> Self {
        let is_usable = |ip: &IpAddr| matches!(scope(SocketAddr::new(*ip, 1)), Scope::Local | Scope::Global);
        let has = |family| {
            let mut usable = addresses.iter().filter(|ip| is_usable(ip));
            usable.any(|ip| Family::of(SocketAddr::new(*ip, 1)) == family)
        };
        Self { has_v4: has(Family::V4), has_v6: has(Family::V6), passes_elsewhere: false }
    }

    const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.has_v4,
            Family::V6 => self.has_v6,
        }
    }
}

/// Why no UDP passes; `None` where it does, or where nothing was tried.
///
/// `tried` are the addresses of the server's main port, `beside` those of its other ports.
pub fn diagnose(tried: &[Tried], beside: &[Tried], here: Here) -> Option<Cause> {
    if tried.iter().any(Tried::is_answered) {
        return None;
    }
    // What was said is worth more than silence, and what was said nearer to this machine more than the rest.
    refused(tried, Refused::Here)
        .map(|at| Cause::RefusedHere { at })
        .or_else(|| beside_answers(tried, beside))
        .or_else(|| on_the_way(tried))
        .or_else(|| refused(tried, Refused::PortClosed).map(|at| Cause::PortClosed { at }))
        .or_else(|| silent(tried, here.passes_elsewhere))
        .or_else(|| no_route(tried, here))
}

/// The first address that was refused so.
fn refused(tried: &[Tried], why: Refused) -> Option<SocketAddr> {
    tried.iter().find(|tried| tried.outcome == Outcome::Refused(why)).map(|tried| tried.at)
}

fn on_the_way(tried: &[Tried]) -> Option<Cause> {
    tried.iter().find_map(|tried| match tried.outcome {
        Outcome::Refused(Refused::OnTheWay(said)) => Some(Cause::RefusedOnTheWay { at: tried.at, said }),
        Outcome::Refused(Refused::NoRoute | Refused::Here | Refused::PortClosed)
        | Outcome::Answered(_)
        | Outcome::Silent => None,
    })
}

/// Another port of the same host answers: UDP passes, and this one port does not.
fn beside_answers(tried: &[Tried], beside: &[Tried]) -> Option<Cause> {
    tried.iter().find_map(|tried| {
        let other = beside.iter().find(|other| other.is_answered() && other.at.ip() == tried.at.ip())?;
        Some(Cause::PortSilent { at: tried.at, other: other.at.port() })
    })
}

fn silent(tried: &[Tried], passes_elsewhere: bool) -> Option<Cause> {
    let is_global = |tried: &&&Tried| scope(tried.at) == Scope::Global;
    let silent: Vec<&Tried> = tried.iter().filter(|tried| tried.outcome == Outcome::Silent).collect();
    let shown = silent.iter().find(is_global).or_else(|| silent.iter().find(|tried| tried.is_by_name));
    match (shown, silent.first()) {
        (Some(tried), _) => Some(Cause::Silent { at: tried.at, passes_elsewhere }),
        (None, Some(tried)) => Some(Cause::PrivateAddress { at: tried.at }),
        (None, None) => None,
    }
}

/// Every address was without a route.
fn no_route(tried: &[Tried], here: Here) -> Option<Cause> {
    let first = tried.first()?;
    let server = Family::of(first.at);
    let is_one_family = tried.iter().all(|tried| Family::of(tried.at) == server);
    let is_other = !here.has(server) && here.has(server.other());
    Some(if is_one_family && is_other {
        Cause::NoSharedFamily { server }
    } else {
        Cause::NoRoute { at: first.at }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "203.0.113.1:3478";

    fn tried(at: &str, outcome: Outcome) -> Tried {
        Tried { at: at.parse().unwrap(), outcome, is_by_name: false }
    }

    fn answered(at: &str) -> Tried {
        tried(at, Outcome::Answered("192.0.2.9:4000".parse().unwrap()))
    }

    fn refused(at: &str, why: Refused) -> Tried {
        tried(at, Outcome::Refused(why))
    }

    fn cause(tried: &[Tried], beside: &[Tried]) -> Cause {
        diagnose(tried, beside, Here::default()).unwrap()
    }

    #[test]
    fn where_one_address_answers_there_is_nothing_to_say() {
        assert_eq!(diagnose(&[], &[], Here::default()), None);
        assert_eq!(
            diagnose(&[tried("10.0.0.5:3478", Outcome::Silent), answered(PUBLIC)], &[], Here::default()),
            None
        );
    }

    #[test]
    fn silence_blames_both_sides_unless_a_second_fact_clears_one() {
        let silent = [tried(PUBLIC, Outcome::Silent)];
        let text = cause(&silent, &[]).to_string();
        assert!(text.contains("either the server's firewall or this network"), "{text}");
        let text = cause(&silent, &[answered("203.0.113.1:3479")]).to_string();
        assert!(text.contains("3478") && text.contains("though its port 3479 does"), "{text}");
        let text =
            diagnose(&silent, &[], Here { passes_elsewhere: true, ..Here::default() }).unwrap().to_string();
        assert!(text.contains("server's firewall") && !text.contains("this network"), "{text}");
    }

    #[test]
    fn a_refusal_is_named_before_silence_and_the_own_firewall_before_all() {
        let said = Refused::OnTheWay(Unreachable::Prohibited);
        let here = [refused(PUBLIC, said), refused("[2001:db8::1]:3478", Refused::Here)];
        assert_eq!(cause(&here, &[]).code(), "refused-here");
        let network = [tried("192.168.1.9:3478", Outcome::Silent), refused(PUBLIC, said)];
        assert_eq!(cause(&network, &[]).code(), "refused-by-network");
        assert!(cause(&network, &[]).to_string().contains("administratively prohibited"));
        assert_eq!(cause(&[refused(PUBLIC, Refused::PortClosed)], &[]).code(), "port-closed");
    }

    #[test]
    fn a_server_of_the_other_family_is_named_as_such() {
        let v4 = Here::with(&["192.168.1.2".parse().unwrap(), "fe80::1".parse().unwrap()]);
        let v6 = Here::with(&["2001:db8::2".parse().unwrap()]);
        for (at, here, says) in [
            (PUBLIC, v6, "has IPv4 addresses only, and this machine has IPv6 only"),
            ("[2001:db8::1]:3478", v4, "has IPv6 addresses only, and this machine has IPv4 only"),
        ] {
            let tried = [refused(at, Refused::NoRoute)];
            let text = diagnose(&tried, &[], here).unwrap().to_string();
            assert!(text.contains(says), "{text}");
            assert_eq!(cause(&tried, &[]).code(), "no-route", "this machine has no network at all");
        }
        let both = [refused(PUBLIC, Refused::NoRoute), refused("[2001:db8::1]:3478", Refused::NoRoute)];
        assert_eq!(cause(&both, &[]).code(), "no-route");
        // A family that the machine has not got says nothing where the other one is tried.
        let half = [refused("[2001:db8::1]:3478", Refused::NoRoute), tried(PUBLIC, Outcome::Silent)];
        assert_eq!(cause(&half, &[]).code(), "silent");
    }

    #[test]
    fn a_private_address_is_the_servers_fault_only_where_the_url_does_not_lead_there_too() {
        let private = tried("10.0.0.5:3478", Outcome::Silent);
        assert_eq!(cause(&[private], &[]).code(), "private-address");
        assert_eq!(cause(&[private, tried(PUBLIC, Outcome::Silent)], &[]).code(), "silent");
        let in_the_lan = Tried { is_by_name: true, ..private };
        assert_eq!(cause(&[in_the_lan], &[]).code(), "silent");
    }
}
