"""The disk. The only place that calls ``os`` for it; everything else takes a ``Disk``.

``OsDisk`` is real files (``wal/aio.py`` has the system calls that Python lacks).
``wal/memory_disk.py`` holds another disk, which forgets what was not synced.

A ``Lane`` is one queue of jobs and one thread that runs them in order, off the event loop. What is
hot, a batch that is written and synced, needs no thread where the kernel syncs by itself
(``OsLane.write_and_sync``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from wal.aio import Calls, KernelSync, Readers
from wal.errors import LockedError

T = TypeVar("T")

SECTOR_BYTES = 512
"""The largest unit that any disk in use writes whole or not at all."""
LOCK_NAME = "lock"

WRITE_HERE_BYTES_MAX: Final = 256 << 10
"""What the loop writes to the page cache by itself: some tens of microseconds."""
SLOW_WRITE_SECONDS: Final = 0.01
SLOW_SYNC_SECONDS: Final = 0.1
"""A write into the page cache, or a write with its sync, that takes longer says that the disk is
slow now. Then the thread is used till it finds the disk fast again.

A few milliseconds say nothing of a disk: another thread may have had the interpreter's lock, or the
loop other work. The thread is worse off then: it has to have that lock twice for each sync.
"""


class File(Protocol):
    """An open file, read and written at offsets. All methods block; errors are ``OSError``."""

    def read(self, length: int, offset: int) -> bytes:
        """Return ``length`` bytes from ``offset``: fewer only where the file ends."""

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        """Write all ``parts``, one behind the other, from ``offset`` on. Nothing of it is durable
        before ``sync``.
        """

    def sync(self) -> None:
        """Make everything written so far durable (``fdatasync``). If this raises, nothing is known
        of what is.
        """

    def size(self) -> int:
        """Return the length of the file in bytes."""

    def uncache(self) -> None:
        """Let the next reads come from the disk itself, as far as that can be had."""

    def close(self) -> None:
        """Release the file; calling it again does nothing."""


class Lock(Protocol):
    """A directory's lock, held till ``release`` or the end of the process."""

    def release(self) -> None:
        """Let others have the directory; calling it again does nothing."""


class Lane(Protocol):
    """Runs jobs one at a time, in the order of ``submit``, off the loop."""

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Queue ``job``; later ``done`` is called on the loop with its result, or with what it
        raised.
        """

    def write_and_sync(
        self,
        file: File,
        parts: Sequence[bytes],
        offset: int,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Queue a write to a file and the sync that makes it durable, as one job; later ``done`` is
        called on the loop with None, or with what was raised. The file stays open till then.
        """

    def close(self) -> None:
        """Wait till everything submitted has run, then end. Nothing may be submitted afterwards."""


class Disk(Protocol):
    """Files and directories by path. A name is durable only after ``sync_directory`` of its
    parent.
    """

    def make_directory(self, path: str) -> None:
        """Make ``path`` and missing parents, durably; nothing happens if it exists."""

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if there is no such directory."""

    def create(self, path: str) -> File:
        """Make and open a new, empty file; ``FileExistsError`` if the name is taken."""

    def open(self, path: str) -> File:
        """Open an existing file for reading and writing."""

    def open_to_read(self, path: str) -> File:
        """Open an existing file that need not be ours, and is not written to."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name in one step, replacing what had it; a directory with all that is
        in it, if nothing has that name.
        """

    def remove(self, path: str) -> None:
        """Take a name away; open files stay readable."""

    def remove_tree(self, path: str) -> None:
        """Take a directory away, and all that is in it, file by file."""

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in this directory durable."""

    def lock(self, directory: str) -> Lock:
        """Take the directory for this process, or raise ``LockedError``."""

    def lane(self, name: str) -> Lane:
        """Start a lane; ``name`` is for people who look at threads."""


