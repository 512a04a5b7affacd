"""From callback to await: one reply, perhaps there before anybody waits for it."""

import asyncio
from typing import Final

from kvstore.api.answer import Answer, Outcome, Pending

_NOTHING: Final = object()


class Waiter:
    """Pass it as the reply of one call, then ``await waiter.wait()``.

    A reply that comes at once costs no future; one that comes after the waiting task was cancelled
    is dropped.
    """

    __slots__ = ("_future", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome = _NOTHING
        self._future: asyncio.Future[Outcome] | None = None

    def __call__(self, outcome: Outcome) -> None:
        """Take the reply."""
        assert self._outcome is _NOTHING, "a call is answered once"
        self._outcome = outcome
        future = self._future
        if future is not None and not future.done():
            future.set_result(outcome)

    async def wait(self) -> Outcome:
        """The reply."""
        if self._outcome is _NOTHING:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        return self._outcome


async def finished(pending: Pending) -> Answer:
    """Begin a call and wait for its answer."""
    waiter = Waiter()
    pending.begin(waiter)
    return pending.finish(await waiter.wait())
