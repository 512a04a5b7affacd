"""Syncs that need no thread: in order with those that do, and never fewer."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wal.files
from raft.types import Seq
from tests.support.kernel_sync import why_not
from tests.wal.support import METADATA, HandLoop, entries, state
from wal.aio import Calls, KernelSync
from wal.errors import DiskError
from wal.files import SLOW_SYNC_SECONDS, SLOW_WRITE_SECONDS, WRITE_HERE_BYTES_MAX, Lane, OsDisk
from wal.wal import Wal, WalOptions

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


class _Calls(Calls):
    """Calls that a test ends itself, or lets fail. ``refusals`` are what the next ones raise."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []
        self.refusals: dict[str, int] = {}
        self.contexts = 0
        self._signal = -1
        self._ended: list[tuple[int, int]] = []

    def setup(self) -> int:
        self._refuse("setup")
        self.contexts += 1
        return super().setup()

    def destroy(self, context: int) -> None:
        self.contexts -= 1
        super().destroy(context)

    def submit_sync(self, context: int, descriptor: int, signal: int, number: int) -> None:
        self._refuse("submit")
        self._signal = signal
        self.asked.append((descriptor, number))

    def result(self, context: int, *, wait: bool) -> tuple[int, int] | None:
        self._refuse("result")
        if wait and not self._ended:
            self.end()
        return self._ended.pop(0) if self._ended else None

    def end(self, error: int = 0) -> None:
        """The sync that was asked for last has ended."""
        self._ended.append((self.asked[-1][1], -error))
        os.eventfd_write(self._signal, 1)

    def _refuse(self, what: str) -> None:
        error = self.refusals.pop(what, 0)
        if error:
            raise OSError(error, os.strerror(error))


