//! RFC 4787's words, and what was measured on Linux, as claims about [`Nat`].

use super::*;
use crate::kind::Behaviour;
use std::time::Duration;

const WAN: &str = "203.0.113.1";
const SEC: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nat(policy: Policy) -> Nat {
    Nat::new(policy, vec![WAN.parse().unwrap()], Dice::new(11, 1))
}

fn of(behaviour: Behaviour) -> Nat {
    nat(behaviour.policy().unwrap())
}

/// The external endpoint that `src` gets towards `dst`.
fn out(nat: &mut Nat, src: &str, dst: &str, now: Instant) -> SocketAddr {
    let egress = nat.egress(at(src), at(dst), now);
    assert!(matches!(egress, Egress::Out { .. }), "{src} to {dst}: {egress:?}");
    egress.src().unwrap()
}

fn why(ingress: Ingress) -> Option<Why> {
    match ingress {
        Ingress::In { .. } => None,
        Ingress::Refused(refused) => Some(refused.why),
    }
}

const HOST: &str = "192.168.1.10:40000";
const SERVER: &str = "192.0.2.1:3478";
const SERVER_PORT_2: &str = "192.0.2.1:3479";
const SERVER_IP_2: &str = "192.0.2.2:3478";
const PEER: &str = "198.51.100.7:5000";

#[test]
fn a_masquerade_keeps_its_port_for_many_destinations() {
    let (mut nat, now) = (of(Behaviour::PortRestricted), Instant::now());
    for dst in [SERVER, SERVER_PORT_2, SERVER_IP_2, PEER] {
        assert_eq!(out(&mut nat, HOST, dst, now), at("203.0.113.1:40000"));
    }
}

#[test]
fn a_symmetric_nat_shows_each_endpoint_another_port() {
    let (mut nat, now) = (of(Behaviour::SymmetricRandom), Instant::now());
    let mut ports: Vec<u16> =
        [SERVER, SERVER_PORT_2, SERVER_IP_2, PEER].map(|dst| out(&mut nat, HOST, dst, now).port()).into();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    let again = out(&mut nat, HOST, PEER, now);
    assert_eq!(again, out(&mut nat, HOST, PEER, now), "one destination keeps its port");
}

#[test]
fn a_sequential_allocator_goes_up_by_its_step() {
    let policy = Behaviour::SymmetricSequential.policy().unwrap();
    let mut nat = nat(policy.allocating(Allocation::Sequential { step: 2 }));
    let now = Instant::now();
    let mut last = out(&mut nat, HOST, "192.0.2.1:1", now).port();
    for n in 2..20 {
        let port = out(&mut nat, HOST, &format!("192.0.2.1:{n}"), now).port();
        assert_eq!((i32::from(port) - i32::from(last)).rem_euclid(64_512), 2);
        last = port;
    }
    nat.foreign_flows(5);
    let port = out(&mut nat, HOST, PEER, now).port();
    assert_eq!((i32::from(port) - i32::from(last)).rem_euclid(64_512), 12, "neighbours' flows count too");
}

#[test]
fn address_dependent_mapping_is_seen_only_from_a_second_address() {
    let mut nat = nat(Policy::nat(Dependence::AddressDependent, Dependence::AddressDependent)
        .allocating(Allocation::Random));
    let now = Instant::now();
    let first = out(&mut nat, HOST, SERVER, now);
    assert_eq!(out(&mut nat, HOST, SERVER_PORT_2, now), first);
    assert_ne!(out(&mut nat, HOST, SERVER_IP_2, now), first);
}

#[test]
fn each_filter_admits_what_its_name_says() {
    let cases = [
        (Behaviour::FullCone, [true, true, true]),
        (Behaviour::AddressRestricted, [true, true, false]),
        (Behaviour::PortRestricted, [true, false, false]),
    ];
    for (behaviour, admitted) in cases {
        let (mut nat, now) = (of(behaviour), Instant::now());
        let external = out(&mut nat, HOST, SERVER, now);
        let got = [SERVER, SERVER_PORT_2, SERVER_IP_2]
            .map(|src| nat.ingress(at(src), external, now).dst().is_some());
        assert_eq!(got, admitted, "{behaviour:?}");
    }
}

