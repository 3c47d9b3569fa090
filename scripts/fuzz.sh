#!/usr/bin/env bash
# Fuzzes everything that reads what strangers send, one target after another. `fuzz.sh --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
usage: scripts/fuzz.sh [SECONDS] [TARGET…]

Runs each fuzz target (all of them, or those named) for SECONDS (60), one on each core, from the seeds in fuzz/corpus,
and says how many inputs each took. Inputs found on the way are kept in target/fuzz-corpus for the next time. What makes a target
panic is kept in fuzz/artifacts; `cargo +nightly fuzz run TARGET FILE` shows it again.

Wants the nightly toolchain and cargo-fuzz. The crates' own tests (tests/corpus.rs) run the same targets over
the committed seeds without either.
HELP
}

# missing TOOL COMMAND…: installs it in CI. Elsewhere it says how; exit code 77: not here, as the test runner understands it.
missing() {
    local tool=$1
    shift
    if [[ -n ${CI:-} ]]; then
        "$@"
        return
    fi
    printf 'skip fuzzing, which wants %s: %s\n' "$tool" "$*"
    exit 77
}

check_tools() {
    command -v cargo >/dev/null || { printf 'skip fuzzing, which wants Rust: see https://rustup.rs\n' && exit 77; }
    cargo +nightly --version >/dev/null 2>&1 || missing "the nightly toolchain" rustup toolchain install nightly --profile minimal
    cargo fuzz --version >/dev/null 2>&1 || missing cargo-fuzz cargo install cargo-fuzz --locked
}

# The code under test has no unsafe blocks, so address checks would only cost time.
fuzz() {
    local verb=$1
    shift
    cargo +nightly fuzz "$verb" --sanitizer none "$@"
}

run_target() {
    local target=$1 seconds=$2 found=target/fuzz-corpus/$1 log=target/fuzz-corpus/$1.log status=0
    mkdir -p "$found"
    fuzz run "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1 || status=$?
    if ((status == 0)); then
        awk -v target="$target" '/^stat::number_of_executed_units/ { runs = $2 } /^#.* cov: / { line = $0 }
            END { match(line, /cov: [0-9]+/); printf "ok %s: %d inputs, %s\n", target, runs, substr(line, RSTART, RLENGTH) }' "$log"
    else
        printf 'FAIL %s\n' "$target"
        tail -n 40 "$log"
    fi
    return "$status"
}

main() {
    local seconds=60 target failed=0 running=0
    local targets=()
    case ${1:-} in
    -h | --help) usage && return ;;
    '') ;;
    *[!0-9]*) usage >&2 && exit 2 ;;
    *) seconds=$1 && shift ;;
    esac
    check_tools
    targets=("$@")
    ((${#targets[@]} > 0)) || mapfile -t targets < <(cargo +nightly fuzz list)
    fuzz build
    for target in "${targets[@]}"; do
        if ((running == $(nproc))); then
            wait -n || failed=$((failed + 1))
            running=$((running - 1))
        fi
        run_target "$target" "$seconds" &
        running=$((running + 1))
    done
    for (( ; running > 0; running--)); do
        wait -n || failed=$((failed + 1))
    done
    ((failed == 0))
}

main "$@"
