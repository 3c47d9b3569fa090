//! Connections by name, where DNS is slow, half-broken or silent, and where there is no IPv4.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Dns, ScriptedNet, ms};
use super::{Connected, LOOKING_UP, NameError, Origin, Outbound, OutboundError};
use crate::net::IpFamily::{V4, V6};
use crate::net::resolve_all;

const HOST: &str = "s.example";
const V4_IP: &str = "192.0.2.1";
const V6_IP: &str = "2001:db8::1";
const BOTH: [&str; 2] = ["198.51.100.9", "2001:db8:9::9"];

async fn connect(outbound: &Outbound, host: &str) -> Result<Connected, OutboundError> {
    outbound.connect(&Origin { tls: false, host: host.to_owned(), port: 80 }).await
}

/// Where a connection went, and after how long.
async fn reached(outbound: &Outbound, host: &str) -> (String, Duration) {
    let begin = Instant::now();
    let connected = connect(outbound, host).await.unwrap();
    assert!(!connected.is_proxied);
    (connected.remote.ip().to_string(), begin.elapsed())
}

/// How a connection failed, and after how long.
async fn failed(outbound: &Outbound, host: &str) -> (OutboundError, Duration) {
    let begin = Instant::now();
    (connect(outbound, host).await.err().unwrap(), begin.elapsed())
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 80)
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_drops_one_familys_questions_costs_no_more_than_the_resolution_delay() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(20), vec![V4_IP])).dns(HOST, V6, Dns::Drops);
    net.accepts(V4_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V4_IP.to_owned(), ms(75)));
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V6, Dns::Says(ms(20), vec![V6_IP])).dns(HOST, V4, Dns::Drops);
    net.accepts(V6_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V6_IP.to_owned(), ms(25)));
}

#[tokio::test(start_paused = true)]
async fn all_addresses_are_those_of_the_family_that_answers_where_the_other_does_not() {
    for (answers, drops, ip) in [(V4, V6, V4_IP), (V6, V4, V6_IP)] {
        let net = ScriptedNet::from(&BOTH);
        net.dns(HOST, answers, Dns::Says(ms(20), vec![ip])).dns(HOST, drops, Dns::Drops);
        let begin = Instant::now();
        assert_eq!(resolve_all(&net, HOST, 80).await.unwrap(), [at(ip)]);
        assert_eq!(begin.elapsed(), ms(520));
    }
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(20), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(200), vec![V6_IP]));
    assert_eq!(resolve_all(&net, HOST, 80).await.unwrap(), [at(V6_IP), at(V4_IP)]);
    net.dns(HOST, V4, Dns::GivesUp(ms(20))).dns(HOST, V6, Dns::Says(ms(700), vec![]));
    assert!(resolve_all(&net, HOST, 80).await.is_err(), "no address, and no answer in one family");
}

#[tokio::test(start_paused = true)]
async fn the_family_that_this_host_has_no_route_for_is_not_waited_for() {
    let net = ScriptedNet::from(&BOTH[..1]);
    net.dns(HOST, V4, Dns::Says(ms(20), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(40), vec![V6_IP]));
    net.accepts(V4_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V4_IP.to_owned(), ms(25)));
}

#[tokio::test(start_paused = true)]
async fn the_preferred_family_goes_first_where_it_answers_in_time() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(20), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(60), vec![V6_IP]));
    net.accepts(V4_IP, ms(5)).accepts(V6_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V6_IP.to_owned(), ms(65)));
}

