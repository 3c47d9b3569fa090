//! What a gateway is told before it starts.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use proto::admission::Admission;
use proto::id::PeerId;
use proto::name::ShareName;
use proto::server_health::RequestFacts;
use proto::tunnel::host::Hosts;
use proto::tunnel::names::NamesConfig;
use proto::tunnel::pool::PoolConfig;
use proto::tunnel::proxy::Cidr;

use super::claims::Claims;
use crate::access_log::AccessLog;

/// The ports of localtunnel's clients, one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelPorts {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl TunnelPorts {
    /// The program's.
    pub const DEFAULT: Self = Self { from: 20_000, to: 20_099 };

    /// Whatever the system chooses.
    pub const ANY: Self = Self { from: 0, to: 0 };

    /// How many there are.
    pub fn count(self) -> usize {
        if self == Self::ANY { usize::from(u16::MAX) } else { usize::from(self.to - self.from) + 1 }
    }
}

/// Why a text is no range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a range of ports such as 20000-20099, or 0-0 for whatever is free")]
pub struct InvalidPorts;

impl FromStr for TunnelPorts {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let (from, to) = text.split_once('-').ok_or(InvalidPorts)?;
        let port = |text: &str| text.parse::<u16>().map_err(|_| InvalidPorts);
        let ports = Self { from: port(from)?, to: port(to)? };
        let ordered = ports.from <= ports.to && (ports.from > 0 || ports == Self::ANY);
        if ordered { Ok(ports) } else { Err(InvalidPorts) }
    }
}

/// Where names are reached from outside. It comes from the server's settings alone, never from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameUrls {
    /// `http` or `https`.
    pub scheme: String,
    /// The domain under which the names are.
    pub domain: String,
    /// The port, where it is not the scheme's own.
    pub port: Option<u16>,
}

impl NameUrls {
    /// The URL of a name.
    pub fn of(&self, name: &ShareName) -> String {
        let Self { scheme, domain, port } = self;
        let port = port.filter(|port| *port != if scheme == "https" { 443 } else { 80 });
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{name}.{domain}{port}")
    }
}

/// How much strangers may have of a gateway, and how long things may take.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    /// Connections of visitors in all: ten thousand WebSockets, and others beside them.
    pub connections: usize,
    /// Connections from one prefix: a thousand WebSockets, and an office beside them.
    pub connections_each: usize,
    /// Exchanges of one share of a sharer's, WebSockets included.
    pub exchanges: usize,
    /// How long a sharer's connection may have no share that is shown: it takes a place that others want.
    pub unused: Duration,
    /// How long a head may take from its first byte on.
    pub head: Duration,
    /// How long a connection may be idle between two requests.
    pub idle: Duration,
    /// How long nothing may come of a request's body.
    pub body: Duration,
    /// How long the local server may think before it answers.
    pub answer: Duration,
    /// How long a reader may read nothing.
    pub blocked: Duration,
    /// Bytes that all readers together may leave unread. Over it those are cut who have read nothing for longest.
    pub unread_bytes: u64,
}

impl GatewayLimits {
    /// How long the system may try to get rid of what was written: [`Self::blocked`] decides before that, where
    /// its far end is there.
    pub(crate) fn unread(&self) -> Duration {
        self.blocked + Duration::from_secs(15)
    }
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            connections_each: 1_500,
            exchanges: 11_000,
            unused: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(60),
            answer: Duration::from_secs(60),
            blocked: Duration::from_secs(60),
            unread_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Hears what requests tell of how this server is deployed.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// A request that says for whom it was forwarded.
    fn forwarded(&self, request: RequestFacts<'_>);

    /// A client looked for the server itself under a name that is not the server's.
    fn not_apex(&self, name: &str);
}

/// What a gateway is told.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Which hosts are the server itself, and which are names.
    pub hosts: Hosts,
    /// Where names are reached from outside.
    pub urls: NameUrls,
    /// The address on which the tunnels' ports are opened.
    pub ip: IpAddr,
    /// The ports of localtunnel's clients; without them there are none.
    pub tunnel_ports: Option<TunnelPorts>,
    /// What those clients may have.
    pub pool: PoolConfig,
    /// Whose X-Forwarded-For counts.
    pub trusted: Vec<Cidr>,
    /// This server's identity: a claim of a name is made at it and nowhere else.
    pub server: PeerId,
    /// Who may show something here.
    pub admission: Admission,
    /// What keys may have of the names.
    pub names: NamesConfig,
    /// The names that keys have.
    pub claims: Claims,
    /// What visitors may have.
    pub limits: GatewayLimits,
    /// Where each request is noted, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Paths that are the server's own under every host that nobody could claim: a client may know the server by a name
    /// that it does not know itself.
    pub own_paths: &'static [&'static str],
    /// Who hears what requests tell of the deployment.
    pub witness: Option<Arc<dyn Witness>>,
    /// Makes the gateway's random names.
    pub seed: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_has_two_ends_in_order() {
        assert_eq!("20000-20099".parse(), Ok(TunnelPorts::DEFAULT));
        assert_eq!("0-0".parse(), Ok(TunnelPorts::ANY));
        assert_eq!(TunnelPorts { from: 5, to: 5 }.count(), 1);
        assert_eq!(TunnelPorts { from: 1, to: 65535 }.count(), 65535);
        for text in ["", "1", "2-1", "0-5", "a-b", "1-65536", "1-2-3", "-1-2"] {
            assert!(text.parse::<TunnelPorts>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_names_the_port_only_where_it_must() {
        let url = |scheme: &str, port| {
            let urls = NameUrls { scheme: scheme.to_owned(), domain: "example.test".to_owned(), port };
            urls.of(&"nas".parse().unwrap())
        };
        assert_eq!(url("http", Some(8080)), "http://nas.example.test:8080");
        assert_eq!(url("http", Some(80)), "http://nas.example.test");
        assert_eq!(url("https", Some(443)), "https://nas.example.test");
        assert_eq!(url("https", None), "https://nas.example.test");
    }
}
