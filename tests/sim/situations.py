"""Notices the rare situations that come up inside a member and on its disk, and counts their marks.

Each is hit in the very step, before the member goes on: a fault that waits for one cuts the power
right there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kvstore.commands import Kind
from kvstore.types import CompactionResponse
from raft.messages import RequestVote, RequestVoteReply

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from raft.effects import Effects
    from raft.messages import Message
    from raft.types import Entry, HardState, NodeId, Seq, SnapshotMeta, Term
    from tests.sim.marks import Marks
    from tests.support.host import Host
    from wal.wal import Wal

LOG = ".wal"
SNAPSHOT = ".snap"
WRITING = ".snap.new"


class Situations:
    """Watches the nodes and the disks of one cluster.

    Args:
        marks: What to count.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._last_index: dict[int, int] = {}
        self._changed_index: dict[int, int] = {}
        self._sent_unqueued: dict[int, bool] = {}

    def on_node(self, host: Host) -> None:
        """A process was started on a host, and its node made."""
        node = host.node
        driver = node.driver
        self._last_index[host.number] = driver.raft.last_index
        self._changed_index[host.number] = driver.raft._core.membership.current_index
        self._sent_unqueued[host.number] = False
        wal: Any = _WatchedLog(node.wal, lambda *item: self._on_persist(host, *item))
        driver._wal = wal
        node.snapshots._wal = wal
        _before(driver, "_carry_out", lambda effects: self._on_effects(host, effects))
        _after(driver, "_carry_out", lambda effects: self._on_carried_out(host, effects))
        _before(driver, "_send_snapshot", lambda *to: self._on_send_snapshot(host, *to))
        _after(driver, "_install_snapshot", lambda _meta: self._hit("snapshot installed", host))
        _before(node.proposals, "submit", lambda kind, *_: self._on_submit(host, kind))
        _before(node.applier, "_on_outcome", lambda outcome: self._on_outcome(host, outcome))
        if driver.raft._core.required_index:
            self._hit("member begins mute", host)

    def follow_disk(self, host: Host) -> None:
        """A machine is about to be started."""
        disk: Any = host.disk
        lost, torn = disk.entries_lost_total, disk.files_torn_total
        disk.entries_lost_total = disk.files_torn_total = 0
        if lost:
            self._hit("directory entry lost", host)
        if torn:
            self._hit("file torn", host)
        disk.on_step = lambda *step: self._on_step(host, *step)

    def _hit(self, mark: str, host: Host) -> None:
        self._marks.hit(mark, host.number)

    # --- raft and the driver ----------------------------------------------------------------------

    def _on_effects(self, host: Host, effects: Effects) -> None:
        number = host.number
        driver = host.node.driver
        self._sent_unqueued[number] = bool(effects.messages)
        configuration = driver.raft.configuration
        if configuration.voters_outgoing:
            self._hit("joint consensus", host)
        entries = effects.entries
        if not entries:
            return
        if entries[0].index <= self._last_index[number]:
            self._hit("log truncated", host)
            if entries[0].index <= self._changed_index[number]:
                self._hit("configuration cut", host)
            if driver._queued_seq > driver._durable_seq:
                self._hit("truncated in flight", host)
        self._last_index[number] = entries[-1].index
        self._changed_index[number] = driver.raft._core.membership.current_index

    def _on_carried_out(self, host: Host, effects: Effects) -> None:
        if effects.must_persist and any(
            isinstance(message, RequestVote) or _grants(message)
            for message in effects.messages_after_sync
        ):
            self._hit("vote waits for its sync", host)

    def _on_persist(
        self,
        host: Host,
        _seq: Seq,
        _hard_state: HardState | None,
        entries: Sequence[Entry],
        mark: SnapshotMeta | None,
    ) -> None:
        if mark is not None:
            self._last_index[host.number] = max(self._last_index[host.number], mark.index)
            self._hit("snapshot marked", host)
        elif entries and self._sent_unqueued[host.number]:
            self._hit("messages sent before the write was queued", host)

    def _on_send_snapshot(self, host: Host, member: NodeId, _term: Term) -> None:
        if member not in host.node.snapshots._sending:
            self._hit("snapshot sent", host)

    def _on_submit(self, host: Host, kind: Kind) -> None:
        if kind is Kind.LEASE_EXPIRE:
            self._hit("lease expiry proposed", host)

    def _on_outcome(self, host: Host, outcome: Outcome) -> None:
        if isinstance(outcome.response, CompactionResponse):
            self._hit("compaction applied", host)
        if outcome.member == host.member_id:
            self._hit("applied before the answer", host)

    # --- the disk ---------------------------------------------------------------------------------

    def _on_step(
        self, host: Host, kind: str, path: str, offset: int, parts: Sequence[bytes]
    ) -> None:
        if kind == "create" and path.endswith(WRITING):
            self._hit("snapshot begun", host)
        elif kind == "rename" and path.endswith(SNAPSHOT):
            self._hit("snapshot named", host)
        elif kind == "rename" and path.endswith(LOG):
            self._hit("segment prepared", host)
        elif kind == "remove" and path.endswith(LOG):
            self._hit("segment released", host)
        elif kind == "write" and path.endswith(LOG):
            if offset == 0:
                self._hit("segment begun", host)
            elif not any(parts[0]):
                self._hit("torn tail cut", host)


def _grants(message: Message) -> bool:
    return isinstance(message, RequestVoteReply) and message.granted


class _WatchedLog:
    """A log that tells what is queued before it is."""

    def __init__(self, wal: Wal, before: Callable[..., None]) -> None:
        self._wal = wal
        self._before = before

    def persist(self, *item: Any) -> None:
        self._before(*item)
        self._wal.persist(*item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wal, name)


def _before(owner: object, name: str, before: Callable[..., None]) -> None:
    method = getattr(owner, name)

    def observed(*args: Any, **more: Any) -> Any:
        before(*args)
        return method(*args, **more)

    setattr(owner, name, observed)


def _after(owner: object, name: str, after: Callable[..., None]) -> None:
    method = getattr(owner, name)

    def observed(*args: Any, **more: Any) -> Any:
        result = method(*args, **more)
        after(*args)
        return result

    setattr(owner, name, observed)
