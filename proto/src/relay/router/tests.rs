use super::*;
use crate::clock::start;
use crate::relay::hold::{HELD, MAX_PAIR, MAX_PAIRS};
use crate::wire::relay::{Check, DATA_HEAD, Data};

mod limits;
mod random;

const RELAY: PeerId = PeerId::from_bytes([0xee; 32]);

/// The address of the peer that connects as `key`.
fn address(key: SessionKey) -> Address {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    Address { peer: PeerId::from_bytes(bytes), instance: Instance([1; 8]) }
}

fn data(to: Address, len: usize) -> Vec<u8> {
    Frame::Data(Data { remote: to, ecn: 0, segment: 1200, packets: &vec![7; len] }).encode()
}

fn check(to: Address, len: usize) -> Vec<u8> {
    Frame::Check(Check { remote: to, datagram: &vec![7; len] }).encode()
}

struct Rig {
    router: Router,
    now: Instant,
}

impl Rig {
    fn new(limits: RouterLimits) -> Self {
        let now = start();
        Self { router: Router::new(RELAY, limits, now), now }
    }

    /// A relay at which 1, 2 and 3 have logged in.
    fn three() -> Self {
        let mut rig = Self::new(RouterLimits::default());
        (1..=3).for_each(|key| rig.join(key, address(key)));
        rig
    }

    fn join(&mut self, key: SessionKey, address: Address) {
        let source = IpAddr::from([10, (key >> 8) as u8, key as u8, 1]);
        assert_eq!(self.router.handle_connected(key, Some(source), self.now), Ok(()));
        self.router.handle_login(key, Proven::own(address), self.now);
        assert_eq!(self.read(key), [Frame::Welcome.encode()]);
        self.actions();
    }

    fn send(&mut self, key: SessionKey, frame: Vec<u8>) {
        self.router.handle_frame(key, frame, self.now);
    }

    /// `key` lets `from` in.
    fn allow(&mut self, key: SessionKey, from: SessionKey, seconds: u8) {
        self.send(key, Frame::Allow { from: address(from), seconds }.encode());
    }

    /// All that waits for `key`.
    fn read(&mut self, key: SessionKey) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let taken = self.router.take(key, 1, self.now);
            if taken.is_empty() {
                return all;
            }
            all.extend(taken);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.router.handle_timeout(self.now);
    }

    /// The same, while all peers answer pings.
    fn pass_alive(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            (1..=3).for_each(|key| self.send(key, Frame::Pong([0; 8]).encode()));
            self.pass((end - self.now).min(Duration::from_secs(5)));
            (1..=3).for_each(|key| drop(self.read(key)));
        }
    }

    fn closed(&mut self) -> Vec<RouterAction> {
        let mut actions = self.actions();
        actions.retain(|action| matches!(action, RouterAction::Close(..)));
        actions
    }

    fn actions(&mut self) -> Vec<RouterAction> {
        std::iter::from_fn(|| self.router.poll_action()).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.router.stats().dropped(reason)
    }
}

#[test]
fn a_flood_without_permission_forwards_nothing() {
    let mut rig = Rig::three();
    for _ in 0..10_000 {
        rig.send(1, data(address(2), 1200));
        rig.send(1, check(address(2), 100));
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.read(2), Vec::<Vec<u8>>::new());
    }
    assert_eq!(rig.router.stats().forwarded_bytes, 0);
    assert!(rig.router.stats().held_bytes <= MAX_PAIR);
    rig.pass(HELD);
    assert_eq!(rig.router.stats().held_bytes, 0);
    let dropped = [DropReason::Stranger, DropReason::HoldFull, DropReason::NotLetIn];
    assert_eq!(dropped.map(|reason| rig.dropped(reason)).iter().sum::<u64>(), 20_000);
}

#[test]
fn what_is_let_in_arrives_as_it_was_from_its_senders_address() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    rig.send(1, data(address(2), 5000));
    rig.send(1, check(address(2), 100));
    assert_eq!(rig.actions(), [RouterAction::Ready(2)]);
    // Checks pass by data.
    assert_eq!(rig.read(2), [check(address(1), 100), data(address(1), 5000)]);
    let stats = rig.router.stats();
    assert_eq!((stats.forwarded_frames, stats.queued_bytes), (2, 0));
}

