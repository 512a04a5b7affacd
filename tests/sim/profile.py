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
        workload_share: How likely each workload is to take part in a run.
        clock_costs: What a look at the clock costs, in seconds; one of these. The dearer, the more
            slices huge commands are applied in.
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
    workload_share: float = 1.0
    clock_costs: tuple[float, ...] = (0.000_01,)
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
            workloads={
                "register": 3,
                "append": 1,
                "bank": 1,
                "transactions": 1,
                "leases": 2,
                "locks": 2,
                "candidate": 2,
                "observer": 1,
                "watches": 2,
                "administrator": 1,
                "visitor": 2,
                "compaction": 1,
                "backups": 1,
                "hashes": 1,
                "large": 1,
                "members": 1,
                "leadership": 1,
            },
            workload_share=0.4,
            clock_costs=(0.000_01, 0.000_01, 0.000_1),
        ),
        Profile(
            name="leases",
            sizes=(3, 3, 5),
            faults={"crash": 2, "pause": 2, "partition": 2, "restart": 1},
            fault_every_seconds=2.5,
            waiting_for={"leader elected": 1, "lease expiry proposed": 2},
            workloads={"leases": 4, "locks": 3, "candidate": 2, "observer": 1, "leadership": 1},
        ),
        Profile(
            name="watches",
            sizes=(1, 3, 3),
            faults={"crash": 2, "pause": 1, "partition": 1, "restart": 2},
            waiting_for={"leader elected": 1, "compaction applied": 1},
            workloads={
                "watches": 4,
                "register": 2,
                "bank": 1,
                "leases": 1,
                "large": 1,
                "compaction": 1,
            },
            clock_costs=(0.000_01, 0.000_1),
        ),
        Profile(
            name="auth",
            sizes=(3, 3, 5),
            faults={"crash": 2, "pause": 1, "partition": 2, "restart": 1},
            fault_every_seconds=2.5,
            waiting_for={"leader elected": 1},
            workloads={
                "administrator": 1,
                "visitor": 4,
                "register": 1,
                "watches": 1,
                "leases": 1,
                "leadership": 1,
            },
        ),
        Profile(
            name="membership",
            sizes=(3, 3, 5),
            seconds=20.0,
            faults={"crash": 2, "pause": 1, "partition": 2, "restart": 1},
            fault_every_seconds=3.0,
            waiting_for={"configuration appended": 2, "leader elected": 1, "joint consensus": 2},
            workloads={"members": 1, "register": 2, "append": 1, "watches": 1, "leadership": 1},
        ),
        Profile(
            name="snapshots",
            sizes=(3, 3, 5),
            faults={"crash": 3, "pause": 2, "partition": 2, "restart": 1},
            waiting_for={"snapshot begun": 1, "snapshot marked": 1, "snapshot sent": 1},
            workloads={
                "register": 2,
                "bank": 1,
                "large": 1,
                "leases": 1,
                "backups": 2,
                "compaction": 1,
                "hashes": 1,
                "watches": 1,
            },
            clock_costs=(0.000_01, 0.000_1),
            settings={"snapshot_count": 30, "snapshot_catchup_entries": 5},
        ),
    ]
}
"""By name."""
