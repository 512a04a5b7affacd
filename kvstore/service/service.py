"""The service: every call of the API, for whatever face translates it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.auth.check import Identity
from kvstore.errors import ErrorKind, KvError
from kvstore.service.auth import AuthCalls
from kvstore.service.caller import Caller
from kvstore.service.cluster import ClusterCalls
from kvstore.service.election import ElectionCalls
from kvstore.service.health import HealthCalls
from kvstore.service.kv import KvCalls
from kvstore.service.lease import LeaseCalls
from kvstore.service.lock import LockCalls
from kvstore.service.maintenance import MaintenanceCalls
from kvstore.service.range_stream import RangeStreamCalls
from kvstore.service.waiting import Waiting, nothing
from kvstore.service.watch import ServiceWatch, WatchGuard
from kvstore.types import WatchCreateRequest
from raft.types import NO_NODE

if TYPE_CHECKING:
    from kvstore.server.node import Node


class Service(
    KvCalls,
    RangeStreamCalls,
    LeaseCalls,
    ClusterCalls,
    MaintenanceCalls,
    LockCalls,
    ElectionCalls,
    HealthCalls,
    AuthCalls,
):
    """One method a call: ``call(request, caller, reply)``.

    ``reply`` is called exactly once, on the loop, perhaps before the method returns: with a
    response whose header is filled in, or with a ``KvError``. Nothing is raised for what a client
    did.

    Args:
        node: The running member.
    """

    def __init__(self, node: "Node") -> None:
        super().__init__(node)
        self.watches = WatchGuard(node)
        self.waiting = Waiting(self)
        node.before_stop.append(self.waiting.stop)

    def when_leaderless(self, lost: Callable[[KvError], None]) -> Callable[[], None]:
        """Call ``lost`` with NO_LEADER once there has been no leader for three election timeouts.

        For streams that are no watches, whose callers want a leader. At most once; before this
        returns if there is none now.

        Returns:
            To be called when that is of no interest any more; as often as one likes.
        """
        if self.node.driver.leader == NO_NODE:
            lost(ErrorKind.NO_LEADER.error())
            return nothing
        return self.watches.when_leaderless(lost)

    def open_watch(self, caller: Caller, on_ready: Callable[[], None]) -> ServiceWatch:
        """A new watch stream.

        ``on_ready`` is called when ``take``, having run dry, has something again.

        Raises:
            KvError: There are too many streams, or the caller wants a leader and there is none.
        """
        refusal: list[KvError] = []
        if self._refused(caller, refusal.append):
            raise refusal[0]

        def admit(
            request: WatchCreateRequest,
            reply: Callable[[KvError], None],
            then: Callable[[Identity], None],
        ) -> None:
            self._admit(request, caller, reply, then)

        return self.watches.open(caller, admit, on_ready)
