//! Which remedy a pair of kinds needs: what to expect, for virtual worlds, simulated shells and real
//! programs alike. It never supplies a result.
//!
//! A remedy is *necessary*: without it the pair doesn't meet, or not whoever starts first. So a mutation that
//! takes one remedy away must turn exactly the cells red that name it.

use std::fmt;

use crate::kind::{Behaviour, Edge, Kind};
use crate::nat::Dependence;

/// The strongest thing that a pair needs to meet, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remedy {
    /// The hosts' own addresses: one LAN, or LANs that one router joins.
    HostCandidate,
    /// Global IPv6 addresses through stateful firewalls, both sides sending.
    Ipv6,
    /// Both sides send to the other's reflexive address, in any order.
    Plain,
    /// The reflexive address again, which the router that both share turns round.
    Hairpin,
    /// One side comes from an address that the server hasn't seen; the other answers to the source it observes.
    PeerReflexive,
    /// Before any full probe both sides send one that dies in the core, so that no early probe takes a leaky
    /// router's reply tuple.
    Prime,
    /// Priming can't help, because the router beyond the own one is the other side's: it works only if the
    /// side that would be moved, and that the other wouldn't follow, sends first.
    SendOrder,
    /// The ports that a sequential allocator will give out are guessed.
    Predict,
    /// Many sockets on the random side and many random ports from the other.
    Birthday,
    /// The same on both sides at once, where both sides' ports are few. It often finds nothing.
    Scatter,
    /// No direct path over UDP; the relay carries it.
    RelayOnly,
}

impl Remedy {
    /// Whether the pair can get a direct path over UDP.
    #[must_use]
    pub fn is_direct(self) -> bool {
        self != Self::RelayOnly
    }

    /// Its name in the laboratory's output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostCandidate => "host-candidate",
            Self::Ipv6 => "ipv6",
            Self::Plain => "plain",
            Self::Hairpin => "hairpin",
            Self::PeerReflexive => "peer-reflexive",
            Self::Prime => "prime",
            Self::SendOrder => "send-order",
            Self::Predict => "predict",
            Self::Birthday => "birthday",
            Self::Scatter => "scatter",
            Self::RelayOnly => "relay-only",
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What lies between two homes' outermost routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Between {
    /// The Internet: routers, each home on a link of its own.
    Core,
    /// Nothing: both routers are on one link, so a priming packet reaches the other one.
    SharedLink,
}

/// One expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// One side.
    pub a: Kind,
    /// The other.
    pub b: Kind,
    /// What lies between their routers.
    pub between: Between,
    /// What they need.
    pub remedy: Remedy,
}

/// The remedy of a pair with the Internet between them.
#[must_use]
pub fn direct_path_possible(a: Kind, b: Kind) -> Remedy {
    direct_path_possible_across(Between::Core, a, b)
}

/// The remedy of a pair, whatever lies between them.
///
/// Of the kinds that share a router, one beside any other kind is the port-restricted home that it is.
#[must_use]
pub fn direct_path_possible_across(between: Between, a: Kind, b: Kind) -> Remedy {
    match (a, b) {
        (Kind::SameLan, Kind::SameLan) | (Kind::SameNat, Kind::SameNat) => Remedy::HostCandidate,
        (Kind::SameNatHairpin, Kind::SameNatHairpin) => Remedy::Hairpin,
        (Kind::SymmetricBlock, Kind::SymmetricBlock) => Remedy::Scatter,
        (Kind::Mapped, other) | (other, Kind::Mapped) => mapped(other),
        (Kind::Ipv6Firewall, other) | (other, Kind::Ipv6Firewall) => {
            let has_ipv6 = matches!(other, Kind::Ipv6Firewall) || other.layers() == 0;
            if has_ipv6 { Remedy::Ipv6 } else { Remedy::RelayOnly }
        }
        _ => match (edge(a), edge(b)) {
            (Some(a), Some(b)) => edges(between, a, b),
            _ => Remedy::RelayOnly,
        },
    }
}

