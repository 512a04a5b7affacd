"""What is a node busy with, and what does each of its threads spend? Its timer and the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench import stages
from bench.figures import BenchError
from bench.profiled_serve import START, STOP
from bench.systems import System
from kvstore.version import KVSTORE_VERSION

WRITE_SECONDS_MAX: Final = 10.0
LOOK_SECONDS: Final = 0.01

_STACK: Final = "Stack (most recent call first):"
_COLLECTOR: Final = ("gc start", "gc stop")
_NO_FRAME: Final = "<no Python frame>"
_NO_FRAMES_MORE: Final = ("", "...")
_FILE: Final = re.compile(r'^  File "(.*)", line ')


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one node was seen at."""

    samples: dict[str, int]
    """How often the main thread was at work in each stage."""
    threads: dict[int, str]
    """The stage in which each other thread stands, by its id in the kernel; mostly it waits."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of one thread, in microseconds (of a resolution of a tick, mostly 10 ms)."""

    user_us: float
    system_us: float

    @property
    def cpu_us(self) -> float:
        """Both."""
        return self.user_us + self.system_us


def ours(first_port: int, directory: Path) -> System:
    """Three nodes of this tree's kvstore that can be sampled.

    Args:
        first_port: As of any system.
        directory: Where the nodes leave their samples.
    """
    program = [sys.executable, "-m", "bench.profiled_serve", str(directory.absolute())]
    return System("kvstore", f"kvstore {KVSTORE_VERSION}", program, first_port)


@contextlib.contextmanager
def sampling(pids: list[int], directory: Path) -> Iterator[list[Seen]]:
    """Sample nodes meanwhile; what each has seen is in the list afterwards.

    Raises:
        BenchError: A node has ended, or does not write what it has seen.
    """
    found: list[Seen] = []
    for pid in pids:
        os.kill(pid, START)
    try:
        yield found
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, STOP)
    found += [_read(pid, directory) for pid in pids]


def _read(pid: int, directory: Path) -> Seen:
    """What a node has written; it is deleted, but for the file that it has open."""
    stacks, threads = directory / f"{pid}.stacks", directory / f"{pid}.threads"
    deadline = time.monotonic() + WRITE_SECONDS_MAX
    while not threads.exists():
        if time.monotonic() > deadline:
            raise BenchError(f"process {pid} has not said what it was busy with: see its log")
        time.sleep(LOOK_SECONDS)
    standing = msgspec.json.decode(threads.read_bytes(), type=dict[int, list[str]])
    threads.unlink()
    samples = parse(stacks.read_text())
    os.truncate(stacks, 0)
    return Seen(
        samples=dict(samples),
        threads={thread: stages.of_stack(files) for thread, files in standing.items()},
    )


def parse(text: str) -> Counter[str]:
    """How many of the stacks that ``faulthandler`` has written fall to each stage.

    Raises:
        BenchError: There is something else between them.
    """
    found: Counter[str] = Counter()
    files: list[str] = []
    collecting = False
    # The end is that of the last stack.
    for line in [*text.splitlines(), _STACK]:
        file = _FILE.match(line)
        if file is not None:
            files.append(file[1])
        elif line in {_STACK, *_COLLECTOR}:
            if files:
                found[stages.COLLECTOR if collecting else stages.of_stack(files)] += 1
                files = []
            collecting = line == _COLLECTOR[0] or (collecting and line == _STACK)
        elif line.strip() == _NO_FRAME:
            files.append("")
        elif line.strip() not in _NO_FRAMES_MORE:
            raise BenchError(f"a node wrote what is no stack: {line[:200]!r}")
    return found


def resting(pid: int, seen: Seen) -> dict[int, str]:
    """The stage in which each thread of a quiet node waits for work, by its id in the kernel."""
    return {**seen.threads, pid: stages.LOOP}


def threads(pid: int) -> dict[int, Spent]:
    """What each thread of a process has spent until now, by its id in the kernel.

    Raises:
        BenchError: The process has ended.
    """
    found = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # A thread has ended.
                found[int(task.name)] = parse_stat((task / "stat").read_text())
    except OSError as error:
        raise BenchError(f"process {pid} has ended: {error}") from error
    return found


def parse_stat(stat: str) -> Spent:
    """Read the text of ``/proc/<pid>/task/<tid>/stat``."""
    # The name comes second, in brackets, and may hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    tick_us = 1e6 / os.sysconf("SC_CLK_TCK")
    return Spent(user_us=int(fields[11]) * tick_us, system_us=int(fields[12]) * tick_us)


def since(after: dict[int, Spent], before: dict[int, Spent]) -> dict[int, Spent]:
    """What each thread has spent between the two; nothing of threads that have ended."""
    none = Spent(user_us=0.0, system_us=0.0)
    return {
        thread: Spent(
            user_us=spent.user_us - before.get(thread, none).user_us,
            system_us=spent.system_us - before.get(thread, none).system_us,
        )
        for thread, spent in after.items()
    }
