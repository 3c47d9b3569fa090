//! What may be wrong with a deployment, in the operator's words: each is one line that ends with what to do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::candidate::Family;

/// The name by which clients come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The host of `--public-url`.
    PublicUrl(String),
    /// `--domain`.
    Domain(String),
}

impl Host {
    /// Its name, or an address in text.
    pub fn name(&self) -> &str {
        let (Self::PublicUrl(name) | Self::Domain(name)) = self;
        name
    }

    /// Whether it is the public URL's.
    pub const fn is_public_url(&self) -> bool {
        matches!(self, Self::PublicUrl(_))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicUrl(name) => write!(f, "{name}, the host of --public-url,"),
            Self::Domain(name) => write!(f, "{name}, which --domain names,"),
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The name resolves to nothing.
    NoAddress {
        /// Which name.
        host: Host,
    },
    /// The name resolves to this machine's loopback.
    Loopback {
        /// Which name.
        host: Host,
        /// To what.
        ip: IpAddr,
    },
    /// The name resolves to a private address.
    Private {
        /// Which name.
        host: Host,
        /// To what.
        ip: IpAddr,
    },
    /// The name has an address of a family that no UDP socket is bound to.
    FamilyNotBound {
        /// Which name.
        host: Host,
        /// Which family.
        family: Family,
    },
    /// UDP is for this machine alone, and HTTP is not.
    UdpOnLoopback {
        /// What it is bound to.
        bound: SocketAddr,
    },
    /// All clients come from one private address.
    Hidden {
        /// Which.
        ip: IpAddr,
        /// How many.
        clients: usize,
    },
    /// Sessions come by the relay, and none by UDP.
    NoUdp {
        /// How many.
        sessions: u64,
        /// The UDP ports, the main one first.
        ports: Vec<u16>,
    },
    /// A proxy says for whom it speaks, and is not believed.
    ProxyNotTrusted {
        /// Where it is.
        from: IpAddr,
    },
    /// A proxy stands in front, and the server does not know by which URL it is reached.
    NoPublicUrl {
        /// The name by which the server was asked.
        name: String,
    },
    /// The server was asked for under a name that is not its own.
    NotApex {
        /// The name.
        name: String,
    },
    /// A relay does not answer as it should.
    RelayAway {
        /// Which.
        url: String,
        /// What it does instead.
        why: String,
    },
}

/// What a warning is about, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// [`Warning::NoAddress`].
    NoAddress,
    /// [`Warning::Loopback`].
    Loopback,
    /// [`Warning::Private`].
    Private,
    /// [`Warning::FamilyNotBound`].
    FamilyNotBound,
    /// [`Warning::UdpOnLoopback`].
    UdpOnLoopback,
    /// [`Warning::Hidden`].
    Hidden,
    /// [`Warning::NoUdp`].
    NoUdp,
    /// [`Warning::ProxyNotTrusted`].
    ProxyNotTrusted,
    /// [`Warning::NoPublicUrl`].
    NoPublicUrl,
    /// [`Warning::NotApex`].
    NotApex,
    /// [`Warning::RelayAway`].
    RelayAway,
}

impl WarningKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NoAddress,
        Self::Loopback,
        Self::Private,
        Self::FamilyNotBound,
        Self::UdpOnLoopback,
        Self::Hidden,
        Self::NoUdp,
        Self::ProxyNotTrusted,
        Self::NoPublicUrl,
        Self::NotApex,
        Self::RelayAway,
    ];

    /// Its name in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAddress => "name_without_address",
            Self::Loopback => "name_is_loopback",
            Self::Private => "name_is_private",
            Self::FamilyNotBound => "family_not_bound",
            Self::UdpOnLoopback => "udp_on_loopback",
            Self::Hidden => "clients_hidden",
            Self::NoUdp => "no_udp",
            Self::ProxyNotTrusted => "proxy_not_trusted",
            Self::NoPublicUrl => "no_public_url",
            Self::NotApex => "not_apex",
            Self::RelayAway => "relay_away",
        }
    }
}

