"""Disks that lose power at a chosen step, fill up, fail, stall, forget or mangle what they hold."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from tests.sim.faults.common import nothing
from tests.support.host import DISK_SECONDS
from wal.files import SECTOR_BYTES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

STEPS_MAX = 40
WAIT_SECONDS_MAX = 3.0
STEPS_AGAIN_MAX = 20
CUT_AGAIN_SHARE = 0.3
"""Of the starts of those that have to be replaced."""
STALL_SECONDS_MAX = 5.0
FULL_SECONDS_MAX = 6.0
ROOM_BYTES_MAX = 150_000
LANES = ("wal", "wal", "wal-prepare", "snapshots")
RUN_ON_SECONDS_MAX = 3.0
MISDIRECTED_SECTORS_MAX = 4
LATEST_SHARE = 0.5
LATEST_BYTES = 1024
SLOW_SECONDS = (1.0, 6.0)
SLOW_SECONDS_MAX = 1.5


async def cut_at_step(world: World, fault: Fault, rng: random.Random) -> None:
    """Let the power go at the n-th step of the disk from now: in the middle of whatever that is.

    Mostly at one of the next few: what is half done now is what it is to be cut in.
    """
    host = world.victim(fault)
    if host is None:
        return
    process = host.process
    disk = world.machines.disk(host)
    if disk.steps_left is None:
        disk.steps_left = int(fault.amount**2 * STEPS_MAX)
    await asyncio.sleep(rng.random() * WAIT_SECONDS_MAX)
    if host.up and host.process is process:
        # It has not come that far.
        disk.steps_left = None


async def fail(world: World, fault: Fault, rng: random.Random) -> None:
    """Let the next write or sync fail: the member must end, and is started again."""
    host = world.victim(fault)
    if host is None:
        return
    disk = host.disk
    kind = rng.choice(("sync", "write"))
    machines = world.machines
    excuse = f"its disk fails a {kind}"
    if host.number in machines.excused:
        return
    machines.excused[host.number] = excuse
    disk.failures[kind] = OSError(errno.EIO, excuse)
    await asyncio.sleep(fault.amount * WAIT_SECONDS_MAX)
    disk.failures.pop(kind, None)
    await machines.going(host)
    del machines.excused[host.number]


async def fill(world: World, fault: Fault, rng: random.Random) -> None:
    """Let a disk be full, or nearly, for a while."""
    host = world.victim(fault)
    machines = world.machines
    if host is None or host.number in machines.excused:
        return
    machines.excused[host.number] = "its disk is full"
    host.disk.capacity_bytes = host.disk.used_bytes() + int(fault.amount * ROOM_BYTES_MAX)
    await asyncio.sleep(rng.random() * FULL_SECONDS_MAX)
    host.disk.capacity_bytes = None
    await machines.going(host)
    del machines.excused[host.number]


async def stall(world: World, fault: Fault, rng: random.Random) -> None:
    """Let what one lane of a disk is asked for take very long."""
    host = world.victim(fault)
    if host is None:
        return
    lane = rng.choice(LANES)
    process = host.process
    stalled = world.machines.stalled
    if process in stalled or all(other.name != lane for other in host.disk.lanes):
        return
    stalled.append(process)
    go_on = host.hang_disk(lane)
    await asyncio.sleep(fault.amount * STALL_SECONDS_MAX)
    stalled.remove(process)
    if host.process is process and host.up:
        go_on()


def lose(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Lose a whole machine: another one takes its place, or it comes back with an empty disk.

    The latter where members replace themselves.
    """
    host = world.victim(fault)
    machines = world.machines
    if host is None or not machines.may_damage(host):
        return nothing()
    world.crash(host)
    machines.damage(host, "lost its whole disk")
    if not machines.replace_themselves:
        machines.replace_soon(host)
        return nothing()
    machines.lose_disk(host)

    async def rest() -> None:
        await asyncio.sleep(fault.amount * RUN_ON_SECONDS_MAX)
        await machines.start(host, power_cut_after_steps=_cut_again(rng))

    return rest()


def _cut_again(rng: random.Random) -> int | None:
    """After how many steps of the disk the power goes once more, if it does."""
    return rng.randrange(STEPS_AGAIN_MAX) if rng.random() < CUT_AGAIN_SHARE else None


