"""Deployments against the table of what must come of them, by the real programs. Run by `netns.sh deploy`.

    deploy.py [NAME...] [--runs N] [--jobs N] [--json] [--list]

Each run has a sandbox of its own, in which deploy/inside.py runs the programs. A line begins with `ok`, `FAIL` or `skip`
and the deployment's name; below it is what the programs said beside their results. A name may be a pattern (`names-*`).
Exit code 1 where a run is not as the table says.
"""

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "deploy"))
from table import ROWS

SCRIPT = os.path.join(os.path.dirname(HERE), "netns.sh")
IN_CI = os.environ.get("CI") == "true"
# No run takes longer, whatever hangs in it: the longest starts with 10 minutes of suspend.
LONGEST = 720
SHOWN = 12


def arguments():
    parser = argparse.ArgumentParser(prog="netns.sh deploy")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    for pattern in options.names:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for row in ROWS):
            parser.error(f"no deployment is called {pattern}; see --list")
    chosen = [row for row in ROWS if not options.names or any(fnmatch.fnmatchcase(row.name, p) for p in options.names)]
    return options, chosen


def lacking(row):
    """What the row needs and this machine lacks."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [need for need in row.needs
            if not (os.access("/dev/net/tun", os.R_OK | os.W_OK) if need == "tun" else shutil.which(need, path=path))]


def run_once(row):
    # The sandbox goes when this process does, however and whenever it ends.
    command = ["setpriv", "--pdeathsig", "KILL", "--", "bash", "-c", '[[ $PPID == "$0" ]] && exec "$@"',
               str(os.getpid()), SCRIPT, "deploy-one", row.name, *shlex.split(row.place)]
    env = {**os.environ, "CULVERT_BIN": os.environ["NETNS_BIN"], **row.env}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=LONGEST)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        why = f"it did not end within {LONGEST} s"
    except (ValueError, IndexError):
        why = f"the deployment can't be built or run: {done.stderr.strip()[-600:] or f'exit code {done.returncode}'}"
    return {"outcome": "broken", "ms": None, "remote": None, "said": {}, "why": why}


def faults(row, result):
    """In what this run is not as the table says."""
    found = []
    if result["outcome"] != row.expect:
        found.append(f"{result['outcome']}{': ' + result['why'] if result['why'] else ''}")
    elif row.expect == "error" and not re.search(row.why, result["why"]):
        found.append(f"the error does not say /{row.why}/: {result['why']}")
    elif row.expect != "relay" and result["ms"] > row.within * 1000:
        found.append(f"after {result['ms'] / 1000:.2f} s")
    for program, words in row.says.items():
        for word in [words] if isinstance(words, str) else words:
            lines = [line for line in result["said"].get(program, []) if re.search(word, line)]
            if len(lines) != 1:
                found.append(f"{program} says /{word}/ {len(lines)} times" if lines else f"{program} does not say /{word}/")
    for program, words in row.unsaid.items():
        found += [f"{program} says: {line}" for line in result["said"].get(program, []) if re.search(words, line)][:1]
    return found


def quantile(times, share):
    return sorted(times)[max(0, -(-len(times) * share // 100) - 1)] if times else None


def event_of(row, results):
    times = [result["ms"] for result in results if result["outcome"] == row.expect and result["ms"] is not None]
    said = {}
    for result in results:
        for program, lines in result["said"].items():
            said.setdefault(program, []).extend(line for line in lines if line not in said.get(program, []))
    wrong = Counter(fault for result in results for fault in faults(row, result))
    return {
        "event": "deployment", "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "name": row.name, "runs": len(results), "outcomes": dict(Counter(result["outcome"] for result in results)),
        "median_ms": quantile(times, 50), "max_ms": max(times, default=None),
        "remote": next((result["remote"] for result in results if result["remote"]), None),
        "expected": expected(row), "verdict": "FAIL" if wrong or not results else "ok", "faults": dict(wrong),
        "said": {program: lines for program, lines in said.items() if lines},
    }


def expected(row):
    return row.expect if row.expect == "relay" else f"{row.expect} in {row.within:g} s"


def skipped(row, missing):
    return {"event": "deployment", "name": row.name, "runs": 0, "outcomes": {}, "median_ms": None, "max_ms": None,
            "remote": None, "expected": expected(row), "verdict": "FAIL" if IN_CI else "skip", "said": {},
            "faults": {f"this machine lacks {', '.join(missing)}": 1}}


def print_row(event):
    came = ", ".join(f"{word} {count}/{event['runs']}" if event["runs"] > 1 else word
                     for word, count in event["outcomes"].items())
    took = f"{event['max_ms'] / 1000:.2f} s" if event["max_ms"] is not None else "-"
    print(f"{event['verdict']:4} {event['name']:32} {came or '-':22} {took:>8}  expected {event['expected']}", flush=True)
    for fault, count in event["faults"].items():
        print(f"       not so: {fault}{f' ({count} runs)' if event['runs'] > 1 else ''}")
    for program, lines in event["said"].items():
        for line in lines[:SHOWN]:
            print(f"       {program}: {line}")
        if len(lines) > SHOWN:
            print(f"       {program}: … {len(lines) - SHOWN} more lines")
    sys.stdout.flush()


def main():
    options, rows = arguments()
    if options.list:
        for row in rows:
            print(f"{row.name:32} {expected(row)}")
        return 0
    failed = 0
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        runs = []
        for row in rows:
            missing = lacking(row)
            # An error is waited for until the programs have given up.
            most = 1 if row.once else 5 if row.expect == "error" else options.runs
            count = 0 if missing else min(most, options.runs)
            runs.append((row, missing, [pool.submit(run_once, row) for _ in range(count)]))
        for row, missing, futures in runs:
            event = skipped(row, missing) if missing else event_of(row, [future.result() for future in futures])
            failed += event["verdict"] == "FAIL"
            if options.json:
                print(json.dumps(event, ensure_ascii=False), flush=True)
            else:
                print_row(event)
    if failed:
        print(f"netns: {failed} of {len(rows)} deployments are not as the table says", file=sys.stderr)
    return 1 if failed else 0


sys.exit(main())
