#!/usr/bin/env bash
# With both leaky routers on one link a prime reaches the other one and spoils what it should protect: no direct path, and
# a clear verdict. (Only two primes that cross on the way do no harm, so the link here is the kernel's, which takes no time.)
source "$(dirname "$0")/../../scripts/netns/claim.sh"

leaky=port-restricted+leaky
claim "$NAME" matrix --shared-link --pairs "$leaky:$leaky" --runs "$(at_size 1 5)"
