#!/usr/bin/env bash
# Where UDP is blocked, at either home, the session and the data go through the relay; so does the data of two NATs that
# no packet gets through, and what was on its way when a direct path dies. A file arrives whole each time, at a browser's
# place too, over TLS, and through a relay that stands alone. Who asks for a kind of path that can't be had hears so in one line.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

BYTES=$(at_size 8388608 268435456)

SERVER_OPTIONS=()

# start_share OPTION…: a file at home 1, shared at a server that gets the options of SERVER_OPTIONS.
start_share() {
    local www=$NETNS_WORK/www
    mkdir -p "$www"
    head -c "$BYTES" /dev/urandom >"$www/big.bin"
    HASH=$(sha256sum <"$www/big.bin")
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080" \
        "${SERVER_OPTIONS[@]}"
    await_event rendezvous 10 listening >/dev/null || return 1
    spawn web h1 "$NETNS_PYTHON" -u -m http.server 8000 --bind 127.0.0.1 --directory "$www"
    await_line web 10 '^Serving HTTP' >/dev/null || return 1
    spawn share h1 "$NETNS_BIN/peer" share 8000 --server "${SERVER:-http://$NETNS_SERVER:8080}" --json "$@"
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

# The session, the relay, the name and its visitor: at one port, with one certificate.
all_of_it_goes_over_tls() {
    local cert=$NETNS_WORK/cert.pem key=$NETNS_WORK/key.pem got
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=server \
        -addext basicConstraints=critical,CA:FALSE \
        -addext "subjectAltName=IP:$NETNS_SERVER,DNS:nas.localhost" -keyout "$key" -out "$cert" 2>/dev/null || return 1
    SERVER=https://$NETNS_SERVER:8443
    SERVER_OPTIONS=(--https "$NETNS_SERVER:8443" --cert "$cert" --key "$key")
    export SSL_CERT_FILE=$cert
    start_share --public --name nas || return 1
    # Whatever does not come by TLS does not come.
    in_ns pub nft add table ip tls_only
    in_ns pub nft add chain ip tls_only input '{ type filter hook input priority 0; }'
    in_ns pub nft add rule ip tls_only input tcp dport 8080 drop
    got=$(in_ns h2 curl --silent --show-error --noproxy '*' --max-time 120 --cacert "$cert" \
        --connect-to "nas.localhost:8443:$NETNS_SERVER:8443" https://nas.localhost:8443/big.bin | sha256sum)
    [[ $got == "$HASH" ]] || return 1
    spawn connect h2 "$NETNS_BIN/peer" connect "$TICKET" --json
    LISTEN=$(await_event connect 20 ready --print listen) && fetch && last_path connect relay
}

# cannot_have KIND WORDS: who forces that kind of path gets exit code 1 and one line with these words.
cannot_have() {
    local status=0
    spawn "forced-$1" h2 "$NETNS_BIN/peer" connect "$TICKET" --path "$1"
    wait "${PROGRAMS[forced-$1]}" || status=$?
    cat "$NETNS_WORK/forced-$1/err"
    ((status == 1)) && [[ $(wc -l <"$NETNS_WORK/forced-$1/err") -eq 1 ]] && grep -q "$2" "$NETNS_WORK/forced-$1/err"
}

# The data through the relay that the server names, and the session and a browser's request at the server's own door.
goes_through_another_relay() {
    local peer_id got
    spawn relay pub "$NETNS_BIN/relay" --json --http "$NETNS_SERVER:8081"
    peer_id=$(await_event relay 10 listening --print peer_id) || return 1
    SERVER_OPTIONS=(--relay "http://$NETNS_SERVER:8081/relay#$peer_id" --admin 127.0.0.1:9091)
    start_share --public --name nas || return 1
    got=$(in_ns h2 curl --silent --show-error --noproxy '*' --max-time 120 --header 'Host: nas.localhost' \
        "http://$NETNS_SERVER:8080/big.bin" | sha256sum)
    [[ $got == "$HASH" ]] || return 1
    spawn connect h2 "$NETNS_BIN/peer" connect "$TICKET" --json
    LISTEN=$(await_event connect 20 ready --print listen) && fetch && last_path connect relay || return 1
    (($(forwarded 9090) > BYTES && $(forwarded 9091) < 2 * BYTES))
}

# forwarded PORT: what the relay with its metrics there has carried.
forwarded() {
    in_ns pub curl --silent --noproxy '*' "http://127.0.0.1:$1/metrics" |
        awk '/^[a-z_]*relay_forwarded_bytes_total / { printf "%d\n", $2 }'
}

is_no_direct_path() {
    start_share && cannot_have direct 'no direct path .* without `--path direct`'
}

is_no_relay() {
    SERVER_OPTIONS=(--no-relay)
    start_share && cannot_have relay 'no relay joins the two: neither .* names one'
}

survives_a_cut() {
    start_programs || return 1
    await_event connect 10 path kind=direct --print since_start_ms || return 1
    cut_udp $((BYTES / 2))
    fetch && last_path connect relay
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
    pair udp-blocked udp-blocked all_of_it_goes_over_tls "over TLS"
    pair udp-blocked udp-blocked goes_through_another_relay "a relay that stands alone"
    pair symmetric-random symmetric-random is_no_direct_path "only a direct path wanted"
    pair port-restricted port-restricted is_no_relay "only the relay wanted, and there is none"
    pair symmetric-random symmetric-random goes_through_the_relay
    pair port-restricted port-restricted survives_a_cut "cut in the middle"
    ((status != SKIPPED)) || unable "there are no namespaces"
    exit "$status"
fi
