"""Handing leadership on: when a member stops or leaves, when its disk hangs, when it is asked."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.errors import ErrorKind, KvError
from kvstore.server.pacing import answer
from raft.events import TransferLeader
from raft.types import NO_NODE, NodeId, Role

if TYPE_CHECKING:
    from kvstore.server.node import Node

TRANSFER_SECONDS_MAX = 1.0
LOOK_SECONDS = 0.01


class Transfer:
    """A member's leadership, as something to give away.

    Args:
        node: Whose; complete but for this.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node

    @property
    def _leads(self) -> bool:
        node = self._node
        return not node.failed.done() and node.driver.role == Role.LEADER

    def begin(self) -> bool:
        """Begin to hand leadership to the linked voter that has most; False if there is none.

        One that is about to leave the cluster gets it only if there is no other.
        """
        node = self._node
        raft = node.driver.raft
        staying = {int(member_id) for member_id in node.applier.machine.members}
        others = [voter for voter in raft.configuration.voters if voter != node.member_id]
        linked = [voter for voter in others if node.network.is_up(voter)]
        if not linked:
            return False
        progress = raft.progress()
        best = max(linked, key=lambda v: (v in staying, int(progress[v]["match"]), v))
        node.driver.step(TransferLeader(best))
        return True

    async def hand_over(self) -> None:
        """If this member leads, let another lead, and wait until it does (for a bounded time)."""
        node = self._node
        if not self._leads or not self.begin():
            return
        give_up = node.loop.time() + TRANSFER_SECONDS_MAX
        nobody_else = (node.member_id, NO_NODE)
        while node.driver.leader in nobody_else and node.loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)

    def move(
        self, target: int, reply: Callable[[KvError | None], None], timeout_seconds: float
    ) -> None:
        """Hand leadership to this member, and answer once it leads.

        Args:
            target: A voting member's id.
            reply: Gets None, or NOT_LEADER (this member does not lead), BAD_LEADER_TRANSFEREE (the
                target does not vote), TIMEOUT_LEADER_TRANSFER.
            timeout_seconds: How long it may take.
        """
        node = self._node
        driver = node.driver
        if not self._leads:
            reply(ErrorKind.NOT_LEADER.error())
            return
        if target == node.member_id:
            reply(None)
            return
        if target not in driver.raft.configuration.voters:
            reply(ErrorKind.BAD_LEADER_TRANSFEREE.error())
            return
        driver.step(TransferLeader(NodeId(target)))
        give_up = node.loop.time() + timeout_seconds

        def look() -> None:
            if driver.leader == target:
                answer(reply, None)
            elif node.failed.done() or node.loop.time() >= give_up:
                answer(reply, ErrorKind.TIMEOUT_LEADER_TRANSFER.error())
            elif driver.role == Role.LEADER and driver.raft.transfer_target == NO_NODE:
                # Raft gave the transfer up: the target did not take over in time.
                answer(reply, ErrorKind.TIMEOUT_LEADER_TRANSFER.error())
            else:
                node.loop.call_later(LOOK_SECONDS, look)

        node.loop.call_later(LOOK_SECONDS, look)
