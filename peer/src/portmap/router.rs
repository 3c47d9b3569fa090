//! The router, as the three protocols see it: what it can do, and one UDP port mapped by it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};

use super::Protocol;

/// For how long a mapping is asked for. One that outlives a crash is gone after this; the protocols' usual two
/// hours would be long.
const LIFETIME: Duration = Duration::from_secs(20 * 60);

/// What the router's list of mappings shows.
const DESCRIPTION: &str = "culvert";

/// Requests to the router: at once, after 250 ms, after 500 ms more (RFC 6886 §3.1 begins so, and goes on for a
/// minute).
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_millis(500)),
};

/// This machine, as its router knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    router: Ipv4Addr,
    own: Ipv4Addr,
}

impl Place {
    /// Where the default route leads; `None` without one, or where the system does not tell.
    pub(super) fn find() -> Option<Self> {
        let router = default_router(&std::fs::read_to_string("/proc/net/route").ok()?)?;
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // Connecting a datagram socket only looks the route up.
        socket.connect((router, crab_nat::GATEWAY_PORT)).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(own) => Some(Self { router, own }),
            IpAddr::V6(_) => None,
        }
    }

    fn gateway(self) -> GatewayAddress {
        self.router.into()
    }

    /// Whether the router speaks PCP, by its answer to the removal of a mapping that nobody has.
    pub(super) async fn speaks_pcp(self) -> bool {
        let Some(port) = free_port() else { return false };
        let range = pcp::DropMappingRange::Single { internal_port: port, protocol: InternetProtocol::Udp };
        let nonce = pcp::Nonce::default();
        let asked =
            pcp::try_drop_mapping(self.gateway(), self.own.into(), nonce, range, Some(TIMEOUTS)).await;
        match asked {
            Ok(()) => true,
            Err(
                pcp::Failure::Socket(_)
                | pcp::Failure::Timeout
                | pcp::Failure::UnsupportedVersion(_)
                | pcp::Failure::InvalidResponse(_),
            ) => false,
            // It refuses in the right words.
            Err(_) => true,
        }
    }

    pub(super) async fn speaks_nat_pmp(self) -> bool {
        natpmp::external_address(self.gateway(), Some(TIMEOUTS)).await.is_ok()
    }

    /// The router as UPnP shows it.
    pub(super) async fn search(self, patience: Duration) -> Option<Gateway<Tokio>> {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddrV4::new(self.own, 0).into();
        options.timeout = Some(patience);
        options.single_search_timeout = Some(patience);
        search_gateway(options).await.ok()
    }

    /// Has `port` mapped by PCP, or NAT-PMP. UPnP wants to be found first: see [`Self::ask_upnp`].
    pub(super) async fn ask(self, protocol: Protocol, port: NonZeroU16) -> Option<Mapping> {
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: Some(LIFETIME.as_secs() as u32),
            timeout_config: Some(TIMEOUTS),
        };
        let udp = InternetProtocol::Udp;
        let mapping = match protocol {
            Protocol::Pcp => {
                let base = pcp::BaseMapRequest::new(self.gateway(), self.own.into(), udp, port);
                pcp::port_mapping(base, None, None, options).await.ok()?
            }
            Protocol::NatPmp => natpmp::port_mapping(self.gateway(), udp, port, options).await.ok()?,
            Protocol::Upnp => return None,
        };
        Mapping::of(mapping).await
    }

    /// Has `port` mapped by UPnP.
    pub(super) async fn ask_upnp(self, gateway: Gateway<Tokio>, port: NonZeroU16) -> Option<Mapping> {
        UpnpMapping::make(gateway, SocketAddrV4::new(self.own, port.get())).await
    }
}

/// A port that no program has, for as long as it takes to ask about it.
fn free_port() -> Option<NonZeroU16> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    NonZeroU16::new(socket.local_addr().ok()?.port())
}

