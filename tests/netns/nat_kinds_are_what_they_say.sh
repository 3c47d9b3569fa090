#!/usr/bin/env bash
# The routers that the other tests rest on: mapping, filtering and ports of each kind, by real packets.
# also-without-root
source "$(dirname "$0")/../../scripts/netns/claim.sh"

claim "$NAME" netns natcheck
