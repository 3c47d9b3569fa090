"""Changes the network under a connection in use, and measures for how long no bytes pass.

    roaming.py FAULT…

A fault is SIDE:WHAT, with SIDE `sharer` or `connector`, and WHAT one of
    address     its host's address goes, and another one comes
    route       its host's default route moves to another interface
    reboot      its router loses all state
    stop=SECONDS  the program is stopped and continued
In a sandbox of two port-restricted homes, with scripts/netns in PYTHONPATH.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time

from pair import Run, TARGETS, target
from sandbox import enter, power_cut

# Data flows again within these: after a change of the network, and after a program was stopped.
MOVED, STOPPED = 2.0, 5.0
BEAT = 0.1
HOMES = {"sharer": 1, "connector": 2}


def ip(host, words):
    subprocess.run(["ip", "-n", host, *words.split()], check=True)


class Host:
    """A home's client, its addresses and its second way out."""

    def __init__(self, n):
        self.n, self.name, self.number = n, f"h{n}", 2
        ip(f"r{n}", f"link add lan2 type veth peer name eth1 netns {self.name}")
        ip(f"r{n}", "link set lan2 up")
        ip(f"r{n}", f"addr add 192.168.{n + 4}.1/24 dev lan2")
        ip(self.name, "link set eth1 up")
        ip(self.name, f"addr add 192.168.{n + 4}.2/24 dev eth1")
        self.ways = [f"default via 192.168.{n}.1 dev eth0", f"default via 192.168.{n + 4}.1 dev eth1"]

    def address(self):
        gateway, old, self.number = f"192.168.{self.n}.1", self.number, self.number + 1
        ip(self.name, f"addr del 192.168.{self.n}.{old}/24 dev eth0")
        ip(self.name, f"addr add 192.168.{self.n}.{self.number}/24 dev eth0")
        ip(self.name, f"route add default via {gateway}")

    def route(self):
        self.ways.reverse()
        ip(self.name, f"route replace {self.ways[0]}")


class Pulse:
    """A beat every 100 ms through the connection to an echo and back."""

    def __init__(self, run):
        host, _, port = run.programs["connect"].find("ready")["listen"][0].rpartition(":")
        enter(f"h{run.connector}")
        self.near = socket.create_connection((host, int(port)), timeout=5)
        self.far, _ = TARGETS[run.sharer].accept()
        self.selector = selectors.DefaultSelector()
        for end in (self.near, self.far):
            end.setblocking(False)
            self.selector.register(end, selectors.EVENT_READ)
        self.sent = []
        self.heard = []

    def beat(self, seconds, until_heard_after=None):
        """Goes on for so long, or until a beat is back that left after that time."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if until_heard_after is not None and self.newest() > until_heard_after:
                return
            due = self.sent[-1] + BEAT if self.sent else now
            if now >= due:
                self.near.send(b".")
                self.sent.append(now)
                continue
            for key, _ in self.selector.select(min(due, end) - now):
                data = key.fileobj.recv(4096)
                assert data, "the stream ended"
                if key.fileobj is self.far:
                    self.far.send(data)
                else:
                    self.heard += [time.monotonic()] * len(data)

    def newest(self):
        """When the newest beat left that is back."""
        return self.sent[len(self.heard) - 1] if self.heard else 0

    def longest_since(self, start):
        """The longest way of a beat that left, or was under way, since then."""
        ways = [(sent, heard) for sent, heard in zip(self.sent, self.heard) if heard >= start]
        return max(heard - max(sent, start) for sent, heard in ways)


def stop(run, pulse, side, seconds):
    process = run.programs["share" if side == "sharer" else "connect"].process
    process.send_signal(signal.SIGSTOP)
    try:
        pulse.beat(seconds)
    finally:
        process.send_signal(signal.SIGCONT)


def one_fault(run, pulse, hosts, fault):
    side, _, what = fault.partition(":")
    home, bound = HOMES[side], MOVED
    pulse.beat(1.5)
    start = time.monotonic()
    if what == "reboot":
        power_cut(home)
    elif what.startswith("stop="):
        stop(run, pulse, side, float(what.removeprefix("stop=")))
        start, bound = time.monotonic(), STOPPED
    else:
        getattr(hosts[home], what)()
    pulse.beat(4 * bound, until_heard_after=start)
    assert pulse.newest() > start, f"{fault}: no bytes for {4 * bound} s"
    pulse.beat(1.5)
    took = pulse.longest_since(start)
    print(f"{fault}: bytes pass again after {took * 1000:.0f} ms", flush=True)
    assert took <= bound, f"{fault}: bytes pass again after {took:.3f} s"


def main():
    hosts = {n: Host(n) for n in HOMES.values()}
    TARGETS.update({1: target(1)})
    run = Run(sharer=HOMES["sharer"], connector=HOMES["connector"])
    try:
        outcome, _, why = run.outcome()
        assert outcome == "direct", why
        pulse = Pulse(run)
        for fault in sys.argv[1:]:
            one_fault(run, pulse, hosts, fault)
    except AssertionError as error:
        for program in run.programs.values():
            program.read()
            print("\n".join(program.last_words()), file=sys.stderr)
        sys.exit(f"roaming.py: {error}")
    finally:
        run.stop()


main()
