#!/usr/bin/env python3
"""By how much an event of a stream (SSE) is later than on a direct connection: Culvert's gateway, nginx as a proxy."""

import argparse
import os
import subprocess

from gateway_stand import HERE, Stand, free_port, install_node_packages


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=3000)
    options.add_argument("--every", type=int, default=10, help="milliseconds between two")
    args = options.parse_args()
    install_node_packages()
    with Stand() as stand:
        local = free_port()
        sides = {"culvert": stand.culvert(local), "nginx": stand.nginx_proxy(local)}
        words = [f"{name}={side.port}={side.host}" for name, side in sides.items()]
        command = ["node", HERE / "gateway_events.js", local, args.events, args.every, *words]
        subprocess.run([str(word) for word in command], check=True, env={"PATH": os.environ["PATH"]})


main()
