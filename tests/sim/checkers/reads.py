"""A linearizable read sees all that was committed when it was asked (thesis §6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.effects import Effects
    from tests.sim.checkers.logs import Logs
    from tests.sim.world import World
    from tests.support.host import Host


class Reads(NodeChecker):
    """Knows, for each round of reads that began, how much was committed anywhere."""

    def __init__(self, world: World, logs: Logs) -> None:
        super().__init__(world)
        self._logs = logs
        self._asked: dict[tuple[int, int], int] = {}

    def on_start(self, host: Host) -> None:
        """Rounds end with the process that asked for them."""
        self._asked = {key: value for key, value in self._asked.items() if key[0] != host.number}

    def on_read(self, host: Host, context: int) -> None:
        """A round begins."""
        self._asked[host.number, context] = self._logs.committed_index

    def on_effects(self, host: Host, effects: Effects) -> None:
        """Rounds are answered."""
        for read in effects.reads:
            floor = self._asked.pop((host.number, read.context), 0)
            if host.machine.applied_index < floor:
                raise ViolationError(
                    "linearizability",
                    f"member {host.number} answers reads at index {host.machine.applied_index}; "
                    f"when they were asked, {floor} was committed",
                )
