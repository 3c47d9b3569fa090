//! The server inside `peer share`, for who has none: this machine and its LAN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use proto::candidate::{Scope, scope};
use proto::ticket::{MAX_ADDRS, ServerHint};
use proto::wire::relay::PATH;
use proto::wire::signal::RelayHint;
use relay::net::Net;
use relay::program::Failure;
use rendezvous::{Alternate, Bind, Server, ServerConfig};

use crate::locate::Located;
use crate::store::{EmbeddedPorts, Store};

/// Starts a server on the ports it had the last time, where they are free.
///
/// # Errors
/// It can't listen anywhere, or its state can't be read.
pub(crate) fn start(store: &Store, net: Arc<dyn Net>) -> Result<(Server, Located), Failure> {
    let key = store.embedded_identity()?;
    let ports = store.embedded_ports()?;
    let any = |port| Bind::preferring(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let config = ServerConfig {
        udp: any(ports.udp),
        udp_alternate: Alternate::At(Vec::new()),
        http: any(ports.http),
        admin: None,
        // Whoever is in the LAN could open one.
        tunnel_ports: None,
        ..ServerConfig::default()
    };
    let server = Server::start(config, &key, Arc::clone(&net)).map_err(|error| {
        Failure::failed("no-embedded-server", format_args!("cannot start a server here: {error}"))
    })?;
    let udp = server.udp_addrs().first().map_or(0, SocketAddr::port);
    let bound = EmbeddedPorts { udp, http: server.http_addr().port() };
    // The first ports are kept for good: a second share at the same time has others, for that once.
    if ports == EmbeddedPorts::default() {
        store.save_embedded_ports(bound)?;
    }
    let hint = hint(&server, &*net, bound);
    let relay = RelayHint { url: format!("{}{PATH}", hint.url), peer_id: hint.peer_id };
    Ok((server, Located { server: hint, relay: Some(relay), reached: None }))
}

/// Where it is reached: from this machine by loopback, from others by the addresses of its interfaces.
fn hint(server: &Server, net: &dyn Net, ports: EmbeddedPorts) -> ServerHint {
    let mut ips: Vec<IpAddr> = net.addresses().unwrap_or_default();
    ips.retain(|ip| matches!(scope(SocketAddr::new(*ip, 1)), Scope::Local | Scope::Global));
    ips.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    let shown = ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let udp = std::iter::once(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .chain(ips)
        .map(|ip| SocketAddr::new(ip, ports.udp))
        .take(MAX_ADDRS)
        .collect();
    let url = format!("http://{}", SocketAddr::new(shown, ports.http));
    ServerHint { url, udp, peer_id: server.peer_id() }
}
