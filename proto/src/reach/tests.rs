use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ips(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|text| text.parse().unwrap()).collect()
}

fn doors(bound: &[&str], stated: &[&str]) -> Vec<Door> {
    let mut doors: Vec<_> = bound.iter().map(|text| Door::new(addr(text))).collect();
    let stated: Vec<_> = stated.iter().map(|text| addr(text)).collect();
    state(&mut doors, &stated).unwrap();
    doors
}

fn known(named: &[&str], own: &[&str]) -> Surroundings {
    Surroundings { named: ips(named), own: ips(own) }
}

fn from(asker: &str, reached: &str) -> Asker {
    Asker::at(asker.parse().unwrap(), reached.parse().ok())
}

/// What somebody at `asker`, who reached `reached`, is told of a server with one socket.
fn told_by(bound: &str, stated: &[&str], known: &Surroundings, asker: Asker) -> Vec<String> {
    told(&doors(&[bound], stated), known, &asker).iter().map(SocketAddr::to_string).collect()
}

const FAR: &str = "198.51.100.7";

#[test]
fn every_address_of_both_families_is_told_best_first() {
    let known = known(&["203.0.113.9", "2001:db8::9"], &["203.0.113.1", "2001:db8::1", "10.0.0.5"]);
    let all = told_by("[::]:3478", &["192.0.2.1:13478"], &known, from(FAR, "203.0.113.1"));
    let expected = [
        "192.0.2.1:13478",
        "203.0.113.9:13478",
        "[2001:db8::9]:3478",
        "203.0.113.1:3478",
        "[2001:db8::1]:3478",
    ];
    assert_eq!(all, expected, "the stated port holds for a name of the same family");
}

#[test]
fn a_family_that_is_not_bound_is_not_told() {
    let known = known(&["2001:db8::9", "203.0.113.9"], &["2001:db8::1", "203.0.113.1"]);
    let v4 = told_by("0.0.0.0:3478", &[], &known, from(FAR, "2001:db8::1"));
    assert_eq!(v4, ["203.0.113.9:3478", "203.0.113.1:3478"]);
    let v6 = told_by("[2001:db8::1]:3478", &[], &known, from(FAR, "203.0.113.1"));
    assert_eq!(v6, ["[2001:db8::1]:3478"]);
    let only_v6 = self::known(&["2001:db8::9"], &[]);
    assert!(told_by("0.0.0.0:3478", &[], &only_v6, from(FAR, "10.0.0.5")).is_empty());
}

#[test]
fn no_address_is_told_that_is_narrower_than_where_the_asker_is() {
    // Debian's name for itself, a cloud's private zone, a carrier's network.
    let known = known(&["127.0.1.1", "10.0.0.5", "fd00::5", "100.64.0.5"], &["10.0.0.5"]);
    let to = |asker: &str, reached| told_by("[::]:1", &[], &known, from(asker, reached));
    assert!(to(FAR, "10.0.0.5").is_empty());
    assert!(to("2001:db8::7", "fd00::5").is_empty());
    assert_eq!(to("100.64.0.7", "10.0.0.5"), ["100.64.0.5:1"]);
    assert_eq!(to("192.168.1.7", "10.0.0.5"), ["10.0.0.5:1", "[fd00::5]:1", "100.64.0.5:1"]);
    assert!(to("127.0.0.1", "127.0.0.1").contains(&"127.0.0.1:1".to_owned()));
    let unknown = Asker::unknown("10.0.0.5".parse().ok());
    assert!(told_by("[::]:1", &[], &known, unknown).is_empty());
}

#[test]
fn what_the_operator_states_is_told_to_everybody() {
    let known = Surroundings::default();
    let unknown = Asker::unknown("127.0.0.1".parse().ok());
    assert_eq!(told_by("[::]:1", &["10.1.2.3:1"], &known, unknown), ["10.1.2.3:1"]);
}

