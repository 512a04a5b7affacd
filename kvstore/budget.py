"""Long work is cut in slices, and a budget says when a slice ends.

Sliced work is a generator: it checks ``budget.spent()`` every few items and yields when it is;
whoever drives it renews the budget before each ``next``. In production a budget is a monotonic
deadline of about half a millisecond, in simulation a seeded count of steps: pure rooms know
neither.
"""

from collections import deque
from collections.abc import Callable, Generator
from typing import Final, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Sliced: TypeAlias = Generator[None, None, T]
"""Work that yields between slices and returns its result."""


class Budget(Protocol):
    """How long a slice may last."""

    def renew(self) -> None:
        """Start a new slice."""

    def spent(self) -> bool:
        """Whether the slice should end now. Cheap, but not free: ask every 16 to 64 items."""


class CountedBudget:
    """A budget of a fixed number of ``spent`` calls a slice.

    For tests, and for work that may finish in one go.
    """

    __slots__ = ("_left", "_steps")

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._left = steps

    def renew(self) -> None:
        """Start a new slice of ``steps`` calls."""
        self._left = self._steps

    def spent(self) -> bool:
        """Count one call; true from the last one on."""
        self._left -= 1
        return self._left <= 0


def finish(work: Sliced[T], budget: Budget) -> T:
    """Drive sliced work to its end without a pause: for start-up and tests, where nobody waits."""
    while True:
        budget.renew()
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


SLICES_A_TURN: Final = 8
"""Slices of answers to clients between two turns of everybody else: some milliseconds."""


class Rota:
    """Whose slice is next, where many do long work at the same time.

    Were each to come back to the loop by itself, a thousand of them would take a thousand slices
    before a heartbeat leaves, and a leader that is asked so much would lose its office.

    Args:
        soon: has a function called after everybody else's turn.
    """

    __slots__ = ("_is_going", "_soon", "_waiting")

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_going = False

    @property
    def is_busy(self) -> bool:
        """Whether there is more to do than one turn takes."""
        return len(self._waiting) >= SLICES_A_TURN

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have a slice done once those before it are."""
        self._waiting.append(work)
        if not self._is_going:
            self._is_going = True
            self._soon(self._turn)

    def _turn(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(min(len(waiting), SLICES_A_TURN)):
                waiting.popleft()()
        finally:
            # Also if one failed: the others know nothing of that.
            if waiting:
                self._soon(self._turn)
            else:
                self._is_going = False
