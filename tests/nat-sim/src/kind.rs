//! The kinds of access that `CLI.md` names, and the routers that each stands for.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::nat::{Allocation, Dependence, Hairpin, Policy};

/// Ports of one subscriber's block at a carrier.
const CARRIER_BLOCK: u16 = 1008;

/// Ports of a small one.
const SMALL_BLOCK: u16 = 512;

/// The classic behaviours, least strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behaviour {
    /// No NAT: a public address.
    Open,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering: a Linux masquerade.
    PortRestricted,
    /// Address-and-port-dependent mapping and filtering, each new port one above the last.
    SymmetricSequential,
    /// The same with random ports: a Linux masquerade with `fully-random`.
    SymmetricRandom,
}

impl Behaviour {
    /// All of them, least strict first.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::SymmetricSequential,
        Self::SymmetricRandom,
    ];

    /// Its name in `CLI.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
        }
    }

    /// What it stands for, in a few words.
    const fn describe(self) -> &'static str {
        match self {
            Self::Open => "a public address, IPv4 and IPv6",
            Self::FullCone => "one port for all, open to all",
            Self::AddressRestricted => "one port for all, open to addresses that were sent to",
            Self::PortRestricted => "one port for all, open to endpoints that were sent to",
            Self::SymmetricSequential => "a port for each endpoint, one above the last",
            Self::SymmetricRandom => "a port for each endpoint, at random",
        }
    }

    /// Whether each remote endpoint sees another port.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::SymmetricSequential | Self::SymmetricRandom)
    }

    /// On what its filter depends.
    #[must_use]
    pub const fn filtering(self) -> Dependence {
        match self {
            Self::Open | Self::FullCone => Dependence::EndpointIndependent,
            Self::AddressRestricted => Dependence::AddressDependent,
            Self::PortRestricted | Self::SymmetricSequential | Self::SymmetricRandom => {
                Dependence::AddressAndPortDependent
            }
        }
    }

    /// Its router; none for [`Self::Open`].
    #[must_use]
    pub fn policy(self) -> Option<Policy> {
        let cone = Policy::nat(Dependence::EndpointIndependent, self.filtering());
        let symmetric = Policy::nat(Dependence::AddressAndPortDependent, self.filtering());
        match self {
            Self::Open => None,
            Self::FullCone | Self::AddressRestricted | Self::PortRestricted => Some(cone),
            Self::SymmetricSequential => Some(symmetric.allocating(Allocation::Sequential { step: 1 })),
            Self::SymmetricRandom => Some(symmetric.allocating(Allocation::Random)),
        }
    }
}

/// A router's behaviour, and whether an early probe may take the reply tuple (the suffix `+leaky`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Mapping, filtering and allocation.
    pub behaviour: Behaviour,
    /// Whether it tracks strangers. Nothing is there to leak at an open edge.
    pub leaky: bool,
}

impl Edge {
    fn policy(self) -> Option<Policy> {
        let policy = self.behaviour.policy()?;
        Some(if self.leaky { policy.leaky() } else { policy })
    }

    /// The same behaviour as a carrier gives it: where home routers keep ports, from a block.
    fn carrier_policy(self) -> Option<Policy> {
        let policy = self.policy()?;
        Some(match policy.allocation {
            Allocation::Preserving | Allocation::PreservingUntilClash => {
                policy.allocating(Allocation::RandomInBlock { size: CARRIER_BLOCK })
            }
            Allocation::Sequential { .. } | Allocation::Random | Allocation::RandomInBlock { .. } => policy,
        })
    }
}

/// How a host reaches the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Through one router, or none.
    Home(Edge),
    /// Through a home router and a carrier's, both of this behaviour; both leaky where it is.
    Cgnat(Edge),
    /// Through a home router and a carrier's, each of a behaviour of its own.
    Layers {
        /// The home router's.
        home: Behaviour,
        /// The carrier's.
        carrier: Behaviour,
    },
    /// Through a router that passes no UDP.
    UdpBlocked,
    /// With a global IPv6 address behind a stateful firewall, and without IPv4.
    Ipv6Firewall,
    /// On one LAN with every other host of this kind, behind a port-restricted router.
    SameLan,
    /// Behind one port-restricted router with every other host of this kind, each on a LAN of its own
    /// between which the router routes. It has no hairpin.
    SameNat,
    /// The same, but the LANs can't reach each other (guest Wi-Fi), and the router has a hairpin that
    /// shows the external source.
    SameNatHairpin,
    /// Behind a carrier that gives each remote endpoint another port, drawn from a block of 512.
    SymmetricBlock,
    /// Behind a random symmetric router that has mapped a port to the host on request.
    Mapped,
}

