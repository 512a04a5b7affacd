"""A machine's disk: it tells of every step, and loses more at a power cut than ``MemoryDisk``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from wal.files import File
from wal.memory_disk import MemoryDisk, PowerCutError

TORN_SHARE = 0.5
"""Of the files that had grown and were not synced, at a power cut."""


class _WatchedFile:
    """An open file that tells its disk what is done with it."""

    __slots__ = ("_disk", "_file", "path")

    def __init__(self, disk: SimDisk, file: File, path: str) -> None:
        self._disk = disk
        self._file = file
        self.path = path

    def read(self, length: int, offset: int) -> bytes:
        return self._file.read(length, offset)

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        self._file.write(parts, offset)
        self._disk.tell("write", self.path, offset, parts)

    def sync(self) -> None:
        self._file.sync()
        self._disk.tell("sync", self.path)

    def uncache(self) -> None:
        self._file.uncache()

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()
        self._disk.forget(self)


class SimDisk(MemoryDisk):
    """See the module; what follows is set by whoever owns the machine.

    ``on_step`` is told of each step that changed something, in the very job: its kind ("write",
    "sync", "create", "rename", "remove", "sync_directory"), the path, and for a write the offset
    and the parts. ``on_power_cut`` cuts the machine's power when ``steps_left`` are used up.
    After a crash ``steps_left`` is 0, so that what is left of the process does nothing to the disk
    any more: whoever starts the machine sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_step: Callable[[str, str, int, Sequence[bytes]], None] | None = None
        self.on_power_cut: Callable[[], None] | None = None
        self.entries_lost_total = 0
        self.files_torn_total = 0
        self._open: list[_WatchedFile] = []

    # --- the Disk protocol ------------------------------------------------------------------------

    def create(self, path: str) -> File:
        """As ``MemoryDisk`` does, and tell."""
        file = self._watched(super().create(path), path)
        self.tell("create", path)
        return file

    def open(self, path: str) -> File:
        """As ``MemoryDisk`` does."""
        return self._watched(super().open(path), path)

    def rename(self, source: str, target: str) -> None:
        """As ``MemoryDisk`` does, and tell."""
        super().rename(source, target)
        for file in self._open:
            if file.path == source:
                file.path = target
        self.tell("rename", target)

    def remove(self, path: str) -> None:
        """As ``MemoryDisk`` does, and tell."""
        super().remove(path)
        self.tell("remove", path)

    def sync_directory(self, path: str) -> None:
        """As ``MemoryDisk`` does, and tell."""
        super().sync_directory(path)
        self.tell("sync_directory", path)

    def _watched(self, file: File, path: str) -> File:
        watched = _WatchedFile(self, file, path)
        self._open.append(watched)
        return watched

    def tell(self, kind: str, path: str, offset: int = 0, parts: Sequence[bytes] = ()) -> None:
        """A step was done."""
        if self.on_step is not None:
            self.on_step(kind, path, offset, parts)

    def forget(self, file: _WatchedFile) -> None:
        """A file was closed."""
        if file in self._open:
            self._open.remove(file)

    # --- what goes wrong --------------------------------------------------------------------------

    def take_step(self, kind: str) -> None:
        """As ``MemoryDisk`` does; whoever has the power cut is told before anybody else."""
        try:
            super().take_step(kind)
        except PowerCutError:
            cut, self.on_power_cut = self.on_power_cut, None
            if cut is not None:
                cut()
            raise

    def crash(self, rng: Random) -> None:
        """Cut the power.

        A file's size is no sector: of a file that had grown since it was synced, any length may be
        left. (What was filled ahead keeps its size, as the log's segments do: there a sector is
        written whole or not at all, which is what ``wal/batch.py`` builds on.)
        """
        self._silence()
        known = {path: len(inode.synced) for path, inode in sorted(self._names.items())}
        names = sorted(self._names)
        super().crash(rng)
        self.entries_lost_total += sum(path not in self._names for path in names)
        for path, size in known.items():
            inode = self._names.get(path)
            if inode is not None and len(inode.synced) > size and rng.random() < TORN_SHARE:
                self.files_torn_total += 1
                del inode.synced[rng.randrange(size, len(inode.synced)) :]
                inode.data = bytearray(inode.synced)
        self.steps_left = 0

    def forsake(self, rng: Random) -> None:
        """As ``MemoryDisk`` does."""
        self._silence()
        super().forsake(rng)
        self.steps_left = 0

    def _silence(self) -> None:
        """What is left of the process is none of anybody's business."""
        self.on_power_cut = None
        self.on_step = None
        self._open.clear()

    # --- for whoever damages it -------------------------------------------------------------------

    def unsynced(self) -> bool:
        """Whether a power cut could lose anything now."""
        return bool(self._changes) or any(inode.dirty for inode in self._names.values())

    def dirty(self, ending: str) -> list[str]:
        """The files with such a name of whose content a power cut could lose something now."""
        return sorted(
            path for path, inode in self._names.items() if inode.dirty and path.endswith(ending)
        )

    def written(self) -> list[tuple[str, int]]:
        """The files that are durable, each with how far it was ever written to, in bytes."""
        found = []
        for path, inode in sorted(self._durable_names.items()):
            length = len(bytes(inode.synced).rstrip(b"\0"))
            if length and self._names.get(path) is inode:
                found.append((path, length))
        return found
