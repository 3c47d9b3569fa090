#!/usr/bin/env python3
"""Requests a second for a tiny page: Culvert's gateway, localtunnel's own server, nginx as a proxy."""

import argparse
import re
import subprocess

from gateway_stand import Stand, install_node_packages, interleaved, median, ratio, wrk


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=5, help="of each side in each round")
    options.add_argument("--connections", type=int, default=30)
    args = options.parse_args()
    program = wrk()
    install_node_packages()

    def measure(_, side):
        host, before = f"Host: {side.host}", side.cpu()
        command = [program, "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "--latency", "-H", host]
        said = subprocess.run(
            [*command, f"http://127.0.0.1:{side.port}/"], check=True, capture_output=True, text=True
        ).stdout
        # Errors are answered fast.
        if "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(f"{side.host}: {said}")
        count = int(re.search(r"(\d+) requests in", said)[1])
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
        return rate, milliseconds(said, "99%"), (side.cpu() - before) / count * 1e6

    with Stand() as stand:
        local = stand.page()
        sides = {
            "culvert": stand.culvert(local),
            "localtunnel": stand.original(local),
            "nginx": stand.nginx_proxy(local),
        }
        figures = interleaved(args.rounds, sides, measure)
    rates = {name: [rate for rate, _, _ in rounds] for name, rounds in figures.items()}
    for name, rounds in figures.items():
        print(f"{name:12} {median(rates[name])} requests/s, p99 {median([p99 for _, p99, _ in rounds], 1)} ms, "
              f"{median([each for _, _, each in rounds])} µs of processors each")
    for other in ("localtunnel", "nginx"):
        print(f"culvert : {other:12} {ratio(rates['culvert'], rates[other]):.2f}")


def milliseconds(said, quantile):
    value, unit = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)\b", said).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


main()
