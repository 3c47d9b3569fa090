//! Networks that change under us: another address, another route, a NAT that has forgotten us, a process or a
//! machine that slept.
//!
//! The system tells when something may have changed ([`NetworkChanges`]); the server tells when it sees us
//! elsewhere; a timer that is late tells that we were stopped. In each case all paths are checked at once, and
//! the remotes learn where we are now: from a connector by a new offer, which needs nobody's memory of the
//! last one; from a sharer, whom nobody asked, by a trickle in the exchange that is there. Streams and
//! connections stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use proto::candidate::{Scope, scope};
use proto::path::LinkId;
use proto::stun::Role;
use relay::net::{Change, Net, NetworkChanges};
use tokio::sync::mpsc;

use super::{Driver, Input};
use crate::endpoint::remote::RemoteKey;

/// A timer that is so late did not wait for its turn: the process was stopped, or the machine slept. A busy
/// machine may be meant, now and then, and has a few checks too many.
const STOPPED: Duration = Duration::from_secs(2);

/// What our own end of all paths looks like.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// The addresses that others could reach us at.
    addresses: BTreeSet<IpAddr>,
    /// From which of them each of the server's addresses is reached.
    sources: BTreeMap<SocketAddr, Option<IpAddr>>,
}

impl Network {
    pub(super) fn look(net: &dyn Net, server: &[SocketAddr]) -> Self {
        let is_usable = |ip: &IpAddr| {
            let scope = scope(SocketAddr::new(*ip, 1));
            matches!(scope, Scope::Local | Scope::Global)
        };
        let addresses = net.addresses().unwrap_or_default().into_iter().filter(is_usable).collect();
        let mut network = Self { addresses, sources: BTreeMap::new() };
        network.learn(server, |to| net.source_for(to).ok());
        network
    }

    /// These are the server's addresses now. Of those that were known before nothing is looked at: that shows with the
    /// change that the system tells of.
    fn learn(&mut self, server: &[SocketAddr], source: impl Fn(SocketAddr) -> Option<IpAddr>) {
        self.sources.retain(|known, _| server.contains(known));
        for to in server {
            self.sources.entry(*to).or_insert_with(|| source(*to));
        }
    }

    /// Whether this is another one than `before`, as far as both tell of the same addresses of the server's.
    fn differs_from(&self, before: &Self) -> bool {
        let is_other = |(to, from)| before.sources.get(to).is_some_and(|before| before != from);
        self.addresses != before.addresses || self.sources.iter().any(is_other)
    }
}

/// Hands every change of the network in, until the endpoint is gone.
pub(super) async fn watch(mut changes: Box<dyn NetworkChanges>, inputs: mpsc::WeakSender<Input>) {
    loop {
        let change = changes.changed().await;
        let Some(inputs) = inputs.upgrade() else { return };
        if inputs.send(Input::Network(change)).await.is_err() {
            return;
        }
    }
}

/// Whether a timer that was to go off at `deadline` shows that the process was stopped.
pub(super) fn was_stopped(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| now.saturating_duration_since(deadline) > STOPPED)
}

impl Driver {
    /// The system says that something changed.
    pub(super) fn handle_change(&mut self, change: Change, now: Instant) {
        let is_new = self.look_at_network();
        tracing::debug!(?change, is_new, network = ?self.network, "the network may have changed");
        self.look_around();
        self.rebind_if_lost();
        match change {
            // A gateway may have been replaced by another one, and all addresses be what they were.
            Change::Network if !is_new => {
                self.try_relays();
                self.session.handle_doubt(now);
            }
            Change::Network | Change::Woken => {
                self.try_relays();
                self.session.handle_network_change(now);
                self.show_all_addresses(now);
                self.servers.nat64 = None;
                self.link.changed.notify_one();
                if let Some(router) = &self.parts.router {
                    router.notify_one();
                }
                self.begin_anew(now);
            }
        }
    }

    /// Looks at our end of all paths once more. Returns whether it is another one.
    pub(super) fn look_at_network(&mut self) -> bool {
        let network = Network::look(&*self.parts.net, self.servers.addrs.as_slice());
        let before = std::mem::replace(&mut self.network, network);
        self.network.differs_from(&before)
    }

