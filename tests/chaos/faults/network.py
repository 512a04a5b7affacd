"""The network between the members fails: wholly, in one direction, for some, or only a little."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from typing import Final

from tests.chaos import sandbox
from tests.chaos.faults.holding import hold
from tests.chaos.members import ChaosMember, World
from tests.chaos.relay import Weather
from tests.chaos.wires import Direction

BLOCKED: Final = Weather(blocked=True)
BLOCKED_SECONDS: Final = (1.0, 8.0)
NO_QUORUM_SECONDS: Final = (2.0, 12.0)
BAD_SECONDS: Final = (3.0, 8.0)
BREAKS: Final = (3, 15)
DIAL_SECONDS: Final = 0.5


def _block(
    world: World,
    rng: random.Random,
    paths: Sequence[Direction],
    *members: ChaosMember,
    seconds: tuple[float, float] = BLOCKED_SECONDS,
) -> bool:
    """Nothing gets through these; when it does again, what was under way comes late or is gone."""
    with world.claim(*members) as ours:
        if ours:
            world.wires.set(paths, BLOCKED)
            try:
                hold(rng, *seconds)
                felt = world.wires.felt(paths)
                if rng.random() < 0.5:
                    world.wires.cut(paths)
            finally:
                world.wires.clear(paths)
            return felt > 0
        return False


def cut_off_everybody(world: World, rng: random.Random) -> bool:
    """No quorum, for longer than a write is waited for; what was under way may still happen."""
    everywhere = world.wires.everywhere()
    return _block(world, rng, everywhere, *world.members, seconds=NO_QUORUM_SECONDS)


def _cut_off(world: World, rng: random.Random, member: ChaosMember) -> bool:
    wires = world.wires
    return _block(world, rng, [*wires.into(member.name), *wires.out_of(member.name)], member)


def cut_off_leader(world: World, rng: random.Random) -> bool:
    """Clients still reach it: it must not serve them."""
    return _cut_off(world, rng, world.leader())


def cut_off_follower(world: World, rng: random.Random) -> bool:
    """When it comes back it must not disturb."""
    return _cut_off(world, rng, world.follower(rng))


def deaf_leader(world: World, rng: random.Random) -> bool:
    """It speaks and hears nothing: it must step down, or nobody else could lead."""
    leader = world.leader()
    return _block(world, rng, world.wires.into(leader.name), leader)


def mute_leader(world: World, rng: random.Random) -> bool:
    """It hears and says nothing."""
    leader = world.leader()
    return _block(world, rng, world.wires.out_of(leader.name), leader)


def one_way_between_two(world: World, rng: random.Random) -> bool:
    """One member no longer hears another one; a third hears both."""
    one, other = rng.sample(world.members, 2)
    return _block(world, rng, [(one.name, other.name)], one, other)


def split(world: World, rng: random.Random) -> bool:
    """A majority and the rest, the leader on either side."""
    names = [member.name for member in rng.sample(world.members, world.size)]
    cut = rng.randint(1, (world.size - 1) // 2)
    paths = world.wires.between(names[:cut], names[cut:])
    return _block(world, rng, paths, *world.members)


def _spoil(world: World, rng: random.Random, weather: Weather) -> bool:
    """Bad weather on all paths, or on those of one member."""
    members = world.members if rng.random() < 0.5 else [rng.choice(world.members)]
    paths = (
        world.wires.everywhere()
        if len(members) > 1
        else [*world.wires.into(members[0].name), *world.wires.out_of(members[0].name)]
    )
    with world.claim(*members) as ours:
        if ours:
            world.wires.set(paths, weather)
            try:
                hold(rng, *BAD_SECONDS)
                return world.wires.felt(paths) > 0
            finally:
                world.wires.clear(paths)
        return False


def lose_packets(world: World, rng: random.Random) -> bool:
    """Some have to be sent again, and all behind them wait."""
    return _spoil(world, rng, Weather(loss=rng.choice((0.02, 0.1, 0.3)), delay_seconds=0.002))


def slow_down(world: World, rng: random.Random) -> bool:
    """Far away, or thin."""
    return _spoil(
        world,
        rng,
        Weather(
            delay_seconds=rng.choice((0.01, 0.05, 0.2)),
            jitter_seconds=rng.choice((0.0, 0.05)),
            bytes_per_second=rng.choice((0.0, 100_000.0, 1_000_000.0)),
        ),
    )


def break_connections(world: World, rng: random.Random) -> bool:
    """Every connection between members is reset, again and again."""
    broken = 0
    for _ in range(rng.randint(*BREAKS)):
        broken += world.wires.cut(world.wires.everywhere())
        hold(rng, 0.0, 0.6)
    return broken > 0


def pull_the_cable(world: World, rng: random.Random) -> bool:
    """A member's link goes down: neither peers nor clients reach it, and nobody is told."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            sandbox.set_link(victim.slot.network, up=False)
            try:
                hold(rng, *BLOCKED_SECONDS)
                return not _answers(victim)
            finally:
                sandbox.set_link(victim.slot.network, up=True)
        return False


def _answers(member: ChaosMember) -> bool:
    try:
        socket.create_connection((member.slot.host, member.node.client_port), DIAL_SECONDS).close()
    except OSError:
        return False
    return True
