"""An event loop whose time is virtual, and processes on it that can be stopped and killed.

When nothing is ready, time jumps to the next timer: five seconds of silence cost nothing. There are
no sockets, no threads and no wall clock, so a run is decided by its seed alone.

A ``Process`` stands for one operating system process. Whatever is scheduled from within it (timers,
tasks, deliveries to it) belongs to it, by a context variable that every callback inherits. Once it
is killed none of that runs any more, exactly as after SIGKILL; while it is paused all of it waits,
as after SIGSTOP. A process looks at a clock of its own, which may be fast or slow, and which may
have stood still while the process was paused.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from wal.memory_disk import PowerCutError

T = TypeVar("T")
L = TypeVar("L", bound="VirtualLoop")

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)

CLOCK_COST_SECONDS = 0.000_01
"""What looking at the clock costs. Sliced work looks at it between its steps; were it free, a slice
would never end here.
"""

NEVER_SECONDS = 1e9
"""Timers of a clock that stands still are put off by this."""


class DeadlockError(Exception):
    """Somebody waits, and nothing will ever happen."""


class ProcessKilledError(Exception):
    """The process that was to do something was killed before it had done it."""


class Clock:
    """The monotonic clock of one process: how it maps onto the loop's time."""

    __slots__ = ("_loop_then", "_then", "rate")

    def __init__(self) -> None:
        self.rate = 1.0
        self._loop_then = 0.0
        self._then = 0.0

    def at(self, loop_time: float) -> float:
        """What it shows at a time of the loop."""
        return self._then + (loop_time - self._loop_then) * self.rate

    def when(self, shown: float) -> float:
        """The time of the loop at which it shows this."""
        return self._loop_then + (shown - self._then) / self.rate

    def set(self, loop_time: float, shown: float, rate: float) -> None:
        """From this time of the loop on, go on from what is to be shown then, at this rate."""
        self._loop_then, self._then, self.rate = loop_time, shown, rate


class Process:
    """One process: made by ``VirtualLoop.new_process``."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self._loop = loop
        self.name = name
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.ended: asyncio.Future[None] = loop.create_future()
        self.clock = Clock()
        self.paused = False
        self._stopped_at: float | None = None
        self._held: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function as this process would."""
        return self.context.copy().run(function, *args)

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have this process call a function in its next turn."""
        self._loop.call_soon(function, *args, context=self.context.copy())

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of this process."""
        return self._loop.create_task(work, context=self.context.copy())

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Have this process do something to its end.

        Raises:
            ProcessKilledError: It was killed first.
        """
        task = self.spawn(work)
        both: list[asyncio.Future[Any]] = [task, self.ended]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not self.alive or not task.done():
            raise ProcessKilledError(self.name)
        return task.result()

    def execute(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Run a callback that is due, unless this process is dead or stopped."""
        if self.paused:
            self._held.append((callback, args))
        elif self.alive:
            callback(*args)

    def pause(self, *, with_clock: bool = False) -> None:
        """SIGSTOP: whatever is due from now on waits.

        Args:
            with_clock: Its clock stands still too, as when a whole virtual machine is suspended.
        """
        self.paused = True
        if with_clock and self._stopped_at is None:
            self._stopped_at = self._loop.now
            self._loop.move_timers(self, lambda when: when + NEVER_SECONDS)

    def resume(self) -> None:
        """SIGCONT: what waited runs, in its order, before anything newer."""
        self.paused = False
        if self._stopped_at is not None and self.alive:
            stopped_at, self._stopped_at = self._stopped_at, None
            now, clock = self._loop.now, self.clock
            clock.set(now, clock.at(stopped_at), clock.rate)
            stood = now - stopped_at
            self._loop.move_timers(
                self, lambda when: when + stood - (NEVER_SECONDS if when >= NEVER_SECONDS else 0.0)
            )
        while self._held and not self.paused:
            callback, args = self._held.popleft()
            self.call_soon(callback, *args)

    @property
    def suspended(self) -> bool:
        """Whether its clock stands still."""
        return self._stopped_at is not None

    def set_clock_rate(self, rate: float) -> None:
        """Let its clock run this many times as fast as the loop's from now on."""
        clock, now = self.clock, self._loop.now
        before = Clock()
        before.set(now, clock.at(now), clock.rate)
        clock.set(now, clock.at(now), rate)
        self._loop.move_timers(self, lambda when: clock.when(before.at(when)))

    def kill(self) -> None:
        """SIGKILL: nothing of it ever runs again."""
        self.alive = False
        self.paused = False
        self._held.clear()
        if not self.ended.done():
            self.ended.set_result(None)
        for task in list(self.tasks):
            # Its frames are unwound now, in a process whose callbacks are dropped, rather than
            # whenever the collector finds them.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # silence is meant here
            work = task.get_coro()
            assert work is not None, "every task runs a coroutine"
            if getattr(work, "cr_running", False):
                # It is in the middle of this very step, and unwinds by what is raised there.
                continue
            with suppress(PowerCutError):
                self.run(work.close)
        self.tasks.clear()


