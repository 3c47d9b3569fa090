"""What each deployment is, and what must come of it: the one place where that is written.

`place` is a function of servers.sh, homes.sh or overlays.sh with its words, `scenario` one of scenarios.py. `says` has a
regular expression, or several, by program (`server`, `share`, `connect`, `netcheck`): exactly one line of that program's
must match each.
`unsaid` has one that no line of that program's may match.
"""

import itertools
from dataclasses import dataclass, field

NAME = "example.test"
URL = f"http://{NAME}:8080"


WARNING = "(?i)warn"


@dataclass(frozen=True)
class Row:
    name: str
    place: str
    expect: str = "direct"            # or `relay`, or `error`: no connection, and one line that says why
    within: float = 1.0               # seconds since connect's process start, or what the scenario measures
    server: tuple = ()                # options beside --domain
    domain: str = NAME
    url: str = URL                    # what the sharer is given as --server
    sharer: str = "h1"                # the host that shares
    scenario: str = "pair"
    at: str = ""                      # regular expression for where the direct path leads, and stays
    why: str = ""                     # regular expression for the error's message
    hosts: str = ""                   # a line in the server's own /etc/hosts
    says: dict = field(default_factory=dict)
    unsaid: dict = field(default_factory=dict)
    needs: tuple = ()                 # programs, or `tun`
    env: dict = field(default_factory=dict)
    once: bool = False                # too long for many runs


HIDDEN = "Docker or a proxy hides where they are"
RELAY_AWAY = "the relay http://203.0.113.17:8080/relay\\S* is not used first, because"
NO_UDP = "relayed, because no UDP came back from the server"


def only(family):
    return {"v4": "IPv4", "v6": "IPv6"}[family]


def names_row(server, sharer, visitor):
    """A name with the server's addresses, and what each home has of IP."""
    def lacks(side):
        return "both" not in (server, side) and server != side

    row = {"name": f"names-{server}-{sharer}-{visitor}", "place": f"names {server} {sharer} {visitor}"}
    if lacks(sharer) or lacks(visitor):
        return Row(**row, expect="error", within=12, why=rf"{only(server)}")
    if {sharer, visitor} == {"v4", "v6"}:
        return Row(**row, expect="relay")
    return Row(**row)


TWO_IPS = [f"{address}:{port}" for address in ("10.0.0.5", "10.0.0.6") for port in (3478, 3479)]
TWO_ELASTIC_IPS = [each.replace("10.0.0.5", "203.0.113.1").replace("10.0.0.6", "203.0.113.2") for each in TWO_IPS]
TWO_IP_OPTIONS = ("--udp", TWO_IPS[0], *(word for each in TWO_IPS[1:] for word in ("--udp-alternate", each)),
                  *(word for each in TWO_ELASTIC_IPS for word in ("--udp-public", each)))
MAPPED_HOME = {"NETNS_HOME_1_NET": "20.0.0"}  # miniupnpd maps no port at an address that is kept for documentation

SERVERS = [
    Row("vps", "vps", unsaid={"server": WARNING, "share": WARNING, "connect": WARNING}),
    Row("cloud-1to1-nat", "cloud-1to1-nat"),
    Row("cloud-two-ips", "cloud-two-ips", server=TWO_IP_OPTIONS, scenario="two_addresses"),
    Row("docker-dnat", "docker-dnat"),
    Row("docker-masquerade", "docker-dnat masquerade", expect="relay", scenario="crowd", says={"server": HIDDEN}),
    Row("docker-userland-proxy", "docker-userland-proxy", expect="relay", scenario="crowd", says={"server": HIDDEN}),
    Row("home-server-split-dns", "home-server inside no-hairpin"),
    Row("home-server-hairpin", "home-server outside hairpin"),
    Row("home-server-own-host", "home-server outside hairpin", sharer="srv"),
    Row("home-server-no-hairpin-mapped", "home-server-mapped", scenario="mapped", needs=("miniupnpd",), env=MAPPED_HOME),
    Row("hosts-127.0.1.1", "vps", server=("--public-url", URL), hosts=f"127.0.1.1 {NAME}",
        says={"server": "is 127.0.1.1 as this machine sees it"}),
    Row("no-resolver", "docker-dnat '' !silent", server=("--public-url", URL),
        says={"server": "has no address as this machine sees it"}),
    Row("udp-port-moves", "vps", scenario="udp_port_moves", within=10),
    Row("server-ip-moves", "vps", scenario="server_ip_moves", within=10),
    Row("udp-3479-closed", "vps-closed symmetric-random 3479", within=5,
        says={"netcheck": "UDP port 3479 of the server does not answer"}),
    Row("server-udp-closed", "vps-closed port-restricted 3478 3479", expect="relay", scenario="crowd",
        says={"server": "sessions came by the relay and none by UDP", "connect": NO_UDP, "share": NO_UDP,
              "netcheck": "3478"}),
    Row("relay-down", "vps-with-relay port-restricted udp-blocked", expect="relay", scenario="relay_down",
        says={"server": RELAY_AWAY}),
    Row("relay-wrong-id", "vps-with-relay port-restricted udp-blocked", expect="relay", scenario="relay_wrong_id",
        says={"server": RELAY_AWAY}),
    Row("nat64", "nat64", within=2, needs=("tayga", "tun")),
    Row("dns-slow", "whim h1,h2 !late 6", within=8),
    Row("dns-drops-aaaa", "whim h1,h2 !drop-aaaa", within=2),
]

NAMES = [names_row(*families) for families in itertools.product(("v4", "v6", "both"), repeat=3)]

WARNINGS = [
    Row("behind-nginx-forgotten-options", "behind-nginx", server=("--http", "127.0.0.1:8080"), url=f"http://{NAME}",
        says={"server": ("no --trusted-proxy covers", "set --public-url")}, needs=("nginx",)),
    Row("wrong-apex", "vps", domain="other.test", says={"server": f"add --apex {NAME}"}),
    Row("all-from-one-address", "docker-dnat masquerade", expect="relay", scenario="crowd",
        says={"server": HIDDEN}),
    Row("own-firewall-refuses", "refusing own", expect="relay",
        says={"connect": "this machine's own firewall refuses UDP"}),
    Row("network-refuses", "refusing network", expect="relay", says={"connect": "a firewall refuses UDP to the server"}),
    Row("ticket-names-private-server", "home-server inside no-hairpin", expect="error", within=12,
        url="http://192.168.1.9:8080", why="this ticket names a server of the sharer's own network",
        says={"share": "this ticket works only in this network",
              "connect": "nothing has answered yet: this ticket names"}),
]

# Their hosts' second networks; a path must lead where `at` says, and stay there.
NETWORKS = [
    Row("overlay-lan", "overlay-lan", at=r"^192\.168\.1\.", needs=("tun",)),
    Row("overlay-internet", "overlay-internet", at=r"^198\.51\.100\.", needs=("tun",)),
    Row("overlay-only", "overlay-only", at=r"^100\.100\.1\.", needs=("tun",)),
    Row("vpn-drops-at-sharer", "vpn", scenario="vpn_drops", within=0.7, needs=("tun",)),
    Row("bridges", "bridges", at=r"^203\.0\.113\.33", needs=("tun",)),
    Row("cgnat-hairpin", "cgnat-hairpin", within=2),
    Row("router-reboot-new-ports", "new-ports", scenario="new_ports", within=2),
    Row("policy-routing-by-source", "policy-routing"),
    Row("suspend-10-minutes", "vps", scenario="suspend", within=5, once=True),
]

ROWS = [*SERVERS, *NAMES, *WARNINGS, *NETWORKS]
