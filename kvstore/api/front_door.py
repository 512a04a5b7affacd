"""One port for all faces: connections come in here, and are let go of when the node stops."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from kvstore.api.backend import Service
from kvstore.api.doorman import Doorman
from kvstore.api.faces import Faces
from kvstore.api.http1 import Clock, Lane
from kvstore.api.http1_server import HttpServer
from kvstore.api.limits import ApiLimits, Counters
from kvstore.budget import Budget

log = logging.getLogger("kvstore.api")

_BACKLOG: Final = 1024


class FrontDoor:
    """The server for clients.

    Args:
        service: what all faces ask.
        limits: what clients may use.
        metrics: the text of ``/metrics``.
        new_budget: makes the budget of a slice of work on the loop.

    To be made on the event loop that it serves.
    """

    def __init__(
        self,
        service: Service,
        limits: ApiLimits,
        metrics: Callable[[], bytes],
        new_budget: Callable[[], Budget],
    ) -> None:
        self.counters = Counters()
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._lane = Lane(Clock(self._loop), limits.stall_seconds)
        self._faces = Faces(service, limits, self._lane, self.counters, metrics, new_budget)
        self._server = HttpServer(self._faces.handle, limits, self.counters, self._count_lost)
        self._doormen: set[Doorman] = set()
        self._listeners: list[asyncio.Server] = []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of each socket."""
        return [
            listener_socket.getsockname()[:2]
            for listener in self._listeners
            for listener_socket in listener.sockets
        ]

    async def start(self, urls: Sequence[str]) -> None:
        """Listen on each of ``http://host:port``.

        Raises:
            OSError: an address is in use or not ours.
        """
        for url in urls:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            assert host is not None, f"{url} was checked with the configuration"
            assert port is not None, f"{url} was checked with the configuration"
            # A name with an IPv4 and an IPv6 address would open two sockets, and fail where the
            # second is switched off.
            listener = await self._loop.create_server(
                self._doorman,
                "127.0.0.1" if host == "localhost" else host,
                port,
                backlog=_BACKLOG,
            )
            self._listeners.append(listener)
            log.info("serving clients on %s", url)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections, finish what is under way, end the streams, and close.

        Args:
            grace_seconds: how long requests that are under way may go on.
        """
        self._lane.is_draining = True
        for listener in self._listeners:
            listener.close()
        for doorman in list(self._doormen):
            doorman.close()
        self._faces.end_streams()
        self._server.pre_shutdown()
        # aiohttp waits so long twice, before and after it tells handlers, and 0 would be for ever.
        await self._server.shutdown(max(grace_seconds / 2, 0.001))
        for listener in self._listeners:
            await listener.wait_closed()

    def _doorman(self) -> Doorman:
        return Doorman(self, self._loop.call_later, self._limits.head_seconds)

    # What the doormen need.

    def enter(self, doorman: Doorman) -> bool:
        """A connection came; False if there is no room for it."""
        counters = self.counters
        if counters.connections_open >= self._limits.max_connections:
            counters.connections_refused += 1
            return False
        counters.connections_accepted += 1
        counters.connections_open += 1
        self._doormen.add(doorman)
        return True

    def leave(self, doorman: Doorman) -> None:
        """It went before it asked for anything."""
        self._doormen.discard(doorman)
        self.counters.connections_open -= 1

    def admit(self, doorman: Doorman, transport: asyncio.Transport, first: bytes) -> None:
        """Serve a connection whose first head is there."""
        self._doormen.discard(doorman)
        connection = self._server()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(first)

    def count_late(self) -> None:
        """A client did not finish its head in time."""
        self.counters.late_heads += 1

    def _count_lost(self) -> None:
        self.counters.connections_open -= 1
