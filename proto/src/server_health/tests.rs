use super::*;
use crate::clock::start;
use crate::reach::state;

fn doors(bound: &str, stated: &[&str]) -> Vec<Door> {
    let bound: SocketAddr = bound.parse().unwrap();
    let mut doors = vec![Door::new(bound), Door::new(SocketAddr::new(bound.ip(), bound.port() + 1))];
    state(&mut doors, &stated.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>()).unwrap();
    doors
}

fn server(facts: ServerFacts) -> ServerHealth {
    let facts =
        if facts.doors.is_empty() { ServerFacts { doors: doors("[::]:3478", &[]), ..facts } } else { facts };
    ServerHealth::new(facts, start())
}

fn plain() -> ServerHealth {
    server(ServerFacts::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn news(health: &mut ServerHealth) -> Vec<WarningKind> {
    std::iter::from_fn(|| health.poll_warning()).map(|warning| warning.kind()).collect()
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn by_udp(from: &str) -> Way {
    Way::Udp(SocketAddr::new(ip(from), 4000))
}

/// What is said of a name that resolves so, where UDP is bound and stated so.
fn resolved(bound: &str, stated: &[&str], host: &Host, found: &[&str]) -> Vec<WarningKind> {
    let mut health = server(ServerFacts { doors: doors(bound, stated), ..ServerFacts::default() });
    health.handle_resolved(host, &found.iter().map(|text| ip(text)).collect::<Vec<_>>(), start());
    news(&mut health)
}

fn url() -> Host {
    Host::PublicUrl("example.com".to_owned())
}

fn domain() -> Host {
    Host::Domain("example.com".to_owned())
}

#[test]
fn a_public_url_that_leads_nobody_here_is_said_so() {
    for (found, kind) in [
        (&[][..], WarningKind::NoAddress),
        (&["127.0.1.1"], WarningKind::Loopback),
        (&["127.0.1.1", "::1"], WarningKind::Loopback),
        (&["10.0.0.5"], WarningKind::Private),
        (&["fd00::5", "127.0.1.1"], WarningKind::Private),
    ] {
        assert_eq!(resolved("[::]:3478", &[], &url(), found), [kind], "{found:?}");
    }
    assert!(resolved("[::]:3478", &[], &url(), &["203.0.113.1", "2001:db8::1", "10.0.0.5"]).is_empty());
}

#[test]
fn what_is_stated_or_known_for_certain_needs_no_name() {
    for found in [&["127.0.1.1"][..], &[]] {
        assert!(resolved("[::]:3478", &["203.0.113.1:3478"], &url(), found).is_empty());
    }
    assert!(resolved("203.0.113.1:3478", &[], &url(), &["10.0.0.5"]).is_empty());
}

#[test]
fn a_domain_that_is_private_here_is_looked_up_by_clients_themselves() {
    assert!(resolved("[::]:3478", &[], &domain(), &["127.0.1.1"]).is_empty());
    assert!(resolved("[::]:3478", &[], &domain(), &["10.0.0.5"]).is_empty());
    assert_eq!(resolved("[::]:3478", &[], &domain(), &[]), [WarningKind::NoAddress]);
}

#[test]
fn a_name_with_an_address_of_a_family_that_is_not_bound_is_said_so() {
    for host in [url(), domain()] {
        let of = |bound, found: &[&str]| resolved(bound, &[], &host, found);
        assert_eq!(of("0.0.0.0:3478", &["203.0.113.1", "2001:db8::1"]), [WarningKind::FamilyNotBound]);
        assert_eq!(of("0.0.0.0:3478", &["2001:db8::1"]), [WarningKind::FamilyNotBound]);
        assert_eq!(of("[2001:db8::1]:3478", &["203.0.113.1"]), [WarningKind::FamilyNotBound]);
        assert!(of("0.0.0.0:3478", &["203.0.113.1"]).is_empty());
    }
}

#[test]
fn a_name_that_is_mended_is_no_warning_any_more_and_is_news_once_an_hour() {
    let mut now = start();
    let mut health = plain();
    let mut resolve = |health: &mut ServerHealth, found: &[IpAddr]| {
        now += Duration::from_secs(60);
        health.handle_resolved(&url(), found, now);
        (news(health).len(), health.warnings().count())
    };
    assert_eq!(resolve(&mut health, &[]), (1, 1));
    assert_eq!(resolve(&mut health, &[]), (0, 1));
    assert_eq!(resolve(&mut health, &[ip("203.0.113.1")]), (0, 0));
    assert_eq!(resolve(&mut health, &[]), (0, 1));
    for _ in 0..60 {
        resolve(&mut health, &[ip("203.0.113.1")]);
    }
    assert_eq!(resolve(&mut health, &[]), (1, 1));
}

#[test]
fn many_clients_at_one_private_address_are_hidden() {
    let mut health = plain();
    for n in 0..4 {
        health.handle_session(peer(n), by_udp("172.17.0.1"), start());
        health.handle_session(peer(n), by_udp("172.17.0.1"), start());
    }
    assert!(news(&mut health).is_empty(), "four identities may be one house");
    health.handle_session(peer(4), by_udp("172.17.0.1"), start());
    let warning = health.poll_warning().unwrap();
    assert_eq!(warning, Warning::Hidden { ip: ip("172.17.0.1"), clients: 5 });
    assert!(warning.to_string().contains("--network host"), "{warning}");
    health.handle_session(peer(9), by_udp("203.0.113.7"), start());
    assert_eq!(health.warnings().count(), 0, "one of six comes from elsewhere");
}

#[test]
fn clients_in_a_lan_behind_one_public_address_or_on_this_machine_are_not_hidden() {
    let mut health = plain();
    health.handle_own(&[ip("192.168.1.9")]);
    for n in 0..20 {
        health.handle_session(peer(n), by_udp(&format!("192.168.1.{}", 100 + n)), start());
        health.handle_session(peer(50 + n), by_udp("203.0.113.7"), start());
    }
    let mut here = plain();
    here.handle_own(&[ip("192.168.1.9")]);
    for n in 0..20 {
        here.handle_session(peer(n), by_udp("192.168.1.9"), start());
    }
    let mut loopback = plain();
    (0..20).for_each(|n| loopback.handle_session(peer(n), by_udp("127.0.0.1"), start()));
    for health in [&mut health, &mut here, &mut loopback] {
        assert_eq!(news(health), []);
    }
}

#[test]
fn sessions_by_relay_alone_tell_of_a_closed_port() {
    let mut health = plain();
    health.handle_own(&[ip("203.0.113.1")]);
    // What comes from here, or from the same house, has passed no firewall.
    for from in ["127.0.0.1", "203.0.113.1", "192.168.1.2"] {
        health.handle_session(peer(1), by_udp(from), start());
    }
    for n in 0..4 {
        health.handle_session(peer(n % 2), Way::Relay, start());
    }
    assert!(news(&mut health).is_empty());
    health.handle_session(peer(0), Way::Relay, start());
    let text = health.poll_warning().unwrap().to_string();
    assert!(text.contains("open UDP 3478 and 3479"), "{text}");
    health.handle_session(peer(7), by_udp("198.51.100.7"), start());
    assert_eq!(health.warnings().count(), 0);
}

#[test]
fn one_client_that_has_no_udp_tells_nothing_of_the_server() {
    let mut health = plain();
    (0..20).for_each(|_| health.handle_session(peer(1), Way::Relay, start()));
    let mut reached = plain();
    reached.handle_session(peer(9), by_udp("198.51.100.7"), start());
    (0..20).for_each(|n| reached.handle_session(peer(n), Way::Relay, start()));
    assert!(news(&mut health).is_empty() && news(&mut reached).is_empty());
}

fn request<'a>(from: &str, is_trusted: bool, name: Option<&'a str>) -> RequestFacts<'a> {
    RequestFacts { from: ip(from), is_forwarded: true, is_trusted, name, is_for_server: true }
}

#[test]
fn a_proxy_that_is_not_trusted_is_named_with_the_option() {
    let mut health = server(ServerFacts { has_public_url: true, ..ServerFacts::default() });
    health.handle_request(request("203.0.113.7", false, None), start());
    health.handle_request(request("10.0.0.2", true, None), start());
    health.handle_request(RequestFacts { is_forwarded: false, ..request("10.0.0.2", false, None) }, start());
    assert!(news(&mut health).is_empty(), "strangers may say anything");
    health.handle_request(request("127.0.0.1", false, Some("example.com")), start());
    health.handle_request(request("10.0.0.2", false, Some("example.com")), start());
    let warning = health.poll_warning().unwrap();
    assert!(warning.to_string().ends_with("add --trusted-proxy 127.0.0.1"), "{warning}");
    assert_eq!(health.poll_warning(), None, "once");
}

#[test]
fn behind_a_proxy_the_public_url_is_asked_for() {
    let mut health = plain();
    health.handle_request(request("127.0.0.1", true, None), start());
    health.handle_request(
        RequestFacts { is_for_server: false, ..request("127.0.0.1", true, Some("x.y")) },
        start(),
    );
    health.handle_request(request("203.0.113.7", false, Some("evil.example")), start());
    assert!(news(&mut health).is_empty());
    health.handle_request(request("127.0.0.1", true, Some("example.com")), start());
    let warning = health.poll_warning().unwrap();
    assert!(warning.to_string().ends_with("such as https://example.com"), "{warning}");
}

#[test]
fn a_name_that_is_not_the_servers_is_said_once_however_many_there_are() {
    let mut health = plain();
    (0..1000).for_each(|n| health.handle_unknown_host(&format!("{n}.example.org"), start()));
    let warning = health.poll_warning().unwrap();
    assert!(warning.to_string().ends_with("add --apex 0.example.org"), "{warning}");
    assert_eq!((health.poll_warning(), health.warnings().count()), (None, 1));
}

#[test]
fn a_made_up_name_hides_another_one_for_no_longer_than_an_hour() {
    let mut health = plain();
    let begin = start();
    let later = begin + AGAIN;
    health.handle_unknown_host("made-up.example", begin);
    health.handle_unknown_host("real.example", later - Duration::from_secs(1));
    assert_eq!(std::iter::from_fn(|| health.poll_warning()).count(), 1);
    health.handle_unknown_host("made-up.example", later);
    assert_eq!(health.poll_warning(), None, "the same is no news");
    health.handle_unknown_host("real.example", later);
    assert!(health.poll_warning().unwrap().to_string().ends_with("add --apex real.example"));
    assert_eq!(health.warnings().count(), 1);
}

#[test]
fn a_relay_that_is_away_is_named_with_the_reason_until_it_is_back() {
    let relays = vec!["https://a/relay".to_owned(), "https://b/relay".to_owned()];
    let mut health = server(ServerFacts { relays, ..ServerFacts::default() });
    let up = |health: &ServerHealth| health.relays().map(|(_, up)| up).collect::<Vec<_>>();
    assert!(health.may_be_up(0) && health.may_be_up(1), "nothing is known against them");
    health.handle_relay(0, Ok(()), start());
    health.handle_relay(1, Err("it answered 404 Not Found".to_owned()), start());
    let warning = health.poll_warning().unwrap().to_string();
    assert!(warning.contains("https://b/relay") && warning.contains("404"), "{warning}");
    assert_eq!(up(&health), [Some(true), Some(false)]);
    // One that was up may be late once.
    health.handle_relay(0, Err("late".to_owned()), start());
    assert!(news(&mut health).is_empty() && health.may_be_up(0));
    health.handle_relay(0, Err("late".to_owned()), start());
    assert!(!health.may_be_up(0));
    assert_eq!(news(&mut health), [WarningKind::RelayAway]);
    health.handle_relay(1, Ok(()), start());
    assert_eq!((up(&health), health.warnings().count()), (vec![Some(false), Some(true)], 1));
}

#[test]
fn udp_for_this_machine_alone_is_said_where_others_are_to_come() {
    let at = |http_on_loopback, has_public_url| {
        let doors = doors("127.0.0.1:3478", &[]);
        news(&mut server(ServerFacts { doors, http_on_loopback, has_public_url, ..ServerFacts::default() }))
    };
    assert_eq!(at(false, false), [WarningKind::UdpOnLoopback]);
    assert_eq!(at(true, true), [WarningKind::UdpOnLoopback]);
    assert!(at(true, false).is_empty());
}

#[test]
fn every_kind_has_a_name_of_its_own_and_every_warning_is_one_line() {
    let names: std::collections::BTreeSet<_> = WarningKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), WarningKind::ALL.len());
    let (host, ip) = (url(), ip("10.0.0.5"));
    let name = || "example.com".to_owned();
    for warning in [
        Warning::NoAddress { host: host.clone() },
        Warning::Loopback { host: host.clone(), ip },
        Warning::Private { host: host.clone(), ip },
        Warning::FamilyNotBound { host: host.clone(), family: Family::V4 },
        Warning::FamilyNotBound { host, family: Family::V6 },
        Warning::UdpOnLoopback { bound: SocketAddr::new(ip, 1) },
        Warning::Hidden { ip, clients: 5 },
        Warning::NoUdp { sessions: 5, ports: vec![1, 2] },
        Warning::ProxyNotTrusted { from: ip },
        Warning::NoPublicUrl { name: name() },
        Warning::NotApex { name: name() },
        Warning::RelayAway { url: name(), why: name() },
    ] {
        let text = warning.to_string();
        assert!(!text.contains('\n') && !text.contains("  ") && text.contains(": "), "{text}");
    }
}
