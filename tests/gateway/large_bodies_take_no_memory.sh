#!/usr/bin/env bash
# Uploads to a server that reads slowly, downloads that stop halfway, visitors that do not read, pieces of a file of 4
# GiB from nginx: the real peer and rendezvous hold none of it. On loopback; at full size bodies of 1 GiB and all 4 GiB
# of the file.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

command -v nginx >/dev/null || unable "nginx is missing (Debian: nginx-light)"
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT

BIN=${CULVERT_BIN:-$ROOT/target/release}
spawn rendezvous - "$BIN/rendezvous" --json --udp 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0 \
    --domain example.test --tunnel-ports 0-0
server=$(await_event rendezvous 10 listening --print http) || claim "$NAME" false
"$NETNS_PYTHON" "$ROOT/tests/gateway/large_bodies.py" "$BIN/peer" "${server##*:}" "${PROGRAMS[rendezvous]}" \
    "$NETNS_WORK" "$(at_size 24 1024)" "$(at_size 8 4096)"
