"""What members say to each other over their links.

Raft's messages, and calls that only another member can answer.

The first byte of a frame tells which::

    1 | raft message (raft/codec.py)
    2 | MessagePack [id, method, body]      a call
    3 | MessagePack [id, ok, body]          its answer

Format 1 of the peer protocol is this and the frames of ``network/framed.py``; its name,
kvstore-raft/1, is settled at the upgrade.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.server.network.base import FrameError, Network
from raft.codec import decode_message, encode_message
from raft.errors import CodecError
from raft.messages import AppendEntries, Message

log = logging.getLogger("kvstore.peers")

_RAFT: Final = 1
_CALL: Final = 2
_ANSWER: Final = 3
_RAFT_PREFIX: Final = bytes([_RAFT])
_CALL_PREFIX: Final = bytes([_CALL])
_ANSWER_PREFIX: Final = bytes([_ANSWER])

CALLS_MAX: Final = 20_000
"""Calls to other members that may wait at a time; more are refused at once as retryable."""

CALL_BYTES_MAX: Final = 16 * 1024 * 1024
"""What a call or its answer may carry: it holds up heartbeats on the same link."""

CallReply = Callable[["bytes | KvError"], None]
CallHandler = Callable[[bytes, CallReply], None]

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(tuple[int, str, bytes]).decode
_decode_answer = msgspec.msgpack.Decoder(tuple[int, bool, bytes]).decode
_decode_error = msgspec.msgpack.Decoder(tuple[int, str, bool]).decode


class Peers:
    """Frames in and out, over whatever ``Network`` there is.

    Args:
        network: Carries frames.
        loop: For the deadlines of calls.
        on_message: Gets every raft message that decodes.
        on_unreachable: Told of a member when frames to it may have been lost.
        first_call: The number of the first call, drawn at random from 62 bits. A former life of
            this process numbered its calls too, and their answers may still be under way.
    """

    def __init__(
        self,
        network: Network,
        loop: asyncio.AbstractEventLoop,
        member_id: int,
        on_message: Callable[[Message], None],
        on_unreachable: Callable[[int], None],
        first_call: int,
    ) -> None:
        self._network = network
        self._loop = loop
        self._member_id = member_id
        self._on_message = on_message
        self._on_unreachable = on_unreachable
        self._handlers: dict[str, CallHandler] = {}
        self._calls: dict[int, tuple[int, CallReply, asyncio.TimerHandle]] = {}
        self._next_call = first_call
        self.sent_bytes_total: dict[int, int] = {}
        self.received_bytes_total: dict[int, int] = {}
        self.send_failures_total: dict[int, int] = {}

    # --- raft -------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a raft message, or lose it: raft expects no more of a network."""
        receiver = message.receiver
        frame = _RAFT_PREFIX + encode_message(message)
        if self._network.send(receiver, frame):
            self.sent_bytes_total[receiver] = self.sent_bytes_total.get(receiver, 0) + len(frame)
            return
        self.send_failures_total[receiver] = self.send_failures_total.get(receiver, 0) + 1
        if type(message) is AppendEntries:
            # Raft counts these as in flight: without a word it would wait for answers that never
            # come.
            self._on_unreachable(receiver)

    def on_frame(self, member: int, frame: bytes) -> None:
        """One frame from a member.

        Raises:
            FrameError: It means nothing, or speaks for somebody else.
        """
        self.received_bytes_total[member] = self.received_bytes_total.get(member, 0) + len(frame)
        kind = frame[0]
        if kind == _RAFT:
            try:
                message = decode_message(frame[1:])
            except CodecError as error:
                raise FrameError(str(error)) from error
            if message.sender != member or message.receiver != self._member_id:
                raise FrameError("a message names another sender or receiver than its connection")
            self._on_message(message)
        elif kind == _CALL:
            self._on_call(member, frame[1:])
        elif kind == _ANSWER:
            self._on_answer(member, frame[1:])
        else:
            raise FrameError(f"a frame of the unknown kind {kind}")

    def on_link(self, member: int, *, up: bool) -> None:
        """A link came up or broke."""
        if not up:
            self._on_unreachable(member)
            broken = [call for call, (callee, _, _) in self._calls.items() if callee == member]
            for call in broken:
                self._settle(call, ErrorKind.TIMEOUT_CONNECTION_LOST.error())

    # --- calls ------------------------------------------------------------------------------------

    def serve(self, method: str, handler: CallHandler) -> None:
        """Answer calls of this method."""
        self._handlers[method] = handler

    def call(
        self, member: int, method: str, body: bytes, timeout_seconds: float, reply: CallReply
    ) -> None:
        """Ask another member. ``reply`` is called once, with its answer or an error."""
        if len(self._calls) >= CALLS_MAX:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        if len(body) > CALL_BYTES_MAX:
            reply(ErrorKind.REQUEST_TOO_LARGE.error())
            return
        call = self._next_call
        self._next_call = call + 1
        if not self._network.send(member, _CALL_PREFIX + _encode((call, method, body))):
            reply(ErrorKind.NO_LEADER.error())
            return
        timer = self._loop.call_later(
            timeout_seconds, self._settle, call, ErrorKind.TIMEOUT.error()
        )
        self._calls[call] = (member, reply, timer)

    def _settle(self, call: int, answer: "bytes | KvError") -> None:
        waiting = self._calls.pop(call, None)
        if waiting is not None:
            _, reply, timer = waiting
            timer.cancel()
            reply(answer)

    def _on_call(self, member: int, frame: bytes) -> None:
        try:
            call, method, body = _decode_call(frame)
        except msgspec.DecodeError as error:
            raise FrameError(f"no call: {error}") from error

        def answer(result: "bytes | KvError") -> None:
            if not isinstance(result, KvError) and len(result) > CALL_BYTES_MAX:
                result = ErrorKind.RESPONSE_TOO_LARGE.error()
            if isinstance(result, KvError):
                body = _encode((int(result.code), result.message, result.retryable))
                self._network.send(member, _ANSWER_PREFIX + _encode((call, False, body)))
            else:
                self._network.send(member, _ANSWER_PREFIX + _encode((call, True, result)))

        handler = self._handlers.get(method)
        if handler is None:
            answer(
                KvError(
                    Code.UNIMPLEMENTED, f"kvstore: this member knows no call {method!r}: upgrade it"
                )
            )
            return
        try:
            handler(body, answer)
        except msgspec.DecodeError as error:
            raise FrameError(f"a call of {method!r} has a broken body: {error}") from error

    def _on_answer(self, member: int, frame: bytes) -> None:
        answer: bytes | KvError
        try:
            call, ok, answer = _decode_answer(frame)
            if not ok:
                code, message, retryable = _decode_error(answer)
                answer = KvError(Code(code), message, retryable=retryable)
        except (msgspec.DecodeError, ValueError) as error:
            raise FrameError(f"no answer to a call: {error}") from error
        waiting = self._calls.get(call)
        # Nobody but the member that was called can know the answer.
        if waiting is not None and waiting[0] == member:
            self._settle(call, answer)
