"""Processes that crash, are killed, stop and stand still, and machines that lose power."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from tests.sim.faults.common import nothing

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from typing import Any

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

DOWN_SECONDS_MAX = 4.0
PAUSE_SECONDS_MAX = 6.0
BETWEEN_SECONDS_MAX = 2.0
RECOVERY_STEPS_MAX = 14
"""Recovery takes about so many steps of the disk."""
CUT_AGAIN_SHARE = 0.2


def crash(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Cut the power of one machine; it comes back after a while, perhaps to lose it once more."""
    host = world.victim(fault)
    if host is None:
        return nothing()
    world.crash(host)
    return _come_back(world, host, fault, rng)


def kill(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """SIGKILL one process: what it had written is read again, and no more durable than before."""
    host = world.victim(fault)
    if host is None:
        return nothing()
    if world.machines.disk(host).unsynced():
        world.marks.hit("killed with unsynced writes")
    world.kill(host)
    return _come_back(world, host, fault, rng)


def kill_and_crash(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """SIGKILL one process, start it at once, and cut the power soon after.

    What it recovered from was never synced by the life that wrote it.
    """
    host = world.victim(fault)
    if host is None:
        return nothing()
    world.kill(host)

    async def rest() -> None:
        await world.start(host)
        await asyncio.sleep(rng.random() * fault.amount)
        if host.up:
            world.crash(host)
        await _come_back(world, host, fault, rng)

    return rest()


async def _come_back(world: World, host: Host, fault: Fault, rng: random.Random) -> None:
    await asyncio.sleep(fault.amount * DOWN_SECONDS_MAX)
    cut = rng.randrange(RECOVERY_STEPS_MAX) if rng.random() < CUT_AGAIN_SHARE else None
    await world.machines.start(host, power_cut_after_steps=cut)


def crash_all(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Cut the power of all machines at once; each comes back in its own time."""
    hosts = world.cluster.up
    for host in hosts:
        world.crash(host)

    async def rest() -> None:
        await asyncio.gather(*(_come_back(world, host, fault, rng) for host in hosts))

    return rest()


async def restart(world: World, fault: Fault, _rng: random.Random) -> None:
    """SIGTERM, and start again at once."""
    host = world.victim(fault)
    if host is None:
        return
    await world.stop(host)
    await world.start(host)


async def rolling_restart(world: World, fault: Fault, rng: random.Random) -> None:
    """Restart one member after the other, each with other settings than before."""
    for host in list(world.cluster.hosts):
        if not host.up:
            continue
        await world.stop(host)
        heartbeat = rng.choice((50, 100, 150))
        if host.process is None or not host.process.alive:
            host.config = msgspec.structs.replace(
                host.config,
                wal_segment_bytes=rng.choice((64, 128, 256)) * 1024,
                snapshot_count=rng.choice((50, 200, 1000)),
                snapshot_catchup_entries=rng.choice((10, 50, 200)),
                heartbeat_interval_ms=heartbeat,
                election_timeout_ms=10 * heartbeat,
            )
        await world.start(host)
        await asyncio.sleep(fault.amount * BETWEEN_SECONDS_MAX)


def pause(world: World, fault: Fault, _rng: random.Random) -> Coroutine[Any, Any, None]:
    """SIGSTOP, and SIGCONT after a while."""
    return _pause(world, fault, with_clock=False)


def suspend(world: World, fault: Fault, _rng: random.Random) -> Coroutine[Any, Any, None]:
    """Suspend a virtual machine for a while: its clock does not know that time went by."""
    return _pause(world, fault, with_clock=True)


def _pause(world: World, fault: Fault, *, with_clock: bool) -> Coroutine[Any, Any, None]:
    host = world.victim(fault)
    if host is None or host.process is None or host.process.paused:
        return nothing()
    return stand_still(world, host, fault.amount * PAUSE_SECONDS_MAX, with_clock=with_clock)


def stand_still(
    world: World, host: Host, seconds: float, *, with_clock: bool = False
) -> Coroutine[Any, Any, None]:
    """Stop a process at once; what is returned lets it go on after a while."""
    process = host.process
    assert process is not None, f"member {host.number} is down"
    world.trace.add("pause", host.number, "suspended" if with_clock else "SIGSTOP")
    process.pause(with_clock=with_clock)

    async def rest() -> None:
        await asyncio.sleep(seconds)
        world.trace.add("resume", host.number, "")
        process.resume()

    return rest()
