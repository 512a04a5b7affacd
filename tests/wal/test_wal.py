"""How a log behaves while it is open: order, group commit, segments, failures, room, closing."""

from __future__ import annotations

import errno
from random import Random

import google_crc32c
import pytest

from tests.wal.support import (
    DIRECTORY,
    METADATA,
    OPTIONS,
    Node,
    entries,
    entry,
    mark,
    segments,
    state,
)
from wal.batch import HEADER_BYTES
from wal.errors import (
    CorruptError,
    DiskError,
    DiskFullError,
    FormatError,
    LockedError,
    NoLogError,
    WalError,
)
from wal.memory_disk import MemoryDisk
from wal.record import Metadata
from wal.wal import SYNC_SECONDS_BOUNDS, Wal, WalOptions

ENOSPC = OSError(errno.ENOSPC, "no space")
EIO = OSError(errno.EIO, "input/output error")


def _reopened(node: Node) -> Node:
    node.disk.crash(Random(1))
    return Node(node.disk, metadata=None)


# ------------------------------------------------------------------------------------ opening


def test_golden_bytes_of_a_new_log_with_one_entry() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.write([entry(1, 1, b"k=v")], state(1, 2, 0))
    content = disk.content(segments(disk)[0])
    # The first batch: metadata, hard state.
    assert content[HEADER_BYTES:512].rstrip(b"\xff") == (
        bytes.fromhex("01000000 2a000000 c100000000000000 4200000000000000 0100000000000000")
        + b"a=http://localhost"
        + bytes.fromhex("02000000 18000000" + "00" * 24)
    )
    # The second: one run of one entry, hard state.
    second = content[512 + HEADER_BYTES : 1024].rstrip(b"\xff")
    assert second == (
        bytes.fromhex("03000000 23000000 01000000 1b000000")
        + entry(1, 1, b"k=v").encoded
        + bytes.fromhex("02000000 18000000 0100000000000000 0200000000000000 0000000000000000")
    )
    assert not any(content[1024:])
    assert len(content) == OPTIONS.segment_bytes


def test_a_log_is_made_only_if_it_is_told_what_it_is() -> None:
    disk = MemoryDisk()
    assert not Wal.exists(disk, DIRECTORY)
    with pytest.raises(NoLogError):
        Node(disk, metadata=None)
    assert not Wal.exists(disk, DIRECTORY)
    node = Node(disk)
    assert Wal.exists(disk, DIRECTORY)
    assert node.recovered.entries == []
    assert node.wal.metadata == Metadata(0xC1, 0x42, 1, METADATA.bootstrap)


def test_each_opening_is_a_new_incarnation_durably() -> None:
    node = Node(MemoryDisk())
    for incarnation in (2, 3, 4):
        node = _reopened(node)
        assert node.wal.metadata == Metadata(0xC1, 0x42, incarnation, METADATA.bootstrap)
        assert node.recovered.metadata == node.wal.metadata


def test_openings_alone_fill_segments_and_go_on_in_the_next() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 3), state(2, 1, 3))
    for _ in range(40):
        node = _reopened(node)
    assert node.recovered.entries == entries(1, 3)
    assert node.recovered.hard_state == state(2, 1, 3)
    assert len(segments(node.disk)) > 1


def test_a_directory_in_use_is_refused() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    with pytest.raises(LockedError, match="in use by another node; stop that one first"):
        Node(disk)
    node.close()
    Node(disk)


def test_a_refused_opening_lets_the_directory_go() -> None:
    disk = MemoryDisk()
    Node(disk).close()
    disk.flip(segments(disk)[0], 60, 1)
    for _ in range(2):
        with pytest.raises(CorruptError):
            Node(disk)


def test_a_disk_that_refuses_at_opening_is_an_error_of_ours() -> None:
    disk = MemoryDisk()
    disk.failures["sync"] = EIO
    with pytest.raises(DiskError, match="input/output error"):
        Node(disk)
    disk = MemoryDisk(capacity_bytes=1000)
    with pytest.raises(DiskFullError):
        Node(disk)
    assert disk.used_bytes() == 0


