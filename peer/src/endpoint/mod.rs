//! **Endpoint**: one process of an identity, at one server: its main UDP socket, its session, its shares and
//! its connections.
//!
//! All machines live in one task, the driver: whatever happens is an input to it, and after each
//! input every machine is drained. Streams of data never pass through it.

mod accept;
mod dialing;
mod driver;
mod echo;
mod publisher;
mod remote;
mod server_search;
mod server_session;
mod status;

use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::candidate::{Scope, scope};
use proto::doorman::Admission;
use proto::id::{Instance, PeerId, ShareId, TicketId};
use proto::key::SecretKey;
use proto::no_udp::Cause;
use proto::path::{PathKind, Reason};
use proto::proof;
use proto::ticket::{Reachable, ServerHint, Ticket};
use proto::wire::peer::{Target, close};
use proto::wire::signal::RelayHint;
use proto::wire::{self, peer};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use relay::net::Net;
use relay::outbound::{Outbound, Proxy};
use relay::quic::{self, Addresses, ResetKey};
use relay::tls;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::error::Error;
use crate::path_socket::PathSocket;
use crate::portmap::PortMapper;
use dialing::HelloStream;
use driver::{Command, Driver, Input};
use publisher::Publisher;
use remote::{Introduction, Meeting};
use server_session::Address;

pub use accept::{Visit, VisitorStream};
pub use echo::Echo;
pub use publisher::{Exchange, PublicEvent, PublicShare};
pub use status::{PathChange, PeerStatus, Status};

/// How long a connection that was closed keeps its address: QUIC's closing period, three probe timeouts, on
/// any but the slowest path (RFC 9000 §10.2).
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a handshake may take: longer than a sharer keeps a place for it.
const HANDSHAKE: Duration = Duration::from_secs(35);

/// What an endpoint is made of.
#[derive(Debug)]
pub struct EndpointConfig {
    /// Its identity.
    pub key: Arc<SecretKey>,
    /// The server where it has its session.
    pub server: ServerHint,
    /// The relays to wait at, the most wanted first; those that the server names come after them.
    pub relays: Vec<RelayHint>,
    /// The HTTP proxy on the way out, for what goes over TCP.
    pub proxy: Option<Proxy>,
    /// Which paths may carry data.
    pub paths: PathPolicy,
    /// Where its main socket is bound; port 0 is any.
    pub bind: SocketAddr,
    /// Whether the router is asked to map the main socket's port (PCP, NAT-PMP, UPnP). That is this machine's own
    /// router, whatever network the endpoint is given.
    pub port_mapping: bool,
    /// Admission to a private server, to share there.
    pub token: Option<String>,
    /// Everything random that the endpoint's machines do comes from this.
    pub seed: [u8; 32],
}

impl EndpointConfig {
    /// The usual: any port of both families, no port mapping, randomness of the system.
    pub fn new(key: Arc<SecretKey>, server: ServerHint) -> Self {
        let bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let (relays, proxy, paths, token) = (Vec::new(), None, PathPolicy::default(), None);
        let seed = Self::random_seed();
        Self { key, server, relays, proxy, paths, bind, port_mapping: false, token, seed }
    }

    /// The same with port mapping, where peers may come from outside: not where the server is reached on this machine or
    /// in its LAN alone. A name that leads to a local address here may lead elsewhere to the router before us.
    #[must_use]
    pub fn with_port_mapping(mut self) -> Self {
        let is_global = |addr: &SocketAddr| scope(*addr) == Scope::Global;
        let is_for_all = self.server.reachable() == Reachable::Anywhere;
        self.port_mapping = is_for_all || self.server.udp.iter().any(is_global);
        self
    }

    /// Randomness of the system.
    pub fn random_seed() -> [u8; 32] {
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
            .expect("the system has randomness");
        seed
    }
}

/// Which kinds of path may carry data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PathPolicy {
    /// The best that there is.
    #[default]
    Auto,
    /// From host to host, or none.
    Direct,
    /// Through a relay, or none.
    Relay,
}

/// Whether the endpoint's session with its server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was never up so far.
    Starting,
    /// It is up.
    Up,
    /// It was up, and is being re-made.
    Down,
    /// It never came up, and never will.
    Failed(Error),
}

