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
        heartbeats_ms: A leader's heartbeats come so often; one of these. An election takes ten
            times as long.
        clock_costs: What a look at the clock costs, in seconds; one of these. The dearer, the more
            slices huge commands are applied in.
        replace_share: In which share of the runs members that lose what they have promised replace
            themselves; in the others an operator does it.
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
    heartbeats_ms: tuple[int, ...] = (100,)
    clock_costs: tuple[float, ...] = (0.000_01,)
    replace_share: float = 0.0
    settings: dict[str, Any] = {}


EVERYWHERE = {
    "vote waits for its sync": 1.0,
    "leader elected": 1.0,
    "leader stepped down": 0.5,
    "old leader still leads": 0.5,
    "log truncated": 1.0,
    "configuration cut": 0.5,
    "truncated in flight": 1.0,
    "entries sent before their sync": 1.0,
    "messages sent before the write was queued": 1.0,
    "applied before the answer": 1.0,
    "snapshot begun": 1.0,
    "snapshot named": 1.0,
    "snapshot marked": 1.0,
    "snapshot sent": 1.0,
    "snapshot installed": 1.0,
    "segment prepared": 0.5,
    "segment begun": 1.0,
    "segment released": 0.5,
    "configuration appended": 2.5,
    "joint consensus": 0.5,
    "transfer begun": 0.5,
    "lease expiry proposed": 0.5,
    "compaction applied": 0.5,
    "restart": 0.5,
}
"""What a fault may wait for, whatever the profile: it strikes in the very step, wherever it is."""
ENDINGS = {"crash": 3.0, "kill": 1.0, "kill and crash": 0.5, "restart": 0.5, "pause": 1.0}
"""The ways in which a process ends, or stands still."""
LINKS = {
    "partition": 1.5,
    "majority and minority": 1.0,
    "leader isolated": 1.5,
    "one-way cut": 1.0,
    "bridge": 0.5,
    "slow links": 1.0,
    "bad weather": 1.0,
    "links reset": 0.5,
    "transfer broken": 0.5,
}
DISKS = {
    "power cut at a disk step": 2.0,
    "disk fails": 1.0,
    "disk full": 0.5,
    "disk stalls": 1.0,
    "slow disks": 1.5,
    "bit flipped": 2.0,
    "write misdirected": 0.5,
    "write lost": 0.5,
    "machine lost": 0.5,
}
CLOCKS = {"suspend": 1.0, "clock drift": 1.0, "wall clock jump": 0.5}


def _all(*kinds: tuple[dict[str, float], float]) -> dict[str, float]:
    """Several tables of kinds in one, each scaled."""
    return {kind: weight * scale for table, scale in kinds for kind, weight in table.items()}


PROFILES = {
    profile.name: profile
    for profile in [
        Profile(
            name="default",
            sizes=(1, 3, 3, 3, 5),
            faults=_all((ENDINGS, 1), (LINKS, 0.5), (DISKS, 0.6), (CLOCKS, 0.3))
            | {
                "crash all": 0.3,
                "rolling restart": 0.1,
                "downgrade": 0.1,
                "two members at once": 0.4,
                "leaders taken away": 1.5,
                "follower overtaken": 1.0,
                "follower left behind": 1.0,
                "change overtaken": 0.8,
                "expiry held up": 0.6,
                "leader wakes late": 0.6,
            },
            waiting_for=EVERYWHERE,
            heartbeats_ms=(100, 30),
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
            replace_share=0.5,
            clock_costs=(0.000_01, 0.000_01, 0.000_1),
        ),
        Profile(
            name="leases",
            sizes=(3, 3, 5),
            faults={
                "crash": 2,
                "pause": 2,
                "partition": 2,
                "restart": 1,
                "leader isolated": 2,
                "leaders taken away": 1,
                "clock drift": 1,
                "wall clock jump": 1,
                "expiry held up": 1,
                "leader wakes late": 1,
            },
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
            seconds=30.0,
            faults={
                "crash": 2,
                "kill": 1,
                "pause": 1,
                "partition": 2,
                "restart": 1,
                "leader isolated": 1,
                "machine lost": 1,
                "two members at once": 1,
                "change overtaken": 1,
            },
            fault_every_seconds=4.0,
            waiting_for={"configuration appended": 2, "leader elected": 1, "joint consensus": 2},
            replace_share=0.5,
            workloads={"members": 1, "register": 2, "append": 1, "watches": 1, "leadership": 1},
        ),
        Profile(
            name="snapshots",
            sizes=(3, 3, 5),
            faults=_all((ENDINGS, 1), (LINKS, 0.5))
            | {"transfer broken": 3, "disk full": 1, "disk stalls": 1, "disk fails": 0.5},
            waiting_for={
                "snapshot begun": 1,
                "snapshot named": 1,
                "snapshot marked": 1,
                "snapshot sent": 2,
                "snapshot installed": 2,
                "segment released": 1,
            },
            waiting_share=0.5,
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
        Profile(
            name="network",
            sizes=(3, 3, 5),
            faults=_all((LINKS, 1), (ENDINGS, 0.1))
            | {"leaders taken away": 2.0, "follower overtaken": 1.0},
            waiting_for=EVERYWHERE,
            waiting_share=0.2,
            fault_every_seconds=1.0,
            heartbeats_ms=(100, 30),
            workloads={"register": 3},
        ),
        Profile(
            name="disk",
            sizes=(3, 3, 5),
            faults=_all((DISKS, 1), (ENDINGS, 0.1)),
            waiting_for=EVERYWHERE,
            seconds=20.0,
            workloads={"register": 3},
            replace_share=0.5,
            settings={"snapshot_count": 60},
        ),
        Profile(
            name="crash",
            sizes=(1, 3, 3, 5),
            faults=_all((ENDINGS, 1))
            | {"crash all": 1, "power cut at a disk step": 2, "rolling restart": 0.3},
            waiting_for=EVERYWHERE,
            waiting_share=0.6,
            fault_every_seconds=0.8,
            workloads={"register": 3},
            settings={"snapshot_count": 60},
        ),
        Profile(
            name="clocks",
            sizes=(3, 3, 5),
            faults=_all((CLOCKS, 1), (ENDINGS, 0.1), (LINKS, 0.2)),
            waiting_for=EVERYWHERE,
            workloads={"register": 3},
        ),
        Profile(
            name="large",
            sizes=(5, 7),
            seconds=30.0,
            faults=_all((ENDINGS, 1), (LINKS, 1), (DISKS, 0.5), (CLOCKS, 0.3))
            | {"crash all": 0.3, "rolling restart": 0.3, "downgrade": 0.2},
            waiting_for=EVERYWHERE,
            workloads={"register": 5},
        ),
    ]
}
"""By name."""
