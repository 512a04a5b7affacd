"""A cluster in memory: nodes, their disks that lose what was not synced, and a lossy network.

Deterministic: everything random comes from the seed. Every node checks its invariants after every
step (``check_invariants``), and the cluster checks Raft's safety properties with a
``ClusterChecker``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from raft.codec import decode_message, encode_message
from raft.config import RaftConfig
from raft.effects import Effects, Read, Rejected
from raft.events import (
    Applied,
    Event,
    LogCompacted,
    Persisted,
    Propose,
    ReadIndex,
    Receive,
    SnapshotInstalled,
    SnapshotSent,
    TellCommit,
    Tick,
)
from raft.invariants import ClusterChecker
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raft.node import RaftNode
from raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Proposal,
    Role,
    SnapshotMeta,
    Term,
)

ELECTION_TICKS = 10


def voters(count: int) -> Configuration:
    return Configuration(tuple(NodeId(number) for number in range(1, count + 1)))


class Disk:
    """What survives a crash: the last synced hard state, snapshot and entries."""

    def __init__(self, configuration: Configuration) -> None:
        self.hard_state = HardState(Term(0), NO_NODE, Index(0))
        self.snapshot = SnapshotMeta(Index(0), Term(0), configuration)
        self.state: list[Entry] = []
        self.entries: list[Entry] = []
        self.required_index = Index(0)
        self._origin = self.snapshot

    @property
    def last_index(self) -> int:
        return self.snapshot.index + len(self.entries)

    def write(self, effects: Effects, state: list[Entry] | None) -> None:
        if effects.hard_state is not None:
            self.hard_state = effects.hard_state
        if effects.snapshot is not None:
            assert state is not None
            self.snapshot, self.state, self.entries = effects.snapshot, state, []
            if effects.snapshot.index >= self.required_index:
                self.required_index = Index(0)
        for entry in effects.entries:
            del self.entries[entry.index - self.snapshot.index - 1 :]
            assert len(self.entries) == entry.index - self.snapshot.index - 1, "a gap on disk"
            self.entries.append(entry)

    def lose_log(self) -> None:
        """Damage below an intact tail: term, vote and the log's end are all that is left."""
        self.required_index = Index(max(self.last_index, self.required_index))
        self.snapshot, self.state, self.entries = self._origin, [], []

    def mark_snapshot(self, meta: SnapshotMeta, state: list[Entry]) -> None:
        self.entries = [entry for entry in self.entries if entry.index > meta.index]
        self.snapshot, self.state = meta, state


