#!/usr/bin/env bash
# Every pair of NATs goes direct, or ends in a clear verdict, as the laboratory expects: by real programs between the
# kernel's NATs, and between the laboratory's own model as a router.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

# What the kernel lacks, and what a carrier adds.
model_pairs() {
    local leaky=port-restricted+leaky
    local pairs=(
        "wire:$leaky:wire:$leaky"
        "wire:address-restricted+leaky:$leaky"
        "wire:symmetric-random:wire:address-restricted"
        "wire:cgnat(symmetric-random):full-cone"
        "wire:cgnat(port-restricted/symmetric-sequential):port-restricted"
        "wire:cgnat(symmetric-random/port-restricted):full-cone"
        "wire:cgnat(port-restricted):port-restricted"
        "wire:cgnat($leaky):wire:cgnat($leaky)"
        "wire:symmetric-sequential:wire:port-restricted"
        "wire:same-nat+hairpin:wire:same-nat+hairpin"
    )
    (IFS=, && printf '%s\n' "${pairs[*]}")
}

runs=(--runs "$(at_size 1 30)" --hopeless-runs "$(at_size 1 5)")
claim "$NAME (kernel)" matrix --pairs kernel "${runs[@]}"
claim "$NAME (model)" matrix --pairs "$(at_size "$(model_pairs)" wire)" "${runs[@]}"
