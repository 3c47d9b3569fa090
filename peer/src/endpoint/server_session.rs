//! One attempt at a session: dialling the server at each of its addresses, then frames both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::id::PeerId;
use proto::key::SecretKey;
use proto::nat64::Nat64Prefix;
use proto::path::{LinkId, PathId, Route};
use proto::server_addrs::ServerAddrs;
use proto::ticket::ServerHint;
use proto::wire::session::{self, FromServer, close};
use proto::wire::{self, Deframer};
use relay::client::{Expected, RelayState};
use relay::outbound::Outbound;
use relay::quic;
use relay::tls::{self, HandshakeFailure};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::close_remote_later;
use super::driver::Input;
use super::server_search::{Found, Search};
use crate::congestion::PathEpoch;
use crate::error::Error;
use crate::path_socket::PathSocket;

/// Between attempts at two addresses of one server (RFC 8305 §5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(150);

/// How long the server's other addresses have once one has answered with a refusal that no time will mend.
/// One that never answers must not hide it.
const REPRIEVE: Duration = Duration::from_secs(1);

/// How long an attempt leaves to UDP alone, which shows the server where we are; and where UDP has just been seen to pass,
/// so that the relay is left for it.
const UDP_HEAD_START: Duration = Duration::from_millis(60);
const UDP_PREFERRED: Duration = Duration::from_secs(1);

/// Which part of the time that a connection to the relay took is left to UDP beyond that: its answer and TCP's are on the
/// way together, and the server has more to do for the former.
const LINGER: u32 = 16;

/// How soon, and how rarely at last, UDP is tried again while the session goes through the relay; and how long each try
/// may take.
const UDP_RETRY: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(120));
const UDP_TRY: Duration = Duration::from_secs(4);

/// How long a session through the relay goes on once UDP is known to pass: what the peers are told of our addresses, which
/// are known from then on, belongs to exchanges of this session.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long the first attempt leaves to the addresses that are known before the server is asked for others over TCP. A
/// later one asks at once: the server may have been started again elsewhere.
const ASK_AFTER: Duration = Duration::from_millis(300);

/// Frames on their way to the server. A session that is this far behind is as good as dead.
const QUEUE: usize = 256;

/// What an attempt needs.
pub(super) struct Attempt {
    /// Which attempt this is, from 1.
    pub(super) generation: u64,
    pub(super) quinn: quinn::Endpoint,
    pub(super) socket: Arc<PathSocket>,
    pub(super) key: Arc<SecretKey>,
    pub(super) server: ServerHint,
    /// Where its UDP port may be.
    pub(super) addrs: ServerAddrs,
    pub(super) outbound: Outbound,
    /// Told when the network has changed: what was found out in the last one may be wrong in this one.
    pub(super) changed: Arc<Notify>,
    /// How often the relay was left because UDP was seen to pass, and no session has gone over UDP since.
    pub(super) left_relay: u32,
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
    /// The server's own address, unless it is through its relay.
    direct: Option<SocketAddr>,
}