#[test]
fn nothing_comes_in_where_nothing_went_out() {
    let mut nat = of(Behaviour::FullCone);
    let got = nat.ingress(at(PEER), at("203.0.113.1:40000"), Instant::now());
    assert_eq!(why(got), Some(Why::NoBinding));
}

#[test]
fn two_hosts_with_one_port_get_two_and_neither_hears_the_other() {
    let (mut nat, now) = (of(Behaviour::PortRestricted), Instant::now());
    let first = out(&mut nat, HOST, PEER, now);
    let second = out(&mut nat, "192.168.1.11:40000", PEER, now);
    assert_ne!(first, second);
    assert_eq!(nat.ingress(at(PEER), second, now).dst(), Some(at("192.168.1.11:40000")));
}

#[test]
fn a_nat_that_preserves_until_a_clash_is_symmetric_for_the_second_host_only() {
    let policy = Behaviour::PortRestricted.policy().unwrap().allocating(Allocation::PreservingUntilClash);
    let (mut nat, now) = (nat(policy), Instant::now());
    assert_eq!(out(&mut nat, HOST, SERVER, now), out(&mut nat, HOST, PEER, now));
    let second = "192.168.1.11:40000";
    let towards_server = out(&mut nat, second, SERVER, now);
    assert_ne!(towards_server, out(&mut nat, second, PEER, now));
    assert_eq!(towards_server, out(&mut nat, second, SERVER, now));
    assert_eq!(nat.ingress(at(SERVER), towards_server, now).dst(), Some(at(second)));
}

#[test]
fn one_host_keeps_to_one_of_several_external_addresses() {
    let pool: Vec<IpAddr> = ["203.0.113.1", "203.0.113.2"].map(|ip| ip.parse().unwrap()).into();
    let mut nat = Nat::new(Behaviour::SymmetricRandom.policy().unwrap(), pool, Dice::new(1, 1));
    let now = Instant::now();
    let ip_of = |nat: &mut Nat, src: &str, dst: &str| out(nat, src, dst, now).ip();
    assert_eq!(ip_of(&mut nat, HOST, SERVER), ip_of(&mut nat, HOST, PEER));
    assert_ne!(ip_of(&mut nat, HOST, SERVER), ip_of(&mut nat, "192.168.1.11:40000", SERVER));
}

// ── The leaky router ──────────────────────────────────────────────────────────────────────────────────────

/// A home behind a leaky Linux router that the server has seen as 203.0.113.1:40000.
fn leaky_after_registering(now: Instant) -> Nat {
    let mut nat = nat(Behaviour::PortRestricted.policy().unwrap().leaky());
    assert_eq!(out(&mut nat, HOST, SERVER, now), at("203.0.113.1:40000"));
    nat
}

#[test]
fn an_early_probe_takes_the_reply_tuple_and_moves_our_flow_to_another_port() {
    let now = Instant::now();
    let mut nat = leaky_after_registering(now);
    let early = nat.ingress(at(PEER), at("203.0.113.1:40000"), now);
    assert!(matches!(early, Ingress::Refused(Refused { why: Why::Filtered, told: Refusal::Icmp })));
    let moved = out(&mut nat, HOST, PEER, now);
    assert_ne!(moved, at("203.0.113.1:40000"));
    assert_eq!(out(&mut nat, HOST, SERVER, now), at("203.0.113.1:40000"), "other flows keep the port");
    let late = nat.ingress(at(PEER), at("203.0.113.1:40000"), now);
    assert_eq!(why(late), Some(Why::Stranger), "the peer's probes are the router's for good");
    assert_eq!(nat.ingress(at(PEER), moved, now).dst(), Some(at(HOST)), "who answers to the source gets in");
}

