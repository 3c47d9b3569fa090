#!/usr/bin/env bash
# bytes, round trips and connections a second of a TCP client through `peer connect`, directly, beside dumbpipe
#
# Two hosts in namespaces, a router each, no NAT, packets of 1500 bytes. All programs run for the whole time; each round
# asks each side once, and the service itself, without either, for scale. dumbpipe knows no relay but those of its makers,
# so that there is nothing to compare ours with; it waits for them at the start, 5 s on each side.
source "$(dirname "$0")/rounds.sh"

VERSION=0.40.1
BYTES=${BYTES:-1073741824}
readonly VERSION PORT=9000 OURS=127.0.0.1:9001 THEIRS=127.0.0.1:9002

# await_port ADDR: until somebody listens there, at home 2.
await_port() {
    local deadline=$((SECONDS + 15))
    until in_ns h2 bash -c ": <>/dev/tcp/${1/://}" 2>/dev/null; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

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
    await_port "$THEIRS"
}

inside() {
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    start_programs
    local round side addr p50 p99
    for ((round = 0; round < ROUNDS; round++)); do
        for side in culvert dumbpipe plain; do
            case $side in culvert) addr=$OURS ;; dumbpipe) addr=$THEIRS ;; *) addr=$NETNS_H1_ADDR:$PORT ;; esac
            note "$side" "$(in_ns h2 "$TCP" bulk "$addr" "$BYTES")"
            read -r p50 p99 < <(in_ns h2 "$TCP" ping "$addr" 5000)
            note "$side-p50" "$p50"
            note "$side-p99" "$p99"
            note "$side-connections" "$(in_ns h2 "$TCP" connects "$addr" 8 2)"
        done
    done
    for side in culvert dumbpipe plain; do
        show "$side" Gbit/s
        show "$side-p50" µs
        show "$side-p99" µs
        show "$side-connections" /s
    done
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
