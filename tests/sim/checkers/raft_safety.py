"""Raft's safety properties (Raft figure 3) over all members, at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.invariants import ClusterChecker
from raft.types import Role
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.effects import RoleChange
    from tests.sim.world import World
    from tests.support.cluster import Host


class RaftSafety(NodeChecker):
    """Election safety; more in its neighbours."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._cluster = ClusterChecker()

    def on_role(self, host: Host, change: RoleChange) -> None:
        """At most one leader a term (Raft §5.2)."""
        if change.role is Role.LEADER:
            try:
                self._cluster.saw_leader(change.leader, change.term)
            except AssertionError as error:
                raise ViolationError("election safety", str(error)) from error
