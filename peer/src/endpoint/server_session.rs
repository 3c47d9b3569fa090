//! One attempt at a session: dialling the server at each of its addresses, then frames both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::id::PeerId;
use proto::key::SecretKey;
use proto::path::{LinkId, PathId, Route};
use proto::ticket::ServerHint;
use proto::wire::session::{self, FromServer, close};
use proto::wire::{self, Deframer};
use relay::client::{Expected, RelayState};
use relay::outbound::Outbound;
use relay::quic;
use relay::tls::{self, HandshakeFailure};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::close_remote_later;
use super::driver::Input;
use crate::congestion::PathEpoch;
use crate::error::Error;
use crate::locate;
use crate::path_socket::PathSocket;

/// Between attempts at two addresses of one server (RFC 8305 §5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(150);

/// How long the server's other addresses have once one has answered with a refusal that no time will mend.
/// One that never answers must not hide it.
const REPRIEVE: Duration = Duration::from_secs(1);

/// How long an attempt leaves to UDP alone, which shows the server where we are.
const UDP_HEAD_START: Duration = Duration::from_millis(60);

/// Which part of the time that a connection to the relay took is left to UDP beyond that: its answer and TCP's are on the
/// way together, and the server has more to do for the former.
const LINGER: u32 = 16;

/// How soon, and how rarely at last, UDP is tried again while the session goes through the relay.
const UDP_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

/// Frames on their way to the server. A session that is this far behind is as good as dead.
const QUEUE: usize = 256;

/// What an attempt needs.
pub(super) struct Attempt {
    /// Which attempt this is, from 1: later ones also ask the server's URL where its UDP port is now.
    pub(super) generation: u64,
    pub(super) quinn: quinn::Endpoint,
    pub(super) socket: Arc<PathSocket>,
    pub(super) key: Arc<SecretKey>,
    pub(super) server: ServerHint,
    pub(super) outbound: Outbound,
    /// The way through the server's own relay, where we are at that.
    pub(super) relayed: Option<RelayedServer>,
    pub(super) inputs: mpsc::WeakSender<Input>,
    /// Where the server was reached, for its other services.
    pub(super) reached: watch::Sender<Option<Arc<Address>>>,
}

/// A server that is reached through its relay.
#[derive(Debug)]
pub(super) struct RelayedServer {
    pub(super) path: PathId,
    pub(super) state: watch::Receiver<RelayState>,
    pub(super) expected: Expected,
}

/// A session's connection, by one of the ways that were tried.
struct Reached {
    connection: quinn::Connection,
    address: Address,
    is_relayed: bool,
}

/// What an attempt tells the driver.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum SessionInput {
    /// There is a session.
    Connected {
        /// Frames to the server.
        frames: mpsc::Sender<Vec<u8>>,
        /// Whether it goes through the server's relay.
        is_relayed: bool,
    },
    /// The server said something.
    Message(FromServer),
    /// It is over.
    Lost(Lost),
}

/// Why an attempt is over.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    /// Trying again may help.
    Passing(String),
    /// Trying again will not help.
    Final(Error),
}

/// Keeps the server's stable address for as long as a connection under it is wanted.
#[derive(Debug)]
pub(super) struct Address {
    socket: Arc<PathSocket>,
    address: SocketAddr,
}

impl Address {
    /// The address.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// How often its path has changed.
    pub(super) fn epoch(&self) -> PathEpoch {
        self.socket.epoch(self.address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        close_remote_later(&self.socket, self.address);
    }
}

impl Attempt {
    /// Runs the attempt to its end.
    pub(super) async fn run(mut self) {
        let lost = match self.dial().await {
            Ok(Reached { connection, address, is_relayed }) => {
                let address = Arc::new(address);
                self.reached.send_replace(Some(Arc::clone(&address)));
                let lost = tokio::select! {
                    biased;
                    lost = self.converse(&connection, is_relayed) => lost,
                    lost = self.look_for_udp(), if is_relayed => lost,
                };
                connection.close(close::DONE.into(), b"");
                drop(address);
                lost
            }
            Err(lost) => lost,
        };
        self.tell(SessionInput::Lost(lost)).await;
    }

