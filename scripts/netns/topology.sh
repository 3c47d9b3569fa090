# shellcheck shell=bash
# The places: h1 and h2 (clients), r1 and r2 (their routers), pub (the Internet, which routes; the server is there too).
#
# Each home hangs on pub by a link of its own, and pub stands for four routers, as in the simulated worlds: a packet that a
# client sends with TTL 2 to 5 dies there and never disturbs the other router. That is as on the Internet, and unlike a
# laboratory that puts both routers on one bridge.

NETNS_SERVER=203.0.113.1
NETNS_SERVER_2=203.0.113.2
# miniupnpd maps no port at an address that is kept for documentation: its test gives home 1 another network.
NETNS_HOME_1_NET=${NETNS_HOME_1_NET:-198.51.100}
NETNS_R1_ADDR=$NETNS_HOME_1_NET.2
NETNS_R2_ADDR=192.0.2.2
export NETNS_SERVER NETNS_SERVER_2 NETNS_R1_ADDR NETNS_R2_ADDR

# topology_up KIND1 KIND2: everything, from nothing. With NETNS_SHARED_LINK set, both routers are on one link (and neither
# home may be `open`). The kinds `same-…` are one home with both clients, and go with themselves only.
topology_up() {
    pub_up
    if shares_a_router "$1"; then
        both_homes_up "$1"
    elif [[ -n ${NETNS_SHARED_LINK:-} ]]; then
        NETNS_R2_ADDR=198.51.100.3
        shared_link_up
        home_up 1 198.51.100 2/24 "$1"
        home_up 2 198.51.100 3/24 "$2"
    else
        home_up 1 "$NETNS_HOME_1_NET" 2/26 "$1"
        home_up 2 192.0.2 2/26 "$2"
    fi
    if [[ $1$2 == *ipv6-firewall* ]]; then
        NETNS_SERVER=2001:db8::1
        ipv6_up "$1" "$2"
    fi
    export NETNS_H1_ADDR NETNS_H2_ADDR
}

# shared_link_up: a bridge, on which pub is the gateway of all.
shared_link_up() {
    ip -n pub link add shared type bridge
    ip -n pub addr add 198.51.100.1/24 dev shared
    ip -n pub link set shared up
}

topology_down() {
    local ns
    stop_programs
    for ns in h1 h2 r1 r2 pub; do
        [[ ! -e /run/netns/$ns ]] || ip netns del "$ns"
    done
}

# add_ns NS: a namespace with loopback. No interface there asks for a second whether its link-local address is another's:
# a router forwards no IPv6 until it knows.
add_ns() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    in_ns "$1" sh -c 'cd /proc/sys/net/ipv6/conf && echo 0 >all/accept_dad && echo 0 >default/accept_dad'
}

forward_packets() {
    in_ns "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

# pub counts what passes between the routers and what the server receives: the demo's proof of a direct path is the
# kernel's, not the programs'. With NETNS_SERVER_AWAY set, the server has a place of its own elsewhere.
pub_up() {
    add_ns pub
    forward_packets pub
    if [[ -z ${NETNS_SERVER_AWAY:-} ]]; then
        ip -n pub addr add "$NETNS_SERVER/32" dev lo
        ip -n pub addr add "$NETNS_SERVER_2/32" dev lo
    fi
    in_ns pub nft -f - <<NFT
table inet pub {
    counter between_homes { }
    counter to_server { }
    chain forward {
        type filter hook forward priority 0;
        ip saddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } drop
        ip daddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } drop
        # This router has taken one hop already; here end those that the next three would not let through.
        ip ttl < 4 drop
        counter name between_homes
    }
    chain input {
        type filter hook input priority 0;
        iifname != "lo" counter name to_server
    }
}
NFT
}

# pub_counter NAME: its bytes.
pub_counter() {
    in_ns pub nft list counter inet pub "$1" | grep -oP 'bytes \K[0-9]+'
}

