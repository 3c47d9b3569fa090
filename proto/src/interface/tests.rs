use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An address of a device of this name, with its prefix: `192.168.1.10/24`.
fn on(name: &str, address: &str) -> OwnAddress {
    let (addr, prefix) = address.split_once('/').unwrap();
    let device = Device { name: name.into(), mtu: Some(1500), ..Device::default() };
    OwnAddress { ip: ip(addr), prefix: Some(prefix.parse().unwrap()), device }
}

fn tunnel(name: &str, address: &str) -> OwnAddress {
    let on = on(name, address);
    OwnAddress { device: Device { is_tunnel: true, ..on.device }, ..on }
}

fn bridge(name: &str, address: &str) -> OwnAddress {
    let on = on(name, address);
    OwnAddress { device: Device { is_bridge: true, ..on.device }, ..on }
}

fn card(name: &str, address: &str) -> OwnAddress {
    let on = on(name, address);
    OwnAddress { device: Device { is_hardware: true, ..on.device }, ..on }
}

fn medium(address: &OwnAddress, defaults: &[&str]) -> Medium {
    let defaults = defaults.iter().map(|text| ip(text)).collect();
    Interfaces::new(vec![address.clone()], defaults).medium(address)
}

#[test]
fn a_tunnel_is_an_overlay_also_where_it_carries_the_default_route() {
    assert_eq!(medium(&tunnel("zt0", "10.147.17.1/24"), &[]), Medium::Overlay);
    assert_eq!(medium(&tunnel("wg0", "10.8.0.2/24"), &["10.8.0.2"]), Medium::Overlay);
}

#[test]
fn a_modem_or_a_telephone_line_with_the_default_route_is_no_overlay() {
    let mut modem = tunnel("wwan0", "100.70.1.2/32");
    modem.device.is_hardware = true;
    modem.device.mtu = Some(1358);
    assert_eq!(medium(&modem, &["100.70.1.2"]), Medium::Lan);
    let mut line = on("ppp0", "203.0.113.7/32");
    line.device.is_point_to_point = true;
    assert_eq!(medium(&line, &["203.0.113.7"]), Medium::Lan);
    assert_eq!(medium(&line, &[]), Medium::Overlay);
    let mut vpn = on("ppp0", "10.0.0.7/32");
    vpn.device.is_point_to_point = true;
    assert_eq!(medium(&vpn, &["10.0.0.7"]), Medium::Overlay);
}

#[test]
fn a_shared_address_is_a_carriers_where_the_default_route_is_and_an_overlays_elsewhere() {
    assert_eq!(medium(&on("eth0", "100.64.3.4/10"), &["100.64.3.4"]), Medium::Lan);
    assert_eq!(medium(&on("ts0", "100.64.3.4/10"), &[]), Medium::Overlay);
    assert_eq!(medium(&ip("100.64.3.4").into(), &[]), Medium::Overlay, "of which nothing else is known");
}

#[test]
fn an_interface_with_a_small_mtu_is_an_overlay_unless_it_is_the_way_out() {
    let mut small = on("eth1", "10.0.0.7/24");
    small.device.mtu = Some(1399);
    assert_eq!(medium(&small, &[]), Medium::Overlay);
    assert_eq!(medium(&small, &["10.0.0.7"]), Medium::Lan);
    small.device.mtu = Some(1400);
    assert_eq!(medium(&small, &[]), Medium::Lan);
}

#[test]
fn tailscales_range_is_an_overlay_on_any_device() {
    assert_eq!(medium(&on("eth0", "fd7a:115c:a1e0::1/48"), &["fd7a:115c:a1e0::1"]), Medium::Overlay);
    assert_eq!(medium(&on("eth0", "fd7a:115c:a1e1::1/64"), &[]), Medium::Lan);
}

#[test]
fn a_bridge_with_the_default_route_is_a_lan() {
    assert_eq!(medium(&bridge("br0", "192.168.1.10/24"), &["192.168.1.10"]), Medium::Lan);
    assert_eq!(medium(&bridge("docker0", "172.17.0.1/16"), &[]), Medium::Bridge);
}

