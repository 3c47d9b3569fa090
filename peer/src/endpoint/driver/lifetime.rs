//! Learning for how long the NAT on our side keeps an idle flow: see [`Lifetime`]. One remote at a time helps
//! with it, and what it shows holds for all paths through that NAT.

use std::time::{Duration, Instant};

use proto::candidate::{Scope, scope};
use proto::path::{Lifetime, LifetimeAction, LinkId, PathConfig, PathId};

use super::Driver;
use crate::endpoint::remote::RemoteKey;

/// What is known, and how more is being learned.
#[derive(Debug, Default)]
pub(super) struct Learning {
    machine: Option<(RemoteKey, Lifetime)>,
    probe: Option<LinkId>,
    learned: Option<Duration>,
    /// What the NAT was seen to keep.
    kept: Option<Duration>,
}

impl Learning {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.as_ref().and_then(|(_, machine)| machine.poll_timeout())
    }

    /// For how long the NAT was seen to keep an idle flow.
    pub(super) const fn kept(&self) -> Option<Duration> {
        self.kept
    }

    pub(super) fn is_probe(&self, link: LinkId) -> bool {
        self.probe == Some(link)
    }
}

impl Driver {
    /// A remote has this primary now.
    pub(super) fn lifetime_begins(&mut self, key: RemoteKey, primary: PathId, now: Instant) {
        let is_through_nat = self.is_through_nat(primary);
        let keepalive = self.lifetime.learned.filter(|_| is_through_nat);
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.agent.set_keepalive(keepalive.unwrap_or(PathConfig::default().keepalive));
        }
        if self.lifetime.probe == Some(primary.link) {
            // It carries data now, and is no probe any more.
            self.lifetime.probe = None;
            if let Some((_, machine)) = &mut self.lifetime.machine {
                machine.handle_lost();
            }
        }
        if is_through_nat {
            self.lifetime.machine.get_or_insert_with(|| (key, Lifetime::new(now)));
        }
    }

    /// A probe with this remote's help can't go on: its exchange is over. Another remote's begins.
    pub(super) fn lifetime_loses(&mut self, key: RemoteKey, now: Instant) {
        let is_under_way = self.lifetime.poll_timeout().is_some();
        if self.lifetime.machine.as_ref().is_none_or(|(helper, _)| *helper != key) || !is_under_way {
            return;
        }
        self.lifetime.machine = None;
        if let Some(link) = self.lifetime.probe.take() {
            self.close_fresh_link(link, now);
        }
        let mut others = self.remotes.iter().filter(|(other, _)| **other != key);
        let next = others.find_map(|(other, remote)| {
            let primary = remote.agent.route().primary?;
            self.is_through_nat(primary).then_some((*other, primary))
        });
        if let Some((other, primary)) = next {
            self.lifetime_begins(other, primary, now);
        }
    }

    /// There is another NAT on our side: what was learned of the last one is worth nothing.
    pub(super) fn forget_lifetime(&mut self, now: Instant) {
        self.lifetime.machine = None;
        self.lifetime.learned = None;
        self.lifetime.kept = None;
        if let Some(link) = self.lifetime.probe.take() {
            self.close_fresh_link(link, now);
        }
        let routes =
            self.remotes.iter().filter_map(|(key, remote)| Some((*key, remote.agent.route().primary?)));
        for (key, primary) in routes.collect::<Vec<_>>() {
            self.lifetime_begins(key, primary, now);
        }
    }

    pub(super) fn lifetime_proven(&mut self, link: LinkId, now: Instant) {
        let is_probe = self.lifetime.is_probe(link);
        if let Some((_, machine)) = self.lifetime.machine.as_mut().filter(|_| is_probe) {
            machine.handle_proven(link, now);
        }
    }

    pub(super) fn lifetime_heard(&mut self, link: LinkId, now: Instant) {
        if let Some((_, machine)) = &mut self.lifetime.machine {
            machine.handle_heard(link, now);
            self.drain_lifetime(now);
        }
    }

    pub(super) fn lifetime_timeout(&mut self, now: Instant) {
        if let Some((_, machine)) = &mut self.lifetime.machine {
            machine.handle_timeout(now);
            self.drain_lifetime(now);
        }
    }

    fn drain_lifetime(&mut self, now: Instant) {
        while let Some((key, action)) =
            self.lifetime.machine.as_mut().and_then(|(key, machine)| Some((*key, machine.poll_action()?)))
        {
            match action {
                LifetimeAction::OpenLink => {
                    self.lifetime.probe = self.open_fresh_link(key, now);
                    if self.lifetime.probe.is_none() {
                        // No link is free: the next path asks again.
                        self.lifetime.machine = None;
                    }
                }
                LifetimeAction::CloseLink(link) => {
                    if self.lifetime.probe.take() == Some(link) {
                        self.close_fresh_link(link, now);
                    }
                }
                LifetimeAction::Learned { keepalive, kept } => {
                    self.lifetime.kept = kept;
                    self.learn_keepalive(keepalive);
                }
            }
        }
    }

    fn learn_keepalive(&mut self, keepalive: Duration) {
        tracing::debug!(?keepalive, "learned what the NAT keeps");
        self.lifetime.learned = Some(keepalive);
        let is_v4 = self.is_seen_at_v4();
        for remote in self.remotes.values_mut() {
            if remote.agent.route().primary.is_some_and(|path| leaves_home(path, is_v4)) {
                remote.agent.set_keepalive(keepalive);
            }
        }
    }

    fn is_through_nat(&self, path: PathId) -> bool {
        leaves_home(path, self.is_seen_at_v4())
    }
}

/// Whether a path leaves our network, over the family that links are probed with.
fn leaves_home(path: PathId, is_v4: bool) -> bool {
    scope(path.remote) == Scope::Global && path.remote.is_ipv4() == is_v4
}