impl Kind {
    /// A public address, IPv4 and IPv6.
    pub const OPEN: Self = Self::of(Behaviour::Open);
    /// See [`Behaviour::FullCone`].
    pub const FULL_CONE: Self = Self::of(Behaviour::FullCone);
    /// See [`Behaviour::AddressRestricted`].
    pub const ADDRESS_RESTRICTED: Self = Self::of(Behaviour::AddressRestricted);
    /// See [`Behaviour::PortRestricted`].
    pub const PORT_RESTRICTED: Self = Self::of(Behaviour::PortRestricted);
    /// See [`Behaviour::SymmetricSequential`].
    pub const SYMMETRIC_SEQUENTIAL: Self = Self::of(Behaviour::SymmetricSequential);
    /// See [`Behaviour::SymmetricRandom`].
    pub const SYMMETRIC_RANDOM: Self = Self::of(Behaviour::SymmetricRandom);

    /// A home of this behaviour, not leaky.
    #[must_use]
    pub const fn of(behaviour: Behaviour) -> Self {
        Self::Home(Edge { behaviour, leaky: false })
    }

    /// The same with a router that tracks strangers. Kinds without such a variant stay as they are.
    #[must_use]
    pub const fn leaky(self) -> Self {
        match self {
            Self::Home(Edge { behaviour, .. }) => Self::Home(Edge { behaviour, leaky: true }),
            Self::Cgnat(Edge { behaviour, .. }) => Self::Cgnat(Edge { behaviour, leaky: true }),
            Self::Layers { .. }
            | Self::UdpBlocked
            | Self::Ipv6Firewall
            | Self::SameLan
            | Self::SameNat
            | Self::SameNatHairpin
            | Self::SymmetricBlock
            | Self::Mapped => self,
        }
    }

    /// The same with a carrier's NAT of the same behaviour above it. Only a home with a NAT has that.
    #[must_use]
    pub const fn behind_carrier(self) -> Self {
        if let Self::Home(edge) = self
            && !matches!(edge.behaviour, Behaviour::Open)
        {
            Self::Cgnat(edge)
        } else {
            self
        }
    }

    /// Two routers one behind the other of which one alone is symmetric.
    pub const ONE_SYMMETRIC_LAYER: [Self; 4] = [
        Self::layers_of(Behaviour::PortRestricted, Behaviour::SymmetricSequential),
        Self::layers_of(Behaviour::PortRestricted, Behaviour::SymmetricRandom),
        Self::layers_of(Behaviour::SymmetricSequential, Behaviour::PortRestricted),
        Self::layers_of(Behaviour::SymmetricRandom, Behaviour::PortRestricted),
    ];

    /// Further kinds, which random worlds are not drawn from: behind those of [`Self::all`] in every matrix.
    pub const FURTHER: [Self; 6] = {
        let [a, b, c, d] = Self::ONE_SYMMETRIC_LAYER;
        [Self::SymmetricBlock, Self::Mapped, a, b, c, d]
    };

    const fn layers_of(home: Behaviour, carrier: Behaviour) -> Self {
        Self::Layers { home, carrier }
    }

