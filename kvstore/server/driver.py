"""The driver: feeds events to raft and carries out what raft wants, one batch a turn of the loop.

Everything that happened during one turn (requests, frames, a sync that completed, a tick) is
stepped together, and taken together: so 64 clients cost one AppendEntries, one sync and one round
of acknowledgements. The order of duties is that of ``raft/effects.py``: peers first, then the disk,
then what may only leave after the disk, then apply, then the waiting requests. Of these, apply is
what others need not wait for: while an acknowledgement waits for the disk, it waits as well.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from raft.errors import CodecError, PeerError
from raft.events import (
    Applied,
    Event,
    PeerUnreachable,
    Persisted,
    Propose,
    ReadIndex,
    Receive,
    TellCommit,
    Tick,
)
from raft.events import SnapshotInstalled as SnapshotInstalledEvent
from raft.messages import InstallSnapshot, Message
from raft.types import NO_NODE, Index, NodeId, Role, Seq, SnapshotMeta, Term

if TYPE_CHECKING:
    from kvstore.server.applier import Applier
    from kvstore.server.peers import Peers
    from kvstore.server.proposals import Proposals
    from kvstore.server.reads import Reads
    from raft.effects import Effects, RoleChange
    from raft.node import RaftNode
    from raft.types import Proposal
    from wal.wal import Wal

log = logging.getLogger("kvstore.raft")

COMPLAINT_SECONDS = 10.0

COMMIT_NOTICE_SECONDS = 0.002
"""How long the news of a commit waits for an append to travel with.

Nobody's answer waits for it: members whose own clients do are told at once.
"""

APPLY_DELAY_SECONDS = 0.002
"""How long what is committed waits to be applied while an acknowledgement waits for the disk.

