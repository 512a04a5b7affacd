"""Clocks are wrong from a member's next start on, each member's in its own way."""

from __future__ import annotations

import http.client
import random
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from tests.chaos.members import ChaosMember, World

WALL_OFFSETS_SECONDS: Final = (-86_400.0 * 400, -3_600.0, -30.0, 0.0, 30.0, 3_600.0, 86_400.0 * 400)
MONOTONIC_AHEAD_SECONDS: Final = (0, 100, 86_400, 86_400 * 400)
LOOK_SECONDS: Final = 5.0
WRONG_BY_SECONDS_MAX: Final = 5.0


def _restart(victim: ChaosMember) -> None:
    victim.end_by(victim.kill)
    victim.start()
    victim.wait_ready()


def change_wall_clock(world: World, rng: random.Random) -> bool:
    """By half a minute, an hour or a year, forth or back."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            victim.wall_offset_seconds = offset = rng.choice(
                [one for one in WALL_OFFSETS_SECONDS if one != victim.wall_offset_seconds]
            )
            _restart(victim)
            return abs(_seconds_ahead(victim) - offset) < WRONG_BY_SECONDS_MAX
        return False


def _seconds_ahead(member: ChaosMember) -> float:
    """By the date that its answers carry (RFC 9110 §6.6.1)."""
    connection = http.client.HTTPConnection(
        member.slot.host, member.node.client_port, timeout=LOOK_SECONDS
    )
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    date = answer.headers["Date"]
    # Our own wall clock, as there is nothing else to compare a wall clock with.
    return parsedate_to_datetime(date).timestamp() - time.time()  # noqa: TID251


def change_monotonic_clock(world: World, rng: random.Random) -> bool:
    """As if the machine had been started at another time."""
    victim = rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            victim.monotonic_ahead_seconds = ahead = rng.choice(
                [one for one in MONOTONIC_AHEAD_SECONDS if one != victim.monotonic_ahead_seconds]
            )
            _restart(victim)
            # time_namespaces(7): the clock, seconds, nanoseconds; one line a clock.
            words = Path(f"/proc/{victim.pid}/timens_offsets").read_text().split()
            return int(words[1]) == ahead
        return False
