"""Large bodies through a public share, and what they cost its two programs: `ok NAME` or `FAIL NAME` per claim.

usage: large_bodies.py PEER SERVER_PORT SERVER_PID DIRECTORY BODY_MIB PIECE_MIB
"""

import hashlib
import json
import os
import pathlib
import re
import select
import socket
import subprocess
import sys
import threading
import time
import traceback

MIB = 1 << 20
CHUNK = 256 * 1024

# By how much a program may grow, in KiB: what it has for one stream and both its sockets.
GROWTH = 4 * 1024

# How long a writer has to be unable to write until it is taken to be held up.
HELD = 0.3

LIMIT = 30

PEER, PORT, SERVER, DIRECTORY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4])
BODY, PIECE = (int(size) * MIB for size in sys.argv[5:7])
FILE = 4096 * MIB


class Memory:
    """What the server and a sharer have resident at most from now on, beyond what they have now."""

    def __init__(self, sharer):
        self.programs = {"server": SERVER, "peer": sharer.pid}
        self.before = {name: self.peak_after_reset(pid) for name, pid in self.programs.items()}

    @staticmethod
    def peak_after_reset(pid):
        # proc(5): sets VmHWM to VmRSS.
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")
        return Memory.peak(pid)

    @staticmethod
    def peak(pid):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    def is_flat(self, what):
        grown = {name: self.peak(pid) - self.before[name] for name, pid in self.programs.items()}
        print(f"{what}: grown by {grown} KiB, before {self.before} KiB")
        assert all(growth <= GROWTH for growth in grown.values()), grown


def connect(host):
    visitor = socket.create_connection(("127.0.0.1", PORT), timeout=LIMIT)
    visitor.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return visitor, f"Host: {host}.example.test\r\nConnection: close\r\n"


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        assert byte, f"it ended after {head}"
        head += byte
    return head.decode()


def read_all(stream):
    data = b""
    while piece := stream.recv(CHUNK):
        data += piece
    return data


def read_some(stream, length):
    """Reads so many bytes, and gives their hash."""
    digest = hashlib.sha256()
    while length > 0:
        piece = stream.recv(min(CHUNK, length))
        assert piece, f"{length} bytes are missing"
        digest.update(piece)
        length -= len(piece)
    return digest.hexdigest()


def is_held_up(stream):
    return not select.select([], [stream], [], HELD)[1]


