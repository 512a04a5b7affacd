"""Reading again what was written, to find damage while there is still something to mend it with.

A disk that loses a sector says so when it is asked for it, or never. A log is read only at a start,
perhaps years after it was written, and perhaps on the day on which another member's disk fails as
well. So each file is read again now and then, in pieces, past the page cache: what memory holds
says nothing about the disk.

All of this blocks, and runs in a lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import google_crc32c
import msgspec

from wal.batch import FLAG_SEAL, HEADER_BYTES, Place, batch_size, decode_header, peek_place
from wal.errors import CorruptError, disk_error
from wal.files import Disk, File
from wal.segment import segment_path, segment_size
from wal.snapshot_file import walk

PIECE_BYTES: Final = 64 * 1024
"""What is read at a time, unless a batch or a section is larger."""


class Written(msgspec.Struct, frozen=True):
    """A segment, and how far it is written and synced; ``end`` is 0 if it is sealed."""

    number: int
    end: int


def scrub_segment(disk: Disk, directory: str, written: Written) -> Iterator[int]:
    """Check a segment's batches against their checksums and each other; yield the bytes read, piece
    by piece.

    A segment that is gone, because a snapshot covers it, is not looked for. One that goes while it
    is read can be read to its end.

    Raises:
        CorruptError: It is damaged.
        DiskError: The disk does not give it back.
    """
    path = segment_path(directory, written.number)
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return
    try:
        yield from _check_batches(file, path, written)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        file.close()


def _check_batches(file: File, path: str, written: Written) -> Iterator[int]:
    size = segment_size(file, path)
    file.uncache()
    start, wanted = 0, HEADER_BYTES
    place: Place | None = None
    while True:
        piece = file.read(max(PIECE_BYTES, wanted), start)
        if len(piece) < wanted:
            raise CorruptError(path, start + len(piece), "the segment is cut short")
        if place is None:
            place = Place(written.number, size, 0, *peek_place(piece))
        while True:
            if written.end and place.offset >= written.end:
                yield place.offset - start
                return
            at = place.offset - start
            header = piece[at : at + HEADER_BYTES]
            wanted = HEADER_BYTES
            if len(header) < HEADER_BYTES:
                break
            length, body_crc, crc, flags = decode_header(header, place, size, path)
            wanted = batch_size(length)
            if at + wanted > len(piece):
                break
            if google_crc32c.value(piece[at + HEADER_BYTES : at + wanted]) != body_crc:
                reason = f"batch {place.batch} fails its checksum"
                raise CorruptError(path, place.offset + HEADER_BYTES, reason)
            end = place.offset + wanted
            if flags == FLAG_SEAL:
                yield end - start
                yield from _check_zeros(file, path, end, size)
                return
            place = Place(written.number, size, end, place.batch + 1, crc)
        yield place.offset - start
        start = place.offset


def _check_zeros(file: File, path: str, start: int, size: int) -> Iterator[int]:
    """Behind a seal nothing was ever written; whatever stands there would be taken for a batch."""
    for offset in range(start, size, PIECE_BYTES):
        piece = file.read(min(PIECE_BYTES, size - offset), offset)
        if len(piece) < min(PIECE_BYTES, size - offset) or any(piece):
            raise CorruptError(path, offset, "something stands behind the segment's end")
        yield len(piece)


def scrub_snapshot(disk: Disk, path: str) -> Iterator[int]:
    """Check a snapshot file, section by section; yield the bytes read.

    Raises:
        CorruptError: It is damaged.
        DiskError: The disk does not give it back.
    """
    try:
        file = disk.open(path)
    except FileNotFoundError:
        # It was superseded meanwhile.
        return
    try:
        file.uncache()
        for chunk in walk(file, path):
            yield len(chunk)
    except OSError as error:
        raise disk_error(error) from error
    finally:
        file.close()
