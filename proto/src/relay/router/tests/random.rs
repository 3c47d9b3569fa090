//! Everybody does anything at any time, from a seed.

use std::collections::BTreeMap;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::*;

const PEERS: u64 = 6;

/// A router in random hands, and what it may do at most.
struct World {
    rig: Rig,
    rng: ChaCha12Rng,
    /// The connection of each peer that has one.
    here: BTreeMap<u64, SessionKey>,
    next_key: SessionKey,
    /// Until when a receiver has let a sender in, whatever became of its connections since.
    ways: BTreeMap<(u64, u64), Instant>,
    /// Frames handed in that may be forwarded.
    sent: u64,
}

impl World {
    fn new(seed: u8) -> Self {
        let limits = RouterLimits { data_queue: 40_000, control_queue: 2000, ..RouterLimits::default() };
        Self {
            rig: Rig::new(limits),
            rng: ChaCha12Rng::from_seed([seed; 32]),
            here: BTreeMap::new(),
            next_key: 1,
            ways: BTreeMap::new(),
            sent: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn peer(&mut self) -> u64 {
        self.below(PEERS)
    }

    fn open(&mut self, receiver: u64, from: u64, time: Duration) {
        let until = self.rig.now + time;
        let known = self.ways.entry((receiver, from)).or_insert(until);
        *known = until.max(*known);
    }

    fn step(&mut self) {
        let (who, other) = (self.peer(), self.peer());
        let key = self.here.get(&who).copied();
        match (self.below(12), key) {
            (0, None) | (1, _) => {
                let key = self.next_key;
                self.next_key += 1;
                if self.rig.router.handle_connected(key, None, self.rig.now).is_ok() {
                    self.rig.router.handle_login(key, Proven::own(address(who)), self.rig.now);
                    self.here.insert(who, key);
                }
            }
            (2, Some(key)) if self.below(4) == 0 => self.rig.router.handle_disconnected(key),
            (3, Some(key)) => {
                self.open(who, other, Duration::from_secs(2));
                self.rig.allow(key, other, 2);
            }
            (4..=8, Some(key)) => {
                self.open(who, other, WAY);
                self.sent += 1;
                let len = 1 + self.below(9000) as usize;
                let frame = if len < 500 { check(address(other), len) } else { data(address(other), len) };
                self.rig.send(key, frame);
            }
            (9, Some(key)) => self.read(who, key),
            (10, Some(key)) => {
                let len = self.below(300) as usize;
                let mut junk = vec![0; len];
                self.rng.fill_bytes(&mut junk);
                // Not what could be taken for a peer's frame.
                if !matches!(junk.first(), Some(4 | 5)) {
                    self.rig.send(key, junk);
                }
            }
            _ => {
                let millis = self.below(400);
                self.rig.pass(Duration::from_millis(millis));
            }
        }
        self.note_closed();
    }

    /// Nothing arrives but what was let in, at the latest when it was put in the queue.
    fn read(&mut self, who: u64, key: SessionKey) {
        let budget = self.below(30_000) as usize;
        for frame in self.rig.router.take(key, budget, self.rig.now) {
            let remote = match Frame::parse(&frame) {
                Ok(Frame::Data(data)) => data.remote,
                Ok(Frame::Check(check)) => check.remote,
                _ => continue,
            };
            let from = (0..PEERS).find(|from| address(*from) == remote).unwrap();
            assert!(self.ways.contains_key(&(who, from)), "{from} was never let in by {who}");
        }
    }

    fn note_closed(&mut self) {
        for action in self.rig.actions() {
            if let RouterAction::Close(key, _) = action {
                self.here.retain(|_, here| *here != key);
            }
        }
        let router = &self.rig.router;
        self.here.retain(|_, key| router.sessions.contains_key(key));
    }

    /// Every frame is in exactly one place, and the sums are what they are the sums of.
    fn check(&self) {
        let router = &self.rig.router;
        let stats = router.stats();
        let sessions = || router.sessions.values();
        assert_eq!(stats.queued_bytes, sessions().map(|session| session.outbox.bytes()).sum::<usize>());
        assert_eq!(stats.held_bytes, sessions().map(|session| session.hold.bytes()).sum::<usize>());
        assert!(sessions().all(|session| session.outbox.bytes() <= 40_000 + 2 * 2000));
        let waiting: usize =
            sessions().map(|session| session.outbox.forwarded_len() + session.hold.len()).sum();
        let dropped: u64 = DropReason::ALL.iter().map(|reason| stats.dropped(*reason)).sum();
        assert_eq!(self.sent, stats.forwarded_frames + dropped + waiting as u64, "{stats:?}");
        assert_eq!(stats.connections, router.sessions.len());
        assert!(router.timers.len() <= router.sessions.len());
        for (key, session) in &router.sessions {
            assert!(session.timer.is_some_and(|at| router.timers.contains(&(at, *key))));
            assert!(session.due(&router.limits).is_none_or(|due| session.timer <= Some(due)));
        }
    }
}

#[test]
fn whatever_happens_only_what_was_let_in_arrives_and_every_frame_is_accounted_for() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
        }
        world.check();
        let keys: Vec<_> = world.rig.router.sessions.keys().copied().collect();
        keys.into_iter().for_each(|key| world.rig.router.handle_disconnected(key));
        world.check();
        let stats = world.rig.router.stats();
        assert_eq!((stats.sessions, stats.queued_bytes, stats.held_bytes), (0, 0, 0), "seed {seed}");
        assert!(stats.forwarded_frames > 20, "seed {seed}: {stats:?}");
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let run = || {
        let mut world = World::new(7);
        (0..1000).for_each(|_| world.step());
        world.rig.router.stats()
    };
    assert_eq!(run(), run());
}
