#!/usr/bin/env python3
"""One large upload: Culvert's gateway, nginx as a proxy; how fast, by how much processor, in how much memory."""

import argparse
import multiprocessing
import re
import socket
import time

from gateway_stand import Stand, interleaved, median, ratio

BLOCK = 1 << 20


def sink(listener):
    """A local server that takes what it gets."""
    room = bytearray(BLOCK)
    while True:
        stream, _ = listener.accept()
        with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = stream.recv(4096)
                if not piece:
                    break
                head += piece
            if not (length := re.search(rb"[Cc]ontent-[Ll]ength: (\d+)", head)):
                continue
            left = int(length[1]) - len(head.partition(b"\r\n\r\n")[2])
            while left > 0 and (count := stream.recv_into(room)):
                left -= count
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--mib", type=int, default=1024)
    args = options.parse_args()
    size = args.mib << 20

    def measure(name, side):
        with socket.create_connection(("127.0.0.1", side.port)) as visitor:
            fields = f"Host: {side.host}\r\nContent-Length: {size}\r\nConnection: close"
            block, left, began, before = bytes(BLOCK), size, time.monotonic(), side.cpu()
            visitor.sendall(f"POST / HTTP/1.1\r\n{fields}\r\n\r\n".encode())
            most = side.resident()
            while left > 0:
                left -= visitor.send(block[:left])
                if left % (64 * BLOCK) < BLOCK:
                    most = [max(pair) for pair in zip(most, side.resident())]
            answer = visitor.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200"), answer
        took = time.monotonic() - began
        return size / took / BLOCK, (side.cpu() - before) * (1 << 30) / size, most

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, Stand() as stand:
        origin = multiprocessing.Process(target=sink, args=[listener], daemon=True)
        origin.start()
        local = listener.getsockname()[1]
        sides = {"culvert": stand.culvert(local), "nginx": stand.nginx_proxy(local)}
        figures = interleaved(args.rounds, sides, measure)
        origin.terminate()
    for name, rounds in figures.items():
        speed, used, most = zip(*rounds)
        print(f"{name:8} {median(speed)} MiB/s, {median(used, 2)} s of processors a GiB, resident at most "
              f"{[max(each) for each in zip(*most)]} KiB")
    print(f"culvert : nginx {ratio([each[0] for each in figures['culvert']], [each[0] for each in figures['nginx']]):.2f}")


main()
