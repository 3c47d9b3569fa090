# shellcheck shell=bash
# Deployments that differ by a home: the server is in it, it has other versions of IP, or another kind of network.

# wide_home_up KIND HOST=OCTET…: home 1, with several hosts in its LAN.
wide_home_up() {
    local host
    add_ns r1
    for host in "${@:2}"; do
        add_ns "${host%=*}"
    done
    link pub to-r1 r1 wan
    ip -n pub addr add "$NETNS_HOME_1_NET.1/26" dev to-r1
    lan_up 1 "${@:2}"
    kernel_up 1 "$NETNS_R1_ADDR/26" "$NETNS_HOME_1_NET.1" 192.168.1.1/24 "$1"
    # Where the kernel shows a switch's packets to the router's rules, these are none of theirs.
    in_ns r1 nft insert rule ip home forward iifname lan oifname lan accept
}

# place_home_server LOOKUP HAIRPIN [KIND]: the server at home, 192.168.1.9, behind a port forward, and the sharer beside it.
# LOOKUP is what its name leads to in there, `inside` or `outside`; HAIRPIN whether the router leads back in what its own
# clients send to its public address, `hairpin` or `no-hairpin`.
place_home_server() {
    internet_up
    wide_home_up "${3:-port-restricted}" h1=2 srv=9
    home_up 2 192.0.2 2/26 port-restricted
    forward_ports "$2"
    name h2 "$NETNS_R1_ADDR"
    if [[ $1 == inside ]]; then
        name h1,srv 192.168.1.9
    else
        name h1,srv "$NETNS_R1_ADDR"
    fi
}

forward_ports() {
    local from=wan
    [[ $1 != hairpin ]] || from=''
    in_ns r1 nft -f - <<NFT
table ip forwarded {
    chain inwards {
        type nat hook prerouting priority dstnat - 1;
        ip daddr != $NETNS_R1_ADDR return
        $(only_ports 192.168.1.9 "$from")
    }
    chain outwards {
        type nat hook postrouting priority srcnat - 1;
        iifname "lan" oifname "lan" ct status dnat masquerade
    }
}
NFT
    in_ns r1 nft add rule ip home forward ct status dnat accept
}

# The router maps ports on request, and is of a kind that is easily met only so.
place_home_server_mapped() {
    place_home_server inside no-hairpin symmetric-random
    port_mapper_up 1
}

# port_mapper_up N: miniupnpd on router rN.
port_mapper_up() {
    local conf=$NETNS_WORK/miniupnpd.conf
    printf '%s\n' ext_ifname=wan listening_ip=lan port=5000 enable_upnp=yes enable_natpmp=yes secure_mode=yes \
        uuid=7a4b1f3e-0000-4000-8000-000000000001 'allow 1024-65535 0.0.0.0/0 1024-65535' >"$conf"
    in_ns "r$1" nft -f - <<'NFT'
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority -100;
        jump prerouting_miniupnpd
    }
}
NFT
    # shellcheck disable=SC2016
    spawn mapper "r$1" sh -c 'exec "$@" 2>&1' sh miniupnpd -d -f "$conf"
    await_line mapper 5 'HTTP listening' >/dev/null
}

# place_names SERVER SHARER VISITOR: each with v4, v6 or both.
place_names() {
    local addresses=()
    internet_up
    public_host srv 1 "$1"
    [[ $1 == v6 ]] || addresses+=(203.0.113.1)
    [[ $1 == v4 ]] || addresses+=(2001:db8:9::1)
    name srv,h1,h2 "${addresses[@]}"
    home_of 1 "$NETNS_HOME_1_NET" "$2"
    home_of 2 192.0.2 "$3"
}

# home_of N NET FAMILIES: a home with these versions of IP: a port-restricted NAT, and a firewall that lets answers in.
home_of() {
    home_up "$1" "$2" 2/26 port-restricted
    [[ $3 == v4 ]] || home_ipv6_up "$1"
    [[ $3 == v4 ]] || ipv6_answers_only | in_ns "r$1" nft -f -
    if [[ $3 == v6 ]]; then
        ip -n "h$1" -4 addr flush dev eth0
    fi
}