#[tokio::test(start_paused = true)]
async fn addresses_that_come_later_join_the_race() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(20), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(3000), vec![V6_IP]));
    net.drops(V4_IP).accepts(V6_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V6_IP.to_owned(), ms(3005)));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_leaves_the_next_its_turn() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(0), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(0), vec![V6_IP]));
    net.drops(V6_IP).accepts(V4_IP, ms(5));
    assert_eq!(reached(&net.outbound(), HOST).await, (V4_IP.to_owned(), ms(255)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_soon_though_one_family_has_no_answer() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(0), vec![V4_IP])).dns(HOST, V6, Dns::Drops);
    let (error, after) = failed(&net.outbound(), HOST).await;
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(after < ms(1500), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_without_address_is_told_from_one_without_answer() {
    let net = ScriptedNet::from(&BOTH);
    let (error, _) = failed(&net.outbound(), HOST).await;
    assert_eq!(error.to_string(), "the name s.example has no address");
    for (v4, v6, expected) in [
        (Dns::Drops, Dns::Drops, LOOKING_UP),
        (Dns::GivesUp(ms(10)), Dns::GivesUp(ms(20)), ms(20)),
        (Dns::Says(ms(10), vec![]), Dns::GivesUp(ms(20)), ms(20)),
    ] {
        let net = ScriptedNet::from(&BOTH);
        net.dns(HOST, V4, v4).dns(HOST, V6, v6);
        let (error, after) = failed(&net.outbound(), HOST).await;
        assert_eq!(error.to_string(), "the name s.example has no answer from DNS");
        assert_eq!(after, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_look_up_serves_all_attempts_and_outlives_each() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(12_000), vec![V4_IP])).dns(HOST, V6, Dns::Drops);
    net.accepts(V4_IP, ms(5));
    let outbound = net.outbound();
    for _ in 0..2 {
        assert!(timeout(ms(5000), connect(&outbound.clone(), HOST)).await.is_err());
    }
    let (one, other) = tokio::join!(reached(&outbound, HOST), reached(&outbound, HOST));
    assert_eq!((&one, one.1), (&other, ms(2055)));
    assert_eq!((net.asked(HOST, V4), net.asked(HOST, V6)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn addresses_are_known_for_half_a_minute_and_that_there_are_none_for_a_second() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP])).accepts(V4_IP, ms(0));
    let outbound = net.outbound();
    for (wait, v4, v6) in [(0, 1, 1), (500, 1, 1), (600, 1, 2), (28_000, 1, 3), (1_000, 2, 4)] {
        sleep(ms(wait)).await;
        reached(&outbound, HOST).await;
        assert_eq!((net.asked(HOST, V4), net.asked(HOST, V6)), (v4, v6), "after {wait} ms more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_is_found_by_the_next_attempt() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP])).accepts(V4_IP, ms(0));
    let outbound = net.outbound();
    reached(&outbound, HOST).await;
    net.refuses(V4_IP);
    net.dns(HOST, V4, Dns::Says(ms(10), vec!["192.0.2.2"])).accepts("192.0.2.2", ms(0));
    failed(&outbound, HOST).await;
    assert_eq!(reached(&outbound, HOST).await.0, "192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_moved_is_found_while_its_old_address_is_silent() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP])).accepts(V4_IP, ms(0));
    let outbound = net.outbound();
    reached(&outbound, HOST).await;
    net.drops(V4_IP).dns(HOST, V4, Dns::Says(ms(10), vec!["192.0.2.2"])).accepts("192.0.2.2", ms(0));
    let (ip, after) = reached(&outbound, HOST).await;
    assert!(ip == "192.0.2.2" && after < ms(700), "{ip} after {after:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_do_not_pile_up_look_ups() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP])).dns(HOST, V6, Dns::Drops);
    let outbound = net.outbound();
    for _ in 0..10 {
        failed(&outbound, HOST).await;
    }
    assert_eq!((net.asked(HOST, V4), net.asked(HOST, V6)), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_gives_what_became_known_and_then_ends() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(100), vec![V6_IP]));
    let mut look_up = net.outbound().look_up(HOST, 80);
    assert_eq!(look_up.next().await, Some(vec![at(V4_IP)]));
    assert!(look_up.is_running());
    // One that is dropped while it waits loses nothing.
    assert!(timeout(ms(1), look_up.next()).await.is_err());
    assert_eq!(look_up.next().await, Some(vec![at(V6_IP)]));
    assert_eq!((look_up.next().await, look_up.is_running()), (None, false));
    let mut literal = net.outbound().look_up(V6_IP, 80);
    assert_eq!((literal.next().await, literal.next().await), (Some(vec![at(V6_IP)]), None));
    assert_eq!(net.asked(V6_IP, V6), 0);
}

#[tokio::test(start_paused = true)]
async fn the_proxys_name_is_looked_up_in_place_of_the_servers() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(HOST, V4, Dns::Says(ms(10), vec![V4_IP]));
    let outbound =
        Outbound::new(std::sync::Arc::new(net.clone()), Some("http://proxy.example:1".parse().unwrap()));
    assert!(outbound.is_proxied(HOST));
    assert_eq!(outbound.find(HOST).await, Err(NameError::NoAddress("proxy.example".to_owned())));
    assert!(!net.outbound().is_proxied(HOST));
    assert_eq!(net.outbound().find(HOST).await, Ok(()));
}

const SYNTHESISED: &str = "64:ff9b::c000:201";
const WELL_KNOWN: [&str; 2] = ["64:ff9b::192.0.0.170", "64:ff9b::192.0.0.171"];
const ARPA: &str = proto::nat64::NAME;

#[tokio::test(start_paused = true)]
async fn without_ipv4_an_ipv4_address_is_reached_through_nat64() {
    let net = ScriptedNet::from(&BOTH[1..]);
    net.dns(ARPA, V6, Dns::Says(ms(10), WELL_KNOWN.into())).accepts(SYNTHESISED, ms(5));
    let outbound = net.outbound();
    assert_eq!(reached(&outbound, V4_IP).await, (SYNTHESISED.to_owned(), ms(15)));
    assert_eq!(reached(&outbound, V4_IP).await, (SYNTHESISED.to_owned(), ms(5)), "it is known");
    assert_eq!(failed(&outbound, "192.168.1.1").await.1, ms(0), "the translator's LAN is not ours");
    assert_eq!(net.asked(ARPA, V6), 1);
    assert_eq!(outbound.nat64().await.unwrap().to_string(), "64:ff9b::/96");
}

#[tokio::test(start_paused = true)]
async fn nat64_is_asked_for_only_without_ipv4_and_again_in_each_network() {
    let net = ScriptedNet::from(&BOTH);
    net.dns(ARPA, V6, Dns::Says(ms(10), WELL_KNOWN.into()));
    let outbound = net.outbound();
    for (sources, expected, asked) in [
        (&BOTH[..], None, 0),
        (&BOTH[..1], None, 0),
        (&["fe80::9"], None, 0),
        (&[], None, 0),
        (&BOTH[1..], Some("64:ff9b::/96"), 1),
        (&BOTH[..], None, 1),
        (&BOTH[1..], Some("64:ff9b::/96"), 1),
        (&["169.254.1.1", "2001:db8:8::8"], Some("64:ff9b::/96"), 2),
    ] {
        net.move_to(sources);
        let prefix = outbound.nat64().await.map(|prefix| prefix.to_string());
        assert_eq!((prefix.as_deref(), net.asked(ARPA, V6)), (expected, asked), "{sources:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_without_ipv4_and_nat64_is_asked_seldom_and_not_waited_for_long() {
    let net = ScriptedNet::from(&BOTH[1..]);
    net.dns(ARPA, V6, Dns::Drops);
    let outbound = net.outbound();
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(outbound.nat64().await, None);
    }
    assert_eq!((begin.elapsed(), net.asked(ARPA, V6)), (ms(5000), 1));
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_address_of_the_name_is_not_held_up_by_the_search_for_nat64() {
    let net = ScriptedNet::from(&BOTH[1..]);
    net.dns(HOST, V4, Dns::Says(ms(0), vec![V4_IP])).dns(HOST, V6, Dns::Says(ms(100), vec![V6_IP]));
    net.dns(ARPA, V6, Dns::Drops).accepts(V6_IP, ms(5));
    let (ip, after) = reached(&net.outbound(), HOST).await;
    assert!(ip == V6_IP && after < ms(400), "{ip} after {after:?}");
}
