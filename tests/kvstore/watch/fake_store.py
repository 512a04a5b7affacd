"""Stores to watch: a naive one, and the real one behind the same few calls."""

from collections.abc import Sequence

from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind
from kvstore.mvcc.store import Store
from kvstore.types import KeyValue

Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


class FakeStore:
    """A list of all records. Slices end at odd places, and compaction leaves holes at once."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted_revision = -1
        self.log: list[KeyValue | None] = []

    @property
    def log_end(self) -> int:
        return len(self.log)

    def log_position(self, revision: int) -> int:
        for ordinal, record in enumerate(self.log):
            if record is not None and record.mod_revision >= revision:
                return ordinal
        return len(self.log)

    def log_slice(self, start: int, count: int) -> tuple[list[KeyValue], int]:
        # As the real one at the end of a block, it may return less than was asked for.
        stop = min(start + count, len(self.log), start - start % 7 + 7)
        return [record for record in self.log[start:stop] if record is not None], stop

    def history(self, key: bytes, revision: int, count: int) -> list[KeyValue]:
        found = [record for record in self.log if record is not None and record.key == key]
        return [record for record in found if record.mod_revision >= revision][:count]

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        if 0 < revision < self.compacted_revision:
            raise ErrorKind.COMPACTED.error()
        newest = None
        for record in self.log:
            if (
                record is not None
                and record.key == key
                and record.mod_revision <= (revision or self.revision)
            ):
                newest = record
        return newest if newest is not None and newest.version else None

    def write(self, writes: Sequence[Write]) -> list[KeyValue]:
        """One revision; deletions of what is not there change nothing."""
        revision = self.revision + 1
        end = len(self.log)
        self.revision = revision
        for key, value in writes:
            old = self.get(key)
            if value is not None:
                create = old.create_revision if old else revision
                version = old.version + 1 if old else 1
                self.log.append(KeyValue(key, create, revision, version, value, 0))
            elif old is not None:
                self.log.append(KeyValue(key, 0, revision, 0, b"", 0))
        if len(self.log) == end:
            self.revision = revision - 1
        return [record for record in self.log[end:] if record is not None]

    def compact(self, revision: int) -> None:
        self.compacted_revision = revision
        last: dict[bytes, int] = {}
        for ordinal, record in enumerate(self.log):
            if record is None or record.mod_revision > revision:
                continue
            if record.key in last:
                self.log[last[record.key]] = None
            last[record.key] = ordinal
        for ordinal in last.values():
            record = self.log[ordinal]
            if record is not None and not record.version and record.mod_revision < revision:
                self.log[ordinal] = None

    def copy(self) -> "FakeStore":
        """As after a snapshot: the same records at other ordinals."""
        copy = FakeStore()
        copy.revision = self.revision
        copy.compacted_revision = self.compacted_revision
        copy.log = [record for record in self.log if record is not None]
        return copy


class RealStore(Store):
    """The store of the server."""

    def write(self, writes: Sequence[Write]) -> list[KeyValue]:
        for key, value in writes:
            if value is None:
                self.delete(key)
            else:
                self.put(key, value, 0)
        if not self.dirty:
            return []
        records, _ = self.log_unpublished(self.log_end, 1_000_000)
        self.publish()
        return records

    def compact(self, revision: int) -> None:
        super().compact(revision)
        finish(self.sweep(CountedBudget(4)), CountedBudget(4))

    def copy(self) -> "RealStore":
        copy = RealStore()
        records, _ = self.log_slice(0, 1_000_000)
        for record in self.survivors(records, self.compacted_revision):
            copy.restore(record)
        copy.restored(self.revision, self.compacted_revision)
        return copy
