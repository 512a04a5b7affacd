"""From a directory to a member: found a cluster, or recover what an earlier process left.

data-dir/member/wal/     the log
data-dir/member/snap/    snapshots
data-dir/member/diverged   if its state is wrong (``quarantine.py``)
data-dir/member.restoring  what a backup is restored into, until it is whole (restoring.py)
"""

import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore.apply import SnapshotLoader, StateMachine
from kvstore.errors import ConfigError, StateError
from kvstore.server import quarantine
from kvstore.server.identity import Beginning, Identity, derive
from kvstore.server.rebuild import Start, choose_start
from kvstore.types import Member, MemberId
from raft.types import Configuration, Index, NodeId, SnapshotMeta, Term
from wal.files import SECTOR_BYTES
from wal.record import Metadata
from wal.recovery import Recovered
from wal.snapshot_file import SnapshotFile, SnapshotReader
from wal.wal import Wal, WalOptions

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from wal.files import Disk

log = logging.getLogger("kvstore.server")


RESTORING = "member.restoring"
INCARNATION_BITS = 48


class Layout(msgspec.Struct, frozen=True):
    """Where things are in a data directory."""

    wal: str
    snapshots: str
    member: str


def layout(data_dir: str) -> Layout:
    """The directories under ``data_dir``."""
    return layout_of(os.path.join(data_dir, "member"))


def layout_of(member: str) -> Layout:
    """The same under the directory that is in use, or will be."""
    return Layout(os.path.join(member, "wal"), os.path.join(member, "snap"), member)


class Recovery(msgspec.Struct, frozen=True):
    """Everything a member starts from.

    The entries in ``start`` are durable, and not applied yet.
    """

    identity: Identity
    beginning: Beginning
    wal: Wal
    recovered: Recovered
    start: Start
    machine: StateMachine


class LogEvents(msgspec.Struct, frozen=True):
    """Who is told of what happens to the log, as ``Wal.open`` has it, and its clock."""

    on_persisted: Callable[[int], None]
    on_failed: Callable[[BaseException], None]
    clock: Callable[[], float]


def founding_identity(config: "ServerConfig") -> Identity:
    """The ids of a founder, which the flags stand for.

    Raises:
        ConfigError: The flags contradict each other, or say that this is no founder.
    """
    if config.initial_cluster_state == "existing":
        raise ConfigError(
            f"--initial-cluster-state is existing, but {config.data_dir} is empty, and no cluster "
            "was asked who this member is"
        )
    config.check_initial_cluster()
    return derive(config.name, config.initial_cluster, config.initial_cluster_token)


def initial_configuration(identity: Identity) -> Configuration:
    """All founding members vote; one that joins later begins from here as well, without a vote."""
    return Configuration(tuple(NodeId(member.ID) for member in identity.members))


