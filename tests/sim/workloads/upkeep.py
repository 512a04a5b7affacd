"""What an operator does besides: compact, defragment, compare hashes, take backups."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from kvstore.errors import KvError
from kvstore.server.backup import read_backup
from kvstore.types import (
    CompactionRequest,
    DefragmentRequest,
    EventType,
    HashKVRequest,
    RangeRequest,
    SnapshotRequest,
    SnapshotResponse,
)
from kvstore.watch.events import make_event
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError
from wal.memory_disk import MemoryDisk

if TYPE_CHECKING:
    import random

    from kvstore.apply import StateMachine
    from tests.sim.client import Client
    from tests.sim.world import World
    from tests.support.host import Host

COMPACTION_PAUSE_SECONDS = (0.3, 3.0)
BACK_MAX = 80
DELETION_SHARE = 0.5
HASH_PAUSE_SECONDS = (0.5, 3.0)
BACKUP_PAUSE_SECONDS = (1.0, 5.0)
BACKUP_SECONDS_MAX = 10.0


async def compaction(world: World, client: Client, rng: random.Random) -> None:
    """Compact at some revision not long ago, or in the future, or once more at the same; often at
    one that deleted something, for a watch may begin at the very revision.
    """
    while world.working:
        await asyncio.sleep(rng.uniform(*COMPACTION_PAUSE_SECONDS))
        read = await client.call("range", RangeRequest(b"any"))
        if read.outcome is not Outcome.OK:
            continue
        revision = max(1, read.response.header.revision + 2 - rng.randrange(BACK_MAX))
        if rng.random() < DELETION_SHARE:
            revision = _next_deletion(world, revision)
        request = CompactionRequest(revision, physical=rng.random() < 0.3)
        await client.call("compact", request)
        if rng.random() < 0.2:
            await client.call("compact", request)
        if rng.random() < 0.2:
            await client.call("defragment", DefragmentRequest())


def _next_deletion(world: World, revision: int) -> int:
    """The first revision from this one on that deleted something; this one, if there is none."""
    truth = world.history.truth
    later = range(revision, world.truth.revision + 1)
    deletions = (
        each
        for each in later
        if any(event.type == EventType.DELETE for event in truth.get(each, ()))
    )
    return next(deletions, revision)


async def hashes(world: World, client: Client, rng: random.Random) -> None:
    """Ask every member for the hash of its keys as of one revision: where as much was compacted
    they must be equal.
    """
    while world.working:
        await asyncio.sleep(rng.uniform(*HASH_PAUSE_SECONDS))
        read = await client.call("range", RangeRequest(b"any"))
        if read.outcome is not Outcome.OK:
            continue
        revision = read.response.header.revision
        told: dict[int, tuple[int, int]] = {}
        for host in list(world.cluster.up):
            answer = await client.call("hash_kv", HashKVRequest(revision), host=host)
            if answer.outcome is not Outcome.OK:
                continue
            value, compacted = answer.response.hash, answer.response.compact_revision
            other, number = told.setdefault(compacted, (value, answer.member))
            if other != value:
                message = (
                    f"the keys at revision {revision}, compacted at {compacted}, hash to "
                    f"{value:x} on member {answer.member} and to {other:x} on member {number}"
                )
                world.report(ViolationError("equality", message))


async def backups(world: World, client: Client, rng: random.Random) -> None:
    """Take a snapshot over the API, and look whether what is in it is what happened."""
    while world.working:
        await asyncio.sleep(rng.uniform(*BACKUP_PAUSE_SECONDS))
        host = await client.find()
        chunks = await _collect(world, client, host)
        if chunks is None:
            continue
        blob = b"".join(chunk.blob for chunk in chunks[:-1])
        if hashlib.sha256(blob).digest() != chunks[-1].blob:
            report = f"a backup of member {host.number} does not have the digest that it tells"
            world.report(ViolationError("recovery", report))
        elif host.up:
            _check(world, host, _load(blob))


async def _collect(world: World, client: Client, host: Host) -> list[SnapshotResponse] | None:
    """All of a snapshot, or None if it broke off."""
    process = host.process
    assert process is not None, "who was found is up"
    task = process.spawn(_read(client, host))
    give_up = world.loop.now + BACKUP_SECONDS_MAX
    while process.alive and not task.done() and world.loop.now < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    if not task.done():
        if process.alive:
            process.call_soon(task.cancel)
        return None
    return task.result()


async def _read(client: Client, host: Host) -> list[SnapshotResponse] | None:
    try:
        chunks = host.service.snapshot(SnapshotRequest(), client.caller)
        return [chunk async for chunk in chunks]
    except KvError:
        return None


def _load(blob: bytes) -> StateMachine:
    disk = MemoryDisk()
    disk.make_directory("/backup")
    disk.create("/backup/file").write([blob], 0)
    return read_backup(disk, "/backup/file").machine


def _check(world: World, host: Host, machine: StateMachine) -> None:
    """Each version that the backup holds was written so, and above its compaction none misses."""
    store = machine.store
    records, _ = store.log_slice(0, 1 << 20)
    held: dict[int, int] = {}
    for record in records:
        held[record.mod_revision] = held.get(record.mod_revision, 0) + 1
        if make_event(record) not in world.history.truth.get(record.mod_revision, []):
            message = f"a backup of member {host.number} holds {record}, which nobody wrote"
            world.report(ViolationError("recovery", message))
    for revision in range(max(1, store.compacted_revision) + 1, store.revision + 1):
        count = len(world.history.truth.get(revision, []))
        if held.get(revision, 0) != count:
            message = f"a backup of member {host.number} lacks versions of revision {revision}"
            world.report(ViolationError("recovery", message))
