"""The log's files: names, filling ahead, and the tail that is written on.

A directory holds segments ``0000000000000001.wal``, ``…2.wal`` and so on. Each is filled with
zeros, synced and named before its first batch, so that ``fdatasync`` has no metadata to write. They
are not recycled: behind the log's end there are only zeros, which is what tells a torn batch from a
damaged one (see ``wal/batch.py``). A segment's first batch begins with metadata, hard state and
snapshot mark as they are then, so that every segment before it may go once its entries are covered
by a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from wal.batch import FLAG_SEAL, Place, batch_size, encode
from wal.errors import CorruptError
from wal.files import SECTOR_BYTES, Disk, File, write_and_sync

SUFFIX: Final = ".wal"
TEMPORARY_SUFFIX: Final = ".new"
_DIGITS: Final = 16
_FILL: Final = bytes(1 << 20)
_FILL_SYNC_BYTES: Final = 8 << 20
"""Filling syncs this often: one sync of a whole segment would hold up the log's own syncs for as
long as it takes.
"""


class AbandonedError(Exception):
    """Filling stopped because the log is being closed."""


def segment_path(directory: str, number: int) -> str:
    """Return the path of segment ``number``."""
    return f"{directory}/{number:0{_DIGITS}x}{SUFFIX}"


def segment_numbers(disk: Disk, directory: str) -> list[int]:
    """Return the numbers of the segments in a directory, rising.

    Raises: CorruptError: A file claims to be a segment by its name but has no number, or one in
        between is missing.
    """
    numbers = []
    for name in disk.list(directory):
        if name.endswith(SUFFIX):
            try:
                number = int(name[: -len(SUFFIX)], 16)
            except ValueError:
                number = -1
            path = f"{directory}/{name}"
            if number < 1 or segment_path(directory, number) != path:
                raise CorruptError(path, 0, "no segment has such a name", "move this file away")
            numbers.append(number)
    for before, after in pairwise(numbers):
        if after != before + 1:
            missing = segment_path(directory, before + 1)
            raise CorruptError(missing, 0, "the segment is missing, and a later one is there")
    return numbers


def prepare(
    disk: Disk,
    directory: str,
    number: int,
    size: int,
    keep_going: Callable[[], bool],
    first_batch: Sequence[bytes] = (),
) -> File:
    """Make a segment of zeros that is durable, name included.

    Args:
        disk: Where.
        directory: Where on it.
        number: The segment's.
        size: In bytes, a multiple of the sector's.
        keep_going: Asked now and then; when it says no, ``AbandonedError`` is raised.
        first_batch: What is to stand at its start already when it gets its name.

    Returns:
        The open segment.
    """
    path = segment_path(directory, number)
    temporary = path + TEMPORARY_SUFFIX
    with suppress(FileNotFoundError):
        disk.remove(temporary)
    file = disk.create(temporary)
    try:
        fill(file, 0, size, keep_going)
        if first_batch:
            write_and_sync(file, first_batch, 0)
        disk.rename(temporary, path)
        disk.sync_directory(directory)
    except BaseException:
        file.close()
        # What was filled so far would take up the very room that others lack.
        with suppress(OSError):
            disk.remove(temporary)
        raise
    return file


def fill(file: File, start: int, end: int, keep_going: Callable[[], bool]) -> None:
    """Write zeros from ``start`` to ``end``, and sync them."""
    unsynced = 0
    while start < end:
        if not keep_going():
            raise AbandonedError
        length = min(len(_FILL), end - start)
        file.write((_FILL[:length],), start)
        start += length
        unsynced += length
        if unsynced >= _FILL_SYNC_BYTES:
            file.sync()
            unsynced = 0
    file.sync()


def segment_size(file: File, path: str) -> int:
    """How long a segment is, in bytes: whole sectors.

    A segment gets its name only when it is filled and synced. One that grew for a huge batch may
    have any length between, if the power went before that was synced: the batch was not written
    yet.

    Raises:
        CorruptError: It is empty.
    """
    size = file.size()
    size -= size % SECTOR_BYTES
    if not size:
        raise CorruptError(path, 0, "the segment is empty")
    return size


def is_zero(file: File, size: int) -> bool:
    """Whether a segment was never written to."""
    for offset in range(0, size, len(_FILL)):
        piece = file.read(min(len(_FILL), size - offset), offset)
        if piece != _FILL[: len(piece)]:
            return False
    return True


class Ready(msgspec.Struct):
    """A segment that waits for its first batch."""

    number: int
    size: int
    file: File


class Tail:
    """The end of the log: the segment in use and the place of the next batch in it."""

    __slots__ = ("_batch", "_chain", "file", "number", "offset", "size")

    def __init__(self, file: File, place: Place) -> None:
        self.file = file
        self.number = place.segment
        self.size = place.segment_size
        self.offset = place.offset
        self._batch = place.batch
        self._chain = place.chain

    def place(self) -> Place:
        """Where the next batch goes."""
        return Place(self.number, self.size, self.offset, self._batch, self._chain)

    def fits(self, length: int) -> bool:
        """Whether a payload of ``length`` bytes still goes in here, with a sector left for the
        seal.
        """
        return self.offset + batch_size(length) + SECTOR_BYTES <= self.size

    def frame(self, parts: Sequence[bytes], length: int, flags: int = 0) -> Framed:
        """Frame a payload that fits as the next batch, which has to be written where it says."""
        header, body, crc = encode(parts, length, self.place(), flags)
        offset = self.offset
        self.offset = offset + len(header) + len(body)
        self._batch += 1
        self._chain = crc
        room = 0 if flags else SECTOR_BYTES
        assert self.offset + room <= self.size, "a segment keeps a sector for its seal"
        return (header, body), offset

    def roll(
        self, ready: Ready, parts: list[bytes], length: int
    ) -> tuple[Tail, Callable[[], None]]:
        """Seal this segment and frame a payload as the first batch of the next one, which grows if
        it must.

        Returns:
            The new tail, and the job that makes all of it durable.
        """
        seal = self.frame((), 0, FLAG_SEAL)
        size = max(ready.size, batch_size(length) + SECTOR_BYTES)
        tail = Tail(ready.file, Place(ready.number, size, 0, self._batch, self._chain))
        return tail, partial(_roll, self.file, seal, ready, size, tail.frame(parts, length))


Framed: TypeAlias = tuple[tuple[bytes, bytes], int]
"""A batch's bytes, and its offset in the segment."""


def _roll(old: File, seal: Framed, ready: Ready, size: int, first: Framed) -> None:
    # The seal is synced first: a batch in the new segment says that everything before it is
    # durable.
    write_and_sync(old, *seal)
    old.close()
    if size > ready.size:
        fill(ready.file, ready.size, size, keep_going=lambda: True)
    write_and_sync(ready.file, *first)


def begin(disk: Disk, directory: str, size: int, parts: list[bytes]) -> Tail:
    """Make the first segment of a log, with its first batch in it: it gets its name only when both
    are durable.
    """
    length = sum(map(len, parts))
    size = max(size, batch_size(length) + SECTOR_BYTES)
    header, body, crc = encode(parts, length, Place(1, size, 0, 1, 0))
    file = prepare(disk, directory, 1, size, lambda: True, (header, body))
    return Tail(file, Place(1, size, len(header) + len(body), 2, crc))
