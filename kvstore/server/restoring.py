"""From a backup to a member: a new cluster begins with the state that a file holds.

Each member of the new cluster restores by itself, offline, from the same file and with the same
flags. All that the members have in common is derived from these alike: the ids, as a founder
derives them (``identity.py``); the state, of which only what concerned the old members is different
(``apply/refounding.py``); and which log each of them keeps. So each knows from the start by which
log it knows the others (``PeerPort.refuse_link``), and one that was restored from another file, or
not at all, is not let in.

data-dir/member.restoring    while it is made
data-dir/member              once it is whole, and durable
"""

import hashlib
import os
import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from kvstore.apply import StateMachine, refound
from kvstore.errors import ConfigError
from kvstore.server.backup import Backup, read_backup
from kvstore.server.bootstrap import (
    RESTORING,
    initial_configuration,
    layout_of,
    new_incarnation,
    new_log,
)
from kvstore.server.identity import Identity, derive
from kvstore.types import AlarmMember, MemberId
from raft.types import Index, SnapshotMeta, Term
from wal.files import LOCK_NAME, SECTOR_BYTES
from wal.opening import begin_behind
from wal.snapshot_file import SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.config import ServerConfig
    from wal.files import Disk

LOG_ID_BYTES: Final = 8
LOG_ID_SHIFT: Final = 2
"""Log ids have 62 bits."""


class Restored(msgspec.Struct, frozen=True):
    """What was made. ``alarms`` are those of the old cluster, which have gone with it."""

    identity: Identity
    revision: int
    key_count: int
    alarms: tuple[AlarmMember, ...]


def restore(
    disk: "Disk",
    path: str,
    config: "ServerConfig",
    rng: random.Random,
    *,
    bump_revision: int = 0,
    check_hash: bool = True,
) -> Restored:
    """Make a member's directory out of a backup: whole and durable when this returns. Blocks.

    Args:
        disk: Where.
        path: The backup.
        config: Who the member is; name, data directory, and the flags of the founding count.
        rng: Chance, for what members need not have in common.
        bump_revision: By how much the revision rises; 0: it goes on where it was.
        check_hash: Whether a SHA-256 behind the backup must be the right one.

    Raises:
        ConfigError: The flags contradict each other, or the directory is in use.
        WalError: The backup is damaged or of another format, the disk refuses, or another restore
            into this directory is under way.
        StateError: The backup does not hold together, or the revision cannot rise so far.
        OSError: The backup cannot be read, or the directory not be made.
    """
    config.check_initial_cluster()
    identity = derive(config.name, config.initial_cluster, config.initial_cluster_token)
    _refuse_used(disk, config.data_dir)
    backup = read_backup(disk, path, check_hash=check_hash)
    machine = backup.machine
    alarms = machine.alarms
    log_ids = _log_ids(backup, identity, bump_revision)
    refound(machine, identity.members, log_ids, bump_revision=bump_revision)
    with _unfinished(disk, config.data_dir) as directory:
        _write(disk, directory, config, identity, machine, rng)
        disk.rename(directory, os.path.join(config.data_dir, "member"))
        disk.sync_directory(config.data_dir)
    return Restored(identity, machine.store.revision, machine.store.key_count, alarms)


def _refuse_used(disk: "Disk", data_dir: str) -> None:
    found = [name for name in disk.list(data_dir) if name != RESTORING]
    if found:
        raise ConfigError(
            f"--data-dir {data_dir} is not empty (it has {found[0]}): a backup is restored into a "
            "directory of its own; name one that is not there yet, or move this one away"
        )


def _log_ids(backup: Backup, identity: Identity, bump_revision: int) -> dict[MemberId, int]:
    """Which log each member keeps: other ones for another state, cluster, or revision."""
    what = (backup.digest, bump_revision, identity.cluster_id, identity.members)
    seed = hashlib.sha256(msgspec.msgpack.encode(what)).digest()
    found = {}
    for member in identity.members:
        own = hashlib.sha256(seed + member.ID.to_bytes(8, "big")).digest()[:LOG_ID_BYTES]
        # 0 would say nothing.
        found[MemberId(member.ID)] = int.from_bytes(own, "big") >> LOG_ID_SHIFT or 1
    return found


@contextmanager
def _unfinished(disk: "Disk", data_dir: str) -> "Iterator[str]":
    """A directory that is locked, and empty but for the lock: what a restore that was killed has
    left goes.
    """
    directory = os.path.join(data_dir, RESTORING)
    wal = layout_of(directory).wal
    disk.make_directory(wal)
    lock = disk.lock(wal)
    try:
        _empty(disk, directory)
        yield directory
    except Exception:
        # Or a start would take it for a restore that was killed.
        with suppress(OSError):
            disk.remove_tree(directory)
        raise
    finally:
        lock.release()


def _empty(disk: "Disk", directory: str) -> None:
    where = layout_of(directory)
    for inside in (where.wal, where.snapshots):
        for name in disk.list(inside):
            if os.path.join(inside, name) != os.path.join(where.wal, LOCK_NAME):
                disk.remove(f"{inside}/{name}")


def _write(
    disk: "Disk",
    directory: str,
    config: "ServerConfig",
    identity: Identity,
    machine: StateMachine,
    rng: random.Random,
) -> None:
    where = layout_of(directory)
    index, term = machine.applied_index, machine.applied_term
    meta = SnapshotMeta(Index(index), Term(term), initial_configuration(identity))
    capture = machine.capture()
    writer = SnapshotWriter(disk, where.snapshots, meta)
    try:
        for chunk in capture.chunks():
            writer.append(chunk)
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    finally:
        capture.close()
    metadata = new_log(
        config,
        identity,
        log_id=machine.roster.log_ids[MemberId(identity.member_id)],
        first_incarnation=new_incarnation(rng),
        restored=(index, term),
    )
    segment_bytes = config.wal_segment_bytes // SECTOR_BYTES * SECTOR_BYTES
    begin_behind(disk, where.wal, segment_bytes, metadata, meta)