    async fn tell(&self, input: SessionInput) {
        if let Some(sender) = self.inputs.upgrade() {
            let _ = sender.send(Input::Session { generation: self.generation, input }).await;
        }
    }

    /// The first of the server's addresses that answers with the pinned key.
    async fn dial(&mut self) -> Result<Reached, Lost> {
        let mut tries = self.udp_tries();
        if self.generation > 1 {
            let (outbound, server, dialer) = (self.outbound.clone(), self.server.clone(), self.dialer());
            tries.spawn(async move {
                let addr = relocate(&outbound, &server).await?;
                connect(dialer, main_path(addr), Duration::ZERO).await
            });
        }
        if let Some(relayed) = self.relayed.take() {
            tries.spawn(connect_relayed(self.dialer(), relayed));
        }
        let mut last = Lost::Passing("it has no address".into());
        let mut reprieve = None;
        loop {
            let next = match reprieve {
                Some(end) => timeout_at(end, tries.join_next()).await.unwrap_or(None),
                None => tries.join_next().await,
            };
            let Some(result) = next else { return Err(last) };
            match result {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(lost)) => {
                    if matches!(lost, Lost::Final(_)) {
                        reprieve.get_or_insert_with(|| Instant::now() + REPRIEVE);
                    }
                    if !matches!(last, Lost::Final(_)) {
                        last = lost;
                    }
                }
                Err(error) => last = Lost::Passing(error.to_string()),
            }
        }
    }

    fn udp_tries(&self) -> JoinSet<Result<Reached, Lost>> {
        let mut tries = JoinSet::new();
        for (n, addr) in in_order(&self.server.udp).into_iter().enumerate() {
            tries.spawn(connect(self.dialer(), main_path(addr), STAGGER * n as u32));
        }
        tries
    }

    /// A session through the relay does, and shows nobody where we are: as soon as UDP passes, it ends.
    async fn look_for_udp(&self) -> Lost {
        let mut wait = UDP_RETRY.0;
        loop {
            sleep(wait).await;
            wait = (wait * 2).min(UDP_RETRY.1);
            let mut tries = self.udp_tries();
            while let Some(result) = tries.join_next().await {
                if let Ok(Ok(reached)) = result {
                    reached.connection.close(close::DONE.into(), b"");
                    return Lost::Passing("the server can be reached without the relay".into());
                }
            }
        }
    }

    fn dialer(&self) -> Dialer {
        let config = tls::client_config(&self.key, self.server.peer_id, session::ALPN);
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.transport_config(Arc::new(quic::session_transport()));
        Dialer {
            quinn: self.quinn.clone(),
            socket: Arc::clone(&self.socket),
            config,
            url: self.server.url.clone(),
            known: self.server.peer_id,
        }
    }

