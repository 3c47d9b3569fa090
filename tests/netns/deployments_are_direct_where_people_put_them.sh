#!/usr/bin/env bash
# Every ordinary deployment of a server and two peers comes out as scripts/netns/deploy/table.py says: direct where it can
# be, and with a word from the program whose owner can mend it where it can't.
source "$(dirname "$0")/../../scripts/netns/claim.sh"

probe=0
netns run -- true >/dev/null 2>&1 || probe=$?
((probe != SKIPPED)) || unable "there are no namespaces"

# The places for which the README promises that `rendezvous --domain NAME` is enough.
the_readme_promises_what_is_tested() {
    PYTHONPATH=$ROOT/scripts/netns/deploy python3 -B - "$ROOT/README.md" <<'PYTHON'
import re, sys
from table import ROWS
promise = re.search(r"Each is a row of `scripts/netns.sh deploy` \((.*?)\)", open(sys.argv[1]).read(), re.S)[1]
plain = {row.name for row in ROWS if not row.server and row.expect == "direct" and row.within <= 1}
named = set(re.findall(r"`([^`]+)`", promise))
assert named and named <= plain, f"not direct without an option: {named - plain}"
PYTHON
}

status=0
claim "$NAME (the README promises what is tested)" the_readme_promises_what_is_tested || status=1
# Each line begins with `ok`, `FAIL` or `skip`, and the deployment's name.
netns deploy --runs "$(at_size 1 20)" --jobs "$(at_size 6 4)" || status=1
exit "$status"
