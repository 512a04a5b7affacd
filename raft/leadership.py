"""What only a leader knows: followers' progress, reads to confirm, a transfer under way."""

from raft.progress import Progress, ProgressState
from raft.quorum import joint_value
from raft.read_index import LeaderReads
from raft.types import NO_NODE, Configuration, Index, NodeId


class Leadership:
    """One term of leadership (volatile, Raft figure 2: reinitialized after election).

    Attributes:
        first_index: The no-op that began the term; reads wait until it is committed.
        unsent: Whether a follower may have to be sent something at the next take.
        untold: Whether a follower that has everything was not told yet what of it is committed.
        heartbeat_round: Counts the broadcasts of heartbeats in this term.
        ticks: Counts ticks in this term.
        transfer_target: Who is to lead next, or nobody.
    """

    __slots__ = (
        "first_index",
        "heartbeat_elapsed",
        "heartbeat_round",
        "node_id",
        "progress",
        "quorum_elapsed",
        "reads",
        "ticks",
        "transfer_sent",
        "transfer_started",
        "transfer_target",
        "unsent",
        "untold",
    )

    def __init__(self, node_id: NodeId, first_index: Index, peers: tuple[NodeId, ...]) -> None:
        self.node_id = node_id
        self.first_index = first_index
        self.progress = {peer: Progress(peer, first_index) for peer in peers}
        self.reads = LeaderReads()
        self.unsent = True
        self.untold = False
        self.heartbeat_round = 0
        self.heartbeat_elapsed = 0
        self.quorum_elapsed = 0
        self.ticks = 0
        self.transfer_target: NodeId = NO_NODE
        self.transfer_started = 0
        self.transfer_sent = False

    def follow(self, peers: tuple[NodeId, ...], next_index: Index) -> None:
        """The configuration changed: forget who left, begin with who is new."""
        before = self.progress
        self.progress = {peer: before.get(peer) or Progress(peer, next_index) for peer in peers}
        if self.transfer_target not in self.progress:
            self.transfer_target = NO_NODE

    def match_quorum(self, configuration: Configuration, own_index: Index) -> Index:
        """The newest index durable on a majority; ``own_index`` is what is durable here."""
        own, progress = self.node_id, self.progress

        def match_of(node: NodeId) -> int:
            return own_index if node == own else progress[node].match

        return Index(joint_value(configuration, match_of))

    def answered_quorum(self, configuration: Configuration) -> int:
        """The newest heartbeat round that a majority answered, this node with it."""
        own, progress, newest = self.node_id, self.progress, self.heartbeat_round

        def round_of(node: NodeId) -> int:
            return newest if node == own else progress[node].answered_round

        return joint_value(configuration, round_of)

    def active_quorum(self, configuration: Configuration) -> bool:
        """Whether a majority was heard from since the last call (CheckQuorum, thesis §6.2)."""
        own, progress = self.node_id, self.progress

        def active(node: NodeId) -> int:
            return 1 if node == own or progress[node].active else 0

        reached = joint_value(configuration, active) == 1
        for follower in progress.values():
            follower.was_active = follower.active
            follower.active = False
        return reached

    def hold_index(self) -> Index:
        """After which index the log is kept for followers that are still expected to need it.

        Without this a leader whose tail turns over faster than a snapshot travels would send one
        snapshot after the other; and so would a follower that pauses for the length of the tail.
        """
        holds = [Index(2**63 - 1)]
        for follower in self.progress.values():
            if follower.state is ProgressState.SNAPSHOT:
                holds.append(follower.snapshot_hold)
            elif follower.active or follower.was_active:
                holds.append(follower.match)
        return min(holds)
