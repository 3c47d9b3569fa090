# shellcheck shell=bash
# Where people put a server: on a machine with a public address, behind a cloud's NAT, in a container, at home. Each
# `place_NAME` builds one deployment: `srv` is where `rendezvous` runs, h1 shares, h2 visits.

DEPLOY_NAME=example.test

# internet_up: pub, with no server in it, and both versions of IP.
internet_up() {
    NETNS_SERVER_AWAY=yes pub_up
    forward_ipv6 pub
}

# public_host NS N [v4|v6|both]: a host on the Internet, with the public address 203.0.113.N itself, 2001:db8:9::N, or both.
public_host() {
    local ns=$1 n=$2 families=${3:-v4} net=$(($2 / 16 * 16))
    add_ns "$ns"
    link pub "to-$ns" "$ns" eth0
    if [[ $families != v6 ]]; then
        ip -n pub addr add "203.0.113.$((net + 14))/28" dev "to-$ns"
        ip -n "$ns" addr add "203.0.113.$n/28" dev eth0
        ip -n "$ns" route add default via "203.0.113.$((net + 14))"
    fi
    if [[ $families != v4 ]]; then
        ip -n pub -6 addr add 2001:db8:9::14/64 dev "to-$ns" nodad
        ip -n "$ns" -6 addr add "2001:db8:9::$n/64" dev eth0 nodad
        ip -n "$ns" -6 route add default via 2001:db8:9::14
    fi
}

# homes [KIND1 [KIND2]]: the sharer's home and the visitor's.
homes() {
    home_up 1 "$NETNS_HOME_1_NET" 2/26 "${1:-port-restricted}"
    home_up 2 192.0.2 2/26 "${2:-port-restricted}"
}

