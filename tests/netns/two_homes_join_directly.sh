#!/usr/bin/env bash
# A file fetched from one home in the other, over a direct path through both kernel NATs.
# also-without-root
source "$(dirname "$0")/../../scripts/netns/claim.sh"

claim "$NAME" netns demo --size 64MiB
