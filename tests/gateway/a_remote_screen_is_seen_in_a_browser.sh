#!/usr/bin/env bash
# noVNC and websockify behind a public share, a real VNC server behind them, and Chromium without a screen as the
# visitor: the picture in the browser is the picture of the X server, and follows it. On loopback. With
# SCREENSHOT=FILE the picture is kept.
# only-at-full-size
source "$(dirname "$0")/../../scripts/netns/claim.sh"
source "$ROOT/scripts/netns/programs.sh"

TEST_NODE=${TEST_NODE:-$ROOT/target/test-node}
NOVNC=/usr/share/novnc
command -v node >/dev/null || unable "node is missing (Debian: nodejs)"
[[ -d $TEST_NODE/node_modules/ws ]] || unable "the npm package ws is missing from $TEST_NODE"
for pair in chromium:chromium websockify:websockify Xtigervnc:tigervnc-standalone-server xsetroot:x11-xserver-utils; do
    command -v "${pair%%:*}" >/dev/null || unable "${pair%%:*} is missing (Debian: ${pair#*:})"
done
[[ -e $NOVNC/vnc.html ]] || unable "noVNC is missing (Debian: novnc)"
NETNS_WORK=$(mktemp -d)
trap 'stop_programs; rm -rf "$NETNS_WORK"' EXIT

BIN=${CULVERT_BIN:-$ROOT/target/release}
serve_gateway "$BIN" || claim "$NAME" false

spawn screen - Xtigervnc -displayfd 1 -geometry 640x480 -depth 24 -SecurityTypes None -rfbunixpath "$NETNS_WORK/vnc"
display=$(await_line screen 20 '^[0-9]+$') || claim "$NAME" false
# websockify wants to be told a port: a free one is asked for.
web=$("$NETNS_PYTHON" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
spawn websockify - websockify --web "$NOVNC" --unix-target "$NETNS_WORK/vnc" "127.0.0.1:$web"
await_port websockify - "$web" || claim "$NAME" false
spawn share - "$BIN/peer" --json share "$web" --server "http://127.0.0.1:$SERVER_PORT" --public --name screen
url=$(await_event share 20 ready --print url) || claim "$NAME" false

DISPLAY=:$display NODE_PATH=$TEST_NODE/node_modules HOME=$NETNS_WORK \
    timeout 100 node "$ROOT/tests/gateway/screen.js" "$url/vnc.html?autoconnect=1" "$NETNS_WORK" ${SCREENSHOT:+"$SCREENSHOT"}
