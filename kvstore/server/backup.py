"""A backup: a snapshot file that has left its member, and what may follow it there.

::

    +---------------+-----------------------------+------------------------------------+
    | snapshot file | zeros up to a multiple of   | SHA-256 of all that is before it,  |
    |               | 512 bytes, if it was sent   | 32 bytes, if etcdctl has saved it  |
    +---------------+-----------------------------+------------------------------------+

A member sends the zeros because etcdctl tells a file with a SHA-256 from one without by its length.
A file that was copied out of a member's directory has neither.

Blocks, and holds the whole state in memory: for commands on a machine that need not be a member's.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

import google_crc32c
import msgspec

from kvstore.apply import SnapshotLoader, StateLimits, StateMachine
from kvstore.auth.tokens import NoTokens
from kvstore.budget import CountedBudget
from kvstore.errors import StateError
from kvstore.lease.lessor import Lessor
from kvstore.types import KeyValue
from wal.errors import CorruptError
from wal.files import SECTOR_BYTES
from wal.snapshot_file import MAGIC, SnapshotFile, walk

if TYPE_CHECKING:
    from wal.files import Disk, File

DIGEST_BYTES: Final = 32
_READ_BYTES: Final = 1 << 20
_REMEDY: Final = "nothing of a damaged backup is used: take another one"


class Backup(msgspec.Struct, frozen=True):
    """What a file holds, all of it checked.

    Attributes:
        machine: The state; nobody hears of what is applied to it.
        size_bytes: The file's, with what follows the snapshot.
        state_hash: CRC32C of the state, as a member at the same applied index says for ``Hash``.
        digest: SHA-256 of the state: equal files of equal states, whoever wrote them.
    """

    machine: StateMachine
    size_bytes: int
    state_hash: int
    digest: bytes


class _NoWatchers:
    """There is nobody to tell."""

    __slots__ = ()

    def publish(self, revision: int, records: list[KeyValue]) -> None:
        """Nothing to do."""

    def publish_range(self, revision: int) -> None:
        """Nothing to do."""


def padded(size_bytes: int) -> int:
    """How long a snapshot file of this size is with the zeros behind it."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def new_loader() -> SnapshotLoader:
    """A loader of a state that no member serves."""
    return SnapshotLoader(
        _NoWatchers(),
        Lessor(min_ttl_seconds=1),
        StateLimits(quota_bytes=0),
        CountedBudget(1),
        NoTokens(),
    )


def read_backup(disk: "Disk", path: str, *, check_hash: bool = True) -> Backup:
    """Read and check a backup from its first byte to its last.

    Args:
        disk: Where.
        path: Which file; it is not written to.
        check_hash: Whether a SHA-256 behind it must be the right one. The checksums of the format
            itself always count.

    Raises:
        CorruptError: It is damaged, or no snapshot; the message says at which byte.
        FormatError: Another version wrote it.
        StateError: It is whole, and what it holds is not.
        OSError: There is no such file, or it cannot be read.
    """
    with closing(disk.open_to_read(path)) as file:
        if not MAGIC.startswith(file.read(len(MAGIC), 0)):
            raise CorruptError(path, 0, "this is no snapshot of kvstore", _REMEDY)
        loader = new_loader()
        crc = 0
        sha = hashlib.sha256()
        try:
            for chunk in _sections(file, path, check_hash=check_hash):
                crc = google_crc32c.extend(crc, chunk)
                sha.update(chunk)
                loader.feed(chunk)
            machine = loader.finish()
        except CorruptError as error:
            raise CorruptError(path, error.offset, error.reason, _REMEDY) from error
        except StateError as error:
            raise StateError(f"{path}: {error}") from error
        return Backup(machine, file.size(), crc, sha.digest())


def _sections(file: "File", path: str, *, check_hash: bool) -> Iterator[bytes]:
    found: SnapshotFile = yield from walk(file, path, alone=False)
    _check_rest(file, path, found.size_bytes, check_hash=check_hash)


def _check_rest(file: "File", path: str, end: int, *, check_hash: bool) -> None:
    """Look at what follows the foot, which ends at ``end``."""
    size, full = file.size(), padded(end)
    if size == end:
        return
    padding = file.read(min(size, full) - end, end)
    zeros = len(padding) - len(padding.lstrip(b"\0"))
    if zeros < len(padding):
        raise CorruptError(path, end + zeros, "there is something behind the foot", _REMEDY)
    if size < full:
        raise CorruptError(path, size, "the file ends in the zeros behind its foot", _REMEDY)
    if size == full:
        return
    if size < full + DIGEST_BYTES:
        raise CorruptError(path, size, "the file ends in its SHA-256", _REMEDY)
    if size > full + DIGEST_BYTES:
        offset = full + DIGEST_BYTES
        raise CorruptError(path, offset, "there is something behind the SHA-256", _REMEDY)
    if check_hash and _digest(file, full) != file.read(DIGEST_BYTES, full):
        raise CorruptError(path, full, "the SHA-256 is not that of what is before it", _REMEDY)


def _digest(file: "File", end: int) -> bytes:
    sha = hashlib.sha256()
    for offset in range(0, end, _READ_BYTES):
        sha.update(file.read(min(_READ_BYTES, end - offset), offset))
    return sha.digest()
