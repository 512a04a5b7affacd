"""Which configuration is in force, and how one becomes the next (thesis §4).

A node uses the newest configuration in its log, committed or not (thesis §4.1); when the entry that
brought it is cut, the one before it is in force again. A change of more than one voter passes
through a joint configuration, in which both majorities are asked (thesis §4.3), and which the
leader leaves by itself once it is committed.
"""

from collections.abc import Iterable

from raft.codec import decode_configuration
from raft.errors import ConfigError
from raft.types import Configuration, Entry, EntryKind, Index, NodeId


class Membership:
    """The configurations from the log's base on, and the newest of them in force (I15)."""

    __slots__ = ("_history", "current", "current_index", "node_id", "peers")

    def __init__(self, node_id: NodeId, base_index: Index, base: Configuration) -> None:
        self.node_id = node_id
        self._history: list[tuple[Index, Configuration]] = []
        self.current = base
        self.current_index = base_index
        self.peers: tuple[NodeId, ...] = ()
        self.reset(base_index, base)

    def reset(self, index: Index, configuration: Configuration) -> None:
        """Start again from a snapshot's configuration."""
        self._history = [(index, configuration)]
        self._enforce()

    def take_in(self, entries: Iterable[Entry]) -> bool:
        """Heed the configurations among appended entries. Returns whether there was one."""
        found = False
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self._history.append((entry.index, decode_configuration(entry.data)))
                found = True
        if found:
            self._enforce()
        return found

    def cut(self, index: Index) -> bool:
        """The log now ends at ``index``: roll back. Returns whether the configuration changed."""
        if self.current_index <= index:
            return False
        while len(self._history) > 1 and self._history[-1][0] > index:
            self._history.pop()
        self._enforce()
        return True

    def fold(self, index: Index) -> None:
        """Forget what nobody can ask for once ``index`` is the log's base."""
        while len(self._history) > 1 and self._history[1][0] <= index:
            del self._history[0]

    def at(self, index: Index) -> Configuration:
        """The configuration as of ``index``, which must not be below the log's base."""
        configuration = self._history[0][1]
        for changed, candidate in self._history[1:]:
            if changed > index:
                break
            configuration = candidate
        return configuration

    def undecided(self, commit_index: Index) -> list[Configuration]:
        """The newest configuration that is committed as of ``commit_index``, and all after it:
        those that are in force, or will be again if what follows is cut.
        """
        found: list[Configuration] = []
        for index, configuration in reversed(self._history):
            found.append(configuration)
            if index <= commit_index:
                break
        return found

    def is_voter(self, node_id: NodeId) -> bool:
        """Whether a node votes, in either half."""
        return votes_in(self.current, node_id)

    def _enforce(self) -> None:
        self.current_index, self.current = self._history[-1]
        self.peers = tuple([node for node in self.current.members() if node != self.node_id])


def votes_in(configuration: Configuration, node_id: NodeId) -> bool:
    """Whether a node votes, in either half."""
    return node_id in configuration.voters or node_id in configuration.voters_outgoing


def check_target(target: Configuration) -> None:
    """Refuse a configuration that nobody may ask for.

    Raises:
        ConfigError: It has no voters, is joint already, or a node stands in it twice.
    """
    if not target.voters:
        raise ConfigError("a configuration needs at least one voter")
    if target.voters_outgoing or target.learners_next:
        raise ConfigError("ask for the configuration to reach: joint ones are made on the way")
    both = target.voters + target.learners
    if len(set(both)) != len(both) or min(both) <= 0:
        raise ConfigError(f"node ids must be positive and stand once, not {both}")


def next_step(current: Configuration, target: Configuration) -> Configuration:
    """The configuration to append on the way from ``current`` to ``target``.

    Majorities of voter sets that differ by one node overlap (thesis §4.1); any larger step goes
    through a joint configuration. A voter that is to learn keeps its vote until that is left.
    """
    voters = tuple(sorted(target.voters))
    learners = tuple(sorted(target.learners))
    if len(set(voters) ^ set(current.voters)) <= 1:
        return Configuration(voters, learners=learners)
    outgoing = set(current.voters)
    return Configuration(
        voters,
        voters_outgoing=current.voters,
        learners=tuple([node for node in learners if node not in outgoing]),
        learners_next=tuple([node for node in learners if node in outgoing]),
    )


def leave_joint(joint: Configuration) -> Configuration:
    """What follows a joint configuration."""
    learners = tuple(sorted({*joint.learners, *joint.learners_next}))
    return Configuration(joint.voters, learners=learners)
