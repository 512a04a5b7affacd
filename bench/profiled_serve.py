"""What does a node spend its processor on? ``kvstore serve`` with a timer that its own work winds.

    python -m bench.profiled_serve DIRECTORY SERVE_FLAG...

SIGUSR1 starts the timer. Each time it is up, ``faulthandler`` adds the stack of the main thread to
``DIRECTORY/<pid>.stacks``, and the garbage collector says there when it begins (``gc start``) and
ends (``gc stop``). SIGUSR2 stops the timer and writes to ``DIRECTORY/<pid>.threads`` where each
other thread stands. Before and afterwards the node is what ``kvstore serve`` is.

Why in the node: the timer counts the CPU time of the main thread, so a node that waits for a
processor is not seen where it waits. A sampler that looks from outside by the clock does see it
there. Where more wants to run than there are processors that is half of its samples, most of them
in the event loop and in calls that wake somebody: py-spy had a follower's loop at 48 % of its CPU
time, perf at 9 %. Why ``faulthandler``: it writes from within the handler in C. A handler in Python
runs when the interpreter next looks for signals, mostly in another function.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from kvstore.cli.main import main as command_line

START: Final = signal.SIGUSR1
STOP: Final = signal.SIGUSR2
"""Two, as signals of one kind that come close together are one."""
INTERVAL_NS: Final = 1_000_000
"""The kernel looks at such timers at its own ticks only, mostly every 4 ms."""

_SIGEV_THREAD_ID: Final = 4


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("unused", ctypes.c_int * 11),
    )


class _TimerSpec(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")
    )


class ThreadTimer:
    """Sends SIGPROF to the thread that made it, each time it has worked for so long.

    ``signal.setitimer`` knows only the time of the whole process: what the log's thread does would
    count to wherever the main thread is.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _SigEvent(
            signal=signal.SIGPROF, notify=_SIGEV_THREAD_ID, thread_id=threading.get_native_id()
        )
        clock = ctypes.c_int(time.CLOCK_THREAD_CPUTIME_ID)
        self._check(self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(self._timer)))

    def set(self, nanoseconds: int) -> None:
        """Send it every so many nanoseconds of work; 0: no more."""
        spec = _TimerSpec(every_ns=nanoseconds, first_ns=nanoseconds)
        self._check(self._libc.timer_settime(self._timer, 0, ctypes.byref(spec), None))

    def _check(self, result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def install(directory: Path) -> None:
    """Have the two signals start and stop the samples of this thread, the main one."""
    timer = ThreadTimer()
    stacks = (directory / f"{os.getpid()}.stacks").open("ab", buffering=0)
    faulthandler.register(signal.SIGPROF, file=stacks.fileno(), all_threads=False)

    def on_collection(phase: str, info: dict[str, Any]) -> None:
        del info
        stacks.write(f"gc {phase}\n".encode())

    def start(number: int, frame: FrameType | None) -> None:
        del number, frame
        gc.callbacks.append(on_collection)
        timer.set(INTERVAL_NS)

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        timer.set(0)
        gc.callbacks.remove(on_collection)
        part = directory / f"{os.getpid()}.part"
        part.write_bytes(msgspec.json.encode(_other_threads()))
        part.replace(part.with_suffix(".threads"))

    for number, handler in ((START, start), (STOP, stop)):
        signal.signal(number, handler)
        signal.siginterrupt(number, False)


def _other_threads() -> dict[int, list[str]]:
    """The files of the functions that each other thread is in, by its id in the kernel."""
    threads = {thread.ident: thread.native_id for thread in threading.enumerate()}
    found = {}
    for ident, innermost in sys._current_frames().items():  # noqa: SLF001
        native = threads.get(ident)
        if native is not None and ident != threading.get_ident():
            frame: FrameType | None = innermost
            paths = []
            while frame is not None:
                paths.append(frame.f_code.co_filename)
                frame = frame.f_back
            found[native] = paths
    return found


if __name__ == "__main__":
    install(Path(sys.argv[1]))
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(command_line(["serve", *sys.argv[2:]]))
