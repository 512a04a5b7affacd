"""One port for all faces: connections come in here, and are let go of when the node stops."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

from kvstore.api.access import Access
from kvstore.api.backend import Service
from kvstore.api.doorman import Doorman, is_http2, refusal
from kvstore.api.faces import Faces
from kvstore.api.grpc.calls import Face
from kvstore.api.grpc.server import GrpcServer
from kvstore.api.http1 import Clock, Lane
from kvstore.api.http1_server import Handler, HttpServer
from kvstore.api.lean.server import LeanServer
from kvstore.api.limits import ApiLimits, Counters
from kvstore.api.tls_ledger import TlsLedger
from kvstore.budget import Budget
from kvstore.config_tls import is_https
from kvstore.config_values import host_and_port
from kvstore.errors import Code
from kvstore.tls.listener import Listener
from kvstore.tls.ports import Port

log = logging.getLogger("kvstore.api")

_BACKLOG: Final = 1024
EVERYBODY: Final = Access()
"""No rules."""

Http1: TypeAlias = HttpServer | LeanServer
"""Who serves a connection of HTTP/1 first: the lean lane, unless there are rules on who may ask."""


class FrontDoor:
    """The server for clients.

    Args:
        service: what all faces ask.
        limits: what clients may use.
        metrics: the text of ``/metrics``.
        new_budget: makes the budget of a slice of work on the loop.
        access: who may ask.
        tls: for https URLs.
        grpc: what is served over gRPC; None: HTTP/2 is refused.
        reading: the budget of reading what gRPC clients send, in one turn; None: a slice.

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
        grpc: Face | None = None,
        reading: Budget | None = None,
    ) -> None:
        self.counters = Counters()
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        clock = Clock(self._loop)
        self._lane = Lane(clock, limits.stall_seconds, access)
        self._faces = Faces(service, limits, self._lane, self.counters, metrics, new_budget, access)
        self._http = self._http_server(self._faces.handle)
        self._metrics = self._http_server(self._faces.handle_metrics)
        self._lean: LeanServer | None = None
        if access.is_open:
            self._lean = LeanServer(
                self._faces.lean,
                limits,
                self.counters,
                self._loop,
                clock,
                self._http,
                self._count_lost,
            )
        self._grpc: GrpcServer | None = None
        self._grpc_face = grpc
        if grpc is not None:
            self._grpc = GrpcServer(
                grpc.calls,
                limits,
                self.counters,
                self._loop,
                self._count_lost,
                reading or new_budget(),
            )
        self._doorways: list[Doorway] = []
        self._listeners: list[asyncio.Server | Listener] = []
        self._tls = tls

    def _http_server(self, handler: Handler) -> HttpServer:
        return HttpServer(handler, self._limits, self.counters, self._count_lost)

    def _doorway(self, http: Http1 | None, grpc: GrpcServer | None) -> "Doorway":
        doorway = Doorway(http, grpc, self._limits, self.counters, self._loop)
        self._doorways.append(doorway)
        return doorway

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of each socket."""
        return [
            listener_socket.getsockname()[:2]
            for listener in self._listeners
            for listener_socket in listener.sockets
        ]

    async def start(
        self,
        urls: Sequence[str],
        metrics_urls: Sequence[str] = (),
        http_urls: Sequence[str] = (),
    ) -> None:
        """Listen on each of ``http://host:port`` and ``https://host:port``.

        Args:
            urls: where clients are served, over HTTP/1 and gRPC.
            metrics_urls: where metrics and health are, and nothing else.
            http_urls: where HTTP/1 is served alone; if there is any, ``urls`` are for gRPC alone.

        Raises:
            OSError: an address is in use or not ours.
        """
        http = self._lean or self._http
        clients = self._doorway(None if http_urls else http, self._grpc)
        for url in urls:
            await self._listen(url, clients)
            log.info("serving clients on %s%s", url, " (gRPC only)" if http_urls else "")
        http_clients = self._doorway(http, None)
        for url in http_urls:
            await self._listen(url, http_clients)
            log.info("serving clients on %s (HTTP only)", url)
        watchers = self._doorway(self._metrics, None)
        for url in metrics_urls:
            await self._listen(url, watchers)
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
        if self._lean is not None:
            self._lean.drain()
        for listener in self._listeners:
            listener.close()
        for doorway in self._doorways:
            doorway.close()
        self._faces.end_streams()
        if self._grpc_face is not None:
            self._grpc_face.drain()
        servers: list[Coroutine[Any, Any, None]] = []
        for server in (self._http, self._metrics):
            server.pre_shutdown()
            # aiohttp waits so long twice, before and after it tells handlers; 0 would be for ever.
            servers.append(server.shutdown(max(grace_seconds / 2, 0.001)))
        if self._lean is not None:
            servers.append(self._lean.close(grace_seconds))
        if self._grpc is not None:
            servers.append(self._grpc.close(grace_seconds))
        await asyncio.gather(*servers)
        for listener in self._listeners:
            await listener.wait_closed()

    def _count_lost(self) -> None:
        self.counters.connections_open -= 1


class Doorway:
    """The way in to the servers of an address, and the doormen who stand in it.

    Args:
        http: serves connections of HTTP/1; None: they are refused.
        grpc: serves connections of HTTP/2; None: they are refused.
        limits: of connections.
        counters: what is counted.
        loop: the event loop.
    """

    __slots__ = ("_counters", "_doormen", "_grpc", "_http", "_limits", "_loop")

    def __init__(
        self,
        http: Http1 | None,
        grpc: GrpcServer | None,
        limits: ApiLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._http = http
        self._grpc = grpc
        self._limits = limits
        self._counters = counters
        self._loop = loop
        self._doormen: set[Doorman] = set()

    def doorman(self) -> Doorman:
        """Somebody for a new connection."""
        return Doorman(self, self._loop.call_later, self._limits.head_seconds)

    def close(self) -> None:
        """Send away whoever waits."""
        for doorman in list(self._doormen):
            doorman.close()

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

    def refusal(self, *, is_http2: bool) -> bytes | None:
        """What a client is told whose HTTP is not spoken at this address; None if it is."""
        if is_http2 and self._grpc is None:
            message = "HTTP/2 (gRPC) is not served here; use the JSON API over HTTP/1.1"
            return refusal("505 HTTP Version Not Supported", Code.UNIMPLEMENTED, message)
        if not is_http2 and self._http is None:
            message = "only gRPC is served here; HTTP is at --listen-client-http-urls"
            return refusal("421 Misdirected Request", Code.UNIMPLEMENTED, message)
        return None

    def admit(self, doorman: Doorman, transport: asyncio.Transport, first: bytes) -> None:
        """Serve a connection whose first head is there."""
        self._doormen.discard(doorman)
        server = self._grpc if is_http2(first) else self._http
        assert server is not None, "who is not served is refused first"
        connection = server()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(first)

    def count_late(self) -> None:
        """A client did not finish its head in time."""
        self._counters.late_heads += 1