def recover(
    config: "ServerConfig",
    disk: "Disk",
    events: LogEvents,
    *,
    fresh: Metadata | None,
    new_machine: Callable[[tuple[Member, ...]], StateMachine],
    new_loader: Callable[[], SnapshotLoader],
) -> Recovery:
    """Open the directory. Blocks: nothing is served yet.

    Args:
        config: The member's settings.
        disk: Where its directory is.
        events: Who is told of what happens to the log.
        fresh: What a new log begins with (``new_log``); None if there is one already.
        new_machine: Makes the empty state of a cluster with these members.
        new_loader: Makes a loader for a snapshot.

    Raises:
        ConfigError: The directory belongs to another member than the flags name.
        WalError: The log or the snapshots are locked, of another format, or damaged beyond what the
            member may rebuild.
        DivergedError: The member was found to differ from a majority.
        StateError: No snapshot that is needed is sound, and nobody else has one; or one that its
            checksums vouch for does not hold together.
    """
    quarantine.refuse(disk, layout(config.data_dir).member)
    starts: list[Start] = []

    def judge(recovered: Recovered) -> None:
        _, identity = _whose(recovered)
        origin = SnapshotMeta(Index(0), Term(0), initial_configuration(identity))
        directory = layout(config.data_dir).snapshots
        starts.append(choose_start(disk, directory, origin, recovered))

    wal, recovered = Wal.open(
        disk,
        layout(config.data_dir).wal,
        WalOptions(segment_bytes=config.wal_segment_bytes // SECTOR_BYTES * SECTOR_BYTES),
        fresh,
        on_persisted=events.on_persisted,
        on_failed=events.on_failed,
        clock=events.clock,
        judge=judge,
    )
    assert len(starts) == 1, "a log is judged once"
    start = starts[0]
    try:
        beginning, identity = _whose(recovered)
        founders = beginning.founders
        file = start.file
        machine = new_machine(founders) if file is None else _load(disk, file, new_loader())
        _check_owner(config, identity, beginning, machine)
    except (ConfigError, StateError):
        wal.close(lambda _: None)
        raise
    return Recovery(identity, beginning, wal, recovered, start, machine)


def _whose(recovered: Recovered) -> tuple[Beginning, Identity]:
    metadata = recovered.metadata
    beginning = Beginning.read(metadata.bootstrap, metadata.member_id)
    return beginning, Identity(
        metadata.cluster_id, metadata.member_id, beginning.founders, beginning.contacts
    )


def refuse_unfinished(disk: "Disk", data_dir: str) -> None:
    """Refuse to begin without the state that was to be restored.

    Raises:
        ConfigError: A restore into this directory has begun, and did not end.
    """
    if RESTORING in disk.list(data_dir):
        raise ConfigError(
            f"{data_dir} holds a backup that was not restored to its end: run kvstore snapshot "
            f"restore again, or remove {os.path.join(data_dir, RESTORING)} to begin without it"
        )


def new_incarnation(rng: random.Random) -> int:
    """What a new log begins to count its openings from: by chance, so that a directory that was
    wiped does not take up the names of commands of its former life.
    """
    return 1 + rng.getrandbits(INCARNATION_BITS)


def new_log(
    config: "ServerConfig",
    identity: Identity,
    *,
    log_id: int,
    first_incarnation: int,
    restored: tuple[int, int] = (0, 0),
) -> Metadata:
    """What a new log says of whom it belongs to.

    Args:
        config: The member's settings.
        identity: Its ids and the cluster's founders.
        log_id: By chance; a member that comes with another one has lost what it acknowledged.
        first_incarnation: What the log begins to count its openings from.
        restored: Index and term of the snapshot that it begins behind.
    """
    urls = tuple(sorted(config.initial_advertise_peer_urls))
    beginning = Beginning(log_id, config.name, urls, identity.members, identity.contacts, restored)
    return Metadata(identity.cluster_id, identity.member_id, first_incarnation, beginning.written())


def _check_owner(
    config: "ServerConfig", identity: Identity, beginning: Beginning, machine: StateMachine
) -> None:
    """Refuse somebody else's directory.

    The other flags of the founding are not looked at: the members may have changed since.
    """
    member = machine.members.get(MemberId(identity.member_id))
    names = {beginning.name, member.name if member else ""}
    urls = {*beginning.peer_urls, *(member.peerURLs if member else ())}
    if config.name in names or not urls.isdisjoint(config.initial_advertise_peer_urls):
        return
    raise ConfigError(
        f"{config.data_dir} holds member {identity.member_id:x} ({beginning.name}, "
        f"{','.join(sorted(urls))}) of cluster {identity.cluster_id:x}, but --name is "
        f"{config.name} and --initial-advertise-peer-urls is "
        f"{','.join(config.initial_advertise_peer_urls)}: give one of them as it was, or another "
        "--data-dir"
    )


def _load(disk: "Disk", file: SnapshotFile, loader: SnapshotLoader) -> StateMachine:
    reader = SnapshotReader(disk, file)
    try:
        for chunk in reader.chunks():
            loader.feed(chunk)
    finally:
        reader.close()
    return loader.finish()
