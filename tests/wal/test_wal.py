"""How a log is opened, written and closed: order, group commit, batches."""

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
    reopened,
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
        node = reopened(node)
        assert node.wal.metadata == Metadata(0xC1, 0x42, incarnation, METADATA.bootstrap)
        assert node.recovered.metadata == node.wal.metadata


def test_openings_alone_fill_segments_and_go_on_in_the_next() -> None:
    node = Node(MemoryDisk())
    node.write(entries(1, 3), state(2, 1, 3))
    for _ in range(40):
        node = reopened(node)
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
    recovered = reopened(node).recovered
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
    assert reopened(node).recovered.entries == entries(1, 10)


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
    found = reopened(again).recovered
    assert (len(found.entries), found.hard_state) == (20, state(2, 2, 20))


@pytest.mark.parametrize("size", [3000, 16_000, 17_000, 100_000])
def test_an_entry_larger_than_a_batch_or_a_segment_is_written(size: int) -> None:
    node = Node(MemoryDisk())
    log = entries(1, 2) + entries(3, 4, data=bytes(size)) + entries(5, 6)
    node.write(log, state(1, 1, 6))
    assert node.persisted == [1]
    assert reopened(node).recovered.entries == log


def test_appending_at_a_lower_index_cuts_what_follows() -> None:
    node = Node(MemoryDisk())
    node.persist(entries(1, 9))
    # In one batch: a run that ends early and one that starts below its end must not be taken for
    # one.
    node.persist(entries(10, 12))
    node.persist(entries(11, 11, term=2))
    node.write(entries(5, 6, term=3))
    recovered = reopened(node).recovered
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
    assert not reopened(node).recovered.clean


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