/// What an endpoint tells whoever listens.
#[derive(Debug, Clone)]
pub enum EndpointEvent {
    /// Data to and from a peer takes another path.
    Path(PathReport),
    /// The session goes through the server's relay, because no UDP passes to the server. It comes once.
    NoUdp(Cause),
    /// A share's offers come here.
    Registered(ShareId),
    /// A newer process of the identity has them.
    Displaced(ShareId),
    /// An offer was refused.
    OfferRefused {
        /// The share.
        share: ShareId,
        /// Who offered.
        peer: PeerId,
    },
}

/// A path that carries data from here on.
#[derive(Debug, Clone)]
pub struct PathReport {
    /// To whom.
    pub peer: PeerId,
    /// Through what.
    pub kind: PathKind,
    /// To which address: the remote's, or the relay's.
    pub remote: SocketAddr,
    /// Its round trip, as the checks measured it.
    pub rtt: Duration,
    /// Why this one.
    pub reason: Reason,
}

/// A share, as the endpoint needs it.
#[derive(Debug)]
pub struct ShareSpec {
    /// Its id.
    pub share: ShareId,
    /// Its name, for its visitors.
    pub name: String,
    /// Its targets, for its visitors.
    pub targets: Vec<Target>,
    /// Its tickets.
    pub tickets: Vec<(TicketId, Admission)>,
}

/// One process of an identity at one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: PeerId,
    instance: Instance,
    key: Arc<SecretKey>,
    quinn: quinn::Endpoint,
    socket: Arc<PathSocket>,
    inputs: mpsc::Sender<Input>,
    standing: watch::Receiver<Standing>,
    events: broadcast::Sender<EndpointEvent>,
    mapper: Mutex<Option<PortMapper>>,
    /// The server's identity, and where it was reached last.
    server: PeerId,
    reached: watch::Receiver<Option<Arc<Address>>>,
    token: Option<String>,
}

