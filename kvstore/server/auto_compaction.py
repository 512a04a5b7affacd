"""Compaction by itself, as etcd's two compactors do it: by time, or by number of revisions.

Every member keeps the rule's memory, and only the leader acts on it: so a leader that is new knows
what was written how long ago. After a restart a member knows no more than what it sees from then
on, and keeps history longer rather than shorter.
"""

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from kvstore.commands import Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.types import CompactionRequest
from raft.types import Role

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from kvstore.config_values import Retention
    from kvstore.server.node import Node

log = logging.getLogger("kvstore.server")

REVISION_INTERVAL_SECONDS: Final = 300.0
INTERVAL_SECONDS_MAX: Final = 3600.0
SAMPLES_PER_INTERVAL: Final = 10


class Rule(Protocol):
    """Which revision is to be compacted now?"""

    def due(self, now: float, revision: int, *, leads: bool) -> int | None:
        """The revision to compact at, or None; asked at every tick.

        Args:
            now: Monotonic seconds.
            revision: The store's.
            leads: Whether this member may act.
        """

    def compacted(self, now: float, revision: int) -> None:
        """A compaction that was due is done."""


class PeriodicRule:
    """Keeps the history of a period.

    The revision is noted ten times a period (of an hour at most); once the first period is over,
    what is older than it is compacted every period, or every hour if that is shorter.

    Args:
        seconds: The period.
        now: Monotonic seconds.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._interval = min(seconds, INTERVAL_SECONDS_MAX)
        self._wait = seconds
        self._sample_seconds = self._interval / SAMPLES_PER_INTERVAL
        self._samples: deque[int] = deque(maxlen=int(seconds / self._sample_seconds) + 1)
        self._next_sample = now
        self._last_success = now
        self._last_revision = 0

    def due(self, now: float, revision: int, *, leads: bool) -> int | None:
        """See ``Rule``."""
        if now < self._next_sample:
            return None
        self._next_sample = now + self._sample_seconds
        oldest = self._samples[0] if self._samples else 0
        self._samples.append(revision)
        waiting = now - self._last_success < self._wait
        if not leads or not oldest or waiting or oldest == self._last_revision:
            return None
        self._wait = self._interval
        return oldest

    def compacted(self, now: float, revision: int) -> None:
        """See ``Rule``."""
        self._last_revision = revision
        self._last_success = now


class RevisionRule:
    """Keeps the newest revisions, so many; looks every five minutes.

    Args:
        count: How many.
        now: Monotonic seconds.
    """

    def __init__(self, count: int, now: float) -> None:
        self._count = count
        self._next_look = now + REVISION_INTERVAL_SECONDS
        self._last_revision = 0

    def due(self, now: float, revision: int, *, leads: bool) -> int | None:
        """See ``Rule``."""
        if now < self._next_look:
            return None
        self._next_look = now + REVISION_INTERVAL_SECONDS
        target = revision - self._count
        return target if leads and target > 0 and target != self._last_revision else None

    def compacted(self, now: float, revision: int) -> None:  # noqa: ARG002
        """See ``Rule``."""
        self._last_revision = revision


def new_rule(retention: "Retention", now: float) -> Rule | None:
    """The rule that the settings ask for; None if all history is kept."""
    if retention.revisions:
        return RevisionRule(retention.revisions, now)
    return PeriodicRule(retention.seconds, now) if retention.seconds else None


class AutoCompaction:
    """Compacts when its rule says so.

    Args:
        node: The member; complete but for what keeps house.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._loop = node.loop
        self._rule = new_rule(node.config.retention, node.loop.time())
        self._compacting = False
        self.compactions_total = 0
        self.failures_total = 0
        if self._rule is not None:
            node.driver.on_tick(self._tick)

    def _tick(self, now: float) -> None:
        node = self._node
        rule = self._rule
        assert rule is not None, "without a rule nothing ticks"
        leads = node.driver.role == Role.LEADER and not self._compacting
        revision = rule.due(now, node.applier.machine.store.revision, leads=leads)
        if revision is not None:
            self._compact(rule, revision, now)

    def _compact(self, rule: Rule, revision: int, now: float) -> None:
        self._compacting = True
        log.info("compacting at revision %d, as the settings ask", revision)

        def done(result: "Outcome | KvError") -> None:
            self._compacting = False
            error = result if isinstance(result, KvError) else result.response
            if isinstance(error, KvError) and error != ErrorKind.COMPACTED.error():
                # The rule names it again.
                self.failures_total += 1
                log.warning("compacting at revision %d failed: %s", revision, error.message)
                return
            self.compactions_total += 1
            rule.compacted(self._loop.time(), revision)

        self._node.proposals.submit(
            Kind.COMPACT,
            CompactionRequest(revision),
            done,
            now + self._node.request_timeout_seconds,
            internal=True,
        )
