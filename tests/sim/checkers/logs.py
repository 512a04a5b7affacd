"""Logs that match (Raft §5.3), leaders that have everything (§5.4), and one history (§5.4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.types import Index, Role
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.effects import Effects, RoleChange
    from raft.types import Entry
    from tests.sim.world import World
    from tests.support.host import Host


class Logs(NodeChecker):
    """Compares every entry that is written anywhere with all others of its place.

    ``committed`` has, by index, the term and the bytes of what was committed.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._written: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.committed_index = 0
        self._newest_term = 0
        self._next: dict[int, int] = {}

    def on_start(self, host: Host) -> None:
        """What comes back from the disk matches too, and nothing committed was lost from it."""
        core = host.node.driver.raft._core
        log = core.log
        self._compare(host, log.slice(Index(log.base_index + 1), log.last_index), log.base_term)
        self._next[host.member_id] = core.applied_index + 1

    def on_effects(self, host: Host, effects: Effects) -> None:
        """Entries are about to be written; they were appended already."""
        if effects.entries:
            first = effects.entries[0].index
            before = host.node.driver.raft._core.log.term_at(Index(first - 1))
            self._compare(host, effects.entries, before)
        if effects.snapshot is not None:
            known = self.committed.get(effects.snapshot.index)
            if known is not None and known[0] != effects.snapshot.term:
                raise ViolationError(
                    "state machine safety",
                    f"member {host.number} installs a snapshot of another history at "
                    f"{effects.snapshot.index}",
                )
            self._next[host.member_id] = effects.snapshot.index + 1

    def _compare(self, host: Host, entries: list[Entry], before: int | None) -> None:
        written = self._written
        for entry in entries:
            key = (entry.index, entry.term)
            known = written.get(key)
            if known is None or (known[1] is None and before is not None):
                if known is not None and known[0] != entry.encoded:
                    raise self._differs(host, entry)
                written[key] = (entry.encoded, before)
            elif known[0] != entry.encoded or (
                None not in (before, known[1]) and known[1] != before
            ):
                raise self._differs(host, entry)
            before = entry.term

    @staticmethod
    def _differs(host: Host, entry: Entry) -> ViolationError:
        return ViolationError(
            "log matching",
            f"member {host.number} differs from another at or before index {entry.index}, "
            f"term {entry.term}",
        )

    def on_committed(self, host: Host, entries: list[Entry]) -> None:
        """Everybody applies the same, in order, without a gap."""
        expected = self._next.get(host.member_id, 1)
        for entry in entries:
            if entry.index != expected:
                raise ViolationError(
                    "state machine safety",
                    f"member {host.number} goes on with {entry.index} instead of {expected}",
                )
            expected += 1
            content = (entry.term, entry.encoded)
            before = self.committed.setdefault(entry.index, content)
            if before != content:
                raise ViolationError(
                    "state machine safety",
                    f"member {host.number} applies term {entry.term} at {entry.index}, "
                    f"where term {before[0]} was applied",
                )
        self._next[host.member_id] = expected
        self.committed_index = max(self.committed_index, expected - 1)

    def on_role(self, host: Host, change: RoleChange) -> None:
        """Who leads a newer term than all before has everything that is committed.

        Not who comes to lead an older one, because the votes for it waited while it stood still:
        what was committed since is none of its, and it can commit nothing.
        """
        if change.role is not Role.LEADER or change.term < self._newest_term:
            return
        self._newest_term = change.term
        log = host.node.driver.raft._core.log
        if log.last_index < self.committed_index:
            raise ViolationError(
                "leader completeness",
                f"member {host.number} leads term {change.term} with {log.last_index} entries, "
                f"and {self.committed_index} are committed",
            )
        for entry in log.slice(Index(log.base_index + 1), log.last_index):
            known = self.committed.get(entry.index)
            if known is not None and known[0] != entry.term:
                raise ViolationError(
                    "leader completeness",
                    f"member {host.number} leads term {change.term} with another entry "
                    f"{entry.index}: term {entry.term}, committed was {known[0]}",
                )
