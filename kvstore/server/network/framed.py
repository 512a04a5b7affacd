"""Frames on an upgraded connection: a length, then that many bytes.

    0        4
    +--------+------------------
    | length | payload ...            length: u32, little endian, of the payload
    +--------+------------------

An empty frame says only "I am here"; it keeps an idle link from being taken for dead.
"""

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

from kvstore.server.network.base import FrameError

log = logging.getLogger("kvstore.peers")

_LENGTH = struct.Struct("<I")
_ALIVE = _LENGTH.pack(0)

FRAME_BYTES_MAX = 64 * 1024 * 1024
UNSENT_BYTES_MAX = 4 * 1024 * 1024
"""What may wait unsent in a link.

More is dropped, and raft told: behind a long queue heartbeats would come too late to count.
"""


class FrameLink(asyncio.Protocol):
    """One upgraded connection.

    Args:
        on_frame: Gets each payload; a ``FrameError`` from it closes the connection.
        on_lost: Called once when the connection has ended, with the reason.
        clock: Monotonic seconds, to know when something was last heard.
    """

    def __init__(
        self,
        on_frame: Callable[[bytes], None],
        on_lost: Callable[["FrameLink", str], None],
        clock: Callable[[], float],
    ) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._clock = clock
        self._transport: Any = None
        self._buffer = bytearray()
        self._lost = False
        self._reason = ""
        self._refused_huge = False
        self.heard_at = clock()

    def connection_made(self, transport: Any) -> None:
        """The connection is ours now (asyncio.Protocol)."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut frames out of the stream (asyncio.Protocol)."""
        self.heard_at = self._clock()
        buffer = self._buffer
        buffer += data
        start = 0
        have = len(buffer)
        try:
            while have - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > FRAME_BYTES_MAX:
                    self.close(f"a frame claims {length} bytes, more than {FRAME_BYTES_MAX}")
                    return
                end = start + 4 + length
                if end > have:
                    break
                if length:
                    self._on_frame(bytes(buffer[start + 4 : end]))
                start = end
        except FrameError as error:
            self.close(str(error))
            return
        if start:
            del buffer[:start]

    def send(self, frame: bytes) -> bool:
        """Queue one frame.

        False, and dropped, if the link is gone or holds too much already, or if the other side
        would close the connection for the frame's length.
        """
        if len(frame) > FRAME_BYTES_MAX:
            if not self._refused_huge:
                self._refused_huge = True
                log.error(
                    "a frame of %d bytes is not sent: at most %d fit", len(frame), FRAME_BYTES_MAX
                )
            return False
        transport = self._transport
        # A write to a closed transport raises on uvloop.
        if self._lost or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            return False
        transport.write(_LENGTH.pack(len(frame)) + frame)
        return True

    def send_alive(self) -> None:
        """Say that this side is here."""
        if not self._lost and not self._transport.is_closing():
            self._transport.write(_ALIVE)

    def close(self, reason: str) -> None:
        """End the connection; ``on_lost`` follows."""
        if not self._reason:
            self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended (asyncio.Protocol)."""
        if not self._lost:
            self._lost = True
            self._on_lost(self, self._reason or (str(exc) if exc else "closed by the other side"))
