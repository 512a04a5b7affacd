"""The faults of a run, drawn from its seed before it begins: plain data, to be printed, shortened
and replayed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tests.sim.profile import Profile


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that goes wrong.

    Attributes:
        number: Its place in the schedule as drawn; seeds what the fault itself leaves to chance,
            so that taking other faults away does not change it.
        at: Virtual seconds after work began.
        kind: A name of ``FAULTS``.
        victim: Whom it concerns, modulo what there is then.
        amount: From 0 to 1: how long, how much, how many; the kind says.
        on: A mark: from ``at`` on it waits for this situation, and strikes the member that is in
            it, in the very step. "" strikes at ``at``.
    """

    number: int
    at: float
    kind: str
    victim: int
    amount: float
    on: str = ""


def draw(seed: int, profile: Profile) -> list[Fault]:
    """The faults of a seed, in order of time."""
    rng = random.Random(f"schedule {seed}")
    kinds, weights = list(profile.faults), list(profile.faults.values())
    marks, mark_weights = list(profile.waiting_for), list(profile.waiting_for.values())
    faults: list[Fault] = []
    at = 0.0
    while kinds:
        at += rng.expovariate(1 / profile.fault_every_seconds)
        if at >= profile.seconds:
            break
        waits = bool(marks) and rng.random() < profile.waiting_share
        faults.append(
            Fault(
                number=len(faults),
                at=round(at, 6),
                kind=rng.choices(kinds, weights)[0],
                victim=rng.randrange(1 << 16),
                amount=round(rng.random(), 6),
                on=rng.choices(marks, mark_weights)[0] if waits else "",
            )
        )
    return faults


def size_of(seed: int, profile: Profile) -> int:
    """How many members the cluster of a seed has."""
    return random.Random(f"size {seed}").choice(profile.sizes)


def pace_of(seed: int, profile: Profile) -> dict[str, int]:
    """How fast the members of a seed's cluster find out that a leader is gone: their settings."""
    heartbeat = random.Random(f"pace {seed}").choice(profile.heartbeats_ms)
    return {"heartbeat_interval_ms": heartbeat, "election_timeout_ms": 10 * heartbeat}


def replaces_themselves(seed: int, profile: Profile) -> bool:
    """Whether the members of a seed's cluster may replace themselves, and no operator does it."""
    return random.Random(f"replace {seed}").random() < profile.replace_share


def encode(faults: list[Fault]) -> str:
    """As JSON, for a file or a terminal."""
    return msgspec.json.encode(faults).decode()


def decode(text: str) -> list[Fault]:
    """From JSON.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return msgspec.json.decode(text, type=list[Fault])
