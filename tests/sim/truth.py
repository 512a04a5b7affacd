"""What really happened, by revision: collected from every member as it applies.

Before a compaction takes it. Where two members know a revision they must know the same of it, at
once and for ever: also who came back, and who took over another's state by a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.types import Event
from kvstore.watch.events import make_event
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from kvstore.mvcc.store import Store
    from kvstore.types import KeyValue
    from tests.sim.world import World
    from tests.support.host import Host

SLICE = 1 << 20
"""More versions than there are."""


class _Known:
    """How far one member's state is known."""

    __slots__ = ("compacted", "machine", "revision")

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.revision = 0
        self.compacted = 0


class Truth(NodeChecker):
    """Fills ``History.truth`` and ``truth_at``, and finds members that differ.

    Attributes:
        compactions: When somebody first applied a compaction, and at which revision, in order.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._events = world.history.truth
        self._known: dict[int, _Known] = {}
        self.compactions: list[tuple[float, int]] = []

    @property
    def compacted_revision(self) -> int:
        """The highest that was ever compacted."""
        return self.compactions[-1][1] if self.compactions else 0

    @property
    def revision(self) -> int:
        """The highest that anybody applied."""
        return next(reversed(self._events), 1)

    def on_start(self, host: Host) -> None:
        """What a member found on its disk is compared."""
        self._look(host)

    def on_end(self, host: Host) -> None:
        """What it knew is gone with it."""
        self._known.pop(host.number, None)

    def on_turn(self, host: Host) -> None:
        """What it has applied in this turn is compared, or noted."""
        if host.node.applier.busy:
            self.world.marks.hit("huge command", host.number)
        self._look(host)

    def _look(self, host: Host) -> None:
        machine = host.machine
        known = self._known.get(host.number)
        if known is None or known.machine is not machine:
            # New to us in whole: it was started, or it has installed a snapshot.
            known = self._known[host.number] = _Known(machine)
        store = machine.store
        if store.compacted_revision > known.compacted:
            known.compacted = store.compacted_revision
            self._compacted(host, store.compacted_revision)
        if store.revision > known.revision:
            self._take(host, store, known)

    def _compacted(self, host: Host, revision: int) -> None:
        if revision > self.compacted_revision:
            self.compactions.append((self.world.loop.now, revision))
            self.world.marks.hit("compaction applied", host.number)

    def _take(self, host: Host, store: Store, known: _Known) -> None:
        first, last = known.revision + 1, store.revision
        known.revision = last
        records, _ = store.log_slice(store.log_position(first), SLICE)
        by_revision: dict[int, list[KeyValue]] = {}
        for record in records:
            by_revision.setdefault(record.mod_revision, []).append(record)
        for revision in range(max(2, first), last + 1):
            own = by_revision.get(revision, [])
            if revision > min(store.compacted_revision, self.revision):
                self._compare(host, revision, [make_event(record) for record in own])
            else:
                self._compare_rest(host, revision, own)

    def _compare(self, host: Host, revision: int, events: list[Event]) -> None:
        """All events of a revision."""
        told = self._events.get(revision)
        if told is None and revision > self.revision:
            self._events[revision] = events
            self.world.history.truth_at[revision] = self.world.loop.now
            told = events
        if told != events or not events:
            raise ViolationError(
                "equality",
                f"revision {revision} is {_shown(events)} on member {host.number}, and was "
                f"{_shown(told or [])} on another",
            )

    def _compare_rest(self, host: Host, revision: int, records: list[KeyValue]) -> None:
        """What a compaction left of a revision; all of it was known before that."""
        told = self._events.get(revision, [])
        for record in records:
            if make_event(record) not in told:
                raise ViolationError(
                    "equality",
                    f"member {host.number} keeps {_shown([make_event(record)])} of the compacted "
                    f"revision {revision}, which was {_shown(told)}",
                )


def _shown(events: list[Event]) -> str:
    shown = [
        f"{event.type.name.lower()} {event.kv.key.decode(errors='replace')}"
        f"={event.kv.value[:32].decode(errors='replace')} (version {event.kv.version})"
        for event in events[:8]
        if event.kv is not None
    ]
    return "; ".join(shown) or "nothing"
