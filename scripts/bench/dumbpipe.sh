#!/usr/bin/env bash
# bytes, round trips and connections a second of a TCP client through `peer connect`, directly, beside dumbpipe
#
# Two hosts in namespaces, a router each, no NAT, packets of 1500 bytes. All programs run for the whole time; each round
# asks each side once, and the service itself, without either, for scale. dumbpipe knows no relay but those of its makers
# (see relayed.sh), and waits for them at the start, 5 s on each side.
source "$(dirname "$0")/rounds.sh"

VERSION=0.40.1
readonly VERSION PORT=9000 OURS=127.0.0.1:9001 THEIRS=127.0.0.1:9002

# dumbpipe_ticket: once it is printed.
dumbpipe_ticket() {
    local deadline=$((SECONDS + 15))
    until grep -oP '^dumbpipe connect-tcp \K\S+' "$NETNS_WORK/dumbpipe-share/err"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

start_programs() {
    spawn service h1 "$TCP" serve "0.0.0.0:$PORT"
    await_line service 5 listening >/dev/null
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null
    spawn share h1 "$NETNS_BIN/peer" share "$PORT" --server "http://$NETNS_SERVER:8080" --json
    local ticket
    ticket=$(await_event share 20 ready --print ticket)
    spawn ours h2 "$NETNS_BIN/peer" connect "$ticket" --listen "$OURS" --path direct --json
    await_event ours 20 ready >/dev/null
    spawn dumbpipe-share h1 "$DUMBPIPE" listen-tcp --host "127.0.0.1:$PORT"
    ticket=$(dumbpipe_ticket)
    spawn dumbpipe-connect h2 "$DUMBPIPE" connect-tcp --addr "$THEIRS" "$ticket"
    await_port dumbpipe-connect h2 "${THEIRS##*:}"
}

inside() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    start_programs
    compare_tcp "culvert=$OURS" "dumbpipe=$THEIRS" "plain=$NETNS_H1_ADDR:$PORT"
    ratio culvert dumbpipe "at least 1.3"
    ratio culvert-p50 dumbpipe-p50 "at most 1"
    ratio culvert-connections dumbpipe-connections "at least 5"
}

if [[ ${1:-} == inside ]]; then
    inside
else
    build_ours
    DUMBPIPE=${DUMBPIPE:-$BENCH_TOOLS/dumbpipe}
    [[ -x $DUMBPIPE ]] || cargo install --quiet --locked --root "$(dirname "$BENCH_TOOLS")" "dumbpipe@$VERSION"
    export DUMBPIPE
    exec "$BENCH_ROOT/scripts/netns.sh" run --nat1 open --nat2 open -- "$(realpath "$0")" inside
fi
