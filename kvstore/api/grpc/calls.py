"""What a call is to the server that carries it, and to the face that translates it.

``server.py`` knows HTTP/2 and gRPC, and no message; ``face.py`` knows the messages, and no
connection. Between them go the bytes of whole messages, without gRPC's five bytes in front.
"""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeAlias

from kvstore.api.answer import Leave, Outcome, Reply
from kvstore.service.caller import Caller


class Unary(NamedTuple):
    """A call with one request and one answer.

    ``begin`` never raises, and calls its reply exactly once, perhaps before it returns: with
    whatever ``encode`` takes, with the bytes that it would make of it, with a ``Long`` whose work
    ends in one of these, or with a ``KvError``. It returns how to tell the call that its caller
    went away, if it may take long.

    Attributes:
        begin: starts it: the message's bytes, who calls, and what to call with the outcome.
        encode: makes a message's bytes of an outcome that is no error.
        is_patient: whether the answer may be long in coming; it ends when the server stops.
    """

    begin: Callable[[bytes, Caller, Reply], Leave | None]
    encode: Callable[[Outcome], bytes]
    is_patient: bool = False


class Exchange(Protocol):
    """What a streaming call needs of the stream that carries it.

    Headers leave with the first message, or with the end. Nothing is kept without bound: the client
    may send no more than its flow-control window, which opens as messages are received here.
    """

    async def receive(self) -> bytes | None:
        """The next message, which may well be empty; None once the client has said all.

        Raises:
            KvError: what came is no message, or a longer one than is taken.
            ConnectionError: nobody is there any more.
        """

    async def send(self, messages: list[bytes]) -> None:
        """Write messages, small ones; returns when there is room for more.

        Raises:
            ConnectionError: nobody is there any more.
        """

    async def claim(self, bytes_max: int, bytes_min: int = 1) -> int:
        """Wait until the client takes more; how many bytes of it are to be made.

        Room for them is kept until ``write`` or ``waive``.

        Args:
            bytes_max: most that would be made at a time.
            bytes_min: what cannot be made in less, even if more than that is there than is liked.

        Raises:
            KvError: what came meanwhile is no message.
            ConnectionError: nobody is there any more.
        """

    def waive(self) -> None:
        """There is nothing to write for now."""

    def write(self, messages: list[bytes]) -> None:
        """Write what room was claimed for; nothing of it is kept besides.

        Raises:
            ConnectionError: nobody is there any more.
        """


Streaming: TypeAlias = Callable[[Exchange, Caller], Coroutine[Any, Any, None]]
"""Carries one conversation until it ends; raises KvError to end it with an error."""

Call: TypeAlias = Unary | Streaming

Calls: TypeAlias = dict[str, Call]
"""By path: ``/etcdserverpb.KV/Put``."""


class Face(Protocol):
    """What is served over gRPC."""

    calls: Calls
    """By path."""

    def drain(self) -> None:
        """The server stops: whoever asks after its health is told so."""