#[test]
fn a_moved_socket_keeps_to_its_new_port_for_new_remotes_and_to_the_old_one_for_old_ones() {
    let now = Instant::now();
    let mut nat = leaky_after_registering(now);
    let usual = out(&mut nat, HOST, SERVER, now);
    assert!(matches!(nat.ingress(at(PEER), usual, now), Ingress::Refused(_)));
    let moved = out(&mut nat, HOST, PEER, now);
    assert_ne!(moved, usual);
    let third = "192.0.2.99:99";
    assert_eq!(out(&mut nat, HOST, third, now), moved, "a new flow");
    assert_eq!(nat.ingress(at(third), moved, now).dst(), Some(at(HOST)));
    assert_eq!(out(&mut nat, HOST, SERVER, now), usual, "an old one");
    // All flows of the moved port are over by then, and the server's has been kept alive.
    let mut later = now;
    for _ in 0..10 {
        later += Duration::from_secs(20);
        assert_eq!(out(&mut nat, HOST, SERVER, later), usual);
    }
    assert_eq!(out(&mut nat, HOST, "192.0.2.98:98", later), usual);
}

#[test]
fn a_moved_socket_stays_where_it_is_when_its_first_port_is_forgotten() {
    let now = Instant::now();
    let mut nat = leaky_after_registering(now);
    assert!(matches!(nat.ingress(at(PEER), at("203.0.113.1:40000"), now), Ingress::Refused(_)));
    let moved = out(&mut nat, HOST, PEER, now);
    for n in 1..20 {
        assert_eq!(out(&mut nat, HOST, PEER, now + n * 20 * SEC), moved);
    }
    assert_eq!(out(&mut nat, HOST, SERVER, now + 400 * SEC), moved, "a new flow by then");
    assert_eq!(out(&mut nat, HOST, "192.0.2.9:9", now + 400 * SEC), moved);
}

#[test]
fn a_mapped_port_lets_everybody_in_and_what_is_answered_leaves_by_it() {
    let mut nat = of(Behaviour::SymmetricRandom);
    let now = Instant::now();
    let mapped = nat.forward(at(HOST)).unwrap();
    assert_eq!(nat.ingress(at(PEER), mapped, now).dst(), Some(at(HOST)));
    assert_eq!(out(&mut nat, HOST, PEER, now), mapped);
    let other = out(&mut nat, HOST, SERVER, now);
    assert_ne!(other, mapped, "what the host begins has a port of its own");
    assert_eq!(nat.ingress(at(SERVER), mapped, now).dst(), Some(at(HOST)));
    assert_eq!(out(&mut nat, HOST, SERVER, now), mapped, "until the other side comes in");
    nat.reboot();
    assert_eq!(why(nat.ingress(at(PEER), mapped, now)), Some(Why::NoBinding));
}

#[test]
fn a_prime_that_leaves_before_the_early_probe_keeps_the_port() {
    let now = Instant::now();
    let mut nat = leaky_after_registering(now);
    // The prime dies beyond this router: all that matters is that it left.
    assert_eq!(out(&mut nat, HOST, PEER, now), at("203.0.113.1:40000"));
    assert_eq!(nat.ingress(at(PEER), at("203.0.113.1:40000"), now).dst(), Some(at(HOST)));
    assert_eq!(out(&mut nat, HOST, PEER, now), at("203.0.113.1:40000"));
}

#[test]
fn a_router_that_drops_its_input_is_not_moved_by_an_early_probe() {
    let (mut nat, now) = (of(Behaviour::PortRestricted), Instant::now());
    let external = out(&mut nat, HOST, SERVER, now);
    assert_eq!(why(nat.ingress(at(PEER), external, now)), Some(Why::Filtered));
    assert_eq!(out(&mut nat, HOST, PEER, now), external);
    assert_eq!(nat.ingress(at(PEER), external, now).dst(), Some(at(HOST)));
}

