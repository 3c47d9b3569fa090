#!/usr/bin/env python3
"""Latency of a tiny page at a fixed rate of requests: Culvert's gateway, nginx as a proxy."""

import argparse
import json
import subprocess

from gateway_stand import Stand, interleaved, load, median, ratio


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=5, help="of each side in each round")
    options.add_argument("--connections", type=int, default=30)
    options.add_argument("--rate", type=int, default=2000, help="requests a second, of all connections")
    args = options.parse_args()
    program = load()

    def measure(_, side):
        words = [program, f"127.0.0.1:{side.port}", side.host, args.connections, args.rate, args.seconds]
        said = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout
        figures = json.loads(said)
        if figures["failed"]:
            raise SystemExit(f"{side.host}: {said}")
        return figures

    with Stand() as stand:
        local = stand.page()
        sides = {"culvert": stand.culvert(local), "nginx": stand.nginx_proxy(local)}
        figures = interleaved(args.rounds, sides, measure)
    for name, rounds in figures.items():
        quantiles = [f"{which} {median([each[which] for each in rounds], 2)} ms" for which in ("p50", "p99", "max")]
        print(f"{name:8} {median([each['rate'] for each in rounds])} requests/s: {', '.join(quantiles)}")
    for which in ("p50", "p99"):
        of = {name: [each[which] for each in rounds] for name, rounds in figures.items()}
        print(f"culvert : nginx, {which} {ratio(of['culvert'], of['nginx']):.2f}")


main()
