"""What a leader knows of one follower, and how much it may send it.

::

                  accepted                      below the log's base
      PROBE ------------------> REPLICATE        (from either state)
        ^  one append, then          |                   |
        |  wait for an answer        | rejected, lost,   v
        |                            | unreachable    SNAPSHOT
        +----------------------------+                   |
        +------------------------------------------------+
              sent and silent, or failed     (accepted: REPLICATE)
"""

import enum
from collections import deque
from typing import Final

from raft.types import Index, NodeId


class ProgressState(enum.IntEnum):
    """How entries travel to a follower."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


UNSENT: Final = -1


class Progress:
    """One follower, as its leader sees it (invariant I16).

    Attributes:
        match: The newest index known to be durable there.
        next: The index that the next append starts with.
        paused: A probe is out; its answer, or a heartbeat's, lifts this.
        sent_commit: The newest commit index that it was told.
        awaited: The newest index whose commit its own clients wait for.
        active: It was heard from since the last check of the quorum; ``was_active``: in the period
            before.
        answered_round: The newest heartbeat round it answered in this term.
        required_index: Not 0 while it is mute: what a snapshot for it must cover. ``match`` is then
            what it once acknowledged, which stays counted (I18).
        inflight: Unacknowledged appends, oldest first: (last index, bytes, round when sent).
        snapshot_index: What the sent snapshot covers; ``UNSENT`` while it is under way.
        snapshot_hold: The log is kept after this index, for what the snapshot will need next.
    """

    __slots__ = (
        "active",
        "answered_round",
        "awaited",
        "inflight",
        "inflight_bytes",
        "match",
        "next",
        "node_id",
        "paused",
        "required_index",
        "sent_commit",
        "snapshot_hold",
        "snapshot_index",
        "snapshot_tick",
        "state",
        "was_active",
    )

    def __init__(self, node_id: NodeId, next_index: Index) -> None:
        self.node_id = node_id
        self.state = ProgressState.PROBE
        self.match = Index(0)
        self.next = next_index
        self.paused = False
        self.sent_commit = Index(0)
        self.awaited = Index(0)
        self.active = False
        self.was_active = False
        self.answered_round = 0
        self.required_index = Index(0)
        self.inflight: deque[tuple[Index, int, int]] = deque()
        self.inflight_bytes = 0
        self.snapshot_index = UNSENT
        self.snapshot_hold = Index(0)
        self.snapshot_tick = 0

    def become_probe(self, next_index: Index) -> None:
        """Find out where the logs part: one append at a time."""
        self._leave()
        self.state = ProgressState.PROBE
        self.next = next_index
        self.paused = False

    def become_replicate(self) -> None:
        """The logs match: send as fast as the window allows."""
        self._leave()
        # What was said with a probe may not have been heard: a follower passes over what it has.
        self.sent_commit = Index(0)
        self.state = ProgressState.REPLICATE
        self.next = Index(self.match + 1)

    def become_snapshot(self, hold: Index) -> None:
        """It needs what the log no longer holds."""
        self._leave()
        self.state = ProgressState.SNAPSHOT
        self.snapshot_index = UNSENT
        self.snapshot_hold = hold

    def sent(self, last: Index, size_bytes: int, heartbeat_round: int) -> None:
        """An append with entries went out, up to ``last``."""
        self.next = Index(last + 1)
        self.inflight.append((last, size_bytes, heartbeat_round))
        self.inflight_bytes += size_bytes

    def acknowledged(self, match: Index) -> None:
        """It holds everything up to ``match``: raise the marks, open the window."""
        self.required_index = Index(0)
        self.match = max(self.match, match)
        self.next = max(self.next, Index(match + 1))
        inflight = self.inflight
        while inflight and inflight[0][0] <= match:
            self.inflight_bytes -= inflight.popleft()[1]

    def rejected(self, prev_index: Index, retry_from: Index) -> bool:
        """It refused an append after ``prev_index``. Returns False if that is old news.

        Args:
            prev_index: What the refused append stood on.
            retry_from: The newest index at which the logs could still match.
        """
        if self.state is ProgressState.REPLICATE:
            if prev_index <= self.match:
                return False
            self.become_probe(Index(self.match + 1))
            return True
        if self.state is ProgressState.SNAPSHOT or prev_index != self.next - 1:
            return False
        self.next = Index(max(min(prev_index, retry_from + 1), self.match + 1))
        self.paused = False
        return True

    def committed(self, commit_index: Index) -> Index:
        """How much of what it is known to hold is committed: beyond that its log may differ."""
        return min(self.match, commit_index)

    def window_full(self, appends_max: int, bytes_max: int) -> bool:
        """Whether nothing more may be sent before something is acknowledged."""
        return len(self.inflight) >= appends_max or self.inflight_bytes >= bytes_max

    def lost(self, answered_round: int) -> bool:
        """Whether the oldest append in flight must have been lost.

        The follower answers in order. If it answered a heartbeat that left after that append, and
        not the append, one of the two messages is gone, however long the way is.
        """
        return bool(self.inflight) and self.inflight[0][2] < answered_round

    def _leave(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
        self.paused = False
