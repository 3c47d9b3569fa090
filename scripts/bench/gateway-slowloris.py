#!/usr/bin/env python3
"""How much longer a good visitor waits beside 2000 slow connections of other networks than alone: here, and at nginx."""

import argparse
import multiprocessing
import socket
import time

from gateway_stand import Stand, at_rate, interleaved, load, print_quantiles

# How often a slow one says one byte more.
DRIP = 1.0

HEAD = "GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: "
BODY = "POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"


class Slow:
    """Drips a head or a body from one of 16 networks, and comes back as soon as it is cut. It takes next to nothing of the
    processors, which the good visitor has to share with it."""

    def __init__(self, number, side):
        self.address, self.source = ("127.0.0.1", side.port), f"127.0.{1 + number % 16}.1"
        self.start = (BODY if number % 4 == 0 else HEAD).format(host=side.host).encode()
        self.stream = None

    def turn(self, counts):
        if self.stream and self.is_cut(counts):
            self.stream.close()
            self.stream = None
            counts["open"] -= 1
            counts["cut"] += 1
        try:
            if self.stream:
                self.stream.send(b"x")
            else:
                stream = socket.create_connection(self.address, source_address=(self.source, 0))
                stream.setblocking(False)
                stream.send(self.start)
                self.stream = stream
                counts["open"] += 1
        except OSError:
            # Of one that was cut it says so next time.
            counts["failed"] += 1

    def is_cut(self, counts):
        try:
            if self.stream.recv(4096):
                counts["answered"] += 1
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True


def crowd(connections, side, far):
    """So many slow ones, until it is told to end; says once that all are there, and what became of them at the end."""
    counts = {"open": 0, "cut": 0, "answered": 0, "failed": 0}
    slow = [Slow(number, side) for number in range(connections)]
    began, turns, told = time.monotonic(), 0, False
    while not far.poll():
        while turns < (time.monotonic() - began) / DRIP * connections:
            slow[turns % connections].turn(counts)
            turns += 1
        if not told and counts["open"] == connections:
            told = True
            far.send(dict(counts))
        time.sleep(0.002)
    far.send(dict(counts))


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=12, help="of each side in each round; heads are cut after 10")
    options.add_argument("--slow", type=int, default=2000, help="slow connections")
    options.add_argument("--rate", type=int, default=500, help="the good one's requests a second")
    args = options.parse_args()
    load()

    def good(side):
        return at_rate(side, 10, args.rate, args.seconds)

    def measure(name, side):
        if name.endswith("alone"):
            return good(side)
        near, far = multiprocessing.Pipe()
        attacker = multiprocessing.Process(target=crowd, args=[args.slow, side, far], daemon=True)
        attacker.start()
        if not near.poll(30):
            raise SystemExit("the slow ones were never all there")
        near.recv()
        figures = good(side)
        near.send("enough")
        print(f"slow ones, {name}: {near.recv()}", flush=True)
        attacker.join()
        time.sleep(1)
        return figures

    with Stand() as stand:
        local = stand.page()
        ours, nginx = stand.culvert(local), stand.nginx_proxy(local)
        good(ours), good(nginx)
        sides = {"culvert": ours, "nginx": nginx}
        turns = {f"{name} {how}": side for name, side in sides.items() for how in ("alone", "beside")}
        figures = interleaved(args.rounds, turns, measure)
    for name in sides:
        alone, beside = f"{name} alone", f"{name} beside"
        print_quantiles({how: figures[how] for how in (alone, beside)}, beside, alone)


main()