# name NS[,NS…] ADDRESS…: what the resolver of those hosts says of the server's name; `name NS !WORD…` is a whim of it
# (see dns.py). A host without any of it has no resolver.
name() {
    local ns
    mkdir -p "$NETNS_WORK/dns"
    for ns in ${1//,/ }; do
        if [[ $2 == !* ]]; then
            printf '%s\n' "${*:2}" >>"$NETNS_WORK/dns/$ns"
        else
            printf '%s %s\n' "$DEPLOY_NAME" "${*:2}" >>"$NETNS_WORK/dns/$ns"
        fi
    done
}

# place_vps [KIND1 [KIND2]]: the baseline.
place_vps() {
    internet_up
    public_host srv 1
    homes "$@"
    name srv,h1,h2 203.0.113.1
}

# The same with a relay of its own on another machine.
place_vps_with_relay() {
    place_vps "$@"
    public_host rel 17
}

# closed NS PORT…: the firewall of that host drops what comes by UDP for those ports.
closed() {
    in_ns "$1" nft -f - <<NFT
table inet closed {
    chain input {
        type filter hook input priority 0;
        udp dport { $(IFS=, && printf '%s' "${*:2}") } drop
    }
}
NFT
}

place_vps_closed() {
    place_vps port-restricted "$1"
    closed srv "${@:2}"
}

# only_ports TO IF: what comes by that interface (by any, where it is empty) for the server's own ports goes to the host TO,
# and nothing else.
only_ports() {
    cat <<NFT
        ${2:+iifname "$2"} tcp dport 8080 dnat ip to $1
        ${2:+iifname "$2"} udp dport { 3478, 3479 } dnat ip to $1
NFT
}

# A cloud: the machine has 10.0.0.5, and the cloud's gateway translates all of it to 203.0.113.1 and back.
place_cloud_1to1_nat() {
    internet_up
    cloud_gateway
    ip -n srv addr add 10.0.0.5/24 dev eth0
    ip -n srv route add default via 10.0.0.1
    in_ns gw nft -f - <<NFT
table ip cloud {
    chain inwards {
        type nat hook prerouting priority dstnat;
        $(only_ports 10.0.0.5 eth0)
    }
    chain outwards {
        type nat hook postrouting priority srcnat;
        oifname "eth0" ip saddr 10.0.0.5 snat to 203.0.113.1
    }
}
NFT
    homes "$@"
    name srv,h1,h2 203.0.113.1
}

cloud_gateway() {
    public_host gw 1
    add_ns srv
    link gw lan srv eth0
    ip -n gw addr add 10.0.0.1/24 dev lan
    forward_packets gw
}

# Two elastic addresses on one machine.
place_cloud_two_ips() {
    internet_up
    cloud_gateway
    ip -n gw addr add 203.0.113.2/28 dev eth0
    ip -n srv addr add 10.0.0.5/24 dev eth0
    ip -n srv addr add 10.0.0.6/24 dev eth0
    ip -n srv route add default via 10.0.0.1
    in_ns gw nft -f - <<'NFT'
table ip cloud {
    chain inwards {
        type nat hook prerouting priority dstnat;
        iifname "eth0" dnat to ip daddr map { 203.0.113.1 : 10.0.0.5, 203.0.113.2 : 10.0.0.6 }
    }
    chain outwards {
        type nat hook postrouting priority srcnat;
        oifname "eth0" snat to ip saddr map { 10.0.0.5 : 203.0.113.1, 10.0.0.6 : 203.0.113.2 }
    }
}
NFT
    homes "$@"
    name srv,h1,h2 203.0.113.1
}

# A container, 172.17.0.2, on a machine with a public address.
container_up() {
    public_host host 1
    forward_packets host
    add_ns srv
    ip -n host link add docker0 type bridge
    ip -n host link set docker0 up
    ip -n host addr add 172.17.0.1/16 dev docker0
    link host veth-srv srv eth0
    ip -n host link set veth-srv master docker0
    ip -n srv addr add 172.17.0.2/16 dev eth0
    ip -n srv route add default via 172.17.0.1
}

# place_docker_dnat [MASQUERADE]: `docker run -p`, by Docker's own rules; or with one more that hides who comes.
place_docker_dnat() {
    internet_up
    container_up
    in_ns host nft -f - <<NFT
table ip docker {
    chain inwards {
        type nat hook prerouting priority dstnat;
        $(only_ports 172.17.0.2 eth0)
    }
    chain outwards {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
        ${1:+oifname "docker0" masquerade}
    }
}
NFT
    homes
    name h1,h2 203.0.113.1
    name srv "${2:-203.0.113.1}"
}

# No rule leads to the container: a program on its host takes what comes, and passes it on as its own.
place_docker_userland_proxy() {
    internet_up
    container_up
    in_ns host nft -f - <<'NFT'
table ip docker {
    chain outwards {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
    }
}
NFT
    spawn proxy host "$NETNS_PYTHON" "$NETNS_SCRIPTS/deploy/proxy.py" 172.17.0.2 tcp:8080 udp:3478 udp:3479
    await_line proxy 5 '^ready' >/dev/null
    homes
    name srv,h1,h2 203.0.113.1
}

# nginx, on the server's machine, on port 80: the shipped configuration, without its TLS.
place_behind_nginx() {
    local conf=$NETNS_WORK/nginx.conf
    place_vps
    {
        printf 'user root;\ndaemon off;\nmaster_process off;\npid %s/nginx.pid;\nevents { }\nhttp {\naccess_log off;\n' "$NETNS_WORK"
        printf "%s_temp_path $NETNS_WORK/nginx.tmp;\n" client_body proxy fastcgi uwsgi scgi
        sed -e '/ssl_/d; s/listen 443 ssl http2/listen 80/; s/listen \[::\]:443 ssl http2/listen [::]:80/' \
            -e "s/example\.com/$DEPLOY_NAME/g" "$NETNS_SCRIPTS/../../docs/nginx/culvert.conf"
        printf '}\n'
    } >"$conf"
    spawn nginx srv nginx -e stderr -c "$conf"
    await_port nginx srv 80 || { cat "$NETNS_WORK/nginx/err" >&2 && return 1; }
}
