"""Followers that lag so far behind that only a snapshot brings them up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    WatchCreateRequest,
)
from raft.types import NodeId
from tests.checking.history import Outcome
from tests.sim.client import Client
from tests.sim.faults import links
from tests.sim.faults.leadership import wait_leader
from tests.sim.feed import Feed
from tests.support.host import DISK_SECONDS

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

ROUNDS_MAX = 12
WRITERS = 40
BEHIND_SECONDS_MAX = 6.0
WRITTEN_SECONDS_MAX = 1.5
INSTALLED_SECONDS_MAX = 3.0
SLOW_SECONDS_MAX = 0.3
CRASH_SHARE = 0.5
COMPACT_SHARE = 0.5
READER_SECONDS_MAX = 0.5
RUN_ON_SECONDS_MAX = 0.5
DOWN_SECONDS_MAX = 1.0
LOOK_SECONDS = 0.005


async def leave_behind(world: World, fault: Fault, rng: random.Random) -> None:
    """Cut a follower off until only a snapshot can bring it up, and let it back with a slow disk;
    mostly cut its power soon after it has installed that. Somebody watches there, and is slow.
    """
    leader = await wait_leader(world)
    others = [host for host in world.cluster.up if host is not leader]
    if leader is None or len(others) < 2:
        return
    host = others[fault.victim % len(others)]
    feed = await _watch_slowly(world, host, rng)
    own = host.known_id
    rest = [member for member in links.members_of(world) if member != own]
    pairs = links.around(own, rest, "both")
    for pair in pairs:
        world.cluster.wire.cut(*pair)
    await _go_on_without(world, host, rng)
    compacted = await _compact_at_a_deletion(world, rng) if rng.random() < COMPACT_SHARE else 0
    installed: list[int] = []

    def note(member: int) -> bool:
        if member == host.number:
            installed.append(member)
        return member == host.number

    host.disk_seconds = (0.0, rng.random() * SLOW_SECONDS_MAX)
    for pair in pairs:
        # What the connections still held would bring it up.
        world.cluster.wire.reset(*pair)
        world.cluster.wire.mend(*pair)
    give_up = world.loop.now + INSTALLED_SECONDS_MAX
    with world.at_mark("snapshot installed", note):
        while not installed and world.loop.now < give_up and host.up:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
    if feed is not None:
        if compacted and not feed.lost:
            # A watch may begin at the very revision of a compaction, and is owed that one whole.
            create = WatchCreateRequest(b"\0", b"\0", compacted)
            feed.watch(world.new_client_number(), create)
        await asyncio.sleep(rng.random() * READER_SECONDS_MAX)
        feed.go_on()
    if installed and rng.random() < CRASH_SHARE:
        await asyncio.sleep(rng.random() ** 2 * RUN_ON_SECONDS_MAX)
        if host.up:
            world.crash(host)
        await asyncio.sleep(fault.amount * DOWN_SECONDS_MAX)
    elif feed is not None:
        await asyncio.sleep(READER_SECONDS_MAX)
    if feed is not None:
        feed.close()
    host.disk_seconds = DISK_SECONDS
    await world.start(host)


async def _compact_at_a_deletion(world: World, rng: random.Random) -> int:
    """Forget what was before a deletion, whose revision is returned; 0: nobody did."""
    client, leader = Client(world, rng), world.cluster.leader()
    key = b"storm/%d" % world.new_token()
    await client.call("put", PutRequest(key), host=leader)
    deleted = await client.call("delete_range", DeleteRangeRequest(key), host=leader)
    if deleted.outcome is not Outcome.OK or not deleted.response.deleted:
        return 0
    revision = int(deleted.response.header.revision)
    compacted = await client.call("compact", CompactionRequest(revision), host=leader)
    return revision if compacted.outcome is Outcome.OK else 0


async def _watch_slowly(world: World, host: Host, rng: random.Random) -> Feed | None:
    """Watch everything, and leave what comes where it is for a while; None: it has gone."""
    client = Client(world, rng)
    for _ in range(2):
        # Who is told that it has to log in does so before its next call.
        await client.call("range", RangeRequest(b"any"))
    if not host.up:
        return None
    feed = Feed(client, host)
    feed.watch(client.number, WatchCreateRequest(b"\0", b"\0"))
    feed.hold()
    await client.call("put", PutRequest(b"storm/%d" % world.new_token()))
    return feed


async def _go_on_without(world: World, host: Host, rng: random.Random) -> None:
    """Write until whoever leads has forgotten what the other one needs next."""
    give_up = world.loop.now + BEHIND_SECONDS_MAX
    rounds = 0
    while world.loop.now < give_up and host.up and rounds < ROUNDS_MAX:
        leader = world.cluster.leader()
        leadership = None if leader is None else leader.node.driver.raft._core.leadership
        progress = None if leadership is None else leadership.progress.get(NodeId(host.known_id))
        if leader is None or progress is None or progress.active or progress.was_active:
            # A leader keeps what a follower needs whom it has heard of not long ago.
            await asyncio.sleep(LOOK_SECONDS)
            continue
        if leader.node.driver.raft._core.log.base_index > host.node.driver.raft.last_index:
            return
        rounds += 1
        nobody = world.loop.nobody
        writes = [
            world.loop.create_task(_write(world, leader, rng), context=nobody)
            for _ in range(WRITERS)
        ]
        await asyncio.wait(writes, timeout=WRITTEN_SECONDS_MAX)


async def _write(world: World, leader: Host, rng: random.Random) -> None:
    client = Client(world, rng)
    key = b"storm/%d" % world.new_token()
    await client.call("put", PutRequest(key), host=leader)
    if rng.random() < 0.2:
        await client.call("delete_range", DeleteRangeRequest(key), host=leader)