Otherwise a follower would be applying, which nobody waits for there, when the disk is done, and a
majority would hear of that late. A disk that hangs must not keep readers from what is committed.
"""

GATHERING_TURNS_MAX = 3
"""For so many turns proposals wait for others, while others come."""

_TICK = Tick()
_TELL_COMMIT = TellCommit()


class Driver:
    """One member's raft node, brought to life on an event loop.

    ``wire`` gives it its neighbours before ``start``; they need its ``wake``, so they cannot come
    through the constructor.

    Args:
        loop: Everything happens on it.
        raft: The consensus core.
        tick_seconds: How long a tick lasts.
        on_fatal: Called once when the member cannot go on: the process ends.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        raft: "RaftNode",
        tick_seconds: float,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self.raft = raft
        self._tick_seconds = tick_seconds
        self._on_fatal = on_fatal
        self._events: list[Event] = []
        self._scheduled = False
        self._gathered_count = 0
        self._gathering_turns = 0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._notice: asyncio.TimerHandle | None = None
        self._apply_timer: asyncio.TimerHandle | None = None
        self._apply_is_due = False
        self._durable_seq = Seq(0)
        self._queued_seq = Seq(0)
        self._held: deque[tuple[Seq, list[Message]]] = deque()
        self._reported_applied = raft.applied_index
        self._on_tick: list[Callable[[float], None]] = []
        self._on_role: list[Callable[[RoleChange], None]] = []
        self.role = Role.FOLLOWER
        self.leader = NO_NODE
        self.leader_changes_total = 0
        self.turns_total = 0
        self.slow_ticks_total = 0
        self.peer_errors_total = 0
        self._next_complaint = 0.0

    def wire(
        self,
        *,
        wal: "Wal",
        peers: "Peers",
        applier: "Applier",
        proposals: "Proposals",
        reads: "Reads",
        send_snapshot: Callable[[NodeId, Term], None],
        install_snapshot: Callable[[SnapshotMeta], None],
    ) -> None:
        """Connect the neighbours."""
        self._wal = wal
        self._peers = peers
        self.applier = applier
        self._proposals = proposals
        self._reads = reads
        self._send_snapshot = send_snapshot
        self._install_snapshot = install_snapshot

    def on_tick(self, callback: Callable[[float], None]) -> None:
        """Call this at every tick with the loop's time."""
        self._on_tick.append(callback)

    def on_role(self, callback: "Callable[[RoleChange], None]") -> None:
        """Call this whenever role, term or known leader changes."""
        self._on_role.append(callback)

    def start(self) -> None:
        """Begin to tick."""
        self._timer = self._loop.call_later(self._tick_seconds, self._tick, self._loop.time())
        self.wake()

    def stop(self) -> None:
        """Do nothing any more."""
        self._stopped = True
        for timer in (self._timer, self._notice, self._apply_timer):
            if timer is not None:
                timer.cancel()

    @property
    def queued_seq(self) -> Seq:
        """Everything up to here was handed to the disk."""
        return self._queued_seq

    # --- what happens -----------------------------------------------------------------------------

    def wake(self) -> None:
        """See to it that a turn comes."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def step(self, event: Event) -> None:
        """Something happened: it is stepped in the next turn."""
        self._events.append(event)
        self.wake()

    def receive(self, message: Message) -> None:
        """A peer's message arrived."""
        # Only the driver's own snapshot receiver may say that a snapshot is ready, never a frame.
        if type(message) is not InstallSnapshot:
            self.step(Receive(message))

    def unreachable(self, member: int) -> None:
        """Frames to a member may have been lost."""
        self.step(PeerUnreachable(NodeId(member)))

    def persisted(self, seq: Seq) -> None:
        """The log is durable up to this number."""
        self._durable_seq = seq
        held = self._held
        send = self._peers.send
        while held and held[0][0] <= seq:
            for message in held.popleft()[1]:
                send(message)
        self.step(Persisted(seq))

    def _tick(self, due: float) -> None:
        now = self._loop.time()
        interval = self._tick_seconds
        if now - due > 2 * interval:
            # The process or its machine stood still. Ticks are not made up for: a burst of them
            # would look like a silent leader.
            self.slow_ticks_total += 1
            log.warning("the event loop stood still for %.0f ms", (now - due - interval) * 1000)
            due = now
        due += interval
        self._timer = self._loop.call_later(max(0.0, due + interval - now), self._tick, due)
        self._events.append(_TICK)
        try:
            self._proposals.tick(now)
            self._reads.tick(now)
            for callback in self._on_tick:
                callback(now)
        except Exception as error:  # noqa: BLE001
            # Without its clockwork a member would live on and keep none of its promises.
            self.stop()
            self._on_fatal(error)
        self.wake()

    def _watch_commit(self) -> None:
        """See to it that the news of a commit leaves soon, with an append or without."""
        if self.raft.is_commit_untold:
            if self._notice is None:
                self._notice = self._loop.call_later(COMMIT_NOTICE_SECONDS, self._tell_commit)
        elif self._notice is not None:
            self._notice.cancel()
            self._notice = None

    def _tell_commit(self) -> None:
        self._notice = None
        self.step(_TELL_COMMIT)

    # --- one turn ---------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        self.turns_total += 1
        try:
            self._step_all()
            self._drain()
            self._apply()
            self._watch_commit()
        except Exception as error:  # noqa: BLE001
            # Whatever it was: a member that cannot trust its own state must end.
            self.stop()
            self._on_fatal(error)

    def _step_all(self) -> None:
        step = self.raft.step
        if self._events:
            events, self._events = self._events, []
            for event in events:
                try:
                    step(event)
                except (PeerError, CodecError) as error:
                    # What a peer sends must not stop this member; raft refused it before it changed
                    # anything.
                    self._complain(error)
        unsent = self._take_proposals()
        if unsent:
            step(Propose(unsent))
        context = self._reads.take_context()
        if context is not None:
            step(ReadIndex(context))

    def _take_proposals(self) -> "list[Proposal]":
        """What is to be proposed in this turn; what is left waits for another one, which is soon.

        What a crowd sends does not come in at one look at its sockets, and each batch costs all
        members a frame, a sync and an acknowledgement. So as long as looks bring more the next one
        is waited for. It costs a few microseconds where there is nothing else to do; whoever writes
        alone does not wait. Nor does anybody while this turn has others to apply and answer: that
        takes long, and the members have time for a batch meanwhile.
        """
        count = self._proposals.unsent_count
        if (
            1 < count != self._gathered_count
            and self._gathering_turns < GATHERING_TURNS_MAX
            and not len(self.applier)
        ):
            self._gathered_count = count
            self._gathering_turns += 1
            self.wake()
            return []
        self._gathered_count = self._gathering_turns = 0
        return self._proposals.take_unsent()

    def _complain(self, error: Exception) -> None:
        """Log a peer's fault, but not at every one of its messages."""
        self.peer_errors_total += 1
        now = self._loop.time()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_SECONDS
            log.warning("a peer broke the protocol: %s", error)

    def _drain(self) -> None:
        take = self.raft.take_effects
        while (effects := take()) is not None:
            self._carry_out(effects)

    def _carry_out(self, effects: "Effects") -> None:
        send = self._peers.send
        for message in effects.messages:
            if type(message) is InstallSnapshot:
                self._send_snapshot(message.receiver, message.term)
            else:
                send(message)
        if effects.must_persist:
            self._queued_seq = effects.seq
            self._wal.persist(effects.seq, effects.hard_state, effects.entries, effects.snapshot)
        if effects.messages_after_sync:
            if self._queued_seq <= self._durable_seq:
                for message in effects.messages_after_sync:
                    send(message)
            else:
                self._held.append((self._queued_seq, effects.messages_after_sync))
        if effects.role_change is not None:
            self._change_role(effects.role_change)
        if effects.rejected:
            for rejected in effects.rejected:
                self._proposals.reject(rejected)
        if effects.snapshot is not None:
            self._install(effects.snapshot)
        if effects.committed:
            self.applier.enqueue(effects.committed)
        if effects.reads:
            for read in effects.reads:
                self._reads.answer(read.context)
        for read_rejected in effects.reads_rejected:
            self._reads.reject(read_rejected.context)

    def _install(self, meta: SnapshotMeta) -> None:
        self._install_snapshot(meta)
        self._reported_applied = meta.index
        self.raft.step(SnapshotInstalledEvent(meta))

    def _may_apply(self) -> bool:
        """Whether to apply now, or only once acknowledgements have left that wait for the disk.

        They are a follower's: what a leader sends waits for no disk. Whoever has clients of its own
        waiting applies at once, as it is told of commits at once.
        """
        if self._held and not self._apply_is_due and not self._proposals and not self._reads:
            if self._apply_timer is None:
                self._apply_timer = self._loop.call_later(APPLY_DELAY_SECONDS, self._on_apply_due)
            return False
        # Only here: were the delay begun anew when one acknowledgement leaves and the next one is
        # held already, it would have no end.
        if self._apply_timer is not None:
            self._apply_timer.cancel()
            self._apply_timer = None
        return True

    def _on_apply_due(self) -> None:
        self._apply_timer = None
        self._apply_is_due = True
        self.wake()

    def _apply(self) -> None:
        applier = self.applier
        if len(applier) and self._may_apply():
            applier.run()
            if not len(applier):
                self._apply_is_due = False
        applied = applier.machine.applied_index
        if applied > self._reported_applied:
            self._reported_applied = Index(applied)
            self.raft.step(Applied(Index(applied)))
            # Reads that waited for this index are answered in the same turn.
            self._drain()
            if len(applier):
                # Raft hands committed entries out in portions, and has handed out the next.
                self.wake()

    def _change_role(self, change: "RoleChange") -> None:
        if change.leader != self.leader:
            if change.leader != NO_NODE:
                self.leader_changes_total += 1
            log.info(
                "term %d: %s",
                change.term,
                f"leader is {change.leader:x}" if change.leader else "no leader",
            )
        self.role = change.role
        self.leader = change.leader
        self._proposals.on_leader(known=change.leader != NO_NODE, here=change.role == Role.LEADER)
        for callback in self._on_role:
            callback(change)
