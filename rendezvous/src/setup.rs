//! What a server is put together from, by its configuration.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use proto::id::PeerId;
use proto::key::SecretKey;
use proto::reach::{Door, state};
use proto::relay::RouterLimits;
use proto::server_health::ServerFacts;
use proto::sighting::Notary;
use proto::tunnel::host::Hosts;
use proto::wire::relay::PATH as RELAY;
use proto::wire::{gateway, session};
use quinn::{Endpoint, TransportConfig, VarInt};
use relay::gateway::{GatewayConfig, NameUrls};
use relay::http::HttpLimits;
use relay::listen::Socket;
use relay::net::Net;
use relay::quic::{self, ResetKey};
use relay::server::RelayServer;
use relay::tls;
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::checks::Checks;
use crate::config::{Limits, Relaying, ServerConfig};
use crate::in_turn::InTurn;
use crate::relays::Relays;
use crate::socket::ServerSocket;
use crate::well_known;

/// What the server's own pages allow, public or not: each is asked for on a connection of its own, or by an
/// operator.
pub(crate) fn http_limits(limits: &Limits) -> HttpLimits {
    let Limits { http_head: head, http_life: life, admin_connections: connections, .. } = *limits;
    HttpLimits { connections, connections_each: connections, head, life }
}

/// The gateway of a server whose HTTP side is bound to `http`, and to `https` where it speaks TLS.
pub(crate) fn gateway_config(
    config: &ServerConfig,
    server: PeerId,
    http: SocketAddr,
    https: Option<SocketAddr>,
    checks: Checks,
) -> GatewayConfig {
    let (scheme, port) = match (&config.public_url, https) {
        (Some(url), _) => (url.scheme_str().unwrap_or("http"), url.port_u16()),
        (None, Some(https)) => ("https", Some(https.port())),
        (None, None) => ("http", Some(http.port())),
    };
    let public_host = config.public_url.as_ref().and_then(|url| url.host());
    GatewayConfig {
        hosts: Hosts::new(&config.domain, config.apex.iter().map(String::as_str).chain(public_host)),
        urls: NameUrls { scheme: scheme.to_owned(), domain: config.domain.clone(), port },
        ip: http.ip(),
        tunnel_ports: config.tunnel_ports,
        pool: config.limits.tunnels.clone(),
        trusted: config.trusted_proxies.clone(),
        server,
        admission: config.admission.clone(),
        names: config.limits.names.clone(),
        claims: config.claims.clone(),
        limits: config.limits.gateway.clone(),
        access_log: config.access_log.clone(),
        own_paths: &[well_known::PATH, RELAY],
        witness: Some(Arc::new(checks)),
        seed: config.seed.unwrap_or_else(random_seed),
    }
}

fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut seed).expect("the system has randomness");
    seed
}

/// What knows the words of the server's sockets again.
pub(crate) fn notary(config: &ServerConfig) -> Notary {
    Notary::new(config.seed.unwrap_or_else(random_seed), Instant::now().into_std())
}

/// The sockets with what clients reach in place of each; what is stated too much is said and left out.
pub(crate) fn doors(sockets: &[&Socket], stated: &[SocketAddr]) -> Vec<Door> {
    let mut doors: Vec<_> = sockets.iter().map(|(_, bound)| Door::new(*bound)).collect();
    if let Err(left) = state(&mut doors, stated) {
        tracing::warn!("{left}");
    }
    doors
}

/// What is to be looked at of a server that has these sockets.
pub(crate) fn checks(config: &ServerConfig, doors: &[Door], http: SocketAddr) -> Checks {
    let relays = match &config.relay {
        Relaying::Embedded(_) => Vec::new(),
        Relaying::Elsewhere { relays, .. } => relays.iter().map(|relay| relay.url.clone()).collect(),
    };
    Checks::new(ServerFacts {
        doors: doors.to_vec(),
        has_public_url: config.public_url.is_some(),
        http_on_loopback: http.ip().is_loopback(),
        relays,
    })
}

/// Where clients reach a server that has these sockets.
pub(crate) fn addresses(
    config: &ServerConfig,
    net: &Arc<dyn Net>,
    doors: Vec<Door>,
    http: SocketAddr,
) -> Arc<Addresses> {
    let public_url = config.public_url.as_ref();
    Arc::new(Addresses::new(Arc::clone(net), doors, http, public_url, &config.domain))
}

/// The relays of a server, its own among them.
pub(crate) fn relays(config: &ServerConfig, server: PeerId, checks: Checks) -> Relays {
    let own = |limits| Some(Arc::new(RelayServer::start(server, limits)));
    match &config.relay {
        Relaying::Embedded(limits) => Relays::new(own((**limits).clone()), Vec::new(), checks),
        Relaying::Elsewhere { relays, own: has_own } => {
            let own = if *has_own { own(RouterLimits::default()) } else { None };
            Relays::new(own, relays.clone(), checks)
        }
    }
}

/// QUIC on the main socket.
pub(crate) fn endpoint(
    socket: ServerSocket,
    bound: SocketAddr,
    key: &SecretKey,
    seed: Option<[u8; 32]>,
) -> io::Result<Endpoint> {
    // Servers of one identity that are up together differ in their ports; one that comes back has its own.
    let salt = [b"culvert session ", &bound.port().to_be_bytes()[..]].concat();
    let reset_key = ResetKey::derive(key, &salt);
    let config = quic::server_config(
        tls::server_config(key, &[session::ALPN, gateway::ALPN]),
        &reset_key,
        Arc::new(transport()),
        quic::Addresses::Real,
    );
    Endpoint::new_with_abstract_socket(
        quic::endpoint_config(&reset_key, seed),
        Some(config),
        Arc::new(socket),
        Arc::new(InTurn),
    )
}

/// A conversation is one stream, which the peer opens; nothing else is let in.
fn transport() -> TransportConfig {
    let mut transport = quic::session_transport();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}
