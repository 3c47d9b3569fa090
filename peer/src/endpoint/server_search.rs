//! Looking for a server's UDP port where it may be besides: at the addresses of its URL's host, and where its document
//! says.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proto::nat64::Nat64Prefix;
use proto::server_addrs::{ServerAddrs, at_host};
use proto::ticket::{Reachable, ServerHint};
use relay::outbound::Outbound;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::locate;
use crate::server_url::ServerUrl;

/// Addresses that wait to be dialled. More come from a server that names too many.
const QUEUE: usize = 4;

/// What a search finds.
#[derive(Debug)]
pub(super) enum Found {
    /// The server may be here too, as was not known before.
    Addrs(Vec<SocketAddr>),
    /// At the URL's host is a server of another identity.
    Another(String),
    /// This network has no IPv4, and reaches IPv4 addresses by this prefix.
    Nat64(Nat64Prefix),
}

/// A search under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Search {
    known: ServerAddrs,
    found: mpsc::Receiver<Found>,
    /// What asks the server.
    asking: Option<AbortHandle>,
    _tasks: JoinSet<()>,
}

impl Search {
    /// Looks the URL's host up now, and asks for the document after `wait`.
    pub(super) fn start(
        outbound: &Outbound,
        server: &ServerHint,
        known: ServerAddrs,
        wait: Duration,
    ) -> Self {
        let (sender, found) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        let asking = server.url.parse::<ServerUrl>().ok().map(|url| {
            tasks.spawn(look_up(outbound.clone(), url.clone(), known.clone(), sender.clone()));
            tasks.spawn(look_for_nat64(outbound.clone(), known.clone(), sender.clone()));
            tasks.spawn(ask(outbound.clone(), url, server.clone(), sender, wait))
        });
        Self { known, found, asking, _tasks: tasks }
    }

    /// What was found next; `None` when that is all. The future may be dropped and asked for again.
    pub(super) async fn next(&mut self) -> Option<Found> {
        match self.found.recv().await? {
            Found::Addrs(addrs) => Some(Found::Addrs(self.known.learn(addrs))),
            found @ (Found::Another(_) | Found::Nat64(_)) => Some(found),
        }
    }

    /// All that is known by now.
    pub(super) const fn known(&self) -> &ServerAddrs {
        &self.known
    }

    /// The server is not asked over TCP any more; what DNS says goes on to be looked for.
    pub(super) fn spare_server(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
    }
}

/// The URL's host at the ports that are known. A proxy looks names up for itself, and tells nothing of them: what a name
/// means here may be another host. A name that leads to our own machine or network is not followed here: the URL may be
/// a stranger's, and its name too. Where the server is there, its document says so over TCP.
async fn look_up(outbound: Outbound, url: ServerUrl, known: ServerAddrs, found: mpsc::Sender<Found>) {
    if outbound.is_proxied(&url.host) {
        return;
    }
    let reachable = Reachable::of(&url.host);
    let mut names = outbound.look_up(&url.host, url.port);
    while let Some(hosts) = names.next().await {
        let hosts: Vec<IpAddr> = hosts.iter().map(SocketAddr::ip).collect();
        let mut addrs = at_host(&hosts, known.as_slice().iter().map(SocketAddr::port));
        addrs.retain(|addr| reachable.may_lead_to(*addr));
        if found.send(Found::Addrs(addrs)).await.is_err() {
            return;
        }
    }
}

/// The addresses that are known, as a network without IPv4 reaches them (RFC 7050).
async fn look_for_nat64(outbound: Outbound, known: ServerAddrs, found: mpsc::Sender<Found>) {
    let Some(prefix) = outbound.nat64().await else { return };
    let synthesised = known.as_slice().iter().filter_map(|addr| prefix.reach(*addr)).collect();
    for found_so in [Found::Nat64(prefix), Found::Addrs(synthesised)] {
        if found.send(found_so).await.is_err() {
            return;
        }
    }
}

/// What the server says of itself, over TCP.
async fn ask(
    outbound: Outbound,
    url: ServerUrl,
    server: ServerHint,
    found: mpsc::Sender<Found>,
    wait: Duration,
) {
    sleep(wait).await;
    let answer = match locate::ask_once(&outbound, &url).await {
        Ok(located) if located.server.peer_id == server.peer_id => Found::Addrs(located.server.udp),
        Ok(located) => Found::Another(located.server.peer_id.to_string()),
        Err(why) => {
            tracing::debug!(why, "the server does not say where its UDP port is");
            return;
        }
    };
    // Whoever asked may have what it wanted.
    let _ = found.send(answer).await;
}
