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
  natcheck          prove with real packets that each NAT kind is what its name says
  kinds             list the NAT kinds

options of demo, run, shell
  --nat1 KIND, --nat2 KIND   the NAT of each home                           [default: port-restricted]

environment
  CULVERT_BIN       directory of the programs; built there with cargo if absent [default: target/release]
  CI=true           what can't run is a failure (1), not a skip (77)

example
  scripts/netns.sh demo --size 64MiB
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
    NETNS_BIN=${CULVERT_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release}
    if [[ ! -x $NETNS_BIN/peer || ! -x $NETNS_BIN/rendezvous ]]; then
        [[ -z ${CULVERT_BIN:-} ]] || die "CULVERT_BIN=$CULVERT_BIN holds no peer and rendezvous"
        (cd "$ROOT" && cargo build --release --locked --bin peer --bin rendezvous) || die "the programs don't build"
    fi
    NETNS_BIN=$(cd "$NETNS_BIN" && pwd)
    export NETNS_BIN
}

# Runs this script again inside the sandbox and ends with its exit code. The kernel kills `unshare` when this process
# dies, `unshare` takes the sandbox's first process with it, and that one all others.
enter_sandbox() {
    local status=0
    choose_sandbox
    local command=(unshare "${SANDBOX_FLAGS[@]}" -- "$ROOT/scripts/netns.sh" --inside-sandbox "$@")
    # A person's shell wants the terminal: `unshare` takes this process's place.
    [[ $1 != shell ]] || exec "${command[@]}"
    setpriv --pdeathsig KILL -- "${command[@]}" <&0 &
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
    # shellcheck source=scripts/netns/demo.sh
    source "$ROOT/scripts/netns/demo.sh"
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
    for kind in "${NAT_KINDS[@]}"; do
        topology_up "$kind" port-restricted
        "$NETNS_PYTHON" "$NETNS_SCRIPTS/natcheck.py" kind "$kind" || failed=1
        topology_down
    done
    topology_up port-restricted port-restricted
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/natcheck.py" routes || failed=1
    return "$failed"
}

# --- the command line ----------------------------------------------------------------------------------------------

parse_options() {
    NETNS_NAT1=port-restricted NETNS_NAT2=port-restricted NETNS_SIZE=1GiB
    while (($#)); do
        case $1 in
        --nat1 | --nat2 | --size) (($# > 1)) || usage_error "$1 wants a value" ;;&
        --nat1) NETNS_NAT1=$2 ;;
        --nat2) NETNS_NAT2=$2 ;;
        --size) NETNS_SIZE=$2 ;;
        --) shift && break ;;
        *) usage_error "unknown option $1" ;;
        esac
        shift 2
    done
    local kind
    for kind in "$NETNS_NAT1" "$NETNS_NAT2"; do
        nat_kind_exists "$kind" || usage_error "unknown NAT kind $kind (see scripts/netns.sh kinds)"
    done
    NETNS_SIZE=$(numfmt --from=auto --suffix=B "$NETNS_SIZE" 2>/dev/null) || usage_error "--size wants bytes, 64MiB, 1GiB, …"
    NETNS_SIZE=${NETNS_SIZE%B}
    REST=("$@")
    export NETNS_NAT1 NETNS_NAT2 NETNS_SIZE
}

main() {
    local verb=${1:---help}
    (($# == 0)) || shift
    # shellcheck source=scripts/netns/nat.sh
    source "$ROOT/scripts/netns/nat.sh"
    case $verb in
    -h | --help | help) usage ;;
    --inside-sandbox) inside_sandbox "$@" ;;
    kinds) printf '%s\n' "${NAT_KINDS[@]}" ;;
    natcheck)
        (($# == 0)) || usage_error "natcheck takes no arguments"
        require_commands
        enter_sandbox natcheck
        ;;
    demo)
        parse_options "$@"
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
