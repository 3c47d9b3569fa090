#!/usr/bin/env bash
# 5 % loss, 50 ms jitter and some reordering on both lines: the programs still find the direct path, and bytes pass.
# also-without-root
source "$(dirname "$0")/../../scripts/netns/claim.sh"

weather=(--delay 10 --jitter 50 --loss 0.05 --reorder 0.02)
leaky=wire:port-restricted+leaky
pairs=$leaky:$leaky,wire:full-cone:wire:symmetric-random
claim "$NAME" matrix --pairs "$pairs" "${weather[@]}" --runs "$(at_size 4 30)"
