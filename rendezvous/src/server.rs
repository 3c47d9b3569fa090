//! A running server: its sockets, its tasks, and how it stops.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use proto::id::PeerId;
use proto::key::SecretKey;
use proto::matchmaker::MatchmakerConfig;
use proto::wire::session::close;
use quinn::{Endpoint, VarInt};
use relay::gateway::{Entrance, Gateway};
use relay::http::{Handed, HttpServer, Pages};
use relay::https::HttpsDoor;
use relay::listen::{Socket, StartError, refused};
use relay::net::{Link, Listener, Net};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};

use crate::accept::{Gate, accept};
use crate::admin::Admin;
use crate::bound::Bound;
use crate::checks::Checks;
use crate::config::{Limits, ServerConfig};
use crate::front::Front;
use crate::sessions::Sessions;
use crate::setup;
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
    checks: Checks,
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
        let counters = Arc::new(Counters::default());
        let main = (link, udp);
        let all: Vec<&Socket> = [&main].into_iter().chain(&alternates).collect();
        let sockets = all.iter().map(|(link, _)| Arc::downgrade(link)).collect();
        let doors = setup::doors(&all, &config.udp_public);
        let notary = setup::notary(&config);
        let desk = Desk::new(config.echo, &all, doors.clone(), notary.clone(), Arc::clone(&counters));
        let desk = Arc::new(desk);
        let checks = setup::checks(&config, &doors, http);
        let gateway = setup::gateway_config(&config, key.peer_id(), http, https_addr, checks.clone());
        let relays = Arc::new(setup::relays(&config, key.peer_id(), checks.clone()));
        let service = relays.own.as_ref().and_then(|relay| relay.service());
        let front = Arc::new(Front {
            addresses: setup::addresses(&config, &net, doors, http),
            peer_id: key.peer_id(),
            udp: vec![udp],
            udp_alternate: alternates.iter().map(|(_, addr)| *addr).collect(),
            http,
            https: https_addr,
            domain: config.domain,
            public_url: config.public_url,
            trusted: config.trusted_proxies,
            relays,
        });
        let matchmaker = MatchmakerConfig {
            admission: config.admission,
            relays: front.session_relays(),
            notary: Some(notary),
            ..config.matchmaker
        };
        let seen = (Arc::clone(&front.addresses), checks.clone());
        let sessions = Arc::new(Sessions::new(matchmaker, config.limits.queue, Arc::clone(&counters), seen));
        let socket = ServerSocket::new(main.0, service, udp, Arc::clone(&desk));
        let endpoint =
            setup::endpoint(socket, udp, key, config.seed).map_err(refused("UDP", "--udp", udp))?;
        let stop = watch::Sender::new(false);
        let handed = Handed {
            pages: Arc::clone(&front) as Arc<dyn Pages>,
            limits: setup::http_limits(&config.limits),
            counters: Arc::clone(&counters.http),
            stop: stop.subscribe(),
        };
        let gateway = Arc::new(Gateway::new(gateway, Arc::clone(&net), Arc::new(handed)));
        let mut server = Self {
            front,
            gateway,
            sessions,
            desk,
            counters,
            checks,
            admin: admin.as_ref().map(|(_, addr)| *addr),
            endpoint,
            sockets,
            draining: watch::Sender::new(false),
            stop,
            listeners: JoinSet::new(),
            tasks: JoinSet::new(),
        };
        server.serve_udp(alternates, &config.limits);
        let doors = server.entrances(listener, https);
        server.serve_http(doors, admin.map(|(listener, _)| listener), &config.limits);
        server.look_around(net);
        Ok(server)
    }

    /// Where visitors come in; the certificate of the second way is kept up to date.
    fn entrances(&mut self, http: Box<dyn Listener>, https: Option<HttpsDoor>) -> Vec<Entrance> {
        let mut doors = vec![Entrance { listener: http, tls: None }];
        if let Some(HttpsDoor { listener, tls, certificate, .. }) = https {
            doors.push(Entrance { listener, tls: Some(tls) });
            self.tasks.spawn(certificate.follow());
        }
        doors
    }

    /// Finds out where this server is, and whether its relays are there, for as long as it runs.
    fn look_around(&mut self, net: Arc<dyn Net>) {
        let (addresses, checks) = (Arc::clone(&self.front.addresses), self.checks.clone());
        self.tasks.spawn(async move { addresses.follow(&checks).await });
        let (front, sessions) = (Arc::clone(&self.front), Arc::clone(&self.sessions));
        self.tasks.spawn(async move {
            front.relays.follow(net, || sessions.set_relays(front.session_relays())).await;
        });
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
                relay: self.front.relays.own.clone(),
                counters: Arc::clone(&self.counters),
                gateway: Arc::clone(&self.gateway),
                checks: self.checks.clone(),
                draining: self.draining.subscribe(),
            };
            let (limits, counters) = (setup::http_limits(limits), Arc::clone(&self.counters.http));
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
        let relay = self.front.relays.own.as_ref().map(|relay| relay.stats());
        self.counters.stats(self.sessions.stats(), self.desk.stats(), self.gateway.stats(), relay)
    }

    /// Stops: no new sessions, those that are here are told to come back, requests are answered, the
    /// operator's with the truth. It takes three seconds at the most, and then the ports are free.
    pub async fn shutdown(mut self) {
        self.draining.send_replace(true);
        self.endpoint.set_server_config(None);
        self.endpoint.close(VarInt::from_u32(close::RESTARTING), b"restarting");
        let relay = async {
            if let Some(relay) = &self.front.relays.own {
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
