#!/usr/bin/env bash
# Both routers forget a flow that is idle for 20 s. A connection that nobody has used for longer still carries bytes at
# once, on the same path.
# waits-at-full-size
source "$(dirname "$0")/../../scripts/netns/claim.sh"

idle_between_the_homes() {
    netns run -- bash -c 'PYTHONPATH=$NETNS_SCRIPTS exec "$NETNS_PYTHON" "$@"' - \
        "$ROOT/tests/netns/idle.py" 20 "$(at_size 45 600)"
}

claim "$NAME" idle_between_the_homes
