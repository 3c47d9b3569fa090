#!/usr/bin/env bash
# Runs every test of the project and ends in one line: `N passed, N failed, N skipped`. `test.sh --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
usage: scripts/test.sh [smoke | full | --quick]

  smoke    everything, at small sizes                                                      (the default)
  full     the same with the release build, the long figures (30 runs of each pair of NATs, …) and a remote screen in
           Chromium, then 1 GiB between two homes, each pair of simulated NATs a thousand times, 100 000 random worlds, a
           minute of fuzzing for each target (with the nightly toolchain and cargo-fuzz), licences; 70 minutes
  --quick  the Rust checks alone, for the edit loop

What the tests need is installed first: Debian packages as root, Python packages into target/test-venv, those of npm
into target/test-node, cargo-nextest with cargo. Without root, the missing packages are named and the tests that need
them are skipped. With CI=true nothing is skipped: what can't run has failed.
HELP
}

# A backtrace for each error that a test provokes would only cost time.
unset RUST_BACKTRACE
readonly LOGS=target/test-logs
readonly SKIPPED=77
export TEST_PYTHON=$PWD/target/test-venv/bin/python TEST_NODE=$PWD/target/test-node
PASSED=0 FAILED=0 SKIPS=0
FAILURES=()

# --- steps ---------------------------------------------------------------------------------------------------------

# step COUNT NAME CMD…: runs CMD, shows what it says and how long it took, and has COUNT (a function below) count it.
# A failure is remembered, and the next step runs.
step() {
    local count=$1 name=$2 log status=0 failed=$FAILED began=$EPOCHREALTIME
    shift 2
    log=$LOGS/${name//[^a-z0-9]/-}.log
    printf '\n=== %s\n' "$name"
    "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    "$count" "$status" "$log"
    ((FAILED == failed)) || FAILURES+=("$name")
    awk -v name="$name" -v began="$began" -v ended="$EPOCHREALTIME" \
        'BEGIN { printf "=== %s: %.1f s\n", name, ended - began }'
}

# The step prepares the tests: it counts only when it fails.
count_setup() {
    case $1 in
    0) ;;
    "$SKIPPED") [[ ${CI:-} != true ]] || FAILED=$((FAILED + 1)) ;;
    *) FAILED=$((FAILED + 1)) ;;
    esac
}

# The step is one test.
count_step() {
    case $1 in
    0) PASSED=$((PASSED + 1)) ;;
    "$SKIPPED") count_skips 1 ;;
    *) FAILED=$((FAILED + 1)) ;;
    esac
}

count_skips() {
    if [[ ${CI:-} == true ]]; then
        FAILED=$((FAILED + $1))
    else
        SKIPS=$((SKIPS + $1))
    fi
}

# sum LOG REGEX: the sum of the numbers that the Perl expression finds.
sum() {
    { grep -oP "$2" "$1" || true; } | awk '{ n += $1 } END { print n + 0 }'
}

# cargo-nextest's summary, or the harness's own lines. A failure without either is a build that failed.
count_rust() {
    local status=$1 log=$2 failed
    sed -i 's/\x1b\[[0-9;]*m//g' "$log"
    PASSED=$((PASSED + $(sum "$log" '(Summary.*run: |test result: .*\. )\K[0-9]+(?= passed)')))
    # Tests marked `#[ignore]` are long ones, left out by intention and in CI too.
    SKIPS=$((SKIPS + $(sum "$log" '(Summary.*, |test result: .*; )\K[0-9]+(?= (skipped|ignored))')))
    failed=$(($(sum "$log" '(Summary.*, |test result: .*; )\K[0-9]+(?= failed)') +
        $(sum "$log" 'Summary.*, \K[0-9]+(?= timed out)')))
    ((status == 0 || failed > 0)) || failed=1
    FAILED=$((FAILED + failed))
}

# The lines of a script in tests/netns or tests/gateway: `ok NAME`, `FAIL NAME`, `skip NAME`.
count_claims() {
    local status=$1 log=$2 failed
    PASSED=$((PASSED + $(grep -c '^ok ' "$log" || true)))
    failed=$(grep -c '^FAIL ' "$log" || true)
    count_skips "$(grep -c '^skip ' "$log" || true)"
    if ((failed == 0)) && { ((status != 0 && status != SKIPPED)) || ! grep -qE '^(ok|skip) ' "$log"; }; then
        failed=1
    fi
    FAILED=$((FAILED + failed))
}

# --- what the tests need -------------------------------------------------------------------------------------------

is_root() {
    [[ $(id -u) == 0 ]]
}