impl Endpoint {
    /// Binds the main socket and opens the session.
    ///
    /// # Errors
    /// The socket can't be bound.
    pub fn bind(config: EndpointConfig, net: Arc<dyn Net>) -> Result<Self, Error> {
        let mut rng = ChaCha12Rng::from_seed(config.seed);
        let mut seed = || {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let link = net
            .bind_udp(config.bind)
            .map_err(|error| Error::Local(format!("cannot open a UDP socket at {}: {error}", config.bind)))?;
        let port = link.local_addr().ok().and_then(|addr| NonZeroU16::new(addr.port()));
        let mapper = port.filter(|_| config.port_mapping).map(PortMapper::start);
        let (socket, datagrams) = PathSocket::new(seed());
        socket.add_link(proto::path::LinkId::MAIN, link);
        // Two processes of one identity must not reset each other's connections.
        let reset_key = ResetKey::derive(&config.key, &seed());
        let server = quic::server_config(
            tls::server_config(&config.key, &[peer::ALPN]),
            &reset_key,
            Arc::new(quic::transport()),
            Addresses::Stable,
        );
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            quic::endpoint_config(&reset_key, Some(seed())),
            Some(server.clone()),
            Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(|error| Error::Local(format!("cannot start QUIC: {error}")))?;
        let me = config.key.peer_id();
        let mut instance = [0; 8];
        instance.copy_from_slice(&seed()[..8]);
        let instance = Instance(instance);
        let (inputs, receiver) = mpsc::channel(1024);
        let (standing_tx, standing) = watch::channel(Standing::Starting);
        let (events, _) = broadcast::channel(1024);
        let (reached_tx, reached) = watch::channel(None);
        let server_id = config.server.peer_id;
        let driver = Driver::new(driver::Parts {
            me,
            instance,
            key: Arc::clone(&config.key),
            server: config.server,
            relays: config.relays,
            outbound: Outbound::new(Arc::clone(&net), config.proxy),
            paths: config.paths,
            net,
            socket: Arc::clone(&socket),
            quinn: quinn.clone(),
            inputs: inputs.downgrade(),
            standing: standing_tx,
            events: events.clone(),
            router: mapper.as_ref().map(PortMapper::again),
            reached: reached_tx,
            token: config.token.clone(),
            seed: seed(),
        });
        tokio::spawn(driver.run(receiver, datagrams));
        let door = accept::Door { config: server, socket: Arc::clone(&socket), inputs: inputs.downgrade() };
        tokio::spawn(accept::run(quinn.clone(), door));
        if let Some(mapper) = &mapper {
            tokio::spawn(pass_mappings_on(mapper.external(), inputs.downgrade()));
        }
        let mapper = Mutex::new(mapper);
        let (key, token, server) = (config.key, config.token, server_id);
        let inner = Inner {
            me,
            instance,
            key,
            quinn,
            socket,
            inputs,
            standing,
            events,
            mapper,
            server,
            reached,
            token,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The identity.
    pub fn peer_id(&self) -> PeerId {
        self.inner.me
    }

    /// Which process of it this is.
    pub fn instance(&self) -> Instance {
        self.inner.instance
    }

    /// Listens to the endpoint's events from here on.
    pub fn events(&self) -> broadcast::Receiver<EndpointEvent> {
        self.inner.events.subscribe()
    }

    /// The session's standing, as it changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.clone()
    }

    /// Waits for the session to be up for the first time.
    ///
    /// # Errors
    /// It never came up.
    pub async fn online(&self) -> Result<(), Error> {
        let mut standing = self.standing();
        let known = standing.wait_for(|standing| *standing != Standing::Starting).await;
        match known.as_deref() {
            Ok(Standing::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(stopped()),
        }
    }

    /// Shares: offers are judged from here on, and whoever was let in arrives as a [`Visit`].
    ///
    /// # Errors
    /// The endpoint has stopped.
    pub async fn share(&self, spec: ShareSpec) -> Result<mpsc::Receiver<Visit>, Error> {
        let (visits, receiver) = mpsc::channel(64);
        self.command(Command::Share { spec, visits }).await?;
        Ok(receiver)
    }

    /// Shows a share to the world, at the server's gateway, for as long as somebody listens to what becomes of
    /// it.
    pub fn publish(&self, share: PublicShare) -> mpsc::Receiver<PublicEvent> {
        let (events, receiver) = mpsc::channel(64);
        let publisher = Publisher {
            key: Arc::clone(&self.inner.key),
            instance: self.inner.instance,
            server: self.inner.server,
            token: self.inner.token.clone(),
            quinn: self.inner.quinn.clone(),
            reached: self.inner.reached.clone(),
            share,
            events,
            rng: ChaCha12Rng::from_seed(EndpointConfig::random_seed()),
        };
        tokio::spawn(publisher.run());
        receiver
    }

    /// Connects to a ticket's share.
    ///
    /// # Errors
    /// Whatever keeps the two apart.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Connection, Error> {
        self.begin(ticket).await?.finish().await
    }

    /// Connects so far that streams can be opened; whether they are let in shows later.
    ///
    /// # Errors
    /// Whatever keeps the two apart.
    pub async fn begin(&self, ticket: &Ticket) -> Result<Begun, Error> {
        let (reply, introduced) = oneshot::channel();
        self.command(Command::Dial { ticket: Box::new(ticket.clone()), reply }).await?;
        let Introduction { address, exchange, mut met } = introduced.await.map_err(|_| stopped())??;
        let unmet = Unmet { inputs: self.inner.inputs.clone(), address: Some(address) };
        let opened = tokio::select! {
            biased;
            error = dialing::refused(&mut met) => Err(error),
            opened = self.open(ticket, address, &exchange) => opened,
        };
        let (connection, hello) = opened?;
        Ok(Begun { connection, hello, met, peer: ticket.sharer, unmet })
    }

    /// Opens the connection and sends the proof.
    async fn open(
        &self,
        ticket: &Ticket,
        address: SocketAddr,
        exchange: &proof::Exchange,
    ) -> Result<(quinn::Connection, HelloStream), Error> {
        let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config(
            &self.inner.key,
            ticket.sharer,
            peer::ALPN,
        )));
        config.transport_config(accept::transport(self.inner.socket.epoch(address)));
        let connecting = self
            .inner
            .quinn
            .connect_with(config, address, tls::SERVER_NAME)
            .map_err(|error| Error::Local(format!("cannot connect: {error}")))?;
        let connecting = tokio::time::timeout(HANDSHAKE, connecting);
        let connection = connecting.await.map_err(|_| Error::NoPath)?;
        let connection = connection.map_err(|error| dialing::handshake_error(&error))?;
        self.command(Command::Attach { address, connection: connection.clone() }).await?;
        let hello = dialing::prove(&connection, ticket, exchange).await?;
        Ok((connection, hello))
    }

    /// How it and its peers stand right now.
    ///
    /// # Errors
    /// The endpoint has stopped.
    pub async fn status(&self) -> Result<Status, Error> {
        let (reply, status) = oneshot::channel();
        self.command(Command::Status { reply }).await?;
        status.await.map_err(|_| stopped())
    }

