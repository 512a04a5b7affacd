"""Processes end, stop for a while, and come back."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.faults.holding import hold
from tests.chaos.members import ChaosMember, World
from tests.checking.violation import ViolationError

DOWN_SECONDS: Final = (0.5, 4.0)
PAUSED_SECONDS: Final = (1.0, 10.0)


def _kill(world: World, rng: random.Random, victim: ChaosMember) -> bool:
    with world.claim(victim) as ours:
        if ours:
            victim.end_by(victim.kill_nowait)
            killed = _was_killed(victim)
            hold(rng, *DOWN_SECONDS)
            victim.start()
            victim.wait_ready()
            return killed
        return False


def _was_killed(member: ChaosMember) -> bool:
    return member.wait_end() == -signal.SIGKILL


def kill_leader(world: World, rng: random.Random) -> bool:
    """SIGKILL; what it acknowledged, the others have."""
    return _kill(world, rng, world.leader())


def kill_follower(world: World, rng: random.Random) -> bool:
    """SIGKILL."""
    return _kill(world, rng, world.follower(rng))


def kill_all(world: World, rng: random.Random) -> bool:
    """SIGKILL of all at once: what the disks hold is all there is."""
    with world.claim(*world.members) as ours:
        if ours:
            for member in world.members:
                member.end_by(member.kill_nowait)
            killed = [_was_killed(member) for member in world.members]
            hold(rng, 0.0, 1.0)
            for member in rng.sample(world.members, world.size):
                member.start()
            for member in world.members:
                member.wait_ready()
            return all(killed)
        return False


def _pause(world: World, rng: random.Random, victim: ChaosMember) -> bool:
    with world.claim(victim) as ours:
        if ours:
            victim.pause()
            try:
                hold(rng, *PAUSED_SECONDS)
                return _is_stopped(victim.pid)
            finally:
                victim.resume()
        return False


def _is_stopped(pid: int) -> bool:
    # proc(5): the state follows the name, which is in brackets and may hold any of them.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def pause_leader(world: World, rng: random.Random) -> bool:
    """SIGSTOP: it comes back believing that it leads."""
    return _pause(world, rng, world.leader())


def pause_follower(world: World, rng: random.Random) -> bool:
    """SIGSTOP: its sockets stay open, and nobody answers on them."""
    return _pause(world, rng, world.follower(rng))


def _terminate(member: ChaosMember) -> None:
    member.expected = False
    code = member.stop()
    if code != 0:
        raise ViolationError(
            "no surprise", f"{member.name} ended with {code} by SIGTERM:\n{member.log(12)}"
        )


def terminate(world: World, rng: random.Random) -> bool:
    """SIGTERM of any: it hands leadership on, answers what it has taken, and ends with 0."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            _terminate(victim)
            hold(rng, *DOWN_SECONDS)
            victim.start()
            victim.wait_ready()
        return ours


def restart_each_in_turn(world: World, rng: random.Random) -> bool:
    """SIGTERM and a new start of one after the other, as for a new version."""
    with world.claim(*world.members) as ours:
        if ours:
            restart_in_turn(rng.sample(world.members, world.size))
        return ours


def restart_in_turn(members: Sequence[ChaosMember]) -> None:
    """The next one is stopped when the last one serves again."""
    for member in members:
        _terminate(member)
        member.start()
        member.wait_ready()