Job: TypeAlias = tuple[Callable[[], Any], Callable[[Any], None]]
"""A job and its ``done``. What passes from one to the other is ``submit``'s type variable, which a
queue cannot carry.
"""


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """What the operating system calls it; -1 once it is closed."""
        return self._descriptor

    def read(self, length: int, offset: int) -> bytes:
        """Return ``length`` bytes from ``offset``: fewer only where the file ends."""
        first = os.pread(self._descriptor, length, offset)
        if len(first) == length or not first:
            return first
        # One call returns at most 2 GiB, and fewer when a signal arrives.
        pieces = [first]
        read = len(first)
        while read < length:
            piece = os.pread(self._descriptor, length - read, offset + read)
            if not piece:
                break
            pieces.append(piece)
            read += len(piece)
        return b"".join(pieces)

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        """Write all ``parts``, one behind the other, from ``offset`` on."""
        written = os.pwritev(self._descriptor, parts, offset)
        total = sum(map(len, parts))
        if written != total:
            rest = memoryview(b"".join(parts))
            while written < total:
                written += os.pwrite(self._descriptor, rest[written:], offset + written)

    def sync(self) -> None:
        """Make everything written so far durable. A changed length counts as data here
        (``fdatasync(2)``).
        """
        os.fdatasync(self._descriptor)

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return os.fstat(self._descriptor).st_size

    def uncache(self) -> None:
        """Drop the file's clean pages from the page cache, where the system can do that."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OsLock:
    """A lock by ``flock(2)`` on a file in the directory: the kernel drops it when the process dies,
    however it dies.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, directory: str) -> None:
        self._descriptor = -1
        descriptor = os.open(
            os.path.join(directory, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(descriptor, 20, 0)
            os.close(descriptor)
            raise LockedError(directory, int(written) if written.isdigit() else 0) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have the directory."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def write_and_sync(file: File, parts: Sequence[bytes], offset: int) -> None:
    """Write to a file, and make that durable. Blocks."""
    file.write(parts, offset)
    file.sync()


class OsLane:
    """One thread and its queue; and, where ``new_kernel_sync`` finds that the system has them,
    syncs that need no thread.

    It raises ``OSError`` or ``NotImplementedError`` where there are none; it is asked once, before
    the first ``write_and_sync``.
    """

    __slots__ = (
        "_behind",
        "_call_soon_threadsafe",
        "_closing",
        "_is_slow",
        "_jobs",
        "_kernel_sync",
        "_new_kernel_sync",
        "_thread",
        "_unreported",
    )

    def __init__(
        self,
        name: str,
        call_soon_threadsafe: Callable[..., object],
        new_kernel_sync: Callable[[], KernelSync] | None = None,
    ) -> None:
        self._call_soon_threadsafe = call_soon_threadsafe
        self._new_kernel_sync = new_kernel_sync
        self._kernel_sync: KernelSync | None = None
        self._behind: list[Job] = []
        self._unreported = 0
        self._is_slow = False
        self._closing = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon, so that a process that ends in error ends: what was promised was synced before
        # it was promised.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Queue ``job``; ``done`` gets its result, or what it raised, on the loop."""
        self._unreported += 1
        if self._kernel_sync is not None and self._kernel_sync.is_busy:
            self._behind.append((job, done))
        else:
            self._jobs.put((job, done))

    def write_and_sync(
        self,
        file: File,
        parts: Sequence[bytes],
        offset: int,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Write on the loop, and let the kernel sync; or have the thread do both.

        The write is a copy into the page cache. It can wait for the disk all the same: for a page
        that is read first because the cache has let go of it, for the file system's journal, for
        somebody else's flood of dirty pages. (RWF_NOWAIT would say so before, but ext4 and tmpfs
        refuse it for such files.) So it is done here only if the disk was fast the last time, and
        never while a job of this lane is under way: a disk that hangs holds the loop by one write
        at most, and not at all if it was asked to sync when it began to hang.
        """
        kernel_sync = self._free_kernel_sync()
        if (
            kernel_sync is None
            or not isinstance(file, OsFile)
            or sum(map(len, parts)) > WRITE_HERE_BYTES_MAX
        ):
            self.submit(partial(self._write_and_sync, file, parts, offset), done)
            return
        started = monotonic()
        try:
            file.write(parts, offset)
        except OSError as error:
            self._call_soon_threadsafe(done, error)
            return
        write_was_slow = monotonic() - started > SLOW_WRITE_SECONDS
        try:
            kernel_sync.start(
                file.descriptor, partial(self._on_synced, started, write_was_slow, done)
            )
        except OSError as error:
            if error.errno != errno.EAGAIN:
                # A kernel before 4.18, a file system without syncs of this kind: it stays so.
                self._kernel_sync = None
                kernel_sync.close()
            self.submit(file.sync, done)

    def close(self) -> None:
        """Wait till everything submitted has run, then end the thread."""
        self._closing = True
        self._new_kernel_sync = None
        if self._kernel_sync is not None:
            self._kernel_sync.close()
            self._kernel_sync = None
        self._jobs.put(None)
        self._thread.join()

    def _free_kernel_sync(self) -> KernelSync | None:
        """What syncs without the thread, if it may be used now."""
        new, self._new_kernel_sync = self._new_kernel_sync, None
        if new is not None:
            with suppress(OSError, NotImplementedError):
                self._kernel_sync = new()
        kernel_sync = self._kernel_sync
        if kernel_sync is None or kernel_sync.is_busy or self._unreported or self._is_slow:
            return None
        return kernel_sync

    def _on_synced(
        self,
        started: float,
        write_was_slow: bool,
        done: Callable[[BaseException | None], None],
        error: OSError | None,
    ) -> None:
        self._is_slow = write_was_slow or monotonic() - started > SLOW_SYNC_SECONDS
        # Before ``done`` submits others.
        behind, self._behind = self._behind, []
        for item in behind:
            self._jobs.put(item)
        if self._closing:
            with suppress(RuntimeError):
                self._call_soon_threadsafe(done, error)
        else:
            done(error)

    def _write_and_sync(self, file: File, parts: Sequence[bytes], offset: int) -> None:
        """For the thread."""
        started = monotonic()
        write_and_sync(file, parts, offset)
        self._is_slow = monotonic() - started > SLOW_SYNC_SECONDS

    def _report(self, done: Callable[[Any], None], result: object) -> None:
        self._unreported -= 1
        done(result)

    def _run(self) -> None:
        get = self._jobs.get
        while (item := get()) is not None:
            job, done = item
            result: object
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001
                # Handed over whole: the loop decides what it means.
                result = error
            # A loop that is closed has nobody left who could be told.
            with suppress(RuntimeError):
                self._call_soon_threadsafe(self._report, done, result)
            # Or a job's buffers would live until the next one comes.
            del item, job, done, result


class OsDisk:
    """The operating system's files. ``call_soon_threadsafe`` is the event loop's.

    ``readers`` is the event loop, if syncs may come back through it (``wal/aio.py``), and
    ``new_calls`` makes the system calls for that.
    """

    __slots__ = ("_call_soon_threadsafe", "_new_calls", "_readers")

    def __init__(
        self,
        call_soon_threadsafe: Callable[..., object],
        readers: Readers | None = None,
        new_calls: Callable[[], Calls] = Calls,
    ) -> None:
        self._call_soon_threadsafe = call_soon_threadsafe
        self._readers = readers
        self._new_calls = new_calls

    def make_directory(self, path: str) -> None:
        """Make ``path`` and missing parents, durably. Only the owner may look inside."""
        missing: list[str] = []
        current = os.path.abspath(path)
        while not os.path.isdir(current):
            missing.append(current)
            current = os.path.dirname(current)
        for directory in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            self.sync_directory(os.path.dirname(directory))

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if there is no such directory."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def create(self, path: str) -> File:
        """Make and open a new, empty file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return OsFile(os.open(path, flags, 0o600))

    def open(self, path: str) -> File:
        """Open an existing file for reading and writing."""
        return OsFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def open_to_read(self, path: str) -> File:
        """Open an existing file for reading."""
        return OsFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def rename(self, source: str, target: str) -> None:
        """Give a file another name in one step, replacing what had it."""
        os.replace(source, target)

    def remove(self, path: str) -> None:
        """Take a name away."""
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        """Take a directory away, and all that is in it."""
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        """Make creations, renames and removals in this directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, directory: str) -> Lock:
        """Take the directory for this process, or raise ``LockedError``."""
        return OsLock(directory)

    def lane(self, name: str) -> Lane:
        """Start a lane of one thread."""
        readers, new_calls = self._readers, self._new_calls
        if readers is None:
            return OsLane(name, self._call_soon_threadsafe)
        return OsLane(name, self._call_soon_threadsafe, lambda: KernelSync(readers, new_calls()))
