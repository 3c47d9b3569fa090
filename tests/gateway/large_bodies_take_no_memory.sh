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
serve_gateway "$BIN" --domain example.test || claim "$NAME" false
"$NETNS_PYTHON" "$ROOT/tests/gateway/large_bodies.py" "$BIN/peer" "$SERVER_PORT" "${PROGRAMS[rendezvous]}" \
    "$NETNS_WORK" "$(at_size 24 1024)" "$(at_size 8 4096)"
