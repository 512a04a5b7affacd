"""One round: clients at work on keys of the round's own, faults under them, and the judgement.

Judging a history costs more than its length, so each round is judged by itself. What one round's
clients never heard the end of may still happen in a later round, but on the earlier one's keys.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from kvstore.client import prefix_end
from kvstore.types import DeleteRangeRequest, PutRequest, RangeRequest
from tests.chaos.faults import Fault
from tests.chaos.judging import judge_round, only
from tests.chaos.load import Appender, Reader
from tests.chaos.members import World, in_time
from tests.chaos.recording import Caller, Recorder
from tests.chaos.report import Report, say
from tests.chaos.sessions import Leaseholder, Locker
from tests.chaos.watching import Watcher, everything, requests
from tests.checking.history import Outcome
from tests.checking.judge import doubts_of

WORKERS: Final = ((Reader, 6), (Appender, 2), (Leaseholder, 2), (Locker, 3))
CALM_SECONDS: Final = 1.0
TWO_FAULTS: Final = 0.5
"""How often a second fault happens during the first one, where it may."""
SECOND_FAULT_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.2
SAY_SECONDS: Final = 4.0
CATCH_UP_SECONDS: Final = 30.0


class Deck:
    """Faults in the order of a shuffled deck: all kinds have their turn before any has two."""

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._faults = list(faults)
        self._rng = rng
        self._left: list[Fault] = []

    def draw(self) -> list[Fault]:
        """What happens in the next round: one fault, or two at a time."""
        first = self._next()
        if first.alone or self._rng.random() >= TWO_FAULTS:
            return [first]
        others = [fault for fault in self._faults if not fault.alone and fault is not first]
        return [first, self._rng.choice(others)] if others else [first]

    def _next(self) -> Fault:
        if not self._left:
            self._left = self._rng.sample(self._faults, len(self._faults))
        return self._left.pop()


class _Breaking(threading.Thread):
    """A fault under way."""

    def __init__(
        self, fault: Fault, world: World, rng: random.Random, after_seconds: float
    ) -> None:
        super().__init__(name=fault.name, daemon=True)
        self._fault = fault
        self._world = world
        self._rng = rng
        self._after_seconds = after_seconds
        self.happened = False
        self.error: BaseException | None = None

    def run(self) -> None:
        threading.Event().wait(self._after_seconds)
        try:
            self.happened = self._fault.run(self._world, self._rng)
        except BaseException as error:  # noqa: BLE001 - it is raised where the round is led
            self.error = error


class Round:
    """One round of a run.

    Args:
        world: Whom it happens to.
        number: From 1 on; with the seed it decides everything that is decided.
        seed: Of the run.
        report: Counts.
    """

    def __init__(self, world: World, number: int, seed: int, report: Report) -> None:
        self._world = world
        self._number = number
        self._rng = random.Random(f"{seed} {number}")
        self._report = report
        self._prefix = b"r%d/" % number
        self._urls = [member.client_url for member in world.members]
        self._over = threading.Event()
        self.recorder = Recorder()
        self._said_at = time.monotonic()
        self._faults = ""

    def run(self, faults: Sequence[Fault]) -> None:
        """Work, break, make whole, judge.

        Raises:
            ViolationError: A promise was broken.
        """
        world = self._world
        revision = self._revision()
        truth = Watcher(
            self.recorder, self._urls, everything(revision), self._new_rng(), hidden=True
        )
        world.revision_seen = lambda: truth.seen
        wanted = requests(self._prefix, revision, self._new_rng())
        watchers = [Watcher(self.recorder, self._urls, one, self._new_rng()) for one in wanted]
        workers = [
            kind(self.recorder, self._urls, self._prefix, self._new_rng(), self._over)
            for kind, count in WORKERS
            for _ in range(count)
        ]
        self._faults = " and ".join(fault.name for fault in faults)
        for one in (truth, *watchers, *workers):
            one.start()
        try:
            threading.Event().wait(CALM_SECONDS)
            self._break(faults)
            world.settle()
            threading.Event().wait(CALM_SECONDS)
        finally:
            self._over.set()
        for worker in workers:
            worker.join()
        last = self._end()
        for watcher in (truth, *watchers):
            in_time(
                f"a watch has seen revision {last}",
                partial(watcher.has_seen, last),
                CATCH_UP_SECONDS,
            )
        world.check_equal()
        world.check_running()
        world.check_logs()
        for watcher in watchers:
            watcher.stop()
        # A lease may have ended since: what anybody was told, the truth has to know.
        told = max(max(watcher.truth, default=0) for watcher in watchers)
        in_time(f"the truth has revision {told}", partial(truth.has_seen, told), CATCH_UP_SECONDS)
        truth.stop()
        self._judge(truth, revision)

    def _new_rng(self) -> random.Random:
        return random.Random(self._rng.getrandbits(64))

    def _revision(self) -> int:
        with self._world.members[0].client() as client:
            header = client.get(b"\0", limit=1).header
        assert header is not None
        return header.revision

    def _break(self, faults: Sequence[Fault]) -> None:
        """Let the faults happen, and watch that nothing else does."""
        breaking = [
            _Breaking(
                fault,
                self._world,
                self._new_rng(),
                self._rng.uniform(0.0, SECOND_FAULT_SECONDS) if number else 0.0,
            )
            for number, fault in enumerate(faults)
        ]
        for one in breaking:
            one.start()
        while any(one.is_alive() for one in breaking):
            threading.Event().wait(LOOK_SECONDS)
            self._world.check_running()
            for one in breaking:
                if one.error is not None:
                    raise one.error
            self._say(" and ".join(one.name for one in breaking if one.is_alive()))
        for one in breaking:
            if one.error is not None:
                raise one.error
            self._report.saw_fault(one.name, happened=one.happened)

    def _say(self, what: str) -> None:
        now = time.monotonic()
        if now - self._said_at < SAY_SECONDS:
            return
        self._said_at = now
        counts = self.recorder.counts
        by_outcome = [
            sum(count for (_, how), count in counts.items() if how is outcome)
            for outcome in Outcome
        ]
        say(
            f"{self._report.seconds:6.0f} s  round {self._number}  {what or 'all is whole'}: "
            "{} ok, {} refused, {} unknown".format(*by_outcome)
        )

    def _end(self) -> int:
        """The last words: everything is whole, so they come through; returns their revision."""
        caller = Caller(self.recorder, self._urls, "last words")
        key = self._prefix + b"end"

        def said() -> int:
            put = caller.call("put", PutRequest(key, b"%d" % caller.number))
            gone = caller.call("delete_range", DeleteRangeRequest(key))
            if put.outcome is not Outcome.OK or gone.outcome is not Outcome.OK:
                return 0
            return int(gone.response.header.revision)

        revision = in_time("a last write", said, CATCH_UP_SECONDS)
        for _ in self._urls:
            caller.call("range", RangeRequest(self._prefix, prefix_end(self._prefix)))
            caller.move()
        caller.close()
        return revision

    def _judge(self, truth: Watcher, revision: int) -> None:
        history = self.recorder.history
        history.ended_at = time.monotonic()
        if not truth.compacted:
            history.truth = only(self._prefix, truth.truth)
            history.truth_at = {each: truth.seen_at[each] for each in history.truth}
        self._report.rounds += 1
        self._report.operations.update(self.recorder.counts)
        self._report.saw_outages(self.recorder.outages, f"round {self._number}, {self._faults}")
        self._report.watches += len(history.watches)
        self._report.events += sum(
            len(response.events) for watch in history.watches for _, response in watch.responses
        )
        began = time.monotonic()
        doubts = []
        if judge_round(history):
            doubts.append("what really happened is not known: it was compacted before it was heard")
        doubts += doubts_of(history, alone=False, since=revision, compacted=self._world.compactions)
        self._report.doubts += [f"round {self._number}: {words}" for words in doubts]
        self._report.saw_judging(time.monotonic() - began, len(history.operations))
