#!/usr/bin/env python3
"""Latency of a tiny page at a fixed rate of requests: Culvert's gateway, nginx as a proxy."""

import argparse

from gateway_stand import Stand, at_rate, by_h2load, interleaved, load, print_quantiles

GENERATORS = {
    "h2load, whose connections ask all at once": by_h2load,
    "requests that are evenly spaced": at_rate,
}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=5, help="of each side in each round")
    options.add_argument("--connections", type=int, default=30)
    options.add_argument("--rate", type=int, default=2000, help="requests a second, of all connections")
    options.add_argument("--apart", action="store_true", help="a processor for the home, one for the server and visitors")
    args = options.parse_args()
    load()
    with Stand(args.apart) as stand:
        local = stand.page()
        sides = {"culvert": stand.culvert(local), "nginx": stand.nginx_proxy(local)}
        for name, ask in GENERATORS.items():
            figures = interleaved(
                args.rounds, sides, lambda _, side: ask(side, args.connections, args.rate, args.seconds)
            )
            print(f"{name}:")
            print_quantiles(figures, "culvert", "nginx")


main()