    /// Says goodbye to every peer and to the server, and stops.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inner.inputs.send(Input::Command(Command::Close { done })).await.is_ok() {
            let _ = closed.await;
        }
        self.inner.quinn.close(close::STOPPING.into(), b"stopping");
        let mapper = self.inner.mapper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let unmapped = async {
            if let Some(mapper) = mapper {
                mapper.close().await;
            }
        };
        tokio::join!(self.inner.quinn.wait_idle(), unmapped);
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.inner.inputs.send(Input::Command(command)).await.map_err(|_| stopped())
    }
}

/// Tells the driver where the router lets the world in, as that changes.
async fn pass_mappings_on(
    mut external: watch::Receiver<Option<SocketAddr>>,
    inputs: mpsc::WeakSender<Input>,
) {
    while external.changed().await.is_ok() {
        let mapped = *external.borrow_and_update();
        let Some(inputs) = inputs.upgrade() else { return };
        if inputs.send(Input::Mapped(mapped)).await.is_err() {
            return;
        }
    }
}

/// Forgets a remote's address, but not before the connection under it has said that it ends: without a way
/// out the other side would wait for its idle timeout.
fn close_remote_later(socket: &Arc<PathSocket>, address: SocketAddr) {
    // Where there is no runtime any more there is no socket either.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let socket = Arc::clone(socket);
    runtime.spawn(async move {
        tokio::time::sleep(FAREWELL).await;
        socket.close_remote(address);
    });
}

fn stopped() -> Error {
    Error::Local("the endpoint has stopped".into())
}

/// A connection whose proof is on its way.
#[derive(Debug)]
pub struct Begun {
    connection: quinn::Connection,
    hello: HelloStream,
    met: watch::Receiver<Meeting>,
    peer: PeerId,
    unmet: Unmet,
}

/// An address whose connection may come to nothing: then it is forgotten.
#[derive(Debug)]
struct Unmet {
    inputs: mpsc::Sender<Input>,
    address: Option<SocketAddr>,
}

impl Drop for Unmet {
    fn drop(&mut self) {
        if let Some(address) = self.address.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let inputs = self.inputs.clone();
            runtime.spawn(async move { inputs.send(Input::Command(Command::Forget { address })).await });
        }
    }
}

impl Begun {
    /// The connection, for visitors who come early: what they send follows the proof. Its share has no name
    /// and no targets yet.
    pub fn early(&self) -> Connection {
        Connection {
            quinn: self.connection.clone(),
            peer: self.peer,
            is_beside: false,
            name: String::new(),
            targets: Vec::new(),
        }
    }

    /// Waits to be let in.
    ///
    /// # Errors
    /// We are not.
    pub async fn finish(mut self) -> Result<Connection, Error> {
        let welcomed = tokio::select! {
            biased;
            error = dialing::refused(&mut self.met) => Err(error),
            welcomed = dialing::welcomed(&self.connection, self.hello) => welcomed,
        };
        let (targets, name) = welcomed?;
        // Who lets us in has answered the offer before.
        let met = tokio::time::timeout(FAREWELL, self.met.wait_for(Option::is_some)).await;
        let is_beside =
            met.is_ok_and(|met| met.is_ok_and(|met| matches!(&*met, Some(Ok(met)) if met.is_beside)));
        self.unmet.address = None;
        Ok(Connection { quinn: self.connection, peer: self.peer, is_beside, name, targets })
    }
}

/// A proven connection to a share.
#[derive(Debug, Clone)]
pub struct Connection {
    quinn: quinn::Connection,
    peer: PeerId,
    is_beside: bool,
    name: String,
    targets: Vec<Target>,
}

impl Connection {
    /// Who shares.
    pub const fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Whether the sharer seems to be on this very machine: it has one of its addresses, and the server sees
    /// both at the same.
    pub const fn is_beside(&self) -> bool {
        self.is_beside
    }

    /// The share's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The share's targets.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Opens a stream to a target, by its number. Nothing has arrived there when this returns; a target that
    /// refuses resets the stream.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn open(&self, target: u16) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        let broken = |error: &dyn std::fmt::Display| Error::Broken(error.to_string());
        let (mut send, recv) = self.quinn.open_bi().await.map_err(|error| broken(&error))?;
        send.write_all(&wire::frame(&peer::Open { target })).await.map_err(|error| broken(&error))?;
        Ok((send, recv))
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> String {
        let error = self.quinn.closed().await;
        if let quinn::ConnectionError::ApplicationClosed(reason) = &error {
            return String::from_utf8_lossy(&reason.reason).into_owned();
        }
        error.to_string()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.quinn.close(close::DONE.into(), b"done");
    }
}
