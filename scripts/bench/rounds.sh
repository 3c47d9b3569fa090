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

# paired OURS THEIRS GOAL: the median of the ratios of each round, and how far the middle half of them goes. What slows a
# whole round down is in both of its figures.
paired() {
    paste <(tr ' ' '\n' <<<"${FIGURES[$1]:-}" | grep .) <(tr ' ' '\n' <<<"${FIGURES[$2]:-}" | grep .) |
        awk '{ print $1 / $2 }' | sort -g | awk -v names="$1 / $2" -v goal="$3" \
        '{ a[NR] = $1 } END { printf "%-44s %.2f  [%.2f..%.2f]  (goal %s)\n", names, a[int((NR + 1) / 2)],
            a[int((NR + 3) / 4)], a[int((3 * NR + 1) / 4)], goal }'
}

# ask_tcp NAME=ADDR: one round's BYTES in bulk, round trips and connections a second, from home 2 to the service that
# `$TCP serve` is, by this way.
ask_tcp() {
    local name=${1%%=*} addr=${1#*=} p50 p99
    note "$name" "$(in_ns h2 "$TCP" bulk "$addr" "${BYTES:-1073741824}")"
    read -r p50 p99 < <(in_ns h2 "$TCP" ping "$addr" 5000)
    note "$name-p50" "$p50"
    note "$name-p99" "$p99"
    note "$name-connections" "$(in_ns h2 "$TCP" connects "$addr" 8 2)"
}

# show_tcp NAME=ADDR…: what it said.
show_tcp() {
    local name
    for name in "${@%%=*}"; do
        show "$name" Gbit/s
        show "$name-p50" µs
        show "$name-p99" µs
        show "$name-connections" /s
    done
}

# compare_tcp NAME=ADDR…: the figures by each of these ways in turns.
compare_tcp() {
    local round side
    for ((round = 0; round < ROUNDS; round++)); do
        for side in "$@"; do
            ask_tcp "$side"
        done
    done
    show_tcp "$@"
}
