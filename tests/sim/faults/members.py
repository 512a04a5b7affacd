"""Members that change faster than any operator can ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.commands import Kind, MembershipAction, MembershipChange
from tests.support.virtual_loop import ProcessKilledError

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

MEMBERS_MAX = 7
ID_BITS = 62
LOOKS_MAX = 20


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
