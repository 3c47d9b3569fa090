# shellcheck shell=bash
# Deployments with a second network: overlays, VPNs, bridges. An overlay here is a pair of TUN or TAP devices and a program
# that takes packets from one to the other: it has the names, flags and MTU of the real one, and not its round trip.

# overlay_up tun|tap IF MTU NS ADDRESS NS ADDRESS: the process is PROGRAMS[overlay].
overlay_up() {
    spawn overlay - "$NETNS_PYTHON" "$NETNS_SCRIPTS/deploy/overlay.py" "$1" "$2" "$4" "$6"
    await_line overlay 5 '^ready' >/dev/null
    overlay_end "$2" "$3" "$4" "$5"
    overlay_end "$2" "$3" "$6" "$7"
}

overlay_end() {
    local nodad=()
    [[ $4 != *:* ]] || nodad=(nodad)
    ip -n "$3" link set "$1" mtu "$2" up
    ip -n "$3" addr add "$4" dev "$1" "${nodad[@]}"
}

# Two machines of one LAN that are also in one ZeroTier network.
place_overlay_lan() {
    internet_up
    public_host srv 1
    wide_home_up port-restricted h1=2 h2=3
    name srv,h1,h2 203.0.113.1
    overlay_up tap ztabcdefgh 1400 h1 10.147.17.1/24 h2 10.147.17.2/24
}

# Two homes whose machines are also in one Tailscale network.
place_overlay_internet() {
    place_vps
    overlay_up tun tailscale0 1280 h1 fd7a:115c:a1e0::1/48 h2 fd7a:115c:a1e0::2/48
}

# The same where nothing else is direct, and by IPv4.
place_overlay_only() {
    place_vps symmetric-random symmetric-random
    overlay_up tun tailscale0 1280 h1 100.100.1.1/24 h2 100.100.1.2/24
}

# All that the sharer sends goes through a VPN.
place_vpn() {
    place_vps
    public_host vpn 33
    forward_packets vpn
    overlay_up tun tun0 1420 h1 10.8.0.2/24 vpn 10.8.0.1/24
    nat_table masquerade drop | sed 's/"lan\*"/"tun0"/; s/"wan"/"eth0"/' | in_ns vpn nft -f -
    ip -n h1 route add 0.0.0.0/1 via 10.8.0.1
    ip -n h1 route add 128.0.0.0/1 via 10.8.0.1
    printf '%s\n' "${PROGRAMS[overlay]}" >"$NETNS_WORK/overlay.pid"
}

# A machine with thirty container bridges beside its VPN.
place_bridges() {
    local n
    place_vpn
    for ((n = 17; n < 47; n++)); do
        ip -n h1 link add "br-$n" type bridge
        ip -n h1 addr add "172.$n.0.1/16" dev "br-$n"
        ip -n h1 link set "br-$n" up
    done
}
