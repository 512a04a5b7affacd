"""The nouns of Raft: terms, indexes, entries, hard state, configurations (Raft §5, thesis §4)."""

import enum
from typing import NewType

import msgspec

Term = NewType("Term", int)
Index = NewType("Index", int)
NodeId = NewType("NodeId", int)
Seq = NewType("Seq", int)

NO_NODE = NodeId(0)
"""Stands for "nobody": no vote given, no leader known. Never the id of a member."""


class EntryKind(enum.IntEnum):
    """What an entry's data means to Raft itself; commands are opaque to it."""

    COMMAND = 0
    NOOP = 1
    CONFIGURATION = 2


class Role(enum.IntEnum):
    """The role a node plays in its term (Raft §5.1; pre-candidates: thesis §9.6)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log, kept in the bytes that go to the disk and to the peers.

    ``encoded`` is made once, by ``raft.codec.encode_entry``, with a checksum of its own; ``index``,
    ``term`` and ``kind`` repeat what its header says, so that the core need not look into bytes.
    ``data`` is cut out of it on demand.
    """

    index: Index
    term: Term
    kind: EntryKind
    encoded: bytes

    @property
    def data(self) -> bytes:
        """The entry's payload: a command, an encoded ``Configuration``, or nothing."""
        return self.encoded[ENTRY_HEADER_BYTES:]


ENTRY_HEADER_BYTES = 24
"""CRC32C u32, kind u8, three zero bytes, term u64, index u64; the layout is drawn in
``raft/codec.py``.
"""


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What must survive a crash besides the log (Raft figure 2, "persistent state"), and the commit
    index as a hint.

    ``commit_index`` need not be synced by itself: it travels along with whatever else is written.
    """

    term: Term
    voted_for: NodeId
    commit_index: Index


class Configuration(msgspec.Struct, frozen=True, array_like=True, tag=False):
    """Who votes and who learns. While ``voters_outgoing`` is not empty it is joint (thesis §4.3):
    both majorities are asked.

    All tuples are sorted. ``learners_next`` become learners once the joint configuration is left.
    """

    voters: tuple[NodeId, ...]
    voters_outgoing: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()

    def members(self) -> tuple[NodeId, ...]:
        """Every node that takes part in any way, sorted."""
        everyone = {*self.voters, *self.voters_outgoing, *self.learners, *self.learners_next}
        return tuple(sorted(everyone))


class SnapshotMeta(msgspec.Struct, frozen=True):
    """What a snapshot covers: the last entry in it, and the configuration as of that entry (Raft
    §7).
    """

    index: Index
    term: Term
    configuration: Configuration


class Proposal(msgspec.Struct, frozen=True, gc=False):
    """A command that somebody wants in the log. ``token`` comes back in ``accepted`` or
    ``rejected`` and means nothing here.
    """

    token: int
    data: bytes
    kind: EntryKind = EntryKind.COMMAND
