"""Snapshot files: the whole state as of one entry, in sections that are checked each by itself and
all together.

All numbers are little endian::

    byte  0        4          8          16         24         28          28 + c     32 + c
          +--------+----------+----------+----------+----------+-----------+-----------+
          | "KSNP" | format   | index    | term     | length c | configur- | CRC32C of |   the head
          | magic  | u32      | u64      | u64      | u32      | ation     | it all    |
          +--------+----------+----------+----------+----------+-----------+-----------+

          +--------------+------------------+-----------+
          | length u32,  | CRC32C of length | bytes     |   a section: one call of append
          | not zero     | and bytes u32    |           |
          +--------------+------------------+-----------+

          +--------------+------------------+------------------+-----------------------+
          | zero u32     | sections u64     | whole file's     | CRC32C of the 16      |   the foot
          |              |                  | CRC32C before u32| bytes before it u32   |
          +--------------+------------------+------------------+-----------------------+

A file is written under another name, synced, renamed and its directory synced: under its own name
it is whole, or damaged. Names carry index and term in hexadecimal, so that they sort by age. A file
that fails its checks is set aside with ``.corrupt`` behind its name, for whoever looks into it.

Nothing here waits for anybody, all of it blocks: whoever must not block runs it in a lane.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import google_crc32c
import msgspec

from raft.codec import (  # type: ignore[attr-defined]  # CodecError: its module is none of ours
    CodecError,
    decode_configuration,
    encode_configuration,
)
from raft.types import Index, SnapshotMeta, Term
from wal.errors import CorruptError, FormatError, TransferError, WalError, disk_error
from wal.files import Disk, File

MAGIC: Final = b"KSNP"
FORMAT: Final = 1
SECTION_BYTES_MAX: Final = 1 << 20
SUFFIX: Final = ".snap"
_WRITING_SUFFIX: Final = ".new"
_RECEIVING_SUFFIX: Final = ".part"
_CORRUPT_SUFFIX: Final = ".corrupt"
_REMEDY: Final = (
    "an older snapshot and the log are used where they reach far enough, else a peer's snapshot"
)

_HEAD: Final = struct.Struct("<4sIQQI")
_SECTION: Final = struct.Struct("<II")
_FOOT: Final = struct.Struct("<IQI")
_CRC: Final = struct.Struct("<I")
_FOOT_BYTES: Final = _FOOT.size + _CRC.size
_CONFIGURATION_BYTES_MAX: Final = 1 << 16
_SYNC_EVERY_BYTES: Final = 8 << 20
"""What is written is synced this often, or the last sync would hold up the log's for as long as all
of it takes.
"""

_crc32c: Final = google_crc32c.value
_extend: Final = google_crc32c.extend


class SnapshotFile(msgspec.Struct, frozen=True):
    """A snapshot under its own name. ``crc`` is what its foot says of all that is before the
    foot.
    """

    path: str
    meta: SnapshotMeta
    size_bytes: int
    crc: int


class _NewFile:
    """A file that grows under another name and gets its own when it is whole."""

    __slots__ = ("_directory", "_disk", "_temporary", "_unsynced", "file", "path", "size")

    def __init__(self, disk: Disk, directory: str, meta: SnapshotMeta, suffix: str) -> None:
        self._disk = disk
        self._directory = directory
        self._unsynced = 0
        self.path = f"{directory}/{meta.index:016x}-{meta.term:016x}{SUFFIX}"
        self._temporary = self.path + suffix
        self.size = 0
        with _disk_errors():
            disk.make_directory(directory)
            try:
                self.file = disk.open(self._temporary)
                self.size = self.file.size()
            except FileNotFoundError:
                self.file = disk.create(self._temporary)

    def append(self, *parts: bytes) -> None:
        """Write at the end; what could not be written whole is taken away."""
        with self._whole_or_nothing():
            self.file.write(parts, self.size)
            length = sum(map(len, parts))
            self.size += length
            self._unsynced += length
            if self._unsynced >= _SYNC_EVERY_BYTES:
                self.file.sync()
                self._unsynced = 0

    def publish(self) -> None:
        """Make the file durable under its own name."""
        with self._whole_or_nothing():
            self.file.sync()
            self.file.close()
            self._disk.rename(self._temporary, self.path)
            self._disk.sync_directory(self._directory)

    def abort(self) -> None:
        """Leave nothing behind."""
        self.file.close()
        with suppress(OSError):
            self._disk.remove(self._temporary)

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # On a full disk the remains would take the room that the log needs.
            self.abort()
            raise disk_error(error) from error


class SnapshotWriter:
    """Writes a new snapshot. Whatever goes wrong, nothing is left of it.

    Args:
        disk: Where.
        directory: Where on it; made if it is missing.
        meta: What the snapshot covers.

    Raises:
        DiskError: The disk refused; so do ``append`` and ``finish``.
    """

    __slots__ = ("_crc", "_meta", "_new", "_sections")

    def __init__(self, disk: Disk, directory: str, meta: SnapshotMeta) -> None:
        self._meta = meta
        self._sections = 0
        self._new = _NewFile(disk, directory, meta, _WRITING_SUFFIX)
        if self._new.size:
            # Left by a writer that did not end well. A receiver goes on with such a file, a writer
            # makes another.
            self._new.abort()
            self._new = _NewFile(disk, directory, meta, _WRITING_SUFFIX)
        head = _encode_head(meta)
        self._crc = _crc32c(head)
        self._new.append(head)

    @property
    def size_bytes(self) -> int:
        """What is written so far."""
        return self._new.size

    def append(self, chunk: bytes) -> None:
        """Add a section of 1 to ``SECTION_BYTES_MAX`` bytes."""
        assert 0 < len(chunk) <= SECTION_BYTES_MAX, "a section holds 1 byte to 1 MiB"
        length = _CRC.pack(len(chunk))
        header = length + _CRC.pack(_extend(_crc32c(length), chunk))
        self._new.append(header, chunk)
        self._crc = _extend(_extend(self._crc, header), chunk)
        self._sections += 1

    def finish(self) -> SnapshotFile:
        """Make the snapshot durable under its own name."""
        foot = _FOOT.pack(0, self._sections, self._crc)
        self._new.append(foot, _CRC.pack(_crc32c(foot)))
        self._new.publish()
        return SnapshotFile(self._new.path, self._meta, self._new.size, self._crc)

    def abort(self) -> None:
        """Leave nothing behind."""
        self._new.abort()


class SnapshotReader:
    """Reads a snapshot: checked and by sections to load it, raw to send it.

    Args:
        disk: Where.
        file: Which.

    Raises:
        DiskError: The disk refused; so do the methods.
    """

    __slots__ = ("_file", "_path")

    def __init__(self, disk: Disk, file: SnapshotFile) -> None:
        self._path = file.path
        with _disk_errors():
            self._file = disk.open(file.path)

    def chunks(self) -> Iterator[bytes]:
        """Return the sections as they were appended.

        Raises:
            CorruptError: The file is damaged; what came before is not to be used either.
        """
        yield from walk(self._file, self._path)

    def read_raw(self, offset: int, length: int) -> bytes:
        """Return the file's bytes as they are: fewer than ``length`` only at its end."""
        with _disk_errors():
            return self._file.read(length, offset)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


