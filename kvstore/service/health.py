"""Is this member well? etcd's checks, with etcd's words for what is wrong."""

from collections.abc import Callable, Iterable
from typing import Final

from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.service.caller import ANYBODY
from kvstore.service.maintenance import alarm_name
from kvstore.types import AlarmType, RangeRequest
from raft.types import NO_NODE

_PROBE: Final = RangeRequest(b"health", limit=1, serializable=True)


class HealthCalls(Calls):
    """Asked by load balancers and by those who start processes: nobody has to prove who they are,
    and nothing of what is stored is shown.
    """

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

        def done(reason: str) -> None:
            reply(reason and f"RANGE ERROR:{reason}")

        if serializable:
            done(self._local_read())
        else:
            self._linearizable_read(done)

    def checks(self, names: Iterable[str], reply: Callable[[dict[str, str]], None]) -> None:
        """Make some of the checks of ``/livez`` and ``/readyz``.

        Args:
            names: Of ``data_corruption``, ``serializable_read``, ``linearizable_read`` and
                ``non_learner``.
            reply: Gets for each, in the order of ``names``, the reason why it fails; "" if it is
                well.
        """
        results = dict.fromkeys(names, "")
        at_once: dict[str, Callable[[], str]] = {
            "data_corruption": self._corruption,
            "serializable_read": self._local_read,
            "non_learner": self._learner,
        }
        for name in results:
            if name in at_once:
                results[name] = at_once[name]()

        def done(reason: str) -> None:
            results["linearizable_read"] = reason
            reply(results)

        if "linearizable_read" in results:
            self._linearizable_read(done)
        else:
            reply(results)

    def _corruption(self) -> str:
        alarms = {raised.alarm for raised in self.machine.alarms}
        return "alarm activated: CORRUPT" if AlarmType.CORRUPT in alarms else ""

    def _learner(self) -> str:
        learners = self.node.driver.raft.configuration.learners
        return "not supported for learner" if self.member_id in learners else ""

    def _local_read(self) -> str:
        try:
            self.machine.store.range_now(_PROBE)
        except KvError as error:
            return error.message
        return ""

    def _linearizable_read(self, reply: Callable[[str], None]) -> None:
        if self.node.rebuild.active:
            reply(ErrorKind.REBUILDING.error().message)
            return
        self._read(
            ANYBODY,
            lambda error: reply(error.message),
            lambda: reply(self._local_read()),
        )
