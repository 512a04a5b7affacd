"""What a member does by the clock, besides raft and leases: sweeping, watching its disk."""

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.commands import ClusterVersion, Kind
from kvstore.server.alarms import Alarms
from kvstore.server.auto_compaction import AutoCompaction
from kvstore.server.corruption import CorruptionCheck
from kvstore.server.pacing import PAUSE_SECONDS, SlicedTask
from kvstore.types import AlarmType
from kvstore.version import CLUSTER_VERSION
from raft.types import Role

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from kvstore.budget import Sliced
    from kvstore.server.node import Node

log = logging.getLogger("kvstore.server")

DISK_QUEUE_BYTES_MAX = 256 * 1024 * 1024
"""With more waiting for the disk, clients' writes are refused: it is not keeping up."""


class Upkeep:
    """A node's housekeeping, at every tick.

    Args:
        node: Whose; complete but for this.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._loop = node.loop
        self._sweeping: SlicedTask | None = None
        self._when_swept: list[Callable[[], None]] = []
        self._settling_version = False
        self._next_hand_over = 0.0
        self._retired: deque[StateMachine] = deque()
        self._dismantling: SlicedTask | None = None
        self._next_progress = node.loop.time() + self._progress_seconds
        self.slow_disks_total = 0
        self.alarms = Alarms(node)
        self.auto_compaction = AutoCompaction(node)
        self.corruption = CorruptionCheck(node, node.applier.marks)
        node.driver.on_tick(self._tick)

    @property
    def _progress_seconds(self) -> float:
        return self._node.config.watch_progress_notify_interval_ms / 1000

    def _tick(self, now: float) -> None:
        node = self._node
        if node.applier.machine.store.sweep_due or self._when_swept:
            self._sweep()
        if self._retired:
            self._dismantle()
        if now >= self._next_progress:
            self._next_progress = now + self._progress_seconds
            node.hub.progress_tick()
        node.proposals.congested = node.wal.queued_bytes > DISK_QUEUE_BYTES_MAX
        if node.driver.role == Role.LEADER:
            self._watch_disk(now, node.clock())
            self._settle_version(now)

    def _watch_disk(self, now: float, clock: float) -> None:
        """Give leadership away when the disk hangs: nothing of this member's own counts any more.

        Without this the others would commit on, and this member would hold ever more that its disk
        does not take.
        """
        started = self._node.wal.write_started
        patience = self._node.config.election_timeout_ms / 1000
        if started is None or clock - started < patience or now < self._next_hand_over:
            return
        self._next_hand_over = now + 2 * patience
        self.slow_disks_total += 1
        log.warning("the disk has not answered for %.1f s: handing leadership on", clock - started)
        self._node.transfer_leadership()

    def _settle_version(self, now: float) -> None:
        """The members speak one version; say so through the log until it is decided.

        While a downgrade is prepared they speak the lower one.
        """
        machine = self._node.applier.machine
        version = machine.downgrade.target_version or CLUSTER_VERSION
        if self._settling_version or machine.cluster_version == version:
            return
        self._settling_version = True
        deadline = now + self._node.request_timeout_seconds

        def done(_: object) -> None:
            self._settling_version = False

        body = ClusterVersion(version)
        self._node.proposals.submit(Kind.CLUSTER_VERSION, body, done, deadline, internal=True)

    def raise_alarm(self, alarm: AlarmType) -> None:
        """Raise an alarm of this member for the whole cluster; see ``Alarms``."""
        self.alarms.raise_own(alarm)

    def when_swept(self, callback: Callable[[], None]) -> None:
        """Call back once what was compacted is out of memory."""
        self._when_swept.append(callback)
        self._sweep()

    def _sweep(self) -> None:
        store = self._node.applier.machine.store
        if self._sweeping is not None or self._node.applier.busy:
            return
        if store.sweep_due:

            def done(result: object) -> None:
                self._sweeping = None
                if isinstance(result, BaseException):
                    self._node.fail(result)
                else:
                    self._sweep()

            budget = self._node.read_budget()
            work = store.sweep(budget)
            task = SlicedTask(self._loop, work, budget, done, pause_seconds=PAUSE_SECONDS)
            if task.running:
                self._sweeping = task
        elif store.swept_revision >= store.compacted_revision:
            # Else a pin holds it back: a snapshot or a long read is under way.
            waiting, self._when_swept = self._when_swept, []
            for callback in waiting:
                callback()

    def retire(self, machine: "StateMachine") -> None:
        """This state was replaced: let go of it in slices, once nobody reads it any more.

        Dropped in one go, a million records would hold the loop for a third of a second.
        """
        self._stop_sweeping()
        self._retired.append(machine)

    def _dismantle(self) -> None:
        if self._dismantling is not None or self._retired[0].store.is_pinned:
            return
        machine = self._retired.popleft()
        budget = self._node.read_budget()

        def work() -> "Sliced[None]":
            yield from machine.lessor.dismantle(budget)
            yield from machine.store.dismantle(budget)

        def done(result: object) -> None:
            self._dismantling = None
            if isinstance(result, BaseException):
                self._node.fail(result)

        task = SlicedTask(self._loop, work(), budget, done, pause_seconds=PAUSE_SECONDS)
        if task.running:
            self._dismantling = task

    def _stop_sweeping(self) -> None:
        """The store is replaced: what was to be swept is gone with it."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
