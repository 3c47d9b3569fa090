"""The resolvers of a deployment's hosts: one on each host's loopback, so that one /etc/resolv.conf does for all.

The file NETNS_WORK/dns/NAMESPACE holds what is known there: `NAME ADDRESS...` a line, and whims:
    !dns64 PREFIX   names without an IPv6 address get one made from IPv4 (RFC 6147), `ipv4only.arpa` too (RFC 7050)
    !drop-aaaa      questions for IPv6 addresses get no answer, as at some routers
    !late SECONDS   every answer takes so long
    !silent         nothing gets an answer
A namespace without such a file has no resolver. The files are read anew for each question.
"""

import ipaddress
import os
import socket
import struct
import threading
import time

from sandbox import WORK, enter

FOLDER = os.path.join(WORK, "dns")
A, AAAA = 1, 28
NO_SUCH_NAME = 3
IPV4ONLY = "ipv4only.arpa"


class Zone:
    def __init__(self, namespace):
        self.names, self.whims = {IPV4ONLY: [ipaddress.ip_address("192.0.0.170"), ipaddress.ip_address("192.0.0.171")]}, {}
        with open(os.path.join(FOLDER, namespace)) as file:
            for words in map(str.split, file):
                if words[0].startswith("!"):
                    self.whims[words[0][1:]] = words[1:]
                else:
                    self.names[words[0]] = [ipaddress.ip_address(word) for word in words[1:]]

    def find(self, name, kind):
        """Its addresses of that kind, packed; None for an unknown name."""
        known = self.names.get(name)
        if known is None:
            # All below the server's name leads to the server too.
            known = next((a for n, a in self.names.items() if name.endswith("." + n) and n != IPV4ONLY), None)
        if known is None:
            return None
        found = [each.packed for each in known if each.version == (4 if kind == A else 6)]
        if kind == AAAA and not found and "dns64" in self.whims:
            prefix = ipaddress.ip_address(self.whims["dns64"][0]).packed[:12]
            found = [prefix + each.packed for each in known if each.version == 4]
        return found


def question(packet):
    """The name and type asked for, and where the question ends."""
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("ascii"))
        at += 1 + packet[at]
    return ".".join(labels).lower(), struct.unpack_from("!H", packet, at + 1)[0], at + 5


def answer(packet, zone):
    """The answer, or None where there is to be none."""
    name, kind, end = question(packet)
    if "silent" in zone.whims or ("drop-aaaa" in zone.whims and kind == AAAA):
        return None
    found = zone.find(name, kind) if kind in (A, AAAA) else []
    flags = 0x8180 | (NO_SUCH_NAME if found is None else 0)
    records = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 1, len(data)) + data for data in found or [])
    return packet[:2] + struct.pack("!HHHHH", flags, 1, len(found or []), 0, 0) + packet[12:end] + records


def serve(sock, namespace):
    while True:
        packet, client = sock.recvfrom(2048)
        zone = Zone(namespace)
        said = answer(packet, zone)
        if said:
            late = float(zone.whims.get("late", ["0"])[0])
            threading.Thread(target=send_late, args=(sock, said, client, late), daemon=True).start()


def send_late(sock, said, client, seconds):
    time.sleep(seconds)
    sock.sendto(said, client)


def start():
    """Serves in the background, for each namespace that has a file."""
    for namespace in os.listdir(FOLDER):
        enter(namespace)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 53))
        threading.Thread(target=serve, args=(sock, namespace), daemon=True).start()


def rename(namespaces, name, *addresses):
    """From now on that name leads there, and no whim is left."""
    for namespace in namespaces:
        with open(os.path.join(FOLDER, namespace), "w") as file:
            file.write(" ".join([name, *addresses]) + "\n")
