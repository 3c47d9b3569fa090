//! Worlds from end to end, with toys at the hosts: the laboratory tests itself and its oracle before it
//! tests anything else.

mod toy;

use std::time::{Duration, Instant};

use nat_sim::dice::Dice;
use nat_sim::kind::{Behaviour, Kind};
use nat_sim::link::{Loss, Quality};
use nat_sim::log::{Undelivered, What};
use nat_sim::nat::{Expiry, Hairpin, Refresh};
use nat_sim::net::{Delivery, HostId, SocketId};
use nat_sim::oracle::{Between, Remedy, Row, expectations};
use nat_sim::world::{Plan, World};
use toy::{Skills, Toy, meets, toys};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// A pair with a server; `a` hears of `b` first if `a_first`, else the other way round, 20 ms apart.
fn pair(row: &Row, a_first: bool) -> Plan {
    let rtt = |first: bool| if first { 20 * MS } else { 60 * MS };
    let plan = World::plan(1).home("a", row.a).at_server_rtt(rtt(a_first));
    let plan = plan.home("b", row.b).at_server_rtt(rtt(!a_first)).server("s").direct_rtt(20 * MS);
    match row.between {
        Between::Core => plan,
        Between::SharedLink => plan.on_one_link(2),
    }
}

/// In which of the two orders the pair meets.
fn orders_that_meet(row: &Row, skills: Skills) -> [bool; 2] {
    [true, false].map(|a_first| meets(&mut toys(&pair(row, a_first), skills)))
}

/// Whether it takes a guess, which no toy makes, or does not work at all.
fn is_a_guess(row: &Row) -> bool {
    use Remedy::{Birthday, Predict, RelayOnly, Scatter};
    matches!(row.remedy, Predict | Birthday | Scatter | RelayOnly)
}

#[test]
fn a_full_cone_meets_a_port_restricted_and_a_symmetric_does_not() {
    let plan = |b| World::plan(1).home("a", Kind::PORT_RESTRICTED).home("b", b).server("s");
    assert!(meets(&mut toys(&plan(Kind::FULL_CONE), Skills::ALL)));
    assert!(!meets(&mut toys(&plan(Kind::SYMMETRIC_RANDOM), Skills::ALL)));
}

#[test]
fn a_puncher_without_guesses_meets_just_where_the_oracle_asks_for_no_guess() {
    for row in expectations() {
        let meets = orders_that_meet(&row, Skills::ALL);
        if row.remedy == Remedy::SendOrder {
            assert!(meets == [true, false] || meets == [false, true], "{row:?}: {meets:?}");
        } else {
            assert_eq!(meets, [!is_a_guess(&row); 2], "{row:?}");
        }
    }
}

#[test]
fn who_does_not_prime_fails_in_some_order_just_where_the_oracle_asks_for_priming() {
    for row in expectations().into_iter().filter(|row| !is_a_guess(row)) {
        let meets = orders_that_meet(&row, Skills { primes: false, ..Skills::ALL });
        let needs_it = matches!(row.remedy, Remedy::Prime | Remedy::SendOrder);
        assert_eq!(meets != [true, true], needs_it, "{row:?}: {meets:?}");
    }
}

#[test]
fn who_answers_to_the_candidate_fails_just_where_the_oracle_asks_for_peer_reflexive() {
    let skills = Skills { primes: false, answers_the_source: false, ..Skills::ALL };
    let concerned = |row: &Row| matches!(row.remedy, Remedy::PeerReflexive | Remedy::Plain | Remedy::Ipv6);
    for row in expectations().into_iter().filter(concerned) {
        let meets = orders_that_meet(&row, skills);
        assert_eq!(meets != [true, true], row.remedy == Remedy::PeerReflexive, "{row:?}: {meets:?}");
    }
}

#[test]
fn who_sends_to_no_host_address_fails_on_one_lan_without_a_hairpin() {
    let skills = Skills { host_candidates: false, ..Skills::ALL };
    for (kind, expected) in [(Kind::SameLan, false), (Kind::SameNat, false), (Kind::SameNatHairpin, true)] {
        let plan = World::plan(1).home("a", kind).home("b", kind).server("s");
        assert_eq!(meets(&mut toys(&plan, skills)), expected, "{kind}");
    }
}

#[test]
fn on_one_link_the_side_that_would_be_moved_must_send_first() {
    let (a, b) = (Kind::PORT_RESTRICTED.leaky(), Kind::PORT_RESTRICTED);
    let row = Row { a, b, between: Between::SharedLink, remedy: Remedy::SendOrder };
    assert_eq!(orders_that_meet(&row, Skills::ALL), [true, false]);
}

