//! Servers that are not where they are believed to be, and relays that are away.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nat_sim::kind::Kind;
use peer::PathPolicy;
use proto::path::PathKind;
use proto::wire::signal::RelayHint;
use relay::net::Net as _;
use tokio::time::sleep;

use crate::lab::{Lab, MS, Peer, SEC, key, pair, run};
use crate::relayed::{kinds, sharer};
use crate::service::Visitor;

const HOME: Kind = Kind::PORT_RESTRICTED;
/// RFC 7050 §8.1.
const NAT64: &str = "ipv4only.arpa";
const HARD: Kind = Kind::SYMMETRIC_RANDOM;

/// Waits for a direct path, and tells how long it took since then.
async fn direct(lab: &Lab, peer: &Peer, since: Duration, patience: Duration) -> Duration {
    let begin = lab.world.elapsed();
    loop {
        let direct =
            peer.paths().into_iter().find(|(at, path)| *at >= since && path.kind == PathKind::Direct);
        if let Some((at, _)) = direct {
            return at - since;
        }
        assert!(lab.world.elapsed() - begin < patience, "no direct path: {:?}", peer.paths());
        sleep(10 * MS).await;
    }
}

#[test]
fn a_server_behind_a_nat_is_reached_by_its_name_whatever_it_believes_of_itself() {
    for wrong in [&["10.0.0.5:3478"][..], &["172.17.0.2:3478", "[fd00::5]:3478"]] {
        run(&pair(1, HOME, HOME), 1, async |lab| {
            lab.mislead(wrong);
            let _server = lab.server();
            let (a, _b) = lab.both().await;
            let began = lab.world.elapsed();
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 1000).await;
            let took = lab.world.elapsed() - began;
            println!("{wrong:?}: {took:?}");
            assert!(took < SEC, "{took:?}");
        });
    }
}

#[test]
fn an_old_ticket_leads_to_a_server_whose_port_has_moved() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let _server = lab.server_at(4000);
        let b = sharer(&lab).await;
        let began = lab.world.elapsed();
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
        let took = direct(&lab, &a, began, 30 * SEC).await;
        println!("direct after {took:?}; the sharer {:?}", kinds(&b));
        assert!(took < 10 * SEC, "{took:?}");
    });
}

#[test]
fn running_peers_follow_a_server_whose_port_moves() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server_at(3478);
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        a.endpoint.online().await.unwrap();
        server.shutdown().await;
        sleep(SEC).await;
        let moved = lab.world.elapsed();
        let _server = lab.server_at(4000);
        loop {
            let seen = [&a, &b].map(|peer| peer.endpoint.clone());
            let [a, b] = [seen[0].status().await.unwrap(), seen[1].status().await.unwrap()];
            let is_up =
                |status: &peer::endpoint::Status| status.server.is_some_and(|addr| addr.port() == 4000);
            if is_up(&a) && is_up(&b) {
                break;
            }
            assert!(lab.world.elapsed() - moved < 10 * SEC, "{:?} {:?}", a.server, b.server);
            sleep(10 * MS).await;
        }
        println!("both are at the new port after {:?}", lab.world.elapsed() - moved);
        let began = lab.world.elapsed();
        Visitor::fetch(&a.connect(&lab.ticket()).await.unwrap(), 1000).await;
        direct(&lab, &a, began, 5 * SEC).await;
    });
}

#[test]
fn a_visitor_who_comes_while_the_server_moves_is_let_in_and_gets_a_direct_path() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let server = lab.server_at(3478);
        let b = sharer(&lab).await;
        server.shutdown().await;
        let _server = lab.server_at(4000);
        let began = lab.world.elapsed();
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
        let took = direct(&lab, &a, began, 30 * SEC).await;
        println!("direct after {took:?}; the sharer {:?}", kinds(&b));
        assert!(took < 10 * SEC, "{took:?}");
    });
}

