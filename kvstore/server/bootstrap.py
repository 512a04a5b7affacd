"""From a directory to a member: found a cluster, or recover what an earlier process left.

data-dir/member/wal/     the log
data-dir/member/snap/    snapshots
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from kvstore.apply import SnapshotLoader, StateMachine
from kvstore.errors import ConfigError, StateError
from kvstore.server.identity import Identity, derive
from kvstore.types import Member
from raft.types import Configuration, Entry, Index, NodeId, SnapshotMeta, Term
from wal.errors import REPLACE_REMEDY, WalError
from wal.files import SECTOR_BYTES
from wal.record import Metadata
from wal.recovery import Recovered
from wal.snapshot_file import SnapshotFile, SnapshotReader, newest_valid
from wal.wal import Wal, WalOptions

if TYPE_CHECKING:
    from kvstore.config import ServerConfig
    from wal.files import Disk

log = logging.getLogger("kvstore.server")

ASK_SECONDS_MAX = 2.0
"""How long a fresh member waits for its peers to say whether they know it."""

_decode_members = msgspec.msgpack.Decoder(tuple[Member, ...]).decode


class Layout(msgspec.Struct, frozen=True):
    """Where things are in a data directory."""

    wal: str
    snapshots: str


def layout(data_dir: str) -> Layout:
    """The directories under ``data_dir``."""
    member = os.path.join(data_dir, "member")
    return Layout(os.path.join(member, "wal"), os.path.join(member, "snap"))


class Recovery(msgspec.Struct, frozen=True):
    """Everything a member starts from.

    What ``entries`` holds is durable; those after ``snapshot`` are not applied yet.
    """

    identity: Identity
    wal: Wal
    recovered: Recovered
    snapshot: SnapshotMeta
    entries: list[Entry]
    machine: StateMachine
    snapshot_file: SnapshotFile | None


class LogEvents(msgspec.Struct, frozen=True):
    """Who is told of what happens to the log, as ``Wal.open`` has it, and its clock."""

    on_persisted: Callable[[int], None]
    on_failed: Callable[[BaseException], None]
    clock: Callable[[], float]


def identity_of(config: "ServerConfig") -> Identity:
    """The ids that the flags stand for.

    Raises:
        ConfigError: The flags contradict each other.
    """
    return derive(config.name, config.initial_cluster, config.initial_cluster_token)


def initial_configuration(identity: Identity) -> Configuration:
    """All founding members vote."""
    return Configuration(tuple(NodeId(member.ID) for member in identity.members))


def recover(
    config: "ServerConfig",
    disk: "Disk",
    events: LogEvents,
    *,
    first_incarnation: int,
    new_machine: Callable[[tuple[Member, ...]], StateMachine],
    new_loader: Callable[[], SnapshotLoader],
) -> Recovery:
    """Open the directory. Blocks: nothing is served yet.

    Args:
        config: The member's settings.
        disk: Where its directory is.
        events: Who is told of what happens to the log.
        first_incarnation: What a new log begins to count its openings from. By chance, so that a
            directory that was wiped does not take up the names of commands of its former life.
        new_machine: Makes the empty state of a cluster with these members.
        new_loader: Makes a loader for a snapshot.

    Raises:
        ConfigError: The directory belongs to another member or cluster than the flags name.
        WalError: The log or the snapshots are damaged, locked, or of another format.
        StateError: A snapshot that its checksums vouch for does not hold together.
    """
    wal, recovered = _open_log(config, disk, events, first_incarnation)
    metadata = recovered.metadata
    founders = _decode_members(metadata.bootstrap)
    identity = Identity(metadata.cluster_id, metadata.member_id, founders)
    directory = layout(config.data_dir).snapshots
    origin = SnapshotMeta(Index(0), Term(0), initial_configuration(identity))
    snapshot, file, entries = _choose_snapshot(disk, directory, origin, recovered)
    machine = new_machine(founders) if file is None else _load(disk, file, new_loader())
    return Recovery(identity, wal, recovered, snapshot, entries, machine, file)


def _choose_snapshot(
    disk: "Disk", directory: str, origin: SnapshotMeta, recovered: Recovered
) -> tuple[SnapshotMeta, SnapshotFile | None, list[Entry]]:
    """The newest marked snapshot that is sound, and the entries that follow it.

    Raises:
        StateError: None is, and the log does not reach back to the beginning.
    """
    mark = recovered.snapshot_mark
    if mark is None:
        return origin, None, recovered.entries
    file = _sound_file(disk, directory, mark)
    if file is not None:
        return mark, file, recovered.entries
    fallback = recovered.fallback
    if fallback is not None:
        entries = fallback.entries + recovered.entries
        mark = fallback.snapshot_mark
        if mark is None:
            log.warning("no snapshot is sound: starting from the whole log instead")
            return origin, None, entries
        file = _sound_file(disk, directory, mark)
        if file is not None:
            log.warning("starting from the snapshot before, at index %d, instead", mark.index)
            return mark, file, entries
    raise StateError(
        f"the log needs a snapshot that {directory} has no sound copy of: {REPLACE_REMEDY}"
    )


def _open_log(
    config: "ServerConfig", disk: "Disk", events: LogEvents, first_incarnation: int
) -> tuple[Wal, Recovered]:
    identity = identity_of(config)
    fresh = Metadata(
        cluster_id=identity.cluster_id,
        member_id=identity.member_id,
        incarnation=first_incarnation,
        bootstrap=msgspec.msgpack.encode(identity.members),
    )
    wal, recovered = Wal.open(
        disk,
        layout(config.data_dir).wal,
        WalOptions(segment_bytes=config.wal_segment_bytes // SECTOR_BYTES * SECTOR_BYTES),
        fresh,
        on_persisted=events.on_persisted,
        on_failed=events.on_failed,
        clock=events.clock,
    )
    try:
        _check_owner(config, identity, recovered.metadata)
    except ConfigError:
        wal.close(lambda _: None)
        raise
    return wal, recovered


def _check_owner(config: "ServerConfig", identity: Identity, metadata: Metadata) -> None:
    if (metadata.cluster_id, metadata.member_id) != (identity.cluster_id, identity.member_id):
        raise ConfigError(
            f"{config.data_dir} holds member {metadata.member_id:x} of cluster "
            f"{metadata.cluster_id:x}, but the flags describe member {identity.member_id:x} of "
            f"cluster {identity.cluster_id:x}: give the --name, --initial-cluster and "
            "--initial-cluster-token that it was founded with, or another --data-dir"
        )


def _sound_file(disk: "Disk", directory: str, mark: SnapshotMeta) -> SnapshotFile | None:
    return newest_valid(
        disk, directory, lambda meta: (meta.index, meta.term) == (mark.index, mark.term), _report
    )


def _report(error: WalError) -> None:
    log.error("a snapshot was passed over: %s", error)


def _load(disk: "Disk", file: SnapshotFile, loader: SnapshotLoader) -> StateMachine:
    reader = SnapshotReader(disk, file)
    try:
        for chunk in reader.chunks():
            loader.feed(chunk)
    finally:
        reader.close()
    return loader.finish()


async def refuse_if_known(config: "ServerConfig", identity: Identity) -> None:
    """Ask the other founders before a fresh directory takes part as a founder.

    A member that lost its directory has forgotten whom it voted for and what it acknowledged. Were
    it to start anew under its id, a majority could be made of members that never saw what was
    promised. Peers that cannot be reached are not waited for: at the founding nobody may be up yet.

    Raises:
        ConfigError: The cluster already knows this member as started.
    """
    if config.initial_cluster_state == "existing":
        raise ConfigError(
            f"--initial-cluster-state is existing, but {config.data_dir} is empty: a running "
            "cluster cannot take a new member in yet, and a founding member that lost its data "
            "must not come back under its old id. Restore the directory; to found a new cluster "
            "say new"
        )
    others = [member for member in identity.members if identity.member_id != member.ID]
    if not others:
        return
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(_members_at(session, member) for member in others))
    for members in answers:
        for member in members:
            if member.get("id") == identity.member_id and member.get("clientURLs"):
                raise ConfigError(
                    f"member {identity.member_id:x} ({config.name}) is known to its cluster, but "
                    f"{config.data_dir} is empty: a member that lost its data must not come back "
                    "under its old id, for it has forgotten what it promised. Restore the "
                    "directory; to give the member up, found the cluster anew from the others' data"
                )


async def _members_at(session: aiohttp.ClientSession, member: Member) -> list[dict[str, object]]:
    for url in member.peerURLs:
        try:
            async with session.get(f"{url}/members") as response:
                if response.status == 200:
                    body = await response.json(content_type=None)
                    return [row for row in body if isinstance(row, dict)]
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.debug("%s does not say who its members are: %s", url, error)
    return []
