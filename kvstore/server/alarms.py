"""This member's own alarms: a warning before room runs out, the alarm when it does, and its end.

NOSPACE is raised for a member whose quota or disk is used up, and stops what would grow on all of
them. Once that member has had room for a while it takes its alarm back, so that nobody has to be
woken for what is over. What keeps the two from taking turns::

    bytes   0 ................ 80 % ........ 90 % ............ quota
    warning   again below 75 % |  once
    alarm                      |  is cleared below, |  is raised at the quota
                                  after 5 s          |  and only from here up

Only what this member raised itself, in this life or in one before, does it take back: whoever
raised an alarm by hand had reasons that no member knows.
"""

import logging
from typing import TYPE_CHECKING, Final

from kvstore.commands import Kind
from kvstore.types import AlarmAction, AlarmMember, AlarmRequest, AlarmType
from raft.types import Role

if TYPE_CHECKING:
    from kvstore.server.node import Node

log = logging.getLogger("kvstore.server")

WARN_FRACTION: Final = 0.80
CALM_FRACTION: Final = 0.75
"""Below it the next warning is due again."""
CLEAR_FRACTION: Final = 0.90
CLEAR_SECONDS: Final = 5.0
"""How long there must have been room."""


class Alarms:
    """Raises and clears a member's alarms through the log.

    Args:
        node: Whose; complete but for what keeps house.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._loop = node.loop
        self._proposing: set[AlarmType] = set()
        self._asked = False
        self._was_raised = False
        self._own = False
        self._settled = False
        self._room_since: float | None = None
        self.warning = False
        """Whether more than the fraction to warn of is used, and not less than the calm one since.
        """
        self.warnings_total = 0
        self.raised_total = 0
        self.cleared_total = 0
        node.driver.on_tick(self._tick)

    def _tick(self, now: float) -> None:
        self._warn()
        if self._node.wal.disk_full:
            self.raise_own(AlarmType.NOSPACE)
        self._clear_when_over(now)
        self._clear_of_the_removed()

    def _used(self, fraction: float) -> bool:
        """Whether at least this fraction of the quota is used."""
        quota = self._node.config.quota_bytes
        return quota is not None and self._node.applier.machine.size_bytes >= fraction * quota

    def _warn(self) -> None:
        if self.warning:
            self.warning = self._used(CALM_FRACTION)
        elif self._used(WARN_FRACTION):
            self.warning = True
            self.warnings_total += 1
            log.warning(
                "%d of %d bytes of the quota are used: at the quota all writes that grow are "
                "refused; compact, delete, or raise --quota-backend-bytes",
                self._node.applier.machine.size_bytes,
                self._node.config.quota_bytes,
            )

    # --- raising ----------------------------------------------------------------------------------

    def raise_own(self, alarm: AlarmType) -> None:
        """Raise an alarm of this member for the whole cluster.

        Unless it is raised or on its way already. NOSPACE is raised only if little room is left:
        one request too large for what is free is no reason to stop all others.
        """
        if alarm == AlarmType.NOSPACE:
            if not (self._used(CLEAR_FRACTION) or self._node.wal.disk_full):
                return
            self._asked = True
        self.raise_for(self._node.member_id, alarm)

    def raise_for(self, member_id: int, alarm: AlarmType) -> None:
        """Raise an alarm for a member, or for all of them (0)."""
        raised = AlarmMember(member_id, alarm)
        if raised not in self._node.applier.machine.alarms and alarm not in self._proposing:
            log.error("raising the alarm %s", alarm.name)
            self.raised_total += 1
            self._propose(AlarmAction.ACTIVATE, raised)

    def _propose(self, action: AlarmAction, alarm: AlarmMember) -> None:
        kind = AlarmType(alarm.alarm)
        self._proposing.add(kind)
        deadline = self._loop.time() + self._node.request_timeout_seconds
        body = AlarmRequest(action, alarm.memberID, kind)
        self._node.proposals.submit(
            Kind.ALARM, body, lambda _: self._proposing.discard(kind), deadline, internal=True
        )

    # --- clearing ---------------------------------------------------------------------------------

    def _clear_of_the_removed(self) -> None:
        """What is raised for a member behind its removal nobody else would take back."""
        if self._node.driver.role != Role.LEADER:
            return
        removed = self._node.applier.machine.roster.removed
        for alarm in self._node.applier.machine.alarms:
            if alarm.memberID in removed and alarm.alarm not in self._proposing:
                log.warning("member %x was removed: clearing its alarm", alarm.memberID)
                self._propose(AlarmAction.DEACTIVATE, alarm)

    def _clear_when_over(self, now: float) -> None:
        alarm = AlarmMember(self._node.member_id, AlarmType.NOSPACE)
        raised = alarm in self._node.applier.machine.alarms
        if raised and not self._was_raised:
            # What was there when this member started was raised by a life before, which is gone.
            self._own = self._asked or not self._settled
        elif not raised and self._was_raised:
            self._asked = False
        self._was_raised = raised
        self._settled = self._node.ready.is_set()
        over = raised and self._own and not self._node.wal.disk_full
        if not over or self._used(CLEAR_FRACTION):
            self._room_since = None
        elif self._room_since is None:
            self._room_since = now
        elif now - self._room_since >= CLEAR_SECONDS and alarm.alarm not in self._proposing:
            self._room_since = None
            self.cleared_total += 1
            log.warning("there is room again: clearing the alarm NOSPACE of this member")
            self._propose(AlarmAction.DEACTIVATE, alarm)
