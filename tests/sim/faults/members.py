"""Members that change faster than any operator can ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.commands import Kind, MembershipAction, MembershipChange
from kvstore.types import MemberAddRequest, MemberPromoteRequest
from tests.sim.client import Client
from tests.sim.faults import leadership, links
from tests.support.virtual_loop import ProcessKilledError

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

MEMBERS_MAX = 7
ID_BITS = 62
LOOKS_MAX = 20
CHANGE_SECONDS_MAX = 3.0
GONE_SECONDS = (1.0, 4.0)


async def add_two(world: World, _fault: Fault, rng: random.Random) -> None:
    """Let the roster be two voters ahead of raft's configuration, which then becomes joint.

    That is how a leader finds it whose predecessors had no time to carry changes out.
    """
    async with world.changing_members:
        leader = world.cluster.leader()
        if leader is None or leader.process is None or len(world.cluster.hosts) > MEMBERS_MAX - 2:
            return
        if world.machines.damaged:
            # The two count as voters before they are up.
            return
        hosts = [world.machines.new_host() for _ in range(2)]
        for host in hosts:
            world.machines.damaged[host.number] = "votes, and is not there yet"
        await _propose(leader, hosts, rng)
        for host in hosts:
            if await _is_listed(world, host):
                await world.machines.join(host)
            world.machines.damaged.pop(host.number, None)


async def overtake_change(world: World, _fault: Fault, rng: random.Random) -> None:
    """Add a learner, or promote the one that there is, and take the leader away in the step in
    which that enters its log: the next leader has the change, or takes it back.
    """
    async with world.changing_members:
        leader = world.cluster.leader()
        if leader is None or len(world.cluster.up) < 3:
            return
        ends: list[asyncio.Task[None]] = []

        def strike(member: int) -> bool:
            if member != leader.number or not leader.leads:
                return False
            ends.append(_take_away(world, leader, rng))
            return True

        host: Host | None = None
        request: MemberAddRequest | MemberPromoteRequest
        learners = [row.ID for row in leader.machine.roster.listed() if row.isLearner]
        if learners:
            method, request = "member_promote", MemberPromoteRequest(learners[0])
        elif len(world.cluster.hosts) < MEMBERS_MAX:
            host = world.machines.new_host()
            urls = list(host.config.initial_advertise_peer_urls)
            method, request = "member_add", MemberAddRequest(urls, True)
        else:
            return
        client = Client(world, rng)
        with world.at_mark("configuration appended", strike):
            await client.call(method, request, host=leader, patience_seconds=CHANGE_SECONDS_MAX)
        await asyncio.gather(*ends)
        if host is not None and await _is_listed(world, host):
            await world.machines.join(host)


def _take_away(world: World, leader: Host, rng: random.Random) -> asyncio.Task[None]:
    """Mostly cut off in both directions, but for one member at times: what it has appended stays
    with it, or with the two.
    """
    if rng.random() < 0.3:
        return leadership.take_away(world, leader, rng)
    own = leader.known_id
    others = [member for member in links.members_of(world) if member != own]
    rng.shuffle(others)
    pairs = links.around(own, others[rng.random() < 0.3 :], "both")
    back = links.cut(world, pairs, rng.uniform(*GONE_SECONDS))
    return world.loop.create_task(back, context=world.loop.nobody)


async def _is_listed(world: World, host: Host) -> bool:
    """Whether a machine was let in: as anybody knows who has applied it, for there may be no quorum
    without the machine; or else as the cluster says.
    """
    (url,) = host.config.initial_advertise_peer_urls
    for _ in range(LOOKS_MAX):
        for other in world.cluster.up:
            if any(url in row.peerURLs for row in other.machine.roster.listed()):
                return True
        listing = await world.machines.list_members()
        if listing is not None:
            return any(url in row.peerURLs for row in listing)
    return False


async def _propose(leader: Host, hosts: list[Host], rng: random.Random) -> None:
    """Both changes go through the log together, so that nothing is carried out in between."""
    process, node = leader.process, leader.node
    assert process is not None, "it leads"

    async def let_in(host: Host, *, first: bool) -> None:
        # A roster is named by the index of the entry that made it: the second change follows the
        # first one, the last that waits to be proposed.
        follows = node.driver.raft.last_index + len(node.proposals._unsent)
        based_on = leader.machine.roster.version if first else follows
        urls = list(host.config.initial_advertise_peer_urls)
        own = 1 + rng.getrandbits(ID_BITS)
        change = MembershipChange(based_on, MembershipAction.ADD, own, urls)
        await node.propose(Kind.MEMBERSHIP, change)

    proposals = [process.finish(let_in(host, first=place == 0)) for place, host in enumerate(hosts)]
    for result in await asyncio.gather(*proposals, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, ProcessKilledError):
            raise result
