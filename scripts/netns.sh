#!/usr/bin/env bash
# Two homes behind two kernel NATs, on one Linux machine, with or without root. `netns.sh --help` lists the verbs.
#
# Each run lives in mount, network and process namespaces of its own (and a user namespace, where it is not root). The
# kernel takes them away with the last process, so nothing is left however the run ends, kill -9 included.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly SKIPPED=77

usage() {
    cat <<'HELP'
usage: scripts/netns.sh VERB [OPTIONS]

verbs
  demo              share a file from one home, fetch it in the other over a direct path, and prove it
      --size SIZE   size of the file: bytes, or 64MiB, 1GiB, …              [default: 1GiB]
  run -- CMD…       run CMD between the two homes; it finds them in NETNS_* variables, and
                    helpers (spawn, await_event, in_ns) in the file that $NETNS_LIB names
  shell             an interactive shell in the same place: `ip netns exec h1 …`
  matrix            run the real programs through pairs of NATs, and compare with the laboratory's expectations
      --pairs A:B,… pairs of kinds, or `kernel`, `wire`: every pair of those [default: kernel]
      --runs N      runs of each pair, with fresh programs and NAT state    [default: 3]
      --hopeless-runs N   the same for pairs that are to end in a verdict   [default: as --runs]
      --jobs N      pairs at a time                                         [default: 2]
      --json        one object a line: the laboratory's `pair` events
  deploy [NAME…]    run the programs in ordinary deployments of server and peers, and compare with the table of
                    what must come of them (scripts/netns/deploy/table.py); a NAME may be a pattern
      --list        only list them
      --runs N      runs of each, in a sandbox of its own                   [default: 1]
      --jobs N      runs at a time                                          [default: 2]
      --json        one object a line
  natcheck          prove with real packets that each NAT kind is what its name says
  kinds             list the NAT kinds

options of demo, run, shell, matrix
  --nat1 KIND, --nat2 KIND   the NAT of each home (not of matrix)           [default: port-restricted]
  --eat-primes               packets that are sent to die on their way never leave their host
  --shared-link              both routers on one link, and no Internet between them
  --delay MS, --jitter MS    what the line of each `wire:KIND` does to every packet, either way;
  --loss P, --reorder P      P is 0.05 or 5%                                [default: nothing]
  --seed N                   where the wires' chance comes from             [default: 1]

environment
  CULVERT_BIN       directory of the programs; built there with cargo if absent [default: target/release]
  TEST_SIZE=full    the deployment `suspend-10-minutes` lasts for 10 minutes, not for 20 seconds
  CI=true           what can't run is a failure (1), not a skip (77)

example
  scripts/netns.sh demo --size 64MiB
  scripts/netns.sh matrix --pairs port-restricted:symmetric-random,wire:full-cone:open --runs 5
  scripts/netns.sh deploy docker-dnat 'home-server-*'
HELP
}

die() {
    printf 'netns.sh: %s\n' "$*" >&2
    exit 1
}

usage_error() {
    printf 'netns.sh: %s; see scripts/netns.sh --help\n' "$*" >&2
    exit 2
}

# --- outside the sandbox -------------------------------------------------------------------------------------------

# Sets SANDBOX_FLAGS to what this user may unshare, or says why there is no way and ends.
choose_sandbox() {
    local reason
    SANDBOX_FLAGS=(--mount --net --pid --fork --mount-proc --kill-child=KILL)
    if [[ $(id -u) == 0 ]] && unshare "${SANDBOX_FLAGS[@]}" true 2>/dev/null; then
        return
    fi
    SANDBOX_FLAGS=(--user --map-root-user "${SANDBOX_FLAGS[@]}")
    if reason=$(unshare "${SANDBOX_FLAGS[@]}" true 2>&1); then
        return
    fi
    printf 'netns.sh: this kernel lets user %s make no namespaces: %s\n' "$(id -un)" "$reason" >&2
    printf 'netns.sh: run it as root, or allow user namespaces (sysctl user.max_user_namespaces)\n' >&2
    [[ ${CI:-} == true ]] && exit 1
    exit "$SKIPPED"
}

