"""Nothing is acknowledged before it is durable, and nothing counts as committed before it is so on
a quorum of the configuration in force (Raft §5.3, §6; thesis §4.3, §10.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.codec import decode_configuration
from raft.messages import AppendEntriesReply
from raft.types import Configuration, EntryKind, Index, NodeId, Role
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.effects import Effects, RoleChange
    from raft.messages import Message
    from raft.types import Entry
    from tests.sim.checkers.disk_truth import DiskTruth
    from tests.sim.world import World
    from tests.support.host import Host


class Commitment(NodeChecker):
    """Counts quorums by itself: by the disks, and by the configurations in the logs."""

    def __init__(self, world: World, disks: DiskTruth) -> None:
        super().__init__(world)
        self._disks = disks
        self._configurations: dict[int, list[tuple[int, Configuration]]] = {}
        self._checked: dict[int, int] = {}
        """Member to the commit index that was checked there while it leads."""

    # --- configurations ---------------------------------------------------------------------------

    def on_start(self, host: Host) -> None:
        """Its configurations are those of its log."""
        core = host.node.driver.raft._core
        log = core.log
        rows = [(int(log.base_index), core.membership.at(log.base_index))]
        self._configurations[host.member_id] = rows
        self._take_in(host, log.slice(Index(log.base_index + 1), log.last_index))
        self._checked.pop(host.member_id, None)

    def on_effects(self, host: Host, effects: Effects) -> None:
        """A configuration is in force where it is appended."""
        if effects.snapshot is not None:
            rows = [(int(effects.snapshot.index), effects.snapshot.configuration)]
            self._configurations[host.member_id] = rows
        if effects.entries:
            self._take_in(host, effects.entries)
        if host.node.driver.raft.role is Role.LEADER:
            self._check_commit(host, effects.entries[0].index if effects.entries else None)

    def _take_in(self, host: Host, entries: list[Entry]) -> None:
        if not entries:
            return
        rows = self._configurations[host.member_id]
        while len(rows) > 1 and rows[-1][0] >= entries[0].index:
            rows.pop()
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                rows.append((entry.index, decode_configuration(entry.data)))

    def on_role(self, host: Host, change: RoleChange) -> None:
        """Whoever begins to lead knows commits that others have checked."""
        if change.role is Role.LEADER:
            self._checked[host.member_id] = host.node.driver.raft.commit_index
            if not _counts(self._configurations[host.member_id][-1][1], host.member_id):
                raise ViolationError(
                    "election safety",
                    f"member {host.number} leads term {change.term} and is no voter",
                )

    # --- what is said -----------------------------------------------------------------------------

    def on_send(self, host: Host, message: Message) -> None:
        """Whoever says that it holds an entry holds it, on its disk."""
        if not isinstance(message, AppendEntriesReply) or not message.accepted:
            return
        index = message.match_index
        log = host.node.driver.raft._core.log
        term = log.term_at(Index(index))
        durable = self._disks.of[host.member_id]
        if message.term == host.node.driver.raft.term and index > log.last_index:
            raise ViolationError(
                "durability",
                f"member {host.number} acknowledges entry {index}; its log ends at "
                f"{log.last_index}",
            )
        if term is None or not index or term > message.term:
            # It was said of the log as it was then, to a leader who leads no more: since then
            # another one's entries have taken the place.
            return
        if not durable.holds(index, term):
            raise ViolationError(
                "durability",
                f"member {host.number} acknowledges entry {index} of term {term}; its disk ends "
                f"at {durable.last_index} and has term {durable.terms.get(index)} there",
            )

    def _check_commit(self, host: Host, appended: int | None) -> None:
        """Count who holds what a leader commits.

        Args:
            host: The leader.
            appended: The first entry that the same step appended. A step takes in several events,
                and what it committed may have been counted before its change of members was
                appended.
        """
        raft = host.node.driver.raft
        commit = raft.commit_index
        member = host.member_id
        if commit <= self._checked.get(member, commit):
            return
        self._checked[member] = commit
        term = raft._core.log.term_at(commit)
        if term is None:
            return
        if term != raft.term:
            raise ViolationError(
                "leader completeness",
                f"the leader of term {raft.term} commits entry {commit} of term {term} by counting",
            )
        rows = self._configurations[member]
        before = len(rows) - 1
        while before and appended is not None and rows[before][0] >= appended:
            before -= 1
        lacking = [self._lacking(row[1], commit, term) for row in rows[before:]]
        if all(lacking):
            text = f"the leader of term {term} commits entry {commit}, which is {lacking[-1]}"
            raise ViolationError("durability", text)

    def _lacking(self, configuration: Configuration, index: int, term: int) -> str:
        """Which majority of a configuration does not hold an entry; "" if each does."""
        for voters in (configuration.voters, configuration.voters_outgoing):
            holders = [each for each in voters if self._holds(each, index, term)]
            if voters and 2 * len(holders) <= len(voters):
                return f"durable only on {len(holders)} of {len(voters)} voters"
        return ""

    def _holds(self, member: NodeId, index: int, term: int) -> bool:
        durable = self._disks.of.get(member)
        return durable is not None and durable.counts_for(index, term)


def _counts(configuration: Configuration, member: int) -> bool:
    return member in configuration.voters or member in configuration.voters_outgoing
