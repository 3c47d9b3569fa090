"""What is done in a deployment, beyond a pair that connects. Each takes the deployment and returns the outcome."""

import os
import signal
import socket
import subprocess
import threading
import time

import dns
from sandbox import WORK, enter, flush_conntrack, until
from table import NAME

SUSPENDED = 600 if os.environ.get("TEST_SIZE") == "full" else 20


def pair(deployment):
    deployment.serve()
    _, ticket = deployment.share()
    return deployment.join(ticket)


def two_addresses(deployment):
    """The pair; and `netcheck`, which sees two servers only if the second address is stated too."""
    result = pair(deployment)
    check = deployment.start("netcheck", "h2", "peer", "netcheck", "--server", deployment.row.url)
    seen = deployment.event(check, 20, "netcheck")
    if result["outcome"] == "direct" and seen.get("server_addresses") != 2:
        result = {"outcome": "broken", "why": f"netcheck sees {seen.get('server_addresses')} addresses of the server"}
    return result


def mapped(deployment):
    """The pair, once the sharer's router maps its port."""
    deployment.serve()
    _, ticket = deployment.share()
    enter("r1")
    deadline = time.monotonic() + 4
    while "dnat" not in command("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return deployment.join(ticket)


def crowd(deployment):
    """Several sharers, and a pair among them."""
    deployment.serve()
    for number in range(4):
        deployment.share(f"share{number}", "--no-portmap")
    _, ticket = deployment.share()
    return deployment.join(ticket)


# --- the server moves ----------------------------------------------------------------------------------------------


def udp_port_moves(deployment):
    return server_moves(deployment, lambda: None, "--udp", "[::]:4478")


def server_ip_moves(deployment):
    def move():
        ip("srv", "addr del 203.0.113.1/28 dev eth0")
        ip("srv", "addr add 203.0.113.5/28 dev eth0")
        ip("srv", "route replace default via 203.0.113.14")
        dns.rename(("srv", "h1", "h2"), NAME, "203.0.113.5")

    return server_moves(deployment, move)


def server_moves(deployment, move, *options):
    """The server stops, something of it changes, and it starts again: what is then with a ticket from before."""
    data = ("--data", os.path.join(WORK, "server-data"))
    server, _ = deployment.serve(*data)
    _, ticket = deployment.share()
    result = deployment.join(ticket)
    if result["outcome"] != "direct":
        return {**result, "why": "no direct path before the move"}
    server.stop()
    move()
    deployment.serve(*data, *options, name="server-moved")
    start = time.monotonic()
    connect = deployment.connect(ticket, "connect-again")
    event = deployment.event_or_none(connect, 12)
    took = round((time.monotonic() - start) * 1000)
    if event is None:
        return {"outcome": "relay", "ms": took, "why": "an old ticket's visitor is on the relay"}
    if event["event"] == "error":
        return {"outcome": "error", "ms": took, "why": event["message"]}
    deployment.carry(deployment.programs["connect"].find("ready"))
    return {"outcome": "direct", "ms": took, "remote": event["remote"]}


# --- relays --------------------------------------------------------------------------------------------------------


def relay_down(deployment):
    relay, url = relay_up(deployment)
    relay.stop()
    return with_relay(deployment, url)


def relay_wrong_id(deployment):
    _, url = relay_up(deployment)
    other, other_url = relay_up(deployment, "relay-other", "--http", "127.0.0.1:0",
                                "--admin", "127.0.0.1:0")
    other.stop()
    return with_relay(deployment, url.partition("#")[0] + "#" + other_url.partition("#")[2])


def relay_up(deployment, name="relay", *options):
    relay = deployment.start(name, "rel", "relay", "serve", *options)
    peer_id = deployment.event(relay, 10, "listening")["peer_id"]
    return relay, f"http://203.0.113.17:8080/relay#{peer_id}"


def with_relay(deployment, url):
    deployment.serve("--relay", url)
    _, ticket = deployment.share()
    return deployment.join(ticket)


# --- a path in use -------------------------------------------------------------------------------------------------


class Stream:
    """Bytes from the sharer to the visitor, without a pause, and the longest pause that they make all the same."""

    def __init__(self, deployment):
        ready = deployment.programs["connect"].find("ready")
        host, _, port = ready["listen"][0].rpartition(":")
        enter("h2")
        self.near = socket.create_connection((host, int(port)), timeout=5)
        self.near.sendall(b"go")
        self.far, _ = deployment.shared.accept()
        self.over = False
        threading.Thread(target=self.feed, daemon=True).start()

    def feed(self):
        try:
            while not self.over:
                self.far.sendall(bytes(16384))
                time.sleep(0.004)
        except OSError:
            pass

    def longest_pause(self, seconds):
        """The longest time without a byte from now on, in seconds; one that goes on for ten is the last."""
        self.near.settimeout(10)
        last = start = time.monotonic()
        longest = 0.0
        while last - start < seconds:
            try:
                if not self.near.recv(65536):
                    return float("inf")
            except OSError:
                return float("inf")
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        return longest

    def end(self):
        self.over = True
        self.near.close()


def stalled(deployment, fault, seconds=6):
    """The pair, and for how long no bytes pass after the fault."""
    result = pair(deployment)
    if result["outcome"] != "direct":
        return result
    stream = Stream(deployment)
    stream.longest_pause(1)
    fault()
    pause = stream.longest_pause(seconds)
    stream.end()
    connect = deployment.programs["connect"]
    until(lambda: False, [connect], 0.5)
    last = [e for e in connect.events if e["event"] == "path"][-1]
    if pause == float("inf"):
        return {"outcome": "broken", "why": "no bytes pass for 10 s"}
    return {"outcome": last["kind"], "ms": round(pause * 1000), "remote": last["remote"]}


def vpn_drops(deployment):
    def drop():
        with open(os.path.join(WORK, "overlay.pid")) as file:
            os.kill(int(file.read()), signal.SIGTERM)

    return stalled(deployment, drop)


def new_ports(deployment):
    def reboot():
        enter("r2")
        command("nft", "-f", os.path.join(WORK, "r2.rebooted.nft"))
        flush_conntrack()

    return stalled(deployment, reboot)


def suspend(deployment):
    """Both machines sleep, and bytes pass when they wake."""
    result = pair(deployment)
    if result["outcome"] != "direct":
        return result
    both = [deployment.programs[name] for name in ("share", "connect")]
    for program in both:
        program.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(SUSPENDED)
    finally:
        for program in both:
            program.process.send_signal(signal.SIGCONT)
    woke = time.monotonic()
    deployment.shared.settimeout(10)
    deployment.carry(deployment.programs["connect"].find("ready"))
    return {**result, "ms": round((time.monotonic() - woke) * 1000)}


def ip(namespace, words):
    command("ip", "-n", namespace, *words.split())


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