def current_process() -> Process | None:
    """The process whose code runs at this moment; None if it is the network's, or a test's."""
    return _process.get()


class _Leap:
    """In the place of a selector: instead of waiting, let time go by."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise DeadlockError(f"nothing is due after {self._loop.now:.3f} s, and somebody waits")
        if timeout > 0:
            self._loop.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. ``now`` is the time in seconds since it was made.

    ``failures`` collects what nobody caught: a test that ends with any has failed.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.clock_cost_seconds = CLOCK_COST_SECONDS
        self.failures: list[dict[str, Any]] = []
        self._processes: list[Process] = []
        self.nobody = contextvars.Context()
        """For what no process does: the network, the test."""
        super().__init__()
        self._selector = _Leap(self)
        # Timers closer together than this run in the same turn.
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, failure: self._on_failure(failure))

    def new_process(self, name: str) -> Process:
        """A process with nothing in it yet."""
        process = Process(self, name)
        self._processes.append(process)
        return process

    def _on_failure(self, failure: dict[str, Any]) -> None:
        # The power went: whoever cut it knows.
        if not isinstance(failure.get("exception"), PowerCutError):
            self.failures.append(failure)

    def time(self) -> float:
        """Now, a little later at each look, on the clock of the process that looks."""
        self.now += self.clock_cost_seconds
        process = _process.get()
        return self.now if process is None else process.clock.at(self.now)

    def move_timers(self, process: Process, moved: Callable[[float], float]) -> None:
        """Put each timer of a process to another time."""
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        for timer in timers:
            if timer._context.get(_process) is process:
                timer._when = max(self.now, moved(timer._when))
        heapq.heapify(timers)

    def _process_events(self, event_list: list[object]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody is to be woken: there is one thread."""

    # Typeshed wants the callbacks' types carried through; there is nothing to gain from it here.
    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As asyncio's, on behalf of a process."""
        context = _current_if_none(context)
        process = context.get(_process)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        if not process.alive:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(process.execute, callback, args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, on behalf of a process."""
        context = _current_if_none(context)
        process = context.get(_process)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        when = process.clock.when(when)
        if not process.alive:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, process.execute, callback, args, context=context)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """As asyncio's; a process knows its tasks."""
        task = super().create_task(coro, name=name, context=context)
        process = _current_if_none(context).get(_process)
        if process is not None:
            tasks = process.tasks
            tasks[task] = None
            task.add_done_callback(lambda done: _forget(tasks, done))
        return task

    def close(self) -> None:
        """End every process, then the loop."""
        for process in self._processes:
            process.kill()
        super().close()


def _current_if_none(context: contextvars.Context | None) -> contextvars.Context:
    # An empty context is false.
    return contextvars.copy_context() if context is None else context


def _forget(tasks: dict[asyncio.Task[Any], None], task: asyncio.Task[Any]) -> None:
    tasks.pop(task, None)


def run_virtual(
    work: Callable[[L], Coroutine[Any, Any, T]],
    seconds_max: float,
    new_loop: Callable[[], L] = VirtualLoop,  # type: ignore[assignment]  # L is bound to it
) -> T:
    """Run a coroutine on a loop of its own.

    Args:
        work: Makes the coroutine for the loop.
        seconds_max: Virtual seconds that it may take.
        new_loop: Makes the loop.

    Raises:
        TimeoutError: It took longer.
        ExceptionGroup: A callback or a task raised what nobody caught.
    """
    loop = new_loop()

    async def bounded() -> T:
        async with asyncio.timeout(seconds_max):
            return await work(loop)

    try:
        result = loop.run_until_complete(bounded())
    finally:
        loop.close()
    if loop.failures:
        raise ExceptionGroup(
            "; ".join(str(failure["message"]) for failure in loop.failures),
            [failure.get("exception") or RuntimeError(str(failure)) for failure in loop.failures],
        )
    return result