class SnapshotReceiver:
    """Takes the bytes of another node's snapshot file, in order, and goes on where an earlier one
    stopped.

    What a crash did to bytes received before it comes out in ``finish``, which checks the whole
    file.

    Args:
        disk: Where.
        directory: Where on it; made if it is missing.
        file: What the sender says of its file; the path means nothing here.

    Raises:
        DiskError: The disk refused, and nothing is left; so do the methods.
    """

    __slots__ = ("_announced", "_disk", "_new")

    def __init__(self, disk: Disk, directory: str, file: SnapshotFile) -> None:
        self._disk = disk
        self._announced = file
        suffix = f".{file.crc:08x}{_RECEIVING_SUFFIX}"
        self._new = _NewFile(disk, directory, file.meta, suffix)
        if self._new.size > file.size_bytes:
            self._new.abort()
            self._new = _NewFile(disk, directory, file.meta, suffix)

    @property
    def offset(self) -> int:
        """The next byte wanted."""
        return self._new.size

    def write(self, offset: int, data: bytes) -> None:
        """Take the bytes that stand at ``offset`` of the sender's file.

        Raises:
            TransferError: They do not continue what is here, or go beyond the size announced.
        """
        wanted = self._new.size
        if offset != wanted:
            raise TransferError(f"bytes from {offset} on came", wanted)
        if wanted + len(data) > self._announced.size_bytes:
            raise TransferError(
                f"more than the {self._announced.size_bytes} bytes announced came", wanted
            )
        self._new.append(data)

    def finish(self) -> SnapshotFile:
        """Check the whole file and make it durable under its own name.

        Raises: TransferError: Not all of it is here. CorruptError: It is not a whole and valid
            snapshot, or not the one announced; nothing is left of it.
        """
        announced = self._announced
        new = self._new
        if new.size != announced.size_bytes:
            raise TransferError(f"{announced.size_bytes} bytes were announced", new.size)
        try:
            found = _verify(new.file, new.path)
            if (found.meta, found.crc) != (announced.meta, announced.crc):
                raise CorruptError(new.path, 0, "another snapshot was announced", _REMEDY)
        except WalError:
            new.abort()
            raise
        new.publish()
        return found

    def suspend(self) -> None:
        """Stop, and keep what is here for a receiver of the same file to go on with."""
        self._new.file.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._new.abort()


