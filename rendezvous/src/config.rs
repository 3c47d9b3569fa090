//! What a server is told before it starts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proto::admission::Admission;
use proto::limit::Rate;
use proto::matchmaker::MatchmakerConfig;
use proto::relay::RouterLimits;
use proto::tunnel::names::NamesConfig;
use proto::tunnel::pool::PoolConfig;
use proto::tunnel::proxy::Cidr;
use proto::wire::signal::RelayHint;
use relay::access_log::AccessLog;
use relay::gateway::{Claims, GatewayLimits, TunnelPorts};
use relay::https::Https;
pub use relay::listen::Bind;
use std::time::Duration;

/// The port of STUN (RFC 8489 §18.3), for STUN and QUIC alike.
pub const UDP_PORT: u16 = 3478;

/// The port of the HTTP side.
pub const HTTP_PORT: u16 = 8080;

/// The port of the operator's side.
pub const ADMIN_PORT: u16 = 9090;

/// Further UDP addresses, which answer STUN alone: at a second port a peer sees whether its NAT maps by port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alternate {
    /// The next port of the main address, or none where that is taken; a free one where the main port was
    /// left to the system.
    NextPort,
    /// These.
    At(Vec<Bind>),
}

/// Where peers find a relay.
#[derive(Debug, Clone)]
pub enum Relaying {
    /// In this very server.
    Embedded(Box<RouterLimits>),
    /// Elsewhere, or nowhere.
    Elsewhere {
        /// The relays that peers hear of, best first.
        relays: Vec<RelayHint>,
        /// Whether this server has one of its own beside them: the way of sessions where UDP is blocked, and that of peers
        /// where none of the others is there.
        own: bool,
    },
}

/// Files and sockets of a server that nobody has connected to, and some to spare.
const OWN_FILES: usize = 64;

/// How much strangers may have of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// QUIC handshakes under way from which on a client has to prove its address first (RFC 9000 §8.1.2). One
    /// round trip more under attack, none otherwise.
    pub retry_above: usize,
    /// QUIC handshakes under way at most, 50 kB each.
    pub handshakes: usize,
    /// How long a handshake may take: several retransmissions on a slow path.
    pub handshake: Duration,
    /// Handshakes from one prefix, with proof of the address and again as many without. A carrier's NAT after
    /// an outage, and no more than a core's worth.
    pub handshakes_each: Rate,
    /// Handshakes in all, likewise: what two cores can do.
    pub handshakes_total: Rate,
    /// Messages that wait for one session that reads slowly; one more closes it. 700 bytes each at the most.
    pub queue: usize,
    /// The HTTP side, but for the server's own pages.
    pub gateway: GatewayLimits,
    /// localtunnel's clients.
    pub tunnels: PoolConfig,
    /// Names that keys claim.
    pub names: NamesConfig,
    /// TCP connections to the operator's side.
    pub admin_connections: usize,
    /// How long a client may take to send the head of a request for one of the server's own pages.
    pub http_head: Duration,
    /// How long a TCP connection for these may live, whatever it does: nothing here takes long to say.
    pub http_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retry_above: 128,
            handshakes: 2048,
            handshake: Duration::from_secs(10),
            handshakes_each: Rate { burst: 1000, refill: Duration::from_millis(5) },
            handshakes_total: Rate { burst: 4000, refill: Duration::from_millis(1) },
            queue: 256,
            gateway: GatewayLimits::default(),
            tunnels: PoolConfig::default(),
            names: NamesConfig::default(),
            admin_connections: 64,
            http_head: Duration::from_secs(10),
            http_life: Duration::from_secs(60),
        }
    }
}

/// What a server is told. The default is the program's.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// STUN and QUIC.
    pub udp: Bind,
    /// Further UDP addresses.
    pub udp_alternate: Alternate,
    /// What clients reach in place of these, in their order, each family for itself: where an address is translated on the
    /// way, the server can't see it.
    pub udp_public: Vec<SocketAddr>,
    /// The HTTP side.
    pub http: Bind,
    /// The same over TLS.
    pub https: Option<Https>,
    /// The operator's side; none has no metrics.
    pub admin: Option<Bind>,
    /// The domain of the gateway's subdomains.
    pub domain: String,
    /// How the outside reaches the HTTP side, when a proxy stands in front.
    pub public_url: Option<hyper::Uri>,
    /// Further hosts that are the server itself.
    pub apex: Vec<String>,
    /// The proxies whose word about a visitor counts.
    pub trusted_proxies: Vec<Cidr>,
    /// The ports of localtunnel's clients; without them there are none.
    pub tunnel_ports: Option<TunnelPorts>,
    /// Who may register shares, and show them to the world.
    pub admission: Admission,
    /// Where the names that keys claim are kept.
    pub claims: Claims,
    /// Where each request of a visitor is noted, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Whether the `echo` datagram is answered.
    pub echo: bool,
    /// The relay.
    pub relay: Relaying,
    /// What the sessions may do.
    pub matchmaker: MatchmakerConfig,
    /// What strangers may do.
    pub limits: Limits,
    /// Makes the QUIC endpoint's own choices the same in each run, for a laboratory.
    pub seed: Option<[u8; 32]>,
}

impl ServerConfig {
    /// How many files and sockets a server has open when all that these limits admit is there.
    pub fn files(&self) -> usize {
        let Limits { gateway, tunnels, admin_connections, .. } = &self.limits;
        let tunnels = match self.tunnel_ports {
            // A listener each.
            Some(_) => tunnels.tunnels * (1 + tunnels.connections_let_in),
            None => 0,
        };
        let relayed = match &self.relay {
            Relaying::Embedded(limits) => limits.connections.0,
            Relaying::Elsewhere { own: true, .. } => RouterLimits::default().connections.0,
            Relaying::Elsewhere { own: false, .. } => 0,
        };
        gateway.connections + tunnels + relayed + admin_connections + OWN_FILES
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self {
            udp: Bind::exactly(SocketAddr::new(any, UDP_PORT)),
            udp_alternate: Alternate::NextPort,
            udp_public: Vec::new(),
            http: Bind::exactly(SocketAddr::new(any, HTTP_PORT)),
            https: None,
            admin: Some(Bind::exactly(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT))),
            domain: "localhost".to_owned(),
            public_url: None,
            apex: Vec::new(),
            trusted_proxies: Vec::new(),
            tunnel_ports: Some(TunnelPorts::DEFAULT),
            admission: Admission::default(),
            claims: Claims::default(),
            access_log: None,
            echo: true,
            relay: Relaying::Embedded(Box::default()),
            matchmaker: MatchmakerConfig::default(),
            limits: Limits::default(),
            seed: None,
        }
    }
}
