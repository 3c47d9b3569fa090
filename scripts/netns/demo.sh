# shellcheck shell=bash
# The demo: a file, shared from one home, fetched in the other. Everything claimed is checked; the first thing that is not
# so ends it with exit code 1.

verb_demo() {
    topology_up "$NETNS_NAT1" "$NETNS_NAT2"
    topology_picture "$NETNS_NAT1" "$NETNS_NAT2"
    demo_share
    demo_connect
    demo_path
    demo_memory "before the transfer"
    demo_fetch
    demo_memory "after the transfer"
    demo_compare
    stop_programs
    say "stopped" "all programs, in time"
}

say() {
    printf '  %-10s %s\n' "$1" "$2"
}

not_so() {
    printf '  NOT SO: %s\n' "$*" >&2
    exit 1
}

# scratch_file: opens a file of the real disk that has no name, so that it can't be left behind, and sets FD.
scratch_file() {
    local name
    name=$(mktemp "${TMPDIR:-/tmp}/culvert-demo.XXXXXXXX")
    exec {FD}<>"$name"
    rm -f "$name"
}

sha256_of_fd() {
    openssl dgst -sha256 -r <"/proc/self/fd/$1" | cut -d ' ' -f 1
}

random_bytes() {
    openssl enc -aes-256-ctr -nosalt -pbkdf2 -iter 1 -pass "pass:$RANDOM$RANDOM$RANDOM" </dev/zero 2>/dev/null | head -c "$1"
}

# Home 1: a file, a web server on its loopback, and `peer share`. In the public network: the rendezvous.
demo_share() {
    local www=$NETNS_WORK/www server=http://$NETNS_SERVER:8080
    mkdir -p "$www"
    scratch_file
    (random_bytes "$NETNS_SIZE" || true) >&"$FD"
    FILE_HASH=$(sha256_of_fd "$FD")
    # Opening the link opens the nameless file anew, in the web server.
    ln -s "/proc/self/fd/$FD" "$www/big.bin"
    say file "$(numfmt --to=iec-i --suffix=B "$NETNS_SIZE") random, sha256 ${FILE_HASH:0:16}…"

    spawn rendezvous pub "$NETNS_BIN/rendezvous" --domain example.test --json \
        --udp "$NETNS_SERVER:3478" --http "$NETNS_SERVER:8080"
    await_event rendezvous 10 listening >/dev/null
    spawn web h1 "$NETNS_PYTHON" -u -m http.server 8000 --bind 127.0.0.1 --directory "$www"
    await_line web 10 '^Serving HTTP' >/dev/null
    spawn share h1 "$NETNS_BIN/peer" share 8000 --server "$server" --json
    TICKET=$(await_event share 15 ready --print ticket)
    say share "peer share 8000 --server $server"
}

# Home 2: `peer connect` with the ticket and nothing else.
demo_connect() {
    spawn connect h2 "$NETNS_BIN/peer" connect "$TICKET" --json
    LISTEN=$(await_event connect 15 ready --print listen)
    say connect "peer connect ${TICKET:0:20}…, listening on $LISTEN"
}

# The path both programs must find, and where it must lead: to the other home's router, by its public address.
demo_path() {
    local fields kind remote rtt since expected
    fields=$(await_event connect 15 path kind=direct --print kind remote rtt_ms since_start_ms)
    read -r kind remote rtt since <<<"$fields"
    say path "$kind to $remote, round trip $rtt ms, $since ms after start"
    expected=$NETNS_R1_ADDR
    [[ $NETNS_NAT1 != open ]] || expected=$NETNS_H1_ADDR
    [[ $remote == *"$expected"* ]] || not_so "a direct path leads to home 1's public address, $expected"
}

demo_fetch() {
    local before_direct before_server direct server report code seconds rate hash
    before_direct=$(pub_counter between_homes)
    before_server=$(pub_counter to_server)
    scratch_file
    report=$(in_ns h2 curl --silent --show-error --noproxy '*' --max-time 300 --output "/proc/self/fd/$FD" \
        --write-out '%{http_code} %{time_total} %{speed_download}' "http://$LISTEN/big.bin") ||
        not_so "curl fetches the file: exit code $?"
    read -r code seconds rate <<<"$report"
    [[ $code == 200 ]] || not_so "the web server answers 200, not $code"
    hash=$(sha256_of_fd "$FD")
    [[ $hash == "$FILE_HASH" ]] || not_so "the file arrived whole: its sha256 is $hash"
    FETCH_RATE=$rate
    say fetched "sha256 equal, $seconds s, $(as_rate "$rate")"

    direct=$(($(pub_counter between_homes) - before_direct))
    server=$(($(pub_counter to_server) - before_server))
    say kernel "$direct bytes went between the routers, $server to the server"
    ((direct >= NETNS_SIZE)) || not_so "every byte of the file went directly between the homes"
    ((server < NETNS_SIZE / 100 + 65536)) || not_so "the server carried nothing of the file"
}

as_rate() {
    awk -v bytes="$1" 'BEGIN { printf "%.1f MB/s (%.2f Gbit/s)", bytes / 1e6, bytes * 8 / 1e9 }'
}

demo_memory() {
    say memory "resident, $1: rendezvous $(resident_kib rendezvous) KiB, share $(resident_kib share) KiB, connect $(resident_kib connect) KiB"
}

# The same way for plain TCP, which no NAT here would let in: home 1's router forwards one port for this measurement.
demo_compare() {
    local rate
    if ! command -v iperf3 >/dev/null; then
        say iperf3 "not installed, nothing to compare with"
        return
    fi
    if is_wire "$NETNS_NAT1" || is_wire "$NETNS_NAT2"; then
        say iperf3 "left out: a wire forwards no port"
        return
    fi
    if [[ $NETNS_NAT1 != open ]]; then
        in_ns r1 nft add rule ip home inwards iifname wan tcp dport 5201 dnat to "$NETNS_H1_ADDR"
        in_ns r1 nft insert rule ip home forward iifname wan tcp dport 5201 accept
    fi
    local address=$NETNS_R1_ADDR
    [[ $NETNS_NAT1 != open ]] || address=$NETNS_H1_ADDR
    spawn iperf3 h1 iperf3 --server --one-off --forceflush
    await_line iperf3 5 'Server listening' >/dev/null
    in_ns h2 iperf3 --client "$address" --reverse --time 3 --json >"$NETNS_WORK/iperf3.json" ||
        not_so "iperf3 reaches home 1 through the forwarded port: $(grep -m 1 '"error"' "$NETNS_WORK/iperf3.json")"
    rate=$("$NETNS_PYTHON" -c 'import json, sys
print(int(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 8))' <"$NETNS_WORK/iperf3.json")
    say iperf3 "$(as_rate "$rate"), plain TCP over the same links, through a port forwarded for it alone"
    say ratio "$(awk -v a="$FETCH_RATE" -v b="$rate" 'BEGIN { printf "%.2f of plain TCP", a / b }')"
}