def newest_valid(
    disk: Disk,
    directory: str,
    accept: Callable[[SnapshotMeta], bool],
    report: Callable[[WalError], None],
) -> SnapshotFile | None:
    """Return the newest snapshot that passes its checks, every byte of it read.

    Args: disk: Where. directory: Where on it; it need not exist. accept: Whether a snapshot with
        this meta is of use; those that are not are passed over and stay. report: Told of each that
        is passed over because it is damaged (it is set aside) or of another format (it stays).

    Raises:
        DiskError: The disk refused.
    """
    with _disk_errors():
        for name in reversed(disk.list(directory)):
            path = f"{directory}/{name}"
            if not name.endswith(SUFFIX):
                continue
            try:
                file = disk.open(path)
                try:
                    if not accept(_read_head(file, path)[0]):
                        continue
                    return _verify(file, path)
                finally:
                    file.close()
            except CorruptError as error:
                set_aside(disk, directory, name)
                report(error)
            except FormatError as error:
                report(error)
    return None


def set_aside(disk: Disk, directory: str, name: str) -> None:
    """Let a damaged file count for a snapshot no more; it stays for whoever looks into it."""
    with _disk_errors():
        disk.rename(f"{directory}/{name}", f"{directory}/{name}{_CORRUPT_SUFFIX}")
        disk.sync_directory(directory)


def prune(disk: Disk, directory: str, proven: SnapshotFile, keep: int = 2) -> list[str]:
    """Remove what a snapshot that is proven to be whole makes superfluous; files set aside as
    corrupt stay.

    Args:
        disk: Where.
        directory: Where on it.
        proven: A file just finished or just verified.
        keep: How many snapshots stay, ``proven`` among them; newer ones are not counted.

    Returns: The paths removed: older snapshots, and what unfinished writers and receivers of older
        ones left.

    Raises:
        DiskError: The disk refused.
    """
    assert keep >= 1, "the proven one stays"
    own_name = proven.path.rpartition("/")[2]
    names = disk.list(directory)
    older = [name for name in names if name.endswith(SUFFIX) and name < own_name]
    doomed = older[: max(0, len(older) - (keep - 1))]
    unfinished = (_WRITING_SUFFIX, _RECEIVING_SUFFIX)
    stem = len(own_name)
    doomed += [name for name in names if name.endswith(unfinished) and name[:stem] <= own_name]
    with _disk_errors():
        for name in doomed:
            disk.remove(f"{directory}/{name}")
        if doomed:
            disk.sync_directory(directory)
    return [f"{directory}/{name}" for name in doomed]


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error


