//! What strangers get, and what it costs others.

use super::*;

#[test]
fn one_network_does_not_get_every_connection() {
    let limits = RouterLimits { connections: (5, 2), ..RouterLimits::default() };
    let mut rig = Rig::new(limits);
    let mut enter =
        |key, ip: Option<&str>| rig.router.handle_connected(key, ip.map(|ip| ip.parse().unwrap()), rig.now);
    assert_eq!((enter(1, Some("192.0.2.1")), enter(2, Some("192.0.2.2"))), (Ok(()), Ok(())));
    assert_eq!(enter(3, Some("192.0.2.3")), Err(Denial::Limited));
    // Behind a proxy, everybody has the proxy's address, and only the total counts.
    assert_eq!((enter(4, None), enter(5, None), enter(6, None)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(enter(7, Some("198.51.100.1")), Err(Denial::Full));
    rig.router.handle_disconnected(1);
    assert_eq!(rig.router.handle_connected(8, Some("192.0.2.9".parse().unwrap()), rig.now), Ok(()));
    let stats = rig.router.stats();
    assert_eq!((stats.denied(Denial::Limited), stats.denied(Denial::Full)), (1, 1));
}

#[test]
fn logins_from_one_network_are_limited_in_their_rate() {
    let mut rig = Rig::new(RouterLimits::default());
    let source = "192.0.2.1".parse().ok();
    let mut come_and_go = |key| {
        let entered = rig.router.handle_connected(key, source, rig.now);
        rig.router.handle_disconnected(key);
        entered
    };
    let burst = u64::from(RouterLimits::default().logins_each.burst);
    assert!((0..burst).all(|key| come_and_go(key).is_ok()));
    assert_eq!(come_and_go(burst), Err(Denial::Limited));
}

#[test]
fn a_flood_does_not_keep_another_networks_first_flight_from_being_held() {
    let mut rig = Rig::new(RouterLimits::default());
    rig.join(1, address(1));
    // As many senders as are held, and more, all of one network.
    for key in 1000..1100 {
        let source = "192.0.2.1".parse().ok();
        rig.router.handle_connected(key, source, rig.now).unwrap();
        rig.router.handle_login(key, Proven::own(address(key)), rig.now);
        rig.send(key, data(address(1), 100));
    }
    rig.join(2, address(2));
    rig.send(2, data(address(1), 42));
    for key in 1000..1100 {
        rig.send(key, data(address(1), 100));
    }
    assert!(rig.dropped(DropReason::HoldFull) >= 100 - MAX_PAIRS as u64);
    rig.read(1);
    rig.allow(1, 2, 60);
    assert_eq!(rig.read(1), [data(address(2), 42)]);
}

#[test]
fn a_peer_that_sends_to_strangers_without_end_is_limited_and_others_are_not() {
    let mut rig = Rig::three();
    for _ in 0..1000 {
        rig.send(1, data(address(2), 10));
    }
    assert!(rig.dropped(DropReason::Stranger) >= 1000 - 128);
    rig.send(3, data(address(2), 10));
    rig.allow(2, 3, 60);
    assert_eq!(rig.read(2), [data(address(3), 10)]);
}

#[test]
fn two_senders_share_a_slow_receiver_evenly() {
    let mut rig = Rig::three();
    rig.allow(3, 1, 60);
    rig.allow(3, 2, 60);
    let mut bytes = [0_usize; 2];
    // One sends twenty times as much as the other, and both more than the receiver takes.
    for _ in 0..500 {
        (0..20).for_each(|_| rig.send(1, data(address(3), 12_000)));
        rig.send(2, data(address(3), 12_000));
        for frame in rig.router.take(3, 20_000, rig.now) {
            let Ok(Frame::Data(data)) = Frame::parse(&frame) else { panic!("not data") };
            bytes[usize::from(data.remote == address(2))] += frame.len();
        }
    }
    let [greedy, modest] = bytes;
    assert!(modest * 10 >= greedy * 9, "{greedy} to {modest}");
}

#[test]
fn whoever_opens_ways_without_end_forgets_only_its_own() {
    let mut rig = Rig::three();
    rig.allow(2, 1, 60);
    for n in 0..5000 {
        rig.allow(3, 100 + n, 60);
        rig.pass(Duration::from_millis(5));
    }
    rig.send(1, data(address(2), 10));
    assert_eq!(rig.read(2).len(), 2, "a ping and the packet");
}

#[test]
fn a_flood_of_control_closes_the_connection() {
    let mut rig = Rig::three();
    (0..2000).for_each(|_| rig.send(1, Frame::Ping([0; 8]).encode()));
    assert!(rig.actions().contains(&RouterAction::Close(1, Denial::Protocol)));
}

#[test]
fn the_relay_as_a_whole_queues_and_holds_no_more_than_it_may() {
    let limits = RouterLimits { queued: 300_000, held: 20_000, ..RouterLimits::default() };
    let mut rig = Rig::new(limits);
    (1..=9).for_each(|key| rig.join(key, address(key)));
    for key in 2..=9 {
        rig.send(1, data(address(key), 6000));
        rig.allow(key, 9, 60);
        (0..20).for_each(|_| rig.send(9, data(address(key), 6000)));
    }
    let stats = rig.router.stats();
    assert!(stats.queued_bytes <= 300_000 + 6200 && stats.held_bytes <= 20_000, "{stats:?}");
    assert!(stats.dropped(DropReason::RelayFull) > 0);
}
