"""What unary and streaming calls have in common: a message comes in, and an error may go out."""

from typing import TYPE_CHECKING

from kvstore.api.grpc import answers
from kvstore.api.grpc.assembly import Assembly, Message, opened
from kvstore.api.grpc.frames import WINDOW_BYTES_DEFAULT
from kvstore.api.grpc.heads import Head, Refusal
from kvstore.api.grpc.lifecycle import Connection
from kvstore.api.grpc.stream import Stream
from kvstore.errors import Code, ErrorKind, KvError

if TYPE_CHECKING:
    from kvstore.api.grpc.server import Lane


def too_late(what: str) -> KvError:
    """The client took too long to send something."""
    return KvError(Code.DEADLINE_EXCEEDED, f"kvstore: {what} did not come in in time")


def cut_short() -> KvError:
    """The client ended in the middle of a message."""
    return KvError(Code.INTERNAL, "grpc: the request ends in the middle of a message")


class CallStream(Stream):
    """A stream that carries a call.

    Args:
        lane: what it needs of the server.
        connection: whose stream it is.
        stream_id: its number.
        head: the head of the call.
    """

    __slots__ = ("_assembly", "_began_at", "_granted_at", "_head", "_lane")

    def __init__(self, lane: "Lane", connection: Connection, stream_id: int, head: Head) -> None:
        super().__init__(connection, stream_id, head.content_length)
        self._lane = lane
        self._head = head
        self._assembly: Assembly | None = None
        self._began_at = connection.now
        self._granted_at: float | None = None
        """Since when a message larger than the window may come in; seconds."""

    def gather(self, data: bytes, start: int, end: int) -> Assembly:
        """Put DATA to what came before it; a message larger than the window is asked for.

        Raises:
            KvError: what comes is no message, or a longer one than is taken.
        """
        assembly = self._assembly
        if assembly is None:
            assembly = self._assembly = Assembly(self._lane.limits.raw_body_bytes_max)
        self.unconsumed_bytes += end - start
        if assembly.feed(data, start, end):
            self._granted_at = None
            self.connection.received(self)
        if assembly.wanted_bytes > WINDOW_BYTES_DEFAULT and not self.has_asked:
            self.connection.ask(self, assembly.wanted_bytes)
        return assembly

    def on_grant(self, size_bytes: int) -> None:
        """A large message may come in."""
        assembly = self._assembly
        self.granted_bytes = size_bytes - (assembly.part_bytes if assembly else 0)
        self._granted_at = self._lane.now()
        self.connection.refill(self)

    def open_message(self, message: Message) -> bytes:
        """A message's bytes.

        Raises:
            KvError: it cannot be decompressed, or becomes too long.
        """
        if not message.is_compressed:
            return message.body
        bytes_max = self._lane.limits.raw_body_bytes_max
        return opened(message, bytes_max, is_gzip=self._head.is_gzip)

    def fail(self, error: KvError, status: int = 200, more: bytes = b"") -> None:
        """Answer with an error, before anything else was said."""
        self.is_answered = True
        ending = answers.error_only(self.id, error, status, more)
        self.connection.outbox.finish(self, ending)
        self._lane.count(error.code)
        self._lane.wake(self.connection)


class RefusedCall(CallStream):
    """A call that is none: its answer is known from its head.

    Args:
        lane: what it needs of the server.
        connection: whose stream it is.
        stream_id: its number.
        head: the head of the call.
        refusal: the answer.
    """

    __slots__ = ("_refusal",)
    is_eager = True

    def __init__(
        self,
        lane: "Lane",
        connection: Connection,
        stream_id: int,
        head: Head,
        refusal: Refusal,
    ) -> None:
        super().__init__(lane, connection, stream_id, head)
        self._refusal = refusal

    def on_open(self) -> None:
        """Answer."""
        refusal = self._refusal
        self.fail(refusal.error, refusal.status, refusal.more)


def out_of_time() -> KvError:
    """The caller's time is over."""
    return ErrorKind.DEADLINE_EXCEEDED.error()