class Host:
    """One member: its node, its disk, its state machine (the list of what it applied)."""

    def __init__(self, cluster: Cluster, node_id: NodeId, configuration: Configuration) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.disk = Disk(configuration)
        self.up = False
        self.lives = 0
        self.start()

    def start(self) -> None:
        """Come up from what the disk holds."""
        self.lives += 1
        self.up = True
        self.state = list(self.disk.state)
        self.unsynced: list[Effects] = []
        self.reads: list[Read] = []
        self.reads_rejected: list[int] = []
        self.rejected: list[Rejected] = []
        self.cluster.checker.saw_restart(self.node_id, self.disk.snapshot.index)
        self.node = RaftNode(
            RaftConfig(node_id=self.node_id, check_invariants=True, **self.cluster.settings),
            random.Random(f"{self.cluster.seed}/{self.node_id}/{self.lives}"),
            hard_state=self.disk.hard_state,
            snapshot=self.disk.snapshot,
            entries=list(self.disk.entries),
            applied=self.disk.snapshot.index,
            required_index=self.disk.required_index,
        )

    def crash(self, synced: int = 0) -> None:
        """Stop at once. The first ``synced`` writes under way happened to reach the disk."""
        for effects in self.unsynced[:synced]:
            self._write(effects)
        self.up = False
        self.unsynced = []

    def step(self, event: Event) -> None:
        if self.up:
            self.node.step(event)
            self._watch()

    def _watch(self) -> None:
        if self.node.role is Role.LEADER:
            self.cluster.checker.saw_leader(self.node_id, self.node.term)
            self.cluster.checker.check_leader(self.node._core)
        self.cluster.commit_index = max(self.cluster.commit_index, self.node.commit_index)

    def pump(self) -> bool:
        """Take and do until nothing is left but what waits for the disk."""
        busy = False
        while self.up and (effects := self.node.take_effects()) is not None:
            busy = True
            self._watch()
            for message in effects.messages:
                self.cluster.send(self, message)
            self.rejected += effects.rejected
            self.reads_rejected += [each.context for each in effects.reads_rejected]
            for read in effects.reads:
                self.cluster.saw_read(self, read)
                self.reads.append(read)
            self._apply(effects.committed)
            if self.unsynced or effects.must_persist:
                self.unsynced.append(effects)
            else:
                self._after_sync(effects)
        return busy

    def _apply(self, committed: list[Entry]) -> None:
        if committed:
            self.cluster.checker.saw_applied(self.node_id, committed)
            self.state += committed
            self.step(Applied(committed[-1].index))

    def sync(self, count: int | None = None) -> bool:
        """The next writes reach the disk, and what waited for them goes on."""
        done = self.unsynced[:count]
        del self.unsynced[: len(done)]
        for effects in done:
            if effects.must_persist:
                self._write(effects)
                self.step(Persisted(effects.seq))
            self._after_sync(effects)
        while self.unsynced and not self.unsynced[0].must_persist:
            self._after_sync(self.unsynced.pop(0))
        return bool(done)

    def _write(self, effects: Effects) -> None:
        state = None
        if effects.snapshot is not None:
            state = self.cluster.snapshots[effects.snapshot.index]
        self.disk.write(effects, state)
        hard_state = effects.hard_state
        if hard_state is not None and hard_state.voted_for != NO_NODE:
            self.cluster.checker.saw_vote(self.node_id, hard_state.term, hard_state.voted_for)

    def _after_sync(self, effects: Effects) -> None:
        if effects.snapshot is not None:
            self.state = list(self.cluster.snapshots[effects.snapshot.index])
            self.cluster.checker.saw_restart(self.node_id, effects.snapshot.index)
            self.step(SnapshotInstalled(effects.snapshot))
        for message in effects.messages_after_sync:
            self.cluster.send(self, message)

    def take_snapshot(self) -> SnapshotMeta:
        """Of the newest state that is applied and durable."""
        index = min(self.node.applied_index, self.node.stable_index)
        meta = self.node.snapshot_meta(index)
        assert [entry.index for entry in self.state] == list(range(1, len(self.state) + 1))
        self.cluster.checker.saw_snapshot(meta)
        self.cluster.snapshots[index] = self.state[:index]
        return meta

    def compact(self) -> None:
        """Put a snapshot of its own on disk and forget the log that it covers."""
        if (
            self.node._core.pending_snapshot is not None
            or self.unsynced
            or self.disk.required_index
        ):
            return
        meta = self.take_snapshot()
        self.disk.mark_snapshot(meta, self.cluster.snapshots[meta.index])
        self.step(LogCompacted(meta.index))

    def commands(self) -> list[bytes]:
        """The data of every command applied, in order."""
        return [entry.data for entry in self.state if entry.kind is EntryKind.COMMAND]


