"""HTTP/1 on aiohttp: its parser and connections, our own framing of answers.

aiohttp's response objects cost a good part of a small call, most of it for heads that hardly ever
change. Here a head is one join of prepared lines, written together with the body.
"""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from aiohttp import web

from kvstore.api.access import Access
from kvstore.api.answer import Answer, Refused
from kvstore.api.error_map import HTTP_STATUS, http_status, reason, stream_error_line
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.limits import not_received

_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason(status)}\r\n".encode()
    for status in sorted({*HTTP_STATUS.values(), 201, 204, 304, 405, 408, 412, 415, 421, 505})
}
_BODILESS: Final = frozenset({204, 304})
_CLOSE: Final = b"Connection: close\r\n"
_KEEP_ALIVE_1_0: Final = b"Connection: keep-alive\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_PILED_UP_BYTES: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Clock:
    """The Date line, made once a second."""

    __slots__ = ("_line", "_loop", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until = 0.0
        self._line = b""

    def date_line(self) -> bytes:
        """``Date: …`` (RFC 9110 §6.6.1), at most a second old."""
        now = self._loop.time()
        if now >= self._until:
            self._until = now + 1.0
            self._line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        return self._line


class Written(web.StreamResponse):
    """Tells aiohttp that the answer is out already, and whether the connection goes on."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._goes_on = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may carry another request."""
        return self._goes_on

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class Closing(Refused):
    """An error after which the connection cannot be used: the rest of the request is in the way."""


def too_large(size_bytes: int, bytes_max: int) -> Closing:  # noqa: ARG001 - as the one below
    """A body is longer than any value that could be served."""
    kind = ErrorKind.REQUEST_TOO_LARGE
    return Closing(400, kind.code, kind.message)


def message_too_large(size_bytes: int, bytes_max: int) -> Closing:
    """A message in JSON is longer than any that etcd's gRPC server would take in."""
    error = not_received(size_bytes, bytes_max)
    return Closing(http_status(error.code), error.code, error.message)


def too_slow() -> Closing:
    """A body took longer than any may."""
    return Closing(408, Code.DEADLINE_EXCEEDED, "the request's body did not come in in time")


def opening(status: int, head: bytes, date: bytes, *, closes: bool) -> bytes:
    """The lines of an answer's head, without those that say how long it is."""
    return b"".join((_status_line(status), head, date, _CLOSE if closes else b""))


async def read_body(
    request: web.BaseRequest,
    bytes_max: int,
    seconds: float,
    refusal: Callable[[int, int], Closing] = too_large,
) -> bytes:
    """The whole body of a request.

    Args:
        request: whose body.
        bytes_max: a longer one is refused, unread where its length is known.
        seconds: how long it may take to come in.
        refusal: what a longer one is told, by as much of its length as is known and ``bytes_max``.

    Raises:
        KvError: too long, too slow, or not framed as its head says.
    """
    content = request.content
    if content.is_eof():
        # It came in together with the head, as nearly all do: no wait, no timer.
        body = content.read_nowait()
        if len(body) > bytes_max:
            raise refusal(len(body), bytes_max)
        return body
    length = request.content_length
    if length is not None and length > bytes_max:
        raise refusal(length, bytes_max)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            if wants_continue(request):
                send_continue(request)
            while part := await content.readany():
                size += len(part)
                if size > bytes_max:
                    raise refusal(size, bytes_max)
                parts.append(part)
    except TimeoutError:
        raise too_slow() from None
    except web.RequestPayloadError as error:
        raise Closing(400, Code.INVALID_ARGUMENT, f"the body is malformed: {error}") from None
    return b"".join(parts)


def wants_continue(request: web.BaseRequest) -> bool:
    """Whether the client holds the body back until it is asked for it."""
    return request.headers.get("Expect", "").lower() == "100-continue"


def send_continue(request: web.BaseRequest) -> None:
    """Ask for the body that the client holds back (RFC 9110 §10.1.1)."""
    _transport(request).write(_CONTINUE)


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    transport = request.transport
    # On uvloop, writing to a transport that is gone raises another error than asyncio does.
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    return transport


class Lane:
    """Writes answers to requests that aiohttp has parsed.

    Args:
        clock: for the Date line.
        stall_seconds: how long a client may take nothing of an answer.
        access: who may read answers.
    """

    __slots__ = ("_clock", "_keep", "_origins", "_stall_seconds", "closing", "is_draining")

    def __init__(self, clock: Clock, stall_seconds: float, access: Access) -> None:
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._origins = None if access.is_open else access
        self._keep = Written(keep_alive=True)
        self.closing = Written(keep_alive=False)
        """Says that the answer is out and the connection at its end."""
        self.is_draining = False
        """Whether connections end with the answer that is under way."""

    async def answer(
        self, request: web.BaseRequest, answer: Answer, *, closes: bool = False
    ) -> Written:
        """Write an answer.

        Args:
            request: what is answered.
            answer: the answer.
            closes: end the connection with it.

        Raises:
            ConnectionError: the client is gone, or takes nothing any more.
        """
        transport = _transport(request)
        keeps = request.keep_alive and not closes and not self.is_draining
        if answer.slices is not None and request.method != "HEAD":
            return await self._sliced(request, answer, keeps)
        status = answer.status
        head = answer.head
        if self._origins is not None:
            head = self._head(request, head)
        parts = [_status_line(status), head, self._clock.date_line()]
        if not keeps:
            parts.append(_CLOSE)
        elif request.version.minor == 0:
            parts.append(_KEEP_ALIVE_1_0)
        body = answer.body
        parts.append(b"\r\n" if status in _BODILESS else b"Content-Length: %d\r\n\r\n" % len(body))
        if body and request.method != "HEAD":
            parts.append(body)
        transport.write(b"".join(parts))
        # On uvloop all of it waits till the turn of the loop ends: only what piles up is waited
        # for.
        if transport.get_write_buffer_size() > _PILED_UP_BYTES:
            await self._drain(request, transport)
        return self._keep if keeps else self.closing

    def _head(self, request: web.BaseRequest, head: bytes) -> bytes:
        return head if self._origins is None else self._origins.head(head, request.headers)

    async def _sliced(self, request: web.BaseRequest, answer: Answer, keeps: bool) -> Written:
        """Encode and write piece by piece, each when the one before has left room for it."""
        assert answer.slices is not None, "a whole answer is written whole"
        transport = _transport(request)
        chunked = request.version.minor >= 1
        keeps = keeps and chunked
        head = self._head(request, answer.head)
        transport.write(self._open_head(answer.status, head, chunked, keeps))
        try:
            for piece in answer.slices:
                _transport(request).write(chunk(piece) if chunked else piece)
                await self._drain(request, transport)
                await asyncio.sleep(0)
        except BaseException:
            # What was cut short must not look whole.
            transport.abort()
            raise
        if chunked:
            _transport(request).write(LAST_CHUNK)
        return self._keep if keeps else self.closing

    def _open_head(self, status: int, head: bytes, chunked: bool, keeps: bool) -> bytes:
        framing = _CHUNKED if chunked else b""
        closing = b"" if keeps else _CLOSE
        lines = (_status_line(status), head, self._clock.date_line(), framing, closing, b"\r\n")
        return b"".join(lines)

    async def _drain(self, request: web.BaseRequest, transport: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await request.writer.drain()
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the client takes nothing any more") from None

    def exchange(self, request: web.BaseRequest, head: bytes) -> "Http1Exchange":
        """A conversation over a request, with these header lines on its response."""
        chunked = request.version.minor >= 1
        keeps = request.keep_alive and chunked
        lines = self._open_head(200, self._head(request, head), chunked, keeps)
        return Http1Exchange(request, lines, chunked)

    async def end_exchange(
        self,
        request: web.BaseRequest,
        exchange: "Http1Exchange",
        error: KvError | None,
        head: bytes,
    ) -> Written:
        """End a conversation, with an error or well. Before any message an error has a status."""
        if error is not None and not exchange.is_open:
            answer = Answer(stream_error_line(error), None, http_status(error.code), head)
            return await self.answer(request, answer, closes=True)
        if error is not None and not exchange.is_within_message:
            await exchange.send([stream_error_line(error)])
        keeps = exchange.close() and error is None and request.keep_alive and not self.is_draining
        return self._keep if keeps else self.closing


class Http1Exchange:
    """An ``Exchange`` on aiohttp: a message is a chunk, and what waits together leaves together."""

    __slots__ = ("_chunked", "_head", "_request", "is_open", "is_within_message")

    def __init__(self, request: web.BaseRequest, head: bytes, chunked: bool) -> None:
        self._request = request
        self._head = head
        self._chunked = chunked
        self.is_open = False
        """Whether the head is out."""
        self.is_within_message = False
        """Whether a message is out only in part."""

    async def receive(self) -> bytes:
        """The next piece of the body; b"" once it has ended."""
        try:
            return await self._request.content.readany()
        except web.RequestPayloadError as error:
            raise ConnectionResetError("the body is cut short") from error

    async def send(self, messages: list[bytes]) -> None:
        """Write messages; returns when there is room for more."""
        await self._write(messages)

    async def send_part(self, part: bytes, *, last: bool) -> None:
        """Write a part of a message."""
        self.is_within_message = not last
        await self._write([part])

    async def _write(self, messages: list[bytes]) -> None:
        transport = _transport(self._request)
        pieces = [chunk(message) for message in messages] if self._chunked else messages
        head = b"" if self.is_open else self._head
        self.is_open = True
        transport.write(head + b"".join(pieces))
        await self._request.writer.drain()

    def close(self) -> bool:
        """Write the end, and the head if nothing was said; whether the connection lives on."""
        transport = _transport(self._request)
        if not self.is_open:
            transport.write(self._head)
            self.is_open = True
        if self.is_within_message or not self._chunked:
            return False
        transport.write(LAST_CHUNK)
        return True


def _status_line(status: int) -> bytes:
    line = _STATUS_LINES.get(status)
    assert line is not None, f"no status line for {status}"
    return line


def chunk(piece: bytes) -> bytes:
    """A piece of a body of unknown length (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
