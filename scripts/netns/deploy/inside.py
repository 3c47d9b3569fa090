"""Runs the programs in one deployment. Run by `netns.sh deploy`, in the deployment's own sandbox.

    inside.py NAME

Prints one JSON object: `outcome` (`direct`, `relay`, `error`, or `broken`), `ms`, `remote`, `why`, and in `said` what each
program told its user beside its results.
"""

import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import dns
import scenarios
from sandbox import BIN, WORK, Program, carry, enter, shared_port, until
from table import ROWS

# A program's results; anything else that it says is for a person who wants to know what is wrong.
RESULTS = ("ready", "path", "listening", "stopped", "visitor")
# Lines of the access log; and a word about this machine, not about the deployment.
BESIDE = re.compile(r"client=\S+ http=|^warning: this process may have \d+ files open")
# The longest that a row waits for a path that is not expected, or not within its time.
LATE = 4.0
# The longest that a row waits for the words that it expects: a look-up that gets no answer takes the server 5 s, and a peer
# asks silent ports three times within 14 s.
WORDS = 15.0


class Broken(Exception):
    """The deployment did something that no row expects."""


class Ended(Exception):
    """A program has ended with an error, which is the outcome."""

    def __init__(self, program, error):
        super().__init__(error["message"])
        self.program, self.error = program, error


class Deployment:
    def __init__(self, row):
        self.row = row
        self.programs = {}
        self.shared = shared_port(row.sharer)

    def start(self, name, namespace, *arguments, under=()):
        self.programs[name] = Program(name, namespace, *arguments, under=under)
        return self.programs[name]

    def serve(self, *options, name="server"):
        """`rendezvous`, as the row has it, until it listens."""
        under = own_hosts(self.row.hosts) if self.row.hosts else ()
        server = self.start(name, "srv", "rendezvous", "--domain", self.row.domain, *self.row.server, *options, under=under)
        return server, self.event(server, 15, "listening")

    def share(self, name="share", *options):
        share = self.start(name, self.row.sharer, "peer", "share", "8000", "--server", self.row.url, *options)
        return share, self.event(share, 30, "ready")["ticket"]

    def connect(self, ticket, name="connect"):
        return self.start(name, "h2", "peer", "connect", ticket)

    def event(self, program, seconds, event, **fields):
        """That event, or the program's error, or nothing of either."""
        found = until(lambda: program.find(event, **fields) or program.find("error"), [program], seconds)
        if found is None:
            raise Broken(f"{program.name} says no {event} in {seconds:.0f} s")
        if found["event"] == "error" and event != "error":
            raise Ended(program, found)
        return found

    def path(self, program, seconds):
        """The first direct path that leads where the row says; None when the time is up."""
        def found():
            return next((e for e in program.events if e["event"] == "path" and e["kind"] == "direct"
                         and re.search(self.row.at, e["remote"])), None) or program.find("error")

        event = until(found, [program], seconds)
        if event and event["event"] == "error":
            raise Ended(program, event)
        return event

    def event_or_none(self, program, seconds):
        """The first direct path, or the program's error, or None when the time is up."""
        return until(lambda: program.find("path", kind="direct") or program.find("error"), [program], seconds)

    def join(self, ticket, name="connect", patience=None):
        """Connects, has bytes pass, and says what came of it."""
        connect = self.connect(ticket, name)
        patience = patience or (LATE if self.row.expect != "direct" else max(LATE, self.row.within + 1))
        path = self.path(connect, patience)
        ready = self.event(connect, 15, "ready")
        self.carry(ready)
        if path and self.row.at:
            # It must not go back to where it was.
            until(lambda: False, [connect], 2)
            last = [e for e in connect.events if e["event"] == "path"][-1]
            if last["kind"] != "direct" or not re.search(self.row.at, last["remote"]):
                raise Broken(f"the path went on to {last['kind']}, {last['remote']}")
        if path:
            return {"outcome": "direct", "ms": path["since_start_ms"], "remote": path["remote"]}
        paths = [e for e in connect.events if e["event"] == "path"]
        if not paths:
            raise Broken("connect says no path")
        kind, remote = paths[-1]["kind"], paths[-1]["remote"]
        if kind == "direct":
            return {"outcome": "elsewhere", "remote": remote, "why": f"the path leads to {remote}, not to {self.row.at}"}
        return {"outcome": kind, "remote": remote}

    def carry(self, ready):
        why = carry("h2", ready["listen"][0], self.shared)
        if why:
            raise Broken(why)

    def stop(self):
        return [name for name, program in reversed(self.programs.items()) if program.stop() is None]

    def hear_out(self):
        """Waits for what the programs are to say, some of which they find out a while after the start."""
        def is_said():
            said = self.said()
            wanted = ((program, word) for program, words in self.row.says.items() if program in said
                      for word in ([words] if isinstance(words, str) else words))
            return all(any(re.search(word, line) for line in said[program]) for program, word in wanted)

        deadline = time.monotonic() + WORDS
        while not is_said() and time.monotonic() < deadline:
            time.sleep(0.1)

    def said(self):
        """By program, each line for its user."""
        said = {}
        for name, program in self.programs.items():
            program.read()
            with open(os.path.join(program.home, "err"), errors="replace") as err:
                lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in err.read().splitlines()
                         if line and not BESIDE.search(line)]
            known = "\n".join(lines)
            for event in program.events:
                message = event.get("message") or json.dumps({k: v for k, v in event.items() if k != "at"})
                if event["event"] not in RESULTS and message not in known:
                    lines.append(message)
            said[name] = lines
        return said


def own_hosts(line):
    """A command under which a program finds that line in /etc/hosts, and others don't."""
    path = os.path.join(WORK, "hosts.server")
    with open(path, "w") as file:
        file.write(f"127.0.0.1 localhost\n{line}\n")
    return ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', path)


def netcheck(row):
    """What `peer netcheck` tells a person at the visitor."""
    enter("h2")
    home = os.path.join(WORK, "netcheck")
    os.makedirs(home, exist_ok=True)
    done = subprocess.run([os.path.join(BIN, "peer"), "netcheck", "--server", row.url], capture_output=True, text=True,
                          timeout=30, check=False, env={**os.environ, "HOME": home})
    return (done.stdout + done.stderr).splitlines()


def run(row):
    dns.start()
    deployment = Deployment(row)
    began = time.monotonic()
    try:
        result = getattr(scenarios, row.scenario)(deployment)
    except Ended as ended:
        took = round((time.monotonic() - ended.program.started) * 1000)
        result = {"outcome": "error", "ms": took, "why": f"{ended.program.name}: {ended}"}
    except Broken as broken:
        result = {"outcome": "broken", "why": str(broken)}
    if "netcheck" in row.says and result["outcome"] != "broken":
        result["netcheck"] = netcheck(row)
    if result["outcome"] != "broken":
        deployment.hear_out()
    late = deployment.stop()
    said = deployment.said()
    said["netcheck"] = result.pop("netcheck", [])
    if late:
        result = {"outcome": "broken", "why": f"{', '.join(late)} did not stop within 6 s"}
    return {"ms": None, "remote": None, "why": None, **result, "said": said, "took_s": round(time.monotonic() - began, 1)}


if __name__ == "__main__":
    print(json.dumps(run(next(row for row in ROWS if row.name == sys.argv[1]))), flush=True)
