#!/usr/bin/env bash
# With both leaky routers on one link a prime reaches the other one and spoils what it should protect, unless the two cross on
# the way: which of the two happens is up to the machine. Never is there neither a path nor a verdict.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

leaky=port-restricted+leaky
claim "$NAME" matrix --shared-link --pairs "$leaky:$leaky" --runs "$(at_size 1 5)"
