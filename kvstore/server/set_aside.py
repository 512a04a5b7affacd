"""A directory that is of no use any more is kept beside its successor, for whoever looks into it.

data-dir/member               in use
data-dir/member.damaged-1     set aside; the higher the number, the later
"""

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import StateError
from kvstore.server.bootstrap import layout
from kvstore.server.identity import Beginning
from wal.batch import Batch, Place, decode, peek_place
from wal.errors import WalError
from wal.files import LOCK_NAME, SECTOR_BYTES
from wal.record import Metadata, Record, RecordError, decode_records
from wal.segment import TEMPORARY_SUFFIX, segment_numbers, segment_path

if TYPE_CHECKING:
    from wal.files import Disk

log = logging.getLogger("kvstore.server")

KEPT_MAX = 2
"""Directories that are kept; with one more, the oldest goes."""
_IN_USE = "member"
_PREFIX = "member.damaged-"


class Owner(msgspec.Struct, frozen=True):
    """Whose log it is, as far as its first intact words say."""

    cluster_id: int
    member_id: int
    log_id: int


def kept(disk: "Disk", data_dir: str) -> list[str]:
    """What was set aside, oldest first."""
    numbers = [
        int(name.removeprefix(_PREFIX))
        for name in disk.list(data_dir)
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdecimal()
    ]
    return [f"{_PREFIX}{number}" for number in sorted(numbers)]


def remains(disk: "Disk", data_dir: str) -> list[str]:
    """What a member left in the directory in use, by path; what a process leaves that ends before
    its log has begun does not count.
    """
    where = layout(data_dir)
    paths = [
        os.path.join(directory, name)
        for directory in (where.wal, where.snapshots)
        for name in disk.list(directory)
    ]
    lock = os.path.join(where.wal, LOCK_NAME)
    return [path for path in paths if path != lock and not path.endswith(TEMPORARY_SUFFIX)]


def set_aside(disk: "Disk", data_dir: str) -> str:
    """Give the directory in use a name of its own, durably, and let the oldest of those go.

    Blocks: nothing is served meanwhile.

    Returns:
        Where it is now, "" if there was none.

    Raises:
        LockedError: Somebody has it open.
        OSError: The disk refuses.
    """
    member = os.path.join(data_dir, _IN_USE)
    where = layout(data_dir)
    if not remains(disk, data_dir):
        # Not worth a place among those that are kept: they are few.
        return ""
    disk.make_directory(where.wal)
    lock = disk.lock(where.wal)
    try:
        older = kept(disk, data_dir)
        for name in older[: len(older) + 1 - KEPT_MAX]:
            # First, for room may be what is lacking.
            log.warning("removing %s: only the %d latest are kept", name, KEPT_MAX)
            disk.remove_tree(os.path.join(data_dir, name))
        number = int(older[-1].removeprefix(_PREFIX)) + 1 if older else 1
        target = os.path.join(data_dir, f"{_PREFIX}{number}")
        disk.rename(member, target)
        disk.sync_directory(data_dir)
    finally:
        lock.release()
    log.warning("%s is set aside as %s", member, target)
    return target


def owner_of(disk: "Disk", data_dir: str) -> Owner | None:
    """Whose directory is in use here, or was until it was set aside; None if it cannot be read."""
    for name in (_IN_USE, *reversed(kept(disk, data_dir))):
        directory = os.path.join(data_dir, name, "wal")
        if disk.list(directory):
            return _read_owner(disk, directory)
    return None


def _read_owner(disk: "Disk", directory: str) -> Owner | None:
    """Each segment begins with it; the newest one that is intact there will do."""
    try:
        numbers = segment_numbers(disk, directory)
    except WalError:
        return None
    for number in reversed(numbers):
        path = segment_path(directory, number)
        file = disk.open(path)
        data = file.read(file.size(), 0)
        file.close()
        try:
            metadata = _first_record(data, number, path)
            if isinstance(metadata, Metadata):
                beginning = Beginning.read(metadata.bootstrap, metadata.member_id)
                return Owner(metadata.cluster_id, metadata.member_id, beginning.log_id)
        except (WalError, RecordError, StateError) as error:
            log.debug("%s does not say whose it is: %s", path, error)
    return None


def _first_record(data: bytes, number: int, path: str) -> Record | None:
    if len(data) < SECTOR_BYTES:
        return None
    place = Place(number, len(data), 0, *peek_place(data))
    batch = decode(data, place, path)
    return next(decode_records(batch.payload), None) if isinstance(batch, Batch) else None