require_commands() {
    local command missing=()
    for command in unshare setpriv nsenter ip nft python3 "$@"; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    ((${#missing[@]} == 0)) || die "these commands are missing: ${missing[*]}; scripts/test.sh installs them"
}

# Sets NETNS_BIN, and builds the programs where they are not there yet.
find_programs() {
    local program missing=()
    NETNS_BIN=${CULVERT_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release}
    for program in peer rendezvous relay nat-sim; do
        [[ -x $NETNS_BIN/$program ]] || missing+=(--bin "$program")
    done
    if ((${#missing[@]} > 0)); then
        [[ -z ${CULVERT_BIN:-} ]] || die "CULVERT_BIN=$CULVERT_BIN lacks programs: ${missing[*]}"
        (cd "$ROOT" && cargo build --release --locked "${missing[@]}") || die "the programs don't build"
    fi
    NETNS_BIN=$(cd "$NETNS_BIN" && pwd)
    export NETNS_BIN
}

# A parent that died before `setpriv` asked to be told of it is noticed here: $0 is its process id.
# shellcheck disable=SC2016
readonly UNLESS_ORPHANED='[[ $PPID == "$0" ]] && exec "$@"'

# Runs this script again inside the sandbox and ends with its exit code. The kernel kills `unshare` when this process
# dies, `unshare` takes the sandbox's first process with it, and that one all others.
enter_sandbox() {
    local status=0
    choose_sandbox
    local command=(unshare "${SANDBOX_FLAGS[@]}" -- "$ROOT/scripts/netns.sh" --inside-sandbox "$@")
    # A person's shell wants the terminal: `unshare` takes this process's place.
    [[ $1 != shell ]] || exec "${command[@]}"
    setpriv --pdeathsig KILL -- bash -c "$UNLESS_ORPHANED" $$ "${command[@]}" <&0 &
    sandbox=$!
    trap 'kill -KILL "$sandbox" 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    wait "$sandbox" || status=$?
    trap - EXIT
    exit "$status"
}

# --- inside the sandbox --------------------------------------------------------------------------------------------

inside_sandbox() {
    local verb=$1
    shift
    # shellcheck source=scripts/netns/programs.sh
    source "$ROOT/scripts/netns/programs.sh"
    # shellcheck source=scripts/netns/topology.sh
    source "$ROOT/scripts/netns/topology.sh"
    # shellcheck source=scripts/netns/homes.sh
    source "$ROOT/scripts/netns/homes.sh"
    # shellcheck source=scripts/netns/demo.sh
    source "$ROOT/scripts/netns/demo.sh"
    # shellcheck source=scripts/netns/deploy.sh
    source "$ROOT/scripts/netns/deploy.sh"
    trap stop_programs EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # A private /run: `ip netns` writes there, and so does everything here that needs a file.
    mount -t tmpfs -o mode=755 netns /run
    mkdir -p /run/netns "$NETNS_WORK"
    "verb_$verb" "$@"
}

verb_run() {
    topology_up "$NETNS_NAT1" "$NETNS_NAT2"
    "$@"
}

verb_shell() {
    topology_up "$NETNS_NAT1" "$NETNS_NAT2"
    topology_picture "$NETNS_NAT1" "$NETNS_NAT2"
    "${SHELL:-bash}" -i || true
}

verb_natcheck() {
    local kind failed=0
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/natcheck.py" header
    while read -r kind; do
        topology_up "$kind" port-restricted
        "$NETNS_PYTHON" "$NETNS_SCRIPTS/natcheck.py" kind "$kind" || failed=1
        topology_down
    done < <(nat_kinds)
    topology_up port-restricted port-restricted
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/natcheck.py" routes || failed=1
    return "$failed"
}

# --- the command line ----------------------------------------------------------------------------------------------

parse_options() {
    NETNS_NAT1=port-restricted NETNS_NAT2=port-restricted NETNS_SIZE=1GiB NETNS_WIRE='' NETNS_SEED=1
    NETNS_SHARED_LINK='' NETNS_EAT_PRIMES='' MATRIX=()
    while (($#)); do
        case $1 in
        --json) MATRIX+=("$1") && shift && continue ;;
        --shared-link) NETNS_SHARED_LINK=yes && shift && continue ;;
        --eat-primes) NETNS_EAT_PRIMES=yes && shift && continue ;;
        --) shift && break ;;
        esac
        (($# > 1)) || usage_error "$1 is unknown, or wants a value"
        case $1 in
        --nat1) NETNS_NAT1=$2 ;;
        --nat2) NETNS_NAT2=$2 ;;
        --size) NETNS_SIZE=$2 ;;
        --seed) NETNS_SEED=$2 ;;
        --delay | --jitter | --loss | --reorder) NETNS_WIRE+=" $1 $(number "$2")" ;;
        --pairs | --runs | --hopeless-runs | --jobs) MATRIX+=("$1" "$2") ;;
        *) usage_error "unknown option $1" ;;
        esac
        shift 2
    done
    local kind
    for kind in "$NETNS_NAT1" "$NETNS_NAT2"; do
        nat_kind_exists "$kind" || usage_error "unknown NAT kind $kind (see scripts/netns.sh kinds)"
    done
    if shares_a_router "$NETNS_NAT1" || shares_a_router "$NETNS_NAT2"; then
        [[ $NETNS_NAT1 == "$NETNS_NAT2" ]] || usage_error "two clients of one router have it in common: $NETNS_NAT1, $NETNS_NAT2"
    fi
    [[ $NETNS_SEED =~ ^[0-9]+$ ]] || usage_error "--seed wants a number"
    NETNS_SIZE=$(numfmt --from=auto --suffix=B "$NETNS_SIZE" 2>/dev/null) || usage_error "--size wants bytes, 64MiB, 1GiB, …"
    NETNS_SIZE=${NETNS_SIZE%B}
    REST=("$@")
    export NETNS_NAT1 NETNS_NAT2 NETNS_SIZE NETNS_WIRE NETNS_SEED NETNS_SHARED_LINK NETNS_EAT_PRIMES
}

