//! **SimNet**: the product's network seam over a simulated world, on tokio's clock.
//!
//! [`SimWorld`] holds a [`World`] and one task that moves its packets when their time has come; [`SimNet`] is
//! what one of its hosts sees: the [`relay::net::Net`] that `peer` and `rendezvous` take in place of the
//! system's. On a paused clock hours pass in no time, and equal seeds give equal runs, as far as the libraries
//! above draw from their seeds: [`SimWorld::fingerprint`] is over times, ends and sizes, because keys of TLS
//! are drawn anew each time.
//!
//! What it leaves out: UDP over loopback goes nowhere; a datagram's destination among several addresses of
//! its host is not told (a socket on all addresses answers from the first of the family); TCP is a stream
//! without loss whose NATs let everything out and nothing in.

mod changes;
mod host;
mod pipe;
mod socket;
mod tcp;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::interface::OwnAddress;
use relay::net::{Asking, BoxFuture, IpFamily, Link, Listener, Net, NetworkChanges, Stream, canonical};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::kind::Kind;
use crate::net::HostId;
use crate::world::{Plan, World};
use changes::SimChanges;
pub use host::SimHost;
use host::Tape;
use socket::{SimAsking, SimLink};
use tcp::Doors;

/// A world on tokio's clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SimWorld(Arc<Shared>);

/// The network of one host of a [`SimWorld`].
#[derive(Debug, Clone)]
pub struct SimNet {
    shared: Arc<Shared>,
    host: HostId,
}

/// Who lives at a host.
#[derive(Debug)]
struct Resident {
    name: String,
    kind: Option<Kind>,
    is_server: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    residents: Vec<Resident>,
    tape: Arc<Tape>,
    start: Instant,
    /// The world's next event has come nearer than the driver knows.
    sooner: Notify,
}

#[derive(Debug)]
struct State {
    world: World<SimHost>,
    doors: Doors,
    names: Names,
    /// Until when the driver sleeps; none: until it is told.
    sleeps_until: Option<Instant>,
}

/// What DNS says beside the names of the hosts.
#[derive(Debug, Default)]
struct Names {
    known: BTreeMap<String, Vec<IpAddr>>,
    /// How long an answer takes.
    takes: Duration,
    /// How often each was asked for.
    asked: BTreeMap<String, usize>,
}

impl SimWorld {
    /// Builds a planned world and sets its packets in motion, within a tokio runtime.
    #[must_use]
    pub fn start(plan: &Plan) -> Self {
        let start = now();
        let tape = Arc::new(Tape::default());
        let mut residents = Vec::new();
        let world = plan.build_at(start, |seat| {
            let name = seat.name.to_owned();
            residents.push(Resident { name, kind: seat.kind, is_server: seat.is_server });
            SimHost::new(seat, Arc::clone(&tape))
        });
        let state = State { world, doors: Doors::default(), names: Names::default(), sleeps_until: None };
        let sooner = Notify::new();
        let shared = Arc::new(Shared { state: Mutex::new(state), residents, tape, start, sooner });
        tokio::spawn(drive(Arc::clone(&shared)));
        Self(shared)
    }

    /// The network of the host of this name.
    ///
    /// # Panics
    /// There is no such host.
    #[must_use]
    pub fn net(&self, host: &str) -> Arc<SimNet> {
        let host = self.0.with_state(|state, _| state.world.host(host));
        Arc::new(SimNet { shared: Arc::clone(&self.0), host })
    }

    /// Looks at the world, or changes it under its hosts, as it is now.
    pub fn with_world<T>(&self, look: impl FnOnce(&mut World<SimHost>) -> T) -> T {
        self.0.with_state(|state, _| look(&mut state.world))
    }

    /// Kills the processes of a host, as far as its network sees: their UDP sockets are gone, and nobody says
    /// goodbye. Their tasks live on and get nothing through.
    ///
    /// # Panics
    /// There is no such host.
    pub fn crash(&self, host: &str) {
        self.with_world(|world| world.with_node(host, |node, _| node.close_all()));
    }

    /// A name of no host.
    pub fn name(&self, name: &str, ips: &[IpAddr]) {
        self.0.with_state(|state, _| state.names.known.insert(name.to_owned(), ips.to_vec()));
    }

    /// From here on DNS takes so long for each answer.
    pub fn slow_names(&self, takes: Duration) {
        self.0.with_state(|state, _| state.names.takes = takes);
    }

