"""Clients: coroutines that call members and record what they see.

A workload is ``async def name(world, client, rng)``: it calls until ``world.working`` is false. It
must survive every error: faults are what the run is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.sim.workloads.append import append
from tests.sim.workloads.auth import administrator, visitor
from tests.sim.workloads.elections import candidate, observer
from tests.sim.workloads.large import large
from tests.sim.workloads.leases import leases
from tests.sim.workloads.locks import locks
from tests.sim.workloads.members import leadership, members
from tests.sim.workloads.register import register
from tests.sim.workloads.transactions import bank, transactions
from tests.sim.workloads.upkeep import backups, compaction, hashes
from tests.sim.workloads.watches import watches

if TYPE_CHECKING:
    from tests.sim.client import Client
    from tests.sim.world import World

Workload = Callable[["World", "Client", random.Random], Coroutine[Any, Any, None]]

WORKLOADS: dict[str, Workload] = {
    "register": register,
    "append": append,
    "bank": bank,
    "transactions": transactions,
    "leases": leases,
    "locks": locks,
    "candidate": candidate,
    "observer": observer,
    "watches": watches,
    "administrator": administrator,
    "visitor": visitor,
    "compaction": compaction,
    "backups": backups,
    "hashes": hashes,
    "large": large,
    "members": members,
    "leadership": leadership,
}
"""By the names that profiles use."""
