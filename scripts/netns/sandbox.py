"""What the Python parts share: entering namespaces, running our programs there, forgetting a router's state."""

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import time

CLONE_NEWNET = 0x40000000
WORK = os.environ.get("NETNS_WORK", "/run/culvert")
BIN = os.environ.get("NETNS_BIN", "")
# The kernel shows in /sys the interfaces of the namespace in which it was mounted.
OWN_SYS = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs own /sys 2>/dev/null; exec "$@"', "sh")
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    """From here on, sockets are made and programs started in that namespace. Those made before stay where they are."""
    with open(f"/run/netns/{namespace}") as file:
        if LIBC.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter {namespace}")


def packets_sent(namespace, interface):
    enter(namespace)
    with open("/proc/self/net/dev") as lines:
        for line in lines:
            name, _, fields = line.strip().partition(":")
            if name == interface:
                return int(fields.split()[9])
    return 0


class Program:
    """A program of ours with a home of its own; its events come from standard output."""

    def __init__(self, name, namespace, *arguments, under=()):
        """`under` is a command that becomes the program: it changes what the program finds, as `unshare` does."""
        self.name = name
        self.home = os.path.join(WORK, "run", name)
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(os.path.join(self.home, "run"), mode=0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CULVERT_", "XDG_", "RUST_BACKTRACE"))}
        env = {**kept, "HOME": self.home, "XDG_RUNTIME_DIR": os.path.join(self.home, "run")}
        enter(namespace)
        with open(os.path.join(self.home, "err"), "wb") as err:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [*OWN_SYS, *under, os.path.join(BIN, arguments[0]), *arguments[1:], "--json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, env=env)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.rest = b""
        self.events = []
        self.ended = False

    def read(self):
        """Takes in what was said since."""
        said = self.process.stdout.read()
        if said == b"":
            self.ended = True
        *lines, self.rest = (self.rest + (said or b"")).split(b"\n")
        self.events += [json.loads(line) for line in lines]

    def find(self, event, **fields):
        for each in self.events:
            if each.get("event") == event and all(each.get(k) == v for k, v in fields.items()):
                return each
        return None

    def stop(self):
        """SIGTERM, and the exit code; None when it was still there 6 s later."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=6)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def last_words(self):
        with open(os.path.join(self.home, "err"), errors="replace") as err:
            words = err.read().splitlines()[-8:]
        return [f"{self.name}: {line}" for line in [json.dumps(e) for e in self.events[-4:]] + words]


def until(condition, programs, seconds):
    """Reads what the programs say until the condition holds. What it gave; None when the time is up or all have ended."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for program in programs:
            selector.register(program.process.stdout, selectors.EVENT_READ, program)
        while True:
            found = condition()
            left = deadline - time.monotonic()
            if found or left <= 0 or not selector.get_map():
                return found or None
            for key, _ in selector.select(left):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.fileobj)


def shared_port(namespace):
    """A listener at port 8000 of the loopback there: what its peer shares."""
    enter(namespace)
    listener = socket.create_server(("127.0.0.1", 8000))
    listener.settimeout(5)
    return listener


def carry(namespace, listen, shared):
    """Takes some bytes to what listens there, through the connection, and back. Says what went wrong, if anything did."""
    host, _, port = listen.rpartition(":")
    words = os.urandom(1000)
    enter(namespace)
    try:
        with socket.create_connection((host, int(port)), timeout=5) as near:
            near.sendall(words)
            far, _ = shared.accept()
            with far:
                far.settimeout(5)
                far.sendall(read_exactly(far, len(words)))
                if read_exactly(near, len(words)) != words:
                    return "bytes come back changed"
    except OSError as error:
        return f"no bytes pass: {error}"
    return None


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError("the connection ended early")
        data += more
    return data


def power_cut(n):
    """Router n loses all state, whichever kind it is."""
    wire = os.environ.get(f"NETNS_WIRE{n}_PID")
    if wire:
        reboot_wire(n, int(wire))
        return
    enter(f"r{n}")
    subprocess.run(["nft", "-f", os.path.join(WORK, f"r{n}.nft")], check=True)
    flush_conntrack()


def reboot_wire(n, pid):
    def reboots():
        with open(os.path.join(WORK, f"wire{n}", "out")) as out:
            return out.read().count('"rebooted"')

    before, deadline = reboots(), time.monotonic() + 5
    os.kill(pid, signal.SIGHUP)
    while reboots() == before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"wire {n} does not answer to SIGHUP")
        time.sleep(0.002)


def flush_conntrack():
    """What `conntrack -F` does: one netlink message, IPCTNL_MSG_CT_DELETE of nothing in particular."""
    netfilter, delete, request_and_ack, error = 12, (1 << 8) | 2, 5, 2
    message = struct.pack("=IHHIIBBH", 20, delete, request_and_ack, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter) as sock:
        sock.settimeout(2)
        sock.sendto(message, (0, 0))
        answer = sock.recv(4096)
    kind, code = struct.unpack_from("=H", answer, 4)[0], struct.unpack_from("=i", answer, 16)[0]
    if kind != error or code != 0:
        raise OSError(-code, "the kernel does not forget its connections")
