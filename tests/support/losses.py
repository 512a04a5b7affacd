"""Members that lose their data, and whether the cluster is whole again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.attendant import Attendant
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.writer import Writer, check_kept
from wal.memory_disk import MemoryDisk

ALLOWED: dict[str, Any] = {"replace_damaged_member": True, "corrupt_check_time_ms": 1000}
SMALL: dict[str, Any] = {"snapshot_count": 60, "snapshot_catchup_entries": 20}
Loss = Callable[[Host], None]
WAL = "/data/member/wal"
SNAPSHOTS = "/data/member/snap"
REPLACED_SECONDS_MAX = 120.0


def lose_directory(host: Host) -> None:
    host.disk = MemoryDisk()


def lose_log(host: Host) -> None:
    """All segments; the snapshots stay."""
    for name in host.disk.list(WAL):
        host.disk.remove(f"{WAL}/{name}")
    host.disk.sync_directory(WAL)
    assert host.disk.list(SNAPSHOTS), "there is a snapshot"


def damage_tail(host: Host) -> None:
    """A byte in the middle of the newest batch: it was whole once, so it is not torn."""
    disk = host.disk
    for name in reversed(disk.list(WAL)):
        path = f"{WAL}/{name}"
        content = disk.content(path) if name.endswith(".wal") else b""
        if content.rstrip(b"\0"):
            last = len(content.rstrip(b"\0")) - 1
            disk.flip(path, last, 0x55)
            return
    raise AssertionError("there is no log to damage")


def damage_snapshots(host: Host) -> None:
    """All snapshots, and the log with them: nothing to start from is left."""
    for name in host.disk.list(SNAPSHOTS):
        host.disk.flip(f"{SNAPSHOTS}/{name}", 700, 0xFF)
    damage_tail(host)


LOSSES: dict[str, Loss] = {
    "directory": lose_directory,
    "tail": damage_tail,
    "snapshots": damage_snapshots,
}


def voters(host: Host) -> list[int]:
    return [row.ID for row in host.machine.roster.listed() if not row.isLearner]


def is_whole(cluster: Cluster, size: int) -> bool:
    """Whether everybody is up and votes, and everybody knows it."""
    if len(cluster.up) < size or cluster.leader() is None:
        return False
    ids = sorted(host.member_id for host in cluster.hosts)
    return all(
        host.node.ready.is_set()
        and not host.node.failed.done()
        and voters(host) == ids
        and not host.machine.roster.successors
        and host.node.driver.raft.configuration.voters == tuple(ids)
        for host in cluster.hosts
    )


async def wait_whole(cluster: Cluster, size: int = 3) -> None:
    await cluster.wait(lambda: is_whole(cluster, size), REPLACED_SECONDS_MAX)


async def lose(victim: Host, loss: Loss) -> Attendant:
    """Let a member lose its data, and start it again."""
    await victim.stop()
    loss(victim)
    return Attendant(victim)


def set_aside(host: Host) -> list[str]:
    return [name for name in host.disk.list("/data") if name != "member"]


async def check_replaced(
    cluster: Cluster, victim: Host, old_id: int, attendant: Attendant, crew: list[Writer]
) -> None:
    """It is another now, the old one never comes back, and nothing was lost."""
    assert victim.member_id != old_id
    for host in cluster.hosts:
        assert old_id in host.machine.roster.removed
    assert attendant.ids[0] == old_id
    assert attendant.ids[-1] == victim.member_id
    await check_kept(cluster, crew)
    assert sum(len(writer.acknowledged) for writer in crew) > 100
    await attendant.end()
    await victim.start()
    await wait_whole(cluster, len(cluster.hosts))
