"""Who is to hear of what was just published? All streams of a member, and the keys they watch."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from kvstore.errors import ErrorKind
from kvstore.types import Event, KeyValue
from kvstore.watch.catch_up import CatchUp
from kvstore.watch.events import make_event, make_event_with_previous, size_of
from kvstore.watch.limits import WatchLimits
from kvstore.watch.ranges import RangeIndex
from kvstore.watch.reader import EmptyLog
from kvstore.watch.stream import WatchStream

if TYPE_CHECKING:
    from kvstore.watch.ranges import Group
    from kvstore.watch.reader import LogReader
    from kvstore.watch.watcher import Watcher

TAKE_DOWN_A_PUBLISH: Final = 8
TAKE_DOWN_A_TICK: Final = 1024
"""Watchers of closed streams to remove at each occasion. Until then they match in vain."""


class WatchHub:
    """All watchers of a member. ``rebase`` binds it to a store.

    Args:
        limits: What watching may hold.

    Attributes:
        watchers: How many there are, those of closed streams included until they are removed.
        lagging: How many of them read from the log.
        events_total: Events that left, each counted once a watcher.
    """

    __slots__ = (
        "_closing",
        "_index",
        "_revision",
        "_streams",
        "catch_up",
        "events_total",
        "lagging",
        "limits",
        "reader",
        "watchers",
    )

    def __init__(self, limits: WatchLimits | None = None) -> None:
        self.limits = limits or WatchLimits()
        self.reader: LogReader = EmptyLog()
        self.catch_up = CatchUp(self.reader, 0, self.limits)
        # Everything up to here was matched, or will be read from the log.
        self._revision = self.reader.revision
        self._index = RangeIndex()
        self._closing: deque[WatchStream] = deque()
        self._streams: dict[WatchStream, None] = {}
        self.watchers = 0
        self.lagging = 0
        self.events_total = 0

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    # --- called by apply -------------------------------------------------------------------------

    def publish(self, revision: int, records: Sequence[KeyValue]) -> None:
        """A revision was published, and these are all of its records, in order.

        Costs a comparison while nobody watches, and a few look-ups a record while nobody watches
        its key. ``on_ready`` of streams is called when all is in place: the events of one revision
        arrive together.
        """
        self._revision = revision
        if not self.watchers:
            return
        if self._closing:
            self._take_down(TAKE_DOWN_A_PUBLISH)
        ready: list[WatchStream] = []
        matching = self._index.matching
        for record in records:
            groups = matching(record.key)
            if groups:
                self._match(revision, record, groups, ready)
        for stream in ready:
            stream.on_ready()

    def publish_range(self, revision: int) -> None:
        """A revision was published that has too many records to match them in one step.

        Who watches any of them reads them from the log.
        """
        self._revision = revision
        self._reread(revision, revision)

    def rebase(self, reader: "LogReader") -> None:
        """Another store takes the place of the present one, at the same revision or further on.

        Cursors carry on in it; those that it has compacted are cancelled.
        """
        self.reader = reader
        self.catch_up = CatchUp(reader, self.catch_up.epoch + 1, self.limits)
        first = self._revision + 1
        self._revision = reader.revision
        self._reread(first, reader.revision)

    # --- called by the driver and the service ----------------------------------------------------

    def open_stream(self, on_ready: Callable[[], None]) -> WatchStream:
        """A stream for one client.

        Args:
            on_ready: See ``WatchStream``.

        Raises:
            KvError: TOO_MANY_REQUESTS: there are as many streams as there may be.
        """
        if len(self._streams) >= self.limits.streams_max:
            raise ErrorKind.TOO_MANY_REQUESTS.error()
        stream = WatchStream(self, on_ready)
        self._streams[stream] = None
        return stream

    def progress_tick(self) -> None:
        """An interval is over: idle watchers that asked for it hear the revision."""
        self.catch_up.blocks.clear()
        self._take_down(TAKE_DOWN_A_TICK)
        for stream in self._streams:
            stream.progress_tick()

    # --- called by streams -----------------------------------------------------------------------

    def add_watcher(self, watcher: "Watcher") -> None:
        """Match a watcher's keys from now on."""
        self._take_down(TAKE_DOWN_A_PUBLISH)
        self._index.add(watcher)
        self.watchers += 1

    def remove_watcher(self, watcher: "Watcher") -> None:
        """Match a watcher's keys no more."""
        self._index.remove(watcher)
        self.watchers -= 1
        if not watcher.synced:
            self.caught_up()

    def caught_up(self) -> None:
        """A watcher that lagged lags no more."""
        self.lagging -= 1
        if not self.lagging:
            self.catch_up.blocks.clear()

    def forget_stream(self, stream: WatchStream) -> None:
        """A stream was closed; its watchers go by and by."""
        del self._streams[stream]
        self._closing.append(stream)

    def _take_down(self, count: int) -> None:
        closing = self._closing
        while closing and count:
            count -= closing[0].forget_watchers(count)
            if not len(closing[0]):
                closing.popleft()

    def _reread(self, first: int, last: int) -> None:
        for stream in self._streams:
            stream.reread(first, last)

    def _match(
        self,
        revision: int,
        record: KeyValue,
        groups: "list[Group]",
        ready: list[WatchStream],
    ) -> None:
        """Put the event of one record where its watchers find it: one event for all of them."""
        is_put = record.version != 0
        events_max = self.limits.pending_events_max
        bytes_max = self.limits.pending_bytes_max
        plain = make_event(record)
        plain_size = size_of(plain)
        full: Event | None = None
        full_size = 0
        for group in groups:
            for watcher in group:
                if revision < (watcher.puts_from if is_put else watcher.deletes_from):
                    continue
                event, size = plain, plain_size
                if watcher.prev_kv:
                    if full is None:
                        full = make_event_with_previous(record, self.reader)
                        full_size = size_of(full)
                    event, size = full, full_size
                pending = watcher.pending
                stream = watcher.stream
                if pending is None:
                    watcher.pending = [event]
                    watcher.pending_bytes = size
                elif len(pending) < events_max and watcher.pending_bytes < bytes_max:
                    pending.append(event)
                    watcher.pending_bytes += size
                else:
                    # It stands in the queue already, with what is pending.
                    stream.fall_behind(watcher, revision)
                if not watcher.queued:
                    watcher.queued = True
                    stream.queue.append(watcher)
                    if not stream.announced:
                        stream.announced = True
                        ready.append(stream)
