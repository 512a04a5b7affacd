"""Streaming calls, a task each: the stream is their ``Exchange``."""

import asyncio
import logging
from asyncio import TimerHandle
from functools import partial
from typing import TYPE_CHECKING, Final

from kvstore.api.grpc import answers
from kvstore.api.grpc.answers import PREFIX, PREFIX_BYTES
from kvstore.api.grpc.assembly import Assembly
from kvstore.api.grpc.call_stream import CallStream, cut_short, out_of_time, too_late
from kvstore.api.grpc.calls import Streaming
from kvstore.api.grpc.frames import ErrorCode
from kvstore.api.grpc.heads import Head
from kvstore.api.grpc.lifecycle import Connection
from kvstore.api.grpc.outbox import AHEAD_BYTES, Piece
from kvstore.api.running import internal_error
from kvstore.errors import Code, ErrorKind, KvError

if TYPE_CHECKING:
    from kvstore.api.grpc.server import Lane

log = logging.getLogger("kvstore.api")

ROOM_BYTES: Final = AHEAD_BYTES
"""A stream that has no more than this waiting may send more."""


class StreamingCall(CallStream):
    """One streaming call.

    Args:
        lane: what it needs of the server.
        connection: whose stream it is.
        stream_id: its number.
        head: the head of the call.
        call: the call.
    """

    __slots__ = (
        "_call",
        "_claimed_bytes",
        "_error",
        "_fault",
        "_held_bytes",
        "_is_open",
        "_part_since",
        "_reader",
        "_task",
        "_timer",
        "_writer",
    )
    is_eager = True

    def __init__(
        self, lane: "Lane", connection: Connection, stream_id: int, head: Head, call: Streaming
    ) -> None:
        super().__init__(lane, connection, stream_id, head)
        self._call = call
        self._error: KvError | None = None
        """Why we ended it."""
        self._fault: KvError | None = None
        """What is wrong with what the client sent."""
        self._is_open = False
        """Whether its head is out."""
        self._claimed_bytes = 0
        self._held_bytes = 0
        """What we hold of what came in, as the connection counts it."""
        self._part_since: float | None = None
        """Since when the message is coming in that is not whole; seconds."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: TimerHandle | None = None

    # --- An exchange ------------------------------------------------------------------------------

    async def receive(self) -> bytes | None:
        """The next message; None once the client has said all.

        Raises:
            KvError: what came is no message, or a longer one than is taken.
            ConnectionError: nobody is there any more.
        """
        while True:
            assembly = self._assembly
            if assembly is not None and assembly.messages:
                message = assembly.messages[0]
                room = self._lane.turns.has_room(
                    len(message.body), is_compressed=message.is_compressed
                )
                if not room and not await self._has_turn(assembly):
                    continue
                assembly.messages.popleft()
                self.unconsumed_bytes -= PREFIX_BYTES + len(message.body)
                self.connection.refill(self)
                self._account()
                self._lane.wake(self.connection)
                return self.open_message(message)
            if self._fault is not None:
                raise self._fault
            self._check_there()
            if self.is_client_done:
                return None
            self._reader = self._lane.new_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def _has_turn(self, assembly: Assembly) -> bool:
        """Wait until a message may be read; False if it is not there any more."""
        turn = self._lane.new_future()
        self._lane.turns.call_soon(partial(self._give, turn))
        await turn
        return self._assembly is assembly

    def _give(self, turn: "asyncio.Future[None]") -> None:
        if not turn.done():
            # It reads once the loop comes to it, and then it may take long.
            self._lane.turns.end()
            turn.set_result(None)

    async def send(self, messages: list[bytes]) -> None:
        """Write messages, small ones; returns when there is room for more.

        Raises:
            ConnectionError: nobody is there any more.
        """
        self.write(messages)
        while self.pending_bytes > ROOM_BYTES:
            await self._until_room()
            self._check_there()

    async def claim(self, bytes_max: int, bytes_min: int = 1) -> int:
        """Wait until the client takes more; how many bytes of it are to be made.

        Args:
            bytes_max: most that would be made at a time.
            bytes_min: what cannot be made in less.

        Raises:
            KvError: what came meanwhile is no message.
            ConnectionError: nobody is there any more.
        """
        self.waive()
        outbox = self.connection.outbox
        while True:
            self._check_there()
            size = outbox.claim(self, bytes_max, bytes_min)
            if size:
                self._claimed_bytes = size
                return size
            if self._fault is not None:
                raise self._fault
            # Perhaps it was called, and cannot go on for its own window.
            outbox.call_next()
            await self._until_room()

    def waive(self) -> None:
        """There is nothing to write for now."""
        size, self._claimed_bytes = self._claimed_bytes, 0
        if size:
            self.connection.outbox.waive(size)

    def write(self, messages: list[bytes]) -> None:
        """Write messages.

        Raises:
            ConnectionError: nobody is there any more.
        """
        self._check_there()
        outbox = self.connection.outbox
        if not self._is_open:
            self._is_open = True
            outbox.frames.append(answers.head(self.id))
        parts: list[bytes] = []
        for message in messages:
            parts += (PREFIX.pack(0, len(message)), message)
        pieces: list[Piece] = [b"".join(parts)]
        size = len(pieces[0])
        if size:
            outbox.send(self, pieces, size, self._lane.now())
        self.waive()
        self._lane.wake(self.connection)

    async def _until_room(self) -> None:
        self._writer = self._lane.new_future()
        try:
            await self._writer
        finally:
            self._writer = None

    def _check_there(self) -> None:
        if self.is_over or self.is_answered:
            raise ConnectionResetError("the client is gone")

    # --- Its life ---------------------------------------------------------------------------------

    def on_open(self) -> None:
        """Start."""
        lane = self._lane
        caller = self._head.caller
        if lane.is_stopping:
            self.fail(ErrorKind.STOPPED.error())
            return
        if caller.timeout_seconds is not None:
            if caller.timeout_seconds == 0:
                self.fail(out_of_time())
                return
            self._timer = lane.call_later(caller.timeout_seconds, self._expire)
        lane.streaming[self] = None
        lane.count_streams(1)
        self._task = lane.new_task(self._call(self, caller))
        self._task.add_done_callback(self._on_done)

    def on_data(self, data: bytes, start: int, end: int, is_last: bool) -> None:
        """A piece of what the client says."""
        if self._fault is not None or self.is_answered:
            return
        assembly = self._assembly
        whole = len(assembly.messages) if assembly is not None else 0
        try:
            assembly = self.gather(data, start, end)
            if is_last and assembly.part_bytes:
                raise cut_short()
        except KvError as error:
            self._refuse_more(error)
            return
        if not assembly.part_bytes:
            self._part_since = None
        elif self._part_since is None or len(assembly.messages) > whole:
            self._part_since = self.connection.now
        self._account()
        self.connection.refill(self)
        _wake(self._reader)

    def on_grant(self, size_bytes: int) -> None:
        """A large message may come in; it is counted apart."""
        super().on_grant(size_bytes)
        self._account()

    def _account(self) -> None:
        """Tell the connection how much we hold."""
        held = self.unconsumed_bytes
        assembly = self._assembly
        if assembly is not None and self._granted_at is not None:
            held -= assembly.part_bytes
        change = held - self._held_bytes
        if change:
            self._held_bytes = held
            self.connection.hold(change)

    def _refuse_more(self, error: KvError) -> None:
        """What comes is not wanted: what came before it is still received, and then the error."""
        self._fault = error
        self._part_since = self._granted_at = None
        self.connection.received(self)
        assembly = self._assembly
        if assembly is not None:
            assembly.drop_part()
            self.unconsumed_bytes = assembly.whole_bytes
        self._account()
        _wake(self._reader)
        _wake(self._writer)

    def _forget(self) -> None:
        """Nobody receives any more."""
        self._assembly = None
        self._part_since = None
        self.unconsumed_bytes = 0
        self._account()

    def on_room(self) -> None:
        """The client took something, or may take more."""
        if self.pending_bytes <= ROOM_BYTES:
            _wake(self._writer)

    def on_gone(self) -> None:
        """Nobody is there any more."""
        self._forget()
        if self._task is not None:
            self._task.cancel()

    def on_tick(self, now: float) -> None:
        """Look whether a message is late of which a part is there, or the last words are not taken.

        A conversation itself may last, and its client look away from it.
        """
        limits = self._lane.limits
        if self.is_answered:
            if self.connection.outbox.has_stalled(self, now, limits.stall_seconds):
                self._lane.counters.untaken += 1
                self.connection.reset(self, ErrorCode.CANCEL)
            return
        since = self._part_since if self._granted_at is None else self._granted_at
        if since is not None and now >= since + limits.body_seconds:
            # While it does not come, no other large one of its connection does; and each small
            # one takes of what the connection may hold.
            self._refuse_more(too_late("the request"))

    def stop(self) -> None:
        """The server stops."""
        self._end_with(ErrorKind.STOPPED.error())

    def _expire(self) -> None:
        if self.pending:
            # What waits would keep the end from being told in time.
            self.connection.reset(self, ErrorCode.CANCEL)
            self._lane.wake(self.connection)
        else:
            self._end_with(out_of_time())

    def _end_with(self, error: KvError) -> None:
        self._error = error
        if self._task is not None:
            self._task.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        lane = self._lane
        lane.count_streams(-1)
        lane.streaming.pop(self, None)
        self._task = None
        self.waive()
        self.connection.outbox.leave_line(self)
        self._forget()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, KvError | ConnectionError):
            log.error("a stream failed by a mistake of the server's own", exc_info=failure)
            lane.surprise()
            failure = internal_error()
        if self.is_over or self.is_answered:
            return
        error = self._error
        if error is None and isinstance(failure, KvError):
            error = failure
        elif error is None and (task.cancelled() or failure is not None):
            error = KvError(Code.CANCELED, "kvstore: the stream was given up")
        self._finish(error)

    def _finish(self, error: KvError | None) -> None:
        if error is not None and not self._is_open:
            self.fail(error)
            return
        self.is_answered = True
        outbox = self.connection.outbox
        if not self._is_open:
            outbox.frames.append(answers.head(self.id))
        ending = answers.end(self.id) if error is None else answers.error_end(self.id, error)
        outbox.finish(self, ending)
        self._lane.count(Code.OK if error is None else error.code)
        self._lane.wake(self.connection)


def _wake(future: "asyncio.Future[None] | None") -> None:
    if future is not None and not future.done():
        future.set_result(None)
