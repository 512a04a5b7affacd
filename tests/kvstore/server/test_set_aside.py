"""A damaged directory is kept beside its successor."""

import contextlib
import random

import pytest

from kvstore.server.set_aside import kept, owner_of
from kvstore.server.set_aside import set_aside as move_aside
from tests.support.cluster import Cluster
from tests.support.losses import damage_tail
from tests.support.scenario import scenario
from wal.memory_disk import MemoryDisk, PowerCutError


@pytest.mark.parametrize("steps", range(12))
def test_a_directory_is_set_aside_whole_or_not_at_all(steps: int) -> None:
    disk = MemoryDisk()
    for name in ("member.damaged-3/wal/x", "member.damaged-4/wal/x", "member/wal/1", "member/snap"):
        file = disk.create(f"/data/{name}")
        file.sync()
        disk.sync_directory(f"/data/{name}".rpartition("/")[0])
    disk.steps_left = steps
    with contextlib.suppress(PowerCutError):
        move_aside(disk, "/data")
    disk.crash(random.Random(steps))
    names = disk.list("/data")
    if "member" in names:
        assert disk.list("/data/member") == ["snap", "wal"]
        assert "member.damaged-5" not in names
        assert move_aside(disk, "/data") == "/data/member.damaged-5"
    assert disk.list("/data/member.damaged-5") == ["snap", "wal"]
    assert move_aside(disk, "/data") == "", "there is none left"
    disk.create("/data/member/wal/2").close()
    assert move_aside(disk, "/data") == "/data/member.damaged-6"
    assert disk.list("/data") == ["member.damaged-5", "member.damaged-6"]


def test_what_was_set_aside_gives_way_to_nothing_empty() -> None:
    """A process that ends before its log has begun leaves its lock and what it was filling."""
    disk = MemoryDisk()
    disk.create("/data/member/wal/0000000000000001.wal").close()
    assert move_aside(disk, "/data") == "/data/member.damaged-1"
    for name in ("lock", "0000000000000001.wal.new"):
        disk.create(f"/data/member/wal/{name}").close()
    for _ in range(2):
        assert move_aside(disk, "/data") == ""
    assert kept(disk, "/data") == ["member.damaged-1"]


@scenario(1)
async def test_a_damaged_directory_still_says_whose_it_is(cluster: Cluster) -> None:
    victim = (await cluster.followers())[0]
    node = victim.node
    known = (node.cluster_id, node.member_id, node.peer_port.log_id)
    await victim.stop()
    damage_tail(victim)
    disk = victim.disk
    for _ in range(2):
        owner = owner_of(disk, "/data")
        assert owner is not None
        assert (owner.cluster_id, owner.member_id, owner.log_id) == known
        move_aside(disk, "/data")
    for name in disk.list("/data/member.damaged-1/wal"):
        disk.overwrite(f"/data/member.damaged-1/wal/{name}", 0, b"nothing that a log begins with")
    assert owner_of(disk, "/data") is None
    assert owner_of(MemoryDisk(), "/data") is None
    cluster.hosts.remove(victim)
