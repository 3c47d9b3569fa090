"""Proves with real packets that home 1's NAT is what its name says. Run by `netns.sh natcheck`.

    natcheck.py header | kind KIND | routes

One process owns sockets in all the namespaces: a socket stays in the namespace in which it was made. The words are those of
RFC 4787.
"""

import ctypes
import os
import socket
import struct
import sys
import time

SERVERS = [os.environ.get("NETNS_SERVER", ""), os.environ.get("NETNS_SERVER_2", "")]
H1 = os.environ.get("NETNS_H1_ADDR", "")
R1 = os.environ.get("NETNS_R1_ADDR", "")
H2 = os.environ.get("NETNS_H2_ADDR", "")
R2 = os.environ.get("NETNS_R2_ADDR", "")
PORTS = [7001, 7002]
CLONE_NEWNET = 0x40000000
WAIT = 0.2

EI, AD, APD = "endpoint-independent", "address-dependent", "address-and-port-dependent"
COLUMNS = ["mapping", "filtering", "ports", "early probe"]
EXPECTED = {
    "open": [EI, EI, "no translation", "harmless"],
    "full-cone": [EI, EI, "preserved", "harmless"],
    "address-restricted": [EI, AD, "preserved", "harmless"],
    "port-restricted": [EI, APD, "preserved", "harmless"],
    "port-restricted+leaky": [EI, APD, "preserved", "moves all new flows"],
    "symmetric-sequential": [APD, APD, "consecutive", "harmless"],
    "symmetric-random": [APD, APD, "random", "harmless"],
    "udp-blocked": ["none", "none", "none", "none"],
    # The wire's own.
    "full-cone+leaky": [EI, EI, "preserved", "harmless"],
    "address-restricted+leaky": [EI, AD, "preserved", "moves one flow"],
    "symmetric-sequential+leaky": [APD, APD, "consecutive", "harmless"],
    "symmetric-random+leaky": [APD, APD, "random", "harmless"],
    "cgnat(full-cone)": [EI, EI, "from a block", "harmless"],
    "cgnat(address-restricted)": [EI, AD, "from a block", "harmless"],
    "cgnat(port-restricted)": [EI, APD, "from a block", "harmless"],
    "cgnat(port-restricted+leaky)": [EI, APD, "from a block", "moves all new flows"],
    "cgnat(symmetric-sequential)": [APD, APD, "consecutive", "harmless"],
    "cgnat(symmetric-random)": [APD, APD, "random", "harmless"],
    "cgnat(port-restricted/symmetric-sequential)": [APD, APD, "consecutive", "harmless"],
    "cgnat(port-restricted/symmetric-random)": [APD, APD, "random", "harmless"],
    "cgnat(symmetric-sequential/port-restricted)": [APD, APD, "random", "harmless"],
    "cgnat(symmetric-random/port-restricted)": [APD, APD, "random", "harmless"],
}


def enter(namespace):
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter {namespace}")


def udp(namespace, address):
    enter(namespace)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(WAIT)
    return sock


def received(sock):
    """The source of the next packet, or None when there is none."""
    try:
        return sock.recvfrom(64)[1]
    except TimeoutError:
        return None


class World:
    """Four server sockets (two addresses, two ports each) and clients in home 1."""

    def __init__(self):
        self.servers = {(a, p): udp("pub", (a, p)) for a in SERVERS for p in PORTS}

    def client(self):
        return udp("h1", (H1, 0))

    def seen(self, client, server):
        """Where the server sees a packet of the client's come from."""
        client.sendto(b"out", server)
        return received(self.servers[server])

    def reaches(self, client, server, mapped):
        self.servers[server].sendto(b"in", mapped)
        return received(client) == server


def mapping(world):
    """How the mapping depends on the destination, and how ports are chosen."""
    client = world.client()
    port = client.getsockname()[1]
    seen = [world.seen(client, server) for server in world.servers]
    if seen == [None] * 4:
        return "none", "none"
    if None in seen:
        return "some packets were lost", str(seen)
    (first, other_port, other_address, _) = seen
    if len(set(seen)) == 1:
        kind = EI
    elif first == other_port and first != other_address:
        kind = AD
    else:
        kind = APD
    return kind, port_choice(client, port, seen)


