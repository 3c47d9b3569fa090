#!/usr/bin/env bash
# `peer netcheck` reports each kind of router by its true mapping, filtering and choice of ports, the kernel's and the
# laboratory's, within 3 s; and within 5 s that UDP is blocked. The server has two addresses.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/nat.sh"

readonly EI=endpoint-independent AD=address-dependent APD=address-and-port-dependent

# expected KIND: mapping, filtering, ports, hairpin.
expected() {
    local kind=${1#wire:} ports=preserved
    [[ $kind != cgnat* ]] || ports=random
    kind=${kind#cgnat(} kind=${kind%)} kind=${kind%+leaky}
    case $kind in
    open) echo "$EI $EI preserved true" ;;
    full-cone) echo "$EI $EI $ports false" ;;
    address-restricted) echo "$EI $AD $ports false" ;;
    port-restricted | same-nat) echo "$EI $APD $ports false" ;;
    same-nat+hairpin) echo "$EI $APD $ports true" ;;
    symmetric-sequential | port-restricted/symmetric-sequential) echo "$APD $APD sequential false" ;;
    symmetric-random | port-restricted/symmetric-random | symmetric-*/port-restricted) echo "$APD $APD random false" ;;
    udp-blocked) echo "none none none none" ;;
    esac
}

kinds() {
    if [[ $(at_size smoke full) == full ]]; then
        nat_kinds
        printf 'wire:same-nat+hairpin\n'
    else
        printf '%s\n' "${NAT_KINDS[@]}" wire:full-cone wire:symmetric-sequential 'wire:cgnat(address-restricted)' \
            'wire:cgnat(symmetric-random)' wire:same-nat+hairpin
    fi
}

# check KIND: runs in the sandbox, and says what was found, in the words of `expected`, and the milliseconds that it took.
check() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    local began said
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --http "$NETNS_SERVER:8080" --udp "$NETNS_SERVER:3478" \
        --udp-alternate "$NETNS_SERVER:3479" --udp-alternate "$NETNS_SERVER_2:3478" --udp-alternate "$NETNS_SERVER_2:3479"
    await_event rendezvous 10 listening >/dev/null
    began=${EPOCHREALTIME/./}
    said=$(in_ns h1 "$NETNS_BIN/peer" netcheck --server "http://$NETNS_SERVER:8080" --json)
    "$NETNS_PYTHON" - "$said" "$(((${EPOCHREALTIME/./} - began) / 1000))" <<'PYTHON'
import json, sys
said, took = json.loads(sys.argv[1]), sys.argv[2]
def word(value):
    return "none" if value is None else str(value).lower()
ports = said["ports"] and said["ports"]["kind"]
print(*map(word, (said["mapping"], said["filtering"], ports, said["hairpin"])), took)
PYTHON
}

# row KIND: one line of the table; fails where it is not so.
row() {
    local kind=$1 other=port-restricted said found limit=3000 verdict=ok
    [[ $kind != *same-* ]] || other=$kind
    said=$(netns run --nat1 "$kind" --nat2 "$other" -- "$SELF" inside 2>&1) || verdict="FAIL"
    found=${said##*$'\n'}
    [[ $kind != udp-blocked && $kind != wire:udp-blocked ]] || limit=5000
    if [[ ${found% *} != "$(expected "$kind")" ]]; then
        verdict="FAIL: expected $(expected "$kind"); $said"
    elif ((${found##* } > limit)); then
        verdict="FAIL: it took longer than $limit ms"
    fi
    printf '%-34s %s ms  %s\n' "$kind" "$found" "$verdict"
    [[ $verdict == ok ]]
}

every_kind() {
    local kind job jobs=() failed=0
    while read -r kind; do
        row "$kind" &
        jobs+=($!)
        # Four sandboxes at a time.
        if ((${#jobs[@]} % 4 == 0)); then
            for job in "${jobs[@]}"; do wait "$job" || failed=1; done
            jobs=()
        fi
    done < <(kinds)
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    return "$failed"
}

SELF=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
if [[ ${1:-} == inside ]]; then
    check
else
    # Says by its exit code where there are no namespaces.
    status=0
    netns run -- true || status=$?
    ((status != SKIPPED)) || unable "there are no namespaces"
    claim "$NAME" every_kind
fi
