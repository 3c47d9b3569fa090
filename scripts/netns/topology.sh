# shellcheck shell=bash
# The places: h1 and h2 (clients), r1 and r2 (their routers), pub (the Internet, which routes; the server is there too).
#
# Each home hangs on pub by a link of its own, so a packet that a client sends with TTL 2 dies at pub and never disturbs
# the other router: as on the Internet, and unlike a laboratory that puts both routers on one bridge.

NETNS_SERVER=203.0.113.1
NETNS_SERVER_2=203.0.113.2
NETNS_R1_ADDR=198.51.100.2
NETNS_R2_ADDR=192.0.2.2
export NETNS_SERVER NETNS_SERVER_2 NETNS_R1_ADDR NETNS_R2_ADDR

# topology_up KIND1 KIND2: everything, from nothing.
topology_up() {
    pub_up
    home_up 1 198.51.100 "$1"
    home_up 2 192.0.2 "$2"
    export NETNS_H1_ADDR NETNS_H2_ADDR
}

topology_down() {
    local ns
    for ns in h1 h2 r1 r2 pub; do
        ip netns del "$ns"
    done
}

# add_ns NS [routes]: a namespace with loopback, forwarding packets or not.
add_ns() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    [[ ${2:-} != routes ]] || in_ns "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

# pub counts what passes between the routers and what the server receives: the demo's proof of a direct path is the
# kernel's, not the programs'.
pub_up() {
    add_ns pub routes
    ip -n pub addr add "$NETNS_SERVER/32" dev lo
    ip -n pub addr add "$NETNS_SERVER_2/32" dev lo
    in_ns pub nft -f - <<NFT
table ip pub {
    counter between_homes { }
    counter to_server { }
    chain forward {
        type filter hook forward priority 0;
        ip saddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } drop
        ip daddr { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } drop
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
    in_ns pub nft list counter ip pub "$1" | grep -oP 'bytes \K[0-9]+'
}

# home_up N NET KIND: router rN and client hN. NET is the home's public /24 without its last octet. An `open` home has no
# NAT, so its client gets an address of that network instead of a private one.
home_up() {
    local n=$1 net=$2 kind=$3 router=r$1 client=h$1 gateway=192.168.$1.1 address=192.168.$1.2 prefix=24
    if [[ $kind == open ]]; then
        gateway=$net.65 address=$net.66 prefix=26
    fi
    add_ns "$router" routes
    add_ns "$client"
    link pub "to-$router" "$net.1/26" "$router" wan "$net.2/26"
    link "$router" lan "$gateway/$prefix" "$client" eth0 "$address/$prefix"
    ip -n "$router" route add default via "$net.1"
    ip -n "$client" route add default via "$gateway"
    [[ $kind != open ]] || ip -n pub route add "$net.64/26" via "$net.2"
    nat_rules "$kind" "$net.2" | in_ns "$router" nft -f -
    declare -g "NETNS_H${n}_ADDR=$address"
}

# link NS1 IF1 ADDR1 NS2 IF2 ADDR2: a cable.
link() {
    ip -n "$1" link add "$2" type veth peer name "$5" netns "$4"
    ip -n "$1" addr add "$3" dev "$2"
    ip -n "$4" addr add "$6" dev "$5"
    ip -n "$1" link set "$2" up
    ip -n "$4" link set "$5" up
}

topology_picture() {
    printf '\n'
    printf '  home %d   h%d %-14s ---  r%d %-14s %-24s --- pub\n' \
        1 1 "$NETNS_H1_ADDR" 1 "$NETNS_R1_ADDR" "($1)" 2 2 "$NETNS_H2_ADDR" 2 "$NETNS_R2_ADDR" "($2)"
    printf '\n  pub routes between the homes, drops private addresses, and holds the server: %s, %s\n\n' \
        "$NETNS_SERVER" "$NETNS_SERVER_2"
}