#[test]
fn probing_on_keeps_the_broken_flow_alive_for_ever_and_silence_or_a_new_port_cures_it() {
    let start = Instant::now();
    let mut nat = leaky_after_registering(start);
    nat.ingress(at(PEER), at("203.0.113.1:40000"), start);
    let moved = out(&mut nat, HOST, PEER, start);
    let mut now = start;
    for _ in 0..100 {
        now += 10 * SEC;
        assert_eq!(out(&mut nat, HOST, PEER, now), moved);
        assert_eq!(why(nat.ingress(at(PEER), at("203.0.113.1:40000"), now)), Some(Why::Stranger));
    }
    assert_eq!(out(&mut nat, "192.168.1.10:40001", PEER, now), at("203.0.113.1:40001"), "a new local port");
    now += 31 * SEC;
    assert_eq!(out(&mut nat, HOST, PEER, now), at("203.0.113.1:40000"), "silence beyond the timeout");
}

#[test]
fn a_full_cone_leaks_nothing_because_it_refuses_nobody() {
    let mut nat = nat(Behaviour::FullCone.policy().unwrap().leaky());
    let now = Instant::now();
    let external = out(&mut nat, HOST, SERVER, now);
    assert_eq!(nat.ingress(at(PEER), external, now).dst(), Some(at(HOST)));
    assert_eq!(out(&mut nat, HOST, PEER, now), external);
}

// ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────

/// Whether a binding lives after three timeouts in which packets went as told, each half a timeout.
fn survives(refresh: Refresh, goes_out: bool, comes_in: bool) -> bool {
    let policy = Behaviour::PortRestricted.policy().unwrap().expiring(Expiry::after(30 * SEC, refresh));
    let (mut nat, start) = (nat(policy), Instant::now());
    let external = out(&mut nat, HOST, PEER, start);
    for n in 1..=6 {
        let now = start + 15 * SEC * n;
        if nat.bindings(at(HOST), now).is_empty() {
            return false;
        }
        if goes_out {
            nat.egress(at(HOST), at(PEER), now);
        }
        if comes_in {
            nat.ingress(at(PEER), external, now);
        }
    }
    true
}

#[test]
fn the_clock_is_restarted_by_the_directions_that_the_policy_names() {
    let lives = |refresh| {
        [(true, false), (false, true), (true, true)].map(|(goes, comes)| survives(refresh, goes, comes))
    };
    assert_eq!(lives(Refresh::Outbound), [true, false, true]);
    assert_eq!(lives(Refresh::Inbound), [false, true, true]);
    assert_eq!(lives(Refresh::Either), [true, true, true]);
    assert_eq!(lives(Refresh::PerDirection), [false, false, true]);
}

#[test]
fn a_binding_lasts_30_s_unanswered_and_120_s_answered_on_linux() {
    for (answered, lasts) in [(false, 30), (true, 120)] {
        let (mut nat, start) = (of(Behaviour::PortRestricted), Instant::now());
        let external = out(&mut nat, HOST, PEER, start);
        if answered {
            nat.ingress(at(PEER), external, start);
        }
        let gets_in = |after| nat.clone().ingress(at(PEER), external, start + after).dst().is_some();
        assert!(gets_in(SEC * lasts - Duration::from_millis(1)));
        assert!(!gets_in(SEC * lasts));
    }
}

#[test]
fn a_hole_closes_while_its_binding_lives_on() {
    let policy = Behaviour::PortRestricted.policy().unwrap();
    let (mut nat, start) = (nat(policy.expiring(Expiry::after(30 * SEC, Refresh::Outbound))), Instant::now());
    let external = out(&mut nat, HOST, PEER, start);
    for n in 1..=4 {
        out(&mut nat, HOST, SERVER, start + 10 * SEC * n);
    }
    let now = start + 40 * SEC;
    assert_eq!(why(nat.ingress(at(PEER), external, now)), Some(Why::Filtered));
    assert_eq!(nat.ingress(at(SERVER), external, now).dst(), Some(at(HOST)));
}