    /// Passes frames on until the session breaks.
    async fn converse(&self, connection: &quinn::Connection, is_relayed: bool) -> Lost {
        let broken = |error: &dyn std::fmt::Display| Lost::Passing(error.to_string());
        let (mut send, mut recv) = match connection.open_bi().await {
            Ok(streams) => streams,
            Err(error) => return broken(&error),
        };
        let (frames, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        self.tell(SessionInput::Connected { frames, is_relayed }).await;
        let write = async {
            while let Some(mut bytes) = queue.recv().await {
                while let Ok(more) = queue.try_recv() {
                    bytes.extend(more);
                }
                if let Err(error) = send.write_all(&bytes).await {
                    return broken(&error);
                }
            }
            Lost::Passing("closed".into())
        };
        let read = async {
            let mut deframer = Deframer::default();
            loop {
                match recv.read_chunk(usize::from(u16::MAX), true).await {
                    Ok(Some(chunk)) => deframer.push(&chunk.bytes),
                    Ok(None) => return Lost::Passing("the server ended the session".into()),
                    Err(error) => return broken(&error),
                }
                loop {
                    match deframer.next_frame().map(|body| body.map(|body| wire::parse::<FromServer>(&body)))
                    {
                        Ok(None) => break,
                        Ok(Some(Ok(message))) => self.tell(SessionInput::Message(message)).await,
                        Ok(Some(Err(error))) | Err(error) => return broken(&error),
                    }
                }
            }
        };
        let lost = tokio::select! { biased; lost = write => lost, lost = read => lost };
        match connection.close_reason() {
            Some(reason) => judge(&reason, &self.server.url, self.server.peer_id),
            None => lost,
        }
    }
}

#[derive(Clone)]
struct Dialer {
    quinn: quinn::Endpoint,
    socket: Arc<PathSocket>,
    config: quinn::ClientConfig,
    url: String,
    known: PeerId,
}

const fn main_path(remote: SocketAddr) -> PathId {
    PathId { link: LinkId::MAIN, remote }
}

async fn connect(dialer: Dialer, path: PathId, delay: Duration) -> Result<Reached, Lost> {
    sleep(delay).await;
    let Dialer { quinn, socket, config, url, known } = dialer;
    let remote = socket.open_remote().ok_or_else(|| Lost::Passing("too many remotes".into()))?;
    let address = Address { socket, address: remote };
    address.socket.reserve(remote, path);
    address.socket.set_route(remote, Route { primary: Some(path), also: None });
    let connecting = quinn
        .connect_with(config, remote, tls::SERVER_NAME)
        .map_err(|error| Lost::Passing(error.to_string()))?;
    match connecting.await {
        Ok(connection) => Ok(Reached { connection, address, is_relayed: path.link != LinkId::MAIN }),
        Err(error) => Err(judge(&error, &url, known)),
    }
}

/// The handshake's first packet leaves with the request for the relay, unless UDP has answered by then.
async fn connect_relayed(dialer: Dialer, relayed: RelayedServer) -> Result<Reached, Lost> {
    let mut until = Instant::now() + UDP_HEAD_START;
    let RelayedServer { path, mut state, expected: _kept } = relayed;
    let is_open = |state: &RelayState| matches!(state, RelayState::Opening(_) | RelayState::Up(_));
    match state.wait_for(is_open).await.as_deref() {
        Ok(RelayState::Opening(took)) => until = until.max(Instant::now() + *took / LINGER),
        Ok(_) => {}
        Err(_) => return Err(Lost::Passing("the relay is not wanted any more".into())),
    }
    connect(dialer, path, until.saturating_duration_since(Instant::now())).await
}

/// Where the server's UDP port is by its URL's word, if that is another place than we know.
async fn relocate(outbound: &Outbound, server: &ServerHint) -> Result<SocketAddr, Lost> {
    let passing = |why: &str| Lost::Passing(why.into());
    let url = server.url.parse().map_err(|_| passing("its URL is none"))?;
    let found = locate::ask_once(outbound, &url).await.map_err(Lost::Passing)?;
    if found.server.peer_id != server.peer_id {
        return Err(Lost::Final(changed(&server.url, server.peer_id, found.server.peer_id.to_string())));
    }
    let new = in_order(&found.server.udp).into_iter().find(|addr| !server.udp.contains(addr));
    new.ok_or_else(|| passing("it is where it was, and does not answer there"))
}

/// IPv4 first: a NAT's mapping can only be learned from the server, while a global IPv6 address is known
/// without it. Loopback before everything: it is there or it is not.
fn in_order(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addrs = addrs.to_vec();
    addrs.sort_by_key(|addr| (!addr.ip().is_loopback(), addr.is_ipv6()));
    addrs
}

fn judge(error: &quinn::ConnectionError, url: &str, known: PeerId) -> Lost {
    let refused = |why: &str| Lost::Final(Error::ServerRefused { url: url.to_owned(), why: why.to_owned() });
    match HandshakeFailure::of(error) {
        Some(HandshakeFailure::WrongServerKey) => Lost::Final(changed(url, known, "unknown".into())),
        Some(failure) => refused(&failure.to_string()),
        None if closed_with(error, close::NOT_ADMITTED) => {
            Lost::Final(Error::NotAdmitted { url: url.to_owned() })
        }
        None => Lost::Passing(error.to_string()),
    }
}

fn closed_with(error: &quinn::ConnectionError, code: u32) -> bool {
    if let quinn::ConnectionError::ApplicationClosed(reason) = error {
        reason.error_code == code.into()
    } else {
        false
    }
}

fn changed(url: &str, known: PeerId, found: String) -> Error {
    Error::ServerChanged {
        url: url.to_owned(),
        known,
        found,
        remedy: "ask the sharer for a new ticket".to_owned(),
    }
}
