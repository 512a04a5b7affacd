"""How far has one watcher read? A cursor, a few events, and the keys it is about."""

from typing import TYPE_CHECKING, Final

from kvstore.types import FilterType

if TYPE_CHECKING:
    from kvstore.types import Event, WatchCreateRequest
    from kvstore.watch.stream import WatchStream

NEVER: Final = 1 << 63
"""Above every revision."""


class Watcher:
    """One watcher of a stream.

    It is *synced* while every event it is owed is in ``pending``, and new ones are put there as
    they are published. Otherwise it *lags*: beyond what is pending it is owed everything from
    ``cursor`` on, and reads that from the log, a piece at a time as its stream takes, until it is
    synced again::

                    created at an old revision
                                │
                     too many pending, or a huge
                     change, or another store          has read to the end of the log
          synced ──────────────────────────▶ lags ──────────────────────────▶ synced
                                               │
                                               ▼ the cursor was compacted
                                            closed

    Attributes:
        cursor: Synced: no event of a lower revision is owed beyond ``pending``. Lagging: the
            revision to read on from.
        puts_from: The first revision whose puts it takes as they are published; NEVER while it lags
            or filters puts. One comparison tells a publish all it needs to know.
        deletes_from: The same for deletions.
        pending: Events to take, whole revisions, in order; None instead of an empty list, since
            most watchers are idle.
        gathered: Lagging only: events of the revision at ``cursor``, whose rest is beyond
            ``ordinal``; ``gathered_bytes`` is about their size.
        ordinal: Lagging only: where in the log to read on; -1: not yet looked up.
        sent: Events of the revision at ``cursor`` that have left already, as fragments.
        skip: Lagging only: how many of them are still to be passed over, since the revision is read
            again from its start.
        epoch: The store that ``ordinal`` and ``gathered`` belong to.
        queued: Whether it stands in its stream's queue.
        active: Whether events were taken since the last progress tick.
        progress_due: Whether a progress notification is to be taken.
        closed: Cancelled: nothing more leaves.
    """

    __slots__ = (
        "active",
        "closed",
        "cursor",
        "deletes_from",
        "epoch",
        "fragment",
        "gathered",
        "gathered_bytes",
        "id",
        "key",
        "no_delete",
        "no_put",
        "ordinal",
        "pending",
        "pending_bytes",
        "prev_kv",
        "progress_due",
        "puts_from",
        "queued",
        "range_end",
        "sent",
        "skip",
        "start_revision",
        "stream",
        "synced",
    )

    def __init__(self, stream: "WatchStream", watch_id: int, request: "WatchCreateRequest") -> None:
        self.stream = stream
        self.id = watch_id
        self.key = request.key or b"\0"
        self.range_end = request.range_end
        self.start_revision = request.start_revision
        self.prev_kv = request.prev_kv
        self.fragment = request.fragment
        self.no_put = FilterType.NOPUT in request.filters
        self.no_delete = FilterType.NODELETE in request.filters
        self.pending: list[Event] | None = None
        self.pending_bytes = 0
        self.queued = False
        self.active = False
        self.progress_due = False
        self.closed = False
        self.synced = False
        self.cursor = request.start_revision
        self.puts_from = self.deletes_from = NEVER
        self.ordinal = -1
        self.epoch = -1
        self.sent = self.skip = 0
        self.gathered: list[Event] = []
        self.gathered_bytes = 0

    def sync(self, cursor: int) -> None:
        """From this revision on, events come as they are published."""
        self.synced = True
        self.cursor = cursor
        self.puts_from = NEVER if self.no_put else cursor
        self.deletes_from = NEVER if self.no_delete else cursor

    def lag(self, cursor: int) -> None:
        """From this revision on, events are read from the log."""
        self.synced = False
        self.cursor = cursor
        self.puts_from = self.deletes_from = NEVER
        self.ordinal = -1
        self.sent = self.skip = 0

    def move(self, cursor: int) -> None:
        """Everything below this revision has been read."""
        # The first block of a stretch begins at a round place, and may end below the cursor.
        if cursor > self.cursor:
            self.cursor = cursor
            self.sent = self.skip = 0