#[test]
fn an_allow_releases_what_was_held_in_its_order() {
    let mut rig = Rig::three();
    let frames: Vec<_> = (1..=5).map(|n| data(address(2), n * 100)).collect();
    frames.iter().for_each(|frame| rig.send(1, frame.clone()));
    rig.send(3, data(address(2), 77));
    assert_eq!(rig.read(2), Vec::<Vec<u8>>::new());
    rig.allow(2, 1, 1);
    let expected: Vec<_> = (1..=5).map(|n| data(address(1), n * 100)).collect();
    assert_eq!(rig.read(2), expected);
    assert!(rig.router.stats().held_bytes > 0, "the other sender's is still held");
}

#[test]
fn what_is_held_is_bounded_and_the_oldest_goes_first() {
    let mut rig = Rig::three();
    (1..=20).for_each(|n| rig.send(1, data(address(2), 1000 + n)));
    assert!(rig.router.stats().held_bytes <= MAX_PAIR);
    rig.allow(2, 1, 60);
    let got = rig.read(2);
    assert_eq!(got.first().unwrap().len(), DATA_HEAD + 1000 + 14);
    assert_eq!(got.last().unwrap().len(), DATA_HEAD + 1000 + 20);
    assert_eq!(rig.dropped(DropReason::HoldFull), 13);
}

#[test]
fn what_is_held_is_forgotten_after_five_seconds() {
    let mut rig = Rig::three();
    rig.send(1, data(address(2), 100));
    rig.pass(Duration::from_millis(4999));
    assert!(rig.router.stats().held_bytes > 0);
    assert!(rig.router.poll_timeout().unwrap() <= rig.now + Duration::from_millis(1));
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.router.stats().held_bytes, 0);
    rig.allow(2, 1, 60);
    assert_eq!(rig.read(2), Vec::<Vec<u8>>::new());
    assert_eq!(rig.dropped(DropReason::NotLetIn), 1);
}

#[test]
fn sending_opens_the_way_back_for_a_minute() {
    for (waits, arrives) in [(59_999, true), (60_000, false)] {
        let mut rig = Rig::three();
        rig.send(1, data(address(2), 10));
        rig.pass_alive(Duration::from_millis(waits));
        rig.send(2, data(address(1), 20));
        assert_eq!(rig.read(1).contains(&data(address(2), 20)), arrives);
        // Sending opened the way of the first one's packets too, those of a while ago excepted.
        rig.send(1, data(address(2), 30));
        assert!(rig.read(2).contains(&data(address(1), 30)));
    }
}

#[test]
fn a_way_closes_when_its_time_is_over() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 3);
    rig.pass(Duration::from_millis(2999));
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(2).len(), 1);
    rig.pass(Duration::from_millis(1));
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(2).len(), 0);
}

#[test]
fn an_allow_is_for_one_instance_alone() {
    let mut rig = Rig::three();
    let other = Address { instance: Instance([2; 8]), ..address(1) };
    rig.join(4, other);
    rig.allow(2, 1, 60);
    rig.send(4, data(address(2), 10));
    assert_eq!(rig.read(2).len(), 0);
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(2).len(), 1);
}

#[test]
fn only_the_same_instance_displaces_itself_and_keeps_whom_it_let_in() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    rig.join(4, Address { instance: Instance([2; 8]), ..address(2) });
    assert_eq!(rig.actions(), []);
    rig.send(3, data(address(2), 55));
    let source = IpAddr::from([10, 0, 2, 1]);
    rig.router.handle_connected(5, Some(source), rig.now).unwrap();
    rig.router.handle_login(5, Proven::own(address(2)), rig.now);
    assert_eq!(rig.actions(), [RouterAction::Close(2, Denial::Replaced), RouterAction::Ready(5)]);
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(5), [Frame::Welcome.encode(), data(address(1), 10)]);
    // What was held is still held.
    rig.send(5, Frame::Allow { from: address(3), seconds: 9 }.encode());
    assert_eq!(rig.read(5), [data(address(3), 55)]);
    // The older connection's end does not take the newer one's address away.
    rig.router.handle_disconnected(2);
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(5).len(), 1);
}

#[test]
fn a_service_lets_everybody_in_and_answers_by_the_same_way() {
    let mut rig = Rig::three();
    let service = Address { peer: RELAY, instance: Instance::SERVICE };
    rig.router.open_service(9, rig.now);
    rig.send(1, data(service, 1200));
    assert_eq!(rig.actions(), [RouterAction::Ready(9)]);
    assert_eq!(rig.read(9), [data(address(1), 1200)]);
    rig.send(9, data(address(1), 700));
    assert_eq!(rig.read(1), [data(service, 700)]);
    // And can't reach whoever has not spoken to it.
    rig.send(9, data(address(2), 700));
    assert_eq!(rig.read(2).len(), 0);
    assert_eq!(rig.router.stats().connections, 3, "it takes nobody's place");
}