#[test]
fn a_symmetric_flow_that_idled_out_comes_back_on_another_port() {
    let (mut nat, start) = (of(Behaviour::SymmetricRandom), Instant::now());
    let before = out(&mut nat, HOST, PEER, start);
    assert_ne!(before, out(&mut nat, HOST, PEER, start + 30 * SEC));
}

#[test]
fn a_reboot_forgets_everything_and_a_redial_the_address_too() {
    let (mut nat, now) = (of(Behaviour::FullCone), Instant::now());
    let external = out(&mut nat, HOST, PEER, now);
    nat.reboot();
    assert_eq!(nat.entries(), 0);
    assert_eq!(why(nat.ingress(at(PEER), external, now)), Some(Why::NoBinding));
    nat.change_address(vec!["203.0.113.99".parse().unwrap()]);
    assert_eq!(out(&mut nat, HOST, PEER, now), at("203.0.113.99:40000"));
}

// ── Neighbours, limits, firewalls ─────────────────────────────────────────────────────────────────────────

#[test]
fn a_hairpin_shows_the_source_that_it_is_set_to_and_filters_as_from_outside() {
    let neighbour = "192.168.1.11:50000";
    for (hairpin, seen_as) in
        [(Hairpin::ExternalSource, "203.0.113.1:50000"), (Hairpin::InternalSource, neighbour)]
    {
        let mut nat = nat(Behaviour::PortRestricted.policy().unwrap().hairpinning(hairpin));
        let now = Instant::now();
        let ours = out(&mut nat, HOST, SERVER, now);
        let theirs = out(&mut nat, neighbour, SERVER, now);
        let refused = nat.egress(at(neighbour), ours, now);
        assert!(matches!(refused, Egress::Refused(Refused { why: Why::Filtered, .. })));
        assert!(nat.egress(at(HOST), theirs, now).src().is_some(), "the neighbour had opened its own hole");
        assert_eq!(nat.egress(at(neighbour), ours, now), Egress::Hairpin { src: at(seen_as), dst: at(HOST) });
    }
}

#[test]
fn without_a_hairpin_neighbours_can_not_use_the_external_address() {
    let (mut nat, now) = (of(Behaviour::FullCone), Instant::now());
    let ours = out(&mut nat, HOST, SERVER, now);
    let turned = nat.egress(at("192.168.1.11:50000"), ours, now);
    assert!(matches!(turned, Egress::Refused(Refused { why: Why::NoHairpin, .. })));
}

#[test]
fn a_full_table_refuses_new_flows_or_forgets_the_idlest() {
    let start = Instant::now();
    let flows = |when_full| {
        let policy = Behaviour::SymmetricRandom.policy().unwrap();
        let mut nat = nat(Policy { entries_max: 3, when_full, ..policy });
        let sent = (1..=4).map(|n| nat.egress(at(HOST), at(&format!("192.0.2.1:{n}")), start + SEC * n));
        let sent: Vec<bool> = sent.map(|egress| egress.src().is_some()).collect();
        let kept = nat.bindings(at(HOST), start + 4 * SEC).into_keys().next();
        (sent, kept, nat.entries())
    };
    let (refusing, evicting) = (flows(WhenFull::RefuseNew), flows(WhenFull::EvictIdlest));
    let scope = |dst| Some(Scope::Endpoint(at(dst)));
    assert_eq!(refusing, (vec![true, true, true, false], scope("192.0.2.1:1"), 3));
    assert_eq!(evicting, (vec![true, true, true, true], scope("192.0.2.1:2"), 3));
}

