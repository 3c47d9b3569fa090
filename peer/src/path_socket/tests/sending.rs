use super::super::*;
use super::fake::{FakeLink, QUIC, RELAY, Room, World, address, path};

#[test]
fn packets_leave_by_the_route() {
    let world = World::new();
    world.route(Some(path(LinkId::MAIN, 1)), None);
    world.send(&QUIC, None).unwrap();
    world.route(Some(path(RELAY, 2)), None);
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.main.take_sent(), [(address(1), QUIC.to_vec(), None)]);
    assert_eq!(world.relay.take_sent(), [(address(2), QUIC.to_vec(), None)]);
}

#[test]
fn a_suspect_path_and_the_other_one_get_a_copy_each() {
    let world = World::new();
    world.route(Some(path(LinkId::MAIN, 1)), Some(path(RELAY, 2)));
    world.send(&[QUIC, QUIC].concat(), Some(3)).unwrap();
    assert_eq!(world.main.take_sent(), [(address(1), [QUIC, QUIC].concat(), Some(3))]);
    assert_eq!(world.relay.take_sent(), [(address(2), [QUIC, QUIC].concat(), Some(3))]);
    for path in [path(LinkId::MAIN, 1), path(RELAY, 2)] {
        let stats = world.socket.path_stats(world.remote, path).unwrap();
        assert_eq!((stats.tx_packets, stats.tx_bytes, stats.accepted), (2, 6, false));
        assert!(stats.last_tx.is_some() && stats.last_rx.is_none());
    }
}

#[test]
fn one_path_twice_on_a_route_gets_one_copy() {
    let world = World::new();
    world.route(Some(path(RELAY, 2)), Some(path(RELAY, 2)));
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.relay.take_sent().len(), 1);
}

#[test]
fn what_has_no_way_is_lost_without_an_error() {
    let world = World::new();
    world.send(&[0x40; 20_000], Some(1_000)).unwrap();
    assert_eq!(world.dropped(DropReason::NoPath), 20);

    world.send_to(address(9), &QUIC, None).unwrap();
    assert_eq!(world.dropped(DropReason::NoRemote), 1);

    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Refuses);
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.dropped(DropReason::LinkRefused), 1);

    world.socket.remove_link(RELAY);
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.dropped(DropReason::NoLink), 1);
}

#[test]
fn what_was_sent_a_moment_before_the_path_was_proven_leaves_with_it() {
    let world = World::new();
    world.send(&[0x40; 30], Some(10)).unwrap();
    assert_eq!(world.relay.take_sent(), []);
    world.route(Some(path(RELAY, 1)), None);
    assert_eq!(world.relay.take_sent(), [(address(1), vec![0x40; 30], Some(10))]);
    world.route(Some(path(RELAY, 2)), None);
    assert_eq!(world.relay.take_sent(), [], "and only once");
    assert_eq!(world.dropped(DropReason::NoPath), 0);
}

#[test]
fn a_route_whose_first_link_is_gone_uses_its_second() {
    let world = World::new();
    world.route(Some(path(RELAY, 1)), Some(path(LinkId::MAIN, 2)));
    world.socket.remove_link(RELAY);
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.main.take_sent().len(), 1);
}

#[test]
fn a_full_link_is_waited_for_though_another_is_writable() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);

    assert!(world.writable(&mut poller));
    assert_eq!(world.send(&QUIC, None).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(!world.writable(&mut poller), "or quinn would turn in a circle");
    assert!(!world.writable(&mut poller));
    assert_eq!(world.task.take_wakes(), 0);

    world.relay.set_room(Room::Takes);
    assert!(world.task.take_wakes() > 0);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.relay.take_sent().len(), 1);
    assert_eq!(world.dropped(DropReason::LinkFull), 0);
}

#[test]
fn a_full_link_holds_up_only_who_sends_by_it() {
    let world = World::new();
    let other = world.socket.open_remote().unwrap();
    world.socket.set_route(other, Route { primary: Some(path(LinkId::MAIN, 2)), also: None });
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);
    let (mut blocked, mut free) = (world.poller(), world.poller());

    assert!(world.writable(&mut blocked));
    world.send(&QUIC, None).unwrap_err();
    assert!(world.writable(&mut free), "in between, on the same thread");
    world.send_to(other, &QUIC, None).unwrap();
    assert!(!world.writable(&mut blocked));
    assert!(world.writable(&mut free));
    world.send_to(other, &QUIC, None).unwrap();
}

