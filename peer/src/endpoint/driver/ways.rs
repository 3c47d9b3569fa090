//! Our own interfaces, and how good a way to each address of a remote's is by them: see [`proto::interface`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proto::interface::{Interfaces, Rank};
use proto::path::PathAgent;
use relay::net::Net;

use super::Driver;

/// An address of each family that only the default route leads to: a root name server's. Its route is looked up, and
/// nothing is sent there.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Ranks that are kept: the addresses of all remotes at once, and some that strangers sent from.
const MAX_RANKS: usize = 4096;

/// Our interfaces as they were last seen, and what followed from them.
#[derive(Debug, Default)]
pub(super) struct Ways {
    interfaces: Interfaces,
    ranks: BTreeMap<IpAddr, Rank>,
}

impl Ways {
    pub(super) fn look(net: &dyn Net) -> Self {
        let defaults = FAR.iter().filter_map(|far| net.source_for(SocketAddr::new(*far, 53)).ok());
        let own = net.interfaces().unwrap_or_default();
        Self { interfaces: Interfaces::new(own, defaults.collect()), ranks: BTreeMap::new() }
    }

    pub(super) const fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    fn rank(&mut self, net: &dyn Net, remote: SocketAddr) -> Rank {
        if let Some(rank) = self.ranks.get(&remote.ip()) {
            return *rank;
        }
        if self.ranks.len() >= MAX_RANKS {
            self.ranks.clear();
        }
        let rank = self.interfaces.rank(net.source_for(remote).ok(), remote.ip());
        self.ranks.insert(remote.ip(), rank);
        rank
    }

    /// Tells an agent how good the way to an address is that may become a path of it.
    pub(super) fn rank_for(&mut self, net: &dyn Net, agent: &mut PathAgent, remote: SocketAddr) {
        let rank = self.rank(net, remote);
        agent.set_rank(remote.ip(), rank);
    }
}

impl Driver {
    /// Interfaces or routes may have changed, and with them every rank.
    pub(super) fn look_around(&mut self) {
        self.ways = Ways::look(&*self.parts.net);
        for remote in self.remotes.values_mut() {
            for ip in remote.agent.remotes().collect::<Vec<_>>() {
                self.ways.rank_for(&*self.parts.net, &mut remote.agent, SocketAddr::new(ip, 1));
            }
        }
    }
}