#[test]
fn one_lan_is_met_by_private_addresses_and_a_hairpin_by_public_ones() {
    for (kind, is_private) in [(Kind::SameLan, true), (Kind::SameNat, true), (Kind::SameNatHairpin, false)] {
        let mut world = toys(&World::plan(1).home("a", kind).home("b", kind).server("s"), Skills::ALL);
        assert!(meets(&mut world), "{kind}");
        let source = world.node("a").puncher().source.unwrap();
        assert_eq!(source.to_string().starts_with("192.168."), is_private, "{kind}: {source}");
    }
}

#[test]
fn two_homes_below_one_carrier_meet_only_by_its_hairpin() {
    let plan = |hairpin| {
        let policy = Behaviour::PortRestricted.policy().unwrap().hairpinning(hairpin);
        let homes = World::plan(1).home("a", Kind::PORT_RESTRICTED).home("b", Kind::PORT_RESTRICTED);
        homes.behind_one_carrier(2, policy).server("s")
    };
    assert!(meets(&mut toys(&plan(Hairpin::ExternalSource), Skills::ALL)));
    assert!(!meets(&mut toys(&plan(Hairpin::None), Skills::ALL)));
}

/// Where the first packet with this TTL died.
fn death_of_prime(world: &World<Toy>, prime_ttl: u8) -> Option<Undelivered> {
    let mut prime = None;
    for entry in world.net().log().entries() {
        if let What::Sent { packet, ttl, .. } = entry.what
            && ttl == prime_ttl
        {
            prime = prime.or(Some(packet));
        }
        if let What::Dropped { packet, why } = entry.what
            && prime == Some(packet)
        {
            return Some(why);
        }
    }
    None
}

#[test]
fn a_home_with_both_families_meets_an_ipv6_firewall() {
    let plan = World::plan(1).home("a", Kind::SYMMETRIC_RANDOM).with_ipv6().home("b", Kind::Ipv6Firewall);
    let mut world = toys(&plan.server("s"), Skills::ALL);
    assert!(meets(&mut world));
    assert!(world.node("b").puncher().source.unwrap().is_ipv6());
}

#[test]
fn a_leaky_router_tells_the_stranger_by_icmp_and_a_quiet_one_does_not() {
    for (kind, is_told) in [(Kind::PORT_RESTRICTED.leaky(), true), (Kind::PORT_RESTRICTED, false)] {
        let now = Instant::now();
        let mut net = World::plan(1).home("a", kind).home("b", Kind::OPEN).build_net(now);
        let stranger = (HostId(1), SocketId(0));
        net.send(now, stranger, "203.0.113.1:40000".parse().unwrap(), None, vec![1]);
        let mut deliveries = Vec::new();
        while let Some(at) = net.poll_timeout() {
            net.advance(at);
            deliveries.extend(net.poll_delivery());
        }
        let told = matches!(deliveries.as_slice(), [Delivery::Unreachable { host: HostId(1), .. }]);
        assert_eq!(told, is_told, "{kind}: {deliveries:?}");
    }
}

#[test]
fn a_prime_passes_its_own_routers_and_dies_in_the_core() {
    for (kind, ttl) in [(Kind::PORT_RESTRICTED, 2), (Kind::PORT_RESTRICTED.behind_carrier(), 3)] {
        let plan = World::plan(1).home("a", kind).home("b", kind).server("s").telling_the_story();
        let mut world = toys(&plan, Skills::ALL);
        assert!(meets(&mut world));
        assert_eq!(death_of_prime(&world, ttl), Some(Undelivered::TtlInCore), "{kind}");
    }
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_seed_another() {
    let story = |seed| {
        let wild = Quality {
            jitter: 30 * MS,
            loss: Loss::Uniform(0.2),
            reorder: 0.1,
            duplicate: 0.1,
            ..Quality::delayed(5 * MS)
        };
        let plan = World::plan(seed).home("a", Kind::SYMMETRIC_RANDOM.leaky()).over(wild, wild);
        let plan = plan.home("b", Kind::PORT_RESTRICTED.behind_carrier()).over(wild, wild).server("s");
        let mut world = toys(&plan.telling_the_story(), Skills::ALL);
        world.run_for(5 * SEC);
        (world.net().log().fingerprint(), world.story())
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3).0, story(4).0);
    assert!(story(3).1.contains("lost on the wire"));
}

#[test]
fn a_pair_meets_within_its_round_trips() {
    let plan = World::plan(1).home("a", Kind::FULL_CONE).home("b", Kind::PORT_RESTRICTED).server("s");
    let plan = plan.server_rtt(40 * MS).direct_rtt(100 * MS);
    let mut world = toys(&plan, Skills { primes: false, ..Skills::ALL });
    assert!(meets(&mut world));
    // Registering is one R; the first probe and its answer are one D, as both sides send at once.
    assert_eq!(world.elapsed(), 140 * MS);
}

