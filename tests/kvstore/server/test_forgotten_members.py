"""A member that lost its data takes no part under its old id, though who could know it is down."""

import asyncio

import pytest

from kvstore.commands import Kind, PublishMember, decode, decode_body
from kvstore.server.joining import LostMemberError
from raft.types import EntryKind, Index
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.virtual_loop import VirtualLoop, run_virtual
from wal.memory_disk import MemoryDisk

LOOK_SECONDS = 0.0001
LOOKS_MAX = 200_000
ELECTIONS_SECONDS = 30.0


def has_in_its_log(host: Host, member: int) -> bool:
    """Whether a member's publication is on this one's disk, and not known to be committed there."""
    if not host.up or member in host.machine.roster.log_ids:
        return False
    raft = host.node.driver.raft
    for entry in raft.written_after(Index(host.machine.applied_index)) or ():
        if entry.kind is EntryKind.COMMAND and entry.index <= raft.stable_index:
            command = decode(entry.data)
            if command.kind == Kind.PUBLISH_MEMBER:
                body = decode_body(command)
                assert isinstance(body, PublishMember)
                if body.member_id == member:
                    return True
    return False


async def lose_with_a_stale_peer(cluster: Cluster) -> tuple[Host, Host, Host]:
    """One has in its log that another published itself, and does not know that as committed; that
    one lost its disk; only the third, which is down, knows what both of them acknowledged.
    """
    stale, lost, third = cluster.hosts
    for host in cluster.hosts:
        await host.start()
    for _ in range(LOOKS_MAX):
        if has_in_its_log(stale, lost.known_id):
            break
        await asyncio.sleep(LOOK_SECONDS)
    assert has_in_its_log(stale, lost.known_id)
    stale.crash()
    await cluster.wait(lost.node.ready.is_set)
    await cluster.wait(third.node.ready.is_set)
    for number in range(20):
        await lost.put(b"%d" % number, b"acknowledged")
    third.crash()
    lost.crash()
    lost.disk = MemoryDisk()
    await stale.start()
    assert lost.known_id not in stale.machine.roster.log_ids, "it is stale"
    return stale, lost, third


@pytest.mark.parametrize("seed", range(1, 5))
def test_who_lost_its_data_is_not_linked_with_a_peer_that_is_stale(seed: int) -> None:
    async def work(loop: VirtualLoop) -> None:
        cluster = Cluster(loop, seed)
        stale, lost, third = await lose_with_a_stale_peer(cluster)
        await lost.start()
        await asyncio.sleep(ELECTIONS_SECONDS)
        assert not stale.node.network.is_up(lost.known_id)
        assert not lost.node.driver.raft.last_index, "it took part in an election"
        lost.crash()
        cluster.hosts.remove(lost)
        await third.start()
        for number in range(20):
            assert await third.get(b"%d" % number) == b"acknowledged"

    run_virtual(work, 600.0)


def test_who_lost_its_data_is_told_so_by_a_peer_that_is_stale() -> None:
    async def work(loop: VirtualLoop) -> None:
        cluster = Cluster(loop, 1, asks=True)
        _, lost, _ = await lose_with_a_stale_peer(cluster)
        with pytest.raises(LostMemberError, match="kvstore member replace"):
            await lost.start()

    run_virtual(work, 600.0)