#[test]
fn before_the_login_a_packet_reaches_the_service_alone_and_only_that_answers() {
    let mut rig = Rig::three();
    let service = Address { peer: RELAY, instance: Instance::SERVICE };
    rig.router.open_service(9, rig.now);
    assert_eq!(rig.router.handle_connected(4, None, rig.now), Ok(()));
    rig.router.handle_first(4, &[7; 1200], rig.now);
    // Once, and nothing that is too long.
    rig.router.handle_first(4, &[7; 1200], rig.now);
    assert_eq!(rig.router.handle_connected(5, None, rig.now), Ok(()));
    rig.router.handle_first(5, &[7; MAX_FIRST + 1], rig.now);
    let guest = Address { peer: RELAY, instance: Instance(5_u64.to_be_bytes()) };
    assert_eq!(rig.read(9), [data(guest, 1200)]);
    // Peers that guess the address find nobody there.
    rig.send(1, data(guest, 700));
    assert_eq!(rig.read(1), [Frame::Gone(guest).encode()]);
    rig.send(9, data(guest, 700));
    assert_eq!(rig.read(4), [data(service, 700)]);
    // The login is no move.
    rig.router.handle_login(4, Proven::own(address(4)), rig.now);
    rig.send(9, data(guest, 701));
    assert_eq!(rig.read(4), [Frame::Welcome.encode(), data(service, 701)]);
    rig.send(4, data(service, 702));
    assert_eq!(rig.read(9), [data(guest, 702)]);
    rig.allow(2, 4, 60);
    rig.send(4, data(address(2), 703));
    assert_eq!(rig.read(2), [data(address(4), 703)]);
    // With the connection its address is gone.
    rig.router.handle_disconnected(4);
    rig.send(9, data(guest, 704));
    assert_eq!(rig.dropped(DropReason::Offline), 2);
}

#[test]
fn where_there_is_no_service_a_packet_before_the_login_goes_nowhere() {
    let mut rig = Rig::three();
    assert_eq!(rig.router.handle_connected(4, None, rig.now), Ok(()));
    rig.router.handle_first(4, &[7; 1200], rig.now);
    // And whoever says more than that is cut off, as ever.
    rig.send(4, data(address(1), 1200));
    assert_eq!(rig.closed(), [RouterAction::Close(4, Denial::Protocol)]);
    let stats = rig.router.stats();
    assert_eq!((stats.forwarded_frames, stats.queued_bytes, stats.held_bytes), (0, 0, 0));
}

#[test]
fn a_sender_learns_that_nobody_is_there_but_not_without_end() {
    let mut rig = Rig::three();
    for _ in 0..1000 {
        rig.send(1, data(address(77), 10));
    }
    let told = rig.read(1);
    assert_eq!(told.len(), GONE.burst as usize);
    assert!(told.iter().all(|frame| *frame == Frame::Gone(address(77)).encode()));
    assert_eq!(rig.dropped(DropReason::Offline), 1000);
}

#[test]
fn a_slow_reader_loses_packets_and_then_its_connection_and_nobody_else_notices() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    rig.allow(3, 1, 60);
    rig.send(1, data(address(2), 10_000));
    // Its writer takes this and is stuck with it from here on.
    assert_eq!(rig.router.take(2, 1, rig.now).len(), 1);
    for _ in 0..199 {
        rig.send(1, data(address(2), 10_000));
        rig.send(1, data(address(3), 10_000));
        assert_eq!(rig.read(3).len(), 1);
        rig.pass(Duration::from_millis(10));
    }
    assert!(rig.router.stats().queued_bytes <= RouterLimits::default().data_queue);
    assert!(rig.dropped(DropReason::DataFull) > 80);
    rig.actions();
    rig.pass(Duration::from_millis(10));
    assert_eq!(rig.actions(), [RouterAction::Close(2, Denial::Slow)]);
    assert_eq!(rig.router.stats().queued_bytes, 0);
    rig.send(1, data(address(3), 10_000));
    assert_eq!(rig.read(3).len(), 1);
}

#[test]
fn however_many_do_not_read_the_others_have_room() {
    let mut rig = Rig::new(RouterLimits { queued: 8 << 20, ..RouterLimits::default() });
    (1..=102).for_each(|key| rig.join(key, address(key)));
    for slow in 2..=101 {
        rig.allow(slow, 1, 60);
        (0..20).for_each(|_| rig.send(1, data(address(slow), 10_000)));
    }
    rig.allow(102, 1, 60);
    for _ in 0..10 {
        rig.send(1, data(address(102), 10_000));
        assert_eq!(rig.read(102).len(), 1);
    }
    assert_eq!(rig.dropped(DropReason::RelayFull), 0);
}

