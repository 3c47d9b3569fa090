//! A laboratory bench: a world, its server, peers with fixed keys, and what they report with its time.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::net::Traffic;
use nat_sim::sim_net::{SimNet, SimWorld};
use nat_sim::world::{Plan, World};
use peer::endpoint::{EndpointEvent, PathReport, ShareSpec};
use peer::{Connection, Endpoint, EndpointConfig, Error, PathPolicy};
use proto::doorman::Admission;
use proto::id::{ShareId, TicketId};
use proto::key::SecretKey;
use proto::proof::TicketSecret;
use proto::relay::RouterLimits;
use proto::ticket::{ServerHint, Ticket};
use proto::wire::VERSION;
use proto::wire::peer::{Target, TargetKind};
use proto::wire::signal::RelayHint;
use relay::listen::Bind;
use relay::net::{Net as _, Stream};
use relay::standalone::{RelayConfig, StandAlone};
use rendezvous::{Relaying, Server, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional, join};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::service;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SEC: Duration = Duration::from_secs(1);

/// R and D of all worlds here.
pub(crate) const R: Duration = Duration::from_millis(100);
pub(crate) const D: Duration = Duration::from_millis(20);

/// Tokio's timers have this grain; a packet is seen so much later by each host that handles it.
pub(crate) const GRAIN: Duration = MS;

const SHARE: ShareId = ShareId([1; 8]);
const TICKET: TicketId = TicketId([2; 8]);
const SECRET: [u8; 16] = [3; 16];

/// Two homes, `a` and `b`, and the server `s`.
pub(crate) fn pair(seed: u64, a: Kind, b: Kind) -> Plan {
    World::plan(seed).home("a", a).home("b", b).server("s").server_rtt(R).direct_rtt(D)
}

/// A world with a place for its server.
pub(crate) struct Lab {
    pub(crate) world: SimWorld,
    seed: u64,
    /// The relay that tickets name.
    relay: RefCell<Option<RelayHint>>,
    /// Where tickets and peers believe the server's UDP port to be, where they are wrong.
    believed: RefCell<Option<Vec<SocketAddr>>>,
}

fn relay_hint() -> RelayHint {
    RelayHint { url: "http://s:8080/relay".to_owned(), peer_id: key(0).peer_id() }
}

/// Of the relay that stands alone.
const ELSEWHERE: u8 = 200;

/// One process of a peer.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    net: Arc<SimNet>,
    paths: Arc<Mutex<Vec<(Duration, PathReport)>>>,
}

/// Runs a story to its end on a paused clock. Its runtime can't open a real socket.
pub(crate) fn run<T>(plan: &Plan, seed: u64, story: impl AsyncFnOnce(Lab) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Who reads the log wants virtual times; `RUST_LOG=peer=debug` turns it on.
    let _ = tracing_subscriber::fmt().with_test_writer().without_time().with_env_filter(filter()).try_init();
    runtime.block_on(async {
        story(Lab {
            world: SimWorld::start(plan),
            seed,
            relay: RefCell::new(None),
            believed: RefCell::new(None),
        })
        .await
    })
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into())
}

/// A key that is the same in each run.
pub(crate) fn key(number: u8) -> SecretKey {
    // RFC 8410 §7: what stands before the 32 bytes of an Ed25519 key in PKCS #8 form.
    const PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    SecretKey::from_pkcs8(&[&PREFIX[..], &[number; 32]].concat()).unwrap()
}

impl Lab {
    /// Starts the server, or starts it again. It has no relay, so that what is shown is shown of direct paths.
    pub(crate) fn server(&self) -> Server {
        self.server_with(Relaying::Elsewhere { relays: Vec::new(), own: false })
    }

    /// A server that relays as well.
    pub(crate) fn server_with_relay(&self) -> Server {
        self.relay.replace(Some(relay_hint()));
        self.server_with(Relaying::Embedded(Box::default()))
    }

    /// A server whose peers wait at a relay that stands alone, on the same host.
    pub(crate) fn server_with_relay_elsewhere(&self) -> (Server, StandAlone) {
        let (relay, hint) = self.relay_elsewhere();
        (self.server_with_relays(vec![hint]), relay)
    }

    /// A relay that stands alone, on the server's host.
    pub(crate) fn relay_elsewhere(&self) -> (StandAlone, RelayHint) {
        let http = Bind::exactly("[::]:8081".parse().unwrap());
        let (trusted_proxies, limits) = (Vec::new(), RouterLimits::default());
        let config = RelayConfig { http, https: None, admin: None, trusted_proxies, limits };
        let peer_id = key(ELSEWHERE).peer_id();
        let relay = StandAlone::start(config, peer_id, &*self.world.net("s")).unwrap();
        (relay, RelayHint { url: "http://s:8081/relay".to_owned(), peer_id })
    }

