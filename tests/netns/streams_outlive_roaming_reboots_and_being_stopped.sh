#!/usr/bin/env bash
# A stream in use outlives another address, another default route and a router's restart by 2 s at the most, and the
# programs' being stopped by 5 s: on either side, and nobody connects again.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

faults() {
    netns run -- bash -c 'PYTHONPATH=$NETNS_SCRIPTS exec "$NETNS_PYTHON" "$@"' - "$ROOT/tests/netns/roaming.py" "$@"
}

# The programs mostly wait: the sandboxes take their time at the same time.
all_at_once() {
    local job status=0
    faults connector:{address,address,reboot,route,route} &
    faults sharer:{address,address,reboot,route,route} &
    faults connector:stop="$(at_size 10 60)" &
    faults sharer:stop="$(at_size 10 60)" &
    for job in $(jobs -p); do
        wait "$job" || status=$?
    done
    return "$status"
}

claim "$NAME" all_at_once
