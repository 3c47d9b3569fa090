//! Learning for how long the NAT keeps an idle flow: see [`Lifetime`].

use std::time::Instant;

use proto::path::{Lifetime, LifetimeAction, LinkId};

use super::PeerNode;

impl PeerNode {
    /// Lets it learn for how long its NAT keeps an idle flow, once it has a path.
    pub fn learn_lifetime(&mut self) {
        self.learns_lifetime = true;
    }

    /// There is a path, over this link.
    pub(super) fn lifetime_begins(&mut self, link: LinkId, now: Instant) {
        if !self.learns_lifetime {
            return;
        }
        let lifetime = self.lifetime.get_or_insert_with(|| Lifetime::new(now));
        if self.probe == Some(link) {
            // It carries data now, and is no probe any more.
            self.probe = None;
            lifetime.handle_lost();
        }
        self.drain_lifetime(now);
    }

    pub(super) fn forget_lifetime(&mut self, now: Instant) {
        self.lifetime = None;
        if let Some(link) = self.probe.take() {
            self.close_fresh_link(link, now);
        }
    }

    pub(super) fn lifetime_proven(&mut self, link: LinkId, now: Instant) {
        if let Some(lifetime) = self.lifetime.as_mut().filter(|_| self.probe == Some(link)) {
            lifetime.handle_proven(link, now);
        }
    }

    pub(super) fn lifetime_heard(&mut self, link: LinkId, now: Instant) {
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.handle_heard(link, now);
            self.drain_lifetime(now);
        }
    }

    pub(super) fn lifetime_timeout(&mut self, now: Instant) {
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.handle_timeout(now);
            self.drain_lifetime(now);
        }
    }

    fn drain_lifetime(&mut self, now: Instant) {
        while let Some(action) = self.lifetime.as_mut().and_then(Lifetime::poll_action) {
            match action {
                LifetimeAction::OpenLink => self.probe = self.open_fresh_link(now),
                LifetimeAction::CloseLink(link) => {
                    if self.probe.take() == Some(link) {
                        self.close_fresh_link(link, now);
                    }
                }
                LifetimeAction::Learned { keepalive, .. } => {
                    self.note(format!("the keepalive becomes {keepalive:?}"));
                    if let Some(remote) = &mut self.remote {
                        remote.agent.set_keepalive(keepalive);
                    }
                }
            }
        }
    }
}
