//! Which identities came lately, and from where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::id::PeerId;

/// How many identities are remembered, those that came last.
const REMEMBERED: usize = 64;

/// How many of them, and which share of all in percent, from one address are no accident.
const AT_LEAST: usize = 5;
const PERCENT: usize = 90;

/// The machine's memory of its clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    latest: VecDeque<(PeerId, IpAddr)>,
    relayed: BTreeSet<PeerId>,
}

impl Clients {
    /// An identity came from this address.
    pub(super) fn came(&mut self, peer: PeerId, from: IpAddr) {
        self.latest.retain(|(known, _)| *known != peer);
        self.latest.push_back((peer, from));
        if self.latest.len() > REMEMBERED {
            self.latest.pop_front();
        }
    }

    /// An identity came through the relay.
    pub(super) fn was_relayed(&mut self, peer: PeerId) {
        if self.relayed.len() < REMEMBERED {
            self.relayed.insert(peer);
        }
    }

    /// How many identities came through the relay, as far as they are counted.
    pub(super) fn relayed(&self) -> usize {
        self.relayed.len()
    }

    /// The address from which nearly all of them come, and how many those are.
    pub(super) fn all_at(&self) -> Option<(IpAddr, usize)> {
        let mut by_ip: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.latest.iter().for_each(|(_, ip)| *by_ip.entry(*ip).or_default() += 1);
        let (ip, count) = by_ip.into_iter().max_by_key(|(_, count)| *count)?;
        (count >= AT_LEAST && count * 100 > self.latest.len() * PERCENT).then_some((ip, count))
    }
}
