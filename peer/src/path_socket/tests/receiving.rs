use std::time::Duration;

use super::super::table::{MAX_ACCEPTED, MAX_REMOTES};
use super::super::*;
use super::fake::{FakeLink, QUIC, RELAY, World, address, path, stun};

#[test]
fn packets_of_an_accepted_path_go_up_as_the_remotes() {
    let world = World::new();
    assert!(world.socket.accept_from(world.remote, path(LinkId::MAIN, 1)));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec())]));
    assert_eq!(world.receive(), None);
}

#[test]
fn the_same_address_on_another_link_is_another_path() {
    let world = World::new();
    world.socket.accept_from(world.remote, path(RELAY, 1));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![]));
    world.relay.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec())]));
}

#[test]
fn a_buffer_of_stun_and_quic_goes_two_ways() {
    let mut world = World::new();
    world.socket.accept_from(world.remote, path(LinkId::MAIN, 1));
    let quic = |n: u8| [&[0x40, n][..], &[0; 26]].concat();
    let batch = [quic(1), stun(28), quic(2), stun(28), stun(20)].concat();
    world.main.arrive(address(1), 28, &batch);
    assert_eq!(world.receive(), Some(vec![(world.remote, quic(1)), (world.remote, quic(2))]));
    for len in [28, 28, 20] {
        let expected = Datagram { link: LinkId::MAIN, from: address(1), payload: stun(len) };
        assert_eq!(world.stun.try_recv(), Ok(expected));
    }
    assert!(world.stun.try_recv().is_err());
    let stats = world.socket.path_stats(world.remote, path(LinkId::MAIN, 1)).unwrap();
    assert_eq!((stats.rx_packets, stats.rx_bytes), (2, 56));
}

#[test]
fn stun_that_nobody_takes_is_dropped_and_counted() {
    let world = World::new();
    for _ in 0..STUN_QUEUE + 5 {
        world.main.arrive(address(1), 20, &stun(20));
        assert_eq!(world.receive(), Some(vec![]));
    }
    assert_eq!(world.dropped(DropReason::StunOverflow), 5);
}

#[test]
fn what_is_neither_stun_nor_quic_is_dropped_and_counted() {
    let world = World::new();
    world.main.arrive(address(1), 2, &[0x16, 3, 0x20, 0]);
    assert_eq!(world.receive(), Some(vec![]));
    assert_eq!(world.dropped(DropReason::Unknown), 2);
}

#[test]
fn what_a_link_says_of_a_packet_is_checked() {
    let world = World::new();
    world.socket.accept_from(world.remote, path(RELAY, 1));
    let meta = |len, stride| RecvMeta { addr: address(1), len, stride, ecn: None, dst_ip: None };
    world.relay.arrive_as(meta(3, 0), &QUIC);
    assert_eq!(world.receive(), Some(vec![]));
    world.relay.arrive_as(meta(1_000_000, 3), &QUIC);
    assert_eq!(world.receive(), Some(vec![]));
    assert_eq!(world.dropped(DropReason::Malformed), 2);
    world.relay.arrive_as(meta(0, 0), &[]);
    assert_eq!(world.receive(), Some(vec![]));
    world.relay.arrive_as(meta(3, 100), &QUIC);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec())]));
}

#[test]
fn a_busy_link_does_not_silence_another() {
    let world = World::new();
    let other = world.socket.open_remote().unwrap();
    world.socket.accept_from(world.remote, path(LinkId::MAIN, 1));
    world.socket.accept_from(other, path(RELAY, 2));
    world.main.arrive_for_ever(address(1));
    world.relay.arrive_for_ever(address(2));
    let from: Vec<_> = (0..6).flat_map(|_| world.receive().unwrap()).map(|(from, _)| from).collect();
    assert_eq!(from.iter().filter(|&&from| from == other).count(), 3);
}

#[test]
fn while_pending_every_link_wakes_the_receiver() {
    let world = World::new();
    assert_eq!(world.receive(), None);
    for link in [&world.main, &world.relay, &world.main] {
        world.task.take_wakes();
        link.arrive(address(1), 20, &stun(20));
        assert_eq!(world.task.take_wakes(), 1);
        assert_eq!(world.receive(), Some(vec![]));
        assert_eq!(world.receive(), None);
    }
}

#[test]
fn a_silent_link_is_not_asked_again() {
    let world = World::new();
    assert_eq!(world.receive(), None);
    for _ in 0..100 {
        world.main.arrive(address(1), 20, &stun(20));
        world.receive();
    }
    assert_eq!(world.relay.looks(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_fails_to_receive_is_skipped_and_looked_at_again() {
    let world = World::new();
    world.socket.accept_from(world.remote, path(RELAY, 1));
    for _ in 0..3 {
        world.main.fail(io::ErrorKind::NetworkDown);
    }
    world.relay.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec())]));
    for looks in 1..=3 {
        for _ in 0..10 {
            assert_eq!(world.receive(), None);
        }
        assert_eq!((world.main.looks(), world.dropped(DropReason::LinkFailed)), (looks, looks as u64));
        assert!(world.socket.is_failing(LinkId::MAIN));
        world.task.take_wakes();
        tokio::time::advance(Duration::from_millis(101)).await;
        assert_eq!(world.task.take_wakes(), 1);
    }
    assert_eq!(world.receive(), None);
    world.main.arrive(address(1), 20, &stun(20));
    assert_eq!(world.receive(), Some(vec![]), "the link is well again");
    assert!(!world.socket.is_failing(LinkId::MAIN));
}