#[test]
fn the_endpoints_own_packets_are_sent_or_lost_and_nobody_waits() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.dropped(DropReason::LinkFull), 1);
    assert!(world.writable(&mut poller));
}

#[test]
fn a_new_route_ends_the_wait_for_the_old_one() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap_err();
    assert!(!world.writable(&mut poller));

    world.route(Some(path(LinkId::MAIN, 1)), None);
    assert_eq!(world.task.take_wakes(), 1);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.main.take_sent().len(), 1);
}

#[test]
fn a_route_that_changes_before_the_wait_begins_is_not_missed() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap_err();
    world.route(Some(path(LinkId::MAIN, 1)), None);
    assert!(world.writable(&mut poller));
}

#[test]
fn removing_a_full_link_ends_the_wait_for_it() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::Full);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap_err();
    assert!(!world.writable(&mut poller));
    world.socket.remove_link(RELAY);
    assert_eq!(world.task.take_wakes(), 1);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap();
}

#[test]
fn a_link_that_lies_about_its_room_cannot_keep_the_thread() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), None);
    world.relay.set_room(Room::FullAndLies);
    let mut tries = 0;
    while world.writable(&mut poller) {
        world.send(&QUIC, None).unwrap_err();
        tries += 1;
        assert!(tries < 100, "quinn would turn in a circle");
    }
    assert_eq!(world.task.take_wakes(), 1, "it will try again after others");
    assert!(world.writable(&mut poller));
}

#[test]
fn one_full_path_of_two_is_not_waited_for() {
    let world = World::new();
    let mut poller = world.poller();
    world.route(Some(path(RELAY, 1)), Some(path(LinkId::MAIN, 2)));
    world.relay.set_room(Room::Full);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap();
    assert_eq!(world.dropped(DropReason::LinkFull), 1);
    assert_eq!(world.main.take_sent().len(), 1);

    world.main.set_room(Room::Full);
    assert!(world.writable(&mut poller));
    world.send(&QUIC, None).unwrap_err();
    assert!(!world.writable(&mut poller));
    world.main.set_room(Room::Takes);
    assert!(world.writable(&mut poller), "whichever has room first");
}

#[test]
fn segmentation_offload_is_the_main_links_and_cut_for_lesser_ones() {
    let world = World::new();
    assert_eq!((world.socket.max_transmit_segments(), world.socket.max_receive_segments()), (10, 64));
    assert!(!world.socket.may_fragment());

    let lesser = FakeLink::with_segments(2);
    world.socket.add_link(RELAY, lesser.clone());
    assert_eq!(world.socket.max_transmit_segments(), 10);
    world.route(Some(path(RELAY, 1)), None);
    world.send(&[0x40; 47], Some(10)).unwrap();
    let sent: Vec<_> =
        lesser.take_sent().into_iter().map(|(_, bytes, segment)| (bytes.len(), segment)).collect();
    assert_eq!(sent, [(20, Some(10)), (20, Some(10)), (7, None)]);
    let stats = world.socket.path_stats(world.remote, path(RELAY, 1)).unwrap();
    assert_eq!((stats.tx_packets, stats.tx_bytes), (5, 47));

    lesser.set_room(Room::TakesOnly(1));
    world.send(&[0x40; 47], Some(10)).unwrap();
    assert_eq!(lesser.take_sent().len(), 1);
    assert_eq!(world.dropped(DropReason::LinkFull), 3);
}

#[test]
fn the_socket_looks_like_ipv6_with_the_main_links_port() {
    let world = World::new();
    assert_eq!(world.socket.local_addr().unwrap(), "[::]:4433".parse().unwrap());
    let (empty, _stun) = PathSocket::new([0; 32]);
    assert!(empty.local_addr().unwrap().is_ipv6());
    assert_eq!((empty.max_transmit_segments(), empty.max_receive_segments()), (1, 1));
}

#[test]
fn a_path_is_counted_as_long_as_it_is_used() {
    let world = World::new();
    world.route(Some(path(RELAY, 1)), None);
    world.socket.accept_from(world.remote, path(LinkId::MAIN, 2));
    world.route(None, None);
    let paths: Vec<_> = world.socket.stats().paths.into_iter().map(|stats| stats.path).collect();
    assert_eq!(paths, [path(LinkId::MAIN, 2)]);
    assert!(!world.socket.set_route(address(1), Route::default()), "nobody's address");
}
