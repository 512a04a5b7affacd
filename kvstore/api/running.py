"""What takes long, streams and patient calls, and how all of it ends when the server stops."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from kvstore.api.answer import Answer, Pending, error_answer
from kvstore.api.limits import Counters
from kvstore.api.wait import Waiter
from kvstore.errors import Code, ErrorKind, KvError

log = logging.getLogger("kvstore.api")


def internal_error() -> KvError:
    """What a client is told of a mistake of our own."""
    return KvError(Code.INTERNAL, "kvstore: internal error")


class Running:
    """All that is under way and would not end soon by itself.

    Args:
        counters: what is counted.
    """

    __slots__ = ("_counters", "_tasks")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._tasks: set[asyncio.Task[Any]] = set()

    def end_all(self) -> None:
        """The server stops: each is told so, and ends."""
        for task in self._tasks:
            task.cancel()

    async def stream(
        self, conversation: Coroutine[Any, Any, None], seconds: float | None
    ) -> KvError | None:
        """Run a stream until it ends, its time is over, or the server stops.

        Args:
            conversation: the stream.
            seconds: how long it may go on; None: no limit.

        Returns:
            What to tell the client: the error that ended it, or None.

        Raises:
            ConnectionError: the client is gone.
        """
        counters = self._counters
        task = asyncio.ensure_future(conversation)
        self._tasks.add(task)
        counters.streams_open += 1
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
            if not done:
                return ErrorKind.DEADLINE_EXCEEDED.error()
            return ErrorKind.STOPPED.error() if task.cancelled() else self._failure(task)
        finally:
            counters.streams_open -= 1
            self._tasks.discard(task)
            await _end(task)

    def _failure(self, task: "asyncio.Task[None]") -> KvError | None:
        """How a stream ended by itself: well, or with an error to tell its client."""
        failure = task.exception()
        if failure is None or isinstance(failure, KvError):
            return failure
        if isinstance(failure, ConnectionError):
            raise failure
        log.error("a stream failed by a mistake of the server's own", exc_info=failure)
        self._counters.surprises += 1
        return internal_error()

    async def patiently(self, pending: Pending, seconds: float | None) -> Answer:
        """Wait for a call that may take long; if nobody waits any more, the call hears of it.

        Args:
            pending: the call.
            seconds: how long its caller waits; None: no limit.
        """
        waiter = Waiter()
        leave = pending.begin(waiter)
        task = asyncio.ensure_future(waiter.wait())
        self._tasks.add(task)
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
            if not done:
                return error_answer(ErrorKind.DEADLINE_EXCEEDED.error())
            if task.cancelled():
                return error_answer(ErrorKind.STOPPED.error())
            return pending.finish(task.result())
        finally:
            self._tasks.discard(task)
            if leave is not None and (not task.done() or task.cancelled()):
                leave()
            await _end(task)


async def _end(task: "asyncio.Task[Any]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        # Where the caller was cancelled meanwhile nobody asks how it ended: a client that leaves
        # in the middle of an answer would be reported as a mistake of the server's.
        task.exception()
