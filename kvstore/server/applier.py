"""Committed entries on their way into the state machine.

In order, in slices, without holding the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.apply import Outcome
from kvstore.server.corruption import MARK_MASK, Marks
from kvstore.server.pacing import SlicedTask

if TYPE_CHECKING:
    from kvstore.apply import StateMachine
    from kvstore.budget import Budget, Sliced
    from raft.types import Entry

TURN_SECONDS = 0.001
"""How long small commands are applied in one go.

Two slices: a batch of 64 is answered in one go, and what those ask next is one batch again. Of a
longer one the first are answered before the last are applied, so that their next requests are on
their way to the other members meanwhile.
"""

CHECK_EVERY = 16
"""Entries between two looks at the budget."""


class Applier:
    """Applies what is committed and tells who waits.

    Args:
        loop: Slices of one huge command alternate with everything else on it.
        machine: The replicated state.
        turn_budget: How long one ``run`` may take.
        budget: How long one slice of a huge command may take.
        on_outcome: Told of each entry's outcome, in order.
        wake: Asks for another ``run`` when there is more to do.
        on_failure: Told when an entry cannot be applied: the member must stop.

    Attributes:
        machine: The state as it is now; replaced as a whole when a snapshot is installed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: "StateMachine",
        turn_budget: "Budget",
        budget: "Budget",
        on_outcome: Callable[[Outcome], None],
        wake: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._loop = loop
        self.machine = machine
        self._turn_budget = turn_budget
        self._budget = budget
        self._on_outcome = on_outcome
        self._wake = wake
        self._on_failure = on_failure
        self._queue: deque[Entry] = deque()
        self._huge: SlicedTask | None = None
        self.marks = Marks()
        self.huge_total = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether a huge command is half applied (invisibly)."""
        return self._huge is not None

    def enqueue(self, entries: "list[Entry]") -> None:
        """These are committed; the next ``run`` begins with them."""
        self._queue.extend(entries)

    def run(self) -> None:
        """Apply until nothing is left.

        Or the budget is spent, or a huge command goes on by itself.
        """
        queue = self._queue
        if self._huge is not None or not queue:
            return
        budget = self._turn_budget
        budget.renew()
        self._budget.renew()
        apply = self.machine.apply
        on_outcome = self._on_outcome
        now = self._loop.time()
        left = CHECK_EVERY
        while queue:
            result = apply(queue.popleft(), now)
            if not isinstance(result, Outcome):
                self.huge_total += 1
                self._start_huge(result)
                return
            on_outcome(result)
            if not result.index & MARK_MASK:
                self.marks.note(result.index, self.machine.effects_hash)
            left -= 1
            if left == 0:
                if budget.spent():
                    self._wake()
                    return
                self._budget.renew()
                left = CHECK_EVERY

    def _start_huge(self, work: "Sliced[Outcome]") -> None:

        def done(result: "Outcome | BaseException") -> None:
            self._huge = None
            if isinstance(result, BaseException):
                self._on_failure(result)
                return
            self._on_outcome(result)
            if not result.index & MARK_MASK:
                self.marks.note(result.index, self.machine.effects_hash)
            self._wake()

        task = SlicedTask(self._loop, work, self._budget, done)
        if task.running:
            self._huge = task

    def replace(self, machine: "StateMachine") -> None:
        """The state is a snapshot's now.

        Everything queued is in it already, and a half applied command is thrown away with the state
        it was changing.
        """
        if self._huge is not None:
            self._huge.cancel()
            self._huge = None
        self._queue.clear()
        self.marks.clear()
        self.machine = machine
