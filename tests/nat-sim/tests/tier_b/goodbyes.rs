//! What is said at the end through a relay, and what is noticed where nothing was said.

use nat_sim::kind::Kind;
use peer::{Error, PathPolicy};
use proto::dial::DialFailure;
use proto::path::PathKind;
use proto::proof::TicketSecret;
use proto::ticket::Ticket;
use proto::wire::signal::Refusal;
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, MS, Peer, Proxy, R, SEC, pair, run};
use crate::relayed::{kinds, sharer};
use crate::service::{self, Visitor};

const HOME: Kind = Kind::PORT_RESTRICTED;
const HARD: Kind = Kind::SYMMETRIC_RANDOM;

/// A sharer whose way to the relay can fall silent.
async fn sharer_behind_proxy(lab: &Lab) -> (Proxy, Peer) {
    let proxy = lab.proxy();
    let b = lab.peer_behind_proxy("b", PathPolicy::Auto);
    service::start(&b.net());
    b.share().await.unwrap();
    sleep(SEC).await;
    (proxy, b)
}

/// How many peers a process has now.
async fn peers(peer: &Peer) -> usize {
    peer.endpoint.status().await.unwrap().peers.len()
}

#[test]
fn who_gives_up_what_it_began_says_so_through_the_relay() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let _server = lab.server_with_relay();
        let b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let begun = a.endpoint.begin(&lab.ticket()).await.unwrap();
        Visitor::fetch(&begun.early(), 1000).await;
        assert_eq!(peers(&b).await, 1);
        drop(begun);
        sleep(R + 500 * MS).await;
        assert_eq!((peers(&a).await, peers(&b).await), (0, 0));
    });
}

#[test]
fn dials_that_failed_after_their_offers_were_forwarded_leave_room_for_others() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let _server = lab.server_with_relay();
        let _b = sharer(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let wrong = Ticket { secret: TicketSecret::from_bytes([9; 16]), ..lab.ticket() };
        // Each began with an address of its own, of which a socket has so many.
        for _ in 0..=4096 {
            let error = a.connect(&wrong).await.unwrap_err();
            assert_eq!(error, Error::Dial(DialFailure::Refused(Refusal::WrongTicket)));
            // The server forwards five offers a second from one session.
            sleep(200 * MS).await;
        }
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
    });
}

#[test]
fn who_stops_says_so_through_the_relay() {
    for first in ["a", "b"] {
        run(&pair(1, HARD, HARD), 1, async |lab| {
            let _server = lab.server_with_relay();
            let b = sharer(&lab).await;
            let a = lab.relayed_peer("a", PathPolicy::Auto);
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 1000).await;
            let began = lab.world.elapsed();
            if first == "a" {
                a.endpoint.close().await;
                drop((connection, a));
                sleep(R + 500 * MS).await;
                assert_eq!(peers(&b).await, 0);
            } else {
                b.endpoint.close().await;
                drop(b);
                let why = timeout(2 * SEC, connection.closed()).await.expect("nothing was said");
                println!("{why} after {:?}", lab.world.elapsed() - began);
            }
        });
    }
}

#[test]
fn a_relays_connection_that_died_silently_is_missed_with_the_next_request() {
    run(&pair(1, HARD, HARD), 1, async |lab| {
        let _server = lab.server_with_relay();
        let (proxy, _b) = sharer_behind_proxy(&lab).await;
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        visitor.round_trip().await;
        proxy.fall_silent();
        let took = visitor.round_trip().await;
        println!("{took:?}");
        assert_eq!(kinds(&a).pop(), Some(PathKind::Relay));
        // A relay says something every 15 s, and is silent for 40 s before that alone tells.
        assert!(took < 15 * SEC, "{took:?}");
    });
}

#[test]
fn a_sharer_that_is_gone_from_its_relay_and_does_not_know_is_found_directly() {
    // The search for a port takes seconds, and each asking begins it anew.
    run(&pair(1, HARD, HOME), 1, async |lab| {
        let _server = lab.server_with_relay();
        let (proxy, b) = sharer_behind_proxy(&lab).await;
        proxy.fall_silent();
        let a = lab.relayed_peer("a", PathPolicy::Auto);
        let began = lab.world.elapsed();
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 1000).await;
        let took = lab.world.elapsed() - began;
        println!("{took:?}: {:?}, {:?}", kinds(&a), kinds(&b));
        assert!(took < 20 * SEC, "{took:?}");
    });
}
