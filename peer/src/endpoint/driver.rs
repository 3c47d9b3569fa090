//! The driver: the one task in which an endpoint's machines live.
//!
//! It waits for an input (a command, something of the session's, a STUN datagram, a timeout), hands it to
//! the machine it is for, and drains every machine before it waits again. What belongs to offers and answers
//! is in `exchanges`, what belongs to paths in `paths`, what follows from a changed network in `roaming`, and
//! which way is better by our interfaces in `ways`.

mod diagnosis;
mod exchanges;
mod farewell;
mod lifetime;
mod mapped;
mod paths;
mod punching;
mod relays;
mod roaming;
mod servers;
mod status;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::doorman::Doorman;
use proto::id::{Instance, PeerId, ShareId};
use proto::key::SecretKey;
use proto::machine::{earliest, random};
use proto::path::LinkId;
use proto::session::{Session, SessionAction, SessionConfig};
use proto::ticket::{ServerHint, Ticket};
use proto::wire;
use proto::wire::peer::{Target, close};
use proto::wire::signal::RelayHint;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay::net::{Change, Net};
use relay::outbound::Outbound;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::accept::{Knock, Visit};
use super::remote::{Introduction, Remote, RemoteKey};
use super::server_session::{Address, Attempt, Lost, SessionInput};
use super::status::Status;
use super::{EndpointEvent, FAREWELL, PathPolicy, ShareSpec, Standing};
use crate::error::Error;
use crate::path_socket::{Datagram, PathSocket};
use diagnosis::{Diagnosis, Probed};
use exchanges::{Dialling, PendingDial};
use farewell::Farewell;
use lifetime::Learning;
use paths::FreshLink;
use punching::Ports;
pub(super) use relays::RelayEvent;
use relays::Relays;
use roaming::Network;
use servers::ServerSide;
use ways::Ways;

/// How often the counters of busy paths are read, and how often those of idle ones.
const TRAFFIC_BUSY: Duration = Duration::from_millis(250);
const TRAFFIC_IDLE: Duration = Duration::from_secs(2);

/// Everything that happens to an endpoint.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "taken apart at once")]
pub(super) enum Input {
    Command(Command),
    Session {
        generation: u64,
        input: SessionInput,
    },
    Knock(Box<Knock>),
    Network(Change),
    /// Where the router lets the world in to the main socket, if it does.
    Mapped(Option<SocketAddr>),
    /// Which of the server's UDP ports answer here.
    Probed(Probed),
    Relay {
        relay: PeerId,
        event: RelayEvent,
    },
}

/// What the endpoint's owner wants.
#[derive(Debug)]
pub(super) enum Command {
    Share { spec: ShareSpec, visits: mpsc::Sender<Visit> },
    Dial { ticket: Box<Ticket>, reply: oneshot::Sender<Result<Introduction, Error>> },
    Attach { address: SocketAddr, connection: quinn::Connection },
    Forget { address: SocketAddr },
    Status { reply: oneshot::Sender<Status> },
    Close { done: oneshot::Sender<()> },
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) me: PeerId,
    pub(super) instance: Instance,
    pub(super) key: Arc<SecretKey>,
    pub(super) server: ServerHint,
    pub(super) relays: Vec<RelayHint>,
    pub(super) outbound: Outbound,
    pub(super) paths: PathPolicy,
    pub(super) net: Arc<dyn Net>,
    pub(super) socket: Arc<PathSocket>,
    pub(super) quinn: quinn::Endpoint,
    pub(super) inputs: mpsc::WeakSender<Input>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) events: broadcast::Sender<EndpointEvent>,
    /// To be notified when the router may be another one, where it maps ports for us.
    pub(super) router: Option<Arc<Notify>>,
    pub(super) reached: watch::Sender<Option<Arc<Address>>>,
    pub(super) token: Option<String>,
    pub(super) seed: [u8; 32],
}

/// A share of ours.
struct Shared {
    doorman: Doorman,
    name: String,
    targets: Vec<Target>,
    visits: mpsc::Sender<Visit>,
}

/// The attempt at a session that is under way, or stands.
struct SessionLink {
    generation: u64,
    task: Option<AbortHandle>,
    frames: Option<mpsc::Sender<Vec<u8>>>,
    /// Tells it that the network has changed.
    changed: Arc<Notify>,
}

