//! Round trips to a sharer's program.

use std::time::{Duration, Instant};

use rendezvous::Relaying;

use crate::support::origin::Origin;
use crate::support::{Home, Rendezvous, key};

/// With a relay, which path is the first is a matter of microseconds.
fn without_relay() -> Rendezvous {
    Rendezvous::with(key(), |config| {
        config.relay = Relaying::Elsewhere { relays: Vec::new(), own: false };
    })
}

#[tokio::test]
async fn each_ping_has_its_round_trip_and_its_path_and_is_nobodys_visitor() {
    let (server, origin) = (without_relay(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;

    let began = Instant::now();
    let mut ping = connector.spawn(&["ping", &ticket, "-c", "3", "--json"]);
    for seq in 1..=3 {
        let pong = ping.event("pong").await;
        assert_eq!((&pong["seq"], &pong["kind"]), (&seq.into(), &"direct".into()), "{pong}");
        let rtt = pong["rtt_ms"].as_f64().unwrap();
        assert!(rtt > 0.0 && rtt < 10_000.0, "{pong}");
        assert!(pong["remote"].as_str().unwrap().parse::<std::net::SocketAddr>().is_ok(), "{pong}");
    }
    assert_eq!(ping.ended().await.code, Some(0));
    assert!(began.elapsed() >= Duration::from_secs(2), "a second apart");
    assert_eq!(share.count("visitor"), 0);
}

#[tokio::test]
async fn pings_are_summed_up_for_a_human() {
    let (server, origin) = (without_relay(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;
    let ended = connector.run(&["ping", &ticket, "-c", "1"]).await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("1 of 1 answered") && ended.stdout.contains("direct at "), "{ended:#?}");
}

#[tokio::test]
async fn who_is_away_is_pinged_with_the_same_words_as_connected_to() {
    let (server, origin) = (Rendezvous::start(), Origin::echo().await);
    let (sharer, connector) = (Home::new(), Home::new());
    let mut share = sharer.share(&server.url(), &origin.target());
    let ticket = share.ticket().await;
    share.signal("TERM");
    share.ended().await;
    connector.run(&["ping", &ticket, "--json"]).await.failed(5, "peer-offline");
}
