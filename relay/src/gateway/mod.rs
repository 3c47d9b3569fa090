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
mod http2;
mod inbox;
mod page;
mod places;
mod sharers;
mod splice;
mod stats;
mod stayed;
mod tunnels;
mod unread;
mod upstream;
mod upstreams;
mod visitor;
mod witness;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use proto::id::PeerId;
use proto::limit::{PrefixLimiter, Rate};
use proto::tunnel::guesses::{Guesses, GuessesConfig};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

pub use claims::{Claims, ClaimsError};
pub use config::{GatewayConfig, GatewayLimits, InvalidPorts, NameUrls, TunnelPorts, Witness};
pub use stats::GatewayStats;
pub use witness::FORWARDED;

use crate::access_log::AccessLog;
use crate::http::Asker;
use crate::https::{Spoken, Tls};
use crate::net::{BoxFuture, Listener, Net, Stream};
use crate::quic;
use claims::Keeper;
use page::Page;
use places::{NoPlace, Place, Places};
use sharers::{Sharers, Terms};
use stats::Counters;
use stayed::Stayed;
use tunnels::Tunnels;
use unread::Unread;

/// How long to wait when a connection could not be accepted: mostly for a file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// How many visitors are told at the same time that there is no room; more are closed without a word.
const TOLD: usize = 64;

/// Tunnels of one network: a loop that restarts its client each second does not run dry. And in all.
const REGISTRATIONS_EACH: Rate = Rate { burst: 60, refill: Duration::from_secs(1) };
const REGISTRATIONS: Rate = Rate { burst: 600, refill: Duration::from_millis(50) };

/// The server's own pages.
pub trait Apex: Send + Sync + 'static {
    /// Answers the one request that the stream begins with, and closes it; or goes on in another protocol. Gives the
    /// status, and the bytes of its content; no status where there was no answer.
    fn serve(&self, stream: Stream, asker: Asker) -> BoxFuture<'_, Option<(u16, u64)>>;
}

/// Where visitors come in.
#[derive(Debug)]
pub struct Entrance {
    /// Where connections come from.
    pub listener: Box<dyn Listener>,
    /// What is spoken first there, if anything is.
    pub tls: Option<Tls>,
}

/// A gateway.
pub struct Gateway {
    config: GatewayConfig,
    apex: Arc<dyn Apex>,
    tunnels: Option<Arc<Tunnels>>,
    sharers: Arc<Sharers>,
    guesses: Mutex<Guesses>,
    registrations: Mutex<PrefixLimiter>,
    places: Arc<Places>,
    told: Arc<Semaphore>,
    unread: Arc<Unread>,
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
        let (counters, unread) = (Arc::default(), Unread::new(config.limits.unread_bytes));
        let tunnels = config.tunnel_ports.map(|ports| {
            let pool = config.pool.clone();
            let (patience, counters) = (config.limits.unread(), Arc::clone(&counters));
            let unread = (patience, Arc::clone(&unread));
            Arc::new(Tunnels::new(net, (config.ip, ports), pool, unread, config.seed, counters))
        });
        let sharers = sharers(&config, tunnels.clone(), &unread, Arc::clone(&counters));
        let now = Instant::now().into_std();
        let places = Places::new(config.limits.connections, config.limits.connections_each);
        Self {
            config,
            apex,
            tunnels,
            sharers: Arc::new(sharers),
            guesses: Mutex::new(Guesses::new(GuessesConfig::default(), now)),
            registrations: Mutex::new(PrefixLimiter::new(REGISTRATIONS_EACH, REGISTRATIONS, now)),
            places: Arc::new(places),
            told: Arc::new(Semaphore::new(TOLD)),
            unread,
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
        let unlogged = self.config.access_log.as_ref().map_or(0, AccessLog::lost);
        let stats = self.counters.stats(counts, self.sharers.counts(), self.places.taken());
        let (unread_bytes, unread_cut) = self.unread.counts();
        GatewayStats { unlogged, unread_bytes, unread_cut, ..stats }
    }

