//! Servers that go, sharers that start again, networks that let nothing through.

use nat_sim::kind::Kind;
use peer::Error;
use peer::endpoint::Standing;
use proto::dial::DialFailure;
use relay::outbound::Outbound;
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, MS, SEC, pair, registered, run};
use crate::service::Visitor;

const HOME: Kind = Kind::PORT_RESTRICTED;

#[test]
fn a_server_that_is_away_for_5_s_is_found_again_within_3_s_and_no_connection_notices() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server();
        let (a, b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        let mut events = b.endpoint.events();
        server.shutdown().await;
        for _ in 0..50 {
            sleep(100 * MS).await;
            assert!(visitor.round_trip().await < 50 * MS);
        }
        assert_eq!(*b.endpoint.standing().borrow(), Standing::Down);
        let _server = lab.server();
        let back = lab.world.elapsed();
        registered(&mut events).await;
        let took = lab.world.elapsed() - back;
        println!("registered again after {took:?}");
        assert!(took <= 3 * SEC, "{took:?}");
        assert!(visitor.round_trip().await < 50 * MS);
        let second = lab.peer("a", 1);
        second.endpoint.online().await.unwrap();
        Visitor::fetch(&second.connect(&lab.ticket()).await.unwrap(), 1000).await;
    });
}

#[test]
fn a_server_that_crashes_and_comes_back_is_found_again_by_the_next_ping() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server();
        let (_a, b) = lab.both().await;
        let took = lab.restart(server, &b, Lab::server).await;
        assert!(took <= 15 * SEC + SEC, "{took:?}");
    });
}

#[test]
fn a_server_that_was_never_there_is_an_error_after_10_s() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let a = lab.peer("a", 0);
        let error = timeout(60 * SEC, a.endpoint.online()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::ServerSilent { .. }), "{error:?}");
        let took = lab.world.elapsed();
        assert!((10 * SEC..11 * SEC).contains(&took), "{took:?}");
    });
}

#[test]
fn who_shares_after_a_restart_is_connected_to_again() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server();
        let (a, _b) = lab.both().await;
        let first = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&first, 1000).await;
        // A crash: nobody says goodbye, and the new process has another port.
        let restarted = lab.world.elapsed();
        lab.world.crash("b");
        let again = lab.peer("b", 1);
        again.share().await.unwrap();
        let why = timeout(60 * SEC, first.closed()).await.unwrap();
        let noticed = lab.world.elapsed() - restarted;
        let second = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&second, 1000).await;
        println!("closed after {noticed:?} ({why}), connected after {:?}", lab.world.elapsed() - restarted);
    });
}

#[test]
fn who_stops_sharing_says_so_and_is_away() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server();
        let (a, b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let (_, why) = tokio::join!(b.endpoint.close(), connection.closed());
        println!("{why}");
        let error = a.connect(&lab.ticket()).await.unwrap_err();
        assert_eq!(error, Error::Dial(DialFailure::Offline));
    });
}

#[test]
fn a_connector_without_udp_learns_after_10_s_that_it_can_not_reach_the_server() {
    run(&pair(1, Kind::UdpBlocked, HOME), 1, async |lab| {
        let _server = lab.server();
        let (a, b) = (lab.peer("a", 0), lab.peer("b", 0));
        b.share().await.unwrap();
        let began = lab.world.elapsed();
        let error = a.connect(&lab.ticket()).await.unwrap_err();
        assert!(matches!(error, Error::ServerSilent { .. }), "{error:?}");
        assert!(lab.world.elapsed() - began <= 10 * SEC);
    });
}

#[test]
fn a_sharer_without_udp_is_away() {
    run(&pair(1, HOME, Kind::UdpBlocked), 1, async |lab| {
        let _server = lab.server();
        let (a, b) = (lab.peer("a", 0), lab.peer("b", 0));
        assert!(matches!(b.share().await, Err(Error::ServerSilent { .. })));
        let began = lab.world.elapsed();
        let error = a.connect(&lab.ticket()).await.unwrap_err();
        assert_eq!(error, Error::Dial(DialFailure::Offline));
        assert!(lab.world.elapsed() - began <= SEC);
    });
}

#[test]
fn a_server_is_found_by_its_name() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server();
        let url = "http://s:8080".parse().unwrap();
        let outbound = Outbound::new(lab.world.net("a"), None);
        let found = peer::locate::locate(&outbound, &url).await.unwrap().server;
        assert_eq!(found.peer_id, server.peer_id());
        // First where TCP has just reached it; then whatever else may work.
        assert_eq!(found.udp[0], "192.0.2.1:3478".parse().unwrap());
        assert!(found.udp.iter().any(std::net::SocketAddr::is_ipv6), "{:?}", found.udp);
    });
}