#[test]
fn a_link_can_come_and_go_while_the_receiver_waits() {
    let world = World::new();
    let late = FakeLink::new();
    assert_eq!(world.receive(), None);

    world.task.take_wakes();
    world.socket.add_link(LinkId(2), late.clone());
    assert_eq!(world.task.take_wakes(), 1);
    assert_eq!(world.receive(), None);
    late.arrive(address(1), 20, &stun(20));
    assert_eq!(world.task.take_wakes(), 1);
    assert_eq!(world.receive(), Some(vec![]));

    world.socket.remove_link(LinkId(2));
    assert_eq!(world.task.take_wakes(), 1);
    late.arrive(address(1), 20, &stun(20));
    let looks = late.looks();
    assert_eq!(world.receive(), None);
    assert_eq!(late.looks(), looks);
}

#[test]
fn a_link_of_a_removed_ones_number_inherits_nothing() {
    let world = World::new();
    world.socket.accept_from(world.remote, path(RELAY, 1));
    world.socket.remove_link(RELAY);
    world.socket.add_link(RELAY, world.relay.clone());
    world.relay.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![]));
    assert_eq!(world.socket.stats().held, 1);
}

#[tokio::test(start_paused = true)]
async fn quic_that_overtakes_its_check_is_held_until_its_path_is_accepted() {
    let world = World::new();
    world.main.arrive(address(1), 3, &[QUIC, [0x40, 3, 4]].concat());
    assert_eq!(world.receive(), Some(vec![]));
    assert_eq!(world.receive(), None);
    assert_eq!(world.socket.stats().held, 2);

    world.task.take_wakes();
    tokio::time::advance(Duration::from_millis(99)).await;
    assert!(world.socket.accept_from(world.remote, path(LinkId::MAIN, 1)));
    assert_eq!(world.task.take_wakes(), 1);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec()), (world.remote, vec![0x40, 3, 4])]));
    assert_eq!(world.receive(), None);
    assert_eq!(world.socket.stats().held, 0);
}

#[tokio::test(start_paused = true)]
async fn quic_from_a_source_that_nobody_accepts_is_dropped_and_counted() {
    let world = World::new();
    world.main.arrive(address(1), 3, &QUIC);
    world.receive();
    tokio::time::advance(Duration::from_millis(101)).await;
    assert!(world.socket.accept_from(world.remote, path(LinkId::MAIN, 1)));
    assert_eq!(world.receive(), None);
    assert_eq!(world.dropped(DropReason::HoldExpired), 1);
}

#[test]
fn a_source_is_handed_up_until_it_is_no_longer_accepted() {
    let world = World::new();
    world.socket.accept_from(world.remote, path(LinkId::MAIN, 1));
    world.socket.stop_accepting(world.remote, path(LinkId::MAIN, 1));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![]));

    world.socket.accept_from(world.remote, path(LinkId::MAIN, 2));
    world.socket.close_remote(world.remote);
    world.main.arrive(address(2), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![]));
    assert!(!world.socket.accept_from(world.remote, path(LinkId::MAIN, 2)), "the remote is gone");
}

#[test]
fn a_path_is_the_last_ones_that_asked() {
    let world = World::new();
    let other = world.socket.open_remote().unwrap();
    world.socket.accept_from(world.remote, path(LinkId::MAIN, 1));
    world.socket.accept_from(other, path(LinkId::MAIN, 1));
    world.socket.stop_accepting(world.remote, path(LinkId::MAIN, 1));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(other, QUIC.to_vec())]));
}

#[test]
fn a_reserved_path_is_taken_only_by_who_reserves_it_too() {
    let world = World::new();
    let (peer, later) = (world.socket.open_remote().unwrap(), world.socket.open_remote().unwrap());
    assert!(world.socket.reserve(world.remote, path(LinkId::MAIN, 1)));
    assert!(!world.socket.accept_from(peer, path(LinkId::MAIN, 1)));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(world.remote, QUIC.to_vec())]));
    assert!(world.socket.reserve(later, path(LinkId::MAIN, 1)));
    world.main.arrive(address(1), 3, &QUIC);
    assert_eq!(world.receive(), Some(vec![(later, QUIC.to_vec())]));
    world.socket.close_remote(later);
    assert!(world.socket.accept_from(peer, path(LinkId::MAIN, 1)), "it is free again");
}

#[tokio::test(start_paused = true)]
async fn one_path_too_many_displaces_the_one_that_was_silent_longest() {
    let world = World::new();
    let max = u16::try_from(MAX_ACCEPTED).unwrap();
    world.route(Some(path(LinkId::MAIN, 1)), None);
    for port in 1..=max {
        world.socket.accept_from(world.remote, path(LinkId::MAIN, port));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    world.main.arrive(address(2), 3, &QUIC);
    world.receive();
    world.socket.accept_from(world.remote, path(LinkId::MAIN, max + 1));
    let accepted: Vec<u16> = world
        .socket
        .stats()
        .paths
        .iter()
        .filter(|path| path.accepted)
        .map(|path| path.path.remote.port())
        .collect();
    let expected: Vec<u16> = [1, 2].into_iter().chain(4..=max + 1).collect();
    assert_eq!(accepted, expected, "1 is on the route, 2 has spoken since");
}

#[test]
fn remotes_are_private_random_addresses_and_bounded() {
    let (a, _stun) = PathSocket::new([1; 32]);
    let (b, _stun) = PathSocket::new([1; 32]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..MAX_REMOTES {
        let remote = a.open_remote().unwrap();
        assert_eq!(Some(remote), b.open_remote(), "the seed decides");
        let SocketAddr::V6(v6) = remote else { panic!("an IPv6 address") };
        assert!(v6.ip().octets()[0] == 0xfd && v6.port() != 0);
        assert!(seen.insert(remote));
    }
    assert_eq!(a.open_remote(), None);
    a.close_remote(*seen.first().unwrap());
    assert!(a.open_remote().is_some());
}
