"""Clients: coroutines that call members and record what they see.

A workload is ``async def name(world, client, rng)``: it calls until ``world.working`` is false. It
must survive every error: faults are what the run is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.sim.workloads.register import register

if TYPE_CHECKING:
    from tests.sim.client import Client
    from tests.sim.world import World

Workload = Callable[["World", "Client", random.Random], Coroutine[Any, Any, None]]

WORKLOADS: dict[str, Workload] = {"register": register}
"""By the names that profiles use."""
