"""Answers that take a while to encode: one at a time for each connection.

What such an answer is made of is in the store anyhow; its bytes are not. Were all of a connection's
encoded side by side, four thousand calls for everything would be there four thousand times over
before the first of them is finished, and could be refused for what the client leaves untaken.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from kvstore.api.answer import Outcome
from kvstore.budget import Budget, Sliced

log = logging.getLogger("kvstore.api")


class Long(NamedTuple):
    """An answer that is to be encoded in slices: the work, and the budget that it asks."""

    work: Sliced[bytes]
    budget: Budget


class Asker(Protocol):
    """A call whose answer is long."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the answer still."""

    def reply(self, outcome: Outcome) -> None:
        """Its bytes are there, or will never be."""

    def surprise(self) -> None:
        """It failed by a mistake of ours."""


class LongAnswers:
    """Those of one connection.

    Args:
        soon: has a function called after everybody else's turn.
    """

    __slots__ = ("_is_busy", "_soon", "_waiting")

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._waiting: deque[tuple[Asker, Long]] = deque()
        self._is_busy = False

    def add(self, asker: Asker, answer: Long) -> None:
        """Encode an answer once those before it are, and reply with its bytes."""
        self._waiting.append((asker, answer))
        if not self._is_busy:
            self._is_busy = True
            self._go_on()

    def _go_on(self) -> None:
        """A slice of the first; the rest after everybody else's turn."""
        waiting = self._waiting
        if waiting:
            asker, answer = waiting[0]
            if not asker.is_awaited or self._is_done(asker, answer):
                waiting.popleft()
        if waiting:
            self._soon(self._go_on)
        else:
            self._is_busy = False

    def _is_done(self, asker: Asker, answer: Long) -> bool:
        answer.budget.renew()
        try:
            next(answer.work)
        except StopIteration as stop:
            asker.reply(stop.value)
        except Exception:
            log.exception("an answer could not be encoded by a mistake of the server's own")
            asker.surprise()
        else:
            return False
        return True