missing_packages() {
    local pair long=()
    # A browser and a screen for it: many packages, for one claim.
    [[ $TEST_SIZE != full ]] || long=(chromium:chromium websockify:websockify Xtigervnc:tigervnc-standalone-server
        xsetroot:x11-xserver-utils)
    [[ $TEST_SIZE != full || -e /usr/share/novnc/vnc.html ]] || printf 'novnc\n'
    for pair in "${long[@]}" cc:build-essential curl:curl ip:iproute2 iperf3:iperf3 miniupnpd:miniupnpd-nftables \
        nft:nftables nginx:nginx-light node:nodejs npm:npm openssl:openssl python3:python3 \
        scp:openssh-client setpriv:util-linux smbclient:smbclient smbd:samba sshd:openssh-server tayga:tayga tinyproxy:tinyproxy \
        turnutils_stunclient:coturn unshare:util-linux; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair#*:}"
    done | sort -u
    system_python -c 'import ensurepip, venv' 2>/dev/null || printf 'python3-venv\n'
}

system_python() {
    PATH=/usr/bin:$PATH python3 "$@"
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]} > 0)) || return 0
    if ! is_root || ! command -v apt-get >/dev/null; then
        printf 'some tests will be skipped; to run them: sudo apt-get install %s\n' "${packages[*]}"
        return "$SKIPPED"
    fi
    printf 'installing %s\n' "${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && without_daemons apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

# The packages' programs are wanted, not their daemons: Debian asks this file before it starts one.
without_daemons() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@" || status=$?
    rm -f "$policy"
    return "$status"
}

install_python_packages() {
    "$TEST_PYTHON" -c 'import aioice' 2>/dev/null && return
    system_python -m venv target/test-venv &&
        "$TEST_PYTHON" -m pip install --quiet --disable-pip-version-check aioice==0.13.0
}

install_node_packages() {
    if ! command -v npm >/dev/null; then
        printf 'some tests will be skipped: npm is missing (Debian: npm)\n'
        return "$SKIPPED"
    fi
    mkdir -p "$TEST_NODE"
    npm install --prefix "$TEST_NODE" --no-audit --no-fund --loglevel error localtunnel@2.0.2 ws@8.18.0 \
        wscat@6.1.0
}

install_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    cargo install cargo-nextest --locked || printf 'cargo-nextest does not install; cargo test runs the tests\n'
}

prepare() {
    command -v cargo >/dev/null || {
        printf 'cargo is missing: install Rust from https://rustup.rs\n' >&2
        exit 1
    }
    mkdir -p "$LOGS"
}

# --- Rust ----------------------------------------------------------------------------------------------------------

rust_steps() {
    step count_step "format" cargo fmt --all --check
    step count_step "format of the fuzzers" cargo fmt --manifest-path fuzz/Cargo.toml --check
    step count_step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
    if cargo nextest --version >/dev/null 2>&1; then
        step count_rust "tests" cargo nextest run --workspace --locked --no-tests pass
    else
        printf '\n(cargo-nextest is not here: cargo test instead)\n'
        step count_rust "tests" cargo test --workspace --locked --no-fail-fast --lib --bins --tests
    fi
}

