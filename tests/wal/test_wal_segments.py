"""What an open log does with snapshots, with segments that are no longer needed, and with a disk
that fails or is full.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from tests.wal.support import (
    DIRECTORY,
    METADATA,
    Node,
    entries,
    entry,
    mark,
    reopened,
    segments,
    state,
)
from wal.errors import DiskError, DiskFullError
from wal.memory_disk import MemoryDisk
from wal.record import Metadata
from wal.scrub import scrub_segment

EIO = OSError(errno.EIO, "input/output error")


# ---------------------------------------------------------------------- snapshots and segments


def test_raft_s7_a_snapshot_that_agrees_keeps_the_entries_after_it() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10), state(1, 1, 10))
    node.write(snapshot_mark=mark(6, 1))
    recovered = reopened(node).recovered
    assert recovered.snapshot_mark == mark(6, 1)
    assert recovered.entries == entries(7, 10)


@pytest.mark.parametrize("index", [6, 10, 15])
def test_raft_s7_a_snapshot_that_does_not_agree_discards_the_log(index: int) -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10))
    node.write(entries(index + 1, index + 2, term=2), state(2, 1, index), mark(index, 2))
    recovered = reopened(node).recovered
    assert recovered.snapshot_mark == mark(index, 2)
    assert recovered.entries == entries(index + 1, index + 2, term=2)


def test_what_a_discarded_log_held_stays_discarded_when_its_front_is_gone() -> None:
    # Entries 1 to 12 fill segments; a snapshot at 6 disagrees with them. Once the segment that held
    # entry 6 is gone, nothing but the mark itself can say that 7 to 12 do not follow it.
    node = Node(MemoryDisk())
    for index in range(1, 25):
        node.write(entries(index, index, data=b"v" * 1500))
    node.write(hard_state=state(2, 1, 6), snapshot_mark=mark(6, 2))
    before = len(segments(node.disk))
    node.wal.release(6)
    node.disk.run_pending()
    assert len(segments(node.disk)) <= before
    recovered = reopened(node).recovered
    assert (recovered.snapshot_mark, recovered.entries) == (mark(6, 2), [])


def test_a_mark_older_than_the_newest_is_left_out() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10))
    node.write(snapshot_mark=mark(8))
    assert node.wal.grown_entries == 0
    node.write(snapshot_mark=mark(5))
    assert node.persisted == [1, 2, 3]
    recovered = reopened(node).recovered
    assert (recovered.snapshot_mark, recovered.entries) == (mark(8), entries(9, 10))


def test_growth_counts_from_the_newest_mark_also_after_a_restart() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10, data=b"v" * 100))
    node.write(snapshot_mark=mark(6))
    node.write(entries(11, 12, data=b"v" * 100))
    assert (node.wal.grown_entries, node.wal.grown_bytes) == (2, 2 * 128)
    node = reopened(node)
    assert (node.wal.grown_entries, node.wal.grown_bytes) == (6, 6 * 128)


@pytest.mark.parametrize("grown_bytes", [1, 511, 512, 2819, 20_000])
def test_a_segment_that_grew_to_any_length_when_the_power_went_is_one(grown_bytes: int) -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 3))
    # It grows, for a batch larger than any segment, and the power goes before that is synced: a
    # size is no sector, and may come to anything.
    spare = node.disk.open(segments(node.disk)[-1])
    spare.write((bytes(grown_bytes),), spare.size())
    spare.sync()
    spare.close()
    node = reopened(node)
    for index in range(4, 30):
        node.write([entry(index, data=b"v" * 3_000)])
    for written in node.wal.written():
        assert sum(scrub_segment(node.disk, DIRECTORY, written)) > 0
    node.write([entry(30, data=b"v" * 40_000)])
    node = reopened(node)
    node.write(entries(31, 32))
    node.close()
    assert reopened(node).recovered.last_index == 32


def _long_log() -> Node:
    node = Node(MemoryDisk())
    for index in range(1, 61):
        node.write(entries(index, index, data=b"v" * 1000), state(1, 1, index))
    assert len(segments(node.disk)) >= 6
    return node


def test_release_removes_what_a_durable_mark_covers_and_nothing_else() -> None:
    node = _long_log()
    before = segments(node.disk)
    node.wal.release(60)
    node.disk.run_pending()
    # Without a mark nothing is covered, whatever the caller says.
    assert segments(node.disk) == before
    node.persist(snapshot_mark=mark(40))
    node.wal.release(40)
    # The mark is not durable yet.
    node.disk.run_pending()
    assert segments(node.disk) == before
    node.wal.release(40)
    node.disk.run_pending()
    assert len(segments(node.disk)) < len(before)
    node = reopened(node)
    assert [found.index for found in node.recovered.entries] == list(range(41, 61))
    assert node.recovered.hard_state == state(1, 1, 60)
    assert node.recovered.snapshot_mark == mark(40)
    assert node.recovered.metadata.incarnation == 2


def test_release_of_everything_keeps_what_the_log_says_of_itself() -> None:
    node = _long_log()
    node.write(snapshot_mark=mark(60))
    node.wal.release(60)
    node.disk.run_pending()
    # The one in use, the next, and the spare one.
    assert len(segments(node.disk)) == 3
    node = reopened(node)
    assert node.recovered.entries == []
    assert (node.recovered.snapshot_mark, node.recovered.hard_state) == (mark(60), state(1, 1, 60))
    assert node.recovered.metadata == Metadata(0xC1, 0x42, 2, METADATA.bootstrap)


def test_a_segment_stays_until_the_next_one_holds_what_it_began_with() -> None:
    node = Node(MemoryDisk())
    index = 0
    while node.wal._tail.fits(2500):
        index += 1
        node.write(entries(index, index, data=b"v" * 1000), state(7, 1, index))
    node.write(snapshot_mark=mark(index))
    assert len(node.wal._segments) == 1
    # This one goes to the next segment. While it is in flight, the first one holds all there is of
    # metadata, state and mark.
    node.persist(entries(index + 1, index + 1, data=b"v" * 3000))
    node.wal.release(index)
    node.disk.run_next("wal-prepare")
    node.disk.crash(Random(0))
    node = Node(node.disk, metadata=None)
    assert node.recovered.snapshot_mark == mark(index)
    assert node.recovered.hard_state == state(7, 1, index)


# ------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_failed_write_or_sync_ends_the_log(step: str) -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.write(entries(1, 1))
    disk.run_pending()
    node.persist(entries(2, 2))
    node.persist(entries(3, 3))
    disk.failures[step] = EIO
    disk.run_pending()
    assert node.persisted == [1]
    assert [type(error) for error in node.failures] == [DiskError]
    # Nothing is written or acknowledged afterwards, and nobody is told twice.
    syncs = disk.syncs
    node.persist(entries(4, 4))
    node.wal.release(1)
    disk.run_pending()
    assert (disk.syncs, node.persisted, len(node.failures)) == (syncs, [1], 1)
    node.close()
    assert node.closed == node.failures
    # The directory is free, and holds what was acknowledged; what was not may be gone.
    disk.crash(Random(1))
    assert Node(disk).recovered.entries[:1] == entries(1, 1)


@pytest.mark.parametrize("when", ["before", "on the spot"])
def test_a_log_that_fails_while_it_is_closed_says_so_once(when: str) -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    node.persist(entries(1, 1))
    if when == "before":
        node.wal.close(node.closed.append)
    else:
        node.wal._on_failed = lambda _error: node.wal.close(node.closed.append)
    disk.failures["sync"] = EIO
    disk.run_pending()
    assert [type(error) for error in node.closed] == [DiskError]
    assert not Node(disk).recovered.clean


def test_a_failed_preparation_ends_the_log_unless_the_disk_is_full() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.failures["sync"] = EIO
    disk.run_next("wal-prepare")
    assert [type(error) for error in node.failures] == [DiskError]


def test_a_full_disk_is_said_while_spare_segments_still_take_writes() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    disk.capacity_bytes = disk.used_bytes()
    index = 0
    while not node.wal.disk_full:
        index += 1
        node.write(entries(index, index, data=b"v" * 1000))
    assert node.persisted[-1] == index
    said_at = index
    for index in range(said_at + 1, said_at + 60):
        node.write(entries(index, index, data=b"v" * 1000))
    # A whole segment's worth was written after it was said; then the log stands still, and fails
    # nobody.
    assert node.persisted[-1] - said_at >= 12
    stalled = node.persisted[-1]
    assert stalled < index
    assert node.failures == []
    assert node.wal.queued_bytes > 0
    node.wal.retry_space()
    disk.run_pending()
    assert (node.persisted[-1], node.wal.disk_full) == (stalled, True)
    # Room comes back: it goes on by itself, in order.
    disk.capacity_bytes = None
    node.wal.retry_space()
    disk.run_pending()
    assert (node.persisted[-1], node.wal.disk_full, node.wal.queued_bytes) == (index, False, 0)
    assert len(reopened(node).recovered.entries) == index


def test_a_full_disk_gets_room_from_released_segments() -> None:
    node = _long_log()
    node.disk.capacity_bytes = node.disk.used_bytes()
    node.write(snapshot_mark=mark(60))
    index = 60
    while not node.wal.disk_full:
        index += 1
        node.write(entries(index, index, data=b"v" * 1000))
    node.wal.release(60)
    node.disk.run_pending()
    assert not node.wal.disk_full


def test_closing_on_a_full_disk_says_that_the_queue_was_not_written() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    disk.capacity_bytes = disk.used_bytes()
    index = 0
    while node.wal.queued_bytes == 0:
        index += 1
        node.write(entries(index, index, data=b"v" * 1000))
    node.close()
    assert [type(error) for error in node.closed] == [DiskFullError]
    disk.capacity_bytes = None
    recovered = Node(disk).recovered
    assert (len(recovered.entries), recovered.clean) == (node.persisted[-1], False)


def test_a_bug_in_a_job_ends_the_log_too() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.persist(entries(1, 1))
    node.wal._tail.file.close()
    node.wal._on_written(ZeroDivisionError("ours"))
    assert "ours" in str(node.failures[0])
    assert isinstance(node.failures[0].__cause__, ZeroDivisionError)