    /// Kills a server and starts one again 5 s later: how long it takes from then on until the peer is registered there.
    pub(crate) async fn restart(
        &self,
        server: Server,
        peer: &Peer,
        start: impl FnOnce(&Self) -> Server,
    ) -> Duration {
        let mut events = peer.endpoint.events();
        self.world.crash("s");
        drop(server);
        sleep(5 * SEC).await;
        let _server = start(self);
        let back = self.world.elapsed();
        registered(&mut events).await;
        let took = self.world.elapsed() - back;
        println!("registered again after {took:?}");
        took
    }

    /// A server with its UDP port elsewhere, which relays as well.
    pub(crate) fn server_at(&self, port: u16) -> Server {
        self.server_with_udp_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    }

    /// A server that has UDP at this address alone, and relays as well.
    pub(crate) fn server_with_udp_at(&self, addr: SocketAddr) -> Server {
        self.relay.replace(Some(relay_hint()));
        self.start(ServerConfig {
            udp: Bind::exactly(addr),
            relay: Relaying::Embedded(Box::default()),
            ..ServerConfig::default()
        })
    }

    /// A server that relays as well, and says of its second UDP port that it is where nothing answers: as one behind a
    /// firewall that lets the main port through alone.
    pub(crate) fn server_with_one_open_port(&self) -> Server {
        self.relay.replace(Some(relay_hint()));
        let ip = self.world.net("s").addresses().unwrap()[0];
        self.start(ServerConfig {
            udp_public: [3478, 9999].map(|port| SocketAddr::new(ip, port)).to_vec(),
            relay: Relaying::Embedded(Box::default()),
            ..ServerConfig::default()
        })
    }

    /// A server whose peers are to wait at these relays.
    pub(crate) fn server_with_relays(&self, relays: Vec<RelayHint>) -> Server {
        self.relay.replace(relays.first().cloned());
        self.server_with(Relaying::Elsewhere { relays, own: true })
    }

    /// From here on, tickets and peers believe that the server's UDP port is there.
    pub(crate) fn mislead(&self, addrs: &[&str]) {
        self.believed.replace(Some(addrs.iter().map(|text| text.parse().unwrap()).collect()));
    }

    fn server_with(&self, relay: Relaying) -> Server {
        self.start(ServerConfig { relay, ..ServerConfig::default() })
    }

    fn start(&self, config: ServerConfig) -> Server {
        let config =
            ServerConfig { admin: None, apex: vec!["s".to_owned()], seed: Some(self.seed_for(0)), ..config };
        Server::start(config, &key(0), self.world.net("s")).unwrap()
    }

    fn seed_for(&self, number: u8) -> [u8; 32] {
        let mut seed = [number; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed
    }

    /// What a ticket says of the server.
    fn hint(&self) -> ServerHint {
        let ips = self.world.with_world(|world| world.net().addresses(world.host("s")).to_vec());
        let first = |v4: bool| ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
        let udp = [true, false].into_iter().filter_map(first).map(|ip| SocketAddr::new(ip, 3478)).collect();
        let udp = self.believed.borrow().clone().unwrap_or(udp);
        ServerHint { url: "http://s:8080".into(), udp, peer_id: key(0).peer_id() }
    }

    /// The relay that the server names.
    fn relays(&self) -> Vec<RelayHint> {
        self.hint_of_relay().into_iter().collect()
    }

    fn hint_of_relay(&self) -> Option<RelayHint> {
        self.relay.borrow().clone()
    }

    /// A process of the peer at `host`. `process` tells processes of one identity apart.
    pub(crate) fn peer(&self, host: &str, process: u8) -> Peer {
        self.peer_at(host, process, "[::]:0".parse().unwrap())
    }

    /// The same, with a main socket of its host's first address alone.
    pub(crate) fn peer_bound_to_its_address(&self, host: &str, process: u8) -> Peer {
        let ip = self.world.with_world(|world| world.net().addresses(world.host(host))[0]);
        self.peer_at(host, process, SocketAddr::new(ip, 0))
    }

    /// A process of the peer at `host` that waits at the relay which the server names.
    pub(crate) fn relayed_peer(&self, host: &str, paths: PathPolicy) -> Peer {
        self.peer_of(host, 0, |config| EndpointConfig { relays: self.relays(), paths, ..config })
    }

    /// The same, whose TCP goes through a proxy that refuses it until [`Self::proxy`]: until then it is at no relay, while
    /// its session goes over UDP.
    pub(crate) fn peer_behind_proxy(&self, host: &str, paths: PathPolicy) -> Peer {
        let (relays, proxy) = (self.relays(), Some("http://s:3128".parse().unwrap()));
        self.peer_of(host, 0, |config| EndpointConfig { relays, proxy, paths, ..config })
    }

    /// The proxy, from here on.
    pub(crate) fn proxy(&self) -> Proxy {
        let net = self.world.net("s");
        let listener = net.listen_tcp("[::]:3128".parse().unwrap()).unwrap();
        let stall = Arc::new(Notify::new());
        let stalled = Arc::clone(&stall);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass_on(near, Arc::clone(&net), Arc::clone(&stalled)));
            }
        });
        Proxy { stall }
    }

    fn peer_at(&self, host: &str, process: u8, bind: SocketAddr) -> Peer {
        self.peer_of(host, process, |config| EndpointConfig { bind, ..config })
    }

    fn peer_of(&self, host: &str, process: u8, with: impl FnOnce(EndpointConfig) -> EndpointConfig) -> Peer {
        let identity = 1 + host.as_bytes()[0] % 64;
        let net = self.world.net(host);
        let config = EndpointConfig {
            key: Arc::new(key(identity)),
            server: self.hint(),
            relays: Vec::new(),
            proxy: None,
            paths: PathPolicy::Auto,
            bind: "[::]:0".parse().unwrap(),
            port_mapping: false,
            token: None,
            seed: self.seed_for(identity.wrapping_add(process.wrapping_mul(64))),
        };
        let endpoint = Endpoint::bind(with(config), Arc::clone(&net) as _).unwrap();
        let paths = Arc::default();
        tokio::spawn(record(self.world.clone(), endpoint.events(), Arc::clone(&paths)));
        Peer { endpoint, net, paths }
    }

    /// The ticket of the share at `b`.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket {
            version: VERSION,
            id: TICKET,
            secret: TicketSecret::from_bytes(SECRET),
            expires: None,
            share: SHARE,
            server: self.hint(),
            relay: self.hint_of_relay(),
            sharer: key(1 + b'b' % 64).peer_id(),
        }
    }

    /// A sharer at `b` that is registered, and a connector at `a` whose session is up.
    pub(crate) async fn both(&self) -> (Peer, Peer) {
        let (a, b) = (self.peer("a", 0), self.peer("b", 0));
        service::start(&b.net);
        b.share().await.unwrap();
        a.endpoint.online().await.unwrap();
        (a, b)
    }

    /// What a host has sent and received so far.
    pub(crate) fn traffic(&self, host: &str) -> Traffic {
        self.world.with_world(|world| world.net().traffic(world.host(host)))
    }
}

