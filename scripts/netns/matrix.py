"""Pairs of NATs against the laboratory's expectations, by the real programs. Run by `netns.sh matrix`.

    matrix.py [--pairs A:B,... | kernel | wire] [--runs N] [--hopeless-runs N] [--jobs N] [--json]

Each pair has a sandbox of its own, in which pair.py runs the programs; what they did is all that counts here. A pair for
which the laboratory names a remedy must go direct in every run, any other must end in a clear verdict in every run; of
two small blocks of ports each run must end in either, and as many direct as chance leaves no doubt about; only a router
that chooses ports at random may once choose the very port that the other side tries (some hundred pairs of ports are tried
in a run, so one run in some hundreds). Exit code 1 where it is not so.
"""

import argparse
import itertools
import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "netns.sh")
SIMPLE = ["open", "full-cone", "address-restricted", "port-restricted", "symmetric-sequential", "symmetric-random"]


def every_pair(kinds):
    return list(itertools.combinations_with_replacement(kinds, 2))


SETS = {
    "kernel": [*every_pair([*SIMPLE, "port-restricted+leaky", "udp-blocked"]),
               ("same-lan", "same-lan"), ("same-nat", "same-nat"),
               ("ipv6-firewall", "ipv6-firewall"), ("ipv6-firewall", "open")],
    "wire": [*every_pair([f"wire:{kind}" for kind in [*SIMPLE, "address-restricted+leaky", "port-restricted+leaky",
                                                      "cgnat(port-restricted)", "cgnat(port-restricted+leaky)"]]),
             ("wire:cgnat(symmetric-sequential)", "wire:cgnat(port-restricted)"),
             ("wire:cgnat(symmetric-random)", "wire:cgnat(port-restricted)"),
             ("wire:cgnat(symmetric-random)", "wire:full-cone"),
             *((f"wire:cgnat({one_symmetric})", f"wire:{other}")
               for one_symmetric in ["port-restricted/symmetric-sequential", "port-restricted/symmetric-random",
                                     "symmetric-sequential/port-restricted", "symmetric-random/port-restricted"]
               for other in ["full-cone", "cgnat(port-restricted)"]),
             ("wire:cgnat(port-restricted/symmetric-sequential)", "wire:symmetric-sequential"),
             ("wire:cgnat(port-restricted/symmetric-random)", "wire:symmetric-random"),
             ("wire:port-restricted", "wire:symmetric-block"), ("wire:symmetric-block", "wire:symmetric-block"),
             ("wire:same-nat", "wire:same-nat"), ("wire:same-nat+hairpin", "wire:same-nat+hairpin")],
}


def pairs_of(text):
    if text in SETS:
        return SETS[text]
    pairs = [re.fullmatch(r"((?:wire:)?[^:]+):((?:wire:)?[^:]+)", pair) for pair in text.split(",")]
    if not all(pairs):
        raise argparse.ArgumentTypeError("write A:B,C:D, or kernel, or wire")
    return [match.groups() for match in pairs]


def arguments():
    parser = argparse.ArgumentParser(prog="netns.sh matrix")
    parser.add_argument("--pairs", type=pairs_of, default="kernel")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--hopeless-runs", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def expectations():
    """Remedy by pair of kinds, for what lies between the homes here."""
    program = os.path.join(os.environ["NETNS_BIN"], "nat-sim")
    between = "shared-link" if shared_link() else "core"
    said = subprocess.run([program, "wire", "expectations"], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in said.splitlines()]
    return {frozenset((row["a"], row["b"])): row["remedy"] for row in rows if row["between"] == between}


def shared_link():
    return bool(os.environ.get("NETNS_SHARED_LINK"))


def eaten_primes():
    return bool(os.environ.get("NETNS_EAT_PRIMES"))


def is_direct(remedy, kinds):
    """Whether a pair that needs this remedy is to go direct here."""
    # With one leaky side alone, a later attempt may start in the right order by chance.
    spoilt = eaten_primes() and remedy == "prime" and all("+leaky" in kind for kind in kinds)
    return remedy != "relay-only" and not spoilt


def wire_options():
    return os.environ.get("NETNS_WIRE", "").split()


def round_trips(a, b):
    """Milliseconds that the wires add to the round trip to the server (the slower home's) and between the homes."""
    options = wire_options()
    delay = dict(zip(options[::2], options[1::2])).get("--delay", "0")
    wires = sum(kind.startswith("wire:") for kind in (a, b))
    return 2 * float(delay) * min(wires, 1), 2 * float(delay) * wires


