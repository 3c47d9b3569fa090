# shellcheck shell=bash
# For the benches: what is built first, and figures by name, of which the median counts.

set -euo pipefail
BENCH_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BENCH_TOOLS=$BENCH_ROOT/target/bench-tools/bin
ROUNDS=${ROUNDS:-5}
export BENCH_ROOT BENCH_TOOLS ROUNDS

declare -gA FIGURES=()

# build_ours: the programs, unless CULVERT_BIN says where they are, and the TCP service and client that measure them: TCP.
build_ours() {
    [[ -n ${CULVERT_BIN:-} ]] || (cd "$BENCH_ROOT" && cargo build --quiet --release --locked --workspace --bins)
    mkdir -p "$BENCH_TOOLS"
    TCP=$BENCH_TOOLS/tcp
    rustc --edition 2024 -O -o "$TCP" "$BENCH_ROOT/scripts/bench/tcp.rs"
    CULVERT_BIN=${CULVERT_BIN:-$BENCH_ROOT/target/release}
    export TCP CULVERT_BIN
}

# build_bench: the program that measures with the library, unless BENCH says where it is.
build_bench() {
    [[ -z ${BENCH:-} ]] || return 0
    (cd "$BENCH_ROOT" && cargo build --quiet --release --locked -p peer --example bench)
    BENCH=$BENCH_ROOT/target/release/examples/bench
}

# note NAME FIGURE: one round's.
note() {
    FIGURES[$1]+="$2 "
}

# median NAME
median() {
    tr ' ' '\n' <<<"${FIGURES[$1]:-}" | grep . | sort -g | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}

# show NAME UNIT: the median, and the least and the most.
show() {
    tr ' ' '\n' <<<"${FIGURES[$1]:-}" | grep . | sort -g | awk -v name="$1" -v unit="$2" \
        '{ a[NR] = $1 } END { printf "%-28s %10s %s  [%s..%s]\n", name, a[int((NR + 1) / 2)], unit, a[1], a[NR] }'
}

# ratio OURS THEIRS GOAL: of the medians.
ratio() {
    awk -v ours="$(median "$1")" -v theirs="$(median "$2")" -v names="$1 / $2" -v goal="$3" \
        'BEGIN { printf "%-44s %.2f  (goal %s)\n", names, ours / theirs, goal }'
}

# compare_tcp NAME=ADDR…: BYTES in bulk, round trips and connections a second, from home 2 to the service that `$TCP serve`
# is, by each of these ways in turns.
compare_tcp() {
    local round side name addr p50 p99 bytes=${BYTES:-1073741824}
    for ((round = 0; round < ROUNDS; round++)); do
        for side in "$@"; do
            name=${side%%=*} addr=${side#*=}
            note "$name" "$(in_ns h2 "$TCP" bulk "$addr" "$bytes")"
            read -r p50 p99 < <(in_ns h2 "$TCP" ping "$addr" 5000)
            note "$name-p50" "$p50"
            note "$name-p99" "$p99"
            note "$name-connections" "$(in_ns h2 "$TCP" connects "$addr" 8 2)"
        done
    done
    for side in "$@"; do
        name=${side%%=*}
        show "$name" Gbit/s
        show "$name-p50" µs
        show "$name-p99" µs
        show "$name-connections" /s
    done
}
