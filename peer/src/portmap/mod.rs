//! Port mapping: a port of the router's for our main socket, by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP IGD.
//!
//! A side with such a port is reached like one behind a full cone, whatever NAT it has. It is looked for at the
//! start, beside everything else, and nothing ever waits for it.

mod router;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use router::{Mapping, Place};

/// A router, as far as keeping a port mapped needs it.
trait Router {
    /// What it gives.
    type Lease: Lease;

    /// A port, by the best way there is; none where there is no router, or it gives none.
    async fn find(&self) -> Option<Self::Lease>;
}

/// A port of a router's, for some time.
trait Lease {
    /// Where the world reaches it.
    fn external(&self) -> SocketAddr;

    /// For how long the router keeps it.
    fn lifetime(&self) -> Duration;

    /// Has it for another lifetime; `false` where it is no longer to be had.
    async fn renew(&mut self) -> bool;
}

/// How long a router may take to show itself by SSDP: it is asked to wait a random time of up to 3 s (UDA 1.1 §1.3.2).
const UPNP_PATIENCE: Duration = Duration::from_millis(3500);

/// Until a router is looked for again where there was none, or it mapped nothing: it may be another network by then.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// A lifetime that would have us ask without end.
const SHORTEST: Duration = Duration::from_secs(60);

/// How long the removal may take at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// A way to ask a router for a port, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// The Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT-PMP, RFC 6886.
    NatPmp,
    /// UPnP IGD, by SSDP and SOAP.
    Upnp,
}

impl Protocol {
    /// As users know it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

/// The protocols that the router speaks, best first. All are asked at once.
pub(crate) async fn probe(patience: Duration) -> Vec<Protocol> {
    let Some(place) = Place::find() else { return Vec::new() };
    let in_time = async |asked: bool, protocol| asked.then_some(protocol);
    let (pcp, nat_pmp, upnp) = tokio::join!(
        timeout(patience, async { in_time(place.speaks_pcp().await, Protocol::Pcp).await }),
        timeout(patience, async { in_time(place.speaks_nat_pmp().await, Protocol::NatPmp).await }),
        timeout(patience, async { in_time(place.search(patience).await.is_some(), Protocol::Upnp).await }),
    );
    [pcp, nat_pmp, upnp].into_iter().filter_map(|found| found.ok().flatten()).collect()
}

/// Keeps a port mapped, for as long as it lives.
#[derive(Debug)]
pub(crate) struct PortMapper {
    external: watch::Receiver<Option<SocketAddr>>,
    again: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl PortMapper {
    /// Begins to look for a router that maps this UDP port.
    pub(crate) fn start(port: NonZeroU16) -> Self {
        let (sender, external) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let again = Arc::new(Notify::new());
        let changes = Arc::clone(&again);
        let task = tokio::spawn(async move {
            let (search, mut standing) = (Search { port }, None);
            tokio::select! {
                () = keep(&search, &changes, &sender, &mut standing) => {}
                _ = stopped => {}
            }
            if let Some(mapping) = standing {
                let _late = timeout(GOODBYE, mapping.remove()).await;
            }
        });
        Self { external, again, stop: Some(stop), task }
    }

    /// To be notified when the network has changed: the router may be another one.
    pub(crate) fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Where the world reaches the port, as it changes.
    pub(crate) fn external(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.external.clone()
    }

    /// Takes the mapping back, which takes a second at the most.
    pub(crate) async fn close(mut self) {
        // Dropped, it stops as well.
        self.stop.take();
        let _ended = (&mut self.task).await;
    }
}

/// Looks, maps, renews at half of each lifetime and when the network has changed, and looks again when that fails.
async fn keep<R: Router>(
    router: &R,
    changes: &Notify,
    external: &watch::Sender<Option<SocketAddr>>,
    standing: &mut Option<R::Lease>,
) {
    loop {
        *standing = router.find().await;
        while let Some(mapping) = standing {
            external.send_replace(Some(mapping.external()));
            // Early because of a change, or late: either is all the same to what follows.
            let _late = timeout((mapping.lifetime() / 2).max(SHORTEST), changes.notified()).await;
            if !mapping.renew().await {
                *standing = None;
            }
        }
        // A router that has gone may have a successor; where nothing was found, there is nothing to hurry for.
        if external.send_replace(None).is_none() {
            let _late = timeout(AGAIN, changes.notified()).await;
        }
    }
}

/// The router of the default route, whichever it is at the time.
struct Search {
    port: NonZeroU16,
}

impl Router for Search {
    type Lease = Mapping;

    async fn find(&self) -> Option<Mapping> {
        find(self.port).await
    }
}

impl Lease for Mapping {
    fn external(&self) -> SocketAddr {
        Self::external(self)
    }

    fn lifetime(&self) -> Duration {
        Self::lifetime(self)
    }

    async fn renew(&mut self) -> bool {
        Self::renew(self).await
    }
}

/// A mapping by the best protocol that gives one. UPnP is looked for from the beginning, because its routers take
/// their time, and is used where the other two give nothing.
async fn find(port: NonZeroU16) -> Option<Mapping> {
    let place = Place::find()?;
    let searching = tokio::spawn(place.search(UPNP_PATIENCE));
    let (pcp, nat_pmp) = tokio::join!(place.speaks_pcp(), place.speaks_nat_pmp());
    for (protocol, spoken) in [(Protocol::Pcp, pcp), (Protocol::NatPmp, nat_pmp)] {
        if spoken && let Some(mapping) = found(protocol, place.ask(protocol, port).await) {
            searching.abort();
            return Some(mapping);
        }
    }
    let gateway = searching.await.ok()??;
    found(Protocol::Upnp, place.ask_upnp(gateway, port).await)
}

fn found(protocol: Protocol, mapping: Option<Mapping>) -> Option<Mapping> {
    match &mapping {
        Some(mapping) => {
            let external = mapping.external();
            tracing::info!(protocol = protocol.name(), %external, "the router maps a port to us");
        }
        None => tracing::debug!(protocol = protocol.name(), "the router maps no port to us"),
    }
    mapping
}

#[cfg(test)]
mod tests;