def test_a_mark_of_a_clean_stop_in_another_format_is_refused() -> None:
    disk = MemoryDisk()
    Node(disk).close()
    clean = bytearray(disk.content(f"{DIRECTORY}/clean")[:-4])
    clean[4] = 2
    disk.overwrite(f"{DIRECTORY}/clean", 0, bytes(clean) + _crc(bytes(clean)))
    with pytest.raises(FormatError):
        Node(disk)


def _crc(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(4, "little")


@pytest.mark.parametrize(
    "fields",
    [
        {"segment_bytes": 1024},
        {"segment_bytes": 16_001},
        {"batch_bytes_max": 0},
        {"spare_segments": 0},
    ],
)
def test_options_that_cannot_work_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(WalError, match="must be"):
        WalOptions(**fields)


# ------------------------------------------------------------------------------------ writing


def test_what_was_persisted_is_recovered() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 5), state(1, 3, 2))
    node.write(hard_state=state(2, 1, 2))
    node.write(entries(6, 9, term=2), state(2, 1, 5))
    assert node.persisted == [1, 2, 3]
    recovered = _reopened(node).recovered
    assert recovered.entries == entries(1, 5) + entries(6, 9, term=2)
    assert recovered.hard_state == state(2, 1, 5)
    assert recovered.snapshot_mark is None
    assert not recovered.clean


def test_nothing_is_acknowledged_before_its_sync() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.persist(entries(1, 1))
    assert node.persisted == []
    syncs = disk.syncs
    disk.run_next("wal")
    assert (disk.syncs - syncs, node.persisted) == (1, [1])


def test_group_commit_one_write_in_flight_and_the_rest_together() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    for index in range(1, 11):
        node.persist(entries(index, index), state(1, 1, index - 1))
    syncs = disk.syncs
    (lane,) = (lane for lane in disk.lanes if lane.name == "wal")
    assert len(lane.jobs) == 1
    disk.run_next("wal")
    assert node.persisted == [1]
    assert len(lane.jobs) == 1
    disk.run_next("wal")
    # Nine calls, one batch, one sync, one report.
    assert node.persisted == [1, 10]
    assert (disk.syncs - syncs, node.wal.batches, len(lane.jobs)) == (2, 2, 0)
    assert _reopened(node).recovered.entries == entries(1, 10)


def test_what_waits_together_is_cut_where_a_batch_ends() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    for index in range(1, 31):
        node.persist(entries(index, index, data=b"v" * 1000))
    disk.run_pending()
    assert node.persisted[0] == 1
    assert node.persisted[-1] == 30
    # Three of a thousand bytes go into four KiB.
    assert all(b - a <= 3 for a, b in zip(node.persisted, node.persisted[1:], strict=False))
    assert node.wal.queued_bytes == 0


def test_a_call_larger_than_a_batch_is_acknowledged_when_all_of_it_is_durable() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.write(hard_state=state(1, 1, 0))
    node.persist(entries(1, 20, 2, b"v" * 1000), state(2, 2, 20))
    node.persist(entries(21, 21, 2))
    disk.run_next("wal")
    disk.run_next("wal")
    assert node.persisted == [1]
    disk.crash(Random(1))
    again = Node(disk)
    found = again.recovered
    # The front is there, in its term, and the commit index does not run ahead of it.
    assert 0 < len(found.entries) < 20
    assert found.entries == entries(1, len(found.entries), 2, b"v" * 1000)
    assert found.hard_state == state(2, 2, 0)
    rest = entries(len(found.entries) + 1, 20, 2, b"v" * 1000)
    again.write(rest, state(2, 2, 20))
    assert again.persisted == [1]
    found = _reopened(again).recovered
    assert (len(found.entries), found.hard_state) == (20, state(2, 2, 20))


@pytest.mark.parametrize("size", [3000, 16_000, 17_000, 100_000])
def test_an_entry_larger_than_a_batch_or_a_segment_is_written(size: int) -> None:
    node = Node(MemoryDisk())
    log = entries(1, 2) + entries(3, 4, data=bytes(size)) + entries(5, 6)
    node.write(log, state(1, 1, 6))
    assert node.persisted == [1]
    assert _reopened(node).recovered.entries == log


def test_appending_at_a_lower_index_cuts_what_follows() -> None:
    node = Node(MemoryDisk())
    node.persist(entries(1, 9))
    # In one batch: a run that ends early and one that starts below its end must not be taken for
    # one.
    node.persist(entries(10, 12))
    node.persist(entries(11, 11, term=2))
    node.write(entries(5, 6, term=3))
    recovered = _reopened(node).recovered
    assert recovered.entries == entries(1, 4) + entries(5, 6, term=3)


