#!/usr/bin/env bash
# The server's UDP port answers STUN as others' clients expect it: coturn's, and aioice's. On loopback.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

find_stun_judges
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT

spawn rendezvous - "${CULVERT_BIN:-$ROOT/target/release}/rendezvous" --json \
    --udp 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0
server=$(await_event rendezvous 10 listening --print udp) || claim "$NAME" false

coturn_agrees() {
    local said
    said=$(timeout 10 turnutils_stunclient -p "${server##*:}" "${server%:*}" 2>&1) || return 1
    printf '%s\n' "$said"
    grep -q 'UDP reflexive addr: 127.0.0.1:' <<<"$said"
}

claim "$NAME (coturn)" coturn_agrees
claim "$NAME (aioice)" timeout 30 "$TEST_PYTHON" "$ROOT/tests/netns/stun_by_aioice.py" "$server"