def run_pair(a, b, runs):
    """What pair.py said of each run, and on stderr."""
    # The sandbox goes when this process does, however and whenever it ends.
    command = ["setpriv", "--pdeathsig", "KILL", "--", "bash", "-c", '[[ $PPID == "$0" ]] && exec "$@"',
               str(os.getpid()), SCRIPT, "run", "--nat1", a, "--nat2", b,
               "--seed", os.environ["NETNS_SEED"], *wire_options(), *(["--shared-link"] if shared_link() else []),
               *(["--eat-primes"] if eaten_primes() else []),
               "--", os.environ["NETNS_PYTHON"], os.path.join(os.path.dirname(__file__), "pair.py"), str(runs)]
    env = {**os.environ, "CULVERT_BIN": os.environ["NETNS_BIN"]}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def quantile(times, share):
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)] if times else None


def mean(values):
    return round(sum(values) / len(values), 1) if values else None


def row(a, b, options, remedy):
    """The pair's event, as CLI.md has it, and whether it is as expected."""
    expected = "direct" if is_direct(remedy, (a, b)) else "verdict"
    runs = options.runs if expected == "direct" else options.hopeless_runs or options.runs
    # One run of those that may miss would show nothing.
    runs = max(runs, allowed_misses(remedy, runs) + 1)
    results, said = run_pair(a, b, runs)
    counts = {outcome: [r for r in results if r["outcome"] == outcome] for outcome in ("direct", "verdict", "neither")}
    times = [r["ms"] for r in counts[expected]]
    r_ms, d_ms = round_trips(a, b)
    event = {
        "event": "pair", "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "a": a, "b": b, "runs": len(results), "direct": len(counts["direct"]), "remedy": remedy,
        "median_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99), "r_ms": r_ms, "d_ms": d_ms,
        "packets_a": mean([r["packets"][0] for r in results]), "packets_b": mean([r["packets"][1] for r in results]),
        "expected": expected, "verdicts": len(counts["verdict"]),
    }
    lucky = len(counts["direct"]) if expected == "verdict" and may_be_lucky(a, b, remedy) else 0
    # On one link it is the order of two primes that decides, and only the machine knows it: either end is right if it is clear.
    lucky = lucky if shared_link() else min(lucky, 1)
    if remedy == "scatter":
        lucky = len(counts["verdict"]) if len(counts["direct"]) >= least_scattered(runs) else 0
    missed = min(len(counts["verdict"]), allowed_misses(remedy, runs))
    agrees = len(results) == runs and len(counts[expected]) + max(lucky, missed) == runs
    if not agrees:
        said += "".join(f"{a} × {b}: {json.dumps(result)}\n" for result in results)
    return event, agrees, said


def least_scattered(runs):
    """Two blocks of which either side takes three quarters meet in 43 % of runs; four standard deviations less are chance."""
    share = 1 - math.exp(-(3 / 4) ** 2)
    return max(0, math.floor(runs * share - 4 * math.sqrt(runs * share * (1 - share))))


def allowed_misses(remedy, runs):
    """How many searches may find nothing: one in a thousand does. More is chance once in a thousand rows."""
    if remedy != "birthday":
        return 0
    mean = runs * 0.001
    term = total = math.exp(-mean)
    allowed = 0
    while 1 - total > 0.001:
        allowed += 1
        term *= mean / allowed
        total += term
    return allowed


def may_be_lucky(a, b, remedy):
    if "udp-blocked" in (a, b):
        return False
    return shared_link() or any("symmetric-random" in kind for kind in (a, b)) and remedy != "predict"


HEADER = f"{'pair':64} {'remedy':15} {'runs':>4} {'direct':>6} {'verdict':>7} {'median':>8} {'p99':>8}"


def line(event, agrees):
    took = [f"{event[key]} ms" if event[key] is not None else "-" for key in ("median_ms", "p99_ms")]
    return (f"{event['a'] + ' × ' + event['b']:64} {event['remedy']:15} {event['runs']:4} {event['direct']:6} "
            f"{event['verdicts']:7} {took[0]:>8} {took[1]:>8}  {'ok' if agrees else 'FAIL: expected ' + event['expected']}")


def main():
    options = arguments()
    remedies = expectations()
    if not options.json:
        print(HEADER, flush=True)
    failed = 0
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        def start(pair):
            key = frozenset(kind.removeprefix("wire:") for kind in pair)
            return pool.submit(row, *pair, options, remedies[key])
        for future in [start(pair) for pair in options.pairs]:
            event, agrees, said = future.result()
            print(json.dumps(event, ensure_ascii=False) if options.json else line(event, agrees), flush=True)
            if not agrees:
                failed += 1
                print(said, end="", file=sys.stderr, flush=True)
    if failed:
        print(f"netns: {failed} pairs are not as the laboratory expects", file=sys.stderr)
    return 1 if failed else 0


sys.exit(main())