def _encode_head(meta: SnapshotMeta) -> bytes:
    configuration = encode_configuration(meta.configuration)
    head = _HEAD.pack(MAGIC, FORMAT, meta.index, meta.term, len(configuration)) + configuration
    return head + _CRC.pack(_crc32c(head))


def _read_head(file: File, path: str) -> tuple[SnapshotMeta, bytes]:
    fixed = file.read(_HEAD.size, 0)
    if len(fixed) < _HEAD.size:
        raise CorruptError(path, len(fixed), "the file ends in its head", _REMEDY)
    magic, found, index, term, length = _HEAD.unpack(fixed)
    rest = file.read(min(length, _CONFIGURATION_BYTES_MAX) + _CRC.size, _HEAD.size)
    configuration = rest[: -_CRC.size]
    if magic != MAGIC or rest[-_CRC.size :] != _CRC.pack(_crc32c(fixed + configuration)):
        raise CorruptError(path, 0, "the head fails its checksum", _REMEDY)
    if found != FORMAT:
        raise FormatError(path, found, FORMAT)
    try:
        meta = SnapshotMeta(Index(index), Term(term), decode_configuration(configuration))
    except CodecError as error:
        raise CorruptError(path, _HEAD.size, str(error), _REMEDY) from error
    return meta, fixed + rest


def walk(file: File, path: str, *, alone: bool = True) -> Generator[bytes, None, SnapshotFile]:
    """Yield the sections, each checked; return what the file is, all of it checked.

    Args:
        file: Open.
        path: Its name, for errors.
        alone: Whether it ends with the foot; else what follows there is the caller's to look at.

    Raises:
        CorruptError: The file is damaged.
        FormatError: Another version wrote it.
        DiskError: The disk does not give it back.
    """
    with _disk_errors():
        meta, head = _read_head(file, path)
        crc = _crc32c(head)
        offset = len(head)
        sections = 0
        while True:
            header = file.read(_FOOT_BYTES, offset)
            if len(header) < _FOOT_BYTES:
                raise CorruptError(path, offset, "the file ends before its foot", _REMEDY)
            length, section_crc = _SECTION.unpack_from(header)
            if not length:
                break
            # Bounded before it is read: a damaged length must not take gigabytes of memory.
            chunk = file.read(min(length, SECTION_BYTES_MAX), offset + _SECTION.size)
            if len(chunk) != length or section_crc != _extend(_crc32c(header[:4]), chunk):
                raise CorruptError(path, offset, f"section {sections} fails its checksum", _REMEDY)
            crc = _extend(_extend(crc, header[: _SECTION.size]), chunk)
            yield chunk
            sections += 1
            offset += _SECTION.size + length
        foot = header[: _FOOT.size]
        if header != foot + _CRC.pack(_crc32c(foot)) or _FOOT.unpack(foot) != (0, sections, crc):
            raise CorruptError(path, offset, "the foot does not fit what is before it", _REMEDY)
        size = offset + _FOOT_BYTES
        if alone and file.size() != size:
            raise CorruptError(path, size, "there is something behind the foot", _REMEDY)
    return SnapshotFile(path, meta, size, crc)


def _verify(file: File, path: str) -> SnapshotFile:
    sections = walk(file, path)
    while True:
        try:
            next(sections)
        except StopIteration as stop:
            found: SnapshotFile = stop.value
            return found
