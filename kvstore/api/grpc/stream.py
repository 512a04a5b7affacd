"""One stream of a connection: its windows, its halves, and what its owner is told."""

from collections import deque
from typing import TYPE_CHECKING

from kvstore.api.grpc.frames import WINDOW_BYTES_DEFAULT
from kvstore.api.grpc.outbox import NOTHING, Piece

if TYPE_CHECKING:
    from kvstore.api.grpc.lifecycle import Connection


class Stream:
    """A stream that the client opened; whoever serves it overrides what it wants to hear.

    Args:
        connection: whose stream it is.
        stream_id: its number.
        expected_bytes: what ``content-length`` announced; None: nothing.
    """

    __slots__ = (
        "connection",
        "ending",
        "expected_bytes",
        "granted_bytes",
        "has_asked",
        "id",
        "is_answered",
        "is_client_done",
        "is_over",
        "moved_at",
        "pending",
        "pending_bytes",
        "unconsumed_bytes",
        "window_in",
        "window_out",
    )

    def __init__(
        self, connection: "Connection", stream_id: int, expected_bytes: int | None = None
    ) -> None:
        self.connection = connection
        self.id = stream_id
        self.expected_bytes = expected_bytes
        self.window_in = WINDOW_BYTES_DEFAULT
        self.window_out = connection.outbox.initial_window
        self.unconsumed_bytes = 0
        """What came in and is still held; the client's window is smaller by it."""
        self.granted_bytes = 0
        """What a large message may still bring."""
        self.has_asked = False
        self.pending: deque[Piece] = NOTHING
        self.pending_bytes = 0
        self.ending: bytes | None = None
        self.moved_at = 0.0
        """When DATA that waits last got on, or began to wait; seconds."""
        self.is_client_done = False
        self.is_answered = False
        """Whether our end is decided, though it may still wait to leave."""
        self.is_over = False
        """Whether nothing more comes, or goes, by it."""

    is_eager = False
    """Whether it is to be told at once that it is open; it may then be over at once."""

    # --- What its owner is told -------------------------------------------------------------------

    def on_open(self) -> None:
        """It is among the connection's streams; said to eager ones only."""

    def on_data(self, data: bytes, start: int, end: int, is_last: bool) -> None:
        """The client sent ``data[start:end]``, and nothing after it if it is the last."""

    def on_turn(self) -> None:
        """It was put off, and may read now what there is."""

    def on_gone(self) -> None:
        """The client took it back, or its connection is lost, or a rule was broken on it."""

    def on_room(self) -> None:
        """Some of what waited to leave has left, or there is room for more."""

    def on_tick(self, now: float) -> None:
        """Time has passed; seconds."""

    # --- What the outbox and the grants tell it ---------------------------------------------------

    def on_sent(self) -> None:
        """All has left, its end as well."""
        self.connection.close(self)

    def on_grant(self, size_bytes: int) -> None:
        """A large message may come in, of so many bytes together."""
