//! A peer's connection to a relay: kept up for ever, with a [`RelayedLink`] on top.

mod conversation;
mod outbox;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::id::{Instance, PeerId};
use proto::key::SecretKey;
use proto::machine::Backoff;
use proto::wire::relay::{Address, Frame, MAX_ALLOW};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

pub use conversation::probe;

use crate::outbound::{Origin, Outbound};
use crate::relayed::{Lane, Outlet, RelayedLink};
use outbox::Outbox;

/// The shortest and the longest wait between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// A connection that held for so long was a good one: the next attempt follows soon.
const GOOD: Duration = Duration::from_secs(10);

/// How long the request for a relay waits for the packet that it might take along.
const FIRST: Duration = Duration::from_millis(100);

/// Remotes that one link knows at once.
const REMOTES: usize = 4096;

/// Peers that were not there, not yet looked at. More of the same news is worth nothing.
const GONE: usize = 64;

/// What a client needs.
#[derive(Debug)]
pub struct RelayClientConfig {
    /// Where the relay listens.
    pub origin: Origin,
    /// Its identity; no other is logged in at.
    pub relay: PeerId,
    /// Ours.
    pub key: Arc<SecretKey>,
    /// Which process of it.
    pub instance: Instance,
    /// How long before the first attempt.
    pub wait: Duration,
    /// For the waits between attempts.
    pub seed: [u8; 32],
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayState {
    /// The first attempt is under way, or waited for.
    Connecting,
    /// The far end is there, after as long; the request for the relay is about to leave, and waits a moment for a packet to
    /// take along, if one is [expected](RelayClient::expect_first).
    Opening(Duration),
    /// Frames can pass. It counts the connections so far.
    Up(u64),
    /// It is tried again; this is why.
    Down(String),
}

/// A connection to a relay. Dropping it ends it.
#[derive(Debug)]
pub struct RelayClient {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    origin: Origin,
    relay: PeerId,
    key: Arc<SecretKey>,
    instance: Instance,
    link: Arc<RelayedLink>,
    outbox: Arc<Outbox>,
    allowed: Mutex<BTreeSet<Address>>,
    state: watch::Sender<RelayState>,
    /// The far end of the TCP connection, and how long that took.
    reached: Mutex<Option<(SocketAddr, Duration)>>,
    connections: Mutex<u64>,
    /// How many are about to send a first packet to the relay's own server.
    expected: watch::Sender<usize>,
    /// Whether the last request that took a packet along was refused: the next one takes none, in case something on the way
    /// does not like such requests.
    unladen: AtomicBool,
    gone: mpsc::Sender<SocketAddr>,
    /// Raised by whatever comes from the relay.
    heard: watch::Sender<()>,
    now: Notify,
}

/// Kept by whoever is about to send a first packet to the relay's own server: the request for the relay waits a moment
/// for it.
#[derive(Debug)]
pub struct Expected(watch::Sender<usize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Why a connection is over.
#[derive(Debug)]
struct Ended {
    why: String,
    /// When the relay asked to be asked again.
    back_in: Option<Duration>,
}

impl Ended {
    fn passing(why: &(impl ToString + ?Sized)) -> Self {
        Self { why: why.to_string(), back_in: None }
    }
}

impl RelayClient {
    /// Connects, and connects again for ever, within a tokio runtime. Whoever turns out not to be at the relay
    /// comes out of the receiver.
    pub fn open(config: RelayClientConfig, outbound: Outbound) -> (Self, mpsc::Receiver<SocketAddr>) {
        let RelayClientConfig { origin, relay, key, instance, wait, seed } = config;
        let outbox = Arc::new(Outbox::default());
        let link = RelayedLink::new(Arc::clone(&outbox) as Arc<dyn Outlet>, REMOTES, false);
        let (gone, absent) = mpsc::channel(GONE);
        let shared = Arc::new(Shared {
            origin,
            relay,
            key,
            instance,
            link: Arc::new(link),
            outbox,
            allowed: Mutex::default(),
            state: watch::Sender::new(RelayState::Connecting),
            reached: Mutex::new(None),
            connections: Mutex::new(0),
            expected: watch::Sender::new(0),
            unladen: AtomicBool::new(false),
            gone,
            heard: watch::Sender::new(()),
            now: Notify::new(),
        });
        let task = tokio::spawn(keep(Arc::clone(&shared), outbound, wait, seed)).abort_handle();
        (Self { shared, task }, absent)
    }

    /// The relay's identity.
    pub fn relay(&self) -> PeerId {
        self.shared.relay
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// The link, to send and receive by.
    pub fn link(&self) -> Arc<RelayedLink> {
        Arc::clone(&self.shared.link)
    }

    /// How it stands, as that changes.
    pub fn state(&self) -> watch::Receiver<RelayState> {
        self.shared.state.subscribe()
    }

    /// The far end of the connection that is, or was last: the relay, or a proxy before it.
    pub fn reached(&self) -> Option<SocketAddr> {
        self.shared.lock_reached().map(|(addr, _)| addr)
    }

    /// How long the connection took to be there, which is one round trip and a name's look-up.
    pub fn took(&self) -> Option<Duration> {
        self.shared.lock_reached().map(|(_, took)| took)
    }

    /// Says that a first packet to the relay's own server will be sent on this link as soon as the relay is
    /// [opened](RelayState::Opening), unless the result is dropped before.
    pub fn expect_first(&self) -> Expected {
        self.shared.expected.send_modify(|count| *count += 1);
        Expected(self.shared.expected.clone())
    }

    /// Lets in what this process of an identity sends here, until [`Self::forbid`], and gives its address.
    pub fn allow(&self, from: Address) -> SocketAddr {
        let addr = self.shared.link.addr(from);
        if self.shared.lock_allowed().insert(from) {
            self.shared.outbox.send(Lane::Control, allow(from));
        }
        addr
    }

    /// Lets it in no longer, and forgets its address.
    pub fn forbid(&self, addr: SocketAddr) {
        if let Some(address) = self.shared.link.address(addr) {
            self.shared.lock_allowed().remove(&address);
            self.shared.link.forget(addr);
        }
    }

    /// Tries again now, where it waits, and asks whether the relay is still there, where it does not: the
    /// network may have changed.
    pub fn try_now(&self) {
        self.shared.now.notify_one();
    }
}

impl Drop for RelayClient {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.outbox.close();
    }
}

impl Shared {
    fn lock_allowed(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_reached(&self) -> MutexGuard<'_, Option<(SocketAddr, Duration)>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A TCP connection is there.
    fn reached(&self, remote: SocketAddr, took: Duration) {
        *self.lock_reached() = Some((remote, took));
        self.state.send_replace(RelayState::Opening(took));
    }

    /// The first packet to the relay's own server, if one is about to be sent and comes within a moment.
    async fn first(&self) -> Option<Vec<u8>> {
        let server = Address { peer: self.relay, instance: Instance::SERVICE };
        if self.unladen.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut expected = self.expected.subscribe();
        tokio::select! {
            biased;
            _nobody = expected.wait_for(|count| *count == 0) => None,
            packet = self.outbox.first(server) => Some(packet),
            () = sleep(FIRST) => None,
        }
    }

    /// The login is on its way, and frames may follow it.
    fn opened(&self) {
        self.outbox.open(self.allows());
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        *connections += 1;
        self.state.send_replace(RelayState::Up(*connections));
    }

    /// The relay has checked the login.
    fn welcomed(&self) {
        tracing::debug!(relay = ?self.relay, "logged in at the relay");
    }

    /// Nobody is there under this address now.
    fn gone(&self, address: Address) {
        if let Some(addr) = self.link.known(address) {
            let _more_of_the_same = self.gone.try_send(addr);
        }
    }

    /// Whom to let in, as frames.
    fn allows(&self) -> Vec<Vec<u8>> {
        self.lock_allowed().iter().map(|from| allow(*from)).collect()
    }
}

fn allow(from: Address) -> Vec<u8> {
    Frame::Allow { from, seconds: MAX_ALLOW }.encode()
}

async fn keep(shared: Arc<Shared>, outbound: Outbound, mut wait: Duration, seed: [u8; 32]) {
    let mut rng = ChaCha12Rng::from_seed(seed);
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        tokio::select! {
            biased;
            () = sleep(wait) => {}
            () = shared.now.notified() => {}
        }
        let began = Instant::now();
        let Ended { why, back_in } = conversation::hold(&shared, &outbound).await;
        tracing::debug!(relay = ?shared.relay, why, "no connection to the relay");
        shared.state.send_replace(RelayState::Down(why));
        if began.elapsed() >= GOOD {
            backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        }
        wait = back_in.unwrap_or_default() + backoff.next_delay(&mut rng);
    }
}
