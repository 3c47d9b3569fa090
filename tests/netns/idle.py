"""Leaves a connection idle for longer than the routers remember it, then sends.

    idle.py ROUTER_SECONDS IDLE_SECONDS

In a sandbox of two port-restricted homes, with scripts/netns in PYTHONPATH.
"""

import sys
import time

from pair import Run, between_homes, TARGETS, target
from sandbox import enter, until

# Nothing is punched or asked anew: one way there and one back, and room for a busy machine.
AT_ONCE = 0.5


def set_timeouts(seconds):
    for router in "r1", "r2":
        enter(router)
        for name in "nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream":
            with open(f"/proc/sys/net/netfilter/{name}", "w") as setting:
                setting.write(str(seconds))


def paths(run):
    """All paths that both programs have reported until now."""
    found = []
    for name in "share", "connect":
        run.programs[name].read()
        found += [(name, e["kind"], e["remote"]) for e in run.programs[name].events if e["event"] == "path"]
    return found


def stay_idle(run, seconds):
    """Waits; ends early only if a program does."""
    programs = [run.programs[name] for name in ("share", "connect", "rendezvous")]
    until(lambda: any(program.ended for program in programs), programs, seconds)
    assert not any(program.ended for program in programs), "a program has ended"


def main():
    forgets, idle = map(float, sys.argv[1:])
    set_timeouts(round(forgets))
    TARGETS.update({1: target(1)})
    run = Run(sharer=1, connector=2)
    try:
        outcome, _, why = run.outcome()
        assert outcome == "direct", why
        before, routed = paths(run), between_homes()
        stay_idle(run, idle)
        kept = between_homes() - routed
        sent = time.monotonic()
        why = run.echo(run.programs["connect"].find("ready")["listen"][0])
        took = time.monotonic() - sent
        assert why is None, why
        assert paths(run) == before, f"the path changed: {before}, then {paths(run)}"
        assert took < AT_ONCE, f"bytes took {took:.3f} s"
        print(f"idle for {idle:.0f} s behind routers that forget after {forgets:.0f} s: {kept} packets kept the path, "
              f"then 1000 bytes and back took {took * 1000:.1f} ms")
    except AssertionError as error:
        for program in run.programs.values():
            print("\n".join(program.last_words()), file=sys.stderr)
        sys.exit(f"idle.py: {error}")
    finally:
        run.stop()


main()
