"""A disk in memory that forgets what was not synced, and breaks when it is told to.

Tests and the simulator run the same code on it as production runs on ``wal.files.OsDisk``. It is
harsher than any real disk that keeps its word: at a crash each sector, and each change of a
directory, that was not synced survives or not by itself.

Lanes do nothing by themselves. Without ``schedule`` their jobs wait for ``run_next`` or
``run_pending``; with it, it is called once a job, and runs what it is given whenever it likes, so
that a simulator can let a disk take its time.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import TypeVar

from wal.errors import LockedError
from wal.files import SECTOR_BYTES, File, Job, Lane, Lock, write_and_sync

T = TypeVar("T")


class PowerCutError(BaseException):
    """The power went while a job was running. Nobody may catch it, as nobody would be there to."""


class _Inode:
    """A file's bytes: as programs see them, and as they would be found after a crash. ``dirty`` are
    sectors that differ.
    """

    __slots__ = ("data", "dirty", "synced")

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = bytearray()
        self.dirty: set[int] = set()

    def write(self, piece: bytes, offset: int) -> None:
        end = offset + len(piece)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = piece
        self.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))

    def sync(self) -> None:
        self.synced.extend(bytes(len(self.data) - len(self.synced)))
        for sector in self.dirty:
            self._keep(sector)
        self.dirty.clear()

    def crash(self, rng: Random) -> None:
        """Lose what was not synced: nothing of it, all, or each sector by itself."""
        survival = rng.choice((0.0, 0.5, 1.0))
        survivors = [sector for sector in sorted(self.dirty) if rng.random() < survival]
        if survivors:
            end = min((survivors[-1] + 1) * SECTOR_BYTES, len(self.data))
            self.synced.extend(bytes(max(0, end - len(self.synced))))
        for sector in survivors:
            self._keep(sector)
        self.data = bytearray(self.synced)
        self.dirty.clear()

    def _keep(self, sector: int) -> None:
        start = sector * SECTOR_BYTES
        end = start + SECTOR_BYTES
        self.synced[start:end] = self.data[start:end]


class _MemoryFile:
    """An open file; of no use any more after a crash."""

    __slots__ = ("_boot", "_closed", "_disk", "_inode")

    def __init__(self, disk: MemoryDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._boot = disk.boots
        self._closed = False

    def read(self, length: int, offset: int) -> bytes:
        self._check()
        return bytes(self._inode.data[offset : offset + length])

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        self._check()
        piece = b"".join(parts)
        self._disk.take_step("write")
        self._disk.take_room(offset + len(piece) - len(self._inode.data))
        self._inode.write(piece, offset)

    def sync(self) -> None:
        self._check()
        try:
            self._disk.take_step("sync")
        except OSError:
            # As Linux does: the pages that could not be written count as clean from now on.
            # Programs still read them, no later sync writes them.
            self._inode.dirty.clear()
            raise
        self._disk.syncs += 1
        self._inode.sync()

    def size(self) -> int:
        self._check()
        return len(self._inode.data)

    def uncache(self) -> None:
        self._check()

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed or self._boot != self._disk.boots:
            raise OSError(errno.EBADF, "the file is closed")


class _MemoryLock:
    __slots__ = ("_directory", "_held")

    def __init__(self, held: set[str], directory: str) -> None:
        if directory in held:
            raise LockedError(directory, 0)
        held.add(directory)
        self._held = held
        self._directory = directory

    def release(self) -> None:
        self._held.discard(self._directory)


class _MemoryLane:
    """Jobs in order. Each runs whole, between two steps of the loop, unless a crash cuts it."""

    __slots__ = ("_disk", "jobs", "name")

    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self._disk = disk
        self.name = name
        self.jobs: deque[Job] = deque()

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        self.jobs.append((job, done))
        if self._disk.schedule is not None:
            self._disk.schedule(self.run_next)

    def write_and_sync(
        self,
        file: File,
        parts: Sequence[bytes],
        offset: int,
        done: Callable[[BaseException | None], None],
    ) -> None:
        self.submit(partial(write_and_sync, file, parts, offset), done)

    def run_next(self) -> None:
        """Run the oldest job and report it."""
        if not self.jobs:
            return
        job, done = self.jobs.popleft()
        result: object
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - handed over whole, as the real lane does
            result = error
        done(result)

    def close(self) -> None:
        while self.jobs:
            self.run_next()
        if self in self._disk.lanes:
            self._disk.lanes.remove(self)


class MemoryDisk:
    """See the module. ``capacity_bytes`` bounds the sum of all files; None is no bound.

    ``syncs`` counts syncs of files, ``boots`` crashes. What a test sets: ``capacity_bytes``,
    ``failures`` (a kind of step, "write" or "sync", to the error that the next such step raises),
    ``steps_left`` (so many more writes, syncs and changes of directories happen before the power
    goes; None: it stays).
    """

    def __init__(
        self,
        *,
        capacity_bytes: int | None = None,
        schedule: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.schedule = schedule
        self.failures: dict[str, OSError] = {}
        self.steps_left: int | None = None
        self.syncs = 0
        self.boots = 0
        self.lanes: list[_MemoryLane] = []
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._changes: list[tuple[str, str | None, _Inode | None]] = []
        self._locks: set[str] = set()

    # ---------------------------------------------------------------------- the Disk protocol

    def make_directory(self, path: str) -> None:
        """Do nothing: directories are where names say they are."""

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; a directory is there if something is in it."""
        return sorted({name[len(path) + 1 :].partition("/")[0] for name in self._below(path)})

    def create(self, path: str) -> File:
        """Make and open a new, empty file."""
        self.take_step("create")
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "the name is taken", path)
        inode = _Inode()
        self._names[path] = inode
        self._changes.append((path, None, inode))
        return _MemoryFile(self, inode)

    def open(self, path: str) -> File:
        """Open an existing file."""
        return _MemoryFile(self, self._inode(path))

    def open_to_read(self, path: str) -> File:
        """Open an existing file."""
        return self.open(path)

    def rename(self, source: str, target: str) -> None:
        """Give a file, or a directory, another name in one step."""
        self.take_step("rename")
        inside = self._below(source)
        if inside:
            self._rename_directory(source, target, inside)
            return
        inode = self._inode(source)
        del self._names[source]
        self._names[target] = inode
        self._changes.append((target, source, inode))

    def remove(self, path: str) -> None:
        """Take a name away."""
        self.take_step("remove")
        self._inode(path)
        del self._names[path]
        self._changes.append((path, None, None))

    def remove_tree(self, path: str) -> None:
        """Take a directory away, file by file; once it has gone for good, so has all in it."""
        for name in self._below(path):
            self.remove(name)
        self._changes.append((path, None, None))

    def sync_directory(self, path: str) -> None:
        """Make the directory's changes durable."""
        self.take_step("sync_directory")
        self._settle(lambda name: name.rpartition("/")[0] == path)

    def lock(self, directory: str) -> Lock:
        """Take the directory, or raise ``LockedError``."""
        return _MemoryLock(self._locks, directory)

    def lane(self, name: str) -> Lane:
        """Start a lane."""
        lane = _MemoryLane(self, name)
        self.lanes.append(lane)
        return lane

    # --------------------------------------------------------------------------- what tests do

    def run_next(self, name: str) -> None:
        """Run the next job of the lane of this name."""
        for lane in self.lanes:
            if lane.name == name and lane.jobs:
                lane.run_next()
                return

    def run_pending(self) -> None:
        """Run jobs till none is left, oldest lane first."""
        while busy := next((lane for lane in self.lanes if lane.jobs), None):
            busy.run_next()

    def crash(self, rng: Random) -> None:
        """Cut the power, perhaps in the middle of a job: lose what was not synced, locks, lanes and
        open files.
        """
        self._let_go(rng)
        self._settle(lambda _name: rng.random() < 0.5)
        self._changes.clear()
        self._names = dict(self._durable_names)
        for inode in self._names.values():
            inode.crash(rng)

    def forsake(self, rng: Random) -> None:
        """Kill the process that uses it, perhaps in the middle of a job: locks, lanes and open
        files are gone, while whatever was written stays, and is no more durable than before.
        """
        self._let_go(rng)

    def flip(self, path: str, offset: int, mask: int) -> None:
        """Damage one byte, for programs and after crashes alike."""
        inode = self._inode(path)
        for content in (inode.data, inode.synced):
            content[offset] ^= mask

    def overwrite(self, path: str, offset: int, piece: bytes) -> None:
        """Damage a stretch of bytes, for programs and after crashes alike."""
        inode = self._inode(path)
        for content in (inode.data, inode.synced):
            content[offset : offset + len(piece)] = piece

    def cut(self, path: str, size: int) -> None:
        """Shorten a file, for programs and after crashes alike."""
        inode = self._inode(path)
        for content in (inode.data, inode.synced):
            del content[size:]

    def content(self, path: str) -> bytes:
        """Return a file's bytes."""
        return bytes(self._inode(path).data)

    # ------------------------------------------------------------------- what files ask for

    def take_step(self, kind: str) -> None:
        """Count one step; fail it, or cut the power before it, if that is its fate."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerCutError
            self.steps_left -= 1
        failure = self.failures.pop(kind, None)
        if failure is not None:
            raise failure

    def take_room(self, growth: int) -> None:
        """Check that a file may grow by so many bytes."""
        if self.capacity_bytes is None or growth <= 0:
            return
        if self.used_bytes() + growth > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space is left")

    def used_bytes(self) -> int:
        """Return the sum of all files."""
        return sum(len(inode.data) for inode in self._names.values())

    def _below(self, path: str) -> tuple[str, ...]:
        """All files in a directory and in those inside."""
        return tuple(sorted(name for name in self._names if name.startswith(path + "/")))

    def _rename_directory(self, source: str, target: str, inside: tuple[str, ...]) -> None:
        if self._below(target):
            raise OSError(errno.ENOTEMPTY, "the name is taken", target)
        # As a journal orders them: what was done inside the directory came first.
        self._settle(lambda name: name.startswith(source + "/"))
        for name in inside:
            self._names[target + name[len(source) :]] = self._names.pop(name)
        self._changes.append((target, source, None))

    def _inode(self, path: str) -> _Inode:
        try:
            return self._names[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path) from None

    def _settle(self, durable: Callable[[str], bool]) -> None:
        """Make those changes durable, in order, whose name (after a rename: the new one) says
        so.
        """
        later = []
        for change in self._changes:
            name, source, inode = change
            if not durable(name):
                later.append(change)
                continue
            if source is not None:
                self._durable_names.pop(source, None)
            if inode is None and source is not None:
                self._move_durable(source + "/", name + "/")
            elif inode is None:
                for gone in [n for n in self._durable_names if f"{n}/".startswith(f"{name}/")]:
                    del self._durable_names[gone]
            else:
                self._durable_names[name] = inode
        self._changes = later

    def _move_durable(self, source: str, target: str) -> None:
        for name in [name for name in self._durable_names if name.startswith(source)]:
            self._durable_names[target + name[len(source) :]] = self._durable_names.pop(name)

    def _let_go(self, rng: Random) -> None:
        self._cut_a_job(rng)
        for lane in self.lanes:
            # Whoever was asked to run the lane later finds nothing to do.
            lane.jobs.clear()
        self.lanes.clear()
        self._locks.clear()
        self.boots += 1
        self.steps_left = None

    def _cut_a_job(self, rng: Random) -> None:
        """Let one job that was under way come as far as it will."""
        busy = [lane for lane in self.lanes if lane.jobs]
        if not busy:
            return
        self.steps_left = rng.randrange(4)
        # Its ``done`` is dropped in any case: the loop is gone.
        job, _done = rng.choice(busy).jobs[0]
        with suppress(PowerCutError, Exception):
            job()
