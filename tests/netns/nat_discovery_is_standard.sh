#!/usr/bin/env bash
# A server with two addresses lets others' clients find out what a NAT does (RFC 5780): coturn's turnutils_natdiscovery
# names mapping and filtering of each kind of kernel NAT, and aioice's codec reads OTHER-ADDRESS, and answers to
# CHANGE-REQUEST from each corner.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

# The words of coturn's client.
expected() {
    case $1 in
    full-cone) printf 'Endpoint Independent Mapping\nEndpoint Independent Filtering\n' ;;
    address-restricted) printf 'Endpoint Independent Mapping\nAddress Dependent Filtering\n' ;;
    port-restricted) printf 'Endpoint Independent Mapping\nAddress and Port Dependent Filtering\n' ;;
    symmetric-random) printf 'Address and Port Dependent Mapping\nAddress and Port Dependent Filtering\n' ;;
    esac
}

serve() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --http "$NETNS_SERVER:8080" --udp "$NETNS_SERVER:3478" \
        --udp-alternate "$NETNS_SERVER:3479" --udp-alternate "$NETNS_SERVER_2:3478" --udp-alternate "$NETNS_SERVER_2:3479"
    await_event rendezvous 10 listening >/dev/null
}

# by_coturn KIND: its client waits 3 s for each answer that a filter keeps out.
by_coturn() {
    local said found
    serve
    said=$(in_ns h1 timeout 30 turnutils_natdiscovery -m -f "$NETNS_SERVER" 2>&1)
    found=$(grep -oP '^NAT with \K[^!]+' <<<"$said")
    printf 'coturn: %s: %s\n' "$1" "${found//$'\n'/, }"
    [[ $found == "$(expected "$1")" ]] || { printf '%s\n' "$said" && return 1; }
}

by_aioice() {
    serve
    in_ns h1 timeout 30 "$TEST_PYTHON" "$ROOT/tests/netns/discovery_by_aioice.py" \
        "$NETNS_SERVER" "$NETNS_SERVER_2" "$NETNS_R1_ADDR"
}

every_kind_by_coturn() {
    local kind jobs=() job failed=0
    for kind in full-cone address-restricted port-restricted symmetric-random; do
        netns run --nat1 "$kind" -- "$SELF" coturn "$kind" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=$?; done
    return "$failed"
}

SELF=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
case ${1:-} in
coturn) by_coturn "$2" ;;
aioice) by_aioice ;;
*)
    find_stun_judges
    command -v turnutils_natdiscovery >/dev/null || unable "turnutils_natdiscovery is missing (Debian: coturn)"
    failed=0
    claim "$NAME (coturn)" every_kind_by_coturn || failed=1
    claim "$NAME (aioice)" netns run --nat1 full-cone -- "$SELF" aioice || failed=1
    exit "$failed"
    ;;
esac
