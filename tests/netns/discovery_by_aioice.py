"""Asks a STUN server with two addresses for answers from each of its corners (RFC 5780), with aioice's codec.

    discovery_by_aioice.py ADDRESS OTHER_ADDRESS PUBLIC_ADDRESS

The filter in between must let everybody in.
"""

import socket
import sys

from aioice import stun

CHANGE_IP, CHANGE_PORT = 4, 2


def ask(sock, server, change):
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    if change:
        request.attributes["CHANGE-REQUEST"] = change
    sock.sendto(bytes(request), server)
    data, source = sock.recvfrom(2048)
    response = stun.parse_message(data)
    assert response.transaction_id == request.transaction_id, response
    assert response.message_class == stun.Class.RESPONSE, response
    return source, response.attributes


def main():
    first, second, public = sys.argv[1:]
    corners = {(ip, port) for ip in (first, second) for port in (3478, 3479)}
    for server in sorted(corners):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(2)
        (ip, port), = [c for c in corners if c[0] != server[0] and c[1] != server[1]]
        source, said = ask(sock, server, 0)
        assert source == server and said["RESPONSE-ORIGIN"] == server, said
        assert said["OTHER-ADDRESS"] == (ip, port), said
        for change, expected in (CHANGE_PORT, (server[0], port)), (CHANGE_IP, (ip, server[1])), (6, (ip, port)):
            source, said = ask(sock, server, change)
            assert source == expected, f"{server}, change {change}: {source} is not {expected}"
            assert said["XOR-MAPPED-ADDRESS"][0] == public, said
        print("aioice:", server, "answers from every corner")


main()
