# shellcheck shell=bash
# The NAT kinds, as nftables rules for a home's router, or as the laboratory's own model on a wire between veths
# (`wire:KIND`). `netns.sh natcheck` proves each by real packets.

# What `nat_rules` knows, by the laboratory's names.
NAT_KINDS=(
    open
    full-cone
    address-restricted
    port-restricted
    port-restricted+leaky
    symmetric-sequential
    symmetric-random
    udp-blocked
)

# Both clients behind one router: on one LAN, or on two that the router joins.
ONE_HOME_KINDS=(same-lan same-nat)

# What `nat-sim wire` knows besides: what the kernel lacks.
WIRE_KINDS=(
    full-cone+leaky
    address-restricted+leaky
    symmetric-sequential+leaky
    symmetric-random+leaky
    'cgnat(full-cone)'
    'cgnat(address-restricted)'
    'cgnat(port-restricted)'
    'cgnat(port-restricted+leaky)'
    'cgnat(symmetric-sequential)'
    'cgnat(symmetric-random)'
    'cgnat(port-restricted/symmetric-sequential)'
    'cgnat(port-restricted/symmetric-random)'
    'cgnat(symmetric-sequential/port-restricted)'
    'cgnat(symmetric-random/port-restricted)'
)

# all_nat_kinds: the kernel's, then the wire's.
all_nat_kinds() {
    printf '%s\n' "${NAT_KINDS[@]}" "${ONE_HOME_KINDS[@]}" ipv6-firewall
    printf 'wire:%s\n' "${NAT_KINDS[@]}" "${WIRE_KINDS[@]}" symmetric-block same-nat same-nat+hairpin
}

# nat_kinds: those of them of which natcheck can say what they are: IPv4, and one home behind one router.
nat_kinds() {
    printf '%s\n' "${NAT_KINDS[@]}"
    printf 'wire:%s\n' "${NAT_KINDS[@]}" "${WIRE_KINDS[@]}"
}

nat_kind_exists() {
    # No pipe: `grep -q` leaves early, and what still writes to it would fail.
    grep -qxF -e "$1" <<<"$(all_nat_kinds)"
}

# shares_a_router KIND: whether both clients are behind one router.
shares_a_router() {
    [[ ${1#wire:} == same-* ]]
}

is_wire() {
    [[ $1 == wire:* ]]
}

# nat_rules KIND WAN_ADDRESS: the rules, for `nft -f -`. Every kind forwards from the home to the world and answers back.
# UDP flows keep the kernel's lifetimes: 30 s, and 120 s once there was an answer.
nat_rules() {
    local wan=$2
    case $1 in
    open) ;;
    port-restricted) nat_table "masquerade" drop ;;
    port-restricted+leaky) nat_table "masquerade" accept ;;
    symmetric-random) nat_table "masquerade fully-random" drop ;;
    symmetric-sequential)
        nat_table "meta l4proto != udp masquerade
                   meta l4proto udp snat ip to $wan : numgen inc mod 1024 map { $(sequential_ports 20000 1024) }" drop
        ;;
    full-cone) cone_table "accept" ;;
    address-restricted) cone_table "ip saddr . udp dport . ip daddr @contacted accept" ;;
    udp-blocked) nat_table "masquerade" drop "meta l4proto udp drop" ;;
    same-lan | same-nat) nat_table "masquerade" drop 'iifname "lan*" oifname "lan*" accept' ;;
    ipv6-firewall) ipv6_firewall ;;
    esac
}

# A number generator's value can't be a port directly (it comes out byte-swapped); it can be through a map.
sequential_ports() {
    local i
    for ((i = 0; i < $2; i++)); do
        printf '%d : %d, ' "$i" "$(($1 + i))"
    done
}

# nat_table TRANSLATION UNEXPECTED [FIRST]: translation outwards, and only answers inwards. UNEXPECTED is what happens to a
# stranger's packet for the router itself: `accept` is the leaky router, on which it takes the reply tuple of the mapping
# that it names, so that the home's own packet to that stranger then leaves by another port.
nat_table() {
    cat <<NFT
table ip home {
    chain outwards {
        type nat hook postrouting priority srcnat;
        oifname "wan" jump translate
    }
    chain translate {
        $1
    }
    chain inwards {
        type nat hook prerouting priority dstnat;
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ${3:-}
        ct state established,related accept
        iifname "lan*" oifname "wan" accept
    }
    chain input {
        type filter hook input priority 0;
        iifname "wan" ct state new $2
    }
}
NFT
}

# cone_table ADMITTED: any stranger's UDP packet for a mapped port reaches the client if ADMITTED accepts it. The mapping is
# noted in a filter chain because a nat chain sees only the first packet of a flow, and the note would expire under traffic.
cone_table() {
    cat <<NFT
table ip home {
    map mapped {
        type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535;
    }
    set contacted {
        type ipv4_addr . inet_service . ipv4_addr; flags dynamic,timeout; timeout 120s; size 65535;
    }
    chain outwards {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
    chain inwards {
        type nat hook prerouting priority dstnat;
        iifname "wan" meta l4proto udp dnat ip to udp dport map @mapped
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        iifname "lan" meta l4proto udp update @mapped { udp sport : ip saddr . udp sport }
        iifname "lan" meta l4proto udp update @contacted { ip daddr . udp sport . ip saddr }
        ct state established,related accept
        iifname "lan" oifname "wan" accept
        iifname "wan" ct status dnat meta l4proto udp $1
    }
    chain input {
        type filter hook input priority 0;
        iifname "wan" ct state new drop
    }
}
NFT
}

# A stateful firewall, and no IPv4 at all.
ipv6_firewall() {
    ipv6_answers_only
    cat <<'NFT'
table ip home {
    chain forward {
        type filter hook forward priority 0; policy drop;
    }
    chain input {
        type filter hook input priority 0; policy drop;
    }
}
NFT
}

# ipv6_answers_only: what a home router's firewall lets in: answers.
ipv6_answers_only() {
    cat <<'NFT'
table ip6 home {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
}
NFT
}
