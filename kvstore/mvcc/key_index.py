"""The key index: from a key to its versions, and the keys in order.

A key with one version maps to the record itself; a key with more maps to its history, the newest
record and the ordinals of all of them in the revision log. A deleted key stays, with a tombstone
as its newest version, until compaction sweeps it::

    put a (revision 2)                b"a" -> record@2
    put a (3), delete a (4)           b"a" -> History(newest=tombstone@4, ordinals=[0, 1, 2])
    compact 3, sweep                  b"a" -> History(newest=tombstone@4, ordinals=[1, 2])
    compact 5, sweep                  b"a" is gone

Nothing here is visible to the cyclic collector but a few hundred dicts and lists: at a million
keys one collected object a key costs pauses of more than 100 ms.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final, TypeAlias

import msgspec
from sortedcontainers import SortedList

from kvstore.budget import Budget, Sliced
from kvstore.mvcc.dismantling import empty_dicts, empty_list
from kvstore.mvcc.log import RevisionLog
from kvstore.types import KeyValue

SHARDS: Final = 256
"""A dict that doubles at a million keys stalls for tens of milliseconds; in this many pieces each
doubling is short.
"""

SHARD_MASK: Final = SHARDS - 1

BARE_SLOTS_MAX: Final = 64
"""A record may stand for itself only if it lies within so many slots of its revision's first: its
ordinal is searched from there.
"""

_TRIM_MIN: Final = 32


class History(msgspec.Struct, gc=False):
    """The versions of a key. ``ordinals[first:]`` are retained, oldest first; the last one is
    ``newest``.
    """

    newest: KeyValue
    ordinals: "array[int]"
    first: int = 0

    def __len__(self) -> int:
        return len(self.ordinals) - self.first

    def drop_oldest(self) -> None:
        """Forget the oldest version. Moves the rest only now and then, so that a long history
        goes in linear time.
        """
        self.first += 1
        if self.first >= _TRIM_MIN and self.first * 2 >= len(self.ordinals):
            del self.ordinals[: self.first]
            self.first = 0


Versions: TypeAlias = KeyValue | History


class KeyIndex:
    """All keys that have a retained version.

    Attributes:
        shards: The versions by key; a key lies in shard ``hash(key) & SHARD_MASK``. Hashes differ
            between processes, so nothing ever iterates over these.
        keys: The keys in order.
    """

    __slots__ = ("_log", "keys", "shards")

    def __init__(self, log: RevisionLog) -> None:
        self._log = log
        self.shards: list[dict[bytes, Versions]] = [{} for _ in range(SHARDS)]
        self.keys: SortedList[bytes] = SortedList()

    def versions(self, key: bytes) -> Versions | None:
        """What is known of a key."""
        return self.shards[hash(key) & SHARD_MASK].get(key)

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """A key's record as of a revision; None if it did not exist, or no more."""
        versions = self.shards[hash(key) & SHARD_MASK].get(key)
        if versions is None:
            return None
        record = self.last_at(versions, revision)
        return record if record is not None and record.version else None

    def last_at(self, versions: Versions, revision: int) -> KeyValue | None:
        """The newest of a key's versions that is not above a revision, tombstones too."""
        if type(versions) is KeyValue:
            return versions if versions.mod_revision <= revision else None
        assert type(versions) is History
        newest = versions.newest
        if newest.mod_revision <= revision:
            return newest
        place = bisect_right(
            versions.ordinals, revision, lo=versions.first, key=self._log.revision_of
        )
        return self._log.record(versions.ordinals[place - 1]) if place > versions.first else None

    def since(self, key: bytes, revision: int) -> Iterator[KeyValue]:
        """A key's versions from a revision on, oldest first, tombstones too."""
        versions = self.versions(key)
        if type(versions) is KeyValue:
            if versions.mod_revision >= revision:
                yield versions
        elif type(versions) is History:
            log = self._log
            ordinals = versions.ordinals
            place = bisect_right(ordinals, revision - 1, lo=versions.first, key=log.revision_of)
            for ordinal in islice(ordinals, place, None):
                record = log.record(ordinal)
                assert record is not None, "a history points at a version that compaction took"
                yield record

    def keys_from(self, low: bytes, inclusive: bool, high: bytes | None, count: int) -> list[bytes]:
        """Up to ``count`` keys in order from ``low`` on, below ``high`` (None: no bound)."""
        return list(islice(self.keys.irange(low, high, (inclusive, False)), count))

    def add_first(self, record: KeyValue, ordinal: int, bare: bool) -> None:
        """Take in a key that is not known yet."""
        key = record.key
        self.shards[hash(key) & SHARD_MASK][key] = (
            record if bare else History(record, array("q", (ordinal,)))
        )
        self.keys.add(key)

    def add_next(self, versions: Versions, record: KeyValue, ordinal: int) -> None:
        """Take in a newer version of a known key."""
        if type(versions) is KeyValue:
            key = record.key
            self.shards[hash(key) & SHARD_MASK][key] = History(
                record, array("q", (self._log.find(versions, BARE_SLOTS_MAX), ordinal))
            )
        else:
            assert type(versions) is History
            versions.newest = record
            versions.ordinals.append(ordinal)

    def remove(self, key: bytes) -> None:
        """Forget a key that has no retained version any more."""
        del self.shards[hash(key) & SHARD_MASK][key]
        self.keys.remove(key)

    def collapse(self, history: History) -> None:
        """Let a lone record stand for itself again, where its ordinal can still be searched."""
        assert len(history) == 1, "a history of several versions cannot collapse"
        record = history.newest
        place = self._log.position(record.mod_revision)
        if history.ordinals[-1] - place < BARE_SLOTS_MAX:
            self.shards[hash(record.key) & SHARD_MASK][record.key] = record

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of everything; unusable from the first slice on."""
        yield from empty_dicts(self.shards, budget)
        # Taking the keys out one by one would keep the list in shape, at ten times the cost.
        pieces: list[list[bytes]] = self.keys._lists  # type: ignore[attr-defined]  # noqa: SLF001
        for piece in pieces:
            yield from empty_list(piece, budget)
