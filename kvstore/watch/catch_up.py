"""What does a watcher that lags read next? A block a turn: each event once, in order.

A revision may reach over the end of a block. Its events are then held in ``watcher.gathered`` until
its rest was read: they leave in one response. Only a watcher that asked for fragments gets them
before, but for the last one, which is kept so that the last fragment is not empty.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.types import OPEN_END, Event
from kvstore.watch.blocks import Block, Blocks
from kvstore.watch.events import size_of
from kvstore.watch.watcher import Watcher

if TYPE_CHECKING:
    from kvstore.watch.limits import WatchLimits
    from kvstore.watch.reader import LogReader


class CatchUp:
    """Reads a store for the watchers that lag.

    Args:
        reader: The store.
        epoch: Its number: what watchers remember of another store's ordinals is void.
        limits: Length and number of the stretches to keep.
    """

    __slots__ = ("_block_records", "_reader", "blocks", "epoch")

    def __init__(self, reader: "LogReader", epoch: int, limits: "WatchLimits") -> None:
        self._reader = reader
        self._block_records = limits.block_records
        self.epoch = epoch
        self.blocks = Blocks(reader, limits)

    def read(self, watcher: Watcher, bytes_max: int) -> tuple[list[Event], int, bool]:
        """One turn of a watcher whose cursor is neither compacted nor above the published revision.

        Args:
            watcher: Its cursor moves on; it is synced when the log was read to its end.
            bytes_max: Stop at the next revision once that much was found.

        Returns:
            The events to deliver, their size in bytes, and whether the last revision among them
            goes on.
        """
        block = self._block(watcher)
        events = watcher.gathered
        size = watcher.gathered_bytes
        watcher.gathered = []
        watcher.gathered_bytes = 0
        revisions = block.revisions
        # The events from this place on belong to one revision, of that size.
        whole = whole_bytes = 0
        revision = watcher.cursor
        for place in _matching(watcher, block):
            if revisions[place] != revision:
                revision = revisions[place]
                if events and size >= bytes_max:
                    # The ordinal stays: the next turn passes over what was read of this block.
                    watcher.move(revision)
                    return events, size, False
                whole = len(events)
                whole_bytes = size
                watcher.skip = 0
            elif watcher.skip:
                watcher.skip -= 1
                continue
            if watcher.prev_kv:
                event = block.event_with_previous(place, self._reader)
            else:
                event = block.event(place)
            events.append(event)
            size += size_of(event)
        if block.at_end:
            watcher.sync(self._reader.revision + 1)
            return events, size, False
        if block.records:
            watcher.move(block.next_revision)
        watcher.ordinal = block.next_ordinal
        if revision != block.next_revision or len(events) == whole:
            return events, size, False
        return _hold(watcher, events, whole, (whole_bytes, size), bytes_max)

    def _block(self, watcher: Watcher) -> Block:
        if watcher.epoch != self.epoch:
            # Another store has other ordinals. The revision at the cursor is read again from its
            # start, less what has been sent of it.
            watcher.epoch = self.epoch
            watcher.ordinal = -1
            watcher.gathered = []
            watcher.gathered_bytes = 0
            watcher.skip = watcher.sent
        if not watcher.range_end:
            return self.blocks.of_key(watcher.key, watcher.cursor)
        if watcher.ordinal < 0:
            # Starting at round places, watchers with near cursors come to the same blocks.
            position = self._reader.log_position(watcher.cursor)
            watcher.ordinal = position - position % self._block_records
        return self.blocks.of_log(watcher.ordinal)


def _matching(watcher: Watcher, block: Block) -> Sequence[int]:
    """The places of the records that the watcher is owed."""
    first = block.first_of(watcher.cursor)
    places: Sequence[int] = range(first, len(block.keys))
    low, high = watcher.key, watcher.range_end
    if high:
        # Two comparisons for all of a block: a huge deletion elsewhere costs next to nothing.
        if block.key_max < low or (high != OPEN_END and block.key_min >= high):
            return ()
        keys = block.keys
        if high == OPEN_END:
            places = [place for place in places if keys[place] >= low]
        else:
            places = [place for place in places if low <= keys[place] < high]
    records = block.records
    if watcher.no_put:
        places = [place for place in places if not records[place].version]
    if watcher.no_delete:
        places = [place for place in places if records[place].version]
    return places


def _hold(
    watcher: Watcher, events: list[Event], whole: int, sizes: tuple[int, int], bytes_max: int
) -> tuple[list[Event], int, bool]:
    """Keep back the events from ``whole`` on, which belong to a revision that goes on.

    ``sizes``: of the events before that, and of all.
    """
    whole_bytes, size = sizes
    held_bytes = size - whole_bytes
    if watcher.fragment and held_bytes >= bytes_max:
        watcher.gathered = [events.pop()]
        watcher.gathered_bytes = size_of(watcher.gathered[0])
        watcher.sent += len(events) - whole
        return events, size - watcher.gathered_bytes, len(events) > whole
    # While nothing else is in the list it goes on growing; a copy a turn would be quadratic.
    watcher.gathered = events[whole:] if whole else events
    watcher.gathered_bytes = held_bytes
    return events[:whole], whole_bytes, False