#[test]
fn a_socket_on_one_address_is_reached_there_or_through_what_translates_it() {
    let known = known(&["203.0.113.9"], &["203.0.113.1"]);
    let of = |bound, asker| told_by(bound, &[], &known, from(asker, "192.0.2.77"));
    // The name may be a proxy's that passes no UDP on: what is certain stands alone.
    assert_eq!(of("192.0.2.1:1", FAR), ["192.0.2.1:1"]);
    assert_eq!(of("10.0.0.5:1", FAR), ["203.0.113.9:1"]);
    assert_eq!(of("10.0.0.5:1", "10.0.0.7"), ["203.0.113.9:1", "10.0.0.5:1"]);
    assert!(of("127.0.0.1:1", FAR).is_empty());
    assert_eq!(of("127.0.0.1:1", "127.0.0.1"), ["127.0.0.1:1"]);
}

#[test]
fn eight_are_told_and_the_best_of_each_socket_come_first() {
    let many: Vec<String> = (1..=9).map(|n| format!("203.0.113.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let known = known(&many, &[]);
    let all = told(&doors(&["[::]:1", "[::]:2"], &[]), &known, &from(FAR, "10.0.0.5"));
    assert_eq!(all.len(), MAX_ADDRS);
    assert_eq!(all[..3], [addr("203.0.113.1:1"), addr("203.0.113.1:2"), addr("203.0.113.2:1")]);
}

#[test]
fn stated_addresses_go_to_the_sockets_in_order_each_family_for_itself() {
    let all = doors(&["[::]:1", "[::]:2"], &["192.0.2.1:11", "[2001:db8::1]:1", "192.0.2.1:12"]);
    let stated =
        |n: usize, local: &str| all[n].stated_for(local.parse().unwrap()).map(|addr| addr.to_string());
    assert_eq!(stated(0, "10.0.0.5").as_deref(), Some("192.0.2.1:11"));
    assert_eq!(stated(0, "fd00::5").as_deref(), Some("[2001:db8::1]:1"));
    assert_eq!(stated(1, "10.0.0.5").as_deref(), Some("192.0.2.1:12"));
    assert_eq!(stated(1, "fd00::5").as_deref(), Some("[2001:db8::1]:2"), "the same place, and its own port");
    let two = doors(&["10.0.0.5:1", "10.0.0.6:1"], &["192.0.2.1:1"]);
    assert_eq!(two[1].stated_for("10.0.0.6".parse().unwrap()), None, "another address is another place");
}

#[test]
fn a_stated_address_without_a_socket_is_named() {
    let left = |bound: &[&str], stated: &[&str]| {
        let mut doors: Vec<_> = bound.iter().map(|text| Door::new(addr(text))).collect();
        state(&mut doors, &stated.iter().map(|text| addr(text)).collect::<Vec<_>>()).err().map(|left| left.0)
    };
    assert_eq!(left(&["0.0.0.0:1"], &["[2001:db8::1]:1"]), Some(addr("[2001:db8::1]:1")));
    assert_eq!(left(&["[::]:1"], &["192.0.2.1:1", "192.0.2.2:1"]), Some(addr("192.0.2.2:1")));
    assert_eq!(left(&["[::]:1", "[::]:2"], &["192.0.2.1:1", "192.0.2.1:2"]), None);
}

#[test]
fn a_session_is_told_of_one_address_of_each_family_for_each_socket() {
    let alternates = doors(&["[::]:2"], &[]);
    let known = known(&["203.0.113.9", "203.0.113.8", "2001:db8::9"], &["203.0.113.1"]);
    let of = |asker: &str, reached: &str| beside(&alternates, &known, &from(asker, reached));
    assert_eq!(of(FAR, "203.0.113.1"), [addr("203.0.113.1:2"), addr("[2001:db8::9]:2")]);
    assert_eq!(of(FAR, "10.0.0.5"), [addr("203.0.113.9:2"), addr("[2001:db8::9]:2")]);
    assert_eq!(of("2001:db8::7", "2001:db8::1")[0], addr("[2001:db8::1]:2"), "its own family is first");
    assert_eq!(of("192.168.1.7", "192.168.1.9")[0], addr("192.168.1.9:2"));
}