def flip(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Flip a bit in what is written and synced."""

    def damage(host: Host) -> str:
        path, offset = _worst_place(world, host, rng)
        host.disk.flip(path, offset, 1 << rng.randrange(8))
        return f"a bit of byte {offset} of {path} flipped"

    return _mangle(world, fault, rng, damage)


def misdirect(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Write some sectors over others: what belongs elsewhere stands in their place."""

    def damage(host: Host) -> str:
        source, start, _ = _place(world, host, rng)
        target, offset, length = _place(world, host, rng)
        start -= start % SECTOR_BYTES
        offset -= offset % SECTOR_BYTES
        size = SECTOR_BYTES * (1 + rng.randrange(MISDIRECTED_SECTORS_MAX))
        piece = host.disk.content(source)[start : start + size][: max(0, length - offset)]
        host.disk.overwrite(target, offset, piece)
        return f"{len(piece)} bytes of {source} from {start} on written over {target} at {offset}"

    return _mangle(world, fault, rng, damage)


def lose_write(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Forget some sectors that were synced: they read as zeros, as before they were written.

    Not in the log's last segment. A disk that forgets the very last batch looks like one that lost
    power before it was written, and nothing tells its member that it acknowledged more: that a
    synced write is there after a power cut is what every store that votes has to rely on.
    """

    def damage(host: Host) -> str:
        files = world.machines.disk(host).written()
        last = max(path for path, _ in files if path.endswith(".wal"))
        files = [file for file in files if file[0] != last]
        if not files:
            return "nothing to forget"
        path, length = rng.choice(files)
        offset = rng.randrange(length)
        offset -= offset % SECTOR_BYTES
        size = min(SECTOR_BYTES * (1 + rng.randrange(MISDIRECTED_SECTORS_MAX)), length - offset)
        host.disk.overwrite(path, offset, bytes(size))
        return f"{size} bytes of {path} from {offset} on are zeros again"

    return _mangle(world, fault, rng, damage)


def _worst_place(world: World, host: Host, rng: random.Random) -> tuple[str, int]:
    """Anywhere in what was written, or among the last batches of the log: what was acknowledged
    last, where damage looks most like a write that was torn.
    """
    path, offset, length = _place(world, host, rng)
    if rng.random() < LATEST_SHARE:
        files = world.machines.disk(host).written()
        path, length = max(file for file in files if file[0].endswith(".wal"))
        offset = max(0, length - 1 - rng.randrange(LATEST_BYTES))
    return path, offset


async def slow(world: World, fault: Fault, rng: random.Random) -> None:
    """Let every job of some disks take long: acknowledgements come in another order, and much is
    under way when a leader goes.
    """
    seconds = SLOW_SECONDS_MAX * fault.amount**2
    hosts = [host for host in world.cluster.up if rng.random() < 0.6]
    for host in hosts:
        host.disk_seconds = (0.0, seconds)
    await asyncio.sleep(rng.uniform(*SLOW_SECONDS))
    for host in hosts:
        host.disk_seconds = DISK_SECONDS


def _place(world: World, host: Host, rng: random.Random) -> tuple[str, int, int]:
    """Somewhere in what was written: a file, an offset, and how far the file was written to."""
    path, length = rng.choice(world.machines.disk(host).written())
    return path, rng.randrange(length), length


def _mangle(
    world: World, fault: Fault, rng: random.Random, damage: Callable[[Host], str]
) -> Coroutine[Any, Any, None]:
    """Damage a disk where the cluster can bear it, and have its machine restarted by and by."""
    host = world.victim(fault)
    if host is None or not world.machines.may_damage(host):
        return nothing()
    if not world.machines.disk(host).written():
        return nothing()
    world.machines.damage(host, damage(host))
    process = host.process

    async def rest() -> None:
        if rng.random() < 0.5:
            await asyncio.sleep(fault.amount * RUN_ON_SECONDS_MAX)
        if host.up and host.process is process:
            world.crash(host)
        cut = _cut_again(rng) if world.machines.replace_themselves else None
        await world.machines.start(host, power_cut_after_steps=cut)
        await world.machines.mend(host)

    return rest()
