"""Asks a STUN server as the Python package aioice does, and checks its answers.

    stun_by_aioice.py HOST:PORT [PUBLIC_ADDRESS]

With PUBLIC_ADDRESS, a whole ICE agent must also find that address as its server-reflexive candidate.
"""

import asyncio
import socket
import sys

import aioice
from aioice import stun


def ask(server, request):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(server)
        sock.send(bytes(request))
        response = stun.parse_message(sock.recv(2048))
        return response, sock.getsockname()


def binding():
    return stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)


def check_binding(server, request, public):
    response, local = ask(server, request)
    assert response.message_class == stun.Class.RESPONSE, response
    assert response.message_method == stun.Method.BINDING, response
    assert response.transaction_id == request.transaction_id, response
    mapped = response.attributes["XOR-MAPPED-ADDRESS"]
    if public is None:
        assert mapped == local, f"{mapped} is not {local}"
    else:
        assert mapped[0] == public, f"{mapped} is not at {public}"
    return mapped


async def reflexive(server):
    agent = aioice.Connection(ice_controlling=True, use_ipv6=False, stun_server=server)
    try:
        await asyncio.wait_for(agent.gather_candidates(), 5)
        return [c.host for c in agent.local_candidates if c.type == "srflx"]
    finally:
        await agent.close()


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    server = host, int(port)
    public = sys.argv[2] if len(sys.argv) > 2 else None

    print("aioice: plain request:", check_binding(server, binding(), public))
    with_fingerprint = binding()
    with_fingerprint.add_fingerprint()
    print("aioice: with FINGERPRINT:", check_binding(server, with_fingerprint, public))
    if public is not None:
        found = asyncio.run(reflexive(server))
        print("aioice: server-reflexive candidates:", found)
        assert found == [public], f"{found} is not {public}"


main()