#[test]
fn calling_at_addresses_where_nobody_is_opens_no_ways() {
    let mut rig = Rig::three();
    for key in 100..10_000 {
        rig.send(1, data(address(key), 10));
    }
    let burst = RouterLimits::default().strangers_each.burst as usize;
    assert_eq!(rig.router.sessions[&1].ways.len(), burst);
}

#[test]
fn a_reader_that_takes_a_little_at_a_time_is_not_cut() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    rig.send(1, data(address(2), 60_000));
    assert_eq!(rig.router.take(2, 1, rig.now).len(), 1);
    for _ in 0..15 {
        rig.pass(Duration::from_millis(1999));
        rig.router.handle_progress(2, rig.now);
        assert_eq!(rig.closed(), []);
    }
    rig.read(2);
    rig.pass(Duration::from_millis(2001));
    assert_eq!(rig.closed(), [], "nothing waits for it");
}

#[test]
fn a_peer_is_pinged_every_15_seconds_and_cut_when_it_stays_silent() {
    let mut rig = Rig::new(RouterLimits::default());
    rig.join(1, address(1));
    rig.pass(Duration::from_secs(15));
    let pings = rig.read(1);
    assert_eq!(pings.len(), 1);
    let Ok(Frame::Ping(bytes)) = Frame::parse(&pings[0]) else { panic!("{pings:?}") };
    rig.send(1, Frame::Pong(bytes).encode());
    rig.actions();
    for _ in 0..2 {
        rig.pass(Duration::from_secs(15));
        assert_eq!(rig.read(1).len(), 1);
        assert_eq!(rig.actions(), [RouterAction::Ready(1)]);
    }
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.actions(), [RouterAction::Close(1, Denial::Silent)]);
    assert_eq!(rig.router.poll_timeout(), None, "nothing is left of it");
}

#[test]
fn a_ping_is_answered_with_its_bytes() {
    let mut rig = Rig::three();
    rig.send(1, Frame::Ping([3; 8]).encode());
    assert_eq!(rig.read(1), [Frame::Pong([3; 8]).encode()]);
}

#[test]
fn what_is_no_frame_closes_the_connection_and_an_unknown_one_is_ignored() {
    for message in [vec![], vec![4, 1, 2], Frame::Welcome.encode(), Frame::Gone(address(1)).encode()] {
        let mut rig = Rig::three();
        rig.send(1, message);
        assert_eq!(rig.actions(), [RouterAction::Close(1, Denial::Protocol)]);
        assert_eq!((rig.router.stats().malformed, rig.router.stats().sessions), (1, 2));
    }
    let mut rig = Rig::three();
    rig.send(1, vec![200, 1, 2, 3]);
    assert_eq!((rig.actions(), rig.router.stats().unknown), (vec![], 1));
}

#[test]
fn nothing_is_forwarded_for_whoever_has_not_logged_in() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    rig.router.handle_connected(9, None, rig.now).unwrap();
    rig.send(9, data(address(2), 10));
    assert_eq!(rig.actions(), [RouterAction::Close(9, Denial::Protocol)]);
    assert_eq!(rig.router.stats().forwarded_bytes, 0);
    // Nor does the relay wait for a login without end.
    rig.router.handle_connected(10, None, rig.now).unwrap();
    rig.pass(RouterLimits::default().login);
    assert_eq!(rig.actions(), [RouterAction::Close(10, Denial::Silent)]);
    rig.router.handle_connected(11, None, rig.now).unwrap();
    rig.router.handle_bad_login(11);
    assert_eq!(rig.actions(), [RouterAction::Close(11, Denial::BadLogin)]);
}

#[test]
fn a_restart_is_announced_and_nobody_is_let_in_after_it() {
    let mut rig = Rig::three();
    rig.router.restart(Duration::from_millis(700));
    for key in 1..=3 {
        assert_eq!(rig.read(key), [Frame::Restarting(700).encode()]);
    }
    assert_eq!(rig.router.handle_connected(4, None, rig.now), Err(Denial::Restarting));
    rig.actions();
    rig.router.close();
    assert_eq!(rig.actions(), [1, 2, 3].map(|key| RouterAction::Close(key, Denial::Restarting)));
    assert_eq!(rig.router.stats().connections, 0);
}