#[test]
fn a_pair_meets_through_loss_and_jitter() {
    let rough = Quality { jitter: 50 * MS, loss: Loss::Uniform(0.05), ..Quality::default() };
    let missed = (0..200).filter(|seed| {
        let home = |plan: Plan, name| plan.home(name, Kind::PORT_RESTRICTED).over(rough, rough);
        !meets(&mut toys(&home(home(World::plan(*seed), "a"), "b").server("s"), Skills::ALL))
    });
    assert_eq!(missed.count(), 0);
}

#[test]
fn after_a_reboot_and_a_redial_who_probes_on_is_heard_again() {
    let plan = World::plan(1).home("a", Kind::SYMMETRIC_RANDOM).home("b", Kind::OPEN).server("s");
    let mut world = toys(&plan, Skills::ALL);
    assert!(meets(&mut world));
    let heard = |world: &mut World<Toy>| {
        let before = world.net().traffic(world.host("b")).received;
        world.run_for(SEC);
        world.net().traffic(world.host("b")).received - before
    };
    let usual = heard(&mut world);
    world.reboot_routers("a");
    assert!(heard(&mut world) + 5 > usual);
    world.change_public_address("a", "198.51.100.200".parse().unwrap());
    assert!(heard(&mut world) + 5 > usual);
}

#[test]
fn a_host_that_roams_sends_from_its_new_home() {
    let plan = World::plan(1).home("a", Kind::PORT_RESTRICTED).home("b", Kind::OPEN).server("s");
    let mut world = toys(&plan.empty_home("cafe", Kind::FULL_CONE).telling_the_story(), Skills::ALL);
    assert!(meets(&mut world));
    let seen = world.net().log().entries().len();
    world.roam("a", "cafe");
    world.run_for(SEC);
    let host = world.host("a");
    let cafe = world.routers("cafe")[0];
    let later = &world.net().log().entries()[seen..];
    assert!(
        later.iter().any(|entry| matches!(entry.what, What::Translated { router, .. } if router == cafe))
    );
    for entry in later {
        if let What::Sent { host: sender, src, dst, .. } = entry.what
            && (sender, dst.is_ipv4()) == (host, true)
        {
            assert!(world.net().addresses(host).contains(&src.ip()), "{src}");
        }
    }
}

#[test]
fn a_binding_that_idles_out_closes_the_way_in() {
    let plan = World::plan(1).home("a", Kind::PORT_RESTRICTED).whose_routers(|policy| {
        policy.expiry = Expiry::after(5 * SEC, Refresh::Outbound);
    });
    let mut world = toys(&plan.home("b", Kind::OPEN).server("s"), Skills::ALL);
    assert!(meets(&mut world));
    let inner = world.node("a").puncher().own_endpoint();
    let bindings = |world: &World<Toy>, after| {
        world.net().bindings(world.routers("a")[0], inner, world.now() + after).len()
    };
    assert_eq!((bindings(&world, 4 * SEC), bindings(&world, 5 * SEC)), (1, 0));
}

/// A world drawn from a seed: any two kinds, rough wires, anything between.
fn any_world(seed: u64) -> World<Toy> {
    let mut dice = Dice::new(seed, 1_000);
    let kinds = Kind::all();
    let mut kind = || kinds[dice.below(kinds.len() as u32) as usize];
    let (a, b) = (kind(), kind());
    let mut wires = || Quality {
        delay: dice.up_to(50 * MS),
        jitter: dice.up_to(50 * MS),
        loss: Loss::Bursty { to_bad: 0.02, to_good: 0.3, good: 0.01, bad: 0.8 },
        reorder: 0.05,
        duplicate: 0.02,
        rate: Some(100_000),
        ..Quality::default()
    };
    let plan = World::plan(seed).home("a", a).over(wires(), wires()).home("b", b).over(wires(), wires());
    toys(&plan.server("s").server_rtt(dice.up_to(200 * MS)).direct_rtt(dice.up_to(200 * MS)), Skills::ALL)
}

#[test]
fn random_worlds_run_twice_the_same() {
    for seed in 0..300 {
        let run = || {
            let mut world = any_world(seed);
            world.run_for(3 * SEC);
            let traffic = ["a", "b", "s"].map(|name| world.net().traffic(world.host(name)));
            (world.net().log().fingerprint(), traffic)
        };
        let (fingerprint, traffic) = run();
        assert_eq!((fingerprint, traffic), run(), "seed {seed}");
        assert!(traffic[0].sent > 0 && traffic[1].sent > 0, "seed {seed}");
    }
}
