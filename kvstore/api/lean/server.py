"""The lean lane's connections, what they share, and how all of it ends."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from kvstore.api.http1 import Clock, opening
from kvstore.api.http1_server import HttpServer
from kvstore.api.lean.connection import LeanConnection
from kvstore.api.lean.heads import Heads, LeanCall
from kvstore.api.limits import ApiLimits, Counters

log = logging.getLogger("kvstore.api")

TICK_SECONDS: Final = 10.0
"""How often a connection's limits on time are looked at, unless they are shorter."""
TICK_SECONDS_MIN: Final = 0.05


class LeanServer:
    """Answers the calls that need no more than a path and a body, and hands all else on.

    Args:
        calls: the calls by their paths.
        limits: what clients may use.
        counters: what is counted.
        loop: the event loop.
        clock: for the Date line.
        others: makes the connections that take what is handed on.
        on_lost: called when a connection is gone that was not handed on.
    """

    def __init__(
        self,
        calls: Mapping[str, LeanCall],
        limits: ApiLimits,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        others: HttpServer,
        on_lost: Callable[[], None],
    ) -> None:
        heads = Heads(calls)
        self.known = heads.known
        self.read = heads.read
        self.limits = limits
        self.counters = counters
        self.connections: set[LeanConnection] = set()
        self.now = loop.time
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later
        self.new_future: Callable[[], asyncio.Future[None]] = loop.create_future
        self.new_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = loop.create_task
        self.is_draining = False
        """Whether connections end with the answer that is under way."""
        shortest = min(TICK_SECONDS, limits.body_seconds, limits.idle_seconds, limits.stall_seconds)
        self.tick_seconds = max(shortest, TICK_SECONDS_MIN)
        self._clock = clock
        self._openings: dict[tuple[int, bytes, bool], bytes] = {}
        self._date = b""
        self._others = others
        self._on_lost = on_lost
        self._emptied = asyncio.Event()

    def __call__(self) -> LeanConnection:
        """A new connection."""
        return LeanConnection(self)

    def opening(self, status: int, head: bytes, *, closes: bool) -> bytes:
        """The lines of an answer's head before those that say how long it is."""
        date = self._clock.date_line()
        if date is not self._date:
            self._date = date
            self._openings.clear()
        key = (status, head, closes)
        found = self._openings.get(key)
        if found is None:
            found = self._openings[key] = opening(status, head, date, closes=closes)
        return found

    def hand_over(self, transport: asyncio.Transport, data: bytes, *, is_deaf: bool) -> None:
        """Have somebody else serve a connection from here on.

        Args:
            transport: the connection.
            data: what came in and was not answered yet.
            is_deaf: whether reading is paused.
        """
        connection = self._others()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if is_deaf:
            transport.resume_reading()
        connection.data_received(data)

    def on_lost(self) -> None:
        """A connection is gone."""
        self._on_lost()
        if not self.connections:
            self._emptied.set()

    def drain(self) -> None:
        """Send away who has no request under way, and the others with their answers."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()

    async def close(self, grace_seconds: float) -> None:
        """Wait for what was under way when it began to drain, and end it.

        Args:
            grace_seconds: how long requests may go on.
        """
        if self.connections:
            self._emptied.clear()
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._emptied.wait()
            except TimeoutError:
                log.info("%d HTTP connections are cut off", len(self.connections))
        for connection in list(self.connections):
            connection.abort()
