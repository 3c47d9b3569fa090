"""An overlay network of two hosts: a TUN or TAP device in each, and packets taken from one to the other.

    overlay.py tun|tap IF NAMESPACE NAMESPACE

Says `ready` once both devices are there; they go when it ends.
"""

import fcntl
import os
import selectors
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from sandbox import enter

TUNSETIFF = 0x400454CA
IFF = {"tun": 0x1001, "tap": 0x1002}  # with IFF_NO_PI


def device(kind, name, namespace):
    enter(namespace)
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF[kind]))
    return file


def main():
    kind, name, *namespaces = sys.argv[1:]
    one, other = (device(kind, name, namespace) for namespace in namespaces)
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                try:
                    os.write(key.data, os.read(key.fd, 65536))
                except OSError:
                    pass  # A device that is down, or full, loses packets as a line does.


main()
