"""One node on the bench: its events by hand, its effects in hand."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, TypeVar

from raft.codec import encode_configuration, encode_entry
from raft.config import RaftConfig
from raft.effects import Accepted, Effects, Read, ReadRejected, Rejected, RoleChange
from raft.events import Applied, Event, Persisted, Propose, Receive, SnapshotInstalled, Tick
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    Message,
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
    Seq,
    SnapshotMeta,
    Term,
)

from .cluster import ELECTION_TICKS, voters

M = TypeVar("M", bound=Envelope)


def entry(index: int, term: int, data: bytes = b"") -> Entry:
    return encode_entry(Index(index), Term(term), EntryKind.COMMAND, data)


def entries_of(terms: Iterable[int], after: int = 0) -> tuple[Entry, ...]:
    """A log whose entries have these terms."""
    return tuple(entry(index, term) for index, term in enumerate(terms, after + 1))


def configuration_entry(index: int, term: int, configuration: Configuration) -> Entry:
    data = encode_configuration(configuration)
    return encode_entry(Index(index), Term(term), EntryKind.CONFIGURATION, data)


class Taken:
    """What one or more takes yielded, joined."""

    def __init__(self) -> None:
        self.all: list[Effects] = []
        self.now: list[Message] = []
        self.later: list[Message] = []
        self.entries: list[Entry] = []
        self.hard_states: list[HardState] = []
        self.snapshots: list[SnapshotMeta] = []
        self.committed: list[Entry] = []
        self.accepted: list[Accepted] = []
        self.rejected: list[Rejected] = []
        self.reads: list[Read] = []
        self.reads_rejected: list[ReadRejected] = []
        self.roles: list[RoleChange] = []

    def add(self, effects: Effects) -> None:
        self.all.append(effects)
        self.now += effects.messages
        self.later += effects.messages_after_sync
        self.entries += effects.entries
        self.committed += effects.committed
        self.accepted += effects.accepted
        self.rejected += effects.rejected
        self.reads += effects.reads
        self.reads_rejected += effects.reads_rejected
        self.hard_states += [effects.hard_state] if effects.hard_state else []
        self.snapshots += [effects.snapshot] if effects.snapshot else []
        self.roles += [effects.role_change] if effects.role_change else []

    def sent(self, kind: type[M]) -> list[M]:
        """All messages of a kind, in whichever list they left."""
        return [message for message in self.now + self.later if isinstance(message, kind)]

    def to(self, receiver: int, kind: type[M]) -> list[M]:
        return [each for each in self.sent(kind) if each.receiver == receiver]


class Lab:
    """Node 1 (or another), its disk and state machine played by the test.

    Args:
        configuration: Who votes, or how many voters.
        log: The terms of the entries it starts with.
        required: What a snapshot must cover, if the node begins mute.
    """

    def __init__(
        self,
        configuration: Configuration | int = 3,
        *,
        node_id: int = 1,
        term: int = 0,
        voted_for: int = NO_NODE,
        commit: int = 0,
        log: Iterable[int] = (),
        seed: int = 1,
        required: int = 0,
        **settings: Any,
    ) -> None:
        if isinstance(configuration, int):
            configuration = voters(configuration)
        self.node = RaftNode(
            RaftConfig(
                node_id=NodeId(node_id),
                check_invariants=True,
                **{"election_ticks": ELECTION_TICKS, **settings},
            ),
            random.Random(seed),
            hard_state=HardState(Term(term), NodeId(voted_for), Index(commit)),
            snapshot=SnapshotMeta(Index(0), Term(0), configuration),
            entries=list(entries_of(log)),
            applied=Index(0),
            required_index=Index(required),
        )
        self.peers = [each for each in configuration.members() if each != node_id]

    # -------------------------------------------------------------------------- one thing at a time

    def step(self, *events: Event) -> Lab:
        for event in events:
            self.node.step(event)
        return self

    def hear(self, *messages: Message) -> Lab:
        return self.step(*[Receive(message) for message in messages])

    def tick(self, times: int = 1) -> Lab:
        return self.step(*[Tick()] * times)

    def propose(self, *data: bytes) -> Lab:
        return self.step(Propose([Proposal(place, each) for place, each in enumerate(data)]))

    def persisted(self, seq: int) -> Lab:
        return self.step(Persisted(Seq(seq)))

    def take(self, *, persist: bool = True, apply: bool = True) -> Taken:
        """Take until nothing is left, the disk and the state machine keeping up, or not."""
        taken = Taken()
        while (effects := self.node.take_effects()) is not None:
            taken.add(effects)
            if persist and effects.must_persist:
                self.node.step(Persisted(effects.seq))
            if apply and persist and effects.snapshot is not None:
                self.node.step(SnapshotInstalled(effects.snapshot))
            if apply and effects.committed:
                self.node.step(Applied(effects.committed[-1].index))
        return taken

    # -------------------------------------------------------------------------- longer stories

    def campaign(self) -> Taken:
        """Let the election timeout pass, and win the pre-vote: requests for votes are out."""
        self.tick_to_campaign()
        assert self.role() is Role.PRE_CANDIDATE
        for peer in self.peers:
            if self.role() is Role.PRE_CANDIDATE:
                self.hear(self.vote(peer, pre_vote=True))
        assert self.role() is Role.CANDIDATE
        return self.take()

    def tick_to_campaign(self) -> Taken:
        for _ in range(2 * ELECTION_TICKS):
            self.tick()
            if self.role() is not Role.FOLLOWER:
                break
        return self.take()

    def lead(self) -> Taken:
        """Become the leader; the probes with the no-op are in what is returned."""
        self.campaign()
        for peer in self.peers:
            if self.role() is Role.CANDIDATE:
                self.hear(self.vote(peer))
        assert self.role() is Role.LEADER
        return self.take()

    def lead_and_commit(self) -> Lab:
        """Become the leader; every follower has, and knows as committed, the whole log."""
        self.lead()
        for peer in self.peers:
            self.hear(self.ack(peer))
        self.take()
        for peer in self.peers:
            self.hear(self.ack(peer))
        self.take()
        assert self.node.commit_index == self.node.last_index
        return self

    # -------------------------------------------------------------------------- what peers say

    def vote(self, peer: int, *, granted: bool = True, pre_vote: bool = False) -> Message:
        term = self.node.term + 1 if pre_vote and granted else self.node.term
        return RequestVoteReply(
            NodeId(peer), self.node_id, Term(term), granted=granted, pre_vote=pre_vote
        )

    def ack(self, peer: int, match: int | None = None) -> Message:
        index = self.node.last_index if match is None else Index(match)
        return AppendEntriesReply(
            NodeId(peer), self.node_id, self.node.term, accepted=True, match_index=index
        )

    def alive(self, peer: int, heartbeat_round: int | None = None) -> Message:
        """A heartbeat's answer; by default to the newest heartbeat."""
        leadership = self.node._core.leadership
        if heartbeat_round is None:
            assert leadership is not None
            heartbeat_round = leadership.heartbeat_round
        return HeartbeatReply(NodeId(peer), self.node_id, self.node.term, heartbeat_round)

    def append(
        self,
        prev: tuple[int, int],
        terms: Iterable[int] = (),
        *,
        commit: int = 0,
        term: int | None = None,
        leader: int = 2,
    ) -> Message:
        """An append of a leader's: after ``prev`` (index, term), entries of these terms."""
        return AppendEntries(
            NodeId(leader),
            self.node_id,
            self.node.term if term is None else Term(term),
            Index(prev[0]),
            Term(prev[1]),
            Index(commit),
            entries_of(terms, after=prev[0]),
        )

    def heartbeat(self, term: int, *, commit: int = 0, leader: int = 2, number: int = 1) -> Message:
        return Heartbeat(NodeId(leader), self.node_id, Term(term), Index(commit), number)

    @property
    def node_id(self) -> NodeId:
        return self.node._core.node_id

    def role(self) -> Role:
        return self.node.role

    def progress(self, peer: int) -> dict[str, int | str | bool]:
        return self.node.progress()[NodeId(peer)]

    def log_terms(self) -> list[int]:
        held = self.node._core.log.slice(self.node.first_index, self.node.last_index)
        return [each.term for each in held]
