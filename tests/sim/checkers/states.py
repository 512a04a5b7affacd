"""Equal entries make equal states: at every index, on every member, in every life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.apply.capture import Capture
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from kvstore.apply import Outcome, StateMachine
    from tests.sim.world import World
    from tests.support.host import Host


class States(NodeChecker):
    """Compares what a member's state comes to after each entry with what it came to elsewhere."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._known: dict[int, tuple[int, int]] = {}
        """Index to (hash over all effects, revision)."""
        self._machines: dict[int, StateMachine] = {}

    def on_start(self, host: Host) -> None:
        """The snapshot that it starts from is what was at its index."""
        self._compare(host, host.machine)
        self._machines[host.number] = host.machine

    def on_outcome(self, host: Host, outcome: Outcome) -> None:
        """An entry was applied."""
        machine = host.machine
        if machine.applied_index != outcome.index:
            raise ViolationError(
                "state machine safety",
                f"member {host.number} has applied entry {outcome.index}, and says that it is at "
                f"{machine.applied_index}",
            )
        self._compare(host, machine)

    def on_turn(self, host: Host) -> None:
        """A snapshot took the place of the state."""
        machine = host.machine
        if self._machines.get(host.number) is not machine:
            self._machines[host.number] = machine
            self.world.marks.hit("snapshot installed", host.number)
            self._compare(host, machine)

    def _compare(self, host: Host, machine: StateMachine) -> None:
        state = (machine.effects_hash, machine.store.revision)
        known = self._known.setdefault(machine.applied_index, state)
        if known != state:
            raise ViolationError(
                "equality",
                f"member {host.number} at index {machine.applied_index} has hash {state[0]:08x}, "
                f"revision {state[1]}; elsewhere it was {known[0]:08x}, {known[1]}",
            )

    def at_end(self) -> None:
        """All members hold the same in every part: what a snapshot of each would say."""
        contents: dict[bytes, int] = {}
        for host in self.world.cluster.hosts:
            capture = Capture(host.machine)
            contents.setdefault(b"".join(capture.chunks()), host.number)
            capture.close()
        if len(contents) > 1:
            raise ViolationError("equality", f"members {sorted(contents.values())} hold different")