pub(super) struct Driver {
    parts: Parts,
    rng: ChaCha12Rng,
    session: Session,
    link: SessionLink,
    /// Why the last attempt failed, for the words when the time is over.
    last_failure: String,
    servers: ServerSide,
    /// The port that our router maps to us.
    mapped: Option<SocketAddr>,
    shares: BTreeMap<ShareId, Shared>,
    /// Whether the server has ever registered one.
    registered: bool,
    /// Dials that wait for the session.
    pending: Vec<PendingDial>,
    dials: Vec<Dialling>,
    /// How many there have been.
    dialled: u64,
    remotes: BTreeMap<RemoteKey, Remote>,
    /// Those that are gone and may still have something to say.
    farewells: Vec<Farewell>,
    /// The tickets under which remotes were dialled, to ask again when their paths are lost.
    tickets: BTreeMap<RemoteKey, Ticket>,
    fresh_links: BTreeMap<LinkId, FreshLink>,
    lifetime: Learning,
    ports: Ports,
    network: Network,
    ways: Ways,
    relays: Relays,
    diagnosis: Diagnosis,
    next_link: u16,
    traffic_at: Option<Instant>,
    closed: bool,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let mut rng = ChaCha12Rng::from_seed(parts.seed);
        let now = tokio::time::Instant::now().into_std();
        let session = Session::new(
            SessionConfig::default(),
            parts.instance,
            parts.token.clone(),
            random(&mut rng),
            now,
        );
        let servers = ServerSide::new(&parts.server.udp, random(&mut rng));
        let network = Network::look(&*parts.net, servers.addrs.as_slice());
        let ways = Ways::look(&*parts.net);
        Self {
            parts,
            rng,
            session,
            link: SessionLink { generation: 0, task: None, frames: None, changed: Arc::default() },
            last_failure: "no answer".into(),
            servers,
            mapped: None,
            shares: BTreeMap::new(),
            registered: false,
            pending: Vec::new(),
            dials: Vec::new(),
            dialled: 0,
            remotes: BTreeMap::new(),
            farewells: Vec::new(),
            tickets: BTreeMap::new(),
            fresh_links: BTreeMap::new(),
            lifetime: Learning::default(),
            ports: Ports::default(),
            network,
            ways,
            relays: Relays::default(),
            diagnosis: Diagnosis::new(now),
            next_link: 1,
            traffic_at: None,
            closed: false,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut datagrams: mpsc::Receiver<Datagram>,
    ) {
        let relays = std::mem::take(&mut self.parts.relays);
        self.wait_at(&relays);
        let changes = self.parts.net.watch_changes();
        let watch = tokio::spawn(roaming::watch(changes, self.parts.inputs.clone()));
        while !self.closed {
            let deadline = self.poll_timeout();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                input = inputs.recv() => match input {
                    Some(input) => self.handle_input(input, now()),
                    None => self.closed = true,
                },
                Some(datagram) = datagrams.recv() => self.handle_datagram(datagram, now()),
                () = self.parts.socket.stirred() => self.handle_stirred(now()),
                () = sleep => self.handle_timeout(now()),
            }
            if roaming::was_stopped(deadline, now()) {
                self.handle_stopped(now());
            }
            self.drain(now());
        }
        watch.abort();
        if let Some(task) = self.link.task.take() {
            task.abort();
        }
        // What the connections say when they end may go through a relay.
        let relays = std::mem::take(&mut self.relays);
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            drop(relays);
        });
    }

    fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Command(command) => self.handle_command(command, now),
            Input::Session { generation, input } if generation == self.link.generation => {
                self.handle_session_input(input, now);
            }
            Input::Session { .. } => {}
            Input::Knock(knock) => self.handle_knock(*knock),
            Input::Relay { relay, event } => self.handle_relay(relay, event, now),
            Input::Network(change) => self.handle_change(change, now),
            Input::Mapped(mapped) => self.handle_mapped(mapped),
            Input::Probed(probed) => self.handle_probed(&probed, now),
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Share { spec, visits } => self.share(spec, visits),
            Command::Dial { ticket, reply } => {
                if let Standing::Failed(error) = &*self.parts.standing.borrow() {
                    let _ = reply.send(Err(error.clone()));
                    return;
                }
                // Beside the session, not after it.
                let _relay = self.relay_of(&ticket);
                self.pending.push(PendingDial::new(*ticket, Some(reply), None, now));
            }
            Command::Attach { address, connection } => {
                if let Some(early) = self.early(address) {
                    early.connection = Some(connection);
                } else if let Some((_, remote)) = self.by_address(address) {
                    remote.connection = Some(connection);
                    remote.expires = None;
                }
            }
            Command::Forget { address } => match self.by_address(address) {
                Some((key, _)) => self.forget(key, (close::DONE, "done"), now),
                None => self.forget_early(address, now),
            },
            Command::Status { reply } => {
                let _ = reply.send(self.status(now));
            }
            Command::Close { done } => {
                for remote in self.remotes.values() {
                    if let Some(connection) = &remote.connection {
                        connection.close(close::STOPPING.into(), b"the peer stopped");
                    }
                }
                self.closed = true;
                let _ = done.send(());
            }
        }
    }

    fn handle_session_input(&mut self, input: SessionInput, now: Instant) {
        match input {
            SessionInput::Connected { frames, direct } => {
                if direct.is_some() {
                    self.leave_servers_relay();
                }
                self.handle_server_reached(direct);
                self.diagnosis.handle_connected(direct.is_none());
                self.link.frames = Some(frames);
                self.session.handle_connected(now);
                for dialling in &mut self.dials {
                    dialling.dial.handle_new_session(now);
                }
            }
            SessionInput::Found(addrs) => self.handle_found(addrs, now),
            SessionInput::Worked(addr) => self.servers.udp_passes(addr),
            SessionInput::Nat64(prefix) => self.servers.nat64 = Some(prefix),
            SessionInput::Message(message) => self.session.handle_message(message, now),
            SessionInput::Lost(lost) => {
                self.link.frames = None;
                self.link.task = None;
                let starting = *self.parts.standing.borrow() == Standing::Starting;
                match lost {
                    Lost::Final(error) if starting => self.fail(&error),
                    // It greets everybody, and only then looks at what they want.
                    Lost::Final(error @ Error::NotAdmitted { .. }) if !self.registered => self.fail(&error),
                    Lost::Final(error) => {
                        tracing::warn!(%error, "the server is asked again");
                        self.session.handle_lost(now);
                    }
                    Lost::Passing(why) => {
                        tracing::debug!(why, "the session is lost");
                        self.last_failure = why;
                        self.session.handle_lost(now);
                    }
                }
            }
        }
    }

    /// The session never came up, and never will: everybody who waits for it is told.
    fn fail(&mut self, error: &Error) {
        let _ = self.parts.standing.send(Standing::Failed(error.clone()));
        for pending in self.pending.drain(..) {
            if let Some(reply) = pending.reply {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if !matches!(&*self.parts.standing.borrow(), Standing::Failed(_)) {
            self.session.handle_timeout(now);
        }
        for dialling in &mut self.dials {
            dialling.dial.handle_timeout(now);
        }
        self.report_traffic(now);
        for remote in self.remotes.values_mut() {
            remote.agent.handle_timeout(now);
        }
        self.punch_timeout(now);
        self.forget_expired(now);
        self.end_farewells(now);
        self.rejoin(now);
        self.diagnosis_timeout(now);
        self.lifetime_timeout(now);
        self.expire_fresh_links(now);
        self.ask_for_sightings(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let failed = matches!(&*self.parts.standing.borrow(), Standing::Failed(_));
        let mut next = if failed { None } else { self.session.poll_timeout() };
        for dialling in &self.dials {
            next = earliest(next, dialling.dial.poll_timeout());
        }
        for pending in &self.pending {
            // One that waits for the session needs no timer: the session's coming up is an input.
            next = earliest(next, pending.not_before.filter(|_| self.link.frames.is_some()));
        }
        for remote in self.remotes.values() {
            next = earliest(earliest(next, remote.agent.poll_timeout()), remote.expires);
        }
        next = earliest(next, earliest(self.fresh_links_timeout(), self.lifetime.poll_timeout()));
        next = earliest(next, self.punch_poll_timeout());
        next = earliest(next, earliest(self.farewells_timeout(), self.rejoins_timeout()));
        next = earliest(next, self.servers.poll_timeout());
        earliest(next, earliest(self.diagnosis.poll_timeout(), self.traffic_at))
    }

    /// Takes everything out of every machine, until none has anything left.
    fn drain(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(action) = self.session.poll_action() {
                idle = false;
                self.act(action);
            }
            while let Some(event) = self.session.poll_event() {
                idle = false;
                self.handle_session_event(event, now);
            }
            idle &= self.describe_nat();
            idle &= self.drain_dials(now);
            idle &= self.drain_agents(now);
            idle &= self.drain_punches(now);
            if idle {
                break;
            }
        }
        if self.remotes.is_empty() {
            self.traffic_at = None;
        } else if self.traffic_at.is_none() {
            self.traffic_at = Some(now + TRAFFIC_BUSY);
        }
    }

    fn act(&mut self, action: SessionAction) {
        match action {
            SessionAction::Dial => self.start_attempt(),
            SessionAction::Send(message) => {
                let Some(frames) = &self.link.frames else { return };
                if frames.try_send(wire::frame(&message)).is_err() {
                    tracing::debug!("the session's queue is full, or the session gone: a message is lost");
                }
            }
            SessionAction::Close => {
                self.link.frames = None;
                if let Some(task) = self.link.task.take() {
                    task.abort();
                }
            }
        }
    }

    fn start_attempt(&mut self) {
        if let Some(task) = self.link.task.take() {
            task.abort();
        }
        self.link.generation += 1;
        self.link.changed = Arc::default();
        self.open_servers_relay();
        let attempt = Attempt {
            generation: self.link.generation,
            quinn: self.parts.quinn.clone(),
            socket: Arc::clone(&self.parts.socket),
            key: Arc::clone(&self.parts.key),
            server: self.parts.server.clone(),
            addrs: self.servers.addrs.clone(),
            outbound: self.parts.outbound.clone(),
            changed: Arc::clone(&self.link.changed),
            left_relay: self.servers.left_relay,
            relayed: self.relayed_server(),
            inputs: self.parts.inputs.clone(),
            reached: self.parts.reached.clone(),
        };
        self.link.task = Some(tokio::spawn(attempt.run()).abort_handle());
    }

    fn report_traffic(&mut self, now: Instant) {
        if self.traffic_at.is_none_or(|at| at > now) {
            return;
        }
        self.parts.socket.rest();
        let mut any = false;
        for remote in self.remotes.values_mut() {
            any |= remote.report_traffic(&self.parts.socket, now);
        }
        if any {
            self.parts.socket.stay_awake();
        }
        self.traffic_at = Some(now + if any { TRAFFIC_BUSY } else { TRAFFIC_IDLE });
    }

    /// A packet passes after a rest. If one of ours goes unanswered, that is known from now on, and not from whenever the
    /// counters are read next, which is soon.
    fn handle_stirred(&mut self, now: Instant) {
        if self.traffic_at.is_some() {
            self.traffic_at = earliest(self.traffic_at, Some(now + TRAFFIC_BUSY));
            for remote in self.remotes.values_mut() {
                remote.report_sent(&self.parts.socket, now);
            }
        }
    }

    fn by_address(&mut self, address: SocketAddr) -> Option<(RemoteKey, &mut Remote)> {
        let found = self.remotes.iter_mut().find(|(_, remote)| remote.address == address);
        found.map(|(key, remote)| (*key, remote))
    }

    fn forget_expired(&mut self, now: Instant) {
        let is_over = |remote: &Remote| {
            let may_be_relayed = remote.relayed.is_some_and(|path| self.relays.is_coming(path));
            remote.is_over(may_be_relayed, now)
        };
        let over = self.remotes.iter().filter(|(_, remote)| is_over(remote));
        for key in over.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.forget(key, (close::DONE, "gone"), now);
        }
    }

    fn forget(&mut self, key: RemoteKey, (code, why): (u32, &str), now: Instant) {
        let Some(remote) = self.remotes.remove(&key) else { return };
        self.tickets.remove(&key);
        self.end_punch(key);
        self.unreachable(key);
        if let Some(connection) = &remote.connection {
            connection.close(code.into(), why.as_bytes());
        }
        self.lifetime_loses(key, now);
        self.part(Farewell::new(remote.address, remote.relayed, remote.links, now));
        self.dials.retain(|dialling| dialling.repunch != Some(key));
        self.pending.retain(|pending| pending.repunch != Some(key));
    }

    fn event(&self, event: EndpointEvent) {
        // Nobody listening is no fault.
        let _ = self.parts.events.send(event);
    }
}

/// Tokio's clock, so that a test's paused time is everybody's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for expiry alone.
fn unix_secs() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
