//! A running server: its sockets, its tasks, and how it stops.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};

use hyper::Uri;
use proto::id::PeerId;
use proto::key::SecretKey;
use proto::relay::RouterLimits;
use proto::sighting::Notary;
use proto::tunnel::host::Hosts;
use proto::wire::gateway;
use proto::wire::relay::PATH as RELAY;
use proto::wire::session::{self, MAX_HINTS, close};
use proto::wire::signal::RelayHint;
use quinn::{Endpoint, TransportConfig, VarInt};
use relay::gateway::{Entrance, Gateway, GatewayConfig, NameUrls};
use relay::http::{Handed, HttpLimits, HttpServer, Pages};
use relay::https::HttpsDoor;
use relay::listen::{Socket, StartError, refused};
use relay::net::{Link, Listener, Net};
use relay::quic::{self, Addresses, ResetKey};
use relay::server::RelayServer;
use relay::tls;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::accept::{Gate, accept};
use crate::admin::Admin;
use crate::bound::Bound;
use crate::config::{Limits, Relaying, ServerConfig};
use crate::front::Front;
use crate::in_turn::InTurn;
use crate::sessions::Sessions;
use crate::socket::{Desk, ServerSocket, serve_alternate};
use crate::stats::{Counters, Stats};
use crate::well_known::WellKnown;

/// How long the peers may take to hear that the server stops, and requests to be answered: together well
/// under the five seconds that a program has.
const GOODBYE: Duration = Duration::from_millis(1500);
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// When the peers of the relay are asked to come back: a restart takes about as long.
const BACK_IN: Duration = Duration::from_millis(500);

/// A running server. Dropping it stops everything at once; [`Server::shutdown`] says goodbye first.
#[derive(Debug)]
pub struct Server {
    front: Arc<Front>,
    gateway: Arc<Gateway>,
    sessions: Arc<Sessions>,
    desk: Arc<Desk>,
    counters: Arc<Counters>,
    admin: Option<SocketAddr>,
    endpoint: Endpoint,
    /// The UDP sockets, gone when their ports are free again.
    sockets: Vec<Weak<dyn Link>>,
    /// What the operator is told first, and what ends the listeners after that.
    draining: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    /// Those that end by themselves on `stop`, and those that never do.
    listeners: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds everything and starts to serve, within a tokio runtime.
    ///
    /// # Errors
    /// An address can't be bound.
    pub fn start(config: ServerConfig, key: &SecretKey, net: Arc<dyn Net>) -> Result<Self, StartError> {
        let Bound { udp: (link, udp), alternates, http: (listener, http), https, admin } =
            Bound::new(&config, &*net)?;
        let https_addr = https.as_ref().map(|door| door.addr);
        let gateway = gateway_config(&config, key.peer_id(), http, https_addr);
        let counters = Arc::new(Counters::default());
        let udp_alternate: Vec<_> = alternates.iter().map(|(_, addr)| *addr).collect();

        let main = (link, udp);
        let all: Vec<&Socket> = [&main].into_iter().chain(&alternates).collect();
        let sockets = all.iter().map(|(link, _)| Arc::downgrade(link)).collect();
        let notary = Notary::new(config.seed.unwrap_or_else(random_seed), Instant::now().into_std());
        let desk = Arc::new(Desk::new(config.echo, &all, notary.clone(), Arc::clone(&counters)));
        let mut matchmaker = config.matchmaker;
        matchmaker.notary = Some(notary);
        matchmaker.admission = config.admission;
        matchmaker.udp_alternate = udp_alternate.iter().copied().take(MAX_HINTS).collect();
        let (relay, relays) = match config.relay {
            Relaying::Embedded(limits) => {
                (Some(Arc::new(RelayServer::start(key.peer_id(), *limits))), Vec::new())
            }
            Relaying::Elsewhere { relays, sessions } => {
                let limits = RouterLimits { between_peers: false, ..RouterLimits::default() };
                let own = sessions.then(|| Arc::new(RelayServer::start(key.peer_id(), limits)));
                (own, relays.into_iter().take(MAX_HINTS).collect())
            }
        };
        let for_peers = relay.as_deref().filter(|relay| relay.is_between_peers());
        matchmaker.relays = advertised(for_peers, config.public_url.as_ref(), &relays);
        let sessions = Arc::new(Sessions::new(matchmaker, config.limits.queue, Arc::clone(&counters)));
        let socket = ServerSocket::new(
            main.0,
            relay.as_ref().and_then(|relay| relay.service()),
            udp,
            Arc::clone(&desk),
        );
        let endpoint = endpoint(socket, udp, key, config.seed).map_err(refused("UDP", "--udp", udp))?;
        let stop = watch::Sender::new(false);
        let front = Arc::new(Front {
            net: Arc::clone(&net),
            peer_id: key.peer_id(),
            udp: vec![udp],
            udp_alternate,
            http,
            https: https_addr,
            domain: config.domain,
            public_url: config.public_url,
            trusted: config.trusted_proxies.clone(),
            relay,
            relays,
            public_ip: Mutex::new(None),
        });
        let handed = Handed {
            pages: Arc::clone(&front) as Arc<dyn Pages>,
            limits: http_limits(&config.limits),
            counters: Arc::clone(&counters.http),
            stop: stop.subscribe(),
        };
        let gateway = Arc::new(Gateway::new(gateway, net, Arc::new(handed)));

        let mut server = Self {
            front,
            gateway,
            sessions,
            desk,
            counters,
            admin: admin.as_ref().map(|(_, addr)| *addr),
            endpoint,
            sockets,
            draining: watch::Sender::new(false),
            stop,
            listeners: JoinSet::new(),
            tasks: JoinSet::new(),
        };
        server.serve_udp(alternates, &config.limits);
        let mut doors = vec![Entrance { listener, tls: None }];
        if let Some(HttpsDoor { listener, tls, certificate, .. }) = https {
            doors.push(Entrance { listener, tls: Some(tls) });
            server.tasks.spawn(certificate.follow());
        }
        server.serve_http(doors, admin.map(|(listener, _)| listener), &config.limits);
        Ok(server)
    }

