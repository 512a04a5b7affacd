"""One port for all faces: connections come in here, and are let go of when the node stops."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from kvstore.api.access import Access
from kvstore.api.backend import Service
from kvstore.api.doorman import Doorman
from kvstore.api.faces import Faces
from kvstore.api.http1 import Clock, Lane
from kvstore.api.http1_server import Handler, HttpServer
from kvstore.api.limits import ApiLimits, Counters
from kvstore.api.tls_ledger import TlsLedger
from kvstore.budget import Budget
from kvstore.config_tls import is_https
from kvstore.config_values import host_and_port
from kvstore.tls.listener import Listener
from kvstore.tls.ports import Port

log = logging.getLogger("kvstore.api")

_BACKLOG: Final = 1024
EVERYBODY: Final = Access()
"""No rules."""


class FrontDoor:
    """The server for clients.

    Args:
        service: what all faces ask.
        limits: what clients may use.
        metrics: the text of ``/metrics``.
        new_budget: makes the budget of a slice of work on the loop.
        access: who may ask.
        tls: for https URLs.

    To be made on the event loop that it serves.
    """

    def __init__(
        self,
        service: Service,
        limits: ApiLimits,
        metrics: Callable[[], bytes],
        new_budget: Callable[[], Budget],
        access: Access = EVERYBODY,
        tls: Port | None = None,
    ) -> None:
        self.counters = Counters()
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._lane = Lane(Clock(self._loop), limits.stall_seconds, access)
        self._faces = Faces(service, limits, self._lane, self.counters, metrics, new_budget, access)
        self._clients = self._doorway(self._faces.handle)
        self._watchers = self._doorway(self._faces.handle_metrics)
        self._listeners: list[asyncio.Server | Listener] = []
        self._tls = tls

    def _doorway(self, handler: Handler) -> "Doorway":
        server = HttpServer(handler, self._limits, self.counters, self._count_lost)
        return Doorway(server, self._limits, self.counters, self._loop)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of each socket."""
        return [
            listener_socket.getsockname()[:2]
            for listener in self._listeners
            for listener_socket in listener.sockets
        ]

    async def start(self, urls: Sequence[str], metrics_urls: Sequence[str] = ()) -> None:
        """Listen on each of ``http://host:port`` and ``https://host:port``.

        Args:
            urls: where clients are served.
            metrics_urls: where metrics and health are, and nothing else.

        Raises:
            OSError: an address is in use or not ours.
        """
        for url in urls:
            await self._listen(url, self._clients)
            log.info("serving clients on %s", url)
        for url in metrics_urls:
            await self._listen(url, self._watchers)
            log.info("serving metrics and health on %s", url)

    async def _listen(self, url: str, doorway: "Doorway") -> None:
        host, port = host_and_port(url)
        # A name with an IPv4 and an IPv6 address would open two sockets, and fail where the
        # second is switched off.
        address = "127.0.0.1" if host == "localhost" else host
        listener: asyncio.Server | Listener
        if is_https(url):
            assert self._tls is not None, f"{url} without a certificate"
            ledger = TlsLedger(self.counters, self._limits)
            listener = self._tls.listener(doorway.doorman, ledger)
            await listener.open(address, port, _BACKLOG)
        else:
            listener = await self._loop.create_server(
                doorway.doorman, address, port, backlog=_BACKLOG
            )
        self._listeners.append(listener)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections, finish what is under way, end the streams, and close.

        Args:
            grace_seconds: how long requests that are under way may go on.
        """
        self._lane.is_draining = True
        for listener in self._listeners:
            listener.close()
        self._faces.end_streams()
        await asyncio.gather(
            self._clients.close(grace_seconds), self._watchers.close(grace_seconds)
        )
        for listener in self._listeners:
            await listener.wait_closed()

    def _count_lost(self) -> None:
        self.counters.connections_open -= 1


class Doorway:
    """The way in to one server, and the doormen who stand in it.

    Args:
        server: serves the connections.
        limits: of connections.
        counters: what is counted.
        loop: the event loop.
    """

    __slots__ = ("_counters", "_doormen", "_limits", "_loop", "_server")

    def __init__(
        self,
        server: HttpServer,
        limits: ApiLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server = server
        self._limits = limits
        self._counters = counters
        self._loop = loop
        self._doormen: set[Doorman] = set()

    def doorman(self) -> Doorman:
        """Somebody for a new connection."""
        return Doorman(self, self._loop.call_later, self._limits.head_seconds)

    async def close(self, grace_seconds: float) -> None:
        """Send away whoever waits, finish what is under way, and close."""
        for doorman in list(self._doormen):
            doorman.close()
        self._server.pre_shutdown()
        # aiohttp waits so long twice, before and after it tells handlers, and 0 would be for ever.
        await self._server.shutdown(max(grace_seconds / 2, 0.001))

    # What the doormen need.

    def enter(self, doorman: Doorman) -> bool:
        """A connection came; False if there is no room for it."""
        counters = self._counters
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
        self._counters.connections_open -= 1

    def admit(self, doorman: Doorman, transport: asyncio.Transport, first: bytes) -> None:
        """Serve a connection whose first head is there."""
        self._doormen.discard(doorman)
        connection = self._server()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(first)

    def count_late(self) -> None:
        """A client did not finish its head in time."""
        self._counters.late_heads += 1
