//! Offers that come to a server that has just started, before the sharer is back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SessionKey;
use crate::id::{PeerId, ShareId};
use crate::wire::signal::Offer;

/// How many wait, of all sessions and of one.
const MAX_EARLY: usize = 1024;
const MAX_EARLY_EACH: usize = 4;

/// An offer, from whom, and for whom.
type Early = (SessionKey, PeerId, Offer);

/// The offers that wait.
#[derive(Debug)]
pub(super) struct EarlyOffers {
    returning: Duration,
    /// From then on an absent sharer is offline.
    until: Option<Instant>,
    waiting: VecDeque<Early>,
}

impl EarlyOffers {
    pub(super) const fn new(returning: Duration) -> Self {
        Self { returning, until: None, waiting: VecDeque::new() }
    }

    /// A session has come: the first one of all begins the time in which the others come back.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until.get_or_insert(now + self.returning);
    }

    /// Keeps an offer whose sharer is not here, while it may be on its way. Returns whether it does.
    pub(super) fn takes(&mut self, from: SessionKey, to: PeerId, offer: &Offer, now: Instant) -> bool {
        let of_sender = self.waiting.iter().filter(|(other, ..)| *other == from).count();
        let is_early = self.until.is_some_and(|until| now < until);
        let has_room = self.waiting.len() < MAX_EARLY && of_sender < MAX_EARLY_EACH;
        if is_early && has_room {
            self.waiting.push_back((from, to, offer.clone()));
        }
        is_early && has_room
    }

    /// A share is registered: what waited for it.
    pub(super) fn for_share(&mut self, sharer: PeerId, share: ShareId) -> VecDeque<Early> {
        self.take(|(_, to, offer)| *to == sharer && offer.share == share)
    }

    /// What no sharer came for, once the time is over.
    pub(super) fn that_waited_in_vain(&mut self, now: Instant) -> VecDeque<Early> {
        let is_over = self.until.is_some_and(|until| until <= now);
        self.take(|_| is_over)
    }

    /// A session is gone.
    pub(super) fn forget(&mut self, from: SessionKey) {
        self.waiting.retain(|(other, ..)| *other != from);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.filter(|_| !self.waiting.is_empty())
    }

    fn take(&mut self, is_wanted: impl Fn(&Early) -> bool) -> VecDeque<Early> {
        let (taken, kept) = std::mem::take(&mut self.waiting).into_iter().partition(is_wanted);
        self.waiting = kept;
        taken
    }
}
