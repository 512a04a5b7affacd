"""One connection of the lean lane: from bytes to calls and back, without a task a request.

Requests of a connection are answered one at a time, in order. A request begins when all of it is
there, so that no state of a parser outlives a piece of the stream: before any request the
connection can be handed on, with the bytes as they came in.
"""

import asyncio
import logging
from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from kvstore.api.answer import V3_HEAD, Answer, Outcome, error_answer
from kvstore.api.http1 import LAST_CHUNK, chunk, too_slow
from kvstore.api.lean.heads import HEAD_BYTES_MAX, LeanCall, LeanHead
from kvstore.api.running import internal_error

if TYPE_CHECKING:
    from kvstore.api.lean.server import LeanServer

log = logging.getLogger("kvstore.api")

AHEAD_BYTES_MAX: Final = 64 * 1024
"""What a client may send ahead while a request of it is under way; it is read no further then."""
BURST_REQUESTS_MAX: Final = 16
"""So many that were sent ahead are begun in one go; then others have their turn.

Each KiB of a body counts as another one, for it may take as long.
"""

_HEAD_END: Final = b"\r\n\r\n"


class LeanConnection(asyncio.Protocol):
    """A client's connection.

    Args:
        server: what it shares with all others.
    """

    __slots__ = (
        "_ahead",
        "_call",
        "_is_busy",
        "_is_deaf",
        "_is_over",
        "_is_paused",
        "_is_serving",
        "_needs_bytes",
        "_paused_size",
        "_server",
        "_since",
        "_task",
        "_timer",
        "_transport",
        "_writable",
    )

    def __init__(self, server: "LeanServer") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._ahead = b""
        """What came in and belongs to no request that has begun."""
        self._needs_bytes = 0
        """How long the next request is, head and body, if its head is there."""
        self._call: LeanCall | None = None
        """Whose answer is under way."""
        self._is_busy = False
        """Whether an answer is under way, or the next request waits for its turn of the loop."""
        self._is_serving = False
        """Whether requests are being begun, further up the stack."""
        self._is_deaf = False
        """Whether reading is paused."""
        self._is_over = False
        """Whether all was said that ever will be."""
        self._is_paused = False
        """Whether the client does not keep up with its answers."""
        self._paused_size = 0
        self._since = 0.0
        """When the present wait for the client began."""
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        # The event loop promises a stream here, and uvloop's is no subclass that could be checked.
        stream: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = stream
        server = self._server
        server.connections.add(self)
        self._since = server.now()
        self._timer = server.call_later(server.tick_seconds, self._tick)

    def data_received(self, data: bytes) -> None:
        """Begin what is whole; the rest waits."""
        if self._is_over:
            return
        if self._ahead:
            data = self._ahead + data
        elif not self._is_busy:
            self._since = self._server.now()
        if self._is_busy or self._is_paused or len(data) < self._needs_bytes:
            self._ahead = data
            if self._is_busy and len(data) > AHEAD_BYTES_MAX:
                self._turn_deaf()
            return
        self._serve(data)

    def eof_received(self) -> None:
        """The client left, or cannot be told from one that did: asyncio closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It is gone, and with it whatever was sent ahead."""
        self._leave()
        if self._task is not None:
            self._task.cancel()
        self._server.on_lost()

    def pause_writing(self) -> None:
        """The client takes nothing: nothing more is begun for it, and nothing more heard."""
        self._is_paused = True
        if self._transport is not None:
            self._paused_size = self._transport.get_write_buffer_size()
            self._since = self._server.now()
            self._turn_deaf()

    def resume_writing(self) -> None:
        """It caught up."""
        self._is_paused = False
        self._since = self._server.now()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self._is_busy and not self._is_serving:
            self._go_on()

    def _turn_deaf(self) -> None:
        if self._transport is not None and not self._is_deaf:
            self._is_deaf = True
            self._transport.pause_reading()

    def _leave(self) -> None:
        """Have nothing to do with the connection any more."""
        self._transport = None
        self._call = None
        self._ahead = b""
        if self._timer is not None:
            self._timer.cancel()
        self._server.connections.discard(self)

    # --- Requests ---------------------------------------------------------------------------------

    def _serve(self, data: bytes) -> None:
        """Begin each request that is whole, until one is not answered at once."""
        server = self._server
        self._is_serving = True
        left = BURST_REQUESTS_MAX
        while data:
            body_at = data.find(_HEAD_END) + len(_HEAD_END)
            raw_head = data[:body_at]
            head = server.known(raw_head)
            if head is None:
                if body_at < len(_HEAD_END) and len(data) <= HEAD_BYTES_MAX:
                    break
                head = server.read(raw_head)
                if head is None:
                    self._hand_over(data)
                    return
            end = body_at + head.body_bytes
            if end > len(data):
                self._needs_bytes = end
                break
            if left <= 0:
                # As if one were under way: what comes meanwhile must not overtake it.
                self._is_busy = True
                server.call_soon(self._take_turn)
                break
            left -= 1 + (head.body_bytes >> 10)
            self._needs_bytes = 0
            self._ahead = data[end:]
            if not self._begin(head, data[body_at:end]):
                self._hand_over(data)
                return
            data = self._ahead
            if self._is_busy or self._is_paused or self._is_over or self._transport is None:
                break
        self._ahead = b"" if self._is_over or self._transport is None else data
        self._is_serving = False

    def _take_turn(self) -> None:
        self._is_busy = False
        self._go_on()

    def _go_on(self) -> None:
        """Hear the client again, and begin what it sent ahead."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._is_paused or self._is_over:
            return
        if self._is_deaf:
            self._is_deaf = False
            transport.resume_reading()
        if self._ahead:
            self._serve(self._ahead)

    def _begin(self, head: LeanHead, body: bytes) -> bool:
        """Begin a call; whether it is one for this lane."""
        self._is_busy = True
        self._call = call = head.call
        try:
            if not call.begin(body, head.caller, self._reply):
                return False
        except Exception:
            log.exception("a call failed by a mistake of the server's own")
            self._surprise()
        self._server.counters.requests += 1
        return True

    def _reply(self, outcome: Outcome) -> None:
        """What the call came to; nobody may want to know any more."""
        call = self._call
        if call is None:
            return
        try:
            answer = call.finish(outcome)
        except Exception:
            log.exception("an answer could not be encoded by a mistake of the server's own")
            self._surprise()
            return
        self._answer(answer)

    def _surprise(self) -> None:
        self._server.counters.surprises += 1
        if self._call is not None:
            self._answer(error_answer(internal_error()))

    def _answer(self, answer: Answer, *, closes: bool = False) -> None:
        self._call = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        server = self._server
        closes = closes or server.is_draining
        server.counters.count_answer(answer.status)
        if answer.slices is not None:
            self._task = server.new_task(self._send_slices(transport, answer, closes=closes))
            return
        body = answer.body
        opening = server.opening(answer.status, answer.head, closes=closes)
        transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (opening, len(body), body))
        self._finish(transport, closes=closes)

    async def _send_slices(
        self, transport: asyncio.Transport, answer: Answer, *, closes: bool
    ) -> None:
        """Encode and write piece by piece, each when the client has left room for it."""
        assert answer.slices is not None, "a whole answer is written whole"
        server = self._server
        opening = server.opening(answer.status, answer.head, closes=closes)
        transport.write(opening + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for piece in answer.slices:
                transport.write(chunk(piece))
                if self._is_paused:
                    self._writable = server.new_future()
                    await self._writable
                await asyncio.sleep(0)
                if transport.is_closing():
                    return
        except Exception:
            # What was cut short must not look whole.
            log.exception("an answer was cut short by a mistake of the server's own")
            server.counters.surprises += 1
            transport.abort()
            return
        transport.write(LAST_CHUNK)
        self._finish(transport, closes=closes)

    def _finish(self, transport: asyncio.Transport, *, closes: bool) -> None:
        """An answer is out: on to the next request, or to the end."""
        self._is_busy = False
        self._since = self._server.now()
        if closes:
            self._close(transport)
        elif not self._is_serving and (self._ahead or self._is_deaf):
            self._go_on()

    def _hand_over(self, data: bytes) -> None:
        """Let the connection go to whoever knows all of HTTP/1, with this request first."""
        transport = self._transport
        assert transport is not None, "only an open connection is handed over"
        is_deaf = self._is_deaf
        self._leave()
        self._server.hand_over(transport, data, is_deaf=is_deaf)

    # --- Ends -------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: an idle client is sent away, any other gets its answer first."""
        if self._transport is not None and not self._is_busy and not self._ahead:
            self._transport.close()

    def _close(self, transport: asyncio.Transport) -> None:
        """All is said. What the client sends meanwhile is read: it would take the answer back."""
        self._is_over = True
        self._ahead = b""
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        if self._is_deaf:
            self._is_deaf = False
            transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        server = self._server
        self._timer = server.call_later(server.limits.linger_seconds, self.abort)

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    def _tick(self) -> None:
        """Look how long the client has been waited for."""
        transport = self._transport
        if transport is None:
            return
        server = self._server
        limits = server.limits
        waited = server.now() - self._since
        if self._is_paused:
            self._look_for_progress(transport)
        elif not self._is_busy:
            if self._needs_bytes and waited >= limits.body_seconds:
                self._answer(error_answer(too_slow(), V3_HEAD), closes=True)
            elif waited >= limits.idle_seconds:
                transport.close()
        if not (transport.is_closing() or self._is_over):
            self._timer = server.call_later(server.tick_seconds, self._tick)

    def _look_for_progress(self, transport: asyncio.Transport) -> None:
        size = transport.get_write_buffer_size()
        server = self._server
        if size < self._paused_size:
            self._paused_size = size
            self._since = server.now()
        elif server.now() - self._since >= server.limits.stall_seconds:
            transport.abort()
