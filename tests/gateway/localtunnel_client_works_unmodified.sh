#!/usr/bin/env bash
# npm's own localtunnel client through the real rendezvous: names, HTTP, WebSocket, SSE, failures. On loopback.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

TEST_NODE=${TEST_NODE:-$ROOT/target/test-node}
command -v node >/dev/null || unable "node is missing (Debian: nodejs)"
[[ -x $TEST_NODE/node_modules/.bin/lt && -d $TEST_NODE/node_modules/ws ]] ||
    unable "the npm packages localtunnel and ws are missing from $TEST_NODE"
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT

serve_gateway "${CULVERT_BIN:-$ROOT/target/release}" --domain example.test || claim "$NAME" false
NODE_PATH=$TEST_NODE/node_modules timeout 120 node "$ROOT/tests/gateway/localtunnel.js" "$SERVER_PORT" \
    "$TEST_NODE/node_modules/.bin/lt"