    /// How often a name was looked up, each family for itself.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.0.with_state(|state, _| state.names.asked.get(name).copied().unwrap_or_default())
    }

    /// How many watch the network of a host for changes.
    ///
    /// # Panics
    /// There is no such host.
    #[must_use]
    pub fn watched(&self, host: &str) -> usize {
        self.with_world(|world| world.node(host).watched())
    }

    /// A hash over all datagrams so far: when, from where, to where, how large.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.0.tape.fingerprint()
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.0.start)
    }
}

impl Shared {
    /// Brings the world to the present, and uses it. No lock is held when this returns.
    fn with_state<T>(&self, use_it: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = now();
        let (output, is_sooner) = {
            let mut state = lock(&self.state);
            state.world.run_until(now.saturating_duration_since(self.start), |_| false);
            let output = use_it(&mut state, now);
            let next = state.world.net().poll_timeout();
            let is_sooner = next.is_some_and(|next| state.sleeps_until.is_none_or(|until| next < until));
            (output, is_sooner)
        };
        self.tape.wake();
        if is_sooner {
            self.sooner.notify_one();
        }
        output
    }

    fn resident(&self, host: HostId) -> &Resident {
        &self.residents[host.0]
    }
}

/// Moves packets when their time has come, for ever.
async fn drive(shared: Arc<Shared>) {
    loop {
        let next = shared.with_state(|state, _| {
            state.sleeps_until = state.world.net().poll_timeout();
            state.sleeps_until
        });
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => {}
            () = shared.sooner.notified() => {}
        }
    }
}

impl SimNet {
    fn with_state<T>(&self, use_it: impl FnOnce(&mut State, Instant) -> T) -> T {
        self.shared.with_state(use_it)
    }

    fn name(&self) -> &str {
        &self.shared.resident(self.host).name
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        self.with_state(|state, _| state.world.net().addresses(self.host).to_vec())
    }

    /// `local` as it is bound: `[::]` is IPv4 alone on a host without IPv6.
    fn bindable(&self, local: SocketAddr) -> io::Result<SocketAddr> {
        let local = canonical(local);
        let addresses = self.own_addresses();
        let is_dual = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if is_dual && !addresses.iter().any(IpAddr::is_ipv6) {
            return Ok((Ipv4Addr::UNSPECIFIED, local.port()).into());
        }
        let is_own = local.ip().is_unspecified() || addresses.contains(&local.ip());
        if is_own { Ok(local) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
    }
}

impl Net for SimNet {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn Link>> {
        Ok(Arc::new(SimLink::bind(self.clone(), self.bindable(local)?)?))
    }

    fn ask_udp(&self, to: SocketAddr) -> io::Result<Box<dyn Asking>> {
        Ok(Box::new(SimAsking::open(self.clone(), canonical(to))?))
    }

    /// Of a simulated host's interfaces nothing is known but their addresses.
    fn interfaces(&self) -> io::Result<Vec<OwnAddress>> {
        Ok(self.own_addresses().into_iter().map(OwnAddress::from).collect())
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let to = canonical(to).ip();
        if to.is_loopback() {
            return Ok(to);
        }
        let own = self.own_addresses();
        let source = own.iter().find(|ip| ip.is_ipv4() == to.is_ipv4()).copied();
        source.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    fn watch_changes(&self) -> Box<dyn NetworkChanges> {
        let told: watch::Receiver<u64> = self.with_state(|state, _| state.world.node(self.name()).changes());
        Box::new(SimChanges::of(told))
    }

    fn connect_tcp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(self.connect(canonical(to)))
    }

    fn listen_tcp(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let local = if local.ip().is_loopback() { local } else { self.bindable(local)? };
        Ok(Box::new(self.listen(local)?))
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        family: IpFamily,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let known = if let Ok(ip) = host.parse() {
                vec![ip]
            } else if host == "localhost" {
                vec![Ipv4Addr::LOCALHOST.into()]
            } else {
                let (takes, also) = self.with_state(|state, _| {
                    *state.names.asked.entry(host.to_owned()).or_default() += 1;
                    (state.names.takes, state.names.known.get(host).cloned())
                });
                sleep(takes).await;
                let known = self.shared.residents.iter().position(|resident| resident.name == host);
                let at = |n| self.with_state(|state, _| state.world.net().addresses(HostId(n)).to_vec());
                known.map(at).or(also).unwrap_or_default()
            };
            let of_family = known.into_iter().filter(|ip| IpFamily::of(*ip) == family);
            Ok(of_family.map(|ip| canonical(SocketAddr::new(ip, port))).collect())
        })
    }
}

/// Tokio's clock.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Locks what no panic can leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By host and port.
type ByPort<T> = BTreeMap<(HostId, u16), T>;

#[cfg(test)]
mod tests;
