#!/usr/bin/env bash
# Two Linux routers without an input drop: every pair of homes goes direct, and none does once the primes are taken away.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

leaky=port-restricted+leaky
claim "$NAME" matrix --pairs "$leaky:$leaky" --runs "$(at_size 4 30)"
claim "$NAME (and by nothing else)" matrix --pairs "$leaky:$leaky" --eat-primes --runs "$(at_size 1 5)"
