"""What do a front worker and the replica say to each other over their Unix socket?

Each side sends frames, each a whole batch: what one turn of its loop has brought together.

::

    0        4
    +--------+------------------------------+
    | length | MessagePack, `length` bytes  |
    +--------+------------------------------+
     uint32, big-endian

The replica begins, with a ``Hello``. From then on frames to the replica are lists of calls, frames
from it lists of answers; an answer has the number of its call, and they come in any order. Whoever
sends is on the same machine and of the same version: what does not decode ends the link.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from bench.figures import BenchError
from kvstore.errors import Code, KvError, UnknownOutcomeError
from kvstore.service.caller import Caller
from kvstore.types import PutRequest, PutResponse, RangeRequest, RangeResponse

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
"""A longer frame is a mistake of ours: not even 20,000 calls of usual size need so much."""
_LENGTH_BYTES: Final = 4


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Who the replica is, and what it has been asked until now by all workers."""

    cluster_id: int
    member_id: int
    calls: int
    batches: int


class RangeCall(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """A read. ``caller`` is left out where nothing is known of it."""

    number: int
    request: RangeRequest
    caller: Caller | None = None


class PutCall(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """A write."""

    number: int
    request: PutRequest
    caller: Caller | None = None


class RangeAnswer(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """What a read found."""

    number: int
    response: RangeResponse


class PutAnswer(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """What became of a write."""

    number: int
    response: PutResponse


class Failure(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    """An answer that is an error."""

    number: int
    code: int
    message: str
    is_retryable: bool
    is_unknown: bool

    def error(self) -> KvError:
        """The error as the replica's service gave it."""
        code = Code(self.code)
        if self.is_unknown:
            return UnknownOutcomeError(code, self.message)
        return KvError(code, self.message, retryable=self.is_retryable)


Call: TypeAlias = RangeCall | PutCall
Answer: TypeAlias = RangeAnswer | PutAnswer | Failure

_encode: Final = msgspec.msgpack.Encoder().encode
decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode
decode_calls: Final = msgspec.msgpack.Decoder(list[Call]).decode
decode_answers: Final = msgspec.msgpack.Decoder(list[Answer]).decode


def failure(number: int, error: KvError) -> Failure:
    """An error as it is sent."""
    is_unknown = isinstance(error, UnknownOutcomeError)
    return Failure(number, error.code, error.message, error.retryable, is_unknown)


def frame(content: Hello | Sequence[Call] | Sequence[Answer]) -> bytes:
    """The bytes of one frame."""
    payload = _encode(content)
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class Frames:
    """Cuts a stream of bytes into the payloads of its frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now.

        Raises:
            BenchError: A frame says that it is longer than any may be.
        """
        if self._rest:
            data = self._rest + data
        payloads = []
        start = 0
        while len(data) - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            length = int.from_bytes(data[start:body], "big")
            if length > FRAME_BYTES_MAX:
                raise BenchError(f"a frame of {length} bytes: the two sides do not agree")
            if len(data) - body < length:
                break
            start = body + length
            payloads.append(data[body:start])
        self._rest = data[start:]
        return payloads
