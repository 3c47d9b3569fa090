# shellcheck shell=bash
# Homes out of the ordinary: two clients behind one router, and homes with IPv6.

# both_homes_up KIND: router r1 with both clients.
both_homes_up() {
    local kind=$1 upstream=198.51.100.1
    add_ns r1
    link pub to-r1 r1 wan
    ip -n pub addr add "$upstream/26" dev to-r1
    if [[ $kind == same-lan ]]; then
        one_lan_up
    else
        add_ns h1
        add_ns h2
        client_up 1 lan 192.168.1
        client_up 2 lan2 192.168.2
    fi
    NETNS_H1_ADDR=192.168.1.2
    if is_wire "$kind"; then
        one_packet_at_a_time h2 eth0
        wire_up 1 "$NETNS_R1_ADDR/26" "$upstream" 192.168.1.1/24 "${kind#wire:}" --lan lan2=192.168.2.1/24
    else
        [[ $kind == same-lan ]] || ip -n r1 addr add 192.168.2.1/24 dev lan2
        kernel_up 1 "$NETNS_R1_ADDR/26" "$upstream" 192.168.1.1/24 "$kind"
    fi
}

# client_up N IF NET: client hN on a LAN of its own, on the router's interface IF.
client_up() {
    link r1 "$2" "h$1" eth0
    ip -n "h$1" addr add "$3.2/24" dev eth0
    ip -n "h$1" route add default via "$3.1"
    declare -g "NETNS_H${1}_ADDR=$3.2"
}

# one_lan_up: both clients on one switch, which is the router's interface `lan`.
one_lan_up() {
    add_ns h1
    add_ns h2
    lan_up 1 h1=2 h2=3
    NETNS_H2_ADDR=192.168.1.3
}

# lan_up N HOST=OCTET…: a switch, which is router rN's interface `lan`, with those hosts at 192.168.N.OCTET.
lan_up() {
    local n=$1 pair host
    ip -n "r$n" link add lan type bridge
    ip -n "r$n" link set lan up
    # Otherwise the kernel shows a switch's packets to the router's rules.
    in_ns "r$n" sh -c 'echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables' 2>/dev/null || true
    for pair in "${@:2}"; do
        host=${pair%=*}
        link "r$n" "port-$host" "$host" eth0
        ip -n "r$n" link set "port-$host" master lan
        ip -n "$host" addr add "192.168.$n.${pair#*=}/24" dev eth0
        ip -n "$host" route add default via "192.168.$n.1"
    done
}

# ipv6_up KIND1 KIND2: IPv6 for the server, and for each home that is `open` or an `ipv6-firewall`.
ipv6_up() {
    forward_ipv6 pub
    ip -n pub -6 addr add "$NETNS_SERVER/128" dev lo
    [[ $1 != open && $1 != ipv6-firewall ]] || home_ipv6_up 1
    [[ $2 != open && $2 != ipv6-firewall ]] || home_ipv6_up 2
}

# home_ipv6_up N: global addresses for a home's router and client. The addresses are ours alone, so nobody is asked whether
# they are (`nodad`), which would take a second.
home_ipv6_up() {
    local n=$1 line=2001:db8:0:$1 lan=2001:db8:$1:1
    forward_ipv6 "r$n"
    ip -n pub -6 addr add "$line::1/64" dev "to-r$n" nodad
    ip -n "r$n" -6 addr add "$line::2/64" dev wan nodad
    ip -n "r$n" -6 addr add "$lan::1/64" dev lan nodad
    ip -n "h$n" -6 addr add "$lan::2/64" dev eth0 nodad
    ip -n pub -6 route add "$lan::/64" via "$line::2"
    ip -n "r$n" -6 route add default via "$line::1"
    ip -n "h$n" -6 route add default via "$lan::1"
}

forward_ipv6() {
    in_ns "$1" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
}