impl Warning {
    /// What it is about.
    pub const fn kind(&self) -> WarningKind {
        match self {
            Self::NoAddress { .. } => WarningKind::NoAddress,
            Self::Loopback { .. } => WarningKind::Loopback,
            Self::Private { .. } => WarningKind::Private,
            Self::FamilyNotBound { .. } => WarningKind::FamilyNotBound,
            Self::UdpOnLoopback { .. } => WarningKind::UdpOnLoopback,
            Self::Hidden { .. } => WarningKind::Hidden,
            Self::NoUdp { .. } => WarningKind::NoUdp,
            Self::ProxyNotTrusted { .. } => WarningKind::ProxyNotTrusted,
            Self::NoPublicUrl { .. } => WarningKind::NoPublicUrl,
            Self::NotApex { .. } => WarningKind::NotApex,
            Self::RelayAway { .. } => WarningKind::RelayAway,
        }
    }
}

impl Warning {
    /// The name by which the server was asked, where the warning is about that. Clients choose it.
    pub(super) fn asked_name(&self) -> Option<&str> {
        match self {
            Self::NoPublicUrl { name } | Self::NotApex { name } => Some(name),
            Self::NoAddress { .. }
            | Self::Loopback { .. }
            | Self::Private { .. }
            | Self::FamilyNotBound { .. }
            | Self::UdpOnLoopback { .. }
            | Self::Hidden { .. }
            | Self::NoUdp { .. }
            | Self::ProxyNotTrusted { .. }
            | Self::RelayAway { .. } => None,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { host } => write!(
                f,
                "{host} has no address as this machine sees it: give the name an A or AAAA record, or give this machine a \
                 resolver that knows it"
            ),
            Self::Loopback { host, ip } => write!(
                f,
                "{host} is {ip} as this machine sees it, which leads no client here: take the name out of /etc/hosts, or \
                 state the address that clients reach with --udp-public ADDR:PORT"
            ),
            Self::Private { host, ip } => write!(
                f,
                "{host} is the private address {ip} as this machine sees it, which leads no client from another network \
                 here: if there are such clients, state the address that they reach with --udp-public ADDR:PORT"
            ),
            Self::FamilyNotBound { host, family: Family::V6 } => write!(
                f,
                "{host} has an IPv6 address, and --udp is bound to IPv4 alone, so clients that have only IPv6 come by the \
                 relay: bind --udp [::]:3478, or take the AAAA record away"
            ),
            Self::FamilyNotBound { host, family: Family::V4 } => write!(
                f,
                "{host} has an IPv4 address, and --udp is bound to IPv6 alone, so clients that have only IPv4 come by the \
                 relay: bind --udp [::]:3478, or take the A record away"
            ),
            Self::UdpOnLoopback { bound } => write!(
                f,
                "--udp is bound to {bound}, which only this machine reaches, so all other clients come by the relay: bind \
                 --udp [::]:{}",
                bound.port()
            ),
            Self::Hidden { ip, clients } => write!(
                f,
                "{clients} different clients come from {ip}: if they are not all there, Docker or a proxy hides where they \
                 are, and they get no direct path: run the server in the host's network (docker run --network host)"
            ),
            Self::NoUdp { sessions, ports } => {
                let (first, rest) = (ports.first().copied().unwrap_or_default(), ports.get(1));
                let second = rest.map(|port| format!(" and {port}")).unwrap_or_default();
                write!(
                    f,
                    "{sessions} sessions came by the relay and none by UDP from a public address: open UDP {first}{second} \
                     in this machine's firewall, and in the provider's or the router's"
                )
            }
            Self::ProxyNotTrusted { from } => write!(
                f,
                "requests from {from} say for whom they are forwarded, and no --trusted-proxy covers {from}, so all their \
                 visitors count as one: if a proxy of yours is there, add --trusted-proxy {from}"
            ),
            Self::NoPublicUrl { name } => write!(
                f,
                "a proxy stands in front of this server, which does not know its own URL (a request named {name}): set \
                 --public-url to the URL that the proxy answers to, such as https://{name}"
            ),
            Self::NotApex { name } => write!(
                f,
                "a client looked for this server under {name}, which is neither --domain nor an --apex: if that name is \
                 this server's, add --apex {name}"
            ),
            Self::RelayAway { url, why } => write!(
                f,
                "the relay {url} is not used first, because it did not answer this server as it should: {why}: look after \
                 it, or take it out of --relay"
            ),
        }
    }
}