    fn serve_udp(&mut self, alternates: Vec<Socket>, limits: &Limits) {
        for (link, addr) in alternates {
            self.tasks.spawn(serve_alternate(link, addr, Arc::clone(&self.desk)));
        }
        let sessions = Arc::clone(&self.sessions);
        self.tasks.spawn(async move { sessions.keep_time().await });
        let gate = Gate {
            sessions: Arc::clone(&self.sessions),
            gateway: Arc::clone(&self.gateway),
            counters: Arc::clone(&self.counters),
            limits: limits.clone(),
        };
        self.tasks.spawn(accept(self.endpoint.clone(), gate));
    }

    fn serve_http(&mut self, doors: Vec<Entrance>, admin: Option<Box<dyn Listener>>, limits: &Limits) {
        let gateway = Arc::clone(&self.gateway);
        self.listeners.spawn(gateway.serve(doors, self.stop.subscribe()));
        if let Some(listener) = admin {
            let pages = Admin {
                sessions: Arc::clone(&self.sessions),
                desk: Arc::clone(&self.desk),
                relay: self.front.relay.clone(),
                counters: Arc::clone(&self.counters),
                gateway: Arc::clone(&self.gateway),
                draining: self.draining.subscribe(),
            };
            let (limits, counters) = (http_limits(limits), Arc::clone(&self.counters.http));
            let http = HttpServer { listener, tls: None, pages: Arc::new(pages), limits, counters };
            self.listeners.spawn(http.serve(self.stop.subscribe()));
        }
    }

    /// The server's identity.
    pub fn peer_id(&self) -> PeerId {
        self.front.peer_id
    }

    /// Where it answers STUN and QUIC, as bound: a wildcard is a wildcard.
    pub fn udp_addrs(&self) -> &[SocketAddr] {
        &self.front.udp
    }

    /// Where it answers STUN alone, as bound.
    pub fn udp_alternate_addrs(&self) -> &[SocketAddr] {
        &self.front.udp_alternate
    }

    /// Where the HTTP side listens, as bound.
    pub fn http_addr(&self) -> SocketAddr {
        self.front.http
    }

    /// Where it speaks TLS, as bound.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.front.https
    }

    /// The URL to give to `--server`, where it speaks TLS itself.
    pub fn https_url(&self) -> Option<String> {
        self.front.https_url()
    }

    /// Where the operator's side listens.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The domain of the gateway's subdomains.
    pub fn domain(&self) -> &str {
        &self.front.domain
    }

    /// What `/.well-known/culvert` answers to somebody who reached this machine at `asked`.
    pub fn well_known(&self, asked: IpAddr) -> WellKnown {
        self.front.well_known(asked)
    }

    /// What has been counted.
    pub fn stats(&self) -> Stats {
        let relay = self.front.relay.as_ref().map(|relay| relay.stats());
        self.counters.stats(self.sessions.stats(), self.desk.stats(), self.gateway.stats(), relay)
    }

    /// Stops: no new sessions, those that are here are told to come back, requests are answered, the
    /// operator's with the truth. It takes three seconds at the most, and then the ports are free.
    pub async fn shutdown(mut self) {
        self.draining.send_replace(true);
        self.endpoint.set_server_config(None);
        self.endpoint.close(VarInt::from_u32(close::RESTARTING), b"restarting");
        let relay = async {
            if let Some(relay) = &self.front.relay {
                relay.shutdown(BACK_IN, GOODBYE).await;
            }
        };
        let _late = tokio::join!(timeout(GOODBYE, self.endpoint.wait_idle()), relay);
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        let _late = timeout(LAST_ANSWERS, ended).await;
        self.listeners.shutdown().await;
        self.tasks.shutdown().await;
        let Self { endpoint, sockets, .. } = self;
        drop(endpoint);
        // quinn's own task has the socket, and lets go of it by itself.
        let released = async {
            while sockets.iter().any(|socket| socket.strong_count() > 0) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _late = timeout(LAST_ANSWERS / 2, released).await;
    }
}

/// What the server's own pages allow, public or not: each is asked for on a connection of its own, or by an
/// operator.
fn http_limits(limits: &Limits) -> HttpLimits {
    let Limits { http_head: head, http_life: life, admin_connections: connections, .. } = *limits;
    HttpLimits { connections, connections_each: connections, head, life }
}

/// The gateway of a server whose HTTP side is bound to `http`, and to `https` where it speaks TLS.
fn gateway_config(
    config: &ServerConfig,
    server: PeerId,
    http: SocketAddr,
    https: Option<SocketAddr>,
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
        seed: config.seed.unwrap_or_else(random_seed),
    }
}

fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut seed).expect("the system has randomness");
    seed
}

/// The relays that sessions hear of. This server's own is `/relay` on the URL by which the server was asked,
/// and what that is its peers know best.
fn advertised(own: Option<&RelayServer>, public_url: Option<&Uri>, others: &[RelayHint]) -> Vec<RelayHint> {
    let base = public_url.map(Uri::to_string).unwrap_or_default();
    let url = format!("{}{RELAY}", base.trim_end_matches('/'));
    let own = own.map(|relay| RelayHint { url, peer_id: relay.peer_id() });
    own.into_iter().chain(others.iter().cloned()).collect()
}

fn endpoint(
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
        Addresses::Real,
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
