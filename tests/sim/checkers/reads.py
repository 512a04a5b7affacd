"""A linearizable read sees all that was committed when it was asked (thesis §6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from kvstore.errors import KvError
    from kvstore.server.reads import ReadReply
    from tests.sim.checkers.logs import Logs
    from tests.sim.world import World
    from tests.support.host import Host


class Reads(NodeChecker):
    """Notes for each read how much was committed anywhere when it was asked."""

    def __init__(self, world: World, logs: Logs) -> None:
        super().__init__(world)
        self._logs = logs

    def on_start(self, host: Host) -> None:
        """Every read of this process goes through its room of reads."""
        reads = host.node.reads
        submit = reads.submit

        def observed(reply: ReadReply, deadline: float) -> None:
            floor = self._logs.committed_index

            def answered(error: KvError | None) -> None:
                if error is None:
                    self._check(host, floor)
                reply(error)

            submit(answered, deadline)

        reads.submit = observed  # type: ignore[method-assign]

    def _check(self, host: Host, floor: int) -> None:
        applied = host.machine.applied_index
        if applied < floor:
            # In the middle of the product's own work: it must not be disturbed.
            self.world.report(
                ViolationError(
                    "linearizability",
                    f"member {host.number} answers a read at index {applied}; when it was asked, "
                    f"{floor} was committed",
                )
            )
