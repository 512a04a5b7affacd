"""What waits to be written, and how it is put together into batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raft.types import Entry, HardState, Seq
from wal.record import (
    ENTRY_OVERHEAD_BYTES,
    Mark,
    encode_hard_state,
    encode_mark,
    encode_run_header,
)

ITEM_OVERHEAD_BYTES = 64
"""Counted for each item: an upper bound of its hard state and its run's header."""


class _Item:
    """One call of ``persist``, or what is left of it. ``seq`` is None if more of the same call
    follows.
    """

    __slots__ = ("encoded", "first_index", "hard_state", "mark", "rolls", "seq", "size")

    def __init__(
        self,
        seq: Seq | None,
        hard_state: HardState | None,
        encoded: list[bytes],
        first_index: int,
        mark: Mark | None,
        *,
        rolls: bool = False,
    ) -> None:
        self.rolls = rolls
        self.seq = seq
        self.hard_state = hard_state
        self.encoded = encoded
        self.first_index = first_index
        self.mark = mark
        self.size = (
            sum(map(len, encoded)) + ENTRY_OVERHEAD_BYTES * len(encoded) + ITEM_OVERHEAD_BYTES
        )

    @property
    def divisible(self) -> bool:
        """Whether it may take several batches.

        Entries behind a mark that keeps the log are there already, up to where they are new. The
        half of them, written again, could be taken for a cut by whoever reads it, if the segment
        that the first writing began in is gone: then there is nothing to compare them with.
        """
        kept = self.mark is not None and self.mark.log_kept
        return len(self.encoded) > 1 and not kept and not self.rolls


class Outgoing:
    """A batch put together. ``seq`` is what becomes durable with it, None if that takes a later
    batch as well; with ``rolls`` it begins a segment, and nothing before it is needed any more.
    """

    __slots__ = ("hard_state", "last_index", "length", "mark", "parts", "rolls", "seq", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0
        self.rolls = False
        self.seq: Seq | None = None
        self.hard_state: HardState | None = None
        self.mark: Mark | None = None
        self.last_index = 0
        self.size = 0


class WriteQueue:
    """First in, first out. ``bytes_max`` is what a batch may hold, unless a single entry is
    larger, or what follows a snapshot's mark in a log that is kept.
    """

    __slots__ = ("_bytes_max", "_items")

    def __init__(self, bytes_max: int) -> None:
        self._items: deque[_Item] = deque()
        self._bytes_max = bytes_max

    def __bool__(self) -> bool:
        return bool(self._items)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()

    def add(
        self,
        seq: Seq,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        mark: Mark | None,
        *,
        rolls: bool = False,
    ) -> int:
        """Queue what one step of the core wants durable; return the bytes that it counts for."""
        encoded = [entry.encoded for entry in entries]
        first_index = entries[0].index if encoded else 0
        item = _Item(seq, hard_state, encoded, first_index, mark, rolls=rolls)
        self._items.append(item)
        return item.size

    def assemble(self, written: HardState) -> Outgoing:
        """Take as much as goes into one batch; there must be something.

        Args:
            written: The hard state in the log so far.
        """
        items = self._items
        out = Outgoing()
        run: list[bytes] = []
        run_end = 0
        while items:
            item = items[0]
            if item.rolls and out.size:
                break
            if item.size > self._bytes_max and not out.size and item.divisible:
                item = self._split(item, written)
            elif out.size and out.size + item.size > self._bytes_max:
                break
            else:
                items.popleft()
            out.rolls = out.rolls or item.rolls
            if item.mark is not None:
                # The entries of the same call follow the snapshot, those of earlier calls came
                # before it.
                _close_run(out.parts, run)
                out.parts.append(encode_mark(item.mark))
                out.mark = item.mark
            if item.encoded:
                if item.first_index != run_end:
                    _close_run(out.parts, run)
                run += item.encoded
                run_end = item.first_index + len(item.encoded)
                out.last_index = max(out.last_index, run_end - 1)
            if item.hard_state is not None:
                out.hard_state = item.hard_state
            if item.seq is not None:
                out.seq = item.seq
            out.size += item.size
        _close_run(out.parts, run)
        if out.hard_state is not None:
            # Only the newest counts: a batch is durable whole or not at all.
            out.parts.append(encode_hard_state(out.hard_state))
        out.length = sum(map(len, out.parts))
        return out

    def _split(self, item: _Item, written: HardState) -> _Item:
        """Cut a batch's worth off the front of an item; the rest stays first in the queue.

        Term and vote go with the front, because no entry may be durable in a term that is not. The
        commit index goes with the rest: a commit index beyond the log's end would look like a lost
        tail.
        """
        size = ITEM_OVERHEAD_BYTES
        count = 0
        for encoded in item.encoded:
            size += len(encoded) + ENTRY_OVERHEAD_BYTES
            if count and size > self._bytes_max:
                break
            count += 1
        assert count < len(item.encoded), "only what does not fit is split"
        state = item.hard_state
        front_state = (
            None if state is None else HardState(state.term, state.voted_for, written.commit_index)
        )
        front = _Item(None, front_state, item.encoded[:count], item.first_index, item.mark)
        rest = _Item(item.seq, state, item.encoded[count:], item.first_index + count, None)
        # The overhead counts once a call, with its last piece: what was added is what is taken off.
        front.size -= ITEM_OVERHEAD_BYTES
        self._items[0] = rest
        return front


def _close_run(parts: list[bytes], run: list[bytes]) -> None:
    if run:
        parts.append(encode_run_header(run))
        parts += run
        run.clear()
