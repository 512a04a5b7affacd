"""Both disks keep the same protocol; the one in memory forgets what the other might."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from raft.types import Seq
from tests.wal.support import DIRECTORY, METADATA, HandLoop, entries, mark, state
from wal.errors import DiskError, LockedError, WalError
from wal.files import Disk, OsDisk
from wal.memory_disk import MemoryDisk
from wal.snapshot_file import SnapshotWriter, newest_valid
from wal.wal import Wal, WalOptions


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    loop = HandLoop()
    yield loop
    loop.close()


@pytest.fixture(params=["memory", "os"])
def disk(request: pytest.FixtureRequest, loop: HandLoop) -> Disk:
    return MemoryDisk() if request.param == "memory" else OsDisk(loop.call_soon_threadsafe)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return f"{tmp_path}/a/b"


def test_a_file_holds_what_was_written(disk: Disk, directory: str) -> None:
    disk.make_directory(directory)
    disk.make_directory(directory)
    file = disk.create(f"{directory}/f")
    with pytest.raises(FileExistsError):
        disk.create(f"{directory}/f")
    file.write((b"abc", b"", b"def"), 4)
    file.sync()
    assert (file.size(), file.read(100, 0)) == (10, b"\0\0\0\0abcdef")
    assert (file.read(2, 5), file.read(5, 10)) == (b"bc", b"")
    file.close()
    file.close()
    with pytest.raises(OSError, match=r"closed|Bad file"):
        file.read(1, 0)
    again = disk.open(f"{directory}/f")
    again.write((b"X",), 4)
    assert again.read(10, 4) == b"Xbcdef"
    again.close()


def test_names_come_go_and_move(disk: Disk, directory: str) -> None:
    assert disk.list(directory) == []
    disk.make_directory(directory)
    for name in ("b", "a", "c"):
        disk.create(f"{directory}/{name}").close()
    assert disk.list(directory) == ["a", "b", "c"]
    file = disk.open(f"{directory}/a")
    disk.rename(f"{directory}/a", f"{directory}/c")
    disk.remove(f"{directory}/b")
    disk.sync_directory(directory)
    assert disk.list(directory) == ["c"]
    file.write((b"1",), 0)
    assert disk.open(f"{directory}/c").read(1, 0) == b"1"
    for missing in ("a", "b"):
        with pytest.raises(FileNotFoundError):
            disk.open(f"{directory}/{missing}")
    with pytest.raises(FileNotFoundError):
        disk.remove(f"{directory}/a")
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{directory}/a", f"{directory}/b")
    file.close()


def test_a_directory_moves_and_goes_with_all_that_is_in_it(disk: Disk, directory: str) -> None:
    disk.make_directory(f"{directory}/one/deep")
    for name in ("one/a", "one/deep/b"):
        file = disk.create(f"{directory}/{name}")
        file.write((name.encode(),), 0)
        file.close()
    disk.rename(f"{directory}/one", f"{directory}/two")
    assert disk.list(directory) == ["two"]
    assert disk.list(f"{directory}/two") == ["a", "deep"]
    moved = disk.open(f"{directory}/two/deep/b")
    assert moved.read(100, 0) == b"one/deep/b"
    moved.close()
    disk.make_directory(f"{directory}/three")
    disk.create(f"{directory}/three/c").close()
    with pytest.raises(OSError, match=r"not empty|is taken"):
        disk.rename(f"{directory}/two", f"{directory}/three")
    disk.remove_tree(f"{directory}/two")
    assert disk.list(directory) == ["three"]


def test_a_directory_is_locked_once(disk: Disk, directory: str) -> None:
    disk.make_directory(directory)
    lock = disk.lock(directory)
    with pytest.raises(LockedError) as caught:
        disk.lock(directory)
    assert caught.value.directory == directory
    if isinstance(disk, OsDisk):
        assert caught.value.pid == os.getpid()
        assert f"in use by process {os.getpid()}; stop that one first" in str(caught.value)
    lock.release()
    lock.release()
    disk.lock(directory).release()


# --------------------------------------------------------------------------------- real lanes


def test_a_lane_runs_jobs_in_order_off_the_loop_and_reports_on_it(loop: HandLoop) -> None:
    lane = OsDisk(loop.call_soon_threadsafe).lane("test")
    results: list[object] = []
    threads: set[str] = set()

    def job(number: int) -> Callable[[], int]:
        def run() -> int:
            threads.add(threading.current_thread().name)
            return 100 // number

        return run

    for number in (5, 0, 2):
        lane.submit(job(number), results.append)
    loop.run_until(lambda: len(results) == 3)
    assert (results[0], type(results[1]), results[2]) == (20, ZeroDivisionError, 50)
    assert threads == {"test"}
    ran: list[int] = []
    lane.submit(lambda: ran.append(1), lambda _result: None)
    lane.close()
    assert ran == [1]
    assert "test" not in [thread.name for thread in threading.enumerate()]


def test_a_lane_outlives_a_loop_that_is_closed() -> None:
    def closed(*_args: object) -> None:
        raise RuntimeError("Event loop is closed")

    lane = OsDisk(closed).lane("test")
    ran: list[int] = []
    lane.submit(lambda: ran.append(1), lambda _result: None)
    lane.submit(lambda: ran.append(2), lambda _result: None)
    lane.close()
    assert ran == [1, 2]


def test_a_write_that_the_kernel_cuts_short_is_finished(
    disk: Disk, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.make_directory(directory)
    file = disk.create(f"{directory}/f")
    whole = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: whole(fd, parts[0][:2], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, data[:3], offset))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 2), offset))
    file.write((b"abcde", b"fghij"), 3)
    assert file.read(20, 3) == b"abcdefghij"
    file.close()


# ------------------------------------------------------------------------- a log on a real disk


class _RealNode:
    def __init__(self, directory: str, loop: HandLoop, readers: HandLoop | None = None) -> None:
        self.loop = loop
        self.persisted: list[int] = []
        self.failures: list[Exception] = []
        self.wal, self.recovered = Wal.open(
            OsDisk(loop.call_soon_threadsafe, readers),
            directory,
            WalOptions(segment_bytes=64 * 1024, batch_bytes_max=16 * 1024),
            METADATA,
            on_persisted=self.persisted.append,
            on_failed=self.failures.append,
            clock=time.monotonic,
        )

    def close(self) -> object:
        closed: list[object] = []
        self.wal.close(closed.append)
        self.loop.run_until(lambda: bool(closed))
        return closed[0]


@pytest.mark.parametrize("way", ["thread", "kernel"])
def test_a_log_on_a_real_disk(directory: str, loop: HandLoop, way: str) -> None:
    readers = loop if way == "kernel" else None
    node = _RealNode(directory, loop, readers)
    for seq in range(1, 301):
        node.wal.persist(Seq(seq), state(1, 1, seq - 1), entries(seq, seq, data=b"v" * 500), None)
    node.loop.run_until(lambda: node.persisted[-1:] == [300])
    assert node.wal.last_sync_seconds > 0
    assert sum(node.wal.sync_counts) == node.wal.batches
    node.wal.persist(Seq(301), None, [], mark(290))
    node.loop.run_until(lambda: node.persisted[-1:] == [301])
    node.wal.release(290)
    with pytest.raises(LockedError):
        _RealNode(directory, loop)
    assert node.close() is None
    assert "0000000000000001.wal" not in os.listdir(directory)
    node = _RealNode(directory, loop, readers)
    assert node.recovered.clean
    assert node.recovered.metadata.incarnation == 2
    assert node.recovered.entries == entries(291, 300, data=b"v" * 500)
    assert node.recovered.snapshot_mark == mark(290)
    assert node.close() is None
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("wal")]


def test_a_sync_that_fails_on_a_real_disk_ends_the_log(
    directory: str, loop: HandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = _RealNode(directory, loop)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    node.wal.persist(Seq(1), state(1), entries(1, 1), None)
    node.loop.run_until(lambda: bool(node.failures))
    assert node.persisted == []
    assert isinstance(node.close(), DiskError)
    assert len(node.failures) == 1


def test_a_snapshot_on_a_real_disk(directory: str, loop: HandLoop) -> None:
    disk = OsDisk(loop.call_soon_threadsafe)
    writer = SnapshotWriter(disk, directory, mark(4))
    writer.append(b"chunk")
    file = writer.finish()
    reported: list[WalError] = []
    assert newest_valid(disk, directory, lambda _meta: True, reported.append) == file
    assert reported == []
    assert os.stat(file.path).st_mode & 0o077 == 0


# ---------------------------------------------------------------------- the disk that forgets


def _content(disk: MemoryDisk, name: str) -> bytes | None:
    path = f"{DIRECTORY}/{name}"
    return disk.content(path) if name in disk.list(DIRECTORY) else None


def test_a_crash_keeps_what_was_synced_and_any_of_the_rest() -> None:
    found: set[tuple[bytes | None, bytes | None]] = set()
    for seed in range(200):
        disk = MemoryDisk()
        file = disk.create(f"{DIRECTORY}/a")
        file.write((b"1" * 1024,), 0)
        file.sync()
        disk.sync_directory(DIRECTORY)
        file.write((b"2" * 1024,), 0)
        other = disk.create(f"{DIRECTORY}/b")
        other.write((b"3",), 0)
        other.sync()
        disk.crash(Random(seed))
        found.add((_content(disk, "a"), _content(disk, "b")))
        with pytest.raises(OSError, match="closed"):
            file.read(1, 0)
    sectors = [old + new for old in (b"1" * 512, b"2" * 512) for new in (b"1" * 512, b"2" * 512)]
    assert found == {(content, name) for content in sectors for name in (None, b"3")}


def test_a_crash_loses_changes_of_names_that_were_not_synced_one_by_one() -> None:
    found = set()
    for seed in range(200):
        disk = MemoryDisk()
        for name in ("a", "b"):
            disk.create(f"{DIRECTORY}/{name}").close()
        disk.sync_directory(DIRECTORY)
        disk.rename(f"{DIRECTORY}/a", f"{DIRECTORY}/c")
        disk.remove(f"{DIRECTORY}/b")
        disk.crash(Random(seed))
        found.add(tuple(disk.list(DIRECTORY)))
    assert found == {("a", "b"), ("a",), ("b", "c"), ("c",)}


def test_a_crash_moves_a_directory_whole_or_not_at_all() -> None:
    found = set()
    for seed in range(10):
        disk = MemoryDisk()
        for name in ("a", "b"):
            file = disk.create(f"/x/old/{name}")
            file.write((b"kept",), 0)
            file.sync()
        disk.sync_directory("/x/old")
        disk.rename("/x/old", "/x/new")
        disk.crash(Random(seed))
        (where,) = disk.list("/x")
        assert disk.list(f"/x/{where}") == ["a", "b"]
        found.add(where)
    assert found == {"old", "new"}


def test_after_a_failed_sync_a_second_one_proves_nothing() -> None:
    disk = MemoryDisk()
    file = disk.create(f"{DIRECTORY}/a")
    disk.sync_directory(DIRECTORY)
    file.write((b"1" * 512,), 0)
    disk.failures["sync"] = OSError(errno.EIO, "input/output error")
    with pytest.raises(OSError, match="input/output"):
        file.sync()
    file.sync()
    assert file.read(1, 0) == b"1"
    disk.crash(Random(0))
    assert disk.content(f"{DIRECTORY}/a").strip(b"\0") == b""


def test_lanes_run_when_the_schedule_says_in_order() -> None:
    scheduled: list[Callable[[], None]] = []
    disk = MemoryDisk(schedule=scheduled.append)
    lane = disk.lane("test")
    results: list[object] = []
    for number in (1, 2, 3):
        lane.submit(partial(abs, number), results.append)
    scheduled[2]()
    assert results == [1]
    disk.crash(Random(0))
    for run in scheduled:
        run()
    assert results == [1]
