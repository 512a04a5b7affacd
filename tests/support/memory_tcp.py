"""TCP in memory for the virtual loop: ``create_server`` and ``create_connection`` without sockets.

What production builds on asyncio's protocols runs on it unchanged. Bytes arrive in pieces of random
size, as they do in life.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.support.virtual_loop import VirtualLoop

DELAY_SECONDS = 0.0005


class MemoryTransport(asyncio.Transport):
    """One end of a connection. ``received`` is what was written to it from the other end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        super().__init__()
        self._loop = loop
        self._rng = rng
        self._protocol: Any = None
        self._closing = False
        self._unread = bytearray()
        self._reading = True
        self._ended = False
        self.peer: MemoryTransport | None = None
        self.stalled = False
        """Whether what is written here gets nowhere, as to a peer that is gone without a word."""
        self.unsent = 0

    def begin(self, protocol: Any, peer: MemoryTransport | None) -> None:
        self.peer = peer
        self._protocol = protocol
        protocol.connection_made(self)

    # --- asyncio.Transport ------------------------------------------------------------------------

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "a write to a closed transport, which raises on uvloop"
        self.unsent += len(data)
        if not self.stalled and self.peer is not None:
            self._loop.call_later(DELAY_SECONDS, self._send, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_later(2 * DELAY_SECONDS, self._end)

    def abort(self) -> None:
        self._closing = True
        self._loop.call_soon(self._end)

    # --- in between -------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self.unsent -= len(data)
        if self.peer is not None and not self._ended:
            self.peer.arrive(data)

    def arrive(self, data: bytes) -> None:
        """Bytes from the other end."""
        self._unread += data
        self._deliver()

    def _deliver(self) -> None:
        while self._unread and self._reading and not self._closing:
            size = self._rng.randint(1, len(self._unread))
            piece = bytes(self._unread[:size])
            del self._unread[:size]
            self._protocol.data_received(piece)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._closing = True
        self._protocol.connection_lost(None)
        if self.peer is not None:
            self._loop.call_later(DELAY_SECONDS, self.peer.lose)

    def lose(self) -> None:
        """The other end is gone."""
        if not self._ended:
            self._closing = True
            self._ended = True
            self._protocol.connection_lost(None)


class _Server:
    def __init__(self, listeners: dict[tuple[str, int], Any], place: tuple[str, int]) -> None:
        self._listeners = listeners
        self._place = place

    def close(self) -> None:
        del self._listeners[self._place]


class TcpLoop(VirtualLoop):
    """A virtual loop that knows addresses. ``connections`` are all that were made, client first."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(1)
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self._listeners: dict[tuple[str, int], Callable[[], Any]] = {}

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int
    ) -> _Server:
        """Listen."""
        if (host, port) in self._listeners:
            raise OSError(98, "Address already in use")
        self._listeners[host, port] = protocol_factory
        return _Server(self._listeners, (host, port))

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int
    ) -> tuple[MemoryTransport, Any]:
        """Connect to whoever listens there."""
        await asyncio.sleep(DELAY_SECONDS)
        accept = self._listeners.get((host, port))
        if accept is None:
            raise ConnectionRefusedError(111, "Connection refused")
        ends = MemoryTransport(self, self.rng), MemoryTransport(self, self.rng)
        self.connections.append(ends)
        protocol = protocol_factory()
        # As asyncio does: the protocol is made first, and hears of its connection a turn later.
        self.call_soon(ends[1].begin, accept(), ends[0])
        ends[0].begin(protocol, ends[1])
        return ends[0], protocol