class Origin:
    """A local server with a path for each claim."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.go_on = threading.Event()
        self.poured = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            stream.settimeout(LIMIT)
            threading.Thread(target=self.answer, args=[stream], daemon=True).start()

    def answer(self, stream):
        with stream:
            head = read_head(stream)
            serve = {"slow": self.slow, "halves": self.halves, "pour": self.pour}[head.split()[1].strip("/")]
            serve(stream, int(match[1]) if (match := re.search(r"ontent-[Ll]ength: (\d+)", head)) else 0)

    def slow(self, stream, length):
        """Takes nothing until it is told to, and then takes it slowly."""
        assert self.go_on.wait(LIMIT)
        digest = hashlib.sha256()
        while length > 0:
            piece = stream.recv(min(CHUNK, length))
            digest.update(piece)
            length -= len(piece)
            time.sleep(0.001)
        body = digest.hexdigest().encode()
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def halves(self, stream, _):
        """Says the first half, and waits until it is told to go on."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        half = bytes(CHUNK)
        for part in range(2):
            for _ in range(BODY // 2 // CHUNK):
                stream.sendall(half)
            if part == 0:
                assert self.go_on.wait(LIMIT)

    def pour(self, stream, _):
        """Says as much as anybody takes."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        left, block = BODY, bytes(CHUNK)
        while left > 0:
            if is_held_up(stream):
                self.go_on.set()
            sent = stream.send(block[:left])
            left -= sent
            self.poured += sent


class Sharer:
    """`peer share PORT --public --name NAME`."""

    def __init__(self, name, port, home):
        home.mkdir()
        environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        args = [PEER, "share", str(port), "--server", f"http://127.0.0.1:{PORT}", "--public", "--name", name, "--json"]
        self.process = subprocess.Popen(args, env=environment, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        while json.loads(self.process.stdout.readline())["event"] != "ready":
            pass
        threading.Thread(target=self.process.stdout.read, daemon=True).start()


def upload(size, meanwhile=lambda: None):
    """Sends so much, and compares hashes. `meanwhile` is called as soon as nothing more goes."""
    visitor, fields = connect("large")
    block, digest, left, held = os.urandom(CHUNK), hashlib.sha256(), size, False
    with visitor:
        visitor.sendall(f"POST /slow HTTP/1.1\r\n{fields}Content-Length: {size}\r\n\r\n".encode())
        while left > 0:
            if not held and is_held_up(visitor):
                held = True
                meanwhile()
            sent = visitor.send(block[: min(CHUNK, left)])
            digest.update(block[:sent])
            left -= sent
        head = read_head(visitor)
        assert head.startswith("HTTP/1.1 200 "), head
        assert read_all(visitor).decode() == digest.hexdigest()
    return held


def an_upload_to_a_slow_server_takes_no_memory():
    origin.go_on.set()
    upload(8 * MIB)
    origin.go_on.clear()
    memory, began = Memory(sharer), time.monotonic()
    held = upload(BODY, origin.go_on.set)
    assert held, "the visitor was never held up"
    seconds = time.monotonic() - began
    memory.is_flat(f"upload of {BODY // MIB} MiB in {seconds:.1f} s")


def begin_download(path):
    """A visitor that has the head of an answer."""
    visitor, fields = connect("large")
    visitor.sendall(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
    assert read_head(visitor).startswith("HTTP/1.1 200 ")
    return visitor


def a_download_that_stops_halfway_is_all_there_and_takes_no_memory():
    origin.go_on.clear()
    memory = Memory(sharer)
    with begin_download("/halves") as visitor:
        read_some(visitor, BODY // 2)
        origin.go_on.set()
        read_some(visitor, BODY // 2)
        assert not visitor.recv(1)
    memory.is_flat(f"download of {BODY // MIB} MiB")


def a_visitor_that_does_not_read_takes_no_memory():
    origin.go_on.clear()
    memory = Memory(sharer)
    with begin_download("/pour") as visitor:
        assert origin.go_on.wait(LIMIT), "the local server was never held up"
        poured = origin.poured
        assert poured < BODY, "nobody held it up"
        read_some(visitor, BODY)
    memory.is_flat(f"visitor that stopped reading after {poured // 1024} KiB")


NGINX = """
daemon off; master_process off; pid {dir}/pid; error_log {dir}/errors; events {{}}
http {{
    access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    scgi_temp_path {dir}/scgi; uwsgi_temp_path {dir}/uwsgi; sendfile on;
    server {{ listen 127.0.0.1:{port}; root {dir}/www; }}
}}
"""


def nginx(directory):
    """nginx with the file of 4 GiB, of which nothing is on the disk but a mark each 256 MiB: where it listens."""
    (directory / "www").mkdir(parents=True)
    with open(directory / "www" / "file", "wb") as file:
        file.truncate(FILE)
        for at in range(0, FILE, 256 * MIB):
            file.seek(at)
            file.write(mark(at))
    while True:
        # nginx does not say which port it got: ask for a free one, and again should somebody have been quicker.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (directory / "conf").write_text(NGINX.format(dir=directory, port=port))
        command = ["nginx", "-p", str(directory), "-c", str(directory / "conf")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        children.append(process)
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except ConnectionRefusedError:
                time.sleep(0.01)


def mark(at):
    return b"%016x" % at


def piece(start, length):
    visitor, fields = connect("file")
    with visitor:
        wanted = f"bytes={start}-{start + length - 1}"
        visitor.sendall(f"GET /file HTTP/1.1\r\n{fields}Range: {wanted}\r\n\r\n".encode())
        head = read_head(visitor)
        assert head.startswith("HTTP/1.1 206 "), head
        assert f"\r\nContent-Range: bytes {start}-{start + length - 1}/{FILE}\r\n" in head, head
        first = visitor.recv(16, socket.MSG_WAITALL)
        read_some(visitor, length - 16)
        assert not visitor.recv(1)
    return first


def pieces_of_a_file_of_4_gib_take_no_memory():
    memory = Memory(files)
    wrong = []

    def pieces(starts):
        for start in starts:
            if piece(start, MIB + 5) != mark(start):
                wrong.append(start)

    starts = range(0, FILE, 256 * MIB)
    threads = [threading.Thread(target=pieces, args=[starts[n::4]]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert piece(FILE - 16, 16) == bytes(16)
    assert piece(0, PIECE) == mark(0)
    memory.is_flat(f"pieces of 1 MiB, four at a time, and one of {PIECE // MIB} MiB")


children = []
origin = Origin()
sharer = Sharer("large", origin.port, DIRECTORY / "sharer")
children.append(sharer.process)
files = Sharer("file", nginx(DIRECTORY / "nginx"), DIRECTORY / "files")
children.append(files.process)
failed = 0
try:
    for claim in [
        an_upload_to_a_slow_server_takes_no_memory,
        a_download_that_stops_halfway_is_all_there_and_takes_no_memory,
        a_visitor_that_does_not_read_takes_no_memory,
        pieces_of_a_file_of_4_gib_take_no_memory,
    ]:
        try:
            claim()
            print(f"ok {claim.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {claim.__name__}\n{traceback.format_exc()}", flush=True)
finally:
    for child in children:
        child.terminate()
        child.wait()
sys.exit(1 if failed else 0)