/// The router of the default route in the kernel's table: lines of an interface, a destination and a gateway in
/// hexadecimal of this machine's byte order, and more.
fn default_router(table: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// A mapping that stands.
pub(super) enum Mapping {
    Asked { mapping: Box<PortMapping>, external: SocketAddr },
    Upnp(Box<UpnpMapping>),
}

/// One by UPnP.
pub(super) struct UpnpMapping {
    gateway: Gateway<Tokio>,
    own: SocketAddr,
    external: SocketAddr,
    lifetime: Duration,
}

impl Mapping {
    async fn of(mapping: PortMapping) -> Option<Self> {
        let external = external(&mapping).await?;
        Some(Self::Asked { mapping: Box::new(mapping), external })
    }

    /// Where the world reaches the port.
    pub(super) fn external(&self) -> SocketAddr {
        match self {
            Self::Asked { external, .. } => *external,
            Self::Upnp(mapping) => mapping.external,
        }
    }

    /// For how long the router keeps it.
    pub(super) fn lifetime(&self) -> Duration {
        match self {
            Self::Asked { mapping, .. } => Duration::from_secs(mapping.lifetime().into()),
            Self::Upnp(mapping) => mapping.lifetime,
        }
    }

    /// Has it for another lifetime, at another external port if need be; `false` where the router refuses, or is
    /// gone.
    pub(super) async fn renew(&mut self) -> bool {
        match self {
            Self::Asked { mapping, external: known } => {
                if mapping.renew().await.is_err() {
                    return false;
                }
                match external(mapping).await {
                    Some(now) => *known = now,
                    None => return false,
                }
                true
            }
            Self::Upnp(mapping) => mapping.renew().await,
        }
    }

    /// Takes it back.
    pub(super) async fn remove(self) {
        let removed = match self {
            Self::Asked { mapping, .. } => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
            Self::Upnp(mapping) => {
                let port = mapping.external.port();
                let removed = mapping.gateway.remove_port(PortMappingProtocol::UDP, port).await;
                removed.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = removed {
            tracing::debug!(error, "the router keeps the port mapped until its time is over");
        }
    }
}

impl UpnpMapping {
    async fn make(gateway: Gateway<Tokio>, own: SocketAddrV4) -> Option<Mapping> {
        let (own, ip) = (SocketAddr::V4(own), gateway.get_external_ip().await.ok()?);
        let mut mapping =
            Self { gateway, own, external: SocketAddr::new(ip, own.port()), lifetime: LIFETIME };
        mapping.renew().await.then(|| Mapping::Upnp(Box::new(mapping)))
    }

    /// The external port is the one it was, at first our own; or any, where that is somebody else's.
    async fn renew(&mut self) -> bool {
        let (udp, port) = (PortMappingProtocol::UDP, self.external.port());
        let seconds = LIFETIME.as_secs() as u32;
        match self.gateway.add_port(udp, port, self.own, seconds, DESCRIPTION).await {
            Ok(()) => true,
            Err(AddPortError::OnlyPermanentLeasesSupported) => {
                self.gateway.add_port(udp, port, self.own, 0, DESCRIPTION).await.is_ok()
            }
            Err(error) => {
                tracing::debug!(%error, port, "the router does not map this port");
                let any = self.gateway.add_any_port(udp, self.own, seconds, DESCRIPTION).await;
                any.map(|port| self.external.set_port(port)).is_ok()
            }
        }
    }
}

/// Where a port that was asked for is reached. NAT-PMP tells the address apart from the port.
async fn external(mapping: &PortMapping) -> Option<SocketAddr> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            natpmp::external_address(mapping.gateway(), Some(TIMEOUTS)).await.ok()?.into()
        }
    };
    Some(SocketAddr::new(ip.to_canonical(), mapping.external_port().get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_the_default_routes() {
        let gateway = u32::from_ne_bytes([192, 168, 1, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\n\
             eth0\t0001A8C0\t00000000\t0001\n\
             eth0\t00000000\t{gateway:08X}\t0003\n"
        );
        assert_eq!(default_router(&table), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(default_router("Iface\nppp0\t00000000\t00000000\t1\n"), None, "a line without a router");
        assert_eq!(default_router(""), None);
        assert_eq!(default_router("x\ny"), None);
    }
}