class Cluster:
    """Hosts and the network between them.

    Args:
        configuration: Who votes, or how many voters (ids from 1).
        seed: Decides everything random.
        spare: Members that are not in the configuration yet.
        settings: Fields of ``RaftConfig``.
    """

    def __init__(
        self,
        configuration: Configuration | int = 3,
        *,
        seed: int = 1,
        spare: Iterable[int] = (),
        **settings: int,
    ) -> None:
        if isinstance(configuration, int):
            configuration = voters(configuration)
        self.seed = seed
        self.rng = random.Random(seed)
        self.settings = {"election_ticks": ELECTION_TICKS, **settings}
        self.checker = ClusterChecker()
        self.snapshots: dict[Index, list[Entry]] = {}
        self.network: list[Message] = []
        self.filters: list[Callable[[Message], bool]] = []
        self.commit_index = Index(0)
        self.read_floors: dict[int, Index] = {}
        self.acknowledged: set[bytes] = set()
        ids = (*configuration.members(), *[NodeId(number) for number in spare])
        self.hosts = {node_id: Host(self, node_id, configuration) for node_id in ids}
        self._tokens = 0

    def __getitem__(self, number: int) -> Host:
        return self.hosts[NodeId(number)]

    # ------------------------------------------------------------------------- the network

    def send(self, host: Host, message: Message) -> None:
        self._check_promise(host, message)
        if isinstance(message, InstallSnapshot):
            meta = host.take_snapshot()
            message = InstallSnapshot(message.sender, message.receiver, message.term, meta)
        self.network.append(message)

    def _check_promise(self, host: Host, message: Message) -> None:
        """Whatever a message promises is on its sender's disk before it leaves."""
        disk = host.disk
        vote = (disk.hard_state.term, disk.hard_state.voted_for)
        if isinstance(message, RequestVoteReply):
            if message.granted and not message.pre_vote:
                self.checker.saw_vote(host.node_id, message.term, message.receiver)
                assert vote == (message.term, message.receiver), "I07: a vote before the disk"
        elif isinstance(message, RequestVote):
            if not message.pre_vote:
                assert vote == (message.term, host.node_id), "I07: a campaign before the disk"
            assert disk.last_index >= message.last_index, "I07: a campaign on what may be lost"
        elif isinstance(message, AppendEntriesReply):
            if message.accepted:
                assert disk.last_index >= message.match_index, "I12: acknowledged before the disk"
        elif isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):
            assert vote == (message.term, host.node_id), "I11: a leader's vote is durable"

    def deliver(self, message: Message) -> None:
        """Over the wire and into its receiver, if nothing stands between."""
        receiver = self.hosts[message.receiver]
        if not receiver.up or any(refuse(message) for refuse in self.filters):
            self.deliver_lost(message)
            return
        receiver.step(Receive(decode_message(encode_message(message))))
        if isinstance(message, InstallSnapshot):
            assert message.meta is not None
            self._report(message, message.meta.index)

    def deliver_lost(self, message: Message) -> None:
        """It never arrives; of a snapshot, the sender hears so."""
        if isinstance(message, InstallSnapshot):
            self._report(message, None)

    def _report(self, message: InstallSnapshot, index: Index | None) -> None:
        event = SnapshotSent(message.receiver, index is not None, index or Index(0))
        self.hosts[message.sender].step(event)

    def cut(self, *groups: Iterable[int]) -> None:
        """Only members of the same group hear each other."""
        group_of = {number: place for place, group in enumerate(groups) for number in group}
        self.filters = [
            lambda message: group_of.get(message.sender) != group_of.get(message.receiver)
        ]

    def isolate(self, number: int) -> None:
        self.cut([number], [other for other in self.hosts if other != number])

    def heal(self) -> None:
        self.filters = []

    # ------------------------------------------------------------------------- going on

    def settle(self, rounds: int = 1000) -> None:
        """Deliver and sync everything, in order, until nothing happens without a tick."""
        for _ in range(rounds):
            busy = [host.pump() for host in self.hosts.values()]
            busy += [host.sync() for host in self.hosts.values()]
            arrived, self.network = self.network, []
            for message in arrived:
                self.deliver(message)
            if not any(busy) and not arrived and not self._tell_commits():
                return
        raise AssertionError("it never comes to rest")

    def _tell_commits(self) -> bool:
        """What no append carried travels alone; whether there was any."""
        telling = [host for host in self.hosts.values() if host.up and host.node.is_commit_untold]
        for host in telling:
            host.step(TellCommit())
        return bool(telling)

    def tick(self, *numbers: int, times: int = 1) -> None:
        """Let time go by, on all or on some, settling after each tick."""
        for _ in range(times):
            for number in numbers or list(self.hosts):
                self[number].step(Tick())
            self.settle()

    def elect(self, number: int = 1) -> Host:
        """Make this node the leader, by letting time go by on it alone."""
        self.settle()
        for _ in range(4 * ELECTION_TICKS):
            if self[number].node.role is Role.LEADER:
                return self[number]
            self[number].step(Tick())
            self.settle()
        raise AssertionError(f"node {number} was not elected")

    def leader(self) -> Host | None:
        """The leader of the newest term, if there is one."""
        leaders = [
            host for host in self.hosts.values() if host.up and host.node.role is Role.LEADER
        ]
        return max(leaders, key=lambda host: host.node.term, default=None)

    def wait_leader(self, ticks: int = 20 * ELECTION_TICKS) -> Host:
        for _ in range(ticks):
            leader = self.leader()
            if leader is not None and leader.node.commit_index == leader.node.last_index:
                return leader
            self.tick()
        raise AssertionError("no leader")

    # ------------------------------------------------------------------------- clients

    def propose(self, number: int, data: bytes = b"x", *, settle: bool = True) -> int:
        self._tokens += 1
        self[number].step(Propose([Proposal(self._tokens, data)]))
        if settle:
            self.settle()
        return self._tokens

    def read(self, number: int) -> int:
        """Ask for a read; it must not be answered below what is committed by now."""
        self._tokens += 1
        self.read_floors[self._tokens] = self.commit_index
        self[number].step(ReadIndex(self._tokens))
        return self._tokens

    def saw_read(self, host: Host, read: Read) -> None:
        floor = self.read_floors.pop(read.context)
        assert read.index >= floor, f"I14: a read at {read.index}, {floor} was committed before it"
        assert host.node.applied_index >= read.index, "I14: a read before its index is applied"

    def check_logs(self) -> None:
        self.checker.check_logs(
            {
                host.node_id: host.node._core.log.slice(host.node.first_index, host.node.last_index)
                for host in self.hosts.values()
                if host.up
            }
        )
