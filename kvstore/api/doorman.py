"""The first bytes of a connection decide who speaks with it.

HTTP/1 goes to aiohttp, HTTP/2 to gRPC. The doorman waits for the first head, so that a client that
never finishes it costs a small object and not a server's worth of state. HTTP/2 has a preface in
its place.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from kvstore.api.error_map import error_body
from kvstore.errors import Code

HEAD_BYTES_MAX: Final = 32 * 1024
"""A first head longer than this is passed on as it is: the parser has limits and words for it."""

_HTTP2: Final = b"PRI * HTTP/2"
_PREFACE_BYTES: Final = 24
_HEAD_END: Final = b"\r\n\r\n"


class House(Protocol):
    """What a doorman needs of the server behind the door."""

    def enter(self, doorman: "Doorman") -> bool:
        """A connection came; False if there is no room for it."""

    def leave(self, doorman: "Doorman") -> None:
        """It went, with nothing asked for."""

    def refusal(self, *, is_http2: bool) -> bytes | None:
        """What a client is told whose HTTP is not spoken here; None if it is."""

    def admit(self, doorman: "Doorman", transport: asyncio.Transport, first: bytes) -> None:
        """Serve a connection whose first head is there, in the doorman's stead."""

    def count_late(self) -> None:
        """A client did not finish its head in time."""


def is_http2(first: bytes) -> bool:
    """Whether a connection's first bytes are those of HTTP/2 (RFC 9113 §3.4)."""
    return first.startswith(_HTTP2)


def refusal(status_line: str, code: Code, message: str) -> bytes:
    """A whole answer for a connection that gets no other."""
    body = error_body(code, message)
    head = (
        f"HTTP/1.1 {status_line}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Doorman(asyncio.Protocol):
    """One connection until its first head is complete.

    Args:
        house: the server.
        call_later: the loop's.
        head_seconds: how long the head may take.
    """

    __slots__ = ("_call_later", "_first", "_head_seconds", "_house", "_timer", "_transport")

    def __init__(
        self,
        house: House,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        head_seconds: float,
    ) -> None:
        self._house = house
        self._call_later = call_later
        self._head_seconds = head_seconds
        self._first = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or send it away with a word that it may come again."""
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = stream
        if self._house.enter(self):
            self._timer = self._call_later(self._head_seconds, self._late)
        else:
            self._refuse("503 Service Unavailable", Code.UNAVAILABLE, "too many connections")

    def data_received(self, data: bytes) -> None:
        """Collect the head."""
        transport = self._transport
        if transport is None or self._timer is None:
            return
        first = self._first = self._first + data
        speaks_http2 = is_http2(first)
        if speaks_http2:
            is_complete = len(first) >= _PREFACE_BYTES
        else:
            is_complete = _HEAD_END in first or len(first) > HEAD_BYTES_MAX
        if is_complete:
            words = self._house.refusal(is_http2=speaks_http2)
            if words is not None:
                self._end(words)
                return
            self._timer.cancel()
            self._timer = self._transport = None
            self._house.admit(self, transport, first)

    def eof_received(self) -> None:
        """It will not say more: asyncio closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It went without having asked for anything."""
        self._gone()

    def close(self) -> None:
        """The house closes."""
        if self._transport is not None:
            self._transport.close()

    def _late(self) -> None:
        self._house.count_late()
        message = "the request's head did not come in in time"
        self._refuse("408 Request Timeout", Code.DEADLINE_EXCEEDED, message)

    def _refuse(self, status_line: str, code: Code, message: str) -> None:
        self._end(refusal(status_line, code, message))

    def _end(self, words: bytes) -> None:
        transport = self._transport
        if transport is not None:
            transport.write(words)
            transport.close()
        self._gone()

    def _gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._house.leave(self)
        self._transport = None
