"""The store: multi-version reads and writes, and what a revision is.

Writing has two steps. ``put`` and ``delete`` append versions at revision + 1, which no reader
sees; ``publish`` makes them all visible at once by moving ``revision`` on. A huge command may so
be applied in many slices, while readers go on at the last published revision. Whoever writes
reads its own writes by asking for ``writing_revision``.

Compaction has two steps too. ``compact`` moves the mark: older revisions can no longer be read.
``sweep`` then takes away, in slices, what the mark made unreachable. Between the two, and while
``pin`` holds sweeping back (a snapshot is being read), more is kept than need be, and no answer
changes.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from kvstore.budget import Budget, Sliced
from kvstore.errors import ErrorKind
from kvstore.mvcc.compaction import SWEEP_STEP, sweep
from kvstore.mvcc.key_index import BARE_SLOTS_MAX, SHARD_MASK, History, KeyIndex
from kvstore.mvcc.log import RevisionLog
from kvstore.mvcc.ranges import range_at_once, read_piece, read_range
from kvstore.types import KeyValue, RangeRequest, RangeResponse, Revision

FIRST_REVISION: Final = Revision(1)
"""The revision of an empty store; the first write makes revision 2."""

NEVER_COMPACTED: Final = Revision(-1)
"""So that a compaction at revision 0 succeeds once, as in etcd."""


class Store:
    """All retained versions of all keys.

    Attributes:
        revision: The published revision.
        compacted_revision: Below it nothing can be read; -1 at first.
        swept_revision: Up to here compaction has done its work.
        log_end: The ordinal after the last published version.
        key_count: Keys that exist, unpublished changes included.
        last: The version written last.
    """

    __slots__ = (
        "_index",
        "_log",
        "_pins",
        "compacted_revision",
        "key_count",
        "last",
        "log_end",
        "revision",
        "swept_revision",
    )

    def __init__(self) -> None:
        self._log = RevisionLog()
        self._index = KeyIndex(self._log)
        self._pins = 0
        self.revision = FIRST_REVISION
        self.compacted_revision = NEVER_COMPACTED
        self.swept_revision = NEVER_COMPACTED
        self.log_end = 0
        self.key_count = 0
        self.last: KeyValue | None = None

    @property
    def size_bytes(self) -> int:
        """Keys, values and overhead of all retained versions."""
        return self._log.size_bytes

    # --- Reading --------------------------------------------------------------------------------

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """A key's record as of a revision (0 and less: the published one), or None.

        Raises:
            KvError: COMPACTED or FUTURE_REVISION.
        """
        return self._index.at(key, self.readable(revision))

    def get_written(self, key: bytes) -> KeyValue | None:
        """A key's record as the next publication will show it, or None."""
        return self._index.at(key, self.revision + 1)

    def readable(self, revision: int) -> Revision:
        """The revision that a request means: as given, or the published one for 0 and less.

        Raises:
            KvError: COMPACTED or FUTURE_REVISION.
        """
        published = self.revision
        if revision > published:
            raise ErrorKind.FUTURE_REVISION.error()
        if revision <= 0:
            return published
        if revision < self.compacted_revision:
            raise ErrorKind.COMPACTED.error()
        return Revision(revision)

    def range_now(self, request: RangeRequest) -> RangeResponse | None:
        """Answer a range of few keys at once; None if it takes ``range``. The hot path of reads.

        Raises:
            KvError: COMPACTED or FUTURE_REVISION.
        """
        return range_at_once(self._index, request, self.readable(request.revision))

    def range(self, request: RangeRequest, budget: Budget, bytes_max: int) -> Sliced[RangeResponse]:
        """Answer a range in slices, as of one revision throughout.

        Raises:
            KvError: COMPACTED, FUTURE_REVISION, or RESPONSE_TOO_LARGE if the answer's keys and
                values exceed ``bytes_max``.
        """
        return self.range_at(request, self.readable(request.revision), budget, bytes_max)

    def range_at(
        self, request: RangeRequest, revision: int, budget: Budget, bytes_max: int
    ) -> Sliced[RangeResponse]:
        """As ``range``, as of a revision that the caller has found readable (or is writing)."""
        at_once = range_at_once(self._index, request, revision)
        if at_once is not None:
            return at_once
        self.pin()
        try:
            return (yield from read_range(self._index, request, revision, budget, bytes_max))
        finally:
            self.unpin()

    def piece(
        self, request: RangeRequest, budget: Budget, records_max: int, bytes_max: int
    ) -> Sliced[tuple[list[KeyValue], bytes | None]]:
        """The first records of a range in key order, in slices, as of its revision throughout.

        Returns:
            The records, and the last key looked at, behind which the next piece begins; None
            instead where nothing comes behind them.

        Raises:
            KvError: COMPACTED or FUTURE_REVISION.
        """
        revision = self.readable(request.revision)
        self.pin()
        try:
            return (
                yield from read_piece(
                    self._index, request, revision, budget, records_max, bytes_max
                )
            )
        finally:
            self.unpin()

    def known_keys(
        self, low: bytes, inclusive: bool, high: bytes | None, count: int
    ) -> list[bytes]:
        """Up to ``count`` known keys in order, those included whose last version is a tombstone."""
        return self._index.keys_from(low, inclusive, high, count)

    # --- Reading for watches and snapshots ------------------------------------------------------

    def log_position(self, revision: int) -> int:
        """The ordinal from which on every retained version has this revision or a higher one."""
        return min(self._log.position(revision), self.log_end)

    def log_slice(
        self, start: int, count: int, stop: int | None = None
    ) -> tuple[list[KeyValue], int]:
        """Up to ``count`` published versions from an ordinal on, tombstones too, and the ordinal
        to go on from.

        ``stop`` is an ordinal to end before. A bound on the count is none on how far this goes:
        where compaction left holes, few versions may lie far apart.
        """
        end = self.log_end
        return self._log.take(start, end if stop is None else min(stop, end), count)

    def log_unpublished(self, start: int, count: int) -> tuple[list[KeyValue], int]:
        """As ``log_slice``, of the versions written and not yet published."""
        return self._log.take(max(start, self.log_end), self._log.end, count)

    def history(self, key: bytes, revision: int, count: int | None = None) -> list[KeyValue]:
        """A key's published versions from a revision on (at most ``count``), oldest first,
        tombstones too.
        """
        published = self.revision
        versions = islice(self._index.since(key, revision), count)
        return [record for record in versions if record.mod_revision <= published]

    def survivors(self, records: list[KeyValue], compacted_revision: int) -> Iterator[KeyValue]:
        """Those versions of a slice of the log that a compaction at this revision keeps: what a
        snapshot holds.
        """
        index = self._index
        for record in records:
            if record.mod_revision >= compacted_revision:
                yield record
            elif record.version:
                versions = index.versions(record.key)
                assert versions is not None, "a retained version's key is known"
                if index.last_at(versions, compacted_revision) is record:
                    yield record

    # --- Writing --------------------------------------------------------------------------------

    @property
    def writing_revision(self) -> Revision:
        """The revision that the next publication makes, at which unpublished writes can be read."""
        return Revision(self.revision + 1)

    @property
    def dirty(self) -> bool:
        """Whether something is written and not yet published."""
        return self._log.end != self.log_end

    @property
    def unpublished_count(self) -> int:
        """How many versions are written and not yet published."""
        return self._log.end - self.log_end

    def put(self, key: bytes, value: bytes, lease: int) -> KeyValue | None:
        """Write a version of a key, unpublished.

        Returns:
            The record that it replaces, if the key existed.
        """
        revision = self.revision + 1
        log = self._log
        ordinal = log.end
        index = self._index
        versions = index.shards[hash(key) & SHARD_MASK].get(key)
        if versions is None:
            record = KeyValue(key, revision, revision, 1, value, lease)
            log.append(record)
            index.add_first(record, ordinal, ordinal - self.log_end < BARE_SLOTS_MAX)
            self.key_count += 1
            previous = None
        else:
            newest = versions.newest if type(versions) is History else versions
            assert type(newest) is KeyValue
            # The known key's bytes are used again, or each version would hold a copy.
            if newest.version:
                previous = newest
                record = KeyValue(
                    newest.key,
                    newest.create_revision,
                    revision,
                    newest.version + 1,
                    value,
                    lease,
                )
            else:
                previous = None
                record = KeyValue(newest.key, revision, revision, 1, value, lease)
                self.key_count += 1
            log.append(record)
            index.add_next(versions, record, ordinal)
        self.last = record
        return previous

    def delete(self, key: bytes) -> KeyValue | None:
        """Write a tombstone, unpublished, if the key exists.

        Returns:
            The record that it ends, or None if there was nothing to delete.
        """
        versions = self._index.versions(key)
        if versions is None:
            return None
        newest = versions.newest if type(versions) is History else versions
        assert type(newest) is KeyValue
        if not newest.version:
            return None
        tombstone = KeyValue(newest.key, 0, self.revision + 1, 0, b"", 0)
        ordinal = self._log.end
        self._log.append(tombstone)
        self._index.add_next(versions, tombstone, ordinal)
        self.key_count -= 1
        self.last = tombstone
        return newest

    def publish(self) -> None:
        """Make all that was written visible, as one new revision."""
        end = self._log.end
        assert end != self.log_end, "a revision without a change"
        self.log_end = end
        self.revision = Revision(self.revision + 1)

    def restore(self, record: KeyValue) -> KeyValue | None:
        """Take in a version from a snapshot: in revision order, visible from ``restored`` on.

        Returns:
            The version of the same key before it, a tombstone too, or None.
        """
        index = self._index
        log = self._log
        ordinal = log.end
        versions = index.versions(record.key)
        log.append(record)
        self.last = record
        if versions is None:
            bare = ordinal - log.position(record.mod_revision) < BARE_SLOTS_MAX
            index.add_first(record, ordinal, bare)
            self.key_count += record.version > 0
            return None
        previous = versions.newest if type(versions) is History else versions
        assert type(previous) is KeyValue
        index.add_next(versions, record, ordinal)
        self.key_count += (record.version > 0) - (previous.version > 0)
        return previous

    def restored(self, revision: int, compacted_revision: int) -> None:
        """Publish what was restored, at the snapshot's revisions."""
        self.log_end = self._log.end
        self.revision = Revision(revision)
        self.compacted_revision = Revision(compacted_revision)
        self.swept_revision = self.compacted_revision

    def skip_revisions(self, count: int) -> None:
        """Leave out so many revisions, and compact everything below the one that is reached."""
        assert count > 0, "revisions only rise"
        assert not self.dirty, "revisions are skipped in the middle of a command"
        self.revision = Revision(self.revision + count)
        self.compact(self.revision)

    # --- Compaction -----------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Forget what was before a revision: at once for readers, in memory by later sweeps.

        Raises:
            KvError: COMPACTED or FUTURE_REVISION.
        """
        if revision <= self.compacted_revision:
            raise ErrorKind.COMPACTED.error()
        if revision > self.revision:
            raise ErrorKind.FUTURE_REVISION.error()
        self.compacted_revision = Revision(revision)

    @property
    def sweep_due(self) -> bool:
        """Whether ``sweep`` has work and may do it."""
        return self.swept_revision < self.compacted_revision and not self._pins

    def sweep(self, budget: Budget) -> Sliced[None]:
        """Take away what compaction made unreachable.

        While pinned, it ends with the compaction that was under way: whoever pinned reads nothing
        of what that one takes. ``sweep_due`` says when to start again.
        """
        while self.sweep_due:
            target = self.compacted_revision
            # Tombstones at the last compacted revision itself were kept for watchers: begin with
            # those.
            start = self._log.position(self.swept_revision)
            stop = self._log.position(target + 1)
            for ordinal in range(start, stop, SWEEP_STEP):
                sweep(self._log, self._index, ordinal, min(ordinal + SWEEP_STEP, stop), target)
                if budget.spent():
                    yield
            self.swept_revision = target

    @property
    def is_pinned(self) -> bool:
        """Whether somebody reads what must not be swept."""
        return bool(self._pins)

    def pin(self) -> None:
        """Hold the sweeping of later compactions back until the matching ``unpin``."""
        self._pins += 1

    def unpin(self) -> None:
        """Release a ``pin``."""
        assert self._pins, "unpinned more often than pinned"
        self._pins -= 1

    # --- The end --------------------------------------------------------------------------------

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of all that is here, piece by piece: another store has taken this one's place.

        Waits while it is pinned, for reads under way to end. From then on it cannot be used.
        """
        while self._pins:
            yield
        index, log = self._index, self._log
        # Whoever asks now is to fail, and not to be told that nothing is there.
        del self._index, self._log
        self.last = None
        yield from index.dismantle(budget)
        yield from log.dismantle(budget)
