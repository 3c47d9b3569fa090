//! Congestion control that starts afresh on each path.
//!
//! QUIC sees one path for ever, so what its controller learned on a slow relay would hold a fast direct path
//! back, and packets lost with a dead path would count against the one that took over. Here every path has an
//! *epoch*: the socket raises a number that it shares with the controller, and the controller begins anew
//! when it sees that. Losses of packets sent before then are not this path's fault. And until one sent since
//! is acknowledged, the old window is lent on top of the new one: what is in flight on the old path may be
//! lost with it and would otherwise leave no room for a single packet.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};

/// What the first burst on a new path may hold beside the old window, in packets, before the controller itself
/// has noticed (RFC 9002 §7.2 allows ten at the start; the kick that wakes the connection comes on top).
const FIRST_BURST: u64 = 20;

/// The number that is raised when a remote's data takes another path.
#[derive(Debug, Clone, Default)]
pub struct PathEpoch(Arc<AtomicU64>);

impl PathEpoch {
    /// Another path from here on.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Makes one connection's controllers. Not to be shared between connections: it has one remote's epoch.
#[derive(Debug)]
pub struct PerPath {
    epoch: PathEpoch,
    cubic: Arc<CubicConfig>,
}

impl PerPath {
    /// For the connection whose path has this epoch.
    pub fn new(epoch: PathEpoch) -> Self {
        Self { epoch, cubic: Arc::new(CubicConfig::default()) }
    }
}

impl ControllerFactory for PerPath {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(EpochController {
            seen: self.epoch.current(),
            inner: Arc::clone(&self.cubic).build(now, current_mtu),
            since: now,
            lent: 0,
            mtu: current_mtu,
            factory: self,
        })
    }
}

struct EpochController {
    factory: Arc<PerPath>,
    seen: u64,
    inner: Box<dyn Controller>,
    /// When this path's epoch began.
    since: Instant,
    /// The old path's window, until this one has proved itself.
    lent: u64,
    mtu: u16,
}

impl EpochController {
    /// Begins anew if the path is another one.
    fn notice(&mut self, now: Instant) {
        let current = self.factory.epoch.current();
        if current == self.seen {
            return;
        }
        self.seen = current;
        self.lent = self.inner.window();
        self.inner = Arc::clone(&self.factory.cubic).build(now, self.mtu);
        self.since = now;
    }
}

impl Controller for EpochController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.notice(now);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.notice(now);
        if sent >= self.since {
            self.lent = 0;
            self.inner.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.notice(now);
        if sent >= self.since {
            self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.inner.window();
        if self.factory.epoch.current() == self.seen {
            window + self.lent
        } else {
            window + FIRST_BURST * u64::from(self.mtu)
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            factory: Arc::clone(&self.factory),
            seen: self.seen,
            inner: self.inner.clone_box(),
            since: self.since,
            lent: self.lent,
            mtu: self.mtu,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MTU: u16 = 1200;

    fn controller() -> (PathEpoch, Box<dyn Controller>, Instant) {
        let (epoch, now) = (PathEpoch::default(), Instant::now());
        (epoch.clone(), Arc::new(PerPath::new(epoch)).build(now, MTU), now)
    }

    #[test]
    fn losses_of_the_old_path_do_not_shrink_the_new_ones_window() {
        let (epoch, mut controller, start) = controller();
        let initial = controller.window();
        epoch.advance();
        let later = start + Duration::from_secs(1);
        controller.on_sent(later, 1200, 1);
        controller.on_congestion_event(later, start, true, 100_000);
        assert_eq!(controller.window(), 2 * initial, "the new window, and the old one lent");
    }

    #[test]
    fn losses_of_the_new_path_do() {
        let (epoch, mut controller, start) = controller();
        epoch.advance();
        let later = start + Duration::from_secs(1);
        controller.on_sent(later, 1200, 1);
        let before = controller.window();
        controller.on_congestion_event(later + Duration::from_millis(1), later, false, 1200);
        assert!(controller.window() < before);
    }

    #[test]
    fn what_fills_the_old_path_leaves_room_for_a_first_burst_at_once() {
        let (epoch, controller, _) = controller();
        let in_flight = controller.window();
        epoch.advance();
        assert!(controller.window() >= in_flight + 10 * u64::from(MTU));
    }

    #[test]
    fn without_another_path_it_is_cubic() {
        let (_, mut ours, now) = controller();
        let mut cubic = Arc::new(CubicConfig::default()).build(now, MTU);
        for n in 1..50_u64 {
            let at = now + Duration::from_millis(10 * n);
            for controller in [&mut ours, &mut cubic] {
                controller.on_sent(at, 1200, n);
                if n % 7 == 0 {
                    controller.on_congestion_event(at, at, false, 1200);
                }
            }
            assert_eq!(ours.window(), cubic.window());
        }
    }
}