def test_a_batch_goes_out_before_the_news_of_the_last_one() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.persist(entries(1, 1))
    node.persist(entries(2, 2))
    (lane,) = (lane for lane in disk.lanes if lane.name == "wal")
    waiting: list[int] = []
    node.wal._on_persisted = lambda _seq: waiting.append(len(lane.jobs))
    disk.run_next("wal")
    assert waiting == [1]


def test_counters_say_what_was_done() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    node.now = 5.0
    node.persist(entries(1, 2, data=b"v" * 100), state(1))
    assert node.wal.write_started == 5.0
    assert node.wal.queued_bytes >= 2 * 100
    assert (node.wal.grown_entries, node.wal.grown_bytes) == (2, 2 * 128)
    disk.run_pending()
    assert [node.wal.write_started, node.wal.queued_bytes] == [None, 0]
    assert (node.wal.batches, node.wal.bytes_written > 256) == (1, True)
    assert (node.wal.last_sync_seconds, node.wal.sync_seconds) == (0.0, 0.0)
    assert node.wal.sync_counts == [1] + [0] * len(SYNC_SECONDS_BOUNDS)
    assert node.wal.size_bytes == 3 * OPTIONS.segment_bytes


# ---------------------------------------------------------------------- snapshots and segments


def test_raft_s7_a_snapshot_that_agrees_keeps_the_entries_after_it() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10), state(1, 1, 10))
    node.write(snapshot_mark=mark(6, 1))
    recovered = _reopened(node).recovered
    assert recovered.snapshot_mark == mark(6, 1)
    assert recovered.entries == entries(7, 10)


@pytest.mark.parametrize("index", [6, 10, 15])
def test_raft_s7_a_snapshot_that_does_not_agree_discards_the_log(index: int) -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10))
    node.write(entries(index + 1, index + 2, term=2), state(2, 1, index), mark(index, 2))
    recovered = _reopened(node).recovered
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
    recovered = _reopened(node).recovered
    assert (recovered.snapshot_mark, recovered.entries) == (mark(6, 2), [])


def test_a_mark_older_than_the_newest_is_left_out() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10))
    node.write(snapshot_mark=mark(8))
    assert node.wal.grown_entries == 0
    node.write(snapshot_mark=mark(5))
    assert node.persisted == [1, 2, 3]
    recovered = _reopened(node).recovered
    assert (recovered.snapshot_mark, recovered.entries) == (mark(8), entries(9, 10))


def test_growth_counts_from_the_newest_mark_also_after_a_restart() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 10, data=b"v" * 100))
    node.write(snapshot_mark=mark(6))
    node.write(entries(11, 12, data=b"v" * 100))
    assert (node.wal.grown_entries, node.wal.grown_bytes) == (2, 2 * 128)
    node = _reopened(node)
    assert (node.wal.grown_entries, node.wal.grown_bytes) == (6, 6 * 128)


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
    node = _reopened(node)
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
    node = _reopened(node)
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
    assert len(_reopened(node).recovered.entries) == index


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


# ------------------------------------------------------------------------------------- closing


def test_closing_writes_what_is_queued_and_leaves_a_mark() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.persist(entries(1, 3))
    node.persist(entries(4, 5))
    node.close()
    assert node.closed == [None]
    assert node.persisted == [1, 2]
    disk.crash(Random(5))
    node = Node(disk)
    assert node.recovered.clean
    assert node.recovered.entries == entries(1, 5)
    # The mark holds for one opening only.
    assert not _reopened(node).recovered.clean


def test_closing_while_a_segment_is_filled_stops_filling() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.wal.close(node.closed.append)
    disk.run_next("wal")
    assert node.closed == [None]
    assert disk.lanes == []
    assert len(segments(disk)) == 1
    assert not [name for name in disk.list(DIRECTORY) if name.endswith(".new")]


def test_a_mark_that_cannot_be_left_is_said() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    disk.run_pending()
    node.write(entries(1, 1))
    disk.failures["sync"] = EIO
    node.close()
    assert [type(error) for error in node.closed] == [DiskError]
    assert not Node(disk).recovered.clean
