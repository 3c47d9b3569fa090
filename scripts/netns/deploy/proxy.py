"""A userland proxy, as Docker has one: what comes for a port here goes on to a container's, from this host's address.

    proxy.py CONTAINER tcp:PORT|udp:PORT...

Says `ready` once it listens everywhere.
"""

import asyncio
import sys

CHUNK = 65536


async def pump(reader, writer):
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def tcp(container, port):
    async def visit(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(container, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    await asyncio.start_server(visit, "0.0.0.0", port)


class Back(asyncio.DatagramProtocol):
    """One client's socket towards the container."""

    def __init__(self, front, client):
        self.front, self.client = front, client

    def datagram_received(self, data, _):
        self.front.sendto(data, self.client)

    def error_received(self, _):
        pass


class Front(asyncio.DatagramProtocol):
    def __init__(self, container, port):
        self.far = (container, port)
        self.clients = {}

    def connection_made(self, transport):
        self.front = transport

    def datagram_received(self, data, client):
        if client not in self.clients:
            loop = asyncio.get_running_loop()
            self.clients[client] = loop.create_task(
                loop.create_datagram_endpoint(lambda: Back(self.front, client), remote_addr=self.far))
        self.clients[client].add_done_callback(lambda task: task.result()[0].sendto(data))

    def error_received(self, _):
        pass


async def main():
    container, *ports = sys.argv[1:]
    for word in ports:
        protocol, _, port = word.partition(":")
        if protocol == "tcp":
            await tcp(container, int(port))
        else:
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(lambda: Front(container, int(port)), local_addr=("0.0.0.0", int(port)))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
