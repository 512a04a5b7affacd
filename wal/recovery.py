"""What a log on the disk says, and where it ends.

Nothing is changed here: what is damaged is refused with file, offset and remedy, and stays for
whoever looks into it.

**Damage below an intact tail** is not the end. Each batch names the one before it, so what follows
the damage up to the log's end is known to be whole; and if it holds a hard state, and tells where
the log ends, then neither the newest term and vote nor the last index that may ever have been
acknowledged is in doubt. What it comes to:

- it reaches back to a snapshot's mark: nothing that is needed was damaged (``complete``);
- entries in between are gone: the member may come back mute (``raft/mute.py``), and whoever opens
  the log has to agree to that (``Wal.open``). The damage stays where it is, and so a later start
  finds the same, until a snapshot that covers the log's end is marked behind it: that mark makes
  the log complete.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

import google_crc32c
import msgspec

from raft.types import Entry, HardState, SnapshotMeta
from wal.batch import Place, Unwritten, decode, find_batch, peek_place, refuse_later_batches
from wal.errors import REPLACE_REMEDY, CorruptError, FormatError
from wal.files import SECTOR_BYTES, Disk
from wal.record import Metadata, RecordError, decode_records
from wal.replay import Fallback, Replay
from wal.segment import is_zero, segment_path, segment_size

_CLEAN_NAME: Final = "clean"
_CLEAN: Final = struct.Struct("<4sIQQQI")
_CLEAN_MAGIC: Final = b"KCLN"
_CLEAN_FORMAT: Final = 1
_CLEAN_REMEDY: Final = (
    "if the directory was copied or restored by hand, copy it again, whole; otherwise "
    f"{REPLACE_REMEDY}"
)


class NonsenseError(CorruptError):
    """A batch is what was written, and makes no sense: whatever wrote it is not to be trusted."""


class Recovered(msgspec.Struct, frozen=True):
    """What was durable: ``entries`` follow ``snapshot_mark`` without a gap up to ``last_index``;
    ``clean`` says whether the log was closed properly; ``fallback``, if the log reaches back far
    enough, what else to start from, with ``entries`` behind it.

    ``damage`` is what was found below an intact tail. Unless the log is ``complete`` in spite of
    it, there are no ``entries``, and ``last_index`` is the last that was ever acknowledged.
    """

    metadata: Metadata
    hard_state: HardState
    snapshot_mark: SnapshotMeta | None
    entries: list[Entry]
    last_index: int
    clean: bool
    fallback: Fallback | None = None
    damage: CorruptError | None = None
    complete: bool = True


class SegmentInfo(msgspec.Struct):
    """A segment in the log, and the highest index of an entry in it (0: none)."""

    number: int
    size: int
    last_index: int = 0


class Found(msgspec.Struct, frozen=True):
    """The log, and how to write on: ``end`` is where the next batch goes, ``remnant_end`` (bytes)
    how far a torn one reaches; ``last`` is the newest batch, and ``last_size`` its bytes.
    """

    recovered: Recovered
    segments: list[SegmentInfo]
    end: Place
    remnant_end: int
    spares: list[SegmentInfo]
    last: Place | None
    last_size: int


def recover(disk: Disk, directory: str, numbers: list[int]) -> Found:
    """Read the whole log.

    Args:
        disk: Where.
        directory: Where on it.
        numbers: Its segments, rising; at least one.

    Returns:
        What it says.

    Raises:
        CorruptError: It is not what was synced, and term, vote or the log's end are in doubt.
        FormatError: Another version wrote it.
    """
    reader = _Reader(disk, directory, numbers, Replay(), None)
    damage: CorruptError | None = None
    while True:
        try:
            reader.read()
            break
        except NonsenseError:
            raise
        except CorruptError as error:
            damage = damage or error
            start = reader.next_start()
            if start is None:
                raise damage from None
            replay = reader.replay.behind(start.batch - reader.next_batch)
            reader = _Reader(disk, directory, numbers, replay, start)
    recovered = _finish(reader, segment_path(directory, numbers[0]), damage)
    segments = _segments_before(disk, directory, numbers[0], reader) + reader.segments
    if not recovered.complete:
        # Whichever of them holds what: all of it is needed until a snapshot covers it.
        for info in segments:
            info.last_index = recovered.last_index
    return Found(
        recovered,
        segments,
        reader.end,
        reader.remnant_end,
        reader.spares,
        reader.last,
        reader.last_size,
    )


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
        size = segment_size(file, path)
        return file.read(size, 0)
    finally:
        file.close()


class _Reader:
    """Reads a log from its beginning, or from a batch in it, to its end.

    Args:
        replay: Is fed.
        start: The batch to begin with; None: the log's first.
    """

    def __init__(
        self, disk: Disk, directory: str, numbers: list[int], replay: Replay, start: Place | None
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._numbers = numbers
        self._place = start
        self._data = b""
        self.replay = replay
        self.number = numbers[0] if start is None else start.segment
        self.next_batch = 1 if start is None else start.batch
        """The number of the first batch that was not found whole."""
        self.segments: list[SegmentInfo] = []
        self.remnant_end = 0
        self.last: Place | None = None
        self.last_size = 0
        self.spares: list[SegmentInfo] = []
        self.clean = False

    @property
    def end(self) -> Place:
        """Where reading has come to."""
        assert self._place is not None, "there is at least one segment"
        return self._place

    def read(self) -> None:
        """Read on to the end.

        Raises:
            CorruptError: Something is damaged; ``next_start`` says where what follows begins.
        """
        while not self._read_segment():
            self.number += 1
        self.remnant_end = len(self._data.rstrip(b"\0"))
        self._data = b""
        later = range(self.number + 1, self._numbers[-1] + 1)
        self.spares = _spares(self._disk, self._directory, later, self.end)
        self.clean = _read_clean(self._disk, self._directory, self.end)

    def next_start(self) -> Place | None:
        """The first batch behind the damage whose header is sound; None if there is none."""
        place = self._place
        offset = 0
        if place is not None and place.segment == self.number:
            offset = place.offset + SECTOR_BYTES
        for number in range(self.number, self._numbers[-1] + 1):
            if number != self.number:
                self._data, offset = b"", 0
            if not self._data:
                with suppress(CorruptError):
                    self._data = _read_segment(self._disk, segment_path(self._directory, number))
            found = find_batch(self._data, offset, number, self.next_batch)
            if found is not None:
                return found
        return None

    def _read_segment(self) -> bool:
        """Read the next segment; return whether the log ends in it."""
        number, place = self.number, self._place
        path = segment_path(self._directory, number)
        self._data = b""
        if number > self._numbers[-1]:
            reason = "the segment is missing, and the one before it says that it exists"
            raise CorruptError(path, 0, reason)
        self._data = data = _read_segment(self._disk, path)
        info = SegmentInfo(number, len(data))
        self.segments.append(info)
        if place is None:
            # Segments before this one may be gone, and with them what its first batch follows.
            batch, chain = (1, 0) if number == 1 else peek_place(data)
            self._place = Place(number, len(data), 0, batch, chain)
        elif place.segment != number:
            self._place = Place(number, len(data), 0, place.batch, place.chain)
        while self.end.offset < len(data):
            place = self.end
            batch_read = decode(data, place, path)
            if isinstance(batch_read, Unwritten):
                if self.replay.metadata is None:
                    raise CorruptError(path, place.offset, "the log's first batch is missing")
                refuse_later_batches(data, place.offset, path)
                return True
            self._feed(batch_read.payload, place, path, info)
            self.last, self.last_size = place, batch_read.size
            end = place.offset + batch_read.size
            self.next_batch = place.batch + 1
            self._place = Place(number, len(data), end, place.batch + 1, batch_read.crc)
            if batch_read.sealed:
                refuse_later_batches(data, end - SECTOR_BYTES, path)
                return False
        raise CorruptError(path, self.end.offset, "the segment is full but not sealed")

    def _feed(self, payload: bytes, place: Place, path: str, info: SegmentInfo) -> None:
        try:
            for record in decode_records(payload):
                self.replay.feed(record)
                if isinstance(record, list) and record:
                    info.last_index = max(info.last_index, record[-1].index)
        except RecordError as error:
            reason = f"batch {place.batch} makes no sense: {error}"
            raise NonsenseError(path, place.offset, reason) from error


def _segments_before(disk: Disk, directory: str, first: int, reader: _Reader) -> list[SegmentInfo]:
    """The segments that are not needed for what was read, damaged or before damage."""
    mark = reader.replay.mark
    found = []
    for number in range(first, reader.segments[0].number):
        file = disk.open(segment_path(directory, number))
        try:
            found.append(SegmentInfo(number, file.size(), 0 if mark is None else mark.index))
        finally:
            file.close()
    return found


def _spares(disk: Disk, directory: str, numbers: range, end: Place) -> list[SegmentInfo]:
    spares = []
    for number in numbers:
        path = segment_path(directory, number)
        file = disk.open(path)
        try:
            size = segment_size(file, path)
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


def _finish(reader: _Reader, first_path: str, damage: CorruptError | None) -> Recovered:
    replay = reader.replay
    metadata = replay.metadata
    if metadata is None:
        raise damage or CorruptError(first_path, 0, "the log does not say whose it is")
    if damage is not None and not (replay.state_known and replay.end_known):
        # The newest vote, or what was acknowledged last, may be what was damaged.
        raise damage
    after = replay.mark.index if replay.mark is not None else 0
    complete = replay.gapless
    if not complete and damage is None:
        reason = f"entries {after + 1} to {replay.entries[0].index - 1} are missing"
        damage = CorruptError(first_path, 0, reason)
    commit_index, last_index = replay.hard_state.commit_index, replay.last_index()
    if commit_index > last_index:
        # A commit index is written with, or after, the entries that it covers.
        reason = f"the log ends at {last_index}, its commit index is {commit_index}"
        raise damage or CorruptError(first_path, 0, reason)
    return Recovered(
        metadata,
        replay.hard_state,
        replay.mark,
        replay.entries if complete else [],
        last_index,
        reader.clean,
        replay.fallback if complete else None,
        damage,
        complete,
    )
