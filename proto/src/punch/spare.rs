//! **Spare**: a socket to search from that no check from outside has come to.
//!
//! Before the search the other side's plain checks have come to our main socket's port, each from a port that is among
//! those to be tried. A router that tracks strangers (Linux without an input drop) keeps such a pair of ports for them:
//! our own packet to it would leave by another port, and those that follow with it, through which nobody is let in. So
//! the other side is told of another port of ours, and opens its flows to that.

use std::time::Instant;

use super::context::{Context, PunchAction};
use crate::machine::random;
use crate::nat::NatProfile;
use crate::path::{LinkId, MappingQuery};

#[derive(Debug)]
pub(super) struct Spare {
    asked: Option<(LinkId, MappingQuery)>,
    is_told: bool,
}

impl Spare {
    pub(super) fn new(context: &mut Context) -> Self {
        context.open(1);
        Self { asked: None, is_told: false }
    }

    /// Whether the socket that was asked for is not there yet.
    pub(super) const fn awaits_socket(&self) -> bool {
        self.asked.is_none()
    }

    pub(super) fn handle_opened(&mut self, links: &[LinkId], context: &mut Context, now: Instant) {
        self.asked = links.first().map(|link| (*link, MappingQuery::new(random(&mut context.rng), now)));
        self.handle_timeout(context, now);
    }

    /// Whether it was the server's answer about this socket. The other side is told of its port.
    pub(super) fn handle_answer(
        &mut self,
        link: LinkId,
        datagram: &[u8],
        ours: NatProfile,
        context: &mut Context,
    ) -> bool {
        let Some((_, query)) = self.asked.as_mut().filter(|(asked, _)| *asked == link) else { return false };
        let Some(mapped) = query.handle_answer(datagram) else { return false };
        self.is_told = true;
        context.actions.push_back(PunchAction::Tell(NatProfile { latest: mapped.port(), ..ours }, 1));
        true
    }

    pub(super) fn handle_timeout(&mut self, context: &mut Context, now: Instant) {
        if let Some((link, query)) = &mut self.asked
            && let Some(request) = query.poll_transmit(now)
        {
            context.ask_server(*link, request);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.asked.as_ref().and_then(|(_, query)| query.poll_timeout())
    }

    /// The socket, if the other side knows of its port.
    pub(super) fn told(&self) -> Option<LinkId> {
        self.asked.as_ref().filter(|_| self.is_told).map(|(link, _)| *link)
    }
}
