#!/usr/bin/env bash
# Every ordinary deployment of a server and two peers comes out as scripts/netns/deploy/table.py says: direct where it can
# be, and with a word from the program whose owner can mend it where it can't.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

probe=0
netns run -- true >/dev/null 2>&1 || probe=$?
((probe != SKIPPED)) || unable "there are no namespaces"

# Each line begins with `ok`, `FAIL` or `skip`, and the deployment's name.
netns deploy --runs "$(at_size 1 20)" --jobs "$(at_size 6 4)"
