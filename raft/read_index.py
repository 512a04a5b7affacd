"""Reads without a log entry (thesis §6.4): which index must be applied before they are current.

All reads that come in while a round is out wait together for the next one. At the leader a round is
a broadcast of heartbeats, and is over when a majority answered that broadcast or a later one. At a
follower a round is one question to the leader.
"""

from collections import deque

from raft.types import Index, NodeId


class LeaderReads:
    """The reads that a leader has yet to confirm, its own and its followers'."""

    __slots__ = ("asked", "asked_peers", "index", "round", "waiting", "waiting_peers")

    def __init__(self) -> None:
        self.waiting: list[int] = []
        # A follower has one question out at a time, so the newest replaces an older one.
        self.waiting_peers: dict[NodeId, int] = {}
        self.asked: list[int] = []
        self.asked_peers: dict[NodeId, int] = {}
        self.round = 0
        self.index = Index(0)

    @property
    def count(self) -> int:
        """How many of this node's own reads wait here."""
        return len(self.waiting) + len(self.asked)

    @property
    def wants_round(self) -> bool:
        """Whether somebody waits and no round is out."""
        return self.round == 0 and bool(self.waiting or self.waiting_peers)

    def begin(self, number: int, commit_index: Index) -> None:
        """Everybody who waits joins round ``number``, at the commit index of this moment."""
        self.round = number
        self.index = commit_index
        self.asked, self.waiting = self.waiting, []
        self.asked_peers, self.waiting_peers = self.waiting_peers, {}

    def finish(self) -> tuple[list[int], dict[NodeId, int]]:
        """The round is confirmed: hand over who asked in it."""
        contexts, peers = self.asked, self.asked_peers
        self.asked, self.asked_peers = [], {}
        self.round = 0
        return contexts, peers

    def drain(self) -> tuple[list[int], list[tuple[NodeId, int]]]:
        """Leadership is lost: hand over everybody, confirmed by nobody."""
        contexts = self.asked + self.waiting
        peers = [*self.asked_peers.items(), *self.waiting_peers.items()]
        return contexts, peers


class FollowerReads:
    """The reads that a follower has yet to ask its leader about, or has asked about."""

    __slots__ = ("asked", "round", "ticks", "waiting")

    def __init__(self, first_round: int) -> None:
        # A delayed answer to this node's former life must not answer a question of this one: it
        # would carry an index from before that question. Hence the rounds do not start at one.
        self.round = first_round
        self.waiting: list[int] = []
        self.asked: list[int] = []
        self.ticks = 0

    @property
    def count(self) -> int:
        """How many reads wait here."""
        return len(self.waiting) + len(self.asked)

    def begin(self) -> int:
        """Everybody who waits joins the next question. Returns its number."""
        self.round += 1
        self.ticks = 0
        self.asked, self.waiting = self.waiting, []
        return self.round

    def finish(self) -> list[int]:
        """The question is answered: hand over who asked in it."""
        contexts, self.asked = self.asked, []
        return contexts

    def drain(self) -> list[int]:
        """Nobody will answer: hand over everybody."""
        contexts = self.asked + self.waiting
        self.asked, self.waiting = [], []
        return contexts


class ConfirmedReads:
    """Reads whose index is known, until it is applied here."""

    __slots__ = ("_queue", "count")

    def __init__(self) -> None:
        self._queue: deque[tuple[Index, list[int]]] = deque()
        self.count = 0

    def add(self, index: Index, contexts: list[int]) -> None:
        """These may be answered once ``index`` is applied."""
        if contexts:
            self._queue.append((index, contexts))
            self.count += len(contexts)

    def release(self, applied_index: Index) -> list[tuple[Index, list[int]]]:
        """Those that may be answered now (invariant I14)."""
        queue = self._queue
        ready = []
        while queue and queue[0][0] <= applied_index:
            index, contexts = queue.popleft()
            self.count -= len(contexts)
            ready.append((index, contexts))
        return ready
