//! The gateway: names under a domain for any browser, served by whoever shares them.
//!
//! It reads HTTP/1.1 itself, from the bytes: what a library has taken apart and put in order no longer shows
//! what was ambiguous in it (hyper drops Content-Length beside Transfer-Encoding). `proto::tunnel` parses each
//! head strictly, once, and everything that goes on is written from the parsed form; bodies are framed anew as
//! they stream. A connection to a local server carries one exchange, so that no visitor's bytes can ever be
//! read as another's.
//!
//! The server's own pages stay with their HTTP library: a request for them has passed the same check, and the
//! connection is handed over with that request alone.

mod api;
mod body;
mod claims;
mod config;
mod exchange;
mod inbox;
mod page;
mod places;
mod sharers;
mod splice;
mod stats;
mod tunnels;
mod upstream;
mod upstreams;
mod visitor;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::id::PeerId;
use proto::limit::{PrefixLimiter, Rate};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

pub use claims::{Claims, ClaimsError};
pub use config::{GatewayConfig, GatewayLimits, InvalidPorts, NameUrls, TunnelPorts};
pub use stats::GatewayStats;

use crate::net::{BoxFuture, Listener, Net, Stream};
use crate::quic;
use claims::Keeper;
use places::{NoPlace, Places};
use sharers::{Sharers, Terms};
use stats::Counters;
use tunnels::Tunnels;

/// How long to wait when a connection could not be accepted: mostly for a file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// How many visitors are told at the same time that there is no room; more are closed without a word.
const TOLD: usize = 64;

/// Tunnels of one network: a loop that restarts its client each second does not run dry. And in all.
const REGISTRATIONS_EACH: Rate = Rate { burst: 60, refill: Duration::from_secs(1) };
const REGISTRATIONS: Rate = Rate { burst: 600, refill: Duration::from_millis(50) };

/// Wrong passwords from one network, and in all: nobody mistypes more, and nobody guesses with as few.
const GUESSES_EACH: Rate = Rate { burst: 20, refill: Duration::from_secs(3) };
const GUESSES: Rate = Rate { burst: 10_000, refill: Duration::from_millis(1) };

/// The server's own pages.
pub trait Apex: Send + Sync + 'static {
    /// Answers the one request that the stream begins with, and closes it; or goes on in another protocol.
    fn serve(&self, stream: Stream, from: SocketAddr) -> BoxFuture<'_, ()>;
}

/// A gateway.
pub struct Gateway {
    config: GatewayConfig,
    apex: Arc<dyn Apex>,
    tunnels: Option<Arc<Tunnels>>,
    sharers: Arc<Sharers>,
    guesses: Mutex<PrefixLimiter>,
    registrations: Mutex<PrefixLimiter>,
    places: Arc<Places>,
    told: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gateway {
    /// One that is not serving yet, within a tokio runtime.
    pub fn new(config: GatewayConfig, net: Arc<dyn Net>, apex: Arc<dyn Apex>) -> Self {
        let counters = Arc::new(Counters::default());
        let tunnels = config.tunnel_ports.map(|ports| {
            let pool = config.pool.clone();
            let (unread, counters) = (config.limits.unread(), Arc::clone(&counters));
            Arc::new(Tunnels::new(net, (config.ip, ports), pool, unread, config.seed, counters))
        });
        let sharers = sharers(&config, tunnels.clone(), Arc::clone(&counters));
        let limiter = |each, all| Mutex::new(PrefixLimiter::new(each, all, Instant::now().into_std()));
        let places = Places::new(config.limits.connections, config.limits.connections_each);
        Self {
            config,
            apex,
            tunnels,
            sharers: Arc::new(sharers),
            guesses: limiter(GUESSES_EACH, GUESSES),
            registrations: limiter(REGISTRATIONS_EACH, REGISTRATIONS),
            places: Arc::new(places),
            told: Arc::new(Semaphore::new(TOLD)),
            counters,
        }
    }

    /// Has a sharer's connection, of the protocol [`proto::wire::gateway`], until it ends.
    pub async fn receive(&self, connection: quinn::Connection, peer: PeerId) {
        quic::widen_for_visitors(&connection);
        self.sharers.receive(connection, peer).await;
    }

    /// What has been counted.
    pub fn stats(&self) -> GatewayStats {
        let counts = self.tunnels.as_ref().map_or((0, 0, 0), |tunnels| tunnels.counts());
        self.counters.stats(counts, self.sharers.counts(), self.places.taken())
    }

    /// Accepts and serves until `stop` turns true; then what is being answered is finished. Dropping the future
    /// ends everything at once.
    pub async fn serve(self: Arc<Self>, listener: Box<dyn Listener>, mut stop: watch::Receiver<bool>) {
        let _closing = Closing(self.tunnels.clone());
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        let time = async {
            match &self.tunnels {
                Some(tunnels) => drop(tokio::join!(tunnels.keep_time(), self.sharers.keep_time())),
                None => self.sharers.keep_time().await,
            }
        };
        let mut time = std::pin::pin!(time);
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                () = &mut time => {}
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from, &stopping, &mut tasks),
                    Err(error) => {
                        tracing::debug!(%error, "a visitor's connection could not be accepted");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let ended = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = ended => {}
            () = time => {}
        }
    }

    fn admit(
        self: &Arc<Self>,
        stream: Stream,
        from: SocketAddr,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        stream.1.give_up_after(self.config.limits.unread());
        let proxy = self.config.trusted.iter().any(|net| net.contains(from.ip()));
        let gateway = Arc::clone(self);
        let status = match self.places.take(from.ip(), proxy) {
            Ok(place) => {
                let stop = stop.clone();
                tasks.spawn(async move {
                    gateway.visit(stream, from, stop).await;
                    drop(place);
                });
                return;
            }
            Err(NoPlace::Full) => {
                self.counters.crowded.add();
                503
            }
            Err(NoPlace::FullEach) => {
                self.counters.crowded_each.add();
                429
            }
        };
        if let Ok(permit) = Arc::clone(&self.told).try_acquire_owned() {
            tasks.spawn(async move {
                visitor::turn_away(stream, gateway, status).await;
                drop(permit);
            });
        }
    }

    fn registrations(&self) -> MutexGuard<'_, PrefixLimiter> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sharers(config: &GatewayConfig, tunnels: Option<Arc<Tunnels>>, counters: Arc<Counters>) -> Sharers {
    let kept = config.claims.known();
    let (keeper, work) = Keeper::new(config.claims.clone());
    tokio::spawn(work);
    let terms = Terms {
        server: config.server,
        urls: config.urls.clone(),
        admission: config.admission.clone(),
        exchanges: config.limits.exchanges,
    };
    Sharers::new(config.names.clone(), kept, keeper, terms, tunnels, counters)
}

/// Waits until the server stops; its being gone is the same.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// Ends the tunnels with the gateway: their tasks hold each other.
struct Closing(Option<Arc<Tunnels>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(tunnels) = &self.0 {
            tunnels.close();
        }
    }
}
