//! A server whose peers wait at a relay that stands alone: who has no UDP is at both.

use nat_sim::kind::Kind;
use peer::PathPolicy;
use proto::path::PathKind;
use rendezvous::Server;
use tokio::time::sleep;

use crate::gateway::{ping, publish, websocket};
use crate::lab::{R, SEC, pair, run};
use crate::relayed::{kinds, sharer};
use crate::service::Visitor;

const HOME: Kind = Kind::PORT_RESTRICTED;
const BLOCKED: Kind = Kind::UdpBlocked;

/// Bytes of the answer; a session and its offers are much less.
const ANSWER: usize = 1_000_000;
const SESSIONS: u64 = 100_000;

/// Those of peers at a server's own door, where it is at home itself.
fn logins(server: &Server) -> u64 {
    server.stats().relay.unwrap().logins - 1
}

#[test]
fn without_udp_the_session_goes_to_the_server_and_the_data_through_the_relay_that_it_names() {
    for (a, b) in [(BLOCKED, HOME), (HOME, BLOCKED), (BLOCKED, BLOCKED)] {
        run(&pair(1, a, b), 1, async |lab| {
            let (server, relay) = lab.server_with_relay_elsewhere();
            let _b = sharer(&lab).await;
            let a = lab.relayed_peer("a", PathPolicy::Auto);
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, ANSWER).await;
            assert_eq!(kinds(&a), [PathKind::Relay]);
            let own = server.stats().relay.unwrap();
            assert!(own.forwarded_bytes < SESSIONS, "{own:?}");
            assert!(relay.stats().forwarded_bytes > ANSWER as u64, "{:?}", relay.stats());
        });
    }
}

#[test]
fn where_udp_carries_the_session_the_servers_own_door_is_left_alone() {
    run(&pair(1, HOME, HOME), 1, async |lab| {
        let (server, relay) = lab.server_with_relay_elsewhere();
        let _b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, ANSWER).await;
        sleep(60 * SEC).await;
        assert_eq!((logins(&server), relay.stats().logins), (0, 2));
    });
}

#[test]
fn a_sharer_without_udp_is_public_by_the_servers_own_door() {
    run(&pair(1, HOME, BLOCKED), 1, async |lab| {
        let (server, relay) = lab.server_with_relay_elsewhere();
        let b = lab.relayed_peer("b", PathPolicy::Auto);
        publish(&lab, &b).await;
        let mut session = websocket(&lab).await;
        let took = ping(&mut session).await;
        assert!(took <= 3 * R, "{took:?}");
        assert_eq!((logins(&server), relay.stats().forwarded_bytes), (1, 0));
    });
}