/// Every expectation: all pairs of named kinds across the Internet, and the leaky ones on a shared link.
#[must_use]
pub fn expectations() -> Vec<Row> {
    // Who asks for a mapped port has it from a program that the router runs, which no wire has.
    let further = Kind::FURTHER.into_iter().filter(|kind| *kind != Kind::Mapped);
    let kinds: Vec<Kind> = Kind::all().into_iter().chain(further).collect();
    let mut rows = Vec::new();
    for (n, &a) in kinds.iter().enumerate() {
        for &b in &kinds[n..] {
            rows.push(Row { a, b, between: Between::Core, remedy: direct_path_possible(a, b) });
        }
    }
    let leaky = Behaviour::ALL.map(|behaviour| Kind::of(behaviour).leaky());
    for a in leaky {
        for b in Behaviour::ALL.map(Kind::of).into_iter().chain(leaky.into_iter().filter(|b| *b >= a)) {
            let between = Between::SharedLink;
            rows.push(Row { a, b, between, remedy: direct_path_possible_across(between, a, b) });
        }
    }
    rows
}

/// The effective behaviour over IPv4 across the Internet; none where UDP doesn't get out, or IPv4.
fn edge(kind: Kind) -> Option<Edge> {
    match kind {
        Kind::Home(edge) | Kind::Cgnat(edge) => Some(edge),
        Kind::Layers { home, carrier } => Some(Edge { behaviour: strictest(home, carrier), leaky: false }),
        Kind::SameLan | Kind::SameNat | Kind::SameNatHairpin => {
            Some(Edge { behaviour: Behaviour::PortRestricted, leaky: false })
        }
        // With any but its like a block is an allocator as another.
        Kind::SymmetricBlock => Some(Edge { behaviour: Behaviour::SymmetricRandom, leaky: false }),
        Kind::UdpBlocked | Kind::Ipv6Firewall | Kind::Mapped => None,
    }
}

/// What is seen outside a carrier's NAT. One that keeps no port of the home's draws another from a block, so that
/// nothing is left of how the home router counted.
fn strictest(home: Behaviour, carrier: Behaviour) -> Behaviour {
    match (home, carrier) {
        (Behaviour::SymmetricSequential, carrier) if !carrier.is_symmetric() => Behaviour::SymmetricRandom,
        (home, carrier) => home.max(carrier),
    }
}

/// Opposite a mapped port: it lets everybody in, and what comes from it leaves by another one.
fn mapped(other: Kind) -> Remedy {
    match (other, edge(other)) {
        (Kind::Mapped, _) => Remedy::PeerReflexive,
        (_, Some(edge)) if edge.behaviour.is_symmetric() => Remedy::PeerReflexive,
        (_, Some(_)) => Remedy::Plain,
        (_, None) => Remedy::RelayOnly,
    }
}

/// The classic pairs, without leaks, in the order of [`Behaviour::ALL`]. Symmetric filters depend on address
/// and port; two random allocators would need 100 000 probes a side for 90 %, which is a flood and not a remedy.
const CLASSIC: [[Remedy; 6]; 6] = {
    use Remedy::{Birthday as B, PeerReflexive as R, Plain as P, Predict as D, RelayOnly as X};
    [
        // open, full cone, address-restricted, port-restricted, symmetric sequential, symmetric random
        [P, P, P, P, R, R],
        [P, P, P, P, R, R],
        [P, P, P, P, R, R],
        [P, P, P, P, D, B],
        [R, R, R, D, D, X],
        [R, R, R, B, X, X],
    ]
};

