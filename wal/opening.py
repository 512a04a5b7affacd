"""Opening a log: begin one, or read the one that is there and make it ready to be written on.
Blocks: for start-up only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from raft.types import HardState, Index, NodeId, SnapshotMeta, Term
from wal.errors import NoLogError, disk_error
from wal.files import Disk, write_and_sync
from wal.record import Mark, Metadata, encode_hard_state, encode_mark, encode_metadata
from wal.recovery import Found, Recovered, SegmentInfo, recover, remove_clean
from wal.segment import (
    TEMPORARY_SUFFIX,
    Ready,
    Tail,
    begin,
    fill,
    prepare,
    segment_numbers,
    segment_path,
)

NO_STATE = HardState(Term(0), NodeId(0), Index(0))


class Opened(msgspec.Struct, frozen=True):
    """A log that is ready to be written on. ``segments`` are those in use, the last one being the
    tail's.
    """

    recovered: Recovered
    tail: Tail
    segments: list[SegmentInfo]
    spares: list[Ready]


def open_log(
    disk: Disk,
    directory: str,
    segment_bytes: int,
    metadata_if_new: Metadata | None,
    judge: Callable[[Recovered], None],
) -> Opened:
    """Open the log in a directory that exists and is locked; see ``Wal.open``."""
    numbers = segment_numbers(disk, directory)
    for name in disk.list(directory):
        if name.endswith(TEMPORARY_SUFFIX):
            with suppress(FileNotFoundError):
                disk.remove(f"{directory}/{name}")
    if numbers:
        found = recover(disk, directory, numbers)
        judge(found.recovered)
        return _go_on(disk, directory, segment_bytes, found)
    if metadata_if_new is None:
        raise NoLogError(f"{directory}: there is no log here")
    first = max(1, metadata_if_new.incarnation)
    metadata = msgspec.structs.replace(metadata_if_new, incarnation=first)
    recovered = Recovered(metadata, NO_STATE, None, [], 0, clean=True)
    judge(recovered)
    tail = begin(disk, directory, segment_bytes, opening_records(metadata, NO_STATE, None))
    return Opened(recovered, tail, [SegmentInfo(1, tail.size)], [])


def begin_behind(
    disk: Disk, directory: str, segment_bytes: int, metadata: Metadata, snapshot: SnapshotMeta
) -> None:
    """Make a log that begins behind a snapshot, durably, in a directory that is locked.

    Its term is the snapshot's, in which it votes for nobody.

    Raises:
        DiskError: The disk refused.
    """
    state = HardState(snapshot.term, NodeId(0), snapshot.index)
    records = opening_records(metadata, state, Mark(snapshot, log_kept=False))
    try:
        begin(disk, directory, segment_bytes, records).file.close()
    except OSError as error:
        raise disk_error(error) from error


def refuse_gaps(recovered: Recovered) -> None:
    """Refuse a log of which entries are missing.

    Raises:
        CorruptError: They are.
    """
    if recovered.damage is not None and not recovered.complete:
        raise recovered.damage


def opening_records(metadata: Metadata, state: HardState, mark: Mark | None) -> list[bytes]:
    """Return what each segment, and each opening of the log, starts with."""
    records = [encode_metadata(metadata), encode_hard_state(state)]
    if mark is not None:
        records.append(encode_mark(mark))
    return records


def _write_again(disk: Disk, directory: str, found: Found) -> None:
    """Make durable what was read of the log's end: names, and the last batch.

    A process that is killed leaves what it wrote where the next one reads it, but perhaps not on
    the disk. After a sync that failed it is worse: what was to be written counts as clean from then
    on, and no later sync writes it. A member that went on from there would say what it has, and
    lose it when the power goes. Only the last batch can be meant: each is synced before the next
    is written (D2).
    """
    disk.sync_directory(directory)
    last = found.last
    if last is not None:
        file = disk.open(segment_path(directory, last.segment))
        try:
            file.write((file.read(found.last_size, last.offset),), last.offset)
            file.sync()
        finally:
            file.close()


def _go_on(disk: Disk, directory: str, segment_bytes: int, found: Found) -> Opened:
    """Clear what a torn batch left behind the log's end, and write the next incarnation there."""
    if not found.recovered.clean:
        _write_again(disk, directory, found)
    remove_clean(disk, directory)
    end = found.end
    recovered = found.recovered
    metadata = msgspec.structs.replace(
        recovered.metadata, incarnation=recovered.metadata.incarnation + 1
    )
    recovered = msgspec.structs.replace(recovered, metadata=metadata)
    mark = None if recovered.snapshot_mark is None else Mark(recovered.snapshot_mark, log_kept=True)
    parts = opening_records(metadata, recovered.hard_state, mark)
    length = sum(map(len, parts))

    tail = Tail(disk.open(segment_path(directory, end.segment)), end)
    if found.remnant_end > end.offset:
        # Before anything else: a remnant behind a new batch would look like a later one.
        fill(tail.file, end.offset, found.remnant_end, keep_going=lambda: True)
    spares = [
        Ready(info.number, info.size, disk.open(segment_path(directory, info.number)))
        for info in found.spares
    ]
    segments = found.segments
    if tail.fits(length):
        write_and_sync(tail.file, *tail.frame(parts, length))
    else:
        if not spares:
            number = tail.number + 1
            file = prepare(disk, directory, number, segment_bytes, keep_going=lambda: True)
            spares.append(Ready(number, segment_bytes, file))
        tail, job = tail.roll(spares.pop(0), parts, length)
        job()
        segments.append(SegmentInfo(tail.number, tail.size))
    return Opened(recovered, tail, segments, spares)
