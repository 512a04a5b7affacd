"""Checkers that look into the members while they run.

What clients saw is judged by ``tests/checking`` once the run is over; these see every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from raft.effects import Effects, RoleChange
    from raft.messages import Message
    from raft.types import Entry
    from tests.sim.world import World
    from tests.support.host import Host


def all_checkers(world: World) -> list[NodeChecker]:
    """Every checker, in the order in which they are told: some look at what others keep."""
    from tests.sim.checkers.commitment import Commitment
    from tests.sim.checkers.disk_truth import DiskTruth
    from tests.sim.checkers.elections import Elections
    from tests.sim.checkers.forgotten import Forgotten
    from tests.sim.checkers.logs import Logs
    from tests.sim.checkers.reads import Reads
    from tests.sim.checkers.states import States

    disks = DiskTruth(world)
    logs = Logs(world)
    return [
        disks,
        logs,
        Elections(world, disks),
        Commitment(world, disks),
        States(world),
        Reads(world, logs),
        Forgotten(world),
    ]


class NodeChecker:
    """Is told of every step. A checker overrides what it needs, and raises ``ViolationError``.

    ``on_effects`` comes before the driver carries the effects out, ``on_send`` before a message
    leaves, ``on_committed`` before the entries are applied.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def on_start(self, host: Host) -> None:
        """A process was started, and its node recovered from the disk; nothing has run yet."""

    def on_end(self, host: Host) -> None:
        """A process ended, in whatever way; ``host.node`` can be looked at a last time."""

    def on_role(self, host: Host, change: RoleChange) -> None:
        """A member's role, term or known leader changed."""

    def on_effects(self, host: Host, effects: Effects) -> None:
        """Raft wants this done."""

    def on_committed(self, host: Host, entries: list[Entry]) -> None:
        """These are applied next."""

    def on_send(self, host: Host, message: Message) -> None:
        """A raft message leaves."""

    def on_outcome(self, host: Host, outcome: Outcome) -> None:
        """An entry was applied; whoever waits for it has not been answered yet."""

    def on_turn(self, host: Host) -> None:
        """A member's turn of the loop ended."""

    def at_end(self) -> None:
        """The run is over; all members are up and have been given time to agree."""
