"""What can go wrong, one function a kind: ``async def kind(world, fault, rng)``.

A fault happens, lasts, and ends by itself within the run; when work is over the world ends
whatever still lasts (``World.heal``). It finds out by itself whether it makes sense at all: a
member that is down cannot be paused. ``fault.amount`` (0 to 1) is scaled by the kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.sim.faults import links, processes

if TYPE_CHECKING:
    from tests.sim.schedule import Fault
    from tests.sim.world import World

FaultKind = Callable[["World", "Fault", random.Random], Coroutine[Any, Any, None]]

FAULTS: dict[str, FaultKind] = {
    "crash": processes.crash,
    "restart": processes.restart,
    "pause": processes.pause,
    "partition": links.partition,
}
"""By the names that profiles use."""
