#!/usr/bin/env bash
# bytes, round trips and connections a second of a TCP client through the relay alone, beside iroh over its own
#
# Two hosts in namespaces, a router each, no NAT, packets of 1500 bytes, both relays on one public server. All programs run
# for the whole time; each round asks each side once. iroh's side is scripts/bench/iroh, which bridges TCP as Culvert does;
# and, as `bare`, a stream of it without TCP at either end, which has less to do than either.
source "$(dirname "$0")/rounds.sh"

readonly PORT=9000 OURS=127.0.0.1:9001 THEIRS=127.0.0.1:9002

usage() {
    cat <<'HELP'
usage: scripts/bench.sh relayed [--tls]

  --tls    everybody reaches his relay over TLS

in the environment:
  ROUNDS       how often each side has its turn (5)
  BYTES        how much one transfer moves (1073741824)
  CULVERT_BIN  where our programs are
  IROH         the program of scripts/bench/iroh, where it is built already; building it takes 15 minutes of one core
HELP
}

# certify: SERVER_OPTIONS and SERVER_URL for a server with TLS of its own, which our peers trust.
certify() {
    local key=$NETNS_WORK/key.pem
    export SSL_CERT_FILE=$NETNS_WORK/cert.pem
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=server \
        -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$NETNS_SERVER" \
        -keyout "$key" -out "$SSL_CERT_FILE" 2>/dev/null
    SERVER_URL=https://$NETNS_SERVER:8443
    SERVER_OPTIONS=(--https "$NETNS_SERVER:8443" --cert "$SSL_CERT_FILE" --key "$key")
}

start_ours() {
    local ticket
    SERVER_URL=http://$NETNS_SERVER:8080 SERVER_OPTIONS=()
    [[ -z ${TLS:-} ]] || certify
    spawn rendezvous pub "$NETNS_BIN/rendezvous" --json --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080" \
        "${SERVER_OPTIONS[@]}"
    await_event rendezvous 10 listening >/dev/null
    spawn share h1 "$NETNS_BIN/peer" share "$PORT" --server "$SERVER_URL" --json
    ticket=$(await_event share 20 ready --print ticket)
    spawn ours h2 "$NETNS_BIN/peer" connect "$ticket" --listen "$OURS" --path relay --json
    await_event ours 20 ready >/dev/null
    await_event ours 10 path kind=relay >/dev/null
}

# start_theirs: they check nobody's certificate.
start_theirs() {
    local at=("$NETNS_SERVER:8090")
    RELAY=http://${at[0]}
    if [[ -n ${TLS:-} ]]; then
        at+=("$NETNS_SERVER:8453")
        RELAY=https://${at[1]}
    fi
    spawn iroh-relay pub "$IROH" relay "${at[@]}"
    await_line iroh-relay 10 listening >/dev/null
    spawn iroh-share h1 "$IROH" share "$RELAY" "127.0.0.1:$PORT"
    ID=$(await_line iroh-share 20 '^id ' | cut -d ' ' -f 2)
    spawn iroh-connect h2 "$IROH" connect "$RELAY" "$ID" "$THEIRS"
    await_line iroh-connect 20 listening >/dev/null
}

inside() {
    local round ours=culvert=$OURS theirs=iroh=$THEIRS
    # shellcheck source=scripts/netns/programs.sh
    source "$NETNS_LIB"
    trap stop_programs EXIT
    spawn service h1 "$TCP" serve "0.0.0.0:$PORT"
    await_line service 5 listening >/dev/null
    start_ours
    # Ours was told to keep to the relay; iroh has nothing else left.
    cut_udp
    start_theirs
    for ((round = 0; round < ROUNDS; round++)); do
        ask_tcp "$ours"
        ask_tcp "$theirs"
        note bare "$(in_ns h2 "$IROH" bulk "$RELAY" "$ID" "${BYTES:-1073741824}")"
    done
    show_tcp "$ours" "$theirs"
    show bare Gbit/s
    ratio culvert iroh "at least 1"
    ratio culvert bare "none"
}

build_theirs() {
    local root
    root=$(dirname "$BENCH_TOOLS")
    IROH=${IROH:-$BENCH_TOOLS/iroh-relayed}
    [[ -x $IROH ]] || cargo install --quiet --locked --root "$root" --target-dir "$root/iroh-build" \
        --path "$BENCH_ROOT/scripts/bench/iroh"
    export IROH TLS
}

case ${1:-} in
inside)
    inside
    exit
    ;;
-h | --help)
    usage
    exit
    ;;
--tls) TLS=yes ;;
'') TLS='' ;;
*)
    usage >&2
    exit 2
    ;;
esac
build_ours
build_theirs
exec "$BENCH_ROOT/scripts/netns.sh" run --nat1 open --nat2 open -- "$(realpath "$0")" inside
