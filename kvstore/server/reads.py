"""Reads that must see what is current: they wait for one ReadIndex round together (thesis §6.4).

All reads of one turn of the loop share a context; raft lets the contexts that wait share a round. A
round that gets lost (a message dropped, a leader gone) is asked for again until the reads' time is
up.
"""

from collections.abc import Callable

from kvstore.errors import ErrorKind, KvError
from kvstore.server.pacing import answer

ReadReply = Callable[["KvError | None"], None]
"""Called with None when the read may be served from the local store.

With an error when it may not.
"""


class Reads:
    """Reads that wait for their round.

    ``count_max`` bounds how many; more are refused at once as retryable.
    """

    def __init__(self, *, wake: Callable[[], None], election_ticks: int, count_max: int) -> None:
        self._wake = wake
        self._election_ticks = election_ticks
        self._count_max = count_max
        self._context = 0
        self._fresh: list[tuple[ReadReply, float]] = []
        self._rounds: dict[int, list[tuple[ReadReply, float]]] = {}
        self._asked_tick: dict[int, int] = {}
        self._tick = 0
        self._count = 0
        self.refused_total = 0
        self.failed_total = 0

    def __len__(self) -> int:
        return self._count

    def submit(self, reply: ReadReply, deadline: float) -> None:
        """Wait for a round that begins after now.

        ``deadline`` is on the loop's clock, in seconds.
        """
        if self._count >= self._count_max:
            self.refused_total += 1
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self._count += 1
        if not self._fresh:
            self._wake()
        self._fresh.append((reply, deadline))

    def take_context(self) -> int | None:
        """The context to ask raft for in this turn, if any read is fresh."""
        if not self._fresh:
            return None
        self._context = context = self._context + 1
        self._rounds[context] = self._fresh
        self._asked_tick[context] = self._tick
        self._fresh = []
        return context

    def answer(self, context: int) -> None:
        """Raft says that this context is linearizable at what is applied now."""
        waiting = self._rounds.pop(context, None)
        if waiting is None:
            return
        del self._asked_tick[context]
        self._count -= len(waiting)
        for reply, _ in waiting:
            answer(reply, None)

    def reject(self, context: int) -> None:
        """Raft could not say. The reads wait for the next tick and ask again."""
        if context in self._asked_tick:
            self._asked_tick[context] = self._tick - self._election_ticks

    def tick(self, now: float) -> None:
        """Give up reads that are past their deadline; ask again for rounds that got lost."""
        self._tick += 1
        lost = [
            context
            for context, asked in self._asked_tick.items()
            if asked + self._election_ticks <= self._tick
        ]
        for context in lost:
            del self._asked_tick[context]
            self._fresh.extend(self._rounds.pop(context))
        self._give_up_late(now)
        if self._fresh:
            self._wake()

    def _give_up_late(self, now: float) -> None:
        for waiting in (self._fresh, *self._rounds.values()):
            late = [reply for reply, deadline in waiting if deadline <= now]
            if late:
                waiting[:] = [read for read in waiting if read[1] > now]
                self._fail(late, ErrorKind.TIMEOUT)

    def _fail(self, replies: list[ReadReply], kind: ErrorKind) -> None:
        self._count -= len(replies)
        self.failed_total += len(replies)
        for reply in replies:
            answer(reply, kind.error())

    def fail_all(self, kind: ErrorKind) -> None:
        """The member stops."""
        waiting = [reply for reply, _ in self._fresh]
        waiting += [reply for reads in self._rounds.values() for reply, _ in reads]
        self._fresh = []
        self._rounds.clear()
        self._asked_tick.clear()
        self._fail(waiting, kind)
