# shellcheck shell=bash
# Starting programs in a namespace, waiting for what they say, stopping them. For netns.sh, and for the tests that it
# runs: `source "$NETNS_LIB"`.

NETNS_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/programs.sh
NETNS_SCRIPTS=$(dirname "$NETNS_LIB")
NETNS_WORK=${NETNS_WORK:-/run/culvert}
# The system's own interpreter where there is one: wrappers in PATH are slow, and not every user can run them.
NETNS_PYTHON=$(PATH=/usr/bin:$PATH command -v python3)
export NETNS_LIB NETNS_SCRIPTS NETNS_WORK NETNS_PYTHON

declare -gA PROGRAMS=()

# in_ns NS CMD…: runs CMD in that namespace.
in_ns() {
    local ns=$1
    shift
    nsenter --net="/run/netns/$ns" -- "$@"
}

# spawn NAME NS CMD…: starts CMD there (NS `-`: right here) with a home of its own and nothing of ours in its environment.
# Its process id is PROGRAMS[NAME], its output $NETNS_WORK/NAME/out and …/err.
spawn() {
    local name=$1 ns=$2 home=$NETNS_WORK/$1 variable enter=() clean=()
    shift 2
    # Not through in_ns: the background process must become the program itself, or signals would miss it.
    # The kernel shows in /sys the interfaces of the namespace in which it was mounted.
    # shellcheck disable=SC2016
    [[ $ns == - ]] || enter=(nsenter --net="/run/netns/$ns" -- unshare --mount
        sh -c 'mount -t sysfs own /sys 2>/dev/null; exec "$@"' sh)
    for variable in $(compgen -e | grep -E '^(CULVERT|XDG)_|^RUST_BACKTRACE$' || true); do
        clean+=(-u "$variable")
    done
    mkdir -p "$home"
    (umask 077 && mkdir -p "$home/run")
    "${enter[@]}" env "${clean[@]}" HOME="$home" XDG_RUNTIME_DIR="$home/run" "$@" \
        </dev/null >"$home/out" 2>"$home/err" &
    PROGRAMS[$name]=$!
}

# await_event NAME SECONDS EVENT [KEY=VALUE…] [--print FIELD…]: waits for that line of --json output, and prints those
# fields of it on one line. Fails, and says why, when the program ends or the time is up first.
await_event() {
    local name=$1 seconds=$2
    shift 2
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/events.py" "$NETNS_WORK/$name" "${PROGRAMS[$name]}" "$seconds" event "$@"
}

# await_line NAME SECONDS REGEX: the same for a program that does not speak JSON.
await_line() {
    local name=$1 seconds=$2
    shift 2
    "$NETNS_PYTHON" "$NETNS_SCRIPTS/events.py" "$NETNS_WORK/$name" "${PROGRAMS[$name]}" "$seconds" line "$@"
}

# await_port NAME NS PORT: until somebody listens there on loopback (NS `-`: right here). Fails when the program that is to
# do so ends, or after 15 s.
await_port() {
    local enter=() deadline=$((SECONDS + 15))
    [[ $2 == - ]] || enter=(in_ns "$2")
    until "${enter[@]}" bash -c ": <>/dev/tcp/127.0.0.1/$3" 2>/dev/null; do
        kill -0 "${PROGRAMS[$1]}" 2>/dev/null && ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# serve_gateway BIN [OPTION…]: the rendezvous in that directory, with a gateway on loopback. The port of its HTTP side is
# SERVER_PORT.
serve_gateway() {
    local bin=$1 http
    shift
    spawn rendezvous - "$bin/rendezvous" --json --udp 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0 \
        --tunnel-ports 0-0 "$@"
    http=$(await_event rendezvous 10 listening --print http) && SERVER_PORT=${http##*:}
}

# last_path NAME KIND: the path that was reported last is of that kind, or will be within 6 s.
last_path() {
    local deadline=$((SECONDS + 6))
    until grep '"event":"path"' "$NETNS_WORK/$1/out" | tail -n 1 | grep -q "\"kind\":\"$2\""; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# cut_udp [BYTES]: from now on, or once so many bytes of them have passed, no datagram passes between the homes.
cut_udp() {
    in_ns pub nft -f - <<NFT
table ip cut {
    chain forward {
        type filter hook forward priority -10;
        meta l4proto udp quota over ${1:-0} bytes drop
    }
}
NFT
}

# resident_kib NAME: its resident memory.
resident_kib() {
    awk '/^VmRSS:/ { print $2 }' "/proc/${PROGRAMS[$1]}/status"
}

# stop_programs: SIGTERM to all, SIGKILL to those still there after 6 s, which makes it fail and names them. (A program of
# ours promises to be gone within 5 s.)
stop_programs() {
    local name late=() deadline=$((SECONDS + 7))
    ((${#PROGRAMS[@]} == 0)) || kill -TERM "${PROGRAMS[@]}" 2>/dev/null || true
    for name in "${!PROGRAMS[@]}"; do
        while ((SECONDS < deadline)) && kill -0 "${PROGRAMS[$name]}" 2>/dev/null; do
            sleep 0.02
        done
        if kill -KILL "${PROGRAMS[$name]}" 2>/dev/null; then
            late+=("$name")
        fi
    done
    PROGRAMS=()
    ((${#late[@]} == 0)) || {
        printf 'netns: did not stop within 6 s of SIGTERM: %s\n' "${late[*]}" >&2
        return 1
    }
}
