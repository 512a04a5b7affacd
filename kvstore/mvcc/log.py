"""The revision log: every retained version in the order of writing, found by an ordinal that
never changes.

Ordinals count up from 0 for ever. Slots lie in blocks of 4,096; the number of a slot's block is
its ordinal shifted right::

    ordinal        0 ........ 4095 | 4096 ..... 8191 | 8192 ..... 12287 | 12288 ...
    block          0: dropped      | 1: sparse       | 2: dense         | 3: the tail
    records        -               | r r r           | r . r r . r ...  | r r r r
    offsets        -               | 7 90 4001       | (the position)   | (the position)

Compaction leaves holes. A block that lost seven eighths of its records turns sparse, an empty one
is dropped, and dropped blocks at the front are forgotten: the log's memory follows what is
retained, not what was ever written.

The revisions lie in packed arrays beside the records, so that finding a revision is two
bisections in C.
"""

from array import array
from bisect import bisect_left, bisect_right
from typing import Final

from kvstore.budget import Budget, Sliced
from kvstore.mvcc.dismantling import empty_list
from kvstore.types import KeyValue

BLOCK_BITS: Final = 12
BLOCK_SLOTS: Final = 1 << BLOCK_BITS
_SLOT_MASK: Final = BLOCK_SLOTS - 1
_SPARSE_RECORDS_MAX: Final = BLOCK_SLOTS // 8

VERSION_OVERHEAD_BYTES: Final = 256
"""What a version costs beside its key and value: the record, its integers, and its places in the
log, a history and the index."""


class _Block:
    """Up to 4,096 slots. Dense: position is offset, holes are None. Sparse (``offsets`` set):
    only what is retained.
    """

    __slots__ = ("dead", "offsets", "records", "revisions")

    def __init__(self) -> None:
        self.records: list[KeyValue | None] = []
        self.revisions: array[int] = array("q")
        self.offsets: array[int] | None = None
        self.dead = 0

    def make_sparse(self) -> None:
        """Keep only what is retained."""
        kept = [place for place, record in enumerate(self.records) if record is not None]
        self.offsets = array("H", kept)
        self.revisions = array("q", [self.revisions[place] for place in kept])
        self.records = [self.records[place] for place in kept]