fn edges(between: Between, a: Edge, b: Edge) -> Remedy {
    let classic = CLASSIC[a.behaviour as usize][b.behaviour as usize];
    let endangered = can_be_moved(a) || can_be_moved(b);
    // A side that was moved still meets one that takes any port of its address, and answers to it.
    let harmed = (can_be_moved(a) && is_picky(b), can_be_moved(b) && is_picky(a));
    match (classic, between, harmed) {
        (Remedy::Predict | Remedy::Birthday, Between::SharedLink, _) if endangered => Remedy::RelayOnly,
        (Remedy::Predict | Remedy::Birthday | Remedy::RelayOnly, ..) => classic,
        (_, _, (false, false)) if endangered => Remedy::PeerReflexive,
        (_, _, (false, false)) => classic,
        (_, Between::Core, _) => Remedy::Prime,
        (_, Between::SharedLink, (true, true)) => Remedy::RelayOnly,
        (_, Between::SharedLink, _) => Remedy::SendOrder,
    }
}

/// Whether an early probe is refused and moves the flow that follows.
fn can_be_moved(edge: Edge) -> bool {
    edge.leaky && edge.behaviour.filtering() != Dependence::EndpointIndependent
}

/// Whether it takes packets only from the very port that it sent to.
fn is_picky(edge: Edge) -> bool {
    edge.behaviour.filtering() == Dependence::AddressAndPortDependent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_pair_does_not_matter() {
        for a in Kind::all() {
            for b in Kind::all() {
                for between in [Between::Core, Between::SharedLink] {
                    let [there, back] =
                        [(a, b), (b, a)].map(|(a, b)| direct_path_possible_across(between, a, b));
                    assert_eq!(there, back, "{a} x {b}");
                }
            }
        }
    }

    #[test]
    fn a_carrier_of_the_same_behaviour_changes_no_remedy() {
        let homes = || Behaviour::ALL.map(Kind::of).into_iter().flat_map(|kind| [kind, kind.leaky()]);
        for a in homes() {
            for b in homes() {
                assert_eq!(
                    direct_path_possible(a, b),
                    direct_path_possible(a.behind_carrier(), b),
                    "{a} x {b}"
                );
            }
        }
    }

    #[test]
    fn of_two_layers_the_strictest_counts() {
        let [drawn, counted] = [Kind::SYMMETRIC_RANDOM, Kind::SYMMETRIC_SEQUENTIAL];
        for (kind, same) in Kind::ONE_SYMMETRIC_LAYER.into_iter().zip([counted, drawn, drawn, drawn]) {
            for other in Behaviour::ALL.map(Kind::of) {
                assert_eq!(direct_path_possible(kind, other), direct_path_possible(same, other), "{kind}");
            }
        }
    }

    #[test]
    fn a_leak_makes_a_port_restricted_pair_need_priming_and_a_full_cone_not() {
        let port_restricted = Kind::PORT_RESTRICTED;
        assert_eq!(direct_path_possible(port_restricted.leaky(), port_restricted), Remedy::Prime);
        assert_eq!(direct_path_possible(Kind::FULL_CONE.leaky(), port_restricted), Remedy::Plain);
        assert_eq!(direct_path_possible(port_restricted.leaky(), Kind::FULL_CONE), Remedy::PeerReflexive);
        let address_restricted = Kind::ADDRESS_RESTRICTED;
        assert_eq!(
            direct_path_possible(address_restricted.leaky(), address_restricted),
            Remedy::PeerReflexive
        );
        assert_eq!(direct_path_possible(address_restricted.leaky(), Kind::SYMMETRIC_RANDOM), Remedy::Prime);
    }

    #[test]
    fn priming_can_not_help_two_routers_on_one_link() {
        let leaky = Kind::PORT_RESTRICTED.leaky();
        let across = |a, b| direct_path_possible_across(Between::SharedLink, a, b);
        assert_eq!(across(leaky, leaky), Remedy::RelayOnly);
        assert_eq!(across(leaky, Kind::PORT_RESTRICTED), Remedy::SendOrder);
        assert!(expectations().iter().any(|row| row.remedy == Remedy::SendOrder));
    }
}
