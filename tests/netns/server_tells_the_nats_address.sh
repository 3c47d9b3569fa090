#!/usr/bin/env bash
# A client behind a NAT learns its router's public address from the server: by STUN (coturn, aioice), and by the plain
# `echo` datagram.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

from_home_1() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json \
        --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null || claim "$NAME" false
    claim "$NAME (coturn)" coturn_agrees
    claim "$NAME (aioice)" in_ns h1 timeout 30 \
        "$TEST_PYTHON" "$ROOT/tests/netns/stun_by_aioice.py" "$NETNS_SERVER:3478" "$NETNS_R1_ADDR"
    claim "$NAME (echo)" echo_agrees
    claim "$NAME (stops in time)" stop_programs
}

coturn_agrees() {
    local said
    said=$(in_ns h1 timeout 10 turnutils_stunclient "$NETNS_SERVER" 2>&1) || return 1
    printf '%s\n' "$said"
    grep -q "UDP reflexive addr: $NETNS_R1_ADDR:" <<<"$said"
}

echo_agrees() {
    in_ns h1 "$NETNS_PYTHON" - "$NETNS_SERVER" "$NETNS_R1_ADDR" <<'PYTHON'
import json, socket, sys
server, router = sys.argv[1:]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
sock.sendto(b"echo", (server, 3478))
answer = sock.recv(2048).decode()
print("echo:", answer)
port = sock.getsockname()[1]  # which this NAT preserves
assert json.loads(answer) == {"address": router, "family": "IPv4", "port": port, "size": 4}, answer
PYTHON
}

if [[ ${1:-} == inside ]]; then
    from_home_1
else
    find_stun_judges
    status=0
    netns run -- "$0" inside || status=$?
    ((status != SKIPPED)) || unable "there are no namespaces"
    exit "$status"
fi
