# shellcheck shell=bash
# For the scripts of tests/netns: each is named by what it claims, and ends in one line per claim,
# `ok NAME`, `FAIL NAME` or `skip NAME`.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
NAME=$(basename "$0" .sh)
readonly SKIPPED=77

# claim NAME CMD…: that CMD succeeds. Exit code 77 means that it can't be tried here.
claim() {
    local name=$1 status=0
    shift
    "$@" || status=$?
    case $status in
    0) printf 'ok %s\n' "$name" ;;
    "$SKIPPED") printf 'skip %s\n' "$name" ;;
    *) printf 'FAIL %s\n' "$name" && return 1 ;;
    esac
}

# unable WHY: ends the test as one that can't be tried here; in CI that is a failure.
unable() {
    printf '%s: %s\n' "$NAME" "$1" >&2
    if [[ ${CI:-} == true ]]; then
        printf 'FAIL %s\n' "$NAME" && exit 1
    fi
    printf 'skip %s\n' "$NAME" && exit "$SKIPPED"
}

netns() {
    "$ROOT/scripts/netns.sh" "$@"
}

# at_size SMOKE FULL: the one that this run of the tests asks for, by TEST_SIZE=smoke or full.
at_size() {
    if [[ ${TEST_SIZE:-smoke} == full ]]; then
        printf '%s\n' "$2"
    else
        printf '%s\n' "$1"
    fi
}

# matrix OPTION…: rows of pairs; 77 where there are no namespaces.
matrix() {
    netns matrix --jobs "$(at_size 8 4)" "$@"
}

# find_stun_judges: coturn's client, and a Python (in TEST_PYTHON) that has aioice; scripts/test.sh installs both.
find_stun_judges() {
    TEST_PYTHON=${TEST_PYTHON:-$ROOT/target/test-venv/bin/python}
    command -v turnutils_stunclient >/dev/null || unable "turnutils_stunclient is missing (Debian: coturn)"
    "$TEST_PYTHON" -c 'import aioice' 2>/dev/null || unable "the Python package aioice is missing"
    export TEST_PYTHON
}
