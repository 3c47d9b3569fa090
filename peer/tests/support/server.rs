//! A rendezvous that can be killed and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use proto::id::PeerId;
use proto::key::SecretKey;
use proto::ticket::ServerHint;
use relay::gateway::Claims;
use relay::net::OsNet;
use rendezvous::{Alternate, Bind, Server, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::key;

/// What a test wants otherwise than usual.
pub(crate) type Change = fn(&mut ServerConfig);

/// A server in a runtime of its own, which dies with it.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    key: SecretKey,
    change: Change,
    /// Its names.
    state: TempDir,
    udp: SocketAddr,
    http: SocketAddr,
    running: Option<(Runtime, Server)>,
}

impl Rendezvous {
    /// Everything on loopback, on free ports.
    pub(crate) fn start() -> Self {
        Self::with_key(key())
    }

    pub(crate) fn with_key(key: SecretKey) -> Self {
        Self::with(key, |_| ())
    }

    /// With a domain, and what else a test wants.
    pub(crate) fn with(key: SecretKey, change: Change) -> Self {
        // Below the ports that the system gives out by itself: nobody takes it while the server is down.
        let udp = (0..100).find_map(|_| {
            let [low, high, ..] = peer::EndpointConfig::random_seed();
            let number = 10_000 + u16::from_ne_bytes([low, high]) % 20_000;
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
            std::net::UdpSocket::bind(addr).ok().map(|_| addr)
        });
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let state = tempfile::tempdir().unwrap();
        let mut server = Self { key, change, state, udp: udp.unwrap(), http, running: None };
        server.start_again();
        server
    }

    /// With the same key, on the same ports.
    pub(crate) fn start_again(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let mut config = ServerConfig {
            udp: Bind::exactly(self.udp),
            udp_alternate: Alternate::At(Vec::new()),
            http: Bind::preferring(self.http),
            admin: None,
            domain: "example.test".to_owned(),
            claims: Claims::open(&self.state.path().join("names.redb")).unwrap(),
            ..ServerConfig::default()
        };
        (self.change)(&mut config);
        let server = {
            let _inside = runtime.enter();
            Server::start(config, &self.key, Arc::new(OsNet)).unwrap()
        };
        self.http = server.http_addr();
        self.running = Some((runtime, server));
    }

    /// As a power failure ends it: nobody is told.
    pub(crate) fn kill(&mut self) {
        let (runtime, server) = self.running.take().unwrap();
        // Waits until its ports are free, which no async test may do by itself.
        let ended = std::thread::spawn(move || {
            drop(runtime);
            drop(server);
        });
        ended.join().unwrap();
    }

    /// What it has counted.
    pub(crate) fn stats(&self) -> rendezvous::Stats {
        self.running.as_ref().unwrap().1.stats()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    pub(crate) fn udp(&self) -> SocketAddr {
        self.udp
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where it speaks TLS, if a test wants it to.
    pub(crate) fn https(&self) -> SocketAddr {
        self.running.as_ref().unwrap().1.https_addr().unwrap()
    }

    pub(crate) fn hint(&self) -> ServerHint {
        ServerHint { url: self.url(), udp: vec![self.udp], peer_id: self.peer_id() }
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        if let Some((runtime, server)) = self.running.take() {
            runtime.shutdown_background();
            drop(server);
        }
    }
}
