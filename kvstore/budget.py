"""Long work is cut in slices, and a budget says when a slice ends.

Sliced work is a generator: it checks ``budget.spent()`` every few items and yields when it is;
whoever drives it renews the budget before each ``next``. In production a budget is a monotonic
deadline of about half a millisecond, in simulation a seeded count of steps: pure rooms know
neither.
"""

from collections.abc import Generator
from typing import Protocol, TypeAlias, TypeVar

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