number() {
    [[ $1 =~ ^[0-9]+(\.[0-9]+)?%?$ ]] || usage_error "$1 is no number"
    printf '%s' "$1"
}

main() {
    local verb=${1:---help}
    (($# == 0)) || shift
    # shellcheck source=scripts/netns/nat.sh
    source "$ROOT/scripts/netns/nat.sh"
    case $verb in
    -h | --help | help) usage ;;
    --inside-sandbox) inside_sandbox "$@" ;;
    kinds) all_nat_kinds ;;
    natcheck)
        (($# == 0)) || usage_error "natcheck takes no arguments"
        require_commands
        find_programs
        enter_sandbox natcheck
        ;;
    demo)
        parse_options "$@"
        [[ $NETNS_NAT1$NETNS_NAT2 != *same-* && $NETNS_NAT1$NETNS_NAT2 != *ipv6* ]] ||
            usage_error "demo is about two homes with IPv4; matrix has the others"
        require_commands curl openssl
        find_programs
        enter_sandbox demo
        ;;
    run)
        parse_options "$@"
        ((${#REST[@]} > 0)) || usage_error "run wants -- CMD…"
        require_commands
        find_programs
        enter_sandbox run "${REST[@]}"
        ;;
    matrix)
        parse_options "$@"
        ((${#REST[@]} == 0)) || usage_error "matrix runs the programs, and no others"
        require_commands
        find_programs
        # Says why, where there is no sandbox; the pairs make their own.
        choose_sandbox
        # shellcheck source=scripts/netns/programs.sh
        source "$ROOT/scripts/netns/programs.sh"
        exec "$NETNS_PYTHON" "$NETNS_SCRIPTS/matrix.py" "${MATRIX[@]}"
        ;;
    deploy)
        require_commands
        if [[ " $* " != *" --list "* ]]; then
            find_programs
            choose_sandbox
        fi
        # shellcheck source=scripts/netns/programs.sh
        source "$ROOT/scripts/netns/programs.sh"
        exec "$NETNS_PYTHON" "$NETNS_SCRIPTS/deploy.py" "$@"
        ;;
    deploy-one)
        find_programs
        enter_sandbox deploy_one "$@"
        ;;
    shell)
        parse_options "$@"
        require_commands
        find_programs
        enter_sandbox shell
        ;;
    *) usage_error "unknown verb $verb" ;;
    esac
}

main "$@"
