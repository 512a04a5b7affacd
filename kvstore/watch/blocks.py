"""Stretches of the log, kept for a moment for the watchers that read near each other.

Watchers that lag mostly lag together: a client came back with hundreds of them, or a huge change
was too much for all. The first one to read a stretch makes its events, the others share them. A
block also knows its lowest and highest key: a watcher of other keys passes it with two comparisons.
"""

from bisect import bisect_left
from typing import TYPE_CHECKING

from kvstore.types import Event, KeyValue
from kvstore.watch.events import make_event, make_event_with_previous

if TYPE_CHECKING:
    from kvstore.watch.limits import WatchLimits
    from kvstore.watch.reader import LogReader


class Block:
    """Some records in order, and the events made of them so far.

    Attributes:
        at_end: Whether nothing followed when it was read.
        next_revision: The revision that the next block begins with; it may begin in this one.
        next_ordinal: Where the next block begins, if it is one of the log.
        log_end: Where the log ended when it was read.
    """

    __slots__ = (
        "_events",
        "_events_with_previous",
        "at_end",
        "key_max",
        "key_min",
        "keys",
        "log_end",
        "next_ordinal",
        "next_revision",
        "records",
        "revisions",
    )

    def __init__(
        self, records: list[KeyValue], next_ordinal: int, next_revision: int, log_end: int
    ) -> None:
        self.records = records
        self.keys = [record.key for record in records]
        self.revisions = [record.mod_revision for record in records]
        self.key_min = min(self.keys, default=b"")
        self.key_max = max(self.keys, default=b"")
        self.next_ordinal = next_ordinal
        self.next_revision = next_revision
        self.log_end = log_end
        self.at_end = next_ordinal >= log_end
        self._events: dict[int, Event] = {}
        self._events_with_previous: dict[int, Event] = {}

    def first_of(self, revision: int) -> int:
        """The place of the first record of this revision or a higher one."""
        return bisect_left(self.revisions, revision)

    def event(self, place: int) -> Event:
        """The event of a record, without the state before."""
        event = self._events.get(place)
        if event is None:
            event = self._events[place] = make_event(self.records[place])
        return event

    def event_with_previous(self, place: int, reader: "LogReader") -> Event:
        """The event of a record, with the state before."""
        event = self._events_with_previous.get(place)
        if event is None:
            event = make_event_with_previous(self.records[place], reader)
            self._events_with_previous[place] = event
        return event


class Blocks:
    """The blocks of one store that were read last.

    Args:
        reader: The store.
        limits: How long they are, and how many to keep.
    """

    __slots__ = ("_blocks", "_compacted_revision", "_limits", "_reader")

    def __init__(self, reader: "LogReader", limits: "WatchLimits") -> None:
        self._reader = reader
        self._limits = limits
        self._blocks: dict[int | tuple[bytes, int], Block] = {}
        self._compacted_revision = reader.compacted_revision

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Let go of everything: nobody lags, or the records should be free to go."""
        self._blocks.clear()

    def of_log(self, ordinal: int) -> Block:
        """The stretch of the log that begins at an ordinal."""
        reader = self._reader
        log_end = reader.log_end
        block = self._kept(ordinal, log_end)
        if block is None:
            records, next_ordinal = reader.log_slice(ordinal, self._limits.block_records)
            assert next_ordinal > ordinal or next_ordinal >= log_end, (
                "a read of the log stands still"
            )
            # What follows may belong to the last revision too: that is known when it is read.
            next_revision = records[-1].mod_revision if records else 0
            block = self._keep(ordinal, Block(records, next_ordinal, next_revision, log_end))
        return block

    def of_key(self, key: bytes, revision: int) -> Block:
        """The versions of one key from a revision on; all revisions in the block are whole.

        Walking the key's own history takes no longer for all that was written to other keys.
        """
        reader = self._reader
        log_end = reader.log_end
        block = self._kept((key, revision), log_end)
        if block is None:
            wanted = self._limits.block_records
            while True:
                records = reader.history(key, revision, wanted + 1)
                if len(records) <= wanted:
                    block = Block(records, log_end, 0, log_end)
                    break
                # Where the last revision begins: what follows may belong to it too.
                next_revision = records[-1].mod_revision
                cut = bisect_left(records, next_revision, key=_revision_of)
                if cut:
                    block = Block(records[:cut], -1, next_revision, log_end)
                    break
                # One transaction may change a key more often than that.
                wanted *= 2
            self._keep((key, revision), block)
        return block

    def _kept(self, name: int | tuple[bytes, int], log_end: int) -> Block | None:
        compacted_revision = self._reader.compacted_revision
        if compacted_revision != self._compacted_revision:
            # What the store has let go of must not live on here.
            self._compacted_revision = compacted_revision
            self._blocks.clear()
        block = self._blocks.get(name)
        if block is None or (block.at_end and block.log_end != log_end):
            return None
        return block

    def _keep(self, name: int | tuple[bytes, int], block: Block) -> Block:
        blocks = self._blocks
        blocks.pop(name, None)
        if len(blocks) >= self._limits.blocks_max:
            del blocks[next(iter(blocks))]
        blocks[name] = block
        return block


def _revision_of(record: KeyValue) -> int:
    return record.mod_revision
