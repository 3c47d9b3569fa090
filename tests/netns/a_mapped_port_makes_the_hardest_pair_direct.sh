#!/usr/bin/env bash
# Two symmetric NATs with random ports, one of them a router that maps ports on request (Debian's miniupnpd): by each of
# PCP, NAT-PMP and UPnP alone the two homes meet directly, and the router has no mapping left when the sharer has gone.
# Without the mapping, or with `--no-portmap`, they don't meet directly.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

# router_with PROTOCOL: miniupnpd on router 1, which speaks nothing else.
router_with() {
    local upnp=no pmp=yes ready='Listening for NAT-PMP/PCP'
    case $1 in
    upnp) upnp=yes pmp=no ready='HTTP listening' ;;
    all) upnp=yes ;;
    esac
    cat >"$NETNS_WORK/miniupnpd.conf" <<CONF
ext_ifname=wan
listening_ip=lan
port=5000
enable_upnp=$upnp
enable_natpmp=$pmp
secure_mode=yes
uuid=7a4b1f3e-0000-4000-8000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
CONF
    in_ns r1 nft -f "$NETNS_WORK/r1.nft"
    in_ns r1 nft -f - <<'NFT'
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
    in_ns r1 nft add rule ip home forward iifname wan ct status dnat accept
    # PCP is version 2 in the first byte of a request, NAT-PMP version 0; miniupnpd speaks either or none.
    [[ $1 != nat-pmp ]] || in_ns r1 nft insert rule ip home input iifname lan udp dport 5351 @th,64,8 2 drop
    # shellcheck disable=SC2016
    spawn "router-$1" r1 sh -c 'exec "$@" 2>&1' sh "$(router_program)" -d -f "$NETNS_WORK/miniupnpd.conf"
    await_line "router-$1" 5 "$ready" >/dev/null
}

router_program() {
    PATH=$PATH:/usr/sbin:/sbin command -v miniupnpd
}

mappings() {
    in_ns r1 nft list chain inet filter prerouting_miniupnpd | grep -c dnat || true
}

# until_mapped COUNT: waits for as many mappings.
until_mapped() {
    local deadline=$((SECONDS + 5))
    until [[ $(mappings) == "$1" ]]; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

share() {
    spawn "$@" --server "http://$NETNS_SERVER:8080" --json -v
    TICKET=$(await_event "$1" 15 ready --print ticket)
}

mapped_by() {
    local protocol=$1 shown=$2
    router_with "$protocol"
    share "share-$protocol" h1 "$NETNS_BIN/peer" share 8000 || return 1
    until_mapped 1 || { cat "$NETNS_WORK/router-$protocol/out" "$NETNS_WORK/share-$protocol/err" && return 1; }
    grep -q "protocol=\"\?$shown" "$NETNS_WORK/share-$protocol/err" || return 1
    connects "$protocol" || return 1
    end "share-$protocol"
    until_mapped 0 || return 1
    end "router-$protocol"
}

# connects PROTOCOL: every connector gets a direct path; says how soon.
connects() {
    local run took=()
    for ((run = 1; run <= $(at_size 1 30); run++)); do
        spawn "connect-$1" h2 "$NETNS_BIN/peer" connect "$TICKET" --no-portmap --json
        took+=("$(await_event "connect-$1" 10 path kind=direct --print since_start_ms)") || return 1
        end "connect-$1"
    done
    printf '%s: %d of %d direct, ms after start: %s\n' "$1" "${#took[@]}" "$((run - 1))" \
        "$(printf '%s\n' "${took[@]}" | sort -n | tr '\n' ' ')"
}

# end NAME: stops one program.
end() {
    kill -TERM "${PROGRAMS[$1]}"
    wait "${PROGRAMS[$1]}" || true
    unset "PROGRAMS[$1]"
}

asked_for_none() {
    router_with all
    share share-none h1 "$NETNS_BIN/peer" share 8000 --no-portmap || return 1
    spawn connect-none h2 "$NETNS_BIN/peer" connect "$TICKET" --no-portmap --json
    if await_event connect-none 6 path kind=direct 2>/dev/null; then
        return 1
    fi
    [[ $(mappings) == 0 ]]
}

netcheck_names_them() {
    local said
    said=$(in_ns h1 "$NETNS_BIN/peer" netcheck --server "http://$NETNS_SERVER:8080" --json) || return 1
    printf '%s\n' "$said"
    grep -qF '"port_mapping":["pcp","nat-pmp","upnp"]' <<<"$said" && [[ $(mappings) == 0 ]]
}

between_homes() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json \
        --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null || claim "$NAME" false
    claim "$NAME (PCP)" mapped_by pcp PCP
    claim "$NAME (NAT-PMP)" mapped_by nat-pmp NAT-PMP
    claim "$NAME (UPnP)" mapped_by upnp UPnP
    claim "$NAME (not without)" asked_for_none
    claim "$NAME (netcheck names the protocols, and maps nothing)" netcheck_names_them
}

if [[ ${1:-} == inside ]]; then
    between_homes
else
    PATH=$PATH:/usr/sbin:/sbin command -v miniupnpd >/dev/null || unable "miniupnpd is missing (Debian: miniupnpd-nftables)"
    status=0
    NETNS_HOME_1_NET=20.0.0 netns run --nat1 symmetric-random --nat2 symmetric-random -- "$0" inside || status=$?
    ((status != SKIPPED)) || unable "there are no namespaces"
    exit "$status"
fi