class RevisionLog:
    """An append-only sequence of versions, out of which compaction may take some.

    Attributes:
        end: The ordinal that the next record gets.
        size_bytes: Keys, values and overhead of all retained versions.
    """

    __slots__ = ("_base", "_blocks", "_firsts", "_tail", "end", "size_bytes")

    def __init__(self) -> None:
        self._blocks: list[_Block | None] = []
        # The number of `_blocks[0]`, and the first revision that each block was given.
        self._base = 0
        self._firsts: array[int] = array("q")
        self._tail = _Block()
        self.end = 0
        self.size_bytes = 0

    def append(self, record: KeyValue) -> None:
        """Add a version at ``end``. Its revision is no lower than the last one's."""
        end = self.end
        if not end & _SLOT_MASK:
            self._grow(record.mod_revision)
        tail = self._tail
        tail.records.append(record)
        tail.revisions.append(record.mod_revision)
        self.size_bytes += len(record.key) + len(record.value) + VERSION_OVERHEAD_BYTES
        self.end = end + 1

    def record(self, ordinal: int) -> KeyValue | None:
        """The version at an ordinal, or None where compaction took it."""
        place = (ordinal >> BLOCK_BITS) - self._base
        if place < 0:
            return None
        block = self._blocks[place]
        if block is None:
            return None
        offset = ordinal & _SLOT_MASK
        offsets = block.offsets
        if offsets is None:
            return block.records[offset]
        at = bisect_left(offsets, offset)
        if at < len(offsets) and offsets[at] == offset:
            return block.records[at]
        return None

    def revision_of(self, ordinal: int) -> int:
        """The revision of a retained version."""
        record = self.record(ordinal)
        assert record is not None, "a history points at a version that compaction took"
        return record.mod_revision

    def position(self, revision: int) -> int:
        """The lowest ordinal from which on every retained version has this revision or a higher
        one.
        """
        blocks = self._blocks
        place = bisect_left(self._firsts, revision)
        # The block before may begin below the revision and reach it.
        before = blocks[place - 1] if place else None
        if before is not None:
            at = bisect_left(before.revisions, revision)
            if at < len(before.revisions):
                return self._ordinal(place - 1, before, at)
        while place < len(blocks):
            block = blocks[place]
            if block is not None:
                return self._ordinal(place, block, 0)
            place += 1
        return self.end

    def find(self, record: KeyValue, slots: int) -> int:
        """The ordinal of a retained version that lies within ``slots`` of its revision's first."""
        revision = record.mod_revision
        place = bisect_right(self._firsts, revision) - 1
        block = self._blocks[place]
        if block is not None and block.offsets is None:
            # Where each revision wrote one version, the revisions count the slots.
            guess = revision - self._firsts[place]
            if guess < len(block.records) and block.records[guess] is record:
                return ((self._base + place) << BLOCK_BITS) + guess
        first = self.position(revision)
        for ordinal in range(first, first + slots):
            if self.record(ordinal) is record:
                return ordinal
        raise AssertionError("a version is not near its revision's first slot")

    def walk(self, start: int, stop: int, count: int) -> tuple[list[tuple[int, KeyValue]], int]:
        """Up to ``count`` retained versions from ordinal ``start`` on, below ``stop``, with their
        ordinals.

        Returns:
            The versions, and the ordinal to go on from (``stop`` at the end).
        """
        found: list[tuple[int, KeyValue]] = []
        place = max(start >> BLOCK_BITS, self._base) - self._base
        blocks = self._blocks
        while place < len(blocks) and len(found) < count:
            block = blocks[place]
            first = (self._base + place) << BLOCK_BITS
            place += 1
            if first >= stop:
                break
            if block is None:
                continue
            low, high = self._span(block, start - first, stop - first)
            offsets = block.offsets
            # Asks for no more than is wanted; where holes leave too few, the next turn fetches on.
            while low < high and len(found) < count:
                upto = min(high, low + count - len(found))
                for at in range(low, upto):
                    record = block.records[at]
                    if record is not None:
                        found.append((first + (at if offsets is None else offsets[at]), record))
                low = upto
            if low < high:
                return found, first + (low if offsets is None else offsets[low])
        return found, min(stop, max(start, (self._base + place) << BLOCK_BITS))

    def take(self, start: int, stop: int, count: int) -> tuple[list[KeyValue], int]:
        """As ``walk``, without the ordinals; a stretch of one block without holes is one copy."""
        low = start & _SLOT_MASK
        high = low + min(count, stop - start)
        if low < high <= BLOCK_SLOTS and start >> BLOCK_BITS >= self._base:
            block = self._blocks[(start >> BLOCK_BITS) - self._base]
            if block is not None and block.offsets is None and not block.dead:
                # Without holes every slot is a record.
                return block.records[low:high], start + high - low  # type: ignore[return-value]
        pairs, ordinal = self.walk(start, stop, count)
        return [record for _, record in pairs], ordinal

    def remove(self, ordinal: int) -> KeyValue:
        """Make a hole where a retained version was, and return it."""
        place = (ordinal >> BLOCK_BITS) - self._base
        block = self._blocks[place]
        assert block is not None, "a dropped block holds nothing to remove"
        offset = ordinal & _SLOT_MASK
        offsets = block.offsets
        if offsets is None:
            record = block.records[offset]
            block.records[offset] = None
            block.dead += 1
            if block is not self._tail:
                self._shrink(place, block)
        else:
            at = bisect_left(offsets, offset)
            record = block.records.pop(at)
            assert offsets.pop(at) == offset, "a sparse block holds another version there"
            block.revisions.pop(at)
            if not offsets:
                self._drop(place)
        assert record is not None, "a version is removed only once"
        self.size_bytes -= len(record.key) + len(record.value) + VERSION_OVERHEAD_BYTES
        return record

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of everything; unusable from the first slice on."""
        while self._blocks:
            block = self._blocks.pop()
            if block is not None:
                yield from empty_list(block.records, budget)

    def _grow(self, revision: int) -> None:
        full = len(self._blocks) - 1
        if full >= 0 and self._blocks[full] is not None:
            self._shrink(full, self._tail)
        self._tail = _Block()
        self._blocks.append(self._tail)
        self._firsts.append(revision)

    def _shrink(self, place: int, block: _Block) -> None:
        retained = BLOCK_SLOTS - block.dead
        if not retained:
            self._drop(place)
        elif retained <= _SPARSE_RECORDS_MAX:
            block.make_sparse()

    def _drop(self, place: int) -> None:
        self._blocks[place] = None
        if place:
            return
        gone = 0
        while gone < len(self._blocks) and self._blocks[gone] is None:
            gone += 1
        del self._blocks[:gone]
        del self._firsts[:gone]
        self._base += gone

    def _ordinal(self, place: int, block: _Block, at: int) -> int:
        first = (self._base + place) << BLOCK_BITS
        return first + (at if block.offsets is None else block.offsets[at])

    @staticmethod
    def _span(block: _Block, start: int, stop: int) -> tuple[int, int]:
        """Positions in a block's lists of the offsets from ``start`` to below ``stop``."""
        if block.offsets is None:
            return max(start, 0), min(stop, len(block.records))
        return bisect_left(block.offsets, start), bisect_left(block.offsets, stop)
