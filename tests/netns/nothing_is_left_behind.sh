#!/usr/bin/env bash
# netns.sh, ended by any signal at any moment, leaves no process, namespace, link or file.
# also-without-root
source "$(dirname "$0")/../../scripts/netns/claim.sh"
# Job control, so that what runs in the background does not ignore SIGINT.
set -m

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Everything below netns.sh inherits this variable, which is how it is found again.
marked_processes() {
    grep -lsazFx "NETNS_MARK=$scratch" /proc/[0-9]*/environ || true
}

machine() {
    ip -brief link | cut -d ' ' -f 1
    ip netns list
    ls "$scratch"
}

interrupted() {
    local signal=$1 delay=$2 before rest i
    before=$(machine)
    NETNS_MARK=$scratch TMPDIR=$scratch "$ROOT/scripts/netns.sh" natcheck >/dev/null 2>&1 &
    sleep "$delay"
    kill "-$signal" $! || return 1
    # The shell's own word about the killed job goes nowhere.
    { wait $! || true; } 2>/dev/null
    for i in {1..100}; do
        rest=$(marked_processes)
        [[ -n $rest ]] || break
        sleep 0.02
    done
    [[ -z $rest ]] || { echo "SIG$signal after $delay s leaves processes: $rest (waited $i times)" && return 1; }
    [[ $(machine) == "$before" ]] || { echo "SIG$signal after $delay s leaves: $(machine)" && return 1; }
}

every_moment() {
    local delay
    # The way in takes about 0.1 s, each set-up 0.3 s.
    for delay in 0.02 0.05 0.1 0.2 0.35 0.6 1.1; do
        interrupted "$1" "$delay" || return 1
    done
}

probe=0
netns run -- true >/dev/null 2>&1 || probe=$?
((probe != SKIPPED)) || unable "there are no namespaces to leave"

for signal in KILL TERM INT; do
    claim "$NAME (SIG$signal)" every_moment "$signal"
done