def port_choice(client, port, seen):
    ports = [p for _, p in seen]
    if set(seen) == {client.getsockname()}:
        return "no translation"
    if {a for a, _ in seen} != {R1}:
        return f"wrong address: {seen}"
    if set(ports) == {port}:
        return "preserved"
    if len(set(ports)) == 1:
        return "from a block"
    if ports == list(range(ports[0], ports[0] + len(ports))):
        return "consecutive"
    return "random" if len(set(ports)) == len(ports) else f"unclear: {ports}"


def filtering(world):
    """Who may answer on a mapping that was made towards the first server address and port only."""
    (first, other_port, other_address, _) = world.servers
    client = world.client()
    mapped = world.seen(client, first)
    if mapped is None:
        return "none"
    if not world.reaches(client, first, mapped):
        return "not even the one asked may answer"
    address_may = world.reaches(client, other_address, mapped)
    port_may = world.reaches(client, other_port, mapped)
    return {(True, True): EI, (True, False): AD, (False, False): APD}.get((port_may, address_may), "unclear")


def early_probe(world):
    """What a stranger's packet that comes too early does to our own later packet to that stranger, and to those that
    the same socket then sends elsewhere."""
    (first, elsewhere, stranger, _) = world.servers
    client = world.client()
    mapped = world.seen(client, first)
    if mapped is None:
        return "none"
    world.reaches(client, stranger, mapped)
    later = world.seen(client, stranger)
    if mapping(world)[0] != EI or later == mapped:
        return "harmless"
    if later is None:
        return "silences us"
    further = world.seen(client, elsewhere)
    return {later: "moves all new flows", mapped: "moves one flow"}.get(further, f"unclear: {further}")


def tcp_passes():
    enter("pub")
    with socket.create_server((SERVERS[0], 7000)) as listener:
        enter("h1")
        with socket.create_connection((SERVERS[0], 7000), timeout=2):
            return listener.accept()[1][0] in (R1, H1)


def row(name, cells, verdict):
    widths = [34, 27, 27, 15, 22]
    print("".join(cell.ljust(width) for cell, width in zip([name, *cells], widths)) + verdict, flush=True)


def check_kind(kind):
    expected = EXPECTED[kind.removeprefix("wire:")]
    world = World()
    kind_of_mapping, ports = mapping(world)
    observed = [kind_of_mapping, filtering(world), ports, early_probe(world)]
    right = observed == expected
    row(kind, observed, "ok" if right else f"FAIL: expected {', '.join(expected)}")
    if not tcp_passes():
        print(f"FAIL: {kind} does not let TCP out")
        right = False
    return right


def arrivals(sniffer, port):
    """The TTLs with which UDP packets to that port came in."""
    ttls = []
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            packet = sniffer.recv(2048)
        except TimeoutError:
            continue
        header = (packet[0] & 15) * 4
        if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP:
            if struct.unpack_from("!H", packet, header + 2)[0] == port:
                ttls.append(packet[8])
    return ttls


def check_routes():
    """TTL 5 dies between the homes, TTL 6 arrives; private addresses lead nowhere."""
    enter("r2")
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    sniffer.bind(("wan", 0))
    sniffer.settimeout(WAIT)
    client = udp("h1", (H1, 0))
    for ttl in 2, 5, 6:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        client.sendto(b"ttl", (R2, 7009))
    ttls = arrivals(sniffer, 7009)
    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
    client.sendto(b"private", (H2, 7010))
    private = arrivals(sniffer, 7010)
    print(f"\nfrom home 1 to router 2: TTL 5 {'arrives' if len(ttls) > 1 else 'dies'}, "
          f"TTL 6 {'arrives' if ttls else 'dies'}; to home 2's private address: {'arrives' if private else 'dies'}")
    return ttls == [4] and not private


def main():
    if sys.argv[1] == "header":
        row("kind", COLUMNS, "")
        return True
    return check_kind(sys.argv[2]) if sys.argv[1] == "kind" else check_routes()


sys.exit(0 if main() else 1)
