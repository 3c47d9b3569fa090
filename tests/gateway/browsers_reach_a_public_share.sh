#!/usr/bin/env bash
# The real peer and rendezvous, and a visitor made of npm's ws and wscat and Node's HTTP: streaming, ranges, early
# hints, a thousand WebSockets. On loopback.
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

TEST_NODE=${TEST_NODE:-$ROOT/target/test-node}
command -v node >/dev/null || unable "node is missing (Debian: nodejs)"
[[ -d $TEST_NODE/node_modules/ws && -d $TEST_NODE/node_modules/wscat ]] ||
    unable "the npm packages ws and wscat are missing from $TEST_NODE"
# A thousand WebSockets are a thousand descriptors in each program, and two thousand in this one.
ulimit -n 8192 2>/dev/null || [[ $(ulimit -n) -ge 4096 ]] || unable "too few file descriptors: ulimit -n $(ulimit -n)"
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT

BIN=${CULVERT_BIN:-$ROOT/target/release}
serve_gateway "$BIN" --domain example.test || claim "$NAME" false
mkdir -p "$NETNS_WORK/home"
HOME=$NETNS_WORK/home XDG_STATE_HOME=$NETNS_WORK/home/state NODE_PATH=$TEST_NODE/node_modules \
    timeout 120 node "$ROOT/tests/gateway/share.js" "$BIN/peer" "http://127.0.0.1:$SERVER_PORT"
