"""The write-ahead log: what must survive goes through here, in order, one batch at a time.

**Group commit.** While a batch is being written and synced, whatever is queued waits, and then goes
out together as the next batch. There is never more than one write in flight: batch n + 1 is written
only once n is synced, which is what recovery relies on to tell a torn tail from damage
(``wal/recovery.py``).

**A failed write or sync ends the log.** Nothing is tried again and nothing is acknowledged
afterwards: after an error the kernel may have dropped the very pages it could not write, and a
second sync that succeeds would prove nothing.

**A full disk does not.** Segments are filled ahead, so that a write needs no room. When no new
segment can be prepared, ``disk_full`` is true while the spare ones still take what makes room
(alarm, deletes, compaction); when those are used up, the queue stands still until there is room.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from raft.types import Entry, HardState, Seq, SnapshotMeta
from wal.errors import DiskFullError, WalError, disk_error, wal_error
from wal.files import SECTOR_BYTES, Disk, File, Lock
from wal.opening import Opened, open_log, opening_records, refuse_gaps
from wal.queue import ITEM_OVERHEAD_BYTES, Outgoing, WriteQueue
from wal.record import ENTRY_OVERHEAD_BYTES, Mark, Metadata
from wal.recovery import Recovered, SegmentInfo, write_clean
from wal.scrub import Written
from wal.segment import Ready, prepare, segment_numbers, segment_path
from wal.shape import LogShape

SYNC_SECONDS_BOUNDS: Final = tuple(0.001 * 2**power for power in range(14))
"""Upper bounds, inclusive, of the first of ``Wal.sync_counts``; the last one counts what took
longer.
"""


class WalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes. ``segment_bytes`` is a segment's length (a larger entry gets a larger segment),
    ``batch_bytes_max`` what one write may carry (always at least one entry), ``spare_segments`` how
    many are kept ready: the next, and one for the day the disk is full.
    """

    segment_bytes: int = 64 << 20
    batch_bytes_max: int = 1 << 20
    spare_segments: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            WalError: A field is out of its range.
        """
        if self.segment_bytes < 4 * SECTOR_BYTES or self.segment_bytes % SECTOR_BYTES:
            raise WalError(
                f"segment_bytes must be a multiple of {SECTOR_BYTES}, "
                f"and at least {4 * SECTOR_BYTES}"
            )
        if self.batch_bytes_max < 1 or self.spare_segments < 1:
            raise WalError("batch_bytes_max and spare_segments must be at least 1")


class Wal:
    """An open log. Its methods belong to the loop, and none of them waits for the disk except
    ``open``.

    Counters, for others to export: ``batches`` and ``bytes_written``, ``last_sync_seconds`` (from
    a batch's write till the loop hears that it is durable) and ``sync_seconds`` in all,
    ``sync_counts`` by ``SYNC_SECONDS_BOUNDS``, ``queued_bytes`` not yet durable, ``write_started``
    (by the clock given; None while nothing is in flight) for a watchdog, ``grown_bytes`` and
    ``grown_entries`` since the newest snapshot mark. ``metadata`` is the log's, with the
    incarnation of this opening; ``disk_full`` is true while no further segment can be prepared.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_closing",
        "_directory",
        "_disk",
        "_durable_end",
        "_error",
        "_hard_state",
        "_held",
        "_lane",
        "_lock",
        "_mark",
        "_mark_durable",
        "_on_failed",
        "_on_persisted",
        "_options",
        "_prepare_lane",
        "_preparing",
        "_queue",
        "_ready",
        "_segments",
        "_shape",
        "_tail",
        "_writing",
        "batches",
        "bytes_written",
        "disk_full",
        "grown_bytes",
        "grown_entries",
        "last_sync_seconds",
        "metadata",
        "queued_bytes",
        "sync_counts",
        "sync_seconds",
        "write_started",
    )

    def __init__(
        self,
        disk: Disk,
        directory: str,
        options: WalOptions,
        opened: Opened,
        lock: Lock,
        on_persisted: Callable[[Seq], None],
        on_failed: Callable[[WalError], None],
        clock: Callable[[], float],
    ) -> None:
        """For ``open``: takes over what it opened."""
        recovered = opened.recovered
        entries = recovered.entries
        mark = recovered.snapshot_mark
        self._disk = disk
        self._directory = directory
        self._options = options
        self._lock = lock
        self._on_persisted = on_persisted
        self._on_failed = on_failed
        self._clock = clock
        self._tail = opened.tail
        self._durable_end = opened.tail.offset
        self._segments = deque(opened.segments)
        self._ready = deque(opened.spares)
        self._shape = LogShape(mark, entries)
        self._hard_state = recovered.hard_state
        self._mark = None if mark is None else Mark(mark, log_kept=True)
        self._mark_durable: int = 0 if mark is None else mark.index
        self._queue = WriteQueue(options.batch_bytes_max)
        self._writing: Outgoing | None = None
        self._held: Outgoing | None = None
        self._preparing = False
        self._error: WalError | None = None
        self._closing: Callable[[WalError | None], None] | None = None
        self._closed = False
        self._lane = disk.lane("wal")
        self._prepare_lane = disk.lane("wal-prepare")
        self.metadata: Metadata = recovered.metadata
        self.batches = 0
        self.bytes_written = 0
        self.last_sync_seconds = 0.0
        self.sync_seconds = 0.0
        self.sync_counts = [0] * (len(SYNC_SECONDS_BOUNDS) + 1)
        self.write_started: float | None = None
        self.queued_bytes = 0
        self.disk_full = False
        self.grown_bytes = sum([len(entry.encoded) + ENTRY_OVERHEAD_BYTES for entry in entries])
        self.grown_entries = len(entries)
        self._prepare()

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        options: WalOptions,
        metadata_if_new: Metadata | None,
        *,
        on_persisted: Callable[[Seq], None],
        on_failed: Callable[[WalError], None],
        clock: Callable[[], float],
        judge: Callable[[Recovered], None] = refuse_gaps,
    ) -> tuple[Wal, Recovered]:
        """Open the log in ``directory``, or begin one. Blocks: for start-up only.

        Args: disk: Where. directory: Where on it; made if it is missing. options: Sizes.
            metadata_if_new: What a new log says of itself; None if there must be one already.
            on_persisted: Called on the loop with the highest sequence number that is durable.
            on_failed: Called on the loop, once, if the log ends by an error; nothing is
            acknowledged afterwards. clock: Monotonic seconds, for the counters. judge: Told what
            the log says before anything is written to it; it raises what keeps it from being
            opened. By default that is a gap (``Recovered``).

        Returns:
            The log, ready to be written on, and what it says. The incarnation in it is this
            opening's: in a new log what was given, 1 at least; else one more than the last,
            durably.

        Raises:
            LockedError: Another node has it open.
            NoLogError: There is none, and there must be.
            CorruptError: It is damaged.
            FormatError: Another version wrote it.
            DiskError: The disk refused.
        """
        try:
            disk.make_directory(directory)
            lock = disk.lock(directory)
            try:
                opened = open_log(disk, directory, options.segment_bytes, metadata_if_new, judge)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise disk_error(error) from error
        wal = cls(disk, directory, options, opened, lock, on_persisted, on_failed, clock)
        return wal, opened.recovered

    @staticmethod
    def exists(disk: Disk, directory: str) -> bool:
        """Whether there is a log in ``directory``."""
        return bool(segment_numbers(disk, directory))

    @property
    def size_bytes(self) -> int:
        """What all segments take on the disk."""
        return sum(info.size for info in self._segments) + sum(ready.size for ready in self._ready)

    @property
    def mark_durable_index(self) -> int:
        """The newest snapshot whose mark is durable covers the log up to here."""
        return self._mark_durable

    def persist(
        self,
        seq: Seq,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot_mark: SnapshotMeta | None,
    ) -> None:
        """Queue what must be durable before ``seq`` is acknowledged; ``on_persisted`` says when.

        After a failure this does nothing.

        Args: seq: Rises from call to call. hard_state: The new one, if it changed. entries:
            Consecutive; they replace whatever the log has from the first of them on. snapshot_mark:
            A snapshot that is durable; ``entries`` follow it. One that is older than the newest
            mark is left out.
        """
        if self._error is not None:
            return
        assert self._closing is None, "nothing is written to a log that is being closed"
        mark = None
        if snapshot_mark is not None and snapshot_mark.index > self._shape.mark_index:
            mark = Mark(snapshot_mark, self._shape.mark(snapshot_mark))
            self.grown_bytes = self.grown_entries = 0
        if entries:
            self._shape.append(entries)
        size = self._queue.add(seq, hard_state, entries, mark)
        self.queued_bytes += size
        self.grown_entries += len(entries)
        self.grown_bytes += size - ITEM_OVERHEAD_BYTES
        if self._writing is None and self._held is None:
            self._flush()

    def begin_anew(self, seq: Seq, entries: Sequence[Entry], snapshot_mark: SnapshotMeta) -> bool:
        """Write what is needed of the log once more, at the start of a new segment, and let all
        segments before that one go once it is durable: one of them is damaged.

        Args:
            seq: As of what was handed to ``persist`` last.
            entries: All that were handed to ``persist`` and follow the snapshot.
            snapshot_mark: The newest.

        Returns:
            Whether it is under way; not if another mark is the newest, or the log has ended.
        """
        if self._error is not None or self._closing is not None:
            return False
        if snapshot_mark.index != self._shape.mark_index:
            return False
        # Without entries behind it the snapshot is the log's end, and nothing else would say so.
        mark = Mark(snapshot_mark, log_kept=bool(entries))
        self.queued_bytes += self._queue.add(seq, None, entries, mark, rolls=True)
        if self._writing is None and self._held is None:
            self._flush()
        return True

    def written(self) -> list[Written]:
        """The segments in use, and how far each is durable."""
        *sealed, tail = [info.number for info in self._segments]
        return [*[Written(number, 0) for number in sealed], Written(tail, self._durable_end)]

    def release(self, index: int) -> None:
        """Let segments go whose entries are all at or below ``index`` and covered by a snapshot
        whose mark is durable.
        """
        if self._closed or self._error is not None:
            return
        covered = min(index, self._mark_durable)
        segments = self._segments
        doomed = []
        # The last one is in use; it starts with metadata, hard state and mark, or the one before it
        # stays (_on_written).
        while len(segments) > 1 and segments[0].last_index <= covered:
            doomed.append(segment_path(self._directory, segments.popleft().number))
        if doomed:
            job = partial(_remove, self._disk, self._directory, doomed)
            self._prepare_lane.submit(job, self._on_removed)
        else:
            self.retry_space()

    def retry_space(self) -> None:
        """Try again to prepare a segment if the disk was full; to be called now and then."""
        if self.disk_full:
            self._prepare()

    def close(self, done: Callable[[WalError | None], None]) -> None:
        """Write what is queued, leave the mark of a clean stop, and end.

        Args:
            done: Called on the loop with None, or with what kept the mark from being left.
        """
        assert self._closing is None, "a log is closed once"
        self._closing = done
        if self._error is not None:
            self._end(self._error)
        elif self._writing is None:
            if self._held is None:
                self._write_clean()
            elif not self._preparing:
                self._end(DiskFullError(f"{self._directory}: no room for what is queued"))

    # ------------------------------------------------------------------------------- writing

    def _flush(self) -> None:
        """Send the next batch off, or keep it till there is a segment that takes it."""
        out = self._held or self._queue.assemble(self._hard_state)
        tail = self._tail
        send: Callable[[Callable[[BaseException | None], None]], None]
        if tail.fits(out.length) and not out.rolls:
            self._held = None
            send = partial(self._lane.write_and_sync, tail.file, *tail.frame(out.parts, out.length))
        elif self._ready:
            self._held = None
            opening = opening_records(self.metadata, self._hard_state, self._mark)
            length = out.length + sum(map(len, opening))
            self._tail, job = tail.roll(self._ready.popleft(), opening + out.parts, length)
            send = partial(self._lane.submit, job)
            self._prepare()
        else:
            self._held = out
            self._prepare()
            return
        if out.hard_state is not None:
            self._hard_state = out.hard_state
        if out.mark is not None:
            self._mark = Mark(out.mark.meta, log_kept=True)
        self._writing = out
        self.write_started = self._clock()
        send(self._on_written)

    def _on_written(self, result: BaseException | None) -> None:
        out = self._writing
        started = self.write_started
        if self._closed or self._error is not None or out is None or started is None:
            return
        self._writing = None
        self.write_started = None
        if result is not None:
            self._fail(result)
            return
        self._count_write(out, self._clock() - started)
        segments = self._segments
        if segments[-1].number != self._tail.number:
            # Only now does the log no longer need what the segment before it starts with.
            segments.append(SegmentInfo(self._tail.number, self._tail.size))
        self._durable_end = self._tail.offset
        segments[-1].last_index = max(segments[-1].last_index, out.last_index)
        if out.mark is not None:
            self._mark_durable = out.mark.meta.index
        if out.rolls:
            self._let_go_below(segments[-1])
        # First the disk, then the news: the disk is what everybody waits for.
        if self._queue:
            self._flush()
        elif self._closing is not None:
            self._write_clean()
        if out.seq is not None:
            self._on_persisted(out.seq)

    def _let_go_below(self, segment: SegmentInfo) -> None:
        """What this segment begins with stands for all before it."""
        for info in self._segments:
            if info is not segment:
                info.last_index = min(info.last_index, self._mark_durable)
        self.release(self._mark_durable)

    def _count_write(self, out: Outgoing, seconds: float) -> None:
        self.batches += 1
        self.bytes_written += out.length
        self.queued_bytes -= out.size
        self.last_sync_seconds = seconds
        self.sync_seconds += seconds
        self.sync_counts[bisect_left(SYNC_SECONDS_BOUNDS, seconds)] += 1

    def _fail(self, cause: BaseException) -> None:
        self._error = wal_error(cause)
        self._queue.clear()
        self._held = None
        self._on_failed(self._error)
        # Whoever was told may have closed the log on the spot.
        if self._closing is not None and not self._closed:
            self._end(self._error)

    # ----------------------------------------------------------------------------- preparing

    def _prepare(self) -> None:
        """Have another segment filled, if there are too few and none is being filled."""
        if self._preparing or self._closed or len(self._ready) >= self._options.spare_segments:
            return
        number = (self._ready[-1].number if self._ready else self._tail.number) + 1
        size = self._options.segment_bytes
        self._preparing = True
        job = partial(prepare, self._disk, self._directory, number, size, self._keep_going)
        self._prepare_lane.submit(job, partial(self._on_prepared, number))

    def _keep_going(self) -> bool:
        return not self._closed

    def _on_prepared(self, number: int, result: File | BaseException) -> None:
        self._preparing = False
        if self._closed or self._error is not None:
            if not isinstance(result, BaseException):
                result.close()
            return
        if isinstance(result, BaseException):
            self._on_prepare_failed(result)
            return
        self.disk_full = False
        self._ready.append(Ready(number, self._options.segment_bytes, result))
        if self._held is not None:
            self._flush()
        self._prepare()

    def _on_prepare_failed(self, cause: BaseException) -> None:
        error = wal_error(cause)
        if not isinstance(error, DiskFullError):
            self._fail(cause)
            return
        self.disk_full = True
        if self._held is not None and self._closing is not None:
            self._end(error)

    def _on_removed(self, result: BaseException | None) -> None:
        if self._closed or self._error is not None:
            return
        if result is not None:
            self._fail(result)
        else:
            self.retry_space()

    # ------------------------------------------------------------------------------- closing

    def _write_clean(self) -> None:
        job = partial(write_clean, self._disk, self._directory, self._tail.place())
        self._lane.submit(job, self._on_clean)

    def _on_clean(self, result: BaseException | None) -> None:
        self._end(None if result is None else wal_error(result))

    def _end(self, error: WalError | None) -> None:
        """Let everything go. The lock is last: by then no thread of ours touches the directory."""
        self._closed = True
        self._lane.close()
        self._prepare_lane.close()
        self._tail.file.close()
        for ready in self._ready:
            ready.file.close()
        self._lock.release()
        done = self._closing
        assert done is not None, "only close ends a log"
        done(error)


def _remove(disk: Disk, directory: str, paths: list[str]) -> None:
    for path in paths:
        disk.remove(path)
        # One at a time, or a power cut could keep an older one and lose a newer: a gap, which
        # recovery refuses.
        disk.sync_directory(directory)
