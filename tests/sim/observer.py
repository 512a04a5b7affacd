"""Sees every step of every member, tells the checkers, and counts marks.

It wraps methods of each node as it is made, by instance; the product does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft.messages import AppendEntries, TimeoutNow
from raft.types import EntryKind, Role
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    from raft.effects import Effects, RoleChange
    from raft.messages import Message
    from raft.types import Entry
    from tests.sim.checkers import NodeChecker
    from tests.sim.marks import Marks
    from tests.sim.trace import Trace
    from tests.support.host import Host


class Observer:
    """Watches the nodes of one cluster.

    Args:
        trace: Where to note what happens.
        marks: What to count.
        on_violation: Told of what a checker finds. Nothing is raised into the product, which would
            take it for a failure of its own.
    """

    def __init__(
        self, trace: Trace, marks: Marks, on_violation: Callable[[ViolationError], None]
    ) -> None:
        self._trace = trace
        self._marks = marks
        self._on_violation = on_violation
        self.checkers: list[NodeChecker] = []
        self._leaders: dict[int, int] = {}
        self._known: dict[int, None] = {}

    def on_node(self, host: Host) -> None:
        """A process was started on a host, and its node made."""
        driver = host.node.driver
        self._trace.add("start", host.number, f"member {host.member_id:x}, term {driver.raft.term}")
        _around(driver, "_carry_out", lambda effects: self._on_effects(host, effects))
        _around(host.node.applier, "enqueue", lambda entries: self._on_committed(host, entries))
        _around(
            host.node.applier,
            "_on_outcome",
            lambda outcome: self._tell("on_outcome", host, outcome),
        )
        _around(host.node.peers, "send", lambda message: self._on_send(host, message))
        _around(
            host.node.peers,
            "_on_message",
            lambda message: self._on_receive(host, message),
        )
        _after(driver, "_turn", lambda: self._tell("on_turn", host))
        self._tell("on_start", host)
        known = host.number in self._known
        self._known[host.number] = None
        self._marks.hit("restart" if known else "start", host.number)

    def on_end(self, host: Host) -> None:
        """A process ended."""
        self._leaders.pop(host.number, None)
        self._tell("on_end", host)

    def _tell(self, event: str, *args: Any) -> None:
        for checker in self.checkers:
            try:
                getattr(checker, event)(*args)
            except ViolationError as error:
                self._on_violation(error)

    # --- what nodes do ----------------------------------------------------------------------------

    def _on_role(self, host: Host, change: RoleChange) -> None:
        name = change.role.name.lower()
        self._trace.add("role", host.number, f"{name}, term {change.term}, of {change.leader:x}")
        if change.role is Role.LEADER:
            if host.number not in self._leaders:
                self._marks.hit("leader elected", host.number)
            self._leaders[host.number] = change.term
            if len(self._leaders) > 1:
                self._marks.hit("old leader still leads", host.number)
        elif self._leaders.pop(host.number, None) is not None:
            self._marks.hit("leader stepped down", host.number)
        self._tell("on_role", host, change)

    def _on_effects(self, host: Host, effects: Effects) -> None:
        # Before anything that it says in its new role leaves.
        if effects.role_change is not None:
            self._on_role(host, effects.role_change)
        self._tell("on_effects", host, effects)
        if effects.entries:
            if any(isinstance(message, AppendEntries) for message in effects.messages):
                self._marks.hit("entries sent before their sync", host.number)
            if any(entry.kind is EntryKind.CONFIGURATION for entry in effects.entries):
                self._marks.hit("configuration appended", host.number)

    def _on_committed(self, host: Host, entries: list[Entry]) -> None:
        self._tell("on_committed", host, entries)

    def _on_send(self, host: Host, message: Message) -> None:
        if self._trace.messages:
            self._trace.add("send", host.number, _describe(message))
        if isinstance(message, TimeoutNow):
            self._marks.hit("transfer begun", host.number)
        self._tell("on_send", host, message)

    def _on_receive(self, host: Host, message: Message) -> None:
        if self._trace.messages:
            self._trace.add("receive", host.number, _describe(message))


def _around(owner: object, name: str, before: Callable[[Any], None]) -> None:
    """Call ``before`` with the argument of each call of a method, then the method."""
    method = getattr(owner, name)

    def observed(argument: Any) -> Any:
        before(argument)
        return method(argument)

    setattr(owner, name, observed)


def _after(owner: object, name: str, after: Callable[[], None]) -> None:
    """Call a method, then ``after``."""
    method = getattr(owner, name)

    def observed() -> None:
        method()
        after()

    setattr(owner, name, observed)


def _describe(message: Message) -> str:
    kind = type(message).__name__
    text = f"{kind} {message.sender:x}>{message.receiver:x} term {message.term}"
    if isinstance(message, AppendEntries):
        text += f" after {message.prev_index}, {len(message.entries)} entries"
    return text