#[test]
fn the_rank_of_a_way_is_that_of_the_interface_it_leaves_by_and_of_the_address_it_leads_to() {
    let own = vec![
        on("eth0", "192.168.1.10/24"),
        on("eth0", "2001:db8:1::10/64"),
        tunnel("zt0", "10.147.17.1/24"),
        on("ts0", "100.100.1.1/32"),
        bridge("docker0", "172.17.0.1/16"),
    ];
    let home = Interfaces::new(own, vec![ip("192.168.1.10"), ip("2001:db8:1::10")]);
    let rank = |source: &str, remote: &str| home.rank(Some(ip(source)), ip(remote));
    assert_eq!(rank("192.168.1.10", "192.168.1.11"), Rank::Lan);
    assert_eq!(rank("2001:db8:1::10", "2001:db8:1::11"), Rank::Lan);
    assert_eq!(rank("172.17.0.1", "172.17.0.5"), Rank::Lan);
    assert_eq!(rank("192.168.1.10", "203.0.113.9"), Rank::Public);
    assert_eq!(rank("192.168.1.10", "192.168.2.11"), Rank::Public, "behind a router of ours");
    assert_eq!(rank("2001:db8:1::10", "2001:db8:2::11"), Rank::Public);
    assert_eq!(rank("10.147.17.1", "10.147.17.2"), Rank::Overlay);
    assert_eq!(rank("192.168.1.10", "100.100.1.2"), Rank::Overlay, "a range in which we have an overlay");
    assert_eq!(rank("2001:db8:1::10", "fd7a:115c:a1e0::2"), Rank::Overlay);
    assert_eq!(rank("10.147.17.1", "203.0.113.9"), Rank::Overlay, "the way out is a tunnel");
}

#[test]
fn a_carriers_customers_are_met_as_on_the_internet() {
    let home = Interfaces::new(vec![on("eth0", "100.64.3.4/24")], vec![ip("100.64.3.4")]);
    assert!(home.holds_shared());
    assert_eq!(home.rank(Some(ip("100.64.3.4")), ip("100.64.9.9")), Rank::Public);
    assert_eq!(home.rank(Some(ip("100.64.3.4")), ip("100.64.3.9")), Rank::Lan);
}

#[test]
fn addresses_alone_decide_where_nothing_else_is_known() {
    let home = Interfaces::new(vec![ip("192.168.1.10").into(), ip("100.100.1.1").into()], Vec::new());
    let rank = |source: &str, remote: &str| home.rank(Some(ip(source)), ip(remote));
    assert_eq!(rank("192.168.1.10", "192.168.1.11"), Rank::Lan);
    assert_eq!(rank("192.168.1.10", "203.0.113.9"), Rank::Public);
    assert_eq!(rank("100.100.1.1", "100.100.1.2"), Rank::Overlay);
    assert_eq!(home.rank(None, ip("192.168.1.11")), Rank::Lan);
    assert_eq!(home.rank(None, ip("203.0.113.9")), Rank::Public);
}

/// The addresses of a host with 30 bridges, two cards, a VPN and Tailscale.
fn busy_host() -> Interfaces {
    let mut own: Vec<OwnAddress> =
        (0..30).map(|n| bridge(&format!("br-{n}"), &format!("172.{}.0.1/16", 17 + n))).collect();
    own.extend([
        card("eth0", "192.168.178.20/24"),
        card("eth0", "2001:db8:1::20/64"),
        card("eth0", "2001:db8:1::aaaa/64"),
        card("eth0", "2001:db8:1::bbbb/64"),
        card("eth1", "192.168.200.3/24"),
        tunnel("tun0", "10.8.0.6/24"),
        tunnel("tailscale0", "100.100.1.1/32"),
        tunnel("tailscale0", "fd7a:115c:a1e0::1/128"),
    ]);
    Interfaces::new(own, vec![ip("192.168.178.20"), ip("2001:db8:1::20")])
}

#[test]
fn thirty_bridges_and_a_vpn_push_out_neither_lan_nor_ipv6() {
    let claims: Vec<String> = busy_host().claims(7).iter().map(ToString::to_string).collect();
    assert_eq!(
        claims,
        [
            "192.168.178.20",
            "2001:db8:1::20",
            "192.168.200.3",
            "2001:db8:1::aaaa",
            "2001:db8:1::bbbb",
            "10.8.0.6",
            "fd7a:115c:a1e0::1",
        ]
    );
}

#[test]
fn six_claims_begin_as_seven_do() {
    let (six, seven) = (busy_host().claims(6), busy_host().claims(7));
    assert_eq!(six.len(), 6);
    assert!(six.iter().all(|claim| seven.contains(claim)));
    assert!(busy_host().claims(0).is_empty());
}

#[test]
fn the_way_to_the_internet_is_claimed_first_and_bridges_only_where_there_is_room() {
    let own = vec![
        bridge("docker0", "172.17.0.1/16"),
        bridge("br-1", "172.18.0.1/16"),
        card("eth0", "192.168.1.10/24"),
    ];
    let home = Interfaces::new(own, vec![ip("192.168.1.10")]);
    assert_eq!(home.claims(7), [ip("192.168.1.10"), ip("172.17.0.1"), ip("172.18.0.1")]);
    assert_eq!(home.claims(1), [ip("192.168.1.10")]);
}

#[test]
fn a_vpn_that_takes_the_default_route_is_still_claimed_behind_the_lan() {
    let own = vec![tunnel("wg0", "10.8.0.2/24"), card("eth0", "192.168.1.10/24")];
    let home = Interfaces::new(own, vec![ip("10.8.0.2")]);
    assert_eq!(home.claims(7), [ip("192.168.1.10"), ip("10.8.0.2")]);
}