documentation_steps() {
    step count_rust "documentation tests" cargo test --workspace --locked --doc
    step count_step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

# --- the real programs ---------------------------------------------------------------------------------------------

target_directory() {
    cargo metadata --format-version 1 --no-deps --locked | grep -oP '"target_directory":"\K[^"]+'
}

program_steps() {
    local script
    # The smoke size takes the programs that the Rust tests have built: optimising all of it once more would take longer
    # than what is tested with it. `--tests` has cargo choose the features as it did for those, so that nothing is rebuilt.
    if [[ $TEST_SIZE == full ]]; then
        step count_step "release build" cargo build --release --workspace --bins --locked
        CULVERT_BIN=$(target_directory)/release
    else
        step count_step "build" cargo build --workspace --bins --tests --locked
        CULVERT_BIN=$(target_directory)/debug
    fi
    export CULVERT_BIN
    local waiting=()
    if [[ $TEST_SIZE == full ]]; then
        mapfile -t waiting < <(grep -l '^# waits-at-full-size' tests/netns/*.sh)
        for script in "${waiting[@]}"; do
            begin "$script"
        done
    fi
    for script in tests/netns/*.sh tests/gateway/*.sh; do
        [[ $TEST_SIZE == full ]] || ! grep -q '^# only-at-full-size' "$script" || continue
        [[ " ${waiting[*]} " != *" $script "* ]] || continue
        step count_claims "$(basename "$script" .sh)" timeout --kill-after 10 "$LONGEST" "$script"
    done
    if is_root; then
        rootless_steps
    fi
    for script in "${waiting[@]}"; do
        step count_claims "$(basename "$script" .sh)" finish "$script"
    done
}

# begin SCRIPT: runs it beside what follows; finish SCRIPT: says what it said, and ends as it did.
begin() {
    local said status=0
    said=$LOGS/$(basename "$1" .sh)
    rm -f "$said".{said,status}
    {
        timeout --kill-after 10 "$LONGEST" "$1" >"$said.said" 2>&1 || status=$?
        printf '%d\n' "$status" >"$said.status"
    } &
}

finish() {
    local said
    said=$LOGS/$(basename "$1" .sh)
    until [[ -s $said.status ]]; do
        sleep 1
    done
    cat "$said.said"
    return "$(<"$said.status")"
}

# The tests that say so, once more as a user without rights, from a copy that such a user can read.
rootless_steps() {
    local script
    UNPRIVILEGED=$(mktemp -d /tmp/culvert-test.XXXXXXXX)
    trap 'rm -rf "$UNPRIVILEGED"' EXIT
    mkdir -p "$UNPRIVILEGED/tests" "$UNPRIVILEGED/bin"
    cp -r scripts "$UNPRIVILEGED/"
    cp -r tests/netns "$UNPRIVILEGED/tests/"
    cp "$CULVERT_BIN"/{peer,rendezvous,relay,nat-sim} "$UNPRIVILEGED/bin/" || true
    chmod -R a+rX "$UNPRIVILEGED"
    for script in tests/netns/*.sh; do
        grep -q '^# also-without-root' "$script" || continue
        step count_claims "$(basename "$script" .sh) without root" without_root "$script"
    done
}

without_root() {
    (cd / && setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent CI="${CI:-}" \
        CULVERT_BIN="$UNPRIVILEGED/bin" TEST_SIZE="$TEST_SIZE" \
        timeout --kill-after 10 "$LONGEST" "$UNPRIVILEGED/$1")
}

long_steps() {
    step count_step "1 GiB between two homes" scripts/netns.sh demo --size 1GiB
    laboratory_steps
    step count_claims "fuzzing" scripts/fuzz.sh 60
    step count_step "licences" licences
}

# The laboratory's figures, as the README has them.
laboratory_steps() {
    local lab=$CULVERT_BIN/nat-sim rough=(--runs 3000 --loss 5% --jitter 50)
    step count_step "each pair of simulated NATs" "$lab" matrix --runs 1000
    step count_step "pairs on rough lines" "$lab" matrix "${rough[@]}" --pairs "$(plain_pairs)"
    step count_step "pairs that know their NATs" "$lab" matrix --runs 1000 --ready \
        --pairs symmetric-random:symmetric-random,symmetric-sequential:symmetric-random
    step count_step "random worlds" "$lab" worlds --count 100000 --seed 20261121
}

# Those that need no guess: 100 of 100, and of 3000 on rough lines all but three.
plain_pairs() {
    local kinds=(open full-cone address-restricted port-restricted port-restricted+leaky) pairs=() a b
    for ((a = 0; a < ${#kinds[@]}; a++)); do
        for ((b = a; b < ${#kinds[@]}; b++)); do
            pairs+=("${kinds[a]}:${kinds[b]}")
        done
    done
    pairs+=("cgnat(port-restricted+leaky):cgnat(port-restricted+leaky)")
    (IFS=, && printf '%s\n' "${pairs[*]}")
}

# Advisories are asked for before a release: they come without a change of ours.
licences() {
    cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked || return
    cargo deny --locked check bans licenses sources
}

# --- all of it -----------------------------------------------------------------------------------------------------

summary() {
    local name
    printf '\n'
    ((${#FAILURES[@]} == 0)) || for name in "${FAILURES[@]}"; do
        printf 'failed: %s\n' "$name"
    done
    printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPS"
    ((FAILED == 0))
}

main() {
    local what=${1:-smoke}
    case $what in
    -h | --help) usage && return ;;
    smoke | full | --quick) (($# < 2)) || { usage >&2 && exit 2; } ;;
    *) usage >&2 && exit 2 ;;
    esac
    # For tests/netns, which also have a limit: seconds that one of them may take.
    export TEST_SIZE=smoke LONGEST=300
    [[ $what != full ]] || TEST_SIZE=full LONGEST=2400
    prepare
    if [[ $what == --quick ]]; then
        rust_steps
        summary
        return
    fi
    step count_setup "Debian packages" install_packages
    step count_setup "Python packages" install_python_packages
    step count_setup "npm packages" install_node_packages
    step count_setup "cargo-nextest" install_nextest
    rust_steps
    documentation_steps
    program_steps
    [[ $what != full ]] || long_steps
    summary
}

main "$@"
