"""Where TLS connections come in, and are handed on once their handshake is done.

A handshake costs the server more than the client, and one that is never finished holds a socket. So
it counts from the first packet on, has a time limit, and its failure is a number and a line for
those who ask, never a stack.

Sockets are accepted here, and not by ``create_server``, which says nothing of a handshake that
fails; ``start_tls`` on an accepted connection would, but uvloop reads from that before it can be
asked not to.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import itertools
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from kvstore.tls import names
from kvstore.tls.contexts import ServerContext, Watched, forget_stack, reason, shaking_hands
from kvstore.tls.settings import TlsSettings

log = logging.getLogger("kvstore.tls")

HANDSHAKE_SECONDS_MAX: Final = 5.0
"""Several round trips over the slowest network, and no more."""
SHUTDOWN_SECONDS_MAX: Final = 10.0
"""How long the other side may take over its farewell, and what was sent before it. By default it
were thirty seconds, in which a client that never says it keeps the socket.
"""
ACCEPTED_AT_ONCE_MAX: Final = 16
"""Of a crowd at the door, before everybody else has a turn: where a socket can be accepted at once,
an event loop does not wait.
"""
ACCEPT_AGAIN_SECONDS: Final = 1.0
"""After what only time mends: no file descriptor is left, for instance."""


def wall_clock() -> float:
    """Unix seconds, by which certificates end."""
    return datetime.datetime.now(datetime.UTC).timestamp()


class Ledger(Protocol):
    """Who counts the connections of a listener."""

    def enter_gate(self) -> bool:
        """A handshake begins; False if there is no room for it."""

    def leave_gate(self) -> None:
        """It has ended; if it succeeded the connection is counted elsewhere from now on."""

    def count_failure(self, address: str, words: str, *, is_tls: bool) -> None:
        """It failed, and why; ``is_tls``: by what was said, not by a connection that ended."""


class Listener:
    """Listens on one address. To be opened, and closed, on the event loop.

    Args:
        contexts: The context of the moment.
        settings: Whose certificates may come in.
        new_protocol: Makes whoever speaks once the handshake is done.
        ledger: Counts.
    """

    def __init__(
        self,
        contexts: Watched[ServerContext],
        settings: TlsSettings,
        new_protocol: Callable[[], asyncio.Protocol],
        ledger: Ledger,
    ) -> None:
        self._contexts = contexts
        self._settings = settings
        self._new_protocol = new_protocol
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptors: list[asyncio.Task[None]] = []
        self.sockets: tuple[socket.socket, ...] = ()
        """Those that it listens on, as ``asyncio.Server`` has them."""

    def __len__(self) -> int:
        """How many handshakes are under way."""
        return len(self._tasks)

    async def open(self, host: str, port: int, backlog: int) -> None:
        """Listen on every address of a host.

        Raises:
            OSError: One is in use or not ours, or the host has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        opened: list[socket.socket] = []
        try:
            for family, kind, number, _, address in dict.fromkeys(found):
                opened.append(socket.socket(family, kind, number))
                _bind(opened[-1], address, backlog)
        except OSError as error:
            for each in opened:
                each.close()
            words = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise OSError(error.errno, words) from error
        self.sockets = tuple(opened)
        self._acceptors = [loop.create_task(self._accept(each)) for each in opened]

    def close(self) -> None:
        """Take no more connections, and end the handshakes that are under way."""
        for task in (*self._acceptors, *self._tasks):
            task.cancel()
        for each in self.sockets:
            each.close()

    async def wait_closed(self) -> None:
        """Wait until no handshake is under way any more."""
        await asyncio.gather(*self._acceptors, *self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            if number % ACCEPTED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    log.warning("no TLS connection can be accepted: %s", error.strerror)
                    await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            if not self._ledger.enter_gate():
                accepted.close()
                continue
            visitor = Visitor(self, accepted, str(address[0]))
            task = loop.create_task(visitor.shake_hands())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(visitor.abandon)

    # What the visitors need.

    def context(self) -> ServerContext:
        """For a connection that begins now."""
        return self._contexts.current()

    def leave(self) -> None:
        """A handshake has ended."""
        self._ledger.leave_gate()

    def fail(self, address: str, words: str, *, is_tls: bool) -> None:
        """A handshake has failed."""
        self._ledger.count_failure(address, words, is_tls=is_tls)

    def refusal(self, transport: asyncio.BaseTransport) -> str:
        """Why whoever is there may not come in; "" if they may."""
        settings = self._settings
        certificate = transport.get_extra_info("peercert")
        if certificate and ssl.cert_time_to_seconds(certificate["notAfter"]) < wall_clock():
            # OpenSSL does not look again at whoever resumes a session of TLS 1.2, for two hours.
            return f"its certificate was valid until {certificate['notAfter']}"
        return names.refusal(certificate, settings.allowed_names, settings.allowed_hosts)

    def new_protocol(self) -> asyncio.Protocol:
        """Whoever speaks from here on."""
        return self._new_protocol()


class Visitor(asyncio.Protocol):
    """One connection, until its handshake is done.

    Args:
        listener: Whose.
        accepted: Its socket.
        address: Where it comes from.
    """

    __slots__ = ("_accepted", "_address", "_began", "_came_in", "_gone", "_listener", "_refused")

    def __init__(self, listener: Listener, accepted: socket.socket, address: str) -> None:
        self._listener = listener
        self._accepted = accepted
        self._address = address
        self._began = False
        self._came_in = False
        self._refused: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    async def shake_hands(self) -> None:
        """Until it is in, or gone."""
        self._began = True
        self._accepted.setblocking(False)
        shaking_hands.set(self)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                self._accepted,
                ssl=self._listener.context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
            )
            if self._refused is not None:
                # It counts for as long as it may take over its farewell.
                await self._gone.wait()
        except OSError as error:
            is_tls = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            self._listener.fail(self._address, reason(error), is_tls=is_tls)
            forget_stack(error)
        finally:
            if self._refused is not None:
                self._refused.abort()
                self._refused = None
            if not self._came_in:
                self._listener.leave()

    def abandon(self, _: object) -> None:
        """It is over; if it never began, the house closed first, and the socket is nobody's."""
        if not self._began:
            self._accepted.close()
            self._listener.leave()

    def send_alert(self, data: bytes) -> None:
        """Say why the handshake failed: at once, for the event loop drops what it has to send."""
        with contextlib.suppress(OSError):
            self._accepted.send(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: from here on another protocol speaks.

        It takes the room that this one gives back in the same breath.
        """
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        words = self._listener.refusal(stream)
        if words:
            self._refused = stream
            self._listener.fail(self._address, words, is_tls=True)
            stream.close()
            return
        self._came_in = True
        self._listener.leave()
        successor = self._listener.new_protocol()
        stream.set_protocol(successor)
        successor.connection_made(stream)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Whoever was refused is gone."""
        self._gone.set()


def _bind(opened: socket.socket, address: tuple[Any, ...], backlog: int) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.setblocking(False)
    opened.bind(address)
    opened.listen(backlog)
