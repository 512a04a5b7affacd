"""Unary calls, in callbacks: no task and no future; most are one read and one write."""

import logging
from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from kvstore.api.answer import Leave, Outcome
from kvstore.api.grpc import answers
from kvstore.api.grpc.answers import PREFIX, PREFIX_BYTES
from kvstore.api.grpc.call_stream import CallStream, cut_short, out_of_time, too_late
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.frames import WINDOW_BYTES_DEFAULT, ErrorCode
from kvstore.api.grpc.heads import Head
from kvstore.api.grpc.lifecycle import Connection
from kvstore.api.grpc.long_answers import Long
from kvstore.api.grpc.outbox import NOTHING
from kvstore.api.running import internal_error
from kvstore.errors import Code, ErrorKind, KvError

if TYPE_CHECKING:
    from kvstore.api.grpc.server import Lane

log = logging.getLogger("kvstore.api")

SMALL_ANSWER_BYTES: Final = 64 * 1024
"""An answer as small as this is given however much the client has left untaken."""


class UnaryStream(CallStream):
    """One unary call.

    Args:
        lane: what it needs of the server.
        connection: whose stream it is.
        stream_id: its number.
        head: the head of the call.
        call: the call.
    """

    __slots__ = ("_call", "_has_begun", "_leave", "_timer")

    def __init__(
        self, lane: "Lane", connection: Connection, stream_id: int, head: Head, call: Unary
    ) -> None:
        # All that the constructors above do, without a call for each: calls are many.
        self.connection = connection
        self.id = stream_id
        self.expected_bytes = head.content_length
        self.window_in = WINDOW_BYTES_DEFAULT
        self.window_out = connection.outbox.initial_window
        self.unconsumed_bytes = self.granted_bytes = self.pending_bytes = 0
        self.has_asked = self.is_client_done = self.is_answered = self.is_over = False
        self.pending = NOTHING
        self.ending = None
        self.moved_at = 0.0
        self._lane = lane
        self._head = head
        self._assembly = None
        self._began_at = connection.now
        self._granted_at = None
        self._call = call
        self._has_begun = False
        self._leave: Leave | None = None
        self._timer: TimerHandle | None = None

    # --- In ---------------------------------------------------------------------------------------

    def on_data(self, data: bytes, start: int, end: int, is_last: bool) -> None:
        """A piece of the request: mostly all of it."""
        if self._assembly is None and is_last and end - start >= PREFIX_BYTES:
            flag, length = PREFIX.unpack_from(data, start)
            if (
                flag == 0
                and length == end - start - PREFIX_BYTES
                and length <= self._lane.message_bytes_max
            ):
                self._begin(data[start + PREFIX_BYTES : end])
                return
        if self.is_answered:
            return
        try:
            assembly = self.gather(data, start, end)
            if len(assembly.messages) > 1 or (assembly.messages and assembly.part_bytes):
                raise _not_one("more than one")
            if not is_last:
                self.connection.refill(self)
            elif assembly.part_bytes:
                raise cut_short()
            elif not assembly.messages:
                raise _not_one("none")
            else:
                message = assembly.messages[0]
                size = len(message.body)
                # One that came in one piece was counted as a frame.
                if self._lane.turns.has_room(size, is_compressed=message.is_compressed):
                    self._open()
                else:
                    self.connection.put_off(self)
        except KvError as error:
            self.fail(error)

    def on_turn(self) -> None:
        """Read the message that was put off."""
        if not self.is_answered:
            try:
                self._open()
            except KvError as error:
                self.fail(error)

    def _open(self) -> None:
        assembly = self._assembly
        assert assembly is not None, "a message is there"
        self._begin(self.open_message(assembly.messages.popleft()))

    def _begin(self, message: bytes) -> None:
        self._has_begun = True
        self._assembly = None
        head = self._head
        caller = head.caller
        if head.seconds is not None:
            waited = self.connection.now - self._began_at
            if waited or head.seconds == 0:
                caller = head.caller_after(waited)
            if caller.timeout_seconds == 0:
                self.fail(out_of_time())
                return
        call = self._call
        if call.is_patient and self._lane.is_stopping:
            self.fail(ErrorKind.STOPPED.error())
            return
        try:
            leave = call.begin(message, caller, self.reply)
        except Exception:
            log.exception("a call failed by a mistake of the server's own")
            self._lane.surprise()
            self.reply(internal_error())
            return
        if leave is not None and not self.is_answered:
            self._leave = leave
        if call.is_patient and not self.is_answered:
            self._lane.patient[self] = None
            if caller.timeout_seconds is not None:
                self._timer = self._lane.call_later(caller.timeout_seconds, self._expire)

    # --- Out --------------------------------------------------------------------------------------

    def reply(self, outcome: Outcome) -> None:
        """What the call came to; nobody may want to know any more."""
        if self.is_over or self.is_answered:
            return
        call = self._call
        if call.is_patient:
            self._end_patience()
        if isinstance(outcome, KvError):
            self.fail(outcome)
            return
        kind = type(outcome)
        if kind is Long:
            self._lane.encode_long(self, outcome)
            return
        try:
            message = outcome if kind is bytes else call.encode(outcome)
        except Exception:
            log.exception("an answer could not be encoded by a mistake of the server's own")
            self.surprise()
            return
        self.is_answered = True
        connection = self.connection
        outbox = connection.outbox
        lane = self._lane
        if outbox.take_room(self, len(message) + PREFIX_BYTES):
            lane.answers[0] += 1
            outbox.frames.append(answers.whole(self.id, message))
            connection.close(self)
        else:
            self._queue(message)
        if not connection.is_awake:
            lane.wake(connection)

    def surprise(self) -> None:
        """It failed by a mistake of ours."""
        self._lane.surprise()
        self.fail(internal_error())

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the answer still."""
        return not (self.is_over or self.is_answered)

    def _queue(self, message: bytes) -> None:
        """Let an answer wait for room, unless too much waits already."""
        connection = self.connection
        outbox = connection.outbox
        size = len(message) + PREFIX_BYTES
        if outbox.pending_bytes > self._lane.limits.unsent_bytes_max and size > SMALL_ANSWER_BYTES:
            self._lane.counters.untaken += 1
            self.fail(_untaken(outbox.pending_bytes))
            return
        self._lane.count(Code.OK)
        outbox.frames.append(answers.head(self.id))
        prefix = PREFIX.pack(0, len(message))
        pieces = [prefix, message] if message else [prefix]
        outbox.send(self, pieces, size, self._lane.now())
        outbox.finish(self, answers.end(self.id))

    # --- What else can happen ---------------------------------------------------------------------

    def on_gone(self) -> None:
        """Nobody waits any more."""
        self._assembly = None
        self._give_up()

    def on_tick(self, now: float) -> None:
        """Look whether the request is late, or the answer is not taken."""
        limits = self._lane.limits
        if not self._has_begun and not self.is_answered:
            seconds = self._head.seconds
            waited = now - self._began_at
            if seconds is not None and waited >= seconds:
                self.fail(out_of_time())
            elif waited >= limits.body_seconds:
                self.fail(too_late("the request"))
        elif self.connection.outbox.has_stalled(self, now, limits.stall_seconds):
            self._lane.counters.untaken += 1
            self.connection.reset(self, ErrorCode.CANCEL)

    def stop(self) -> None:
        """The server stops, and the call would take long."""
        self._give_up()
        self.fail(ErrorKind.STOPPED.error())

    def _expire(self) -> None:
        self._give_up()
        self.fail(out_of_time())

    def _give_up(self) -> None:
        leave, self._leave = self._leave, None
        self._end_patience()
        self.is_answered = True
        if leave is not None:
            leave()

    def _end_patience(self) -> None:
        self._lane.patient.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _not_one(count: str) -> KvError:
    words = f"grpc: a unary call has one request message, not {count}"
    return KvError(Code.UNIMPLEMENTED, words)


def _untaken(size: int) -> KvError:
    words = f"kvstore: {size} bytes of earlier answers wait to be read; read them, then ask again"
    return KvError(Code.RESOURCE_EXHAUSTED, words)
