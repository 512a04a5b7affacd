"""How long the loop may be held.

The production budget, and driving sliced work on an event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kvstore.budget import Budget, Rota, Sliced, T

if TYPE_CHECKING:
    from wal.files import Lane

log = logging.getLogger("kvstore.server")

SLICE_SECONDS = 0.0005
"""One slice.

Ten of them are a hundredth of a heartbeat interval: peers and clients do not notice.
"""


READING_SECONDS = 0.002
"""What all gRPC clients together may have read in one turn of the loop.

More than the calls take that ordinary clients send in one go: to part those makes them dearer.
"""


class ClockBudget:
    """A deadline on a monotonic clock.

    Made for work that comes to a busy member, its first slice is as short as can be: a thousand may
    come at once, and each begins at once, to hold what it reads.
    """

    __slots__ = ("_clock", "_deadline", "_seconds")

    def __init__(
        self, clock: Callable[[], float], seconds: float = SLICE_SECONDS, *, is_spent: bool = False
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock() + (0.0 if is_spent else seconds)

    def renew(self) -> None:
        """Start a new slice now."""
        self._deadline = self._clock() + self._seconds

    def spent(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._deadline


PAUSE_SECONDS = 0.001
"""How long work that nobody waits for lets the loop be between two slices.

A loop that never rests is one more slice late for everybody, at each step of a call. And it leaves
the threads of the disk no chance: it gives the interpreter's lock up only for the blink of a look
at its sockets, each time too short for one who sleeps to wake up and take it.
"""


class SlicedTask:
    """Sliced work under way on a loop: a slice, then everybody else's turn, then the next.

    Given a rota in place of the loop, it shares the turns with others of its kind, and its first
    slice is what is left of the budget. Given a pause in seconds, it comes back only after that.
    ``done`` gets the result or the exception, once, and never after ``cancel``. Work that ends
    within its first slice is done before the constructor returns.
    """

    __slots__ = ("_budget", "_cancelled", "_done", "_soon", "_work", "running")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | Rota,
        work: Sliced[T],
        budget: Budget,
        done: Callable[[T | BaseException], None],
        *,
        pause_seconds: float = 0.0,
    ) -> None:
        self._soon: Callable[[Callable[[], None]], object] = loop.call_soon
        if pause_seconds:
            assert not isinstance(loop, Rota), "a rota has an order, and no time"
            self._soon = partial(loop.call_later, pause_seconds)
        self._work = work
        self._budget = budget
        self._done = done
        self._cancelled = False
        self.running = True
        """Whether there are slices to come: false from just before ``done`` is called."""
        if isinstance(loop, Rota):
            self._step()
        else:
            self._slice()

    def _slice(self) -> None:
        if not self._cancelled:
            self._budget.renew()
            self._step()

    def _step(self) -> None:
        try:
            next(self._work)
        except StopIteration as stop:
            self.running = False
            self._done(stop.value)
        except Exception as error:  # noqa: BLE001
            # Whatever ended the work is its waiter's to judge.
            self.running = False
            self._done(error)
        else:
            self._soon(self._slice)

    def cancel(self) -> None:
        """Let go of the work where it stands."""
        self._cancelled = True
        self.running = False
        self._work.close()


def answer(reply: Callable[[Any], None], result: Any) -> None:
    """Tell one who waits, and survive it.

    A client's broken connection must not stop the commit loop that answers everybody.
    """
    try:
        reply(result)
    except Exception:
        log.exception("an answer could not be delivered")


async def in_lane(lane: "Lane", job: Callable[[], T]) -> T:
    """Run a job off the loop, in its lane's order, and wait for it."""
    waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    lane.submit(job, partial(_settle, waiting))
    return await waiting


async def in_turns(rota: Rota, work: Sliced[T], budget: Budget) -> T:
    """Do sliced work, as a rota has it, and wait for its result; who leaves lets go of it."""
    waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    task = SlicedTask(rota, work, budget, partial(_settle, waiting))
    try:
        return await waiting
    finally:
        task.cancel()


def _settle(waiting: "asyncio.Future[T]", result: T | BaseException) -> None:
    """Tell one who waits, unless they have left."""
    if waiting.done():
        return
    if isinstance(result, BaseException):
        waiting.set_exception(result)
    else:
        waiting.set_result(result)