#[test]
fn a_full_table_makes_room_when_entries_have_expired() {
    let policy = Behaviour::SymmetricRandom.policy().unwrap();
    let (mut nat, start) = (nat(Policy { entries_max: 2, ..policy }), Instant::now());
    for n in 1..=2 {
        out(&mut nat, HOST, &format!("192.0.2.1:{n}"), start);
    }
    let late = start + 30 * SEC;
    assert!(nat.egress(at(HOST), at(PEER), late - SEC).src().is_none());
    assert!(nat.egress(at(HOST), at(PEER), late).src().is_some());
}

#[test]
fn a_firewall_rewrites_nothing_and_admits_who_was_sent_to() {
    let mut firewall = Nat::new(Policy::firewall(), Vec::new(), Dice::new(1, 1));
    let (host, peer, now) = (at("[2001:db8::10]:4000"), at("[2001:db8:1::10]:5000"), Instant::now());
    assert_eq!(why(firewall.ingress(peer, host, now)), Some(Why::NoBinding));
    assert_eq!(firewall.egress(host, peer, now), Egress::Out { src: host });
    assert_eq!(firewall.ingress(peer, host, now), Ingress::In { dst: host });
    let other_port = at("[2001:db8:1::10]:5001");
    assert_eq!(why(firewall.ingress(other_port, host, now)), Some(Why::Filtered));
}

#[test]
fn where_udp_is_blocked_nothing_passes_either_way() {
    let policy = Policy { passes_udp: false, ..Behaviour::FullCone.policy().unwrap() };
    let (mut nat, now) = (nat(policy), Instant::now());
    assert!(nat.egress(at(HOST), at(SERVER), now).src().is_none());
    assert_eq!(why(nat.ingress(at(SERVER), at("203.0.113.1:40000"), now)), Some(Why::UdpBlocked));
}

#[test]
fn two_nats_in_series_are_as_strict_as_the_stricter() {
    let now = Instant::now();
    let mut home = of(Behaviour::FullCone);
    let mut carrier = Nat::new(
        Behaviour::SymmetricRandom.policy().unwrap(),
        vec![at("198.18.0.1:0").ip()],
        Dice::new(2, 2),
    );
    let through = |home: &mut Nat, carrier: &mut Nat, dst: &str| {
        carrier.egress(home.egress(at(HOST), at(dst), now).src().unwrap(), at(dst), now).src().unwrap()
    };
    let seen_by_server = through(&mut home, &mut carrier, SERVER);
    let seen_by_peer = through(&mut home, &mut carrier, PEER);
    assert_ne!(seen_by_server, seen_by_peer, "the carrier's mapping decides");
    assert_eq!(why(carrier.ingress(at(PEER), seen_by_server, now)), Some(Why::Filtered));
    let inner = carrier.ingress(at(PEER), seen_by_peer, now).dst().unwrap();
    assert_eq!(home.ingress(at(PEER), inner, now).dst(), Some(at(HOST)));
}

// ── The birthday search ───────────────────────────────────────────────────────────────────────────────────

/// Index of the first of `probes` distinct random ports that finds one of `sockets` open towards the peer.
fn first_hit(seed: u64, sockets: u16, probes: usize) -> Option<usize> {
    let mut dice = Dice::new(seed, 9);
    let policy = Behaviour::SymmetricRandom.policy().unwrap();
    let mut nat = Nat::new(policy, vec![WAN.parse().unwrap()], Dice::new(seed, 1));
    let now = Instant::now();
    for n in 0..sockets {
        nat.egress(SocketAddr::new(at(HOST).ip(), 40_000 + n), at(PEER), now);
    }
    let mut ports: Vec<u16> = Policy::LINUX_PORTS.collect();
    (0..probes).find(|&n| {
        let span = u32::try_from(ports.len() - n).unwrap();
        ports.swap(n, n + usize::try_from(dice.below(span)).unwrap());
        nat.ingress(at(PEER), SocketAddr::new(WAN.parse().unwrap(), ports[n]), now).dst().is_some()
    })
}

