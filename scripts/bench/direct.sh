#!/usr/bin/env bash
# bytes, round trips and connections a second of a TCP client through `peer connect`: directly, and through the relay
#
# Two hosts in namespaces, a router each, no NAT, packets of 1500 bytes. All programs run for the whole time; each round
# asks each side once, and the service itself, without Culvert, for scale.
source "$(dirname "$0")/rounds.sh"

readonly PORT=9000 DIRECT=127.0.0.1:9001 RELAYED=127.0.0.1:9002

start_programs() {
    spawn service h1 "$TCP" serve "0.0.0.0:$PORT"
    await_line service 5 listening >/dev/null
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null
    spawn share h1 "$NETNS_BIN/peer" share "$PORT" --server "http://$NETNS_SERVER:8080" --json
    local ticket
    ticket=$(await_event share 20 ready --print ticket)
    spawn direct h2 "$NETNS_BIN/peer" connect "$ticket" --listen "$DIRECT" --json
    await_event direct 20 ready >/dev/null
    await_event direct 10 path kind=direct >/dev/null
    spawn relayed h2 "$NETNS_BIN/peer" connect "$ticket" --listen "$RELAYED" --path relay --json
    await_event relayed 20 ready >/dev/null
}

inside() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    start_programs
    compare_tcp "direct=$DIRECT" "relayed=$RELAYED" "plain=$NETNS_H1_ADDR:$PORT"
    ratio relayed direct "at least 0.4"
    ratio direct plain "none"
}

if [[ ${1:-} == inside ]]; then
    inside
else
    build_ours
    exec "$BENCH_ROOT/scripts/netns.sh" run --nat1 open --nat2 open -- "$(realpath "$0")" inside
fi
