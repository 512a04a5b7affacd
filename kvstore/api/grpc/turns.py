"""Whose bytes are read next, and for how long in one turn of the loop?

What clients send in no time may take long to read: some hundred bytes unpack to two megabytes, and
one read of a socket holds a thousand such messages. All connections together get one budget a turn.
Whoever finds it spent stops where it stands, and gets in line. What costs little goes on meanwhile:
others' calls do not wait for those who stand there.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from kvstore.budget import SLICES_A_TURN, Budget

LOOK_BYTES: Final = 8 * 1024
"""After how much the budget is looked at: ordinary clients send less in one go.

So much takes two or three milliseconds at worst, be it three hundred calls or a message of four
thousand fields.
"""
MESSAGE_COST_BYTES: Final = 64
"""What a message of a stream costs besides its content."""


RESTS: Final = 6
"""Turns of the loop without any reading of this kind, after each that took all of its budget.

A new client needs several before it has its answer, and connections come in one a turn.
"""


class Turns:
    """The line of those who have more to read, and the budget of each turn.

    Args:
        soon: has a function called after everybody else's turn.
        budget: of one turn.
    """

    __slots__ = (
        "_budget",
        "_credit_bytes",
        "_is_going",
        "_is_over",
        "_rests_left",
        "_soon",
        "_waiting",
    )

    def __init__(self, soon: Callable[[Callable[[], None]], object], budget: Budget) -> None:
        self._soon = soon
        self._budget = budget
        self._waiting: deque[Callable[[], None]] = deque()
        self._credit_bytes = LOOK_BYTES
        self._rests_left = 0
        self._is_going = False
        """Whether this turn has begun, and what comes after it is called for."""
        self._is_over = False
        """Whether nobody may have any more of this turn."""

    def is_spent(self) -> bool:
        """Whether this turn's budget is spent; the first who asks in a turn begins it."""
        if not self._is_going:
            self._begin()
        return self._is_over or self._budget.spent()

    def has_room(self, size_bytes: int, *, is_compressed: bool) -> bool:
        """Whether a message may be read now.

        The budget is looked at before any that is compressed, as it may become anything, and before
        any that is long; short ones are counted together.
        """
        if not is_compressed:
            self._credit_bytes -= size_bytes + MESSAGE_COST_BYTES
            if self._credit_bytes >= 0:
                return True
        self._credit_bytes = LOOK_BYTES
        return not self.is_spent()

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have some more read, when those who came before have had their turn."""
        self._waiting.append(work)
        if not self._is_going:
            self._begin()

    def end(self) -> None:
        """Let nobody have any more of this turn: somebody got all of it."""
        self._is_over = True

    def _begin(self) -> None:
        self._is_going = True
        self._is_over = False
        self._budget.renew()
        self._soon(self._next)

    def _next(self) -> None:
        waiting = self._waiting
        if not waiting:
            self._is_going = False
            return
        if self._rests_left:
            # The budget stays spent meanwhile.
            self._rests_left -= 1
            self._soon(self._next)
            return
        self._begin()
        for _ in range(min(len(waiting), SLICES_A_TURN)):
            waiting.popleft()()
            if self.is_spent():
                self._rests_left = RESTS
                break