/// An HTTP proxy before the server.
pub(crate) struct Proxy {
    stall: Arc<Notify>,
}

impl Proxy {
    /// The connections that it has now are dead to the server, while who came through it is not told.
    pub(crate) fn fall_silent(&self) {
        self.stall.notify_waiters();
    }
}

async fn pass_on((reader, writer): Stream, net: Arc<SimNet>, stall: Arc<Notify>) {
    let mut near = join(reader, writer);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.unwrap());
    }
    let server = net.addresses().unwrap()[0];
    let (reader, writer) = net.connect_tcp((server, 8080).into()).await.unwrap();
    let mut far = join(reader, writer);
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    tokio::select! {
        biased;
        () = stall.notified() => {
            drop(far);
            std::future::pending().await
        }
        _ended = copy_bidirectional(&mut near, &mut far) => {}
    }
}

async fn record(
    world: SimWorld,
    mut events: tokio::sync::broadcast::Receiver<EndpointEvent>,
    paths: Arc<Mutex<Vec<(Duration, PathReport)>>>,
) {
    while let Ok(event) = events.recv().await {
        if let EndpointEvent::Path(report) = event {
            paths.lock().unwrap().push((world.elapsed(), report));
        }
    }
}

impl Peer {
    /// Shares the service, and waits until offers come here.
    pub(crate) async fn share(&self) -> Result<(), Error> {
        let admission = Admission { secret: TicketSecret::from_bytes(SECRET), expires: None, fresh: true };
        let spec = ShareSpec {
            share: SHARE,
            name: "service".into(),
            targets: vec![Target { kind: TargetKind::Tcp, port: service::PORT }],
            tickets: vec![(TICKET, admission)],
        };
        let mut events = self.endpoint.events();
        let visits = self.endpoint.share(spec).await?;
        service::welcome(Arc::clone(&self.net), visits);
        self.endpoint.online().await?;
        registered(&mut events).await;
        Ok(())
    }

    /// Connects; a verdict of either kind comes within a minute.
    pub(crate) async fn connect(&self, ticket: &Ticket) -> Result<Connection, Error> {
        timeout(60 * SEC, self.endpoint.connect(ticket)).await.expect("no verdict in a minute")
    }

    pub(crate) fn net(&self) -> Arc<SimNet> {
        Arc::clone(&self.net)
    }

    /// The paths that carried data so far, with the times at which they began to.
    pub(crate) fn paths(&self) -> Vec<(Duration, PathReport)> {
        self.paths.lock().unwrap().clone()
    }
}

/// Waits for the share to be registered.
pub(crate) async fn registered(events: &mut tokio::sync::broadcast::Receiver<EndpointEvent>) {
    let registered = async { while !matches!(events.recv().await.unwrap(), EndpointEvent::Registered(_)) {} };
    timeout(60 * SEC, registered).await.expect("not registered in a minute");
}
