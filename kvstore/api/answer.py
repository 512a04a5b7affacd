"""What a face gives back: neither aiohttp's response nor anybody else's.

The faces know no server. A face turns a request into a ``Pending`` call; whichever lane carries the
request starts it, waits in its own way, and lets the face turn the outcome into an ``Answer``. So a
lane that works in callbacks and one that awaits share the same faces.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from kvstore.api.error_map import error_body, header_text, http_status
from kvstore.errors import Code, KvError

CORS: Final = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
    b"Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
)
"""What etcd's gateway sends with every answer."""

JSON_HEAD: Final = b"Content-Type: application/json\r\n" + CORS
V3_HEAD: Final = (
    b"Content-Type: application/json\r\nGrpc-Metadata-Content-Type: application/grpc\r\n" + CORS
)
TEXT_HEAD: Final = b"Content-Type: text/plain; charset=utf-8\r\n" + CORS

Outcome: TypeAlias = Any
"""A typed response or a KvError: which response it is, is known to the call that waits for it."""

Reply: TypeAlias = Callable[[Outcome], None]


Leave: TypeAlias = Callable[[], None]
"""Tells a call that its caller went away; harmless after the reply, and more than once."""


class Answer:
    """A whole response.

    Args:
        body: the bytes, when they are all there.
        slices: pieces to encode and send one after the other, with the loop free in between;
            ``body`` is then empty. None for an ordinary answer.
        status: the HTTP status.
        head: the header lines, each ended by CRLF; the lane adds Date, the length and Connection.
    """

    __slots__ = ("body", "head", "slices", "status")

    def __init__(
        self,
        body: bytes,
        slices: Iterator[bytes] | None = None,
        status: int = 200,
        head: bytes = V3_HEAD,
    ) -> None:
        self.body = body
        self.slices = slices
        self.status = status
        self.head = head


class Pending(NamedTuple):
    """A call that is ready to go: ``begin`` it with a reply, ``finish`` what the reply was given.

    ``begin`` never raises, and calls back exactly once, perhaps before it returns; a call that may
    take long returns how to tell it that its caller went away. ``finish`` runs
    in the lane's own time: a big answer is not encoded in the middle of somebody else's turn.
    """

    begin: Callable[[Reply], Leave | None]
    finish: Callable[[Outcome], Answer]


class Refused(KvError):
    """The face refuses a request with an HTTP status of its own, for errors that gRPC cannot say.

    Args:
        status: the HTTP status.
        code: the nearest gRPC code.
        message: what is wrong and what would be right.
        head: extra header lines, each ended by CRLF.
    """

    def __init__(self, status: int, code: Code, message: str, head: bytes = b"") -> None:
        super().__init__(code, message)
        self.status = status
        self.head = head


def error_answer(error: KvError, head: bytes = V3_HEAD) -> Answer:
    """Any error as a whole response."""
    status = error.status if isinstance(error, Refused) else http_status(error.code)
    if isinstance(error, Refused):
        head += error.head
    if status == 401:
        head += f"WWW-Authenticate: {header_text(error.message)}\r\n".encode()
    return Answer(error_body(error.code, error.message), None, status, head)
