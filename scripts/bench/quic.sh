#!/usr/bin/env bash
# bytes a second over one QUIC stream between two endpoints of one program: over the path socket, and over quinn's own
source "$(dirname "$0")/rounds.sh"

BYTES=${BYTES:-2147483648}
build_bench
for ((round = 0; round < ROUNDS; round++)); do
    for kind in paths stock; do
        note "$kind" "$("$BENCH" quic "$kind" "$BYTES")"
    done
done
show paths Gbit/s
show stock Gbit/s
ratio paths stock "at least 0.95"
