"""Clocks are wrong from a member's next start on, each member's in its own way."""

from __future__ import annotations

import random
from typing import Final

from tests.chaos.members import ChaosMember, World

WALL_OFFSETS_SECONDS: Final = (-86_400.0 * 400, -3_600.0, -30.0, 0.0, 30.0, 3_600.0, 86_400.0 * 400)
MONOTONIC_AHEAD_SECONDS: Final = (0, 100, 86_400, 86_400 * 400)


def _restart(victim: ChaosMember) -> None:
    victim.end_by(victim.kill)
    victim.start()
    victim.wait_ready()


def change_wall_clock(world: World, rng: random.Random) -> bool:
    """By half a minute, an hour or a year, forth or back."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            victim.wall_offset_seconds = rng.choice(WALL_OFFSETS_SECONDS)
            _restart(victim)
        return ours


def change_monotonic_clock(world: World, rng: random.Random) -> bool:
    """As if the machine had been started at another time."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            victim.monotonic_ahead_seconds = rng.choice(MONOTONIC_AHEAD_SECONDS)
            _restart(victim)
        return ours
