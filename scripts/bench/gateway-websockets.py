#!/usr/bin/env python3
"""Ten thousand WebSockets on one share: how long they take, what they cost, and a page beside them."""

import argparse
import os
import resource
import subprocess

from gateway_stand import HERE, NODE, Stand, install_node_packages


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sockets", type=int, default=10000)
    args = options.parse_args()
    install_node_packages()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(NODE / "node_modules")}
    with Stand() as stand:
        origin = stand.start(
            ["node", HERE / "gateway_websockets.js", "origin"], env=environment, stdout=subprocess.PIPE
        )
        side = stand.culvert(int(origin.stdout.readline()))
        before = side.resident()
        visitors = stand.start(
            ["node", HERE / "gateway_websockets.js", side.port, side.host, args.sockets],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for line in visitors.stdout:
            print(line, end="", flush=True)
            if line.startswith("open"):
                break
        else:
            raise SystemExit(1)
        each = [(now - then) / args.sockets for now, then in zip(side.resident(), before)]
        print(f"resident for each: server {each[0]:.1f} KiB, peer {each[1]:.1f} KiB; before {before} KiB", flush=True)
        visitors.stdin.write("\n")
        visitors.stdin.close()
        for line in visitors.stdout:
            print(line, end="", flush=True)
        if visitors.wait():
            raise SystemExit(1)


main()
