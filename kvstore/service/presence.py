"""Whoever waits, for as long as they are there: making calls, hearing a watch, being sent away."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvstore.errors import Code, KvError
from kvstore.types import WatchCreateRequest, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from kvstore.service.caller import Caller
    from kvstore.service.service import Service
    from kvstore.types.base import Record

TAKE_BYTES_MAX = 64 * 1024


class Presence:
    """One caller who waits for something to change.

    ``end`` says that they wait no more; every step of theirs then raises why. No task is cancelled
    for that: what was proposed on a caller's behalf has an outcome, and somebody has to clean up
    after it.
    """

    __slots__ = ("ended", "stir")

    def __init__(self) -> None:
        self.ended: KvError | None = None
        self.stir = asyncio.Event()

    def end(self, error: KvError) -> None:
        """The wait is over; the first reason counts."""
        if self.ended is None:
            self.ended = error
            self.stir.set()

    def check(self) -> None:
        """Raise the reason why the wait is over, if it is.

        Raises:
            KvError: It is.
        """
        if self.ended is not None:
            raise self.ended


async def ask(
    method: Callable[[Any, "Caller", Callable[[Any], None]], object],
    request: "Record",
    caller: "Caller",
) -> Any:
    """Make one call of the service and wait for its answer.

    Raises:
        KvError: The answer is one.
    """
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def reply(response: Any) -> None:
        # Whoever observes may have been taken away in the middle of a call.
        if not answered.done():
            answered.set_result(response)

    method(request, caller, reply)
    response = await answered
    if isinstance(response, KvError):
        raise response
    return response


class Ear:
    """A watch stream that one coroutine listens to.

    Args:
        service: Whose watch it is.
        caller: Who watches; the watch holds what they may read.
        presence: Ends the listening.
        watches: What is watched.

    Raises:
        KvError: There are too many streams.
    """

    __slots__ = ("_budget", "_feed", "_heard", "_presence")

    def __init__(
        self,
        service: "Service",
        caller: "Caller",
        presence: Presence,
        watches: list[WatchCreateRequest],
    ) -> None:
        self._presence = presence
        self._heard: deque[WatchResponse] = deque()
        self._budget = service.node.read_budget()
        self._feed = service.open_watch(caller, presence.stir.set)
        for watch in watches:
            self._feed.request(WatchRequest(create_request=watch))

    async def hear(self) -> WatchResponse | None:
        """The next response that has events; None if history that is owed has been compacted.

        Raises:
            KvError: The wait is over, or the watch may not go on.
        """
        heard = self._heard
        while True:
            while not heard:
                await self._listen()
            response = heard.popleft()
            if response.canceled:
                if response.compact_revision:
                    return None
                # Without what gRPC wraps around it: the words alone are those of the error.
                raise KvError(Code.UNKNOWN, response.cancel_reason.rpartition(" desc = ")[2])
            if response.events:
                return response

    async def _listen(self) -> None:
        """Wait until the stream has something, and take it."""
        presence = self._presence
        stir = presence.stir
        presence.check()
        stir.clear()
        self._budget.renew()
        self._heard.extend(self._feed.take(self._budget, TAKE_BYTES_MAX))
        if self._heard:
            return
        if stir.is_set():
            # There is more than a slice could find; the others' turn comes first.
            await asyncio.sleep(0)
        else:
            await stir.wait()

    def close(self) -> None:
        """Listen no more."""
        self._feed.close()