/// What an attempt tells the driver.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum SessionInput {
    /// There is a session.
    Connected {
        /// Frames to the server.
        frames: mpsc::Sender<Vec<u8>>,
        /// The server's address, unless it goes through the server's relay.
        direct: Option<SocketAddr>,
    },
    /// The server may be reached here too.
    Found(Vec<SocketAddr>),
    /// The server was reached here.
    Worked(SocketAddr),
    /// This network has no IPv4, and reaches IPv4 addresses by this prefix.
    Nat64(Nat64Prefix),
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
        let wait = if self.generation > 1 { Duration::ZERO } else { ASK_AFTER };
        let mut search = self.search(self.addrs.clone(), wait);
        let lost = match self.dial(&mut search).await {
            Ok(Reached { connection, address, direct }) => {
                let address = Arc::new(address);
                self.reached.send_replace(Some(Arc::clone(&address)));
                let this = &self;
                let lost = tokio::select! {
                    biased;
                    lost = this.converse(&connection, direct) => lost,
                    lost = this.look_for_udp(), if direct.is_none() => lost,
                    lost = this.learn_more(search), if direct.is_some() => lost,
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

    fn search(&self, known: ServerAddrs, wait: Duration) -> Search {
        Search::start(&self.outbound, &self.server, known, wait)
    }

    /// The session stands. What else is found of the server's addresses is for the family that it does not use; the server
    /// itself is asked only as long as there are none of both. Another network has another DNS, and may have NAT64.
    async fn learn_more(&self, mut search: Search) -> Lost {
        loop {
            if search.known().has_both_families() {
                search.spare_server();
            }
            match search.next().await {
                Some(Found::Addrs(new)) => self.tell(SessionInput::Found(new)).await,
                Some(Found::Nat64(prefix)) => self.tell(SessionInput::Nat64(prefix)).await,
                // The session shows who is there.
                Some(Found::Another(_)) => {}
                None => {
                    self.changed.notified().await;
                    search = self.search(search.known().clone(), ASK_AFTER);
                }
            }
        }
    }

    /// The first of the server's addresses that answers with the pinned key.
    async fn dial(&mut self, search: &mut Search) -> Result<Reached, Lost> {
        let mut tries = self.udp_tries(search.known());
        if let Some(relayed) = self.relayed.take() {
            let head_start = if self.left_relay > 0 { UDP_PREFERRED } else { UDP_HEAD_START };
            tries.spawn(connect_relayed(self.dialer(), relayed, head_start));
        }
        self.first_of(tries, search).await
    }

    /// The first try that succeeds, of these and of those that the search adds.
    async fn first_of(
        &self,
        mut tries: JoinSet<Result<Reached, Lost>>,
        search: &mut Search,
    ) -> Result<Reached, Lost> {
        let mut last = Lost::Passing("it has no address".into());
        let mut reprieve = None;
        let mut is_searching = true;
        while is_searching || !tries.is_empty() {
            let end = async {
                match reprieve {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let lost = tokio::select! {
                biased;
                Some(result) = tries.join_next() => match result {
                    Ok(Ok(reached)) => return Ok(reached),
                    Ok(Err(lost)) => lost,
                    Err(error) => Lost::Passing(error.to_string()),
                },
                found = search.next(), if is_searching => match found {
                    Some(Found::Addrs(new)) => {
                        self.dial_each(&mut tries, ServerAddrs::new(new.clone()).to_dial());
                        self.tell(SessionInput::Found(new)).await;
                        continue;
                    }
                    Some(Found::Nat64(prefix)) => {
                        self.tell(SessionInput::Nat64(prefix)).await;
                        continue;
                    }
                    Some(Found::Another(found)) => {
                        Lost::Final(changed(&self.server.url, self.server.peer_id, found))
                    }
                    None => {
                        is_searching = false;
                        continue;
                    }
                },
                () = end => break,
            };
            if matches!(lost, Lost::Final(_)) {
                reprieve.get_or_insert_with(|| Instant::now() + REPRIEVE);
            }
            if !matches!(last, Lost::Final(_)) {
                last = lost;
            }
        }
        Err(last)
    }

    fn udp_tries(&self, known: &ServerAddrs) -> JoinSet<Result<Reached, Lost>> {
        let mut tries = JoinSet::new();
        self.dial_each(&mut tries, known.to_dial());
        tries
    }

    fn dial_each(&self, tries: &mut JoinSet<Result<Reached, Lost>>, addrs: Vec<SocketAddr>) {
        for (n, addr) in addrs.into_iter().enumerate() {
            tries.spawn(connect(self.dialer(), main_path(addr), STAGGER * n as u32));
        }
    }

    /// A session through the relay does, and shows the server no address of ours: as soon as UDP passes, it ends. Where it
    /// has ended so before, and has come back to the relay all the same, that takes longer each time.
    async fn look_for_udp(&self) -> Lost {
        let mut known = self.addrs.clone();
        for round in self.left_relay.. {
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = sleep(udp_retry(round)) => {}
            }
            let mut search = self.search(known, Duration::ZERO);
            let tries = self.udp_tries(search.known());
            let tried = timeout(UDP_TRY, self.first_of(tries, &mut search)).await;
            known = search.known().clone();
            if let Ok(Ok(Reached { connection, direct: Some(addr), .. })) = tried {
                connection.close(close::DONE.into(), b"");
                self.tell(SessionInput::Worked(addr)).await;
                sleep(LAST_WORDS).await;
                return Lost::Passing("the server can be reached without the relay".into());
            }
        }
        std::future::pending().await
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
    async fn converse(&self, connection: &quinn::Connection, direct: Option<SocketAddr>) -> Lost {
        let broken = |error: &dyn std::fmt::Display| Lost::Passing(error.to_string());
        let (mut send, mut recv) = match connection.open_bi().await {
            Ok(streams) => streams,
            Err(error) => return broken(&error),
        };
        let (frames, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        self.tell(SessionInput::Connected { frames, direct }).await;
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
        Ok(connection) => {
            let direct = (path.link == LinkId::MAIN).then_some(path.remote);
            Ok(Reached { connection, address, direct })
        }
        Err(error) => Err(judge(&error, &url, known)),
    }
}

/// How long the given try of UDP waits beside a session through the relay.
fn udp_retry(round: u32) -> Duration {
    let (first, longest) = UDP_RETRY;
    first.saturating_mul(2_u32.saturating_pow(round)).min(longest)
}

/// The handshake's first packet leaves with the request for the relay, unless UDP has answered by then.
async fn connect_relayed(
    dialer: Dialer,
    relayed: RelayedServer,
    head_start: Duration,
) -> Result<Reached, Lost> {
    let mut until = Instant::now() + head_start;
    let RelayedServer { path, mut state, expected: _kept } = relayed;
    let is_open = |state: &RelayState| matches!(state, RelayState::Opening(_) | RelayState::Up(_));
    match state.wait_for(is_open).await.as_deref() {
        Ok(RelayState::Opening(took)) => until = until.max(Instant::now() + *took / LINGER),
        Ok(_) => {}
        Err(_) => return Err(Lost::Passing("the relay is not wanted any more".into())),
    }
    connect(dialer, path, until.saturating_duration_since(Instant::now())).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_is_tried_ever_more_rarely_and_two_minutes_apart_at_last() {
        let waits = [0, 1, 2, 8, 9, u32::MAX].map(|round| udp_retry(round).as_millis());
        assert_eq!(waits, [300, 600, 1200, 76_800, 120_000, 120_000]);
    }
}
