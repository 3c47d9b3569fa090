"""Waits for something that a program says on its standard output.

    events.py DIRECTORY PID SECONDS event NAME [KEY=VALUE ...] [--print FIELD ...]
    events.py DIRECTORY PID SECONDS line REGEX

DIRECTORY holds the program's `out` and `err`. The fields asked for are printed on one line, separated by spaces, the first
element of a list standing for it; without --print, the whole line is. Exit code 0; or 1, with the reason and the end of
what the program said on stderr.
"""

import json
import os
import re
import sys
import time


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def lines(path, pid, deadline):
    """The complete lines of a growing file, until its writer has ended or the time is up."""
    with open(path, errors="replace") as file:
        rest = ""
        while True:
            ended = not running(pid) or time.monotonic() > deadline
            rest += file.read()
            *whole, rest = rest.split("\n")
            yield from whole
            if ended:
                return
            time.sleep(0.005)


def event_of(line):
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def field(event, name):
    value = event.get(name)
    if isinstance(value, list):
        value = value[0] if value else None
    return "-" if value is None else str(value)


def main():
    directory, pid, seconds, mode, what, *rest = sys.argv[1:]
    deadline = time.monotonic() + float(seconds)
    split = rest.index("--print") if "--print" in rest else len(rest)
    wanted = dict(pair.split("=", 1) for pair in rest[:split])
    seen = []
    for line in lines(os.path.join(directory, "out"), pid, deadline):
        if mode == "line":
            matched = re.search(what, line)
        else:
            event = event_of(line)
            matched = event.get("event") == what and all(field(event, k) == v for k, v in wanted.items())
        if matched:
            fields = [field(event, name) for name in rest[split + 1 :]] if mode == "event" else []
            print(" ".join(fields) or line)
            return 0
        seen.append(line)

    name = os.path.basename(directory)
    detail = "".join(f" {key}={value}" for key, value in wanted.items())
    why = f"within {seconds} s" if running(pid) else "before it ended"
    print(f"netns: {name} did not say {what}{detail} {why}", file=sys.stderr)
    with open(os.path.join(directory, "err"), errors="replace") as err:
        for line in seen[-5:] + err.read().splitlines()[-10:]:
            print(f"netns: {name}: {line}", file=sys.stderr)
    return 1


sys.exit(main())
