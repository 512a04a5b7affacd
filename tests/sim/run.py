"""Runs one seed, and says what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from tests.checking.history import History
from tests.checking.violation import ViolationError
from tests.sim.schedule import Fault, draw
from tests.sim.trace import TraceEvent
from tests.sim.world import World
from tests.support.virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from tests.sim.profile import Profile

SECONDS_MAX = 600.0
"""Virtual seconds that a run may take before it counts as hung."""
REAL_SECONDS_MAX = 180.0
"""And seconds of ours: where virtual time stands still, none of the others ever go by. A run takes
one or two."""


class HungError(KeyboardInterrupt):
    """A run takes too long. No task and no handler of errors holds this up, wherever it strikes."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """End what takes longer; 0 seconds: nothing does."""

    def ring(_signal: int, _frame: object) -> None:
        raise HungError

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class Report(msgspec.Struct):
    """What came of a run.

    Attributes:
        seed: Which.
        profile: Its name.
        violation: What was broken; None if nothing was.
        faults: The schedule.
        struck: The kinds of the faults that struck, in order.
        marks: How often each came up.
        history: What clients saw.
        events: What happened, in order.
        virtual_seconds: How long it took, in its own time.
        real_seconds: How long it took, in ours.
    """

    seed: int
    profile: str
    violation: ViolationError | None
    faults: list[Fault]
    struck: list[str]
    marks: Counter[str]
    history: History
    events: list[TraceEvent]
    virtual_seconds: float
    real_seconds: float

    @property
    def trace(self) -> str:
        """What happened, line by line."""
        return "".join(f"{event}\n" for event in self.events)

    @property
    def digest(self) -> str:
        """The trace's fingerprint."""
        return hashlib.sha256(self.trace.encode()).hexdigest()[:16]


def run(
    seed: int,
    profile: Profile,
    faults: list[Fault] | None = None,
    *,
    messages: bool = False,
    real_seconds_max: float = 0.0,
) -> Report:
    """Run a seed.

    Args:
        seed: Decides everything.
        profile: How large and how rough.
        faults: Another schedule than the seed's own: when a failure is made smaller.
        messages: Whether the trace has every message.
        real_seconds_max: A run that takes longer is ended, and has hung; 0: it may take for ever.
            Only in a process's main thread.

    Returns:
        What came of it; a broken promise is in it, nothing is raised.
    """
    begun = time.perf_counter()
    schedule = draw(seed, profile) if faults is None else faults
    loop = VirtualLoop()
    world = World(loop, seed, profile, schedule, messages=messages)
    violation = None
    try:
        with _alarm(real_seconds_max):
            loop.run_until_complete(_bounded(world))
    except ViolationError as error:
        violation = error
    except HungError:
        text = f"no end after {real_seconds_max} s of real time; virtual time is {loop.now}"
        violation = ViolationError("liveness", text)
    except Exception as error:  # noqa: BLE001 - whatever it is, a person wants to replay it
        violation = _surprise(error)
    finally:
        loop.close()
    if violation is None and loop.failures:
        failure = loop.failures[0]
        violation = _surprise(failure.get("exception") or RuntimeError(str(failure["message"])))
    return Report(
        seed=seed,
        profile=profile.name,
        violation=violation,
        faults=schedule,
        struck=world.struck,
        marks=world.marks.counts,
        history=world.history,
        events=world.trace.events,
        virtual_seconds=loop.now,
        real_seconds=time.perf_counter() - begun,
    )


async def _bounded(world: World) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        await world.run()


def _surprise(error: BaseException) -> ViolationError:
    violation = ViolationError("no surprise", f"{type(error).__name__}: {error}")
    violation.__cause__ = error
    return violation
