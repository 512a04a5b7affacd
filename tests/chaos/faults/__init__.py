"""What can go wrong? Each fault is a function that begins it, holds it for a while, and ends it.

A fault takes the members that it hurts for itself (``World.claim``); where another fault has them
it does nothing. It returns whether it really happened, by what was seen of it outside of itself: a
process gone by that signal, bytes held back by the relay, a date that is wrong. A fault that did
nothing is reported as such. What it breaks it makes whole again, whatever happens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.chaos import sandbox
from tests.chaos.faults import (
    clocks,
    disks,
    membership,
    network,
    processes,
    replacing,
    upkeep,
)
from tests.chaos.members import World

__all__ = ["FAULTS", "Fault", "possible"]


class Fault(NamedTuple):
    """One way to break something.

    Attributes:
        run: Does it all; returns whether it really happened.
        alone: No other fault may happen at the same time: it needs the rest to be well.
        inside: It needs namespaces of the kernel.
        clocks: It needs the right to change a process's monotonic clock.
    """

    run: Callable[[World, random.Random], bool]
    alone: bool = False
    inside: bool = False
    clocks: bool = False

    @property
    def name(self) -> str:
        """As it is reported."""
        return self.run.__name__.replace("_", " ")


FAULTS: Final = (
    Fault(processes.kill_leader),
    Fault(processes.kill_follower),
    Fault(processes.kill_all, alone=True),
    Fault(processes.pause_leader),
    Fault(processes.pause_follower),
    Fault(processes.terminate),
    Fault(processes.restart_each_in_turn, alone=True),
    Fault(network.cut_off_leader),
    Fault(network.cut_off_follower),
    Fault(network.cut_off_everybody),
    Fault(network.deaf_leader),
    Fault(network.mute_leader),
    Fault(network.one_way_between_two),
    Fault(network.split),
    Fault(network.lose_packets),
    Fault(network.slow_down),
    Fault(network.break_connections),
    Fault(network.pull_the_cable, inside=True),
    Fault(disks.fill, inside=True),
    Fault(disks.slow_syncs),
    Fault(disks.damage_a_file, alone=True),
    Fault(disks.damage_the_middle_of_the_log, alone=True),
    Fault(disks.damage_a_file_in_use, alone=True),
    Fault(clocks.change_wall_clock),
    Fault(clocks.change_monotonic_clock, clocks=True),
    Fault(membership.add_and_remove, alone=True),
    Fault(membership.move_leader),
    Fault(replacing.lose_a_directory, alone=True),
    Fault(replacing.lose_a_directory_and_replace_itself, alone=True),
    Fault(upkeep.save_snapshots),
    Fault(upkeep.compact),
    Fault(upkeep.defragment),
)


def possible() -> tuple[list[Fault], list[str]]:
    """The faults that this machine allows, and a word on each that it does not."""
    inside = sandbox.is_inside()
    other_time = sandbox.can_change_clocks()
    allowed, left_out = [], []
    for fault in FAULTS:
        if fault.inside and not inside:
            left_out.append(f"{fault.name}: namespaces (unshare) are not allowed here")
        elif fault.clocks and not other_time:
            left_out.append(f"{fault.name}: time namespaces are not allowed here")
        else:
            allowed.append(fault)
    return allowed, left_out
