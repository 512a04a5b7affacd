"""What a log on the disk says, and where it ends.

Nothing is changed here: what is damaged is refused with file, offset and remedy, and stays for
whoever looks into it.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

import google_crc32c
import msgspec

from raft.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term
from wal.batch import Place, Unwritten, decode, peek_place, refuse_later_batches
from wal.errors import REPLACE_REMEDY, CorruptError, FormatError
from wal.files import SECTOR_BYTES, Disk, File
from wal.record import Mark, Metadata, Record, RecordError, decode_records
from wal.segment import is_zero, segment_path

_CLEAN_NAME: Final = "clean"
_CLEAN: Final = struct.Struct("<4sIQQQI")
_CLEAN_MAGIC: Final = b"KCLN"
_CLEAN_FORMAT: Final = 1
_CLEAN_REMEDY: Final = (
    "if the directory was copied or restored by hand, copy it again, whole; otherwise "
    f"{REPLACE_REMEDY}"
)


class Fallback(msgspec.Struct, frozen=True):
    """What to start from if the newest marked snapshot is damaged: the marked one before it (None:
    nothing, the log reaches back to its beginning) and the entries between the two.
    """

    snapshot_mark: SnapshotMeta | None
    entries: list[Entry]


class Recovered(msgspec.Struct, frozen=True):
    """What was durable: ``entries`` follow ``snapshot_mark`` without a gap; ``clean`` says whether
    the log was closed properly; ``fallback``, if the log reaches back far enough, what else to
    start from, with ``entries`` behind it.
    """

    metadata: Metadata
    hard_state: HardState
    snapshot_mark: SnapshotMeta | None
    entries: list[Entry]
    clean: bool
    fallback: Fallback | None = None


class SegmentInfo(msgspec.Struct):
    """A segment in the log, and the highest index of an entry in it (0: none)."""

    number: int
    size: int
    last_index: int = 0


class Found(msgspec.Struct, frozen=True):
    """The log, and how to write on: ``end`` is where the next batch goes, ``remnant_end`` (bytes)
    how far a torn one reaches.
    """

    recovered: Recovered
    segments: list[SegmentInfo]
    end: Place
    remnant_end: int
    spares: list[SegmentInfo]


class _Replay:
    """Puts records together, in the order in which they were written."""

    __slots__ = ("entries", "fallback", "hard_state", "mark", "metadata")

    def __init__(self) -> None:
        self.metadata: Metadata | None = None
        self.hard_state = HardState(Term(0), NodeId(0), Index(0))
        self.mark: SnapshotMeta | None = None
        self.entries: list[Entry] = []
        self.fallback: Fallback | None = None

    def feed(self, record: Record) -> None:
        """Take the next record."""
        if isinstance(record, list):
            self._append(record)
        elif isinstance(record, HardState):
            self.hard_state = record
        elif isinstance(record, Mark):
            self._mark(record)
        else:
            self.metadata = record

    def last_index(self) -> int:
        """The index of the newest entry, in the log or covered by the snapshot."""
        if self.entries:
            return self.entries[-1].index
        return self.mark.index if self.mark is not None else 0

    def _append(self, run: list[Entry]) -> None:
        if not run:
            return
        first = run[0].index
        if self.mark is not None and first <= self.mark.index:
            raise RecordError(
                f"entry {first} was written after a snapshot that covers {self.mark.index}"
            )
        entries = self.entries
        if entries:
            if first > entries[-1].index + 1:
                raise RecordError(f"entry {first} follows entry {entries[-1].index}")
            _merge(entries, run)
        else:
            # The very first may begin anywhere: entries before it may lie in a segment that is
            # gone, if a later mark covers them.
            entries.extend(run)

    def _mark(self, mark: Mark) -> None:
        index = mark.meta.index
        if self.mark is not None and index <= self.mark.index:
            if mark.meta != self.mark:
                raise RecordError(
                    f"a snapshot at {index} was marked after one at {self.mark.index}"
                )
            return
        before, self.mark = self.mark, mark.meta
        entries = self.entries
        self.fallback = None
        if not mark.log_kept:
            entries.clear()
        elif entries:
            covered = entries[: max(0, index - entries[0].index + 1)]
            del entries[: len(covered)]
            base = before.index if before is not None else 0
            if covered and covered[0].index == base + 1 and covered[-1].index == index:
                self.fallback = Fallback(before, covered)


def _merge(entries: list[Entry], run: list[Entry]) -> None:
    """Put a run that starts at or below the end of ``entries``, or right behind it, in its place.

    Index and term tell an entry (Log Matching, Raft §5.3): where they are the same, nothing is
    replaced and nothing cut. Without this, of entries that were written twice, of which the second
    writing did not get to its end, those that it did not reach would be lost, although they were
    acknowledged when they were written first. The first entry of another term cuts what is there
    from its index on.
    """
    first = run[0].index
    start = entries[0].index
    low = max(first, start)
    upto = min(run[-1].index, entries[-1].index) + 1
    same: int = low
    while same < upto and entries[same - start].term == run[same - first].term:
        if entries[same - start] != run[same - first]:
            raise RecordError(f"entry {same} was written twice in one term, and differs")
        same += 1
    if same < upto or run[-1].index < start:
        del entries[same - start :]
    # Entries before the first one held lay in a segment that is gone: here they are again.
    if first < start:
        entries[:0] = run[: start - first]
    entries.extend(run[max(same, low) - first :])


def recover(disk: Disk, directory: str, numbers: list[int]) -> Found:
    """Read the whole log.

    Args:
        disk: Where.
        directory: Where on it.
        numbers: Its segments, rising; at least one.

    Returns:
        What it says.

    Raises:
        CorruptError: It is not what was synced.
        FormatError: Another version wrote it.
    """
    replay = _Replay()
    segments: list[SegmentInfo] = []
    first_path = segment_path(directory, numbers[0])
    place: Place | None = None
    remnant_end = 0
    sealed = True
    while sealed:
        number = numbers[0] + len(segments)
        path = segment_path(directory, number)
        if number > numbers[-1]:
            raise CorruptError(
                path, 0, "the segment is missing, and the one before it says that it exists"
            )
        data = _read_segment(disk, path)
        info = SegmentInfo(number, len(data))
        segments.append(info)
        place = (
            _first_place(data, number)
            if place is None
            else Place(number, len(data), 0, place.batch, place.chain)
        )
        place, sealed = _replay_segment(replay, data, place, path, info)
        if not sealed:
            remnant_end = len(data.rstrip(b"\0"))
        del data
    assert place is not None, "there is at least one segment"
    spares = _spares(disk, directory, range(place.segment + 1, numbers[-1] + 1), place)
    recovered = _finish(replay, first_path, _read_clean(disk, directory, place))
    return Found(recovered, segments, place, remnant_end, spares)


def write_clean(disk: Disk, directory: str, end: Place) -> None:
    """Leave word that the log ends at ``end`` and was closed: then a tail that is missing is
    damage, not a power cut.
    """
    path = f"{directory}/{_CLEAN_NAME}"
    fields = _CLEAN.pack(_CLEAN_MAGIC, _CLEAN_FORMAT, end.segment, end.offset, end.batch, end.chain)
    with suppress(FileNotFoundError):
        disk.remove(f"{path}.new")
    file = disk.create(f"{path}.new")
    file.write((fields, struct.pack("<I", google_crc32c.value(fields))), 0)
    file.sync()
    file.close()
    disk.rename(f"{path}.new", path)
    disk.sync_directory(directory)


def remove_clean(disk: Disk, directory: str) -> None:
    """Take that word back, durably: the log is about to be written on."""
    with suppress(FileNotFoundError):
        disk.remove(f"{directory}/{_CLEAN_NAME}")
        disk.sync_directory(directory)


def _read_segment(disk: Disk, path: str) -> bytes:
    file = disk.open(path)
    try:
        size = _checked_size(file, path)
        return file.read(size, 0)
    finally:
        file.close()


def _checked_size(file: File, path: str) -> int:
    size = file.size()
    if not size or size % SECTOR_BYTES:
        # A segment gets its name only when it is filled and synced.
        raise CorruptError(path, size, f"no segment is {size} bytes long")
    return size


def _first_place(data: bytes, number: int) -> Place:
    # Segments before this one may be gone, and with them what its first batch follows.
    batch, chain = (1, 0) if number == 1 else peek_place(data)
    return Place(number, len(data), 0, batch, chain)


def _replay_segment(
    replay: _Replay, data: bytes, place: Place, path: str, info: SegmentInfo
) -> tuple[Place, bool]:
    """Feed a segment's batches; return the place behind the last one, and whether it sealed the
    segment.
    """
    while place.offset < len(data):
        batch = decode(data, place, path)
        if isinstance(batch, Unwritten):
            if replay.metadata is None:
                raise CorruptError(path, place.offset, "the log's first batch is missing")
            refuse_later_batches(data, place.offset, path)
            return place, False
        try:
            for record in decode_records(batch.payload):
                replay.feed(record)
                if isinstance(record, list) and record:
                    info.last_index = max(info.last_index, record[-1].index)
        except RecordError as error:
            raise CorruptError(
                path, place.offset, f"batch {place.batch} makes no sense: {error}"
            ) from error
        place = Place(
            place.segment, place.segment_size, place.offset + batch.size, place.batch + 1, batch.crc
        )
        if batch.sealed:
            refuse_later_batches(data, place.offset - SECTOR_BYTES, path)
            return place, True
    raise CorruptError(path, place.offset, "the segment is full but not sealed")


def _spares(disk: Disk, directory: str, numbers: range, end: Place) -> list[SegmentInfo]:
    spares = []
    for number in numbers:
        path = segment_path(directory, number)
        file = disk.open(path)
        try:
            size = _checked_size(file, path)
            if not is_zero(file, size):
                reason = f"the log ends in segment {end.segment}, but this later one was written to"
                raise CorruptError(path, 0, reason)
        finally:
            file.close()
        spares.append(SegmentInfo(number, size))
    return spares


def _read_clean(disk: Disk, directory: str, end: Place) -> bool:
    path = f"{directory}/{_CLEAN_NAME}"
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return False
    try:
        data = file.read(_CLEAN.size + 5, 0)
    finally:
        file.close()
    fields = data[: _CLEAN.size]
    if (
        data != fields + struct.pack("<I", google_crc32c.value(fields))
        or fields[:4] != _CLEAN_MAGIC
    ):
        raise CorruptError(path, 0, "the mark of a clean stop fails its checksum", _CLEAN_REMEDY)
    _, found, segment, offset, batch, chain = _CLEAN.unpack(fields)
    if found != _CLEAN_FORMAT:
        raise FormatError(path, found, _CLEAN_FORMAT)
    if (segment, offset, batch, chain) != (end.segment, end.offset, end.batch, end.chain):
        reason = (
            f"the log was closed at byte {offset} of segment {segment}, batch {batch}, "
            f"but ends at byte {end.offset} of segment {end.segment}, batch {end.batch}"
        )
        raise CorruptError(segment_path(directory, end.segment), end.offset, reason, _CLEAN_REMEDY)
    return True


def _finish(replay: _Replay, first_path: str, clean: bool) -> Recovered:
    if replay.metadata is None:
        raise CorruptError(first_path, 0, "the log does not say whose it is")
    after = replay.mark.index if replay.mark is not None else 0
    if replay.entries and replay.entries[0].index != after + 1:
        reason = f"entries {after + 1} to {replay.entries[0].index - 1} are missing"
        raise CorruptError(first_path, 0, reason)
    commit_index = replay.hard_state.commit_index
    if commit_index > replay.last_index():
        # A commit index is written with, or after, the entries that it covers.
        reason = f"the log ends at {replay.last_index()}, its commit index is {commit_index}"
        raise CorruptError(first_path, 0, reason)
    return Recovered(
        replay.metadata, replay.hard_state, replay.mark, replay.entries, clean, replay.fallback
    )
