//! The `relay` program: a relay and nothing else, for more machines than one.

mod cli;
mod pages;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::id::PeerId;
use proto::relay::{RouterLimits, RouterStats};
use proto::tunnel::proxy::Cidr;
use proto::wire::relay::PATH;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use cli::{Cli, Command, Serve};

use crate::http::{HttpCounters, HttpLimits, HttpServer, Pages};
use crate::https::Https;
use crate::listen::{Bind, StartError, listen_tcp};
use crate::net::{Net, OsNet};
use crate::program::{Failure, Hangups, Reason, Report, Shutdown, descriptors, identity};
use crate::server::RelayServer;
use pages::{Admin, Front};

/// How long peers may take to hear that the relay stops, and requests to be answered after that.
const GOODBYE: Duration = Duration::from_millis(1500);
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// When the peers are asked to come back.
const BACK_IN: Duration = Duration::from_millis(500);

/// Connections to the public side that ask for something short, in all and from one prefix; to the operator's;
/// how long a request's head may take, and such a connection live.
const CONNECTIONS: (usize, usize) = (1024, 128);
const ADMIN_CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(60);

/// Files and sockets of a relay that nobody has connected to, and some to spare.
const OWN_FILES: usize = 64;

/// What a stand-alone relay is told.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// The HTTP side.
    pub http: Bind,
    /// The same over TLS.
    pub https: Option<Https>,
    /// The operator's side; none has no metrics.
    pub admin: Option<Bind>,
    /// Proxies whose word on who connects is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// What strangers may do.
    pub limits: RouterLimits,
}

impl RelayConfig {
    /// How many files and sockets a relay has open when all that these limits admit is there.
    pub fn files(&self) -> usize {
        self.limits.connections.0 + CONNECTIONS.0 + ADMIN_CONNECTIONS + OWN_FILES
    }
}

/// A running stand-alone relay. Dropping it stops everything at once.
#[derive(Debug)]
pub struct StandAlone {
    relay: Arc<RelayServer>,
    http: SocketAddr,
    https: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    draining: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    following: JoinSet<()>,
}

impl StandAlone {
    /// Binds everything and starts to serve, within a tokio runtime.
    ///
    /// # Errors
    /// An address can't be bound.
    pub fn start(config: RelayConfig, peer_id: PeerId, net: &dyn Net) -> Result<Self, StartError> {
        let (listener, http) = listen_tcp(net, config.http, "HTTP", "--http")?;
        let https = config.https.map(|https| https.listen(net)).transpose()?;
        let admin =
            config.admin.map(|bind| listen_tcp(net, bind, "the admin address", "--admin")).transpose()?;
        let relay = Arc::new(RelayServer::start(peer_id, config.limits));
        let counters = Arc::new(HttpCounters::default());
        let mut this = Self {
            relay: Arc::clone(&relay),
            http,
            https: https.as_ref().map(|door| door.addr),
            admin: admin.as_ref().map(|(_, addr)| *addr),
            draining: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            listeners: JoinSet::new(),
            following: JoinSet::new(),
        };
        let mut listen = |listener, tls, pages: Arc<dyn Pages>, (connections, connections_each)| {
            let limits = HttpLimits { connections, connections_each, head: HEAD, life: LIFE };
            let http = HttpServer { listener, tls, pages, limits, counters: Arc::clone(&counters) };
            this.listeners.spawn(http.serve(this.stop.subscribe()));
        };
        let front = Arc::new(Front { relay: Arc::clone(&relay), trusted: config.trusted_proxies });
        listen(listener, None, Arc::clone(&front) as Arc<dyn Pages>, CONNECTIONS);
        if let Some(door) = https {
            listen(door.listener, Some(door.tls), front, CONNECTIONS);
            this.following.spawn(door.certificate.follow());
        }
        if let Some((listener, _)) = admin {
            let draining = this.draining.subscribe();
            let pages = Admin { relay, http: Arc::clone(&counters), draining };
            listen(listener, None, Arc::new(pages), (ADMIN_CONNECTIONS, ADMIN_CONNECTIONS));
        }
        Ok(this)
    }

    /// Where it listens, as bound.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where it speaks TLS, as bound.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Where the operator's side listens.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Under which identity.
    pub fn peer_id(&self) -> PeerId {
        self.relay.peer_id()
    }

    /// What has been counted.
    pub fn stats(&self) -> RouterStats {
        self.relay.stats()
    }

    /// Stops: every peer is told to come back, and requests are answered, the operator's with the truth.
    pub async fn shutdown(mut self) {
        self.draining.send_replace(true);
        self.relay.shutdown(BACK_IN, GOODBYE).await;
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        let _late = timeout(LAST_ANSWERS, ended).await;
        self.listeners.shutdown().await;
    }
}

/// Does what the command line says.
///
/// # Errors
/// What could not be done, for the user.
pub async fn run(cli: Cli, report: Report) -> Result<Reason, Failure> {
    let Command::Serve(serve) = cli.command;
    let signals = || Ok((Shutdown::install()?, Hangups::install()?));
    let (shutdown, hangups) = signals().map_err(|error: std::io::Error| {
        Failure::failed("no-signals", format_args!("cannot listen to signals: {error}"))
    })?;
    let data = serve.data()?;
    let key =
        tokio::task::spawn_blocking(move || identity::load_or_create(&data)).await.map_err(|error| {
            Failure::failed("no-identity", format_args!("cannot load the identity: {error}"))
        })??;
    let config = serve.config()?;
    let files = config.files();
    let certificate = config.https.as_ref().map(|https| Arc::clone(&https.certificate));
    let relay = StandAlone::start(config, key.peer_id(), &OsNet)?;
    if let Some(shortage) = descriptors::shortage(files) {
        report.warning(shortage);
    }
    announce(&relay, &report);
    let renew = || certificate.iter().for_each(|certificate| certificate.renew());
    let reason = hangups.until(shutdown.requested(), renew).await;
    report.line("Stopping: telling the peers to come back.");
    shutdown.drained(relay.shutdown()).await;
    Ok(reason)
}

#[derive(Serialize)]
struct Listening {
    udp: [SocketAddr; 0],
    http: [SocketAddr; 1],
    https: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    peer_id: String,
}

fn announce(relay: &StandAlone, report: &Report) {
    let (http, peer_id, style) = (relay.http_addr(), relay.peer_id().to_string(), report.style());
    report.line(format_args!("Relay, identity {}", style.bold(&peer_id)));
    report.line(format_args!("  HTTP   http://{http}{PATH}"));
    if let Some(https) = relay.https_addr() {
        report.line(format_args!("  HTTPS  https://{https}{PATH}"));
    }
    if let Some(admin) = relay.admin_addr() {
        report.line(format_args!("  admin  http://{admin}/metrics"));
    }
    let url = match relay.https_addr() {
        Some(https) if https.port() == 443 => "https://HOST".to_owned(),
        Some(https) => format!("https://HOST:{}", https.port()),
        None if http.ip().is_unspecified() => format!("http://HOST:{}", http.port()),
        None => format!("http://{http}"),
    };
    report.line(format_args!(
        "Advertise with: {}",
        style.green(format_args!("rendezvous --relay '{url}{PATH}#{peer_id}'"))
    ));
    let (https, admin) = (relay.https_addr().into_iter().collect(), relay.admin_addr());
    report.event("listening", Listening { udp: [], http: [http], https, admin, peer_id });
}
