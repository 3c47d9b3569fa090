//! A relay's server: it takes WebSocket connections over from HTTP, and carries frames between them as the
//! [`Router`](proto::relay::Router) decides.

mod connection;
mod hub;
mod service;
mod upgrade;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use proto::id::PeerId;
use proto::relay::{DropReason, RouterLimits, RouterStats};
use proto::tunnel::proxy::Cidr;
use proto::wire::relay::Denial;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::http::Page;
use crate::metrics::Metrics;
use crate::relayed::RelayedLink;
use hub::Hub;

/// How long a client may take between our answer and its first byte.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// A running relay. Dropping it ends all its connections; [`RelayServer::shutdown`] says goodbye first.
#[derive(Debug)]
pub struct RelayServer {
    hub: Arc<Hub>,
    clock: AbortHandle,
    connections: Mutex<JoinSet<()>>,
}

impl RelayServer {
    /// A relay of this identity, within a tokio runtime.
    pub fn start(relay: PeerId, limits: RouterLimits) -> Self {
        let hub = Arc::new(Hub::new(relay, limits));
        let timed = Arc::clone(&hub);
        let clock = tokio::spawn(async move { timed.keep_time().await }).abort_handle();
        Self { hub, clock, connections: Mutex::default() }
    }

    /// The identity under which peers know it.
    pub fn peer_id(&self) -> PeerId {
        self.hub.relay
    }

    /// A link by which peers reach this very process through the relay, under the relay's own identity and
    /// [`Instance::SERVICE`](proto::id::Instance::SERVICE). There is one: a further call takes it over.
    pub fn service(&self) -> Option<Arc<RelayedLink>> {
        let (link, carry) = service::open(&self.hub)?;
        self.connections().spawn(carry);
        Some(link)
    }

    /// What has been counted.
    pub fn stats(&self) -> RouterStats {
        self.hub.stats()
    }

    /// Answers a request for [`proto::wire::relay::PATH`] from `from`, and serves the connection if that asks
    /// for it as it should. Of a `trusted` proxy it is believed whom it speaks for.
    pub fn upgrade(&self, request: &mut Request<Incoming>, from: SocketAddr, trusted: &[Cidr]) -> Page {
        let page = match upgrade::check(request) {
            Ok(page) => page,
            Err(page) => return page,
        };
        let seat = match self.hub.enter(upgrade::source(request.headers(), from.ip(), trusted)) {
            Ok(seat) => seat,
            Err(why) => return upgrade::denied(why),
        };
        if let Some(packet) = upgrade::first(request.headers()) {
            seat.first(&packet);
        }
        let taken_over = hyper::upgrade::on(request);
        let mut connections = self.connections();
        while let Some(ended) = connections.try_join_next() {
            report_panic(ended);
        }
        connections.spawn(async move {
            match timeout(TAKE_OVER, taken_over).await {
                Ok(Ok(stream)) => connection::serve(seat, TokioIo::new(stream)).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection could not be taken over"),
                Err(_) => {}
            }
        });
        page
    }

    /// Tells every peer to come back after `back_in` and ends all connections; it takes `limit` at most.
    pub async fn shutdown(&self, back_in: Duration, limit: Duration) {
        self.hub.restart(back_in);
        let told = async {
            while self.hub.stats().queued_bytes > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.hub.close();
            let mut connections = std::mem::take(&mut *self.connections());
            while connections.join_next().await.is_some() {}
        };
        let _late = timeout(limit, told).await;
    }

    fn connections(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RelayServer {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a relayed connection's task came to a bad end: {error}");
    }
}

/// A relay's counts, as an operator reads them.
pub fn write_metrics(stats: &RouterStats, metrics: &mut Metrics) {
    metrics.single("relay_connections", "Connections at the relay now.", stats.connections as u64);
    metrics.single("relay_sessions", "Peers logged in at the relay now.", stats.sessions as u64);
    metrics.single("relay_queued_bytes", "Bytes that wait for a receiver.", stats.queued_bytes as u64);
    metrics.single("relay_held_bytes", "Bytes that wait to be let in.", stats.held_bytes as u64);
    metrics.single("relay_logins_total", "Logins that were good.", stats.logins);
    metrics.single("relay_forwarded_frames_total", "Frames forwarded.", stats.forwarded_frames);
    metrics.single("relay_forwarded_bytes_total", "Bytes forwarded.", stats.forwarded_bytes);
    metrics.labelled(
        "relay_frames_bad_total",
        "Messages of peers that were not understood, by kind.",
        "kind",
        &[("malformed", stats.malformed), ("unknown", stats.unknown)],
    );
    let dropped = DropReason::ALL.map(|reason| (reason.name(), stats.dropped(reason)));
    metrics.labelled(
        "relay_frames_dropped_total",
        "Frames that were not forwarded, by reason.",
        "reason",
        &dropped,
    );
    let denied = Denial::ALL.map(|why| (why.name(), stats.denied(why)));
    metrics.labelled(
        "relay_connections_denied_total",
        "Connections ended or turned away by the relay, by reason.",
        "reason",
        &denied,
    );
}