# home_up N NET HOST KIND: router rN and client hN. NET is the home's public /24 without its last octet, HOST the router's
# last octet and prefix. An `open` home has no NAT, so its client gets an address of that network instead of a private one.
home_up() {
    local n=$1 net=$2 wan=$2.$3 kind=$4 router=r$1 client=h$1 gateway=192.168.$1.1 address=192.168.$1.2 prefix=24
    if [[ ${kind#wire:} == open ]]; then
        gateway=$net.65 address=$net.66 prefix=26
    fi
    add_ns "$router"
    add_ns "$client"
    link pub "to-$router" "$router" wan
    link "$router" lan "$client" eth0
    if [[ -n ${NETNS_SHARED_LINK:-} ]]; then
        ip -n pub link set "to-$router" master shared
    else
        ip -n pub addr add "$net.1/26" dev "to-$router"
    fi
    ip -n "$client" addr add "$address/$prefix" dev eth0
    ip -n "$client" route add default via "$gateway"
    [[ ${kind#wire:} != open ]] || ip -n pub route add "$net.64/26" via "${wan%/*}"
    if is_wire "$kind"; then
        wire_up "$n" "$wan" "$net.1" "$gateway/$prefix" "${kind#wire:}"
    else
        kernel_up "$n" "$wan" "$net.1" "$gateway/$prefix" "$kind"
    fi
    [[ -z ${NETNS_EAT_PRIMES:-} ]] || eat_primes "$client"
    declare -g "NETNS_H${n}_ADDR=$address"
}

# kernel_up N WAN UPSTREAM LAN KIND: the kernel is router rN. Its rules stay in $NETNS_WORK/rN.nft, for who loads them anew.
kernel_up() {
    local router=r$1 rules=$NETNS_WORK/r$1.nft
    ip -n "$router" addr add "$2" dev wan
    ip -n "$router" addr add "$4" dev lan
    ip -n "$router" route add default via "$3"
    forward_packets "$router"
    { printf 'flush ruleset\n' && nat_rules "$5" "${2%/*}"; } >"$rules"
    in_ns "$router" nft -f "$rules"
}

# wire_up N WAN UPSTREAM LAN KIND [OPTION…]: a process is router rN, and the kernel there has no address. Its process id is
# in NETNS_WIRE1_PID or NETNS_WIRE2_PID; SIGHUP is a power cut. NETNS_WIRE says how good its line is.
wire_up() {
    local name=wire$1 quality
    read -ra quality <<<"${NETNS_WIRE:-}"
    one_packet_at_a_time pub "to-r$1"
    one_packet_at_a_time "h$1" eth0
    spawn "$name" "r$1" "$NETNS_BIN/nat-sim" wire router --kind "$5" --lan "lan=$4" --wan "wan=$2,$3" \
        --seed "$((${NETNS_SEED:-1} * 2 + $1))" "${quality[@]}" "${@:6}"
    await_event "$name" 5 ready >/dev/null
    declare -gx "NETNS_WIRE${1}_PID=${PROGRAMS[$name]}"
}

# eat_primes NS: what the host sends to die on its way dies at home, before it has opened any router.
eat_primes() {
    in_ns "$1" nft -f - <<'NFT'
table ip primes {
    chain output {
        type filter hook output priority 0;
        ip ttl < 32 drop
    }
}
NFT
}

# one_packet_at_a_time NS IF: no bundles of segments for a network card to cut up: the wire takes them as they are.
one_packet_at_a_time() {
    ip -n "$1" link set "$2" gso_max_segs 1
}

# link NS1 IF1 NS2 IF2: a cable.
link() {
    ip -n "$1" link add "$2" type veth peer name "$4" netns "$3"
    ip -n "$1" link set "$2" up
    ip -n "$3" link set "$4" up
}

topology_picture() {
    printf '\n'
    printf '  home %d   h%d %-14s ---  r%d %-14s %-24s --- pub\n' \
        1 1 "$NETNS_H1_ADDR" 1 "$NETNS_R1_ADDR" "($1)" 2 2 "$NETNS_H2_ADDR" 2 "$NETNS_R2_ADDR" "($2)"
    printf '\n  pub routes between the homes, drops private addresses, and holds the server: %s, %s\n\n' \
        "$NETNS_SERVER" "$NETNS_SERVER_2"
}
