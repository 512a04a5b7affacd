"""How large a run is, and how rough."""

from __future__ import annotations

from typing import Any

import msgspec


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is drawn from.

    Attributes:
        name: How it is asked for.
        sizes: How many members; one of these.
        seconds: Virtual seconds of work and faults.
        faults: Kind (a name of ``FAULTS``) to how often it is drawn, in proportion.
        fault_every_seconds: The mean time from one fault to the next.
        waiting_share: Which share of the faults waits for a mark (of ``waiting_for``).
        waiting_for: Marks, and how often each is drawn, in proportion.
        workloads: Name (of ``WORKLOADS``) to how many clients of it there are.
        settings: Fields of ``ServerConfig`` for all members.
    """

    name: str
    sizes: tuple[int, ...] = (3,)
    seconds: float = 15.0
    faults: dict[str, float]
    fault_every_seconds: float = 1.5
    waiting_share: float = 0.3
    waiting_for: dict[str, float] = {}
    workloads: dict[str, int]
    settings: dict[str, Any] = {}


PROFILES = {
    profile.name: profile
    for profile in [
        Profile(
            name="default",
            sizes=(1, 3, 3, 3, 5),
            faults={"crash": 3, "pause": 1, "partition": 2, "restart": 1},
            waiting_for={
                "votes before own vote is durable": 1,
                "leader elected": 1,
                "entries sent before their sync": 2,
            },
            workloads={"register": 3},
        ),
    ]
}
"""By name."""