# The sharer's network has IPv6 alone, NAT64 by Debian's tayga, and DNS64.
place_nat64() {
    local prefix=2001:db8:64:: conf=$NETNS_WORK/tayga.conf
    place_vps
    home_ipv6_up 1
    ip -n h1 -4 addr flush dev eth0
    mkdir -p "$NETNS_WORK/tayga.d"
    printf '%s\n' 'tun-device lan64' 'ipv4-addr 192.168.255.1' "prefix $prefix/96" 'dynamic-pool 192.168.255.0/24' \
        "data-dir $NETNS_WORK/tayga.d" >"$conf"
    in_ns r1 tayga --mktun -c "$conf" >/dev/null
    ip -n r1 link set lan64 up
    ip -n r1 route add 192.168.255.0/24 dev lan64
    ip -n r1 -6 route add "$prefix/96" dev lan64
    spawn tayga r1 tayga --nodetach -c "$conf"
    name h1 !dns64 "$prefix"
}

# place_whim NS WORD…: a resolver with a whim.
place_whim() {
    place_vps
    name "$@"
}

# place_refusing own|network: UDP is refused at the visitor, by the host's own firewall or by its router.
place_refusing() {
    place_vps
    if [[ $1 == own ]]; then
        in_ns h2 nft -f - <<'NFT'
table inet own {
    chain output {
        type filter hook output priority 0;
        oifname "eth0" meta l4proto udp drop
    }
}
NFT
    else
        in_ns r2 nft -f - <<'NFT'
table ip refusal {
    chain forward {
        type filter hook forward priority -10;
        iifname "lan" meta l4proto udp reject with icmp type admin-prohibited
    }
}
NFT
    fi
}

# Two homes behind one carrier's router, which leads back what one of them sends to the public address of the other.
place_cgnat_hairpin() {
    local n
    internet_up
    public_host srv 1
    name srv,h1,h2 203.0.113.1
    add_ns cgn
    link pub to-cgn cgn wan
    ip -n pub addr add 198.51.100.1/26 dev to-cgn
    for n in 1 2; do
        add_ns "r$n"
        add_ns "h$n"
        link cgn "lan$n" "r$n" wan
        link "r$n" lan "h$n" eth0
        one_packet_at_a_time "r$n" wan
        ip -n "h$n" addr add "192.168.$n.2/24" dev eth0
        ip -n "h$n" route add default via "192.168.$n.1"
        kernel_up "$n" "100.64.$n.2/24" "100.64.$n.1" "192.168.$n.1/24" port-restricted
    done
    one_packet_at_a_time pub to-cgn
    spawn cgn cgn "$NETNS_BIN/nat-sim" wire router --kind same-nat+hairpin --wan wan=198.51.100.2/26,198.51.100.1 \
        --lan lan1=100.64.1.1/24 --lan lan2=100.64.2.1/24
    await_event cgn 5 ready >/dev/null
}

# The visitor's router gives each port of its client a port of its own choosing, and chooses others once it was switched
# off and on: its rules for then are in r2.rebooted.nft.
place_new_ports() {
    place_vps
    ports_chosen_by 1 >"$NETNS_WORK/r2.nft"
    ports_chosen_by 2 >"$NETNS_WORK/r2.rebooted.nft"
    in_ns r2 nft -f "$NETNS_WORK/r2.nft"
}

ports_chosen_by() {
    local ports
    ports=$(sequential_ports $((20000 + $1 * 2048)) 1024)
    printf 'flush ruleset\n'
    nat_table "meta l4proto != udp masquerade
        meta l4proto udp snat ip to $NETNS_R2_ADDR : jhash udp sport mod 1024 seed $1 map { $ports }" drop
}

# The sharer has two ways out, and a rule sends what leaves by the second one's address that way.
place_policy_routing() {
    place_vps
    add_ns r3
    link pub to-r3 r3 wan
    link r3 lan h1 eth1
    ip -n pub addr add 198.51.100.129/26 dev to-r3
    ip -n h1 addr add 192.168.3.2/24 dev eth1
    ip -n h1 rule add from 192.168.3.2 lookup 3
    ip -n h1 route add default via 192.168.3.1 table 3
    kernel_up 3 198.51.100.130/26 198.51.100.129 192.168.3.1/24 port-restricted
}
