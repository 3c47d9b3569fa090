#!/usr/bin/env python3
"""Requests a second for a tiny page over HTTP/2 with TLS: Culvert's gateway, nginx as a proxy."""

import argparse
import re
import subprocess

from gateway_stand import Stand, installed, interleaved, median, ratio


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=5, help="of each side in each round")
    options.add_argument("--connections", type=int, default=10)
    options.add_argument("--streams", type=int, default=4, help="of each connection at once")
    args = options.parse_args()
    program = installed("h2load", "nghttp2-client")

    def measure(_, side):
        before = side.cpu()
        command = [program, "-t", 1, "-c", args.connections, "-m", args.streams, "-D", args.seconds]
        command += ["-H", f":authority: {side.host}", f"https://127.0.0.1:{side.port}/"]
        said = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
        rate = float(re.search(r"finished in [\d.]+s, ([\d.]+) req/s", said)[1])
        good, *others = (int(count) for count in re.search(r"codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said).groups())
        # Errors are answered fast.
        if any(others) or "Application protocol: h2" not in said:
            raise SystemExit(f"{side.host}: {said}")
        return rate, (side.cpu() - before) / good * 1e6

    with Stand() as stand:
        local, certificate = stand.page(), stand.certificate()
        sides = {"culvert": stand.culvert(local, certificate), "nginx": stand.nginx_proxy(local, certificate)}
        figures = interleaved(args.rounds, sides, measure)
    for name, rounds in figures.items():
        rates, costs = zip(*rounds)
        print(f"{name:12} {median(rates)} requests/s, {median(costs)} µs of processors each")
    print(f"culvert : nginx {ratio(*([rate for rate, _ in figures[name]] for name in ('culvert', 'nginx'))):.2f}")


main()
