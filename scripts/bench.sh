#!/usr/bin/env bash
# Runs one of the benches in scripts/bench. `bench.sh --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
usage: scripts/bench.sh NAME [OPTION…]
       scripts/bench.sh list

Each bench runs the sides that it compares in turns, in one go, and prints medians and ratios; `NAME --help` has its
options. The programs are those of $CULVERT_BIN, else of target/release:
`cargo build --release --workspace --bins --locked`. What they are compared with is installed at a pinned version: with
apt as root, into target/bench-tools and target/bench-node otherwise.
HELP
}

# Each bench is an executable file whose second line says what it measures.
list() {
    local bench name
    for bench in scripts/bench/*; do
        [[ -f $bench && -x $bench ]] || continue
        name=$(basename "$bench")
        printf '%-22s %s\n' "${name%.*}" "$(sed -n '2{s/^\(# \|"""\)//;s/"""$//;p}' "$bench")"
    done
}

main() {
    local name=${1:-} bench
    case $name in
    '') usage >&2 && exit 2 ;;
    -h | --help) usage && return ;;
    list) list && return ;;
    esac
    shift
    # A backtrace for each error would be measured too.
    unset RUST_BACKTRACE
    export PYTHONDONTWRITEBYTECODE=1
    for bench in "scripts/bench/$name".{sh,py}; do
        [[ ! -x $bench ]] || exec "$bench" "$@"
    done
    printf 'there is no bench %q; these are there:\n' "$name" >&2
    list >&2
    exit 2
}

main "$@"