class _Bench:
    """A lane, a file, and a clock that stands still."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.loop = HandLoop()
        self.calls = _Calls()
        self.disk = OsDisk(self.loop.call_soon_threadsafe, self.loop, lambda: self.calls)
        self.file = self.disk.create(str(path / "file"))
        self.lane: Lane = self.disk.lane("test")
        self.happened: list[object] = []
        self.synced_by_thread = 0
        monkeypatch.setattr(wal.files, "monotonic", lambda: self.now)
        fdatasync = os.fdatasync

        def count(descriptor: int) -> None:
            self.synced_by_thread += 1
            fdatasync(descriptor)

        monkeypatch.setattr(os, "fdatasync", count)

    def write(self, data: bytes, offset: int = 0) -> None:
        self.lane.write_and_sync(
            self.file, (data[:1], data[1:]), offset, lambda result: self.done(data[:4], result)
        )

    def done(self, what: bytes, result: BaseException | None) -> None:
        number = result.errno if isinstance(result, OSError) else result
        self.happened.append((what, number))

    def wait(self, count: int) -> None:
        self.loop.run_until(lambda: len(self.happened) >= count)
        assert len(self.happened) == count


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Bench]:
    bench = _Bench(tmp_path, monkeypatch)
    yield bench
    bench.lane.close()
    bench.file.close()
    bench.loop.close()
    assert bench.calls.contexts == 0


def test_golden_bytes_of_a_request() -> None:
    calls = Calls()
    asked: list[tuple[int, ...]] = []

    def syscall(*numbers: int) -> int:
        asked.append(numbers)
        return 1

    calls._syscall = syscall  # type: ignore[assignment]
    calls.submit_sync(0x1000, 7, 9, 0x0102)
    assert calls._iocb.raw == bytes.fromhex(
        "0201000000000000 00000000 00000000 0300 0000 07000000"
        "0000000000000000 0000000000000000 0000000000000000 0000000000000000 01000000 09000000"
    )
    assert asked[0][1:3] == (0x1000, 1)


def test_the_kernel_syncs_a_real_file(tmp_path: Path) -> None:
    loop = HandLoop()
    syncs = KernelSync(loop, Calls())
    with (tmp_path / "file").open("wb") as file:
        file.write(b"abc")
        file.flush()
        results: list[OSError | None] = []
        for count in (1, 2):
            syncs.start(file.fileno(), results.append)
            assert syncs.is_busy
            loop.run_until(lambda count=count: len(results) == count)  # type: ignore[misc]
        syncs.start(file.fileno(), results.append)
        syncs.close()
        assert results == [None, None, None]
    loop.close()


def test_what_the_kernel_refuses_is_raised(tmp_path: Path) -> None:
    loop = HandLoop()
    syncs = KernelSync(loop, Calls())
    with pytest.raises(OSError, match="Bad file") as caught:
        syncs.start(1 << 20, lambda _result: None)
    assert caught.value.errno == errno.EBADF
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Invalid"):
        syncs.start(writing, lambda _result: None)
    assert not syncs.is_busy
    syncs.close()
    for descriptor in (reading, writing):
        os.close(descriptor)
    loop.close()


def test_a_batch_is_written_at_once_and_reported_when_the_kernel_has_synced_it(
    bench: _Bench,
) -> None:
    bench.write(b"abc", 2)
    assert bench.file.read(10, 0) == b"\0\0abc"
    assert bench.happened == []
    bench.calls.end()
    bench.wait(1)
    assert bench.happened == [(b"abc", None)]
    assert bench.calls.asked == [(bench.file.descriptor, 1)]  # type: ignore[attr-defined]
    assert bench.synced_by_thread == 0


def test_the_order_of_jobs_holds_with_and_without_the_thread(bench: _Bench) -> None:
    bench.write(b"1")
    bench.lane.submit(lambda: bench.happened.append(bench.file.read(1, 0)), lambda _result: None)
    bench.write(b"2")
    assert (bench.file.read(1, 0), bench.happened) == (b"1", [])
    bench.calls.end()
    bench.wait(3)
    assert set(bench.happened[:2]) == {(b"1", None), b"1"}
    assert bench.happened[2] == (b"2", None)
    # A job of the thread is under way: what comes behind it is the thread's as well.
    hold = threading.Event()
    bench.lane.submit(hold.wait, lambda _result: bench.happened.append("held"))
    bench.write(b"3")
    assert bench.file.read(1, 0) == b"2"
    hold.set()
    bench.wait(5)
    assert bench.happened[3:] == ["held", (b"3", None)]
    assert (len(bench.calls.asked), bench.synced_by_thread) == (1, 2)
    bench.write(b"4")
    assert len(bench.calls.asked) == 2


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_sync_that_failed_is_reported_as_such(bench: _Bench, error: int) -> None:
    bench.write(b"1")
    bench.calls.end(error)
    bench.wait(1)
    assert bench.happened == [(b"1", error)]


def test_a_sync_of_which_nothing_is_known_has_failed(bench: _Bench) -> None:
    bench.write(b"1")
    bench.calls.refusals["result"] = errno.EINVAL
    bench.calls.end()
    bench.wait(1)
    assert bench.happened == [(b"1", errno.EINVAL)]


def test_a_signal_without_a_result_is_passed_over(bench: _Bench) -> None:
    bench.write(b"1")
    bench.calls.end()
    ended = bench.calls._ended.pop()
    bench.lane._kernel_sync._on_signal()  # type: ignore[attr-defined]
    bench.lane._kernel_sync._on_signal()  # type: ignore[attr-defined]
    assert bench.happened == []
    bench.calls._ended.append(ended)
    os.eventfd_write(bench.calls._signal, 1)
    bench.wait(1)


def test_a_write_that_failed_is_reported_later_and_nothing_is_synced(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_what: object) -> int:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "pwritev", fail)
    bench.write(b"1")
    assert bench.happened == []
    bench.wait(1)
    assert bench.happened == [(b"1", errno.EIO)]
    assert (bench.calls.asked, bench.synced_by_thread) == ([], 0)


def test_a_write_that_the_kernel_cuts_short_is_finished_before_the_sync(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: pwrite(fd, parts[0], offset))
    bench.write(b"abcdef")
    assert bench.file.read(10, 0) == b"abcdef"
    assert len(bench.calls.asked) == 1


def test_what_the_kernel_has_no_room_for_is_synced_by_the_thread(bench: _Bench) -> None:
    bench.calls.refusals["submit"] = errno.EAGAIN
    bench.write(b"1")
    bench.wait(1)
    assert (bench.happened, bench.synced_by_thread) == ([(b"1", None)], 1)
    bench.write(b"2")
    assert len(bench.calls.asked) == 1


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_cannot_is_asked_once(bench: _Bench, error: int) -> None:
    bench.calls.refusals["submit"] = error
    for count in (1, 2):
        bench.write(b"%d" % count)
        bench.wait(count)
    assert bench.happened == [(b"1", None), (b"2", None)]
    assert (bench.calls.asked, bench.calls.contexts, bench.synced_by_thread) == ([], 0, 2)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOSYS, errno.EPERM])
def test_without_a_context_all_is_the_threads(bench: _Bench, error: int) -> None:
    bench.calls.refusals["setup"] = error
    for count in (1, 2):
        bench.write(b"%d" % count)
        bench.wait(count)
    assert (bench.calls.asked, bench.synced_by_thread) == ([], 2)


def test_a_loop_that_watches_no_descriptors_leaves_all_to_the_thread(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _callback: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(bench.loop, "add_reader", refuse)
    bench.write(b"1")
    bench.wait(1)
    assert (bench.calls.contexts, bench.synced_by_thread) == (0, 1)


def test_a_large_batch_is_the_threads(bench: _Bench) -> None:
    bench.write(bytes(WRITE_HERE_BYTES_MAX + 1))
    bench.wait(1)
    assert (bench.calls.asked, bench.synced_by_thread) == ([], 1)
    bench.write(bytes(WRITE_HERE_BYTES_MAX))
    assert len(bench.calls.asked) == 1


def test_a_slow_disk_is_left_to_the_thread_till_it_is_fast_again(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(b"1")
    bench.now += 2 * SLOW_SYNC_SECONDS
    bench.calls.end()
    bench.wait(1)
    for count in (2, 3):
        # The first one of these finds it fast.
        bench.write(b"%d" % count)
        if count == 3:
            assert len(bench.calls.asked) == 2
            bench.calls.end()
        bench.wait(count)
    assert bench.synced_by_thread == 1
    pwritev = os.pwritev

    def wait_and_write(descriptor: int, parts: list[bytes], offset: int) -> int:
        bench.now += 2 * SLOW_WRITE_SECONDS
        return pwritev(descriptor, parts, offset)

    monkeypatch.setattr(os, "pwritev", wait_and_write)
    bench.write(b"4")
    bench.calls.end()
    bench.wait(4)
    bench.write(b"5")
    bench.wait(5)
    assert (len(bench.calls.asked), bench.synced_by_thread) == (3, 2)


def test_who_closes_a_lane_waits_for_its_sync_and_for_what_is_behind_it(bench: _Bench) -> None:
    bench.write(b"1")
    bench.lane.submit(bench.file.sync, lambda _result: bench.happened.append("behind"))
    bench.lane.close()
    assert bench.synced_by_thread == 1
    assert bench.happened == []
    bench.wait(2)
    assert bench.happened == [(b"1", None), "behind"]
    bench.lane = bench.disk.lane("test")


def _open(directory: Path, loop: HandLoop, new_calls: Callable[[], Calls]) -> tuple[Wal, list[int]]:
    persisted: list[int] = []
    log, _recovered = Wal.open(
        OsDisk(loop.call_soon_threadsafe, loop, new_calls),
        str(directory),
        WalOptions(segment_bytes=64 * 1024, batch_bytes_max=16 * 1024),
        METADATA,
        on_persisted=persisted.append,
        on_failed=lambda error: persisted.append(-1) if isinstance(error, DiskError) else None,
        clock=lambda: 0.0,
    )
    return log, persisted


def test_a_sync_that_fails_in_the_kernel_ends_the_log(tmp_path: Path) -> None:
    loop = HandLoop()
    calls = _Calls()
    log, persisted = _open(tmp_path, loop, lambda: calls)
    for seq in (1, 2):
        log.persist(Seq(seq), state(1), entries(seq, seq), None)
    calls.end(errno.EIO)
    loop.run_until(lambda: bool(persisted))
    assert persisted == [-1]
    assert len(calls.asked) == 1
    closed: list[object] = []
    log.close(closed.append)
    assert isinstance(closed[0], DiskError)
    loop.close()


def test_a_log_that_is_closed_syncs_what_is_queued_before_the_mark_of_a_clean_stop(
    tmp_path: Path,
) -> None:
    loop = HandLoop()
    calls = _Calls()
    log, persisted = _open(tmp_path, loop, lambda: calls)
    for seq in (1, 2):
        log.persist(Seq(seq), state(1), entries(seq, seq), None)
    closed: list[object] = []
    log.close(closed.append)
    assert "clean" not in os.listdir(tmp_path)
    calls.end()
    loop.run_until(lambda: persisted == [1])
    assert closed == []
    calls.end()
    loop.run_until(lambda: bool(closed))
    assert (closed, persisted, len(calls.asked)) == ([None], [1, 2], 2)
    assert "clean" in os.listdir(tmp_path)
    loop.close()
