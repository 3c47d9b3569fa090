#!/usr/bin/env bash
# Where UDP is blocked, at either home, the session and the data go through the relay; so does the data of two NATs that
# no packet gets through, and what was on its way when a direct path dies. A file arrives whole each time, at a browser's
# place too.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

BYTES=$(at_size 8388608 268435456)

# start_share OPTION…: a file at home 1, shared.
start_share() {
    local www=$NETNS_WORK/www
    mkdir -p "$www"
    head -c "$BYTES" /dev/urandom >"$www/big.bin"
    HASH=$(sha256sum <"$www/big.bin")
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null || return 1
    spawn web h1 "$NETNS_PYTHON" -u -m http.server 8000 --bind 127.0.0.1 --directory "$www"
    await_line web 10 '^Serving HTTP' >/dev/null || return 1
    spawn share h1 "$NETNS_BIN/peer" share 8000 --server "http://$NETNS_SERVER:8080" --json "$@"
    TICKET=$(await_event share 20 ready --print ticket)
}

start_programs() {
    start_share || return 1
    spawn connect h2 "$NETNS_BIN/peer" connect "$TICKET" --json
    LISTEN=$(await_event connect 20 ready --print listen)
}

# fetch OPTION…: the file arrives whole.
fetch() {
    local got
    got=$(in_ns h2 curl --silent --show-error --noproxy '*' --max-time 120 "$@" "http://$LISTEN/big.bin" | sha256sum)
    [[ $got == "$HASH" ]]
}

goes_through_the_relay() {
    start_programs || return 1
    fetch || return 1
    await_event connect 1 path kind=relay --print since_start_ms
    ! grep -q '"kind":"direct"' "$NETNS_WORK/connect/out"
}

is_shown_to_the_world() {
    local got
    start_share --public --name nas || return 1
    got=$(in_ns h2 curl --silent --show-error --noproxy '*' --max-time 120 --header 'Host: nas.localhost' \
        "http://$NETNS_SERVER:8080/big.bin" | sha256sum)
    [[ $got == "$HASH" ]]
}

survives_a_cut() {
    start_programs || return 1
    await_event connect 10 path kind=direct --print since_start_ms || return 1
    fetch --limit-rate $((BYTES / 4)) &
    local fetching=$!
    sleep 1
    cut_udp
    wait "$fetching" && last_path connect relay
}

if [[ ${1:-} == inside ]]; then
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    claim "$NAME ($2)" "$3"
else
    status=0
    pair() {
        netns run --nat1 "$1" --nat2 "$2" -- "$SELF" inside "$1 × $2${4:+, $4}" "$3" || status=$?
    }
    SELF=$(realpath "$0")
    pair udp-blocked port-restricted goes_through_the_relay
    pair port-restricted udp-blocked goes_through_the_relay
    pair udp-blocked port-restricted is_shown_to_the_world "at the gateway"
    pair symmetric-random symmetric-random goes_through_the_relay
    pair port-restricted port-restricted survives_a_cut "cut in the middle"
    ((status != SKIPPED)) || unable "there are no namespaces"
    exit "$status"
fi
