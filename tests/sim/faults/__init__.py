"""What can go wrong, one function a kind: ``kind(world, fault, rng)``.

A kind strikes at once, where that matters, and returns the coroutine of what follows from it; most
are coroutine functions, which strike in the next step. A fault happens, lasts, and ends by itself
within the run; when work is over the world heals what still lasts. It finds out by itself whether
it makes sense at all: a member that is down cannot be paused. ``fault.amount`` (0 to 1) is scaled
by the kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.sim.faults import (
    clocks,
    disks,
    followers,
    leadership,
    links,
    members,
    overdue,
    processes,
    upgrades,
)

if TYPE_CHECKING:
    from tests.sim.schedule import Fault
    from tests.sim.world import World

FaultKind = Callable[["World", "Fault", random.Random], Coroutine[Any, Any, None]]

FAULTS: dict[str, FaultKind] = {
    "crash": processes.crash,
    "crash all": processes.crash_all,
    "kill": processes.kill,
    "kill and crash": processes.kill_and_crash,
    "restart": processes.restart,
    "rolling restart": processes.rolling_restart,
    "downgrade": upgrades.downgrade,
    "pause": processes.pause,
    "suspend": processes.suspend,
    "two members at once": members.add_two,
    "change overtaken": members.overtake_change,
    "clock drift": clocks.drift,
    "wall clock jump": clocks.wall_jump,
    "partition": links.partition,
    "majority and minority": links.split_majority,
    "leader isolated": links.isolate_leader,
    "leaders taken away": leadership.storm,
    "follower overtaken": leadership.overtake,
    "follower left behind": followers.leave_behind,
    "expiry held up": overdue.hold_up_expiry,
    "leader wakes late": overdue.wake_late,
    "one-way cut": links.one_way,
    "bridge": links.bridge,
    "slow links": links.slow,
    "bad weather": links.weather,
    "links reset": links.reset,
    "transfer broken": links.break_transfers,
    "power cut at a disk step": disks.cut_at_step,
    "disk fails": disks.fail,
    "disk full": disks.fill,
    "disk stalls": disks.stall,
    "slow disks": disks.slow,
    "bit flipped": disks.flip,
    "write misdirected": disks.misdirect,
    "write lost": disks.lose_write,
    "machine lost": disks.lose,
}
"""By the names that profiles use."""