    /// Accepts and serves until `stop` turns true; then what is being answered is finished. Dropping the future
    /// ends everything at once.
    pub async fn serve(self: Arc<Self>, entrances: Vec<Entrance>, stop: watch::Receiver<bool>) {
        let _closing = Closing(self.tunnels.clone());
        let time = async {
            match &self.tunnels {
                Some(tunnels) => drop(tokio::join!(tunnels.keep_time(), self.sharers.keep_time())),
                None => self.sharers.keep_time().await,
            }
        };
        let open = entrances.into_iter().map(|entrance| self.attend(entrance, stop.clone()));
        tokio::select! {
            biased;
            _ended = join_all(open) => {}
            () = time => {}
        }
    }

    /// Lets visitors in at one entrance.
    async fn attend(self: &Arc<Self>, Entrance { listener, tls }: Entrance, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from, tls.clone(), &stopping, &mut tasks),
                    Err(error) => {
                        tracing::debug!(%error, "a visitor's connection could not be accepted");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    fn admit(
        self: &Arc<Self>,
        stream: Stream,
        from: SocketAddr,
        tls: Option<Tls>,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        stream.1.give_up_after(self.config.limits.unread());
        let gateway = Arc::clone(self);
        let why = match self.place(from.ip()) {
            Ok(place) => {
                let stop = stop.clone();
                tasks.spawn(async move {
                    gateway.receive_visitor(stream, from, tls, stop).await;
                    drop(place);
                });
                return;
            }
            Err(why) => why,
        };
        let page = self.no_place(why);
        if let Ok(permit) = Arc::clone(&self.told).try_acquire_owned() {
            tasks.spawn(async move {
                visitor::turn_away(stream, tls, gateway, &page).await;
                drop(permit);
            });
        }
    }

    /// Shakes hands where TLS is spoken, and serves what is spoken then.
    async fn receive_visitor(
        self: &Arc<Self>,
        stream: Stream,
        from: SocketAddr,
        tls: Option<Tls>,
        stop: watch::Receiver<bool>,
    ) {
        let Some(tls) = tls else {
            return self
                .visit(self.unread.bound(stream), Asker { from, tls: false }, "1.1", Stayed::in_turn(), stop)
                .await;
        };
        let asker = Asker { from, tls: true };
        match timeout(self.config.limits.head, tls.accept(stream, true)).await {
            Ok(Ok((stream, Spoken::Http1))) => {
                self.visit(self.unread.bound(stream), asker, "1.1", Stayed::in_turn(), stop).await;
            }
            Ok(Ok((stream, Spoken::Http2))) => self.visit_http2(stream, asker, stop).await,
            Ok(Err(_)) | Err(_) => self.counters.bad_handshakes.add(),
        }
    }

    /// A place for a connection from this address, or for a stream that is as good as one.
    fn place(&self, from: IpAddr) -> Result<Place, NoPlace> {
        let proxy = self.config.trusted.iter().any(|net| net.contains(from));
        self.places.take(from, proxy)
    }

    /// What somebody is told for whom there is none.
    fn no_place(&self, why: NoPlace) -> Page {
        let (status, what) = match why {
            NoPlace::Full => {
                self.counters.crowded.add();
                (503, "This server is full.")
            }
            NoPlace::FullEach => {
                self.counters.crowded_each.add();
                (429, "Too many connections from your network.")
            }
        };
        Page::failure(status, None, what, "Try again in a moment.")
    }

    fn registrations(&self) -> MutexGuard<'_, PrefixLimiter> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sharers(
    config: &GatewayConfig,
    tunnels: Option<Arc<Tunnels>>,
    unread: &Arc<Unread>,
    counters: Arc<Counters>,
) -> Sharers {
    let kept = config.claims.known();
    let (keeper, work) = Keeper::new(config.claims.clone());
    tokio::spawn(work);
    let terms = Terms {
        server: config.server,
        hosts: config.hosts.clone(),
        urls: config.urls.clone(),
        admission: config.admission.clone(),
        exchanges: config.limits.exchanges,
        unused: config.limits.unused,
        unread: Arc::clone(unread),
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
