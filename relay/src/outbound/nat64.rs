//! What the network's NAT64 is, where IPv4 is reached through one alone.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::nat64::{self, Nat64Prefix};
use tokio::time::{Instant, timeout};

use super::names::Names;
use crate::net::{IpFamily, Net, source_in};

/// How long the network's answer is waited for. What asks is a connection that has no other way.
const ASKING: Duration = Duration::from_secs(5);

/// How long an answer is good: a prefix as long as the network is the same, at most; none, and no answer, not long.
const KNOWN: Duration = Duration::from_secs(600);
const KNOWN_TO_BE_NONE: Duration = Duration::from_secs(10);

/// What is known, and of which network.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The local address of the route by which it was learned: another network gives another one.
    source: IpAddr,
    prefix: Option<Nat64Prefix>,
    at: Instant,
}

/// Finds the prefix, and remembers it.
#[derive(Debug, Default)]
pub(super) struct Nat64(Mutex<Option<Known>>);

impl Nat64 {
    /// The prefix; none where IPv4 works by itself, where there is no IPv6 either, and where there is no NAT64.
    pub(super) async fn prefix(&self, net: &Arc<dyn Net>, names: &Names) -> Option<Nat64Prefix> {
        if source_in(&**net, IpFamily::V4).is_some() {
            return None;
        }
        let source = source_in(&**net, IpFamily::V6)?;
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.filter(|known| known.source == source && known.is_good()) {
            return known.prefix;
        }
        let prefix = ask(names).await;
        match prefix {
            Some(prefix) => tracing::info!(%prefix, "this network reaches IPv4 by NAT64"),
            None => tracing::debug!("this network has neither IPv4 nor NAT64"),
        }
        let known = Known { source, prefix, at: Instant::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        prefix
    }
}

impl Known {
    fn is_good(&self) -> bool {
        self.at.elapsed() < if self.prefix.is_some() { KNOWN } else { KNOWN_TO_BE_NONE }
    }
}

async fn ask(names: &Names) -> Option<Nat64Prefix> {
    // What was found in another network says nothing of this one.
    names.forget(nat64::NAME);
    let found = timeout(ASKING, names.in_v6(nat64::NAME)).await.ok()?.ok()?;
    let answers: Vec<Ipv6Addr> = found.iter().filter_map(in_v6).collect();
    Nat64Prefix::learn(&answers)
}

const fn in_v6(addr: &SocketAddr) -> Option<Ipv6Addr> {
    match addr {
        SocketAddr::V6(addr) => Some(*addr.ip()),
        SocketAddr::V4(_) => None,
    }
}