#[test]
fn the_birthday_search_has_the_probabilities_of_its_arithmetic() {
    let trials = 400;
    let hits: Vec<usize> = (0..trials).filter_map(|seed| first_hit(seed, 256, 1_715)).collect();
    // 1 - C(S-n,m)/C(S,m) with S = 64 512 and n = 256; within four standard deviations of 400 trials.
    for (probes, expected) in [(175, 0.50), (256, 0.639), (577, 0.90), (1_024, 0.983), (1_715, 0.999)] {
        let share = hits.iter().filter(|hit| **hit < probes).count() as f64 / trials as f64;
        let tolerance = 4.0 * (expected * (1.0 - expected) / trials as f64).sqrt() + 0.002;
        assert!((share - expected).abs() <= tolerance, "{probes} probes: {share} for {expected}");
    }
}

// ── Properties ────────────────────────────────────────────────────────────────────────────────────────────

mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A packet of a small world: hosts, ports and remotes from few, so that they meet.
    #[derive(Debug, Clone)]
    enum Packet {
        Out {
            inner: SocketAddr,
            remote: SocketAddr,
        },
        /// Inbound to the external endpoint that was seen n-th.
        In {
            remote: SocketAddr,
            nth: usize,
        },
        Wait(Duration),
    }

    fn packets() -> impl Strategy<Value = Vec<Packet>> {
        let inner =
            (10..13_u8, 4000..4003_u16).prop_map(|(ip, port)| SocketAddr::from(([192, 168, 1, ip], port)));
        let remote = (1..4_u8, 1..4_u16).prop_map(|(ip, port)| SocketAddr::from(([192, 0, 2, ip], port)));
        let out = (inner, remote.clone()).prop_map(|(inner, remote)| Packet::Out { inner, remote });
        let into = (remote, 0..20_usize).prop_map(|(remote, nth)| Packet::In { remote, nth });
        let wait = (1..20_u64).prop_map(|secs| Packet::Wait(Duration::from_secs(secs)));
        vec(prop_oneof![4 => out, 4 => into, 1 => wait], 1..80)
    }

    fn dependence() -> impl Strategy<Value = Dependence> {
        proptest::sample::select(Dependence::ALL.to_vec())
    }

    fn allocation() -> impl Strategy<Value = Allocation> {
        proptest::sample::select(vec![
            Allocation::Preserving,
            Allocation::PreservingUntilClash,
            Allocation::Sequential { step: 1 },
            Allocation::Sequential { step: -3 },
            Allocation::Random,
            Allocation::RandomInBlock { size: 512 },
        ])
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let refresh = proptest::sample::select(vec![
            Refresh::Outbound,
            Refresh::Inbound,
            Refresh::Either,
            Refresh::PerDirection,
        ]);
        (dependence(), dependence(), allocation(), refresh, any::<bool>(), 2..200_usize, any::<bool>())
            .prop_map(|(mapping, filtering, allocation, refresh, leaky, entries_max, evicts)| {
                let policy = Policy::nat(mapping, filtering).allocating(allocation);
                let policy = policy.expiring(Expiry { refresh, ..Expiry::LINUX });
                let policy = if leaky { policy.leaky() } else { policy };
                let when_full = if evicts { WhenFull::EvictIdlest } else { WhenFull::RefuseNew };
                Policy { entries_max, when_full, ..policy }
            })
    }

    /// Runs packets through a NAT, calling `check` after each.
    fn run(
        nat: &mut Nat,
        packets: &[Packet],
        mut check: impl FnMut(&Nat, &Packet, Option<SocketAddr>, Instant),
    ) {
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for packet in packets {
            let result = match packet {
                Packet::Out { inner, remote } => {
                    let external = nat.egress(*inner, *remote, now).src();
                    seen.extend(external);
                    external
                }
                Packet::In { remote, nth } => {
                    let external = seen.get(nth % seen.len().max(1)).copied();
                    external.and_then(|external| nat.ingress(*remote, external, now).dst())
                }
                Packet::Wait(span) => {
                    now += *span;
                    None
                }
            };
            check(nat, packet, result, now);
        }
    }

    proptest! {
        #[test]
        fn the_table_never_outgrows_its_limit(policy in policy(), packets in packets()) {
            let entries_max = policy.entries_max;
            run(&mut nat(policy), &packets, |nat, _, _, _| assert!(nat.entries() <= entries_max));
        }

        #[test]
        fn equal_seeds_give_equal_answers(policy in policy(), packets in packets()) {
            let answers = || {
                let mut answers = Vec::new();
                run(&mut nat(policy.clone()), &packets, |_, _, answer, _| answers.push(answer));
                answers
            };
            prop_assert_eq!(answers(), answers());
        }

        #[test]
        fn no_two_internal_endpoints_share_an_external_one(policy in policy(), packets in packets()) {
            let inners: Vec<SocketAddr> = (10..13_u8)
                .flat_map(|ip| (4000..4003).map(move |port| SocketAddr::from(([192, 168, 1, ip], port))))
                .collect();
            run(&mut nat(policy), &packets, |nat, _, _, now| {
                let all: Vec<_> = inners.iter().flat_map(|inner| nat.bindings(*inner, now).into_values()).collect();
                let mut distinct = all.clone();
                distinct.sort();
                distinct.dedup();
                assert_eq!(all.len(), distinct.len());
            });
        }

        /// REQ-1, for as long as the binding lives: here nothing ever expires.
        #[test]
        fn an_endpoint_independent_mapping_is_one_endpoint_for_all_remotes(
            filtering in dependence(),
            packets in packets(),
        ) {
            let never = Expiry::after(Duration::from_secs(1_000_000), Refresh::Either);
            let policy = Policy::nat(Dependence::EndpointIndependent, filtering)
                .allocating(Allocation::Random)
                .expiring(never);
            let mut seen = BTreeMap::new();
            run(&mut nat(policy), &packets, |_, packet, external, _| {
                if let Packet::Out { inner, .. } = packet {
                    assert_eq!(seen.entry(*inner).or_insert(external), &external);
                }
            });
        }

        /// Against a filter written from the RFC's words: who was sent to within the timeout may answer.
        #[test]
        fn a_filter_admits_exactly_those_that_its_definition_admits(
            filtering in dependence(),
            packets in packets(),
        ) {
            let timeout = Duration::from_secs(30);
            let policy = Policy::nat(Dependence::EndpointIndependent, filtering)
                .allocating(Allocation::Sequential { step: 1 })
                .expiring(Expiry::after(timeout, Refresh::Outbound));
            let mut sent: Vec<(SocketAddr, SocketAddr, SocketAddr, Instant)> = Vec::new();
            let mut seen: Vec<SocketAddr> = Vec::new();
            run(&mut nat(policy), &packets, |_, packet, answer, now| match packet {
                Packet::Out { inner, remote } => {
                    let external = answer.unwrap();
                    seen.push(external);
                    sent.push((*inner, external, *remote, now));
                }
                Packet::In { remote, nth } => {
                    let Some(external) = seen.get(nth % seen.len().max(1)) else { return };
                    let admits = |to: &SocketAddr| match filtering {
                        Dependence::EndpointIndependent => true,
                        Dependence::AddressDependent => to.ip() == remote.ip(),
                        Dependence::AddressAndPortDependent => to == remote,
                    };
                    let opened = sent.iter().rev().find(|(_, from, to, when)| {
                        from == external && admits(to) && now.duration_since(*when) < timeout
                    });
                    assert_eq!(answer, opened.map(|(inner, ..)| *inner));
                }
                Packet::Wait(_) => {}
            });
        }
    }
}
