"""Runs the real programs between the two homes of a sandbox. Run by matrix.py, through `netns.sh run`.

    pair.py RUNS

Home 1 and home 2 share in turn. Each run has fresh programs and routers that were just switched on; it prints one line
of JSON: its outcome (`direct`, `verdict`: no path, and said so; or `neither`), the time to it since the connecting program
started, and the packets that each home has sent by then.
"""

import json
import os
import re
import subprocess
import sys
import time

from sandbox import Program, carry, enter, packets_sent, power_cut, shared_port, until

SERVER = os.environ.get("NETNS_SERVER", "")
if ":" in SERVER:
    SERVER = f"[{SERVER}]"
# The programs' own verdict comes after 9 s of trying.
PATIENCE = 15
ROUTERS = [n for n in (1, 2) if os.path.exists(f"/run/netns/r{n}")]
# Where the homes share a link or a router, the public network sees nothing of what passes between them.
CROSSES_PUB = len(ROUTERS) == 2 and not os.environ.get("NETNS_SHARED_LINK")
VERDICTS = {"no-path": 1, "server-silent": 3}


class Run:
    def __init__(self, sharer, connector):
        self.sharer, self.connector = sharer, connector
        self.programs = {}

    def start(self, name, namespace, *arguments):
        self.programs[name] = Program(name, namespace, *arguments)
        return self.programs[name]

    def outcome(self):
        """What came of it, and the milliseconds that it took."""
        server = self.start("rendezvous", "pub", "rendezvous", "--no-relay", "--udp", f"{SERVER}:3478", "--http", f"{SERVER}:8080")
        if not until(lambda: server.find("listening"), [server], 10):
            return "neither", None, "the server does not listen"
        share = self.start("share", f"h{self.sharer}", "peer", "share", "8000", "--server", f"http://{SERVER}:8080")
        ready = until(lambda: share.find("ready"), [share], PATIENCE)
        if not ready:
            return self.verdict(share)
        connect = self.start("connect", f"h{self.connector}", "peer", "connect", ready["ticket"])
        if not until(lambda: direct(connect) and connect.find("ready"), [connect], PATIENCE):
            return self.verdict(connect)
        path = direct(connect)
        if not until(lambda: direct(share), [share], 5):
            return "neither", None, "the sharer has no direct path"
        why = self.echo(connect.find("ready")["listen"][0])
        return ("neither", None, why) if why else ("direct", path["since_start_ms"], path["remote"])

    def verdict(self, program):
        """An error that says why there is no path, with its exit code, and the program's end."""
        until(lambda: False, [program], 1)
        error = program.find("error")
        if error is None or error["code"] not in VERDICTS:
            return "neither", None, f"{program.name} says neither path nor verdict in {PATIENCE} s"
        program.process.wait(timeout=6)
        took = round((time.monotonic() - program.started) * 1000)
        if program.process.returncode != VERDICTS[error["code"]]:
            return "neither", None, f"{program.name} ends with exit code {program.process.returncode}"
        return "verdict", took, error["code"]

    def echo(self, listener):
        """Takes some bytes through the connection and back. Says what went wrong, if anything did."""
        return carry(f"h{self.connector}", listener, TARGETS[self.sharer])

    def stop(self):
        """The names of those that do not stop in time, or not as they should."""
        codes = {name: program.stop() for name, program in reversed(self.programs.items())}
        return [name for name, code in codes.items() if code is None or code < 0]


def direct(program):
    return program.find("path", kind="direct")


def target(n):
    """What home n shares."""
    return shared_port(f"h{n}")


def between_homes():
    """Packets that the public network has routed from home to home: the kernel's word, not the programs'."""
    enter("pub")
    said = subprocess.run(["nft", "list", "counter", "inet", "pub", "between_homes"], capture_output=True, text=True, check=True)
    return int(re.search(r"packets (\d+)", said.stdout)[1])


def one_run(number):
    for n in ROUTERS:
        power_cut(n)
    sharer = 1 + (number + int(os.environ.get("NETNS_SEED", "1"))) % 2
    before = [packets_sent(f"h{n}", "eth0") for n in (1, 2)]
    routed = between_homes()
    run = Run(sharer, 3 - sharer)
    try:
        outcome, ms, why = run.outcome()
        packets = [packets_sent(f"h{n}", "eth0") - sent for n, sent in zip((1, 2), before)]
        if outcome == "direct" and CROSSES_PUB and between_homes() == routed:
            outcome, why = "neither", "a direct path, and no packet between the homes"
    finally:
        late = run.stop()
    if late:
        outcome, why = "neither", f"{', '.join(late)} did not stop within 6 s"
    if outcome == "neither":
        words = [line for program in run.programs.values() for line in program.last_words()]
        print("\n".join([f"run {number}, home {sharer} shares: {why}", *words]), file=sys.stderr)
    return {"outcome": outcome, "ms": ms, "why": why, "packets": packets}


TARGETS = {}


def main():
    TARGETS.update({n: target(n) for n in (1, 2)})
    for number in range(int(sys.argv[1])):
        print(json.dumps(one_run(number)), flush=True)


if __name__ == "__main__":
    main()
