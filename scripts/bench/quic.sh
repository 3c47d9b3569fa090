#!/usr/bin/env bash
# bytes a second over one QUIC stream between two endpoints of one program: over the path socket, and over quinn's own
#
# How fast one transfer is depends on what else the machine does, by a factor of three. So there are many short ones, the
# two of each round are compared with each other, and each side is the first one as often.
ROUNDS=${ROUNDS:-40}
source "$(dirname "$0")/rounds.sh"

BYTES=${BYTES:-268435456}
build_bench
for ((round = 0; round < ROUNDS; round++)); do
    ((round % 2)) && kinds=(stock paths) || kinds=(paths stock)
    for kind in "${kinds[@]}"; do
        note "$kind" "$("$BENCH" quic "$kind" "$BYTES")"
    done
done
show paths Gbit/s
show stock Gbit/s
paired paths stock "at least 0.95"
