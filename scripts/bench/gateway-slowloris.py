#!/usr/bin/env python3
"""How much longer a good visitor waits beside 2000 slow connections of other networks than beside as many elsewhere."""

import argparse
import asyncio
import multiprocessing
import signal
import time

from gateway_stand import Stand, at_rate, interleaved, load, print_quantiles

# How often a slow one says one byte more.
DRIP = 1.0

HEAD = "GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: "
BODY = "POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"


async def slow(number, side, counts):
    """Drips heads and bodies from one of 16 networks, and comes back as soon as it is cut."""
    source, start = f"127.0.{1 + number % 16}.1", BODY if number % 4 == 0 else HEAD
    await asyncio.sleep(number / 2000)
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", side.port, local_addr=(source, 0))
        except OSError:
            counts["failed"] += 1
            await asyncio.sleep(DRIP)
            continue
        counts["open"] += 1
        try:
            writer.write(start.format(host=side.host).encode())
            while True:
                try:
                    if not await asyncio.wait_for(reader.read(4096), DRIP):
                        break
                    counts["answered"] += 1
                    break
                except TimeoutError:
                    writer.write(b"x")
        except OSError:
            pass
        counts["open"] -= 1
        counts["cut"] += 1
        writer.close()


def crowd(connections, side, connection):
    """So many slow ones, until the process is ended; says once that all are there, and what became of them when asked."""

    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def run():
        counts = {"open": 0, "cut": 0, "answered": 0, "failed": 0}
        tasks = [asyncio.create_task(slow(number, side, counts)) for number in range(connections)]
        while counts["open"] < connections:
            await asyncio.sleep(0.05)
        connection.send(dict(counts))
        while not connection.poll():
            await asyncio.sleep(0.05)
        connection.send(dict(counts))
        for task in tasks:
            task.cancel()

    asyncio.run(run())


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

    def measure(name, sides):
        side, attacked = sides
        if not attacked:
            return good(side)
        near, far = multiprocessing.Pipe()
        attacker = multiprocessing.Process(target=crowd, args=[args.slow, attacked, far], daemon=True)
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
        # What the slow ones' own program takes of the processors, its visitors miss wherever it knocks.
        turns = {
            "alone": (ours, None),
            "elsewhere": (ours, nginx),
            "beside": (ours, ours),
            "nginx alone": (nginx, None),
            "nginx beside": (nginx, nginx),
        }
        figures = interleaved(args.rounds, turns, measure)
    for with_them, without in (("beside", "elsewhere"), ("beside", "alone"), ("nginx beside", "nginx alone")):
        print_quantiles({how: figures[how] for how in (without, with_them)}, with_them, without)


main()