#[test]
fn a_session_stays_where_udp_passes_though_addresses_that_are_dialled_first_are_silent() {
    run(&pair(1, HOME, HOME).with_ipv6(), 1, async |lab| {
        let v6 = lab.world.net("s").addresses().unwrap().into_iter().find(IpAddr::is_ipv6).unwrap();
        let at = SocketAddr::new(v6, 3478);
        let known = ["192.0.2.91:3478", "192.0.2.92:3478", "192.0.2.93:3478", &at.to_string()];
        lab.mislead(&known);
        let _server = lab.server_with_udp_at(at);
        let b = sharer(&lab).await;
        sleep(10 * SEC).await;
        for _ in 0..100 {
            assert_eq!(b.endpoint.status().await.unwrap().server, Some(at));
            sleep(50 * MS).await;
        }
    });
}

#[test]
fn the_servers_other_family_is_found_by_its_name_though_the_ticket_has_an_old_address_of_it() {
    run(&pair(1, HOME, HOME).with_ipv6(), 1, async |lab| {
        let v6 = lab.world.net("s").addresses().unwrap().into_iter().find(IpAddr::is_ipv6).unwrap();
        lab.mislead(&["192.0.2.91:3478", &SocketAddr::new(v6, 3478).to_string()]);
        lab.world.slow_names(SEC);
        let _server = lab.server();
        let b = lab.peer("b", 0);
        b.endpoint.online().await.unwrap();
        sleep(5 * SEC).await;
        let status = b.endpoint.status().await.unwrap();
        assert_eq!(status.server.map(|addr| addr.ip()), Some(v6));
        assert!(status.observed.is_some_and(|addr| addr.is_ipv4()), "{status:?}");
    });
}

#[test]
fn nat64_is_looked_for_in_each_network_though_the_session_outlives_the_change() {
    let v6 = Kind::Ipv6Firewall;
    run(&pair(1, v6, v6).empty_home("elsewhere", v6), 1, async |lab| {
        lab.world.name(NAT64, &["64:ff9b::192.0.0.170".parse().unwrap()]);
        lab.world.slow_names(SEC);
        let _server = lab.server();
        let a = lab.peer("a", 0);
        a.endpoint.online().await.unwrap();
        sleep(5 * SEC).await;
        assert_eq!(lab.world.asked(NAT64), 1, "the answer comes after the session");
        lab.world.with_world(|world| world.roam("a", "elsewhere"));
        sleep(5 * SEC).await;
        assert_eq!(lab.world.asked(NAT64), 2);
    });
}

#[test]
fn an_address_of_a_family_that_the_network_has_no_more_is_forgotten() {
    run(&pair(1, HOME, HOME).with_ipv6().empty_home("elsewhere", Kind::Ipv6Firewall), 1, async |lab| {
        let _server = lab.server();
        let b = lab.peer("b", 0);
        b.endpoint.online().await.unwrap();
        sleep(5 * SEC).await;
        let observed = async || b.endpoint.status().await.unwrap().observed;
        assert!(observed().await.is_some_and(|addr| addr.is_ipv4()));
        lab.world.with_world(|world| world.roam("b", "elsewhere"));
        sleep(20 * SEC).await;
        assert!(observed().await.is_some_and(|addr| addr.is_ipv6()), "{:?}", observed().await);
    });
}

#[test]
fn homes_behind_carriers_meet_directly_though_the_servers_other_port_is_closed() {
    let carrier = HOME.behind_carrier();
    run(&pair(1, carrier, carrier), 1, async |lab| {
        let _server = lab.server_with_one_open_port();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        a.endpoint.online().await.unwrap();
        // Each knows all that it will ever know of its NAT.
        sleep(5 * SEC).await;
        let began = lab.world.elapsed();
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
        let took = direct(&lab, &a, began, 20 * SEC).await;
        println!("direct after {took:?}; the sharer {:?}", kinds(&b));
        assert!(took < SEC, "{took:?}");
    });
}

#[test]
fn a_relay_that_is_down_gives_way_to_the_next_one() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let dead = RelayHint { url: "http://s:9999/relay".to_owned(), peer_id: key(99).peer_id() };
        let (_relay, live) = lab.relay_elsewhere();
        let _server = lab.server_with_relays(vec![dead, live]);
        let b = lab.peer("b", 0);
        crate::service::start(&b.net());
        b.share().await.unwrap();
        sleep(SEC).await;
        let a = lab.peer("a", 0);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
        assert_eq!(kinds(&a), [PathKind::Relay]);
    });
}
