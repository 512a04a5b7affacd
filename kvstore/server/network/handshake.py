"""The HTTP/1.1 head that every connection between members begins with.

On both sides (RFC 9110 §7.8, Upgrade).

httptools parses; a ``Handshake`` waits for one whole head, then either answers and closes, or hands
the connection to the protocol that speaks from there on. Bytes that came behind the head go along.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

from kvstore.server.network.base import Introduction

HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 64 * 1024
REST_BYTES_MAX = 256 * 1024
"""What may arrive behind a head before somebody takes the connection over."""
RAFT_PROTOCOL = "kvstore-raft/1"
SNAPSHOT_PROTOCOL = "kvstore-snapshot/1"


def introduction_headers(introduction: Introduction) -> tuple[str, ...]:
    """How a member says, in either direction, which log it has, whether that is empty, and whether
    it may be replaced.
    """
    blank = ("Kvstore-Blank: 1",) if introduction.blank else ()
    replace_me = ("Kvstore-Replace-Me: 1",) if introduction.replace_me else ()
    return (f"Kvstore-Log: {introduction.log_id:x}", *blank, *replace_me)


def removed_header(member: int) -> str:
    """How a refusal says that the dialler was taken out of the cluster."""
    return f"Kvstore-Removed: {member:x}"


class Handshake(asyncio.Protocol):
    """One side of a connection until its HTTP head is complete.

    Args:
        client: Whether this side dialled (and so parses a response).
        on_head: Called once with this object when the head (and, for a refusal, its body) is
            complete.
        on_lost: Called if the connection ends or is not HTTP before that, with the reason.
    """

    def __init__(
        self,
        *,
        client: bool,
        on_head: Callable[["Handshake"], None],
        on_lost: Callable[["Handshake", str], None],
    ) -> None:
        self._on_head = on_head
        self._on_lost = on_lost
        self._received_bytes = 0
        self._url = b""
        self._body = bytearray()
        self._parser: Any = (
            httptools.HttpResponseParser(self) if client else httptools.HttpRequestParser(self)
        )
        self._client = client
        self._settled = False
        self._ended = False
        self._paused = False
        self.transport: Any = None
        self.method = ""
        """The request's, once its head is there."""
        self.status = 0
        """The response's, once its head is there."""
        self.headers: dict[str, str] = {}
        self.rest = b""
        self.upgraded = False

    @property
    def path(self) -> str:
        """The request's target."""
        return self._url.decode("latin-1")

    @property
    def introduction(self) -> Introduction:
        """What the other side says of itself; a log id that is no number is as none."""
        try:
            log_id = int(self.headers.get("kvstore-log", "0"), 16)
        except ValueError:
            log_id = 0
        return Introduction(
            self.headers.get("kvstore-blank") == "1",
            log_id,
            self.headers.get("kvstore-replace-me") == "1",
        )

    def says_removed(self, member: int) -> bool:
        """Whether this is a refusal because that member was taken out of the cluster."""
        return self.headers.get("kvstore-removed") == f"{member:x}"

    @property
    def body(self) -> str:
        """The body of a refusal, for the log."""
        return self._body.decode("utf-8", "replace")

    def connection_made(self, transport: Any) -> None:
        """Begin (asyncio.Protocol), unless this was given up before there was a connection."""
        self.transport = transport
        if self._settled:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser (asyncio.Protocol)."""
        if self._settled:
            self._keep(data)
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Or it asks for that behind a request that was answered already.
            if not self._settled:
                self.upgraded = True
                self.rest = data[upgrade.args[0] :]
                self._settle()
        except httptools.HttpParserError as error:
            self._lose(f"not HTTP: {error}")
        else:
            if self._received_bytes > HEAD_BYTES_MAX + BODY_BYTES_MAX:
                self._lose("the head is too large")

    def _keep(self, data: bytes) -> None:
        """For whoever takes over; what comes behind a plain request or a refusal is nobody's."""
        if not self.upgraded:
            return
        self.rest += data
        if len(self.rest) > REST_BYTES_MAX and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def on_url(self, url: bytes) -> None:
        """Collect the target (httptools)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header (httptools)."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Collect a body (httptools); only refusals have one."""
        self._body += body[: BODY_BYTES_MAX - len(self._body)]

    def on_message_complete(self) -> None:
        """The head and body are whole (httptools).

        An upgrade is settled by its exception, which follows.
        """
        if not self._settled and not self._parser.should_upgrade():
            self._settle()

    def _settle(self) -> None:
        if self._client:
            self.status = self._parser.get_status_code()
        else:
            self.method = self._parser.get_method().decode("latin-1")
        self._stop_parsing()
        self._on_head(self)

    def _stop_parsing(self) -> None:
        """Nothing more is parsed, and the parser, which holds this object, is let go of.

        In a cycle with it, whatever knocked at the peer port once would stay in memory, with its
        transport and all that belongs to that.
        """
        self._settled = True
        self._parser = None

    def _lose(self, reason: str) -> None:
        if not self._settled:
            self._stop_parsing()
            if self.transport is not None:
                self.transport.abort()
            self._on_lost(self, reason)

    def abort(self, reason: str) -> None:
        """Give up, for instance when the head takes too long."""
        self._lose(reason)

    def drop(self) -> None:
        """Close the connection, whatever came of it; nobody is told."""
        self._stop_parsing()
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side went away (asyncio.Protocol)."""
        self._ended = True
        self._lose(str(exc) if exc else "the connection was closed")

    def take_over(self, protocol: asyncio.Protocol) -> None:
        """Hand the connection.

        And what already arrived behind the head, to the protocol that goes on.
        """
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._paused and not self.transport.is_closing():
            # Before the protocol gets anything: it may want to pause for itself.
            self.transport.resume_reading()
        if self.rest:
            rest, self.rest = self.rest, b""
            protocol.data_received(rest)
        if self._ended:
            # Between the head and this call. Nobody else would tell the protocol, and it would
            # take a dead connection for a silent one.
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)

    def respond(self, status: str, body: bytes = b"", headers: tuple[str, ...] = ()) -> None:
        """Answer a request and close."""
        lines = [
            f"HTTP/1.1 {status}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        self.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self.transport.close()

    def switch(self, protocol_name: str, headers: tuple[str, ...] = ()) -> None:
        """Answer 101: from here on the other protocol is spoken."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Connection: Upgrade",
            f"Upgrade: {protocol_name}",
            *headers,
        ]
        self.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Send, unless the connection has ended."""
        # The other side may have gone while the answer was found, and a write to a closed
        # transport raises on uvloop.
        if not self.transport.is_closing():
            self.transport.write(data)