    /// Every kind that has a name, [`Self::FURTHER`] but, in the order in which a matrix shows them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let plain = Behaviour::ALL.map(Self::of);
        let leaky = plain.map(Self::leaky);
        let routers = plain.iter().chain(&leaky).filter(|kind| kind.layers() > 0);
        let carriers: Vec<Self> = routers.map(|kind| kind.behind_carrier()).collect();
        let rest = [Self::UdpBlocked, Self::Ipv6Firewall, Self::SameLan, Self::SameNat, Self::SameNatHairpin];
        plain.into_iter().chain(leaky).chain(carriers).chain(rest).collect()
    }

    /// Routers that translate or filter between the host and the public core. A priming packet must have a
    /// TTL of one more than this.
    #[must_use]
    pub const fn layers(self) -> u8 {
        match self {
            Self::Home(Edge { behaviour: Behaviour::Open, .. }) => 0,
            Self::Home(_)
            | Self::UdpBlocked
            | Self::Ipv6Firewall
            | Self::SameLan
            | Self::SameNat
            | Self::SameNatHairpin
            | Self::SymmetricBlock
            | Self::Mapped => 1,
            Self::Cgnat(_) | Self::Layers { .. } => 2,
        }
    }

    /// Whether all hosts of this kind share one router.
    #[must_use]
    pub const fn shares_a_router(self) -> bool {
        matches!(self, Self::SameLan | Self::SameNat | Self::SameNatHairpin)
    }

    /// What it stands for, in a line.
    #[must_use]
    pub fn describe(self) -> String {
        let edge = |edge: Edge| {
            let what = edge.behaviour.describe();
            let leak = if edge.leaky && edge.behaviour != Behaviour::Open {
                "; an early probe from outside takes the reply tuple"
            } else {
                ""
            };
            format!("{what}{leak}")
        };
        match self {
            Self::Home(of) => edge(of),
            Self::Cgnat(of) => format!("home router and carrier, each: {}", edge(of)),
            Self::Layers { home, carrier } => {
                format!("home router: {}; carrier: {}", home.describe(), carrier.describe())
            }
            Self::UdpBlocked => "a router that passes no UDP".to_owned(),
            Self::Ipv6Firewall => "global IPv6 behind a stateful firewall, no IPv4".to_owned(),
            Self::SameLan => "one LAN with the other, behind a port-restricted router".to_owned(),
            Self::SameNat => {
                "another LAN of the same port-restricted router, which routes between them".to_owned()
            }
            Self::SameNatHairpin => {
                "another LAN of the same router, kept apart; the router has a hairpin".to_owned()
            }
            Self::SymmetricBlock => format!("a port for each endpoint, at random from {SMALL_BLOCK}"),
            Self::Mapped => {
                "a port for each endpoint, at random, and one that is mapped on request".to_owned()
            }
        }
    }

    /// Its routers' behaviour, the host's own first.
    #[must_use]
    pub fn policies(self) -> Vec<Policy> {
        let port_restricted = Behaviour::PortRestricted.policy();
        match self {
            Self::Home(edge) => edge.policy().into_iter().collect(),
            Self::Cgnat(edge) => edge.policy().into_iter().chain(edge.carrier_policy()).collect(),
            Self::Layers { home, carrier } => {
                let [home, carrier] = [home, carrier].map(|behaviour| Edge { behaviour, leaky: false });
                home.policy().into_iter().chain(carrier.carrier_policy()).collect()
            }
            Self::UdpBlocked => {
                port_restricted.map(|policy| Policy { passes_udp: false, ..policy }).into_iter().collect()
            }
            Self::Ipv6Firewall => vec![Policy::firewall()],
            Self::SameLan | Self::SameNat => port_restricted.into_iter().collect(),
            Self::SameNatHairpin => port_restricted
                .map(|policy| policy.hairpinning(Hairpin::ExternalSource))
                .into_iter()
                .collect(),
            Self::SymmetricBlock => Behaviour::SymmetricRandom
                .policy()
                .map(|policy| policy.allocating(Allocation::RandomInBlock { size: SMALL_BLOCK }))
                .into_iter()
                .collect(),
            Self::Mapped => Behaviour::SymmetricRandom.policy().into_iter().collect(),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.leaky { "+leaky" } else { "" };
        write!(f, "{}{suffix}", self.behaviour.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(edge) => edge.fmt(f),
            Self::Cgnat(edge) => write!(f, "cgnat({edge})"),
            Self::Layers { home, carrier } => write!(f, "cgnat({}/{})", home.name(), carrier.name()),
            Self::UdpBlocked => f.write_str("udp-blocked"),
            Self::Ipv6Firewall => f.write_str("ipv6-firewall"),
            Self::SameLan => f.write_str("same-lan"),
            Self::SameNat => f.write_str("same-nat"),
            Self::SameNatHairpin => f.write_str("same-nat+hairpin"),
            Self::SymmetricBlock => f.write_str("symmetric-block"),
            Self::Mapped => f.write_str("symmetric-random+mapped"),
        }
    }
}

/// A name that no kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind {
    name: String,
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no NAT kind is named `{}`: `nat-sim list` shows them all", self.name)
    }
}

impl Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Reads the names that [`Kind`] prints.
    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let kinds = Self::all().into_iter().chain(Self::FURTHER);
        let found = kinds.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name_and_no_two_share_one() {
        let kinds = || Kind::all().into_iter().chain(Kind::FURTHER);
        let mut names: Vec<String> = kinds().map(|kind| kind.to_string()).collect();
        for (kind, name) in kinds().zip(&names) {
            assert_eq!(name.parse(), Ok(kind));
        }
        assert_eq!(names.len(), 33);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 33);
    }

    #[test]
    fn a_wrong_name_is_an_error_that_says_where_the_names_are() {
        for name in ["", "easy", "open ", "cgnat(open)", "cgnat(full-cone/open)", "udp-blocked+leaky"] {
            let error = name.parse::<Kind>().unwrap_err().to_string();
            assert!(error.contains("nat-sim list") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_kind_has_as_many_policies_as_layers() {
        for kind in Kind::all().into_iter().chain(Kind::FURTHER) {
            assert_eq!(kind.policies().len(), usize::from(kind.layers()), "{kind}");
        }
    }

    #[test]
    fn a_home_router_comes_before_its_carrier() {
        let kind: Kind = "cgnat(port-restricted/symmetric-random)".parse().unwrap();
        let allocations: Vec<_> = kind.policies().iter().map(|policy| policy.allocation).collect();
        assert_eq!(allocations, [Allocation::Preserving, Allocation::Random]);
        let kind: Kind = "cgnat(symmetric-sequential/port-restricted)".parse().unwrap();
        let allocations: Vec<_> = kind.policies().iter().map(|policy| policy.allocation).collect();
        assert_eq!(
            allocations,
            [Allocation::Sequential { step: 1 }, Allocation::RandomInBlock { size: CARRIER_BLOCK }]
        );
    }

    #[test]
    fn a_leaky_carrier_leaks_at_both_layers() {
        let kind: Kind = "cgnat(port-restricted+leaky)".parse().unwrap();
        assert!(kind.policies().iter().all(|policy| policy.strangers == crate::nat::Strangers::Tracked));
    }
}
