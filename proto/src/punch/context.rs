//! What all strategies share: whom they talk to, what they may send, and which sockets are theirs.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand_chacha::ChaCha12Rng;

use crate::nat::NatProfile;
use crate::path::{CheckTransmit, LinkId, PathId};

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PunchAction {
    /// Open so many sockets, and hand those that there are to [`super::Punch::handle_opened`] in one call.
    Open(u16),
    /// Send a datagram.
    Send(CheckTransmit),
    /// Close a socket.
    Close(LinkId),
    /// Tell the remote, within the exchange, what is known of our NAT, and that this round may begin.
    Tell(NatProfile, u8),
    /// Tell the remote, as reflexive candidates, where we may be.
    Name(Vec<SocketAddr>),
    /// Give up what leads through both NATs: [`crate::path::PathAgent::rule_out_reflexive`].
    GiveUp,
}

#[derive(Debug)]
pub(super) struct Context {
    /// A check of the exchange. It is the same each time: what counts is that one arrives.
    pub(super) probe: Vec<u8>,
    pub(super) server: SocketAddr,
    /// The remote, as the server sees it.
    pub(super) remote: SocketAddr,
    pub(super) rng: ChaCha12Rng,
    pub(super) actions: VecDeque<PunchAction>,
    pub(super) owned: BTreeSet<LinkId>,
}

impl Context {
    pub(super) fn open(&mut self, count: u16) {
        self.actions.push_back(PunchAction::Open(count));
    }

    pub(super) fn close(&mut self, link: LinkId) {
        if self.owned.remove(&link) {
            self.actions.push_back(PunchAction::Close(link));
        }
    }

    pub(super) fn close_all(&mut self) {
        let all = std::mem::take(&mut self.owned);
        self.actions.extend(all.into_iter().map(PunchAction::Close));
    }

    pub(super) fn probe(&mut self, link: LinkId, remote: SocketAddr, ttl: Option<u8>) {
        if link == LinkId::MAIN || self.owned.contains(&link) {
            let payload = self.probe.clone();
            self.actions.push_back(send(link, remote, ttl, payload));
        }
    }

    pub(super) fn ask_server(&mut self, link: LinkId, request: Vec<u8>) {
        self.actions.push_back(send(link, self.server, None, request));
    }
}

fn send(link: LinkId, remote: SocketAddr, ttl: Option<u8>, payload: Vec<u8>) -> PunchAction {
    PunchAction::Send(CheckTransmit { path: PathId { link, remote }, ttl, payload })
}
