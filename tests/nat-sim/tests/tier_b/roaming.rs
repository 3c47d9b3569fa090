//! Networks that change under a stream in use, and are noticed by what the system, the server and the path
//! itself tell.

use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::world::{Plan, World};
use peer::Endpoint;
use tokio::time::sleep;

use crate::lab::{D, Lab, MS, R, SEC, pair, run};
use crate::life::{calms, stall_after};
use crate::service::Visitor;

/// A home, and another one to move to; each has a router of its own.
fn plan(a: Kind, b: Kind) -> Plan {
    let plan = World::plan(1).home("a", a).home("b", b).empty_home("elsewhere", Kind::PORT_RESTRICTED);
    plan.server("s").server_rtt(R).direct_rtt(D)
}

fn kinds() -> [Kind; 2] {
    [Kind::PORT_RESTRICTED, Kind::OPEN]
}

#[test]
fn a_stream_in_use_outlives_the_move_of_either_side_within_2_s() {
    for (a, b) in kinds().into_iter().flat_map(|a| kinds().map(|b| (a, b))) {
        for (host, calm) in
            ["a", "b"].into_iter().flat_map(|host| calms().take(2).map(move |calm| (host, calm)))
        {
            let roam = |lab: &Lab| lab.world.with_world(|world| world.roam(host, "elsewhere"));
            let stall = stall_after(&plan(a, b), calm, roam);
            println!("{a} × {b}: {host} moves after {calm:?}: {stall:?}");
            assert!(stall <= 2 * SEC, "{a} × {b}: {host}: {stall:?}");
        }
    }
}

#[test]
fn a_stream_in_use_outlives_three_moves_in_a_second() {
    for host in ["a", "b"] {
        let moves = |lab: &Lab| {
            let world = lab.world.clone();
            tokio::spawn(async move {
                for home in ["elsewhere", host, "elsewhere"] {
                    world.with_world(|world| world.roam(host, home));
                    sleep(330 * MS).await;
                }
            });
        };
        let stall = stall_after(&plan(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 2 * SEC, moves);
        println!("{host} moves three times in a second: {stall:?}");
        assert!(stall <= 3 * SEC, "{host}: {stall:?}");
    }
}

#[test]
fn who_moves_is_registered_where_it_is_now_and_others_find_it_there() {
    run(&plan(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 1, async |lab| {
        let _server = lab.server();
        let (a, b) = lab.both().await;
        lab.world.with_world(|world| world.roam("b", "elsewhere"));
        sleep(SEC).await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 100_000).await;
        drop(b);
    });
}

#[test]
fn a_sharer_that_moves_while_nothing_is_said_is_reached_at_once_afterwards() {
    run(&plan(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 1, async |lab| {
        let _server = lab.server();
        let (a, _b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        visitor.round_trip().await;
        // Longer than the server lets an offer be answered.
        sleep(45 * SEC).await;
        lab.world.with_world(|world| world.roam("b", "elsewhere"));
        sleep(2 * SEC).await;
        let took = visitor.round_trip().await;
        println!("the first round trip after the move: {took:?}");
        assert!(took <= D + 10 * MS, "{took:?}");
    });
}

#[test]
fn a_main_socket_whose_own_address_is_gone_is_bound_anew() {
    run(&plan(Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 1, async |lab| {
        let _server = lab.server();
        let (_, _b) = lab.both().await;
        let a = lab.peer_bound_to_its_address("a", 1);
        a.endpoint.online().await.unwrap();
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        visitor.round_trip().await;
        lab.world.with_world(|world| world.roam("a", "elsewhere"));
        let took = visitor.round_trip().await;
        println!("the first round trip after the move: {took:?}");
        assert!(took <= 2 * SEC, "{took:?}");
    });
}

#[test]
fn an_endpoint_whose_owner_is_gone_watches_no_network() {
    run(&pair(1, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED), 1, async |lab| {
        let a = lab.peer("a", 0);
        let watched = || lab.world.watched("a");
        sleep(100 * MS).await;
        assert_eq!(watched(), 1);
        Endpoint::close(&a.endpoint).await;
        drop(a);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(watched(), 0);
    });
}
