"""The service: every call of the API, for whatever face translates it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.errors import KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.service.cluster import ClusterCalls
from kvstore.service.election import ElectionCalls
from kvstore.service.kv import KvCalls
from kvstore.service.lease import LeaseCalls
from kvstore.service.lock import LockCalls
from kvstore.service.maintenance import MaintenanceCalls, alarm_name
from kvstore.service.waiting import Waiting
from kvstore.service.watch import ServiceWatch
from kvstore.types import AlarmType, RangeRequest, RangeResponse
from raft.types import NO_NODE

if TYPE_CHECKING:
    from kvstore.server.node import Node


class Service(KvCalls, LeaseCalls, ClusterCalls, MaintenanceCalls, LockCalls, ElectionCalls):
    """One method a call: ``call(request, caller, reply)``.

    ``reply`` is called exactly once, on the loop, perhaps before the method returns: with a
    response whose header is filled in, or with a ``KvError``. Nothing is raised for what a client
    did.

    Args:
        node: The running member.
    """

    def __init__(self, node: "Node") -> None:
        super().__init__(node)
        self.waiting = Waiting(self)
        node.before_stop.append(self.waiting.stop)

    def open_watch(self, caller: Caller, on_ready: Callable[[], None]) -> ServiceWatch:
        """A new watch stream.

        ``on_ready`` is called when ``take``, having run dry, has something again.

        Raises:
            KvError: There are too many streams, or the caller wants a leader and there is none.
        """
        refusal: list[KvError] = []
        if self._refused(caller, refusal.append):
            raise refusal[0]
        return ServiceWatch(self.node, on_ready)

    def health(
        self, serializable: bool, exclude: frozenset[AlarmType], reply: Callable[[str], None]
    ) -> None:
        """Why this member is unhealthy, or ""; etcd's checks in etcd's order.

        Alarms, a leader, a read.

        Args:
            serializable: Leave out the leader and read locally.
            exclude: Alarms that do not count.
            reply: Gets the reason.
        """
        for raised in self.machine.alarms:
            if raised.alarm not in exclude:
                reply(f"ALARM {alarm_name(raised.alarm)}")
                return
        if not serializable and self.node.driver.leader == NO_NODE:
            reply("RAFT NO LEADER")
            return

        def done(result: RangeResponse | KvError) -> None:
            reply(f"RANGE ERROR:{result.message}" if isinstance(result, KvError) else "")

        self.range(RangeRequest(b"health", limit=1, serializable=serializable), ANYBODY, done)