    /// The server has further addresses.
    pub(super) fn look_at_ways_to_server(&mut self) {
        let net = &self.parts.net;
        self.network.learn(self.servers.addrs.as_slice(), |to| net.source_for(to).ok());
    }

    /// Nobody here has had any time for a while.
    pub(super) fn handle_stopped(&mut self, now: Instant) {
        self.handle_change(Change::Woken, now);
    }

    /// Our end of all paths is another one, or may be: all are checked, and all remotes are told.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        let keys: Vec<RemoteKey> = self.remotes.keys().copied().collect();
        let candidates = self.claims().candidates;
        for key in keys {
            let Some(remote) = self.remotes.get_mut(&key) else { continue };
            remote.agent.handle_network_change(now);
            match remote.role {
                Role::Connector => self.repunch(key, now),
                Role::Sharer => self.trickle(key, candidates.clone()),
            }
        }
    }

    /// Binds the main link anew where the old one can't work any more: its own address is gone, or it fails.
    /// One that is bound to all addresses outlives them.
    fn rebind_if_lost(&mut self) {
        let Some(link) = self.parts.socket.link(LinkId::MAIN) else { return };
        let Ok(local) = link.local_addr() else { return };
        let ip = local.ip();
        let is_gone = !ip.is_unspecified() && !ip.is_loopback() && !self.network.addresses.contains(&ip);
        if !is_gone && !self.parts.socket.is_failing(LinkId::MAIN) {
            return;
        }
        drop(link);
        let any: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // The old port, if it is free: a NAT may still know it.
        let bound = self.parts.net.bind_udp((any, local.port()).into());
        match bound.or_else(|_| self.parts.net.bind_udp((any, 0).into())) {
            Ok(bound) => {
                tracing::info!(was = %local, now = ?bound.local_addr().ok(), "the main socket is bound anew");
                self.parts.socket.add_link(LinkId::MAIN, bound);
            }
            Err(error) => tracing::warn!(%error, "the main socket can't be bound anew"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(own: &str, sources: &[(&str, &str)]) -> Network {
        let sources = sources.iter().map(|(to, from)| (to.parse().unwrap(), from.parse().ok()));
        Network { addresses: BTreeSet::from([own.parse().unwrap()]), sources: sources.collect() }
    }

    #[test]
    fn further_addresses_of_the_server_and_another_order_are_no_change_of_our_network() {
        let (a, b) = (("192.0.2.1:1", "10.0.0.2"), ("192.0.2.2:1", "10.0.0.2"));
        let before = network("10.0.0.2", &[a, b]);
        assert!(!network("10.0.0.2", &[b, a, ("192.0.2.3:1", "10.0.0.2")]).differs_from(&before));
        assert!(!network("10.0.0.2", &[b]).differs_from(&before));
        assert!(network("10.0.0.3", &[a, b]).differs_from(&before));
        assert!(network("10.0.0.2", &[a, (b.0, "10.9.9.9")]).differs_from(&before));
        assert!(network("10.0.0.2", &[a, (b.0, "no route")]).differs_from(&before));
    }

    #[test]
    fn a_change_shows_though_the_server_was_found_elsewhere_before_the_system_told_of_it() {
        let mut known = network("10.0.0.2", &[("192.0.2.1:1", "10.0.0.2")]);
        let servers = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| text.parse().unwrap());
        known.learn(&servers, |_| "10.9.9.9".parse().ok());
        let now = network("10.9.9.9", &[("192.0.2.1:1", "10.9.9.9"), ("192.0.2.2:1", "10.9.9.9")]);
        assert!(now.differs_from(&known));
        known.learn(&servers[1..], |_| None);
        assert_eq!(known.sources.len(), 1, "what is no address of the server's is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_seconds_late_shows_that_the_process_was_stopped() {
        let deadline = tokio::time::Instant::now().into_std();
        let after = |late: Duration| was_stopped(Some(deadline), deadline + late);
        assert!(!after(Duration::from_millis(1900)));
        assert!(after(Duration::from_millis(2100)));
        assert!(!was_stopped(None, deadline + Duration::from_secs(3600)));
        assert!(!was_stopped(Some(deadline + Duration::from_secs(9)), deadline));
    }
}
