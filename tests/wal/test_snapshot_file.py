"""Snapshot files: whole or refused, the newest valid one wins, and a transfer goes on where it
stopped.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.types import SnapshotMeta
from tests.wal.support import mark
from wal.errors import CorruptError, DiskError, DiskFullError, FormatError, TransferError, WalError
from wal.memory_disk import MemoryDisk
from wal.snapshot_file import (
    SECTION_BYTES_MAX,
    SnapshotFile,
    SnapshotReader,
    SnapshotReceiver,
    SnapshotWriter,
    newest_valid,
    prune,
)

DIRECTORY = "member/snap"
CHUNKS = [b"first", bytes(700), b"\xff" * 300]


def _written(
    disk: MemoryDisk, index: int, term: int = 1, chunks: list[bytes] = CHUNKS
) -> SnapshotFile:
    writer = SnapshotWriter(disk, DIRECTORY, mark(index, term))
    for chunk in chunks:
        writer.append(chunk)
    return writer.finish()


def _chunks(disk: MemoryDisk, file: SnapshotFile) -> list[bytes]:
    reader = SnapshotReader(disk, file)
    try:
        return list(reader.chunks())
    finally:
        reader.close()


def _newest(
    disk: MemoryDisk, accept: Callable[[SnapshotMeta], bool] = lambda _meta: True
) -> tuple[SnapshotFile | None, list[WalError]]:
    reported: list[WalError] = []
    return newest_valid(disk, DIRECTORY, accept, reported.append), reported


def test_golden_bytes_of_a_small_snapshot() -> None:
    disk = MemoryDisk()
    file = _written(disk, 0x123, 0x45, [b"ab", b"c"])
    content = disk.content(file.path)
    head = bytes.fromhex(
        "4b534e50 01000000 2301000000000000 4500000000000000 08000000 9493010203909090"
    )
    sections = bytes.fromhex("02000000") + _crc(b"\2\0\0\0ab") + b"ab"
    sections += bytes.fromhex("01000000") + _crc(b"\1\0\0\0c") + b"c"
    before = head + _crc(head) + sections
    foot = bytes.fromhex("00000000 0200000000000000") + _crc(before)
    assert content == before + foot + _crc(foot)
    assert file.path == f"{DIRECTORY}/0000000000000123-0000000000000045.snap"
    assert (file.meta, file.size_bytes) == (mark(0x123, 0x45), len(content))
    assert file.crc.to_bytes(4, "little") == _crc(before)


def _crc(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(4, "little")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_a_snapshot_reads_back(chunks: list[bytes]) -> None:
    disk = MemoryDisk()
    file = _written(disk, 5, chunks=chunks)
    assert _chunks(disk, file) == chunks
    assert _newest(disk) == (file, [])


def test_a_snapshot_is_there_whole_after_a_crash_or_not_at_all() -> None:
    for seed in range(40):
        disk = MemoryDisk()
        old = _written(disk, 5)
        writer = SnapshotWriter(disk, DIRECTORY, mark(9))
        writer.append(b"more")
        if seed % 2:
            new = writer.finish()
            disk.crash(Random(seed))
            assert _newest(disk) == (new, [])
        else:
            disk.crash(Random(seed))
            assert _newest(disk) == (old, [])


@given(st.integers(0, 2**20), st.integers(1, 255))
def test_a_damaged_byte_anywhere_is_found_and_the_older_one_wins(offset: int, mask: int) -> None:
    disk = MemoryDisk()
    older = _written(disk, 5)
    newer = _written(disk, 6)
    disk.flip(newer.path, offset % newer.size_bytes, mask)
    found, reported = _newest(disk)
    assert found == older
    (error,) = reported
    assert isinstance(error, CorruptError)
    assert error.file == newer.path
    assert 0 <= error.offset < newer.size_bytes
    # Set aside, not removed, and not met again.
    assert disk.content(newer.path + ".corrupt")
    assert _newest(disk) == (older, [])


@given(st.integers(0, 2**20))
def test_a_cut_snapshot_is_found_and_so_is_a_longer_one(length: int) -> None:
    disk = MemoryDisk()
    file = _written(disk, 6)
    if length % 5:
        disk.cut(file.path, length % file.size_bytes)
    else:
        disk.open(file.path).write((b"x",), file.size_bytes)
    found, reported = _newest(disk)
    assert found is None
    assert [type(error) for error in reported] == [CorruptError]


def test_loading_a_snapshot_that_was_damaged_meanwhile_fails() -> None:
    disk = MemoryDisk()
    file = _written(disk, 6)
    disk.flip(file.path, file.size_bytes - 30, 1)
    with pytest.raises(CorruptError):
        _chunks(disk, file)


def test_the_newest_that_is_accepted_wins() -> None:
    disk = MemoryDisk()
    files = {index: _written(disk, index) for index in (3, 0x10, 0xF)}
    assert _newest(disk)[0] == files[0x10]
    assert _newest(disk, lambda meta: meta.index < 0x10)[0] == files[0xF]
    assert _newest(disk, lambda meta: meta.index > 0x10)[0] is None


def test_a_newer_format_is_reported_and_left_alone() -> None:
    disk = MemoryDisk()
    file = _written(disk, 6)
    head = bytearray(disk.content(file.path)[:36])
    head[4] = 2
    disk.overwrite(file.path, 0, bytes(head) + _crc(bytes(head)))
    found, reported = _newest(disk)
    assert found is None
    assert [type(error) for error in reported] == [FormatError]
    assert disk.content(file.path)


def test_no_directory_is_no_snapshot() -> None:
    assert _newest(MemoryDisk()) == (None, [])


def test_a_section_that_is_too_large_is_our_mistake() -> None:
    writer = SnapshotWriter(MemoryDisk(), DIRECTORY, mark(1))
    writer.append(bytes(SECTION_BYTES_MAX))
    for chunk in (b"", bytes(SECTION_BYTES_MAX + 1)):
        with pytest.raises(AssertionError):
            writer.append(chunk)


def test_a_large_snapshot_is_synced_on_the_way() -> None:
    disk = MemoryDisk()
    writer = SnapshotWriter(disk, DIRECTORY, mark(1))
    for _ in range(17):
        writer.append(bytes(SECTION_BYTES_MAX))
    assert disk.syncs == 2


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_disk_that_refuses_leaves_nothing_behind(step: str) -> None:
    disk = MemoryDisk()
    writer = SnapshotWriter(disk, DIRECTORY, mark(1))
    disk.failures[step] = OSError(errno.EIO, "input/output error")
    with pytest.raises(DiskError):
        _append_and_finish(writer)
    assert disk.list(DIRECTORY) == []


def _append_and_finish(writer: SnapshotWriter) -> None:
    for _ in range(10):
        writer.append(bytes(1000))
    writer.finish()


def test_a_full_disk_gets_its_room_back() -> None:
    disk = MemoryDisk(capacity_bytes=5000)
    writer = SnapshotWriter(disk, DIRECTORY, mark(1))
    with pytest.raises(DiskFullError):
        _append_and_finish(writer)
    assert disk.used_bytes() == 0


def test_a_writer_starts_afresh_over_what_another_left() -> None:
    disk = MemoryDisk()
    SnapshotWriter(disk, DIRECTORY, mark(1)).append(b"left")
    file = _written(disk, 1)
    assert _chunks(disk, file) == CHUNKS
    writer = SnapshotWriter(disk, DIRECTORY, mark(2))
    assert writer.size_bytes == 40
    writer.abort()
    assert disk.list(DIRECTORY) == [file.path.rpartition("/")[2]]


# ---------------------------------------------------------------------------------- receiving


def _send(disk: MemoryDisk, file: SnapshotFile, receiver: SnapshotReceiver, until: int) -> None:
    reader = SnapshotReader(disk, file)
    while receiver.offset < until:
        piece = reader.read_raw(receiver.offset, min(100, until - receiver.offset))
        receiver.write(receiver.offset, piece)
    reader.close()


def test_a_received_snapshot_is_the_sent_one() -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    file = _written(sender, 7)
    receiver = SnapshotReceiver(disk, DIRECTORY, file)
    _send(sender, file, receiver, file.size_bytes)
    assert _newest(disk)[0] is None
    assert receiver.finish() == file
    disk.crash(Random(1))
    assert _newest(disk) == (file, [])
    assert _chunks(disk, file) == CHUNKS


@given(st.integers(0, 1000), st.integers(0, 2**16))
def test_a_transfer_goes_on_where_it_stopped_and_a_crash_is_noticed(stop: int, seed: int) -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    file = _written(sender, 7)
    receiver = SnapshotReceiver(disk, DIRECTORY, file)
    _send(sender, file, receiver, stop)
    receiver.suspend()
    crashed = seed % 2 == 1
    if crashed:
        disk.crash(Random(seed))
    receiver = SnapshotReceiver(disk, DIRECTORY, file)
    assert receiver.offset <= stop
    assert crashed or receiver.offset == stop
    _send(sender, file, receiver, file.size_bytes)
    try:
        assert receiver.finish() == file
    except CorruptError:
        # Sectors of the first part were lost: nothing of it stays, and the next try starts over.
        assert crashed
        receiver = SnapshotReceiver(disk, DIRECTORY, file)
        assert receiver.offset == 0
        _send(sender, file, receiver, file.size_bytes)
        assert receiver.finish() == file
    assert _newest(disk) == (file, [])


def test_bytes_that_do_not_continue_or_are_too_many_are_refused() -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    file = _written(sender, 7)
    receiver = SnapshotReceiver(disk, DIRECTORY, file)
    receiver.write(0, bytes(10))
    for offset, length in ((0, 1), (11, 1), (10, file.size_bytes)):
        with pytest.raises(TransferError) as caught:
            receiver.write(offset, bytes(length))
        assert caught.value.expected_offset == 10
    with pytest.raises(TransferError):
        receiver.finish()
    assert receiver.offset == 10


def test_bytes_that_are_damaged_on_the_way_leave_nothing_behind() -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    file = _written(sender, 7)
    receiver = SnapshotReceiver(disk, DIRECTORY, file)
    _send(sender, file, receiver, 300)
    receiver.write(300, b"?")
    _send(sender, file, receiver, file.size_bytes)
    with pytest.raises(CorruptError):
        receiver.finish()
    assert disk.list(DIRECTORY) == []


def test_another_snapshot_than_the_one_announced_is_refused() -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    sent = _written(sender, 7, chunks=[b"a"])
    announced = SnapshotFile(sent.path, mark(8), sent.size_bytes, sent.crc)
    receiver = SnapshotReceiver(disk, DIRECTORY, announced)
    _send(sender, sent, receiver, sent.size_bytes)
    with pytest.raises(CorruptError, match="another snapshot was announced"):
        receiver.finish()


def test_transfers_of_two_files_of_one_snapshot_do_not_mix() -> None:
    sender, disk = MemoryDisk(), MemoryDisk()
    file = _written(sender, 7)
    first = SnapshotReceiver(disk, DIRECTORY, file)
    _send(sender, file, first, 200)
    first.suspend()
    other = SnapshotReceiver(
        disk, DIRECTORY, SnapshotFile(file.path, file.meta, file.size_bytes, file.crc ^ 1)
    )
    assert other.offset == 0


# ------------------------------------------------------------------------------------ pruning


def test_prune_keeps_the_proven_one_some_before_it_and_what_is_newer_or_corrupt() -> None:
    disk = MemoryDisk()
    files = {index: _written(disk, index) for index in (1, 2, 3, 4, 5)}
    disk.flip(files[1].path, 0, 1)
    _newest(disk, lambda meta: meta.index < 2)
    SnapshotWriter(disk, DIRECTORY, mark(3, 2))
    SnapshotWriter(disk, DIRECTORY, mark(9))
    assert prune(disk, DIRECTORY, files[4], keep=2) == [
        files[2].path,
        f"{DIRECTORY}/0000000000000003-0000000000000002.snap.new",
    ]
    disk.crash(Random(0))
    assert files[1].path + ".corrupt" in [f"{DIRECTORY}/{name}" for name in disk.list(DIRECTORY)]
    assert [index for index, file in files.items() if _exists(disk, file.path)] == [3, 4, 5]
    assert prune(disk, DIRECTORY, files[4], keep=2) == []


def _exists(disk: MemoryDisk, path: str) -> bool:
    return path.rpartition("/")[2] in disk.list(DIRECTORY)
